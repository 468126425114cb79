"""A run that ends in the middle of its writing: what stands is counted, listed and journaled, and the line says why."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ghostclean.adapters.ledgers.file import FileLedger
from ghostclean.adapters.ledgers.redis import RedisLedger
from ghostclean.adapters.ledgers.redis_hash import HashLayout
from ghostclean.adapters.state.redis import RedisState
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.errors import FencedOff, LedgerFailed
from ghostclean.result import Interrupted, Result
from tests.cli.world import DAY_AGO, YESTERDAY, World, long

MakeWorld = Callable[..., World]
SYMBOLS = ("AAPL", "KO", "MSFT", "TSLA", "NVDA")
BEFORE = 2  # changes that stand when the run is struck


def sold(world: World) -> None:
    """Trades whose shares have all been sold by hand: every one is to be closed."""
    world.pin()
    records = []
    for symbol in SYMBOLS:
        entry = world.broker.open_trade(symbol, 10, 100, at=DAY_AGO)
        world.broker.sell(symbol, 10, 110, at=YESTERDAY)
        records.append(long(symbol.lower(), symbol, 10, 100, 95, alpacaOrderId=entry["id"]))
    world.ledger(*records)


def closed(world: World) -> set[str]:
    return {i for i, record in world.store.records().items() if record["status"] == "CLOSED"}


def listed(result: Result) -> set[str]:
    return {str(row["id"]) for row in result.results if row["action"] == "closed" and row["after"]}


def written(world: World) -> set[str]:
    return {e.trade_id for e in world.journal() if e.outcome == "written" and e.action == "closed"}


def converges(world: World) -> None:
    """The next run closes the rest, and every close is counted once."""
    world.release_dead_lock()
    result = world.inside()
    assert (result.error, result.failed) == (None, 0)
    assert closed(world) == written(world) == {symbol.lower() for symbol in SYMBOLS}
    assert world.summary()["totalClosed"] == str(len(SYMBOLS))


# --------------------------------------------------------------------------- a hash, struck between two trades


def strike(monkeypatch: pytest.MonkeyPatch, how: Callable[[], Any]) -> None:
    """From the third trade on, writing to a hash fails that way."""
    real, times = HashLayout._swap, 0

    def swap(self: HashLayout, *args: Any) -> bool:
        nonlocal times
        times += 1
        if times == BEFORE + 1:
            how()
        return real(self, *args)

    monkeypatch.setattr(HashLayout, "_swap", swap)


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LedgerFailed("Writing the ledger failed: the server is out of memory."), "ledger_failed"),
        (FencedOff("The lock of this ledger expired."), "locked"),
        (RuntimeError("a defect"), "reconcile_failed"),
    ],
    ids=["out of memory", "lock lost", "defect"],
)
def test_a_failure_half_way_hides_nothing(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    world = make_world("hash")
    sold(world)
    strike(monkeypatch, lambda: fail(error))
    result = world.inside()
    assert (result.error, result.closed, result.failed) == (code, BEFORE, len(SYMBOLS) - BEFORE)
    assert listed(result) == closed(world)
    assert len(closed(world)) == BEFORE
    if code == "ledger_failed":
        assert result.detail == f"{error} Written before that, and journaled: {BEFORE}."
    if code != "locked":  # a run that lost its lock leaves its journal to the next one
        assert written(world) == closed(world)
        assert world.summary()["totalClosed"] == world.summary()["lastClosed"] == str(BEFORE)
    assert world.runs()[0]["closed"] == BEFORE
    converges(world)


def test_a_deadline_half_way_hides_nothing(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world("hash")
    sold(world)
    hanging = threading.Event()
    strike(monkeypatch, lambda: hanging.wait(30))
    result = world.inside(deadline=2.5)
    assert (result.error, result.exit_code, result.partial, result.closed) == ("deadline_exceeded", 6, True, BEFORE)
    assert listed(result) == written(world)
    assert result.detail is not None
    assert result.detail.startswith("Writing the ledger at redis://")
    assert result.detail.endswith(
        "changes without an answer may or may not be written, the next run finds out. Cure: see `ghostclean doctor`, "
        f"or raise --deadline. Written before that, and journaled: {BEFORE}."
    )
    hanging.set()
    time.sleep(0.5)  # what was abandoned finds the lock given back, and writes nothing
    assert closed(world) == listed(result)
    converges(world)


def test_ctrl_c_half_way_hides_nothing(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world("hash")
    sold(world)
    strike(monkeypatch, lambda: fail(KeyboardInterrupt()))
    with pytest.raises(Interrupted) as caught:
        world.inside(run_id="mine")
    result = caught.value.result
    assert (result.run_id, result.error, result.closed) == ("mine", "interrupted", BEFORE)
    assert listed(result) == closed(world) == written(world)
    assert world.runs()[0]["closed"] == BEFORE
    converges(world)


# --------------------------------------------------------------------------- a store that hangs


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
@pytest.mark.parametrize(
    ("what", "meaning"),
    [
        ("journal", "nothing was changed"),
        ("ledger", "changes without an answer may or may not be written, the next run finds out"),
    ],
)
def test_a_store_that_hangs_while_it_is_written_is_named(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, layout: str, what: str, meaning: str
) -> None:
    world = make_world(layout)
    sold(world)
    places: dict[str, tuple[Any, str]] = {
        "journal": (SqliteState if layout == "file" else RedisState, "intend"),
        "ledger": (FileLedger if layout == "file" else RedisLedger, "write"),
    }
    with monkeypatch.context() as patched, world.untouched():
        patched.setattr(*places[what], lambda *_, **__: time.sleep(30))
        result = world.inside(deadline=2.5)
    assert (result.error, result.exit_code, result.closed) == ("deadline_exceeded", 6, 0)
    assert result.detail is not None
    where, _, rest = result.detail.partition(" failed: no answer within ")
    assert where.startswith(f"Writing the {what} at ")
    assert "@" not in where
    assert rest.endswith(f" s; {meaning}. Cure: see `ghostclean doctor`, or raise --deadline.")
    if layout != "file":
        converges(world)


# --------------------------------------------------------------------------- the program, stopped from outside

_STOP_AFTER_THE_WRITE = """
import os, signal, time
from ghostclean.adapters.ledgers import {module}
real = {module}.{name}.write
def write(*args, **options):
    answer = real(*args, **options)
    os.kill(os.getpid(), {number})
    time.sleep(0.1)
    return answer
{module}.{name}.write = write
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_a_run_stopped_after_its_write_says_what_it_wrote(
    make_world: MakeWorld, layout: str, number: int, code: int
) -> None:
    world = make_world(layout)
    sold(world)
    module, name = ("file", "FileLedger") if layout == "file" else ("redis", "RedisLedger")
    script = _STOP_AFTER_THE_WRITE.format(module=module, name=name, number=number)
    run = world.reconcile("--run-id", "MINE", script=script)
    document = run.document
    assert (run.code, document["runId"], document["error"]) == (code, "MINE", "interrupted")
    assert document["closed"] == len(SYMBOLS)
    assert {row["id"] for row in document["results"] if row["action"] == "closed"} == closed(world) == written(world)
    assert document["detail"].startswith(f"interrupted after {len(SYMBOLS)} changes of the ledger; ")
    assert run.stderr.splitlines() == [f"ghostclean: {document['detail']}"]
    assert (world.runs()[0]["runId"], world.runs()[0]["closed"]) == ("MINE", len(SYMBOLS))
    assert world.summary()["totalClosed"] == str(len(SYMBOLS))
    assert world.summary()["fail"] == "0", "an interrupted run is listed and not counted"
    shown = world.run("reconcile", "--quiet")
    assert (shown.code, shown.stdout) == (0, "")


def test_people_see_the_lines_of_a_stopped_run(make_world: MakeWorld) -> None:
    world = make_world()
    sold(world)
    script = _STOP_AFTER_THE_WRITE.format(module="redis", name="RedisLedger", number=int(signal.SIGTERM))
    run = world.run("reconcile", "--quiet", script=script)
    assert run.code == 143
    assert all(any(symbol in line for line in run.stdout.splitlines()) for symbol in SYMBOLS)


@pytest.mark.parametrize("command", ["reconcile", "auto-manage"])
def test_a_run_that_never_began_carries_its_id(world: World, command: str) -> None:
    run = world.run(command, "--json", "--run-id", "MINE", "--deadline", "soon")
    assert (run.code, json.loads(run.stdout)["runId"]) == (2, "MINE")


@pytest.mark.parametrize("command", ["reconcile", "auto-manage"])
def test_a_run_stopped_while_it_reads_carries_its_id(world: World, command: str) -> None:
    world.broker.fault("account", "hang")
    args = (command, "--json", "--run-id", "MINE")
    process, end = world.start(*args), time.monotonic() + 10
    while not world.broker.requests and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=20)
    run = world.finished(process.returncode, stdout, stderr, 0.0, args)
    assert (run.code, run.document["runId"], run.document["ok"]) == (143, "MINE", False)
    assert "interrupted" in stderr
