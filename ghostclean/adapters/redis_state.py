"""ghostclean's own memory in Redis.

Telemetry stands where dashboards of the app already read it (`telemetry:reconcile:summary`,
`telemetry:reconcile:runs`, the same for `auto-manage`); everything else under
`ghostclean:<ledger>:`, every key behind the prefix. Each method is one script, so one
transaction. The journal keeps its newest 20,000 entries; open intents are never trimmed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ghostclean.app.ports import JournalEntry, Lease, LockInfo, RunCommit, Telemetry
from ghostclean.core.jsontext import dumps
from ghostclean.errors import FencedOff, StateFailed

from .redis_client import RedisServer
from .redis_scripts import ACQUIRE, COMMIT, INTEND, RELEASE
from .state_form import (
    DONE_KEPT,
    INTENDED,
    JOURNAL_KEPT,
    SCHEMA,
    check_schema,
    entry_from,
    entry_text,
    lock_number,
    namespace,
    overtaken,
    run_from,
    runs_kept,
    value_from,
)

_PAGE = 500


@dataclass(slots=True)
class RedisLease:
    """The lock, held in the Redis that also checks it."""

    token: str
    redis_place: str | None
    redis_key: str | None
    _state: RedisState = field(repr=False, compare=False)

    def verify(self) -> None:
        """Raises FencedOff when the lock is no longer ours, StateFailed when that is unknown."""
        if self._state.call("GET", self.redis_key, doing="Checking the lock") != self.token.encode():
            raise FencedOff(
                "The lock of this ledger expired while this run was paused; nothing more was written. Cure: run again."
            )


class RedisState:
    """The `State` in Redis, for the ledger at `ledger_place`."""

    def __init__(
        self, server: RedisServer, *, ledger_place: str, prefix: str = "", journal_kept: int = JOURNAL_KEPT
    ) -> None:
        self.place = server.place
        self._server = server
        self._prefix = prefix
        # Beside its ledger a state is found by the ledger's key, however a machine spells the server.
        beside = ledger_place.startswith(f"{server.place}#")
        name = ledger_place.removeprefix(server.place) if beside else ledger_place
        self._own = f"{prefix}ghostclean:{namespace(name)}:"
        self._journal_kept = journal_kept
        self._journal_keys = [self._own + name for name in ("journal", "journal:order", "journal:intended", "sequence")]

    def open(self) -> None:
        """Connects and checks the schema number; writes nothing."""
        found: bytes | None = self.call("GET", f"{self._own}schema", doing="Opening the state")
        if found is None:
            return
        if not found.isdigit():
            raise StateFailed(
                f"The state at {self.place} has no readable schema number; nothing was changed. Cure: restore it."
            )
        check_schema(int(found), self.place)

    def close(self) -> None:
        """Gives the connections back."""
        self._server.close()

    # ------------------------------------------------------------------ lock

    def acquire(self, holder: str, seconds: float) -> Lease | None:
        """The lock for at most that long, None while another holds it."""
        keys = (self._lock, self._own + "lock:holder", self._own + "fence", self._own + "schema")
        mine = secrets.token_hex(12)
        token = self._script("Taking the lock", ACQUIRE, keys, mine, holder, max(1, int(seconds * 1000)), SCHEMA)
        return None if token is None else RedisLease(token.decode(), self.place, self._lock, self)

    def release(self, lease: Lease) -> None:
        """Gives the lock back if it is still ours."""
        self._script("Giving the lock back", RELEASE, (self._lock, self._own + "lock:holder"), lease.token)

    def lock_info(self) -> LockInfo | None:
        """Who holds the lock, None when nobody does."""
        milliseconds = int(self.call("PTTL", self._lock))
        if milliseconds <= 0:
            return None
        holder: bytes | None = self.call("GET", self._own + "lock:holder")
        return LockInfo((holder or b"unknown").decode(errors="replace"), milliseconds / 1000)

    @property
    def _lock(self) -> str:
        return self._own + "lock"

    # ------------------------------------------------------------------ memory

    def recall(self, section: str, ids: Iterable[str] | None = None) -> dict[str, Any]:
        """What was remembered under a section, all of it or for these ids."""
        key = self._memory(section)
        if ids is None:
            found = {k.decode(errors="replace"): v for k, v in self.call("HGETALL", key).items()}
        else:
            found = {}
            names = list(dict.fromkeys(ids))
            for start in range(0, len(names), _PAGE):
                page = names[start : start + _PAGE]
                found.update(zip(page, self.call("HMGET", key, *page), strict=True))
        return {k: value_from(v, self.place) for k, v in found.items() if v is not None}

    def remember(self, section: str, values: Mapping[str, Any]) -> None:
        """Stores JSON values by id at once; None forgets."""
        key = self._memory(section)
        keep = [part for k, v in values.items() if v is not None for part in (k, dumps(v))]
        drop = [k for k, v in values.items() if v is None]
        with (
            self._server.speaking("Writing the state", StateFailed),
            self._server.client.pipeline(transaction=True) as batch,
        ):
            if keep:
                batch.execute_command("HSET", key, *keep)
            if drop:
                batch.execute_command("HDEL", key, *drop)
            batch.execute()

    def _memory(self, section: str) -> str:
        return f"{self._own}memory:{section}"

    # ------------------------------------------------------------------ journal

    def intend(self, entries: Sequence[JournalEntry], lease: Lease | None = None) -> None:
        """Journals entries before the ledger is written; FencedOff once another run has had the lock."""
        keys = (*self._journal_keys, self._own + "fence")
        fence = "" if lease is None else lock_number(lease)
        answer = self._script("Writing the journal", INTEND, keys, fence, *_spread(entries), self._journal_kept)
        if answer == b"FENCED":
            raise overtaken()

    def intents(self) -> list[JournalEntry]:
        """Entries still `intended`, oldest first."""
        unfinished = self.call("SMEMBERS", self._journal_keys[2])
        return [entry for entry in self._entries(unfinished) if entry.outcome == INTENDED] if unfinished else []

    def journal(self, *, trade_id: str | None = None, run_id: str | None = None) -> list[JournalEntry]:
        """Entries of a trade or a run (or all), oldest first."""
        return [
            entry for entry in self._entries() if trade_id in (None, entry.trade_id) and run_id in (None, entry.run_id)
        ]

    def _entries(self, wanted: set[bytes] | None = None) -> Iterator[JournalEntry]:
        """All entries, or the wanted ones, oldest first and a page at a time."""
        ids = [i for i in self.call("ZRANGE", self._journal_keys[1], 0, -1) if wanted is None or i in wanted]
        for start in range(0, len(ids), _PAGE):
            for raw in self.call("HMGET", self._journal_keys[0], *ids[start : start + _PAGE]):
                if raw is not None:
                    yield entry_from(raw, self.place)

    # ------------------------------------------------------------------ runs

    def commit(self, commit: RunCommit, lease: Lease | None = None) -> None:
        """Stores a run's record in one transaction; a second delivery of it does nothing.

        With `lease`, FencedOff and nothing stored when another run has taken the lock since.
        """
        sections = list(commit.memory)
        keys = [
            *self._journal_keys,
            f"{self._own}done:{commit.kind}",
            *self._telemetry(commit.kind),
            self._own + "schema",
            self._own + "fence",
            *(self._memory(section) for section in sections),
        ]
        memory = [
            part
            for number, section in enumerate(sections, 1)
            for k, v in commit.memory[section].items()
            for part in (number, k, "" if v is None else dumps(v), "0" if v is None else "1")
        ]
        answer = self._script(
            "Recording the run",
            COMMIT,
            keys,
            *(
                commit.run_id,
                "" if lease is None else lock_number(lease),
                dumps(commit.run),
                runs_kept(commit.kind),
                DONE_KEPT,
                SCHEMA,
            ),
            *(len(commit.add), *(part for pair in commit.add.items() for part in pair)),
            *(len(commit.totals), *(part for pair in commit.totals.items() for part in pair)),
            *(len(commit.put), *(part for pair in commit.put.items() for part in pair)),
            *(*_spread(commit.entries), self._journal_kept),
            *(len(memory) // 4, *memory),
        )
        if answer == b"FENCED":
            raise overtaken()
        if answer.startswith(b"TYPE"):
            raise StateFailed(
                f"Recording the run at {self.place} failed: the key {answer[4:].decode()} is not ours to use; "
                "the run was not recorded. Cure: set GHOSTCLEAN_KEY_PREFIX or remove that key."
            )

    def telemetry(self, kind: str, limit: int) -> Telemetry:
        """Summary hash as stored and the newest runs."""
        summary, runs = self._telemetry(kind)
        stored = {k.decode(): v.decode(errors="replace") for k, v in self.call("HGETALL", summary).items()}
        newest = self.call("LRANGE", runs, 0, limit - 1) if limit > 0 else []
        return Telemetry(stored, tuple(run_from(raw.decode(errors="replace")) for raw in newest))

    def _telemetry(self, kind: str) -> tuple[str, str]:
        return f"{self._prefix}telemetry:{kind}:summary", f"{self._prefix}telemetry:{kind}:runs"

    # ------------------------------------------------------------------ plumbing

    def call(self, *command: Any, doing: str = "Reading the state") -> Any:
        """One command, its failure as StateFailed."""
        with self._server.speaking(doing, StateFailed, "the ledger is not touched by this"):
            return self._server.client.execute_command(*command)

    def _script(self, doing: str, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        return self.call("EVAL", script, len(keys), *keys, *arguments, doing=doing)


def _spread(entries: Sequence[JournalEntry]) -> list[Any]:
    parts: list[Any] = [len(entries)]
    for entry in entries:
        parts += [entry.id, entry_text(entry), "1" if entry.outcome == INTENDED else "0"]
    return parts
