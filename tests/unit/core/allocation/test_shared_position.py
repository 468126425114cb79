"""One position among several trades of a symbol, and shares that are nobody's."""

from __future__ import annotations

import pytest

from ghostclean.core.broker import RecordsOf
from ghostclean.core.inputs import Memory
from ghostclean.core.verdicts import Action, Plan, Verdict, decide
from tests.builders import DAY, Record, ago, entry, fill, of, order, position, sale, trade, uid, world


def two(**b: object) -> list[Record]:
    """Scenario 12: A holds 30, B holds 20, both AAPL."""
    return [trade("A", quantity=30, stopOrderId=uid("SA")), trade("B", **{"quantity": 20, **b})]


ENTRIES = [entry("A", qty="30"), entry("B", qty="20")]


def verdicts(plan: Plan) -> dict[str | None, Verdict]:
    return {d.trade_id: d.verdict for d in plan.decisions}


def test_the_trade_whose_stop_filled_is_closed_and_the_other_lives() -> None:
    plan = decide(world(two(), [*ENTRIES, sale("SA", qty=30, type="stop")], [position(qty=20)]))
    assert verdicts(plan) == {"A": Verdict.EXITED, "B": Verdict.LIVE}
    assert not plan.orphans


def test_without_a_fill_tied_to_either_both_are_ambiguous() -> None:
    dead = sale("SA", qty=30, status="canceled", filled_qty="0", canceled_at=ago(DAY))
    plan = decide(world(two(), [*ENTRIES, dead], [position(qty=20)]))
    assert verdicts(plan) == {"A": Verdict.AMBIGUOUS, "B": Verdict.AMBIGUOUS}
    assert all("A: 30, B: 20" in d.reason and "resolve" in d.reason for d in plan.decisions)


def test_a_free_sale_after_both_entries_can_be_of_either() -> None:
    records = [trade("A", quantity=30), trade("B", quantity=20)]
    plan = decide(world(records, [*ENTRIES, sale("X", qty=30)], [position(qty=20)]))
    assert set(verdicts(plan).values()) == {Verdict.AMBIGUOUS}


def test_a_free_sale_before_the_second_entry_can_only_be_of_the_first() -> None:
    records = [trade("A", quantity=30), trade("B", quantity=20, createdAt=ago(1800))]
    orders = [entry("A", qty="30"), entry("B", qty="20", submitted_at=ago(1800)), sale("X", qty=30)]
    plan = decide(world(records, orders, [position(qty=20)]))
    assert verdicts(plan) == {"A": Verdict.EXITED, "B": Verdict.LIVE}


@pytest.mark.parametrize(
    ("held", "expected"),
    [(49, Verdict.AMBIGUOUS), (50, Verdict.LIVE), (51, Verdict.LIVE)],
)
def test_one_share_less_is_nobodys_to_give(held: int, expected: Verdict) -> None:
    records = [trade("A", quantity=30), trade("B", quantity=20)]
    assert set(verdicts(decide(world(records, ENTRIES, [position(qty=held)]))).values()) == {expected}


def test_one_position_does_not_vouch_for_five_trades() -> None:
    records = [trade(f"T{n}", alpacaOrderId=...) for n in range(5)]
    plan = decide(world(records, [], [position()]))
    assert set(verdicts(plan).values()) == {Verdict.AMBIGUOUS}


def test_a_proven_trade_keeps_its_shares_and_a_nameless_one_gets_the_rest() -> None:
    records = [trade("A"), trade("B", alpacaOrderId=...)]
    assert verdicts(decide(world(records, [entry("A")], [position()]))) == {
        "A": Verdict.LIVE,
        "B": Verdict.VANISHED,
    }
    assert verdicts(decide(world(records, [entry("A")], [position(qty=20)]))) == {
        "A": Verdict.LIVE,
        "B": Verdict.LIVE,
    }


def test_a_sale_that_may_be_a_proven_trades_reduces_no_nameless_one() -> None:
    records = [trade("A"), trade("B", alpacaOrderId=..., quantity=20)]
    held = [position(qty=23)]
    plan = decide(world(records, [entry("A"), sale("X", qty=7)], held))
    assert verdicts(plan) == {"A": Verdict.LIVE, "B": Verdict.AMBIGUOUS}
    before_a = [entry("A", submitted_at=ago(1800)), sale("X", qty=7)]
    plan = decide(world([trade("A", createdAt=ago(1800)), records[1]], before_a, held))
    assert verdicts(plan) == {"A": Verdict.LIVE, "B": Verdict.REDUCED}


def test_shares_bought_by_hand_are_an_orphan_remainder_and_nobodys() -> None:
    plan = decide(world([trade()], [entry(), order("H", qty="5")], [position(qty=15)]))
    assert verdicts(plan) == {"T1": Verdict.LIVE}
    [orphan] = plan.orphans
    assert orphan.qty == 5
    assert orphan.remainder
    assert plan.holdings["T1"].open_qty == 10


def test_shares_bought_by_hand_keep_no_ghost_alive() -> None:
    orders = [entry(), sale("S", type="stop"), order("H", qty="10", submitted_at=ago(60))]
    plan = decide(world([trade(stopOrderId=uid("S"))], orders, [position()]))
    assert verdicts(plan) == {"T1": Verdict.EXITED}
    assert plan.orphans[0].qty == 10


def test_two_trades_that_name_one_exit_order_do_not_both_use_it() -> None:
    records = [trade("A", closeOrderId=uid("X")), trade("B", closeOrderId=uid("X"))]
    entries = [entry("A"), entry("B")]
    for held in ([position()], []):
        plan = decide(world(records, [*entries, sale("X")], held))
        assert set(verdicts(plan).values()) == {Verdict.AMBIGUOUS}
    both = decide(world(records, [*entries, sale("X", qty=20)]))
    assert set(verdicts(both).values()) == {Verdict.EXITED}


def test_an_exit_that_hangs_on_one_entry_is_not_the_other_trades_though_it_names_it() -> None:
    leg = sale("L", type="stop", order_class="bracket")
    orders = [entry("A"), entry("B", order_class="bracket", legs=[leg], submitted_at=ago(7200))]
    records = [trade("A", stopOrderId=uid("L")), trade("B", createdAt=ago(7200))]
    plan = decide(world(records, orders, [position()]))
    assert verdicts(plan) == {"A": Verdict.LIVE, "B": Verdict.EXITED}


def test_the_newer_of_two_trades_on_one_entry_order_is_a_duplicate() -> None:
    records = [trade(), trade("B", alpacaOrderId=uid("E-T1"), createdAt=ago(3600))]
    plan = decide(world(records, [entry()], [position()]))
    assert verdicts(plan) == {"T1": Verdict.LIVE, "B": Verdict.DUPLICATE}
    assert of(plan, "B").action is Action.CLOSED
    assert of(plan, "B").fields["closeReason"] == "duplicate_of:T1"
    assert of(plan, "B").fields["realizedPnL"] == 0


@pytest.mark.parametrize(("filled", "expected"), [("19", Verdict.DUPLICATE), ("20", Verdict.LIVE)])
def test_one_entry_order_may_cover_two_trades(filled: str, expected: Verdict) -> None:
    records = [trade(), trade("B", alpacaOrderId=uid("E-T1"), createdAt=ago(3600))]
    plan = decide(world(records, [entry(qty=filled)], [position(qty=filled)]))
    assert of(plan, "B").verdict is expected


def test_a_duplicate_of_a_closed_record_is_none() -> None:
    records = [trade("A", status="CLOSED", closeOrderId=uid("X")), trade("B", alpacaOrderId=uid("E-A"))]
    plan = decide(world(records, [entry("A"), sale("X")]))
    assert verdicts(plan) == {"B": Verdict.FILLED_BUT_GONE}


def test_the_open_one_of_two_is_kept_whatever_the_pending_ones_age() -> None:
    records = [trade("A", status="PENDING"), trade("B", alpacaOrderId=uid("E-A"), createdAt=ago(3600))]
    assert verdicts(decide(world(records, [entry("A")], [position()]))) == {
        "A": Verdict.DUPLICATE,
        "B": Verdict.LIVE,
    }


def test_the_exit_that_only_the_duplicate_names_closes_the_older_trade() -> None:
    twin = trade("B", alpacaOrderId=uid("E-T1"), createdAt=ago(7200), stopOrderId=uid("S"))
    plan = decide(world([trade(), twin], [entry(), sale("S", type="stop")]))
    assert verdicts(plan) == {"T1": Verdict.EXITED, "B": Verdict.DUPLICATE}


def test_nobody_is_a_duplicate_while_its_orders_are_not_known() -> None:
    moved = entry(status="replaced", filled_qty="0", replaced_by=uid("E2"))
    records = [trade(), trade("B", alpacaOrderId=uid("E-T1"), createdAt=ago(3600))]
    plan = decide(world(records, [moved], [position()]))
    assert set(verdicts(plan).values()) == {Verdict.UNKNOWN}


def test_a_rival_whose_orders_are_unknown_keeps_a_free_fill_from_being_used() -> None:
    plan = decide(world([trade(), trade("B")], [entry(), sale("X")]))
    assert of(plan).action is Action.HELD


def test_fills_of_other_symbols_never_mix_in() -> None:
    rows = [fill("f", "M", symbol="MSFT")]
    plan = decide(world([trade()], [entry(), sale("M", symbol="MSFT", asset_id="asset-MSFT")], fills=rows))
    assert verdicts(plan) == {"T1": Verdict.FILLED_BUT_GONE}


def test_two_trades_that_name_what_a_closed_one_left_of_an_exit_do_not_both_use_it() -> None:
    closed = trade("C", status="CLOSED", closeOrderId=uid("X"))
    records = [trade("A", closeOrderId=uid("X")), trade("B", closeOrderId=uid("X")), closed]
    plan = decide(world(records, [entry("A"), entry("B"), entry("C"), sale("X", qty=20)], [position()]))
    assert set(verdicts(plan).values()) == {Verdict.AMBIGUOUS}


def test_a_closed_record_owns_of_its_exits_no_more_than_it_held() -> None:
    # C went out by 6 of its stop and 4 of the target; the other 6 of the target are T1's.
    closed = trade("C", status="CLOSED", stopOrderId=uid("S"), takeProfitOrderId=uid("P"))
    orders = [entry(qty="6"), entry("C"), sale("S", qty=6, at=7200, type="stop"), sale("P", type="limit")]
    plan = decide(world([trade(quantity=6, takeProfitOrderId=uid("P")), closed], orders))
    assert verdicts(plan) == {"T1": Verdict.EXITED}


def test_a_purchase_that_covered_more_than_a_closed_short_closes_no_long() -> None:
    short = trade("C", side="SHORT", status="CLOSED", quantity=5, closeOrderId=uid("X"))
    orders = [entry(), entry("C", side="sell", qty="5"), order("X", qty="15", submitted_at=ago(3600))]
    assert verdicts(decide(world([trade(), short], orders))) == {"T1": Verdict.FILLED_BUT_GONE}


def test_the_rest_of_an_order_that_sold_for_another_too_is_not_exactly_one_trades() -> None:
    # 8 of S were C's; the other 10 may be T1's or a part of the 30 of B.
    closed = trade("C", status="CLOSED", quantity=8, closeOrderId=uid("S"))
    orders = [entry(), entry("B", qty="30"), entry("C", qty="8"), sale("S", qty="18")]
    plan = decide(world([trade(), trade("B", quantity=30), closed], orders))
    assert set(verdicts(plan).values()) == {Verdict.FILLED_BUT_GONE}


def test_an_order_of_exactly_a_trades_quantity_from_before_its_entry_is_not_its() -> None:
    old = trade("B", quantity=30, createdAt=ago(3 * DAY))
    sales = [sale("X", at=2.5 * DAY), sale("S", qty="30", at=2 * DAY)]
    plan = decide(world([trade(), old], [entry("B", qty="30", submitted_at=ago(3 * DAY)), *sales, entry()]))
    assert verdicts(plan) == {"T1": Verdict.FILLED_BUT_GONE, "B": Verdict.EXITED}


def test_an_order_of_exactly_one_trades_quantity_serves_no_other() -> None:
    # A round trip of 8 by hand is over before T1 and N began; S is T1's, and nothing is left for N.
    z = trade("Z", quantity=7, createdAt=ago(4 * DAY))
    n = trade("N", quantity=7, alpacaOrderId=..., createdAt=ago(2 * DAY))
    orders = [order("H", qty="8", submitted_at=ago(5 * DAY)), entry("Z", qty="7", submitted_at=ago(4 * DAY))]
    orders += [sale("R8", qty="8", at=3.8 * DAY), sale("R7", qty="7", at=3.6 * DAY)]
    orders += [entry(submitted_at=ago(3 * DAY)), sale("S")]
    plan = decide(world([z, trade(createdAt=ago(3 * DAY)), n], orders))
    assert verdicts(plan) == {"Z": Verdict.EXITED, "T1": Verdict.EXITED, "N": Verdict.VANISHED}


def test_a_sale_that_another_trade_used_up_is_no_exit_of_an_older_one() -> None:
    records = [trade(createdAt=ago(3 * DAY)), trade("N", alpacaOrderId=..., createdAt=ago(5 * DAY))]
    orders = [sale("X", qty=4, at=4 * DAY), entry(submitted_at=ago(3 * DAY))]
    orders += [sale("S", at=2 * DAY), sale("Y", qty=6)]
    plan = decide(world(records, orders))
    assert [of(plan, i).exit_orders for i in ("T1", "N")] == [(uid("S"),), (uid("X"), uid("Y"))]


def test_a_sale_of_more_than_the_only_trade_it_can_be_of_had_is_nobodys() -> None:
    records = [trade("A", quantity=30), trade("B", quantity=20, createdAt=ago(1800))]
    orders = [entry("A", qty="30"), entry("B", qty="20", submitted_at=ago(1800)), sale("X", qty=40)]
    plan = decide(world(records, orders, [position()]))
    assert set(verdicts(plan).values()) == {Verdict.AMBIGUOUS}


def test_sizes_that_the_app_has_reduced_already_are_trusted_where_they_make_the_position() -> None:
    records = [trade("A", quantity=18), trade("B", quantity=20)]
    for held, expected in ((38, Verdict.LIVE), (37, Verdict.UNKNOWN)):
        orders = [entry("A", qty="30"), entry("B", qty="20")]
        plan = decide(world(records, orders, [position(qty=held)], complete=False))
        assert set(verdicts(plan).values()) == {expected}
        asked = [q for q in plan.questions if not isinstance(q, RecordsOf)]
        assert (not asked) is (expected is Verdict.LIVE), "what agrees costs no request"


def test_a_stale_reduced_size_explains_no_further_loss() -> None:
    orders = [entry(qty="100"), sale("X", qty=50)]
    plan = decide(world([trade(quantity=60)], orders, [position(qty=50)]))
    assert of(plan).verdict is Verdict.REDUCED
    assert of(plan).fields["quantity"] == 50


def test_a_trade_without_a_size_is_not_taken_for_one_of_nothing() -> None:
    records = [trade("A", quantity=...), trade("B", quantity=20)]
    plan = decide(world(records, [entry("A"), entry("B", qty="20")], [position(qty=20)]))
    assert set(verdicts(plan).values()) == {Verdict.AMBIGUOUS}


def test_a_leg_of_a_closed_records_entry_closes_no_trade_that_names_it() -> None:
    leg = sale("L", type="stop", order_class="bracket")
    orders = [entry(), entry("C", order_class="bracket", legs=[leg])]
    plan = decide(world([trade(stopOrderId=uid("L")), trade("C", status="CLOSED")], orders))
    assert verdicts(plan) == {"T1": Verdict.FILLED_BUT_GONE}


def test_a_reduced_trade_claims_all_it_entered_with() -> None:
    records = [trade(quantity=4, initialQuantity=10), trade("B", quantity=6, alpacaOrderId=uid("E-T1"))]
    records[1]["createdAt"] = ago(3600)
    orders, left = [entry(), sale("X", qty=6)], [position(qty=4)]
    plan = decide(world(records, orders, left, memory=Memory(exits={"T1": [uid("X")]})))
    assert of(plan, "B").verdict is Verdict.DUPLICATE
    # Whose the sale was is not known: the two may as well be the 4 and the 6 of one entry.
    assert not decide(world(records, orders, left)).writing


def test_what_a_canceled_entry_asked_for_covers_nobody() -> None:
    part = entry(qty="20", filled_qty="10", status="canceled", canceled_at=ago(DAY))
    records = [trade(), trade("B", alpacaOrderId=uid("E-T1"), createdAt=ago(3600))]
    assert verdicts(decide(world(records, [part], [position()]))) == {"T1": Verdict.LIVE, "B": Verdict.DUPLICATE}


def test_two_orders_of_exactly_one_trades_quantity_say_nothing_of_it() -> None:
    orders = [entry(), entry("B", qty="30"), sale("S", at=7200), sale("R")]
    plan = decide(world([trade(), trade("B", quantity=30)], orders))
    assert set(verdicts(plan).values()) == {Verdict.FILLED_BUT_GONE}


def test_a_sale_of_one_coin_trade_less_its_fee_is_exactly_its() -> None:
    coin = {"symbol": "BTC/USD", "asset_class": "crypto"}
    records = [trade(ticker="BTC/USD", quantity=1), trade("B", ticker="BTC/USD", quantity=4)]
    entries = [entry(qty="1", **coin), entry("B", qty="4", **coin)]
    plan = decide(world(records, [*entries, sale("S", qty="0.9975", **coin)]))
    assert verdicts(plan) == {"T1": Verdict.EXITED, "B": Verdict.FILLED_BUT_GONE}
    plan = decide(world(records, [*entries, sale("S", qty="0.99", **coin)]))
    assert set(verdicts(plan).values()) == {Verdict.FILLED_BUT_GONE}


def test_sales_while_the_entry_was_still_filling_count_too() -> None:
    orders = [entry(filled_at=ago(1800)), sale("X", qty=4, at=7200), sale("Y", qty=6)]
    plan = decide(world([trade()], orders))
    assert of(plan).verdict is Verdict.EXITED
    assert of(plan).exit_orders == (uid("X"), uid("Y"))


def test_shares_bought_and_sold_by_hand_meanwhile_are_no_part_of_the_loss() -> None:
    by_hand = [order("H", qty="20", submitted_at=ago(7200)), sale("Y", qty=20, at=1800)]
    plan = decide(world([trade(quantity=100)], [entry(qty="100"), sale("X", qty=40), *by_hand], [position(qty=60)]))
    assert (of(plan).verdict, of(plan).fields["quantity"]) == (Verdict.REDUCED, 60)
    assert of(plan).exit_orders == (uid("X"),)


def test_the_fills_of_a_shared_entry_that_still_works_are_given_once() -> None:
    records = [trade(), trade("B", alpacaOrderId=uid("E-T1"), createdAt=ago(3600))]
    plan = decide(world(records, [entry(qty="20", filled_qty="12", status="partially_filled")], [position(qty=12)]))
    assert [plan.holdings[i].open_qty for i in ("T1", "B")] == [10, 2]


@pytest.mark.parametrize(("held", "expected"), [(6, Verdict.LIVE), (5, Verdict.MISMATCH)])
def test_a_nameless_trade_that_the_app_has_reduced_already_is_live(held: int, expected: Verdict) -> None:
    record = trade(alpacaOrderId=..., quantity=6, initialQuantity=10)
    assert of(decide(world([record], [], [position(qty=held)]))).verdict is expected


def test_a_size_that_the_position_covers_is_never_reduced() -> None:
    """10 of A's 30 went out by its stop, 10 were bought since: by a hand, or for A?"""
    orders = [*ENTRIES, sale("SA", qty=10, type="stop"), order("H", qty="10", submitted_at=ago(7200))]
    plan = decide(world(two(), orders, [position(qty=50)]))
    assert set(verdicts(plan).values()) == {Verdict.LIVE}
    assert "quantity" not in of(plan, "A").fields
    plan = decide(world(two(), orders[:-1], [position(qty=40)]))
    assert verdicts(plan) == {"A": Verdict.REDUCED, "B": Verdict.LIVE}


@pytest.mark.parametrize(("at", "expected"), [(DAY + 300, Verdict.EXITED), (DAY + 900, Verdict.LIVE)])
def test_an_exit_from_before_a_nameless_trade_was_noted_is_its_only_as_far_as_clocks_differ(
    at: float, expected: Verdict
) -> None:
    record = trade(alpacaOrderId=..., stopOrderId=uid("S"))
    assert of(decide(world([record], [sale("S", at=at, type="stop")], [position()]))).verdict is expected


def test_fee_dust_does_not_hide_what_took_a_part_of_a_coin_out() -> None:
    coin = {"symbol": "BTC/USD", "asset_class": "crypto"}
    orders = [entry(qty="1", **coin), sale("X", qty="0.5", price=190, **coin)]
    held = position("BTCUSD", "0.4975", asset_class="crypto", market_value="30000")
    decision = of(decide(world([trade(ticker="BTC/USD", quantity=1)], orders, [held])))
    assert (decision.verdict, float(decision.fields["quantity"])) == (Verdict.REDUCED, 0.5)
    more = position("BTCUSD", "0.49", asset_class="crypto", market_value="30000")
    assert of(decide(world([trade(ticker="BTC/USD", quantity=1)], orders, [more]))).verdict is Verdict.MISMATCH
