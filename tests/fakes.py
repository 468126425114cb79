"""In-memory ledger, state, spool and broker: the ports without a network, for the shell's tests."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ghostclean.app.ports import (
    Change,
    JournalEntry,
    Lease,
    LedgerView,
    LockInfo,
    Recalled,
    Record,
    RunCommit,
    State,
    Telemetry,
    WriteOutcome,
)
from ghostclean.core.broker import symbol_key
from ghostclean.core.ledger import FINAL, same_json, status_of, text
from ghostclean.errors import FencedOff, LedgerFailed

NOW = datetime(2026, 11, 20, 15, 5, tzinfo=UTC)


@dataclass
class FakeLease:
    """A lease that can be lost."""

    token: str = "token"
    redis_place: str | None = None
    redis_key: str | None = None
    lost: bool = False

    def verify(self) -> None:
        if self.lost:
            raise FencedOff("the lock expired")


@dataclass
class FakeLedger:
    """A list of records; `before_write` plays the app that writes at the worst moment."""

    records: list[dict[str, Any]] = field(default_factory=list)
    place: str = "fake:ledger"
    broken: str | None = None
    before_write: Any = None
    writes: int = 0
    chunk: int = 1_000_000

    def _check(self) -> None:
        if self.broken:
            raise LedgerFailed(self.broken)

    def read(self, *, whole: bool = False) -> LedgerView:
        self._check()
        active = tuple(copy.deepcopy(r) for r in self.records if status_of(r) not in FINAL)
        return LedgerView(active, len(self.records))

    def history(self, keys: frozenset[str]) -> list[Record]:
        return [
            copy.deepcopy(r)
            for r in self.records
            if status_of(r) in FINAL and symbol_key(text(r, "ticker", "symbol") or "") in keys
        ]

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        self._check()
        wanted = set(ids)
        return {r["id"]: copy.deepcopy(r) for r in self.records if r.get("id") in wanted}

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        self._check()
        lease.verify()
        if self.before_write:
            self.before_write(self)
        outcomes = [] if done is None else done
        outcomes += [self._write(change) for change in changes]
        return outcomes

    def _write(self, change: Change) -> WriteOutcome:
        present = next((r for r in self.records if r.get("id") == change.trade_id), None)
        if change.base is None:
            if present is not None:
                return WriteOutcome.EXISTS
            self.records.append(dict(change.fields))
        elif present is None:
            return WriteOutcome.GONE
        elif not same_json(present, change.base):
            return WriteOutcome.CHANGED
        else:
            present.update(change.fields)
            for name in change.remove:
                present.pop(name, None)
        self.writes += 1
        return WriteOutcome.WRITTEN

    def describe(self) -> str:
        return f"fake, {len(self.records)} trades"


@dataclass
class FakeState:
    """Dictionaries; `commits` keeps every delivery in order."""

    place: str = "fake:state"
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    entries: dict[str, JournalEntry] = field(default_factory=dict)
    commits: list[RunCommit] = field(default_factory=list)
    summaries: dict[str, dict[str, str]] = field(default_factory=dict)
    holder: str | None = None

    def open(self) -> None:
        return None

    def close(self) -> None:
        return None

    def acquire(self, holder: str, seconds: float) -> FakeLease | None:
        if self.holder is not None:
            return None
        self.holder = holder
        return FakeLease()

    def release(self, lease: FakeLease) -> None:
        self.holder = None

    def lock_info(self) -> LockInfo | None:
        return LockInfo(self.holder, 30.0) if self.holder else None

    def recall(self, section: str, ids: Iterable[str] | None = None) -> dict[str, Any]:
        kept = self.memory.get(section, {})
        return {i: v for i, v in kept.items() if ids is None or i in set(ids)}

    def recall_all(self, names: Sequence[str]) -> Recalled:
        known = {name: self.recall(name) for name in names if name != "intents"}
        return Recalled(**known, intents=tuple(self.intents()))

    def remember(self, section: str, values: Mapping[str, Any]) -> None:
        kept = self.memory.setdefault(section, {})
        for name, value in values.items():
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = value

    def intend(self, entries: Sequence[JournalEntry], lease: Any = None) -> None:
        self.entries.update((entry.id, entry) for entry in entries)

    def intents(self) -> list[JournalEntry]:
        return [entry for entry in self.entries.values() if entry.outcome == "intended"]

    def commit(self, commit: RunCommit, lease: Any = None, *, release: bool = False) -> None:
        if release:
            self.holder = None
        if any((c.kind, c.run_id) == (commit.kind, commit.run_id) for c in self.commits):
            return
        self.commits.append(commit)
        self.entries.update((entry.id, entry) for entry in commit.entries)
        for section, values in commit.memory.items():
            self.remember(section, values)
        summary = self.summaries.setdefault(commit.kind, {})
        for name, number in commit.add.items():
            summary[name] = str(int(summary.get(name, "0")) + number)
        summary.update(commit.put)

    def journal(self, *, trade_id: str | None = None, run_id: str | None = None) -> list[JournalEntry]:
        return [
            entry
            for entry in self.entries.values()
            if (trade_id is None or entry.trade_id == trade_id) and (run_id is None or entry.run_id == run_id)
        ]

    def telemetry(self, kind: str, limit: int) -> Telemetry:
        runs = [commit.run for commit in reversed(self.commits) if commit.kind == kind]
        return Telemetry(dict(self.summaries.get(kind, {})), tuple(runs[:limit]))


@dataclass
class FakeSpool:
    """Commits that wait in a list."""

    commits: list[RunCommit] = field(default_factory=list)

    def put(self, commit: RunCommit) -> None:
        self.commits.append(commit)

    def waiting(self) -> int:
        return len(self.commits)

    def deliver(self, state: State) -> int:
        delivered = len(self.commits)
        for commit in self.commits:
            state.commit(commit)
        self.commits.clear()
        return delivered


def raw_order(name: str, symbol: str, side: str, status: str = "new", **fields: Any) -> dict[str, Any]:
    """An order in the API's shape, as far as the mapping needs it."""
    return {
        "id": name,
        "client_order_id": f"client-{name}",
        "symbol": symbol,
        "asset_class": "crypto" if "/" in symbol else "us_equity",
        "side": side,
        "type": "limit",
        "order_class": "",
        "status": status,
        "qty": "10",
        "filled_qty": "0",
        "submitted_at": "2026-11-20T14:00:00Z",
        **fields,
    }


def raw_position(symbol: str, qty: str, value: str | None, **fields: Any) -> dict[str, Any]:
    """A position in the API's shape."""
    side = "short" if qty.startswith("-") else "long"
    return {"symbol": symbol, "qty": qty, "side": side, "market_value": value, "asset_id": f"asset-{symbol}", **fields}
