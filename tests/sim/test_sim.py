"""5,000 seeds of the simulation; a failing seed is named with the command that replays it."""

from __future__ import annotations

import pytest

from .__main__ import failures

SEEDS = 5000
STRETCH = 250


@pytest.mark.parametrize("first", range(0, SEEDS, STRETCH))
def test_every_oracle_holds(first: int) -> None:
    found = failures(first, STRETCH)
    assert not found, "\n".join(f"python -m tests.sim --seed {seed} -v: {why}" for seed, why in found)


def test_a_seed_is_one_world() -> None:
    """Replay: the same seed says the same, line by line."""
    from .play import play

    told: list[list[str]] = [[], []]
    for lines in told:
        play(7, lines.append)
    assert told[0] == told[1]
    assert len(told[0]) > 5
