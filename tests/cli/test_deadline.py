"""The hard deadline: whatever the network does, the process is over in time and what was written is journaled.

Measured from before the process starts; in some runs that is an interpreter with all its imports.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cli.proxy import RedisProxy
from tests.cli.troubled import LIVE, closed, troubled
from tests.cli.world import DAY_AGO, PASSWORD, YESTERDAY, Run, World, long
from tests.program import FRESH
from tests.timing import SLACK

MakeWorld = Callable[..., World]


def ended(world: World, run: Run, seconds: float) -> None:
    """In time, and nothing live was closed."""
    assert run.seconds < seconds + SLACK
    assert run.document["ok"] is False
    assert not closed(world) & LIVE


# --------------------------------------------------------------------------- the broker


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def dripping_server(head: bool) -> Iterator[str]:
    """Sends one byte a second, of the head or of the body."""
    listener = socket.create_server(("127.0.0.1", 0))
    begin = b"" if head else b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(begin)
                    for _ in range(20):
                        connection.sendall(b"H" if head else b" ")
                        time.sleep(1)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def full_backlog() -> Any:
    """A listener that accepts nothing and whose queue is full: connecting hangs, as to a host that drops packets."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    crowd = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
        crowd.append(one)
    return listener, crowd


@pytest.mark.parametrize("kind", ["silent", "dripping-head", "dripping-body", "unreachable"])
def test_a_server_that_gives_no_answer(world: World, kind: str) -> None:
    troubled(world)
    if kind == "unreachable":
        listener, crowd = full_backlog()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        run = world.reconcile("--deadline", "4s", GHOSTCLEAN_TRADING_URL=url)
        for one in (listener, *crowd):
            one.close()
    else:
        server = silent_server() if kind == "silent" else dripping_server(kind == "dripping-head")
        with server as url, world.untouched():
            run = world.reconcile("--deadline", "4s", GHOSTCLEAN_TRADING_URL=url)
    ended(world, run, 4)
    assert (run.code, run.document["error"]) == (3, "broker_truth_failed")
    assert world.summary()["fail"] == "1"
    assert world.runs()[0]["error"] == "broker_truth_failed"


@pytest.mark.parametrize("label", ["account", "positions", "order", "fills"])
@pytest.mark.parametrize("kind", ["trickle", "late"])
def test_an_answer_that_comes_too_late(world: World, label: str, kind: str) -> None:
    troubled(world)
    if kind == "late":
        world.broker.fault(label, "delay", seconds=20.0)
    else:
        world.broker.fault(label, "trickle", interval=1.0)
    run = world.reconcile("--deadline", "4s")
    ended(world, run, 4)
    assert run.code == (3 if label in ("account", "positions") else 6)
    assert run.document["partial"] is (run.code == 6)
    assert world.summary()["fail"] == "1"
    assert int(world.summary()["totalClosed"]) == run.document["closed"] == len(closed(world))
    if run.code == 6:
        assert {"stopped", "unfilled"} <= closed(world)


def test_a_name_look_up_that_hangs(world: World) -> None:
    script = (
        "import socket, time\n"
        "real = socket.getaddrinfo\n"
        "def slow(host, *rest, **more):\n"
        "    if host == 'broker.invalid':\n"
        "        time.sleep(60)\n"
        "    return real(host, *rest, **more)\n"
        "socket.getaddrinfo = slow\n"
    )
    troubled(world)
    with world.untouched():
        run = world.reconcile("--deadline", "4s", GHOSTCLEAN_TRADING_URL="https://broker.invalid", script=script)
    ended(world, run, 4)
    assert run.code == 3
    assert world.summary()["fail"] == "1"


def test_a_name_of_redis_that_hangs(world: World) -> None:
    script = "import socket, time\ndef slow(*rest, **more):\n    time.sleep(60)\nsocket.getaddrinfo = slow\n"
    run = world.reconcile("--deadline", "4s", REDIS_URL=f"redis://:{PASSWORD}@redis.invalid:6379/0", script=script)
    ended(world, run, 4)
    assert (run.code, run.document["error"]) == (4, "state_failed")


def test_the_process_has_really_ended(world: World) -> None:
    """No thread that still waits for an answer keeps the interpreter alive, and no child is left."""
    troubled(world)
    world.broker.fault("positions", "hang")
    began = time.monotonic()
    process = world.start("reconcile", "--json", "--deadline", "1s", **FRESH)
    world.finished(process.wait(timeout=10), *process.communicate(), 0, ())
    assert time.monotonic() - began < 1 + SLACK
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_deadline_shorter_than_the_start_up(world: World) -> None:
    troubled(world)
    with world.untouched():
        run = world.reconcile("--deadline", "10ms", **FRESH)
    assert run.code in (3, 4)
    assert run.seconds < 1 + SLACK  # the interpreter and the imports themselves
    assert not closed(world)


# --------------------------------------------------------------------------- Redis

STEPS = {"lock": 0, "journal": 1, "ledger": 2, "record": 3}  # the record gives the lock back


def held_run(world: World, proxy: RedisProxy, *, step: int, after: bool) -> Run:
    world.env["REDIS_URL"] = proxy.url
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.broker.sell("AAPL", 10, "187.40", at=YESTERDAY)
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"]))
    proxy.hold(lambda words: words[0] in (b"EVAL", b"EXEC"), skip=step, after=after)
    run = world.reconcile("--deadline", "3s")
    assert proxy.held.is_set()
    return run


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", STEPS)
def test_a_redis_that_hangs_in_mid_command(world: World, name: str, after: bool) -> None:
    with RedisProxy(world.redis_url) as proxy:
        run = held_run(world, proxy, step=STEPS[name], after=after)
        assert run.seconds < 3 + SLACK
        written = world.trade("a")["status"] == "CLOSED"
        expected = {"lock": (4,), "journal": (4, 6), "ledger": (4, 6), "record": (4, 0)}[name]
        assert run.code in expected, run.document
        if name in ("lock", "journal"):
            assert not written
        if name == "record":
            assert written
            assert run.document["closed"] == 1
        # What hung is found out and counted by the next run, once
        world.release_dead_lock()
        proxy.release()
        assert world.inside().exit_code == 0
        assert world.trade("a")["closePrice"] == 187.4
        assert world.summary()["totalClosed"] == "1"
        assert [e.outcome for e in world.journal("a") if e.action == "closed"][-1] == "written"
        with world.state() as state:
            assert state.intents() == []
        with world.untouched():
            assert world.inside().exit_code == 0


@pytest.mark.parametrize("command", [b"GET", b"HGETALL", b"SMEMBERS"])
def test_a_redis_that_hangs_while_it_is_read(world: World, command: bytes) -> None:
    with RedisProxy(world.redis_url) as proxy:
        world.env["REDIS_URL"] = proxy.url
        world.ledger(long("a", "AAPL"))
        proxy.hold(lambda words: words[0] == command)
        with world.untouched():
            run = world.reconcile("--deadline", "3s")
        assert proxy.held.is_set()
        assert run.seconds < 3 + SLACK
        assert run.code == 4
        assert run.document["error"] in ("state_failed", "ledger_failed")


def test_a_ledger_that_hangs_while_it_is_read(world: World) -> None:
    with RedisProxy(world.redis_url) as proxy:
        world.env["REDIS_URL"] = proxy.url
        world.ledger(long("a", "AAPL"))
        key = world.env["GHOSTCLEAN_LEDGER_KEY"].encode()
        proxy.hold(lambda words: words[0] == b"GET" and words[1] == key)
        with world.untouched():
            run = world.reconcile("--deadline", "3s")
        assert run.seconds < 3 + SLACK
        assert (run.code, run.document["error"]) == (4, "ledger_failed")
        assert world.summary()["fail"] == "1"


def test_a_killed_runs_lock_ends_within_ten_seconds_of_its_deadline(world: World) -> None:
    world.broker.fault("account", "hang")
    process = world.start("reconcile", "--json", "--deadline", "2s")
    end = time.monotonic() + 10
    while not world.broker.requests and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    left = [world.redis.pttl(key) for key in world.redis.scan_iter(match="*:lock")]
    assert len(left) == 1
    assert 0 < left[0] <= 12_000


@pytest.mark.parametrize("deadline", ["0.1s", "150ms"])
def test_a_deadline_too_short_to_begin_with_blames_no_store(world: World, deadline: str) -> None:
    troubled(world)
    with world.untouched():
        run = world.reconcile("--deadline", deadline, **FRESH)
    assert (run.code, run.document["error"], run.document["closed"]) == (3, "broker_truth_failed", 0)


def test_an_orphan_whose_records_come_too_late_keeps_no_proven_close_back(world: World) -> None:
    unknown = "36a6882b-e44a-4a05-b80f-c0243910c3b9"
    alive = world.broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    ghost = world.broker.open_trade("TSLA", 7, 200, at=YESTERDAY, bracket=(220, 190))
    records = [long("alive", "AAPL", alpacaOrderId=alive["id"]), long("ghost", "TSLA", alpacaOrderId=ghost["id"])]
    world.ledger(*records, long("gone", "IBM", alpacaOrderId=unknown))
    assert world.reconcile().document["closed"] == 1  # without proof, so the next run looks at its record again
    stop = next(leg for leg in world.broker.legs(ghost) if leg["type"] == "stop")
    world.broker.fill(stop, price=190, at=YESTERDAY)
    world.broker.add_position("NVDA", 3, 100)
    world.broker.fault("account", "hang", after=1)  # the second reading uses up all time for reading
    run = world.reconcile("--deadline", "3s")
    assert (run.code, run.document["partial"]) == (6, True)
    assert {row["id"]: row["action"] for row in run.document["results"] if row["id"]}["ghost"] == "closed"
    assert world.trade("ghost")["status"] == "CLOSED"
    assert run.document["orphans"] == 1
