"""A bot with a table: what its owner meets from the first run to the cure, on SQLite and on Postgres."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, SqlStore, World, long

MakeWorld = Callable[..., World]
TABLES = ("sqlite", "postgres")


def table(world: World) -> SqlStore:
    assert isinstance(world.store, SqlStore)
    return world.store


@pytest.fixture(params=TABLES)
def sql_world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    return make_world(request.param)


def traded(world: World) -> None:
    """A live trade, one stopped out, one sold in part, one that vanished, and one that is over."""
    broker = world.broker
    live = broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    stopped = broker.open_trade("TSLA", "7.5", 200, at=DAY_AGO, bracket=(220, 190))
    broker.fill(broker.legs(stopped)[1], price="189.987", at=YESTERDAY)
    part = broker.open_trade("BRK.B", 10, 400, at=DAY_AGO)
    broker.sell("BRK.B", 4, 410, at=YESTERDAY)
    world.ledger(
        long("live", "AAPL", alpacaOrderId=live["id"], strategy="mine"),
        long("stopped", "TSLA", Decimal("7.5"), 200, 190, alpacaOrderId=stopped["id"], strategy="mine"),
        long("part", "BRK-B", 10, 400, 390, alpacaOrderId=part["id"], strategy="mine"),
        long("vanished", "ORCL", 10, 120, 115, alpacaOrderId=UNKNOWN_ORDER, strategy="mine"),
        long("over", "ORCL", status="closed", strategy="mine"),
    )


def test_from_the_first_run_to_undo(sql_world: World) -> None:
    world, store = sql_world, table(sql_world)
    world.pin()
    traded(world)
    before = store.records()
    with world.untouched():
        assert world.reconcile("--dry-run").document["closed"] == 2
    run = world.reconcile("--run-id", "first")
    assert (run.code, run.document["closed"], run.document["failed"]) == (0, 2, 0)
    after = store.records()
    closed = after["stopped"]
    assert (closed["status"], float(closed["closePrice"]), float(closed["realizedPnL"])) == ("CLOSED", 189.99, -75.1)
    assert str(closed["closedAt"]).startswith("2026-11-17 18:00:00")
    assert float(after["part"]["quantity"]) == 6
    assert after["over"] == before["over"]
    assert {row["strategy"] for row in after.values()} == {"mine"}
    with world.untouched():
        again = world.reconcile()
    assert (again.document["closed"], again.document["synced"]) == (0, 0)

    told = world.run("explain", "stopped").stdout
    assert "stop_loss" in told
    assert "189.987" in told
    status = world.status()["ledger"]
    assert (status["open"], status["total"]) == (2, 5)

    undone = world.run("undo", "first", "--json")
    assert undone.code == 0, undone.stdout
    back = store.records()
    kept = ("status", "quantity", "closePrice", "closedAt", "realizedPnL", "alpacaOrderId", "openedAt")
    for trade_id in ("stopped", "part", "vanished"):
        assert {n: back[trade_id][n] for n in kept} == {n: before[trade_id][n] for n in kept}
    assert world.reconcile().row("stopped")["action"] == "held"
    settled = world.run("resolve", "vanished", "--vanished", "--json")
    assert settled.code == 0, settled.stdout
    assert store.records()["vanished"]["status"] == "CLOSED"


def test_an_orphan_is_adopted_with_the_apps_defaults_and_managed(sql_world: World) -> None:
    """The first 1R beyond the entry moves the stop; what the table has no column for is remembered beside it."""
    world, store = sql_world, table(sql_world)
    world.pin()
    world.broker.open_trade("AMD", 8, 50, at=THREE_DAYS_AGO)
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO, bracket=(220, 175))
    world.ledger(long("live", "AAPL", alpacaOrderId=entry["id"]))
    run = world.reconcile("--orphans", "adopt")
    assert (run.code, run.document["backfilled"]) == (0, 1)
    (adopted,) = [row for row in store.raw() if row["ticker"] == "AMD"]
    assert (adopted["status"], float(adopted["quantity"]), adopted["strategy"]) == ("OPEN", 8, "none")
    with world.untouched():
        assert world.reconcile("--orphans", "adopt").document["backfilled"] == 0
    world.broker.set_price("AAPL", "186")
    managed = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1")
    assert managed.document["updated"] == 1, managed.stdout
    assert float(world.trade("live")["stopPrice"]) == 180
    world.broker.set_price("AAPL", "191")
    world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1")
    assert float(world.trade("live")["stopPrice"]) == 185  # 1R is that of the first stop, which has no column


def test_the_doctor_tells_what_the_table_lacks(sql_world: World) -> None:
    checks = sql_world.run("doctor", "--json").document["checks"]
    said = "\n".join(check["found"] for check in checks if check["name"] == "ledger")
    assert "SQL table, 0 trades" in said
    assert "no index begins with status" in said
    assert "closeReason" in said
    assert all(check["ok"] is not False for check in checks if check["name"] == "ledger")


def test_a_value_that_does_not_fit_is_told_and_the_others_are_written(make_world: MakeWorld) -> None:
    world = make_world("postgres")
    world.pin()
    traded(world)
    store = table(world)
    store.run(f"""ALTER TABLE {store.name} ADD CHECK ("closePrice" < 100 OR ticker <> 'TSLA')""")
    run = world.reconcile()
    assert (run.code, run.document["error"]) == (4, "ledger_failed")
    assert "trade stopped" in run.document["detail"]
    assert "closePrice = '189.99'" in run.document["detail"]
    assert run.document["closed"] == 1
    after = store.records()
    assert (after["stopped"]["status"], after["stopped"]["closedAt"]) == ("OPEN", None)
    assert (after["vanished"]["status"], float(after["part"]["quantity"])) == ("CLOSED", 6)
    assert [entry.outcome for entry in world.journal("stopped") if entry.action == "closed"] == ["left"]
    store.run(f"UPDATE {store.name} SET ticker = 'TSLA ' WHERE id = 'stopped'")
    assert world.reconcile().code == 0
    assert store.records()["stopped"]["status"] == "CLOSED"


@pytest.mark.parametrize("layout", TABLES)
def test_a_lock_that_the_app_holds_beyond_the_deadline(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.pin()
    traded(world)
    store = table(world)
    with store.engine.connect() as app:
        if layout == "sqlite":
            app.exec_driver_sql("BEGIN IMMEDIATE")
        app.exec_driver_sql(f"UPDATE {store.name} SET strategy = 'held'")
        run = world.reconcile("--deadline", "6s")
        app.rollback()
    assert run.code in (4, 6), run.stdout
    assert run.document["closed"] == 0
    assert {row["status"] for row in store.raw()} == {"OPEN", "closed"}
    assert run.seconds < 8
    done = world.reconcile()
    assert (done.code, done.document["closed"]) == (0, 2)


def test_what_is_wrong_with_the_place_is_one_line(make_world: MakeWorld) -> None:
    world = make_world("postgres")
    store = table(world)
    where = store.url.partition("#")[0]
    store.run(f"CREATE VIEW v{store.name} AS SELECT * FROM {store.name}")
    wrong = {
        f"{where}#nowhere": (4, "no such table"),
        f"{where}#v{store.name}": (4, "is a view"),
        f"sqlite:///{world.folder}/none.db#trades": (4, "unable to open"),
        f"{where.replace('/postgres', '/nowhere')}#t": (4, "correct the database"),
        "postgresql://bot:SENTINELpass@127.0.0.1:1/x#t": (4, "does not answer"),
        where: (2, "must name a database and a table"),
    }
    for place, (code, why) in wrong.items():
        run = world.reconcile(GHOSTCLEAN_LEDGER=place)
        assert (run.code, why in run.document["detail"]) == (code, True), run.stdout
        assert "\n" not in run.document["detail"]
    blocked = "import sys; sys.modules['sqlalchemy'] = None"
    run = world.reconcile(script=blocked)
    assert (run.code, run.document["error"]) == (2, "bad_settings")
    assert "pip install 'ghostclean[sql]'" in run.document["detail"]


def test_a_ledger_moves_into_a_table_and_out(sql_world: World) -> None:
    world, store = sql_world, table(sql_world)
    file = world.folder / "old.json"
    file.write_text(json.dumps([long("a", "AAPL"), long("b", "MSFT", status="CLOSED")]))
    moved = world.run("migrate", f"file:{file}", store.url, "--json")
    assert (moved.code, moved.document["layout"]) == (0, "table"), moved.stdout
    assert {i: float(row["entryPrice"]) for i, row in store.records().items()} == {"a": 180, "b": 180}
    back = world.run("migrate", store.url, f"file:{world.folder}/new.json", "--json")
    assert back.code == 0, back.stdout
    assert {r["id"]: r["stopPrice"] for r in json.loads((world.folder / "new.json").read_text())} == {
        "a": 175,
        "b": 175,
    }
