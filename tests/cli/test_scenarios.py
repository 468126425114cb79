"""The scenarios of the field notes that concern reconcile, each through the CLI.

Checked every time: exit code, ledger, telemetry, and that a second run writes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.cli.proxy import RedisProxy
from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, Record, Run, World, long
from tests.timing import SLACK

MakeWorld = Callable[..., World]
NAMES = ["AAPL", "MSFT", "NVDA", "AMD", "TSLA", "META", "GOOG", "AMZN", "NFLX", "INTC", "ORCL", "IBM"]


def quiet_again(world: World, *args: str) -> Run:
    """A second run right after: it changes nothing and writes nothing."""
    with world.untouched():
        run = world.reconcile(*args)
    assert run.document["closed"] == run.document["synced"] == run.document["backfilled"] == 0
    assert run.document["failed"] == 0
    return run


def counted(world: World, **expected: Any) -> None:
    """The summary hash, and a list with one row for every run."""
    summary = world.summary()
    assert {name: summary[name] for name in expected} == {name: str(value) for name, value in expected.items()}
    assert len(world.runs()) == int(summary["runs"])


def ghosts(world: World, *, sold: bool = False, orders: bool = True) -> list[Record]:
    """Twelve open trades; with `sold` their exits have filled."""
    records = []
    for n, name in enumerate(NAMES):
        ids = {}
        if orders:
            ids["alpacaOrderId"] = world.broker.open_trade(name, 10, 100, at=DAY_AGO)["id"]
            if sold:
                world.broker.sell(name, 10, 101 + n, at=YESTERDAY)
        records.append(long(f"t{n}", name, 10, 100, 95, **ids))
    return records


# --------------------------------------------------------------------------- 1 to 5: many, and nothing there


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_01_a_trade_sold_yesterday_is_closed_at_the_price_of_the_fill(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    sale = world.broker.sell("AAPL", 10, "187.40", at=YESTERDAY)
    other = long("other", "MSFT", status="CLOSED", note="kept as it is", oddity=1e-9)
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"], oddity="Ω"), other)
    run = world.reconcile("--run-id", "first")
    assert run.code == 0
    assert run.row("a")["action"] == "closed"
    assert run.row("a")["stale"] is True
    closed = world.trade("a")
    expected = {
        "status": "CLOSED",
        "autoEntryStatus": "CLOSED",
        "alpacaStatus": "filled",
        "brokerStatus": "filled",
        "closedAt": "2026-11-17T18:00:00.000Z",
        "closePrice": 187.4,
        "closeOrderId": sale["id"],
        "closeReason": "manual_close",
        "realizedPnL": 74,
        "realizedR": 1.48,
        "quantity": 10,
        "oddity": "Ω",
    }
    assert {name: closed[name] for name in expected} == expected
    assert world.trade("other") == other
    quiet_again(world)
    counted(world, runs=2, success=2, fail=0, totalClosed=1, lastOk="true", lastClosed=0)
    assert [entry.outcome for entry in world.journal("a")] == ["written"]


@pytest.mark.parametrize("kind", [500, 401, "timeout", "html", "cut"])
def test_02_a_failed_positions_call_closes_nothing(make_world: MakeWorld, kind: Any) -> None:
    world = make_world("string")
    world.ledger(*ghosts(world, sold=True))
    world.broker.fault("positions", kind)
    with world.untouched():
        run = world.reconcile("--deadline", "2s")
    assert run.code == 3
    assert run.document["error"] == "broker_truth_failed"
    assert run.document["closed"] == 0
    assert run.document["ok"] is False
    assert "nothing was closed" in run.stderr
    counted(world, runs=1, success=0, fail=1, totalClosed=0, totalSynced=0, lastOk="false")
    assert world.runs()[0]["error"] == "broker_truth_failed"
    world.broker.clear_faults()
    assert world.reconcile().document["closed"] == 12
    quiet_again(world)
    counted(world, runs=3, success=2, fail=1, totalClosed=12)


def test_03_an_empty_list_against_a_market_value_is_refused(world: World) -> None:
    world.ledger(*ghosts(world))
    world.broker.fault("positions", "[]")
    with world.untouched():
        run = world.reconcile()
    assert run.code == 3
    assert run.document["error"] == "broker_truth_failed"
    assert "contradict" in run.document["detail"]
    assert world.broker.count("positions") == 2  # it looked twice before it said so
    counted(world, runs=1, fail=1, totalClosed=0, lastOk="false")
    world.broker.clear_faults()
    assert set(world.reconcile().verdicts().values()) == {"live"}
    quiet_again(world)


def test_an_account_without_any_money_cannot_have_the_ledgers_trades(world: World) -> None:
    world.ledger(*ghosts(world, sold=True))
    world.broker.account.update(equity="0", cash="0", long_market_value="0")
    with world.untouched():
        run = world.reconcile()
    assert (run.code, run.document["error"]) == (3, "broker_truth_failed")
    assert "neither equity nor cash" in run.document["detail"]


def test_a_symbol_in_two_rows_is_not_observed_and_the_others_are_served(world: World) -> None:
    world.ledger(*ghosts(world, sold=True), long("b", "BTC/USD", 1, 50, 48))
    row = {"symbol": "BTCUSD", "qty": "1", "side": "long", "asset_class": "crypto"}
    world.broker.fault("positions", "empty", value=[row, row | {"symbol": "BTC/USD"}])
    run = world.reconcile()
    assert (run.code, run.document["closed"], run.document["orphans"]) == (0, 12, 0)
    assert (run.row("b")["verdict"], world.trade("b")["status"]) == ("unknown", "OPEN")
    assert any("listed twice" in note for note in run.document["notes"])


@pytest.mark.parametrize("layout", ["string", "hash"])
def test_04_twelve_closes_without_proof_trip_the_breaker(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.pin()
    world.ledger(*ghosts(world, orders=False))
    with world.untouched():
        run = world.reconcile()
    assert run.code == 5
    assert run.document["error"] == "mass_close_stopped"
    assert run.document["closed"] == 0
    assert run.document["held"] == 12
    assert "--allow-mass-close" in run.stderr
    counted(world, runs=2, fail=1, totalClosed=0, lastOk="false")
    forced = world.reconcile("--allow-mass-close")
    assert forced.code == 0
    assert forced.document["closed"] == 12
    for record in world.store.records().values():
        assert (record["status"], record["closeReason"]) == ("CLOSED", "reconciled_not_in_alpaca")
        assert record["closePrice"] is None
        assert record["realizedPnL"] is None
        assert record["alpacaStatus"] == "not_found_in_broker"
    quiet_again(world)
    counted(world, runs=4, totalClosed=12, lastOk="true")


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_05_twelve_proven_closes_need_no_permission(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.ledger(*ghosts(world, sold=True))
    run = world.reconcile()
    assert run.code == 0
    assert run.document["closed"] == 12
    for n in range(12):
        record = world.trade(f"t{n}")
        assert (record["closePrice"], record["realizedPnL"]) == (101 + n, 10 * (1 + n))
    quiet_again(world)
    counted(world, runs=2, success=2, totalClosed=12)


# --------------------------------------------------------------------------- 6 to 10: one trade, one question


def test_06_a_trade_opened_20_seconds_ago_settles(world: World) -> None:
    opened = "2026-11-18T14:59:40Z"
    entry = world.broker.open_trade("AAPL", 10, 180, at=opened)
    world.broker.remove_position("AAPL")
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"], openedAt=opened))
    with world.untouched():
        run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"a": "settling"}
    assert run.row("a")["action"] == "held"
    counted(world, runs=1, success=1, totalClosed=0)
    quiet_again(world)


@pytest.mark.parametrize("status", ["new", "held", "done_for_day", "pending_new", "accepted", "pondering"])
def test_07_a_working_entry_keeps_its_trade(world: World, status: str) -> None:
    entry = world.broker.add_order(
        "AAPL", at="2026-08-03T15:00:00Z", qty=10, status=status, limit_price=150, type="limit"
    )
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"], openedAt="2026-08-03T15:00:00Z"))
    with world.untouched():
        run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"a": "working"}
    assert run.row("a")["action"] == "kept"
    quiet_again(world)
    counted(world, runs=2, success=2, totalClosed=0)


def test_08_a_canceled_entry_without_fill_never_was_a_trade(world: World) -> None:
    entry = world.broker.add_order("AAPL", at=DAY_AGO, qty=10, status="canceled", canceled_at=YESTERDAY)
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"]))
    assert world.reconcile().code == 0
    record = world.trade("a")
    assert (record["status"], record["closeReason"]) == ("CLOSED", "never_filled:canceled")
    assert (record["filledQty"], record["realizedPnL"]) == (0, 0)
    quiet_again(world)
    counted(world, runs=2, totalClosed=1)


def test_08_a_canceled_entry_with_40_of_100_filled_lives_with_40(world: World) -> None:
    entry = world.broker.add_order("AAPL", at=DAY_AGO, qty=100, type="limit", limit_price=50, time_in_force="gtc")
    world.broker.fill(entry, 40, 50, at=DAY_AGO)
    world.broker.cancel(entry)
    world.broker.advance(hours=1)
    world.ledger(long("a", "AAPL", 100, 50, 48, alpacaOrderId=entry["id"]))
    run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"a": "live"}
    record = world.trade("a")
    assert (record["status"], record["filledQty"], record["avgFillPrice"]) == ("OPEN", 40, 50)
    quiet_again(world)
    counted(world, runs=2, totalClosed=0)


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_09_an_unknown_order_in_a_quiet_symbol_has_vanished(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.pin()
    world.ledger(long("a", "AAPL", alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO))
    run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"a": "vanished"}
    record = world.trade("a")
    assert (record["status"], record["closeReason"]) == ("CLOSED", "reconciled_not_in_alpaca")
    assert record["closePrice"] is None
    assert record["realizedPnL"] is None
    assert record["realizedR"] is None
    quiet_again(world)
    counted(world, runs=3, totalClosed=1)


def test_10_a_look_up_that_times_out_holds(world: World) -> None:
    world.pin()
    world.ledger(long("a", "AAPL", alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO))
    world.broker.fault("order", "timeout")
    with world.untouched():
        run = world.reconcile("--deadline", "2s")
    assert run.code == 6
    assert run.document["partial"] is True
    assert run.row("a")["action"] == "held"
    assert run.seconds < 2 + SLACK
    counted(world, runs=2, fail=1, totalClosed=0, lastOk="false")
    world.broker.clear_faults()
    assert world.reconcile().verdicts() == {"a": "vanished"}
    quiet_again(world)


# --------------------------------------------------------------------------- 11 and 12: sharing


def test_11_a_sale_of_40_explains_a_position_of_60(world: World) -> None:
    entry = world.broker.open_trade("AAPL", 100, 50, at=DAY_AGO)
    world.broker.sell("AAPL", 40, "52.10", at=YESTERDAY)
    world.ledger(long("a", "AAPL", 100, 50, 48, alpacaOrderId=entry["id"]))
    run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"a": "reduced"}
    record = world.trade("a")
    assert (record["status"], record["quantity"], record["initialQuantity"]) == ("OPEN", 60, 100)
    assert record["realizedPnL"] == 84
    quiet_again(world)
    counted(world, runs=2, totalClosed=0, totalSynced=1)
    world.broker.sell("AAPL", 60, "53", at="2026-11-17T19:00:00Z")
    assert world.reconcile().verdicts() == {"a": "exited"}
    assert world.trade("a")["realizedPnL"] == 264  # the whole trade, recomputed
    quiet_again(world)


@pytest.mark.parametrize("held", [60, -100])
def test_11_what_nothing_explains_is_a_mismatch(world: World, held: int) -> None:
    entry = world.broker.open_trade("AAPL", 100, 50, at=DAY_AGO)
    world.broker.add_position("AAPL", held, 50)
    world.ledger(long("a", "AAPL", 100, 50, 48, alpacaOrderId=entry["id"]))
    with world.untouched():
        run = world.reconcile()
    assert run.verdicts() == {"a": "mismatch"}
    assert run.row("a")["action"] == "held"
    assert "needs you: AAPL a: mismatch: " in run.stderr
    assert [item["kind"] for item in run.document["attention"]] == ["mismatch"]
    quiet_again(world)
    counted(world, totalClosed=0, totalSynced=0)


def two_in_one_symbol(world: World) -> tuple[Record, Record]:
    first = world.broker.open_trade("AAPL", 30, 50, at=DAY_AGO, bracket=(60, 48))
    second = world.broker.open_trade("AAPL", 20, 50, at="2026-11-17T16:00:00Z")
    stop = world.broker.legs(first)[1]
    world.ledger(
        long("a", "AAPL", 30, 50, 48, alpacaOrderId=first["id"], stopOrderId=stop["id"]),
        long("b", "AAPL", 20, 50, 48, alpacaOrderId=second["id"], openedAt="2026-11-17T16:00:00Z"),
    )
    return first, stop


@pytest.mark.parametrize("layout", ["string", "hash"])
def test_12_the_stop_of_one_of_two_closes_that_one(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    _, stop = two_in_one_symbol(world)
    world.broker.fill(stop, price=48, at=YESTERDAY)
    run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"a": "exited", "b": "live"}
    record = world.trade("a")
    assert (record["closeReason"], record["closePrice"], record["closeOrderId"]) == ("stop_loss", 48, stop["id"])
    assert world.trade("b")["status"] == "OPEN"
    quiet_again(world)
    counted(world, totalClosed=1)


def test_12_without_a_fill_tied_to_either_both_are_ambiguous(world: World) -> None:
    two_in_one_symbol(world)
    world.broker.add_position("AAPL", 20, 50)
    before = world.store.raw()
    run = world.reconcile()
    assert run.verdicts() == {"a": "ambiguous", "b": "ambiguous"}
    assert world.store.raw() == before
    quiet_again(world)
    counted(world, totalClosed=0)


# --------------------------------------------------------------------------- 13 to 16


def test_13_a_stop_is_followed_through_its_replacements(world: World) -> None:
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO, bracket=(200, 175))
    first = world.broker.legs(entry)[1]
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"], stopOrderId=first["id"]))
    world.broker.set_price("AAPL", 190)
    second = world.broker.replace(first, stop_price=178)
    third = world.broker.replace(second, stop_price=182)
    world.broker.fill(third, price="181.90")
    world.broker.advance(seconds=5)
    run = world.reconcile()
    assert run.verdicts() == {"a": "exited"}  # an exit by its own order needs no grace
    record = world.trade("a")
    assert (record["closeOrderId"], record["closeReason"], record["closePrice"]) == (third["id"], "stop_loss", 181.9)
    assert record["realizedPnL"] == 19
    assert record["realizedR"] == 0.38  # by the first stop of the chain
    quiet_again(world)
    counted(world, totalClosed=1)


def test_14_an_orphan_is_reported_and_adopted_once(world: World) -> None:
    world.broker.open_trade("TSLA", 15, 200, at=DAY_AGO)
    with world.untouched():
        run = world.reconcile()
    assert run.code == 0
    assert run.document["orphans"] == 1
    [row] = run.document["results"]
    assert (row["id"], row["verdict"], row["ticker"]) == (None, "orphan", "TSLA")
    adopted = world.reconcile("--orphans", "adopt")
    assert adopted.document["backfilled"] == 1
    [record] = world.store.records().values()
    assert (record["ticker"], record["side"], record["status"], record["quantity"]) == ("TSLA", "LONG", "OPEN", 15)
    assert (record["entryPrice"], record["source"]) == (200, "broker_backfill")
    again = quiet_again(world, "--orphans", "adopt")
    assert again.document["orphans"] == 0
    assert len(world.store.records()) == 1


def test_15_the_fee_in_coin_is_no_reduction(world: World) -> None:
    world.broker.quirks.crypto_fee = Decimal("0.0026")
    entry = world.broker.open_trade("BTC/USD", "0.5", 60000, at=DAY_AGO, time_in_force="gtc")
    assert world.broker.positions["BTCUSD"].qty == Decimal("0.4987")
    world.ledger(long("a", "BTC/USD", "0.5", 60000, 58000, alpacaOrderId=entry["id"]))
    run = world.reconcile()
    assert run.verdicts() == {"a": "live"}
    assert world.trade("a")["quantity"] == "0.5"
    assert world.trade("a")["status"] == "OPEN"
    quiet_again(world)


def many_orders(world: World) -> None:
    """620 working orders; those at the seam of two pages were submitted in one moment."""
    for n in range(620):
        second = 0 if 100 < n < 140 else n
        at = f"2026-11-17T15:{second // 60:02d}:{second % 60:02d}Z"
        world.broker.add_order(
            f"SYM{n % 40}", at=at, qty=1, type="limit", limit_price=1, status="new", time_in_force="gtc"
        )


def test_16_620_working_orders_are_each_seen_once(world: World) -> None:
    many_orders(world)
    last = next(iter(world.broker.orders.values()))
    world.ledger(long("a", str(last["symbol"]), 1, 1, 0.5, alpacaOrderId=last["id"]))
    run = world.reconcile()
    assert run.code == 0
    assert run.document["broker"]["openOrdersCount"] == 620
    assert run.verdicts() == {"a": "working"}
    assert world.broker.count("orders") == 2
    quiet_again(world)


def test_16_a_failed_second_page_is_no_answer(world: World) -> None:
    many_orders(world)
    world.broker.fault(lambda request: request.label == "orders" and request.is_next_page, 500)
    world.ledger(long("a", "AAPL", alpacaOrderId=UNKNOWN_ORDER))
    with world.untouched():
        run = world.reconcile("--deadline", "3s")
    assert run.code == 3
    counted(world, fail=1, totalClosed=0)
    world.broker.clear_faults()
    assert world.reconcile().document["broker"]["openOrdersCount"] == 620


# --------------------------------------------------------------------------- 17 to 19: others, and death


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_17_an_edit_of_the_app_survives(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.broker.sell("AAPL", 10, "187.40", at=YESTERDAY)
    record = long("a", "AAPL", alpacaOrderId=entry["id"])
    world.ledger(record)
    edits: list[int] = []

    def app(request: Any) -> None:
        if not edits and request.label == "positions":
            edits.append(1)
            world.ledger(record | {"note": "by the app"}, long("new", "MSFT", status="CLOSED"))

    world.broker.before_request(app)
    run = world.reconcile()
    assert edits
    assert run.code == 0
    assert run.document["closed"] == 1
    assert world.trade("a")["note"] == "by the app"
    assert (world.trade("a")["status"], world.trade("a")["closePrice"]) == ("CLOSED", 187.4)
    assert world.trade("new")["status"] == "CLOSED"
    quiet_again(world)
    counted(world, totalClosed=1)


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_17_a_trade_the_app_closed_meanwhile_keeps_the_apps_words(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.broker.sell("AAPL", 10, "187.40", at=YESTERDAY)
    record = long("a", "AAPL", alpacaOrderId=entry["id"])
    world.ledger(record)
    closed = record | {"status": "CLOSED", "closeReason": "the app's own"}

    def app(request: Any) -> None:
        if request.label == "positions" and world.trade("a") == record:
            world.ledger(closed)

    world.broker.before_request(app)
    run = world.reconcile()
    assert run.code == 0
    assert (run.document["closed"], run.document["failed"]) == (0, 0)
    assert world.trade("a") == closed
    quiet_again(world)
    counted(world, totalClosed=0)


@pytest.mark.parametrize("layout", ["string", "file"])
def test_18_of_two_runs_that_start_together_one_works(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.ledger(*ghosts(world, sold=True))
    world.broker.fault("account", "delay", seconds=1.0)
    first, second = (world.start("reconcile", "--json", "--run-id", name) for name in ("one", "two"))
    runs = []
    for process in (first, second):
        stdout, stderr = process.communicate(timeout=30)
        runs.append(world.finished(process.returncode, stdout, stderr, 0, ("--json",)))
    assert sorted(run.code for run in runs) == [0, 7]
    worked, waited = sorted(runs, key=lambda run: run.code)
    assert worked.document["closed"] == 12
    assert (waited.document["error"], waited.document["closed"]) == ("locked", 0)
    assert world.summary()["runs"] == "1"  # exit 7 is listed and not counted
    assert world.summary()["totalClosed"] == "12"
    assert {run["error"] for run in world.runs()} == {None, "locked"}
    world.broker.clear_faults()
    quiet_again(world)


def finish_after_kill(world: World) -> None:
    """The next run, once the dead run's lock has ended: nothing twice, nothing lost."""
    world.release_dead_lock()
    result = world.inside()
    assert result.exit_code == 0, result
    for n in range(3):
        record = world.trade(f"t{n}")
        assert (record["status"], record["closePrice"], record["realizedPnL"]) == ("CLOSED", 101 + n, 10 * (1 + n))
        assert [e.outcome for e in world.journal(f"t{n}") if e.action == "closed"].count("written") == 1
    assert world.trade("w")["status"] == "CLOSED"
    with world.state() as state:
        assert state.intents() == []
    assert world.summary()["totalClosed"] == "3"
    with world.untouched():
        assert world.inside().exit_code == 0
    assert world.summary()["totalClosed"] == "3"


ASKED = {
    "account": lambda request: request.label == "account",
    "orders": lambda request: request.label == "orders" and request.query["status"] == "open",
    "positions": lambda request: request.label == "positions",
    "history": lambda request: request.label == "orders" and request.query["status"] == "all",
}


@pytest.mark.parametrize("question", ASKED)
def test_19_killed_while_it_asks_the_broker(world: World, question: str) -> None:
    world.ledger(*ghosts(world, sold=True)[:3], long("w", "NVDA", 10, 100, 95, status="CLOSED"))
    reached = threading.Event()
    world.broker.before_request(lambda request: reached.set() if ASKED[question](request) else None)
    world.broker.fault(ASKED[question], "hang")
    process = world.start("reconcile", "--json")
    assert reached.wait(10)
    process.kill()
    process.communicate()
    world.broker.clear_faults()
    finish_after_kill(world)


WRITES = ["the lock", "the journal", "the ledger", "the record with the lock"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(4), ids=[name.replace(" ", "-") for name in WRITES])
def test_19_killed_around_every_write(world: World, step: int, when: str) -> None:
    with RedisProxy(world.redis_url) as proxy:
        world.env["REDIS_URL"] = proxy.url
        world.ledger(*ghosts(world, sold=True)[:3], long("w", "NVDA", 10, 100, 95, status="CLOSED"))
        proxy.hold(lambda words: words[0] in (b"EVAL", b"EXEC"), skip=step, after=when == "after")
        process = world.start("reconcile", "--json")
        assert proxy.held.wait(20), f"it wrote fewer than {step + 1} times"
        process.kill()
        process.communicate()
        finish_after_kill(world)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(2, 5))
def test_19_killed_between_the_trades_of_a_hash(make_world: MakeWorld, step: int, when: str) -> None:
    world = make_world("hash")
    with RedisProxy(world.redis_url) as proxy:
        world.env["REDIS_URL"] = proxy.url
        world.ledger(*ghosts(world, sold=True)[:3], long("w", "NVDA", 10, 100, 95, status="CLOSED"))
        proxy.hold(lambda words: words[0] in (b"EVAL", b"EXEC"), skip=step, after=when == "after")
        process = world.start("reconcile", "--json")
        assert proxy.held.wait(20), f"it wrote fewer than {step + 1} times"
        process.kill()
        process.communicate()
        finish_after_kill(world)
