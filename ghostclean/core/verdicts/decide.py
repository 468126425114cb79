"""Decides what every trade of the ledger is, by broker truth; pure, no clock and no I/O.

`decide(world)` returns a Plan: one decision a trade, the orphans, and the look-ups that would
settle what is still open. Invariants, each with a property test of its name:
- nothing the broker still holds is ever closed;
- unknown is never read as empty: an open look-up or a failed one holds the trade;
- same input, same plan, in whatever order records, orders and fills arrive;
- applying a plan and deciding again changes nothing;
- no fill is used twice;
- the P&L of the parts sums to the P&L of the whole.
The decision table in README says the same for people, in the order of `_judge`.

The way through the core: `own_orders` reads what a trade's orders say, `sharing` gives it its
part of the position, `board` holds all of that; `search` knows what must still be asked and
which fills are free, `finished` what final records may own, `attribution` which fill took what;
`covered`, `gone` and `closing` are the verdicts, `ruling` makes decisions of them.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from ghostclean.core.allocation import Board, Case, Orphan, Share
from ghostclean.core.broker import ZERO, Side, plain
from ghostclean.core.inputs import World
from ghostclean.core.ledger import Trade

from . import fields as write
from .closing import close_with, needs_more_entries
from .covered import ambiguous, covered, missing_part, unexplained, working
from .decision import Action, Decision, Verdict
from .gone import gone, never_filled
from .plan import Holding, Plan
from .ruling import change, hold
from .search import Search
from .settling import settling, settling_since


def decide(world: World) -> Plan:
    """The plan for one consistent view of ledger and broker; see the module's invariants."""
    board = Board(world)
    search = Search(board)
    decisions = [_unreadable(trade, why) for trade, why in board.unreadable]
    holdings: dict[str, Holding] = {}
    for case in _selected(board):
        decision = _held_after_undo(world, _judge(search, case))
        decisions.append(_allowed(world, decision))
        if decision.verdict in (Verdict.LIVE, Verdict.REDUCED) and (holding := _holding(board, case)) is not None:
            holdings[case.name] = holding
    decisions.sort(key=lambda d: (d.ticker, d.trade_id or "", d.reason))
    return Plan(
        tuple(decisions),
        tuple(sorted(search.needs, key=repr)),
        search.suspects,
        holdings,
        _orphans(board, {d.trade_id for d in decisions if d.action is not Action.HELD}),
        board.last_activity(),
        sum(1 for t in world.trades if not t.is_pending),
        {t.id: frozenset() for t, _ in board.unreadable if t.id}
        | {c.name: frozenset(c.own.ids()) for c in board.cases},
    )


# --------------------------------------------------------------------------- one verdict a trade


def _judge(search: Search, case: Case) -> Decision:
    """The first verdict of the table that matches."""
    own = case.own
    if own.defect or own.needs or own.unanswered:
        return _not_known(search, case)
    if own.last is not None and own.last.is_multi_leg:
        return _multi_leg(search, case)
    if case.duplicate_of is not None:
        return _duplicate(search, case)
    if case.share is Share.CLOSED:
        return _exited_by_own_orders(search, case)
    if case.share is Share.COVERED:
        return covered(search, case)
    return _judge_missing(search, case)


def _judge_missing(search: Search, case: Case) -> Decision:
    """The position does not hold what the trade should have."""
    own = case.own
    if case.contested is not None:
        return _contested(search, case)
    if case.share in (Share.SHORT, Share.SHARED) and (decision := missing_part(search, case)) is not None:
        return decision
    if own.works:
        return working(search, case)
    if (since := settling_since(search, case)) is not None:
        return settling(search, case, since)
    if case.share is Share.EMPTY:
        return never_filled(search, case)
    if case.share is Share.GONE:
        return _gone(search, case)
    return unexplained(search, case)


def _not_known(search: Search, case: Case) -> Decision:
    """Its own orders contradict it, or are not known yet."""
    own = case.own
    if own.defect:
        verdict = Verdict.MISMATCH if "entry order" in own.defect else Verdict.UNKNOWN
        return hold(search.board, case, verdict, own.defect)
    search.ask(own.needs)
    if case.share is not Share.COVERED and not _seems_covered(search, case):
        search.suspects += 1
    why = own.unanswered or "its orders have not been looked up yet"
    return hold(search.board, case, Verdict.UNKNOWN, f"held: {why}")


def _seems_covered(search: Search, case: Case) -> bool:
    position = search.board.positions.get(case.key)
    return position is not None and position.side is case.side and position.qty >= (case.trade.size or ZERO)


def _duplicate(search: Search, case: Case) -> Decision:
    entry = case.own.last.id if case.own.last is not None else ""
    reason = f"same entry order {entry} as the older trade {case.duplicate_of}, whose fill does not cover both"
    fields = write.closed(f"duplicate_of:{case.duplicate_of}", search.board.now, None, case.own)
    fields |= {"realizedPnL": ZERO}
    fields.pop("filledQty", None)
    fields.pop("avgFillPrice", None)
    return change(search.board, case, Verdict.DUPLICATE, Action.CLOSED, reason, fields)


def _exited_by_own_orders(search: Search, case: Case) -> Decision:
    """Its own exits took everything out, whoever else holds the symbol; no grace once it shows."""
    board = search.board
    grace = board.world.policy.grace
    recent = [lot for lot in case.exit_lots if lot.at is not None and board.now - lot.at < grace]
    if recent and case.may_show >= sum((lot.qty for lot in recent), ZERO):
        since = max(lot.at for lot in recent if lot.at is not None)
        return settling(search, case, since, "its exit filled, the position still shows it:")
    known = search.records_known(case)
    if not known or (needs_more_entries(case) and not search.done(case)):
        return hold(board, case, Verdict.UNKNOWN, f"held: {search.failure(case)}")
    return close_with(search, case, case.exit_lots, "closed by its own orders")


def _contested(search: Search, case: Case) -> Decision:
    if (since := settling_since(search, case)) is not None:
        return settling(search, case, since)
    position = search.board.positions.get(case.key)
    held = f"{plain(position.qty)} {position.side.lower()}" if position is not None else "nothing"
    return ambiguous(search, case, f"{held}, exit order {case.contested} filled for only one of them")


def _gone(search: Search, case: Case) -> Decision:
    if not search.done(case):
        search.suspects += 1
        return hold(search.board, case, Verdict.UNKNOWN, f"held: {search.failure(case)}")
    if (since := settling_since(search, case)) is not None:
        return settling(search, case, since)
    return gone(search, case)


def _multi_leg(search: Search, case: Case) -> Decision:
    """A multi-leg options order: kept while every leg is held, otherwise left to a person."""
    board, own = search.board, case.own
    if own.works:
        return working(search, case)
    if (since := settling_since(search, case)) is not None:
        return settling(search, case, since)
    if not own.filled:
        return never_filled(search, case)
    legs = board.legs(case)
    missing = [leg.symbol for leg in legs if leg.key not in board.positions]
    if legs and not missing:
        fields = write.live(case.trade, own, agrees_with_ledger=False)
        return change(board, case, Verdict.LIVE, Action.SYNCED, "every leg is held at the broker", fields)
    return hold(board, case, Verdict.MISMATCH, f"legs not held at the broker: {', '.join(missing) or 'all'}")


# --------------------------------------------------------------------------- the plan


def _unreadable(trade: Trade, why: str) -> Decision:
    return Decision(trade.id, trade.symbol, Verdict.UNREADABLE, Action.HELD, why, base=trade.record)


def _selected(board: Board) -> list[Case]:
    """The trades worked on under `--max`: uncovered ones first, then the longest unseen.

    Unreadable records are always reported and count; one trade is worked on whatever their number.
    """
    limit = max(1, board.world.policy.max_trades - len(board.unreadable))
    if len(board.cases) <= limit:
        return board.cases
    worked = board.world.memory.last_worked
    order = sorted(board.cases, key=lambda c: (c.share is Share.COVERED, worked.get(c.name, ""), c.name))
    return order[:limit]


def _allowed(world: World, decision: Decision) -> Decision:
    """The decision under `--no-close` and `--no-sync`."""
    if decision.action in (Action.CLOSED, Action.REDUCED) and not world.policy.close:
        return _unwritten(decision, Action.SKIPPED, f"{decision.reason}; left open by --no-close")
    if decision.action is Action.SYNCED and not world.policy.sync:
        return _unwritten(decision, Action.KEPT, f"{decision.reason}; not synced by --no-sync")
    return decision


def _held_after_undo(world: World, decision: Decision) -> Decision:
    """What an operator undid stays undone while the broker facts are what they were."""
    held = world.memory.holds.get(decision.trade_id or "")
    if not held or not decision.action.writes or held.get("facts") not in (None, decision.facts):
        return decision
    why = f"{decision.reason}; undone by an operator and held until its broker facts change"
    return _unwritten(decision, Action.KEPT if decision.action is Action.SYNCED else Action.HELD, why)


def _unwritten(decision: Decision, action: Action, reason: str) -> Decision:
    return replace(decision, action=action, reason=reason, fields={}, unproven=False, exit_orders=())


def _orphans(board: Board, settled: AbstractSet[str | None]) -> tuple[Orphan, ...]:
    """The orphans, each with a trade that is held, or waits for another run, and may be it."""
    awaited: dict[tuple[str, Side], str] = {}
    for case in board.cases:
        if case.name not in settled and len(awaited) < len(board.orphans):
            for orphan in board.may_be(case):
                awaited.setdefault((orphan.position.key, orphan.position.side), case.name)
    return tuple(replace(o, awaited_by=awaited.get((o.position.key, o.position.side))) for o in board.orphans)


def _holding(board: Board, case: Case) -> Holding | None:
    position = board.positions.get(case.key)
    if position is None:
        return None
    return Holding(
        case.trade,
        position,
        case.open_qty,
        case.entry_price,
        case.initial_stop,
        case.own.last,
        case.own.exits,
    )
