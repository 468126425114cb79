"""`auto-manage` while a close goes wrong: no stop is left off, and what can't be done fails with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.test_manage_contract import EOD, OPENED, holds, manage, named, stop_at, stops, writes
from tests.cli.world import Run, World
from tests.fakebroker import NEVER

CUT = {"AUTO_MANAGE_CUT_LOSS_ENABLED": "1"}
LATE = "2026-11-18T20:50:00Z"


def late(make_world: MakeWorld, price: float = 101, **record: Any) -> World:
    """One trade with its stop in the last minutes of the day."""
    world = make_world("file", now=LATE)
    world.pin()
    holds(world, **{"stopOrderId": stop_at(world)["id"]} | record)
    world.broker.set_price("AAPL", price)
    return world


def markets(world: World) -> list[dict[str, Any]]:
    return [o for o in world.broker.orders.values() if o["type"] == "market" and o["side"] == "sell"]


def close_faults(world: World, answer: int | str, **options: Any) -> None:
    def is_close(request: Any) -> bool:
        return request.label == "submit" and request.body["type"] == "market"

    world.broker.fault(is_close, answer, **options)


@pytest.mark.parametrize("answer", [400, 401, 404, 429, 503])
def test_a_close_that_is_not_taken_gives_the_stop_back_in_the_same_run(
    make_world: MakeWorld, answer: int | str
) -> None:
    world = late(make_world)
    close_faults(world, answer)
    run = manage(world, **EOD)
    assert (run.code, run.document["reason"], run.document["flattened"]) == (1, "close_refused", 0)
    assert (stops(world), markets(world)) == ([("10", "95")], [])
    record = world.trade("a")
    assert (record["status"], record["stopOrderId"]) == ("OPEN", world.broker.working("AAPL")[0]["id"])


def test_a_cut_that_is_rate_limited_gives_the_stop_back(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    holds(world, stopOrderId=stop_at(world, price=80)["id"], stopPrice=80, initialStopPrice=95)
    world.broker.set_price("AAPL", 94)
    close_faults(world, 429, retry_after=40)
    run = manage(world, **CUT)
    assert (run.code, run.document["reason"]) == (1, "close_refused")
    assert (stops(world), markets(world)) == ([("10", "80")], [])


def test_a_broker_that_wants_to_be_left_alone_is_not_waited_for_while_the_stop_is_off(make_world: MakeWorld) -> None:
    world = late(make_world)
    close_faults(world, 503)
    world.broker.after_request("cancel", lambda _: world.broker.fault("fills", 429, times=1, retry_after=3600))
    run = manage(world, "--deadline", "40", **EOD)
    assert (run.code, stops(world)) == (1, [("10", "95")])


def test_a_minute_without_requests_begins_no_close(make_world: MakeWorld) -> None:
    world = late(make_world)
    world.broker.quirks.rate_limit = 45
    run = manage(world, **EOD)
    assert (run.code, run.document["reason"]) == (1, "eod_flatten_blocked")
    assert (writes(world), stops(world)) == ([], [("10", "95")])
    assert any("more requests in this minute" in note for note in run.document["notes"])


def test_a_cancel_that_comes_too_late_is_no_sale_of_the_next_morning(make_world: MakeWorld) -> None:
    world = late(make_world)
    world.broker.quirks.cancel_delay = NEVER
    assert manage(world, **EOD).document["reason"] == "close_waits"
    world.broker.set_status(world.broker.working("AAPL")[0], "canceled")
    world.broker.now = "2026-11-19T14:31:00Z"
    world.broker.set_price("AAPL", 101)
    run = manage(world, **EOD)
    assert (run.code, run.document["reason"]) == (1, "eod_missed")
    assert (stops(world), markets(world)) == ([("10", "95")], [])


def test_no_stop_is_taken_off_while_its_target_keeps_the_shares(make_world: MakeWorld) -> None:
    world = late(make_world)
    target = world.broker.add_order(
        "AAPL", OPENED, side="sell", qty=4, type="limit", limit_price=120, time_in_force="gtc", status="new"
    )
    named(world, "a", takeProfitOrderId=target["id"])
    world.broker.fault(lambda r: r.label == "cancel" and target["id"] in r.path, 503)
    run = manage(world, **EOD)
    assert (run.document["reason"], stops(world)) == ("close_waits", [("10", "95")])


# --------------------------------------------------------------------------- before the close


def test_a_flatten_that_cannot_be_begun_is_a_failure_before_the_close(make_world: MakeWorld) -> None:
    world = late(make_world)
    entry = world.broker.add_order(
        "AAPL", OPENED, side="buy", qty=5, type="limit", limit_price=90, time_in_force="gtc", status="new"
    )
    run = manage(world, **EOD)
    assert (run.code, run.document["reason"]) == (1, "eod_flatten_blocked")
    assert (writes(world), stops(world)) == ([], [("10", "95")])
    assert entry["id"] in (run.document["detail"] or "")


def test_a_held_trade_that_stays_over_night_is_a_failure_before_the_close(make_world: MakeWorld) -> None:
    world = late(make_world)
    world.broker.positions["AAPL"].qty = -10
    run = manage(world, **EOD)
    assert (run.code, run.document["reason"]) == (1, "eod_flatten_blocked")
    assert "mismatch" in (run.document["detail"] or "")


@pytest.mark.parametrize("options", [{}, CUT])
@pytest.mark.parametrize("record", [{"stopPrice": 950}, {"stopPrice": 950, "initialStopPrice": 950}])
def test_an_initial_stop_on_the_wrong_side_is_never_sent_nor_a_sale(
    make_world: MakeWorld, record: dict[str, Any], options: dict[str, str]
) -> None:
    world = make_world("file")
    world.pin()
    holds(world, **record)
    world.broker.set_price("AAPL", 101)
    before = dict(world.trade("a"))
    run = manage(world, **options)
    assert (run.code, run.document["reason"], writes(world)) == (1, "naked", [])
    assert "wrong side of the entry" in (run.document["detail"] or "")
    assert world.trade("a").get("initialStopPrice") == before.get("initialStopPrice")


def test_a_wrong_initial_stop_beside_a_stop_that_works_is_a_failure_too(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    holds(world, stopOrderId=stop_at(world)["id"], initialStopPrice=950)
    world.broker.set_price("AAPL", 101)
    run: Run = manage(world)
    assert (run.code, run.document["reason"], writes(world), stops(world)) == (1, "wrong_stop", [], [("10", "95")])
