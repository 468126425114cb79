"""The fleet's work on a real Redis, done by real RQ workers, of which one is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import rq

from tests.cli.fleets import Fleet, by_name, ghost
from tests.cli.world import KEY, SENTINEL, Run

Work = Callable[..., "subprocess.Popen[str]"]


class Station:
    """The scheduler's side: `tick` enqueues, `look` reads what came."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet, self.url = fleet, url
        self.workers: list[subprocess.Popen[str]] = []

    def tick(self, *args: str) -> Run:
        return self.fleet.run("reconcile", "--json", "--queue", self.url, *args)

    def look(self, *args: str) -> Run:
        return self.fleet.run("status", "--json", "--queue", self.url, *args)

    def work(self, *options: str, **more: str) -> subprocess.Popen[str]:
        """A plain worker, with the environment of its machine."""
        env = self.fleet.station.environment(RQ_REDIS_URL=self.url, **more)
        program = [str(Path(sys.executable).parent / "rq"), "worker", "ghostclean", *options]
        worker = subprocess.Popen(
            program, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.workers.append(worker)
        return worker

    def work_off(self, **more: str) -> str:
        """What one worker does until the queue is empty; its log."""
        said, _ = self.work("--burst", **more).communicate(timeout=60)
        self.fleet.station.said.append(said)
        return said

    def until(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not wanted(rows := by_name(self.look())):
            assert time.monotonic() < end, rows
            time.sleep(0.3)
        return rows


@pytest.fixture
def station(fleet: Fleet, redis_url: str) -> Iterator[Station]:
    """A queue that is empty; its workers are ended with the test."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        made = Station(fleet, redis_url)
        yield made
        for worker in made.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
        for key in client.scan_iter():
            assert SENTINEL not in _spelled(client, key), key


def _spelled(client: Any, key: bytes) -> str:
    """All that a key holds, what RQ compresses included."""
    if client.type(key) != b"hash":
        return repr(key) + repr(client.dump(key))
    values = client.hgetall(key)
    return repr(key) + repr([_inflated(value) for value in values.values()])


def _inflated(value: bytes) -> bytes:
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value


def states(run: Run) -> dict[str, str]:
    return {name: row["result"] for name, row in by_name(run).items()}


def test_what_is_enqueued_is_done_by_whoever_holds_the_files(station: Station, tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        ghost(station.fleet.add(name))

    enqueued = station.tick("--source", "cron", "--deadline", "20s")

    assert (enqueued.code, states(enqueued)) == (0, {"alpha": "enqueued", "beta": "enqueued"})
    assert enqueued.document["notes"] == [
        "no worker listens to the queue: start `rq worker ghostclean` where the env files are"
    ]
    assert states(station.look()) == {"alpha": "queued", "beta": "queued"}
    assert all(world.broker.requests == [] for world in station.fleet.worlds.values())

    moved = tmp_path / "elsewhere"
    station.fleet.folder.rename(moved)
    log = station.work_off(GHOSTCLEAN_FLEET=str(moved), ALPACA_API_KEY="of-the-worker", ALPACA_SECRET_KEY="x")
    moved.rename(station.fleet.folder)

    assert "Job OK" in log
    for name, world in station.fleet.worlds.items():
        assert world.trade("t-ghost")["status"] == "CLOSED"
        assert world.runs()[0]["source"] == "cron"
        assert {request.headers["APCA-API-KEY-ID"] for request in world.broker.requests} == {KEY + name}
    done = by_name(station.look("--check"))
    assert {row["exitCode"] for row in done.values()} == {0}
    assert done["alpha"]["document"]["outcome"] == {
        "exitCode": 0,
        "result": "ok",
        "said": "1 checked, 1 closed",
        "detail": None,
    }


def test_an_account_has_one_job_at_a_time(station: Station) -> None:
    for name in ("alpha", "beta"):
        station.fleet.add(name)

    station.tick("--only", "alpha")
    again = station.tick()
    other = station.fleet.run("auto-manage", "--json", "--queue", station.url)

    assert states(again) == {"alpha": "kept", "beta": "enqueued"}
    assert "not enqueued again: reconcile queued for" in by_name(again)["alpha"]["said"]
    assert states(other) == {"alpha": "kept", "beta": "kept"}
    station.work_off()
    assert [len(world.runs()) for world in station.fleet.worlds.values()] == [1, 1]
    assert states(station.tick()) == {"alpha": "enqueued", "beta": "enqueued"}
    waiting = by_name(station.look())["alpha"]
    assert waiting["result"] == "queued"
    assert "before: reconcile" in waiting["said"]


def test_auto_manage_goes_through_the_queue_too(station: Station) -> None:
    ghost(station.fleet.add("alpha"))

    station.fleet.run("auto-manage", "--dry-run", "--queue", station.url)
    station.work_off()

    row = by_name(station.look())["alpha"]
    assert (row["result"], row["document"]["command"]) == ("SKIP", "auto-manage")
    assert "disabled: 0 checked" in row["said"]
    assert station.fleet.worlds["alpha"].trade("t-ghost")["status"] == "OPEN"


def test_what_fails_is_told_with_the_outcome(station: Station) -> None:
    for name in ("alpha", "beta", "gamma"):
        station.fleet.add(name)
    station.fleet.worlds["alpha"].broker.fault("*", 500)
    station.tick("--deadline", "4s")
    (station.fleet.folder / "beta.env").rename(station.fleet.folder / "beta.hidden")
    station.work_off()
    (station.fleet.folder / "beta.hidden").rename(station.fleet.folder / "beta.env")

    looked, checked = station.look(), station.look("--check")

    rows = by_name(looked)
    assert looked.code == 0
    assert [row["name"] for row in looked.document["accounts"]] == ["beta", "alpha", "gamma"]
    assert rows["alpha"]["result"] == "broker_truth_failed"
    assert rows["beta"]["result"] == "bad_settings"
    assert re.search(
        rf"the worker on \S+ has no {station.fleet.folder}/beta\.env: nothing was done", rows["beta"]["said"]
    )
    assert (checked.code, by_name(checked)["alpha"]["exitCode"], by_name(checked)["gamma"]["exitCode"]) == (2, 3, 0)


def test_what_nobody_works_off_grows_stale(station: Station) -> None:
    station.fleet.add("alpha", GHOSTCLEAN_INTERVAL="1s")
    station.fleet.add("beta")
    station.tick()
    time.sleep(2.5)

    run = station.look("--check")

    assert (run.code, states(run)) == (1, {"alpha": "stale", "beta": "queued"})


def test_a_broken_file_is_not_enqueued(station: Station) -> None:
    station.fleet.add("alpha")
    station.fleet.write("beta", GHOSTCLEAN_LEDGER="file:b.json", GHOSTCLEAN_GRACE="soon")

    run = station.tick()

    assert (run.code, states(run)) == (2, {"alpha": "enqueued", "beta": "bad_settings"})
    assert states(station.look()) == {"alpha": "queued", "beta": "bad_settings"}


def test_a_queue_that_is_down_is_exit_4(fleet: Fleet) -> None:
    fleet.add("alpha")

    for command in ("reconcile", "status"):
        run = fleet.run(command, "--json", "--queue", f"redis://:{SENTINEL}@127.0.0.1:1/0")
        assert (run.code, run.document["error"]) == (4, "queue_failed")
        assert "Cure:" in run.document["detail"]
        assert len(run.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_worker_that_is_killed_in_mid_job_leaves_nothing_stuck(station: Station) -> None:
    hanging = {name: station.fleet.add(name) for name in ("alpha", "beta")}
    for world in hanging.values():
        ghost(world)
        world.broker.fault("account", "delay", seconds=30, times=1)
    station.work()
    station.work()
    station.tick("--deadline", "10s")
    _until(lambda: all(world.broker.requests for world in hanging.values()))
    _kill_whoever_does("reconcile alpha", station.url)
    assert states(station.tick()) == {"alpha": "kept", "beta": "kept"}

    rows = station.until(lambda rows: rows["alpha"]["result"] == "lost" and rows["beta"]["result"] != "running")
    assert rows["beta"]["result"] == "broker_truth_failed"
    assert "is gone" in rows["alpha"]["said"]
    assert hanging["alpha"].trade("t-ghost")["status"] == "OPEN"

    again = station.tick("--deadline", "20s")

    assert states(again) == {"alpha": "enqueued", "beta": "enqueued"}
    assert "the job before is lost" in by_name(again)["alpha"]["said"]
    station.until(lambda rows: all(row["result"] == "ok" for row in rows.values()))
    assert {world.trade("t-ghost")["status"] for world in hanging.values()} == {"CLOSED"}


def _kill_whoever_does(job: str, url: str) -> None:
    """The worker and the process that works for it, which has a session of its own."""
    with redis.Redis.from_url(url) as client:
        (pid,) = [worker.pid for worker in rq.Worker.all(client) if worker.get_current_job().description == job]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    for one in (pid, *map(int, children)):
        os.kill(one, signal.SIGKILL)


def _until(seen: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.05)
