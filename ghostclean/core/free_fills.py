"""Fills that no record owns: what a hand, or the broker itself, did to a position.

A fill is owned when its order, or any order it is tied to (leg, parent, replace chain, client
id), is named by some record of the ledger, open or closed, or was attributed by an earlier run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from .broker import Fill, Order
from .evidence import Evidence
from .instrument import Side
from .numbers import ZERO, BadNumber, number
from .own_orders import Lot
from .times import parse_time
from .trade import SIZE_FIELDS, order_ids

_SAME_MOMENT = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class FreeFills:
    """Unowned executions of one symbol, oldest first."""

    lots: tuple[Lot, ...]

    def closing(self, side: Side, since: datetime | None) -> list[Lot]:
        return [lot for lot in self.lots if lot.side == side.closing and _after(lot, since)]

    def opening(self, side: Side, since: datetime | None) -> list[Lot]:
        return [lot for lot in self.lots if lot.side == side.opening and _after(lot, since)]

    def latest(self) -> datetime | None:
        return max((lot.at for lot in self.lots if lot.at), default=None)


def _after(lot: Lot, since: datetime | None) -> bool:
    return since is None or lot.at is None or lot.at >= since


def free_fills(
    key: str,
    orders: Sequence[Order],
    fills: Sequence[Fill],
    evidence: Evidence,
    owned: set[str],
    closed: Iterable[Mapping[str, Any]],
) -> FreeFills:
    """The lots of a symbol that nobody owns; `owned` are order ids claimed by any record."""
    closed = tuple(closed)
    claimed = owned | {i for record in closed for i in order_ids(record)}
    claimed = _tied(orders, claimed)
    rows: dict[str, list[Fill]] = {}
    for fill in fills:
        rows.setdefault(fill.order_id, []).append(fill)
    lots: list[Lot] = []
    for order in orders:
        if order.filled_qty and order.id not in claimed:
            lots += _lots_of(order, rows.pop(order.id, []))
        else:
            rows.pop(order.id, None)
    for order_id, unknown in rows.items():
        if order_id not in claimed:
            lots += [Lot(order_id, f.side, f.qty, f.price, f.at, evidence.orders.get(order_id)) for f in unknown]
    for record in closed:
        _drop_claimed_by_hand(record, lots)
    lots.sort(key=lambda lot: (lot.at is None, lot.at, lot.order_id))
    return FreeFills(tuple(lots))


def _lots_of(order: Order, rows: list[Fill]) -> list[Lot]:
    """The rows where they tell all of the order's fill, else the order's own total."""
    if rows and sum((f.qty for f in rows), ZERO) == order.filled_qty:
        return [Lot(order.id, order.side, f.qty, f.price, f.at, order) for f in rows]
    return [Lot(order.id, order.side, order.filled_qty, order.avg_price, order.fill_time, order)]


def _tied(orders: Sequence[Order], claimed: set[str]) -> set[str]:
    """The claimed ids and every order of this symbol tied to one of them."""
    result = set(claimed)
    result |= {o.id for o in orders if o.client_id and o.client_id in claimed}
    grew = True
    while grew:
        grew = False
        for order in orders:
            ties = {i for i in (order.parent, order.replaces, order.replaced_by, *order.legs) if i}
            if order.id in result:
                grew |= not ties <= result
                result |= ties
            elif ties & result:
                result.add(order.id)
                grew = True
    return result


def _drop_claimed_by_hand(record: Mapping[str, Any], lots: list[Lot]) -> None:
    """Takes out the one lot that a closed record without a close order must have been."""
    if record.get("closeOrderId"):
        return
    at, size = parse_time(record.get("closedAt")), _size(record)
    if at is None or size is None:
        return
    side = Side.SHORT if str(record.get("side", "")).upper() == "SHORT" else Side.LONG
    for lot in lots:
        if lot.side == side.closing and lot.qty == size and lot.at and abs(lot.at - at) <= _SAME_MOMENT:
            lots.remove(lot)
            return


def _size(record: Mapping[str, Any]) -> Decimal | None:
    for name in SIZE_FIELDS:
        try:
            value = number(record.get(name))
        except BadNumber:
            return None
        if value:
            return value
    return None


def take(lots: Sequence[Lot], wanted: Decimal, used: dict[int, Decimal]) -> list[Lot]:
    """Lots, oldest first, until `wanted` is covered; `used` counts what others took (by identity)."""
    taken: list[Lot] = []
    for lot in lots:
        if wanted <= 0:
            break
        free = lot.qty - used.get(id(lot), ZERO)
        part = min(free, wanted)
        if part > 0:
            used[id(lot)] = used.get(id(lot), ZERO) + part
            taken.append(Lot(lot.order_id, lot.side, part, lot.price, lot.at, lot.order))
            wanted -= part
    return taken
