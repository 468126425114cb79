"""A ledger held as one JSON text: what the file and the Redis string have in common.

A reading keeps the text and an index of its records; only active records stay parsed, the
others are parsed again when somebody asks for them. Applying changes gives a new text in
which every record that is not changed keeps its exact bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ghostclean.app.ports import Change, LedgerView, Record, WriteOutcome
from ghostclean.core.broker import symbol_key
from ghostclean.core.jsontext import (
    BadJson,
    Element,
    Style,
    append,
    edit_record,
    elements,
    find_array,
    loads,
    same_json,
    skip,
    splice,
)
from ghostclean.core.ledger import FINAL, record_id, status_of, text
from ghostclean.errors import LedgerFailed

from .ledger_heads import heads


class _Slot(NamedTuple):
    """Where one record stands, and what it is looked up by."""

    start: int
    end: int
    id: str | None
    symbol: str | None  # of a final record, as it is spelled there; active ones are kept whole


class LedgerText:
    """One reading of such a ledger; raises BadJson when the text is not an array of records.

    With `bare` nothing but the array will do; else it may be the `trades` of an object, as in a file.
    A final record of a long text is not parsed before it is asked for: only then does a number
    of impossible length in it raise BadJson.
    """

    def __init__(self, source: str, *, bare: bool = False) -> None:
        if bare and source.startswith("{", skip(source, 0)):
            raise BadJson("an object, which only a ledger in a file may be")
        self.source = source
        self._array = find_array(source)
        self._slots: list[_Slot] = []
        self._strangers: list[str] = []
        active: list[Record] = []
        known = heads(source, self._array)
        found: Iterable[Element] = elements(source, self._array) if known is None else known
        for position, (start, end, value) in enumerate(found):
            if not isinstance(value, dict):
                self._strangers.append(f"element {position + 1} is {kind_of(value)}, not a trade")
                self._slots.append(_Slot(start, end, None, None))
            elif is_final(value):
                self._slots.append(_Slot(start, end, record_id(value), text(value, "ticker", "symbol") or ""))
            else:
                self._slots.append(_Slot(start, end, record_id(value), None))
                active.append(value if known is None else loads(source[start:end]))
        self._active = tuple(active)

    def view(self) -> LedgerView:
        """The active records, and how many there are of all."""
        return LedgerView(self._active, len(self._slots) - len(self._strangers), tuple(self._strangers))

    def history(self, keys: Collection[str]) -> list[Record]:
        """The final records of these symbol keys."""
        return [
            self._record(slot) for slot in self._slots if slot.symbol is not None and symbol_key(slot.symbol) in keys
        ]

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        """The records with these ids; of two with one id, the first."""
        wanted = set(ids)
        found: dict[str, Record] = {}
        for slot in self._slots:
            if slot.id in wanted and slot.id not in found:
                found[slot.id] = self._record(slot)
        return found

    def records(self) -> list[str]:
        """The exact text of every element, strangers included."""
        return [self.source[slot.start : slot.end] for slot in self._slots]

    def apply(self, changes: Sequence[Change], empty: Style) -> tuple[str, list[WriteOutcome]]:
        """The text after these changes, and what became of each; `empty` lays out a first record.

        A record that already shows the result counts as written: that is how a write whose
        answer was lost looks when it is tried again.
        """
        wanted = {change.trade_id for change in changes}
        slots: dict[str, list[_Slot]] = {}
        for slot in self._slots:
            if slot.id in wanted:
                slots.setdefault(slot.id, []).append(slot)
        edits: dict[int, tuple[int, int, str]] = {}
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

    def _edit(self, change: Change, there: Sequence[_Slot], edits: dict[int, tuple[int, int, str]]) -> WriteOutcome:
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


@contextlib.contextmanager
def no_ledger(failed: Callable[[str, str], LedgerFailed]) -> Iterator[None]:
    """What is not JSON, as the failure of a ledger: `failed` makes it of what is wrong and the cure."""
    try:
        yield
    except BadJson as error:
        raise failed(f"is not a JSON array of trades: {error}", "repair it or restore a backup") from None


def result_of(change: Change) -> dict[str, Any]:
    """The record as it should stand after the change."""
    after = {k: v for k, v in (change.base or {}).items() if k not in change.remove}
    return {**after, **change.fields}


def is_final(record: Mapping[str, Any]) -> bool:
    """Whether the record's status says that nothing more will happen to it."""
    status = record.get("status")
    return (isinstance(status, str) and status in FINAL) or status_of(record) in FINAL


def symbol_of(record: Mapping[str, Any]) -> str:
    """The symbol key of a record, empty without a symbol."""
    return symbol_key(text(record, "ticker", "symbol") or "")


def kind_of(value: object) -> str:
    """What an element that is no object is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a true/false"
    if isinstance(value, str):
        return "a text"
    return "an array" if isinstance(value, list) else "a number"
