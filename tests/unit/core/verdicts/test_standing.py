"""Every verdict at its boundaries: own orders, the position, the grace."""

from __future__ import annotations

from typing import Any

import pytest

from ghostclean.core.broker import OrderByClientId, OrderById, OrdersOf, RecordsOf
from ghostclean.core.inputs import Memory
from ghostclean.core.verdicts import Action, Decision, Verdict, decide
from tests.builders import (
    DAY,
    GRACE,
    after,
    ago,
    entry,
    fill,
    missed,
    of,
    order,
    position,
    remembered,
    sale,
    trade,
    uid,
    working,
    world,
)

SIZE_NAMES = ("quantity", "qty", "size", "positionSize", "shares")
WORKING = (
    "new",
    "partially_filled",
    "accepted",
    "pending_new",
    "accepted_for_bidding",
    "held",
    "done_for_day",
    "stopped",
    "suspended",
    "calculated",
    "pending_review",
    "pending_cancel",
    "pending_replace",
    "a_status_of_tomorrow",
)


def verdict(*args: Any, **options: Any) -> Verdict:
    return of(decide(world(*args, **options))).verdict


def decided(*args: Any, **options: Any) -> Decision:
    return of(decide(world(*args, **options)))


# --------------------------------------------------------------------------- unreadable


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"id": ...}, "no id"),
        ({"id": " "}, "no id"),
        ({"ticker": ...}, "no symbol"),
        ({"quantity": "ten"}, "quantity is impossible"),
        ({"quantity": "NaN"}, "quantity is impossible"),
        ({"quantity": True}, "quantity is impossible"),
        ({"entryPrice": -1}, "entryPrice is impossible"),
        ({"stopPrice": "Infinity"}, "stopPrice is impossible"),
        ({"side": "BUY"}, "neither LONG nor SHORT"),
        ({"quantity": 0, "alpacaOrderId": ...}, "no positive size"),
        ({"quantity": -5, "alpacaOrderId": ...}, "no positive size"),
    ],
)
def test_a_record_that_says_nothing_sure_is_left_alone(fields: dict[str, Any], why: str) -> None:
    plan = decide(world([trade(**fields), trade("OK")], [entry(), entry("OK")], [position()]))
    broken = next(d for d in plan.decisions if d.verdict is Verdict.UNREADABLE)
    assert why in broken.reason
    assert broken.action is Action.HELD
    assert of(plan, "OK").verdict is Verdict.LIVE


def test_an_id_that_stands_twice_names_nobody() -> None:
    plan = decide(world([trade(), trade(ticker="MSFT"), trade("OK")], [entry("OK")], [position()]))
    assert [d.verdict for d in plan.decisions if d.trade_id == "T1"] == [Verdict.UNREADABLE] * 2


def test_an_id_that_a_record_outside_our_scope_carries_too_names_nobody() -> None:
    plan = decide(world([trade(), trade(status="ERROR")], [entry()], []))
    assert of(plan).verdict is Verdict.UNREADABLE


@pytest.mark.parametrize("name", SIZE_NAMES)
def test_each_of_the_five_size_names_is_read_and_reduced(name: str) -> None:
    record = trade(**{"quantity": ..., "stopOrderId": uid("S"), name: "10"})
    decision = decided([record], [entry(), sale("S", qty=4, type="stop")], [position(qty=6)])
    assert decision.verdict is Verdict.REDUCED
    assert decision.fields[name] == 6
    assert not set(SIZE_NAMES) - {name} & decision.fields.keys()


def test_the_first_positive_size_counts_and_equal_ones_follow_it() -> None:
    record = trade(quantity=0, qty=None, size="10", shares=10, positionSize=7, stopOrderId=uid("S"))
    decision = decided([record], [entry(), sale("S", qty=4, type="stop")], [position(qty=6)])
    assert (decision.fields["size"], decision.fields["shares"]) == (6, 6)
    assert "positionSize" not in decision.fields


def test_without_any_size_the_entry_fill_counts() -> None:
    assert verdict([trade(quantity=...)], [entry()], [position()]) is Verdict.LIVE


# --------------------------------------------------------------------------- live


def test_a_position_that_covers_the_trade_makes_it_live() -> None:
    decision = decided([trade()], [entry()], [position()])
    assert (decision.verdict, decision.action) == (Verdict.LIVE, Action.SYNCED)
    assert decision.fields["filledQty"] == 10
    assert decision.fields["avgFillPrice"] == 180
    assert decision.fields["alpacaStatus"] == decision.fields["brokerStatus"] == "filled"


def test_fields_that_are_right_already_are_not_rewritten() -> None:
    first = world([trade()], [entry()], [position()])
    again = world(after([trade()], decide(first)), [entry()], [position()])
    assert of(decide(again)).action is Action.KEPT


def test_an_average_longer_than_a_json_number_is_written_once() -> None:
    orders = [
        entry(qty="3", filled_qty="1", filled_avg_price="100", status="replaced", replaced_by=uid("E2")),
        order("E2", qty="2", filled_avg_price="100.1", replaces=uid("E-T1")),
    ]
    record = trade(quantity=3)
    first = world([record], orders, [position(qty=3)])
    assert of(decide(first)).action is Action.SYNCED
    again = world(after([record], decide(first)), orders, [position(qty=3)])
    assert of(decide(again)).action is Action.KEPT


@pytest.mark.parametrize(("held", "expected"), [(9, Verdict.MISMATCH), (10, Verdict.LIVE), (11, Verdict.LIVE)])
def test_one_share_more_or_less(held: int, expected: Verdict) -> None:
    assert verdict([trade()], [entry()], [position(qty=held)]) is expected


def test_a_short_is_covered_by_a_negative_quantity_only() -> None:
    record = trade(side="SHORT")
    orders = [entry(side="sell")]
    assert verdict([record], orders, [position(qty=-10)]) is Verdict.LIVE
    assert verdict([record], orders, [position(qty=10)]) is Verdict.MISMATCH


def test_the_other_side_at_the_broker_is_a_mismatch() -> None:
    assert verdict([trade()], [entry()], [position(qty=-10)]) is Verdict.MISMATCH


@pytest.mark.parametrize(("ticker", "listed"), [("BTC/USD", "BTCUSD"), ("BTCUSD", "BTCUSD"), ("btc/usd", "BTC/USD")])
@pytest.mark.parametrize(("held", "expected"), [("0.4987", Verdict.LIVE), ("0.4974", Verdict.MISMATCH)])
def test_crypto_under_both_spellings_loses_its_fee_and_no_more(
    ticker: str, listed: str, held: str, expected: Verdict
) -> None:
    orders = [entry(symbol="BTC/USD", asset_class="crypto", qty="0.5")]
    holding = position(listed, held, asset_class="crypto", asset_id="other", market_value="40000")
    decision = decided([trade(ticker=ticker, quantity="0.5")], orders, [holding])
    assert decision.verdict is expected
    assert decision.action is not Action.REDUCED


def test_fractional_shares_are_compared_exactly() -> None:
    orders = [entry(qty="0.123456789")]
    assert verdict([trade(quantity=0.123456789)], orders, [position(qty="0.123456789")]) is Verdict.LIVE
    assert verdict([trade(quantity=0.123456789)], orders, [position(qty="0.1234")]) is Verdict.MISMATCH


def test_a_tiny_crypto_trade_is_not_taken_for_dust() -> None:
    orders = [entry(symbol="BTC/USD", asset_class="crypto", qty="0.00001")]
    holding = position("BTCUSD", "0.000009975", asset_class="crypto", market_value="0.9")
    assert verdict([trade(ticker="BTC/USD", quantity="0.00001")], orders, [holding]) is Verdict.LIVE


def test_crypto_dust_left_behind_is_no_position() -> None:
    orders = [
        entry(symbol="BTC/USD", asset_class="crypto", qty="0.5"),
        sale("X", qty="0.4987", price=90000, symbol="BTC/USD", asset_class="crypto"),
    ]
    dust = position("BTCUSD", "0.000001", asset_class="crypto", market_value="0.09")
    plan = decide(world([trade(ticker="BTC/USD", quantity="0.5")], orders, [dust]))
    assert of(plan).verdict is Verdict.EXITED
    assert not plan.orphans


def test_a_partly_filled_and_canceled_entry_is_live_with_what_filled() -> None:
    orders = [entry(qty="100", filled_qty="40", status="canceled", canceled_at=ago(DAY))]
    decision = decided([trade(quantity=100)], orders, [position(qty=40)])
    assert decision.verdict is Verdict.LIVE
    assert decision.fields["filledQty"] == 40
    assert "quantity" not in decision.fields


def test_filled_quantity_is_never_lowered() -> None:
    decision = decided([trade(filledQty=12, avgFillPrice=181)], [entry()], [position()])
    assert "filledQty" not in decision.fields
    assert "avgFillPrice" not in decision.fields


@pytest.mark.parametrize("told", [{"filledQty": 5}, {"filledQty": None}])
def test_a_part_of_an_entry_that_was_partly_sold_is_not_said_to_be_all_of_it(told: dict[str, Any]) -> None:
    """Its entry filled 17 for two trades; the record of the other has left the ledger."""
    record = trade(quantity=3, initialQuantity=5, **told)
    decision = decided(
        [record], [entry(qty="17", filled_qty="17"), sale("H", "14")], [position(qty=3)], fills=[fill("F", "H", "14")]
    )
    assert decision.verdict is Verdict.LIVE, decision
    assert "filledQty" not in decision.fields


def test_a_scale_in_that_the_ledger_and_the_position_know_keeps_its_average() -> None:
    record = trade(quantity=20, filledQty=20, avgFillPrice=185)
    decision = decided([record], [entry()], [position(qty=20)])
    assert decision.verdict is Verdict.LIVE
    assert not {"filledQty", "avgFillPrice", "quantity"} & decision.fields.keys()


def test_a_scale_in_whose_own_stop_sold_a_part_is_not_closed() -> None:
    record = trade(quantity=20, filledQty=20, avgFillPrice=185, stopOrderId=uid("S"))
    decision = decided([record], [entry(), sale("S", type="stop")], [position(qty=10)])
    assert decision.verdict is Verdict.REDUCED
    assert decision.fields["quantity"] == 10
    assert decision.fields["realizedPnL"] is None


def test_a_trade_without_any_order_id_is_matched_by_size() -> None:
    assert verdict([trade(alpacaOrderId=...)], [], [position()]) is Verdict.LIVE
    assert verdict([trade(alpacaOrderId=...)], [], [position(qty=9)]) is Verdict.MISMATCH


def test_a_pending_trade_opens_with_its_fill() -> None:
    decision = decided([trade(status="BROKER_PENDING")], [entry()], [position()])
    assert (decision.verdict, decision.fields["status"]) == (Verdict.LIVE, "OPEN")
    assert decision.fields["openedAt"] == ago(DAY)


def test_a_rename_keeps_the_instrument_by_its_asset_id() -> None:
    orders = [entry(symbol="FB", asset_id="asset-META")]
    decision = decided([trade(ticker="FB")], orders, [position("META")])
    assert decision.verdict is Verdict.LIVE


def test_the_instrument_is_the_entry_orders_and_not_the_ticker() -> None:
    assert verdict([trade(ticker="APPL")], [entry()], [position()]) is Verdict.LIVE


def test_an_upper_case_order_id_is_the_same_order() -> None:
    assert verdict([trade(alpacaOrderId=uid("E-T1").upper())], [entry()], [position()]) is Verdict.LIVE


def test_a_client_order_id_finds_the_entry() -> None:
    record = trade(alpacaOrderId=..., clientOrderId="client-E-T1")
    assert decided([record], [entry()], [position()]).fields["filledQty"] == 10


# --------------------------------------------------------------------------- working, by status


@pytest.mark.parametrize("status", WORKING)
def test_an_entry_that_may_still_fill_keeps_the_trade_whatever_its_age(status: str) -> None:
    decision = decided([trade(createdAt=ago(90 * DAY))], [entry(status=status)])
    assert (decision.verdict, decision.action) == (Verdict.WORKING, Action.KEPT)


@pytest.mark.parametrize("status", ["canceled", "expired", "rejected"])
def test_an_entry_that_ended_unfilled_never_was(status: str) -> None:
    decision = decided([trade(avgFillPrice=180)], [entry(status=status, canceled_at=ago(DAY))])
    assert (decision.verdict, decision.action) == (Verdict.NEVER_FILLED, Action.CLOSED)
    assert decision.fields["closeReason"] == f"never_filled:{status}"
    assert decision.fields["filledQty"] == 0
    assert decision.fields["realizedPnL"] == 0
    assert decision.fields["closePrice"] is None
    assert not decision.unproven


def test_a_replaced_entry_lives_on_in_its_successor() -> None:
    orders = [
        entry(status="replaced", replaced_by=uid("E2"), replaced_at=ago(DAY)),
        order("E2", status="new", replaces=uid("E-T1")),
    ]
    assert verdict([trade()], orders) is Verdict.WORKING


def test_a_filled_entry_without_a_position_is_no_ghost_at_first_sight() -> None:
    decision = decided([trade()], [entry()])
    assert (decision.verdict, decision.action) == (Verdict.FILLED_BUT_GONE, Action.HELD)


def test_replaced_by_nobody_knows_what_is_held() -> None:
    assert verdict([trade()], [entry(status="replaced", replaced_at=ago(DAY))]) is Verdict.UNKNOWN


@pytest.mark.parametrize("status", ["PENDING", "BROKER_PENDING", "broker_filled", "AUTO_PENDING", "New"])
def test_a_pending_trade_gets_its_first_fill_while_its_order_works(status: str) -> None:
    orders = [entry(status="partially_filled", qty="10", filled_qty="4")]
    decision = decided([trade(status=status)], orders)
    assert (decision.verdict, decision.action) == (Verdict.WORKING, Action.SYNCED)
    assert (decision.fields["status"], decision.fields["filledQty"]) == ("OPEN", 4)


def test_a_sold_part_of_an_entry_that_still_works_does_not_close_the_trade() -> None:
    orders = [entry(status="partially_filled", filled_qty="4"), sale("X", qty=4)]
    assert verdict([trade(closeOrderId=uid("X"))], orders) is Verdict.WORKING


def test_a_never_filled_entry_beside_an_unexplained_position_is_a_mismatch() -> None:
    canceled = entry(status="canceled", canceled_at=ago(DAY))
    assert verdict([trade()], [canceled], [position()]) is Verdict.MISMATCH
    assert verdict([trade()], [canceled], [position(qty=-10)]) is Verdict.NEVER_FILLED


def test_a_never_filled_entry_beside_a_position_that_another_trade_explains() -> None:
    orders = [entry(status="canceled", canceled_at=ago(DAY)), entry("B")]
    assert verdict([trade(), trade("B")], orders, [position()]) is Verdict.NEVER_FILLED


def test_a_never_filled_entry_waits_for_the_orders_of_a_rival_that_seems_to_hold_the_position() -> None:
    canceled = entry(status="canceled", canceled_at=ago(DAY))
    assert verdict([trade(), trade("B")], [canceled], [position()]) is Verdict.UNKNOWN
    assert verdict([trade(), trade("B")], [canceled]) is Verdict.NEVER_FILLED


def test_a_never_filled_entry_with_a_foreign_entry_working_is_a_mismatch() -> None:
    orders = [entry(status="canceled", canceled_at=ago(DAY)), order("F", status="new")]
    assert verdict([trade()], orders) is Verdict.MISMATCH
    of_a_trade = [trade(), trade("B", alpacaOrderId=uid("F"))]
    assert verdict(of_a_trade, orders) is Verdict.NEVER_FILLED


# --------------------------------------------------------------------------- settling


@pytest.mark.parametrize(("age", "expected"), [(GRACE - 1, Verdict.SETTLING), (GRACE, Verdict.FILLED_BUT_GONE)])
@pytest.mark.parametrize("name", ["executedAt", "openedAt", "createdAt"])
def test_one_second_inside_and_outside_the_grace(name: str, age: float, expected: Verdict) -> None:
    assert verdict([trade(**{"createdAt": ..., name: ago(age)})], [entry()]) is expected


@pytest.mark.parametrize(("age", "expected"), [(GRACE - 1, Verdict.SETTLING), (GRACE, Verdict.FILLED_BUT_GONE)])
@pytest.mark.parametrize("name", ["submitted_at", "filled_at"])
def test_the_times_of_its_orders_count(name: str, age: float, expected: Verdict) -> None:
    assert verdict([trade()], [entry(**{name: ago(age)})]) is expected


def test_a_cancel_within_the_grace_settles_first() -> None:
    for age, expected in ((GRACE - 1, Verdict.SETTLING), (GRACE, Verdict.NEVER_FILLED)):
        assert verdict([trade()], [entry(status="canceled", canceled_at=ago(age))]) is expected


@pytest.mark.parametrize(("age", "expected"), [(GRACE - 1, Verdict.SETTLING), (GRACE, Verdict.EXITED)])
def test_a_fill_that_nobody_owns_counts(age: float, expected: Verdict) -> None:
    assert verdict([trade()], [entry(), sale("X", at=age)]) is expected


def test_a_fill_that_another_record_owns_does_not_count() -> None:
    closed = trade("C", status="CLOSED", closeOrderId=uid("X"))
    memory = missed(count=1)
    decision = decided([trade(), closed], [entry(), sale("X", at=5)], memory=memory)
    assert decision.verdict is Verdict.VANISHED


def test_an_app_that_touches_its_records_keeps_no_ghost_alive() -> None:
    touched = trade(updatedAt=ago(1))
    assert verdict([touched], absent=[uid("E-T1")]) is Verdict.VANISHED
    nameless = trade(alpacaOrderId=..., updatedAt=ago(1))
    assert verdict([nameless]) is Verdict.VANISHED


@pytest.mark.parametrize(("opened", "expected"), [(3600.0, Verdict.SETTLING), (3602.0, Verdict.VANISHED)])
def test_updated_at_counts_for_a_nameless_trade_until_an_hour_after_its_opening(
    opened: float, expected: Verdict
) -> None:
    record = trade(alpacaOrderId=..., createdAt=ago(opened + 1), updatedAt=ago(1))
    assert verdict([record]) is expected


def test_a_time_in_the_future_or_none_counts_from_the_first_sight() -> None:
    for created in (ago(-DAY), ...):
        record = trade(alpacaOrderId=..., createdAt=created)
        assert verdict([record]) is Verdict.SETTLING
        known = Memory(first_seen={"T1": ago(GRACE)})
        assert verdict([record], memory=known) is Verdict.VANISHED


def test_settling_holds_the_mismatch_back_too() -> None:
    young = entry(filled_at=ago(20))
    assert verdict([trade()], [young], [position(qty=4)]) is Verdict.SETTLING


# --------------------------------------------------------------------------- own exits


def test_an_own_exit_needs_no_grace_once_the_position_is_gone() -> None:
    decision = decided([trade(stopOrderId=uid("S"))], [entry(), sale("S", price=170, at=1, type="stop")])
    assert (decision.verdict, decision.action) == (Verdict.EXITED, Action.CLOSED)
    assert decision.fields["closeReason"] == "stop_loss"
    assert decision.fields["closePrice"] == 170
    assert decision.fields["closedAt"] == ago(1)
    assert decision.fields["closeOrderId"] == uid("S")
    assert decision.fields["realizedPnL"] == -100


@pytest.mark.parametrize(
    ("age", "held", "expected"),
    [
        (GRACE - 1, 10, Verdict.SETTLING),
        (GRACE, 10, Verdict.EXITED),
        (1, 9, Verdict.EXITED),
    ],
)
def test_an_own_exit_waits_while_the_position_still_shows_it(age: float, held: int, expected: Verdict) -> None:
    orders = [entry(), sale("S", type="stop", at=age)]
    assert verdict([trade(stopOrderId=uid("S"))], orders, [position(qty=held)]) is expected


def test_an_own_exit_closes_whoever_else_holds_the_symbol() -> None:
    orders = [entry(), sale("S", type="stop"), entry("B", qty="500")]
    plan = decide(world([trade(stopOrderId=uid("S")), trade("B", quantity=500)], orders, [position(qty=500)]))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.EXITED, Verdict.LIVE)


@pytest.mark.parametrize(
    ("fields", "stored", "expected"),
    [
        ({"type": "stop"}, "stopOrderId", "stop_loss"),
        ({"type": "stop_limit"}, "stopOrderId", "stop_loss"),
        ({"type": "trailing_stop"}, "closeOrderId", "stop_loss"),
        ({"type": "limit"}, "takeProfitOrderId", "take_profit"),
        ({"type": "limit", "order_class": "oco"}, "stopOrderId", "take_profit"),
        ({"type": "limit"}, "closeOrderId", "manual_close"),
        ({"type": "market"}, "closeOrderId", "manual_close"),
        ({"type": "market", "order_class": "bracket"}, "stopOrderId", "manual_close"),
        ({"client_order_id": "gc-abc-cut-1"}, "closeOrderId", "cut_loss"),
        ({"client_order_id": "gc-abc-eod-2"}, "closeOrderId", "eod_flatten"),
        ({"client_order_id": "gc-abc-stop-1", "type": "stop"}, "stopOrderId", "stop_loss"),
    ],
)
def test_the_reason_is_the_type_of_the_order_that_filled(fields: dict[str, Any], stored: str, expected: str) -> None:
    decision = decided([trade(**{stored: uid("X")})], [entry(), sale("X", **fields)])
    assert decision.fields["closeReason"] == expected


@pytest.mark.parametrize("known", ["S1", "S2", "S3"])
def test_a_replace_chain_is_followed_both_ways(known: str) -> None:
    moved = {"status": "replaced", "type": "stop", "filled_qty": "0", "replaced_at": ago(7200)}
    orders = [
        entry(),
        sale("S1", replaced_by=uid("S2"), **moved),
        sale("S2", replaced_by=uid("S3"), replaces=uid("S1"), **moved),
        sale("S3", price=175, type="stop", replaces=uid("S2")),
    ]
    decision = decided([trade(stopOrderId=uid(known))], orders)
    assert decision.fields["closeOrderId"] == uid("S3")
    assert decision.fields["closeReason"] == "stop_loss"


def test_a_moved_target_is_still_the_target() -> None:
    orders = [
        entry(),
        sale("P1", type="limit", status="replaced", filled_qty="0", replaced_by=uid("P2"), replaced_at=ago(DAY)),
        sale("P2", type="limit", replaces=uid("P1")),
    ]
    assert decided([trade(takeProfitOrderId=uid("P1"))], orders).fields["closeReason"] == "take_profit"


def test_a_replace_chain_of_hundreds_of_hops_is_followed_to_its_end() -> None:
    hops = 400
    orders = [entry()]
    for n in range(hops):
        link = {"type": "stop", "status": "replaced", "filled_qty": "0", "replaced_by": uid(f"S{n + 1}")}
        orders.append(sale(f"S{n}", replaced_at=ago(7200), **link))
    orders.append(sale(f"S{hops}", type="stop", replaces=uid(f"S{hops - 1}")))
    assert decided([trade(stopOrderId=uid("S0"))], orders).verdict is Verdict.EXITED


def test_an_entry_chain_that_loops_is_held() -> None:
    orders = [
        entry(status="replaced", replaced_by=uid("E2"), replaces=uid("E2")),
        order("E2", status="replaced", replaced_by=uid("E-T1"), replaces=uid("E-T1")),
    ]
    decision = decided([trade()], orders)
    assert (decision.verdict, decision.action) == (Verdict.UNKNOWN, Action.HELD)
    assert "loops" in decision.reason


def test_an_exit_chain_that_loops_ends() -> None:
    loop = {"status": "replaced", "type": "stop", "filled_qty": "0", "replaced_at": ago(DAY)}
    orders = [
        entry(),
        sale("S1", replaced_by=uid("S2"), replaces=uid("S2"), **loop),
        sale("S2", replaced_by=uid("S1"), replaces=uid("S1"), **loop),
    ]
    assert verdict([trade(stopOrderId=uid("S1"))], orders, [position()]) is Verdict.LIVE


def test_an_entry_order_of_the_wrong_side_is_a_mismatch() -> None:
    decision = decided([trade()], [entry(side="sell")], [position()])
    assert decision.verdict is Verdict.MISMATCH
    assert "is a sell, not a buy" in decision.reason


def test_a_trade_with_the_wrong_entry_order_takes_no_share_from_the_right_one() -> None:
    plan = decide(world([trade(), trade("B")], [entry(side="sell"), entry("B")], [position()]))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.MISMATCH, Verdict.LIVE)


def test_an_exit_from_before_its_entry_closes_nothing() -> None:
    orders = [entry(), sale("S", at=2 * DAY, type="stop")]
    assert verdict([trade(stopOrderId=uid("S"))], orders, [position()]) is Verdict.LIVE
    decision = decided([trade(stopOrderId=uid("S"))], orders, memory=missed())
    assert (decision.verdict, decision.action) == (Verdict.MISMATCH, Action.HELD)
    assert "before its entry" in decision.reason


def test_an_exit_order_of_another_symbol_closes_nothing() -> None:
    orders = [entry(), sale("S", symbol="MSFT", asset_id="asset-MSFT", type="stop")]
    assert verdict([trade(stopOrderId=uid("S"))], orders, [position()]) is Verdict.LIVE


def test_the_legs_of_a_bracket_are_own_exits_though_the_ledger_names_none() -> None:
    legs = [
        sale("TP", type="limit", order_class="bracket", price=190),
        sale("SL", type="stop", order_class="bracket", status="canceled", filled_qty="0", canceled_at=ago(3600)),
    ]
    decision = decided([trade()], [entry(order_class="bracket", legs=legs)])
    assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, "take_profit")


def test_an_oco_sibling_is_found_through_its_parent() -> None:
    held = sale("SL", type="stop", order_class="oco", price=170)
    parent = sale("TP", type="limit", order_class="oco", status="canceled", filled_qty="0", legs=[held])
    decision = decided([trade(takeProfitOrderId=uid("TP"))], [entry(), parent])
    assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, "stop_loss")


def test_a_held_leg_that_no_list_shows_costs_no_look_up_while_its_sibling_works() -> None:
    target = sale("TP", type="limit", status="new", filled_qty="0")
    plan = decide(world([trade(stopOrderId=uid("SL"), takeProfitOrderId=uid("TP"))], [entry(), target], [position()]))
    assert of(plan).verdict is Verdict.LIVE
    assert not plan.questions


def test_known_exits_that_have_all_left_the_working_list_are_looked_up_though_covered() -> None:
    plan = decide(world([trade(stopOrderId=uid("SL"))], [entry()], [position()]))
    assert of(plan).verdict is Verdict.UNKNOWN
    assert plan.questions == (OrderById(uid("SL"), "AAPL", working(entry())[0].submitted_at),)


def test_an_unanswered_exit_holds_a_covered_trade() -> None:
    w = world([trade(stopOrderId=uid("SL"))], [entry()], [position()])
    w.evidence.unanswered[uid("SL")] = "HTTP 500"
    assert "HTTP 500" in of(decide(w)).reason


def test_an_unanswered_predecessor_of_the_entry_is_not_read_as_unfilled() -> None:
    # Of 100 shares 40 filled before the replace: the sale of 60 leaves 40 at the broker.
    orders = [order("E2", qty="60", replaces=uid("E-T1")), sale("X", qty=60)]
    w = world([trade(alpacaOrderId=uid("E2"), quantity=100, closeOrderId=uid("X"))], orders, [position(qty=40)])
    assert of(decide(w)).verdict is Verdict.UNKNOWN
    w.evidence.unanswered[uid("E-T1")] = "HTTP 500"
    assert of(decide(w)).verdict is Verdict.UNKNOWN


def test_an_own_exit_waits_for_the_records_that_may_own_it() -> None:
    plan = decide(world([trade(stopOrderId=uid("S"))], [entry(), sale("S", type="stop")], complete=False))
    assert of(plan).action is Action.HELD
    assert plan.questions == (RecordsOf("AAPL"),)


def test_a_fill_that_a_closed_record_owns_does_not_close_a_second_trade() -> None:
    closed = trade("C", status="CLOSED", closeOrderId=uid("X"), alpacaOrderId=uid("E-T1"))
    decision = decided([trade(closeOrderId=uid("X")), closed], [entry(), sale("X")])
    assert decision.verdict is Verdict.FILLED_BUT_GONE


def test_one_sale_for_an_open_and_a_closed_trade_is_used_once() -> None:
    closed = trade("C", status="CLOSED", closeOrderId=uid("X"))
    decision = decided([trade(closeOrderId=uid("X")), closed], [entry(), sale("X", qty=20)])
    assert decision.verdict is Verdict.EXITED


def test_a_duplicate_that_was_closed_owns_no_fill() -> None:
    closed = trade("C", status="CLOSED", closeReason="duplicate_of:T1", stopOrderId=uid("S"))
    decision = decided([trade(), closed], [entry(), sale("S", type="stop")])
    assert decision.verdict is Verdict.EXITED


# --------------------------------------------------------------------------- reduced


def test_a_final_exit_order_of_a_part_reduces() -> None:
    record = trade(quantity=100, stopOrderId=uid("S"), initialStopPrice=50)
    orders = [entry(qty="100", filled_avg_price="52"), sale("S", qty=40, price="52.10", type="stop")]
    decision = decided([record], orders, [position(qty=60)])
    assert (decision.verdict, decision.action) == (Verdict.REDUCED, Action.REDUCED)
    assert decision.fields["quantity"] == 60
    assert decision.fields["initialQuantity"] == 100
    assert decision.fields["realizedPnL"] == 4
    assert "status" not in decision.fields


def test_free_fills_of_a_part_reduce_and_then_nothing_is_left_to_do() -> None:
    record = trade(quantity=100)
    orders = [entry(qty="100"), sale("X", qty=40, price="52.10")]
    first = world([record], orders, [position(qty=60)])
    plan = decide(first)
    assert of(plan).verdict is Verdict.REDUCED
    memory = remembered(plan, first.memory)
    again = of(decide(world(after([record], plan), orders, [position(qty=60)], memory=memory)))
    assert (again.verdict, again.action) == (Verdict.LIVE, Action.KEPT)


@pytest.mark.parametrize(("sold", "expected"), [(39, Verdict.MISMATCH), (40, Verdict.REDUCED), (41, Verdict.MISMATCH)])
def test_free_fills_must_explain_the_difference_to_the_share(sold: int, expected: Verdict) -> None:
    orders = [entry(qty="100"), sale("X", qty=sold)]
    assert verdict([trade(quantity=100)], orders, [position(qty=60)]) is expected


@pytest.mark.parametrize(("age", "expected"), [(GRACE - 1, Verdict.SETTLING), (GRACE, Verdict.REDUCED)])
def test_reduced_waits_for_the_grace(age: float, expected: Verdict) -> None:
    orders = [entry(qty="100"), sale("X", qty=40, at=age)]
    assert verdict([trade(quantity=100)], orders, [position(qty=60)]) is expected


def test_what_the_app_has_reduced_already_is_live() -> None:
    orders = [entry(qty="100"), sale("X", qty=40)]
    decision = decided([trade(quantity=60)], orders, [position(qty=60)])
    assert decision.verdict is Verdict.LIVE
    assert "realizedPnL" not in decision.fields


def test_a_working_exit_that_filled_in_part_reduces_only_when_it_is_final() -> None:
    orders = [entry(qty="100"), sale("TP", qty=100, filled_qty="40", status="partially_filled", type="limit")]
    decision = decided([trade(quantity=100, takeProfitOrderId=uid("TP"))], orders, [position(qty=60)])
    assert decision.verdict is Verdict.LIVE
    assert "quantity" not in decision.fields


def test_a_sale_only_part_of_which_can_be_the_trades_is_not_attributed() -> None:
    # 20 bought by hand beside the trade's 100, then 60 sold by hand: whose shares are left?
    orders = [entry(qty="100"), order("H", qty="20", submitted_at=ago(7200)), sale("X", qty=60)]
    assert verdict([trade(quantity=100)], orders, [position(qty=60)]) is Verdict.MISMATCH


@pytest.mark.parametrize(
    ("held", "price", "expected"),
    [
        (20, "90", Verdict.MISMATCH),
        (5, "360", Verdict.MISMATCH),
        (15, "120", Verdict.MISMATCH),
        (20, "150", Verdict.LIVE),
        (13, "138.46", Verdict.LIVE),
    ],
)
def test_a_clean_ratio_at_the_same_cost_is_a_split(held: int, price: str, expected: Verdict) -> None:
    decision = decided([trade()], [entry()], [position(qty=held, avg_entry_price=price)])
    assert decision.verdict is expected
    assert ("split" in decision.reason) is (expected is Verdict.MISMATCH)


# --------------------------------------------------------------------------- few look-ups


def test_a_quiet_ledger_of_live_trades_asks_nothing() -> None:
    records = [trade(f"T{n}", ticker=f"S{n}") for n in range(20)]
    orders = [entry(f"T{n}", symbol=f"S{n}", asset_id=f"asset-S{n}") for n in range(20)]
    plan = decide(world(records, orders, [position(f"S{n}") for n in range(20)], complete=False))
    assert not plan.questions
    assert {d.verdict for d in plan.decisions} == {Verdict.LIVE}


def test_an_entry_unknown_by_its_id_is_asked_for_by_client_id_too() -> None:
    w = world([trade()])
    assert [type(n) for n in decide(w).questions] == [OrderById]
    w.evidence.absent.add(uid("E-T1"))
    assert decide(w).questions == (OrderByClientId(uid("E-T1")),)


def test_an_id_that_is_no_uuid_is_asked_for_as_a_client_order_id() -> None:
    assert decide(world([trade(alpacaOrderId="bot-17")])).questions == (OrderByClientId("bot-17"),)


def test_a_short_position_still_settling_asks_nothing() -> None:
    plan = decide(world([trade()], [entry(filled_at=ago(5))], [position(qty=4)], complete=False))
    assert of(plan).verdict is Verdict.SETTLING
    assert not [n for n in plan.questions if isinstance(n, OrdersOf)]


def test_fill_rows_of_an_order_count_once_beside_the_order() -> None:
    rows = [fill("f1", "X", qty=4, price=100), fill("f2", "X", qty=6, price=110)]
    decision = decided([trade()], [entry(), sale("X", price=106)], fills=rows)
    assert decision.fields["closePrice"] == 106


def test_updated_at_never_counts_for_a_trade_that_names_an_order() -> None:
    young: dict[str, Any] = {"createdAt": ago(1800), "updatedAt": ago(1)}
    assert verdict([trade(**young)], absent=[uid("E-T1")]) is Verdict.VANISHED
    exits = trade(**young, alpacaOrderId=..., stopOrderId=uid("S"))
    assert verdict([exits], absent=[uid("S")]) is Verdict.VANISHED
    assert verdict([trade(**young, alpacaOrderId=...)]) is Verdict.SETTLING


def test_an_own_exit_needs_no_grace_where_the_position_is_anothers() -> None:
    orders = [entry(), sale("S", type="stop", at=1), entry("B", qty="500")]
    plan = decide(world([trade(stopOrderId=uid("S")), trade("B", quantity=500)], orders, [position(qty=500)]))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.EXITED, Verdict.LIVE)


def test_an_entry_that_replaced_an_order_the_broker_does_not_know_is_the_entry() -> None:
    moved = order("E2", replaces=uid("E-T1"))
    assert verdict([trade(alpacaOrderId=uid("E2"))], [moved], [position()], absent=[uid("E-T1")]) is Verdict.LIVE


def test_a_target_in_a_replace_chain_that_loops_is_still_judged() -> None:
    orders = [
        entry(),
        sale("P1", type="limit", status="replaced", filled_qty="0", replaced_by=uid("P2"), replaces=uid("P2")),
        sale("P2", type="limit", replaces=uid("P1")),
    ]
    assert decided([trade(closeOrderId=uid("P2"))], orders).fields["closeReason"] == "manual_close"


def test_a_missing_part_is_searched_for_before_it_is_a_mismatch() -> None:
    plan = decide(world([trade()], [entry()], [position(qty=4)], complete=False))
    assert (of(plan).verdict, of(plan).action) == (Verdict.UNKNOWN, Action.HELD)
    assert {type(n) for n in plan.questions} == {OrdersOf, RecordsOf}


def test_a_part_is_reduced_only_once_every_exit_that_filled_is_final() -> None:
    orders = [entry(qty="100"), sale("S", qty=10, type="stop")]
    orders.append(sale("TP", qty=90, filled_qty="30", status="partially_filled", type="limit"))
    record = trade(quantity=100, stopOrderId=uid("S"), takeProfitOrderId=uid("TP"))
    assert verdict([record], orders, [position(qty=60)]) is Verdict.LIVE


def test_a_partly_filled_entry_that_the_app_has_reduced_already_is_live() -> None:
    orders = [entry(qty="100", filled_qty="40", status="canceled", canceled_at=ago(DAY)), sale("X", qty=10)]
    decision = decided([trade(quantity=30)], orders, [position(qty=30)])
    assert decision.verdict is Verdict.LIVE
    assert not {"quantity", "initialQuantity", "realizedPnL"} & decision.fields.keys()


def test_a_pending_trade_opens_with_its_first_fill_and_not_before() -> None:
    decision = decided([trade(status="PENDING")], [entry(status="new")])
    assert (decision.verdict, decision.action) == (Verdict.WORKING, Action.KEPT)


def test_an_open_trade_whose_entry_still_works_is_kept_as_it_is() -> None:
    decision = decided([trade()], [entry(status="partially_filled", filled_qty="4")])
    assert (decision.verdict, decision.action) == (Verdict.WORKING, Action.KEPT)


def test_an_order_that_would_close_the_other_side_is_no_foreign_entry() -> None:
    orders = [entry(status="canceled", canceled_at=ago(DAY)), order("F", status="new")]
    assert verdict([trade()], orders, [position(qty=-10)]) is Verdict.NEVER_FILLED


def test_a_foreign_entry_beside_a_trade_that_is_held_is_a_mismatch_too() -> None:
    orders = [entry(status="canceled", canceled_at=ago(DAY)), entry("B"), order("F", status="new")]
    plan = decide(world([trade(), trade("B")], orders, [position()]))
    assert (of(plan).verdict, of(plan, "B").verdict) == (Verdict.MISMATCH, Verdict.LIVE)


def test_an_order_time_in_the_future_counts_from_the_first_sight() -> None:
    ahead = entry(filled_at=ago(-3600))
    assert verdict([trade()], [ahead]) is Verdict.SETTLING
    known = Memory(first_seen={"T1": ago(GRACE)})
    assert verdict([trade()], [ahead], memory=known) is Verdict.FILLED_BUT_GONE


@pytest.mark.parametrize(("age", "expected"), [(GRACE - 1, Verdict.SETTLING), (GRACE, Verdict.FILLED_BUT_GONE)])
def test_the_times_of_its_exits_count(age: float, expected: Verdict) -> None:
    stop = sale("S", type="stop", at=DAY, status="canceled", filled_qty="0", canceled_at=ago(age))
    assert verdict([trade(stopOrderId=uid("S"))], [entry(), stop]) is expected


def test_an_entry_named_by_the_last_of_its_chain_counts_all_its_fills() -> None:
    orders = [
        entry(filled_qty="4", status="replaced", replaced_by=uid("E2")),
        order("E2", qty="6", replaces=uid("E-T1"), submitted_at=ago(7200)),
    ]
    decision = decided([trade(alpacaOrderId=uid("E2"))], orders, [position()])
    assert (decision.verdict, decision.fields["filledQty"]) == (Verdict.LIVE, 10)
    # What its first fill brought may be sold before the order was moved.
    early = [sale("S", qty=4, type="stop", at=9000), sale("X", qty=6)]
    record = trade(alpacaOrderId=uid("E2"), stopOrderId=uid("S"), closeOrderId=uid("X"))
    assert verdict([record], [*orders, *early]) is Verdict.EXITED


def test_an_exit_id_that_is_no_uuid_is_asked_for_as_a_client_order_id() -> None:
    plan = decide(world([trade(stopOrderId="bot-stop-1")], [entry()], [position()]))
    assert plan.questions == (OrderByClientId("bot-stop-1"),)


def test_an_exit_order_that_works_is_no_foreign_entry() -> None:
    orders = [entry(status="canceled", canceled_at=ago(DAY)), sale("F", status="new")]
    assert verdict([trade()], orders) is Verdict.NEVER_FILLED


@pytest.mark.parametrize(("age", "expected"), [(GRACE - 1, Verdict.SETTLING), (GRACE, Verdict.REDUCED)])
def test_reduced_by_an_own_exit_waits_for_the_grace_too(age: float, expected: Verdict) -> None:
    orders = [entry(qty="100"), sale("S", qty=40, at=age, type="stop")]
    assert verdict([trade(quantity=100, stopOrderId=uid("S"))], orders, [position(qty=60)]) is expected


def test_a_filled_quantity_that_the_position_does_not_confirm_is_brought_up_to_date() -> None:
    decision = decided([trade(filledQty=4, avgFillPrice=179)], [entry()], [position()])
    assert (decision.fields["filledQty"], decision.fields["avgFillPrice"]) == (10, 180)


def test_fills_that_the_position_confirms_stay_though_the_order_says_otherwise() -> None:
    record = trade(quantity=6, filledQty=6, avgFillPrice=181, stopOrderId=uid("S"))
    decision = decided([record], [entry(), sale("S", qty=4, type="stop")], [position(qty=6)])
    assert decision.verdict is Verdict.LIVE
    assert not {"filledQty", "avgFillPrice"} & decision.fields.keys()


def test_a_sale_from_before_the_entry_is_no_part_of_what_is_missing() -> None:
    orders = [entry(qty="100"), sale("Y", qty=5, at=2 * DAY), sale("X", qty=40)]
    decision = decided([trade(quantity=100)], orders, [position(qty=60)])
    assert (decision.verdict, decision.exit_orders) == (Verdict.REDUCED, (uid("X"),))
