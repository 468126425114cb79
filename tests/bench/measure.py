"""Times in pairs: A and B in turns within one run, so that a busy machine slows both."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Pair:
    """Medians in seconds, and the median of the ratios of the pairs."""

    ours: float
    theirs: float
    ratio: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.ours * 1000:.0f} / {self.theirs * 1000:.0f} ms)"


def paired(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> Pair:
    """Runs both in turns, after one unmeasured turn each."""
    ours(), theirs()
    turns = [(ours(), theirs()) for _ in range(pairs)]
    return Pair(median(a for a, _ in turns), median(b for _, b in turns), median(a / b for a, b in turns))


def seconds(command: Sequence[str], environment: Mapping[str, str], *, codes: tuple[int, ...] = (0,)) -> float:
    """The wall time of a program that must end well."""
    start = time.perf_counter()
    run = subprocess.run(command, env=dict(environment), cwd="/tmp", capture_output=True, check=False)
    took = time.perf_counter() - start
    if run.returncode not in codes:
        raise RuntimeError(f"{command} ended with {run.returncode}: {run.stderr.decode()[-800:]}")
    return took


def output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a program prints."""
    run = subprocess.run(command, env=dict(environment), cwd=ROOT, capture_output=True, check=False, text=True)
    if run.returncode:
        raise RuntimeError(f"{command} ended with {run.returncode}: {run.stderr[-1500:]}")
    return run.stdout
