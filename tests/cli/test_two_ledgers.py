"""Two bots and their owner on one account, over a day of trading: nobody's shares or orders are anybody else's.

Both ledgers count their trades 1, 2, 3 and keep their state in one Redis. The test knows whose every
order is, so it knows who truly holds what.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ghostclean.api import auto_manage, reconcile
from tests.cli.conftest import MakeWorld
from tests.cli.world import World

TICKS, SECONDS = 200, 105
BOTS = {"alpha": ("AAPL", "MSFT", "NVDA"), "beta": ("AAPL", "MSFT", "AMD")}
HANDS = ("AAPL", "TSLA")
KILLED = {60: "alpha", 120: "beta"}
ADOPTING = 50  # from this tick on beta adopts and alpha sells what nobody explains


@dataclass
class Day:
    """The account and who owns what: every order by its owner, so every share."""

    world: World
    dice: random.Random
    owner: dict[str, str] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    price: dict[str, float] = field(default_factory=dict)

    # ------------------------------------------------------------------ who has what

    def holds(self, who: str) -> dict[str, Decimal]:
        """What an owner truly holds, by symbol."""
        held: dict[str, Decimal] = defaultdict(Decimal)
        for order in self.world.broker.orders.values():
            if self.owner.get(order["id"]) == who:
                held[order["symbol"]] += Decimal(order["filled_qty"]) * (1 if order["side"] == "buy" else -1)
        return {symbol: qty for symbol, qty in held.items() if qty}

    def books(self, bot: str) -> dict[str, Decimal]:
        """What a ledger says it holds, but for entries that never filled: held while shares of others may be theirs."""
        said: dict[str, Decimal] = defaultdict(Decimal)
        for record in self.records(bot):
            if record["status"] == "OPEN" and self.filled(record):
                said[record["ticker"]] += Decimal(str(record["quantity"]))
        return dict(said)

    def filled(self, record: dict[str, Any]) -> bool:
        order = self.world.broker.orders.get(record.get("alpacaOrderId", ""))
        return order is None or order["filled_qty"] != "0"

    def unfilled(self, bot: str) -> set[str]:
        """The symbols of open records whose entry never filled."""
        return {r["ticker"] for r in self.records(bot) if r["status"] == "OPEN" and not self.filled(r)}

    def records(self, bot: str) -> list[dict[str, Any]]:
        return list(json.loads(self.world.redis.get(key(bot))))

    def write(self, bot: str, records: list[dict[str, Any]]) -> None:
        self.world.redis.set(key(bot), json.dumps(records))

    def orders_of_others(self, bot: str) -> dict[str, tuple[str, str, str | None]]:
        """Every working order that is not this bot's."""
        theirs = [o for o in self.world.broker.working() if self.owner[o["id"]] != bot]
        return {o["id"]: (o["status"], o["qty"], o["stop_price"]) for o in theirs}

    # ------------------------------------------------------------------ what happens

    def buy(self, who: str, symbol: str, qty: int) -> str:
        order: str = self.world.broker.open_trade(symbol, qty, self.price[symbol])["id"]
        self.owner[order] = who
        return order

    def sell(self, who: str, symbol: str, qty: Decimal) -> str:
        order: str = self.world.broker.sell(symbol, qty, self.price[symbol])["id"]
        self.owner[order] = who
        return order

    def bot_enters(self, bot: str) -> None:
        symbol, qty = self.dice.choice(BOTS[bot]), self.dice.randint(1, 9)
        self.count[bot] += 1
        record = {
            "id": str(self.count[bot]), "ticker": symbol, "side": "LONG", "status": "OPEN", "quantity": qty,
            "entryPrice": self.price[symbol], "stopPrice": round(self.price[symbol] * 0.98, 2),
            "createdAt": self.world.broker.now.isoformat(), "openedAt": self.world.broker.now.isoformat(),
        }  # fmt: skip
        if self.dice.random() < 0.2:  # an entry that never fills
            order = self.world.broker.add_order(symbol, None, side="buy", qty=qty, type="limit", limit_price=1)
            self.owner[order["id"]] = bot
            self.world.broker.market.cancel(order["id"])
            record["alpacaOrderId"] = order["id"]
        else:
            record["alpacaOrderId"] = self.buy(bot, symbol, qty)
        self.write(bot, [*self.records(bot), record])

    def bot_exits(self, bot: str) -> None:
        """The app takes its stop away, sells and names the sale; it leaves the record for us to close."""
        records = self.records(bot)
        standing = [r for r in records if r["status"] == "OPEN" and self.owns(bot, r)]
        if not standing:
            return
        record = self.dice.choice(standing)
        for order in self.world.broker.working(record["ticker"]):
            if order["id"] == record.get("stopOrderId"):
                self.world.broker.market.cancel(order["id"])
        record["closeOrderId"] = self.sell(bot, record["ticker"], Decimal(str(record["quantity"])))
        self.write(bot, records)

    def owns(self, bot: str, record: dict[str, Any]) -> bool:
        """Whether the trade was entered and nothing has taken it out."""
        orders = self.world.broker.orders
        out = [orders[i]["filled_qty"] for i in (record.get("stopOrderId"), record.get("closeOrderId")) if i]
        return self.filled(record) and not any(Decimal(q) for q in out)

    def hands_trade(self) -> None:
        symbol = self.dice.choice(HANDS)
        held = self.holds("hands").get(symbol, Decimal(0))
        if held and self.dice.random() < 0.5:
            free = self.world.broker.positions[symbol].qty
            self.sell("hands", symbol, min(held, Decimal(free)))
        else:
            self.buy("hands", symbol, self.dice.randint(1, 5))

    def prices_move(self) -> None:
        for symbol, price in self.price.items():
            self.price[symbol] = round(price * (1 + self.dice.uniform(-0.008, 0.008)), 2)
            self.world.broker.set_price(symbol, self.price[symbol])

    def happens(self) -> None:
        self.prices_move()
        for bot in BOTS:
            if self.dice.random() < 0.25:
                self.bot_enters(bot)
            if self.dice.random() < 0.15:
                self.bot_exits(bot)
        if self.dice.random() < 0.2:
            self.hands_trade()

    # ------------------------------------------------------------------ a run

    def run(self, bot: str, tick: int) -> list[dict[str, Any]]:
        """One run of a bot's ghostclean, and whose the orders are that it sent; its orphan rows."""
        settings = {**self.world.env, **self.variables(bot)}
        if tick % 3 == 0:
            document = auto_manage(settings=settings, deadline=60).to_dict()["reconcile"]
        else:
            orphans = "report" if tick < ADOPTING else {"alpha": "flatten", "beta": "adopt"}[bot]
            document = reconcile(settings=settings, deadline=60, orphans=orphans).to_dict()
        assert document["error"] is None, document
        self.attribute(bot)
        return [row for row in document["results"] if row["verdict"] == "orphan"]

    def variables(self, bot: str) -> dict[str, str]:
        given = {"GHOSTCLEAN_LEDGER_KEY": key(bot), "GHOSTCLEAN_GRACE": "10s", "GHOSTCLEAN_INTERVAL": f"{SECONDS}"}
        return {
            **given,
            "AUTO_MANAGE_ENABLED": "1",
            "AUTO_MANAGE_TRAIL_ENABLED": "1",
            "AUTO_MANAGE_CUT_LOSS_ENABLED": "1",
        }

    def attribute(self, bot: str) -> None:
        """Orders that a run sent are its ledger's; the sale of an orphan is of what the hands had."""
        for order in self.world.broker.orders.values():
            if order["id"] not in self.owner:
                self.owner[order["id"]] = "hands" if "-orphan-" in order["client_order_id"] else bot

    def killed(self, bot: str) -> None:
        process = self.world.start("auto-manage", **self.variables(bot))
        self.world.broker.after_request(self.dice.randint(3, 6), lambda _: process.kill())
        process.communicate(timeout=60)
        self.attribute(bot)
        self.world.release_dead_lock()


def key(bot: str) -> str:
    return f"trades:v1:{bot}"


def adopted(day: Day, rows: list[dict[str, Any]]) -> None:
    """What beta has adopted is beta's from now on: the hands' purchases of that symbol."""
    for row in rows:
        if row["action"] == "adopted":
            assert Decimal(str(row["after"]["quantity"])) == day.holds("hands")[row["ticker"]]
            for order in day.world.broker.orders.values():
                if order["symbol"] == row["ticker"] and day.owner[order["id"]] == "hands":
                    day.owner[order["id"]] = "beta"


def check(day: Day, bot: str, other: str, rows: list[dict[str, Any]], *, last: bool) -> None:
    hands = day.holds("hands")
    account = {symbol: Decimal(p.qty) for symbol, p in day.world.broker.positions.items() if p.qty}
    total: dict[str, Decimal] = defaultdict(Decimal)
    for who in ("alpha", "beta", "hands"):
        for symbol, qty in day.holds(who).items():
            total[symbol] += qty
            assert qty > 0, f"{who} has sold {symbol} of somebody else"
    assert {symbol: qty for symbol, qty in total.items() if qty} == account
    assert day.books(bot) == day.holds(bot), f"the books of {bot}"
    # Of what the other has just bought the first of a tick does not know yet.
    assert day.unfilled(bot) <= {*hands, *(() if last else day.books(other))}
    for row in rows:
        if last or row["action"] != "kept":
            assert row["ticker"] in hands or row["action"] in ("adopted", "flattened"), row
            assert row["ticker"] not in day.books(other) or row["action"] == "kept", row


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
            after = day.orders_of_others(bot)
            touched = {i for i in before if before[i] != after.get(i)}
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
