"""`auto-manage` as a process, rule by rule, and its telemetry."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import Run, World
from tests.fakebroker import Delay
from tests.program import Running

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


def kills(process: Running) -> Callable[[object], None]:
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


# --------------------------------------------------------------------------- whose orders they are


def stop_at(world: World, qty: float = 10, price: float = 95) -> dict[str, Any]:
    found: dict[str, Any] = world.broker.add_order(
        "AAPL", OPENED, side="sell", qty=qty, type="stop", stop_price=price, time_in_force="gtc", status="new"
    )
    return found


def named(world: World, name: str, **fields: Any) -> None:
    records = world.store.records()
    records[name] |= fields
    world.ledger(*records.values())


def moves_on(world: World, price: float, minutes: float = 5) -> None:
    world.broker.advance(minutes=minutes)
    world.broker.set_price("AAPL", price)
    world.broker.reset_log()


@pytest.mark.parametrize("hidden", [True, False])
def test_beside_an_entry_that_works_a_close_is_not_begun(make_world: MakeWorld, hidden: bool) -> None:
    world = make_world("file", now="2026-11-18T20:50:00Z")
    world.pin()
    holds(world, stopOrderId=stop_at(world)["id"])
    world.broker.quirks.hide_legs = hidden
    world.broker.set_price("AAPL", 101)
    entry = world.broker.submit(
        symbol="AAPL", qty=10, side="buy", type="limit", limit_price=90, time_in_force="gtc",
        order_class="bracket", take_profit={"limit_price": 120}, stop_loss={"stop_price": 85},
    )  # fmt: skip
    pending = {"id": "p", "ticker": "AAPL", "status": "PENDING", "quantity": 10, "alpacaOrderId": entry["id"]}
    world.ledger(*world.store.records().values(), pending | {"stopPrice": 85, "createdAt": OPENED})
    world.broker.reset_log()
    run = manage(world, **EOD)
    assert (writes(world), run.document["flattened"]) == ([], 0)
    assert ("10", "95") in stops(world)
    assert any("not started" in n and entry["id"] in n for n in run.document["notes"])


def test_a_stop_of_two_trades_is_neither_cut_nor_cancelled_for_one(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    stop = stop_at(world, 20, 90)["id"]
    holds(world, "a", stopOrderId=stop, stopPrice=90, initialStopPrice=98)
    holds(world, "b", stopOrderId=stop, stopPrice=90, initialStopPrice=90)
    for price in (101, 97):
        moves_on(world, price)
        run = manage(world, AUTO_MANAGE_CUT_LOSS_ENABLED="1")
        assert (run.code, writes(world), stops(world)) == (0, [], [("20", "90")])
    assert any("a: cut_loss not started" in n and stop in n for n in run.document["notes"])


@pytest.mark.parametrize(("hidden", "moved"), [(True, False), (True, True), (False, True)])
def test_the_first_stop_of_a_bracket_is_1r_and_not_the_ledgers_moved_one(
    make_world: MakeWorld, hidden: bool, moved: bool
) -> None:
    world = make_world("file")
    world.pin()
    world.broker.quirks.hide_legs = hidden
    entry = holds(world, bracket=(120, 90), stopPrice=98)
    if moved:
        named(world, "a", stopOrderId=world.broker.replace(world.broker.legs(entry)[1], stop_price=91)["id"])
    moves_on(world, 97.9)
    run = manage(world, AUTO_MANAGE_CUT_LOSS_ENABLED="1")
    assert (run.document["flattened"], "submit" in writes(world)) == (0, False)
    assert world.trade("a")["initialStopPrice"] == 90


def test_1r_is_the_first_stop_of_a_chain_that_the_app_began(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    holds(world, stopPrice=99, stopOrderId=world.broker.replace(stop_at(world), stop_price=99)["id"])
    moves_on(world, 102.5)
    assert manage(world).code == 0
    assert (stops(world), world.trade("a")["initialStopPrice"]) == ([("10", "99")], 95)


def test_two_stops_of_one_trade_move_and_are_closed_together(make_world: MakeWorld) -> None:
    world = make_world("file", now="2026-11-18T20:40:00Z")
    world.pin()
    holds(world)
    stop_at(world, 6)
    stop_at(world, 4)
    for _ in range(2):
        moves_on(world, 106, 1)
        assert manage(world).code == 0
        assert sorted(stops(world)) == [("4", "100"), ("6", "100")]
    assert writes(world) == []
    moves_on(world, 106, 10)
    run = manage(world, **EOD)
    assert (run.document["flattened"], world.broker.positions) == (1, {})


def test_a_tighter_stop_that_the_app_writes_meanwhile_stays(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 101)
    world.broker.after_request(lambda r: r.label == "submit", lambda _: named(world, "a", stopPrice=98))
    assert manage(world).code == 0
    assert (world.trade("a")["stopPrice"], stops(world)) == (98, [("10", "95")])
    assert world.trade("a")["stopOrderId"] is not None


# --------------------------------------------------------------------------- beside other fills and targets


def target_at(world: World, qty: float = 10, price: float = 120) -> str:
    found: str = world.broker.add_order(
        "AAPL", OPENED, side="sell", qty=qty, type="limit", limit_price=price, time_in_force="gtc", status="new"
    )["id"]
    return found


@pytest.mark.parametrize("target", [False, True])
def test_the_exit_of_another_trade_a_moment_ago_takes_no_stop_from_this_one(
    make_world: MakeWorld, target: bool
) -> None:
    world = make_world("file")
    world.pin()
    holds(world, "a", **({"takeProfitOrderId": target_at(world)} if target else {}))
    other = stop_at(world)
    holds(world, "b", stopOrderId=other["id"])
    world.broker.fill(other, 10, 95, at="2026-11-18T14:59:30Z")
    world.broker.set_price("AAPL", 101)
    assert manage(world).code == 0
    assert (stops(world), world.trade("b")["status"]) == ([("10", "95")], "CLOSED")


def test_a_target_is_not_cancelled_where_nothing_could_follow(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    target = target_at(world)
    holds(world, takeProfitOrderId=target)
    world.broker.open_trade("AAPL", 10, 100, at=OPENED)
    world.broker.fill(stop_at(world), 10, 95, at="2026-11-18T14:59:30Z")  # nobody's: whose shares were they?
    world.broker.set_price("AAPL", 101)
    world.broker.reset_log()
    run = manage(world)
    assert (run.document["reason"], writes(world)) == ("naked", [])
    assert world.broker.order(target)["status"] == "new"


def test_a_target_for_a_part_stays_one_for_that_part(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    holds(world, takeProfitOrderId=target_at(world, 5))
    for _ in range(2):
        moves_on(world, 101)
        assert manage(world).code == 0
        assert stops(world) == [("5", "95"), ("5", "95")]
        assert [(o["qty"], o["limit_price"]) for o in world.broker.working("AAPL") if o["type"] == "limit"] == [
            ("5", "120")
        ]
    assert writes(world) == []
