"""A fleet of accounts, each with a broker, keys and a ledger of its own, as its operator meets it."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ghostclean import wiring
from ghostclean.api import reconcile
from tests.cli.fleets import FOREIGN, Fleet, by_name, ghost, settled
from tests.cli.world import KEY, SENTINEL, World

# --------------------------------------------------------------------------- what it does


@pytest.mark.parametrize(
    "command",
    [
        ("reconcile", "--dry-run", "--source", "tick"),
        ("reconcile", "--dry-run", "--no-close", "--max", "1"),
        ("auto-manage", "--dry-run"),
        ("status", "--limit", "1"),
        ("doctor",),
    ],
)
def test_each_document_is_that_of_the_command(fleet: Fleet, command: tuple[str, ...]) -> None:
    for name in ("alpha", "beta"):
        world = fleet.add(name)
        ghost(world)
        fleet.command(name, "reconcile", "--dry-run")
    fleet.worlds["beta"].ledger()

    run = fleet.run(*command, "--json")

    assert run.document["command"] == command[0]
    for name, row in by_name(run).items():
        alone = fleet.command(name, *command, "--json")
        ours, theirs = settled(row["document"]), settled(alone.document)
        assert ours == theirs
        assert row["exitCode"] == alone.code


def test_every_account_is_put_in_order(fleet: Fleet) -> None:
    for name in ("alpha", "beta", "gamma"):
        ghost(fleet.add(name))

    run = fleet.run("reconcile", "--quiet")

    assert (run.code, run.stderr) == (0, "")
    assert [line.split()[:3] for line in run.stdout.splitlines()] == [
        [f"{name}:", "closed", "AAPL"] for name in ("alpha", "beta", "gamma")
    ]
    for world in fleet.worlds.values():
        assert world.trade("t-ghost")["status"] == "CLOSED"
        assert len(world.runs()) == 1


@pytest.mark.parametrize("command", ["reconcile", "auto-manage", "status", "doctor"])
def test_a_quiet_fleet_that_is_well_says_nothing(fleet: Fleet, command: str) -> None:
    for name in ("alpha", "beta"):
        fleet.add(name)
    fleet.run("reconcile")

    run = fleet.run(command, "--quiet")

    assert (run.code, run.stdout, run.stderr) == (0, "", "")


def test_a_quiet_fleet_shows_who_is_not_well(fleet: Fleet) -> None:
    for name in ("alpha", "beta"):
        fleet.add(name)
    fleet.run("reconcile", "--only", "alpha")

    run = fleet.run("status", "--quiet")

    (line,) = run.stdout.splitlines()
    assert (run.code, line.split()[:3]) == (0, ["beta", "paper", "stale"])
    assert fleet.run("status", "--quiet", "--check").code == 1


def test_only_those_that_are_named_are_run(fleet: Fleet) -> None:
    for name in ("alpha", "beta", "gamma"):
        fleet.add(name)

    run = fleet.run("reconcile", "--json", "--only", "gamma", "--only", "alpha.env")

    assert sorted(by_name(run)) == ["alpha", "gamma"]
    assert fleet.worlds["beta"].broker.requests == []


def test_options_of_the_command_reach_it(fleet: Fleet) -> None:
    ghost(fleet.add("alpha"))

    dry = fleet.run("reconcile", "--json", "--dry-run", "--source=nightly", "--deadline", "30s")
    with fleet.worlds["alpha"].untouched():
        document = by_name(dry)["alpha"]["document"]
    assert (document["dryRun"], document["source"], document["closed"]) == (True, "nightly", 1)


# --------------------------------------------------------------------------- whose settings


def test_exported_keys_of_somebody_else_reach_no_account(fleet: Fleet) -> None:
    for name in ("alpha", "beta"):
        ghost(fleet.add(name))

    run = fleet.run(
        "reconcile",
        "--json",
        ALPACA_API_KEY=FOREIGN,
        ALPACA_SECRET_KEY=FOREIGN,
        ALPACA_LIVE_TRADE="true",
        GHOSTCLEAN_LEDGER="file:/nowhere/trades.json",
        GHOSTCLEAN_GRACE="90s",
    )

    assert (run.code, run.document["ok"]) == (0, True)
    assert {row["account"] for row in run.document["accounts"]} == {"paper"}
    for name, world in fleet.worlds.items():
        sent = {request.headers["APCA-API-KEY-ID"] for request in world.broker.requests}
        assert sent == {KEY + name}


def test_a_missing_variable_is_not_taken_from_the_environment(fleet: Fleet) -> None:
    fleet.add("alpha")
    fleet.add("beta", ALPACA_API_KEY="", ALPACA_SECRET_KEY="")
    fleet.add("gamma", GHOSTCLEAN_LEDGER="")

    run = fleet.run("reconcile", "--json", ALPACA_API_KEY=FOREIGN, ALPACA_SECRET_KEY=FOREIGN, REDIS_URL="redis://h")

    rows = by_name(run)
    assert (run.code, rows["alpha"]["exitCode"]) == (2, 0)
    assert "ALPACA_API_KEY and ALPACA_SECRET_KEY are not set" in rows["beta"]["detail"]
    assert f"{fleet.folder}/gamma.env names no ledger" in rows["gamma"]["detail"]
    assert run.document["detail"] == "2 of 3 accounts failed: beta (bad_settings), gamma (bad_settings)"


# --------------------------------------------------------------------------- trouble in one account


def test_a_dead_account_and_a_broken_file_stop_no_other(fleet: Fleet) -> None:
    for name in ("alpha", "dead", "gamma"):
        ghost(fleet.add(name))
    fleet.worlds["dead"].broker.fault("*", "hang")
    (fleet.folder / "broken.env").mkdir()

    run = fleet.run("reconcile", "--json", "--jobs", "1", "--deadline", "8s")

    assert [(row["name"], row["exitCode"]) for row in run.document["accounts"]] == [
        ("broken", 2),
        ("dead", 3),
        ("alpha", 0),
        ("gamma", 0),
    ]
    assert (run.code, run.document["error"]) == (2, "bad_settings")
    assert run.seconds < 15
    told = {row["name"]: row["document"] for row in run.document["accounts"]}
    began = {name: told[name]["startedAt"] for name in ("dead", "gamma")}
    # One place for all: the dead account has given it away before its deadline.
    seconds = [float(at[17:23]) + 60 * float(at[14:16]) for at in (began["dead"], began["gamma"])]
    assert seconds[1] - seconds[0] < 7


def test_the_table_has_the_worst_first_and_the_reason(fleet: Fleet) -> None:
    fleet.add("alpha")
    fleet.add("beta").broker.fault("*", 500)
    fleet.add("gamma", ALPACA_LIVE_TRADE="true")

    run = fleet.run("reconcile", "--deadline", "4s")

    lines = run.stdout.splitlines()
    assert run.code == 3
    assert lines[0].split()[:3] == ["beta", "paper", "broker_truth_failed"]
    assert lines[1].split()[:3] == ["gamma", "LIVE", "ok"]
    assert lines[2].split()[:3] == ["alpha", "paper", "ok"]
    assert lines[3:] == ["fleet reconcile: 2 of 3 accounts ok"]
    assert run.stderr.splitlines() == [
        "ghostclean: 1 of 3 accounts failed: beta (broker_truth_failed)",
        "ghostclean: live among paper accounts: gamma",
    ]
    assert fleet.run("reconcile", "--deadline", "4s", "--non-fatal").code == 0


def test_a_locked_account_is_the_only_one_that_waits(fleet: Fleet) -> None:
    for name in ("alpha", "beta"):
        ghost(fleet.add(name))
    with fleet.worlds["beta"].state() as state:
        assert state.acquire("somebody", 60)

        run = fleet.run("reconcile", "--json", "--deadline", "3s")

    assert {row["name"]: row["exitCode"] for row in run.document["accounts"]} == {"alpha": 0, "beta": 7}
    assert run.code == 7


def test_two_files_with_one_ledger_are_refused_before_anything_runs(fleet: Fleet) -> None:
    alpha, beta = fleet.add("alpha"), fleet.add("beta")
    link = fleet.folder.parent / "link"
    link.symlink_to(fleet.station.folder)
    ours = {name: value for name, value in beta.env.items() if name.startswith(("ALPACA_", "GHOSTCLEAN_"))}
    fleet.write("beta", **(ours | {"GHOSTCLEAN_LEDGER": f"file:{link}/alpha/trades.json"}))

    run = fleet.run("reconcile", "--json")

    assert (run.code, run.document["error"], run.document["accounts"]) == (2, "bad_settings", [])
    assert "alpha.env and beta.env name the same ledger: nothing was done" in run.document["detail"]
    assert alpha.broker.requests == beta.broker.requests == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("reconcile", "--run-id", "x"), "--run-id is wrong: a fleet can't take it"),
        (("reconcile", "--allow-mass-close"), "--allow-mass-close is wrong: a fleet can't take it"),
        (("doctor", "--pin"), "--pin is wrong: a fleet can't take it"),
        (("status", "--watch", "5"), "--watch is wrong: a fleet can't take it"),
        (("status", "--env-file", "x.env"), "--env-file is wrong: the files of a fleet are those of its folder"),
        (("reconcile", "--pin"), "No such option: --pin"),
        (("reconcile", "more"), "unexpected extra argument"),
        (("reconcile", "--max", "many"), "it must be a whole number"),
        (("reconcile", "--deadline", "soon"), "--deadline is wrong"),
        (("gate",), "'gate' is not one of"),
        (("reconcile", "--jobs", "0"), "--jobs"),
        (("reconcile", "--only", "nobody"), "has no nobody.env, but alpha"),
        (("doctor", "--queue", "redis://localhost"), "the doctor looks from where it is"),
        (("status", "--limit", "3", "--queue", "redis://localhost"), "only --check goes with it"),
        (("reconcile", "--queue", "localhost"), "--queue is wrong: it must start with redis://"),
    ],
)
def test_what_a_fleet_cannot_take_is_refused_with_a_sentence(fleet: Fleet, args: tuple[str, ...], said: str) -> None:
    world = fleet.add("alpha")

    run = fleet.run(*args, "--json")

    assert (run.code, run.document["error"]) == (2, "bad_settings")
    assert said in run.document["detail"]
    assert len(run.stderr.splitlines()) == 1
    assert world.broker.requests == []


# --------------------------------------------------------------------------- what is said where


def test_each_log_line_names_its_account(fleet: Fleet) -> None:
    for name in ("alpha", "beta"):
        world = fleet.add(name)
        spool = world.folder / "spool"
        fleet.command(name, "reconcile")
        spool.mkdir(exist_ok=True)
        (place,) = list(spool.iterdir()) or [_spooled(world)]
        (place / "00000000000000000001-x.json").write_text("{")

    run = fleet.run("reconcile")
    logged = fleet.run("reconcile", "--log-format", "json", "--verbose")

    assert run.code == 0
    warned = [line for line in run.stderr.splitlines() if ".bad" in line]
    assert sorted(line.split(": ")[1] for line in warned) == ["alpha", "beta"]
    objects = [json.loads(line) for line in logged.stderr.splitlines()]
    assert all(line["account"] in ("alpha", "beta") for line in objects if line["level"] == "debug")


def _spooled(world: World) -> Path:
    folder = wiring.stores(world.settings()).spool.folder  # type: ignore[attr-defined]
    folder.mkdir(parents=True)
    return Path(folder)


def test_github_gets_one_error_and_one_table(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add("alpha")
    fleet.add("beta").broker.fault("*", 500)
    summary = tmp_path / "summary.md"

    run = fleet.run("reconcile", "--json", "--deadline", "4s", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))

    marked = [line for line in run.stderr.splitlines() if line.startswith("::")]
    assert marked == ["::error::ghostclean fleet: 1 of 2 accounts failed: beta (broker_truth_failed)"]
    written = summary.read_text()
    assert written.startswith("### ghostclean fleet: **broker\\_truth\\_failed**\n")
    assert "| account | kind | result | what it came to |" in written
    assert written.index("| beta | paper |") < written.index("| alpha | paper | ok |")


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_terminal_gets_a_table_that_fits(fleet: Fleet, columns: str) -> None:
    import pty

    fleet.add("alpha")
    fleet.write("beta", GHOSTCLEAN_LEDGER="file:b.json", GHOSTCLEAN_GRACE="soon")
    ours, theirs = pty.openpty()
    env = fleet.station.environment(COLUMNS=columns, TERM="xterm")
    program = [sys.executable, "-m", "ghostclean", "fleet", str(fleet.folder), "reconcile"]
    subprocess.run(program, env=env, cwd=fleet.station.folder, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    said = b""
    while chunk := _read(ours):
        said += chunk
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;]*m", "", said.decode())

    assert "account  kind   result        what it came to" in text
    assert max(map(len, text.splitlines())) <= int(columns)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fleet_gives_its_locks_back(fleet: Fleet, number: signal.Signals, code: int) -> None:
    for name in ("alpha", "beta"):
        ghost(fleet.add(name))
    fleet.worlds["alpha"].broker.fault("account", "delay", seconds=2.0)

    process = fleet.station.start("fleet", str(fleet.folder), "reconcile", "--json", "--jobs", "1")
    _wait(lambda: bool(fleet.worlds["alpha"].broker.requests))
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    run = fleet.station.finished(process.returncode, stdout, stderr, 0, ("--json",))

    rows = by_name(run)
    assert (run.code, run.document["exitCode"]) == (code, code)
    assert rows["alpha"]["exitCode"] == 0
    assert fleet.worlds["alpha"].trade("t-ghost")["status"] == "CLOSED"
    assert (rows["beta"]["exitCode"], rows["beta"]["detail"]) == (code, "interrupted before it had an end")
    assert fleet.worlds["beta"].broker.requests == []
    assert fleet.run("reconcile", "--quiet").code == 0


def _wait(until: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_run_gives_its_connections_back(fleet: Fleet) -> None:
    settings = fleet.add("alpha").settings()
    reconcile(settings=settings)
    before = _open_files()
    gc.disable()  # a thousand accounts must not wait for it with their sockets
    try:
        for _ in range(5):
            assert reconcile(settings=settings).exit_code == 0
        _wait(lambda: _open_files() <= before)
    finally:
        gc.enable()


def test_the_sentinel_is_looked_for(fleet: Fleet) -> None:
    fleet.add("alpha")
    fleet.station.said.append(f"a word with {SENTINEL}")
    assert fleet.station.leaks()
    fleet.station.said.clear()
