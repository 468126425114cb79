"""Verdicts on trades of which something is left: live, reduced, working, settling, ambiguous, mismatch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from ghostclean.core.allocation import Allocation, Books, Coverage, Execution, total
from ghostclean.core.broker import ZERO, multiplier, plain

from .closing import by_activities, close_with, whole_exit
from .decision import Action, Decision, Verdict, ago, change, hold, keep
from .fields import live_fields, reduced_fields
from .pnl import settle_part

_NAMED_AT_MOST = 12
_TOUCH_COUNTS = timedelta(hours=1)


def covered(books: Books, allocation: Allocation) -> Decision:
    """The position holds what the trade has left."""
    trade = allocation.trade
    if not allocation.certain and (trade.is_pending or not allocation.open_qty):
        why = "the broker does not know its order, yet a position of that side stands"
        return hold(books, allocation, Verdict.MISMATCH, why)
    more = (trade.size or ZERO) - allocation.open_qty
    if is_reducible(allocation) and not books.may_have_bought(allocation, more):
        return _reduced(books, allocation, allocation.exits, allocation.open_qty)
    return _live(books, allocation, f"the position holds its {plain(allocation.open_qty)}")


def is_reducible(allocation: Allocation) -> bool:
    """Whether its own exits, all of them over, took a part of it that its size still counts."""
    size = allocation.trade.size
    if size is None or size <= allocation.open_qty or not allocation.exits or allocation.unsure:
        return False
    return all(e.order is None or e.order.is_final for e in allocation.exits)


def _live(books: Books, allocation: Allocation, reason: str, *, keep_fills: bool = False) -> Decision:
    position, said = books.positions.get(allocation.key), allocation.trade.filled_qty
    agrees = said is not None and position is not None and said == position.qty != allocation.family.filled
    fields = live_fields(allocation, keep_fills=keep_fills or agrees or allocation.is_scaled)
    return change(books, allocation, Verdict.LIVE, Action.SYNCED, reason, fields)


def _reduced(books: Books, allocation: Allocation, exits: Sequence[Execution], left: Decimal) -> Decision:
    if (since := settling_since(books, allocation)) is not None:
        return settling(books, allocation, since, "a part of it was closed")
    # While a scale-in is not booked, only the sum is known, so the cost of a part of it is not.
    entries = [] if allocation.scale_in else allocation.entries
    units, stop = multiplier(allocation.key), allocation.initial_stop
    part = settle_part(allocation.side, entries, exits, units=units, initial_stop=stop)
    fields = reduced_fields(allocation, left, part)
    price = f" at {plain(part.price)}" if part.price is not None else ""
    how = f" ({by_activities(exits)})" if by_activities(exits) else ""
    reason = f"{plain(part.qty)} of it was closed{price}{how}, {plain(left)} is left"
    return change(books, allocation, Verdict.REDUCED, Action.REDUCED, reason, fields, exits=exits)


def missing_part(books: Books, allocation: Allocation) -> Decision | None:
    """Not all of it is left: what unallocated executions tell of that, outside the grace."""
    if settling_since(books, allocation) is not None:
        return _spared(books, allocation) if books.knows_executions(allocation) else None
    found = books.matches(allocation).get(allocation)
    if found is None:
        if rival_sale(books, allocation):
            return ambiguous(books, allocation, f"{_held(books, allocation)}, a sale may be of either")
        return _spared(books, allocation)
    if found.is_whole:
        if allocation.family.works:
            return None
        how = by_activities(found.executions) or "closed by fills that no other trade can own"
        return close_with(books, allocation, found.executions, how)
    left = allocation.open_qty - total(found.executions)
    if allocation.trade.size is not None and allocation.trade.size <= left:
        return _live(books, allocation, f"the position holds its {plain(left)}, reduced already", keep_fills=True)
    return _reduced(books, allocation, whole_exit(allocation, found.executions), left)


def _spared(books: Books, allocation: Allocation) -> Decision | None:
    """One of several that share a position, where executions prove that another is the one that lost."""
    found = books.matches(allocation)
    return covered(books, allocation) if found and allocation not in found else None


def rival_sale(books: Books, allocation: Allocation) -> bool:
    """Whether an unallocated sale may as well have been of a proven trade beside this unproven one."""
    since = None if allocation.certain else books.proven_since(allocation)
    if since is None:
        return False
    return bool(books.unallocated(allocation.key).closing(allocation.side, max(since, allocation.start)))


def working(books: Books, allocation: Allocation) -> Decision | None:
    """The entry order can still fill."""
    family = allocation.family
    if not family.works or family.last is None:
        return None
    reason = f"its entry order {family.last.id} still works ({family.last.status})"
    if allocation.trade.is_pending and family.filled:
        fields = live_fields(allocation)
        return change(books, allocation, Verdict.WORKING, Action.SYNCED, f"{reason}, first fill", fields)
    return keep(books, allocation, Verdict.WORKING, reason)


def settling_since(books: Books, allocation: Allocation) -> datetime | None:
    """The latest activity if it lies within the grace.

    Its opening, the times of its orders, unallocated executions in its symbol. `updatedAt` counts
    only without order ids and for an hour: an app that touches its records every minute must not
    keep its ghosts alive.
    """
    trade = allocation.trade
    times = [allocation.opened, *allocation.family.times()]
    nameless = not trade.has_order and not trade.exit_orders
    if nameless and trade.updated_at is not None and trade.updated_at - allocation.opened <= _TOUCH_COUNTS:
        times.append(trade.updated_at)
    if books.knows_executions(allocation) and (last := books.unallocated(allocation.key).latest()) is not None:
        times.append(last)
    seen = books.world.memory.seen(allocation.name, books.now)
    latest = max(t if t <= books.now else seen for t in times)
    return latest if books.now - latest < books.world.policy.grace else None


def settling(books: Books, allocation: Allocation, since: datetime, what: str = "something happened to it") -> Decision:
    """Held until the grace is over."""
    left = books.world.policy.grace - (books.now - since)
    reason = f"{what} {ago(books.now - since)}, settles in {left.total_seconds():.0f} s"
    return hold(books, allocation, Verdict.SETTLING, reason)


def if_settling(books: Books, allocation: Allocation) -> Decision | None:
    """Something happened to it within the grace."""
    since = settling_since(books, allocation)
    return settling(books, allocation, since) if since is not None else None


def disputed(books: Books, allocation: Allocation) -> Decision:
    """Another trade names its exit order as well, and it does not suffice for both."""
    why = f"{_held(books, allocation)}, exit order {allocation.disputed} filled for only one of them"
    return if_settling(books, allocation) or ambiguous(books, allocation, why)


def claimed(books: Books, allocation: Allocation) -> Decision:
    """What it may be, or should hold by its orders, another ledger of the account explains as well."""
    position = books.positions[allocation.key]
    said = ", ".join(f"{plain(qty)} of them are explained by ledger {name}" for name, qty in books.claimed(position))
    why = f"the broker holds {_held(books, allocation)}, no order proves which are its, and {said}"
    if allocation.certain:
        wanted = f"by its orders it should hold {plain(allocation.open_qty)} of {_held(books, allocation)}"
        why = f"{wanted}, and {said}: somebody sold without a name"
    held = hold(books, allocation, Verdict.AMBIGUOUS, f"{why}; settle it with `ghostclean resolve`")
    return if_settling(books, allocation) or held


def unexplained(books: Books, allocation: Allocation) -> Decision:
    """Something is left, and it is not what the trade should have."""
    held = _held(books, allocation)
    if allocation.coverage is Coverage.CONTESTED:
        return ambiguous(books, allocation, held)
    wanted = f"it should hold {plain(allocation.open_qty)}, the broker holds {held}"
    if allocation.coverage is Coverage.SPLIT:
        return hold(books, allocation, Verdict.MISMATCH, f"{wanted} at the same cost: a split?")
    if allocation.coverage is Coverage.OPPOSITE:
        return hold(books, allocation, Verdict.MISMATCH, f"it is {allocation.side.lower()}, the broker holds {held}")
    return hold(books, allocation, Verdict.MISMATCH, f"{wanted}, and nothing explains the difference")


def _held(books: Books, allocation: Allocation) -> str:
    position = books.positions.get(allocation.key)
    return f"{plain(position.qty)} {position.side.lower()}" if position is not None else "nothing"


def ambiguous(books: Books, allocation: Allocation, held: str) -> Decision:
    """Whose the rest is can't be proven: the numbers, and the cure."""
    rivals = [a for a in books.members(allocation) if a.coverage is allocation.coverage or a.disputed is not None]
    names = [f"{a.name}: {plain(a.open_qty)}" for a in rivals[:_NAMED_AT_MOST]]
    more = [f"and {len(rivals) - _NAMED_AT_MOST} more"] if len(rivals) > _NAMED_AT_MOST else []
    reason = f"the broker holds {held}, these trades share it: {', '.join((*names, *more))}"
    return hold(books, allocation, Verdict.AMBIGUOUS, f"{reason}; settle it with `ghostclean resolve`")
