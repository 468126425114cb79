"""The grace: how lately something happened to a trade, by the broker's clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from ghostclean.core.allocation import Case

from .decision import Decision, Verdict
from .ruling import ago, hold
from .search import Search

_TOUCH_COUNTS = timedelta(hours=1)


def settling_since(search: Search, case: Case) -> datetime | None:
    """The latest activity if it lies within the grace.

    Its opening, the times of its orders, fills in its symbol that no other record owns.
    `updatedAt` counts only without order ids and for an hour: an app that touches its records
    every minute must not keep its ghosts alive.
    """
    board, trade = search.board, case.trade
    times = [case.opened, *case.own.times()]
    touched = trade.updated_at
    nameless = not trade.has_order and not trade.exit_orders
    if touched is not None and nameless and touched - case.opened <= _TOUCH_COUNTS:
        times.append(touched)
    if search.knows_fills(case) and (last := search.free_fills(case).latest()) is not None:
        times.append(last)
    seen = board.world.memory.seen(case.name, board.now)
    latest = max(t if t <= board.now else seen for t in times)
    return latest if board.now - latest < board.world.policy.grace else None


def settling(search: Search, case: Case, since: datetime, what: str = "something happened to it") -> Decision:
    """Held until the grace is over."""
    board = search.board
    left = board.world.policy.grace - (board.now - since)
    reason = f"{what} {ago(board.now - since)}, settled in {left.total_seconds():.0f} s"
    return hold(board, case, Verdict.SETTLING, reason)
