"""A ledger in a Redis hash: field = trade id, value = JSON object, one compare-and-set a trade.

Read page by page; final records are never held, so memory follows the open trades and not the
age of the ledger. Where the app keeps the set `<key>:open`, it is the index, and whatever we
open or close is kept in step with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ghostclean.app.ports import Change, Lease, LedgerView, Record, WriteOutcome
from ghostclean.core.jsontext import BadJson, dumps, edit_record, loads, same_json
from ghostclean.core.ledger import record_id

from .ledger_text import is_final, kind_of, result_of, symbol_of
from .redis_key import LedgerKey, pause

_PAGE = 500
_ATTEMPTS = 20

# ARGV: 2 field, 3 expected text ('' = absent), 4 new text, 5 'open', 'final' or '' for the index
_SWAP = """
local now = redis.call('HGET', KEYS[1], ARGV[2]) or ''
if now ~= ARGV[3] then return 'OTHER' end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
if ARGV[5] ~= '' and redis.call('TYPE', KEYS[3]).ok == 'set' then
  if ARGV[5] == 'open' then redis.call('SADD', KEYS[3], ARGV[2]) else redis.call('SREM', KEYS[3], ARGV[2]) end
end
return 'DONE'
"""


class HashLayout:
    """The ledger operations on such a key."""

    def __init__(self, key: LedgerKey, full_scan: Callable[[], bool]) -> None:
        self._key = key
        self._full_scan: Callable[[], bool] = functools.cache(full_scan)

    def read(self) -> LedgerView:
        active: dict[bytes, Record] = {}
        strangers: dict[bytes, str] = {}
        index = self._index_names()
        complete = index is None or self._full_scan()
        for field, raw in self._scan() if index is None or complete else self._fetch(sorted(index)):
            record, problem = _parsed(field, raw)
            if record is None:
                strangers[field] = f"field {field.decode(errors='backslashreplace')[:60]} {problem}"
            elif not is_final(record):
                active[field] = record
        total = self._size() - len(strangers)
        sound = complete and index is not None and active.keys() <= index
        return LedgerView(tuple(active.values()), total, tuple(strangers.values()), complete, sound)

    def read_all(self) -> LedgerView:
        """As `read`, without trust in the index; so are all readings after it."""
        self._full_scan = lambda: True
        return self.read()

    def history(self, keys: frozenset[str]) -> list[Record]:
        found: dict[bytes, Record] = {}
        for field, raw in self._scan():
            record, _ = _parsed(field, raw)
            if record is not None and is_final(record) and symbol_of(record) in keys:
                found[field] = record
        return list(found.values())

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        parsed = ((field, _parsed(field, raw)[0]) for field, raw in self._fetch([_field(i) for i in ids]))
        return {field.decode(): record for field, record in parsed if record is not None}

    def describe(self) -> str:
        return f"Redis hash, {self._size()} trades" + (f", index {self._key.index}" if self._indexed() else "")

    # ------------------------------------------------------------------ reading

    def _index_names(self) -> set[bytes] | None:
        """What the app's index names, None where there is no index."""
        if not self._indexed():
            return None
        names: set[bytes] = self._key.call("SMEMBERS", self._key.index)
        return names

    def _indexed(self) -> bool:
        return bool(self._key.call("TYPE", self._key.index) == b"set")

    def _size(self) -> int:
        return int(self._key.call("HLEN", self._key.name))

    def _scan(self) -> Iterator[tuple[bytes, bytes]]:
        cursor = 0
        while True:
            cursor, page = self._key.call("HSCAN", self._key.name, cursor, "COUNT", _PAGE)
            yield from page.items()
            if not int(cursor):
                return

    def _fetch(self, fields: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(fields), _PAGE):
            page = fields[start : start + _PAGE]
            values = self._key.call("HMGET", self._key.name, *page)
            yield from ((field, raw) for field, raw in zip(page, values, strict=True) if raw is not None)

    # ------------------------------------------------------------------ writing

    def write(self, changes: Sequence[Change], lease: Lease) -> Iterator[WriteOutcome]:
        """One outcome after the other, each as soon as that trade is written."""
        for start in range(0, len(changes), _PAGE):
            page = changes[start : start + _PAGE]
            texts = dict(self._fetch([_field(change.trade_id) for change in page]))
            for change in page:
                yield self._write(change, texts.get(_field(change.trade_id)), lease)

    def _write(self, change: Change, raw: bytes | None, lease: Lease) -> WriteOutcome:
        for attempt in range(_ATTEMPTS):
            outcome, text = _decide(change, raw)
            if text is None:
                return outcome
            if self._swap(change, raw, text, lease):
                return outcome
            pause(attempt)
            raw = next((raw for _, raw in self._fetch([_field(change.trade_id)])), None)
        raise self._key.failed(
            f"has its trade {change.trade_id} rewritten all the time", "run again when the app is quieter"
        )

    def _swap(self, change: Change, old: bytes | None, new: str, lease: Lease) -> bool:
        after = result_of(change)
        was_final = change.base is None or is_final(change.base)
        index = "" if was_final == is_final(after) else "final" if is_final(after) else "open"
        return self._key.guarded(_SWAP, lease, _field(change.trade_id), old or b"", new.encode(), index) == b"DONE"


def _decide(change: Change, raw: bytes | None) -> tuple[WriteOutcome, str | None]:
    """What becomes of a change against the field's present value, and the text to write."""
    if raw is None:
        if change.base is not None:
            return WriteOutcome.GONE, None
        return WriteOutcome.WRITTEN, dumps(change.fields)
    record, _ = _parsed(_field(change.trade_id), raw)
    if change.base is None:
        same = record is not None and same_json(record, change.fields)
        return (WriteOutcome.WRITTEN if same else WriteOutcome.EXISTS), None
    if record is None:
        return WriteOutcome.CHANGED, None
    if same_json(record, change.base):
        return WriteOutcome.WRITTEN, edit_record(raw.decode().strip(), change.fields, change.remove)
    return (WriteOutcome.WRITTEN if same_json(record, result_of(change)) else WriteOutcome.CHANGED), None


def _parsed(field: bytes, raw: bytes) -> tuple[dict[str, Any] | None, str]:
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
    own = record_id(value)
    if own is None and value.get("id") is None:
        return {**value, "id": name}, ""
    if own != name:
        return None, "holds the trade of another id"
    return value, ""


def _field(trade_id: str) -> bytes:
    """The field of a trade; what no text can be (half a surrogate pair) names a field that nobody has."""
    return trade_id.encode(errors="surrogatepass")
