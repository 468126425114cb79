"""The brakes: breaker, first contact, the pinned account, and what runs remember."""

from __future__ import annotations

from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_account
from ghostclean.core.inputs import Memory
from ghostclean.core.safety import (
    Pin,
    breaker,
    counting,
    knows_this_ledger,
    leaving,
    orphan_breaker,
    without_closes,
    without_unproven,
)
from ghostclean.core.verdicts import Action, Plan, Verdict, decide
from tests.builders import (
    DAY,
    NOW,
    ago,
    entry,
    missed,
    of,
    orphans,
    policy,
    position,
    remembered,
    sale,
    split,
    trade,
    uid,
    world,
)


def ledger(gone: int, live: int, unknown: int = 0, **options: Any) -> Plan:
    """So many trades without a trace, with a position, and with an open look-up."""
    records = [trade(f"G{n}", ticker=f"G{n}", alpacaOrderId=...) for n in range(gone)]
    records += [trade(f"L{n}", ticker=f"L{n}", alpacaOrderId=...) for n in range(live)]
    records += [trade(f"U{n}", ticker=f"U{n}") for n in range(unknown)]
    return decide(world(records, [], [position(f"L{n}") for n in range(live)], **options))


@pytest.mark.parametrize(
    ("gone", "live", "trips"),
    [
        (3, 0, False),  # no more than three
        (4, 0, True),
        (4, 8, False),  # no more than a third
        (4, 7, True),
    ],
)
def test_more_than_three_and_more_than_a_third(gone: int, live: int, trips: bool) -> None:
    assert (breaker(ledger(gone, live), Memory(), policy(), NOW) is not None) is trips


def test_suspects_not_yet_looked_up_count() -> None:
    assert breaker(ledger(1, 0, 2), Memory(), policy(), NOW) is None
    assert breaker(ledger(1, 0, 3), Memory(), policy(), NOW) is not None


@pytest.mark.parametrize(("age", "trips"), [(3599, True), (3600, False)])
def test_unproven_closes_of_the_last_hour_count(age: float, trips: bool) -> None:
    memory = Memory(unproven={f"X{n}": {"at": ago(age)} for n in range(3)})
    assert (breaker(ledger(1, 0), memory, policy(), NOW) is not None) is trips


def test_without_an_unproven_close_there_is_nothing_to_stop() -> None:
    memory = Memory(unproven={f"X{n}": {"at": ago(5)} for n in range(9)})
    assert breaker(ledger(0, 3, 9), memory, policy(), NOW) is None
    assert breaker(ledger(9, 0), Memory(), policy(allow_mass_close=True), NOW) is None


def test_the_limit_is_a_setting() -> None:
    assert breaker(ledger(4, 0), Memory(), policy(max_unproven_closes=4), NOW) is None
    assert breaker(ledger(1, 1), Memory(), policy(max_unproven_closes=0), NOW) is not None


def test_proven_closes_neither_count_nor_are_held_back() -> None:
    records = [trade(f"T{n}", ticker=f"S{n}") for n in range(12)]
    orders = [entry(f"T{n}", symbol=f"S{n}") for n in range(12)]
    orders += [sale(f"X{n}", symbol=f"S{n}") for n in range(12)]
    plan = decide(world([*records, trade("V", alpacaOrderId=...)], orders))
    assert breaker(plan, Memory(), policy(), NOW) is None
    held = without_unproven(plan, "the breaker tripped")
    assert of(held, "V").action is Action.HELD
    assert of(held, "V").verdict is Verdict.VANISHED
    assert sum(1 for d in held.decisions if d.action is Action.CLOSED) == 12


@pytest.mark.parametrize(
    ("new", "explained", "mode", "trips"),
    [
        (3, 0, "adopt", False),  # no more than three
        (4, 0, "adopt", True),
        (4, 0, "flatten", True),
        (4, 8, "adopt", False),  # no more than a third of the account's positions
        (4, 7, "adopt", True),
        (9, 0, "report", False),
    ],
)
def test_many_orphans_are_adopted_or_sold_only_on_demand(new: int, explained: int, mode: str, trips: bool) -> None:
    records = [trade(f"L{n}", ticker=f"L{n}", alpacaOrderId=...) for n in range(explained)]
    held = [position(f"{kind}{n}") for kind, count in (("O", new), ("L", explained)) for n in range(count)]
    w = world(records, [], held)
    rows = orphans(w, records, mode=mode)
    why = orphan_breaker(decide(w), rows, len(held), policy())
    assert (why is not None) is trips
    if why is not None:
        assert why.startswith(f"4 of the account's {len(held)} positions")
    assert orphan_breaker(decide(w), rows, len(held), policy(allow_mass_close=True)) is None


def test_in_a_strangers_account_nothing_leaves_the_books_or_shrinks_in_them() -> None:
    records = [trade("A"), trade("B", ticker="B"), trade("C", ticker="C")]
    orders = [entry("A"), sale("X"), entry("B", symbol="B"), sale("Y", qty=4, symbol="B"), entry("C", symbol="C")]
    plan = decide(world(records, orders, [position("B", 6), position("C")]))
    assert leaving(plan) == {"A", "B"}
    held = {d.trade_id: d for d in without_closes(plan, "a stranger").decisions}
    assert [(held[i].action, held[i].fields) for i in ("A", "B")] == [(Action.HELD, {})] * 2
    assert held["A"].reason.endswith("; not closed: a stranger")
    assert held["C"] in plan.decisions


def test_pending_trades_are_no_open_trades() -> None:
    records = [trade("A"), trade("B", status="PENDING"), trade("C", status="PARTIAL"), trade("D", quantity="x")]
    assert decide(world(records)).open_trades == 3


def test_first_contact_needs_one_sign() -> None:
    w = world([trade()])
    assert not knows_this_ledger([trade(alpacaOrderId=...)], w.evidence, [])
    assert knows_this_ledger([trade(alpacaOrderId=...)], w.evidence, ["AAPL"])
    assert not knows_this_ledger([trade()], w.evidence, ["AAPL"])  # it names an order that this account does not know
    assert not knows_this_ledger([trade(), trade("T2", alpacaOrderId=...)], w.evidence, ["AAPL"])
    for known in (entry(), sale("S"), sale("P"), sale("C")):
        records = [trade(stopOrderId=uid("S"), takeProfitOrderId=uid("P"), closeOrderId=uid("C"))]
        assert knows_this_ledger(records, world([], [known]).evidence, [])
    client = trade(alpacaOrderId=..., clientOrderId="client-E-T1")
    assert knows_this_ledger([client], world([], [entry()]).evidence, [])


def test_the_pin_refuses_another_account_and_the_other_kind() -> None:
    pin = Pin("account-1", live=False)
    account = read_account({"id": "account-1"})
    assert pin.mismatch(account, live=False) is None
    assert "live account" in (pin.mismatch(account, live=True) or "")
    assert pin.mismatch(read_account({"id": "account-2"}), live=False)


# --------------------------------------------------------------------------- what runs remember


def test_misses_count_up_and_a_trade_that_is_seen_again_starts_anew() -> None:
    gone = decide(world([trade()], [entry()]))
    first = counting.misses(gone, Memory(), NOW)
    assert first == {"T1": {"count": 1, "first": ago(), "last": ago()}}
    known = missed(count=1, first=600, last=300)
    assert counting.misses(gone, known, NOW)["T1"] == {"count": 2, "first": ago(600), "last": ago()}
    seen = decide(world([trade()], [entry()], [position()]))
    assert counting.misses(seen, known, NOW) == {"T1": None}


def test_an_open_look_up_neither_adds_nor_resets() -> None:
    unknown = decide(world([trade()]))
    assert counting.misses(unknown, missed(), NOW) == {}
    assert counting.misses(unknown, Memory(), NOW) == {}


def test_misses_of_trades_that_left_are_forgotten() -> None:
    assert counting.misses(decide(world([])), missed("X"), NOW) == {"X": None}


def test_a_miss_that_expired_counts_from_one() -> None:
    old = missed(count=5, first=3 * DAY, last=DAY + 1)
    assert counting.misses(decide(world([trade()], [entry()])), old, NOW)["T1"]["count"] == 1


def test_exits_are_remembered_for_open_trades_and_where_one_name_is_not_enough() -> None:
    reduced = decide(world([trade()], [entry(), sale("X", qty=4)], [position(qty=6)]))
    memory = remembered(reduced, Memory())
    assert memory.exits == {"T1": [uid("X")]}
    once = decide(world([trade()], [entry(), sale("X")]))
    assert counting.exits(once.writing, Memory()) == {}
    twice = decide(world([trade()], [entry(), sale("X", qty=4), sale("Y", qty=6, at=60 * 30)]))
    assert counting.exits(twice.writing, Memory()) == {"T1": [uid("X"), uid("Y")]}


def test_final_orders_of_a_trade_are_kept_and_forgotten_with_it() -> None:
    w = world([trade()], [entry()], [position()])
    plan = decide(w)
    kept = counting.final_orders(plan.own_orders, w.evidence, {})
    assert kept[uid("E-T1")]["trade"] == "T1"
    assert counting.final_orders(plan.own_orders, w.evidence, kept) == {}
    assert counting.final_orders({}, w.evidence, kept) == {uid("E-T1"): None}


def test_a_trade_that_vanishes_is_missed_no_more() -> None:
    known = missed()
    vanishes = decide(world([trade()], [entry()], memory=known))
    assert of(vanishes).action is Action.CLOSED
    assert counting.misses(vanishes, known, NOW) == {"T1": None}


def test_a_first_sight_is_kept_for_what_has_no_time_of_its_own() -> None:
    trades, _ = split([trade("A"), trade("B", createdAt=...), trade("C", createdAt=ago(-60))])
    seen = counting.first_seen(trades, ["orphan:X"], Memory(), NOW)
    assert seen == {"B": ago(), "C": ago(), "orphan:X": ago()}


def test_a_first_sight_is_forgotten_once_trade_and_orphan_are_gone() -> None:
    trades, _ = split([trade("A"), trade("B", createdAt=...)])
    memory = Memory(first_seen={name: ago(DAY) for name in ("A", "B", "C", "orphan:X", "orphan:Y")})
    assert counting.first_seen(trades, ["orphan:X"], memory, NOW) == {"C": None, "orphan:Y": None}


def test_a_sync_names_no_exits() -> None:
    synced = decide(world([trade()], [entry()], [position()]))
    assert of(synced).action is Action.SYNCED
    assert counting.exits(synced.writing, Memory()) == {}


def test_closes_without_proof_are_kept_a_month() -> None:
    month = 30 * DAY
    memory = Memory(unproven={"OLD": {"at": ago(month + 1)}, "NEW": {"at": ago(month)}, "BAD": {"at": "soon"}})
    assert counting.unproven((), memory, "run-1", NOW) == {"OLD": None, "BAD": None}
    again = decide(world([trade("OLD", alpacaOrderId=...)]))
    changes = counting.unproven(again.writing, memory, "run-1", NOW)
    assert changes["OLD"]["at"] == ago()
    assert changes["BAD"] is None


def test_exits_that_are_known_already_are_not_remembered_again() -> None:
    reduced = decide(world([trade()], [entry(), sale("X", qty=4)], [position(qty=6)]))
    assert counting.exits(reduced.writing, remembered(reduced, Memory())) == {}


def test_a_proven_close_is_not_remembered_as_one_without_proof() -> None:
    proven = decide(world([trade()], [entry(), sale("X")]))
    assert of(proven).action is Action.CLOSED
    assert counting.unproven(proven.writing, Memory(), "run-1", NOW) == {}


def test_each_unproven_close_counts_once() -> None:
    memory = Memory(unproven={"X1": {"at": ago(60)}, "X2": {"at": ago(60)}, "X3": {"at": "soon"}})
    assert breaker(ledger(1, 0), memory, policy(), NOW) is None
    assert breaker(ledger(2, 0), memory, policy(), NOW) is not None
