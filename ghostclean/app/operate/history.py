"""What the runs have changed in the books, as far back as the journal keeps, with the P&L by reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ghostclean.app.journal import WRITTEN
from ghostclean.app.ports import JournalEntry, State
from ghostclean.core.broker import ZERO, BadNumber, number, parse_time, symbol_key
from ghostclean.core.ledger import json_value
from ghostclean.core.verdicts import Action

from .undo import UNDONE

_RESOLVED = "resolved"
_BY_RUNS = (Action.CLOSED, Action.REDUCED, Action.ADOPTED, Action.FLATTENED, Action.REOPENED)
BOOKED = frozenset({*map(str, _BY_RUNS), UNDONE, _RESOLVED})  # more than a sync or a moved stop
_EXITS = frozenset({str(Action.CLOSED), str(Action.REDUCED)})


@dataclass(frozen=True, slots=True)
class Row:
    """One change of the books; `pnl` is what it added to the realized P&L, None where that is not known.

    `again` is set where an earlier change had closed the trade and the app overwrote that.
    """

    entry: JournalEntry
    pnl: Decimal | None
    again: bool

    @property
    def close_reason(self) -> str | None:
        found = (self.entry.after or {}).get("closeReason")
        return found if isinstance(found, str) else None

    @property
    def is_exit(self) -> bool:
        """Whether it ended the trade or a part of it; a person's word may also relink it."""
        return self.entry.action in _EXITS or (self.entry.action == _RESOLVED and _closes(self.entry))

    def to_dict(self) -> dict[str, Any]:
        entry = self.entry
        about = {"at": entry.at, "action": entry.action, "ticker": entry.ticker, "id": entry.trade_id}
        why = {"verdict": entry.verdict, "closeReason": self.close_reason, "reason": entry.reason}
        money = json_value({"closePrice": (entry.after or {}).get("closePrice"), "pnl": self.pnl})
        return {**about, **why, **money, "runId": entry.run_id, "source": entry.source}


def read_history(
    state: State, *, since: datetime | None = None, subject: str | None = None, every_change: bool = False
) -> dict[str, Any]:
    """The document of `history`, oldest first; raises StateFailed.

    `subject` is a trade's id or a symbol; `every_change` adds syncs and moved stops.
    """
    entries = [e for e in state.journal() if e.outcome == WRITTEN and e.after is not None and _is_about(e, subject)]
    rows = [row for row in _rows(entries) if every_change or row.entry.action in BOOKED]
    rows = [row for row in rows if since is None or (parse_time(row.entry.at) or since) >= since]
    return {
        "ok": True,
        "subject": subject,
        "since": None if since is None else since.isoformat(),
        "entries": [row.to_dict() for row in rows],
        "sums": _sums(rows),
        "error": None,
        "detail": None,
    }


def _is_about(entry: JournalEntry, subject: str | None) -> bool:
    return subject is None or subject == entry.trade_id or symbol_key(subject) == symbol_key(entry.ticker)


def _rows(entries: Iterable[JournalEntry]) -> Iterator[Row]:
    """With the difference each change made to what is booked of its trade, whatever the app took out of the record."""
    booked: dict[str, Decimal] = {}
    closed: set[str] = set()
    for entry in entries:
        trade, after, before = entry.trade_id, _money(entry.after), _money(entry.before)
        pnl = None
        if after is not None or before is not None:
            base = before if before is not None else booked.get(trade, ZERO)
            booked[trade] = after or ZERO
            pnl = booked[trade] - base
        yield Row(entry, pnl, again=_closes(entry) and trade in closed)
        if _closes(entry):
            closed.add(trade)
        elif "status" in (entry.after or {}):
            closed.discard(trade)


def _closes(entry: JournalEntry) -> bool:
    return (entry.after or {}).get("status") == "CLOSED"


def _money(fields: Mapping[str, Any] | None) -> Decimal | None:
    try:
        return number((fields or {}).get("realizedPnL"))
    except BadNumber:
        return None


def _sums(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Count and P&L by reason, a close that was made again once; `unknown` counts the exits whose P&L is not known."""
    by_reason: dict[str, list[Row]] = {}
    for row in rows:
        by_reason.setdefault(_reason(row), []).append(row)
    return [_sum(reason, found) for reason, found in sorted(by_reason.items())]


def _sum(reason: str, rows: Sequence[Row]) -> dict[str, Any]:
    known = [row.pnl for row in rows if row.pnl is not None]
    total: dict[str, Any] = json_value({"pnl": sum(known, ZERO)})
    once = [row for row in rows if not row.again]
    unknown = sum(1 for row in once if row.pnl is None and row.is_exit)
    return {"reason": reason, "count": len(once), **total, "unknown": unknown}


def _reason(row: Row) -> str:
    """Up to the colon: `duplicate_of:t-1` is one reason with all other duplicates."""
    return (row.close_reason or row.entry.action).partition(":")[0]
