"""What the final records of a symbol say about those that are still open.

An entry that one of them names by nothing but size and time is still its own, and one that was
closed without proof may own a sale that nobody names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import Evidence, Side, parse_time
from ghostclean.core.ledger import ENTRY_ORDER_FIELDS, Trade, is_vanished, order_id, read_trade, record_size

from .attribution import Vanished
from .sharing import owns_fills

Record = Mapping[str, Any]


class Finished:
    """The final records of one symbol, as far as they held shares."""

    def __init__(self, records: Sequence[Record], evidence: Evidence) -> None:
        self._evidence = evidence
        self._vanished: list[Trade] = []
        self._nameless: list[tuple[Side, Decimal, datetime]] = []
        for record in records:
            if owns_fills(record):
                self._add(record)

    def _add(self, record: Record) -> None:
        entry = order_id(record, *ENTRY_ORDER_FIELDS)
        if is_vanished(record):
            self._vanished.append(read_trade(record))
        elif self._evidence.find(entry) is None:
            trade, size = read_trade(record), record_size(record)
            if size is not None and trade.opening is not None:
                self._nameless.append((trade.side, size, trade.opening))

    def nameless(self, side: Side) -> Iterable[tuple[Decimal, datetime]]:
        """Size and opening of those whose entry order is not known, and which are out."""
        return ((size, opened) for its, size, opened in self._nameless if its is side)

    def vanished(self, side: Side) -> list[Vanished]:
        """Those that were closed without proof."""
        found: list[Vanished] = []
        for trade in self._vanished:
            end = parse_time(trade.record.get("closedAt"))
            entry = self._evidence.find(trade.entry_order)
            start = (entry.submitted_at if entry is not None else None) or trade.opening
            sizes = [q for q in (trade.filled_qty, trade.size) if q]
            if trade.side is side and start is not None and end is not None and sizes:
                certain = bool(entry.filled_qty if entry is not None else trade.entry_order and trade.filled_qty)
                found.append(Vanished(trade.id or "", min(sizes), start, end, certain))
        return found
