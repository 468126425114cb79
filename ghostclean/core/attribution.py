"""Which free fills took out what is missing: all of it provably, or nothing is said.

Oldest trade first, oldest fill first, each fill once, and the sums must agree: shares bought by
hand meanwhile must have been sold again as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from .case import Case
from .free_fills import FreeFills, total
from .numbers import ZERO
from .own_orders import Lot


@dataclass(slots=True)
class Explained:
    """Free fills that took (a part of) a trade out."""

    lots: list[Lot]
    whole: bool


class _Supply:
    """Closing fills, oldest first, and what is left of each."""

    def __init__(self, lots: Sequence[Lot]) -> None:
        self._lots = lots
        self._left = [lot.qty for lot in lots]

    def serve(self, asks: Iterable[tuple[datetime, Case, Decimal]]) -> dict[Case, list[Lot]] | None:
        """Serves every ask from fills at or after its start; None, and nothing taken, when short."""
        before = list(self._left)
        served: dict[Case, list[Lot]] = {}
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


def _is_before(lot: Lot, start: datetime) -> bool:
    return lot.at is not None and lot.at < start


def explain_gone(cases: Sequence[Case], free: FreeFills, surplus: Sequence[Lot]) -> dict[Case, Explained]:
    """Free closing fills for trades of which nothing is left.

    Trades proven by orders first, all of them or none, then those that only the ledger knows.
    `surplus` is what own exits of other trades sold beyond them.
    """
    if not cases:
        return {}
    side = cases[0].side
    closing = [lot for lot in (*free.closing(side), *surplus) if lot.side == side.closing]
    closing.sort(key=lambda lot: (lot.at is None, lot.at, lot.order_id))
    if len(cases) == 1 and (whole := _scaled_in(cases[0], free)) is not None:
        return {cases[0]: Explained(whole, whole=True)}
    supply = _Supply(closing)
    found: dict[Case, Explained] = {}
    for members in ([c for c in cases if c.certain], [c for c in cases if not c.certain]):
        # Sales after the entry was filled; those since it was sent only where these do not suffice.
        served = supply.serve((_filled_at(c), c, c.open_qty) for c in members)
        if served is None:
            served = supply.serve((c.start, c, c.open_qty) for c in members)
        if served is None:
            break
        found |= {case: Explained(lots, whole=True) for case, lots in served.items()}
    return found if _sums_agree(list(found), free, closing) else {}


def _filled_at(case: Case) -> datetime:
    last = case.own.last
    return (last.fill_time if last is not None else None) or case.start


def _sums_agree(cases: Sequence[Case], free: FreeFills, closing: Sequence[Lot]) -> bool:
    """Whether the sales also cover what was bought by nobody since; else something else took it."""
    if not cases:
        return False
    start = min(c.start for c in cases)
    sold = total(lot for lot in closing if not _is_before(lot, start))
    bought = total(free.opening(cases[0].side, start))
    # The entry of a trade without a known order is itself a fill that nobody owns.
    bought -= min(bought, sum((c.entry_qty for c in cases if not c.certain), ZERO))
    return sold - bought >= sum((c.open_qty - c.tolerance for c in cases), ZERO)


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
    if missing > case.open_qty or missing not in (sold, sold - bought):
        return {}
    served = _Supply(closing).serve([(case.start, case, missing)])
    lots = served[case] if served is not None else []
    # Only whole orders can be named as its exits; a part of one would count in full ever after.
    orders = {lot.order_id for lot in lots}
    if total(lots) != total(lot for lot in closing if lot.order_id in orders) or total(lots) < missing:
        return {}
    return {case: Explained(lots, whole=missing >= case.open_qty - case.tolerance)}
