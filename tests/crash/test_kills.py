"""SIGKILL at every effect and at random instants: the ordinary next run completes the work, each effect once."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.timing import SLACK

from .conftest import MakeScene
from .kills import DEADLINE, KILLED, PAIRS, kill_and_repair, kill_at_random
from .scene import Answer, right_end

KILLS = int(os.environ.get("GHOSTCLEAN_TEST_KILLS", "60"))
BATCHES = 6


@pytest.mark.parametrize(
    ("pair", "how"),
    [*((pair, "kill_after") for pair in (*PAIRS[:3], ("long", "redis"))), (PAIRS[0], "kill_before")],
    ids=lambda one: one if isinstance(one, str) else "-".join(one),
)
def test_killed_at_every_effect(make_scene: MakeScene, pair: tuple[str, str], how: str) -> None:
    """After an effect is before the next one, but for what a run does in its own memory between the two."""
    right, effects = right_end(make_scene(*pair))
    assert {name.partition(".")[2] for name in effects} >= {
        "acquire",
        "intend",
        "write",
        "commit",
        "positions",
    }
    for at in range(1, len(effects) + 1):
        assert kill_and_repair(make_scene(*pair), right, fault={"at": at, "how": how}) == KILLED


@pytest.mark.parametrize("pair", [("own", "sqlite"), ("sqlite", "sqlite"), ("postgres", "redis")], ids="-".join)
def test_killed_between_a_record_and_what_is_kept_beside_it(make_scene: MakeScene, pair: tuple[str, str]) -> None:
    right, effects = right_end(make_scene(*pair))
    steps = [at for at, name in enumerate(effects, 1) if name.endswith((".remember", ".write"))]
    assert len(steps) >= 3
    for at in steps:
        assert kill_and_repair(make_scene(*pair), right, fault={"at": at, "how": "kill_after"}) == KILLED


@pytest.mark.parametrize("batch", range(BATCHES))
def test_killed_at_random_instants(make_scene: MakeScene, batch: int) -> None:
    assert kill_at_random(make_scene, 1000 + batch, KILLS // BATCHES) > 0


@pytest.mark.parametrize("how", ["kill_before", "kill_after"])
def test_killed_while_it_repairs(make_scene: MakeScene, how: str) -> None:
    """The run that completes a killed one is killed as well, at every effect of its own."""
    pair = ("string", "redis")
    right, effects = right_end(make_scene(*pair))
    writing = effects.index("RedisLedger.write") + 1
    for at in range(writing - 12, len(effects) + 1):
        scene = make_scene(*pair)
        scene.run(fault={"at": writing, "how": "kill_after"})
        scene.lock_expires()
        scene.run(fault={"at": at, "how": how})
        scene.lock_expires()
        kill_and_repair(scene, right, fault={"at": writing, "how": how})


def test_a_dead_runs_lock_really_ends(make_scene: MakeScene) -> None:
    """Nobody helps: a run with a deadline of one second is dead, and its lock ends within ten more."""
    scene = make_scene()
    began = time.monotonic()
    assert scene.run(deadline="1s", fault={"at": 16, "how": "kill_before"}).code == KILLED
    while (answer := scene.run()).code == 7:
        assert time.monotonic() - began < 11 + SLACK
        time.sleep(0.2)
    assert answer.code == 0
    assert scene.lock_left() <= DEADLINE


def test_the_installed_program_killed_from_outside(make_scene: MakeScene) -> None:
    """No wrapper at all: `python -m ghostclean` as cron starts it, SIGKILL from outside."""
    scene = make_scene()
    right, _ = right_end(make_scene())
    command = [sys.executable, "-c", "from ghostclean.cli import main; raise SystemExit(main())", "reconcile", "--json"]
    for seconds in (0.15, 0.2, 0.22, 0.25, 0.28):
        process = subprocess.Popen(command, env=scene.env(), cwd=scene.home, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
        scene.lock_expires()
    assert scene.run().code == 0
    scene.judge_end(right)


def test_a_paused_run_whose_lock_expired_writes_nothing(make_scene: MakeScene) -> None:
    """Stopped just before its ledger write (and before its commit), overtaken, then continued: fenced, counted once."""
    right, _ = right_end(make_scene())
    for name in ("RedisState.intend", "RedisLedger.write", "RedisState.commit"):
        scene = make_scene()
        answers: list[Answer] = []
        slow = scene.slow_run(name)
        scene.lock_expires()
        overtaking = scene.run()
        assert overtaking.code == 0, overtaking.stdout
        answers.append(slow())
        assert answers[0].code in (0, 7), answers[0].stdout
        assert scene.run().code == 0
        scene.judge_end(right)


def test_a_run_paused_before_its_record_leaves_no_stale_memory(make_scene: MakeScene) -> None:
    """Its record is counted once; what the overtaking run remembers of the trades stands."""
    for pair in (("string", "redis"), ("file", "sqlite")):
        scene = make_scene(*pair)
        slow = scene.slow_run("State.commit")
        scene.lock_expires()
        assert scene.run().code == 0
        remembered = scene.state().recall("verdicts")
        assert slow().code == 0
        assert scene.state().recall("verdicts") == remembered
        assert scene.summary()["runs"] == "2"
