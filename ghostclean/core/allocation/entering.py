"""What trades entered where their entry orders alone do not tell: parts of a shared entry, scale-ins.

An auditor's question: in which ways do the sizes in the ledger add up with what was bought and
sold? The parts of one entry make its fill; a further purchase belongs to one trade, as a whole;
a size is what its trade had entered, less what it had lost when the size was written. The only
way that fits is the booking; of several only that is known in which they agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from ghostclean.core.broker import ZERO

from .execution import Execution, total

_MOST_WAYS = 256
_MOST_PURCHASES = 8


@dataclass(frozen=True, slots=True)
class Way:
    """One way to have entered: a part of the entry order, and further purchases (a set of bits)."""

    part: Decimal
    bought: int
    entered: Decimal


Ways = tuple[Way, ...]  # one for each claim on an entry


class Purchases:
    """Opening executions that no record names, order by order, oldest first."""

    def __init__(self, executions: Iterable[Execution] = ()) -> None:
        rows: dict[str, list[Execution]] = defaultdict(list)
        for execution in executions:
            rows[execution.order_id].append(execution)
        self._orders = list(rows.values())

    @cached_property
    def sums(self) -> Sequence[tuple[int, Decimal]]:
        """Every choice of them with its quantity; of very many only none, each, and all."""
        each = [total(rows) for rows in self._orders]
        if len(each) > _MOST_PURCHASES:
            single = [(1 << n, qty) for n, qty in enumerate(each)]
            return [(0, ZERO), *single, ((1 << len(each)) - 1, sum(each, ZERO))]
        sums = [ZERO]
        for qty in each:
            sums += [s + qty for s in sums]
        return list(enumerate(sums))

    def chosen(self, bits: int) -> list[Execution]:
        return [e for n, rows in enumerate(self._orders) if bits >> n & 1 for e in rows]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one record says of what its trade entered.

    `size` is its present size, `lost` what that may be net of and `own` what of that its own exits
    sold; `stated` is what it says its
    entry filled, `first` a size it had; `least` is what its exits, or that first size, prove.
    `whole` is its entry where it shares that with nobody, `sold` what its exits sold beyond that
    where they can be nobody else's.
    """

    size: Decimal | None
    stated: Decimal | None = None
    first: Decimal | None = None
    lost: frozenset[Decimal] = frozenset({ZERO})
    own: frozenset[Decimal] = frozenset({ZERO})
    least: Decimal = ZERO
    whole: Decimal | None = None
    sold: Decimal | None = None
    tolerance: Decimal = ZERO

    def ways(self, purchases: Purchases, filled: Decimal) -> list[Way]:
        """Every way that fits the record."""
        now = {self.size + out for out in self.lost} if self.size is not None else set()
        first = self.first if self.first is not None and self.first < filled else ZERO
        now = {t for t in now if t >= max(self.least, first) - self.tolerance} or now
        if self.whole is not None:
            tried = (self._ways_of_its_own(totals, purchases) for totals in (now, {self.first}, {self.sold}))
            return next((found for found in tried if found), [])
        ways = [Way(t - qty, bits, t) for t in now for bits, qty in purchases.sums if 0 < t - qty <= filled]
        told = {qty for qty in (self.stated, self.first) if qty is not None and 0 < qty < filled}
        return ways + [Way(qty, 0, qty) for qty in told.difference(w.part for w in ways)]

    def _ways_of_its_own(self, totals: Iterable[Decimal | None], purchases: Purchases) -> list[Way]:
        """All that fits exactly, else but for dust; the entry alone where its own exits explain the size."""
        whole, sums = self.whole or ZERO, [t for t in totals if t is not None]
        ways = [Way(whole, bits, whole + qty) for bits, qty in purchases.sums]
        exact = [w for w in ways if w.entered in sums]
        fitting = exact or [w for w in ways if any(abs(w.entered - t) <= self.tolerance for t in sums)]
        alone = [w for w in fitting if not w.bought]
        if self.size is None or any(abs(self.size + out - whole) <= self.tolerance for out in self.own):
            return alone or fitting
        return fitting


@dataclass(frozen=True, slots=True)
class Entry:
    """What one entry order filled, and the claims of the records that name it; their parts make it up."""

    filled: Decimal
    claims: Sequence[Claim]

    def bookings(self, purchases: Purchases) -> list[Ways]:
        """All ways of all its claims together; none where there are too many to tell."""
        found: list[tuple[Decimal, Ways]] = [(self.filled, ())]
        for claim in self.claims:
            ways = claim.ways(purchases, self.filled)
            found = [
                (left - way.part, (*booking, way))
                for left, booking in found
                for way in ways
                if way.part <= left and not any(way.bought & other.bought for other in booking)
            ]
            if len(found) > _MOST_WAYS:
                return []
        whole = [booking for left, booking in found if not left]
        best = max(map(self._stated, whole), default=0)
        return [booking for booking in whole if self._stated(booking) == best]

    def _stated(self, booking: Ways) -> int:
        """How many of its parts are what their records stated at first."""
        return sum(way.part == claim.stated for way, claim in zip(booking, self.claims, strict=True))


def enter(entries: Sequence[Entry], purchases: Purchases) -> list[list[Ways]]:
    """For each entry the ways that remain of all its claims: no purchase is two trades'.

    An entry that no way fits has none; where two entries want the same purchase, all of both remain.
    """
    found = [entry.bookings(purchases) for entry in entries]
    joint: list[tuple[Ways, ...]] = [()]
    for bookings in found:
        wider = [(*chosen, b) for chosen in joint for b in bookings or [()] if _disjoint(b, chosen)]
        joint = wider if 0 < len(wider) <= _MOST_WAYS else []
    if not joint:
        return found
    return [[ways for ways in dict.fromkeys(column) if ways] for column in zip(*joint, strict=True)]


def bought_in(bookings: Sequence[Ways]) -> int:
    """The purchases that are of these claims, whoever of them made them; none where that is open."""
    sets = {sum(way.bought for way in ways) for ways in bookings}
    return sets.pop() if len(sets) == 1 else 0


def _disjoint(booking: Ways, chosen: Sequence[Ways]) -> bool:
    taken = 0
    for way in (w for b in chosen for w in b):
        taken |= way.bought
    return not any(way.bought & taken for way in booking)
