"""Every change of a trade, and of its verdict, with its proof, as far back as the journal keeps."""

from __future__ import annotations

from typing import Any

from ghostclean.core.ledger import text
from ghostclean.errors import LedgerFailed

from .ports import Ledger, Record, State


def explain_trade(ledger: Ledger, state: State, trade_id: str) -> dict[str, Any]:
    """The document of `explain`; an id that neither journal nor ledger knows is an error in it."""
    entries = state.journal(trade_id=trade_id)
    error = detail = None
    record: Record | None = None
    try:
        record = ledger.get([trade_id]).get(trade_id)
    except LedgerFailed as failure:
        if not entries:  # whether there is such a trade is not known then
            error, detail = failure.code, str(failure)
    if not entries and record is None and error is None:
        error = "reconcile_failed"
        detail = f"neither the journal nor the ledger knows a trade {trade_id!r}; nothing was changed; check the id"
    known = text(record, "ticker", "symbol") if record is not None else None
    last = state.recall("verdicts", [trade_id]).get(trade_id)
    last = last if isinstance(last, dict) else None  # none for a trade that is closed, or that no run has seen
    return {
        "ok": error is None,
        "id": trade_id,
        "ticker": entries[-1].ticker if entries else known,
        "status": text(record, "status") if record is not None else None,
        "verdict": last.get("verdict") if last else entries[-1].verdict if entries else None,
        "verdictReason": last.get("reason") if last else None,
        "verdictSince": last.get("since") if last else None,
        "entries": [entry.to_dict() for entry in entries],
        "error": error,
        "detail": detail,
    }
