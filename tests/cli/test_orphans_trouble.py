"""`--orphans flatten` while the broker fails: the stop that made room for the sale is never just gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.core.broker import client_id
from ghostclean.errors import StateFailed
from ghostclean.result import Result
from tests.cli.conftest import MakeWorld
from tests.cli.world import THREE_DAYS_AGO, World, long, orphaned
from tests.fakebroker import NEVER
from tests.fakebroker.faults import Match

Row = dict[str, Any]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return orphaned(make_world("file"))


def stop_by_hand(world: World, qty: float = 8, price: float = 45, **fields: Any) -> Row:
    body = {"side": "sell", "qty": qty, "type": "stop", "stop_price": price, "time_in_force": "gtc", "status": "new"}
    order: Row = world.broker.add_order("AMD", THREE_DAYS_AGO, **body | fields)
    return order


def at_request(world: World, match: Match, act: Callable[[], object]) -> None:
    """Does something once, when a request of that kind has been answered."""
    done: list[bool] = []

    def hook(_: object) -> None:
        if not done:
            done.append(True)
            act()

    world.broker.after_request(match, hook)


def goes_dark(world: World, after: Match) -> None:
    """From the first such request on the broker answers nothing any more."""
    at_request(world, after, lambda: world.broker.fault("*", 503))


def flatten(world: World, **options: Any) -> Result:
    return world.inside(orphans="flatten", **options)


def later(world: World, minutes: float = 1) -> None:
    """The broker is back, some time later."""
    world.broker.clear_faults()
    world.broker.reset_log()
    world.broker.advance(minutes=minutes)
    world.broker.set_price("AMD", 51)


def orphan(result: Result) -> Row:
    return next(dict(row) for row in result.to_dict()["results"] if row["verdict"] == "orphan")


def stops(world: World) -> list[tuple[str, str, str]]:
    """The stops that work: quantity, price, time in force."""
    working = world.broker.working("AMD")
    assert all(o["type"] == "stop" for o in working), working
    return [(o["qty"], o["stop_price"], o["time_in_force"]) for o in working]


def sales(world: World) -> list[Row]:
    """Every market order that ever reached the broker for the orphan."""
    return [o for o in world.broker.orders.values() if o["type"] == "market" and o["side"] == "sell"]


STOP = [("8", "45", "gtc")]


# --------------------------------------------------------------------------- at once


@pytest.mark.parametrize("answer", [500, 503, 504, "reset"])
def test_a_sale_that_never_arrived_gives_the_stop_back_at_once(world: World, answer: int | str) -> None:
    stop_by_hand(world)
    world.broker.fault("submit", answer, times=1)
    result = flatten(world)
    row = orphan(result)
    assert (row["action"], result.exit_code) == ("kept", 0)
    assert "its stop at 45 is back" in row["reason"]
    assert (stops(world), sales(world)) == (STOP, [])
    assert world.recall("owed_stops") == {}


@pytest.mark.parametrize(
    ("given", "back"),
    [({"qty": 5}, ("5", "45", "gtc")), ({"time_in_force": "day"}, ("8", "45", "day"))],
    ids=["a part of the shares", "for the day"],
)
def test_the_stop_comes_back_as_it_was(world: World, given: Row, back: tuple[str, str, str]) -> None:
    stop_by_hand(world, **given)
    world.broker.fault("submit", 500, times=1)
    flatten(world)
    assert stops(world) == [back]


def test_a_failure_between_cancel_and_sale_gives_the_stop_back_at_once(world: World) -> None:
    stop_by_hand(world)
    at_request(world, "cancel", lambda: world.broker.fault("positions", 503, times=3))
    result = flatten(world)
    assert "its stop at 45 is back" in orphan(result)["reason"]
    assert (stops(world), sales(world)) == (STOP, [])


def test_the_rest_of_a_sale_that_ended_half_filled_is_protected_at_once(world: World) -> None:
    stop_by_hand(world, time_in_force="day")
    world.broker.quirks.fill_delay = NEVER

    def half() -> None:
        world.broker.fill(sales(world)[0], 3, 51)
        world.broker.set_status(sales(world)[0], "canceled")

    at_request(world, "submit", half)
    flatten(world)
    assert stops(world) == [("5", "45", "day")]
    assert world.broker.positions["AMD"].qty == 5


# --------------------------------------------------------------------------- by the next run


def test_a_broker_that_goes_dark_is_told_in_one_line_and_the_next_run_puts_the_stop_back(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "submit")
    at_request(world, "cancel", lambda: world.broker.fault("submit", 503))
    first = flatten(world, run_id="dark")
    assert (stops(world), sales(world)) == ([], [])
    assert (first.ok, first.error, first.exit_code) == (False, "reconcile_failed", 1)
    line = first.detail or ""
    assert line.startswith("AMD: its stop at 45 for 8 was cancelled for a sale and is not back: ")
    assert line.endswith("; the next run looks the sale up and finishes")
    [told] = [e for e in world.journal() if e.run_id == "dark" and e.action == "flattened"]
    assert (told.outcome, line.removeprefix("AMD: ") in told.reason) == ("left", True)

    later(world)
    second = world.inside()  # without the option
    assert (second.ok, stops(world), sales(world)) == (True, STOP, [])
    assert any("its stop at 45 is back" in note for note in second.notes)
    assert world.broker.count("submit") == 1

    later(world)
    assert world.inside().notes == ()
    assert world.broker.count("submit") == 0


def test_the_next_run_with_the_option_sells_once_the_grace_is_over(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    assert flatten(world).ok is False
    later(world, minutes=10)
    assert orphan(flatten(world))["action"] == "flattened"
    assert (dict(world.broker.positions), world.broker.working(), len(sales(world))) == ({}, [], 1)
    assert world.recall("owed_stops") == {}


def test_a_sale_that_did_arrive_in_the_dark_is_one_sale_and_needs_no_stop(world: World) -> None:
    stop_by_hand(world)
    world.broker.fault("submit", "lost_answer", times=1)
    goes_dark(world, "submit")
    assert flatten(world).ok is False
    assert [o["status"] for o in sales(world)] == ["filled"]
    later(world)
    assert world.inside().ok is True
    assert (dict(world.broker.positions), stops(world), len(sales(world))) == ({}, [], 1)
    assert world.recall("owed_stops") == {}


def test_a_sale_that_still_works_is_neither_sent_again_nor_joined_by_a_stop(world: World) -> None:
    stop_by_hand(world)
    world.broker.quirks.fill_delay = NEVER
    for _ in range(3):
        result = flatten(world)
        later(world, minutes=5)
        assert (orphan(result)["action"], len(sales(world))) == ("kept", 1)
        assert [o["id"] for o in world.broker.working()] == [sales(world)[0]["id"]]
    world.broker.set_status(sales(world)[0], "canceled")
    later(world)
    world.inside()
    assert stops(world) == STOP


def test_a_sale_that_its_name_does_not_find_yet_is_found_among_the_working_orders(world: World) -> None:
    stop_by_hand(world)
    world.broker.quirks.fill_delay = NEVER
    world.broker.fault("submit", "lost_answer", times=1)
    world.broker.fault(lambda request: "by_client_order_id" in request.path, 404)
    assert "in progress" in orphan(flatten(world))["reason"]
    assert [o["id"] for o in world.broker.working()] == [sales(world)[0]["id"]]
    assert len(world.recall("owed_stops")) == 1


def test_a_sale_that_waits_for_the_next_open_is_taken_back(world: World) -> None:
    stop_by_hand(world)
    world.broker.quirks.fill_delay = NEVER
    flatten(world)
    world.broker.now = "2026-11-18T21:30:00Z"
    world.broker.market.tick()
    world.broker.set_status(sales(world)[0], "accepted")
    world.inside()
    assert (stops(world), [o["status"] for o in sales(world)]) == (STOP, ["canceled"])


def test_a_sale_that_expires_gives_the_stop_back_in_the_closed_market(world: World) -> None:
    stop_by_hand(world)
    world.broker.quirks.fill_delay = NEVER
    flatten(world)
    world.broker.now = "2026-11-18T21:30:00Z"
    world.inside()
    assert (stops(world), [o["status"] for o in sales(world)]) == (STOP, ["expired"])


def test_a_cancel_that_comes_late_is_answered_by_the_next_run(world: World) -> None:
    stop = stop_by_hand(world)
    world.broker.quirks.cancel_delay = NEVER
    assert "still" in orphan(flatten(world))["reason"]
    assert sales(world) == []
    world.broker.set_status(stop, "canceled")
    later(world)
    world.inside()
    assert stops(world) == STOP


def test_a_run_that_is_stopped_after_the_cancel_is_finished_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_by_hand(world)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OrderGateway, "close", stopped)
    with pytest.raises(KeyboardInterrupt):
        flatten(world)
    assert stops(world) == []
    later(world)
    world.inside()
    assert stops(world) == STOP


def test_no_stop_is_taken_away_with_too_little_of_the_deadline_left(world: World) -> None:
    stop_by_hand(world)
    assert "less than 20 s" in orphan(flatten(world, deadline=12))["reason"]
    assert (stops(world), world.broker.count("cancel")) == (STOP, 0)


def test_a_run_too_short_to_put_it_back_says_so(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    flatten(world)
    later(world)
    result = world.inside(deadline=3)
    assert (result.error, stops(world)) == ("reconcile_failed", [])
    assert "too little time is left" in (result.detail or "")


def test_a_stop_that_somebody_placed_meanwhile_is_enough(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    flatten(world)
    assert len(world.recall("owed_stops")) == 1
    later(world)
    stop_by_hand(world, price=46)
    assert world.inside().ok is True
    assert stops(world) == [("8", "46", "gtc")]
    assert world.recall("owed_stops") == {}


def test_a_stop_that_the_market_has_passed_is_not_sent_and_fails_every_run(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    flatten(world)
    later(world)
    for _ in range(2):
        world.broker.set_price("AMD", 44)
        result = world.inside()
        assert (result.error, stops(world)) == ("reconcile_failed", [])
        assert "through the market (44)" in (result.detail or "")
    world.broker.set_price("AMD", 51)
    assert world.inside().ok is True
    assert stops(world) == STOP


def test_a_stop_that_never_got_its_cancel_is_left_alone(world: World) -> None:
    stop = stop_by_hand(world)
    world.broker.fault("cancel", 503)
    assert orphan(flatten(world))["action"] == "kept"
    assert len(world.recall("owed_stops")) == 1  # a cancel whose answer was lost may yet arrive
    for minutes in (1, 10):
        later(world, minutes)
        assert world.inside().ok is True
        assert (stops(world), stop["status"]) == (STOP, "new")
    assert world.recall("owed_stops") == {}


@pytest.mark.parametrize("enabled", [None, "1"])
def test_auto_manage_puts_the_stop_back_too(world: World, enabled: str | None) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    flatten(world)
    later(world)
    run = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED=enabled)
    assert (run.code, stops(world)) == (0, STOP)
    assert any("its stop at 45 is back" in note for note in run.document["notes"])


def test_the_stop_of_an_orphan_that_became_a_trade_goes_back_as_well(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    flatten(world)
    later(world)
    world.ledger(long("amd", "AMD", qty=8, entry=50, stop=40))
    world.inside()
    assert stops(world) == STOP


def test_the_name_of_the_sale_is_the_one_of_the_orphan(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    flatten(world)
    [owed] = world.recall("owed_stops").values()
    later(world, minutes=10)
    flatten(world)
    assert [o["client_order_id"] for o in sales(world)] == [client_id(owed["name"], "orphan", 1)]


def test_a_dry_run_sends_and_forgets_nothing(world: World) -> None:
    stop_by_hand(world)
    goes_dark(world, "cancel")
    flatten(world)
    owed = world.recall("owed_stops")
    assert len(owed) == 1
    later(world)
    world.inside(dry_run=True)
    assert (world.broker.count("submit"), world.recall("owed_stops")) == (0, owed)


def test_what_version_0_1_remembered_of_a_sale_is_finished(world: World) -> None:
    """As 0.1 stored it, killed between the cancel and the sale."""
    stop = stop_by_hand(world)
    owed = {
        "name": "bf-amd", "symbol": "AMD", "key": "AMD", "side": "LONG", "crypto": False, "qty": "8", "stop": "45",
        "covered": "8", "target": None, "timeInForce": "gtc", "orders": {stop["id"]: "0"},
        "at": "2026-11-18T14:59:00.000Z",
    }  # fmt: skip
    with world.state() as state:
        state.remember("owed_stops", {"AMD|LONG": owed})
    world.broker.cancel(stop["id"])
    later(world)
    assert world.inside().ok is True
    assert (stops(world), world.recall("owed_stops")) == (STOP, {})


def test_the_stop_and_target_of_an_oco_go_back_together(world: World) -> None:
    world.broker.submit(
        symbol="AMD", side="sell", qty=8, type="limit", time_in_force="gtc", order_class="oco",
        take_profit={"limit_price": 60}, stop_loss={"stop_price": 45},
    )  # fmt: skip
    world.broker.advance(minutes=10)
    world.broker.set_price("AMD", 51)
    world.broker.fault("submit", 500, times=1)
    assert "its stop at 45 is back" in orphan(flatten(world))["reason"]
    working = {(o["type"], o["order_class"], o["qty"]) for o in world.broker.working("AMD")}
    assert working == {("limit", "oco", "8"), ("stop", "oco", "8")}


def test_a_state_that_is_lost_after_the_cancel_gives_the_stop_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_by_hand(world)

    transact = SqliteState._transact

    def lost(state: SqliteState, doing: str, *rest: Any) -> None:
        if doing == "Writing the state":
            raise StateFailed("the state is gone")
        transact(state, doing, *rest)

    at_request(world, "cancel", lambda: monkeypatch.setattr(SqliteState, "_transact", lost))
    assert flatten(world).error == "state_failed"
    assert (stops(world), sales(world)) == (STOP, [])
    monkeypatch.undo()
    later(world)
    assert world.inside().ok is True
    assert (stops(world), world.recall("owed_stops")) == (STOP, {})


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_beside_an_entry_that_works_nothing_is_cancelled(world: World, hidden: bool, known: bool) -> None:
    stop_by_hand(world)
    entry = world.broker.add_order(
        "AMD", THREE_DAYS_AGO, side="buy", qty=5, type="limit", limit_price=40, time_in_force="gtc",
        order_class="bracket", status="new",
    )  # fmt: skip
    world.broker.add_leg(entry, limit_price=60)
    world.broker.add_leg(entry, stop_price=35)
    world.broker.quirks.hide_legs = hidden
    if known:
        record = {"id": "p", "ticker": "AMD", "status": "PENDING", "quantity": 5, "alpacaOrderId": entry["id"]}
        world.ledger(record | {"createdAt": THREE_DAYS_AGO})
    world.broker.reset_log()
    row = orphan(flatten(world))
    assert (row["action"], entry["id"] in row["reason"]) == ("kept", True)
    assert [r.label for r in world.broker.requests if r.method != "GET"] == []
