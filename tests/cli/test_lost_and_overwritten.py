"""What was written and is no more: closes that the app overwrote, and a state that has lost its memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, Record, World, long


def vanished(n: int) -> Record:
    return long(f"v{n}", f"SYM{n}", 10, 100, 95, openedAt=THREE_DAYS_AGO)


def live(world: World, ticker: str = "AAPL") -> Record:
    return long(ticker.lower(), ticker, alpacaOrderId=world.broker.open_trade(ticker, 10, 180, at=DAY_AGO)["id"])


def overwritten_notes(notes: list[str]) -> list[str]:
    return [note for note in notes if "overwritten" in note]


@pytest.mark.parametrize("layout", ["string", "file"])
def test_closes_that_a_blind_set_undoes_are_recognised_and_counted_once(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    old = [live(world), vanished(1), vanished(2), vanished(3)]
    world.ledger(*old)
    first = world.reconcile("--run-id", "first")
    assert (first.code, first.document["closed"]) == (0, 3)
    for run_id in ("second", "third"):
        world.ledger(*old)  # the app writes what it read long ago
        again = world.reconcile("--run-id", run_id)
        assert (again.code, again.document["closed"]) == (0, 3), again.document["detail"]
        assert "run" in again.row("v1")["reason"]
        assert "the app overwrote that close" in again.row("v1")["reason"]
        [note] = overwritten_notes(again.document["notes"])
        assert "SYM1 v1, SYM2 v2, SYM3 v3" in note
    assert world.summary()["totalClosed"] == "3"
    assert world.reconcile().document["closed"] == 0


def test_new_closes_beside_overwritten_ones_still_meet_the_breaker(make_world: MakeWorld) -> None:
    world = make_world("file")
    old = [live(world), *(vanished(n) for n in (1, 2, 3))]
    world.ledger(*old)
    world.reconcile()
    world.ledger(*old, vanished(4))
    run = world.reconcile()
    assert (run.code, run.document["error"], run.document["closed"]) == (5, "mass_close_stopped", 0)


def test_a_trade_that_an_undo_put_back_is_not_called_overwritten(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.ledger(live(world), vanished(1))
    world.reconcile("--run-id", "first")
    world.run("undo", "first")
    run = world.reconcile()
    assert overwritten_notes(run.document["notes"]) == []


def test_a_proven_close_that_was_overwritten_is_said_too(make_world: MakeWorld) -> None:
    world = make_world("file")
    old = [live(world), live(world, "MSFT")]
    world.broker.sell("MSFT", 10, "187.40", at=YESTERDAY)
    world.ledger(*old)
    assert world.reconcile("--run-id", "first").verdicts()["msft"] == "exited"
    world.ledger(*old)
    again = world.reconcile()
    assert "run first has closed it" in again.row("msft")["reason"]
    assert overwritten_notes(again.document["notes"])


def test_a_state_that_lost_its_memory_starts_as_at_first_contact(make_world: MakeWorld) -> None:
    world = make_world("file")
    marked = long("m", "SYM1", alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO, autoManage={"lastRunId": "am-1"})
    world.ledger(marked)
    run = world.reconcile()
    assert (run.code, run.document["closed"]) == (5, 0)
    [note] = [note for note in run.document["notes"] if "remembers nothing" in note]
    assert "pin, journal and breaker count are gone" in note
    assert world.recall("pin") == {}


def evict(world: World) -> dict[str, str]:
    """A Redis that was full: every key of ghostclean is gone, the ledger is not."""
    world.redis.delete(*world.redis.keys("ghostclean:*"), *world.redis.keys("telemetry:*"))
    return {}


def delete(world: World) -> dict[str, str]:
    """The file of the state, and what SQLite keeps beside it."""
    for path in world.folder.glob("state.db*"):
        path.unlink()
    return {}


def move_home(world: World) -> dict[str, str]:
    """Another user, container or machine: the default place of the state is empty there."""
    (home := world.folder / "elsewhere").mkdir()
    return {"HOME": str(home)}


@pytest.mark.parametrize(
    ("layout", "lose"),
    [("string", evict), ("hash", evict), ("file", delete), ("file", move_home)],
    ids=["evicted, string", "evicted, hash", "deleted", "moved HOME"],
)
def test_however_the_state_was_lost_the_next_run_says_so_once(
    make_world: MakeWorld, layout: str, lose: Callable[[World], dict[str, str]]
) -> None:
    world = make_world(layout)
    if lose is move_home:
        del world.env["GHOSTCLEAN_STATE"]
    world.ledger(live(world))
    assert world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1").code == 0
    assert "autoManage" in world.trade("aapl")
    home = lose(world)

    def said() -> list[str]:
        notes = world.reconcile(**home).document["notes"]
        return [note for note in notes if "pin, journal and breaker count are gone" in note]

    assert len(said()) == 1
    assert said() == []


def test_a_ledger_without_our_marks_is_just_new(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.ledger(live(world))
    assert not [note for note in world.reconcile().document["notes"] if "remembers nothing" in note]
