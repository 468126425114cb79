"""Decides what every trade of the ledger is, by broker truth; pure, no clock and no I/O.

`decide(world)` returns a Plan: one decision a trade, the orphans, and the questions that would
settle what is still open. Invariants, each with a property test of its name:
- nothing the broker still holds is ever closed;
- unknown is never read as empty: an open look-up or a failed one holds the trade;
- same input, same plan, in whatever order records, orders and fills arrive;
- applying a plan and deciding again changes nothing;
- no fill is used twice;
- the P&L of the parts sums to the P&L of the whole.

The books say what each trade entered, lost and holds; `LADDER` turns that into a verdict: the
first step that applies asks its questions, and once they are answered judges. README's table
says the same for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from ghostclean.core.allocation import Allocation, Books, Coverage, Orphan
from ghostclean.core.broker import ZERO, Question, Side, is_option
from ghostclean.core.inputs import World
from ghostclean.core.ledger import Trade

from . import gone, questions, standing
from .decision import Action, Decision, Verdict, change, hold, unknown
from .fields import closed_fields, live_fields
from .plan import Holding, Plan


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: whom it concerns, what it must know, what it judges (None: the next rung's matter).

    `helps` are questions whose answers would tell more, but are not waited for.
    """

    applies: Callable[[Allocation], bool]
    judge: Callable[[Books, Allocation], Decision | None]
    asks: Callable[[Books, Allocation], Sequence[Question]] = lambda books, allocation: ()
    helps: Callable[[Books, Allocation], Sequence[Question]] = lambda books, allocation: ()


def decide(world: World) -> Plan:
    """The plan for one consistent view of ledger and broker; see the module's invariants."""
    books = Books(world)
    decisions = [_unreadable(trade, why) for trade, why in books.unreadable]
    holdings: dict[str, Holding] = {}
    for allocation in _selected(books):
        decision = _allowed(world, _held_after_undo(world, judge(books, allocation)))
        decisions.append(decision)
        position = books.positions.get(allocation.key)
        if decision.verdict in (Verdict.LIVE, Verdict.REDUCED) and position is not None:
            holdings[allocation.name] = Holding(
                allocation.trade,
                position,
                allocation.open_qty,
                allocation.entry_price,
                allocation.initial_stop,
                allocation.family.last,
                allocation.family.exits,
            )
    # They need no work, so they take no place of another trade under `--max`.
    places = max(0, world.policy.max_trades - len(decisions))
    decisions += [_other_account(trade, why) for trade, why in books.elsewhere[:places]]
    decisions.sort(key=lambda d: (d.ticker, d.trade_id or "", d.reason))
    return Plan(
        tuple(decisions),
        holdings,
        tuple(_orphans(books, {d.trade_id for d in decisions if d.action is not Action.HELD})),
        books.last_activity(),
        sum(1 for t in world.trades if not t.is_pending) - sum(1 for t, _ in books.elsewhere if not t.is_pending),
        {t.id: frozenset() for t, _ in books.unreadable if t.id}
        | {t.id: t.order_ids for t, _ in books.elsewhere if t.id}
        | {a.name: a.family.ids() for a in books.allocations},
        len(books.elsewhere),
        tuple(books.claims()),
        dict(books.explained),
    )


def judge(books: Books, allocation: Allocation) -> Decision:
    """The first verdict of the ladder that matches, or `unknown` until its questions are answered."""
    for step in LADDER:
        if not step.applies(allocation):
            continue
        if open_questions := step.asks(books, allocation):
            return unknown(books, allocation, open_questions)
        decision = step.judge(books, allocation)
        if decision is not None:
            helps = tuple(q for q in step.helps(books, allocation) if books.evidence.failure(q) is None)
            return replace(decision, questions=helps) if helps else decision
    raise AssertionError("the last step judges every trade")


# --------------------------------------------------------------------------- the ladder


def _anybody(allocation: Allocation) -> bool:
    return True


def _is(*coverages: Coverage) -> Callable[[Allocation], bool]:
    return lambda allocation: allocation.coverage in coverages


def _is_multi_leg(allocation: Allocation) -> bool:
    return allocation.family.last is not None and allocation.family.last.is_multi_leg


def _is_gone_and(condition: Callable[[Allocation], bool]) -> Callable[[Allocation], bool]:
    return lambda allocation: allocation.coverage is Coverage.GONE and condition(allocation)


def _unobserved(books: Books, allocation: Allocation) -> Decision | None:
    """Its position may be there or not: nothing can be said of it, whatever its orders say."""
    why = books.why_unobserved(allocation)
    return hold(books, allocation, Verdict.UNKNOWN, f"held: {why}") if why is not None else None


def _family_questions(books: Books, allocation: Allocation) -> Sequence[Question]:
    """None of a trade that is held whatever they would tell."""
    unread = books.world.truth.positions.is_unread(allocation.key, allocation.trade.key)
    return () if unread else questions.family(books, allocation)


def _family_defect(books: Books, allocation: Allocation) -> Decision | None:
    family = allocation.family
    if family.defect:
        verdict = Verdict.MISMATCH if "entry order" in family.defect else Verdict.UNKNOWN
        return hold(books, allocation, verdict, family.defect)
    if family.unanswered:
        return replace(unknown(books, allocation, ()), reason=f"held: {family.unanswered}")
    return None


def _multi_leg(books: Books, allocation: Allocation) -> Decision:
    """A multi-leg options order: kept while every leg is held, otherwise left to a person."""
    early = standing.working(books, allocation) or standing.if_settling(books, allocation)
    if early is not None:
        return early
    if not allocation.family.filled:
        return gone.never_filled(books, allocation)
    legs = books.legs(allocation)
    missing = [leg.symbol for leg in legs if leg.key not in books.positions]
    if legs and not missing:
        fields = live_fields(allocation)
        return change(books, allocation, Verdict.LIVE, Action.SYNCED, "every leg is held at the broker", fields)
    return hold(books, allocation, Verdict.MISMATCH, f"legs not held at the broker: {', '.join(missing) or 'all'}")


def _duplicate(books: Books, allocation: Allocation) -> Decision:
    entry = allocation.family.last.id if allocation.family.last is not None else ""
    older = allocation.duplicate_of
    reason = f"same entry order {entry} as the older trade {older}, whose fill does not cover both"
    fields = closed_fields(f"duplicate_of:{older}", books.now, None, allocation) | {"realizedPnL": ZERO}
    fields.pop("filledQty", None)
    fields.pop("avgFillPrice", None)
    return change(books, allocation, Verdict.DUPLICATE, Action.CLOSED, reason, fields)


def _part_questions(books: Books, allocation: Allocation) -> Sequence[Question]:
    return () if standing.settling_since(books, allocation) is not None else questions.absence(books, allocation)


_PARTLY_GONE = _is(Coverage.SHORTFALL, Coverage.CONTESTED)

LADDER: tuple[Step, ...] = (
    Step(lambda a: bool(a.family.defect), _family_defect),
    Step(_anybody, _family_defect, asks=_family_questions),
    Step(_anybody, _unobserved),
    Step(_is_multi_leg, _multi_leg),
    Step(lambda a: a.duplicate_of is not None, _duplicate),
    Step(_is(Coverage.EXITED), gone.still_shown),
    Step(_is(Coverage.EXITED), gone.exited_by_own_orders, asks=questions.own_exit, helps=questions.balance),
    Step(_is(Coverage.HELD), standing.covered, asks=questions.covered, helps=questions.shared_entry),
    Step(lambda a: a.disputed is not None, standing.disputed),
    Step(_is(Coverage.CLAIMED), standing.claimed),
    Step(_PARTLY_GONE, standing.missing_part, asks=_part_questions),
    Step(_anybody, standing.working),
    Step(_anybody, standing.if_settling),
    Step(_is(Coverage.UNFILLED), gone.never_filled),
    Step(_is(Coverage.GONE), gone.gone, asks=questions.absence_and_split),
    Step(_is_gone_and(lambda a: is_option(a.key)), gone.option_end),
    Step(_is(Coverage.GONE), gone.under_other_name),
    Step(_is_gone_and(lambda a: a.certain), gone.first_look),
    Step(_is_gone_and(lambda a: a.certain and not a.crypto), gone.market_closed, helps=questions.clock),
    Step(_is_gone_and(lambda a: a.certain), gone.taken_away),
    Step(_is(Coverage.GONE), gone.vanished),
    Step(_anybody, standing.unexplained),
)


# --------------------------------------------------------------------------- the plan


def _unreadable(trade: Trade, why: str) -> Decision:
    return Decision(trade.id, trade.symbol, Verdict.UNREADABLE, Action.HELD, why, base=trade.record)


def _other_account(trade: Trade, why: str) -> Decision:
    return Decision(trade.id, trade.symbol, Verdict.OTHER_ACCOUNT, Action.KEPT, why, base=trade.record)


def _selected(books: Books) -> list[Allocation]:
    """The trades worked on under `--max`: uncovered ones first, then the longest unseen.

    Unreadable records are always reported and count; one trade is worked on whatever their number.
    """
    limit = max(1, books.world.policy.max_trades - len(books.unreadable))
    if len(books.allocations) <= limit:
        return books.allocations
    worked = books.world.memory.last_worked
    order = sorted(books.allocations, key=lambda a: (a.coverage is Coverage.HELD, worked.get(a.name, ""), a.name))
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
    action = Action.KEPT if decision.action is Action.SYNCED else Action.HELD
    return replace(_unwritten(decision, action, why), undone=True)


def _unwritten(decision: Decision, action: Action, reason: str) -> Decision:
    return replace(decision, action=action, reason=reason, fields={}, unproven=False, exit_orders=())


def _orphans(books: Books, settled: AbstractSet[str | None]) -> Iterator[Orphan]:
    """The orphans, each with a trade that is held, or waits for another run, and may be it.

    What another ledger says it holds is none of it, proven or not.
    """
    awaited: dict[tuple[str, Side], str] = {}
    for allocation in books.allocations:
        if allocation.name not in settled and len(awaited) < len(books.orphans):
            for orphan in books.may_be(allocation):
                awaited.setdefault((orphan.position.key, orphan.position.side), allocation.name)
    for orphan in books.orphans:
        position = orphan.position
        left = orphan.qty - (books.neighbours.held(position) - books.neighbours.proven(position))
        if left > 0:
            shares = books.claimed(position)
            beside, by = bool(shares) or orphan.remainder, awaited.get((position.key, position.side))
            neighbour = shares[0][0] if shares else None
            yield replace(orphan, qty=left, remainder=beside, awaited_by=by, neighbour=neighbour)
