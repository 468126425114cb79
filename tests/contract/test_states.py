"""One suite for every state: Redis on every server there is, and SQLite."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis

from ghostclean.adapters.redis_client import RedisServer
from ghostclean.adapters.spool import FolderSpool
from ghostclean.adapters.state.redis import RedisState
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.ports import JournalEntry, RunCommit, State
from ghostclean.errors import FencedOff, StateFailed
from tests.servers import binaries, redis_server
from tests.timing import SLACK

from .conftest import REDISES, Servers, Site, close_site, open_site

LEDGER = "redis://somewhere:6379/0#trades:v1:test"


class StateKit:
    """Opens states on one place, as several processes would."""

    def __init__(self, make: Callable[..., State]) -> None:
        self._make = make
        self._opened: list[State] = []

    def open(self, ledger: str = LEDGER, **options: Any) -> State:
        state = self._make(ledger_place=ledger, **options)
        state.open()
        self._opened.append(state)
        return state

    def close(self) -> None:
        for state in self._opened:
            state.close()


@pytest.fixture(params=["sqlite", *REDISES])
def kit(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[StateKit]:
    if request.param == "sqlite":
        kit = StateKit(lambda **options: SqliteState(tmp_path / "state" / "ghostclean.db", **options))
        yield kit
        kit.close()
        return
    site = open_site(request.param, servers)
    kit = StateKit(lambda **options: RedisState(site.server(), prefix=site.prefix, **options))
    yield kit
    kit.close()
    close_site(site)


def entry(n: int, outcome: str = "intended", trade: str = "t1", run: str = "r1", **more: Any) -> JournalEntry:
    return JournalEntry(
        id=f"e{n}", at="2026-11-22T07:38:12.123Z", run_id=run, source="cli", trade_id=trade, ticker="AAPL",
        verdict="exited", action="closed", reason="stop_loss", proof=({"order": "x", "price": Decimal("187.40")},),
        before=more.get("before", {"stopPrice": Decimal("1E-9")}), after=more.get("after", {"status": "CLOSED"}),
        outcome=outcome,
    )  # fmt: skip


def commit(run_id: str = "r1", kind: str = "reconcile", **more: Any) -> RunCommit:
    shown = {
        "run": {"ts": "t", "runId": run_id, "ok": True},
        "add": {"runs": 1, "totalClosed": 2},
        "put": {"lastOk": "true", "lastRunId": run_id},
    }
    return RunCommit(kind, run_id, **{**shown, **more})


# ------------------------------------------------------------------ telemetry


def test_nothing_is_there_at_first(kit: StateKit) -> None:
    state = kit.open()
    assert state.telemetry("reconcile", 5) == state.telemetry("auto-manage", 5)
    assert not state.telemetry("reconcile", 5).summary
    assert state.telemetry("reconcile", 5).runs == ()
    assert state.intents() == []
    assert state.journal(trade_id="t1") == []
    assert state.recall("pin") == {}
    assert state.lock_info() is None


def test_a_commit_is_counted_and_listed(kit: StateKit) -> None:
    state = kit.open()
    state.commit(commit("r1"))
    state.commit(commit("r2", put={"lastOk": "false", "lastRunId": "r2"}))
    shown = kit.open().telemetry("reconcile", 5)
    assert dict(shown.summary) == {"runs": "2", "totalClosed": "4", "lastOk": "false", "lastRunId": "r2"}
    assert [run["runId"] for run in shown.runs] == ["r2", "r1"]
    assert [run["runId"] for run in state.telemetry("reconcile", 1).runs] == ["r2"]
    assert state.telemetry("reconcile", 0).runs == ()
    assert state.telemetry("auto-manage", 5).runs == ()


def test_a_second_delivery_does_nothing(kit: StateKit) -> None:
    state = kit.open()
    for _ in range(3):
        state.commit(commit("r1", entries=(entry(1, "written"),), memory={"m": {"k": 1}}))
    state.remember("m", {"k": 2})
    kit.open().commit(commit("r1", memory={"m": {"k": 1}}))
    assert state.telemetry("reconcile", 5).summary["runs"] == "1"
    assert len(state.telemetry("reconcile", 5).runs) == 1
    assert state.recall("m") == {"k": 2}


def test_the_same_run_id_of_another_kind_is_another_run(kit: StateKit) -> None:
    state = kit.open()
    state.commit(commit("r1"))
    state.commit(commit("r1", "auto-manage", add={"runs": 1, "reason:disabled": 1}))
    assert state.telemetry("auto-manage", 5).summary["reason:disabled"] == "1"
    assert state.telemetry("reconcile", 5).summary["runs"] == "1"


def test_listed_but_not_counted(kit: StateKit) -> None:
    state = kit.open()
    state.commit(commit("dry", add={}, put={}))
    assert not state.telemetry("reconcile", 5).summary
    assert len(state.telemetry("reconcile", 5).runs) == 1


@pytest.mark.parametrize(("kind", "kept"), [("reconcile", 100), ("auto-manage", 200)])
def test_lists_are_capped(kit: StateKit, kind: str, kept: int) -> None:
    state = kit.open()
    for i in range(kept + 3):
        state.commit(commit(f"r{i}", kind))
    runs = state.telemetry(kind, 1000).runs
    assert len(runs) == kept
    assert runs[0]["runId"] == f"r{kept + 2}"
    assert state.telemetry(kind, 1).summary["runs"] == str(kept + 3)


# ------------------------------------------------------------------ journal


def test_intents_live_until_their_outcome(kit: StateKit) -> None:
    state = kit.open()
    state.intend([entry(1), entry(2, trade="t2")])
    other = kit.open()
    assert other.intents() == [entry(1), entry(2, trade="t2")]
    state.commit(commit("r1", entries=(entry(1, "written"), entry(3, "noted"))))
    assert other.intents() == [entry(2, trade="t2")]
    assert [(e.id, e.outcome) for e in other.journal()] == [("e1", "written"), ("e2", "intended"), ("e3", "noted")]


def test_the_journal_is_exact(kit: StateKit) -> None:
    state = kit.open()
    odd = entry(
        1,
        "noted",
        before={"a": None, "b": 1234567890123456789, "ü": "🚀\n\"'"},
        after={"x": {"y": [True, Decimal("0.1")]}},
    )
    state.intend([odd])
    (found,) = kit.open().journal(trade_id="t1")
    assert found == odd


def test_the_journal_is_found_by_trade_and_by_run(kit: StateKit) -> None:
    state = kit.open()
    state.intend([entry(1, trade="a", run="r1"), entry(2, trade="b", run="r1"), entry(3, trade="a", run="r2")])
    assert [e.id for e in state.journal(trade_id="a")] == ["e1", "e3"]
    assert [e.id for e in state.journal(run_id="r1")] == ["e1", "e2"]
    assert [e.id for e in state.journal(trade_id="a", run_id="r1")] == ["e1"]
    assert state.journal(trade_id="nobody") == []


def test_the_journal_is_bounded_and_open_intents_stay(kit: StateKit) -> None:
    state = kit.open(journal_kept=10)
    state.intend([entry(0)])
    for i in range(1, 30):
        state.commit(commit(f"r{i}", entries=(entry(i, "noted"),)))
    assert [e.id for e in state.journal()] == ["e0", *(f"e{i}" for i in range(21, 30))]
    state.intend([entry(i) for i in range(100, 115)])
    kept = {e.id for e in state.intents()}
    assert kept == {"e0", *(f"e{i}" for i in range(100, 115))}
    assert len(state.journal()) == 16


def test_intending_twice_is_one_entry(kit: StateKit) -> None:
    state = kit.open()
    state.intend([entry(1), entry(2)])
    state.intend([entry(1)])
    assert [e.id for e in state.journal()] == ["e1", "e2"]
    state.intend([])
    assert len(state.intents()) == 2


# ------------------------------------------------------------------ memory


def test_memory_by_section_and_id(kit: StateKit) -> None:
    state = kit.open()
    state.remember("seen", {"a": {"at": "x", "n": Decimal("1.50")}, "b": [1, None], "ü": "z", "f": False})
    state.remember("pin", {"account": "PA1"})
    other = kit.open()
    assert other.recall("seen") == {"a": {"at": "x", "n": Decimal("1.5")}, "b": [1, None], "ü": "z", "f": False}
    assert other.recall("seen", ["b", "nobody", "b"]) == {"b": [1, None]}
    assert other.recall("seen", []) == {}
    state.remember("seen", {"a": None, "b": 2, "nobody": None})
    assert other.recall("seen") == {"b": 2, "ü": "z", "f": False}
    state.remember("seen", {})
    assert other.recall("pin") == {"account": "PA1"}


def test_a_commit_carries_memory(kit: StateKit) -> None:
    state = kit.open()
    state.remember("seen", {"a": 1, "b": 1})
    state.commit(commit("r1", memory={"seen": {"a": None, "c": 3}, "pin": {"account": {"id": "PA1"}}}))
    assert state.recall("seen") == {"b": 1, "c": 3}
    assert state.recall("pin") == {"account": {"id": "PA1"}}


def test_a_run_that_was_overtaken_leaves_no_stale_memory(kit: StateKit) -> None:
    slow: Any = kit.open()
    quick: Any = kit.open()
    old = slow.acquire("slow", 0.1)
    assert old is not None
    slow.intend([entry(1)])
    time.sleep(0.15)
    new = quick.acquire("quick", 30)
    assert new is not None
    quick.commit(commit("new", memory={"misses": {"a": None, "b": 2}}), new)
    late = commit("old", entries=(entry(1, "written"),), totals={"e1": "totalSynced"}, memory={"misses": {"b": 1}})
    with pytest.raises(FencedOff):
        slow.commit(late, old)
    assert slow.recall("misses") == {"b": 2}
    assert [run["runId"] for run in slow.telemetry("reconcile", 5).runs] == ["new"]
    with pytest.raises(FencedOff):
        slow.intend([entry(2)], old)
    assert [e.outcome for e in slow.journal()] == ["intended"]
    for _ in range(2):  # what is true for good is recorded without the lease, and once
        slow.commit(replace(late, memory={}), None)
    assert slow.recall("misses") == {"b": 2}
    assert slow.telemetry("reconcile", 5).summary["totalSynced"] == "1"
    assert [run["runId"] for run in slow.telemetry("reconcile", 5).runs] == ["old", "new"]
    slow.commit(late, old)  # a second delivery


def test_a_lock_that_ended_without_a_successor_may_still_commit(kit: StateKit) -> None:
    state: Any = kit.open()
    lease = state.acquire("slow", 0.1)
    assert lease is not None
    time.sleep(0.15)
    state.commit(commit("r1", memory={"misses": {"a": 1}}), lease)
    assert state.recall("misses") == {"a": 1}


def test_many_ids_at_once(kit: StateKit) -> None:
    state = kit.open()
    values = {f"k{i}": i for i in range(1200)}
    state.remember("many", values)
    assert state.recall("many", values) == values
    state.intend([entry(i) for i in range(1200)])
    assert [e.id for e in state.intents()] == [f"e{i}" for i in range(1200)]


def test_ledgers_do_not_share_what_is_theirs(kit: StateKit) -> None:
    one, two = kit.open(), kit.open(ledger="file:/elsewhere.json")
    one.remember("pin", {"account": "A"})
    one.intend([entry(1)])
    assert one.acquire("one", 30) is not None
    assert two.recall("pin") == {}
    assert two.journal() == []
    assert two.lock_info() is None
    assert two.acquire("two", 30) is not None


# ------------------------------------------------------------------ several ledgers


def signed(run_id: str, kind: str = "reconcile", **more: Any) -> RunCommit:
    """A commit whose row says that it is of a ledger of ours, as all do now."""
    return commit(run_id, kind, run={"ts": "t", "runId": run_id, "ledger": "its name"}, **more)


def test_the_runs_of_a_ledger_are_its_own(kit: StateKit) -> None:
    one, two = kit.open(), kit.open(ledger="file:/elsewhere.json")
    one.commit(signed("r1"))
    two.commit(signed("r1", put={"lastOk": "false"}))
    two.commit(signed("r2", put={"lastOk": "false"}))
    two.commit(signed("m1", "auto-manage"))
    assert (one.telemetry("reconcile", 5).summary["runs"], one.telemetry("reconcile", 5).summary["lastOk"]) == (
        "1", "true",
    )  # fmt: skip
    assert [run["runId"] for run in two.telemetry("reconcile", 5).runs] == ["r2", "r1"]
    assert one.telemetry("auto-manage", 5) == kit.open(ledger="third").telemetry("auto-manage", 5)


def test_all_ledgers_of_a_state_are_known_by_what_they_say_of_themselves(kit: StateKit) -> None:
    one, two = kit.open(), kit.open(ledger="file:/elsewhere.json")
    assert one.ledgers("reconcile") == []
    one.commit(signed("r1", about={"ledger": "one", "interval": 300.0}))
    two.commit(signed("r1", about={"ledger": "two", "interval": 60.0}))
    two.commit(signed("r2", about={"ledger": "two, renamed", "interval": 60.0}, put={"lastOk": "false"}))
    found = {known.about["ledger"]: known.summary for known in kit.open(ledger="third").ledgers("reconcile")}
    assert {name: (summary["runs"], summary["lastOk"]) for name, summary in found.items()} == {
        "one": ("1", "true"),
        "two, renamed": ("2", "false"),
    }


def test_ledgers_of_one_account_hear_what_the_others_hold(kit: StateKit) -> None:
    one, two, other = (kit.open(ledger=name) for name in ("one", "two", "other"))
    for state, account in ((one, "A"), (two, "A"), (other, "B")):
        state.remember("pin", {"account": {"id": account, "live": False}})
        state.commit(signed("r1", word=(account, {"ledger": account, "holds": [{"quantity": Decimal("0.10")}]})))
    two.commit(signed("r2", word=("A", {"ledger": "two", "holds": []})))
    names = ("pin", "neighbours")
    assert list(kit.open(ledger="one").recall_all(names).neighbours.values()) == [{"ledger": "two", "holds": []}]
    assert kit.open(ledger="other").recall_all(names).neighbours == {}
    assert kit.open(ledger="not pinned").recall_all(names).neighbours == {}


def test_a_ledger_that_has_said_nothing_of_itself_is_known_to_itself(kit: StateKit) -> None:
    one = kit.open()
    one.commit(signed("r1"))
    assert [(known.about, known.summary["runs"]) for known in one.ledgers("reconcile")] == [({}, "1")]
    assert kit.open(ledger="another").ledgers("reconcile") == []


# ------------------------------------------------------------------ lock


def test_one_holder_at_a_time(kit: StateKit) -> None:
    one, two = kit.open(), kit.open()
    lease = one.acquire("run r1 on host", 30)
    assert lease is not None
    lease.verify()
    assert two.acquire("other", 30) is None
    info = two.lock_info()
    assert info is not None
    assert info.holder == "run r1 on host"
    assert 25 < info.seconds_left <= 30
    one.release(lease)
    assert two.lock_info() is None
    with pytest.raises(FencedOff):
        lease.verify()
    again = two.acquire("other", 30)
    assert again is not None
    assert int(again.token.split(":")[0]) > int(lease.token.split(":")[0])


def test_an_expired_lock_is_free_and_its_holder_fenced_off(kit: StateKit) -> None:
    one, two = kit.open(), kit.open()
    lease = one.acquire("one", 0.1)
    assert lease is not None
    time.sleep(0.15)
    assert two.lock_info() is None
    with pytest.raises(FencedOff):
        lease.verify()
    other = two.acquire("two", 30)
    assert other is not None
    with pytest.raises(FencedOff):
        lease.verify()
    one.release(lease)
    other.verify()


def test_many_at_once_get_one_lock(kit: StateKit) -> None:
    states = [kit.open() for _ in range(6)]
    got: list[object] = []
    threads = [threading.Thread(target=lambda s=s: got.append(s.acquire("x", 30))) for s in states]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease is not None for lease in got) == 1


@pytest.mark.parametrize(
    "spelling",
    ["redis://h", "redis://h:6379", "redis://H:6379/0", "redis://:new@h/0", "redis://u:p@h/0?x=1", "rediss://h/0?db=0"],
)
def test_spooled_records_follow_the_ledger_and_not_the_spelling_of_its_url(tmp_path: Path, spelling: str) -> None:
    def spool(url: str, key: str = "k") -> FolderSpool:
        return FolderSpool(tmp_path, ledger_place=f"{RedisServer(url).place}#{key}")

    spool("redis://:old@h:6379/0").put(commit("r1"))
    assert spool(spelling).waiting() == 1
    assert spool(f"{spelling}", "other").waiting() == 0
    for other in ("redis://h:6380/0", "redis://h:6379/1", "redis://other:6379/0", "redis://localhost:6379/0"):
        assert spool(other).waiting() == 0


def test_this_machine_is_one_place_by_whatever_name(tmp_path: Path) -> None:
    names = ("localhost", "127.0.0.1", "[::1]", "LOCALHOST")
    spools = {FolderSpool(tmp_path, ledger_place=f"{RedisServer(f'redis://{n}').place}#k").folder for n in names}
    assert len(spools) == 1


# ------------------------------------------------------------------ Redis only


def redis_state(site: Site) -> RedisState:
    return RedisState(site.server(), ledger_place=LEDGER, prefix=site.prefix)


def test_telemetry_stands_where_the_dashboards_read_it(site: Site) -> None:
    state = redis_state(site)
    state.commit(commit("r1"))
    state.commit(commit("m1", "auto-manage"))
    client, p = site.client, site.prefix
    assert client.hgetall(f"{p}telemetry:reconcile:summary")[b"lastOk"] == b"true"
    assert client.hget(f"{p}telemetry:auto-manage:summary", "runs") == b"1"
    assert json.loads(client.lindex(f"{p}telemetry:reconcile:runs", 0)) == {"ts": "t", "runId": "r1", "ok": True}
    assert client.llen(f"{p}telemetry:auto-manage:runs") == 1
    state.acquire("x", 10)
    others = {key.decode().removeprefix(p) for key in client.scan_iter(match=f"{p}*")}
    assert all(key.startswith(("ghostclean:", "telemetry:")) for key in others)


def test_what_the_app_wrote_before_us_goes_on(site: Site) -> None:
    p = site.prefix
    site.client.hset(f"{p}telemetry:reconcile:summary", mapping={"runs": "41", "totalClosed": "n/a", "own": "kept"})
    site.client.lpush(f"{p}telemetry:reconcile:runs", '{"ts":1}', "garbled")
    state = redis_state(site)
    state.commit(commit("r1"))
    shown = state.telemetry("reconcile", 9)
    assert shown.summary["runs"] == "42"
    assert shown.summary["totalClosed"] == "2"
    assert shown.summary["own"] == "kept"
    assert shown.runs[1:] == ({"unreadable": "garbled"}, {"ts": 1})


def test_a_damaged_word_of_another_ledger_is_left_out(site: Site) -> None:
    state = RedisState(site.server(), ledger_place=LEDGER, prefix=site.prefix)
    state.remember("pin", {"account": {"id": "A", "live": False}})
    site.client.hset(f"{site.prefix}ghostclean:neighbours:A", mapping={"x": "{", "y": "7", "z": '{"ledger":"z"}'})
    state.open()
    assert state.recall_all(("neighbours",)).neighbours == {"z": {"ledger": "z"}}


def test_dashboards_read_the_sum_of_all_ledgers_under_one_prefix(site: Site) -> None:
    p = site.prefix
    for ledger, closed in (("file:/one.json", 2), ("file:/two.json", 3)):
        state = RedisState(site.server(), ledger_place=ledger, prefix=p)
        run = {"ts": "t", "runId": ledger, "ok": True, "ledger": ledger, "account": "PA1"}
        state.commit(commit("r1", run=run, add={"runs": 1, "totalClosed": closed}, put={"lastRunId": ledger}))
    summary = {k.decode(): v.decode() for k, v in site.client.hgetall(f"{p}telemetry:reconcile:summary").items()}
    assert summary == {"runs": "2", "totalClosed": "5", "lastRunId": "file:/two.json"}
    listed = [json.loads(text) for text in site.client.lrange(f"{p}telemetry:reconcile:runs", 0, -1)]
    assert [run["ledger"] for run in listed] == ["file:/two.json", "file:/one.json"]


def test_a_foreign_key_in_our_place_changes_nothing(site: Site) -> None:
    site.client.set(f"{site.prefix}telemetry:reconcile:summary", "mine")
    state = redis_state(site)
    with pytest.raises(StateFailed, match="telemetry:reconcile:summary"):
        state.commit(commit("r1", entries=(entry(1),)))
    assert state.journal() == []
    with pytest.raises(StateFailed):
        state.telemetry("reconcile", 1)


def test_a_newer_schema_is_refused_in_redis(site: Site) -> None:
    state = redis_state(site)
    state.open()
    lease = state.acquire("x", 5)
    assert lease is not None
    (key,) = site.client.scan_iter(match=f"{site.prefix}*:schema")
    assert site.client.get(key) == b"1"
    site.client.set(key, "2")
    with pytest.raises(StateFailed, match="newer"):
        redis_state(site).open()
    site.client.set(key, "x")
    with pytest.raises(StateFailed, match="schema"):
        redis_state(site).open()


def test_opening_writes_nothing(site: Site) -> None:
    redis_state(site).open()
    assert list(site.client.scan_iter(match=f"{site.prefix}*")) == []


class Answers:
    """A server that meets everybody with one failure."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def client(self) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.AuthenticationError("WRONGPASS invalid username-password pair"), "password"),
        (redis.TimeoutError("Timeout reading from socket"), "no answer"),
        (redis.ConnectionError("Error 111 connecting to h:6379 with s3cret. Connection refused."), "refused"),
        (redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'."), "memory"),
        (redis.ReadOnlyError("READONLY You can't write against a read only replica."), "replica"),
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), "save to disk"),
        (redis.BusyLoadingError("LOADING Redis is loading the dataset in memory"), "loading"),
        (redis.exceptions.NoPermissionError("NOPERM this user has no permissions"), "permission"),
        (OSError("broken pipe"), "broken pipe"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failures_are_one_clear_line(error: Exception, words: str) -> None:
    state = RedisState(RedisServer("redis://me:s3cret@h/0", client=Answers(error)), ledger_place=LEDGER)
    with pytest.raises(StateFailed) as caught:
        state.open()
    text = str(caught.value)
    assert words in text
    assert "s3cret" not in text
    assert "redis://h:6379/0" in text
    assert "\n" not in text
    assert "Cure:" in text


def test_a_dead_server_is_known_soon() -> None:
    start = time.monotonic()
    with pytest.raises(StateFailed, match=re.escape("redis://127.0.0.1:1/0")):
        RedisState(RedisServer("redis://127.0.0.1:1/0"), ledger_place=LEDGER).open()
    assert time.monotonic() - start < 1 + SLACK


def test_a_full_server_records_nothing_by_halves() -> None:
    if not binaries():
        pytest.skip("no server on this machine")
    with redis_server(None, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as url:
        state = RedisState(RedisServer(url), ledger_place=LEDGER)
        with pytest.raises(StateFailed, match="memory"):
            state.commit(commit("r1", entries=(entry(1),)))
        assert state.telemetry("reconcile", 5).summary == {}
        assert state.intents() == []
        state.close()


# ------------------------------------------------------------------ SQLite only


def sqlite_state(path: Path, **options: Any) -> SqliteState:
    return SqliteState(path, ledger_place=LEDGER, **options)


def test_the_sqlite_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "fresh" / "ghostclean.db"
    state = sqlite_state(path)
    state.open()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    state.close()


def test_a_newer_schema_is_refused_in_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    sqlite_state(path).open()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StateFailed, match="newer"):
        sqlite_state(path).open()


def test_what_is_no_state_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_bytes(b"this is no database, it is a text that is long enough to be looked at" * 20)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    for path, words in ((text, "not a SQLite"), (other, "another program"), (tmp_path, "folder")):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(StateFailed) as caught:
            sqlite_state(path).open()
        assert words in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert before is None or path.read_bytes() == before


def test_a_damaged_sqlite_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    state = sqlite_state(path)
    state.open()
    state.remember("many", {f"k{i}": "x" * 200 for i in range(500)})
    state.close()
    raw = bytearray(path.read_bytes())
    raw[4096:-4096] = b"\x07" * (len(raw) - 8192)
    path.write_bytes(raw)
    with pytest.raises(StateFailed, match="damaged") as caught:
        sqlite_state(path).recall("many")
    assert str(path) in str(caught.value)


def test_a_full_disk_is_named_and_nothing_half_written(tmp_path: Path) -> None:
    state = sqlite_state(tmp_path / "s.db")
    state.open()
    state.commit(commit("r1"))
    assert state._connection is not None
    pages = state._connection.execute("PRAGMA page_count").fetchone()[0]
    state._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateFailed, match="full"):
        state.commit(commit("r2", memory={"m": {f"k{i}": "x" * 500 for i in range(200)}}))
    assert state.telemetry("reconcile", 5).summary["runs"] == "1"
    state.close()


def test_a_read_only_database_is_named(tmp_path: Path) -> None:
    state = sqlite_state(tmp_path / "s.db")
    state.open()
    assert state._connection is not None
    state._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StateFailed, match="read-only"):
        state.intend([entry(1)])
    state.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    with pytest.raises(StateFailed, match="writable"):
        sqlite_state(tmp_path / "ro" / "sub" / "s.db").open()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateFailed) as caught:
        sqlite_state(tmp_path / "file" / "s.db").open()
    assert "Cure:" in str(caught.value)


def test_closing_does_not_wait_for_a_call_that_hangs(tmp_path: Path) -> None:
    state = sqlite_state(tmp_path / "s.db")
    state.open()
    with state._turn:
        start = time.monotonic()
        state.close()
        assert time.monotonic() - start < 1 + SLACK
    state.close()


def test_a_clock_set_back_does_not_lock_for_years(tmp_path: Path) -> None:
    clock = [1_000_000_000.0]
    state = sqlite_state(tmp_path / "s.db", now=lambda: clock[0])
    assert state.acquire("one", 70) is not None
    assert state.acquire("two", 70) is None
    clock[0] -= 10_000_000
    assert state.acquire("two", 70) is not None
    state.close()


_WORKER = """
import sys
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.ports import RunCommit
state = SqliteState(sys.argv[1], ledger_place="x")
for i in range(25):
    state.commit(RunCommit("reconcile", f"{sys.argv[2]}-{i}", {"n": i}, {"runs": 1}, {}))
"""


def test_a_second_ledger_keeps_the_sqlite_locks_of_the_first(tmp_path: Path) -> None:
    """Without them another process that ends takes itself for the last one, and removes the log that is in use."""
    states = [SqliteState(tmp_path / "state.db", ledger_place=place) for place in ("file:a", "file:b")]
    for state in states:
        state.open()
        state.remember("verdicts", {"t": {"verdict": "live"}})
    log = tmp_path / "state.db-wal"
    before = log.stat().st_ino

    look = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM run'); db.close()"
    subprocess.run([sys.executable, "-c", look, str(tmp_path / "state.db")], check=True)

    assert log.exists()
    assert log.stat().st_ino == before
    for state in states:
        assert state.recall("verdicts") == {"t": {"verdict": "live"}}
        state.close()


def test_two_processes_share_a_fresh_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.db"
    workers = [subprocess.Popen([sys.executable, "-c", _WORKER, str(path), str(i)]) for i in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    state = SqliteState(path, ledger_place="x")
    assert state.telemetry("reconcile", 1).summary["runs"] == "75"
    state.close()


# ------------------------------------------------------------------ spool


def test_the_spool_delivers_once_and_in_order(kit: StateKit, tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path / "spool", ledger_place=LEDGER)
    assert spool.waiting() == 0
    state = kit.open()
    assert spool.deliver(state) == 0
    for i in range(12):
        spool.put(commit(f"r{i}", entries=(entry(i, "noted"),), memory={"m": {"k": Decimal(i)}}))
    spool.put(commit("r3"))
    assert spool.waiting() == 13
    assert FolderSpool(tmp_path / "spool", ledger_place="another").waiting() == 0
    assert spool.deliver(state) == 13
    assert spool.waiting() == 0
    assert [run["runId"] for run in state.telemetry("reconcile", 100).runs] == [f"r{i}" for i in reversed(range(12))]
    assert state.telemetry("reconcile", 1).summary["runs"] == "12"
    assert state.recall("m") == {"k": 11}


def test_a_broken_spool_file_is_set_aside(kit: StateKit, tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path, ledger_place=LEDGER)
    spool.put(commit("r1"))
    for n, text in enumerate(["", "{", "[]", '{"kind":"reconcile"}', '{"kind":1,"runId":2,"run":3,"add":4}']):
        (spool.folder / f"0000{n}.json").write_text(text)
    (spool.folder / "00009.json").write_bytes(b"\xff\xfe")
    assert spool.deliver(kit.open()) == 1
    assert spool.waiting() == 0
    assert len(list(spool.folder.glob("*.bad"))) == 6
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in spool.folder.glob("0*-*.json"))


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": ["reconcile"]},
        {"runId": None},
        {"runId": "half \ud800"},
        {"run": "x"},
        {"add": {"runs": 10**30}},
        {"add": {"runs": "1"}},
        {"put": {"lastOk": None}},
        {"memory": []},
        {"memory": {"exits": "x"}},
        {"memory": {"exits": {"a": 5}}},
        {"memory": {"unproven": {"a": []}}},
        {"memory": {"ex\ud800": {}}},
        {"entries": [{**entry(1).to_dict(), "id": 7}]},
        {"entries": [{**entry(1).to_dict(), "after": "CLOSED"}]},
        {"entries": [{**entry(1).to_dict(), "proof": ["x"]}]},
        {"entries": {}},
        {"totals": {"e1": 1}},
    ],
    ids=str,
)
def test_a_record_of_wrong_types_is_set_aside(
    kit: StateKit, tmp_path: Path, broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    spool = FolderSpool(tmp_path, ledger_place=LEDGER)
    spool.put(commit("r1", entries=(entry(1),), totals={"e1": "totalClosed"}))
    (good,) = spool.folder.glob("*.json")
    bad = spool.folder / "00000-bad.json"
    bad.write_text(json.dumps({**json.loads(good.read_text()), **json.loads(json.dumps(broken, default=float))}))
    assert spool.deliver(kit.open()) == 1
    assert [file.name for file in spool.folder.iterdir()] == ["00000-bad.bad"]
    assert str(bad) in caplog.text


def test_a_folder_named_like_a_record_is_set_aside(kit: StateKit, tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path, ledger_place=LEDGER)
    spool.put(commit("r1"))
    (spool.folder / "00000.json").mkdir()
    assert spool.deliver(kit.open()) == 1
    assert [file.name for file in spool.folder.iterdir()] == ["00000.bad"]


def test_what_could_not_be_delivered_waits(kit: StateKit, tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path, ledger_place=LEDGER)
    spool.put(commit("r1"))
    (file,) = spool.folder.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    dead = RedisState(RedisServer("redis://h/0", client=Answers(redis.ConnectionError("down"))), ledger_place=LEDGER)
    with pytest.raises(StateFailed):
        spool.deliver(dead)
    assert spool.waiting() == 1
    assert spool.deliver(kit.open()) == 1


def test_a_spool_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateFailed, match="Cure:"):
        FolderSpool(tmp_path / "file", ledger_place=LEDGER).put(commit("r1"))


@pytest.mark.parametrize("piece", ["MULTI", "WATCH", "EXEC"])
def test_a_refused_piece_of_the_guard_means_that_nothing_is_stored(piece: str) -> None:
    def commit(state: RedisState) -> None:
        state.open()
        state.commit(RunCommit("reconcile", "r1", {"runId": "r1"}, {"runs": 1}))

    with redis_server(None, "--rename-command", piece, "") as url, redis.Redis.from_url(url) as client:
        state = RedisState(RedisServer(url), ledger_place=LEDGER)
        with pytest.raises(StateFailed):
            commit(state)
        assert not client.exists("telemetry:reconcile:summary", "telemetry:reconcile:runs")
        state.close()
