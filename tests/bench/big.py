"""Ledgers of 100,000 records and more, and runs on them that are looked at from inside."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import redis

from tests.bench.canned import entry_order, synced
from tests.bench.measure import output
from tests.bench.worlds import final_record

KEY = "trades:v1:bench"


class Big:
    """A ledger in Redis, a broker that holds its open trades, and runs that are looked at from inside."""

    def __init__(self, environment: Mapping[str, str], url: str, broker: str, **more: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.client.flushall()
        self.environment = {
            **environment,
            "PATH": "/usr/bin:/bin",
            "REDIS_URL": url,
            "GHOSTCLEAN_LEDGER_KEY": KEY,
            "ALPACA_API_KEY": "k",
            "ALPACA_SECRET_KEY": "s",
            "GHOSTCLEAN_TRADING_URL": broker,
            "GHOSTCLEAN_DATA_URL": broker,
            **more,
        }

    def run(self, **more: str) -> dict[str, Any]:
        """One run; its figures."""
        told: dict[str, Any] = json.loads(output([sys.executable, "-m", "tests.bench.inside"], self.environment | more))
        if told["error"] is not None:
            raise RuntimeError(f"the run failed: {told['error']}, {told['detail']}")
        return told

    def remember(self, count: int) -> None:
        """What earlier runs would have remembered of the entry orders."""
        self.run(BENCH_MAX="1")
        (name,) = [key.decode() for key in self.client.keys("ghostclean:*memory:orders")]
        from ghostclean.adapters.alpaca.records import read_order
        from ghostclean.core.broker import remember_order

        for number in range(count):
            (order,) = read_order(entry_order(number))
            self.client.hset(name, order.id, json.dumps(remember_order(order, f"trade-{number:07d}")))


def hash_ledger(big: Big, total: int, live: int) -> None:
    final = json.dumps(final_record(0), separators=(",", ":"))
    for start in range(0, total, 10_000):
        fields: dict[str, str] = {}
        for n in range(start, min(total, start + 10_000)):
            name = f"trade-{n:07d}"
            fields[name] = json.dumps(synced(n)) if n < live else final.replace("trade-0000000", name)
        big.client.hset(KEY, mapping=fields)
    big.client.delete(f"{KEY}:open")
