"""Matches unallocated executions with the trades that lack them: strict with size, then FIFO.

An order of exactly one trade's quantity first, then oldest trade and oldest execution, each
once; and the books must balance: what was bought by hand meanwhile must have been sold again.
Where two matches are possible there is none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from ghostclean.core.broker import ONE, ZERO

from .allocation import Allocation, Closed
from .execution import Execution, total


@dataclass(frozen=True, slots=True)
class Match:
    """Unallocated executions that took (a part of) a trade out.

    `times` is how often what is gone fits into what was sold net of purchases: more than once
    after a split; `sold` are all sales then, where they can only be of this one trade.
    """

    executions: Sequence[Execution]
    is_whole: bool
    times: Decimal = ONE
    sold: Sequence[Execution] = ()


Matches = dict[Allocation, Match]


def match_gone(
    gone: Sequence[Allocation], closes: Sequence[Execution], opens: Sequence[Execution], unproven: Sequence[Closed]
) -> Matches:
    """Closing executions for trades of which nothing is left.

    `closes` and `opens` are unallocated; `unproven` are records closed without proof: what may
    have been their sale is no other trade's for certain.
    """
    if not gone:
        return {}
    closes = sorted((e for e in closes if e.side == gone[0].side.closing), key=lambda e: e.when)
    exact = _exact(gone, closes, unproven)
    proven = {a: m for a, m in exact.items() if a.certain}
    possible = (_fifo(gone, closes, unproven, proven), _fifo(gone, closes, unproven, {}), exact, proven)
    valid = [found for found in possible if found and _balances(found, gone, opens, closes)]
    best = max(valid, key=lambda found: (sum(1 for a in found if a.certain), len(found)), default={})
    return _with_all_sold(best, gone, opens, closes) if best else {}


def match_part(
    short: Sequence[Allocation], held: Decimal, closes: Sequence[Execution], opens: Sequence[Execution]
) -> Matches:
    """Closing executions for trades that share too small a position, where only some can have lost.

    `closes` include nothing that precedes its trade's entry: sales before a newer entry are of
    the older trades alone.
    """
    missing = sum((a.open_qty for a in short), ZERO) - held
    dust = sum((a.tolerance for a in short), ZERO)
    able = [a for a in short if any(e.side == a.side.closing and e.not_before(a.start) for e in closes)]
    if not able:
        return {}
    if abs(missing - sum((a.open_qty for a in able), ZERO)) <= dust and len(able) < len(short):
        found = match_gone(able, closes, opens, ())
        return found if len(found) == len(able) else {}
    if len(able) > 1:
        return {}
    [only] = able
    closing = [e for e in closes if e.side == only.side.closing and e.not_before(only.start)]
    bought = total(e for e in opens if e.not_before(only.start))
    gone = next((q for q in (total(closing), total(closing) - bought) if abs(missing - q) <= dust), ZERO)
    is_whole = missing >= only.open_qty - only.tolerance
    if not 0 < gone <= only.open_qty or (gone == only.open_qty and not is_whole):
        return {}
    taken = _Supply(closing).serve(only.start, gone, ZERO) or []
    # Only whole orders can be allocated to it for good; of a part the rest would count ever after.
    orders = {e.order_id for e in taken}
    if total(taken) < gone or total(taken) != total(e for e in closing if e.order_id in orders):
        return {}
    return {only: Match(taken, is_whole)}


class _Supply:
    """Closing executions, oldest first, and what is left of each."""

    def __init__(self, executions: Sequence[Execution]) -> None:
        self._rows = executions
        self._left = [e.qty for e in executions]

    def serve(self, start: datetime, wanted: Decimal, tolerance: Decimal) -> list[Execution] | None:
        """Takes from executions at or after `start`; None, and nothing taken, when short."""
        parts: list[tuple[int, Decimal]] = []
        for index, execution in enumerate(self._rows):
            if wanted <= 0:
                break
            part = min(self._left[index], wanted) if execution.not_before(start) else ZERO
            if part:
                parts.append((index, part))
                wanted -= part
        if wanted > tolerance:
            return None
        for index, part in parts:
            self._left[index] -= part
        return [self._rows[index].part(part) for index, part in parts]

    def serve_all(self, asks: Iterable[tuple[Allocation, datetime]]) -> dict[Allocation, list[Execution]] | None:
        """Serves all trades, each from its time on; None, and nothing taken, where one comes short."""
        left, served = list(self._left), {}
        for trade, start in asks:
            rows = self.serve(start, trade.open_qty, trade.tolerance)
            if rows is None:
                self._left = left
                return None
            served[trade] = rows
        return served

    def suffices(self, rivals: Iterable[Closed]) -> bool:
        """Whether what is left would serve some records closed without proof as well."""
        left = list(self._left)
        served = [self.serve(r.start, r.size, ZERO) for r in rivals if r.start is not None and r.size is not None]
        self._left = left
        return None not in served


def _fifo(
    gone: Sequence[Allocation], closes: Sequence[Execution], unproven: Sequence[Closed], first: Matches
) -> Matches:
    """Adds to `first` the proven trades, then the others, oldest first; a group all or none."""
    used = {e.order_id for m in first.values() for e in m.executions}
    supply = _Supply([e for e in closes if e.order_id not in used])
    found = dict(first)
    for certain in (True, False):
        members = sorted((a for a in gone if a.certain is certain and a not in found), key=lambda a: (a.start, a.name))
        # Sales after the entry was filled; those since it was sent only where these do not suffice.
        served = supply.serve_all((a, a.filled_at) for a in members) or supply.serve_all((a, a.start) for a in members)
        taken = [e for rows in (served or {}).values() for e in rows]
        rivals = [r for r in unproven if (r.certain or not certain) and may_be_of([r], taken)]
        if served is None or not supply.suffices(rivals):
            break
        found |= {a: Match(rows, is_whole=True) for a, rows in served.items()}
    return found


def may_be_of(unproven: Iterable[Closed], executions: Iterable[Execution]) -> bool:
    """Whether one of these may have been the sale of a record closed without proof."""
    rows = list(executions)
    return any(
        e.at is None or r.start <= e.at <= r.closed_at
        for r in unproven
        if r.start is not None and r.closed_at is not None
        for e in rows
    )


def _exact(gone: Sequence[Allocation], closes: Sequence[Execution], unproven: Sequence[Closed]) -> Matches:
    """Whole orders that sold exactly what one trade had and no other, where no second order did so too."""
    orders: dict[str, list[Execution]] = defaultdict(list)
    for execution in closes:
        orders[execution.order_id].append(execution)
    sizes = [(a, a.open_qty - a.tolerance, a.open_qty + a.tolerance) for a in gone]
    found: dict[Allocation, list[list[Execution]]] = defaultdict(list)
    for order_id, rows in orders.items():
        order, sold, times = rows[0].order, total(rows), [e.at for e in rows if e.at is not None]
        if not order_id or len(times) < len(rows) or (order is not None and order.filled_qty != sold):
            continue
        fitting = [a for a, least, most in sizes if least <= sold <= most and a.start <= min(times)]
        rivals = [r for r in unproven if r.size == sold and may_be_of([r], rows)]
        if len(fitting) == 1 and not rivals:
            found[fitting[0]].append(rows)
    return {a: Match(sales[0], is_whole=True) for a, sales in found.items() if len(sales) == 1}


def _balances(
    found: Matches, gone: Sequence[Allocation], opens: Sequence[Execution], closes: Sequence[Execution]
) -> bool:
    """Whether the sales also cover what was bought since for nobody of these; else something else took it."""
    sold, bought = _sold_and_bought(list(found), gone, opens, closes)
    return total(sold) - bought >= sum((a.open_qty - a.tolerance for a in found), ZERO)


def _sold_and_bought(
    trades: Sequence[Allocation],
    gone: Sequence[Allocation],
    opens: Sequence[Execution],
    closes: Sequence[Execution],
) -> tuple[list[Execution], Decimal]:
    """All sales since the first entry, and how much was bought since that is not of these trades."""
    start = min(a.start for a in trades)
    bought = total(e for e in opens if e.not_before(start))
    # The entry of a trade without a known order is itself among the unallocated purchases.
    nameless = sum((a.entry_qty for a in trades if not a.certain and not _is_booked(a)), ZERO)
    bought -= min(bought, nameless + sum((a.scale_in for a in trades), ZERO))
    others = (a for a in gone if not a.certain and a not in trades and _is_booked(a))
    bought += total(e for a in others for e in a.entries if e.not_before(start))
    return [e for e in closes if e.not_before(start)], bought


def _is_booked(allocation: Allocation) -> bool:
    return any(e.order_id for e in allocation.entries)


def _with_all_sold(
    found: Matches, gone: Sequence[Allocation], opens: Sequence[Execution], closes: Sequence[Execution]
) -> Matches:
    """The same, with how much more than all that is gone was sold: with a split in between, that is theirs too."""
    sold, bought = _sold_and_bought(gone, gone, opens, closes)
    net, missing = total(sold) - bought, sum((a.open_qty for a in gone), ZERO)
    if net <= missing or not missing:
        return found
    alone = sold if len(gone) == 1 and not bought else ()
    return {a: replace(m, times=net / missing, sold=alone) for a, m in found.items()}
