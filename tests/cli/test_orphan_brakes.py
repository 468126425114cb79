"""Orphans are adopted or sold only while the ledger is known to be this account's, and whole."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, YESTERDAY, Record, Run, SqlStore, World, long

MODES = pytest.mark.parametrize("mode", ["adopt", "flatten"])
SYMBOLS = ("AAPL", "MSFT", "NVDA", "TSLA", "AMD")


def trades(world: World, count: int) -> list[Record]:
    made = []
    for symbol in SYMBOLS[:count]:
        entry = world.broker.open_trade(symbol, 10, 180, at=THREE_DAYS_AGO)
        made.append(long(symbol.lower(), symbol, alpacaOrderId=entry["id"]))
    return made


def rows(run: Run) -> dict[str, Any]:
    return {row["ticker"]: row for row in run.document["results"] if row["verdict"] == "orphan"}


def untouched(world: World, before: dict[str, Any]) -> None:
    assert world.broker.count("submit") == 0
    assert dict(world.broker.positions) == before


@MODES
def test_the_first_run_only_reports_and_the_next_one_acts(world: World, mode: str) -> None:
    world.broker.open_trade("AMD", 8, 50, at=THREE_DAYS_AGO)
    world.broker.set_price("AMD", 51)
    with world.untouched():
        first = world.reconcile("--orphans", mode)
    assert (first.code, rows(first)["AMD"]["action"]) == (0, "kept")
    assert "pinned" in rows(first)["AMD"]["reason"]
    assert rows(world.reconcile("--orphans", mode))["AMD"]["action"] in ("adopted", "flattened")


@MODES
def test_a_ledger_that_was_never_seen_explains_nothing(make_world: MakeWorld, mode: str) -> None:
    """A typo in the key, another database: there is no ledger there at all."""
    world = make_world("hash")  # its key stands only while it has a record
    world.broker.open_trade("AMD", 8, 50, at=THREE_DAYS_AGO)
    for _ in range(3):
        run = world.reconcile("--orphans", mode, "--allow-mass-close")
        assert (rows(run)["AMD"]["action"], world.broker.count("submit")) == ("kept", 0)
        assert "never seen" in rows(run)["AMD"]["reason"]


@MODES
def test_a_ledger_that_the_app_emptied_sells_nothing(make_world: MakeWorld, mode: str) -> None:
    world = make_world("file")
    ours = trades(world, 4)
    world.ledger(*ours)
    assert world.reconcile().code == 0
    before = dict(world.broker.positions)
    world.broker.reset_log()
    world.store.write([])
    for args in ((), (), ("--allow-mass-close",)):
        run = world.reconcile("--orphans", mode, *args)
        assert (run.code, run.document["error"]) == ((0, None) if args else (5, "mass_close_stopped"))
        assert {row["action"] for row in rows(run).values()} == {"kept"}
        assert "trade aapl has left the ledger" in rows(run)["AAPL"]["reason"]
        untouched(world, before)
    world.ledger(*ours)
    assert set(world.reconcile("--orphans", mode).verdicts().values()) == {"live"}


@MODES
def test_a_position_whose_record_is_gone_is_left_alone_beside_an_orphan_that_is_none(
    make_world: MakeWorld, mode: str
) -> None:
    """Restored from a backup without one record, while a hand has bought something else."""
    world = make_world("file")
    first, second = trades(world, 2)
    world.ledger(first, second)
    world.reconcile()
    world.ledger(first)
    world.reconcile()  # a run that only reports remembers it as well
    world.broker.open_trade("NVDA", 3, 100, at=DAY_AGO)
    run = world.reconcile("--orphans", mode)
    assert rows(run)["MSFT"]["action"] == "kept"
    assert "trade msft has left the ledger" in rows(run)["MSFT"]["reason"]
    assert rows(run)["NVDA"]["action"] in ("adopted", "flattened")


def test_a_trade_that_ended_with_its_position_leaves_no_trace(make_world: MakeWorld) -> None:
    world = make_world("file")
    first, second = trades(world, 2)
    world.ledger(first, second)
    world.reconcile()
    world.broker.sell("MSFT", 10, 181, at=DAY_AGO)
    world.ledger(first)  # the app deletes what it has sold
    world.reconcile()
    assert set(world.recall("verdicts")) == {"aapl"}
    world.broker.open_trade("MSFT", 4, 100, at=DAY_AGO)
    world.broker.advance(minutes=5)
    assert rows(world.reconcile("--orphans", "adopt"))["MSFT"]["action"] == "adopted"


def test_the_breaker_counts_adoptions_against_the_accounts_positions(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    trades(world, 4)
    stopped = world.reconcile("--orphans", "adopt")
    assert (stopped.code, stopped.document["error"], stopped.document["backfilled"]) == (5, "mass_close_stopped", 0)
    assert {row["action"] for row in rows(stopped).values()} == {"kept"}
    allowed = world.reconcile("--orphans", "adopt", "--allow-mass-close")
    assert (allowed.code, allowed.document["backfilled"]) == (0, 4)


def test_three_orphans_do_not_trip_the_breaker(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    trades(world, 3)
    assert world.reconcile("--orphans", "adopt").document["backfilled"] == 3


def test_a_dry_run_shows_what_the_breaker_would_do(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    trades(world, 4)
    run = world.reconcile("--orphans", "flatten", "--dry-run")
    assert run.code == 5
    assert "the breaker tripped" in rows(run)["AAPL"]["reason"]


_NO_WRITE = """
from ghostclean.adapters.ledgers.file import FileLedger
from ghostclean.errors import LedgerFailed
def fail(*args, **more):
    raise LedgerFailed("the disk is gone")
FileLedger.write = fail
"""


def ghost_and_orphan(world: World) -> None:
    world.pin()
    gone = world.broker.open_trade("AAPL", 10, 180, at=THREE_DAYS_AGO)
    world.broker.sell("AAPL", 10, 187, at=YESTERDAY)
    world.broker.open_trade("AMD", 8, 50, at=THREE_DAYS_AGO)
    world.broker.set_price("AMD", 51)
    world.ledger(long("g", "AAPL", alpacaOrderId=gone["id"]))


def test_a_trade_that_the_ledger_refuses_keeps_no_orphan_and_no_stop_waiting(make_world: MakeWorld) -> None:
    world = make_world("sqlite")
    ghost_and_orphan(world)
    assert isinstance(world.store, SqlStore)
    with contextlib.closing(sqlite3.connect(world.folder / "bot.db")) as database:
        database.execute(
            f"CREATE TRIGGER never BEFORE UPDATE ON {world.store.name} WHEN NEW.status = 'CLOSED' "
            "BEGIN SELECT RAISE(ABORT, 'no trade is closed here'); END"
        )

    run = world.reconcile("--orphans", "flatten")

    assert (run.code, run.document["error"]) == (4, "ledger_failed"), run.document["detail"]
    assert world.trade("g")["status"] == "OPEN"
    assert rows(run)["AMD"]["action"] == "flattened"
    assert "AMD" not in world.broker.positions, "sold as it says"


def test_what_a_failing_write_kept_from_being_sold_is_not_said_to_be_sold(make_world: MakeWorld) -> None:
    world = make_world("file")
    ghost_and_orphan(world)

    run = world.reconcile("--orphans", "flatten", script=_NO_WRITE)

    assert (run.code, run.document["error"]) == (4, "ledger_failed"), run.document["detail"]
    assert rows(run)["AMD"]["action"] == "kept"
    assert "AMD" in world.broker.positions
