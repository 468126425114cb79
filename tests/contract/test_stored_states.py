"""States that an earlier version has written are read, and written on exactly as it would have done.

What it did not know, the telemetry of one ledger, is taken over and stands beside the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ghostclean.adapters.state.redis import RedisState
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.ports import MANAGE_MEMORY, RECONCILE_MEMORY, State
from ghostclean.core.safety import Pin

from .conftest import Site
from .stored_states import (
    FOLDER,
    JOURNAL_KEPT,
    LEDGER,
    NOW,
    begin,
    fill_redis,
    fill_sqlite,
    go_on,
    redis_content,
    same_tokens,
    sqlite_content,
)


def stored(name: str) -> Any:
    text = (FOLDER / name).read_text()
    return json.loads(text) if name.endswith(".json") else text


def read(state: State) -> None:
    """What `begin` left is all there."""
    state.open()
    known = state.recall_all(RECONCILE_MEMORY)
    assert known.pinned == Pin("PA1", live=False)
    assert known.misses["t2"]["count"] == 1
    assert known.exits == {"t1": ["o1", "o2"]}
    assert known.ledger["scanned"]["size"] == 4
    assert [e.id for e in known.intents] == ["r9:9:t9:0", "r10:10:t10:0"]
    assert state.recall_all(MANAGE_MEMORY).flatten == {}
    assert state.recall("numbers", ["gc-t1-stop-0"]) == {"gc-t1-stop-0": 3}
    assert [(e.id, e.outcome) for e in state.journal(run_id="r4")] == [("r4:4:t4:0", "noted")]
    shown = state.telemetry("reconcile", 100)
    assert (shown.summary["own"], shown.summary["runs"], len(shown.runs)) == ("kept", "47", 9)
    assert shown.runs[-2:] == ({"unreadable": "garbled"}, {"ts": 1})


OWN = "4e79c1066d58:"


def telemetry_of(state: State) -> Any:
    """What a ledger has for its own, once `go_on` has been."""
    shown = state.telemetry("reconcile", 100)
    managed = state.telemetry("auto-manage", 100)
    return dict(shown.summary), shown.runs, dict(managed.summary), managed.runs


def redis_state(site: Site) -> RedisState:
    return RedisState(site.server(), ledger_place=LEDGER, prefix=site.prefix, journal_kept=JOURNAL_KEPT)


def test_a_state_in_redis_is_read_and_written_on(site: Site) -> None:
    fill_redis(site.client, site.prefix, stored("redis-before.json"))
    with same_tokens():
        read(redis_state(site))
        assert redis_content(site.client, site.prefix) == stored("redis-before.json"), "reading has written"
        go_on(redis_state(site))
    content, own = redis_content(site.client, site.prefix), f"ghostclean:{OWN}telemetry:"
    assert {n: v for n, v in content.items() if not n.startswith(own)} == stored("redis-after.json")
    summary, runs, managed, _ = telemetry_of(redis_state(site))
    together = content["telemetry:reconcile:summary"]["value"]
    assert {n: v for n, v in summary.items() if not n.startswith("lastSuccess")} == together
    assert len(runs) == len(content["telemetry:reconcile:runs"]["value"])
    assert managed == content["telemetry:auto-manage:summary"]["value"]


def test_a_fresh_state_in_redis_has_the_same_keys(site: Site) -> None:
    summary = f"{site.prefix}telemetry:reconcile:summary"
    site.client.hset(summary, mapping={"totalClosed": "n/a", "own": "kept", "runs": "41"})
    site.client.lpush(f"{site.prefix}telemetry:reconcile:runs", '{"ts":1}', "garbled")
    with same_tokens():
        begin(redis_state(site))
    content = redis_content(site.client, site.prefix)
    assert {n: v for n, v in content.items() if f"{OWN}telemetry:" not in n} == stored("redis-before.json")


def sqlite_state(path: Path) -> SqliteState:
    return SqliteState(path, ledger_place=LEDGER, now=lambda: NOW, journal_kept=JOURNAL_KEPT)


def test_a_state_in_sqlite_is_read_and_written_on(tmp_path: Path) -> None:
    for name in ("before", "after"):
        fill_sqlite(tmp_path / name, stored(f"sqlite-{name}.sql"))
    state = sqlite_state(tmp_path / "before")
    with same_tokens():
        read(state)
        go_on(state)
    summary, runs, managed, _ = telemetry_of(state)
    state.close()
    after, found = sqlite_content(tmp_path / "after"), together(sqlite_content(tmp_path / "before"))
    assert found == after
    assert {n: v for n, v in summary.items() if not n.startswith("lastSuccess")} == {
        name: value for kind, name, value in after["summary"] if kind == "reconcile"
    }
    assert len(runs) == len([kind for kind, _ in after["run"] if kind == "reconcile"])
    assert managed == {name: value for kind, name, value in after["summary"] if kind == "auto-manage"}


def together(content: Any) -> Any:
    """Without the telemetry of one ledger."""
    told = {table: [row for row in content[table] if not row[0].startswith(OWN)] for table in ("summary", "run")}
    return {**content, **told}


def test_a_fresh_state_in_sqlite_has_the_same_tables(tmp_path: Path) -> None:
    fill_sqlite(tmp_path / "before", stored("sqlite-before.sql"))
    state = sqlite_state(tmp_path / "fresh")
    with same_tokens():
        begin(state)
    state.close()
    old, fresh = sqlite_content(tmp_path / "before"), sqlite_content(tmp_path / "fresh")
    counted = ("summary", "run")  # the app's own telemetry stood in the old one
    assert {n: v for n, v in fresh.items() if n not in counted} == {n: v for n, v in old.items() if n not in counted}
