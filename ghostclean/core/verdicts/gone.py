"""Verdicts on trades of which nothing is left: exited, never_filled, filled_but_gone, vanished."""

from __future__ import annotations

from decimal import Decimal

from ghostclean.core.allocation import SPLIT_RATIOS, Case, Entry, Explained, Lot, Share, average, total
from ghostclean.core.broker import ONE, ZERO, ClockNow, expiry, is_option, plain

from . import fields as write
from .closing import close_option, close_with, split_before
from .decision import Action, Decision, Verdict
from .ruling import change, hold
from .search import Search

_OPTION_ENDS = {"OPEXP": "option_expired", "OPASN": "option_assigned", "OPEXC": "option_exercised"}
_TAKES_AWAY = frozenset({"MA", "NC", "SPLIT", "SPIN", "REORG", "OPCA"})


def never_filled(search: Search, case: Case) -> Decision:
    """The entry ended with nothing filled."""
    board, last = search.board, case.own.last
    status = last.status if last is not None else "unknown"
    why = f"its entry was {status} unfilled, yet"
    if left := board.unexplained(case):
        stands = f"an unexplained {case.side.lower()} position of {plain(left)} stands at the broker"
        return hold(board, case, Verdict.MISMATCH, f"{why} {stands}")
    position = board.positions.get(case.key)
    if position is not None and position.side is case.side and search.rivals_open(case):
        # What another trade seems to hold may yet turn out to be unexplained.
        return hold(board, case, Verdict.UNKNOWN, f"held: {why} orders of another trade in its symbol are not known")
    if (order := search.foreign_entry(case)) is not None:
        return hold(board, case, Verdict.MISMATCH, f"{why} another entry order {order.id} of it works")
    fields = write.without_fill(f"never_filled:{status}", board.now, case.own)
    reason = f"its entry order was {status}, nothing filled"
    return change(board, case, Verdict.NEVER_FILLED, Action.CLOSED, reason, fields)


def gone(search: Search, case: Case) -> Decision:
    """Nothing is left: what took it away, or that nothing is known to have."""
    board = search.board
    found = search.explanation(case)
    if found is not None:
        return _exited(search, case, found)
    if case.early is not None:
        why = f"its exit order {case.early} filled before its entry, and nothing else explains where it went"
        return hold(board, case, Verdict.MISMATCH, why)
    if search.may_be_a_rivals(case):
        why = "several trades share the symbol, and a sale that nobody owns may have been of either"
        return hold(board, case, Verdict.AMBIGUOUS, why)
    if not case.certain and (lost := search.lost(case)) > case.tolerance:
        why = f"fills that nobody owns brought {plain(lost)} in, and proven trades hold all that is left"
        return hold(board, case, Verdict.AMBIGUOUS, f"{why}: whose part went cannot be told")
    if is_option(case.key) and (decision := _option_end(search, case)) is not None:
        return decision
    if (orphan := board.twin_of_other_name(case)) is not None:
        what = f"{plain(orphan.qty)} {orphan.position.symbol} of the same size or cost"
        return hold(board, case, Verdict.MISMATCH, f"it is gone, and {what} stand unexplained (rename?)")
    if not case.certain and (order := search.foreign_entry(case)) is not None:
        why = f"an entry order {order.id} of its symbol works and belongs to no trade"
        return hold(board, case, Verdict.WORKING if case.own.entry is Entry.NONE else Verdict.MISMATCH, why)
    return _missed(search, case)


def _exited(search: Search, case: Case, found: Explained) -> Decision:
    """Sold by nobody's orders. Where more was sold than it had, a split may have made it more.

    With the activity, all that was sold is its, if that is a clean multiple of it; without one,
    a multiple that fits its cost better than its quantity does says that the price is not known.
    """
    how = "closed by fills that no trade owns"
    if found.times <= ONE or case.crypto:
        return close_with(search, case, found.lots, how)
    if not search.knows_activities(case.start):
        failed = search.board.evidence.activities_failed or "not looked up yet"
        return hold(search.board, case, Verdict.UNKNOWN, f"held: activities: {failed}")
    clean = found.times in SPLIT_RATIOS
    if split_before(search, case, found.sold or found.lots):
        lots = found.sold if clean else ()
        return close_with(search, case, lots or found.lots, how, priced=bool(lots))
    return close_with(search, case, found.lots, how, priced=not (clean and _fits_split(case, found)))


def _fits_split(case: Case, found: Explained) -> bool:
    """Whether the sale's price is nearer to the entry's across the split than without one."""
    price, entry = average(found.lots), case.entry_price
    return price is None or entry is None or abs(price * found.times - entry) < abs(price - entry)


def _missed(search: Search, case: Case) -> Decision:
    """Gone, and nothing explains it: the second look, the confirmations, then `vanished`."""
    board = search.board
    policy = board.world.policy
    count, since = board.world.memory.miss(case.name, board.now)
    if case.certain:
        why = "its entry filled, the position is gone, and nothing takes it away"
        if since is None or board.now - since < policy.grace:
            reason = f"{why}; looked at again in the next run"
            return hold(board, case, Verdict.FILLED_BUT_GONE, reason)
        if not case.crypto and not _market_open(search):
            return hold(board, case, Verdict.FILLED_BUT_GONE, f"{why}; decided in the regular session")
        if (decision := _taken_away(search, case)) is not None:
            return decision
    else:
        known = "the broker does not know its order" if case.trade.has_order else "it has no order id"
        why = f"{known}, and no position, order or fill explains it"
    if count + 1 < policy.confirmations:
        return hold(board, case, Verdict.VANISHED, f"{why}; seen {count + 1} of {policy.confirmations} times")
    fields = write.vanished(policy.close_reason, board.now)
    return change(board, case, Verdict.VANISHED, Action.CLOSED, why, fields, unproven=True)


def _market_open(search: Search) -> bool:
    evidence = search.board.evidence
    if evidence.clock is None:
        if evidence.clock_failed is None:
            search.ask([ClockNow()])
        return False
    return evidence.clock.is_open


def _taken_away(search: Search, case: Case) -> Decision | None:
    """A merger or a rename takes a position away without a fill; None when there was none."""
    board = search.board
    if not search.knows_activities(case.start):
        return _open_activities(search, case)
    first = case.start.date().isoformat()
    for activity in board.evidence.activities:
        if activity.key == case.key and activity.type in _TAKES_AWAY and activity.day >= first:
            why = f"it is gone, and an activity {activity.type} of {activity.day} may have taken it"
            return hold(board, case, Verdict.MISMATCH, why)
    return None


def _open_activities(search: Search, case: Case) -> Decision:
    failed = search.board.evidence.activities_failed or "not looked up yet"
    search.suspects += 1
    return hold(search.board, case, Verdict.UNKNOWN, f"held: activities: {failed}")


def _option_end(search: Search, case: Case) -> Decision | None:
    """Expiry, assignment and exercise take an option away without any order."""
    board = search.board
    if not search.knows_activities(case.start):
        return _open_activities(search, case)
    first = case.start.date().isoformat()
    ends = expiry(case.key) or board.now
    rows = [a for a in board.evidence.activities if a.key == case.key and a.type in _OPTION_ENDS and a.day >= first]
    gone_by = sum((abs(a.qty) for a in rows if a.qty is not None), ZERO)
    sold = _sold_before_its_end(search, case, case.open_qty - gone_by)
    known = bool(rows) and (any(a.qty is None for a in rows) or gone_by + total(sold) >= case.open_qty)
    if known:
        # Mixed ends of one contract: what is assigned or exercised has no price of its own.
        row = max(rows, key=lambda a: (a.type != "OPEXP", a.day, a.id))
        why = f"activity {row.type} of {row.day}"
        at = min(ends, board.now)
        return close_option(search, case, _OPTION_ENDS[row.type], at, why, worthless=row.type == "OPEXP", sold=sold)
    if board.now < ends:
        return None
    why = "past its date and no longer held"
    return close_option(search, case, "option_expired", ends, why, worthless=False)


def _sold_before_its_end(search: Search, case: Case, missing: Decimal) -> list[Lot]:
    """The free sales of an option's only trade, where they are what its end did not take away."""
    sold = search.free_fills(case).closing(case.side, case.start)
    alone = sum(1 for c in search.board.members(case) if c.share is Share.GONE) == 1
    return sold if alone and total(sold) == missing else []
