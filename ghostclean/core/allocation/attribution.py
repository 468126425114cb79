"""What trades entered where their entry orders alone do not tell: parts of a shared entry, scale-ins.

An auditor's question: to whom must the purchases be attributed, so that the sizes in the ledger
add up with what was bought and sold? The parts of one entry make its fill; a further purchase
belongs to one trade, as a whole; a size is what its trade had entered, less what it had lost when
the size was written. The only attribution that fits is booked; of several only that is known in
which they agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from ghostclean.core.broker import ZERO

from .execution import Execution, total

_MOST_ATTRIBUTIONS = 256
_MOST_PURCHASES = 8


@dataclass(frozen=True, slots=True)
class Attribution:
    """What one trade may have entered: a part of the entry order, and further purchases (a set of bits)."""

    part: Decimal
    bought: int
    entered: Decimal


Booking = tuple[Attribution, ...]  # one for each claim on an entry


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

    def attributions(self, purchases: Purchases, filled: Decimal) -> list[Attribution]:
        """All that fit the record."""
        now = {self.size + out for out in self.lost} if self.size is not None else set()
        first = self.first if self.first is not None and self.first < filled else ZERO
        now = {t for t in now if t >= max(self.least, first) - self.tolerance} or now
        if self.whole is not None:
            tried = (self._of_its_own_entry(totals, purchases) for totals in (now, {self.first}, {self.sold}))
            return next((found for found in tried if found), [])
        fitting = [Attribution(t - qty, bits, t) for t in now for bits, qty in purchases.sums if 0 < t - qty <= filled]
        told = {qty for qty in (self.stated, self.first) if qty is not None and 0 < qty < filled}
        return fitting + [Attribution(qty, 0, qty) for qty in told.difference(a.part for a in fitting)]

    def _of_its_own_entry(self, totals: Iterable[Decimal | None], purchases: Purchases) -> list[Attribution]:
        """All that fits exactly, else but for dust; the entry alone where its own exits explain the size."""
        whole, sums = self.whole or ZERO, [t for t in totals if t is not None]
        tried = [Attribution(whole, bits, whole + qty) for bits, qty in purchases.sums]
        exact = [a for a in tried if a.entered in sums]
        fitting = exact or [a for a in tried if any(abs(a.entered - t) <= self.tolerance for t in sums)]
        alone = [a for a in fitting if not a.bought]
        if self.size is None or any(abs(self.size + out - whole) <= self.tolerance for out in self.own):
            return alone or fitting
        return fitting


@dataclass(frozen=True, slots=True)
class Entry:
    """What one entry order filled, and the claims of the records that name it; their parts make it up."""

    filled: Decimal
    claims: Sequence[Claim]

    def bookings(self, purchases: Purchases) -> list[Booking]:
        """All attributions to all its claims together; none where there are too many to tell."""
        found: list[tuple[Decimal, Booking]] = [(self.filled, ())]
        for claim in self.claims:
            fitting = claim.attributions(purchases, self.filled)
            found = [
                (left - one.part, (*booking, one))
                for left, booking in found
                for one in fitting
                if one.part <= left and not any(one.bought & other.bought for other in booking)
            ]
            if len(found) > _MOST_ATTRIBUTIONS:
                return []
        whole = [booking for left, booking in found if not left]
        best = max(map(self._stated, whole), default=0)
        return [booking for booking in whole if self._stated(booking) == best]

    def _stated(self, booking: Booking) -> int:
        """How many of its parts are what their records stated at first."""
        return sum(a.part == claim.stated for a, claim in zip(booking, self.claims, strict=True))


def attribute(entries: Sequence[Entry], purchases: Purchases) -> list[list[Booking]]:
    """For each entry the bookings that remain: no purchase is two trades'.

    An entry that none fits has none; where two entries want the same purchase, all of both remain.
    """
    found = [entry.bookings(purchases) for entry in entries]
    joint: list[tuple[Booking, ...]] = [()]
    for bookings in found:
        wider = [(*chosen, b) for chosen in joint for b in bookings or [()] if _disjoint(b, chosen)]
        joint = wider if 0 < len(wider) <= _MOST_ATTRIBUTIONS else []
    if not joint:
        return found
    return [[booking for booking in dict.fromkeys(column) if booking] for column in zip(*joint, strict=True)]


def bought_in(bookings: Sequence[Booking]) -> int:
    """The purchases that are of these claims, whoever of them made them; none where that is open."""
    sets = {sum(a.bought for a in booking) for booking in bookings}
    return sets.pop() if len(sets) == 1 else 0


def _disjoint(booking: Booking, chosen: Sequence[Booking]) -> bool:
    taken = 0
    for attribution in (a for b in chosen for a in b):
        taken |= attribution.bought
    return not any(a.bought & taken for a in booking)
