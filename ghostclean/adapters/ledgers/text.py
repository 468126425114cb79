"""A ledger that is one JSON text, as the file and the Redis string are.

A reading keeps the text and an index of its records, which stand in the app's own names; a change splices the text,
so that every other record keeps its exact bytes.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

from ghostclean.app.ports import Change, Lease, LedgerView, Record, Records, WriteOutcome
from ghostclean.core.broker import symbol_key
from ghostclean.core.ledger import (
    COMPACT,
    IDENTITY,
    BadJson,
    Edit,
    Layout,
    LedgerMapping,
    append,
    edit_record,
    elements,
    find_array,
    loads,
    same_json,
    skip,
    splice,
)
from ghostclean.counts import counted
from ghostclean.errors import LedgerFailed

_ATTEMPTS = 60
_LONG = 100_000  # characters; a shorter text is read sooner than msgspec is imported


# --------------------------------------------------------------------------- one reading


class _Slot(NamedTuple):
    """Where one record stands, and what it is looked up by."""

    start: int
    end: int
    id: str | None
    symbol: str | None = None  # of a final record, as it is spelled there; active ones are kept whole
    ours: bool = True  # by the filter


class LedgerText:
    """One reading; BadJson for what is no array of records, nor (unless `bare`) an object with `trades`."""

    def __init__(
        self, source: str, *, bare: bool = False, exists: bool = True, mapping: LedgerMapping = IDENTITY
    ) -> None:
        if bare and source.startswith("{", skip(source, 0)):
            raise BadJson("an object, which only a ledger in a file may be")
        self.source, self.exists, self._mapping = source, exists, mapping
        self._array = find_array(source)
        self._slots: list[_Slot] = []
        self._active: list[Record] = []
        self._strangers: list[str] = []
        for start, end, value in _records(source, self._array, mapping):
            if not isinstance(value, dict):
                self._strangers.append(f"element {len(self._slots) + 1} is {kind_of(value)}, not a trade")
                slot = _Slot(start, end, None)
            elif not mapping.belongs(value):
                slot = _Slot(start, end, mapping.id_of(value), ours=False)
            elif mapping.is_final(value):
                slot = _Slot(start, end, mapping.id_of(value), mapping.symbol_of(value) or "")
            else:
                self._active.append(value)
                slot = _Slot(start, end, mapping.id_of(value))
            self._slots.append(slot)

    def view(self) -> LedgerView:
        total = sum(slot.ours for slot in self._slots) - len(self._strangers)
        active = {self._mapping.id_of(record) for record in self._active} - {None}
        ids = Counter(slot.id for slot in self._slots if slot.ours and slot.id in active)
        repeated = frozenset(i for i, count in ids.items() if i is not None and count > 1)
        return LedgerView(tuple(self._active), total, tuple(self._strangers), exists=self.exists, repeated=repeated)

    def history(self, keys: Collection[str]) -> list[Record]:
        return [
            self._record(slot) for slot in self._slots if slot.symbol is not None and symbol_key(slot.symbol) in keys
        ]

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records with these ids; of two with one id, the first."""
        wanted = set(ids)
        found: dict[str, Record] = {}
        for slot in self._slots:
            if slot.ours and slot.id in wanted and slot.id not in found:
                found[slot.id] = self._record(slot)
        return found

    def records(self) -> Records:
        """The exact text of every element, strangers included, and what an object holds besides."""
        whole = {} if self.source.startswith("[", skip(self.source, 0)) else loads(self.source)
        texts = tuple(self.source[slot.start : slot.end] for slot in self._slots)
        return Records(texts, tuple(name for name in whole if name != "trades"), self.exists)

    def filled(self, texts: Sequence[str], *, lines: bool) -> str:
        """The text with these records in its empty array, each on a line of its own or all on one."""
        start = self._array + 1
        between, end = (",\n", "\n") if lines and texts else (",", "")
        return splice(self.source, [(start, skip(self.source, start), end + between.join(texts) + end)])

    def apply(self, changes: Sequence[Change], empty: Layout) -> tuple[str, list[WriteOutcome]]:
        """The text after these changes, and the outcome of each; `empty` lays out a first record.

        A record that already shows the result counts as written: its answer was lost.
        """
        wanted = {change.trade_id for change in changes}
        slots: dict[str, list[_Slot]] = {}
        for slot in self._slots:
            if slot.id in wanted:
                slots.setdefault(slot.id, []).append(slot)
        edits: dict[int, Edit] = {}
        new: dict[str, Mapping[str, Any]] = {}
        outcomes: list[WriteOutcome] = []
        for change in changes:
            there = slots.get(change.trade_id, [])
            if change.base is None:
                outcomes.append(self._insert(change, there, new))
            else:
                outcomes.append(self._edit(change, there, edits))
        todo = list(edits.values())
        if new:
            spans = [(slot.start, slot.end) for slot in self._slots]
            todo.append(append(self.source, self._array, spans, list(new.values()), empty))
        return (splice(self.source, todo) if todo else self.source), outcomes

    def _insert(self, change: Change, there: Sequence[_Slot], new: dict[str, Mapping[str, Any]]) -> WriteOutcome:
        present = [self._record(slot) for slot in there] + [new[i] for i in (change.trade_id,) if i in new]
        if not present:
            new[change.trade_id] = change.fields
            return WriteOutcome.WRITTEN
        same = any(same_json(record, change.fields) for record in present)
        return WriteOutcome.WRITTEN if same else WriteOutcome.EXISTS

    def _edit(self, change: Change, there: Sequence[_Slot], edits: dict[int, Edit]) -> WriteOutcome:
        after = result_of(change)
        for slot in there:
            if slot.start in edits:  # one edit a record: a second change has not seen the first
                continue
            record = self._record(slot)
            if same_json(record, change.base):
                old = self.source[slot.start : slot.end]
                edits[slot.start] = (slot.start, slot.end, edit_record(old, change.fields, change.remove))
                return WriteOutcome.WRITTEN
            if same_json(record, after):
                return WriteOutcome.WRITTEN
        return WriteOutcome.CHANGED if there else WriteOutcome.GONE

    def _record(self, slot: _Slot) -> dict[str, Any]:
        value: dict[str, Any] = loads(self.source[slot.start : slot.end])
        return value


def _records(source: str, at: int, mapping: LedgerMapping) -> Iterable[tuple[int, int, Any]]:
    """As `elements`, but a long array is read by `msgspec`, with only the fields that final records are found by.

    100,000 records take 0.1 s instead of 0.6 s; text that it refuses is left to the exact reader.
    """
    if len(source) < _LONG or source[:at].strip():
        return elements(source, at)
    import msgspec

    head: Any = TypedDict("head", dict.fromkeys(mapping.members, Any), total=False)  # type: ignore[misc]
    try:
        heads = msgspec.json.Decoder(list[head], float_hook=Decimal).decode(source)
        raws = msgspec.json.Decoder(list[msgspec.Raw]).decode(source)
    except (msgspec.DecodeError, ArithmeticError, RecursionError):
        return elements(source, at)
    sizes = map(len, raws) if source.isascii() else (len(bytes(raw).decode()) for raw in raws)
    return _placed(source, at, zip(heads, sizes, strict=True), mapping)


def _placed(
    source: str, at: int, found: Iterable[tuple[Record, int]], mapping: LedgerMapping
) -> Iterator[tuple[int, int, Any]]:
    start = skip(source, at + 1)
    for head, size in found:
        end = start + size
        yield start, end, head if mapping.is_final(head) else loads(source[start:end])
        start = skip(source, skip(source, end) + 1)


def result_of(change: Change) -> dict[str, Any]:
    after = {k: v for k, v in (change.base or {}).items() if k not in change.remove}
    return {**after, **change.fields}


def kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a true/false"
    if isinstance(value, str):
        return "a text"
    return "an array" if isinstance(value, list) else "a number"


# --------------------------------------------------------------------------- the ledger


class TextLedger(ABC):
    """The `Ledger` over one such text. A write replaces the reading it rests on, or is applied again to a new one."""

    place: str
    chunk = sys.maxsize
    _first = COMPACT  # how a ledger's first record is laid out

    def __init__(self, mapping: LedgerMapping = IDENTITY) -> None:
        self._mapping = mapping
        self._reading: LedgerText | None = None

    @abstractmethod
    def _load(self) -> LedgerText:
        """The text as it stands now; raises LedgerFailed, and BadJson for what is not a ledger."""

    @abstractmethod
    def _replace(self, reading: LedgerText, text: str, lease: Lease | None) -> bool:
        """Replaces what was read, while it stands and the lease holds; False where it does not stand."""

    @abstractmethod
    def failed(self, what: str, cure: str) -> LedgerFailed: ...

    @abstractmethod
    def describe(self) -> str: ...

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        """What a writer must hold while it replaces the text."""
        return contextlib.nullcontext()

    def read(self, *, whole: bool = False) -> LedgerView:
        return self._fresh().view()

    def history(self, keys: frozenset[str]) -> list[Record]:
        with self._readable():
            return (self._reading or self._fresh()).history(keys)

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        with self._readable():
            return self._fresh().get(ids)

    def records(self) -> Records:
        return self._fresh().records()

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        outcomes = [] if done is None else done
        if changes:
            with self._turn(), self._readable():
                outcomes += self._write(changes, lease)
        return outcomes

    def _write(self, changes: Sequence[Change], lease: Lease) -> list[WriteOutcome]:
        reading, fresh = self._reading, False
        for attempt in range(_ATTEMPTS):
            if reading is None:
                reading, fresh = self._fresh(), True
            text, outcomes = reading.apply(changes, self._first)
            if text != reading.source:
                if self._replace(reading, text, lease):
                    self._reading = None
                    return outcomes
                pause(attempt)
            elif fresh:
                return outcomes
            reading = None
        raise self.failed("is written by somebody else all the time", "run again when the app is quieter")

    def fill(self, texts: Sequence[str], *, dry_run: bool = False) -> None:
        with contextlib.nullcontext() if dry_run else self._turn(), self._readable():
            reading = self._fresh()
            if there := reading.records().texts:
                raise self.failed(f"already holds {counted(len(there), 'trade')}", "name an empty place")
            new = reading.filled(texts, lines=bool(self._first.margin))
            if not dry_run and not self._replace(reading, new, None):
                raise self.failed("is no longer empty", "name an empty place")

    def _fresh(self) -> LedgerText:
        with self._readable():
            self._reading = self._load()
            return self._reading

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except BadJson as error:
            raise self.failed(f"is not a JSON array of trades: {error}", "repair it or restore a backup") from None


def pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(0.25, 0.005 * 2**attempt)))
