"""The app's index `<key>:open` of a Redis hash: read while it can be trusted, checked when it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from ghostclean import reconcile
from ghostclean.app import index
from ghostclean.app.ports import LedgerView
from tests.bench.worlds import NOW, Record, final_record, ghosts, live_trades, settings
from tests.fakebroker import FakeBroker
from tests.servers import redis_server

KEY = "trades:v1:index"


class App:
    """An app that keeps its trades in a hash, and an index of the open ones."""

    def __init__(self, url: str, broker: FakeBroker) -> None:
        self.url, self.broker = url, broker
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)

    def put(self, *records: Record, indexed: bool = True) -> None:
        for row in records:
            self.client.hset(KEY, row["id"], json.dumps(row))
            if indexed:
                self.client.sadd(f"{KEY}:open", row["id"])

    def scans(self) -> int:
        return int(self.client.info("commandstats").get("cmdstat_hscan", {}).get("calls", 0))

    def run(self, **options: Any) -> dict[str, str]:
        """One run; what became of each trade."""
        variables = settings(self.broker, None, self.url, self.url) | {"REDIS_URL": self.url}
        result = reconcile(settings=variables | {"GHOSTCLEAN_LEDGER_KEY": KEY}, **options)
        assert result.error is None, result.detail
        return {row["id"] or row["ticker"]: f"{row['verdict']} {row['action']}" for row in result.results}


@pytest.fixture
def app() -> Iterator[App]:
    with redis_server() as url, FakeBroker(now=NOW) as broker:
        yield App(url, broker)


def test_the_index_is_read_after_one_whole_reading(app: App) -> None:
    app.put(*live_trades(app.broker, 3))
    app.put(*(final_record(n) for n in range(100, 200)), indexed=False)
    assert len(app.run()) == 3
    scans = app.scans()
    assert scans
    assert len(app.run()) == 3
    assert app.scans() == scans


def test_a_trade_that_the_index_does_not_name_is_found_at_once(app: App) -> None:
    app.put(*live_trades(app.broker, 3))
    app.run()
    (ghost,) = ghosts(app.broker, 1, "hand", start=10)
    app.put(ghost, indexed=False)
    assert app.run()[ghost["id"]] == "exited closed"


def test_an_index_that_lacks_an_open_trade_is_never_trusted(app: App) -> None:
    first, *others = live_trades(app.broker, 3)
    app.put(*others)
    app.put(first, indexed=False)
    for _ in range(3):
        scans = app.scans()
        assert len(app.run()) == 3
        assert app.scans() > scans


def test_an_orphan_is_adopted_only_after_the_whole_ledger_was_read(app: App) -> None:
    app.put(*live_trades(app.broker, 3))
    app.run()
    app.broker.open_trade("NVDA", 7, 100, at="2026-11-17T15:00:00Z")
    assert app.run(orphans="adopt")["NVDA"] == "orphan kept"
    assert "orphan adopted" in app.run(orphans="adopt").values()


def test_one_run_in_two_reads_the_whole_ledger(app: App) -> None:
    app.put(*live_trades(app.broker, 3))
    counts = [app.scans(), *((app.run(), app.scans())[1] for _ in range(4))]
    assert counts[0] < counts[1] == counts[2] < counts[3] == counts[4]


def test_a_status_that_turns_without_the_index_is_noticed_within_two_runs(app: App) -> None:
    (ghost,) = ghosts(app.broker, 1, "hand", start=10)
    app.put(*live_trades(app.broker, 3))
    app.put(ghost | {"status": "CLOSED"}, indexed=False)
    app.run()
    app.put(ghost, indexed=False)
    assert "exited closed" in {**app.run(), **app.run()}.values()


def test_a_set_that_lost_a_trade_is_noticed_within_two_runs(app: App) -> None:
    sold, *others = live_trades(app.broker, 3)
    app.put(sold, *others)
    app.run()
    app.client.srem(f"{KEY}:open", sold["id"])
    app.broker.sell(sold["ticker"], 10, 104, at="2026-11-17T18:00:00Z")
    first, second = app.run(), app.run()
    assert sold["id"] not in first
    assert second[sold["id"]] == "exited closed"


def test_what_an_index_misses_is_remembered() -> None:
    now = datetime.now(UTC)
    scanned = index.remembered(LedgerView((), 5, complete=True, index_sound=True), None, now)[index.NAME]
    assert not index.scan_is_due(scanned)
    by_index = LedgerView((), 5, complete=False)
    assert index.scan_is_due(index.remembered(by_index, scanned, now)[index.NAME])
    assert index.scan_is_due(None)
    assert index.scan_is_due("nonsense")
