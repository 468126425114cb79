"""The fault matrix: every read of a run, broken in every way, with live trades and ghosts present.

Always: no live trade closed, no totals or confirmations moved by a failed read, the right exit
code, a recorded failed run, an end in time, and the next quiet run
closes what is left. All cells run in this process on the real adapters over HTTP; a sample of
them runs as a subprocess (all of them with GHOSTCLEAN_FULL_MATRIX=1).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.cli.troubled import LIVE, MISS, MISSED, PROVEN, UNPROVEN, closed, troubled
from tests.cli.world import World
from tests.timing import SLACK

MakeWorld = Callable[..., World]

KINDS: list[Any] = [
    "refused", "reset", "timeout", "hang", "trickle", 401, 403, 404, 408, 429, 500, 502, 503, 504,
    "html", "empty", "cut", "short", "wrong_type", "[]", "redirect", "duplicate_page", "stale_page",
]  # fmt: skip
SLOW = {"timeout", "hang", "trickle"}
WRONG = {"wrong_type", "[]"}  # complete answers that the API cannot have given to a look-up


def _open(request: Any) -> bool:
    return bool(request.label == "orders" and request.query["status"] == "open")


BEFORE: dict[str, Any] = {
    "account": "account",
    "orders-1": lambda r: _open(r) and not r.is_next_page,
    "orders-2": lambda r: _open(r) and r.is_next_page,
    "positions": "positions",
}
AFTER: dict[str, Any] = {
    "order": "order",
    "history": lambda r: r.label == "orders" and r.query["status"] == "all",
    "fills": "fills",
}
AGAIN: dict[str, Any] = {"again-account": "account", "again-orders": _open, "again-positions": "positions"}
PLACES: dict[str, Any] = {**BEFORE, **AFTER, **AGAIN}

# What a client cannot tell from a true answer; the run may go on, and must still close nothing live.
BELIEVABLE: dict[str, set[Any]] = {
    "account": {"duplicate_page", "stale_page"},
    "orders-1": {"[]", "duplicate_page", "stale_page"},
    "orders-2": {"stale_page"},
    "positions": {"duplicate_page", "stale_page"},
    "order": {404, "duplicate_page", "stale_page"},
    "history": {"[]", "duplicate_page", "stale_page"},
    "fills": {"[]", "duplicate_page", "stale_page"},
    "again-account": {"duplicate_page", "stale_page"},
    "again-orders": {"[]", "duplicate_page", "stale_page"},
    "again-positions": {"duplicate_page", "stale_page"},
}
# How a status is taken depends on no path: elsewhere one of a kind stands for all of them.
ALL_STATUSES = {"account", "order"}
LIKE_OTHERS = {401, 408, 500, 502, 504}  # as 403 and 503
CELLS = [(place, kind) for place in PLACES for kind in KINDS if place in ALL_STATUSES or kind not in LIKE_OTHERS]


def cell_world(make_world: MakeWorld, place: str, kind: Any) -> World:
    world = make_world("file")
    troubled(world, filler=620 if place == "orders-2" else 0)
    world.broker.fault(PLACES[place], kind, after=1 if place in AGAIN else 0)
    return world


def check(world: World, place: str, kind: Any, outcome: Mapping[str, Any], code: int, before: bytes) -> None:
    """The promises of one cell, whoever ran it."""
    gone = closed(world)
    assert not gone & LIVE
    records = world.store.records()
    assert {i: records[i]["quantity"] for i in LIVE} == {
        "bracket": 10, "no-order": 10, "working": 10, "pending": 10, "shared-1": 30, "shared-2": 20
    }  # fmt: skip
    summary = world.summary()
    assert int(summary["totalClosed"]) == outcome["closed"] == len(gone)
    assert summary["runs"] == "1"
    if kind in BELIEVABLE[place]:
        assert code in (0, 3, 6)
        return
    assert summary["fail"] == "1"
    assert summary["lastOk"] == "false"
    assert world.runs()[0]["ok"] is False
    assert outcome["ok"] is False
    assert world.recall("misses") == {MISSED: MISS}
    if place in BEFORE:
        assert (code, outcome["error"]) == (3, "broker_truth_failed")
        assert world.store.raw() == before
        assert outcome["synced"] == 0
        return
    wrong = place in AFTER and kind in WRONG
    assert (code, outcome["error"]) == ((3, "broker_truth_failed") if wrong else (6, "deadline_exceeded"))
    assert outcome["partial"] is True
    if place in AGAIN:
        assert gone == PROVEN
    elif place == "order":
        assert gone >= PROVEN
        assert "unknown" not in gone
    elif place == "fills":
        assert not gone & UNPROVEN


def converges(world: World) -> None:
    """The next quiet run finishes, and the one after it writes nothing."""
    world.broker.clear_faults()
    assert world.inside().exit_code == 0
    assert closed(world) == PROVEN | UNPROVEN
    with world.untouched():
        assert world.inside().exit_code == 0


@pytest.mark.parametrize(("place", "kind"), CELLS, ids=[f"{place}-{kind}" for place, kind in CELLS])
def test_a_broken_read_closes_no_live_trade(make_world: MakeWorld, place: str, kind: Any) -> None:
    world = cell_world(make_world, place, kind)
    before = world.store.raw()
    # A quarter of it is for writing, which a busy machine needs where something is to be written
    deadline = (1.0 if place in BEFORE else 2.0) if kind in SLOW else 20.0
    began = time.monotonic()
    result = world.inside(deadline=deadline)
    assert time.monotonic() - began < deadline + SLACK
    check(world, place, kind, result.to_dict(), result.exit_code, before)
    if kind not in BELIEVABLE[place]:
        converges(world)


def test_without_any_fault_exactly_the_ghosts_are_closed(make_world: MakeWorld) -> None:
    """What the cells are measured by: the same world, undisturbed."""
    world = make_world("file")
    troubled(world)
    result = world.inside()
    assert result.exit_code == 0
    assert closed(world) == PROVEN | UNPROVEN
    assert world.recall("misses")[MISSED]["count"] == 2
    labels = {request.label for request in world.broker.requests}
    assert labels >= {"account", "orders", "positions", "order", "fills"}
    assert world.broker.count("positions") == 2


SAMPLE = [
    ("account", "refused"), ("orders-1", "cut"), ("orders-2", 502), ("positions", "trickle"), ("positions", 503),
    ("order", "hang"), ("history", "reset"), ("fills", 401), ("again-positions", "timeout"),
    ("again-orders", "redirect"),
]  # fmt: skip
PROCESSES = CELLS if os.environ.get("GHOSTCLEAN_FULL_MATRIX") else SAMPLE


@pytest.mark.parametrize(("place", "kind"), PROCESSES, ids=[f"{place}-{kind}" for place, kind in PROCESSES])
def test_a_broken_read_as_a_process(make_world: MakeWorld, place: str, kind: Any) -> None:
    world = cell_world(make_world, place, kind)
    before = world.store.raw()
    run = world.reconcile("--deadline", "2s")
    assert run.seconds < 2 + SLACK
    check(world, place, kind, run.document, run.code, before)
