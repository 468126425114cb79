"""The simulation's seeds of every run of the suite; a failing seed is named with the command that replays it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from ghostclean.core.inputs import Policy

from .__main__ import failures
from .desk import TICKS, desk
from .office import Office
from .play import Play, play
from .scene import Scene

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


def test_what_a_run_has_closed_keeps_its_orders_while_another_trade_is_decided_again() -> None:
    """The app touches a trade that never filled just when the one beside it was closed, of the same size."""
    scene = Scene(1, lambda line: None)
    office = Office(scene, "a", Policy(), one_text=False)
    app, store, world = office.app, office.store, scene.world
    exited, never = app.new("AAA"), app.new("AAA")
    never.qty = exited.qty
    for truth in (exited, never):
        app.enter(truth, -3600.0, bracket=True)
        app.insert(truth)
    world.fill(exited.entry, exited.qty, t=-3599.0)
    world.fill(exited.exits[0], exited.qty, t=-3000.0)
    world.end(never.entry, "expired", t=-3000.0)
    sold = app.new("AAA")  # what a hand sold asks for the closed records
    sold.qty = exited.qty + 1
    world.fill(app.enter(sold, -7200.0, bracket=False), sold.qty, t=-7199.0)
    app.insert(sold)
    app.hand_exit(sold, sold.qty, t=-2000.0)
    judged = store.on_write
    store.on_write = lambda done: (judged(done), app.edit(never.id) if done.change.trade_id == exited.id else None)
    assert office.reconcile({}).closed == 3
    assert store.records[exited.id]["closeReason"] == "take_profit"
    assert store.records[never.id]["closeReason"] == "never_filled:expired"


@pytest.mark.parametrize("act", [play, partial(desk, ticks=12)], ids=["runs", "desk"])
def test_a_seed_is_one_world(act: Callable[..., None]) -> None:
    """Replay: the same seed says the same, line by line."""
    told: list[list[str]] = [[], []]
    for lines in told:
        act(7, lines.append)
    assert told[0] == told[1]
    assert len(told[0]) > 5
