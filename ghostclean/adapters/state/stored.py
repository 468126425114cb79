"""The state of one ledger, over a store with transactions: journal, memory, run records, lock.

A store (Redis, SQLite) brings the lock, the readings and one transaction; every rule stands here:

- a journal entry that stands as `written` is never taken back to `left`;
- a run record is taken once, however often it is delivered;
- a run that another has overtaken, by the lock's number, changes nothing;
- a total goes up once per entry, whoever commits it as written;
- a run counts twice: in its ledger's telemetry, and in the sum over all ledgers of the state.

The journal keeps its newest 20,000 entries a ledger; open intents are never trimmed.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ghostclean.app.ports import JournalEntry, KnownLedger, Lease, Recalled, RunCommit, State, Telemetry
from ghostclean.errors import FencedOff, StateFailed

from .form import (
    INTENDED,
    JOURNAL_KEPT,
    LEFT,
    NEIGHBOURS,
    WRITTEN,
    account_in,
    check_shape,
    entry_from,
    entry_text,
    namespace,
    run_from,
    value_from,
)
from .upgrade import Inherited, Shared, upgraded

_INTENTS = "intents"

Texts = dict[str, str | bytes]


@dataclass(slots=True)
class StateLease:
    """The lock of a state; `redis_place` and `redis_key` say where a Redis can check it by itself."""

    token: str
    _state: StoredState = field(repr=False, compare=False)
    redis_place: str | None = None
    redis_key: str | None = None

    def verify(self) -> None:
        """Raises FencedOff when the lock is no longer ours, StateFailed when that is unknown."""
        if not self._state.holds(self.token):
            raise FencedOff(
                "The lock of this ledger expired while this run was paused; nothing more was written. Cure: run again."
            )


@dataclass(frozen=True, slots=True)
class Basis:
    """What a transaction rests on: these journal entries, and the delivery of this record."""

    entries: Sequence[str] = ()
    record: RunCommit | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The basis as it stands: the lock's number, the text of the entries that exist.

    `shared` is given while the ledger has no telemetry of its own.
    """

    fence: int = 0
    delivered: bool = False
    entries: Mapping[str, str | bytes] = field(default_factory=dict)
    shared: Shared | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a transaction writes, all or nothing; `add` counts in the summary of the record's kind."""

    entries: Mapping[str, tuple[JournalEntry, str]] = field(default_factory=dict)
    memory: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    record: RunCommit | None = None
    add: Mapping[str, int] = field(default_factory=dict)
    unlock: str | None = None
    inherited: Inherited | None = None


class StoredState(State, ABC):
    """The `State` port; a store brings its lock, `open`, `close`, `rehearse`, and what is abstract here."""

    def __init__(self, ledger: str, *, journal_kept: int = JOURNAL_KEPT) -> None:
        """`ledger` is the name under which its state is found."""
        self._ns = namespace(ledger)
        self._journal_kept = journal_kept

    # ------------------------------------------------------------------ what a store brings

    @abstractmethod
    def holds(self, token: str) -> bool:
        """Whether the lock is still held by this token."""

    @abstractmethod
    def _memory(self, section: str, ids: Sequence[str] | None) -> Texts:
        """The stored values of a section, all of them or of these ids."""

    @abstractmethod
    def _sections(self, names: Sequence[str], *, intents: bool) -> tuple[dict[str, Texts], Iterable[str | bytes]]:
        """Whole sections and the open intents, in one round trip unless there are some.

        `NEIGHBOURS` is what all ledgers of the account that was pinned when it was opened say, by namespace.
        """

    @abstractmethod
    def _journal(self, wanted: Mapping[str, object]) -> Iterable[str | bytes]:
        """Entries oldest first: all that have these columns, more if the store can't tell."""

    @abstractmethod
    def _telemetry(self, kind: str, limit: int) -> tuple[Mapping[str, str], Sequence[str]]:
        """Summary of this ledger, and its newest runs."""

    @abstractmethod
    def _shared(self, kind: str) -> Shared:
        """The telemetry of all ledgers together, and what this one has delivered."""

    @abstractmethod
    def _known(self, kind: str) -> Mapping[str, tuple[str | bytes, Mapping[str, str]]]:
        """What every ledger said about itself, and its summary, by namespace."""

    @abstractmethod
    def _transact(self, doing: str, basis: Basis | None, change: Callable[[Found], Changes]) -> None:
        """Reads the basis and writes what `change` makes of it, in one transaction; without a basis blindly.

        `change` may raise, and may be called again when another process was quicker.
        """

    # ------------------------------------------------------------------ lock

    def release(self, lease: Lease) -> None:
        self._transact("Giving the lock back", Basis(), lambda _: Changes(unlock=lease.token))

    # ------------------------------------------------------------------ memory

    def recall(self, section: str, ids: Iterable[str] | None = None) -> dict[str, Any]:
        return self._values(self._memory(section, None if ids is None else list(dict.fromkeys(ids))))

    def recall_all(self, names: Sequence[str]) -> Recalled:
        """These fields of `Recalled` in one round trip; a value of another shape is StateFailed."""
        sections = [name for name in names if name != _INTENTS]
        texts, intents = self._sections(sections, intents=_INTENTS in names)
        said = texts.pop(NEIGHBOURS, {})
        found = {name: check_shape(name, self._values(stored), self.place) for name, stored in texts.items()}
        return Recalled(**found, neighbours=self._neighbours(said), intents=tuple(self._entries(intents)))

    def _neighbours(self, said: Texts) -> dict[str, Any]:
        """What others say; whatever is wrong with one of them is no failure of ours."""
        found: dict[str, Any] = {}
        for ns, text in said.items():
            with contextlib.suppress(StateFailed):
                value = value_from(text, self.place)
                if ns != self._ns and isinstance(value, dict):
                    found[ns] = value
        return found

    def _pinned(self, texts: Texts) -> str | None:
        """The account of this ledger, from the stored section `pin`; damage is told where it is read for use."""
        with contextlib.suppress(StateFailed):
            return account_in(self._values(texts))
        return None

    def remember(self, section: str, values: Mapping[str, Any]) -> None:
        self._transact("Writing the state", None, lambda _: Changes(memory={section: values}))

    def _values(self, texts: Texts) -> dict[str, Any]:
        return {name: value_from(text, self.place) for name, text in texts.items()}

    # ------------------------------------------------------------------ journal

    def intend(self, entries: Sequence[JournalEntry], lease: Lease | None = None) -> None:
        """Journals entries, durable before this returns; FencedOff once another run has had the lock."""

        def change(found: Found) -> Changes:
            _check_fence(found, lease)
            return Changes(entries=_standing(entries, found))

        self._transact("Writing the journal", Basis([entry.id for entry in entries]), change)

    def intents(self) -> list[JournalEntry]:
        return [e for e in self._entries(self._journal({"intended": 1})) if e.outcome == INTENDED]

    def journal(self, *, trade_id: str | None = None, run_id: str | None = None) -> list[JournalEntry]:
        values = {"trade_id": trade_id, "run_id": run_id}
        wanted = {name: value for name, value in values.items() if value is not None}
        found = self._entries(self._journal(wanted))
        return [e for e in found if trade_id in (None, e.trade_id) and run_id in (None, e.run_id)]

    def _entries(self, texts: Iterable[str | bytes]) -> Iterable[JournalEntry]:
        return (entry_from(text, self.place) for text in texts)

    # ------------------------------------------------------------------ runs

    def commit(self, commit: RunCommit, lease: Lease | None = None, *, release: bool = False) -> None:
        unlock = lease.token if release and lease is not None else None

        def change(found: Found) -> Changes:
            if found.delivered:
                return Changes(unlock=unlock)
            _check_fence(found, lease)
            add = dict(commit.add)
            for entry_id, name in commit.totals.items():
                add[name] = add.get(name, 0) + (not _is_written(found.entries.get(entry_id)))
            inherited = None if found.shared is None else upgraded(commit.kind, found.shared)
            return Changes(_standing(commit.entries, found), commit.memory, commit, add, unlock, inherited)

        named = dict.fromkeys([*(entry.id for entry in commit.entries), *commit.totals])
        self._transact("Recording the run", Basis(list(named), commit), change)

    def telemetry(self, kind: str, limit: int) -> Telemetry:
        """Summary as stored and the newest runs; of a state kept for all together, this ledger's part."""
        summary, runs = self._telemetry(kind, max(1, limit))
        if not runs:
            inherited = upgraded(kind, self._shared(kind))
            summary, runs = inherited.summary, inherited.runs
        return Telemetry(summary, tuple(run_from(text) for text in runs[: max(0, limit)]))

    def ledgers(self, kind: str) -> list[KnownLedger]:
        known = self._known(kind)
        abouts = check_shape("ledgers", self._values({ns: text for ns, (text, _) in known.items()}), self.place)
        found = [KnownLedger(abouts[ns], summary) for ns, (_, summary) in known.items()]
        own = {} if self._ns in known else self.telemetry(kind, 0).summary
        return [*found, KnownLedger({}, own)] if own else found


def lock_number(lease: Lease) -> int:
    """How many times the lock had been taken when it became ours: a larger number is a newer run's."""
    return int(lease.token.partition(":")[0])


def _check_fence(found: Found, lease: Lease | None) -> None:
    if lease is not None and found.fence > lock_number(lease):
        raise FencedOff("Another run has had the lock since: the memory of this one is out of date. Cure: run again.")


def _standing(entries: Sequence[JournalEntry], found: Found) -> dict[str, tuple[JournalEntry, str]]:
    standing: dict[str, tuple[JournalEntry, str]] = {}
    for entry in entries:
        if entry.outcome != LEFT or not _is_written(found.entries.get(entry.id)):
            standing[entry.id] = (entry, entry_text(entry))
    return standing


def _is_written(text: str | bytes | None) -> bool:
    ending = f'"outcome":"{WRITTEN}"}}'
    return text.endswith(ending) if isinstance(text, str) else text is not None and text.endswith(ending.encode())
