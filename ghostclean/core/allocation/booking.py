"""Books the executions of one instrument: every one exactly once, to one owner.

Closed records take theirs first, then each open trade what its own order family did: entries
make its quantity (see `entries`), then exits take from it. Executions beyond an exit's own
trades stay available to others (one sale for several trades); what no family explains is
unallocated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

from ghostclean.core.broker import ZERO, Evidence, Order, Position, Side

from .allocation import Allocation, Closed, Coverage
from .entries import Entries
from .execution import Execution, average, total, whole
from .unallocated import Unallocated

T = TypeVar("T", bound=Hashable)
Claims = list[tuple[Allocation, Execution]]

_CLOCKS_DIFFER = timedelta(minutes=10)  # a record's opening is the app's time, not the broker's
_INFINITE = Decimal("Infinity")
_MOST_DUST = Decimal("0.1")


class Booking:
    """The executions of one instrument that order families and closed records account for.

    `taken` is how much of each order is spoken for, by order id; `surplus` what exits sold
    beyond the trades that own them; `used` the purchases that are scale-ins. `doubtful` says
    that the unallocated executions, None while they are not known, may tell more.
    """

    def __init__(
        self,
        allocations: Sequence[Allocation],
        closed: Sequence[Closed],
        evidence: Evidence,
        allocated: Mapping[str, Sequence[str]],
        position: Position | None,
        unallocated: Unallocated | None = None,
    ) -> None:
        self._evidence = evidence
        self._allocated = allocated
        self._closed = closed
        self.taken: dict[str, Decimal] = defaultdict(Decimal)
        self.surplus: list[Execution] = []
        self.used: set[str] = set()
        self.doubtful = False
        for record in closed:
            self._book_closed_exits(record)
        for allocation in allocations:
            allocation.reset()
        sound = [a for a in allocations if a.family.defect is None]
        self._exits = {a.name: self._exits_of(a, a.family.exits) for a in sound if a.family.exits}
        exits = self._exits_of_one(sound)
        for side in Side:
            if members := [a for a in sound if a.side is side]:
                held = position.qty if position is not None and position.side is side else ZERO
                entries = Entries(members, closed, evidence, exits, self._earlier(members), held, unallocated)
                self.used |= entries.used
                self.doubtful = self.doubtful or entries.doubtful
        active = [a for a in sound if a.duplicate_of is None]
        self._book_exits(active, sound)
        for allocation in active:
            _settle_quantity(allocation)
        if closed:
            self.surplus += self._surplus_of_closed({i for a in allocations for i in a.family.ids()})

    def _exits_of(self, allocation: Allocation, orders: Sequence[Order]) -> list[Execution]:
        filled = [whole(o, self._evidence) for o in orders if o.filled_qty]
        return _after_entry(allocation, filled) if filled else filled

    def _exits_of_one(self, allocations: Sequence[Allocation]) -> Mapping[str, list[Execution]]:
        """The exits that are one trade's alone, by trade id."""
        if len(allocations) == 1 and not self.taken:
            return self._exits
        names = _count(e.order_id for rows in self._exits.values() for e in rows)
        return {
            name: [e for e in rows if names[e.order_id] == 1 and not self.taken[e.order_id]]
            for name, rows in self._exits.items()
        }

    def _earlier(self, members: Sequence[Allocation]) -> dict[str, Decimal]:
        """What earlier runs allocated to trades as sold; a record's size is net of that."""
        found = {}
        for allocation in members:
            if ids := self._allocated.get(allocation.name):
                orders = (self._evidence.find(i) for i in ids)
                found[allocation.name] = sum((o.filled_qty for o in orders if o is not None), ZERO)
        return found

    # ------------------------------------------------------------------ closed records

    def _book_closed_exits(self, record: Closed) -> None:
        left = record.size or _INFINITE
        for order in record.exits:
            part = min(order.filled_qty, left)
            self.taken[order.id] += part
            left -= part

    def _surplus_of_closed(self, owned: set[str]) -> list[Execution]:
        """What close orders of closed records sold beyond these."""
        orders = (self._evidence.find(c.close_order) for c in self._closed)
        known = {o.id: o for o in orders if o is not None and o.is_final}
        others = owned.union(*self._allocated.values())
        return [
            whole(order, self._evidence).part(rest)
            for order in known.values()
            if order.id not in others and (rest := order.filled_qty - self.taken[order.id]) > 0
        ]

    # ------------------------------------------------------------------ exits

    def _book_exits(self, active: Sequence[Allocation], everyone: Sequence[Allocation]) -> None:
        """Exits that hang on a trade's own entry first, then those that records merely name.

        An order that several trades own and that does not suffice for all proves nothing of any.
        """
        if not any(a.family.exits for a in everyone):
            return
        crowd, tied, named = _count(a.side for a in active), [], []
        for claims in self._claims_on_exits(active, everyone):
            hanging = [a for a, exit_ in claims if exit_.order_id in a.family.tied]
            only = hanging[0] if len(hanging) == 1 else None
            tied += [(a, exit_) for a, exit_ in claims if a is only]
            named.append([(a, exit_) for a, exit_ in claims if a is not only])
        for allocation, exit_ in sorted(tied, key=lambda row: row[1].when):
            self._take(allocation, exit_, beyond=allocation.certain and allocation.part is None)
        for claims in sorted((rows for rows in named if rows), key=lambda rows: rows[0][1].when):
            self._book_named(claims, crowd)
        for allocation in active:
            allocation.exits.sort(key=lambda e: e.when)

    def _claims_on_exits(self, active: Sequence[Allocation], everyone: Sequence[Allocation]) -> Iterable[Claims]:
        """Every exit order with the trades that own it; what a duplicate owns is the older trade's."""
        twins: dict[str | None, list[Order]] = defaultdict(list)
        for allocation in everyone:
            if allocation.duplicate_of is not None:
                twins[allocation.duplicate_of] += allocation.family.exits
        claims: dict[str, Claims] = defaultdict(list)
        for allocation in active:
            allocation.open_qty = allocation.entry_qty + allocation.scale_in
            exits = self._exits.get(allocation.name, [])
            if more := twins.get(allocation.trade.id):
                known = {o.id: o for o in (*allocation.family.exits, *more)}
                exits = self._exits_of(allocation, [*known.values()])
            for exit_ in exits:
                claims[exit_.order_id].append((allocation, exit_))
        return claims.values()

    def _book_named(self, claims: Claims, crowd: Mapping[Side, int]) -> None:
        exit_ = claims[0][1]
        free = exit_.qty - self.taken[exit_.order_id]
        if len(claims) > 1 and 0 < free < sum((a.open_qty for a, _ in claims), ZERO):
            for allocation, _ in claims:
                allocation.disputed = exit_.order_id
            return
        for allocation, execution in claims:
            alone = len(claims) == 1 and crowd[allocation.side] == 1 and allocation.part is None
            self._take(allocation, execution, beyond=alone or (allocation.unsure and len(claims) == 1))
        rest = exit_.qty - self.taken[exit_.order_id]
        if rest > 0 and exit_.order is not None and exit_.order.is_final:
            self.surplus.append(exit_.part(rest))

    def _take(self, allocation: Allocation, exit_: Execution, *, beyond: bool) -> None:
        """Books an exit; `beyond`: also what exceeds the known entry (a scale-in, a split)."""
        free = exit_.qty - self.taken[exit_.order_id]
        if beyond and allocation.open_qty <= 0:
            beyond = total(allocation.exits) > allocation.entry_qty
        part = free if beyond else min(free, allocation.open_qty)
        if part > 0:
            self.taken[exit_.order_id] += part
            allocation.exits.append(exit_.part(part))
            allocation.open_qty = max(ZERO, allocation.open_qty - part)


def _count(names: Iterable[T]) -> dict[T, int]:
    found: dict[T, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def _after_entry(allocation: Allocation, exits: Iterable[Execution]) -> list[Execution]:
    """The exits that can be exits of this trade; one from before its entry is noted."""
    start = allocation.family.entered_at
    if start is None and allocation.trade.opening is not None:
        start = allocation.opened - _CLOCKS_DIFFER
    later = []
    for exit_ in sorted(exits, key=lambda e: e.when):
        if exit_.not_before(start):
            later.append(exit_)
        else:
            allocation.early = exit_.order_id
    return later


def _settle_quantity(allocation: Allocation) -> None:
    """Open quantity, with what its exits say that it entered beyond its own orders."""
    sold = total(allocation.exits)
    more = sold - allocation.entry_qty
    if allocation.certain and more > max(allocation.tolerance, allocation.scale_in):
        allocation.scale_in = more
    allocation.open_qty = max(ZERO, allocation.entry_qty + allocation.scale_in - sold)


def exited(allocation: Allocation) -> bool:
    """Whether its own exits took out all but dust."""
    if not allocation.exits:
        return False
    left = allocation.open_qty
    if left <= allocation.tolerance:
        return True
    price = average(allocation.exits)
    return not allocation.crypto and price is not None and left * price < 1 and left < allocation.entry_qty * _MOST_DUST


def own_coverage(allocation: Allocation) -> Coverage:
    """What its own orders alone settle; a trade whose entry still works is never out."""
    family = allocation.family
    if family.questions or family.unanswered or family.defect:
        return Coverage.UNKNOWN
    out = exited(allocation)
    if allocation.certain and (not allocation.entry_qty or (out and family.works)):
        return Coverage.UNFILLED
    return Coverage.EXITED if out else Coverage.UNKNOWN
