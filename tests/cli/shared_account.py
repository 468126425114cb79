"""An account that two bots and their owner share, and who truly holds what of it."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ghostclean.api import auto_manage, reconcile
from tests.cli.world import World
from tests.fakebroker.shapes import Number, Row, unslashed

SECONDS = 105  # between two ticks
BOTS = {"alpha": ("AAPL", "MSFT", "NVDA"), "beta": ("AAPL", "MSFT", "AMD")}
HANDS = ("AAPL", "TSLA")
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
        """What an owner truly holds, by symbol; a short is negative, a coin has paid its fee."""
        held: dict[str, Decimal] = defaultdict(Decimal)
        for order in self.world.broker.orders.values():
            if self.owner.get(order["id"]) == who:
                fee = self.world.broker.quirks.crypto_fee if order["asset_class"] == "crypto" else 0
                got = 1 - fee if order["side"] == "buy" else -1
                held[unslashed(order["symbol"])] += Decimal(order["filled_qty"]) * got
        return {symbol: qty for symbol, qty in held.items() if qty}

    def books(self, bot: str) -> dict[str, Decimal]:
        """What a ledger says it holds, but for entries that never filled: held while shares of others may be theirs."""
        said: dict[str, Decimal] = defaultdict(Decimal)
        for record in self.records(bot):
            if record["status"] == "OPEN" and self.filled(record):
                sign = 1 if record["side"] == "LONG" else -1
                said[unslashed(record["ticker"])] += Decimal(str(record["quantity"])) * sign
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
        return self.enters(who, symbol, qty)["id"]

    def enters(self, who: str, symbol: str, qty: Number, **fields: Any) -> Row:
        """A filled entry of somebody, its bracket's legs too."""
        order = self.world.broker.open_trade(symbol, qty, self.price[symbol], **fields)
        self.owner |= {o["id"]: who for o in (order, *self.world.broker.legs(order))}
        return order

    def sell(self, who: str, symbol: str, qty: Decimal) -> str:
        order: str = self.world.broker.sell(symbol, qty, self.price[symbol])["id"]
        self.owner[order] = who
        return order

    def bot_enters(self, bot: str) -> None:
        symbol, qty = self.dice.choice(BOTS[bot]), self.dice.randint(1, 9)
        record = self.record(bot, symbol, qty)
        if self.dice.random() < 0.2:  # an entry that never fills
            order = self.world.broker.add_order(symbol, None, side="buy", qty=qty, type="limit", limit_price=1)
            self.owner[order["id"]] = bot
            self.world.broker.market.cancel(order["id"])
            record["alpacaOrderId"] = order["id"]
        else:
            record["alpacaOrderId"] = self.buy(bot, symbol, qty)
        self.write(bot, [*self.records(bot), record])

    def record(self, bot: str, symbol: str, qty: Number, side: str = "LONG") -> dict[str, Any]:
        """What a bot writes of a new trade, under its next number."""
        self.count[bot] += 1
        now, away = self.world.broker.now.isoformat(), 0.98 if side == "LONG" else 1.02
        return {
            "id": str(self.count[bot]), "ticker": symbol, "side": side, "status": "OPEN", "quantity": qty,
            "entryPrice": self.price[symbol], "stopPrice": round(self.price[symbol] * away, 2),
            "createdAt": now, "openedAt": now,
        }  # fmt: skip

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

    def prices_move(self, most: float = 0.008) -> None:
        for symbol, price in self.price.items():
            self.price[symbol] = round(price * (1 + self.dice.uniform(-most, most)), 2)
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

    def run(self, bot: str, tick: int, **more: str) -> list[dict[str, Any]]:
        """One run of a bot's ghostclean, and whose the orders are that it sent; its orphan rows."""
        settings = {**self.world.env, **self.variables(bot), **more}
        if tick % 3 == 0:
            document = auto_manage(settings=settings, deadline=60).to_dict()["reconcile"]
        else:
            orphans = "report" if tick < ADOPTING else {"alpha": "flatten", "beta": "adopt"}[bot]
            document = reconcile(settings=settings, deadline=60, orphans=orphans).to_dict()
        assert document["error"] is None, document
        assert "ambiguous" not in {row["verdict"] for row in document["results"]}, document
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
