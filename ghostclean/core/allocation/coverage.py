"""Shares one position out among the trades of its side: the coverage of each.

Trades proven by orders come before those that only the ledger knows. What remains is an
orphan's; what is missing must be explained by unallocated executions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from ghostclean.core.broker import ZERO, Position, Side

from .allocation import SAME_COST, Allocation, Coverage, is_dust, same_side, within
from .booking import own_coverage
from .execution import total

SPLIT_RATIOS = frozenset(Decimal(n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50, 100)) | {
    Decimal("1.5")
}


def share_out(
    allocations: Sequence[Allocation],
    position: Position | None,
    elsewhere: Decimal = ZERO,
    proven: Decimal = ZERO,
) -> dict[Side, Decimal]:
    """Gives every allocation of one instrument its coverage; what remains of the position, by side.

    The side that is held comes first: where its trades explain the whole position, that says of
    a trade of the other side only that it is gone. `elsewhere`: what other ledgers say they hold;
    no trade that only this ledger knows takes it for its own. `proven`: what their orders prove of
    just this position; what it lacks for all, somebody's trade has lost.
    """
    left: dict[Side, Decimal] = {}
    explained = False
    short_first = position is not None and position.side is Side.SHORT
    for side in (Side.SHORT, Side.LONG) if short_first else (Side.LONG, Side.SHORT):
        members = same_side(allocations, side)
        if not members:
            continue
        left[side] = _share(members, None if explained else position, side, elsewhere, proven)
        if position is not None and position.side is side:
            explained = not left[side] and any(a.coverage is Coverage.HELD for a in members)
    return left


def _share(
    members: Sequence[Allocation], position: Position | None, side: Side, elsewhere: Decimal, proven: Decimal
) -> Decimal:
    held = position.qty if position is not None and position.side is side else ZERO
    for allocation in members:
        allocation.coverage = own_coverage(allocation)
    unsettled = [a for a in members if a.coverage is Coverage.UNKNOWN]
    waiting = [a for a in unsettled if a.family.is_open]
    certain = [a for a in unsettled if a.certain and not a.family.is_open]
    by_size = [a for a in unsettled if not a.certain and not a.family.is_open]
    if position is not None and position.side is not side and not is_dust(position):
        for allocation in (*certain, *by_size):
            allocation.coverage = Coverage.OPPOSITE
        return ZERO
    if position is not None and is_dust(position) and _needed(unsettled) > held:
        held = ZERO
    if not by_size and not waiting:
        _follow_the_ledger(certain, max(ZERO, held - elsewhere))
    left = _unless_proven_elsewhere(certain, _cover(certain, held), held, proven)
    if elsewhere and left and _needed(by_size) > max(ZERO, left - elsewhere):
        for allocation in by_size:
            allocation.coverage, allocation.has = Coverage.CLAIMED, left
        left = min(left, elsewhere)
    elif left is None and held:
        # Whose the rest is can't be told, so no trade beside it can be proven gone.
        for allocation in by_size:
            allocation.coverage, allocation.has = Coverage.CONTESTED, held
    else:
        _follow_sizes(by_size, left or ZERO)
        left = _cover(by_size, left or ZERO)
    left = left or ZERO
    _mark_split(certain, by_size, position, held)
    _mark_may_show(members, held)
    return max(ZERO, left - sum((a.claim for a in waiting), ZERO))


def _unless_proven_elsewhere(
    certain: Sequence[Allocation], left: Decimal | None, held: Decimal, proven: Decimal
) -> Decimal | None:
    """What is left; None, and none is covered, where the orders of all ledgers prove more than stands."""
    if left is None or not certain or not proven or _needed(certain) + proven <= held:
        return left
    for allocation in certain:
        allocation.coverage = Coverage.CLAIMED
    return None


def _needed(allocations: Iterable[Allocation]) -> Decimal:
    return sum((a.open_qty - a.tolerance for a in allocations), ZERO)


def _follow_the_ledger(certain: Sequence[Allocation], held: Decimal) -> None:
    """Where orders and position disagree, the sizes that agree with the position are believed.

    That is a scale-in by orders the ledger does not name, a purchase after a part was sold, or
    a reduction the app has booked already. A scale-in that only the ledger claims, while the
    position is exactly what the orders say, is none.
    """
    if not certain or not held:
        return
    by_orders = [max(ZERO, a.entry_qty - total(a.exits)) for a in certain]
    if sum(by_orders, ZERO) == held:
        for allocation, qty in zip(certain, by_orders, strict=True):
            allocation.open_qty, allocation.scale_in = qty, ZERO
        return
    sizes = [a.trade.size or ZERO for a in certain]
    most = [max(size, qty) for size, qty in zip(sizes, by_orders, strict=True)]
    dust = sum((a.tolerance for a in certain), ZERO)
    if abs(sum(sizes, ZERO) - held) > dust:
        sizes = most
    agrees = sizes != by_orders and sum(sizes, ZERO) <= held + dust
    if not (agrees and all(sizes) and not any(a.family.works or a.family.asked_for(a.trade.size) for a in certain)):
        return
    for allocation, size in zip(certain, sizes, strict=True):
        allocation.open_qty = size
        allocation.scale_in = max(ZERO, size + total(allocation.exits) - allocation.entry_qty)


def _follow_sizes(by_size: Sequence[Allocation], held: Decimal) -> None:
    """Takes the present size where the app has booked an exit in it already."""
    if held and sum((a.trade.size or ZERO for a in by_size), ZERO) == held:
        for allocation in by_size:
            allocation.open_qty = allocation.trade.size or ZERO


def _cover(allocations: Sequence[Allocation], held: Decimal) -> Decimal | None:
    """Covers all or none; what is left, None when they need more than there is."""
    if not allocations:
        return held
    if held and _needed(allocations) <= held:
        for allocation in allocations:
            allocation.coverage, allocation.has = Coverage.HELD, min(allocation.open_qty, held)
        return max(ZERO, held - sum((a.open_qty for a in allocations), ZERO))
    for allocation in allocations:
        if not held:
            allocation.coverage = Coverage.GONE
        else:
            allocation.coverage = Coverage.SHORTFALL if len(allocations) == 1 else Coverage.CONTESTED
        allocation.has = held
    return None


def _mark_split(
    certain: Sequence[Allocation], by_size: Sequence[Allocation], position: Position | None, held: Decimal
) -> None:
    """A clean multiple of a single trade at the same cost is a split, not a hand-bought remainder."""
    if len(certain) + len(by_size) != 1 or position is None or not held:
        return
    allocation = (*certain, *by_size)[0]
    wanted = allocation.open_qty
    if not wanted or wanted == held or allocation.crypto or not position.avg_price:
        return
    price = allocation.entry_price
    if price is None:
        return
    ratio = held / wanted if held > wanted else wanted / held
    if ratio in SPLIT_RATIOS and within(price * wanted, position.avg_price * held, SAME_COST):
        allocation.coverage = Coverage.SPLIT


def _mark_may_show(members: Sequence[Allocation], held: Decimal) -> None:
    """How much of what exited trades sold the position may still show (it can lag behind a fill).

    Of a trade that is unsure all may still stand but for what others hold for certain.
    """
    exited = [a for a in members if a.coverage is Coverage.EXITED]
    if not exited:
        return
    standing = [a for a in members if a.coverage not in (Coverage.EXITED, Coverage.UNFILLED)]
    claimed = sum((a.open_qty for a in standing), ZERO)
    proven = sum((a.open_qty for a in standing if a.coverage is Coverage.HELD and not a.unsure), ZERO)
    for allocation in exited:
        allocation.may_show = max(ZERO, held - (proven if allocation.unsure else claimed))
