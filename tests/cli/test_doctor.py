"""What the doctor tries beside settings and rights: memory, room, files, distance, and each part in its own time."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ghostclean.app.operate.doctor import Check, _distance
from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, LEDGER_KEY, World, long
from tests.servers import redis_server


def checks(world: World, name: str, **more: str) -> list[tuple[bool | None, str]]:
    """The checks of that part: their marks, and what was found with the cure."""
    document: Any = world.run("doctor", "--json", **more).document
    return [(c["ok"], f"{c['found']}; {c['cure']}") for c in document["checks"] if c["name"] == name]


def worst(found: list[tuple[bool | None, str]], mark: bool | None) -> str:
    """The one check with that mark."""
    [text] = [text for ok, text in found if ok is mark]
    return text


def test_a_server_that_drops_keys_is_a_warning(world: World) -> None:
    with redis_server(None, "--maxmemory-policy", "allkeys-lru") as url:
        found = [*checks(world, "ledger", REDIS_URL=url), *checks(world, "state", REDIS_URL=url)]
    warnings = {text for ok, text in found if ok is None}
    assert len(warnings) == 1, found
    [text] = warnings
    assert "drops keys when its memory is full (maxmemory-policy allkeys-lru)" in text
    assert text.endswith("CONFIG SET maxmemory-policy noeviction")
    [missing] = [text for ok, text in found if ok is False]
    assert missing.startswith("there is no ledger at ")


def test_a_full_server_is_known_before_the_night(world: World) -> None:
    with redis_server(None, "--maxmemory", "1") as url:
        assert "the server is out of memory" in str(checks(world, "state", REDIS_URL=url))


def test_the_doctor_changes_nothing(make_world: MakeWorld) -> None:
    for layout in ("string", "hash"):
        world = make_world(layout)
        world.ledger(long("a", "AAPL", alpacaOrderId=world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)["id"]))
        assert world.inside().exit_code == 0
        before = {key: world.redis.dump(key) for key in world.redis.keys("*") if b"fence" not in key}
        with world.untouched():
            run = world.run("doctor", "--json")
        assert run.code == 0, [check for check in run.document["checks"] if check["ok"] is False]
        assert {key: world.redis.dump(key) for key in world.redis.keys("*") if b"fence" not in key} == before


def test_a_file_with_a_second_name_is_said_before_it_must_be_written(make_world: MakeWorld) -> None:
    world = make_world("file")
    before = set(world.folder.iterdir())
    assert [ok for ok, _ in checks(world, "ledger")] == [True, True, True]
    os.link(world.folder / "trades.json", world.folder / "second.json")
    assert "a hard link" in worst(checks(world, "ledger"), False)
    new = {path.name for path in set(world.folder.iterdir()) - before}
    assert new <= {"second.json", "trades.json.lock", "state.db", ".local"}


@pytest.mark.parametrize(
    ("setting", "part"),
    [("XDG_STATE_HOME", "spool"), ("GHOSTCLEAN_METRICS_FILE", "metrics")],
)
def test_what_is_written_on_this_machine_is_tried(world: World, tmp_path: Path, setting: str, part: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = checks(world, part, **{setting: str(blocked / "below")})
    assert worst(found, False), found
    free = tmp_path / "free"
    free.mkdir()
    assert [ok for ok, _ in checks(world, part, **{setting: str(free / "below")})] == [True]
    assert list(free.iterdir()) == []


def test_a_silent_ledger_leaves_the_others_their_time(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        run = world.run("doctor", "--json", GHOSTCLEAN_LEDGER=f"redis://127.0.0.1:{port}/0#{LEDGER_KEY}")
    marks = {(check["name"], check["ok"]) for check in run.document["checks"]}
    assert run.code == 1
    assert ("ledger", False) in marks
    assert {("state", True), ("broker", True), ("account", True)} <= marks
    assert {name for name, ok in marks if ok is False} == {"ledger"}
    assert run.seconds < 40


@pytest.mark.parametrize(("latency", "mark"), [(0.002, True), (0.12, True), (0.2, None), (2.0, None), (4.0, False)])
def test_a_far_server_is_weighed_against_the_deadlines(latency: float, mark: bool | None) -> None:
    """100 ms a call leave auto-manage's three seconds enough, 200 ms don't."""
    check: Check = _distance("redis://far:6379/0", latency)
    assert check.ok is mark
    assert (f"{10 * latency:.1f} s of a quiet run" in check.found) == (mark is not True)
    assert bool(check.cure) == (mark is not True)


@pytest.mark.parametrize("layout", ["string", "file"])
def test_the_cause_of_a_failed_run_outlives_its_mail(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.broker.fault("account", 500)
    run = world.reconcile()
    assert run.code == 3
    manage = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1")
    assert manage.document["detail"]
    status = world.status()
    listed = status["reconcileTelemetry"]["runs"]
    assert [row["detail"] for row in listed if row["runId"] == run.document["runId"]] == [run.document["detail"]]
    assert status["autoManageTelemetry"]["runs"][0]["detail"] == manage.document["detail"]
    world.broker.clear_faults()
    world.reconcile()
    assert world.status()["reconcileTelemetry"]["runs"][0]["detail"] is None


def test_the_last_line_says_how_it_went(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.ledger(long("a", "AAPL", alpacaOrderId=world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)["id"]))
    assert world.inside().exit_code == 0
    run = world.run("doctor", AUTO_MANAGE_ENABLED="yes", ALPACA_LIVE_TRADE="1")
    lines = run.stdout.splitlines()
    assert (run.code, run.stderr) == (0, "")
    assert lines[-1] == f"all {len(lines) - 1} checks passed, {run.stdout.count('note ')} with a note"
    for name, off in (("AUTO_MANAGE_ENABLED", "off"), ("ALPACA_LIVE_TRADE", "paper")):
        [line] = [line for line in lines if f"{name} = {off}, because of the word" in line]
        assert line.startswith("note ")
        assert line.endswith(f" - only {name}=true turns it on")
    world.broker.fault("account", 401)
    failed = world.run("doctor")
    assert (failed.code, failed.stderr) == (1, f"ghostclean: 1 of {len(failed.stdout.splitlines())} checks failed\n")


def test_a_bad_line_of_the_file_is_one_line_in_every_command(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world("file")
    file = tmp_path / "bad.env"
    file.write_text(f'GHOSTCLEAN_GRACE=1\nset -a\nALPACA_SECRET_KEY="{"x" * 20}\n')
    said = f"ghostclean: {file} cannot be read from line 2 on: nothing was done; "
    commands = ("reconcile", "auto-manage", "status", "gate", "explain a", "history", "undo --last")
    for command in commands:
        run = world.run(*command.split(), "--env-file", str(file))
        assert (run.code, run.stdout, run.stderr.count("\n")) == (2, "", 1), command
        assert run.stderr.startswith(said)
    doctor = world.run("doctor", "--env-file", str(file))
    assert (doctor.code, len(doctor.stdout.splitlines())) == (1, 1)
    fleet = world.run("fleet", str(tmp_path), "reconcile")
    assert (fleet.code, "cannot be read from line 2 on" in fleet.stdout + fleet.stderr) == (2, True)
