"""One position among several trades of a symbol, and shares that are nobody's."""

from __future__ import annotations

import pytest

from ghostclean.core.decide import decide
from ghostclean.core.plan import Plan
from ghostclean.core.verdicts import Action, Verdict
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
