"""The document of a command that failed before it began: counters are 0, `given` are the options as far as read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

Given = Mapping[str, Any]
Document = dict[str, Any]


def not_begun(command: str, error: str, detail: str, given: Given) -> Document:
    """The JSON document for this failure."""
    shape = _SHAPES.get(command)
    document = shape(error, detail, given) if shape else {}
    return {**document, "ok": False, "error": error, "detail": detail}


def _reconcile(error: str, detail: str, given: Given) -> Document:
    from ghostclean.core.broker import iso
    from ghostclean.result import Result

    del error, detail
    return Result(given.get("run_id") or "", "cli", iso(datetime.now(UTC)), 0).to_dict()


def _auto_manage(error: str, detail: str, given: Given) -> Document:
    from ghostclean.core.broker import iso
    from ghostclean.result import ManageOutcome, ManageResult

    now = iso(datetime.now(UTC))
    return ManageResult(
        ManageOutcome.FAIL,
        error,
        run_id=given.get("run_id") or "",
        source="cli",
        started_at=now,
        duration_ms=0,
        now=now,
        enabled=False,
        forced=False,
        dry_run=False,
        cfg={},
        detail=detail,
    ).to_dict()


def _status(error: str, detail: str, given: Given) -> Document:
    from ghostclean.app.operate.status import unread_document

    del error
    unread = unread_document(detail, now=datetime.now(UTC))
    return {**unread, "ledgers": []} if given.get("every_ledger") else unread


def _gate(error: str, detail: str, given: Given) -> Document:
    from ghostclean.app.operate.gate import DEFAULT_MAX_OPEN, Gate

    del error
    return Gate(None, given.get("max_open", DEFAULT_MAX_OPEN), (), detail).to_dict()


def _explain(error: str, detail: str, given: Given) -> Document:
    del error, detail
    unknown = dict.fromkeys(("ticker", "status", "verdict", "verdictReason", "verdictSince", "held", "note", "kind"))
    return {
        "id": given.get("subject"),
        "kind": None,
        **unknown,
        "entries": [],
        "beside": {},
        "attention": [],
        "candidates": [],
        "cure": [],
    }


def _history(error: str, detail: str, given: Given) -> Document:
    del error, detail
    return {"subject": given.get("subject"), "since": None, "entries": [], "sums": []}


def _operators_change(error: str, detail: str, given: Given) -> Document:
    del error, detail
    return {
        "dryRun": given.get("dry_run", False),
        "runId": None,
        "subject": given.get("trade_id") or given.get("run_id"),
        "changed": 0,
        "refused": 0,
        "results": [],
    }


def _fleet(error: str, detail: str, given: Given) -> Document:
    del error, detail
    return {"command": given.get("inner"), "folder": given.get("folder"), "accounts": [], "notes": []}


_SHAPES: Mapping[str, Callable[[str, str, Given], Document]] = {
    "reconcile": _reconcile,
    "auto-manage": _auto_manage,
    "status": _status,
    "gate": _gate,
    "explain": _explain,
    "history": _history,
    "resolve": _operators_change,
    "undo": _operators_change,
    "fleet": _fleet,
}
