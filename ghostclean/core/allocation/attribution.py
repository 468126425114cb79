"""Which free fills took out what is missing: all of it provably, or nothing is said.

An order of exactly one trade's quantity first, then the oldest trade and the oldest fill, each fill
once, and the sums must agree: shares bought by hand meanwhile must have been sold again as well.
Where the sales are not enough for all that is missing, only an order of exactly one trade's
quantity says anything, and only about that trade.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from ghostclean.core.broker import ONE, ZERO

from .case import Case
from .free_fills import FreeFills, total
from .own_orders import Lot


@dataclass(slots=True)
class Explained:
    """Free fills that took (a part of) a trade out.

    `times` is how often what is gone fits into what was sold net of purchases: more than once
    after a split; `sold` are all sales then, where they can only be of this one trade.
    """

    lots: list[Lot]
    whole: bool
    times: Decimal = ONE
    sold: Sequence[Lot] = ()


@dataclass(frozen=True, slots=True)
class Vanished:
    """A trade that was closed without proof: a sale between `start` and `end` may have been its."""

    name: str
    open_qty: Decimal
    start: datetime
    end: datetime
    certain: bool
    tolerance: Decimal = ZERO


_Claimant = Case | Vanished
_T = TypeVar("_T", Case, Vanished)


class _Supply:
    """Closing fills, oldest first, and what is left of each."""

    def __init__(self, lots: Sequence[Lot]) -> None:
        self._lots = lots
        self._left = [lot.qty for lot in lots]

    def serve(self, asks: Iterable[tuple[datetime, _T, Decimal]]) -> dict[_T, list[Lot]] | None:
        """Serves every ask from fills at or after its start; None, and nothing taken, when short."""
        before = list(self._left)
        served: dict[_T, list[Lot]] = {}
        first = 0
        for start, case, wanted in sorted(asks, key=lambda ask: (ask[0], ask[1].name)):
            while first < len(self._lots) and (not self._left[first] or _is_before(self._lots[first], start)):
                first += 1
            taken: list[Lot] = []
            index = first
            while wanted > 0 and index < len(self._lots):
                lot, part = self._lots[index], min(self._left[index], wanted)
                if part:
                    self._left[index] -= part
                    wanted -= part
                    taken.append(Lot(lot.order_id, lot.side, part, lot.price, lot.at, lot.order))
                index += 1
            if wanted > case.tolerance:
                self._left = before
                return None
            served[case] = taken
        return served

    def left(self) -> list[Decimal]:
        """What is left of each fill, to go back to."""
        return list(self._left)

    def go_back(self, left: list[Decimal]) -> None:
        self._left = left

    def untouched(self) -> list[Lot]:
        """The fills of the orders of which nothing was taken."""
        taken = {lot.order_id for lot, left in zip(self._lots, self._left, strict=True) if left != lot.qty}
        return [lot for lot in self._lots if lot.order_id not in taken]


def _is_before(lot: Lot, start: datetime) -> bool:
    return lot.at is not None and lot.at < start


def explain_gone(
    cases: Sequence[Case],
    free: FreeFills,
    surplus: Sequence[Lot],
    openings: Sequence[Lot] | None = None,
    vanished: Sequence[Vanished] = (),
) -> dict[Case, Explained]:
    """Free closing fills for trades of which nothing is left.

    Trades proven by orders first, all of them or none, then those that only the ledger knows.
    `surplus` is what own exits of other trades sold beyond them, `openings` the purchases that
    nobody owns (those of `free` when not given), `vanished` earlier unproven closes: what may
    have been their sale is nobody else's for certain.
    """
    if not cases:
        return {}
    side = cases[0].side
    openings = free.opening(side) if openings is None else openings
    closing = [lot for lot in (*free.closing(side), *surplus) if lot.side == side.closing]
    closing.sort(key=lambda lot: (lot.at is None, lot.at, lot.order_id))
    if len(cases) == 1 and (whole := _scaled_in(cases[0], free)) is not None:
        return {cases[0]: Explained(whole, whole=True)}
    exact = _exact(cases, vanished, closing)
    proven = {case: found for case, found in exact.items() if case.certain}
    served = [_explain(cases, vanished, closing, first) for first in ((proven, {}) if proven else ({},))]
    # What an order says of one trade alone holds, whatever can't be told of the others.
    valid = [found for found in (*served, exact, proven) if _sums_agree(list(found), openings, closing)]
    best = max(valid, key=lambda found: (sum(1 for case in found if case.certain), len(found)), default={})
    return _with_all_sold(best, cases, openings, closing)


def _with_all_sold(
    found: dict[Case, Explained], cases: Sequence[Case], openings: Sequence[Lot], closing: Sequence[Lot]
) -> dict[Case, Explained]:
    """The same, and how much more than all that is gone was sold: with a split in between, that is theirs too."""
    if not found:
        return found
    sold, bought = _sold_and_bought(cases, openings, closing)
    net, gone = total(sold) - bought, sum((c.open_qty for c in cases), ZERO)
    if net <= gone or not gone:
        return found
    alone = sold if len(cases) == 1 and not bought else ()
    return {case: replace(explained, times=net / gone, sold=alone) for case, explained in found.items()}


def _explain(
    cases: Sequence[Case], vanished: Sequence[Vanished], closing: Sequence[Lot], first: dict[Case, Explained]
) -> dict[Case, Explained]:
    """Serves what `first` leaves over: group by group, and where one can't be, what is exactly one trade's."""
    used = {lot.order_id for found in first.values() for lot in found.lots}
    supply = _Supply([lot for lot in closing if lot.order_id not in used])
    found = dict(first)
    for certain in (True, False):
        members = [c for c in cases if c.certain is certain and c not in found]
        before = supply.left()
        # Sales after the entry was filled; those since it was sent only where these do not suffice.
        served = supply.serve((_filled_at(c), c, c.open_qty) for c in members)
        if served is None:
            served = supply.serve((c.start, c, c.open_qty) for c in members)
        if served is not None and _may_be_of(vanished, served.values(), supply, certain=certain):
            supply.go_back(before)
            served = None
        if served is None:
            # Among all that are left, not only these: a trade that is proven by less may fit as well.
            return found | _exact([c for c in cases if c not in found], vanished, supply.untouched())
        found |= {case: Explained(lots, whole=True) for case, lots in served.items()}
    return found


def _may_be_of(
    vanished: Sequence[Vanished], served: Iterable[Sequence[Lot]], supply: _Supply, *, certain: bool
) -> bool:
    """Whether a sale that is to serve a trade may have been that of one closed without proof."""
    used = [lot for lots in served for lot in lots]
    rivals = [v for v in vanished if v.certain or not certain]
    rivals = [v for v in rivals if any(lot.at is None or v.start <= lot.at <= v.end for lot in used)]
    return bool(rivals) and supply.serve((v.start, v, v.open_qty) for v in rivals) is None


def _exact(cases: Sequence[Case], vanished: Sequence[Vanished], closing: Sequence[Lot]) -> dict[Case, Explained]:
    """Whole orders that sold exactly what one trade had and no other, where no second order did so too."""
    exactly: dict[Decimal, list[_Claimant]] = defaultdict(list)
    nearly: list[_Claimant] = []
    claimants: tuple[_Claimant, ...] = (*cases, *vanished)
    for claimant in claimants:
        (nearly if claimant.tolerance else exactly[claimant.open_qty]).append(claimant)
    orders: dict[str, list[Lot]] = defaultdict(list)
    for lot in closing:
        orders[lot.order_id].append(lot)
    found: dict[Case, list[list[Lot]]] = defaultdict(list)
    for order_id, lots in orders.items():
        order, sold, times = lots[0].order, total(lots), [lot.at for lot in lots if lot.at is not None]
        if not order_id or len(times) < len(lots) or (order is not None and order.filled_qty != sold):
            continue
        close = (c for c in nearly if abs(c.open_qty - sold) <= c.tolerance)
        fitting = (c for c in (*exactly.get(sold, ()), *close) if _can_be_of(min(times), max(times), c))
        only = next(fitting, None)
        if isinstance(only, Case) and next(fitting, None) is None:
            found[only].append(lots)
    return {case: Explained(sales[0], whole=True) for case, sales in found.items() if len(sales) == 1}


def _can_be_of(first: datetime, last: datetime, claimant: _Claimant) -> bool:
    return claimant.start <= first and (isinstance(claimant, Case) or last <= claimant.end)


def _filled_at(case: Case) -> datetime:
    last = case.own.last
    return (last.fill_time if last is not None else None) or case.start


def _sums_agree(cases: Sequence[Case], openings: Sequence[Lot], closing: Sequence[Lot]) -> bool:
    """Whether the sales also cover what was bought by nobody since; else something else took it."""
    if not cases:
        return False
    sold, bought = _sold_and_bought(cases, openings, closing)
    return total(sold) - bought >= sum((c.open_qty - c.tolerance for c in cases), ZERO)


def _sold_and_bought(
    cases: Sequence[Case], openings: Sequence[Lot], closing: Sequence[Lot]
) -> tuple[list[Lot], Decimal]:
    """All sales since the first entry, and how much nobody bought since."""
    start = min(c.start for c in cases)
    bought = total(lot for lot in openings if not _is_before(lot, start))
    # The entry of a trade without a known order is itself a fill that nobody owns.
    bought -= min(bought, sum((c.entry_qty for c in cases if not c.certain), ZERO))
    return [lot for lot in closing if not _is_before(lot, start)], bought


def _scaled_in(case: Case, free: FreeFills) -> list[Lot] | None:
    """All sales of a trade that the ledger knows to be larger than its entry, by exactly the scale-ins."""
    more = total(free.opening(case.side, case.start))
    known = case.trade.size or ZERO
    if not case.certain or not more or known != case.entry_qty + more:
        return None
    closing = free.closing(case.side, case.start)
    return closing if total(closing) == case.open_qty + more else None


def explain_short(cases: Sequence[Case], held: Decimal, free: FreeFills) -> dict[Case, Explained]:
    """Free closing fills that can only belong to one of the trades that share a position."""
    missing = sum((c.open_qty for c in cases), ZERO) - held
    eligible = [c for c in cases if free.closes_after(c.side, c.start)]
    if len(eligible) != 1:
        return {}
    case = eligible[0]
    closing = free.closing(case.side, case.start)
    sold, bought = total(closing), total(free.opening(case.side, case.start))
    # Crypto fee dust of all that share the position is missing as well, and nobody sold it.
    dust = sum((c.tolerance for c in cases), ZERO)
    fitting = (qty for qty in (sold, sold - bought) if abs(missing - qty) <= dust)
    gone, whole = next(fitting, ZERO), missing >= case.open_qty - case.tolerance
    if not 0 < gone <= case.open_qty or (gone == case.open_qty and not whole):
        return {}
    served = _Supply(closing).serve([(case.start, case, gone)])
    lots = served[case] if served is not None else []
    # Only whole orders can be named as its exits; a part of one would count in full ever after.
    orders = {lot.order_id for lot in lots}
    if total(lots) != total(lot for lot in closing if lot.order_id in orders) or total(lots) < gone:
        return {}
    return {case: Explained(lots, whole=whole)}
