"""What a kill test does: kill a run, let the ordinary next one work, judge; also the long run by hand."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers import redis_server

from .scene import Scene, build_broker, right_end

PAIRS = (
    ("string", "redis"),
    ("hash", "redis"),
    ("file", "sqlite"),
    ("file", "redis"),
    ("string", "sqlite"),
    ("long", "redis"),
)
DEADLINE = 20.0
KILLED = -9


def kill_and_repair(scene: Scene, right: Any, **how: Any) -> int:
    """One killed run, one ordinary run after it; returns the first one's exit code."""
    began = time.monotonic()
    first = scene.run(**how)
    assert first.code in (0, KILLED), first.stderr
    left = scene.lock_left()
    assert left <= DEADLINE + 10 - (time.monotonic() - began), "the dead run's lock outlives its deadline by far"
    if left:
        scene.lock_expires()
    repaired = scene.run()
    assert repaired.code == 0, repaired.stdout + repaired.stderr
    scene.judge_end(right)
    raw = scene.raw()
    assert scene.run().code == 0
    assert scene.raw() == raw, "a quiet run wrote"
    return first.code


def kill_at_random(make: Callable[..., Scene], seed: int, count: int, pairs: Any = PAIRS) -> int:
    """Kills at random instants of a run; returns how many runs really died."""
    rng = random.Random(seed)
    known: dict[Any, Any] = {}
    dead = 0
    for _ in range(count):
        pair = rng.choice(pairs)
        if pair not in known:
            reference = make(*pair)
            began = reference.run("--dry-run").seconds
            known[pair] = (right_end(reference)[0], began)
        right, seconds = known[pair]
        scene = make(*pair)
        dead += kill_and_repair(scene, right, kill_after=rng.uniform(0.0, seconds * 1.6)) == KILLED
    return dead


def by_hand(kills: int, seed: int) -> None:
    """`python -m tests.crash --kills 300`."""
    broker, records = build_broker()
    began = time.monotonic()
    with redis_server() as url, tempfile.TemporaryDirectory() as folder:

        def make(layout: str, state_kind: str) -> Scene:
            return Scene(broker, records, url, Path(folder), layout, state_kind)

        dead = kill_at_random(make, seed, kills)
        effects = 0
        for pair in PAIRS:
            right, names = right_end(make(*pair))
            for at in range(1, len(names) + 1):
                for how in ("kill_before", "kill_after"):
                    kill_and_repair(make(*pair), right, fault={"at": at, "how": how})
                    effects += 1
    broker.__exit__(None, None, None)
    print(f"{kills} kills at random instants ({dead} died before their end), {effects} at effects, "
          f"0 effects lost or doubled, {time.monotonic() - began:.1f} s")  # fmt: skip
