"""Records that say they are of another account: believed, kept, and nothing here is theirs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_account
from ghostclean.core.inputs import Memory
from ghostclean.core.ledger import account_marks, other_account
from ghostclean.core.safety import breaker
from ghostclean.core.verdicts import Action, Verdict, decide
from tests.builders import (
    NOW,
    NUMBER,
    ago,
    entry,
    of,
    order,
    orphan,
    position,
    sale,
    trade,
    uid,
    world,
)

OWN_ID = "0e8fc9a4-2c5f-4b62-9d6e-7a1f31c0b001"
OTHER_ID = "5a3d1b7e-88c1-4c55-8f0e-2b9d44aa7002"
ACC = read_account({"id": OWN_ID, "account_number": NUMBER, "status": "ACTIVE"})

ELSEWHERE: list[dict[str, Any]] = [
    {"paper": False},
    {"paper": "false"},
    {"paper": " FALSE "},
    {"paper": 0},
    {"accountMode": "live"},
    {"accountMode": "LIVE"},
    {"env": "Live"},
    {"accountId": OTHER_ID},
    {"account": OTHER_ID.upper()},
    {"accountId": "PA3OTHER0001"},
    {"account": "927721227"},
    {"account": 927721227},
    {"accountId": "010203ABCD"},
    {"paper": True, "accountId": OTHER_ID},
    {"paper": False, "accountId": OWN_ID},
    {"env": "prod", "accountMode": "live"},
]
SILENT: list[dict[str, Any]] = [
    {},
    {"paper": True, "accountMode": "paper", "env": "PAPER", "accountId": OWN_ID, "account": NUMBER},
    {"accountId": OWN_ID.upper()},
    {"paper": None, "accountMode": None, "env": None, "accountId": None, "account": None},
    {"paper": "", "accountMode": "", "env": "", "accountId": "", "account": ""},
    {"paper": "no", "accountMode": "demo", "env": "prod"},
    {"paper": 2, "accountMode": 0, "env": False},
    {"paper": 0.0, "accountMode": ["live"], "env": {"live": True}},
    {"account": "main"},
    {"account": "PAUL"},
    {"account": "PAPER12345"},
    {"account": "paper12345"},
    {"account": "Ann 2024"},
    {"account": 1, "accountId": 17},
    {"account": True, "accountId": False},
    {"account": {"id": OTHER_ID}},
    {"accountId": OTHER_ID.replace("-", "")},
    {"accountId": OTHER_ID[:-1]},
]


@pytest.mark.parametrize("fields", ELSEWHERE)
def test_what_says_another_account(fields: dict[str, Any]) -> None:
    assert other_account(trade(**fields), ACC, live=False)


@pytest.mark.parametrize("fields", SILENT)
def test_what_says_this_account_or_nothing(fields: dict[str, Any]) -> None:
    assert other_account(trade(**fields), ACC, live=False) is None


def test_on_the_live_account_paper_is_elsewhere() -> None:
    for fields in ({"paper": True}, {"accountMode": "paper"}, {"env": "paper"}):
        assert other_account(trade(**fields), ACC, live=True)
    assert other_account(trade(paper=False, accountMode="live", env="live"), ACC, live=True) is None


def test_a_number_against_a_masked_or_an_unknown_one() -> None:
    """A snapshot knows the end of the number; an account that names none leaves it open."""
    masked = read_account({"id": OWN_ID, "account_number": "*****" + NUMBER[-2:]})
    assert other_account({"account": NUMBER}, masked, live=False) is None
    assert other_account({"account": "PA3OTHER0002"}, masked, live=False)
    nameless = read_account({"id": OWN_ID})
    assert other_account({"account": "PA3OTHER0002"}, nameless, live=False) is None


@pytest.mark.parametrize("status", ["OPEN", "PARTIAL", "PENDING"])
@pytest.mark.parametrize("side", ["LONG", "SHORT"])
def test_kept_without_a_question(status: str, side: str) -> None:
    w = world([trade(paper=False, status=status, side=side)], complete=False)
    plan = decide(w)
    decision = of(plan)
    assert (decision.verdict, decision.action) == (Verdict.OTHER_ACCOUNT, Action.KEPT)
    assert "paper" in decision.reason
    assert not plan.questions
    assert not plan.writing
    assert not plan.holdings
    assert (plan.elsewhere, plan.open_trades) == (1, 0)
    assert plan.about_elsewhere is not None
    assert of(decide(world([trade(paper=False, status=status, side=side)], live=True, complete=False))).verdict in (
        Verdict.UNKNOWN,
    )


def test_unreadable_comes_first_and_an_id_that_stands_twice_names_nobody() -> None:
    assert of(decide(world([trade(paper=False, quantity="x")]))).verdict is Verdict.UNREADABLE
    twice = decide(world([trade(paper=False), trade(ticker="MSFT", paper=True)]))
    assert {d.verdict for d in twice.decisions} == {Verdict.UNREADABLE}


@pytest.mark.parametrize("qty", [10, -10])
def test_it_has_no_claim_on_a_position(qty: int) -> None:
    """The own trade is live beside it, with and without orders, long and short."""
    side = "LONG" if qty > 0 else "SHORT"
    theirs = trade("B", paper=False, side=side)
    for own in (trade(side=side), trade(side=side, alpacaOrderId=...)):
        records = [own, theirs]
        plan = decide(world(records, [entry(side="buy" if qty > 0 else "sell")], [position(qty=qty)]))
        assert of(plan).verdict is Verdict.LIVE
        assert of(plan, "B").verdict is Verdict.OTHER_ACCOUNT
        assert set(plan.holdings) == {"T1"}


def test_neither_its_entry_nor_its_exit_is_its_own() -> None:
    """An exit order that both name is the own trade's; the same entry makes no duplicate of it."""
    exit_order = uid("X")
    theirs = trade("B", paper=False, alpacaOrderId=uid("E-T1"), stopOrderId=exit_order, createdAt=ago(90_000))
    plan = decide(world([trade(stopOrderId=exit_order), theirs], [entry(), sale("X", type="stop")]))
    assert of(plan).verdict is Verdict.EXITED
    assert of(plan).fields["closeReason"] == "stop_loss"
    assert of(plan, "B").action is Action.KEPT


@pytest.mark.parametrize("status", ["OPEN", "ERROR", "CLOSED"])
def test_a_sale_that_only_it_names_explains_a_trade_here(status: str) -> None:
    """Open, failed or closed: its orders are as free as if it were not there."""
    theirs = trade("B", paper=False, status=status, stopOrderId=uid("X"), closeOrderId=uid("X"))
    [own] = [d for d in decide(world([trade(), theirs], [entry(), sale("X")])).decisions if d.trade_id == "T1"]
    assert own.verdict is Verdict.EXITED
    [same] = decide(world([trade()], [entry(), sale("X")])).decisions
    assert dict(own.fields) == dict(same.fields)


def test_exits_that_an_earlier_run_attributed_to_it_are_free_too() -> None:
    memory = Memory(exits={"B": [uid("X")]})
    plan = decide(world([trade(), trade("B", paper=False)], [entry(), sale("X")], memory=memory))
    assert of(plan).verdict is Verdict.EXITED


def test_the_breaker_does_not_count_it() -> None:
    """Neither as a close without proof nor as one of the trades that a third is taken of."""
    elsewhere = [trade(f"B{n}", paper=False) for n in range(20)]
    gone = [trade(f"T{n}", ticker=f"SYM{n}", alpacaOrderId=...) for n in range(4)]
    w = world([*elsewhere, *gone])
    plan = decide(w)
    assert (len(plan.unproven), plan.suspects, plan.open_trades) == (4, 0, 4)
    why = breaker(plan, w.memory, w.policy, NOW)
    assert why is not None
    assert "of 4 open trades" in why
    alone = decide(world(elsewhere))
    assert breaker(alone, w.memory, w.policy, NOW) is None


def test_it_takes_no_place_of_another_trade_under_max() -> None:
    elsewhere = [trade(f"B{n}", paper=False) for n in range(5)]
    plan = decide(world([*elsewhere, trade()], [entry()], [position()], max_trades=2))
    assert of(plan).verdict is Verdict.LIVE
    assert len(plan.decisions) == 2
    assert plan.elsewhere == 5


def test_an_orphan_is_judged_as_if_it_were_not_there() -> None:
    records = [trade("B", paper=False), trade("C", status="ERROR", paper=False)]
    built = order("O")
    decision = orphan(world(records, [built], [position()]), records)
    assert decision.action is Action.ADOPTED
    assert decision.fields["alpacaOrderId"] == uid("O")


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_an_orphan_whose_opening_order_it_names_is_only_reported(mode: str) -> None:
    """The order stands in this account, so the record may be wrong about whose it is."""
    records = [trade(paper=False)]
    decision = orphan(world(records, [entry()], [position()]), records, mode=mode)
    assert decision.action is Action.KEPT
    assert "names the order" in decision.reason


def test_a_closed_record_of_another_account_is_not_reopened() -> None:
    closed = trade("B", status="CLOSED", paper=False, closePrice=None, closedAt=ago(3600), alpacaOrderId=...)
    stranger = trade("B", status="CLOSED", closePrice=None, closedAt=ago(3600), alpacaOrderId=...)
    assert orphan(world([closed], [], [position()]), [closed]).action is Action.ADOPTED
    assert orphan(world([stranger], [], [position()]), [stranger]).action is Action.REOPENED


@pytest.mark.parametrize(
    ("records", "marks"),
    [
        ([{}], {}),
        ([{"paper": True}], {"paper": True}),
        ([{"paper": False}], {"paper": True}),
        ([{"paper": "False", "env": "LIVE"}], {"paper": "True", "env": "PAPER"}),
        ([{"paper": 0}], {"paper": 1}),
        ([{"env": "prod", "account": "main"}], {}),
        ([{"account": "main"}, {"account": OTHER_ID}], {"account": OWN_ID}),
        ([{"accountId": "927721227"}, {"accountMode": "Live"}], {"accountId": NUMBER, "accountMode": "Paper"}),
        ([{"account": 927721227}], {"account": NUMBER}),
    ],
)
def test_an_adopted_trade_says_whose_it_is_as_the_others_do(records: list[dict[str, Any]], marks: Any) -> None:
    found = account_marks(records, ACC, live=False)
    assert found == marks
    assert {name: type(v) for name, v in found.items()} == {name: type(v) for name, v in marks.items()}
    decision = orphan(world([], [], [position("TSLA", 15)]), marks=found)
    assert {name: decision.fields[name] for name in marks} == marks
    assert other_account(decision.fields, ACC, live=False) is None


def test_marks_of_the_live_account() -> None:
    live = read_account({"id": OWN_ID, "account_number": "927721227"})
    records = [{"paper": True, "accountMode": "paper", "account": 123456789, "accountId": "PA3OTHER0002"}]
    found = account_marks(records, live, live=True)
    assert found == {"paper": False, "accountMode": "live", "account": 927721227, "accountId": "927721227"}
    masked = read_account({"id": OWN_ID, "account_number": "*****27"})
    assert "account" not in account_marks(records, masked, live=True)


def test_the_plan_is_the_same_in_whatever_order() -> None:
    records = [trade("B", paper=False), trade(), trade("C", accountId=OTHER_ID)]
    orders, positions = [entry()], [position()]
    assert decide(world(records, orders, positions)) == decide(world(records[::-1], orders, positions))


def test_settling_is_not_asked_of_it() -> None:
    young = trade(paper=False, createdAt=ago(5))
    assert of(decide(world([young], now=NOW + timedelta(seconds=1)))).verdict is Verdict.OTHER_ACCOUNT
