"""Ledger, state and spool in memory, with the semantics of the real ones and an account of effects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ghostclean.app.ports import (
    Change,
    JournalEntry,
    Lease,
    LedgerView,
    LockInfo,
    Recalled,
    Record,
    Records,
    RunCommit,
    Telemetry,
)
from ghostclean.app.ports import WriteOutcome as Outcome
from ghostclean.core.broker import symbol_key
from ghostclean.core.ledger import FINAL, dumps, loads, record_id, status_of, text
from ghostclean.errors import FencedOff

from .clock import Clock

Effect = Callable[[str, Callable[[], Any]], Any]


def is_final(record: Record) -> bool:
    return status_of(record) in FINAL


def key_of(record: Record) -> str:
    return symbol_key(text(record, "ticker", "symbol") or "")


# --------------------------------------------------------------------------- what is shared


@dataclass
class Written:
    """One change that landed in the ledger."""

    run: str
    change: Change
    before: Record | None
    after: Record
    action: str
    at: float


@dataclass
class Store:
    """Everything that outlives a process: ledger records, state, spool.

    `exists` is False for a key that nobody has written; `foreign` is a ledger of another account.
    `explained` are the trades that a run which remembers has found at the broker; `words` what the
    ledgers in one state say to each other, by `name`.
    """

    clock: Clock
    name: str = "a"
    words: dict[str, str] = field(default_factory=dict)
    exists: bool = True
    foreign: bool = False
    explained: set[str] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)  # in ledger order, ids are unique here
    written: list[Written] = field(default_factory=list)
    lock: tuple[str, str, float] | None = None  # token, holder, expiry
    fence: int = 0
    memory: dict[str, dict[str, str]] = field(default_factory=dict)
    journal: dict[str, JournalEntry] = field(default_factory=dict)
    done: set[tuple[str, str]] = field(default_factory=set)
    summaries: dict[str, dict[str, str]] = field(default_factory=dict)
    runs: list[Mapping[str, Any]] = field(default_factory=list)
    spooled: list[RunCommit] = field(default_factory=list)
    on_write: Callable[[Written], None] = lambda written: None

    @property
    def is_there(self) -> bool:
        return self.exists or bool(self.records)

    @property
    def pin(self) -> str | None:
        """The pinned account, as it is stored."""
        return self.memory.get("pin", {}).get("account")

    def flush(self) -> None:
        """All of it is lost: the ledger, and what the tool remembers of it; what it said to others stays."""
        self.exists, self.fence = False, self.fence + 1
        self.records, self.written, self.lock, self.memory, self.journal = {}, [], None, {}, {}
        self.done, self.summaries, self.runs, self.explained = set(), {}, [], set()
        self.spooled = []

    def holder(self) -> str | None:
        """The token of the lock as it stands."""
        if self.lock is not None and self.lock[2] <= self.clock.t:
            self.lock = None
        return self.lock[0] if self.lock else None


# --------------------------------------------------------------------------- one process's view


@dataclass
class SimLease:
    token: str
    store: Store
    redis_place: str | None = "sim"
    redis_key: str | None = "lock"

    def verify(self) -> None:
        if self.store.holder() != self.token:
            raise FencedOff("the lock expired while this run was paused; nothing more was written")


class SimLedger:
    """The `Ledger` port; every method is one effect, a write is atomic and fenced."""

    def __init__(self, store: Store, effect: Effect, run: str, *, one_text: bool) -> None:
        self.place = f"sim#{store.name}"
        self._store, self._effect, self._run, self._one_text = store, effect, run, one_text
        self._snapshot: list[Record] = []
        self.chunk = 1_000_000 if one_text else 25

    def read(self, *, whole: bool = False) -> LedgerView:
        return self._effect("ledger", self._read)

    def _read(self) -> LedgerView:
        self._snapshot = list(self._store.records.values())
        active = tuple(r for r in self._snapshot if not is_final(r))
        return LedgerView(active, len(self._snapshot), exists=self._store.is_there)

    def history(self, keys: frozenset[str]) -> list[Record]:
        def look() -> list[Record]:
            records = self._snapshot if self._one_text else self._store.records.values()
            return [r for r in records if is_final(r) and key_of(r) in keys]

        return self._effect("ledger", look)

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        names = list(ids)

        def look() -> dict[str, Record]:
            self._snapshot = list(self._store.records.values())
            return {i: self._store.records[i] for i in names if i in self._store.records}

        return self._effect("ledger", look)

    def describe(self) -> str:
        return "in memory"

    def records(self) -> Records:
        raise NotImplementedError

    def fill(self, texts: Sequence[str], *, dry_run: bool = False) -> None:
        raise NotImplementedError

    def write(self, changes: Sequence[Change], lease: Lease, done: list[Outcome] | None = None) -> list[Outcome]:
        outcomes = [] if done is None else done
        parts = [changes] if self._one_text else [[change] for change in changes]
        for part in parts:
            outcomes += self._effect("ledger", lambda part=part: self._apply(part, lease))
        return outcomes

    def _apply(self, changes: Sequence[Change], lease: Lease) -> list[Outcome]:
        lease.verify()
        return [self._change(change) for change in changes]

    def _change(self, change: Change) -> Outcome:
        store = self._store
        present = store.records.get(change.trade_id)
        if change.base is None:
            if present is not None:
                return Outcome.WRITTEN if present == dict(change.fields) else Outcome.EXISTS
            after: Record = dict(change.fields)
        elif present is None:
            return Outcome.GONE
        else:
            after = {k: v for k, v in change.base.items() if k not in change.remove} | dict(change.fields)
            if present != change.base:
                return Outcome.WRITTEN if present == after else Outcome.CHANGED
            after = {k: v for k, v in present.items() if k not in change.remove} | dict(change.fields)
        done = Written(self._run, change, present, after, _action(present, after), store.clock.t)
        store.on_write(done)
        store.records[record_id(after) or change.trade_id] = after
        store.written.append(done)
        return Outcome.WRITTEN


def _action(before: Record | None, after: Record) -> str:
    if before is None:
        return "adopted"
    if is_final(after) and not is_final(before):
        return "closed"
    if is_final(before) and not is_final(after):
        return "reopened"
    return "synced"


class SimState:
    """The `State` port over the shared store; values go through their stored form."""

    place = "sim"

    def __init__(self, store: Store, effect: Effect) -> None:
        self._store, self._effect = store, effect

    def open(self) -> None:
        self._effect("state", lambda: None)

    def close(self) -> None:
        return

    def acquire(self, holder: str, seconds: float) -> Lease | None:
        def take() -> Lease | None:
            store = self._store
            if store.holder() is not None:
                return None
            store.fence += 1
            token = f"{store.fence}:{store.clock.t:.3f}"
            store.lock = (token, holder, store.clock.t + seconds)
            return SimLease(token, store)

        return self._effect("state", take)

    def release(self, lease: Lease) -> None:
        self._effect("state", lambda: self._release(lease))

    def _release(self, lease: Lease) -> None:
        if self._store.holder() == lease.token:
            self._store.lock = None

    def lock_info(self) -> LockInfo | None:
        lock = self._store.lock
        return LockInfo(lock[1], lock[2] - self._store.clock.t) if lock else None

    def recall(self, section: str, ids: Iterable[str] | None = None) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            found = self._store.memory.get(section, {})
            wanted = found if ids is None else [i for i in ids if i in found]
            return {i: loads(found[i]) for i in wanted}

        return self._effect("state", look)

    def recall_all(self, names: Sequence[str]) -> Recalled:
        def look() -> Recalled:
            known = {name: {i: loads(v) for i, v in self._store.memory.get(name, {}).items()} for name in names}
            store = self._store
            others = {i: loads(text) for i, text in store.words.items() if i != store.name and store.pin is not None}
            return Recalled(**{**known, "neighbours": others, "intents": tuple(self._open_intents())})

        return self._effect("state", look)

    def remember(self, section: str, values: Mapping[str, Any]) -> None:
        self._effect("state", lambda: self._remember(section, values))

    def _remember(self, section: str, values: Mapping[str, Any]) -> None:
        stored = self._store.memory.setdefault(section, {})
        for i, value in values.items():
            if value is None:
                stored.pop(i, None)
            else:
                stored[i] = dumps(value)

    def intend(self, entries: Sequence[JournalEntry], lease: Lease | None = None) -> None:
        self._effect("state", lambda: self._intend(entries, lease))

    def _intend(self, entries: Sequence[JournalEntry], lease: Lease | None) -> None:
        self._check_fence(lease)
        self._store.journal.update({e.id: e for e in entries})

    def _check_fence(self, lease: Lease | None) -> None:
        if lease is not None and self._store.fence > int(lease.token.partition(":")[0]):
            raise FencedOff("another run has had the lock since")

    def intents(self) -> list[JournalEntry]:
        return self._effect("state", self._open_intents)

    def _open_intents(self) -> list[JournalEntry]:
        return [e for e in self._store.journal.values() if e.outcome == "intended"]

    def commit(self, commit: RunCommit, lease: Lease | None = None, *, release: bool = False) -> None:
        def store() -> None:
            self._commit(commit, lease)
            if release and lease is not None:
                self._release(lease)

        self._effect("state", store)

    def _commit(self, commit: RunCommit, lease: Lease | None) -> None:
        store = self._store
        dumps(commit.run)
        if (commit.kind, commit.run_id) in store.done:
            return
        self._check_fence(lease)
        store.done.add((commit.kind, commit.run_id))
        add, summary = dict(commit.add), store.summaries.setdefault(commit.kind, {})
        for entry in commit.entries:
            known = store.journal.get(entry.id)
            total = commit.totals.get(entry.id)
            if total and entry.outcome == "written" and (known is None or known.outcome != "written"):
                add[total] = add.get(total, 0) + 1
            if known is None or known.outcome != "written":
                store.journal[entry.id] = entry
        for name, amount in add.items():
            summary[name] = str(int(summary.get(name, "0")) + amount)
        summary.update(commit.put)
        store.runs.insert(0, commit.run)
        for section, values in commit.memory.items():
            self._remember(section, values)
        if commit.word is not None:
            store.words[store.name] = dumps(commit.word[1])

    def journal(self, *, trade_id: str | None = None, run_id: str | None = None) -> list[JournalEntry]:
        entries = self._store.journal.values()
        return [e for e in entries if trade_id in (None, e.trade_id) and run_id in (None, e.run_id)]

    def telemetry(self, kind: str, limit: int) -> Telemetry:
        return Telemetry(dict(self._store.summaries.get(kind, {})), tuple(self._store.runs[:limit]))


class SimSpool:
    """The `Spool` port of one machine; a local disk that may fail as well."""

    def __init__(self, store: Store, effect: Effect) -> None:
        self._store, self._effect = store, effect

    def put(self, commit: RunCommit) -> None:
        self._effect("spool", lambda: self._store.spooled.append(replace(commit)))

    def _drop(self, commit: RunCommit) -> None:
        self._store.spooled = [kept for kept in self._store.spooled if kept is not commit]

    def waiting(self) -> int:
        return len(self._store.spooled)

    def deliver(self, state: SimState) -> int:
        delivered = 0
        for commit in list(self._store.spooled):
            state.commit(commit)
            self._effect("spool", lambda c=commit: self._drop(c))
            delivered += 1
        return delivered
