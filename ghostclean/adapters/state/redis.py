"""The state in Redis.

The sum of the telemetry of all ledgers stands where dashboards of the app already read it
(`telemetry:reconcile:summary`, `telemetry:reconcile:runs`, the same for `auto-manage`); what is one
ledger's under `ghostclean:<ledger>:`, its own telemetry too; what they tell each other in
`ghostclean:ledgers` and `ghostclean:neighbours:<account>`; every key behind the prefix. A transaction
watches the keys that it rests on, and is made again when one of them has changed.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ghostclean.adapters.redis_client import Command, RedisServer, checked
from ghostclean.app.ports import Lease, LockInfo, RunCommit, Trouble
from ghostclean.core.ledger import dumps
from ghostclean.errors import StateFailed

from .form import DONE_KEPT, INTENDED, JOURNAL_KEPT, NEIGHBOURS, SCHEMA, check_schema, runs_kept
from .stored import Basis, Changes, Found, StateLease, StoredState, Texts
from .upgrade import Inherited, Shared

_PAGE = 500
_INTENTS_AT_THE_HEAD = 100  # of the journal, that trimming looks past in one transaction
_WHOLE = re.compile(rb"-?\d{1,18}")

# KEYS: lock, holder, fence, schema   ARGV: random part, holder, milliseconds, schema
# Harmless when sent twice: the random part tells that the lock is ours already.
_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, -string.len(ARGV[1])) ~= ARGV[1] then return false end
else
  held = redis.call('INCR', KEYS[3]) .. ':' .. ARGV[1]
end
redis.call('SET', KEYS[1], held, 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SET', KEYS[4], ARGV[4]) end
return held
"""


@dataclass(slots=True)
class _Answers:
    """The basis of a transaction as Redis keeps it."""

    found: Found
    lock: bytes | None
    sequence: int
    size: int
    intended: set[bytes]
    oldest: list[bytes]
    not_whole: list[str] = field(default_factory=list)  # counters in the summary that are no numbers


class RedisState(StoredState):
    """The `State` in Redis, for the ledger at `ledger_place`."""

    def __init__(
        self, server: RedisServer, *, ledger_place: str, prefix: str = "", journal_kept: int = JOURNAL_KEPT
    ) -> None:
        # Beside its ledger a state is found by the ledger's key, however a machine spells the server.
        beside = ledger_place.startswith(f"{server.place}#")
        super().__init__(ledger_place.removeprefix(server.place) if beside else ledger_place, journal_kept=journal_kept)
        self.place = server.place
        self._server = server
        self._prefix = prefix
        self._own = self._of(self._ns)
        self._ledgers = f"{prefix}ghostclean:ledgers"
        self._account: str | None = None
        self._lock, self._holder, self._fence, self._schema, self._sequence, self._texts, self._order, self._open = (
            self._own + name
            for name in (
                "lock", "lock:holder", "fence", "schema", "sequence", "journal", "journal:order", "journal:intended",
            )
        )  # fmt: skip

    def open(self) -> None:
        """Connects and checks the schema number; writes nothing."""
        with self._speaking("Opening the state"):
            found, pin = checked(self._server.ask(("GET", self._schema), ("HGETALL", self._section("pin"))))
        self._account = self._pinned(_named(pin))
        if found is None:
            return
        if not found.isdigit():
            raise StateFailed(
                f"The state at {self.place} has no readable schema number; nothing was changed. Cure: restore it."
            )
        check_schema(int(found), self.place)

    def close(self) -> None:
        self._server.close()

    def rehearse(self) -> list[Trouble]:
        """What keeps a run from using it: each command on each kind of key, none of them carried out."""
        done, section, entry = self._done("reconcile"), self._section("pin"), ""
        commands: list[Command] = [
            ("GET", self._schema), ("SET", self._schema, SCHEMA, "NX"), ("EXISTS", self._schema), ("INCR", self._fence),
            ("PTTL", self._lock), ("DEL", self._lock, self._holder), ("MGET", self._fence, self._sequence),
            ("EVAL", _ACQUIRE, 4, self._lock, self._holder, self._fence, self._schema),
            ("HGETALL", section), ("HMGET", section, entry), ("HSET", section, entry, ""), ("HDEL", section, entry),
            ("SMEMBERS", self._open), ("SADD", self._open, entry), ("SREM", self._open, entry),
            ("ZCARD", self._order), ("ZRANGE", self._order, 0, 0), ("ZADD", self._order, 0, entry),
            ("ZREM", self._order, entry), ("ZSCORE", done, entry), ("ZREMRANGEBYRANK", done, 0, 0),
        ]  # fmt: skip
        commands += [("HGETALL", self._ledgers), ("HSET", self._ledgers, entry, "")]
        for kind, owner in itertools.product(("reconcile", "auto-manage"), (self._prefix, self._own)):
            summary, runs = _keys(owner, kind)
            commands += [("TYPE", summary), ("HINCRBY", summary, entry, 0), ("LRANGE", runs, 0, 0)]
            commands += [("LPUSH", runs, entry), ("RPUSH", runs, entry), ("LTRIM", runs, 0, 0)]
        with self._speaking("Trying what a run does with the state"):
            return self._server.rehearse(*commands)

    # ------------------------------------------------------------------ lock

    def acquire(self, holder: str, seconds: float) -> Lease | None:
        keys = (self._lock, self._holder, self._fence, self._schema)
        words = (secrets.token_hex(12), holder, max(1, int(seconds * 1000)), SCHEMA)
        token = self._call("EVAL", _ACQUIRE, len(keys), *keys, *words, doing="Taking the lock")
        return None if token is None else StateLease(token.decode(), self, self.place, self._lock)

    def holds(self, token: str) -> bool:
        return bool(self._call("GET", self._lock, doing="Checking the lock") == token.encode())

    def lock_info(self) -> LockInfo | None:
        milliseconds, holder = self._ask([("PTTL", self._lock), ("GET", self._holder)])
        if milliseconds <= 0:
            return None
        return LockInfo((holder or b"unknown").decode(errors="replace"), milliseconds / 1000)

    # ------------------------------------------------------------------ reading

    def _memory(self, section: str, ids: Sequence[str] | None) -> Texts:
        key = self._section(section)
        if ids is None:
            return _named(self._call("HGETALL", key))
        pages = self._ask([("HMGET", key, *page) for page in _pages(ids)])
        return {i: text for i, text in zip(ids, (v for page in pages for v in page), strict=True) if text is not None}

    def _sections(self, names: Sequence[str], *, intents: bool) -> tuple[dict[str, Texts], Iterable[bytes]]:
        hashes = [("HGETALL", self._section(name)) for name in names]
        *stored, intended = self._ask([*hashes, ("SMEMBERS", self._open)])
        texts = {name: _named(values) for name, values in zip(names, stored, strict=True)}
        return texts, self._those(intended) if intents and intended else ()

    def _journal(self, wanted: Mapping[str, object]) -> Iterable[bytes]:
        if not wanted.get("intended"):
            return self._those(None)
        intended = self._call("SMEMBERS", self._open)
        return self._those(intended) if intended else ()

    def _those(self, wanted: set[bytes] | None) -> Iterator[bytes]:
        ids = [i for i in self._call("ZRANGE", self._order, 0, -1) if wanted is None or i in wanted]
        for page in _pages(ids):
            yield from (text for text in self._call("HMGET", self._texts, *page) if text is not None)

    def _telemetry(self, kind: str, limit: int) -> tuple[Mapping[str, str], Sequence[str]]:
        summary, runs = self._ask(_telemetry(self._own, kind, limit))
        return _decoded(summary), _lines(runs)

    def _shared(self, kind: str) -> Shared:
        delivered = ("ZRANGE", self._done(kind), 0, -1)
        summary, runs, done = self._ask([*_telemetry(self._prefix, kind, runs_kept(kind)), delivered])
        return Shared(_decoded(summary), _lines(runs), frozenset(_lines(done)))

    def _known(self, kind: str) -> Mapping[str, tuple[str | bytes, Mapping[str, str]]]:
        known = _named(self._call("HGETALL", self._ledgers))
        summaries = self._ask([("HGETALL", _keys(self._of(ns), kind)[0]) for ns in known])
        return {ns: (known[ns], _decoded(summary)) for ns, summary in zip(known, summaries, strict=True)}

    # ------------------------------------------------------------------ one transaction

    def _transact(self, doing: str, basis: Basis | None, change: Callable[[Found], Changes]) -> None:
        with self._speaking(doing):
            if basis is None:
                remembering = self._remembered(change(Found()).memory)
                checked(checked(self._server.ask(("MULTI",), *remembering, ("EXEC",)))[-1])
                return
            watched = [self._lock, self._fence, self._sequence, self._texts, self._order, self._open]
            if basis.record is not None:
                watched.append(self._done(basis.record.kind))

            def commands(replies: Sequence[Any]) -> list[Command]:
                answers = self._answers(basis, replies)
                return list(self._commands(change(answers.found), answers))

            self._server.transact(watched, list(self._questions(basis)), commands)

    def _questions(self, basis: Basis) -> Iterator[Command]:
        record = basis.record
        if record is not None:
            summary, runs = _keys(self._prefix, record.kind)
            yield ("TYPE", summary)
            yield ("TYPE", runs)
            yield ("ZSCORE", self._done(record.kind), record.run_id)
            yield ("HMGET", summary, "runs", *_counters(record))
            yield ("EXISTS", _keys(self._own, record.kind)[1])
        yield ("GET", self._lock)
        yield ("MGET", self._fence, self._sequence)
        yield ("ZCARD", self._order)
        yield ("SMEMBERS", self._open)
        yield ("ZRANGE", self._order, 0, len(basis.entries) + _INTENTS_AT_THE_HEAD - 1)
        for page in _pages(basis.entries):
            yield ("HMGET", self._texts, *page)

    def _answers(self, basis: Basis, replies: Sequence[Any]) -> _Answers:
        delivered, not_whole, shared = False, [], None
        if basis.record is not None:
            self._check_types(basis.record.kind, *replies[:2])
            score, (_, *counted), begun = checked(replies)[2:5]
            delivered, not_whole = score is not None, _not_whole(_counters(basis.record), counted)
            shared = None if begun else self._shared(basis.record.kind)
            replies = replies[5:]
        lock, (fence, sequence), size, intended, oldest, *pages = checked(replies)
        texts = zip(basis.entries, (text for page in pages for text in page), strict=True)
        found = Found(int(fence or 0), delivered, {i: text for i, text in texts if text is not None}, shared)
        return _Answers(found, lock, int(sequence or 0), size, set(intended), oldest, not_whole)

    def _check_types(self, kind: str, *types: bytes) -> None:
        keys = _keys(self._prefix, kind)
        for key, wanted, found in zip(keys, (b"hash", b"list"), checked(types), strict=True):
            if found not in (wanted, b"none"):
                raise StateFailed(
                    f"Recording the run at {self.place} failed: the key {key} is not ours to use; "
                    "the run was not recorded. Cure: set GHOSTCLEAN_KEY_PREFIX or remove that key."
                )

    def _commands(self, changes: Changes, answers: _Answers) -> Iterator[Command]:
        before = answers.sequence
        if changes.record is not None:
            answers.sequence += 1
            yield from self._recorded(changes, changes.record, answers)
        if changes.entries:
            yield from self._journaled(changes, answers)
        if answers.sequence != before:
            yield ("SET", self._sequence, answers.sequence)
        yield from self._remembered(changes.memory)
        if changes.unlock is not None and answers.lock == changes.unlock.encode():
            yield ("DEL", self._lock, self._holder)

    def _recorded(self, changes: Changes, record: RunCommit, answers: _Answers) -> Iterator[Command]:
        yield ("SET", self._schema, SCHEMA, "NX")
        yield ("ZADD", self._done(record.kind), answers.sequence, record.run_id)
        yield ("ZREMRANGEBYRANK", self._done(record.kind), 0, -DONE_KEPT - 1)
        for name in answers.not_whole:
            yield ("HSET", _keys(self._prefix, record.kind)[0], name, 0)
        if changes.inherited is not None:
            yield from _went_on(*_keys(self._own, record.kind), changes.inherited)
        for keys in (_keys(self._prefix, record.kind), _keys(self._own, record.kind)):
            yield from _counted(*keys, record, changes.add)
        if record.about is not None:
            yield ("HSET", self._ledgers, self._ns, dumps(record.about))
        if record.word is not None:
            account, said = record.word
            yield ("HSET", self._told(account), self._ns, dumps(said))

    def _journaled(self, changes: Changes, answers: _Answers) -> Iterator[Command]:
        new = [i for i in changes.entries if i not in answers.found.entries]
        for entry_id, (entry, text) in changes.entries.items():
            is_open = entry.outcome == INTENDED
            yield ("HSET", self._texts, entry_id, text)
            yield ("SADD" if is_open else "SREM", self._open, entry_id)
            (answers.intended.add if is_open else answers.intended.discard)(entry_id.encode())
        for entry_id in new:
            answers.sequence += 1
            yield ("ZADD", self._order, answers.sequence, entry_id)
        yield from self._trimmed(answers, [entry_id.encode() for entry_id in new])

    def _trimmed(self, answers: _Answers, new: Sequence[bytes]) -> Iterator[Command]:
        excess = max(0, answers.size + len(new) - self._journal_kept)
        order = [*answers.oldest, *new] if len(answers.oldest) == answers.size else answers.oldest
        for page in _pages([i for i in order if i not in answers.intended][:excess]):
            yield ("ZREM", self._order, *page)
            yield ("HDEL", self._texts, *page)

    def _remembered(self, memory: Mapping[str, Mapping[str, Any]]) -> Iterator[Command]:
        for section, values in memory.items():
            kept = [(name, dumps(value)) for name, value in values.items() if value is not None]
            for pairs in _pages(kept):
                yield ("HSET", self._section(section), *(part for pair in pairs for part in pair))
            for names in _pages([name for name, value in values.items() if value is None]):
                yield ("HDEL", self._section(section), *names)

    # ------------------------------------------------------------------ plumbing

    def _section(self, section: str) -> str:
        return self._told(self._account or "") if section == NEIGHBOURS else f"{self._own}memory:{section}"

    def _told(self, account: str) -> str:
        """Where the ledgers of an account say what they hold."""
        return f"{self._prefix}ghostclean:{NEIGHBOURS}:{account}"

    def _done(self, kind: str) -> str:
        return f"{self._own}done:{kind}"

    def _of(self, ns: str) -> str:
        return f"{self._prefix}ghostclean:{ns}:"

    def _call(self, *command: Any, doing: str = "Reading the state") -> Any:
        with self._speaking(doing):
            return self._server.answer(*command)

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        with self._speaking("Reading the state"):
            return list(checked(self._server.ask(*commands)))

    def _speaking(self, doing: str) -> Any:
        return self._server.speaking(doing, StateFailed, "the ledger is not touched by this")


def _keys(owner: str, kind: str) -> tuple[str, str]:
    """The keys of a summary and of a list of runs: the sum's behind the prefix, a ledger's behind its own."""
    return f"{owner}telemetry:{kind}:summary", f"{owner}telemetry:{kind}:runs"


def _telemetry(owner: str, kind: str, limit: int) -> list[Command]:
    summary, runs = _keys(owner, kind)
    return [("HGETALL", summary), ("LRANGE", runs, 0, limit - 1)]


def _went_on(summary: str, runs: str, inherited: Inherited) -> Iterator[Command]:
    for name, value in inherited.summary.items():
        yield ("HSET", summary, name, value)
    if inherited.runs:
        yield ("LPUSH", runs, *reversed(inherited.runs))


def _counted(summary: str, runs: str, record: RunCommit, add: Mapping[str, int]) -> Iterator[Command]:
    for name, amount in add.items():
        yield ("HINCRBY", summary, name, amount)
    for name, value in record.put.items():
        yield ("HSET", summary, name, value)
    yield ("LPUSH", runs, dumps(record.run))
    yield ("LTRIM", runs, 0, runs_kept(record.kind) - 1)


def _decoded(values: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in values.items()}


def _lines(values: Sequence[bytes]) -> list[str]:
    return [value.decode(errors="replace") for value in values]


def _counters(record: RunCommit) -> list[str]:
    return [*record.add, *record.totals.values()]


def _not_whole(names: Sequence[str], values: Sequence[bytes | None]) -> list[str]:
    pairs = zip(names, values, strict=True)
    return [name for name, value in pairs if value is not None and not _WHOLE.fullmatch(value)]


def _named(values: Mapping[bytes, bytes]) -> Texts:
    return {name.decode(errors="replace"): text for name, text in values.items()}


def _pages(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + _PAGE] for start in range(0, len(items), _PAGE))
