"""Every change of a trade, and of its verdict, with its proof, as far back as the journal keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ghostclean.app.parts import Stores
from ghostclean.app.ports import JournalEntry, Ledger, Record, State
from ghostclean.core.ledger import text
from ghostclean.errors import LedgerFailed


def explain_trade(stores: Stores, trade_id: str) -> dict[str, Any]:
    """The document of `explain`; an id that neither journal nor ledger knows is an error in it."""
    entries = stores.state.journal(trade_id=trade_id)
    record, error, detail = _record(stores.ledger, trade_id)
    if entries:
        error = detail = None  # the journal alone is an answer
    elif record is None and error is None:
        error = "reconcile_failed"
        detail = f"neither the journal nor the ledger knows a trade {trade_id!r}; nothing was changed; check the id"
    status = None if record is None else text(record, "status")
    ticker = entries[-1].ticker if entries else None if record is None else text(record, "ticker", "symbol")
    return {
        "ok": error is None,
        "id": trade_id,
        "ticker": ticker,
        "status": status,
        **_verdict(stores.state, trade_id, entries),
        "entries": [entry.to_dict() for entry in entries],
        "error": error,
        "detail": detail,
    }


def _record(ledger: Ledger, trade_id: str) -> tuple[Record | None, str | None, str | None]:
    try:
        return ledger.get([trade_id]).get(trade_id), None, None
    except LedgerFailed as failure:
        return None, failure.code, str(failure)


def _verdict(state: State, trade_id: str, entries: Sequence[JournalEntry]) -> dict[str, Any]:
    last = state.recall("verdicts", [trade_id]).get(trade_id)
    if not isinstance(last, Mapping):
        verdict = entries[-1].verdict if entries else None
        return {"verdict": verdict, "verdictReason": None, "verdictSince": None}
    return {"verdict": last.get("verdict"), "verdictReason": last.get("reason"), "verdictSince": last.get("since")}
