"""A state as an earlier version left it, and what the same version made of it afterwards.

`begin` and `go_on` are the two halves of its life, `redis_content` and `sqlite_content` all that
a store then holds. The files in `stored/` are the content after each half, made by version 0.1:
they are never made again, for a state that once was written is read and written on for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ghostclean.app.ports import JournalEntry, RunCommit, State

FOLDER = Path(__file__).parent / "stored"
LEDGER = "redis://somewhere:6379/0#trades:v1:old"
JOURNAL_KEPT = 8
NOW = 1_800_000_000.0


def entry(n: int, outcome: str, **more: Any) -> JournalEntry:
    return JournalEntry(
        id=f"r{n}:{n}:t{n}:0", at=f"2026-11-22T07:38:{n:02d}.123Z", run_id=f"r{n}", source="cli", trade_id=f"t{n}",
        ticker="AAPL", verdict="exited", action="closed", reason="stop_loss \u2013 ü🚀\"'\n",
        proof=({"what": "fill", "orderId": f"o{n}", "price": Decimal("187.40"), "qty": Decimal("1E-9")},),
        before=more.get("before", {"status": "OPEN", "stopPrice": Decimal("1E+2"), "note": None}),
        after=more.get("after", {"status": "CLOSED", "closePrice": Decimal("187.4"), "deep": {"x": [True, 1]}}),
        outcome=outcome,
    )  # fmt: skip


def commit(n: int, kind: str = "reconcile", **more: Any) -> RunCommit:
    return RunCommit(
        kind,
        f"r{n}@2026-11-22T07:38:{n:02d}.123Z",
        {"ts": f"2026-11-22T07:38:{n:02d}.123Z", "runId": f"r{n}", "ok": True},
        **{"add": {"runs": 1, "success": 1, "totalClosed": 0}, "put": {"lastOk": "true", "lastRunId": f"r{n}"}, **more},
    )  # fmt: skip


def begin(state: State) -> None:
    """Runs, a killed one among them, and a journal that has reached its limit."""
    state.open()
    lease = state.acquire("cli r1", 60)
    assert lease is not None
    state.remember("pin", {"account": {"id": "PA1", "live": False, "at": "2026-11-22T07:38:01.000Z"}})
    state.remember("numbers", {"gc-t1-stop-0": 3})
    state.intend([entry(1, "intended"), entry(2, "intended")], lease)
    state.commit(
        commit(
            1,
            entries=(entry(1, "written"), entry(2, "left"), entry(3, "noted", before=None, after=None)),
            memory={
                "first_seen": {"t1": "2026-11-22T07:38:01.000Z", "t2": "2026-11-22T07:38:02.000Z"},
                "misses": {"t2": {"count": 1, "first": "2026-11-22T07:38:02.000Z", "last": "2026-11-22T07:38:02.000Z"}},
                "exits": {"t1": ["o1", "o2"]},
                "orders": {"o1": {"id": "o1", "qty": "10", "trade": "t1"}},
                "unproven": {"t9": {"at": "2026-11-22T07:38:02.000Z", "qty": "1", "before": {"x": Decimal("0.10")}}},
                "verdicts": {"t2": {"verdict": "live", "since": "2026-11-22T07:38:02.000Z", "reason": ""}},
                "ledger": {"seen": True, "scanned": {"at": "2026-11-22T07:38:02.000Z", "size": 4}},
            },
            totals={entry(1, "").id: "totalClosed"},
        ),
        lease,
    )
    state.commit(commit(2, "auto-manage", add={"runs": 1, "reason:disabled": 1}, put={"lastReason": "disabled"}))
    state.commit(commit(3, add={}, put={}))
    for n in range(4, 9):
        state.commit(commit(n, entries=(entry(n, "noted", before=None, after=None),)))
    state.release(lease)
    killed = state.acquire("cli r9", 60)
    assert killed is not None
    state.intend([entry(9, "intended"), entry(10, "intended")], killed)
    state.release(killed)


def go_on(state: State) -> None:
    """The next runs: they complete what was left, and commit again what was delivered."""
    state.open()
    lease = state.acquire("cli r11", 60)
    assert lease is not None
    state.commit(commit(8, entries=(entry(8, "written"),), memory={"misses": {"t2": None}}))
    state.intend([entry(2, "left"), entry(11, "intended"), entry(1, "left")], lease)
    state.commit(
        commit(
            11,
            entries=(entry(9, "written"), entry(10, "left"), entry(11, "written"), entry(12, "noted")),
            memory={
                "misses": {"t2": None, "t3": {"count": 1}},
                "exits": {"t1": None},
                "orders": {},
                "verdicts": {"t2": None, "t11": {"verdict": "working", "n": Decimal("1.50")}},
                "alerts": {"last": {"failing": []}},
            },
            totals={entry(9, "").id: "totalClosed", entry(11, "").id: "totalSynced"},
        ),
        lease,
    )
    again = commit(12, entries=(entry(9, "written"), entry(13, "written")), totals={entry(9, "").id: "totalClosed"})
    state.commit(again, lease)
    state.commit(again, lease)
    state.commit(commit(13, "auto-manage", add={"runs": 1, "fail": 0}, put={"lastReason": ""}), lease)
    state.remember("holds", {"t1": {"facts": "f1", "runId": "r1"}, "t2": None})
    state.intend([entry(14, "intended")], lease)
    state.release(lease)


@contextmanager
def same_tokens() -> Iterator[None]:
    """The random part of a lock's token is the same for ever."""
    with patch("secrets.token_hex", lambda size: "ab" * size):
        yield


def redis_content(client: Any, prefix: str) -> dict[str, Any]:
    """Every key with its type and value."""
    content: dict[str, Any] = {}
    for raw in sorted(client.scan_iter(match=f"{prefix}*")):
        kind = client.type(raw).decode()
        value = {
            "string": lambda key: client.get(key).decode(),
            "hash": lambda key: {k.decode(): v.decode() for k, v in sorted(client.hgetall(key).items())},
            "list": lambda key: [v.decode() for v in client.lrange(key, 0, -1)],
            "set": lambda key: sorted(v.decode() for v in client.smembers(key)),
            "zset": lambda key: [[v.decode(), score] for v, score in client.zrange(key, 0, -1, withscores=True)],
        }[kind](raw)
        content[raw.decode().removeprefix(prefix)] = {"type": kind, "value": value}
    return content


def fill_redis(client: Any, prefix: str, content: dict[str, Any]) -> None:
    """Puts the content of another Redis there."""
    for name, stored in content.items():
        key, value = prefix + name, stored["value"]
        if stored["type"] == "string":
            client.set(key, value)
        elif stored["type"] == "hash":
            client.hset(key, mapping=value)
        elif stored["type"] == "list":
            client.rpush(key, *value)
        elif stored["type"] == "set":
            client.sadd(key, *value)
        else:
            client.zadd(key, dict(value))


def fill_sqlite(path: Path, content: str) -> None:
    """A database of that content."""
    db = sqlite3.connect(path)
    db.executescript(content)
    db.close()


def sqlite_content(path: Path) -> dict[str, Any]:
    """Schema, header and every row; rows of a sequence in its order, without its numbers."""
    db = sqlite3.connect(path)
    try:
        content: dict[str, Any] = {n: db.execute(f"PRAGMA {n}").fetchone() for n in ("application_id", "user_version")}
        for name, sql in db.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall():
            content[f"{name}: schema"] = sql
            if sql.startswith("CREATE TABLE"):
                numbered = "seq INTEGER" in sql
                rows = db.execute(f"SELECT * FROM {name} ORDER BY {'seq' if numbered else 'rowid'}").fetchall()
                content[name] = [row[1:] for row in rows] if numbered else sorted(rows)
        return content
    finally:
        db.close()
