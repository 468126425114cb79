"""A whole half day of auto-manage: the program as a process every five minutes, killed twice.

The script: entries that fill in parts, break-even, lock and trail, a stop that fills between two
runs, a replace that loses the race, a broker that fails at noon, a cut loss, and the close at
13:00 with everything flattened. After every run the books must equal the broker's.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests import program
from tests.fakebroker import FakeBroker

DAY = datetime(2026, 11, 27, tzinfo=UTC)  # the Friday after Thanksgiving: 9:30 to 13:00 in New York
OPEN, CLOSE = DAY.replace(hour=14, minute=30), DAY.replace(hour=18)
STEP = timedelta(minutes=5)
RULES = {"AUTO_MANAGE_ENABLED": "1", "AUTO_MANAGE_TRAIL_ENABLED": "1", "AUTO_MANAGE_CUT_LOSS_ENABLED": "1",
         "AUTO_MANAGE_EOD_FLATTEN": "1"}  # fmt: skip

# symbol -> (minutes after the open, price), kept until the next
PRICES: dict[str, list[tuple[int, float]]] = {
    "AAPL": [(0, 100), (60, 105.5), (100, 110.2), (130, 113), (150, 114)],
    "MSFT": [(0, 50), (40, 49.2), (45, 47.9)],
    "NVDA": [(0, 200), (80, 189)],
    "TSLA": [(0, 300), (75, 289)],
    "AMD": [(0, 80)],
    "INTC": [(0, 20), (110, 18.9)],
    "KO": [(0, 60)],
}


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Day:
    """The app, the market and the operator's cron in one person."""

    def __init__(self, broker: FakeBroker, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.ledger = folder / "trades.json"
        self.ledger.write_text("[]")
        self.minute = 0
        self.naked: dict[str, int] = {}
        self.reasons: dict[int, str | None] = {}
        self.env = os.environ | RULES | {
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(program.ROOT),
            "ALPACA_API_KEY": "key",
            "ALPACA_SECRET_KEY": "secret",
            "GHOSTCLEAN_TRADING_URL": broker.url,
            "GHOSTCLEAN_DATA_URL": broker.url,
            "GHOSTCLEAN_LEDGER": f"file:{self.ledger}",
            "GHOSTCLEAN_STATE": f"sqlite:{folder / 'state.db'}",
        }  # fmt: skip

    # ------------------------------------------------------------------ the app

    def buy(
        self, name: str, symbol: str, qty: float, stop: float, *, side: str = "buy", **order: Any
    ) -> dict[str, Any]:
        """Sends an entry and writes the pending record, as the app does."""
        entry = self.broker.submit(
            symbol=symbol, qty=qty, side=side, **{"type": "market", "time_in_force": "day"} | order
        )
        long = side == "buy"
        record = {
            "id": name, "ticker": symbol, "side": "LONG" if long else "SHORT", "status": "PENDING", "quantity": qty,
            "entryPrice": self.price(symbol), "stopPrice": stop, "alpacaOrderId": entry["id"],
            "createdAt": iso(self.broker.now),
        }  # fmt: skip
        self.ledger.write_text(json.dumps([*self.records().values(), record]))
        return entry

    def records(self) -> dict[str, dict[str, Any]]:
        return {r["id"]: r for r in json.loads(self.ledger.read_text())}

    # ------------------------------------------------------------------ the market

    def price(self, symbol: str) -> float:
        return [price for minute, price in PRICES[symbol] if minute <= self.minute][-1]

    def at(self, minute: int) -> None:
        """Moves the clock there; every price trades anew."""
        self.minute = minute
        self.broker.now = OPEN + timedelta(minutes=minute)
        for symbol in PRICES:
            self.broker.set_price(symbol, self.price(symbol))

    # ------------------------------------------------------------------ the cron

    def start(self, *args: str) -> program.Running:
        return program.start("auto-manage", "--json", *args, env=self.env, cwd=self.folder)

    def run(self) -> dict[str, Any]:
        stdout, stderr = self.start("--source", "cron", "--run-id", f"day-{self.minute}").communicate(timeout=90)
        assert stdout, stderr
        document: dict[str, Any] = json.loads(stdout)
        assert "outcome" in document, (self.minute, document, stderr)
        self.reasons[self.minute] = document["reason"]
        return document

    def killed(self, after_requests: int) -> None:
        """A run that dies by SIGKILL at its n-th request; its lock is over before the next one."""
        process = self.start("--run-id", f"killed-{self.minute}")
        self.broker.after_request(len(self.broker.requests) + after_requests, lambda _: process.kill())
        process.communicate(timeout=90)
        with closing(sqlite3.connect(self.folder / "state.db")) as db, db:
            db.execute("UPDATE lock SET token = NULL, expires = 0")

    # ------------------------------------------------------------------ the oracle

    def check(self, *, excused: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """What must hold after every run that was not killed."""
        self.check_orders()
        held = {key: position.qty for key, position in self.broker.positions.items()}
        open_records = [r for r in self.records().values() if r["status"] == "OPEN"]
        for record in open_records:
            assert abs(held[record["ticker"]]) == self.entered(record), record
        assert set(held) <= {r["ticker"] for r in open_records}
        for record in self.records().values():
            if record["status"] == "CLOSED":
                self.check_closed(record)
        self.check_protected(open_records, excused)

    def entered(self, record: dict[str, Any]) -> Decimal:
        return Decimal(self.broker.order(record["alpacaOrderId"])["filled_qty"])

    def check_closed(self, record: dict[str, Any]) -> None:
        entry, close = self.broker.order(record["alpacaOrderId"]), self.broker.order(record["closeOrderId"])
        paid, got = Decimal(entry["filled_avg_price"]), Decimal(close["filled_avg_price"])
        sign = 1 if record["side"] == "LONG" else -1
        assert (close["status"], close["filled_qty"]) == ("filled", entry["filled_qty"])
        assert Decimal(str(record["closePrice"])) == got
        assert Decimal(str(record["realizedPnL"])) == (got - paid) * sign * Decimal(entry["filled_qty"])

    def check_protected(self, open_records: list[dict[str, Any]], excused: set[str]) -> None:
        """No position is without a stop at the end of two runs in a row."""
        for record in open_records:
            stops = [o for o in self.broker.working(record["ticker"]) if o["type"] == "stop"]
            covered = sum((Decimal(o["qty"]) for o in stops), Decimal(0))
            name = record["id"]
            self.naked[name] = 0 if covered >= self.entered(record) or name in excused else self.naked.get(name, 0) + 1
            assert self.naked[name] <= 1, f"{name} is naked for the second run"

    def check_orders(self) -> None:
        """No order twice: one order a name, and no two working closes of one position."""
        names = [o["client_order_id"] for o in self.broker.orders.values()]
        assert len(names) == len(set(names))
        for symbol, position in self.broker.positions.items():
            closing_side = "sell" if position.qty > 0 else "buy"
            stops = [o for o in self.broker.working(symbol) if o["side"] == closing_side and o["type"] != "limit"]
            assert sum((Decimal(o["qty"]) - Decimal(o["filled_qty"]) for o in stops), Decimal(0)) <= abs(position.qty)


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    with FakeBroker(now=iso(OPEN)) as broker:
        yield Day(broker, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_day(day: Day, seed: int) -> None:
    chance = random.Random(seed)
    broker = day.broker
    day.at(1)
    first = day.buy("a", "AAPL", 10, 95, type="limit", limit_price=100.5, order_class="bracket", time_in_force="gtc",
                    take_profit={"limit_price": 140}, stop_loss={"stop_price": 95})  # fmt: skip
    if first["status"] == "filled":  # the fake fills a marketable limit at once: the parts come below instead
        assert day.records()["a"]["status"] == "PENDING"
    day.buy("b", "MSFT", 20, 48)
    day.buy("c", "NVDA", 5, 190)
    day.buy("d", "TSLA", 10, 310, side="sell")
    parts = day.buy("e", "AMD", 10, 76, type="limit", limit_price=79)
    day.buy("f", "INTC", 30, 15)
    storm = int((DAY.replace(hour=17) - OPEN).total_seconds() / 60)
    last = int((CLOSE - OPEN).total_seconds() / 60)
    kills = {chance.randrange(10, 100, 5): chance.randrange(3, 25), last - 10: chance.randrange(12, 30)}

    for minute in range(5, last, 5):
        day.at(minute)
        excused: set[str] = set()
        if minute == 10:
            broker.fill(parts, 4, 79)
        if 10 <= minute < 20:
            excused = {"e"}  # its entry is filled in part and still works
        if minute == 20:
            broker.fill(parts, 6, 79)
        if minute == 30:
            records = day.records()
            records["f"]["initialStopPrice"] = 19
            day.ledger.write_text(json.dumps(list(records.values())))
        if minute == 75:
            lose_the_race(day)
        if minute in kills:
            day.killed(kills[minute])
        if minute == storm:
            fault = broker.fault("*", 503)
            document = day.run()
            assert not document["ok"]
            broker.clear_faults()
            assert fault is not None
            continue
        day.run()
        day.check(excused=excused)

    day.at(last + 5)
    document = day.run()
    day.check()
    assert (document["skipped"], document["reason"]) == (True, "no_open_trades")
    reasons = {name: record["closeReason"] for name, record in day.records().items()}
    assert reasons == {
        "a": "eod_flatten", "b": "stop_loss", "c": "stop_loss", "d": "stop_loss", "e": "eod_flatten", "f": "cut_loss",
    }  # fmt: skip
    assert dict(broker.positions) == {}
    assert broker.working() == []


def lose_the_race(day: Day) -> None:
    """The stop of `d` fills in the moment in which it is being replaced."""
    stop = next(o for o in day.broker.working("TSLA") if o["type"] == "stop")

    def fill(request: Any) -> None:
        if request.label == "replace" and request.path.endswith(stop["id"]):
            day.broker.fill(stop, None, 310)

    day.broker.before_request(fill)
