"""Scale-ins, reductions and shared entries: every share has one entry and at most one exit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from ghostclean.core.inputs import Memory
from ghostclean.core.verdicts import Action, Decision, Plan, Verdict, decide
from tests.builders import (
    DAY,
    NOW,
    Record,
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
    world,
)


def bought(name: str, qty: int, price: float, at: float = 3600.0, **fields: Any) -> Record:
    """A filled purchase that no record names."""
    return order(name, qty=str(qty), filled_avg_price=str(price), submitted_at=ago(at), **fields)


def decided(
    records: Sequence[Mapping[str, Any]],
    orders: Iterable[Record],
    positions: Iterable[Record] = (),
    memory: Memory | None = None,
) -> Decision:
    return of(decide(world(records, orders, positions, memory=memory)))


def money(decision: Decision) -> tuple[float | None, float | None]:
    """Close price and P&L as they would be written."""
    found = [decision.fields.get(name) for name in ("closePrice", "realizedPnL")]
    return tuple(None if value is None else float(value) for value in found)  # type: ignore[return-value]


def verdicts(plan: Plan) -> dict[str | None, Verdict]:
    return {d.trade_id: d.verdict for d in plan.decisions}


# --------------------------------------------------------------------------- scale-ins


def test_a_purchase_after_a_part_was_sold_is_no_second_reduction() -> None:
    orders = [entry(qty="50", filled_avg_price="100"), sale("S", qty=18, at=7200)]
    first = decide(world([trade(quantity=50)], orders, [position(qty=32)]))
    assert of(first).action is Action.REDUCED
    [record], memory = after([trade(quantity=50)], first), remembered(first, Memory())
    record["quantity"] = 42
    then = decided([record], [*orders, bought("B", 10, 105)], [position(qty=42)], memory)
    assert (then.verdict, then.action) == (Verdict.LIVE, Action.KEPT)
    quiet = decide(world([record], orders, [position(qty=42)], memory=memory, complete=False))
    assert (of(quiet).verdict, of(quiet).action, quiet.questions) == (Verdict.LIVE, Action.KEPT, ())


def test_a_scale_in_the_ledger_shows_is_part_of_what_the_trade_cost() -> None:
    orders = [entry(qty="30", filled_avg_price="100"), bought("B", 50, 95, 7200), sale("S", qty=33, price=94.5)]
    record = trade(quantity=80, initialQuantity=80)
    part = decide(world([record], orders, [position(qty=47)]))
    assert (of(part).verdict, of(part).fields["quantity"]) == (Verdict.REDUCED, 47)
    # First in, first out: 30 at 100 and 3 at 95.
    assert float(of(part).fields["realizedPnL"]) == -166.5
    [reduced], memory = after([record], part), remembered(part, Memory())
    end = decided([reduced], [*orders, sale("L", qty=47, price=99.5, at=1800)], memory=memory)
    assert (end.verdict, end.fields["closeOrderId"]) == (Verdict.EXITED, uid("L"))
    assert float(end.fields["realizedPnL"]) == 45


def test_a_scale_in_is_seen_whole_by_a_run_that_has_forgotten_the_parts() -> None:
    orders = [entry(qty="30", filled_avg_price="100"), bought("B", 50, 95, 7200)]
    sales = [sale("S", qty=33, price=94.5), sale("L", qty=47, price=99.5, at=1800)]
    end = decided([trade(quantity=47, initialQuantity=80)], [*orders, *sales])
    assert (end.verdict, float(end.fields["realizedPnL"])) == (Verdict.EXITED, 45)


def test_a_part_sold_of_a_scale_in_that_was_live_before_is_a_reduction() -> None:
    orders = [entry(qty="100", filled_avg_price="100"), bought("B", 20, 110, 7200), sale("S", qty=15, price=120)]
    decision = decided([trade(quantity=120)], orders, [position(qty=105)])
    assert (decision.verdict, decision.fields["quantity"]) == (Verdict.REDUCED, 105)
    assert float(decision.fields["realizedPnL"]) == 300


def test_a_missing_part_of_a_scale_in_without_executions_is_held() -> None:
    orders = [entry(qty="100"), bought("B", 20, 110, 7200)]
    assert decided([trade(quantity=120)], orders, [position(qty=105)]).action is Action.HELD


def test_a_size_above_the_order_with_exactly_the_orders_shares_was_only_a_wish() -> None:
    assert decided([trade(quantity=12)], [entry()], [position(qty=10)]).verdict is Verdict.LIVE
    gone = decided([trade(quantity=12)], [entry(), sale("S", qty=10)])
    assert (gone.verdict, money(gone)) == (Verdict.EXITED, (187.4, 74))


def test_what_a_hand_bought_beside_the_trade_is_no_part_of_it() -> None:
    orders = [entry(qty="30", filled_avg_price="100"), bought("H", 20, 90, 7200), sale("S", qty=50, price=110)]
    decision = decided([trade(quantity=30)], orders)
    assert (decision.verdict, money(decision)) == (Verdict.EXITED, (110, 300))


@pytest.mark.parametrize("names", [("alpacaOrderId", "brokerOrderId"), ("alpacaOrderId", "clientOrderId")])
def test_two_ids_name_two_entries(names: tuple[str, str]) -> None:
    second = uid("B") if names[1] == "brokerOrderId" else "client-B"
    record = trade(quantity=150, **{names[1]: second})
    orders = [entry(qty="100", filled_avg_price="50"), bought("B", 50, 53, 7200)]
    assert decided([record], orders, [position(qty=150)]).verdict is Verdict.LIVE
    end = decided([record | {"stopOrderId": uid("S")}], [*orders, sale("S", qty=150, price=60)])
    assert (end.verdict, money(end)) == (Verdict.EXITED, (60, 1350))


def test_a_scale_in_of_a_short_is_the_same_case() -> None:
    record = trade(quantity=80, initialQuantity=80, side="SHORT")
    orders = [
        entry(qty="30", filled_avg_price="100", side="sell"),
        sale("B", qty=50, price=105, at=7200),
        order("C", qty="80", filled_avg_price="99", submitted_at=ago(3600)),
    ]
    end = decided([record], orders)
    assert (end.verdict, money(end)) == (Verdict.EXITED, (99, 330))


# --------------------------------------------------------------------------- shared entries


def _pair(**closed: Any) -> list[Record]:
    """One entry of 100 for two trades of 50; B is over."""
    shared = uid("E-T1")
    return [
        trade(quantity=50, stopOrderId=uid("S"), filledQty=50),
        trade("B", quantity=50, alpacaOrderId=shared, status="CLOSED", closeOrderId=uid("X"), closePrice=120, **closed),
    ]


SHARED = [entry(qty="100", filled_avg_price="100"), sale("X", qty=50, price=120, at=7200)]


def test_the_stop_of_a_trade_that_shared_its_entry_closes_it() -> None:
    decision = decided(_pair(), [*SHARED, sale("S", qty=50, price=44, type="stop")])
    assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, "stop_loss")
    assert money(decision) == (44, -2800)


@pytest.mark.parametrize(
    "given", [{"initialQuantity": 100}, {"filledQty": 100}, {"initialQuantity": 100, "filledQty": 100}]
)
@pytest.mark.parametrize("copied", [True, False])
def test_a_part_that_was_closed_leaves_the_others_own_stop_believed(given: Record, copied: bool) -> None:
    """A partial exit kept as a closed child record; the first sizes are the whole's, perhaps on both."""
    [record, child] = _pair(**(given if copied else {}))
    stop = sale("S", qty=50, price=44, type="stop")
    decision = decided([record | given, child], [*SHARED, stop])
    assert (decision.verdict, decision.fields["closeReason"], money(decision)) == (
        Verdict.EXITED,
        "stop_loss",
        (44, -2800),
    )


def test_of_two_open_parts_that_were_given_the_whole_fill_one_stop_closes_its_own() -> None:
    both = [
        trade(quantity=50, filledQty=100, stopOrderId=uid("S")),
        trade("B", quantity=50, filledQty=100, alpacaOrderId=uid("E-T1"), stopOrderId=uid("R")),
    ]
    stop = sale("S", qty=50, price=44, type="stop")
    plan = decide(world(both, [SHARED[0], stop, sale("R", qty=50, status="new")], [position(qty=50)]))
    assert verdicts(plan) == {"T1": Verdict.EXITED, "B": Verdict.LIVE}
    assert money(of(plan)) == (44, -2800)


def test_a_trade_that_shares_its_entry_is_given_its_part_of_the_fill() -> None:
    [record, closed] = _pair()
    del record["filledQty"], record["stopOrderId"]
    decision = decided([record, closed], SHARED, [position(qty=50)])
    assert (decision.verdict, decision.fields["filledQty"]) == (Verdict.LIVE, 50)
    both = [trade(quantity=50), trade("B", quantity=50, alpacaOrderId=uid("E-T1"))]
    plan = decide(world(both, SHARED[:1], [position(qty=100)]))
    assert [of(plan, i).fields["filledQty"] for i in ("T1", "B")] == [50, 50]


def test_a_part_that_is_written_stays_the_part_in_a_quiet_run() -> None:
    record = trade(quantity=50, filledQty=50, avgFillPrice=100)
    plan = decide(world([record], SHARED[:1], [position(qty=50)], complete=False))
    assert "filledQty" not in of(plan).fields
    assert plan.questions == ()


def test_a_copied_initial_quantity_makes_no_duplicate() -> None:
    both = [
        trade(quantity=50, initialQuantity=100),
        trade("B", quantity=50, initialQuantity=100, alpacaOrderId=uid("E-T1"), createdAt=ago(DAY / 2)),
    ]
    plan = decide(world(both, SHARED[:1], [position(qty=100)]))
    assert verdicts(plan) == {"T1": Verdict.LIVE, "B": Verdict.LIVE}


def test_a_record_whose_side_contradicts_its_entry_claims_nothing_of_it() -> None:
    wrong = trade("A", side="SHORT", alpacaOrderId=uid("E-T1"), createdAt=ago(2 * DAY))
    plan = decide(world([wrong, trade(stopOrderId=uid("S"))], [entry(), sale("S", price=95, type="stop")]))
    assert verdicts(plan) == {"A": Verdict.MISMATCH, "T1": Verdict.EXITED}
    assert money(of(plan)) == (95, -850)


# --------------------------------------------------------------------------- whose the sales are


def test_sales_before_a_newer_entry_are_of_the_older_trades() -> None:
    names = ("A", "B", "C")
    records = [trade(i, createdAt=ago(age * DAY)) for i, age in zip(names, (4, 3, 1), strict=True)]
    orders = [entry(i, submitted_at=ago(age * DAY)) for i, age in zip(names, (4, 3, 1), strict=True)]
    sales = [sale("S", price=190, at=2.5 * DAY), sale("R", price=191, at=2 * DAY)]
    plan = decide(world(records, [*orders, *sales], [position(qty=10)]))
    assert verdicts(plan) == {"A": Verdict.EXITED, "B": Verdict.EXITED, "C": Verdict.LIVE}
    late = decide(world(records, [*orders, sales[0], sale("R", at=3600)], [position(qty=10)]))
    assert set(verdicts(late).values()) == {Verdict.AMBIGUOUS}


def test_an_exit_that_names_its_entry_by_client_id_is_the_trades() -> None:
    exit_ = sale("S", price=170, client_order_id=uid("E-T1"))
    decision = decided([trade()], [entry(), exit_])
    assert (decision.verdict, decision.fields["closeOrderId"]) == (Verdict.EXITED, uid("S"))


def test_an_exit_with_the_entrys_id_as_client_id_is_never_taken_for_the_entry() -> None:
    exit_ = sale("S", client_order_id=uid("E-T1"))
    plan = decide(world([trade()], [exit_], [position()], complete=False))
    assert of(plan).verdict is Verdict.UNKNOWN


def test_a_closed_record_without_a_size_takes_of_a_shared_exit_what_its_entry_filled() -> None:
    closed = trade("B", status="CLOSED", quantity=None, closeOrderId=uid("X"), closePrice=190)
    orders = [entry(), entry("B", qty="4"), sale("X", qty=14, price=190)]
    decision = decided([trade(), closed], orders)
    assert (decision.verdict, money(decision)) == (Verdict.EXITED, (190, 100))


def test_beside_a_closed_record_without_a_size_a_shared_entry_is_judged_by_its_exits() -> None:
    closed = trade("B", status="CLOSED", quantity=None, alpacaOrderId=uid("E-T1"), closeOrderId=uid("X"))
    orders = [entry(), sale("X", qty=4)]
    assert decided([trade(quantity=6), closed], orders, [position(qty=6)]).verdict is Verdict.LIVE
    assert decided([trade(quantity=7), closed], orders, [position(qty=6)]).verdict is Verdict.MISMATCH


# --------------------------------------------------------------------------- dust and cents


def test_a_hair_of_a_share_left_behind_is_dust() -> None:
    record = trade(quantity=0.957680115, stopOrderId=uid("S"))
    orders = [entry(qty="0.957680115"), sale("S", qty="0.95768011", price=200, type="stop")]
    for rest in ([], [position(qty="0.000000005", market_value="0.000001")]):
        decision = decided([record], orders, rest)
        assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, "stop_loss")
        assert money(decision) == (200, 19.15)
        assert "left as dust" in decision.reason


def test_less_than_a_dollar_left_is_dust_and_more_is_not() -> None:
    orders = [entry(qty="10"), sale("S", qty="9.996", price=200, type="stop")]
    held = [position(qty="0.004", market_value="0.8")]
    assert decided([trade(stopOrderId=uid("S"))], orders, held).verdict is Verdict.EXITED
    more = [entry(qty="10"), sale("S", qty="9.5", price=200, type="stop")]
    decision = decided([trade(stopOrderId=uid("S"))], more, [position(qty="0.5", market_value="100")])
    assert decision.verdict is Verdict.REDUCED


def test_a_tenth_of_a_trade_is_no_dust_however_little_it_is_worth() -> None:
    record = trade(quantity=5, entryPrice=0.1, stopOrderId=uid("S"))
    for sold, left, verdict in (("4", "1", Verdict.REDUCED), ("4.6", "0.4", Verdict.EXITED)):
        orders = [entry(qty="5", filled_avg_price="0.1"), sale("S", qty=sold, price="0.12", type="stop")]
        held = [position(qty=left, market_value="0.1", avg_entry_price="0.1")]
        assert decided([record], orders, held).verdict is verdict


def test_the_last_cent_comes_from_the_fills_and_not_from_a_rounded_average() -> None:
    exit_ = sale("S", qty=3000, price="10.3333", type="stop")
    rows = [fill("f1", "S", qty=1000, price=10), fill("f2", "S", qty=2000, price=10.5)]
    records = [trade(quantity=3000, stopOrderId=uid("S"))]
    orders = [entry(qty="3000", filled_avg_price="10"), exit_]
    assert float(of(decide(world(records, orders, fills=rows))).fields["realizedPnL"]) == 1000
    assert float(of(decide(world(records, orders))).fields["realizedPnL"]) == 999.9


def test_what_was_booked_of_a_part_outlives_an_unproven_end() -> None:
    record = trade(quantity=4, initialQuantity=10, realizedPnL=-12, alpacaOrderId=uid("gone"))
    plan = decide(world([record], absent=[uid("gone")]))
    assert of(plan).verdict is Verdict.VANISHED
    assert "realizedPnL" not in of(plan).fields


# --------------------------------------------------------------------------- entries at their end


@pytest.mark.parametrize("status", ["calculated", "done_for_day", "stopped"])
def test_an_entry_filled_in_full_works_no_more_whatever_its_status(status: str) -> None:
    done = entry(status=status, filled_qty="10", filled_at=ago(DAY))
    decision = decided([trade()], [done, sale("S")])
    assert decision.verdict is Verdict.EXITED
    assert decided([trade()], [done | {"filled_qty": "6"}], [position(qty=6)]).verdict is not Verdict.EXITED


def test_an_entry_with_fills_was_never_unfilled() -> None:
    plan = decide(world([trade()], [entry(status="canceled")], fills=[fill("f", "E-T1", side="buy")]))
    assert of(plan).verdict is Verdict.MISMATCH


def test_the_link_from_target_to_stop_of_a_bracket_is_no_moved_stop() -> None:
    legs = [
        sale("TP", type="limit", limit_price="200", status="replaced", filled_qty="0", replaced_by=uid("SL")),
        sale("SL", type="stop", stop_price="170", price=171, replaces=uid("TP")),
    ]
    decision = decided([trade(stopPrice=175)], [entry(legs=legs, order_class="bracket")])
    assert float(decision.fields["realizedR"]) == -0.9


def test_a_held_trade_that_vanishes_later_keeps_its_order_facts() -> None:
    decision = decided([trade()], [entry()], memory=missed())
    assert (decision.verdict, decision.unproven) == (Verdict.VANISHED, True)


# --------------------------------------------------------------------------- fields, as apps write them


def test_a_field_that_no_rule_reads_makes_no_trade_unreadable() -> None:
    decision = decided([trade(takeProfitPrice="n/a")], [entry()], [position()])
    assert decision.verdict is Verdict.LIVE


@pytest.mark.parametrize("spelled", ["BRK.B", "BRK-B", "BRK/B", "brk-b"])
def test_a_class_of_shares_is_one_symbol_however_it_is_spelled(spelled: str) -> None:
    plan = decide(world([trade(ticker=spelled, alpacaOrderId=...)], [], [position("BRK.B")]))
    assert of(plan).verdict is Verdict.LIVE
    assert plan.orphans == ()


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("form", [int, float, str])
def test_an_epoch_is_a_time_in_seconds_or_milliseconds(unit: int, form: type) -> None:
    opened = form(int((NOW - timedelta(seconds=20)).timestamp()) * unit)
    decision = decided([trade(createdAt=opened)], [entry()])
    assert decision.verdict is Verdict.SETTLING
