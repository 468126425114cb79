"""`python -m tests.sim --seeds 1000000 [--jobs 2] [--first 0]`, or `--seed N -v` to watch one.

`--ticks 200` plays days at a desk instead of single runs; `--sharing` lets trades of one symbol enter
together, and leave beside a stop of theirs.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from .desk import desk
from .play import play

_BATCH = 250
_TOLD_EVERY = 600.0  # seconds


def failures(act: Callable[[int], None], first: int, count: int) -> list[tuple[int, str]]:
    """The seeds of a stretch that break an oracle, with what they broke."""
    found = []
    for seed in range(first, first + count):
        try:
            act(seed)
        except Exception as error:  # noqa: BLE001 - whatever broke belongs to its seed
            found.append((seed, f"{type(error).__name__}: {error}"))
    return found


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.sim")
    options.add_argument("--seed", type=int)
    options.add_argument("--seeds", type=int, default=5000)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--ticks", type=int)
    options.add_argument("--sharing", action="store_true")
    options.add_argument("-v", "--verbose", action="store_true")
    asked = options.parse_args()
    act = partial(desk, ticks=asked.ticks) if asked.ticks else play
    act = partial(act, sharing=asked.sharing)
    how = f" --ticks {asked.ticks}" * bool(asked.ticks) + " --sharing" * asked.sharing
    if asked.seed is not None:
        try:
            act(asked.seed, print if asked.verbose else lambda line: None)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            return 1
        print(f"seed {asked.seed}: all oracles hold")
        return 0
    began = told = time.monotonic()
    starts = range(asked.first, asked.first + asked.seeds, _BATCH)
    sizes = [min(_BATCH, asked.first + asked.seeds - start) for start in starts]
    bad: list[tuple[int, str]] = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        for batch, found in enumerate(pool.map(partial(failures, act), starts, sizes), 1):
            if time.monotonic() - told > _TOLD_EVERY:
                told = time.monotonic()
                print(f"{batch * _BATCH} seeds after {told - began:.0f} s", file=sys.stderr, flush=True)
            for seed, why in found:
                print(f"seed {seed}: {why}\n  replay: python -m tests.sim{how} --seed {seed} -v", flush=True)
            bad += found
    seconds = time.monotonic() - began
    print(
        f"{asked.seeds} seeds, {len(bad)} failed, {seconds:.1f} s, "
        f"{asked.seeds / seconds:.2f} seeds/s on {asked.jobs} core(s)"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
