"""What needs a person: an item begins once, stands while nobody has settled it, and ends once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.core import attention
from ghostclean.core.allocation import Orphan
from ghostclean.core.attention import Attention, Item, Kind
from ghostclean.core.broker import iso, symbol_key
from ghostclean.core.verdicts import Action, Decision, Plan, Verdict, decide
from tests.builders import NOW, ago, position, world

PATIENCE = timedelta(minutes=10)
GRACE = timedelta(minutes=2)
BREAKS = [verdict for verdict in Verdict if verdict.needs_person]


def decided(trade_id: str | None, verdict: Verdict, action: Action = Action.HELD, **more: Any) -> Decision:
    return Decision(trade_id, "AAPL", verdict, action, "why", **more)


def plan_of(*decisions: Decision, listed: Iterable[str] = (), orphans: Iterable[Orphan] = ()) -> Plan:
    ids = {d.trade_id for d in decisions if d.trade_id} | set(listed)
    return Plan(decisions, own_orders=dict.fromkeys(ids, frozenset()), orphans=tuple(orphans))


def follow(before: Attention, plan: Plan, *, partial: bool = False, at: datetime = NOW) -> Attention:
    found = attention.breaks(plan, {}, PATIENCE, at)
    return attention.follow(before.items, found, attention.stands(plan, partial=partial), iso(at))


def series(*plans: Plan) -> list[tuple[list[str], list[str]]]:
    """The kinds that begin and end with each run."""
    now, told = Attention(), []
    for plan in plans:
        now = follow(now, plan)
        told.append(([str(i.kind) for i in now.began], [str(i.kind) for i in now.ended]))
    return told


@pytest.mark.parametrize("verdict", BREAKS)
def test_a_break_begins_once_and_ends_once(verdict: Verdict) -> None:
    bad, good = plan_of(decided("a", verdict)), plan_of(decided("a", Verdict.LIVE, Action.KEPT))
    word = str(verdict)

    assert series(good, bad, bad, good, good) == [([], []), ([word], []), ([], []), ([], [word]), ([], [])]


def test_a_trade_that_changes_from_one_trouble_to_another_begins_anew() -> None:
    assert series(plan_of(decided("a", Verdict.MISMATCH)), plan_of(decided("a", Verdict.AMBIGUOUS))) == [
        (["mismatch"], []), (["ambiguous"], [])
    ]  # fmt: skip


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.SETTLING])
def test_a_run_that_has_not_judged_the_trade_neither_ends_nor_repeats_it(verdict: Verdict) -> None:
    bad = plan_of(decided("a", Verdict.MISMATCH))

    assert series(bad, plan_of(decided("a", verdict)), bad)[1:] == [([], []), ([], [])]


def test_a_trade_that_was_not_worked_on_stands_while_it_is_in_the_ledger() -> None:
    bad = plan_of(decided("a", Verdict.MISMATCH))

    assert series(bad, plan_of(listed=["a"]), plan_of(listed=["b"]))[1:] == [([], []), ([], ["mismatch"])]


def test_a_record_without_id_is_one_item() -> None:
    bad = plan_of(decided(None, Verdict.UNREADABLE))

    assert series(bad, bad, plan_of()) == [(["unreadable"], []), ([], []), ([], ["unreadable"])]


def test_since_stays_the_moment_it_began() -> None:
    bad = plan_of(decided("a", Verdict.MISMATCH))
    first = follow(Attention(), bad, at=NOW - timedelta(hours=1))

    assert follow(first, bad).items[0].since == ago(3600)


def test_an_unanswered_trade_is_an_item_after_two_intervals() -> None:
    plan = plan_of(decided("a", Verdict.UNKNOWN))

    def after(seconds: float, verdict: str = "unknown") -> list[Item]:
        return attention.breaks(plan, {"a": {"verdict": verdict, "since": ago(seconds)}}, PATIENCE, NOW)

    assert not after(600)
    assert [item.kind for item in after(601)] == [Kind.UNKNOWN]
    assert not after(601, "live")
    assert not attention.breaks(plan, {}, PATIENCE, NOW)


def test_look_ups_that_fail_for_long_take_back_nothing() -> None:
    verdicts = {"a": {"verdict": "unknown", "since": ago(3600)}}
    before = follow(Attention(), plan_of(decided("a", Verdict.MISMATCH)))
    plan = plan_of(decided("a", Verdict.UNKNOWN))

    found = attention.breaks(plan, verdicts, PATIENCE, NOW)
    now = attention.follow(before.items, found, attention.stands(plan, partial=False), iso(NOW))

    assert (now.items, now.began, now.ended) == (before.items, (), ())


@pytest.mark.parametrize("kind", sorted(attention.MANAGED))
def test_what_auto_manage_found_ends_with_its_trade(kind: Kind) -> None:
    item = attention.about(kind, "AAPL", "a", "why")
    closed = decided("a", Verdict.EXITED, Action.CLOSED)

    def still(plan: Plan, *written: Decision) -> bool:
        return attention.stands(plan, partial=False, written=written)(item)

    assert still(plan_of(listed=["a"]))
    assert not still(plan_of(closed), closed)
    assert not still(plan_of(listed=["b"]))
    assert attention.stands(plan_of(), partial=False)(replace(item, id=None)), "of an orphan's sale"


def test_what_an_operator_took_back_is_an_item_while_it_is_held() -> None:
    held = decided("a", Verdict.VANISHED, undone=True)
    synced = decided("b", Verdict.LIVE, Action.KEPT, undone=True)

    assert [(i.kind, i.id) for i in attention.breaks(plan_of(held, synced), {}, PATIENCE, NOW)] == [(Kind.UNDONE, "a")]


def test_records_of_another_account_are_one_item() -> None:
    plan = Plan((), elsewhere=3)

    (item,) = attention.breaks(plan, {}, PATIENCE, NOW)

    assert (item.kind, item.symbol, item.id) == (Kind.OTHER_ACCOUNT, None, None)
    assert item.why.startswith("3 trades say they are of another account")


# --------------------------------------------------------------------------- orphans


def orphan(**fields: Any) -> Orphan:
    (found,) = decide(world([], positions=[position("XYZ", 5)])).orphans
    return replace(found, **fields)


def unexplained(one: Orphan, action: Action = Action.KEPT, traded: float | None = None) -> list[Item]:
    key = symbol_key(one.position.symbol)
    plan = Plan((), orphans=(one,), activity={key: NOW - timedelta(seconds=traded)} if traded is not None else {})
    row = Decision(None, one.position.symbol, Verdict.ORPHAN, action, "5 long that no trade explains")
    return attention.unexplained(plan, [row], GRACE, NOW)


def test_an_orphan_that_stays_is_an_item_with_the_next_command() -> None:
    (item,) = unexplained(orphan())

    assert (item.kind, item.symbol, item.id) == (Kind.ORPHAN, "XYZ", None)
    assert item.command == "ghostclean reconcile --orphans adopt --dry-run"


@pytest.mark.parametrize("action", [Action.ADOPTED, Action.FLATTENED])
def test_an_orphan_that_is_dealt_with_is_none(action: Action) -> None:
    assert unexplained(orphan(), action) == []


def test_an_orphan_that_is_just_being_traded_or_may_be_a_held_trade_is_none() -> None:
    assert unexplained(orphan(), traded=119) == []
    assert len(unexplained(orphan(), traded=120)) == 1
    assert unexplained(orphan(awaited_by="a")) == []


def test_an_orphan_item_stands_while_the_orphan_is_there_or_the_run_was_partial() -> None:
    item = Item(Kind.ORPHAN, "why", "command", "XYZ")
    there, gone = Plan((), orphans=(orphan(),)), Plan(())

    assert attention.stands(there, partial=False)(item)
    assert attention.stands(gone, partial=True)(item)
    assert not attention.stands(gone, partial=False)(item)


# --------------------------------------------------------------------------- the list


def test_the_worst_comes_first_then_the_oldest() -> None:
    items = [
        Item(Kind.ORPHAN, "w", "c", "B", since="2026-01-02"),
        Item(Kind.ORPHAN, "w", "c", "A", since="2026-01-03"),
        Item(Kind.NAKED, "w", "c", "C", "t-1", since="2026-01-04"),
    ]

    found = attention.recall({item.key: item.to_dict() for item in items})

    assert [item.symbol for item in found] == ["C", "B", "A"]


def test_what_is_stored_comes_back_and_what_a_newer_version_left_is_passed_over() -> None:
    item = Item(Kind.AMBIGUOUS, "two share it", "ghostclean explain t-1", "AAPL", "t-1", "2026-01-01T00:00:00.000Z")

    stored = {item.key: item.to_dict(), "new:thing": {"kind": "a word of tomorrow"}, "broken": 7}

    assert attention.recall(stored) == (item,)


def test_the_memory_of_a_run_names_what_ended() -> None:
    first = follow(Attention(), plan_of(decided("a", Verdict.MISMATCH)))
    second = follow(first, plan_of(decided("a", Verdict.LIVE, Action.KEPT)))

    assert second.memory() == {"trade:a": None}


def test_a_command_can_be_pasted_whatever_the_id() -> None:
    item = attention.about(Kind.MISMATCH, "AAPL", "t 1; rm -rf x", "why")

    assert item.command == "ghostclean resolve 't 1; rm -rf x'"


ROWS = st.builds(
    decided,
    st.sampled_from([None, "a", "b", "c"]),
    st.sampled_from([*BREAKS, Verdict.LIVE, Verdict.UNKNOWN, Verdict.SETTLING, Verdict.EXITED]),
    st.sampled_from([Action.HELD, Action.KEPT]),
)
PLANS = st.builds(
    lambda rows, listed: plan_of(*{r.trade_id: r for r in rows}.values(), listed=listed),
    st.lists(ROWS, max_size=4),
    st.lists(st.sampled_from("abc"), max_size=2),
)


@given(st.lists(PLANS, max_size=6), PLANS)
def test_the_same_run_twice_begins_and_ends_nothing_the_second_time(past: list[Plan], last: Plan) -> None:
    assert series(*past, last, last)[-1] == ([], [])
