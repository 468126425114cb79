"""Two ledgers on one account: what the other's word explains, and what it must never do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.core.broker import Side
from ghostclean.core.inputs import Memory, World
from ghostclean.core.neighbours import Claim, Neighbours, word
from ghostclean.core.safety import OrphanView, judge_orphans
from ghostclean.core.verdicts import Action, Decision, Verdict, decide
from tests.builders import DAY, GRACE, NOW, ago, entry, of, order, position, sale, trade, uid, world

INTERVAL = timedelta(minutes=5)
X = "file:/x.json"


def claim(qty: Any = 10, symbol: str = "AAPL", side: Side = Side.LONG, **more: Any) -> Claim:
    """What a trade of the other ledger holds, by its own orders, of a position that is just that."""
    given = {"whole": Decimal(qty), "proven": True, "orders": (uid("theirs"),), **more}
    return Claim("x1", symbol, side, Decimal(qty), **given)


def said(*claims: Claim, age: float = 60, ledger: str = X) -> dict[str, Mapping[str, Any]]:
    """The word of another ledger, so many seconds old."""
    return {ledger: word(ledger, NOW - timedelta(seconds=age), INTERVAL, claims)}


def judged(w: World, mode: str = "report") -> list[Decision]:
    view = OrphanView(
        mode, "account-1", w.now, timedelta(seconds=GRACE), w.evidence, {}, {}, w.closed, {}, None,
        Neighbours(w.memory.neighbours, w.now, timedelta(seconds=GRACE)),
    )  # fmt: skip
    return judge_orphans(decide(w), view)


def beside(*claims: Claim, held: Any = 10, age: float = 60, records: Any = (), orders: Any = (), **more: Any) -> World:
    """A position, and what the other ledger says of it."""
    memory = Memory(neighbours=said(*claims, age=age))
    return world(list(records), orders, [position(qty=held, **more)], memory=memory)


# --------------------------------------------------------------------------- orphans


@pytest.mark.parametrize("mode", ["report", "adopt", "flatten"])
def test_what_another_ledger_holds_is_no_orphan_but_said(mode: str) -> None:
    w = beside(claim())
    plan = decide(w)
    assert (plan.orphans, judged(w, mode)) == ((), [])
    assert plan.about_neighbours == f"10 AAPL long explained by ledger {X}"


def test_a_short_is_explained_by_a_short_only() -> None:
    assert not decide(beside(claim(side=Side.SHORT), held=-10)).orphans
    assert [o.qty for o in decide(beside(claim(), held=-10)).orphans] == [10]


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_the_hands_remainder_beside_it_is_only_reported(mode: str) -> None:
    (row,) = judged(beside(claim(whole=Decimal(13)), held=13), mode)
    assert row.action is Action.KEPT
    assert row.reason == f"3 of 13 long at the broker that no trade explains (beside what ledger {X} holds)"


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_an_unproven_word_explains_an_orphan_as_well(mode: str) -> None:
    assert judged(beside(claim(proven=False)), mode) == []


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_a_word_older_than_two_intervals_explains_nothing_and_still_saves_the_shares(mode: str) -> None:
    w = beside(claim(), age=601)
    assert [o.qty for o in decide(w).orphans] == [10]
    (row,) = judged(w, mode)
    assert row.action is Action.KEPT
    assert f"ledger {X} had it when it last ran" in row.reason


def test_a_word_is_believed_for_two_of_its_own_intervals() -> None:
    assert decide(beside(claim(), age=599)).orphans == ()


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_what_was_bought_since_the_other_ledger_last_ran_waits_for_its_word(mode: str) -> None:
    """It may have bought them, and its app may write that down up to a grace later."""
    bought = order("theirs-new", submitted_at=ago(400))
    (row,) = judged(beside(age=300, orders=[bought]), mode)
    assert row.action is Action.KEPT
    assert "has not run since its symbol saw activity" in row.reason
    (row,) = judged(beside(age=270, orders=[bought]), mode)
    assert row.action is {"adopt": Action.ADOPTED, "flatten": Action.FLATTENED}[mode]


def test_a_ledger_silent_for_a_week_is_not_waited_for() -> None:
    (row,) = judged(beside(claim(), age=7 * DAY + 1), "adopt")
    assert row.action is Action.ADOPTED


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"ledger": X, "at": "never", "interval": 300, "holds": []},
        {"ledger": X, "at": ago(), "interval": "x", "holds": []},
        {"ledger": X, "at": ago(), "interval": 300, "holds": [{}]},
        {"ledger": X, "at": ago(), "interval": 300, "holds": 7},
        {"ledger": X, "at": ago(), "interval": 300, "holds": [claim().to_dict() | {"quantity": "NaN"}]},
        {"ledger": X, "at": ago(), "interval": 300, "holds": [claim().to_dict() | {"quantity": -10}]},
        {"ledger": X, "at": ago(), "interval": 300, "holds": [claim().to_dict() | {"side": "UP"}]},
    ],
)
def test_a_word_that_cannot_be_read_says_nothing(damage: dict[str, Any]) -> None:
    w = world([], [], [position()], memory=Memory(neighbours={"x": damage}))
    assert [o.qty for o in decide(w).orphans] == [10]


# --------------------------------------------------------------------------- trades


def test_a_trade_with_its_own_orders_loses_nothing_to_the_others_word() -> None:
    """A word that claims more than stood, or of another position, or from before our entry, or has no orders."""
    for claims, age in (((20, 10), 60), ((10, 20), 60), ((10, 10), 2 * DAY)):
        theirs = claim(claims[0], whole=Decimal(claims[1]))
        plan = decide(beside(theirs, age=age, records=[trade()], orders=[entry()]))
        assert of(plan).verdict is Verdict.LIVE
        assert plan.holdings["T1"].open_qty == 10
    assert of(decide(beside(claim(proven=False), records=[trade()], orders=[entry()]))).verdict is Verdict.LIVE


def test_of_a_copied_ledger_the_same_trade_is_no_rival() -> None:
    """But one that both ledgers have under names of their own is, and one that both have adopted."""
    copied, adopted = claim(orders=(uid("E-T1"),)), trade("adopted-1", alpacaOrderId=uid("E-T1"))
    both = {"records": [trade()], "orders": [entry()]}
    assert of(decide(beside(replace(copied, trade="T1"), **both))).verdict is Verdict.LIVE
    assert of(decide(beside(copied, **both))).verdict is Verdict.AMBIGUOUS
    theirs = replace(copied, trade="adopted-1")
    both = decide(beside(theirs, records=[adopted], orders=[entry()]))
    assert of(both, "adopted-1").verdict is Verdict.AMBIGUOUS


@pytest.mark.parametrize(("side", "held"), [(Side.LONG, 10), (Side.SHORT, -10)])
def test_where_the_orders_of_both_prove_more_than_stands_neither_is_live(side: Side, held: int) -> None:
    """Ten of twenty were sold without a name: nobody can know whose, and both say so for as long as it is so."""
    record = trade(side=str(side))
    w = beside(claim(side=side), held=held, records=[record], orders=[entry(side=side.opening)])
    plan = decide(w)
    decision = of(plan)
    assert (decision.verdict, decision.action) == (Verdict.AMBIGUOUS, Action.HELD)
    assert f"by its orders it should hold 10 of 10 {side.lower()}" in decision.reason
    assert not plan.holdings
    assert not plan.orphans
    (ours,) = plan.claims
    assert (ours.qty, ours.proven) == (10, True)  # so the other says the same


def test_the_fee_dust_of_two_ledgers_coins_is_no_dispute() -> None:
    bought = entry(symbol="BTC/USD", asset_class="crypto", asset_id="asset-BTCUSD", filled_qty="1", qty="1")
    record = trade(ticker="BTC/USD", quantity=1)
    theirs = claim("1", symbol="BTCUSD", whole=Decimal("1.995"))
    held = position("BTCUSD", "1.995", asset_class="crypto")
    w = world([record], [bought], [held], memory=Memory(neighbours=said(theirs)))
    assert of(decide(w)).verdict is Verdict.LIVE


def test_a_trade_without_any_order_does_not_take_what_the_other_ledger_claims() -> None:
    record = trade(alpacaOrderId=..., createdAt=ago(DAY))
    plan = decide(beside(claim(), records=[record]))
    decision = of(plan)
    assert (decision.verdict, decision.action) == (Verdict.AMBIGUOUS, Action.HELD)
    assert f"10 of them are explained by ledger {X}" in decision.reason
    assert not plan.holdings  # so no order is sent for it
    both = decide(beside(claim(whole=Decimal(20)), held=20, records=[record]))
    assert of(both).verdict is Verdict.LIVE


def test_no_sale_of_the_others_closes_or_shrinks_such_a_trade() -> None:
    """The other's word is old: it has sold its 10 since, by an order that it has not published."""
    sold = [order("theirs"), sale("theirs-out")]
    for record in (trade(alpacaOrderId=...), trade(alpacaOrderId=..., quantity=14)):
        decision = of(decide(beside(claim(), records=[record], orders=sold)))
        assert (decision.verdict, decision.action) == (Verdict.AMBIGUOUS, Action.HELD)


def test_an_order_that_another_ledger_names_explains_nothing_of_ours() -> None:
    """Our trade is gone without a fill of its own; the other's exit is not ours, however old the word."""
    gone = [entry(), sale("theirs-out")]
    theirs = claim(orders=(uid("theirs-out"),))
    memory = Memory(neighbours=said(theirs, age=3600))
    decision = of(decide(world([trade()], gone, memory=memory)))
    assert decision.verdict is Verdict.FILLED_BUT_GONE
    assert of(decide(world([trade()], gone))).verdict is Verdict.EXITED


def test_an_entry_canceled_unfilled_beside_what_the_other_holds_is_never_filled() -> None:
    canceled = entry(status="canceled", filled_qty="0")
    plan = decide(beside(claim(), records=[trade()], orders=[canceled, order("theirs")]))
    assert of(plan).verdict is Verdict.NEVER_FILLED
    assert of(decide(beside(records=[trade()], orders=[canceled]))).verdict is Verdict.MISMATCH


@pytest.mark.parametrize("age", [300, 270])
def test_a_purchase_beside_our_unfilled_entry_is_never_taken_for_ours(age: float) -> None:
    """Ours was canceled unfilled; whoever bought as many, whether the other has run since or not."""
    canceled = entry(status="canceled", filled_qty="0")
    bought = order("theirs-new", submitted_at=ago(400))
    w = beside(age=age, records=[trade()], orders=[canceled, bought])
    assert of(decide(w)).verdict is Verdict.MISMATCH


@pytest.mark.parametrize(
    "weak",
    [
        claim(proven=False),
        claim(whole=Decimal(12)),  # the position has changed since
        claim(9),
        claim(side=Side.SHORT),
        claim(symbol="MSFT"),
    ],
)
def test_a_weaker_word_leaves_the_guard_where_it_is(weak: Claim) -> None:
    canceled = entry(status="canceled", filled_qty="0")
    assert of(decide(beside(weak, records=[trade()], orders=[canceled]))).verdict is Verdict.MISMATCH
    old = beside(claim(), age=601, records=[trade()], orders=[canceled])
    assert of(decide(old)).verdict is Verdict.MISMATCH


def test_a_working_entry_of_the_others_is_not_taken_for_ours() -> None:
    canceled = entry(status="canceled", filled_qty="0")
    waiting = order("theirs", status="new")
    memory = Memory(neighbours=said(claim()))
    assert of(decide(world([trade()], [canceled, waiting], memory=memory))).verdict is Verdict.NEVER_FILLED
    assert of(decide(world([trade()], [canceled, waiting]))).verdict is Verdict.MISMATCH


def test_what_the_other_holds_is_no_trade_of_ours_under_a_new_name() -> None:
    gone, renamed = trade(), position("ACME")
    theirs = claim(symbol="ACME")
    w = world([gone], [entry()], [renamed], memory=Memory(neighbours=said(theirs)))
    assert of(decide(w)).verdict is Verdict.FILLED_BUT_GONE
    assert of(decide(world([gone], [entry()], [renamed]))).verdict is Verdict.MISMATCH


# --------------------------------------------------------------------------- what is published


def test_every_trade_that_holds_something_is_published_with_its_orders() -> None:
    partly = entry(
        "T2", symbol="MSFT", asset_id="asset-MSFT", status="partially_filled", filled_qty="4", filled_avg_price="180"
    )
    records = [trade(), trade("T2", ticker="MSFT", status="PENDING"), trade("T3", ticker="NVDA", alpacaOrderId=...)]
    records += [trade("T4", ticker="TSLA")]
    held = [position(qty=13), position("MSFT", "4"), position("NVDA")]
    plan = decide(world(records, [entry(), partly, entry("T4", symbol="TSLA", asset_id="asset-TSLA")], held))
    found = {c.trade: (c.symbol, c.qty, c.whole, c.proven) for c in plan.claims}
    assert found == {
        "T1": ("AAPL", 10, 13, True),
        "T2": ("MSFT", 4, 4, True),
        "T3": ("NVDA", 10, 10, False),
        "T4": ("TSLA", 0, 0, False),  # gone, and held: it may be back when the other looks
    }
    assert {uid("E-T1")} <= set(next(c for c in plan.claims if c.trade == "T1").orders)


def test_what_only_a_failed_or_unreadable_record_explains_is_published_too() -> None:
    """Of one without a size nobody knows how much: the others leave all of it alone, and still report it."""
    records = [trade("T1", status="ERROR"), trade("T2", ticker="MSFT", quantity="many", alpacaOrderId=...)]
    held = [position(), position("MSFT", "4")]
    claims = {c.trade: c for c in decide(world(records, [], held)).claims}
    assert {i: (c.symbol, c.qty, c.proven) for i, c in claims.items()} == {
        "T1": ("AAPL", 10, False),
        "T2": ("MSFT", 0, False),
    }
    others = Memory(neighbours=said(*claims.values()))
    (row,) = judged(world([], [], held, memory=others), "flatten")
    assert (row.ticker, row.action) == ("MSFT", Action.KEPT)
    assert f"trade T2 of ledger {X} may be it" in row.reason


def test_what_is_published_is_what_the_other_reads() -> None:
    one = claim(Decimal("0.123456789"), whole=Decimal("0.2"))
    others = Neighbours(said(one), NOW, timedelta())
    (shares,) = [others.explained(decide(beside(held=1)).orphans[0].position, Decimal(1))]
    assert shares == [(X, Decimal("0.123456789"))]
    assert others.orders == {uid("theirs")}
