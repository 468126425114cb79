"""Exit price, P&L and R: from real fills, balanced, by the initial stop, or not at all."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ghostclean.core.allocation import Execution
from ghostclean.core.broker import ActivitiesSince, OrdersOf, Side
from ghostclean.core.verdicts import Decision, Verdict, decide, settle
from tests.builders import DAY, activity, ago, entry, fill, of, order, position, sale, trade, uid, world


def decided(*args: Any, **options: Any) -> Decision:
    return of(decide(world(*args, **options)))


def money(decision: Decision) -> tuple[Any, ...]:
    return tuple(decision.fields[n] for n in ("closePrice", "realizedPnL", "realizedR"))


def test_a_long_wins_when_sold_higher() -> None:
    decision = decided([trade(initialStopPrice=175)], [entry(), sale("X", price=190)])
    assert money(decision) == (190, 100, 2)


def test_a_short_wins_when_bought_back_lower() -> None:
    record = trade(side="SHORT", initialStopPrice=185)
    decision = decided([record], [entry(side="sell"), sale("X", side="buy", price=170)])
    assert money(decision) == (170, 100, 2)


def test_an_option_counts_a_hundred_times_and_its_r_does_not() -> None:
    call = "AAPL261218C00200000"
    record = trade(ticker=call, quantity=2, initialStopPrice="2.5")
    orders = [
        entry(symbol=call, qty="2", filled_avg_price="3.5"),
        sale("X", qty=2, price="5.5", symbol=call),
    ]
    assert money(decided([record], orders)) == (Decimal("5.5"), 400, 2)


def test_crypto_fee_dust_is_cost() -> None:
    coin: dict[str, Any] = {"symbol": "BTC/USD", "asset_class": "crypto"}
    orders = [entry(qty="1", filled_avg_price="100", **coin), sale("X", qty="0.9975", price=100, **coin)]
    decision = decided([trade(ticker="BTC/USD", quantity=1)], orders)
    assert money(decision)[:2] == (100, Decimal("-0.25"))


def test_r_is_measured_by_the_initial_stop_and_not_by_the_moved_one() -> None:
    moved = trade(stopPrice=180, initialStopPrice=175)
    assert decided([moved], [entry(), sale("X", price=190)]).fields["realizedR"] == 2


def test_without_a_stored_initial_stop_the_first_stop_order_counts() -> None:
    orders = [
        entry(),
        sale("S1", type="stop", stop_price="170", status="replaced", filled_qty="0", replaced_by=uid("S2"), at=DAY),
        sale("S2", type="stop", stop_price="180", price=190, replaces=uid("S1"), at=7200),
    ]
    assert decided([trade(stopOrderId=uid("S2"), stopPrice=180)], orders).fields["realizedR"] == 1


def test_a_moved_stop_whose_first_order_is_not_known_measures_nothing() -> None:
    stop = sale("S2", type="stop", stop_price="175", replaces=uid("S1"))
    decision = decided([trade(stopOrderId=uid("S2"), stopPrice=175)], [entry(), stop], absent=[uid("S1")])
    assert decision.fields["realizedR"] is None


@pytest.mark.parametrize(("managed", "r"), [(None, 2), ({"lastRule": "breakeven"}, None)])
def test_the_present_stop_counts_only_if_no_engine_managed_the_trade(managed: Any, r: Any) -> None:
    record = trade(stopPrice=175, autoManage=managed)
    assert decided([record], [entry(), sale("X", price=190)]).fields["realizedR"] == r


@pytest.mark.parametrize("stop", [None, 180, 185])
def test_r_is_null_without_a_risk(stop: Any) -> None:
    decision = decided([trade(initialStopPrice=stop, autoManage={"x": 1})], [entry(), sale("X", price=190)])
    assert money(decision) == (190, 100, None)


def test_a_missing_price_is_null_and_never_the_entry_price() -> None:
    orders = [entry(), sale("X") | {"filled_avg_price": None}]
    assert money(decided([trade()], orders)) == (None, None, None)
    bought = [entry() | {"filled_avg_price": None}, sale("X", price=190)]
    assert money(decided([trade(avgFillPrice=180, filledQty=10)], bought)) == (190, None, None)


def test_an_exit_in_two_orders_is_weighted_by_quantity() -> None:
    orders = [entry(), sale("X", qty=4, price=190, at=7200), sale("Y", qty=6, price=200)]
    decision = decided([trade()], orders)
    assert money(decision)[:2] == (196, 160)
    assert (decision.fields["closeOrderId"], decision.fields["closedAt"]) == (uid("Y"), ago(3600))


def test_the_final_close_states_the_whole_trade_and_does_not_add_up() -> None:
    # 4 were sold at 190 and booked (P&L 40) before 6 go at 170.
    booked = trade(quantity=6, initialQuantity=10, realizedPnL=40, stopOrderId=uid("S"), takeProfitOrderId=uid("P"))
    orders = [
        entry(),
        sale("P", qty=4, price=190, at=7200, type="limit"),
        sale("S", qty=6, price=170, type="stop"),
    ]
    decision = decided([booked], orders)
    assert money(decision)[:2] == (178, -20)
    assert decision.fields["closeReason"] == "stop_loss"


def test_a_scale_in_that_the_ledger_knows_is_part_of_the_whole() -> None:
    orders = [
        entry(),
        order("H", qty="5", filled_avg_price="192", submitted_at=ago(7200)),
        sale("X", qty=15, price=190),
    ]
    decision = decided([trade(quantity=15)], orders)
    assert money(decision)[:2] == (190, 90)


def test_an_own_exit_that_sold_a_scale_in_too_counts_both() -> None:
    orders = [
        entry(),
        order("H", qty="5", filled_avg_price="192", submitted_at=ago(7200)),
        sale("X", qty=15, price=190, type="stop"),
    ]
    assert money(decided([trade(stopOrderId=uid("X"))], orders))[:2] == (190, 90)


def test_a_split_is_a_cash_flow_with_the_activity_and_null_without() -> None:
    orders = [entry(), sale("X", qty=20, price=95, type="stop")]
    record = trade(stopOrderId=uid("X"))
    assert money(decided([record], orders))[:2] == (95, None)
    proven = decided([record], orders, activities=[activity("SPLIT", "AAPL")])
    assert money(proven)[:2] == (95, 100)
    of_another = decided([record], orders, activities=[activity("SPLIT", "MSFT")])
    assert money(of_another)[:2] == (95, None)
    before = decided([record], orders, activities=[activity("SPLIT", "AAPL", at=3 * DAY)])
    assert money(before)[:2] == (95, None)


def test_a_nameless_trade_takes_the_price_the_app_noted_or_the_one_fill_it_can_be() -> None:
    nameless: dict[str, Any] = {"alpacaOrderId": ..., "closeOrderId": uid("X")}
    sold = sale("X", price=190)
    assert money(decided([trade(**nameless)], [sold]))[:2] == (190, None)
    noted = trade(**nameless, avgFillPrice=180, filledQty=10)
    assert money(decided([noted], [sold]))[:2] == (190, 100)
    bought = order("B", submitted_at=ago(DAY - 60))
    assert money(decided([trade(**nameless)], [sold, bought]))[:2] == (190, 100)
    twice = order("B2", submitted_at=ago(DAY - 90))
    assert money(decided([trade(**nameless)], [sold, bought, twice]))[:2] == (190, None)


def test_of_a_shared_entry_every_trade_pays_its_part() -> None:
    records = [trade(stopOrderId=uid("S1")), trade("B", alpacaOrderId=uid("E-T1"), quantity=30, stopOrderId=uid("S2"))]
    orders = [entry(qty="40"), sale("S1", price=190, type="stop"), sale("S2", qty=30, price=200, type="stop")]
    plan = decide(world(records, orders))
    assert [of(plan, i).fields["realizedPnL"] for i in ("T1", "B")] == [100, 600]


def test_money_has_two_decimals_and_r_four() -> None:
    record = trade(quantity=3, initialStopPrice=173)
    decision = decided([record], [entry(qty="3"), sale("X", qty=3, price="180.3333")])
    assert (decision.fields["realizedPnL"], decision.fields["realizedR"]) == (Decimal("1.00"), Decimal("0.0476"))


def test_the_proof_names_the_fills() -> None:
    rows = [fill("f1", "X", qty=4, price=100), fill("f2", "X", qty=6, price=110)]
    decision = decided([trade()], [entry(), sale("X", price=106)], fills=rows)
    fills = [p.to_dict() for p in decision.proof if p.what == "fill"]
    assert [(f["qty"], f["price"]) for f in fills] == [("4", "100"), ("6", "110")]
    assert decision.exit_orders == (uid("X"),)


def test_a_part_is_booked_at_the_average_entry() -> None:
    record = trade(initialStopPrice=175, stopOrderId=uid("S"))
    decision = decided([record], [entry(), sale("S", qty=4, price=190, type="stop")], [position(qty=6)])
    assert decision.verdict is Verdict.REDUCED
    assert (decision.fields["realizedPnL"], decision.fields["realizedR"]) == (40, 2)


def test_a_shared_entry_at_two_prices_says_no_trades_cost() -> None:
    records = [trade(stopOrderId=uid("S1")), trade("B", alpacaOrderId=uid("E-T1"), quantity=30, stopOrderId=uid("S2"))]
    orders = [
        entry(filled_qty="20", filled_avg_price="100", status="replaced", qty="40", replaced_by=uid("E2")),
        order("E2", qty="20", filled_avg_price="200", replaces=uid("E-T1")),
        sale("S1", price=190, type="stop"),
        sale("S2", qty=30, price=200, type="stop"),
    ]
    plan = decide(world(records, orders))
    assert [of(plan, i).verdict for i in ("T1", "B")] == [Verdict.EXITED] * 2
    assert [of(plan, i).fields["realizedPnL"] for i in ("T1", "B")] == [None, None]


def test_a_close_that_balances_asks_for_no_activities() -> None:
    w = world([trade()], [entry(), sale("X", price=190)])
    w.evidence.activities_since = None
    plan = decide(w)
    assert of(plan).fields["realizedPnL"] == 100
    assert not plan.questions


def test_a_split_on_the_day_of_the_entry_counts() -> None:
    orders = [entry(), sale("X", qty=20, price=95, type="stop")]
    proven = decided([trade(stopOrderId=uid("X"))], orders, activities=[activity("SPLIT", "AAPL", at=DAY)])
    assert money(proven)[:2] == (95, 100)


def test_a_nameless_trade_without_a_noted_price_searches_for_the_fill_it_can_be() -> None:
    record = trade(alpacaOrderId=..., filledQty=10, closeOrderId=uid("X"))
    w = world([record], [sale("X", price=190)])
    w.evidence.history.clear()
    plan = decide(w)
    assert of(plan).verdict is Verdict.UNKNOWN
    assert [type(n) for n in plan.questions] == [OrdersOf]


def test_an_exit_without_a_price_has_no_r_either() -> None:
    orders = [entry(), sale("X") | {"filled_avg_price": None}]
    assert money(decided([trade(initialStopPrice=175)], orders)) == (None, None, None)


def test_an_entry_that_was_moved_before_it_filled_costs_what_its_successor_paid() -> None:
    orders = [
        entry(status="replaced", filled_qty="0", replaced_by=uid("E2")),
        order("E2", filled_avg_price="180", replaces=uid("E-T1")),
        sale("X", price=190),
    ]
    assert money(decided([trade()], orders))[:2] == (190, 100)


def test_a_purchase_from_before_the_entry_is_no_scale_in() -> None:
    orders = [
        order("H0", qty="7", submitted_at=ago(3 * DAY)),
        sale("Y0", qty=7, at=2 * DAY),
        entry(),
        order("H", qty="5", filled_avg_price="192", submitted_at=ago(7200)),
        sale("X", qty=15, price=190, type="stop"),
    ]
    assert money(decided([trade(stopOrderId=uid("X"))], orders))[:2] == (190, 90)


def test_a_noted_price_of_another_quantity_is_not_the_cost() -> None:
    noted = trade(alpacaOrderId=..., closeOrderId=uid("X"), avgFillPrice=180, filledQty=4)
    assert money(decided([noted], [sale("X", price=190)]))[:2] == (190, None)


def test_what_does_not_balance_has_no_profit() -> None:
    bought, sold = (
        Execution("e", "buy", Decimal(10), Decimal(180), None),
        Execution("x", "sell", Decimal(9), Decimal(190), None),
    )
    unit, nothing = Decimal(1), Decimal(0)
    exit_ = settle(Side.LONG, [bought], [sold], units=unit, tolerance=nothing, initial_stop=Decimal(175))
    assert (exit_.price, exit_.pnl, exit_.r) == (190, None, None)
    dust = settle(Side.LONG, [bought], [sold], units=unit, tolerance=unit, initial_stop=None)
    assert dust.pnl == -90


def test_a_leg_that_sold_what_a_split_made_of_its_entry_is_a_cash_flow_too() -> None:
    leg = sale("L", qty=20, price=95, type="stop", order_class="bracket")
    orders = [entry(order_class="bracket", legs=[leg])]
    assert money(decided([trade()], orders, activities=[activity("SPLIT", "AAPL")]))[:2] == (95, 100)


def test_a_fill_long_before_a_nameless_trade_is_not_its_entry() -> None:
    earlier = order("B", submitted_at=ago(2 * DAY))
    record = trade(alpacaOrderId=..., closeOrderId=uid("X"))
    assert money(decided([record], [sale("X", price=190), earlier]))[:2] == (190, None)


def test_an_activity_that_is_no_split_proves_no_cash_flow() -> None:
    orders = [entry(), sale("X", qty=20, price=95, type="stop")]
    decision = decided([trade(stopOrderId=uid("X"))], orders, activities=[activity("DIV", "AAPL")])
    assert money(decision)[:2] == (95, None)


# --------------------------------------------------------------------------- a split before a sale by hand

SPLIT = activity("SPLIT", "AAPL", at=7200.0)


@pytest.mark.parametrize("sold", [[(40, 50)], [(10, 50), (30, 50)]])
@pytest.mark.parametrize("named", [True, False])
def test_all_that_a_split_made_of_it_is_its_when_it_is_sold_by_hand(sold: list[Any], named: bool) -> None:
    record = trade(initialStopPrice=175) if named else trade(initialStopPrice=175, alpacaOrderId=...)
    orders = [entry(), *(sale(f"X{i}", qty=qty, price=price) for i, (qty, price) in enumerate(sold))]
    assert money(decided([record], orders, activities=[SPLIT])) == (50, 200, 4)


@pytest.mark.parametrize("activities", [[], [SPLIT]])
def test_what_a_split_made_of_it_is_not_known(activities: list[Any]) -> None:
    """Without the activity, or where the multiple is not clean, or the sale is of two trades."""
    qty = 45 if activities else 40
    assert money(decided([trade()], [entry(), sale("X", qty=qty, price=50)], activities=activities)) == (None,) * 3
    plan = decide(
        world([trade(), trade("B")], [entry(), entry("B"), sale("X", qty=80, price=50)], activities=activities)
    )
    assert [money(d) for d in plan.decisions] == [(None,) * 3] * 2


def test_shares_of_before_that_are_sold_with_it_are_no_split() -> None:
    later = activity("SPLIT", "AAPL", at=-DAY)
    assert money(decided([trade()], [entry(), sale("X", qty=15, price=190)]))[:2] == (190, 100)
    assert money(decided([trade()], [entry(), sale("X", qty=15, price=190)], activities=[later]))[:2] == (190, 100)


def test_a_split_is_asked_for_before_a_sale_of_more_than_the_trade_is_believed() -> None:
    w = world([trade()], [entry(), sale("X", qty=40, price=50)])
    w.evidence.activities_since = None
    plan = decide(w)
    assert [n for n in plan.questions if isinstance(n, ActivitiesSince)]
    assert of(plan).verdict is Verdict.UNKNOWN
    w.evidence.unanswered["activities"] = "500"
    assert of(decide(w)).verdict is Verdict.UNKNOWN
