"""`python -m tests.sim --seeds 1000000 [--jobs 2] [--first 0]`, or `--seed N -v` to watch one."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor

from .play import play

_BATCH = 250
_TOLD = 200  # batches


def failures(first: int, count: int) -> list[tuple[int, str]]:
    """The seeds of a stretch that break an oracle, with what they broke."""
    found = []
    for seed in range(first, first + count):
        try:
            play(seed)
        except Exception as error:  # noqa: BLE001 - whatever broke belongs to its seed
            found.append((seed, f"{type(error).__name__}: {error}"))
    return found


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.sim")
    options.add_argument("--seed", type=int)
    options.add_argument("--seeds", type=int, default=5000)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("-v", "--verbose", action="store_true")
    asked = options.parse_args()
    if asked.seed is not None:
        try:
            play(asked.seed, print if asked.verbose else lambda line: None)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            return 1
        print(f"seed {asked.seed}: all oracles hold")
        return 0
    began = time.monotonic()
    starts = range(asked.first, asked.first + asked.seeds, _BATCH)
    sizes = [min(_BATCH, asked.first + asked.seeds - start) for start in starts]
    bad: list[tuple[int, str]] = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        for batch, found in enumerate(pool.map(failures, starts, sizes), 1):
            if batch % _TOLD == 0:
                print(f"{batch * _BATCH} seeds after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            for seed, why in found:
                print(f"seed {seed}: {why}\n  replay: python -m tests.sim --seed {seed} -v", flush=True)
            bad += found
    seconds = time.monotonic() - began
    print(
        f"{asked.seeds} seeds, {len(bad)} failed, {seconds:.1f} s, "
        f"{asked.seeds / seconds:.0f} seeds/s on {asked.jobs} core(s)"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
