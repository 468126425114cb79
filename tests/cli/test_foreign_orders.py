"""Orders of others in a trade's symbol: never moved, resized, cancelled or taken for its protection."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.test_manage_contract import OPENED, manage, writes
from tests.cli.world import World

CUT = {"AUTO_MANAGE_CUT_LOSS_ENABLED": "1"}
EOD = {"AUTO_MANAGE_EOD_FLATTEN": "1"}


def beside(make_world: MakeWorld, his: float, *, short: bool = False, now: str | None = None) -> tuple[World, Any]:
    """The bot's 5 NVDA at 101 without a stop, and so many of the owner's own with his stop."""
    world = make_world("file", **({"now": now} if now else {}))
    world.pin()
    way, out, stop, his_stop = ("sell", "buy", 112, 132) if short else ("buy", "sell", 90, 70)
    entry = world.broker.open_trade("NVDA", 5, 101, at=OPENED, side=way)
    world.broker.open_trade("NVDA", his, 80, at="2026-11-16T15:00:00Z", side=way)
    foreign = world.broker.add_order(
        "NVDA", OPENED, side=out, qty=his, type="stop", stop_price=his_stop, time_in_force="gtc", status="new"
    )
    world.ledger({
        "id": "1", "ticker": "NVDA", "side": "SHORT" if short else "LONG", "status": "OPEN", "quantity": 5,
        "entryPrice": 101, "stopPrice": stop, "alpacaOrderId": entry["id"], "createdAt": OPENED, "openedAt": OPENED,
    })  # fmt: skip
    world.broker.set_price("NVDA", 101)
    return world, dict(foreign)


def untouched(world: World, foreign: dict[str, Any]) -> bool:
    now = world.broker.order(foreign["id"])
    return all(now[name] == foreign[name] for name in ("status", "qty", "stop_price", "replaced_by"))


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("his", [10, 5, 3])
def test_a_trade_that_only_a_foreign_stop_protects_gets_its_own(make_world: MakeWorld, his: float, short: bool) -> None:
    world, foreign = beside(make_world, his, short=short)
    run = manage(world)
    assert (run.code, writes(world), untouched(world, foreign)) == (0, ["submit"], True)
    [own] = [o for o in world.broker.working("NVDA") if o["id"] != foreign["id"]]
    assert (own["qty"], own["stop_price"]) == ("5", "112" if short else "90")
    assert world.trade("1")["stopOrderId"] == own["id"]
    world.broker.reset_log()
    assert (manage(world).code, writes(world)) == (0, [])


@pytest.mark.parametrize("his", [10, 5, 3])
def test_a_cut_and_a_flatten_leave_a_foreign_stop_alone(make_world: MakeWorld, his: float) -> None:
    for options, price, now in ((CUT, 85, None), (EOD, 101, "2026-11-18T20:50:00Z")):
        world, foreign = beside(make_world, his, now=now)
        world.broker.set_price("NVDA", price)
        run = manage(world, **options)
        assert (run.document["flattened"], untouched(world, foreign)) == (1, True)
        assert world.broker.positions["NVDA"].qty == his
        assert world.trade("1")["closeReason"] in ("cut_loss", "eod_flatten")


def test_where_a_foreign_order_holds_everything_the_trade_is_naked_and_the_order_named(make_world: MakeWorld) -> None:
    world, foreign = beside(make_world, 3)
    world.broker.orders[foreign["id"]]["qty"] = "8"
    run = manage(world)
    assert (run.code, run.document["reason"], writes(world)) == (1, "naked", [])
    assert any(foreign["id"] in note for note in run.document["notes"])
    assert foreign["id"] not in world.trade("1").values()


def test_an_unnamed_stop_is_the_trades_where_the_whole_position_is(make_world: MakeWorld) -> None:
    world, foreign = beside(make_world, 3)
    world.broker.orders[foreign["id"]] |= {"qty": "5", "stop_price": "90"}
    world.broker.positions["NVDA"].qty = 5
    run = manage(world)
    assert (run.code, writes(world), world.trade("1")["stopOrderId"]) == (0, [], foreign["id"])
