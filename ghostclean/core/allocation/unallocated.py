"""Unallocated executions: what a hand, or the broker itself, did to an instrument.

An execution is allocated when its order, or any order of its family, is named by a record, open
or closed, was allocated by an earlier run, or carries one of our own client order ids. A record
that names no order is given the one execution of its size at its time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from ghostclean.core.broker import Evidence, Fill, Order, Side, connected, parse_client_id, ties

from .allocation import Allocation, Closed, names_of
from .execution import Execution, total, whole

_SAME_CLOSE = timedelta(minutes=2)
_SAME_OPENING = timedelta(minutes=10)
_RIVALS = 2 * _SAME_OPENING


@dataclass(frozen=True, slots=True)
class Unallocated:
    """Unallocated executions of one instrument, oldest first, those without a time last."""

    executions: tuple[Execution, ...]

    def closing(self, side: Side, since: datetime | None = None) -> list[Execution]:
        return [e for e in self.executions if e.side == side.closing and e.not_before(since)]

    def opening(self, side: Side, since: datetime | None = None) -> list[Execution]:
        return [e for e in self.executions if e.side == side.opening and e.not_before(since)]

    def latest(self) -> datetime | None:
        """When the last of them happened; of an activity only the day is known."""
        return next((e.at for e in reversed(self.executions) if e.at and e.activity is None), None)


def find_unallocated(
    orders: Sequence[Order],
    fills: Sequence[Fill],
    evidence: Evidence,
    owned: set[str],
    closed: Sequence[Closed],
    allocations: Sequence[Allocation],
    moved: Iterable[Execution] = (),
) -> Unallocated:
    """The unallocated executions of an instrument; books entries found by size and time on the way.

    `orders`, `fills` and `moved` (what activities did) are all that are known of it, `owned` the ids
    that records of any symbol claim.
    """
    named = names_of(closed)
    seeds = (
        o.id
        for o in orders
        if parse_client_id(o.client_id) is not None
        or any(i in owned or i in named for i in (o.id, o.client_id, *ties(o)) if i)
    )
    allocated = connected(orders, seeds)
    executions = [e for o in orders if o.filled_qty and o.id not in allocated for e in _executions_of(o, evidence)]
    known = {o.id for o in orders}
    executions += (
        Execution(f.order_id, f.side, f.qty, f.price, f.at, evidence.orders.get(f.order_id))
        for f in fills
        if f.order_id not in known and not any(f.order_id in ids for ids in (owned, named, allocated))
    )
    executions += (e for e in moved if e.order_id not in owned)
    executions = _without_closed_by_hand(executions, closed)
    executions = _without_nameless_entries(executions, closed, allocations)
    return Unallocated(tuple(sorted(executions, key=lambda e: (*e.when, e.qty))))


def _executions_of(order: Order, evidence: Evidence) -> list[Execution]:
    rows = evidence.all_fills_of(order)
    if not rows:
        return [whole(order, evidence)]
    return [Execution(order.id, order.side, f.qty, f.price, f.at, order) for f in rows]


class _BySize:
    """Whole orders by side and quantity, each with its last time; each is given out once."""

    def __init__(self, executions: Iterable[Execution]) -> None:
        by_order: dict[str, list[Execution]] = defaultdict(list)
        for execution in executions:
            by_order[execution.order_id].append(execution)
        self._orders: dict[tuple[str, Decimal], list[tuple[datetime, str]]] = defaultdict(list)
        for order_id, parts in by_order.items():
            if (at := max((e.at for e in parts if e.at), default=None)) is not None:
                self._orders[parts[0].side, total(parts)].append((at, order_id))
        self.given: set[str] = set()

    def near(self, side: str, qty: Decimal, at: datetime, span: timedelta) -> list[str]:
        """The orders of exactly this quantity about that time, oldest first."""
        rows = sorted(self._orders.get((side, qty), ()))
        return [i for when, i in rows if abs(when - at) <= span and i not in self.given]

    def left(self, executions: Iterable[Execution]) -> list[Execution]:
        return [e for e in executions if e.order_id not in self.given]


def _without_closed_by_hand(executions: list[Execution], closed: Iterable[Closed]) -> list[Execution]:
    """Leaves out the sale that a closed record without a close order must have been."""
    by_size = _BySize(executions)
    for record in closed:
        # `closedAt` of a close without proof is the time of a run, not of a sale.
        if record.size is None or record.closed_at is None or record.unproven or record.went_out_by_order:
            continue
        found = by_size.near(record.trade.side.closing, record.size, record.closed_at, _SAME_CLOSE)
        by_size.given.update(found[:1])
    return by_size.left(executions)


def _without_nameless_entries(
    executions: list[Execution], closed: Iterable[Closed], allocations: Iterable[Allocation]
) -> list[Execution]:
    """Books the entries of trades whose order is not known; two that fit prove none of the two."""
    by_size = _BySize(executions)
    for record in closed:
        if (
            record.entry is None
            and record.size is not None
            and record.trade.opening is not None
            and not record.unproven
        ):
            found = by_size.near(record.trade.side.opening, record.size, record.trade.opening, _SAME_OPENING)
            by_size.given.update(found[:1])
    nameless = [a for a in allocations if not a.certain and a.entries]
    for allocation in sorted(nameless, key=_is_out, reverse=True):
        found = by_size.near(allocation.side.opening, allocation.entry_qty, allocation.opened, _SAME_OPENING)
        near = (a for a in nameless if a.side is allocation.side and abs(a.opened - allocation.opened) <= _RIVALS)
        if len(found) == 1 and sum(1 for _ in near) == 1:
            by_size.given.add(found[0])
            if allocation.entries[0].price is None:
                allocation.entries = [e for e in executions if e.order_id == found[0]]
        elif _is_out(allocation):
            by_size.given.update(found[:1])
    return by_size.left(executions)


def _is_out(allocation: Allocation) -> bool:
    """Whether its own exits took all of it."""
    return bool(allocation.exits) and allocation.open_qty <= allocation.tolerance
