"""Fills that no record owns: what a hand, or the broker itself, did to a position.

A fill is owned when its order, or any order it is tied to (leg, parent, replace chain, client
id), is named by some record of the ledger, open or closed, or was attributed by an earlier run,
or carries one of our own client order ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import ZERO, Evidence, Fill, Order, Side, parse_client_id, parse_time
from ghostclean.core.ledger import is_vanished, order_ids, record_size, text

from .own_orders import Lot
from .sharing import owns_fills

_SAME_MOMENT = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class FreeFills:
    """Unowned executions of one symbol, oldest first, those without a time last."""

    lots: tuple[Lot, ...]

    def closing(self, side: Side, since: datetime | None = None) -> list[Lot]:
        return [lot for lot in self.lots if lot.side == side.closing and _after(lot, since)]

    def opening(self, side: Side, since: datetime | None = None) -> list[Lot]:
        return [lot for lot in self.lots if lot.side == side.opening and _after(lot, since)]

    def closes_after(self, side: Side, since: datetime) -> bool:
        """Whether anything closing happened at or after a time."""
        last = next((lot for lot in reversed(self.lots) if lot.side == side.closing), None)
        return last is not None and _after(last, since)

    def latest(self) -> datetime | None:
        """When the last of them happened."""
        return next((lot.at for lot in reversed(self.lots) if lot.at), None)


def total(lots: Iterable[Lot]) -> Decimal:
    """The quantity of several lots."""
    return sum((lot.qty for lot in lots), ZERO)


def before(lots: Sequence[Lot], end: datetime | None) -> Sequence[Lot]:
    """The lots before a time, all of them for None; what has no time cannot be told to be before."""
    return lots if end is None else [lot for lot in lots if lot.at is not None and lot.at < end]


def _after(lot: Lot, since: datetime | None) -> bool:
    return since is None or lot.at is None or lot.at >= since


def free_fills(
    orders: Sequence[Order],
    fills: Sequence[Fill],
    evidence: Evidence,
    owned: set[str],
    closed: Sequence[Mapping[str, Any]],
) -> FreeFills:
    """The lots of a symbol that nobody owns; `owned` are order ids claimed by any record."""
    closed = [record for record in closed if owns_fills(record)]
    # `owned` spans all symbols: it is looked into, never copied.
    named = {order_id for record in closed for order_id in order_ids(record)}
    tied = _tied(orders, owned, named)
    rows: dict[str, list[Fill]] = defaultdict(list)
    for fill in fills:
        rows[fill.order_id].append(fill)
    lots: list[Lot] = []
    for order in orders:
        found = rows.pop(order.id, [])
        if order.filled_qty and order.id not in tied:
            lots += _lots_of(order, found)
    for order_id, unknown in rows.items():
        if order_id not in owned and order_id not in named and order_id not in tied:
            lots += [Lot(order_id, f.side, f.qty, f.price, f.at, evidence.orders.get(order_id)) for f in unknown]
    lots = _without_closed_by_hand(closed, lots, evidence)
    lots.sort(key=lambda lot: (lot.at is None, lot.at, lot.order_id, lot.qty))
    return FreeFills(tuple(lots))


def _lots_of(order: Order, rows: list[Fill]) -> list[Lot]:
    """The rows where they tell all of the order's fill, else the order's own total."""
    if rows and sum((f.qty for f in rows), ZERO) == order.filled_qty:
        return [Lot(order.id, order.side, f.qty, f.price, f.at, order) for f in rows]
    return [Lot(order.id, order.side, order.filled_qty, order.avg_price, order.fill_time, order)]


def _tied(orders: Sequence[Order], owned: set[str], named: set[str]) -> set[str]:
    """The orders of this symbol that are claimed, or tied to a claimed one, however far."""
    ties: dict[str, list[str]] = defaultdict(list)
    reached: set[str] = set()
    for order in orders:
        others = [i for i in (order.parent, order.replaces, order.replaced_by, *order.legs) if i]
        claimed = any(i in owned or i in named for i in (order.id, order.client_id, *others) if i)
        if claimed or parse_client_id(order.client_id) is not None:
            reached.add(order.id)
        for other in others:
            ties[order.id].append(other)
            ties[other].append(order.id)
    queue = list(reached)
    while queue:
        for other in ties.get(queue.pop(), ()):
            if other not in reached:
                reached.add(other)
                queue.append(other)
    return reached


def _without_closed_by_hand(closed: Iterable[Mapping[str, Any]], lots: list[Lot], evidence: Evidence) -> list[Lot]:
    """Leaves out the sale that a closed record without a close order must have been.

    It names no order, so it is recognised by side, whole quantity and time.
    """
    sales: dict[tuple[str, Decimal], dict[str, datetime]] = defaultdict(dict)
    by_order: dict[str, list[Lot]] = defaultdict(list)
    for lot in lots:
        by_order[lot.order_id].append(lot)
    for order_id, parts in by_order.items():
        at = max((lot.at for lot in parts if lot.at), default=None)
        if at is not None:
            sales[parts[0].side, total(parts)][order_id] = at
    gone: set[str] = set()
    for record in closed:
        at, size = parse_time(record.get("closedAt")), record_size(record)
        if at is None or size is None or is_vanished(record) or _went_out_by_order(record, evidence):
            continue  # `closedAt` of a close without proof is the time of a run, not of a sale
        side = Side.SHORT if (text(record, "side") or "").upper() == "SHORT" else Side.LONG
        near = sales.get((side.closing, size), {})
        hit = next((i for i, when in sorted(near.items()) if abs(when - at) <= _SAME_MOMENT and i not in gone), None)
        if hit is not None:
            gone.add(hit)
    return [lot for lot in lots if lot.order_id not in gone]


def _went_out_by_order(record: Mapping[str, Any], evidence: Evidence) -> bool:
    """Whether the record names the order that closed it."""
    if text(record, "closeOrderId"):
        return True
    exits = (evidence.find(text(record, name)) for name in ("stopOrderId", "takeProfitOrderId"))
    return any(order is not None and order.filled_qty for order in exits)
