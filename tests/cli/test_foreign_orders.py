"""Orders of others in a trade's symbol: never moved, resized, cancelled or taken for its protection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ghostclean.core.broker import client_id
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


# --------------------------------------------------------------------------- two ledgers that count 1, 2, 3


def trade_1(world: World, symbol: str, stop: float = 95) -> dict[str, Any]:
    """A trade "1" of five shares at 100, as a database gives it its id."""
    entry = world.broker.open_trade(symbol, 5, 100, at=OPENED)
    world.broker.set_price(symbol, 101)
    return {
        "id": "1", "ticker": symbol, "side": "LONG", "status": "OPEN", "quantity": 5, "entryPrice": 100,
        "stopPrice": stop, "alpacaOrderId": entry["id"], "createdAt": OPENED, "openedAt": OPENED,
    }  # fmt: skip


def placed(world: World) -> set[tuple[str, str, str]]:
    return {(o["symbol"], o["qty"], o["stop_price"]) for o in world.broker.working()}


@pytest.mark.parametrize(("first", "second"), [("NVDA", "MSFT"), ("NVDA", "NVDA")])
def test_two_ledgers_with_a_trade_1_each_protect_their_own(make_world: MakeWorld, first: str, second: str) -> None:
    world = make_world("file")
    world.pin()
    other = {"GHOSTCLEAN_LEDGER": f"file:{world.folder}/b.json", "GHOSTCLEAN_STATE": f"sqlite:{world.folder}/b.db"}
    world.ledger(trade_1(world, first, 95))
    (world.folder / "b.json").write_text(json.dumps([trade_1(world, second, 90)]))
    for ticks in range(3):
        world.broker.reset_log()
        runs = [manage(world), manage(world, **other)]
        assert [run.code for run in runs] == [0, 0]
        assert placed(world) == {(first, "5", "95"), (second, "5", "90")}
        assert writes(world) == (["submit", "submit"] if ticks == 0 else [])
        world.broker.advance(minutes=5)
        for symbol in (first, second):
            world.broker.set_price(symbol, 101)
    [mine] = json.loads((world.folder / "b.json").read_text())
    assert world.trade("1")["stopOrderId"] != mine["stopOrderId"]


def test_an_earlier_versions_name_of_another_symbol_is_no_answer(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    world.broker.open_trade("NVDA", 5, 100, at=OPENED)
    nvda = world.broker.add_order(
        "NVDA", OPENED, side="sell", qty=5, type="stop", stop_price=95, time_in_force="gtc", status="new",
        client_order_id=client_id("1", "stop", 1),
    )  # fmt: skip
    world.ledger(trade_1(world, "MSFT"))
    world.broker.reset_log()
    assert (manage(world).code, writes(world)) == (0, ["submit"])
    assert placed(world) == {("NVDA", "5", "95"), ("MSFT", "5", "95")}
    assert world.trade("1")["stopOrderId"] != nvda["id"]


def test_a_stop_that_an_earlier_version_named_is_still_the_trades(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.pin()
    record = trade_1(world, "NVDA")
    world.broker.open_trade("NVDA", 3, 100, at=OPENED)  # bought by hand: only the name says whose stop it is
    stop = world.broker.add_order(
        "NVDA", OPENED, side="sell", qty=5, type="stop", stop_price=95, time_in_force="gtc", status="new",
        client_order_id=client_id("1", "stop", 1),
    )  # fmt: skip
    world.ledger(record)
    world.broker.reset_log()
    assert (manage(world).code, writes(world), world.trade("1")["stopOrderId"]) == (0, [], stop["id"])
    world.broker.advance(minutes=5)
    world.broker.set_price("NVDA", 106)
    assert (manage(world).code, placed(world)) == (0, {("NVDA", "5", "100")})
