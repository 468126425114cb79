"""Ledger, lock and journal against simple models, by Hypothesis state machines.

The ledger is a dictionary with a second writer, the lock two holders that may be paused past
their expiry, the journal a list with a bound and processes that die at any point.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import time_machine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ghostclean.adapters.ledgers.redis import RedisLedger
from ghostclean.adapters.redis_client import RedisServer
from ghostclean.adapters.state.redis import RedisState
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.ports import Change, JournalEntry, Lease, RunCommit, State, WriteOutcome
from ghostclean.core.ledger import loads, same_json
from ghostclean.errors import FencedOff

from .conftest import Servers, Site, close_site, open_site
from .kits import FileKit, FreeLease, HashKit, LedgerKit, StringKit

Fresh = Callable[[], tuple[Any, Callable[[], None]]]  # a fresh store, and how to be rid of it


def fake_site() -> Site:
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    return Site("redis://fake:6379/0", client, f"{uuid.uuid4().hex[:8]}:", fake=True)


def run(machine: type[RuleBasedStateMachine], fresh: Fresh, examples: int) -> None:
    bound = type(machine.__name__, (machine,), {"fresh": staticmethod(fresh)})
    run_state_machine_as_test(
        bound, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None, print_blob=True)
    )


# ------------------------------------------------------------------ the ledger

IDS = st.sampled_from(["a", "b", "c", "d"])
VALUES = st.one_of(st.sampled_from(["OPEN", "CLOSED", "é\n"]), st.integers(-3, 10**20), st.none(), st.booleans())
FIELDS = st.dictionaries(st.sampled_from(["status", "quantity", "x"]), VALUES, max_size=3)


class LedgerMachine(RuleBasedStateMachine):
    """Our changes and the app's, in any order and at the last instant, against a dictionary."""

    @staticmethod
    def fresh() -> tuple[Any, Callable[[], None]]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.kit: LedgerKit
        self.kit, self.drop = self.fresh()
        self.kit.seed('{"id":"keep","n":1e-9}')
        self.ledger = self.kit.open()
        self.model: dict[str, dict[str, Any]] = {"keep": loads('{"id":"keep","n":1e-9}')}
        self.known: dict[str, Any] = {}

    def teardown(self) -> None:
        self.drop()

    @rule()
    def we_read(self) -> None:
        view = self.ledger.read()
        assert view.total == len(self.model)
        self.known = self.ledger.get(self.model)
        assert same_json(self.known, self.model)

    @rule(trade=IDS, fields=FIELDS)
    def the_app_writes(self, trade: str, fields: dict[str, Any]) -> None:
        if trade in self.model:
            self.kit.app_sets(trade, **fields)
            self.model[trade] = {**self.model[trade], **fields}

    @rule(trade=IDS)
    def the_app_deletes(self, trade: str) -> None:
        self.kit.app_deletes(trade)
        self.model.pop(trade, None)

    @rule(trade=IDS, fields=FIELDS)
    def we_insert(self, trade: str, fields: dict[str, Any]) -> None:
        self._write(Change(trade, None, {"id": trade, **fields}), None, {})

    @precondition(lambda self: self.known)
    @rule(data=st.data(), fields=FIELDS, remove=st.sets(st.sampled_from(["x", "quantity"])), late=st.none() | FIELDS)
    def we_change(
        self, data: st.DataObject, fields: dict[str, Any], remove: set[str], late: dict[str, Any] | None
    ) -> None:
        trade = data.draw(st.sampled_from(sorted(self.known)))
        other = data.draw(st.sampled_from(sorted(self.known)))
        change = Change(trade, self.known[trade], fields, tuple(sorted(remove - fields.keys())))
        self._write(change, other if late is not None else None, late or {})

    def _write(self, change: Change, other: str | None, late: dict[str, Any]) -> None:
        left = [other] if other else []

        def the_app_is_quicker() -> None:
            while left:
                self.the_app_writes(left.pop() or "", late)

        outcome = self.ledger.write([change], FreeLease(spy=the_app_is_quicker))
        assert outcome == [self._expected(change)]

    def _expected(self, change: Change) -> WriteOutcome:
        """What the model says, brought up to date."""
        now = self.model.get(change.trade_id)
        after = {k: v for k, v in (change.base or {}).items() if k not in change.remove} | dict(change.fields)
        if now is not None and same_json(now, after):
            return WriteOutcome.WRITTEN
        if change.base is None and now is not None:
            return WriteOutcome.EXISTS
        if change.base is not None and now is None:
            return WriteOutcome.GONE
        if change.base is not None and not same_json(now, change.base):
            return WriteOutcome.CHANGED
        self.model[change.trade_id] = after
        return WriteOutcome.WRITTEN

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        assert same_json(self.kit.content(), dict(self.model))


def fresh_file() -> tuple[LedgerKit, Callable[[], None]]:
    folder = tempfile.TemporaryDirectory()
    return FileKit(Path(folder.name)), folder.cleanup


def fresh_string() -> tuple[LedgerKit, Callable[[], None]]:
    return StringKit(fake_site()), lambda: None


def fresh_hash() -> tuple[LedgerKit, Callable[[], None]]:
    return HashKit(fake_site()), lambda: None


@pytest.mark.parametrize("fresh", [fresh_file, fresh_string, fresh_hash])
def test_the_ledger_is_a_dictionary_with_two_writers(fresh: Fresh) -> None:
    run(LedgerMachine, fresh, 40)


@pytest.mark.parametrize("kind", [StringKit, HashKit])
def test_the_ledger_is_a_dictionary_on_a_real_server(kind: type[StringKit], servers: Servers) -> None:
    def fresh() -> tuple[LedgerKit, Callable[[], None]]:
        site = open_site("valkey", servers)
        return kind(site), lambda: close_site(site)

    run(LedgerMachine, fresh, 20)


# ------------------------------------------------------------------ the lock

HOLDERS = st.sampled_from([0, 1])


class LockMachine(RuleBasedStateMachine):
    """Two holders, pauses and expiry: at most one may write, and only in its time."""

    @staticmethod
    def fresh() -> tuple[Any, Callable[[], None]]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.travel = time_machine.travel(1_800_000_000.0, tick=False)
        self.clock = self.travel.start()
        self.now = 0.0
        self.states: list[State]
        self.states, self.drop = self.fresh()
        self.ledger, self.writes = shared_ledger(self.states[0])
        self.leases: list[Lease | None] = [None, None]
        self.owner: tuple[int, float] | None = None
        self.fences: list[int] = []

    def teardown(self) -> None:
        self.drop()
        self.travel.stop()

    def _valid(self, who: int) -> bool:
        return self.owner is not None and self.owner[0] == who and self.now < self.owner[1]

    @rule(who=HOLDERS, seconds=st.sampled_from([1.0, 10.0]))
    def acquire(self, who: int, seconds: float) -> None:
        lease = self.states[who].acquire(f"holder {who}", seconds)
        free = self.owner is None or self.now >= self.owner[1]
        assert (lease is not None) == free
        if lease is not None:
            self.leases[who], self.owner = lease, (who, self.now + seconds)
            self.fences.append(int(lease.token.split(":")[0]))
            assert self.fences == sorted(set(self.fences))

    # Steps that never add up to an expiry exactly: servers differ about that very instant.
    @rule(seconds=st.sampled_from([0.31, 0.53, 5.07, 30.11]))
    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.clock.shift(seconds)

    @rule(who=HOLDERS)
    def release(self, who: int) -> None:
        lease = self.leases[who]
        if lease is not None:
            self.states[who].release(lease)
            if self._valid(who):
                self.owner = None

    @rule(who=HOLDERS)
    def write(self, who: int) -> None:
        lease = self.leases[who]
        if lease is None:
            return
        self.writes += 1
        change = Change(f"w{self.writes}", None, {"id": f"w{self.writes}"})
        if self._valid(who):
            lease.verify()
            assert self.ledger.write([change], lease) == [WriteOutcome.WRITTEN]
        else:
            with pytest.raises(FencedOff):
                lease.verify()
            with pytest.raises(FencedOff):
                self.ledger.write([change], lease)

    @invariant()
    def the_holder_is_shown(self) -> None:
        info = self.states[0].lock_info()
        if self.owner is None or self.now >= self.owner[1]:
            assert info is None
        else:
            assert info is not None
            assert info.holder == f"holder {self.owner[0]}"
            assert info.seconds_left == pytest.approx(self.owner[1] - self.now, abs=0.01)


def shared_ledger(state: State) -> tuple[RedisLedger, int]:
    """A ledger in the state's own Redis where it has one, so that the fence is the script's."""
    if isinstance(state, RedisState):
        return RedisLedger(state._server, "ledger"), 0
    return RedisLedger(RedisServer("redis://fake/0", client=fake_site().client), "ledger"), 0


def two_on_redis() -> tuple[list[State], Callable[[], None]]:
    site = fake_site()
    return [RedisState(site.server(), ledger_place="x") for _ in range(2)], lambda: None


def two_on_sqlite() -> tuple[list[State], Callable[[], None]]:
    folder = tempfile.TemporaryDirectory()
    states: list[State] = [SqliteState(Path(folder.name) / "s.db", ledger_place="x") for _ in range(2)]

    def drop() -> None:
        for state in states:
            state.close()
        folder.cleanup()

    return states, drop


@pytest.mark.parametrize("fresh", [two_on_redis, two_on_sqlite])
def test_only_the_holder_writes_and_only_in_its_time(fresh: Fresh) -> None:
    run(LockMachine, fresh, 40)


# ------------------------------------------------------------------ the journal

KEPT = 12


class JournalMachine(RuleBasedStateMachine):
    """Intents, outcomes, crashes and second deliveries, against a bounded list."""

    @staticmethod
    def fresh() -> tuple[Any, Callable[[], None]]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.open: Callable[[], State]
        self.open, self.drop = self.fresh()
        self.state = self.open()
        self.model: dict[str, str] = {}  # id -> outcome, in order
        self.done: list[RunCommit] = []
        self.pin: dict[str, Any] = {}
        self.number = 0

    def teardown(self) -> None:
        self.state.close()
        self.drop()

    def _entry(self, outcome: str, entry_id: str | None = None) -> JournalEntry:
        if entry_id is None:
            self.number += 1
            entry_id = f"e{self.number}"
        return JournalEntry(entry_id, "t", "r", "cli", f"t{entry_id}", "A", "v", "closed", "", (), None, None, outcome)

    def _apply(self, entries: tuple[JournalEntry, ...]) -> None:
        for entry in entries:
            self.model[entry.id] = entry.outcome
        for entry_id in [i for i, outcome in self.model.items() if outcome != "intended"]:
            if len(self.model) > KEPT:
                del self.model[entry_id]

    @rule(count=st.integers(1, 4))
    def intend(self, count: int) -> None:
        entries = tuple(self._entry("intended") for _ in range(count))
        self.state.intend(entries)
        self._apply(entries)

    @rule()
    def crash(self) -> None:
        self.state.close()
        self.state = self.open()

    @rule(data=st.data(), outcome=st.sampled_from(["written", "left"]), notes=st.integers(0, 3))
    def commit(self, data: st.DataObject, outcome: str, notes: int) -> None:
        intended = [i for i, o in self.model.items() if o == "intended"]
        finished = data.draw(st.lists(st.sampled_from(intended), unique=True)) if intended else []
        entries = tuple(self._entry(outcome, i) for i in finished) + tuple(self._entry("noted") for _ in range(notes))
        commit = RunCommit(
            "reconcile",
            f"r{len(self.done)}",
            {"n": len(self.done)},
            {"runs": 1},
            {},
            entries,
            {"pin": {"k": len(self.done)}},
        )
        self.state.commit(commit)
        self._apply(entries)
        self.done.append(commit)
        self.pin = {"k": len(self.done) - 1}

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        self.state.commit(data.draw(st.sampled_from(self.done)))

    @rule()
    def die_within_a_commit(self) -> None:
        broken = RunCommit("reconcile", "broken", {}, {"runs": 1}, {}, (self._entry("noted"),), {"pin": {"k": {1, 2}}})
        with pytest.raises(TypeError):
            self.state.commit(broken)

    @invariant()
    def the_journal_is_the_model(self) -> None:
        assert [(e.id, e.outcome) for e in self.state.journal()] == list(self.model.items())
        assert [e.id for e in self.state.intents()] == [i for i, o in self.model.items() if o == "intended"]
        shown = self.state.telemetry("reconcile", 1000)
        assert int(shown.summary.get("runs", 0)) == len(self.done)
        assert [run["n"] for run in shown.runs] == list(reversed(range(len(self.done))))
        assert self.state.recall("pin") == self.pin


def journal_on_redis() -> tuple[Callable[[], State], Callable[[], None]]:
    site = fake_site()
    return lambda: RedisState(site.server(), ledger_place="x", journal_kept=KEPT), lambda: None


def journal_on_sqlite() -> tuple[Callable[[], State], Callable[[], None]]:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "s.db"
    return lambda: SqliteState(path, ledger_place="x", journal_kept=KEPT), folder.cleanup


@pytest.mark.parametrize("fresh", [journal_on_redis, journal_on_sqlite])
def test_the_journal_is_a_bounded_list_that_survives_crashes(fresh: Fresh) -> None:
    run(JournalMachine, fresh, 30)
