"""Two bots and their owner on one account, over days of trading: nobody's shares or orders are anybody else's.

Both ledgers count their trades 1, 2, 3 and keep their state in one Redis. The test knows whose every
order is, so it knows who truly holds what.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from decimal import Decimal
from typing import Any

from tests.cli.conftest import MakeWorld
from tests.cli.shared_account import BOTS, SECONDS, Day
from tests.cli.world import World
from tests.fakebroker.shapes import Number

TICKS = 200
KILLED = {60: "alpha", 120: "beta"}


def adopted(day: Day, rows: list[dict[str, Any]]) -> None:
    """What beta has adopted is beta's from now on: the hands' purchases of that symbol."""
    for row in rows:
        if row["action"] == "adopted":
            assert Decimal(str(row["after"]["quantity"])) == day.holds("hands")[row["ticker"]]
            for order in day.world.broker.orders.values():
                if order["symbol"] == row["ticker"] and day.owner[order["id"]] == "hands":
                    day.owner[order["id"]] = "beta"


def alike(one: dict[str, Decimal], other: dict[str, Decimal]) -> bool:
    """The same of every symbol; of a coin the fee may stand in the books."""
    dust = {symbol: Decimal("0.003") if symbol == "BTCUSD" else Decimal(0) for symbol in one}
    return one.keys() == other.keys() and all(abs(one[s] - other[s]) <= abs(one[s]) * dust[s] for s in one)


def check(day: Day, bot: str, other: str, rows: list[dict[str, Any]], *, last: bool) -> None:
    hands = day.holds("hands")
    account = {symbol: Decimal(p.qty) for symbol, p in day.world.broker.positions.items() if p.qty}
    total: dict[str, Decimal] = defaultdict(Decimal)
    for who in ("alpha", "beta", "hands"):
        for symbol, qty in day.holds(who).items():
            total[symbol] += qty
            assert qty * account[symbol] > 0, f"{who} has sold {symbol} of somebody else"
    assert {symbol: qty for symbol, qty in total.items() if qty} == account
    assert alike(day.books(bot), day.holds(bot)), f"the books of {bot}"
    # Of what the other has just bought the first of a tick does not know yet.
    assert day.unfilled(bot) <= {*hands, *(() if last else day.books(other))}
    for row in rows:
        if last or row["action"] != "kept":
            assert row["ticker"] in hands or row["action"] in ("adopted", "flattened"), row
            assert row["ticker"] not in day.books(other) or row["action"] == "kept", row


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {i for i in before if before[i] != after.get(i)}


def test_two_bots_and_their_owner_share_an_account_for_a_day(make_world: MakeWorld) -> None:
    world = make_world("string", "2026-11-18T14:35:00Z")
    day = Day(world, random.Random(7), price={"AAPL": 180.0, "MSFT": 400.0, "NVDA": 100.0, "AMD": 90.0, "TSLA": 250.0})
    for bot in BOTS:
        day.write(bot, [])
    day.prices_move()
    for bot in BOTS:
        day.run(bot, 1)  # the first contact: which account it is
    seen: dict[str, int] = defaultdict(int)
    for tick in range(TICKS):
        day.happens()
        world.broker.advance(seconds=SECONDS / 3)
        for bot, other in (("alpha", "beta"), ("beta", "alpha")):
            before = day.orders_of_others(bot)
            if KILLED.get(tick) == bot:
                day.killed(bot)
            rows = day.run(bot, tick)
            touched = changed(before, day.orders_of_others(bot))
            assert not {i for i in touched if day.owner[i] != "hands" or "orphan" not in str(rows)}
            adopted(day, rows)
            check(day, bot, other, rows, last=bot == "beta")
            for row in rows:
                seen[row["action"]] += 1
            world.broker.advance(seconds=SECONDS / 3)
    closed = [r for bot in BOTS for r in day.records(bot) if r["status"] == "CLOSED"]
    reasons = {str(r["closeReason"]).partition(":")[0] for r in closed}
    assert reasons >= {"stop_loss", "manual_close", "never_filled"}
    assert all(day.owner[r["closeOrderId"]] == bot for bot in BOTS for r in day.records(bot) if r.get("closeOrderId"))
    assert seen["kept"] > 0
    assert seen["adopted"] + seen["flattened"] > 0


def test_a_sale_without_a_name_in_a_symbol_of_both_is_nobodys_until_somebody_says_whose(make_world: MakeWorld) -> None:
    """Ten of twenty shares, then all shorts of one bot's size: neither ledger closes, and both name the other."""
    world = make_world("string", "2026-11-18T15:00:00Z")
    day = Day(world, random.Random(3), price={"AAPL": 180.0, "TSLA": 250.0, "MSFT": 400.0})
    for bot in BOTS:
        day.write(bot, [])
        day.run(bot, 1)
    for bot in BOTS:
        for symbol, side, action, qty in (("AAPL", "LONG", "buy", 10), ("TSLA", "SHORT", "sell", 4)):
            order = day.enters(bot, symbol, qty, side=action)
            day.write(bot, [*day.records(bot), day.record(bot, symbol, qty, side) | {"alpacaOrderId": order["id"]}])
    world.broker.advance(minutes=3)
    for bot in BOTS:
        assert told(world, day, bot) == {"AAPL": ("live", "synced"), "TSLA": ("live", "synced")}
    sold = world.broker.sell("AAPL", 10, 179)
    bought = world.broker.sell("TSLA", 3, 251)
    world.broker.advance(minutes=3)
    told(world, day, "alpha")
    sent = len(world.broker.orders)
    for _ in range(2):
        for bot in ("beta", "alpha"):
            assert told(world, day, bot) == dict.fromkeys(("AAPL", "TSLA"), ("ambiguous", "held"))
            world.run("auto-manage", "--json", "--force", **day.variables(bot))
            world.broker.advance(minutes=1)
    assert len(world.broker.orders) == sent
    attention = world.run("status", "--json", **day.variables("beta")).document["attention"]
    assert {item["kind"] for item in attention} == {"ambiguous"}
    assert all("trades:v1:alpha" in item["why"] for item in attention)

    settled = world.run("resolve", "1", "--exit-order", sold["id"], "--json", **day.variables("alpha"))
    assert settled.code == 0, settled
    assert day.records("alpha")[0]["realizedPnL"] == -10
    assert told(world, day, "alpha") == {"TSLA": ("ambiguous", "held")}
    assert told(world, day, "beta") == {"AAPL": ("live", "kept"), "TSLA": ("ambiguous", "held")}
    assert bought["id"] not in json.dumps([*day.records("alpha"), *day.records("beta")])


def test_what_the_other_ledger_cannot_manage_is_its_own_all_the_same(make_world: MakeWorld) -> None:
    """A failed trade, one without a readable size, one whose record is lost: the other sells and adopts none of it."""
    world = make_world("string", "2026-11-18T15:00:00Z")
    day = Day(world, random.Random(3), price={"AAPL": 180.0, "TSLA": 250.0, "MSFT": 400.0, "NVDA": 100.0})
    records = []
    for bot in BOTS:
        day.write(bot, [])
        day.run(bot, 1)
    for symbol in ("AAPL", "TSLA", "MSFT"):
        entry = day.buy("alpha", symbol, 5)
        records.append(day.record("alpha", symbol, 5) | {"alpacaOrderId": entry})
    day.write("alpha", records)
    world.broker.advance(minutes=3)
    told(world, day, "alpha")
    failed, unread = {"status": "ERROR"}, {"quantity": "many", "alpacaOrderId": None}
    day.write("alpha", [records[0] | failed, records[1] | unread])
    day.buy("hands", "NVDA", 5)
    world.broker.advance(minutes=3)
    told(world, day, "alpha")
    for mode in ("adopt", "flatten"):
        run = world.reconcile("--orphans", mode, **day.variables("beta"))
        rows = {row["ticker"]: (row["action"], row["reason"]) for row in run.document["results"]}
        assert "AAPL" not in rows
        assert {"TSLA": rows["TSLA"][0], "MSFT": rows["MSFT"][0]} == dict.fromkeys(("TSLA", "MSFT"), "kept")
        assert all("of ledger" in rows[symbol][1] for symbol in ("TSLA", "MSFT"))
    assert rows["NVDA"] == ("kept", "the position holds its 5")  # that one was the hands', and is adopted
    assert {symbol: position.qty for symbol, position in world.broker.positions.items()} == dict.fromkeys(day.price, 5)


def told(world: World, day: Day, bot: str) -> dict[str, tuple[str, str]]:
    """What a run of a bot says of each open trade, by symbol."""
    rows = world.reconcile(**day.variables(bot)).document["results"]
    return {row["ticker"]: (row["verdict"], row["action"]) for row in rows if row["id"]}


HALF_DAY, HALF_DAY_TICKS = "2026-11-27T17:20:00Z", 9  # of five minutes: the market closes at 18:00
OWN: dict[str, dict[str, Number]] = {  # a short is negative
    "alpha": {"AAPL": 10, "TSLA": -5, "BTC/USD": "0.5", "MSFT": "2.5", "AMD": 4},
    "beta": {"AAPL": 7, "TSLA": -3, "BTC/USD": "0.25", "MSFT": "1.25", "AMD": 6},
    "hands": {"AAPL": 4, "TSLA": -2, "BTC/USD": "0.1", "MSFT": "0.75", "AMD": 8},
}
COIN = "BTCUSD"


def protected_by_hand(day: Day) -> None:
    """The owner's own exits: one that trails, a buy stop, a stop of a coin, a target with a stop."""
    price = day.price
    sell, buy = {"side": "sell", "time_in_force": "gtc"}, {"side": "buy", "time_in_force": "gtc"}
    coin = {"stop_price": round(price["BTC/USD"] * 0.9), "limit_price": round(price["BTC/USD"] * 0.89)}
    oco = {"take_profit": {"limit_price": 120}, "stop_loss": {"stop_price": 70}}
    for body in (
        {"symbol": "AAPL", "qty": 4, "type": "trailing_stop", "trail_percent": 9, **sell},
        {"symbol": "TSLA", "qty": 2, "type": "stop", "stop_price": 280, **buy},
        {"symbol": "BTC/USD", "qty": "0.09", "type": "stop_limit", **coin, **sell},
        {"symbol": "AMD", "qty": 8, "type": "limit", "order_class": "oco", **oco, **sell},
    ):
        order = day.world.broker.submit(**body)
        day.owner |= {o["id"]: "hands" for o in (order, *day.world.broker.legs(order))}


def begin(day: Day) -> None:
    """All three enter the same symbols; alpha's AMD has a bracket, beta's an OCO of its own."""
    for who, trades in OWN.items():
        for symbol, signed in trades.items():
            qty, side = str(signed).lstrip("-"), "SHORT" if Decimal(signed) < 0 else "LONG"
            bracket = (120, 80) if (who, symbol) == ("alpha", "AMD") else None
            order = day.enters(who, symbol, qty, side="sell" if side == "SHORT" else "buy", bracket=bracket)
            if who in BOTS:
                record = day.record(who, symbol, float(qty), side) | {"alpacaOrderId": order["id"]}
                if (who, symbol) == ("beta", "AMD"):
                    exits = {"take_profit": {"limit_price": 121}, "stop_loss": {"stop_price": 81}}
                    oco = day.world.broker.submit(
                        symbol="AMD", qty=6, type="limit", order_class="oco", side="sell", time_in_force="gtc", **exits
                    )
                    day.owner |= {o["id"]: who for o in (oco, *day.world.broker.legs(oco))}
                    record |= {"takeProfitOrderId": oco["id"], "stopOrderId": day.world.broker.legs(oco)[0]["id"]}
                day.write(who, [*day.records(who), record])


def test_both_bots_flatten_before_the_close_of_a_half_day_and_leave_the_hands_what_is_theirs(
    make_world: MakeWorld,
) -> None:
    """Shorts, a coin, fractions, a bracket, an OCO and a trailing stop: all of three owners, in the same symbols."""
    world = make_world("string", HALF_DAY)
    prices = {"AAPL": 180.0, "TSLA": 250.0, "BTC/USD": 60000.0, "MSFT": 400.0, "AMD": 90.0}
    day = Day(world, random.Random(5), price=prices)
    for bot in BOTS:
        day.write(bot, [])
    day.prices_move(0)
    for bot in BOTS:
        day.run(bot, 0)
    begin(day)
    protected_by_hand(day)
    theirs = {i: order["status"] for i, order in world.broker.orders.items() if day.owner[i] == "hands"}
    hands = day.holds("hands")
    world.broker.advance(minutes=5)
    for tick in range(1, HALF_DAY_TICKS):
        day.prices_move(0.003)
        for bot, other in (("alpha", "beta"), ("beta", "alpha")):
            before = day.orders_of_others(bot)
            rows = day.run(bot, 0, AUTO_MANAGE_EOD_FLATTEN="1")
            assert not changed(before, day.orders_of_others(bot)), f"{bot} has touched orders of others at tick {tick}"
            check(day, bot, other, rows, last=bot == "beta")
            assert all(row["action"] == "kept" for row in rows)
            world.broker.advance(seconds=10)
        if tick == 3:
            stops = [o for o in world.broker.working() if o["stop_price"] and o["type"] != "trailing_stop"]
            for bot in BOTS:
                assert {o["symbol"] for o in stops if day.owner[o["id"]] == bot} == OWN[bot].keys()
        world.broker.advance(seconds=280)
    assert day.holds("hands") == hands
    assert {i: world.broker.orders[i]["status"] for i in theirs} == theirs
    for bot in BOTS:
        assert day.holds(bot).keys() == {COIN}
        closed = {r["ticker"]: r["closeReason"] for r in day.records(bot) if r["status"] == "CLOSED"}
        assert closed == dict.fromkeys(("AAPL", "TSLA", "MSFT", "AMD"), "eod_flatten")
        assert all(day.owner[r["closeOrderId"]] == bot for r in day.records(bot) if r.get("closeOrderId"))
