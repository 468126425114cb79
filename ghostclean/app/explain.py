"""Every change of a trade, and of its verdict, with its proof, as far back as the journal keeps."""

from __future__ import annotations

from typing import Any

from ghostclean.errors import LedgerFailed

from .ports import Ledger, State


def explain_trade(ledger: Ledger, state: State, trade_id: str) -> dict[str, Any]:
    """The document of `explain`; an id that neither journal nor ledger knows is an error in it."""
    entries = state.journal(trade_id=trade_id)
    error = detail = None
    if not entries and not _in_ledger(ledger, trade_id):
        error = "reconcile_failed"
        detail = f"neither the journal nor the ledger knows a trade {trade_id!r}; nothing was changed; check the id"
    return {
        "ok": error is None,
        "id": trade_id,
        "ticker": entries[-1].ticker if entries else None,
        "verdict": entries[-1].verdict if entries else None,
        "entries": [entry.to_dict() for entry in entries],
        "error": error,
        "detail": detail,
    }


def _in_ledger(ledger: Ledger, trade_id: str) -> bool:
    """Whether the ledger has it; one that cannot be read leaves the question to the journal."""
    try:
        return trade_id in ledger.get([trade_id])
    except LedgerFailed:
        return False
