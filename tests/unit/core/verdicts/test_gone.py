"""What took a trade away, or that nothing is known to have: fills, options, renames, absence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ghostclean.core.broker import ActivitiesSince, ClockNow, FillsSince, OrderById, OrdersOf, RecordsOf
from ghostclean.core.inputs import Memory
from ghostclean.core.verdicts import Action, Decision, Verdict, decide
from tests.builders import (
    DAY,
    GRACE,
    NOW,
    activity,
    after,
    ago,
    entry,
    fill,
    missed,
    of,
    order,
    policy,
    position,
    sale,
    trade,
    uid,
    world,
)

CALL = "AAPL261117C00200000"  # expired the day before NOW
LATER = "AAPL261218C00200000"


def decided(*args: Any, **options: Any) -> Decision:
    return of(decide(world(*args, **options)))


# --------------------------------------------------------------------------- other fills


def test_a_manual_sale_closes_at_its_price_time_and_order() -> None:
    decision = decided([trade()], [entry(), sale("X")])
    assert (decision.verdict, decision.action) == (Verdict.EXITED, Action.CLOSED)
    assert decision.fields["closeReason"] == "manual_close"
    assert float(decision.fields["closePrice"]) == 187.4
    assert decision.fields["closeOrderId"] == uid("X")
    assert decision.fields["closedAt"] == ago(3600)
    assert decision.fields["realizedPnL"] == 74
    assert not decision.unproven


def test_a_sale_by_an_order_the_broker_does_not_know_is_the_brokers() -> None:
    w = world([trade()], [entry()], fills=[fill("f", "LIQ")])
    assert [n for n in decide(w).questions if isinstance(n, OrderById)], "the order behind a fill is asked for first"
    w.evidence.absent.add(uid("LIQ"))
    assert of(decide(w)).fields["closeReason"] == "broker_exit"


@pytest.mark.parametrize(("sold", "expected"), [(9, Verdict.FILLED_BUT_GONE), (10, Verdict.EXITED)])
def test_sales_must_cover_the_trade_to_the_share(sold: int, expected: Verdict) -> None:
    assert decided([trade()], [entry(), sale("X", qty=sold)]).verdict is expected


def test_a_sale_from_before_the_entry_is_no_exit() -> None:
    assert decided([trade()], [entry(), sale("X", at=DAY + 1)]).verdict is Verdict.FILLED_BUT_GONE


def test_a_round_trip_by_hand_does_not_explain_a_vanished_position() -> None:
    orders = [entry(), order("H", submitted_at=ago(7200)), sale("X")]
    assert decided([trade()], orders).verdict is Verdict.FILLED_BUT_GONE
    assert decided([trade()], [*orders, sale("Y", at=1800)]).verdict is Verdict.EXITED


def test_one_sale_for_several_trades_of_a_flat_symbol() -> None:
    plan = decide(world([trade(), trade("B", quantity=20)], [entry(), entry("B", qty="20"), sale("X", qty=30)]))
    assert {d.verdict for d in plan.decisions} == {Verdict.EXITED}
    assert [float(of(plan, i).fields["realizedPnL"]) for i in ("T1", "B")] == [74, 148]


def test_one_sale_that_only_one_of_the_trades_names() -> None:
    records = [trade(closeOrderId=uid("X")), trade("B", quantity=20)]
    plan = decide(world(records, [entry(), entry("B", qty="20"), sale("X", qty=30)]))
    assert {d.verdict for d in plan.decisions} == {Verdict.EXITED}
    assert [float(of(plan, i).fields["realizedPnL"]) for i in ("T1", "B")] == [74, 148]


def test_one_sale_that_covers_only_one_of_two_gone_trades_settles_neither() -> None:
    plan = decide(world([trade(), trade("B")], [entry(), entry("B"), sale("X")]))
    assert {d.verdict for d in plan.decisions} == {Verdict.FILLED_BUT_GONE}


def test_a_proven_trade_is_served_before_one_that_only_the_ledger_knows() -> None:
    plan = decide(world([trade(), trade("B", alpacaOrderId=...)], [entry(), sale("X")]))
    assert of(plan).verdict is Verdict.EXITED
    assert of(plan, "B").action is Action.CLOSED
    assert of(plan, "B").verdict is Verdict.VANISHED


def test_a_nameless_trade_beside_a_proven_one_and_a_sale_is_ambiguous() -> None:
    records = [trade(), trade("B", alpacaOrderId=...)]
    plan = decide(world(records, [entry(), sale("X")], [position()]))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.LIVE, Verdict.AMBIGUOUS)


def test_a_nameless_trade_sold_before_the_proven_one_began_is_exited() -> None:
    records = [trade(), trade("B", alpacaOrderId=..., createdAt=ago(5 * DAY))]
    plan = decide(world(records, [entry(), sale("X", at=3 * DAY)], [position()]))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.LIVE, Verdict.EXITED)


def test_a_position_of_the_other_side_that_is_explained_says_nothing() -> None:
    records = [trade(), trade("B", side="SHORT", createdAt=ago(1800))]
    orders = [entry(), sale("X"), entry("B", side="sell", submitted_at=ago(1800))]
    plan = decide(world(records, orders, [position(qty=-10)]))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.EXITED, Verdict.LIVE)


def test_a_leg_of_a_closed_records_bracket_is_not_free() -> None:
    leg = sale("L", type="limit", order_class="bracket")
    closed = trade("C", status="CLOSED", closedAt=ago(9 * DAY))
    orders = [entry(), entry("C", order_class="bracket", legs=[leg])]
    assert decided([trade(), closed], orders).verdict is Verdict.FILLED_BUT_GONE


def test_a_sale_that_a_closed_record_without_close_order_must_have_been_is_not_free() -> None:
    closed = trade("C", status="CLOSED", closedAt=ago(3600))
    assert decided([trade(), closed], [entry(), sale("X")]).verdict is Verdict.FILLED_BUT_GONE
    elsewhere = trade("C", status="CLOSED", closedAt=ago(7200))
    assert decided([trade(), elsewhere], [entry(), sale("X")]).verdict is Verdict.EXITED


def test_an_order_of_our_own_for_something_else_is_not_free() -> None:
    orders = [entry(), sale("X", client_order_id="gc-0123456789abcdef0123-flat-1")]
    assert decided([trade()], orders).verdict is Verdict.FILLED_BUT_GONE


def test_an_exit_attributed_to_a_trade_that_left_is_not_free() -> None:
    memory = Memory(exits={"C": [uid("X")]})
    assert decided([trade()], [entry(), sale("X")], memory=memory).verdict is Verdict.FILLED_BUT_GONE


# --------------------------------------------------------------------------- searching


def test_the_search_asks_for_orders_first_and_for_fills_only_when_they_do_not_explain() -> None:
    w = world([trade()], [entry()], complete=False)
    assert {type(n) for n in decide(w).questions} == {OrdersOf, RecordsOf}
    w.evidence.history["AAPL"] = w.now.replace(year=2025)
    w = world([trade()], [entry(), sale("X")])
    w.evidence.fills_since = None
    assert of(decide(w)).verdict is Verdict.EXITED
    w = world([trade()], [entry()])
    w.evidence.fills_since = None
    assert [type(n) for n in decide(w).questions] == [FillsSince]


def test_a_cut_list_of_orders_explains_nothing_alone() -> None:
    w = world([trade()], [entry(), sale("X")])
    w.evidence.history.clear()
    w.evidence.truncated.add("AAPL")
    w.evidence.fills_since = None
    plan = decide(w)
    assert of(plan).verdict is Verdict.UNKNOWN
    assert [type(n) for n in plan.questions] == [FillsSince]


@pytest.mark.parametrize("lost", ["fills", "orders", "records"])
def test_a_search_that_failed_holds(lost: str) -> None:
    w = world([trade(alpacaOrderId=...)], complete=lost != "records")
    if lost == "fills":
        w.evidence.fills_since, w.evidence.unanswered["fills"] = None, "HTTP 500"
    if lost == "orders":
        w.evidence.history.clear()
        w.evidence.unanswered["orders of AAPL"] = "HTTP 500"
    plan = decide(w)
    assert (of(plan).verdict, of(plan).action) == (Verdict.UNKNOWN, Action.HELD)
    assert plan.suspects == 1


# --------------------------------------------------------------------------- vanished


def test_an_order_unknown_by_both_ids_vanishes_in_the_first_run() -> None:
    decision = decided([trade()], absent=[uid("E-T1")])
    assert (decision.verdict, decision.action, decision.unproven) == (Verdict.VANISHED, Action.CLOSED, True)
    assert decision.fields["closeReason"] == "reconciled_not_in_alpaca"
    assert decision.fields["alpacaStatus"] == decision.fields["brokerStatus"] == "not_found_in_broker"
    for name in ("closePrice", "realizedPnL", "realizedR"):
        assert decision.fields[name] is None


def test_a_trade_without_any_id_vanishes_with_the_given_reason() -> None:
    decision = decided([trade(alpacaOrderId=...)], close_reason="gone")
    assert decision.fields["closeReason"] == "gone"


def test_an_unanswered_look_up_is_not_a_404() -> None:
    w = world([trade()])
    w.evidence.unanswered[uid("E-T1")] = "time-out"
    plan = decide(w)
    assert (of(plan).verdict, of(plan).action, plan.questions) == (Verdict.UNKNOWN, Action.HELD, ())
    assert "time-out" in of(plan).reason


def test_an_unexplained_position_keeps_an_unknown_order_from_vanishing() -> None:
    for qty in (10, 4):
        assert decided([trade()], [], [position(qty=qty)], absent=[uid("E-T1")]).action is not Action.CLOSED
    # A pending trade whose order is unknown does not become open by a position of its size.
    pending = trade(status="PENDING")
    assert decided([pending], [], [position()], absent=[uid("E-T1")]).verdict is Verdict.MISMATCH


def test_a_foreign_entry_at_work_keeps_a_trade_without_id() -> None:
    entering = order("F", status="new")
    decision = decided([trade(alpacaOrderId=...)], [entering])
    assert (decision.verdict, decision.action) == (Verdict.WORKING, Action.HELD)
    assert decided([trade()], [entering], absent=[uid("E-T1")]).verdict is Verdict.MISMATCH


def test_confirmations_delay_an_unproven_close_and_not_a_proven_one() -> None:
    nameless = trade(alpacaOrderId=...)
    assert decided([nameless], confirmations=3).action is Action.HELD
    assert decided([nameless], confirmations=3, memory=missed(count=1)).action is Action.HELD
    assert decided([nameless], confirmations=3, memory=missed(count=2)).action is Action.CLOSED
    assert decided([trade()], [entry(), sale("X")], confirmations=3).action is Action.CLOSED


def test_a_miss_of_more_than_a_day_ago_has_expired() -> None:
    old = missed(count=2, first=3 * DAY, last=DAY + 1)
    assert decided([trade(alpacaOrderId=...)], confirmations=3, memory=old).action is Action.HELD


# --------------------------------------------------------------------------- filled_but_gone


@pytest.mark.parametrize(("first", "expected"), [(GRACE - 1, Verdict.FILLED_BUT_GONE), (GRACE, Verdict.VANISHED)])
def test_filled_but_gone_vanishes_one_grace_later(first: float, expected: Verdict) -> None:
    decision = decided([trade()], [entry()], memory=missed(first=first, last=first))
    assert decision.verdict is expected
    assert decision.unproven is (expected is Verdict.VANISHED)


def test_filled_but_gone_is_decided_in_the_regular_session() -> None:
    assert decided([trade()], [entry()], memory=missed(), market_open=False).verdict is Verdict.FILLED_BUT_GONE


def test_filled_but_gone_asks_for_the_clock_and_holds_without_it() -> None:
    w = world([trade()], [entry()], memory=missed())
    w.evidence.clock = None
    plan = decide(w)
    assert (of(plan).verdict, plan.questions) == (Verdict.FILLED_BUT_GONE, (ClockNow(),))
    w.evidence.unanswered["clock"] = "HTTP 500"
    assert of(decide(w)).action is Action.HELD


def test_crypto_has_no_session() -> None:
    orders = [entry(symbol="BTC/USD", asset_class="crypto")]
    decision = decided([trade(ticker="BTC/USD")], orders, memory=missed(), market_open=False)
    assert decision.verdict is Verdict.VANISHED


def test_an_expired_miss_starts_again() -> None:
    old = missed(first=3 * DAY, last=DAY + 1)
    assert decided([trade()], [entry()], memory=old).verdict is Verdict.FILLED_BUT_GONE


@pytest.mark.parametrize("kind", ["MA", "NC", "REORG"])
def test_a_merger_or_rename_takes_a_position_away_and_is_no_ghost(kind: str) -> None:
    decision = decided([trade()], [entry()], memory=missed(), activities=[activity(kind, "AAPL")])
    assert decision.verdict is Verdict.MISMATCH
    of_another = decided([trade()], [entry()], memory=missed(), activities=[activity(kind, "MSFT")])
    assert of_another.verdict is Verdict.VANISHED


def test_activities_that_failed_hold_what_is_about_to_vanish() -> None:
    w = world([trade()], [entry()], memory=missed())
    w.evidence.activities_since, w.evidence.unanswered["activities"] = None, "HTTP 500"
    assert of(decide(w)).verdict is Verdict.UNKNOWN


# --------------------------------------------------------------------------- rename


@pytest.mark.parametrize(
    ("qty", "price", "expected"),
    [
        ("10", "1", Verdict.MISMATCH),  # the same quantity
        ("10.1", "1", Verdict.MISMATCH),
        ("10.2", "1", Verdict.FILLED_BUT_GONE),
        ("100", "18", Verdict.MISMATCH),  # the same cost
        ("100", "18.1", Verdict.MISMATCH),
        ("100", "18.3", Verdict.FILLED_BUT_GONE),
    ],
)
def test_an_orphan_of_the_same_quantity_or_cost_may_be_a_rename(qty: str, price: str, expected: Verdict) -> None:
    stranger = position("NEWCO", qty, avg_entry_price=price)
    assert decided([trade()], [entry()], [stranger]).verdict is expected


@pytest.mark.parametrize(
    "stranger",
    [position("NEWCO", "-10"), position("BTCUSD", "10", asset_class="crypto"), position(LATER, "10")],
)
def test_what_cannot_be_a_rename_is_none(stranger: dict[str, Any]) -> None:
    assert decided([trade()], [entry()], [stranger]).verdict is Verdict.FILLED_BUT_GONE


def test_a_position_that_a_trade_explains_is_no_rename() -> None:
    records = [trade(), trade("B", ticker="NEWCO")]
    orders = [entry(), entry("B", symbol="NEWCO", asset_id="asset-NEWCO")]
    assert decided(records, orders, [position("NEWCO")]).verdict is Verdict.FILLED_BUT_GONE


# --------------------------------------------------------------------------- options


def option(symbol: str = CALL, **fields: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    record = trade(ticker=symbol, quantity=2, **{"createdAt": ago(5 * DAY), **fields})
    bought = entry(symbol=symbol, asset_class="us_option", qty="2", filled_avg_price="3.5", submitted_at=ago(5 * DAY))
    return [record], [bought]


def test_an_expired_option_has_price_zero_only_with_the_activity() -> None:
    decision = decided(*option(), activities=[activity("OPEXP", CALL, qty="-2")])
    assert (decision.verdict, decision.action) == (Verdict.EXITED, Action.CLOSED)
    assert decision.fields["closeReason"] == "option_expired"
    assert decision.fields["closePrice"] == 0
    assert decision.fields["realizedPnL"] == -700
    late = decided(*option())
    assert (late.verdict, late.action) == (Verdict.SETTLING, Action.HELD), "on paper the activity comes a day late"
    without = decided(*option(), now=NOW + timedelta(days=2))
    assert (without.verdict, without.fields["closeReason"]) == (Verdict.EXITED, "option_expired")
    assert without.fields["closePrice"] is None
    assert without.fields["realizedPnL"] is None


@pytest.mark.parametrize(("kind", "reason"), [("OPASN", "option_assigned"), ("OPEXC", "option_exercised")])
@pytest.mark.parametrize("symbol", [CALL, LATER])
def test_an_assigned_or_exercised_option_has_no_price_of_its_own(kind: str, reason: str, symbol: str) -> None:
    decision = decided(*option(symbol), activities=[activity(kind, symbol, qty="2")])
    assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, reason)
    assert decision.fields["closePrice"] is None


def test_an_activity_from_before_the_entry_or_for_less_ends_no_option() -> None:
    for row in (activity("OPASN", LATER, at=9 * DAY, qty="2"), activity("OPASN", LATER, qty="1")):
        assert decided(*option(LATER), activities=[row]).verdict is Verdict.FILLED_BUT_GONE


def test_an_option_before_its_date_is_no_expiry() -> None:
    assert decided(*option(LATER)).verdict is Verdict.FILLED_BUT_GONE


def test_an_option_that_was_sold_is_exited_by_its_fill() -> None:
    records, orders = option()
    sold = sale("X", qty=2, price=5, at=2 * DAY, symbol=CALL, asset_class="us_option")
    decision = decided(records, [*orders, sold])
    assert (decision.fields["closeReason"], decision.fields["realizedPnL"]) == ("manual_close", 300)


def test_option_activities_are_asked_for_and_their_failure_holds() -> None:
    w = world(*option())
    w.evidence.activities_since = None
    assert [type(n) for n in decide(w).questions] == [ActivitiesSince]
    w.evidence.unanswered["activities"] = "HTTP 500"
    assert of(decide(w)).verdict is Verdict.UNKNOWN


def test_a_multi_leg_order_is_kept_while_every_leg_is_held() -> None:
    legs = [
        entry("L1", symbol=LATER, asset_class="us_option", qty="1"),
        entry("L2", symbol="AAPL261218C00210000", asset_class="us_option", qty="1", side="sell"),
    ]
    spread = entry(symbol="", side="", order_class="mleg", qty="1", legs=legs)
    shares = [trade("B"), trade(quantity=1)]
    held = [position(), position(LATER, 1), position("AAPL261218C00210000", -1)]
    plan = decide(world(shares, [spread, entry("B")], held))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.LIVE, Verdict.LIVE)
    assert not plan.orphans
    assert of(decide(world(shares, [spread, entry("B")], held[:2]))).verdict is Verdict.MISMATCH


# --------------------------------------------------------------------------- undo, and the options of a run


def test_an_undone_close_is_held_until_its_facts_change() -> None:
    orders = [entry(), sale("X")]
    first = decided([trade()], orders)
    memory = Memory(holds={"T1": {"facts": first.facts}}, exits={"T1": [uid("X")]})
    again = decided([trade()], orders, memory=memory)
    assert (again.verdict, again.action, again.fields, again.undone) == (Verdict.EXITED, Action.HELD, {}, True)
    changed = decided([trade()], [*orders, sale("Y", at=60)], [position(qty=-10)], memory=memory)
    assert "undone" not in changed.reason


def test_a_hold_without_a_fingerprint_holds_until_it_is_resolved() -> None:
    memory = Memory(holds={"T1": {"facts": None}})
    assert decided([trade()], [entry(), sale("X")], memory=memory).action is Action.HELD


def test_an_undone_sync_is_not_written_again() -> None:
    facts = decided([trade()], [entry()], [position()]).facts
    memory = Memory(holds={"T1": {"facts": facts}})
    assert decided([trade()], [entry()], [position()], memory=memory).action is Action.KEPT


def test_no_close_leaves_open_what_would_be_closed_or_reduced() -> None:
    decision = decided([trade()], [entry(), sale("X")], close=False)
    assert (decision.verdict, decision.action, decision.fields) == (Verdict.EXITED, Action.SKIPPED, {})
    smaller = decided([trade()], [entry(), sale("X", qty=4)], [position(qty=6)], close=False)
    assert (smaller.verdict, smaller.action) == (Verdict.REDUCED, Action.SKIPPED)
    vanished = decide(world([trade(alpacaOrderId=...)], close=False))
    assert not vanished.unproven
    assert decided([trade()], [entry()], [position()], close=False).action is Action.SYNCED


def test_no_sync_writes_no_fields_and_still_closes() -> None:
    assert decided([trade()], [entry()], [position()], sync=False).action is Action.KEPT
    assert decided([trade()], [entry(), sale("X")], sync=False).action is Action.CLOSED


def test_max_works_on_uncovered_trades_first_and_then_on_the_longest_unseen() -> None:
    records = [trade(f"T{n}", ticker=f"S{n}") for n in range(4)]
    orders = [entry(f"T{n}", symbol=f"S{n}", asset_id=f"asset-S{n}") for n in range(4)]
    held = [position(f"S{n}") for n in range(3)]
    memory = Memory(last_worked={"T0": ago(60), "T1": ago(900), "T2": ago(60)})
    plan = decide(world(records, orders, held, max_trades=2, memory=memory))
    assert {d.trade_id for d in plan.decisions} == {"T3", "T1"}
    unseen = decide(world(records, orders, held, max_trades=2, memory=Memory(last_worked={"T0": ago(1)})))
    assert {d.trade_id for d in unseen.decisions} == {"T3", "T1"}


def test_max_never_limits_what_matching_sees() -> None:
    # B would look covered if the older A were not counted.
    records = [trade(), trade("B", createdAt=ago(DAY / 2))]
    memory = Memory(last_worked={"T1": ago(5)})
    plan = decide(world(records, [entry(), entry("B")], [position()], max_trades=1, memory=memory))
    assert [(d.trade_id, d.verdict) for d in plan.decisions] == [("B", Verdict.AMBIGUOUS)]


def test_a_ghost_is_closed_in_the_first_run_and_the_second_changes_nothing() -> None:
    records = [trade(alpacaOrderId=...), trade("B"), trade("C", ticker="MSFT")]
    msft = {"symbol": "MSFT", "asset_id": "asset-MSFT"}
    orders = [entry("B"), sale("X"), entry("C", status="canceled", canceled_at=ago(DAY), **msft)]
    plan = decide(world(records, orders))
    assert {d.action for d in plan.decisions} == {Action.CLOSED}
    assert not decide(world(after(records, plan), orders)).writing


def test_the_policy_defaults_are_the_contracts() -> None:
    assert policy().grace.total_seconds() == GRACE
    assert (policy().max_unproven_closes, policy().confirmations, policy().max_trades) == (3, 1, 500)


# --------------------------------------------------------------------------- who of several is gone


def verdicts(*args: Any, **options: Any) -> dict[str | None, Verdict]:
    return {d.trade_id: d.verdict for d in decide(world(*args, **options)).decisions}


def nameless(trade_id: str = "N", **fields: Any) -> dict[str, Any]:
    """A trade of 3 that names no order."""
    return trade(trade_id, **({"alpacaOrderId": ..., "quantity": 3} | fields))


def test_a_purchase_of_nobody_that_nobody_sold_holds_the_trade_without_an_order() -> None:
    # 7 of T1 were wiped away without a trace, the 3 of N stand: for the books T1 holds all 10... and N is gone.
    bought = order("B", qty="3")
    found = verdicts([trade(), nameless()], [entry(), bought], [position()])
    assert found == {"T1": Verdict.LIVE, "N": Verdict.AMBIGUOUS}
    assert verdicts([trade(), nameless()], [entry()], [position()])["N"] is Verdict.VANISHED
    assert verdicts([trade(), nameless()], [entry(), bought])["N"] is Verdict.VANISHED, "nothing stands at all"


def test_a_sale_since_a_proven_trade_stands_proves_no_earlier_one_either() -> None:
    # A round trip of 25 by hand is over; the 14 sold since are of either, so the 25 were not its exit.
    orders = [order("B", qty="14", submitted_at=ago(4 * DAY)), order("H", qty="25", submitted_at=ago(3 * DAY))]
    orders += [sale("R", qty="25", at=2 * DAY), entry(qty="14"), sale("S", qty="14")]
    records = [trade(quantity=14), nameless(quantity=14, createdAt=ago(4 * DAY))]
    found = verdicts(records, orders, [position(qty="14")])
    assert found == {"T1": Verdict.LIVE, "N": Verdict.AMBIGUOUS}
    of_25 = [o if o["side"] == "buy" else sale("R", qty="39", at=2 * DAY) for o in orders[:3]]
    assert verdicts(records, [*of_25, entry(qty="14")], [position(qty="14")])["N"] is Verdict.EXITED


def test_two_trades_without_orders_are_both_held_where_one_of_them_is_held_by_the_broker() -> None:
    records = [trade(), nameless(), nameless("M")]
    found = verdicts(records, [entry(), order("B", qty="3")], [position()])
    assert found == {"T1": Verdict.LIVE, "N": Verdict.AMBIGUOUS, "M": Verdict.AMBIGUOUS}


def test_a_purchase_sold_again_before_anybody_elses_entry_holds_nobody() -> None:
    orders = [entry(submitted_at=ago(600)), order("B", qty="5"), sale("S", qty="5")]
    assert verdicts([trade(), nameless()], orders, [position()])["N"] is not Verdict.AMBIGUOUS


def test_the_entry_of_a_trade_that_went_out_by_its_own_order_is_no_loss() -> None:
    orders = [entry(), order("B", qty="4"), sale("X", qty="4")]
    out = nameless("M", quantity=4, closeOrderId=uid("X"))
    assert verdicts([trade(), nameless(), out], orders, [position()])["N"] is Verdict.VANISHED
    closed = {**out, "status": "CLOSED"}
    assert verdicts([trade(), nameless(), closed], orders, [position()])["N"] is Verdict.VANISHED


def test_a_neighbour_without_an_order_does_not_spoil_a_manual_sale() -> None:
    orders = [entry(), sale("S"), order("B", qty="3"), sale("X", qty="3")]
    out = nameless("M", closeOrderId=uid("X"))
    assert verdicts([trade(), out], orders)["T1"] is Verdict.EXITED
    assert verdicts([trade(), {**out, "status": "CLOSED"}], orders)["T1"] is Verdict.EXITED


def test_a_sale_of_exactly_one_trade_closes_that_one_beside_one_gone_without_a_trace() -> None:
    records, orders = [trade(), trade("B", quantity=4)], [entry(), entry("B", qty="4")]
    plan = decide(world(records, [*orders, sale("S")]))
    assert of(plan).verdict is Verdict.EXITED
    assert of(plan).fields["closeOrderId"] == uid("S")
    assert of(plan, "B").verdict is Verdict.FILLED_BUT_GONE
    assert verdicts(records, [*orders, sale("S", qty="9")])["T1"] is Verdict.FILLED_BUT_GONE


def test_what_one_order_says_of_one_trade_holds_although_the_others_sums_do_not_agree() -> None:
    # B could be served from the hand's sale, were it not for all the hand had bought before.
    orders = [entry("B", qty="4", submitted_at=ago(3 * DAY)), order("H", qty="45", submitted_at=ago(2 * DAY))]
    orders += [entry(), sale("S", at=7200), sale("R", qty="6")]
    plan = decide(world([trade(), trade("B", quantity=4)], orders))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.EXITED, Verdict.FILLED_BUT_GONE)
    assert of(plan).fields["closeOrderId"] == uid("S")


def test_a_sale_of_exactly_a_nameless_trade_closes_it_beside_one_gone_without_a_trace() -> None:
    orders = [entry(qty="24", submitted_at=ago(2 * DAY)), order("B", qty="27")]
    sales = [sale("R", qty="1", at=7200), sale("S", qty="27")]
    plan = decide(world([trade(quantity=24), nameless(quantity=27)], [*orders, *sales]))
    assert (of(plan).verdict, of(plan, "N").verdict) == (Verdict.FILLED_BUT_GONE, Verdict.EXITED)
    assert of(plan, "N").fields["closeOrderId"] == uid("S")


def test_a_proven_trade_is_preferred_to_two_nameless_ones_that_fit_the_orders() -> None:
    orders = [entry(qty="10"), sale("S", qty="6"), sale("R", qty="4")]
    records = [trade(), nameless("N", quantity=6), nameless("M", quantity=4)]
    found = verdicts(records, orders)
    assert found == {"T1": Verdict.EXITED, "N": Verdict.VANISHED, "M": Verdict.VANISHED}


def test_a_sale_that_fits_two_trades_closes_neither() -> None:
    found = verdicts([trade(), trade("B")], [entry(), entry("B"), sale("S")])
    assert set(found.values()) == {Verdict.FILLED_BUT_GONE}


def test_orders_of_exactly_one_trade_each_are_not_mixed_by_age() -> None:
    orders = [entry(qty="22", submitted_at=ago(2 * DAY)), entry("B", qty="18")]
    sales = [sale("S18", qty="18", price="170", at=7200), sale("S22", qty="22", price="190", at=3600)]
    plan = decide(world([trade(quantity=22), trade("B", quantity=18)], [*orders, *sales]))
    assert [of(plan, i).fields["closeOrderId"] for i in ("T1", "B")] == [uid("S22"), uid("S18")]
    assert [float(of(plan, i).fields["closePrice"]) for i in ("T1", "B")] == [190, 170]


def test_a_sale_that_may_have_been_a_vanished_trades_closes_nobody() -> None:
    vanished = trade(
        "V", status="CLOSED", closePrice=None, alpacaStatus="not_found_in_broker", closedAt=ago(1800), filledQty=10
    )
    orders = [entry(), entry("V")]
    assert verdicts([trade(), vanished], [*orders, sale("S", at=3600)])["T1"] is Verdict.FILLED_BUT_GONE
    assert verdicts([trade(), vanished], [*orders, sale("S", at=900)])["T1"] is Verdict.EXITED, "later than that"


def test_one_sale_for_two_trades_closes_the_second_after_a_crash_between_them() -> None:
    closed = trade("B", status="CLOSED", quantity=8, closeOrderId=uid("S"), closePrice=187.4)
    plan = decide(world([trade(), closed], [entry(), entry("B", qty="8"), sale("S", qty="18")]))
    assert of(plan).verdict is Verdict.EXITED
    assert of(plan).fields["realizedPnL"] == 74
    short = decide(world([trade(), closed], [entry(), entry("B", qty="8"), sale("S", qty="17")]))
    assert of(short).verdict is Verdict.FILLED_BUT_GONE


def test_a_close_without_proof_claims_no_sale_by_its_time() -> None:
    """Its `closedAt` is when a run gave it up; the sale of the same size at that time is another trade's."""
    vanished = nameless("V", quantity=10, status="CLOSED", closePrice=None, closedAt=ago(3600))
    assert verdicts([trade(), vanished], [entry(), sale("S")])["T1"] is Verdict.FILLED_BUT_GONE, "closed by hand"
    vanished["alpacaStatus"] = "not_found_in_broker"
    assert verdicts([trade(), vanished], [entry(), sale("S")])["T1"] is Verdict.EXITED


def test_a_sale_closes_nobody_before_the_records_that_may_own_it_are_known() -> None:
    w = replace(world([trade()], [entry(), sale("X")]), closed={})
    plan = decide(w)
    assert (of(plan).verdict, of(plan).action, plan.suspects) == (Verdict.UNKNOWN, Action.HELD, 1)
    assert RecordsOf("AAPL") in plan.questions


def test_a_trade_that_its_own_orders_took_out_asks_the_broker_nothing_beside_other_shares() -> None:
    plan = decide(world([trade(stopOrderId=uid("S"))], [entry(), sale("S")], [position(qty=4)], complete=False))
    assert plan.questions == (RecordsOf("AAPL"),)


def test_a_fill_whose_order_is_not_known_is_still_its_owners() -> None:
    closed = trade("C", status="CLOSED", closeOrderId=uid("X"))
    assert verdicts([trade(), closed], [entry()], fills=[fill("f", "X")])["T1"] is Verdict.FILLED_BUT_GONE
    other = trade("B", ticker="MSFT", stopOrderId=uid("X"))
    assert verdicts([trade(), other], [entry()], fills=[fill("f", "X")])["T1"] is Verdict.FILLED_BUT_GONE


def test_the_stop_of_a_closed_record_is_its_own_however_often_it_was_moved() -> None:
    moved = {"status": "replaced", "type": "stop", "filled_qty": "0"}
    hops = [sale(f"S{n}", replaced_by=uid(f"S{n + 1}"), replaces=uid(f"S{n - 1}"), **moved) for n in range(2, 6)]
    first = sale("S1", replaced_by=uid("S2"), **moved)
    last = sale("S6", type="stop", replaces=uid("S5"))
    closed = trade("C", status="CLOSED", stopOrderId=uid("S1"))
    assert verdicts([trade(), closed], [entry(), first, *hops, last])["T1"] is Verdict.FILLED_BUT_GONE


@pytest.mark.parametrize("missing", [("quantity", "filledQty"), ("createdAt",), ("closedAt",)])
def test_a_close_without_proof_that_says_too_little_claims_nothing(missing: tuple[str, ...]) -> None:
    vanished = trade("V", status="CLOSED", closePrice=None, closedAt=ago(1800), filledQty=10)
    vanished["alpacaStatus"] = "not_found_in_broker"
    assert verdicts([trade(), vanished], [entry(), sale("S")])["T1"] is Verdict.FILLED_BUT_GONE
    vanished |= dict.fromkeys(missing)
    assert verdicts([trade(), vanished], [entry(), sale("S")])["T1"] is Verdict.EXITED


def test_a_sale_since_the_entry_order_of_a_vanished_trade_may_be_its() -> None:
    """The app may have noted it later than the broker took its order."""
    vanished = trade("V", status="CLOSED", closePrice=None, closedAt=ago(600), filledQty=10, createdAt=ago(1800))
    vanished["alpacaStatus"] = "not_found_in_broker"
    assert verdicts([trade(), vanished], [entry(), entry("V"), sale("S")])["T1"] is Verdict.FILLED_BUT_GONE


def test_a_sale_that_may_have_been_a_vanished_trades_proves_no_other_without_an_order() -> None:
    vanished = nameless("V", quantity=10, status="CLOSED", closePrice=None, closedAt=ago(1800))
    vanished["alpacaStatus"] = "not_found_in_broker"
    records = [nameless(quantity=10), vanished]
    assert verdicts(records, [sale("S", at=3600)])["N"] is Verdict.VANISHED
    assert verdicts(records, [sale("S", at=900)])["N"] is Verdict.EXITED, "later than that"


@pytest.mark.parametrize("known", [{"alpacaOrderId": ..., "filledQty": 10}, {}])
def test_an_order_or_a_fill_alone_makes_no_vanished_trade_a_proven_ones_rival(known: dict[str, Any]) -> None:
    vanished = trade("V", status="CLOSED", closePrice=None, closedAt=ago(1800), **known)
    vanished["alpacaStatus"] = "not_found_in_broker"
    assert verdicts([trade(), vanished], [entry(), sale("S")])["T1"] is Verdict.EXITED


def test_a_foreign_entry_at_work_keeps_no_proven_ghost() -> None:
    entering = order("F", status="new")
    assert decided([trade()], [entry(), entering], memory=missed()).verdict is Verdict.VANISHED


def test_an_option_bought_on_its_last_day_expires_with_the_activity_of_that_day() -> None:
    today = "AAPL261118C00200000"
    bought = entry(symbol=today, asset_class="us_option", qty="2", filled_avg_price="3.5", submitted_at=ago(7200))
    records = [trade(ticker=today, quantity=2, createdAt=ago(7200))]
    decision = decided(records, [bought], activities=[activity("OPEXP", today, at=0, qty="-2")])
    assert (decision.fields["closeReason"], decision.fields["realizedPnL"]) == ("option_expired", -700)


def test_a_merger_on_the_day_of_the_entry_takes_the_position_away_too() -> None:
    row = activity("MA", "AAPL", at=DAY)
    assert decided([trade()], [entry()], memory=missed(), activities=[row]).verdict is Verdict.MISMATCH
    before = activity("MA", "AAPL", at=2 * DAY)
    assert decided([trade()], [entry()], memory=missed(), activities=[before]).verdict is Verdict.VANISHED


@pytest.mark.parametrize(("age", "since"), [(DAY, 2 * DAY), (200 * DAY, 91 * DAY)])
def test_a_search_looks_back_to_a_day_before_the_entry_and_no_further_than_90_days(age: float, since: float) -> None:
    w = world([trade(createdAt=ago(age))], [entry(submitted_at=ago(age))], complete=False)
    assert OrdersOf("AAPL", "AAPL", NOW - timedelta(seconds=since)) in decide(w).questions


def test_a_round_trip_by_hand_before_a_proven_entry_keeps_no_ghost() -> None:
    orders = [entry(submitted_at=ago(600)), order("B", qty="5"), sale("S", qty="5")]
    assert verdicts([trade(), nameless(quantity=10)], orders, [position()])["N"] is Verdict.VANISHED
    assert verdicts([trade(), nameless(quantity=10)], orders[:2], [position()])["N"] is Verdict.AMBIGUOUS


def test_enough_sales_for_a_vanished_trade_too_close_this_one() -> None:
    vanished = trade("V", status="CLOSED", closePrice=None, closedAt=ago(600), filledQty=10)
    vanished["alpacaStatus"] = "not_found_in_broker"
    orders = [entry(), entry("V"), sale("S", at=7200)]
    assert verdicts([trade(), vanished], orders)["T1"] is Verdict.FILLED_BUT_GONE
    assert verdicts([trade(), vanished], [*orders, sale("R")])["T1"] is Verdict.EXITED


def test_each_record_closed_by_hand_claims_a_sale_of_its_own() -> None:
    closed = [trade(i, status="CLOSED", closedAt=ago(3600)) for i in ("C", "D")]
    orders = [entry(), sale("X"), sale("Y", at=3590)]
    assert verdicts([trade(), *closed], orders)["T1"] is Verdict.FILLED_BUT_GONE
    assert verdicts([trade(), closed[0]], orders)["T1"] is Verdict.EXITED


def test_a_record_closed_by_an_order_claims_no_second_sale_by_its_time() -> None:
    closed = trade("C", status="CLOSED", closedAt=ago(3600), closeOrderId=uid("Y"))
    assert verdicts([trade(), closed], [entry(), entry("C"), sale("X"), sale("Y")])["T1"] is Verdict.EXITED


def test_an_activity_of_another_option_ends_none() -> None:
    row = activity("OPASN", "AAPL261218C00210000", qty="2")
    assert decided(*option(LATER), activities=[row]).verdict is Verdict.FILLED_BUT_GONE


def test_an_option_that_ended_in_two_ways_has_no_price_of_its_own() -> None:
    rows = [activity("OPEXP", CALL, qty="-1"), activity("OPASN", CALL, qty="1")]
    decision = decided(*option(), activities=rows)
    assert (decision.fields["closeReason"], decision.fields["closePrice"]) == ("option_assigned", None)


def test_an_option_assigned_before_its_date_is_not_closed_in_the_future() -> None:
    decision = decided(*option(LATER), activities=[activity("OPASN", LATER, qty="2")])
    assert decision.fields["closedAt"] == ago()


def test_activities_known_from_a_later_time_on_are_not_known() -> None:
    w = world(*option(LATER))
    w.evidence.activities_since = NOW
    plan = decide(w)
    assert of(plan).verdict is Verdict.UNKNOWN
    assert [type(n) for n in plan.questions] == [ActivitiesSince]


def test_a_trade_that_is_gone_waits_for_the_exit_that_no_list_shows() -> None:
    target = sale("TP", type="limit", status="new", filled_qty="0")
    plan = decide(world([trade(stopOrderId=uid("SL"), takeProfitOrderId=uid("TP"))], [entry(), target]))
    assert of(plan).verdict is Verdict.UNKNOWN
    assert [n.order_id for n in plan.questions if isinstance(n, OrderById)] == [uid("SL")]


def test_a_sale_that_a_record_in_error_names_is_not_free() -> None:
    failed = trade("C", status="ERROR", closeOrderId=uid("X"))
    assert verdicts([trade(), failed], [entry(), sale("X")])["T1"] is Verdict.FILLED_BUT_GONE


def test_a_fill_of_what_replaced_a_closed_records_stop_is_not_free() -> None:
    moved = sale("S1", type="stop", status="replaced", filled_qty="0", replaced_by=uid("S2"))
    closed = trade("C", status="CLOSED", stopOrderId=uid("S1"))
    assert verdicts([trade(), closed], [entry(), moved], fills=[fill("f", "S2")])["T1"] is Verdict.FILLED_BUT_GONE


def test_a_record_closed_by_hand_beside_its_dead_stop_claims_the_sale_of_that_time() -> None:
    dead = sale("S", type="stop", at=DAY, status="canceled", filled_qty="0", canceled_at=ago(3600))
    closed = trade("C", status="CLOSED", closedAt=ago(3600), stopOrderId=uid("S"))
    assert verdicts([trade(), closed], [entry(), dead, sale("X")])["T1"] is Verdict.FILLED_BUT_GONE


def test_a_short_closed_by_hand_claims_a_purchase_and_no_sale() -> None:
    closed = trade("C", side="SHORT", status="CLOSED", closedAt=ago(3600))
    assert verdicts([trade(), closed], [entry(), sale("X")])["T1"] is Verdict.EXITED
    short, covering = trade(side="SHORT"), sale("X", side="buy")
    assert verdicts([short, closed], [entry(side="sell"), covering])["T1"] is Verdict.FILLED_BUT_GONE


def test_orders_alone_prove_no_exit_of_a_trade_without_an_order() -> None:
    w = world([nameless(quantity=10)], [sale("X")])
    assert of(decide(w), "N").verdict is Verdict.EXITED
    w.evidence.fills_since = None
    plan = decide(w)
    assert of(plan, "N").verdict is Verdict.UNKNOWN
    assert [type(n) for n in plan.questions] == [FillsSince]


def test_a_vanished_trade_claims_what_it_held_on_its_own_side() -> None:
    vanished = trade("V", status="CLOSED", closePrice=None, closedAt=ago(1800), filledQty=4)
    vanished["alpacaStatus"] = "not_found_in_broker"
    orders = [entry(), sale("S"), sale("R", qty=4)]
    assert verdicts([trade(), vanished], orders)["T1"] is Verdict.EXITED, "4 of its 10 had filled"
    short = {**vanished, "side": "SHORT", "filledQty": 10}
    assert verdicts([trade(), short], orders[:2])["T1"] is Verdict.EXITED


def test_a_purchase_long_before_a_trade_without_an_order_holds_nobody() -> None:
    orders = [entry(), order("B", qty="5", submitted_at=ago(10 * DAY))]
    assert verdicts([trade(), nameless()], orders, [position()])["N"] is Verdict.VANISHED


def test_a_purchase_at_another_time_is_not_the_entry_of_a_trade_that_is_out() -> None:
    orders = [entry(), order("B", qty="4", submitted_at=ago(7200)), sale("X", qty="4")]
    closed = nameless("M", quantity=4, closeOrderId=uid("X"), status="CLOSED")
    assert verdicts([trade(), nameless(), closed], orders, [position()])["N"] is Verdict.AMBIGUOUS


def test_an_activity_that_ends_no_option_ends_none() -> None:
    assert decided(*option(LATER), activities=[activity("OPCA", LATER)]).verdict is Verdict.FILLED_BUT_GONE


def test_an_assignment_that_names_no_quantity_ends_the_option() -> None:
    decision = decided(*option(LATER), activities=[activity("OPASN", LATER)])
    assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, "option_assigned")


def test_an_option_is_closed_at_its_end_and_not_when_it_was_seen() -> None:
    with_activity = decided(*option(), activities=[activity("OPEXP", CALL, qty="-2")])
    for decision in (with_activity, decided(*option(), now=NOW + timedelta(days=2))):
        assert decision.fields["closedAt"].startswith("2026-11-17T")


def test_fills_known_from_a_later_time_on_are_not_known() -> None:
    w = world([nameless()])
    w.evidence.fills_since = NOW
    plan = decide(w)
    assert of(plan, "N").verdict is Verdict.UNKNOWN
    assert [type(n) for n in plan.questions] == [FillsSince]


def test_what_orders_explain_of_one_trade_spares_no_search_for_another() -> None:
    w = world([trade(), trade("B", quantity=4)], [entry(), entry("B", qty="4"), sale("S")])
    w.evidence.fills_since = None
    plan = decide(w)
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.EXITED, Verdict.UNKNOWN)
    assert [type(n) for n in plan.questions] == [FillsSince]


def test_a_sale_that_a_closed_record_names_by_its_client_id_is_not_free() -> None:
    closed = trade("C", status="CLOSED", closeOrderId="client-X")
    assert verdicts([trade(), closed], [entry(), sale("X")])["T1"] is Verdict.FILLED_BUT_GONE


def test_fill_rows_that_tell_a_part_of_an_order_do_not_lessen_it() -> None:
    decision = decided([trade()], [entry(), sale("X")], fills=[fill("f", "X", qty=4)])
    assert (decision.verdict, decision.fields["realizedPnL"]) == (Verdict.EXITED, 74)


@pytest.mark.parametrize(
    ("kind", "reason", "pnl"),
    [("OPEXP", "option_expired", -1100), ("OPASN", "option_assigned", None), ("OPEXC", "option_exercised", None)],
)
def test_an_option_partly_sold_and_partly_ended_is_explained_by_both(kind: str, reason: str, pnl: Any) -> None:
    record = trade(ticker=LATER, quantity=5)
    orders = [
        entry(symbol=LATER, qty="5", filled_avg_price="5"),
        sale("X", qty=2, price=7, symbol=LATER),
    ]
    decision = decided([record], orders, activities=[activity(kind, LATER, qty="-3")])
    assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, reason)
    assert decision.fields["realizedPnL"] == pnl
    assert decision.exit_orders == (uid("X"), f"{ago(3600)[:10]}::{kind}-{LATER}")
    less = decided([record], orders, activities=[activity(kind, LATER, qty="-2")])
    assert less.verdict is Verdict.FILLED_BUT_GONE
