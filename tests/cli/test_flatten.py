"""`reconcile --orphans flatten`: exactly the orphan, only while it trades, and never left worse than found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import THREE_DAYS_AGO, Run, World, orphaned


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return orphaned(make_world("file"))


def flatten(world: World) -> Run:
    world.broker.reset_log()
    return world.reconcile("--orphans", "flatten")


def orphan(run: Run) -> dict[str, Any]:
    return next(row for row in run.document["results"] if row["verdict"] == "orphan")


def hand_made_stop(world: World) -> dict[str, Any]:
    order: dict[str, Any] = world.broker.add_order(
        "AMD", THREE_DAYS_AGO, side="sell", qty=8, type="stop", stop_price=45, time_in_force="gtc", status="new"
    )
    return order


def test_an_orphan_and_the_order_that_holds_it(world: World) -> None:
    stop = hand_made_stop(world)
    row = orphan(flatten(world))
    assert row["action"] == "flattened"
    assert (stop["status"], dict(world.broker.positions)) == ("canceled", {})
    assert world.broker.count("submit") == 1


def test_nothing_is_touched_in_a_closed_market(world: World) -> None:
    stop = hand_made_stop(world)
    world.broker.now = "2026-11-18T23:00:00Z"
    assert orphan(flatten(world))["action"] == "kept"
    assert (stop["status"], world.broker.count("submit"), world.broker.count("cancel")) == ("new", 0, 0)


@pytest.mark.parametrize("answer", [403, 422])
def test_a_refused_sale_gives_the_stop_back(world: World, answer: int) -> None:
    hand_made_stop(world)
    world.broker.fault("submit", answer, times=1)
    row = orphan(flatten(world))
    assert row["action"] == "kept"
    assert "its stop at 45 is back" in row["reason"]
    assert [(o["type"], o["qty"], o["stop_price"]) for o in world.broker.working("AMD")] == [("stop", "8", "45")]
    world.broker.advance(minutes=5)
    world.broker.set_price("AMD", 51)
    assert orphan(flatten(world))["action"] == "flattened"
    assert (dict(world.broker.positions), world.broker.working()) == ({}, [])


def test_a_sale_whose_answer_is_lost_is_one_sale(world: World) -> None:
    world.broker.fault("submit", "lost_answer", times=1)
    assert orphan(flatten(world))["action"] == "flattened"
    assert (world.broker.count("submit"), dict(world.broker.positions)) == (1, {})
