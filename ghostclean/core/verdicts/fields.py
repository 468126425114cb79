"""The ledger fields that a verdict states; whoever writes leaves out those that are right already."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from ghostclean.core.allocation import Allocation, EntryState, Family
from ghostclean.core.broker import ZERO, BadNumber, iso, number
from ghostclean.core.ledger import NOT_FOUND, POSITION_OPEN, SIZE_FIELDS, Trade

from .pnl import Exit


def order_status(family: Family) -> dict[str, Any]:
    """`alpacaStatus` and `brokerStatus`: the entry order's status."""
    status = family.last.status if family.last is not None else POSITION_OPEN
    return {"alpacaStatus": status, "brokerStatus": status}


def live_fields(allocation: Allocation, *, keep_fills: bool = False) -> dict[str, Any]:
    """A live trade: its order's status and fills, and when it opened.

    `keep_fills`: the position is what the ledger says and not what the order says (a scale-in).
    """
    trade, family = allocation.trade, allocation.family
    fields: dict[str, Any] = {"autoEntryStatus": "OPEN", **order_status(family)}
    if trade.is_pending:
        fields["status"] = "OPEN"
    if not keep_fills:
        fields |= _fills(allocation)
    if trade.opened_at is None and family.filled:
        at = family.chain[-1].fill_time or family.entered_at
        if at is not None:
            fields["openedAt"] = iso(at)
    return fields


def _fills(allocation: Allocation) -> dict[str, Any]:
    """`filledQty`, never lowered, and `avgFillPrice` with it; the trade's part where it shares an entry."""
    trade, family = allocation.trade, allocation.family
    filled = family.filled if allocation.part is None else allocation.part
    if not filled or (trade.filled_qty is not None and trade.filled_qty > filled) or _is_a_part(trade, family, filled):
        return {}
    price = _average_price(family)
    return {"filledQty": filled} | ({"avgFillPrice": price} if price is not None else {})


def _is_a_part(trade: Trade, family: Family, filled: Decimal) -> bool:
    """Whether its record says that it was less than the entry, of which some is sold again.

    The other records of that entry may have left the ledger: whose the rest was, nobody can tell.
    """
    first = trade.initial_size or trade.filled_qty
    is_sold = any(o.filled_qty for o in family.exits) or trade.initial_size not in (None, trade.size)
    return is_sold and first is not None and first < filled and trade.size != filled


def _average_price(family: Family) -> Decimal | None:
    """The average price of the entry's fills, as the broker states it."""
    value = ZERO
    for order in family.entries:
        if order.filled_qty:
            if order.avg_price is None:
                return None
            value += order.avg_price * order.filled_qty
    return value / family.filled if family.filled else None


def closed_fields(reason: str, at: datetime, exit_: Exit | None, allocation: Allocation) -> dict[str, Any]:
    """A close with what is known of it; unknown price, P&L and R are null."""
    fields: dict[str, Any] = {"status": "CLOSED", "autoEntryStatus": "CLOSED"}
    if allocation.family.state is EntryState.KNOWN:
        fields |= order_status(allocation.family) | ({} if allocation.is_scaled else _fills(allocation))
    fields |= {
        "closedAt": iso(at),
        "closeReason": reason,
        "closePrice": exit_.price if exit_ else None,
        "realizedPnL": exit_.pnl if exit_ else None,
        "realizedR": exit_.r if exit_ else None,
    }
    if exit_ and exit_.order_id:
        fields["closeOrderId"] = exit_.order_id
    return fields


def vanished_fields(reason: str, at: datetime, record: Mapping[str, Any]) -> dict[str, Any]:
    """A close that rests on absence: its exit is unknown; what was booked of a part sold before stays."""
    fields: dict[str, Any] = {
        "status": "CLOSED",
        "autoEntryStatus": "CLOSED",
        "alpacaStatus": NOT_FOUND,
        "brokerStatus": NOT_FOUND,
        "closedAt": iso(at),
        "closeReason": reason,
        "closePrice": None,
    }
    return fields | unbooked(record)


def unbooked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Null for P&L and R, unless a part of the trade was booked with proof before."""
    return {} if record.get("realizedPnL") is not None else {"realizedPnL": None, "realizedR": None}


def unfilled_fields(reason: str, at: datetime, allocation: Allocation) -> dict[str, Any]:
    """A trade that never was: nothing filled, nothing won or lost."""
    fields = closed_fields(reason, at, None, allocation)
    return fields | {"filledQty": ZERO, "realizedPnL": ZERO, "realizedR": None}


def reduced_fields(allocation: Allocation, left: Decimal, part: Exit) -> dict[str, Any]:
    """The smaller size in the field it was read from and in those that said the same."""
    trade = allocation.trade
    fields = live_fields(allocation, keep_fills=allocation.is_scaled)
    for name in SIZE_FIELDS:
        if name == trade.size_field or _says(trade, name):
            fields[name] = left
    if trade.initial_size is None and trade.size is not None:
        fields["initialQuantity"] = trade.size
    return fields | ({"realizedPnL": part.pnl, "realizedR": part.r} if part.pnl is not None else unbooked(trade.record))


def _says(trade: Trade, name: str) -> bool:
    try:
        return name in trade.record and trade.size is not None and number(trade.record[name]) == trade.size
    except BadNumber:
        return False
