"""Activities that explain an absence, through the CLI: merger for cash, transfer out, late rows of options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.world import DAY_AGO, YESTERDAY, World, long

MakeWorld = Callable[..., World]
CALL = "AAPL261117C00200000"  # past its date since yesterday


def quiet_again(world: World) -> None:
    with world.untouched():
        assert world.reconcile().code == 0


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_a_merger_for_cash_closes_at_what_a_share_brought(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    entry = world.broker.open_trade("ACME", 10, 50, at=DAY_AGO)
    world.broker.remove_position("ACME")
    for row in ({"qty": "0", "net_amount": "550"}, {"qty": "-10", "net_amount": "0"}):
        world.broker.activity(
            "MA", at=YESTERDAY, symbol="ACME", activity_sub_type="CMA", group_id="g-1", price="0", **row
        )
    world.ledger(long("a", "ACME", 10, 50, 45, alpacaOrderId=entry["id"]))
    with world.untouched():
        assert world.reconcile("--dry-run").row("a")["action"] == "would_close"
    row = world.reconcile("--run-id", "merged").row("a")
    assert (row["verdict"], row["action"]) == ("exited", "closed")
    assert [p["activityId"] for p in row["proof"] if p["what"] == "activity MA of 2026-11-17"]
    closed = world.trade("a")
    expected = {"status": "CLOSED", "closeReason": "cash_merger", "closePrice": 55, "realizedPnL": 50, "realizedR": 1}
    assert {name: closed[name] for name in expected} == expected
    assert closed["closedAt"] == "2026-11-17T21:00:00.000Z"
    quiet_again(world)
    assert world.run("undo", "merged").code == 0
    assert world.trade("a")["status"] == "OPEN"
    assert world.reconcile().row("a")["action"] == "held", "what was undone stays until its facts change"


def test_a_merger_for_stock_is_held(world: World) -> None:
    entry = world.broker.open_trade("ACME", 10, 50, at=DAY_AGO)
    world.broker.remove_position("ACME")
    world.broker.add_position("NEWCO", 5, 100)
    for row in ({"symbol": "ACME", "qty": "-10"}, {"symbol": "NEWCO", "qty": "5"}):
        world.broker.activity("MA", at=YESTERDAY, activity_sub_type="SMA", group_id="g-1", price="50", **row)
    world.ledger(long("a", "ACME", 10, 50, 45, alpacaOrderId=entry["id"]))
    with world.untouched():
        assert world.reconcile().row("a")["verdict"] == "mismatch"


def test_a_transfer_out_closes_a_short_and_a_long_of_another_symbol(world: World) -> None:
    short = world.broker.open_trade("TSLA", 4, 200, at=DAY_AGO, side="sell")
    bought = world.broker.open_trade("MSFT", 6, 400, at=DAY_AGO)
    for symbol, kind, qty in (("TSLA", "ACATS", "4"), ("MSFT", "JNLS", "-6")):
        world.broker.remove_position(symbol)
        world.broker.activity(kind, at=YESTERDAY, symbol=symbol, qty=qty)
    world.ledger(
        long("s", "TSLA", 4, 200, 210, side="SHORT", alpacaOrderId=short["id"]),
        long("l", "MSFT", 6, 400, 390, alpacaOrderId=bought["id"]),
    )
    assert world.reconcile().verdicts() == {"s": "exited", "l": "exited"}
    for trade_id in ("s", "l"):
        closed = world.trade(trade_id)
        assert (closed["closeReason"], closed["closePrice"], closed["realizedPnL"]) == ("transferred_out", None, None)
    quiet_again(world)


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_a_transfer_of_a_part_reduces_and_the_rest_stays_managed(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO, bracket=(220, 175))
    world.broker.market.positions["AAPL"].qty = 6
    world.broker.activity("ACATS", at=YESTERDAY, symbol="AAPL", qty="-4")
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"]))
    with world.untouched():
        assert world.reconcile("--dry-run").row("a")["action"] == "would_reduce"
    assert world.reconcile().row("a")["verdict"] == "reduced"
    record = world.trade("a")
    assert (record["quantity"], record["initialQuantity"], record["realizedPnL"]) == (6, 10, None)
    world.broker.reset_log()
    quiet_again(world)
    assert world.broker.count("fills") == 0, "a reduced trade is not looked up again"


def test_an_assignment_that_comes_a_day_late_is_waited_for(world: World) -> None:
    entry = world.broker.open_trade(CALL, 2, "3.5", at="2026-11-16T15:00:00Z", side="sell")
    world.broker.remove_position(CALL)
    world.ledger(
        long("o", CALL, 2, 3.5, None, side="SHORT", alpacaOrderId=entry["id"], openedAt="2026-11-16T15:00:00Z")
    )
    with world.untouched():
        assert world.reconcile().row("o")["verdict"] == "settling"
    world.broker.activity("OPASN", symbol=CALL, qty="2", date="2026-11-17")
    world.broker.activity("OPTRD", symbol="AAPL", qty="-200", price="200", date="2026-11-17")
    assert world.reconcile().row("o")["action"] == "closed"
    closed = world.trade("o")
    assert (closed["closeReason"], closed["closePrice"]) == ("option_assigned", None)
    assert closed["closedAt"] == "2026-11-17T21:00:00.000Z"
    quiet_again(world)


def test_an_option_assigned_in_part_is_reduced(world: World) -> None:
    later = "AAPL261218C00200000"
    entry = world.broker.open_trade(later, 5, "3.5", at=DAY_AGO, side="sell")
    world.broker.market.positions[later].qty = -3
    world.broker.activity("OPASN", at=YESTERDAY, symbol=later, qty="2")
    world.ledger(long("o", later, 5, 3.5, None, side="SHORT", alpacaOrderId=entry["id"]))
    assert world.reconcile().row("o")["verdict"] == "reduced"
    assert world.trade("o")["quantity"] == 3
    quiet_again(world)
