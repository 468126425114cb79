"""Verdicts on trades of which something is left: live, reduced, working, ambiguous, mismatch."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from ghostclean.core.allocation import Case, Lot, Share, settle_part, total
from ghostclean.core.broker import multiplier, plain

from . import fields as write
from .closing import close_with, entry_lots, whole_exit
from .decision import Action, Decision, Verdict
from .ruling import change, hold, keep
from .search import Search
from .settling import settling, settling_since

_NAMED_AT_MOST = 12


def covered(search: Search, case: Case) -> Decision:
    """The position holds what the trade has left."""
    trade, board = case.trade, search.board
    if not case.certain and (trade.is_pending or not case.open_qty):
        why = "the broker does not know its order, yet a position of that side stands"
        return hold(board, case, Verdict.MISMATCH, why)
    booked_less = trade.size is not None and trade.size > case.open_qty and bool(case.exit_lots)
    if booked_less and all(lot.order is None or lot.order.is_final for lot in case.exit_lots):
        return _reduced(search, case, case.exit_lots, case.open_qty)
    fields = write.live(trade, case.own, agrees_with_ledger=_agrees(search, case))
    return _live(search, case, f"the position holds its {plain(case.open_qty)}", fields)


def _live(search: Search, case: Case, reason: str, fields: dict[str, object]) -> Decision:
    return change(search.board, case, Verdict.LIVE, Action.SYNCED, reason, fields)


def _agrees(search: Search, case: Case) -> bool:
    """Whether position and ledger agree on a quantity that the order does not show."""
    if case.agrees_with_ledger:
        return True
    position, said = search.board.positions.get(case.key), case.trade.filled_qty
    return said is not None and position is not None and said == position.qty and said != case.own.filled


def _reduced(search: Search, case: Case, lots: Sequence[Lot], left: Decimal) -> Decision:
    if (since := settling_since(search, case)) is not None:
        return settling(search, case, since, "a part of it was closed")
    # Of a scale-in only the sum is known, so the cost of a part of it is not.
    entries = [] if case.agrees_with_ledger else entry_lots(search, case, ())
    part = settle_part(case.side, entries, lots, units=multiplier(case.key), initial_stop=case.initial_stop)
    fields = write.reduced(case.trade, case.own, left, part)
    price = f" at {plain(part.price)}" if part.price is not None else ""
    reason = f"{plain(part.qty)} of it was closed{price}, {plain(left)} is left"
    return change(search.board, case, Verdict.REDUCED, Action.REDUCED, reason, fields, exits=lots)


def missing_part(search: Search, case: Case) -> Decision | None:
    """Not all of it is left: what free fills tell of that, outside the grace; None when nothing."""
    if settling_since(search, case) is not None:
        return _spared(search, case) if search.knows_fills(case) else None
    if not search.done(case):
        return hold(search.board, case, Verdict.UNKNOWN, f"held: {search.failure(case)}")
    if settling_since(search, case) is not None:
        return _spared(search, case)
    found = search.explanation(case)
    if found is None and search.may_be_a_rivals(case):
        position = search.board.positions[case.key]
        return ambiguous(search, case, f"{plain(position.qty)} {position.side.lower()}, a sale may be of either")
    if found is None:
        return _spared(search, case)
    if found.whole:
        if case.own.works:
            return None
        return close_with(search, case, found.lots, "closed by fills that no other trade can own")
    left = case.open_qty - total(found.lots)
    if case.trade.size is not None and case.trade.size <= left:
        fields = write.live(case.trade, case.own, agrees_with_ledger=True)
        return _live(search, case, f"the position holds its {plain(left)}, reduced already", fields)
    return _reduced(search, case, whole_exit(case, found.lots), left)


def _spared(search: Search, case: Case) -> Decision | None:
    """One of several that share a position, where fills prove that another is the one that lost."""
    found = search.explanations(case)
    if not found or case in found:
        return None
    return covered(search, case)


def working(search: Search, case: Case) -> Decision:
    """The entry order can still fill."""
    own, last = case.own, case.own.last
    reason = f"its entry order {last.id} still works ({last.status})" if last is not None else "its entry works"
    if case.trade.is_pending and own.filled:
        fields = write.live(case.trade, own, agrees_with_ledger=False)
        return change(search.board, case, Verdict.WORKING, Action.SYNCED, f"{reason}, first fill", fields)
    return keep(search.board, case, Verdict.WORKING, reason)


def unexplained(search: Search, case: Case) -> Decision:
    """Something is left, and it is not what the trade should have."""
    board = search.board
    position = board.positions.get(case.key)
    held = f"{plain(position.qty)} {position.side.lower()}" if position is not None else "nothing"
    if case.share is Share.SHARED:
        return ambiguous(search, case, held)
    wanted = f"it should hold {plain(case.open_qty)}, the broker holds {held}"
    if case.share is Share.SPLIT:
        return hold(board, case, Verdict.MISMATCH, f"{wanted} at the same cost: a split?")
    if case.share is Share.OTHER_SIDE:
        return hold(board, case, Verdict.MISMATCH, f"it is {case.side.lower()}, the broker holds {held}")
    return hold(board, case, Verdict.MISMATCH, f"{wanted}, and nothing explains the difference")


def ambiguous(search: Search, case: Case, held: str) -> Decision:
    """Whose the rest is can't be proven: the numbers, and the cure."""
    reason = f"the broker holds {held}, these trades share it: {search.sharers(case, _NAMED_AT_MOST)}"
    return hold(search.board, case, Verdict.AMBIGUOUS, f"{reason}; settle it with `ghostclean resolve`")
