"""The simulation's seeds of every run of the suite; a failing seed is named with the command that replays it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from .__main__ import failures
from .desk import TICKS, desk
from .play import Play, play

SEEDS, STRETCH = 5000, 250
DESKS, SHORT_DESKS, SHORT = 2, 20, 20


@pytest.mark.parametrize("first", range(0, SEEDS, STRETCH))
def test_every_oracle_holds(first: int) -> None:
    found = failures(play, first, STRETCH)
    assert not found, "\n".join(f"python -m tests.sim --seed {seed} -v: {why}" for seed, why in found)


@pytest.mark.parametrize(
    ("first", "count", "ticks"), [*((n, 1, TICKS) for n in range(DESKS)), (100, SHORT_DESKS, SHORT)]
)
def test_two_ledgers_and_the_owner_of_their_account_leave_each_other_alone(first: int, count: int, ticks: int) -> None:
    found = failures(partial(desk, ticks=ticks), first, count)
    assert not found, "\n".join(f"python -m tests.sim --ticks {ticks} --seed {seed} -v: {why}" for seed, why in found)


@pytest.mark.parametrize("fault", ["error_before", "hang_before", "crash_before"])
def test_whatever_fails_at_first_contact_another_accounts_ledger_is_not_pinned(fault: str) -> None:
    for effect in range(1, 30):
        scene = Play(15)
        office = scene.offices[0]
        store = scene.strangers_ledger(office.store)
        for faults in ({effect: fault}, {}):
            office.reconcile(faults, store=store)
            assert store.pin is None, f"pinned after {fault} at effect {effect}"


@pytest.mark.parametrize("act", [play, partial(desk, ticks=12)], ids=["runs", "desk"])
def test_a_seed_is_one_world(act: Callable[..., None]) -> None:
    """Replay: the same seed says the same, line by line."""
    told: list[list[str]] = [[], []]
    for lines in told:
        act(7, lines.append)
    assert told[0] == told[1]
    assert len(told[0]) > 5
