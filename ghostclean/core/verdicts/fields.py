"""Which ledger fields a verdict writes; fields that are right already are left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from ghostclean.core.allocation import Entry, Exit, OwnOrders
from ghostclean.core.broker import ZERO, BadNumber, iso, number
from ghostclean.core.ledger import NOT_FOUND, POSITION_OPEN, SIZE_FIELDS, Trade


def order_status(own: OwnOrders) -> dict[str, Any]:
    """`alpacaStatus` and `brokerStatus`: the entry order's status."""
    status = own.last.status if own.last is not None else POSITION_OPEN
    return {"alpacaStatus": status, "brokerStatus": status}


def live(trade: Trade, own: OwnOrders, *, agrees_with_ledger: bool) -> dict[str, Any]:
    """What a live trade's fields should say.

    `agrees_with_ledger`: the position is what the ledger says and not what the order says
    (a scale-in); then the filled quantity and its average price stay.
    """
    fields: dict[str, Any] = {"autoEntryStatus": "OPEN", **order_status(own)}
    if trade.is_pending:
        fields["status"] = "OPEN"
    fields |= fills(trade, own, keep=agrees_with_ledger)
    if trade.opened_at is None and own.filled:
        at = own.chain[-1].fill_time or own.entered_at
        if at is not None:
            fields["openedAt"] = iso(at)
    return fields


def fills(trade: Trade, own: OwnOrders, *, keep: bool) -> dict[str, Any]:
    """`filledQty`, never lowered, and `avgFillPrice` with it."""
    filled = own.filled
    if not filled or keep or (trade.filled_qty is not None and trade.filled_qty > filled):
        return {}
    fields: dict[str, Any] = {"filledQty": filled}
    price = entry_price(own)
    if price is not None:
        fields["avgFillPrice"] = price
    return fields


def entry_price(own: OwnOrders) -> Decimal | None:
    """The average price of the entry's fills."""
    value = ZERO
    for order in own.chain:
        if order.filled_qty:
            if order.avg_price is None:
                return None
            value += order.avg_price * order.filled_qty
    return value / own.filled if own.filled else None


def closed(reason: str, at: datetime, exit_: Exit | None, own: OwnOrders) -> dict[str, Any]:
    """A close with what is known of it; unknown price, P&L and R are null."""
    fields: dict[str, Any] = {"status": "CLOSED", "autoEntryStatus": "CLOSED"}
    if own.entry is Entry.KNOWN:
        fields |= order_status(own)
        fields |= fills(own.trade, own, keep=False)
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


def vanished(reason: str, at: datetime) -> dict[str, Any]:
    """A close that rests on absence: everything about the exit is unknown."""
    return {
        "status": "CLOSED",
        "autoEntryStatus": "CLOSED",
        "alpacaStatus": NOT_FOUND,
        "brokerStatus": NOT_FOUND,
        "closedAt": iso(at),
        "closeReason": reason,
        "closePrice": None,
        "realizedPnL": None,
        "realizedR": None,
    }


def without_fill(reason: str, at: datetime, own: OwnOrders) -> dict[str, Any]:
    """A trade that never was: nothing filled, nothing won or lost."""
    fields = closed(reason, at, None, own)
    return fields | {"filledQty": ZERO, "realizedPnL": ZERO, "realizedR": None}


def reduced(trade: Trade, own: OwnOrders, left: Decimal, part: Exit) -> dict[str, Any]:
    """The smaller size in the field it was read from and in those that said the same."""
    fields = live(trade, own, agrees_with_ledger=False)
    for name in SIZE_FIELDS:
        if name == trade.size_field or _equals(trade.record, name, trade.size):
            fields[name] = left
    if trade.initial_size is None and trade.size is not None:
        fields["initialQuantity"] = trade.size
    return fields | {"realizedPnL": part.pnl, "realizedR": part.r}


def _equals(record: Mapping[str, Any], name: str, size: Decimal | None) -> bool:
    try:
        return name in record and size is not None and number(record[name]) == size
    except BadNumber:
        return False
