"""What a verdict must know before it may judge: questions as data, none once all is answered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ghostclean.core.allocation import Allocation, Books, Coverage, total
from ghostclean.core.broker import (
    ONE,
    ZERO,
    ActivitiesSince,
    ClockNow,
    FillsSince,
    OrderById,
    OrdersOf,
    Question,
    RecordsOf,
    is_uuid,
)

from .closing import needs_split
from .standing import is_reducible

Questions = Sequence[Question]
_A_DAY = timedelta(days=1)


def family(books: Books, allocation: Allocation) -> Questions:
    """Its own orders; where what it entered can't be told from these, all of its symbol."""
    if allocation.family.questions or not allocation.unsure or books.agrees(allocation):
        return allocation.family.questions
    return (*records(books, allocation), *orders(books, allocation))


def records(books: Books, allocation: Allocation) -> Questions:
    """The closed records of its symbol: what they own is not this trade's."""
    return () if allocation.key in books.world.closed else (RecordsOf(allocation.key),)


def orders(books: Books, allocation: Allocation) -> Questions:
    """All orders of its symbol since its entry."""
    since = books.since(allocation)
    if books.evidence.knows_orders(allocation.key, since):
        return ()
    return (OrdersOf(allocation.key, _symbol(books, allocation), since),)


def own_exit(books: Books, allocation: Allocation) -> Questions:
    """Who else owns its exits, and what it entered, where its own entry orders do not tell."""
    trade = allocation.trade
    if allocation.certain:
        told = total(allocation.exits) - allocation.entry_qty <= allocation.tolerance
        beyond = (trade.size or ZERO) > allocation.entry_qty
        may_be_more = allocation.may_show > 0 and (beyond or allocation.doubtful)
        told = told and allocation.part is None and not may_be_more
    else:
        told = trade.avg_fill_price is not None and trade.filled_qty == allocation.entry_qty
    return records(books, allocation) if told else absence(books, allocation)


def shared_entry(books: Books, allocation: Allocation) -> Questions:
    """Whose the rest of its entry is, before `filledQty` says that it is the trade's."""
    trade, filled = allocation.trade, allocation.family.filled
    if not allocation.certain or trade.size is None or trade.filled_qty == filled or allocation.exits:
        return ()
    return records(books, allocation) if trade.size < filled and allocation.part is None else ()


def covered(books: Books, allocation: Allocation) -> Questions:
    """All of its symbol, before a size is lowered beside shares that are nobody's: they may be its scale-in."""
    if not is_reducible(allocation) or not books.unexplained(allocation):
        return ()
    return (*records(books, allocation), *orders(books, allocation))


def absence(books: Books, allocation: Allocation) -> Questions:
    """Everything that could explain an absence.

    The symbol's orders come first: they usually explain everything and are one request.
    """
    if allocation.family.dormant:
        return allocation.family.dormant
    if unknown := (*records(books, allocation), *orders(books, allocation)):
        return unknown
    since, evidence = books.since(allocation), books.evidence
    if not _explained_by_orders(books, allocation) and not evidence.knows_fills(since):
        return (FillsSince(since),)
    if not _is_explained(books, allocation) and (open_activities := activities(books, allocation)):
        return open_activities
    match = books.matches(allocation).get(allocation)
    nameless = {e.order_id for e in match.executions if e.order is None and is_uuid(e.order_id)} if match else set()
    # The orders behind fills may be tied to an owner.
    return [OrderById(i, allocation.key, since) for i in sorted(nameless - evidence.absent)]


def _explained_by_orders(books: Books, allocation: Allocation) -> bool:
    """Whether the symbol's orders alone explain a proven trade, so that fills need not be paged."""
    proven = allocation.certain and allocation.key not in books.evidence.truncated
    return proven and _is_explained(books, allocation)


def _is_explained(books: Books, allocation: Allocation) -> bool:
    found = books.matches(allocation)
    return allocation in found if allocation.coverage is Coverage.GONE else bool(found)


def _symbol(books: Books, allocation: Allocation) -> str:
    position, last = books.positions.get(allocation.key), allocation.family.last
    if position is not None and not position.is_crypto:
        return position.symbol
    if last is not None and last.symbol:
        return last.symbol
    return allocation.trade.symbol if allocation.crypto else allocation.key


def activities(books: Books, allocation: Allocation) -> Questions:
    """Option ends and corporate actions since its entry."""
    since = allocation.start - _A_DAY
    return () if books.evidence.knows_activities(since) else (ActivitiesSince(since),)


def absence_and_split(books: Books, allocation: Allocation) -> Questions:
    """As `absence`; then whether a split lies in between, where more was sold than it had."""
    if open_questions := absence(books, allocation):
        return open_questions
    match = books.matches(allocation).get(allocation)
    if allocation.crypto or match is None or match.times <= ONE:
        return ()
    return activities(books, allocation)


def balance(books: Books, allocation: Allocation) -> Questions:
    """Whether a split makes entries and exits one life, where their quantities differ."""
    return activities(books, allocation) if needs_split(allocation, allocation.exits) else ()


def clock(books: Books, allocation: Allocation) -> Questions:
    """Whether the market is open."""
    return () if books.evidence.clock is not None else (ClockNow(),)
