"""`auto-manage` as a subprocess, rule by rule, and its telemetry."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import Run, World
from tests.fakebroker import Delay

ON = {"AUTO_MANAGE_ENABLED": "1"}
EOD = ON | {"AUTO_MANAGE_EOD_FLATTEN": "1"}
OPENED = "2026-11-17T15:00:00Z"
KEYS = {"ok", "skipped", "reason", "checked", "updated", "flattened", "enabled", "now", "market", "notes", "forced",
        "cfg", "reconcile"}  # fmt: skip


def manage(world: World, *args: str, **env: str) -> Run:
    return world.run("auto-manage", "--json", *args, **(ON | env))


def holds(world: World, name: str = "a", symbol: str = "AAPL", qty: float = 10, **more: Any) -> dict[str, Any]:
    """A filled entry at 100 with its record; the stop of the ledger is 95."""
    entry: dict[str, Any] = world.broker.open_trade(symbol, qty, 100, at=OPENED, bracket=more.pop("bracket", None))
    record = {
        "id": name, "ticker": symbol, "side": "LONG", "status": "OPEN", "quantity": qty, "entryPrice": 100,
        "stopPrice": 95, "alpacaOrderId": entry["id"], "createdAt": OPENED, "openedAt": OPENED, **more,
    }  # fmt: skip
    world.ledger(*world.store.records().values(), record)
    return entry


def writes(world: World) -> list[str]:
    return [request.label for request in world.broker.requests if request.method != "GET"]


def stops(world: World, symbol: str = "AAPL") -> list[tuple[str, str]]:
    return [(o["qty"], o["stop_price"]) for o in world.broker.working(symbol) if o["type"] == "stop"]


def test_a_run_and_what_dashboards_read(world: World) -> None:
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 100)
    run = manage(world, "--source", "cron", "--run-id", "r1")
    assert set(run.document) >= KEYS
    assert (run.code, run.document["ok"], run.document["updated"], stops(world)) == (0, True, 1, [("10", "95")])
    inside = run.document["reconcile"]
    assert (inside["runId"], inside["source"], inside["ok"]) == ("r1-reconcile", "auto-manage", True)
    summary = {k.decode(): v.decode() for k, v in world.redis.hgetall("telemetry:auto-manage:summary").items()}
    last = summary.pop("lastRunAt")
    assert summary == {
        "runs": "1", "success": "1", "fail": "0", "skipped": "0", "lastOutcome": "SUCCESS", "lastReason": "",
        "lastSource": "cron", "lastRunId": "r1",
    }  # fmt: skip
    listed = json.loads(world.redis.lindex("telemetry:auto-manage:runs", 0))
    assert listed.items() >= {
        "ts": last, "outcome": "SUCCESS", "reason": None, "checked": 1, "updated": 1, "flattened": 0,
        "source": "cron", "runId": "r1",
    }.items()  # fmt: skip
    assert manage(world, AUTO_MANAGE_ENABLED="0").document["reason"] == "disabled"
    counted = world.redis.hgetall("telemetry:auto-manage:summary")
    assert (counted[b"runs"], counted[b"skipped"], counted[b"reason:disabled"]) == (b"2", b"1", b"1")
    manage(world, "--dry-run")
    assert world.redis.hgetall("telemetry:auto-manage:summary") == counted


@pytest.mark.slow
def test_another_run_holds_the_lock_for_twenty_seconds(world: World) -> None:
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 100)
    killed = world.start("auto-manage", "--json", **ON)
    world.broker.after_request(2, lambda _: killed.kill())
    killed.communicate(timeout=30)
    run = manage(world)
    assert (run.code, run.document["skipped"], run.document["reason"]) == (7, True, "locked")
    assert 19 < run.seconds < 24
    assert (writes(world), world.redis.hgetall("telemetry:auto-manage:summary")) == ([], {})
    assert json.loads(world.redis.lindex("telemetry:auto-manage:runs", 0))["reason"] == "locked"


def test_a_reconcile_that_fails_alone_fails_nothing(world: World) -> None:
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 100)
    world.broker.fault("account", "delay", seconds=3.5, times=1)
    run = manage(world)
    assert (run.code, run.document["ok"], run.document["reconcile"]["ok"]) == (0, True, False)
    assert stops(world) == [("10", "95")]
    assert any("the reconcile before it failed" in note for note in run.document["notes"])


def test_without_the_clock_nothing_is_sent(world: World) -> None:
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 100)
    world.broker.fault("clock", 503)
    run = manage(world, "--deadline", "20")
    assert (run.code, run.document["reason"], writes(world)) == (1, "clock_unavailable", [])


@pytest.mark.parametrize(
    ("later", "quiet", "enabled"),
    [
        ("2026-11-18T20:55:00Z", True, "1"),  # the market is still open
        ("2026-11-18T21:00:30Z", False, "1"),  # closed, and inside the grace
        ("2026-11-18T21:00:30Z", True, "0"),  # switched off meanwhile
        ("2026-11-19T14:35:00Z", False, "1"),  # the next morning
    ],
)
@pytest.mark.slow
def test_a_flatten_killed_anywhere_is_ended_by_the_next_run(
    make_world: MakeWorld, later: str, quiet: bool, enabled: str
) -> None:
    """Flat and booked as what it was, or protected with nothing queued; never naked, never sold twice."""
    for after in range(14, 34, 3):
        world = make_world("file", now="2026-11-18T20:59:00Z" if not quiet else "2026-11-18T20:50:00Z")
        broker = world.broker
        world.pin()
        holds(world, bracket=(110, 95))
        broker.set_price("AAPL", 101)
        if not quiet:
            broker.quirks.cancel_delay = broker.quirks.fill_delay = Delay(seconds=0, requests=3)
        process = world.start("auto-manage", "--json", **EOD)
        broker.after_request(after, kills(process))
        process.communicate(timeout=60)
        world_lock_ends(world)
        broker.now = later
        broker.set_price("AAPL", 101)
        run = manage(world, **(EOD | {"AUTO_MANAGE_ENABLED": enabled}))
        names = [order["client_order_id"] for order in broker.orders.values()]
        assert len(names) == len(set(names))
        working = broker.working("AAPL")
        assert not [o for o in working if o["type"] == "market"], (after, run.document)
        if "AAPL" in broker.positions:
            assert broker.positions["AAPL"].qty == 10
            assert stops(world) == [("10", "95")], (after, run.document["notes"])
            assert world.trade("a")["status"] == "OPEN"
        else:
            record = world.trade("a")
            assert (working, record["status"], record["closeReason"]) == ([], "CLOSED", "eod_flatten")
            assert (record["closePrice"], record["realizedPnL"]) == (101, 10)
        broker.stop()


def kills(process: subprocess.Popen[str]) -> Callable[[object], None]:
    return lambda _: process.kill()


def world_lock_ends(world: World) -> None:
    with closing(sqlite3.connect(world.folder / "state.db")) as db, db:
        db.execute("UPDATE lock SET token = NULL, expires = 0")


@pytest.mark.parametrize("fault", ["lost_answer", 504, "reset"])
@pytest.mark.parametrize("what", ["submit", "replace"])
def test_a_lost_answer_is_never_a_second_order(world: World, what: str, fault: str | int) -> None:
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 100)
    if what == "replace":
        manage(world)
        world.broker.set_price("AAPL", 106)
    world.broker.fault(what, fault, times=1)
    for _ in range(2):
        manage(world)
        names = [order["client_order_id"] for order in world.broker.orders.values()]
        assert len(names) == len(set(names))
        world.broker.advance(minutes=5)
        world.broker.set_price("AAPL", 106 if what == "replace" else 100)
    expected = "100" if what == "replace" else "95"
    assert stops(world) == [("10", expected)]
    assert world.trade("a")["stopPrice"] == float(expected)
    assert world.trade("a")["initialStopPrice"] == 95


@pytest.mark.parametrize(
    ("price", "stop"), [("104.99", "95"), ("105", "100"), ("109.99", "100"), ("110", "105"), ("112.5", "111.93")]
)
def test_rules_at_their_boundaries(world: World, price: str, stop: str) -> None:
    world.pin()
    holds(world)
    order = world.broker.add_order(
        "AAPL", OPENED, side="sell", qty=10, type="stop", stop_price=95, time_in_force="gtc", status="new"
    )
    world.ledger(world.trade("a") | {"stopOrderId": order["id"]})
    world.broker.set_price("AAPL", float(price))
    manage(world, AUTO_MANAGE_TRAIL_ENABLED="1")
    assert (stops(world), world.trade("a")["stopPrice"]) == ([("10", stop)], float(stop))
    assert writes(world) == ([] if stop == "95" else ["replace"])
