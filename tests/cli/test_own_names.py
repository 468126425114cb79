"""A bot with its own names, words, signs and times: what it meets in its own records, and what it need not know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.own_names import FILE, OwnNames
from tests.cli.test_manage_contract import holds, manage, stops
from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, World, long


def app(world: World) -> OwnNames:
    assert isinstance(world.store, OwnNames)
    return world.store


@pytest.mark.parametrize("layout", ["file", "hash"])
def test_a_day_of_a_bot_with_its_own_names(make_world: MakeWorld, layout: str) -> None:
    """Closed, reduced, adopted, quiet, explained, undone: each in the bot's words and nothing beside them."""
    world = make_world(layout, own_names=True)
    world.pin()
    sold = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.broker.sell("AAPL", 10, "187.40", at=YESTERDAY)
    part = world.broker.open_trade("MSFT", 100, 50, at=DAY_AGO, side="sell")
    world.broker.sell("MSFT", 40, "48", at=YESTERDAY)
    world.broker.open_trade("TSLA", 15, 200, at=DAY_AGO, side="sell")
    world.ledger(
        long("a", "AAPL", alpacaOrderId=sold["id"], note="1e2"),
        long("m", "MSFT", 100, 50, 52, side="SHORT", alpacaOrderId=part["id"]),
    )
    before = app(world).own("a")

    run = world.reconcile("--orphans", "adopt", "--run-id", "first")

    assert (run.code, run.verdicts()["a"], run.verdicts()["m"]) == (0, "exited", "reduced"), run.document
    own = app(world).own("a")
    assert own == {
        **before,
        "state": "done",
        "exit": {"price": 187.4, "reason": "manual_close", "at": "2026-11-17 13:00:00"},
        "pnl": 74,
        "filled_qty": 10,
        "avg_fill_price": 180,
        "updated_at": own["updated_at"],
        "close_order_id": own["close_order_id"],
    }, "no name of ghostclean's own stands in it, and the time is New York's"
    assert (app(world).own("m")["position"]["qty"], app(world).own("m")["initial_quantity"]) == (-60, -100)
    [adopted] = [own for own in world.store.store.records().values() if own["instrument"] == "TSLA"]  # type: ignore[attr-defined]
    assert (adopted["position"]["qty"], adopted["state"], adopted["entry_price"]) == (-15, "active", 200)
    assert not {"ticker", "side", "status", "quantity", "source", "autoEntryStatus"} & adopted.keys()

    with world.untouched():
        quiet = world.reconcile("--orphans", "adopt")
    assert (quiet.document["synced"], quiet.document["orphans"]) == (0, 0), quiet.document

    told = world.run("explain", "a", "--json").document
    assert told["beside"]["realizedR"] == 1.48
    assert "kept beside its record, which has no field for them: " in world.run("explain", "a").stdout
    undone = world.run("undo", "first", "--trade", "a", "--json")
    assert undone.code == 0, undone.document
    assert app(world).own("a") == before
    assert world.run("explain", "a", "--json").document["beside"] == {}


def test_the_zone_of_naive_times_keeps_a_fresh_trade(make_world: MakeWorld) -> None:
    """A minute old in New York; read as UTC it would be of this morning, and gone."""
    world = make_world("file", own_names=True)
    world.pin()
    world.ledger(long("a", "AAPL", alpacaOrderId=UNKNOWN_ORDER, openedAt="2026-11-18T14:59:00Z"))
    with world.untouched():
        assert world.reconcile().verdicts() == {"a": "settling"}


def test_words_of_the_app_are_its_own(make_world: MakeWorld) -> None:
    """An unlisted word is left alone; the app's word is put back; what the app writes meanwhile is decided anew."""
    world = make_world("string", own_names=True)
    world.pin()
    world.ledger(*(long(name, f"SYM{name.upper()}", openedAt=THREE_DAYS_AGO) for name in ("a", "b", "c")))
    own = {trade_id: app(world).own(trade_id) for trade_id in ("a", "b", "c")}
    own["b"]["state"] = "OPEN"  # not a word of this bot
    own["c"]["state"] = "Active"
    app(world).store.write([*own.values()])

    def closes(request: Any) -> None:
        if request.label == "positions" and app(world).own("a")["state"] == "active":
            app(world).store.write([{**own["a"], "state": "won"}, own["b"], own["c"]])

    world.broker.before_request(closes)
    run = world.reconcile("--run-id", "first", GHOSTCLEAN_MAX_UNPROVEN_CLOSES="5")
    assert (run.code, run.document["closed"], run.document["failed"]) == (0, 1, 0), run.document
    assert (app(world).own("a")["state"], app(world).own("b")) == ("won", own["b"])
    assert app(world).own("c")["state"] == "done"
    assert world.run("undo", "first").code == 0
    assert app(world).own("c")["state"] == "Active"


def test_resolve_and_auto_manage_speak_the_bots_language(make_world: MakeWorld) -> None:
    world = make_world("hash", own_names=True)
    world.pin()
    holds(world, stopOrderId=None)
    world.broker.set_price("AAPL", 105.5)
    run = manage(world)
    assert (run.code, stops(world)) == (0, [("10", "100")]), run.document
    own = app(world).own("a")
    assert (own["risk"]["stop"], own["orders"]["stop"]) == (100, world.broker.working("AAPL")[0]["id"])
    assert own["initial_stop_price"] == 95
    assert "autoManage" not in own
    assert world.recall("facts")["a"]["now"]["autoManage"], "what the record has no field for is remembered"
    world.broker.set_price("AAPL", 110.5)
    assert manage(world).document["updated"] == 1
    assert (stops(world), app(world).own("a")["risk"]["stop"]) == ([("10", "105")], 105)

    world.ledger(long("gone", "NVDA", openedAt=THREE_DAYS_AGO))
    assert world.run("resolve", "gone", "--vanished").code == 0
    assert app(world).own("gone")["state"] == "done"


def test_two_filters_in_one_file_are_two_ledgers(make_world: MakeWorld) -> None:
    world = make_world("file")
    path = world.folder / "trades.json"
    path.write_text(json.dumps([long("a", "AAPL", bot="one"), long("b", "MSFT", bot="two")]))
    (world.folder / "mapping.toml").write_text('[filter]\nbot = "one"\n')
    (world.folder / "two.toml").write_text('[filter]\nbot = "two"\n')
    first = world.reconcile("--allow-mass-close")
    second = world.reconcile("--allow-mass-close", GHOSTCLEAN_MAPPING="two.toml")
    assert (first.verdicts(), second.verdicts()) == ({"a": "vanished"}, {"b": "vanished"})
    names = [
        world.run("status", "--json", **env).document["ledger"]["name"]
        for env in ({}, {"GHOSTCLEAN_MAPPING": "two.toml"})
    ]
    assert names == [f"file:{path}[bot=one]", f"file:{path}[bot=two]"]
    assert world.run("history", "--json").document["entries"][0]["id"] == "a"


def test_a_wrong_mapping_changes_nothing_and_the_doctor_names_a_right_one(make_world: MakeWorld) -> None:
    world = make_world("file", own_names=True)
    world.ledger(long("a", "AAPL"))
    app(world).file.write_text(FILE + '\nRUNNING = "up"\n')
    with world.untouched():
        run = world.reconcile()
    line = FILE.count("\n") + 2
    assert (run.code, run.document["error"]) == (2, "bad_settings")
    assert f"mapping.toml, line {line}: RUNNING is no status of a trade (nothing was done)" in run.stderr
    wrong = world.run("doctor", "--json").document["checks"][0]
    assert (wrong["ok"], f"line {line}" in wrong["found"]) == (False, True)
    app(world).file.write_text(FILE)
    app(world).store.write([app(world).own("a"), app(world).own("a") | {"id": "b", "state": "OPEN"}])
    checks = [check for check in world.run("doctor", "--json").document["checks"] if check["name"] == "ledger"]
    assert checks[0]["found"].endswith(f"JSON file, 2 trades, by {app(world).file}; 1 open, 0 pending")
    assert "by status: 1 OPEN (open), 1 UNMAPPED:OPEN (not known), 0 over" in [check["found"] for check in checks]
    [beside] = [check for check in checks if check["ok"] is None and "no field" in check["found"]]
    assert "no field for source, autoEntryStatus, alpacaStatus, brokerStatus, realizedR, lastPrice, " in beside["found"]


def test_a_ledger_moves_with_its_names(make_world: MakeWorld) -> None:
    world = make_world("file", own_names=True)
    world.ledger(long("a", "AAPL"), long("b", "MSFT", status="CLOSED"))
    copy = world.folder / "copy.json"
    moved = world.run("migrate", world.store.url, f"file:{copy}", "--json")
    assert (moved.code, moved.document["trades"]) == (0, 2)
    assert json.loads(copy.read_text()) == [app(world).own("a"), app(world).own("b")]
