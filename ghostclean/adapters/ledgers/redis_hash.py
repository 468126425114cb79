"""A ledger in a Redis hash: field = trade id, value = JSON object, one compare-and-set a trade.

Read page by page without keeping final records; the app's set `<key>:open` is kept in step with each change.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ghostclean.adapters.redis_client import Command
from ghostclean.app.ports import Change, Lease, LedgerView, Record, Records, Trouble, WriteOutcome
from ghostclean.core.broker import symbol_key
from ghostclean.core.ledger import BadJson, LedgerMapping, dumps, edit_record, loads, same_json
from ghostclean.counts import counted
from ghostclean.errors import LedgerFailed

from .redis_key import LedgerKey
from .text import kind_of, pause, result_of

_PAGE = 500
_SCANNED = 2000
_PAGE_CHARACTERS = 4_000_000
_ATTEMPTS = 20
_ANOTHERS = "holds the trade of another id"
_LEFTOVER_SECONDS = 3600  # a copy that was never finished goes away by itself

# ARGV: 2 field, 3 expected text ('' = absent), 4 new text, 5 'open', 'final' or '' for the index
_SWAP = """
local now = redis.call('HGET', KEYS[1], ARGV[2]) or ''
if now ~= ARGV[3] then return 'OTHER' end
local indexed = ARGV[5] ~= '' and redis.call('TYPE', KEYS[#KEYS]).ok == 'set'
local turn = ARGV[5] == 'open' and 'SADD' or 'SREM'
if indexed and redis.acl_check_cmd and not redis.acl_check_cmd(turn, KEYS[#KEYS], ARGV[2]) then
  return redis.error_reply("NOPERM the user may not run the '" .. turn .. "' command")
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
if indexed then redis.call(turn, KEYS[#KEYS], ARGV[2]) end
return 'DONE'
"""

# KEYS: ledger, finished copy; ARGV: an empty array as the ledger may hold it
_TAKE_PLACE = """
if redis.call('EXISTS', KEYS[1]) == 1 and not (ARGV[1] ~= '' and redis.call('TYPE', KEYS[1]).ok == 'string'
    and redis.call('GET', KEYS[1]) == ARGV[1]) then return 'TAKEN' end
redis.call('RENAME', KEYS[2], KEYS[1])
redis.call('PERSIST', KEYS[1])
return 'DONE'
"""


class HashLayout:
    """The `Ledger` operations on such a key."""

    chunk = 25

    def __init__(self, key: LedgerKey, mapping: LedgerMapping, full_scan: Callable[[], bool]) -> None:
        self._key = key
        self._mapping = mapping
        self._full_scan: Callable[[], bool] = functools.cache(full_scan)
        self._indexed: bool | None = None  # not known before the first look

    # ------------------------------------------------------------------ reading

    def read(self, *, whole: bool = False) -> LedgerView:
        if whole:  # so are all readings after it
            self._full_scan = lambda: True
        active: dict[bytes, Record] = {}
        strangers: dict[bytes, str] = {}
        repeated: set[str] = set()
        others: set[bytes] = set()  # records of other ledgers, by the filter
        size, index = self._shape()
        complete = index is None or bool(self._mapping.only) or self._full_scan()
        for field, raw in self._scan() if index is None or complete else self._fetch(sorted(index)):
            record, problem = self._parsed(field, raw)
            if record is None:
                strangers[field] = f"{_name(field)} {problem}"
                repeated.update(self._id_of_another(problem, raw))
            elif not self._mapping.belongs(record):
                others.add(field)
            elif not self._mapping.is_final(record):
                active[field] = record
        # The index would not show what shares an id with a trade.
        sound = complete and index is not None and active.keys() <= index and not repeated
        total, named = size - len(strangers) - len(others), tuple(strangers.values())
        return LedgerView(tuple(active.values()), total, named, complete, sound, repeated=frozenset(repeated))

    def history(self, keys: frozenset[str]) -> list[Record]:
        found: dict[bytes, Record] = {}
        for field, raw in self._scan():
            record, _ = self._parsed(field, raw)
            if record is None or not self._mapping.is_final(record) or not self._mapping.belongs(record):
                continue
            if symbol_key(self._mapping.symbol_of(record) or "") in keys:
                found[field] = record
        return list(found.values())

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        parsed = ((field, self._parsed(field, raw)[0]) for field, raw in self._fetch([_field(i) for i in ids]))
        own = {field.decode(): record for field, record in parsed if record is not None}
        return {trade_id: record for trade_id, record in own.items() if self._mapping.belongs(record)}

    def records(self) -> Records:
        """Every record once; one without an id gets the field's name, as every reading gives it."""
        texts = []
        for field, raw in sorted(dict(self._scan()).items()):
            record, problem = self._parsed(field, raw)
            if record is None:
                raise self.failed(f"is damaged: {_name(field)} {problem}", "correct it in the app")
            own = raw.decode().strip()
            texts.append(own if self._mapping.has_id(loads(own)) else edit_record(own, record))
        return Records(tuple(texts))

    def describe(self) -> str:
        size, index = self._shape()
        return f"Redis hash, {counted(size, 'trade')}" + (f", index {self._key.index}" if index is not None else "")

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        name, index = self._key.name, self._key.index
        reading = (("TYPE", name), ("GET", name), ("HLEN", name), ("HSCAN", name, 0), ("HMGET", name, ""))
        writing = (("HGET", name, ""), ("HSET", name, "", ""))
        beside: list[Command] = [("TYPE", index), ("SMEMBERS", index)]
        if self._shape()[1] is not None:
            beside += [("SADD", index, ""), ("SREM", index, "")]
        return self._key.rehearse(lease, *reading, *writing, *beside)

    def failed(self, what: str, cure: str) -> LedgerFailed:
        return self._key.failed(what, cure)

    def _shape(self) -> tuple[int, set[bytes] | None]:
        size, kind, index = self._key.look(
            ("HLEN", self._key.name), ("TYPE", self._key.index), ("SMEMBERS", self._key.index)
        )
        if not size:  # a hash without fields is a key that is not there
            raise self.failed("has gone missing during this run", "find out who deleted it, or whether its TTL ran out")
        self._indexed = kind == b"set"
        return int(size), index if self._indexed else None

    def _scan(self) -> Iterator[tuple[bytes, bytes]]:
        cursor = 0
        while True:
            cursor, page = self._key.call("HSCAN", self._key.name, cursor, "COUNT", _SCANNED)
            yield from page.items()
            if not int(cursor):
                return

    def _fetch(self, fields: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(fields), _PAGE):
            page = fields[start : start + _PAGE]
            values = self._key.call("HMGET", self._key.name, *page)
            yield from ((field, raw) for field, raw in zip(page, values, strict=True) if raw is not None)

    def _parsed(self, field: bytes, raw: bytes) -> tuple[dict[str, Any] | None, str]:
        """The record in a field, else what is wrong with it; a record without `id` gets the field's name."""
        try:
            name = field.decode()
        except UnicodeDecodeError:
            return None, "has a name that is not UTF-8"
        try:
            value = loads(raw.decode())
        except UnicodeDecodeError:
            return None, "is not UTF-8"
        except BadJson as error:
            return None, f"is not JSON: {error}"
        if not isinstance(value, dict):
            return None, f"is {kind_of(value)}, not a trade"
        own = self._mapping.id_of(value)
        if own is None and not self._mapping.has_id(value):
            return self._mapping.with_id(value, name), ""
        if own != name:
            return None, _ANOTHERS
        return value, ""

    def _id_of_another(self, problem: str, raw: bytes) -> Iterator[str]:
        """The id that a field holds in spite of its name: it stands in the field of that name as well."""
        if problem == _ANOTHERS and (own := self._mapping.id_of(loads(raw.decode()))) is not None:
            yield own

    # ------------------------------------------------------------------ writing

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        outcomes = [] if done is None else done
        if self._indexed is None and changes:
            self._indexed = self._key.look(("TYPE", self._key.index)) == [b"set"]
        for start in range(0, len(changes), _PAGE):
            page = changes[start : start + _PAGE]
            texts = dict(self._fetch([_field(change.trade_id) for change in page]))
            for change in page:
                outcomes.append(self._write(change, texts.get(_field(change.trade_id)), lease))
        return outcomes

    def _write(self, change: Change, raw: bytes | None, lease: Lease) -> WriteOutcome:
        for attempt in range(_ATTEMPTS):
            outcome, new = self._decide(change, raw)
            if new is None or self._swap(change, raw, new, lease):
                return outcome
            pause(attempt)
            raw = next((raw for _, raw in self._fetch([_field(change.trade_id)])), None)
        raise self.failed(
            f"has its trade {change.trade_id} rewritten all the time", "run again when the app is quieter"
        )

    def _swap(self, change: Change, old: bytes | None, new: str, lease: Lease) -> bool:
        was_final = change.base is None or self._mapping.is_final(change.base)
        final = self._mapping.is_final(result_of(change))
        turned = "" if was_final == final or not self._indexed else "final" if final else "open"
        arguments = (_field(change.trade_id), old or b"", new.encode(), turned)
        return self._key.guarded(_SWAP, lease, *arguments, index=bool(turned)) == b"DONE"

    def _decide(self, change: Change, raw: bytes | None) -> tuple[WriteOutcome, str | None]:
        if raw is None:
            if change.base is not None:
                return WriteOutcome.GONE, None
            return WriteOutcome.WRITTEN, dumps(change.fields)
        record, _ = self._parsed(_field(change.trade_id), raw)
        if change.base is None:
            same = record is not None and same_json(record, change.fields)
            return (WriteOutcome.WRITTEN if same else WriteOutcome.EXISTS), None
        if record is None:
            return WriteOutcome.CHANGED, None
        if same_json(record, change.base):
            return WriteOutcome.WRITTEN, edit_record(raw.decode().strip(), change.fields, change.remove)
        return (WriteOutcome.WRITTEN if same_json(record, result_of(change)) else WriteOutcome.CHANGED), None

    def fill(self, texts: Sequence[str], *, dry_run: bool = False, over: str = "") -> None:
        """Puts records where none are, all at once; `over` is an empty array that may stand there."""
        ids = self._identities(texts)
        if size := self._key.look(("HLEN", self._key.name))[0]:
            raise self.failed(f"already holds {counted(size, 'trade')}", "name an empty place")
        if dry_run or not texts:
            return
        beside = f"{self._key.name}:copy:{secrets.token_hex(6)}"

        def call(command: str, *arguments: str | int) -> Any:
            return self._key.call(command, *arguments, doing="Writing the copy", effect="neither ledger is changed")

        try:
            for page in _pages(list(zip(ids, texts, strict=True))):
                call("HSET", beside, *(part for pair in page for part in pair))
                call("EXPIRE", beside, _LEFTOVER_SECONDS)
            answer = call("EVAL", _TAKE_PLACE, 2, self._key.name, beside, over)
        except LedgerFailed:
            with contextlib.suppress(LedgerFailed):
                call("UNLINK", beside)
            raise
        if answer != b"DONE":
            call("UNLINK", beside)
            raise self.failed("is no longer empty", "name an empty place")

    def _identities(self, texts: Sequence[str]) -> list[str]:
        ids: dict[str, None] = {}
        for own in texts:
            record = loads(own)
            identity = self._mapping.id_of(record) if isinstance(record, dict) else None
            if identity is None or identity in ids:
                what = "has no id" if identity is None else f"shares its id {identity} with another"
                raise self.failed(f"cannot be a hash: a record {what}", "correct it in the app")
            ids[identity] = None
        return list(ids)


def _pages(pairs: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    page: list[tuple[str, str]] = []
    size = 0
    for pair in pairs:
        page.append(pair)
        size += len(pair[1])
        if len(page) >= _PAGE or size >= _PAGE_CHARACTERS:
            yield page
            page, size = [], 0
    if page:
        yield page


def _name(field: bytes) -> str:
    return f"field {field.decode(errors='backslashreplace')[:60]}"


def _field(trade_id: str) -> bytes:
    """The field of a trade; what no text can be (half a surrogate pair) names a field that nobody has."""
    return trade_id.encode(errors="surrogatepass")
