"""A record of the app in the contract's terms, and back: its own names, words, units, signs and rows.

Invariants:
1. A value that was read and is written back unchanged leaves what stood there, letter for letter.
2. A write touches the places of the fields it names and nothing beside them.
3. Nothing is dropped: a fact without a field goes to `extra`, else it is `left` for the caller to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ghostclean.core.broker import Side

from .jsontext import BadJson, dumps, json_value, loads, same_json
from .spelling import Field, Path, Unspeakable, is_negative
from .trade import FINAL, SIZE_FIELDS, record_id, text

SYNONYMS = {
    "symbol": "ticker",
    **dict.fromkeys(SIZE_FIELDS[1:], "quantity"),
    "originalStopPrice": "initialStopPrice",
    "targetPrice": "takeProfitPrice",
}
MARKS = ("paper", "accountId", "account", "accountMode", "env")  # whose an account is; read wherever they stand
SIZES = ("quantity", "initialQuantity", "filledQty")
TIMES = ("createdAt", "executedAt", "openedAt", "updatedAt", "closedAt")
# What runs write, besides the size; what a new record has.
WRITTEN = (
    "status", "autoEntryStatus", "alpacaStatus", "brokerStatus", "quantity", "initialQuantity", "filledQty",
    "avgFillPrice", "openedAt", "updatedAt", "closedAt", "closeReason", "closePrice", "realizedPnL", "realizedR",
    "closeOrderId", "stopPrice", "initialStopPrice", "stopOrderId", "lastPrice", "unrealizedPnL", "unrealizedR",
    "autoManage",
)  # fmt: skip
NEW = ("id", "ticker", "side", "entryPrice", "createdAt", "alpacaOrderId", "source")
READ = (*MARKS, "takeProfitPrice", "takeProfitOrderId", "clientOrderId", "brokerOrderId", "executedAt")
NAMES = (*NEW, *WRITTEN, *READ)

_ABSENT: Any = object()
_OURS = "ghostclean"  # our corner of the app's `extra`


class Written(NamedTuple):
    """A change in the app's terms, whole members of its record, and the facts that it has no place for."""

    fields: dict[str, Any]
    remove: tuple[str, ...]
    left: dict[str, Any]


class Only(NamedTuple):
    """A row filter: this value of the app's is one of these; a new record gets the first."""

    path: Path
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class LedgerMapping:
    """What a mapping says; `whole` without a table of names: every field has the contract's and all have a place.

    `fields` are by the contract's name, of synonyms the first. Methods take the app's record (`raw`).
    """

    fields: Mapping[str, Field] = field(default_factory=dict)
    only: tuple[Only, ...] = ()
    extra: Path | None = None
    whole: bool = False
    source: str = field(default="", compare=False)  # the file, for people

    @property
    def is_identity(self) -> bool:
        return self == IDENTITY

    @property
    def rows(self) -> str:
        """The filter in words, which tells the ledgers in one place apart."""
        said = (f"{'.'.join(only.path)}={'|'.join(map(str, only.values))}" for only in self.only)
        return f"[{', '.join(said)}]" if self.only else ""

    @property
    def unplaced(self) -> tuple[str, ...]:
        """The fields that runs write and the app has no place for, `extra` aside."""
        if self.whole:
            return ()
        signed = any(f.signed for f in self.fields.values())
        return tuple(n for n in (*NEW, *WRITTEN) if n not in self.fields and not (n == "side" and signed))

    @property
    def members(self) -> frozenset[str]:
        """The members of a record by which it is found and judged to be over."""
        found = {only.path[0] for only in self.only}
        found |= {self.fields[name].path[0] for name in ("id", "status", "ticker") if name in self.fields}
        return frozenset(found | {"id", "status", "ticker", "symbol"} if self.whole else found)

    def within(self, names: Collection[str]) -> LedgerMapping:
        """The same for an app whose records have these members and no others (the columns of a table)."""
        if not self.whole:
            return self
        spellings = {name: [name, *(other for other, first in SYNONYMS.items() if first == name)] for name in NAMES}
        found = {n: next((s for s in said if s in names), None) for n, said in spellings.items()}
        own = {n: replace(self.fields.get(n, Field(())), path=(said,)) for n, said in found.items() if said}
        return replace(self, fields=own, whole=False)

    def spellings(self, name: str, among: Collection[str]) -> tuple[Any, ...]:
        """What the app writes for these of the contract's values; of a `null` status see its field."""
        said = self.fields.get(name)
        return tuple(among) if said is None else said.spellings(among)

    # ------------------------------------------------------------------ finding

    def belongs(self, raw: Mapping[str, Any]) -> bool:
        """Whether the filter makes it a record of this ledger."""
        return all(any(same_json(_at(raw, path), wanted) for wanted in values) for path, values in self.only)

    def is_final(self, raw: Mapping[str, Any]) -> bool:
        status = self._one(raw, "status")
        return isinstance(status, str) and (status in FINAL or status.strip().upper() in FINAL)

    def id_of(self, raw: Mapping[str, Any]) -> str | None:
        return record_id({"id": self._one(raw, "id")})

    def symbol_of(self, raw: Mapping[str, Any]) -> str | None:
        return text({name: self._one(raw, name) for name in ("ticker", "symbol")}, "ticker", "symbol")

    def has_id(self, raw: Mapping[str, Any]) -> bool:
        return self._one(raw, "id") is not None

    def with_id(self, raw: Mapping[str, Any], trade_id: str) -> dict[str, Any]:
        """The record, named as the place where it stands."""
        return {**raw, **self.write(raw, {"id": trade_id}).fields}

    def _one(self, raw: Mapping[str, Any], name: str) -> Any:
        there = self.fields.get(name)
        if there is None:
            return raw.get(name) if self.whole else None
        value = _at(raw, there.path)
        return there.read(None if value is _ABSENT else value) if value is not _ABSENT or there.null else None

    # ------------------------------------------------------------------ reading

    def read(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The record in the contract's terms; what the contract does not name stays out where names are given."""
        record = dict(raw) if self.whole else {}
        for name, there in self.fields.items():
            value = _at(raw, there.path)
            if value is not _ABSENT or there.null:
                record[name] = there.read(None if value is _ABSENT else value)
        for name in MARKS:
            if name in raw and name not in record and not self._takes(name):
                record[name] = raw[name]
        record = {**self.told(raw), **record}
        signs = self._signs(raw)
        return record | {"side": _side(record.get("side"), signs)} if signs is not None else record

    def told(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The facts in our corner of `extra`."""
        ours = (_opened(_at(raw, self.extra)) or {}).get(_OURS) if self.extra is not None else None
        return ours if isinstance(ours, Mapping) else {}

    def _takes(self, member: str) -> bool:
        return any(there.path[0] == member for there in self.fields.values())

    def _signs(self, raw: Mapping[str, Any]) -> set[Side] | None:
        """The sides that signed sizes say; None where no size is signed."""
        paths = [there.path for there in self.fields.values() if there.signed]
        return {side for path in paths if (side := _sign(_at(raw, path))) is not None} if paths else None

    # ------------------------------------------------------------------ writing

    def insert(self, fields: Mapping[str, Any]) -> Written:
        """A new record, which belongs to this ledger."""
        written = self.write({}, fields)
        for only in self.only:
            _put(written.fields, only.path, only.values[0])
        return written

    def write(
        self,
        raw: Mapping[str, Any],
        fields: Mapping[str, Any],
        remove: Collection[str] = (),
        was: Mapping[str, Any] | None = None,
    ) -> Written:
        """The change of `raw` that makes it say these fields; `was` has earlier spellings of the app's own words.

        Raises Unspeakable for a status or side that the mapping has no word for.
        """
        after, left, side = dict(raw), dict[str, Any](), self._side_after(raw, fields)
        for name, value in fields.items():
            there = self._place(name)
            if there is None:
                if name != "side" or side is None:
                    left[name] = value
            elif not there.null:
                spelled = self._spelled(raw, name, value, there, side, (was or {}).get(name))
                if not _put(after, there.path, spelled):
                    left[name] = value
        for name in remove:
            if (there := self._place(name)) is not None and not there.null:
                _drop(after, there.path)
        if "status" in fields and self._place("status") is not None:
            self._end(after, fields["status"])
        return self._with_extra(raw, after, left, remove)

    def own_words(self, raw: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """The app's words in these fields that we would not write for what they mean."""
        spoken = {n: f for n in names if (f := self.fields.get(n)) is not None and f.values is not None}
        words = {name: _at(raw, there.path) for name, there in spoken.items()}
        return {
            name: word
            for name, word in words.items()
            if word is not _ABSENT and word is not None and spoken[name].rewrites(name, word)
        }

    def _place(self, name: str) -> Field | None:
        stands = self.whole or (name in MARKS and not self._takes(name))
        return self.fields.get(name) or (Field((name,)) if stands else None)

    def _side_after(self, raw: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
        signs = self._signs(raw)
        return None if signs is None else fields.get("side") or _side(self._one(raw, "side"), signs)

    def _spelled(self, raw: Mapping[str, Any], name: str, value: Any, there: Field, side: Any, was: Any) -> Any:
        if was is not None and there.values is not None and same_json(there.read(was), value):
            return was
        if there.signed:
            return there.write_signed(value, side)
        example = _at(raw, there.path)
        if name in TIMES and not there.shows_style(example):
            alike = (_at(raw, f.path) for n, f in self.fields.items() if n in TIMES and f.is_timed_as(there))
            example = next((value for value in alike if there.shows_style(value)), None)
        return there.write(name, value, example)

    def _end(self, after: dict[str, Any], status: str) -> None:
        """Sees to it that a field which is null while the trade is open says so, and else is not."""
        there = self.fields.get("status")
        if there is None or not there.null:
            return
        value = _at(after, there.path)
        if status in FINAL and there.read(None if value is _ABSENT else value) != "CLOSED":
            raise Unspeakable("status", status)
        if status not in FINAL and there.read(None if value is _ABSENT else value) == "CLOSED":
            _put(after, there.path, None)

    def _with_extra(
        self, raw: Mapping[str, Any], after: dict[str, Any], left: dict[str, Any], remove: Collection[str]
    ) -> Written:
        told = self.told(raw)
        kept = {name: value for name, value in told.items() if name not in remove} | left
        if self.extra is not None and not same_json(kept, told):
            there = _at(raw, self.extra)
            new = _closed(there, kept)
            if new == {}:
                _drop(after, self.extra)
            elif new is not None and _put(after, self.extra, new):
                left = {}
        tops = [name for name in after if name not in raw or not same_json(raw[name], after[name])]
        return Written({n: after[n] for n in tops}, tuple(n for n in raw if n not in after), left)


IDENTITY = LedgerMapping(whole=True)


# --------------------------------------------------------------------------- sides


def _sign(value: Any) -> Side | None:
    negative = None if value is _ABSENT else is_negative(value)
    return None if negative is None else Side.SHORT if negative else Side.LONG


def _side(said: Any, signs: Iterable[Side]) -> str:
    """The one side that sizes and side agree on, else a text that is none."""
    sides = {str(side) for side in signs}
    if isinstance(said, str) and said.strip():
        sides.add(said.strip().upper())
    if len(sides) == 1:
        return sides.pop()
    return " and ".join(sorted(sides)) or "of no sign"


# --------------------------------------------------------------------------- members of members


def _at(raw: Mapping[str, Any], path: Path) -> Any:
    if len(path) == 1:  # as most are
        return raw.get(path[0], _ABSENT)
    value: Any = raw
    for name in path:
        if isinstance(value, Mapping):
            value = value.get(name, _ABSENT)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _ABSENT
    return value


def _put(raw: Any, path: Path, value: Any) -> bool:
    """Sets a member in place, with copies of what lies between; False where that is no object."""
    key: Any = path[0]
    rest = path[1:]
    if isinstance(raw, list):
        if not key.isdecimal() or int(key) >= len(raw):
            return False
        key = int(key)
        there = raw[key]
    else:
        there = raw.get(key)
    if rest:
        inner = {} if there is None else dict(there) if isinstance(there, Mapping) else there
        inner = list(inner) if isinstance(inner, list) else inner
        if not isinstance(inner, dict | list) or not _put(inner, rest, value):
            return False
        value = inner
    raw[key] = value
    return True


def _drop(raw: dict[str, Any], path: Path) -> None:
    """Takes a member out, and the object that was made for it alone."""
    if _at(raw, path) is _ABSENT:
        return
    if len(path) == 1:
        raw.pop(path[0])
        return
    holder = _at(raw, path[:-1])
    if not isinstance(holder, Mapping):
        _put(raw, path, None)
    elif rest := {name: value for name, value in holder.items() if name != path[-1]}:
        _put(raw, path[:-1], rest)
    else:
        _drop(raw, path[:-1])


def _opened(extra: Any) -> Mapping[str, Any] | None:
    """What `extra` holds, an object or the text of one; None where something else stands there."""
    if extra is _ABSENT or extra is None:
        return {}
    if isinstance(extra, str):
        try:
            extra = loads(extra) if extra.strip() else {}
        except BadJson:
            return None
    return extra if isinstance(extra, Mapping) else None


def _closed(extra: Any, facts: Mapping[str, Any]) -> Any:
    """`extra` with these facts in our corner, as the app holds it; None where something else stands there."""
    held = _opened(extra)
    if held is None:
        return None
    new = {name: value for name, value in held.items() if name != _OURS} | ({_OURS: json_value(facts)} if facts else {})
    return dumps(new) if isinstance(extra, str) else new
