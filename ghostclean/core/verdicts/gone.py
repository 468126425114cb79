"""Verdicts on trades of which nothing is left: exited, never_filled, filled_but_gone, vanished."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ghostclean.core.allocation import SPLIT_RATIOS, Allocation, Books, Match, average, is_dust, total
from ghostclean.core.broker import ONE, ZERO, expiry, is_option, plain

from .closing import by_activities, close_past_its_date, close_with, split_before
from .decision import Action, Decision, Verdict, change, hold
from .fields import closed_fields, unfilled_fields, vanished_fields
from .standing import rival_sale, settling, settling_since

_ACTIVITY_COMES_LATE = timedelta(days=2)
_TAKES_AWAY = frozenset({"MA", "NC", "SPLIT", "SPIN", "REORG", "OPCA"})


def exited_by_own_orders(books: Books, allocation: Allocation) -> Decision | None:
    """Its own exits took everything out, whoever else holds the symbol.

    Exits of more than its entries brought, or a record that does not add up, leave open how much
    it entered: while shares stand there it may be these.
    """
    shown = allocation.may_show
    more = allocation.certain and total(allocation.exits) - allocation.entry_qty > allocation.tolerance
    beyond = (allocation.trade.size or ZERO) - allocation.entry_qty
    open_question = more or allocation.unsure or allocation.doubtful
    if shown > 0 and (open_question or books.may_have_bought(allocation, beyond)):
        sold, entered = plain(total(allocation.exits)), plain(allocation.entry_qty)
        why = f"its exits took {sold}, its entry is known for {entered}, and {plain(shown)} more stand at the broker"
        return hold(books, allocation, Verdict.MISMATCH, why)
    return close_with(books, allocation, allocation.exits, "closed by its own orders")


def still_shown(books: Books, allocation: Allocation) -> Decision | None:
    """Its own exits filled within the grace, and the position may still show what they sold."""
    grace = books.world.policy.grace
    recent = [e for e in allocation.exits if e.at is not None and books.now - e.at < grace]
    if not recent or allocation.may_show < total(recent):
        return None
    since = max(e.at for e in recent if e.at is not None)
    return settling(books, allocation, since, "its exit filled, the position still shows it:")


def never_filled(books: Books, allocation: Allocation) -> Decision:
    """The entry ended with nothing filled."""
    family, last = allocation.family, allocation.family.last
    status = last.status if last is not None else "unknown"
    if family.filled and not allocation.entry_qty:
        why = f"other records have all of the {plain(family.filled)} that its entry order filled"
        return hold(books, allocation, Verdict.MISMATCH, why)
    if any(books.evidence.fills_of(o.id) for o in family.entries):
        why = f"its entry was {status} unfilled, yet the broker lists fills of it"
        return hold(books, allocation, Verdict.MISMATCH, why)
    why = f"its entry was {status} unfilled, yet"
    if left := books.unexplained(allocation):
        stands = f"an unexplained {allocation.side.lower()} position of {plain(left)} stands at the broker"
        return hold(books, allocation, Verdict.MISMATCH, f"{why} {stands}")
    position = books.positions.get(allocation.key)
    if position is not None and position.side is allocation.side and books.families_open(allocation):
        # What another trade seems to hold may yet turn out to be unexplained.
        return hold(
            books, allocation, Verdict.UNKNOWN, f"held: {why} orders of another trade in its symbol are not known"
        )
    if (order := books.foreign_entry(allocation)) is not None:
        return hold(books, allocation, Verdict.MISMATCH, f"{why} another entry order {order.id} of it works")
    fields = unfilled_fields(f"never_filled:{status}", books.now, allocation)
    reason = f"its entry order was {status}, nothing filled"
    return change(books, allocation, Verdict.NEVER_FILLED, Action.CLOSED, reason, fields)


def gone(books: Books, allocation: Allocation) -> Decision | None:
    """Unallocated executions took it out, or may have: then whose they are can't be told."""
    if (since := settling_since(books, allocation)) is not None:
        return settling(books, allocation, since)
    matches = books.matches(allocation)
    end = books.sold_again(allocation)
    if allocation in matches or end is not None:
        # What goes together is decided together.
        together = books.members(allocation) if end else tuple(matches)
        if (since := _settling_of(books, allocation, together)) is not None:
            return settling(books, allocation, since, "a trade beside it changed")
    if allocation in matches:
        return _exited(books, allocation, matches[allocation])
    if end is not None:
        why = "all that was bought since is sold again; which sales were its can't be told"
        fields = closed_fields("manual_close", end, None, allocation)
        return change(books, allocation, Verdict.EXITED, Action.CLOSED, why, fields)
    if allocation.early is not None:
        why = f"its exit order {allocation.early} filled before its entry, and nothing else explains where it went"
        return hold(books, allocation, Verdict.MISMATCH, why)
    if (rivals := _rivals(books, allocation)) is not None:
        return hold(books, allocation, Verdict.AMBIGUOUS, f"{rivals}; settle it with `ghostclean resolve`")
    return None


def _settling_of(books: Books, allocation: Allocation, together: Sequence[Allocation]) -> datetime | None:
    """As `settling_since`, of trades that are matched together; found once for all of them."""
    identity = (allocation.key, allocation.side)
    if identity not in books.settling:
        since = (settling_since(books, a) for a in together)
        books.settling[identity] = next((s for s in since if s is not None), None)
    return books.settling[identity]


def _rivals(books: Books, allocation: Allocation) -> str | None:
    """Why an unallocated execution that may be its, may as well be another's."""
    if rival_sale(books, allocation):
        return "several trades share the symbol, and a sale that no record owns may have been of either"
    position = books.positions.get(allocation.key)
    if allocation.certain or position is None or position.side is not allocation.side or is_dust(position):
        return None
    unallocated, since = books.unallocated(allocation.key), books.since(allocation)
    bought = total(e for e in (*allocation.entries, *unallocated.opening(allocation.side, since)) if e.order_id)
    if bought - total(unallocated.closing(allocation.side, since)) > allocation.tolerance:
        return "proven trades hold all that is left, though more was bought that no record owns and never sold"
    return None


def _exited(books: Books, allocation: Allocation, found: Match) -> Decision:
    """Taken out by no trade's orders. Where more was sold than it had, a split may have made it more.

    With the activity, all that was sold is its, if that is a clean multiple of it; without one,
    a multiple that fits its cost better than its quantity does leaves the price unknown.
    """
    how = by_activities(found.executions) or "closed by fills that no trade owns"
    # The symbol of an option names its terms: a split gives it another.
    if found.times <= ONE or allocation.crypto or is_option(allocation.key):
        return close_with(books, allocation, found.executions, how)
    clean = found.times in SPLIT_RATIOS
    if split_before(books, allocation, found.sold or found.executions):
        rows = found.sold if clean else ()
        return close_with(books, allocation, rows or found.executions, how, priced=bool(rows))
    return close_with(books, allocation, found.executions, how, priced=not (clean and _fits_split(allocation, found)))


def _fits_split(allocation: Allocation, found: Match) -> bool:
    """Whether the sale's price is nearer to the entry's across the split than without one."""
    price, entry = average(found.executions), allocation.entry_price
    return price is None or entry is None or abs(price * found.times - entry) < abs(price - entry)


def option_end(books: Books, allocation: Allocation) -> Decision | None:
    """Its date takes an option away; the activities that say how may come two days late."""
    ends = expiry(allocation.key) or books.now
    if books.now < ends:
        return None
    if books.now < ends + _ACTIVITY_COMES_LATE:
        why = "it is past its date and no longer held, and its activity has not come yet (up to two days)"
        return hold(books, allocation, Verdict.SETTLING, why)
    return close_past_its_date(books, allocation, ends, "past its date and no longer held")


def under_other_name(books: Books, allocation: Allocation) -> Decision | None:
    """An orphan or a foreign entry order may be what this trade has."""
    if (orphan := books.twin_of_other_name(allocation)) is not None:
        what = f"{plain(orphan.qty)} {orphan.position.symbol} of the same size or cost"
        return hold(books, allocation, Verdict.MISMATCH, f"it is gone, and {what} stand unexplained (rename?)")
    if not allocation.certain and (order := books.foreign_entry(allocation)) is not None:
        why = f"an entry order {order.id} of its symbol works and belongs to no trade"
        verdict = Verdict.MISMATCH if allocation.trade.has_order else Verdict.WORKING
        return hold(books, allocation, verdict, why)
    return None


_FILLED_AND_GONE = "its entry filled, the position is gone, and nothing takes it away"


def first_look(books: Books, allocation: Allocation) -> Decision | None:
    """A glitch, a rename or a wiped account looks like this: it takes a second run, a grace later."""
    _, since = books.world.memory.miss(allocation.name, books.now)
    if since is None or books.now - since < books.world.policy.grace:
        why = f"{_FILLED_AND_GONE}; looked at again in the next run"
        return hold(books, allocation, Verdict.FILLED_BUT_GONE, why)
    return None


def market_closed(books: Books, allocation: Allocation) -> Decision | None:
    """Equities and options end as vanished in the regular session only."""
    clock = books.evidence.clock
    if clock is not None and clock.is_open:
        return None
    why = f"{_FILLED_AND_GONE}; decided in the regular session"
    return hold(books, allocation, Verdict.FILLED_BUT_GONE, why)


def taken_away(books: Books, allocation: Allocation) -> Decision | None:
    """A merger or a rename takes a position away without a fill."""
    first = allocation.start.date().isoformat()
    for activity in books.evidence.activities:
        takes = activity.type in _TAKES_AWAY or activity.is_transfer
        if activity.key == allocation.key and takes and activity.day >= first:
            why = f"it is gone, and an activity {activity.type} of {activity.day} may have taken it"
            return hold(books, allocation, Verdict.MISMATCH, why)
    return None


def vanished(books: Books, allocation: Allocation) -> Decision:
    """Gone, and nothing explains it: the only close without proof."""
    policy = books.world.policy
    count, _ = books.world.memory.miss(allocation.name, books.now)
    if allocation.certain:
        why = _FILLED_AND_GONE
    else:
        known = "the broker does not know its order" if allocation.trade.has_order else "it has no order id"
        why = f"{known}, and no position, order or fill explains it"
    if count + 1 < policy.confirmations:
        seen = f"seen {count + 1} of {policy.confirmations} times"
        return hold(books, allocation, Verdict.VANISHED, f"{why}; {seen}")
    fields = vanished_fields(policy.close_reason, books.now, allocation.trade.record)
    booked = "; the P&L booked of the part sold before stays" if "realizedPnL" not in fields else ""
    return change(books, allocation, Verdict.VANISHED, Action.CLOSED, f"{why}{booked}", fields, unproven=True)
