"""Books the executions of one instrument: every one exactly once, to one owner.

Closed records take theirs first, then each open trade what its own order family did: entries
make its quantity, exits take from it. Executions beyond an exit's own trades stay available to
others (one sale for several trades); what no family explains is unallocated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

from ghostclean.core.broker import ZERO, Evidence, Order, Side

from .allocation import Allocation, Closed, Coverage
from .execution import Execution, average, total, whole

T = TypeVar("T", bound=Hashable)

_CLOCKS_DIFFER = timedelta(minutes=10)  # a record's opening is the app's time, not the broker's
_INFINITE = Decimal("Infinity")
_MOST_DUST = Decimal("0.1")


class Booking:
    """The executions of one instrument that order families and closed records account for.

    `taken` is how much of each order is spoken for, by order id; `surplus` what exits sold
    beyond the trades that own them.
    """

    def __init__(
        self,
        allocations: Sequence[Allocation],
        closed: Sequence[Closed],
        evidence: Evidence,
        allocated: Mapping[str, Sequence[str]],
        held: Decimal,
    ) -> None:
        self._evidence = evidence
        self._allocated = allocated
        self._closed = closed
        self._allocations = allocations
        self.taken: dict[str, Decimal] = defaultdict(Decimal)
        self.surplus: list[Execution] = []
        self._given: dict[str, Decimal] = defaultdict(Decimal)
        for record in closed:
            self._book_closed_exits(record)
        if len(allocations) > 1:
            _mark_duplicates(allocations, self._claim, held)
        active = [a for a in allocations if a.duplicate_of is None and a.family.defect is None]
        self._shared = _count(a.family.chain[0].id for a in active if a.certain)
        for allocation in active:
            self._book_entries(allocation)
        self._book_exits(active, allocations)
        for allocation in active:
            _settle_quantity(allocation, self._claimed(allocation))
        if closed:
            self.surplus += self._surplus_of_closed({i for a in allocations for i in a.family.ids()})

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

    # ------------------------------------------------------------------ entries

    def _book_entries(self, allocation: Allocation) -> None:
        trade, side = allocation.trade, allocation.side
        if not allocation.certain:
            size = trade.initial_size or trade.size
            if size:
                price = trade.avg_fill_price if trade.filled_qty == size else None
                allocation.entries = [Execution("", side.opening, size, price, allocation.opened)]
            return
        filled = [whole(o, self._evidence) for o in allocation.family.entries if o.filled_qty]
        wanted = self._part_of_entry(allocation)
        if wanted is None:
            allocation.entries = filled
            return
        first = allocation.family.chain[0].id
        part = min(wanted, total(filled) - self._given[first])
        self._given[first] += part
        if part > 0:
            # Of several orders at several prices, nobody can say which part is whose.
            price = filled[0].price if len({e.price for e in filled}) == 1 else None
            allocation.entries = [replace(filled[0], qty=part, price=price)]

    def _part_of_entry(self, allocation: Allocation) -> Decimal | None:
        """How much of its entry is the trade's where the rest is another record's; None for all of it."""
        trade, family = allocation.trade, allocation.family
        ids = {o.id for o in family.chain}
        shared = any(c.entry is not None and c.entry.id in ids for c in self._closed)
        if self._shared[family.chain[0].id] == 1 and not shared:
            size = trade.initial_size or trade.size
            untouched = not any(o.filled_qty for o in family.exits) and size == trade.filled_qty
            return size if size is not None and untouched and size < family.filled else None
        return self._claim(allocation, self._allocations)

    def _claim(self, allocation: Allocation, others: Sequence[Allocation]) -> Decimal:
        """What it claims of its entry; an `initialQuantity` that a split-off record copied counts for neither."""
        family, initial = allocation.family, allocation.trade.initial_size or ZERO
        twins = (a for a in others if a is not allocation and a.certain and a.family.chain[0].id == family.chain[0].id)
        copied = any(a.trade.initial_size == initial for a in twins)
        now = (allocation.trade.size or family.filled) + self.earlier_exits(allocation)
        return now if copied else max(initial, now)

    def earlier_exits(self, allocation: Allocation) -> Decimal:
        """What earlier runs allocated to it as sold; the record's size is net of that."""
        orders = (self._evidence.find(i) for i in self._allocated.get(allocation.name, ()))
        return sum((o.filled_qty for o in orders if o is not None), ZERO)

    def _claimed(self, allocation: Allocation) -> Decimal:
        """What the ledger says the trade entered in all; zero where that is only a wish."""
        if not allocation.certain or not allocation.family.filled_whole or allocation.is_part:
            return ZERO
        return self._stated(allocation)

    def _stated(self, allocation: Allocation) -> Decimal:
        """What the ledger's sizes make of the trade in all, be it a wish or not."""
        trade = allocation.trade
        return max(trade.initial_size or ZERO, (trade.size or ZERO) + self.earlier_exits(allocation))

    # ------------------------------------------------------------------ exits

    def _book_exits(self, active: Sequence[Allocation], everyone: Sequence[Allocation]) -> None:
        """Exits that hang on a trade's own entry first, then those that records merely name.

        An order that several trades name and that does not suffice for all proves nothing of any.
        """
        crowd = _count(a.side for a in active)
        twins: dict[str | None, list[Order]] = defaultdict(list)
        for allocation in everyone:
            if allocation.duplicate_of is not None:
                twins[allocation.duplicate_of] += allocation.family.exits
        named: dict[str, list[tuple[Allocation, Execution]]] = defaultdict(list)
        for allocation in active:
            allocation.open_qty = allocation.entry_qty
            orders = {o.id: o for o in (*allocation.family.exits, *twins[allocation.trade.id]) if o.filled_qty}
            for exit_ in _after_entry(allocation, [whole(o, self._evidence) for o in orders.values()]):
                if exit_.order_id in allocation.family.tied:
                    alone = allocation.certain and self._shared[allocation.family.chain[0].id] == 1
                    self._take(allocation, exit_, beyond=alone and not allocation.is_part)
                else:
                    named[exit_.order_id].append((allocation, exit_))
        for claims in sorted(named.values(), key=lambda rows: rows[0][1].when):
            self._book_named(claims, crowd)
        for allocation in active:
            allocation.exits.sort(key=lambda e: e.when)

    def _book_named(self, claims: Sequence[tuple[Allocation, Execution]], crowd: Mapping[Side, int]) -> None:
        exit_ = claims[0][1]
        free = exit_.qty - self.taken[exit_.order_id]
        if len(claims) > 1 and 0 < free < sum((a.open_qty for a, _ in claims), ZERO):
            for allocation, _ in claims:
                allocation.disputed = exit_.order_id
            return
        for allocation, execution in claims:
            alone = len(claims) == 1 and crowd[allocation.side] == 1
            self._take(allocation, execution, beyond=alone and not allocation.is_part)
        rest = exit_.qty - self.taken[exit_.order_id]
        if rest > 0 and exit_.order is not None and exit_.order.is_final:
            self.surplus.append(exit_.part(rest))

    def _take(self, allocation: Allocation, exit_: Execution, *, beyond: bool) -> None:
        """Books an exit; `beyond`: also what exceeds the known entry (a scale-in, a split)."""
        free = exit_.qty - self.taken[exit_.order_id]
        if beyond and allocation.open_qty <= 0:
            sold = total(allocation.exits)
            beyond = sold > allocation.entry_qty or sold + free <= self._stated(allocation)
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


def _mark_duplicates(
    allocations: Sequence[Allocation],
    claim_of: Callable[[Allocation, Sequence[Allocation]], Decimal],
    held: Decimal,
) -> None:
    """Marks the newer of two trades on one entry order whose fill does not cover both.

    Both records are of one and the same trade where both are of the whole fill; where they say the
    same or the older one is of the whole fill, as long as no more than that stands at the broker.
    Other sizes are parts of a shared entry, one of them enlarged since: whose is whose can't be told.
    """
    first: dict[tuple[str, Side], tuple[Allocation, Decimal, Decimal]] = {}
    for allocation in sorted(allocations, key=lambda a: a.trade.is_pending):
        if not allocation.certain or allocation.family.defect is not None:
            continue
        family = allocation.family
        identity = (family.chain[0].id, allocation.side)
        claim = claim_of(allocation, allocations)
        older, older_claim, claimed = first.get(identity, (None, ZERO, ZERO))
        last = family.chain[-1]
        most = max(family.filled, last.qty or ZERO) if last.works else family.filled
        if older is not None and claimed + claim > most:
            same = older_claim == claimed == claim and (claim >= family.filled or held < claimed + claim)
            if same or (older_claim >= family.filled and held <= family.filled):
                allocation.duplicate_of = older.trade.id
            else:
                _mark_oversold([a for a in allocations if a.certain and a.family.chain[0].id == identity[0]])
        else:
            first[identity] = (older or allocation, older_claim or claim, claimed + claim)


def _mark_oversold(sharing: Iterable[Allocation]) -> None:
    """Trades that share an entry order which filled less than their sizes together."""
    for allocation in sharing:
        if allocation.family.defect is None and allocation.duplicate_of is None:
            order = allocation.family.chain[0].id
            allocation.family.defect = f"its entry order {order} filled less than the trades that share it have entered"
            allocation.open_qty = allocation.trade.size or ZERO


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


def _settle_quantity(allocation: Allocation, claimed: Decimal) -> None:
    """Open quantity with what the ledger, or its exits, say it entered beyond its own orders."""
    sold = total(allocation.exits)
    more = max(claimed, sold) - allocation.entry_qty
    if allocation.certain and more > allocation.tolerance:
        allocation.scale_in = more
        allocation.open_qty = max(ZERO, allocation.entry_qty + more - sold)


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
