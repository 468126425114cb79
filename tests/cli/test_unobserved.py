"""A row of positions or working orders that cannot be read: its symbol is not observed, the others are served."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, YESTERDAY, Record, World, long
from tests.fakebroker import queries

MakeWorld = Callable[..., World]
Spoil = Callable[[Record], list[Record]]

SPOILT: dict[str, Spoil] = {
    "twice": lambda row: [row, {**row, "asset_id": "904837e3-3b76-47ec-b432-046db621571b", "qty": "1"}],
    "twice, other side": lambda row: [row, {**row, "qty": "-1", "side": "short"}],
    "words": lambda row: [{**row, "qty": "ten"}],
    "nan": lambda row: [{**row, "qty": "NaN"}],
    "null": lambda row: [{**row, "qty": None}],
    "price": lambda row: [{**row, "avg_entry_price": {}}],
    "no symbol": lambda row: [{name: value for name, value in row.items() if name != "symbol"}],
}


def spoil(world: World, symbol: str, how: Spoil) -> None:
    """From now on the list answers so for this symbol, and as ever for the others."""
    world.broker.clear_faults()
    rows = queries.list_positions(world.broker.market)
    spoilt = [new for row in rows for new in (how(row) if row["symbol"] == symbol else [row])]
    world.broker.fault("positions", "empty", value=spoilt)


def two_trades(world: World, *, stop: bool = False) -> None:
    """AAPL is held, MSFT was sold."""
    world.pin()
    held = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO, bracket=(220, 175) if stop else None)
    sold = world.broker.open_trade("MSFT", 5, 400, at=DAY_AGO)
    world.broker.sell("MSFT", 5, 410, at=YESTERDAY)
    world.ledger(long("a", "AAPL", alpacaOrderId=held["id"]), long("m", "MSFT", 5, 400, 390, alpacaOrderId=sold["id"]))


@pytest.mark.parametrize("how", SPOILT)
def test_the_symbol_is_held_and_the_others_are_served(world: World, how: str) -> None:
    two_trades(world)
    spoil(world, "AAPL", SPOILT[how])
    dry = world.reconcile("--dry-run")
    assert (dry.row("a")["action"], dry.row("m")["action"]) == ("held", "would_close")
    before = world.trade("a")
    run = world.reconcile()
    row = run.row("a")
    assert (run.code, row["verdict"], row["action"]) == (0, "unknown", "held")
    assert "AAPL is not observed" in row["reason"]
    assert world.trade("a") == before
    assert run.row("m")["verdict"] == "exited"
    assert (run.document["orphans"], run.document["broker"]["positionsCount"]) == (0, 1)
    world.broker.clear_faults()
    assert world.reconcile().row("a")["verdict"] == "live"


# --------------------------------------------------------------------------- working orders


BAD_ORDERS: dict[str, Spoil] = {
    "quantity": lambda row: [{**row, "qty": "ten"}],
    "filled": lambda row: [{**row, "filled_qty": "11"}],
    "no id": lambda row: [{name: value for name, value in row.items() if name != "id"}],
    "no symbol": lambda row: [{**row, "symbol": "", "stop_price": {}}],
}


def spoil_order(world: World, symbol: str, how: Spoil) -> None:
    """From now on the working orders of this symbol are shown so, and the others as ever."""
    rows = world.broker.working()
    spoilt = [new for row in rows for new in (how(row) if row["symbol"] == symbol else [row])]
    assert spoilt != rows
    show_working(world, spoilt)


def show_working(world: World, rows: list[Record]) -> None:
    """What the list of working orders answers; the history of orders is as ever."""
    world.broker.fault(lambda r: r.label == "orders" and r.query.get("status") == "open", "empty", value=rows)


@pytest.mark.parametrize("how", BAD_ORDERS)
def test_an_order_that_cannot_be_read_hides_its_symbol_and_no_other(world: World, how: str) -> None:
    two_trades(world, stop=True)
    spoil_order(world, "AAPL", BAD_ORDERS[how])
    before = world.trade("a")
    run = world.reconcile("--orphans", "flatten")
    row = run.row("a")
    assert (run.code, row["verdict"], row["action"]) == (0, "unknown", "held")
    assert "AAPL is not observed: a working order of it cannot be read (" in row["reason"]
    assert world.trade("a") == before
    assert (run.row("m")["verdict"], run.document["orphans"], world.broker.count("submit")) == ("exited", 0, 0)
    assert run.document["broker"]["positionsCount"] == 1
    gate = world.run("gate", "--json", "--max-open", "1")
    assert (gate.code, gate.document["symbols"]) == (10, ["AAPL"])
    doctor = world.run("doctor", "--json").document["checks"]
    assert any("AAPL is not observed" in check["found"] for check in doctor)
    world.broker.clear_faults()
    assert world.reconcile().row("a")["verdict"] == "live"


def test_an_unread_order_without_a_position_may_be_an_entry(world: World) -> None:
    world.pin()
    entry = world.broker.add_order("AAPL", at=DAY_AGO, qty=10, type="limit", limit_price=100, status="new")
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"]), long("b", "AAPL"))
    spoil_order(world, "AAPL", BAD_ORDERS["filled"])
    run = world.reconcile()
    assert (run.code, run.verdicts()) == (0, {"a": "unknown", "b": "unknown"})
    assert run.document["broker"]["positionsCount"] == 0
    assert "not observed" in world.run("resolve", "b", "--vanished").stderr


def test_an_order_that_names_nothing_may_be_of_any_trade(world: World) -> None:
    two_trades(world, stop=True)
    rows = [{"id": "904837e3-3b76-47ec-b432-046db621571b", "status": "new", "qty": "x"}, *world.broker.working()]
    show_working(world, rows)
    with world.untouched():
        run = world.reconcile()
    assert (run.code, run.document["cause"]) == (3, "wrong_answer")


def test_every_leg_of_an_unread_combination_is_hidden(world: World) -> None:
    two_trades(world)
    legs = [{"symbol": symbol, "qty": "x"} for symbol in ("AAPL", "MSFT")]
    show_working(world, [{"id": "x", "status": "new", "symbol": None, "legs": legs}])
    assert world.reconcile().verdicts() == {"a": "unknown", "m": "unknown"}


def test_auto_manage_gives_no_order_beside_one_that_cannot_be_read(world: World) -> None:
    two_trades(world, stop=True)
    world.broker.set_price("AAPL", 186)
    spoil_order(world, "AAPL", BAD_ORDERS["quantity"])
    run = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1")
    assert (run.document["updated"], world.broker.count("submit"), world.broker.count("replace")) == (0, 0, 0)
    assert any("AAPL a: no order" in note and "not observed" in note for note in run.document["notes"])


# --------------------------------------------------------------------------- elsewhere


@pytest.mark.parametrize("layout", ["hash", "file"])
def test_what_its_own_orders_prove_waits_as_well(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    two_trades(world, stop=True)
    spoil(world, "AAPL", SPOILT["twice"])
    stop = next(o for o in world.broker.working("AAPL") if o["type"] == "stop" or o["status"] == "held")
    world.broker.fill(stop["id"], None, 174, YESTERDAY)
    assert world.reconcile().row("a")["verdict"] == "unknown"
    world.broker.clear_faults()
    assert world.reconcile().row("a")["verdict"] == "exited"


@pytest.mark.parametrize("row", [{"qty": "1"}, "x", None, {"symbol": "", "asset_id": None, "qty": "1"}])
def test_a_row_that_names_nothing_fails_the_run(world: World, row: Any) -> None:
    two_trades(world)
    rows = queries.list_positions(world.broker.market)
    world.broker.fault("positions", "empty", value=[*rows, row])
    with world.untouched():
        run = world.reconcile()
    assert (run.code, run.document["error"]) == (3, "broker_truth_failed")


def test_a_trade_whose_own_order_names_the_asset_is_the_one_that_is_held(world: World) -> None:
    two_trades(world)
    spoil(world, "AAPL", SPOILT["no symbol"])
    world.broker.fault("asset", 404)
    assert world.reconcile().verdicts() == {"a": "unknown", "m": "exited"}


def test_a_row_whose_symbol_the_broker_cannot_name_may_be_of_any_trade_that_no_row_covers(world: World) -> None:
    two_trades(world)
    strange = {"asset_id": "904837e3-3b76-47ec-b432-046db621571b", "qty": "5", "market_value": "2050"}
    rows = queries.list_positions(world.broker.market)
    world.broker.fault("positions", "empty", value=[*rows, strange])
    assert world.reconcile().verdicts() == {"a": "live", "m": "unknown"}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_it_is_no_orphan(world: World, how: str, mode: str) -> None:
    two_trades(world)
    world.broker.open_trade("AMD", 8, 50, at=THREE_DAYS_AGO)
    spoil(world, "AMD", SPOILT[how])
    run = world.reconcile("--orphans", mode)
    assert (run.code, run.document["orphans"]) == (0, 0)
    assert "AMD is not observed" in world.run("reconcile", "--verbose").stdout
    assert (world.broker.count("submit"), world.broker.positions["AMD"].qty) == (0, 8)
    assert set(world.store.records()) == {"a", "m"}


def test_a_trade_that_leaves_the_ledger_meanwhile_is_not_sold_afterwards(world: World) -> None:
    two_trades(world)
    world.reconcile()
    world.ledger(world.trade("m"))
    spoil(world, "AAPL", SPOILT["words"])
    world.reconcile("--orphans", "flatten")
    world.broker.clear_faults()
    run = world.reconcile("--orphans", "flatten", "--allow-mass-close")
    assert "has left the ledger" in json.dumps(run.document)
    assert world.broker.positions["AAPL"].qty == 10


@pytest.mark.parametrize("how", ["twice", "nan", "no symbol"])
def test_auto_manage_gives_it_no_order(world: World, how: str) -> None:
    world.pin()
    records = []
    for name, symbol in (("a", "AAPL"), ("m", "MSFT")):
        entry = world.broker.open_trade(symbol, 10, 180, at=DAY_AGO)
        world.broker.set_price(symbol, 181)
        records.append(long(name, symbol, alpacaOrderId=entry["id"]))
    world.ledger(*records)
    spoil(world, "AAPL", SPOILT[how])
    run = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1")
    assert (run.code, run.document["updated"]) == (0, 1)
    assert {o["symbol"] for o in world.broker.working()} == {"MSFT"}
    assert any("AAPL a: no order" in note and "not observed" in note for note in run.document["notes"])


def test_a_held_close_of_the_day_says_that_it_stays_open(make_world: MakeWorld) -> None:
    world = make_world("string", now="2026-11-18T20:50:00Z")
    two_trades(world)
    spoil(world, "AAPL", SPOILT["twice"])
    run = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1", AUTO_MANAGE_EOD_FLATTEN="1")
    assert run.code == 1
    assert any("AAPL a" in note and "stays open" in note for note in run.document["notes"])
    assert world.broker.positions["AAPL"].qty == 10


@pytest.mark.parametrize("how", SPOILT)
def test_the_gate_counts_it(world: World, how: str) -> None:
    world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    spoil(world, "AAPL", SPOILT[how])
    run = world.run("gate", "--json", "--max-open", "1")
    assert (run.code, run.document["count"], run.document["symbols"]) == (10, 1, ["AAPL"])
    assert world.run("gate", "--json", "--max-open", "2").code == 0


def test_status_calls_it_neither_there_nor_absent(world: World) -> None:
    two_trades(world)
    spoil(world, "AAPL", SPOILT["nan"])
    broker = world.run("status", "--json", "--broker").document["broker"]
    assert (broker["notObserved"], broker["onlyInLedger"], broker["onlyAtBroker"]) == (["AAPL"], ["MSFT"], [])


@pytest.mark.parametrize("how", ["twice", "words", "no symbol"])
def test_a_snapshot_decides_the_same(world: World, how: str) -> None:
    two_trades(world)
    spoil(world, "AAPL", SPOILT[how])
    path = world.folder / "snapshot.json"
    assert world.run("snapshot", "--output", str(path)).code == 0
    replayed = world.reconcile("--dry-run", GHOSTCLEAN_BROKER=f"file:{path}")
    assert replayed.verdicts() == world.reconcile("--dry-run").verdicts() == {"a": "unknown", "m": "exited"}


def test_no_word_of_an_operator_closes_it(world: World) -> None:
    two_trades(world)
    spoil(world, "AAPL", SPOILT["twice"])
    with world.untouched():
        run = world.run("resolve", "a", "--vanished")
    assert run.code != 0
    assert "not observed" in run.stdout + run.stderr
