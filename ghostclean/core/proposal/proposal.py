"""Which of an app's fields is which of a trade's: proposed from names and values, with the reason of every line.

Invariants:
1. A line is sure only where its name says one thing, its values are of that kind and no other column claims it.
2. What decides whether a trade is open, which way it goes or how large it is, is proposed or refused, never assumed.
3. No column stands for two fields, no field has two columns (a status may be read from what tells the end).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ghostclean.core.ledger import SIZES, TIMES

from .columns import DAY, EPOCH_MS, EPOCH_S, NAIVE, Column, columns_of
from .names import KINDS, OF_ORDERS, OF_OWNERS, Kind, plain_key, zone_in
from .words import Words, only_of_orders, side_words, status_words

Record = Mapping[str, Any]

ENDS = ("closedAt", "closePrice", "closeOrderId")
DECISIVE = ("id", "ticker", "status", "side", "quantity", "alpacaOrderId")
SAID = "as you said"
UNZONED = ", without a zone"
NULL, SIGNED = "null", "signed"  # forms: open while it is null; a negative size is a short
_MANY_MARKS = 2  # of an order


class NoLedger(ValueError):
    """These records are no ledger of trades; says why."""


class Trust(StrEnum):
    """How far a line can be trusted; a doubtful one would decide wrongly, and needs a person's word."""

    SURE = "sure"
    LIKELY = "likely"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True, slots=True)
class Line:
    """One field of a trade and the app's name for it.

    `form` is what its values are, where that must be said: an epoch, the zone of naive times, `signed`, `null`.
    """

    field: str
    name: str
    trust: Trust
    why: str
    words: Words = ()
    form: str | None = None

    @property
    def is_sure(self) -> bool:
        return self.trust is Trust.SURE

    @property
    def is_zoned(self) -> bool:
        """Whether its times say nothing of their zone, so that the line must."""
        return self.form not in (None, EPOCH_S, EPOCH_MS, NULL, SIGNED)

    def but(self, doubt: str | None) -> Line:
        """The line with a doubt, if there is one; it does not outweigh the owner's word."""
        if not doubt:
            return self
        trust = self.trust if self.why.startswith(SAID) else _unsure(self.field)
        return replace(self, trust=trust, why=f"{self.why}; {doubt}")


def _unsure(field: str) -> Trust:
    return Trust.DOUBTFUL if field in DECISIVE else Trust.LIKELY


@dataclass(frozen=True, slots=True)
class Proposal:
    """The lines, and what else a person should know before saying yes."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def line(self, field: str) -> Line | None:
        return next((line for line in self.lines if line.field == field), None)

    def changed(self, field: str, **values: Any) -> Proposal:
        lines = tuple(replace(line, **values) if line.field == field else line for line in self.lines)
        return replace(self, lines=lines)

    def zoned(self, zone: str) -> Proposal:
        """All naive times are of this zone, as the owner says."""
        zoned = (replace(line, form=zone, trust=Trust.SURE, why=SAID) if line.is_zoned else line for line in self.lines)
        return replace(self, lines=tuple(zoned))

    @property
    def doubtful(self) -> tuple[Line, ...]:
        """The lines that need a person's word."""
        return tuple(line for line in self.lines if line.trust is Trust.DOUBTFUL)


def propose(records: Sequence[Record], said: Mapping[str, str] | None = None) -> Proposal:
    """The mapping these records suggest; `said` has the owner's own names by field, empty for none. Raises NoLedger."""
    if not records:
        raise NoLedger("it has no record to learn from")
    columns, notes = columns_of(records), list[str]()
    found = _named(columns, dict(said or {}), notes)
    _refuse_orders(columns, found)
    for field, what in (("id", "an id that is there in every record and different in each"), ("ticker", "a symbol")):
        if field not in found:
            raise NoLedger(f"none of its columns is called like {what}; it has {', '.join(columns)}")
    _explain_pnl(columns, found, notes)
    lines = [_formed(line, columns[line.name]) for line in found.values() if line.field not in ("status", "side")]
    lines += _status(columns, found)
    lines += _side(columns, found, notes)
    if "quantity" not in found and "alpacaOrderId" not in found and "clientOrderId" not in found:
        raise NoLedger("none of its columns says how large a trade is, and none names an order that would tell")
    notes += _several(columns, {line.name for line in lines})
    return Proposal(_in_order(_alike(lines, columns)), tuple(notes))


def _several(columns: Mapping[str, Column], taken: Collection[str]) -> Iterator[str]:
    """What may tell several ledgers in one place apart."""
    for name, column in columns.items():
        if name not in taken and plain_key(name) in OF_OWNERS and len(column.words) > 1:
            words = ", ".join(map(str, column.words))
            yield f"{name} has {len(column.words)} values ({words}): if they are not all of this account, filter by it"


# --------------------------------------------------------------------------- names


def _named(columns: Mapping[str, Column], said: dict[str, str], notes: list[str]) -> dict[str, Line]:
    """The best column of each field by its name, among those whose values are of its kind."""
    found = {field: Line(field, name, Trust.SURE, SAID) for field, name in said.items() if name}
    for field, line in found.items():
        if line.name not in columns:
            raise NoLedger(f"it has no {line.name}, which was to be its {field}; it has {', '.join(columns)}")
    entry: Column | None = None
    for kind in KINDS:
        if kind.field not in said:
            taken = {line.name for line in found.values()}
            free = [column for name, column in columns.items() if name not in taken]
            claimed = _claimed(kind, free, entry, notes)
            found |= {kind.field: claimed} if claimed is not None else {}
        if kind.field == "entryPrice" and "entryPrice" in found:
            entry = columns[found["entryPrice"].name]
    return found


def _claimed(kind: Kind, free: Sequence[Column], entry: Column | None, notes: list[str]) -> Line | None:
    claims = sorted((claim, column.name) for column in free if (claim := _claim(kind, column)) is not None)
    by_name = {column.name: column for column in free}
    fitting = []
    for claim, name in claims:
        column = by_name[name]
        if not _FITS[kind.values](column):
            what = _NOUNS[kind.values]
        elif kind.values == "price" and entry is not None and not _near(entry, column):
            what = f"near {entry.name}, as a price would be"
        else:
            fitting.append((claim[0], column))
            continue
        if claim[0] == 0:
            notes.append(f"{name} is called like {kind.field}, but its values are not {what}: left alone")
    return _chosen(kind, fitting) if fitting else None


def _claim(kind: Kind, column: Column) -> tuple[int, int] | None:
    """The rank of its name among those of the field, and its place there."""
    key = plain_key(column.name)
    return next(((rank, names.index(key)) for rank, names in enumerate(kind.ranks) if key in names), None)


def _chosen(kind: Kind, fitting: Sequence[tuple[int, Column]]) -> Line:
    rank, column = fitting[0]
    rivals = [other.name for r, other in fitting[1:] if r == rank and other.cells != column.cells]
    count = len(column.values)
    fits = f"{count} value{'s' * (count != 1)}, all {_NOUNS[kind.values]}" if count else "no value yet"
    if rivals:
        return Line(kind.field, column.name, _unsure(kind.field), f"{' and '.join(rivals)} may be it as well; {fits}")
    if rank == len(kind.ranks) - 1:
        return Line(kind.field, column.name, _unsure(kind.field), f"the name may mean something else; {fits}")
    return Line(
        kind.field, column.name, Trust.SURE, f"{'called so' if rank == 0 else 'nothing else is called so'}; {fits}"
    )


_NOUNS = {
    "id": "different", "symbol": "symbols", "status": "words", "side": "directions", "name": "names",
    "order": "order ids", "size": "quantities", "price": "prices", "money": "amounts", "time": "times",
    "text": "texts", "mode": "paper or live", "flag": "yes or no",
}  # fmt: skip


def _is_price(column: Column) -> bool:
    return all(n is None or n >= 0 for n in column.numbers) and column.is_numeric and not column.is_flag


_FITS: Mapping[str, Callable[[Column], bool]] = {
    "id": lambda column: column.is_key,
    "symbol": lambda column: column.are_symbols,
    "status": lambda column: bool(column.words),
    "side": lambda column: bool(side_words(column)[0]),
    "order": lambda column: column.are_order_ids,
    "name": lambda column: all(isinstance(v, str) for v in column.values),
    "size": lambda column: (
        column.is_numeric and any(column.numbers) and not all(isinstance(v, bool) for v in column.values)
    ),
    "price": _is_price,
    "money": lambda column: column.is_numeric,
    "time": lambda column: column.is_empty or column.form not in (None, DAY),
    "text": lambda column: all(isinstance(v, (str, int)) for v in column.values),
    "mode": lambda column: bool(column.words) and {str(w).lower() for w in column.words} <= {"paper", "live"},
    "flag": lambda column: column.is_flag,
}


# --------------------------------------------------------------------------- what decides


def _refuse_orders(columns: Mapping[str, Column], found: Mapping[str, Line]) -> None:
    if any(field in found for field in ENDS):
        return
    marks = [name for name in columns if plain_key(name) in OF_ORDERS]
    status = columns[found["status"].name] if "status" in found else None
    if len(marks) >= _MANY_MARKS:
        why = f"it has {', '.join(marks[:4])}"
    elif status is not None and "realizedPnL" not in found and only_of_orders(status):
        why = f"its {status.name} says {', '.join(map(str, status.words))}"
    else:
        return
    raise NoLedger(
        f"it looks like one record an order: {why}, and nothing says how a trade ended (no exit price, time or "
        "order); ghostclean needs one record a trade"
    )


def _status(columns: Mapping[str, Column], found: dict[str, Line]) -> list[Line]:
    """The line that tells open from over: a status, else a time or reason that only an ended trade has."""
    line = found.get("status")
    if line is not None:
        return [_worded(line, columns, found)]
    for field in ("closedAt", "closeReason"):
        end = found.get(field)
        if end is not None and columns[end.name].has_gaps:
            over, count = len(columns[end.name].values), len(columns[end.name].cells)
            why = f"no column is a status; {end.name} is null in {count - over} records (open) and set in {over}"
            return [Line("status", end.name, Trust.SURE if over else Trust.LIKELY, why, form=NULL)]
    days = [name for name, column in columns.items() if _is_end(name) and column.form == DAY]
    if days:
        raise NoLedger(f"{days[0]} alone says which trades are open, and it holds days without a time of day")
    raise NoLedger(
        "nothing in it says which trades are open: no status, and no exit time that is null while it is open"
    )


def _is_end(name: str) -> bool:
    return any(plain_key(name) in names for kind in KINDS if kind.field == "closedAt" for names in kind.ranks)


def _worded(line: Line, columns: Mapping[str, Column], found: Mapping[str, Line]) -> Line:
    ends = [columns[found[field].name] for field in ENDS if field in found]
    read = status_words(line.name, columns[line.name], ends)
    if not any(ours == "OPEN" for ours, _ in read.words):
        raise NoLedger(f"no value of {line.name} says that a trade is open ({', '.join(map(str, read.unknown))})")
    line = replace(line, words=read.words)
    if read.notes:
        trust = Trust.LIKELY if line.is_sure else line.trust
        line = replace(line, trust=trust, why="; ".join((line.why, *read.notes)))
    return line.but("; ".join(read.doubts))


def _side(columns: Mapping[str, Column], found: Mapping[str, Line], notes: list[str]) -> list[Line]:
    signed = [columns[line.name] for field, line in found.items() if field in SIZES and _is_signed(columns[line.name])]
    if "side" not in found:
        if not signed:
            notes.append("no column says long or short: every trade is read as LONG")
        return []
    line = found["side"]
    words, doubt = side_words(columns[line.name])
    if signed:
        doubt = f"the sign of {signed[0].name} says which way it goes as well"
    elif doubt and (proven := _by_stops(columns, found)):
        doubt, line = None, replace(line, why=f"{line.why}; {proven}")
    return [replace(line, words=words).but(doubt)]


def _is_signed(column: Column) -> bool:
    return any(n is not None and n < 0 for n in column.numbers)


def _by_stops(columns: Mapping[str, Column], found: Mapping[str, Line]) -> str | None:
    """Whether stops above the entry prove that `sell` is a short, and no row says otherwise."""
    if not all(field in found for field in ("side", "entryPrice", "stopPrice")):
        return None
    sides, words = columns[found["side"].name].cells, dict(_flat(side_words(columns[found["side"].name])[0]))
    rows = zip(sides, columns[found["entryPrice"].name].numbers, columns[found["stopPrice"].name].numbers, strict=True)
    above = [(words.get(side), stop > entry) for side, entry, stop in rows if entry and stop and stop != entry]
    shorts = [is_above for side, is_above in above if side == "SHORT"]
    agree = shorts and all(shorts) and not any(is_above for side, is_above in above if side == "LONG")
    return f"of {len(shorts)} such the stop is above the entry" if agree else None


def _flat(words: Words) -> list[tuple[Any, str]]:
    return [(theirs, ours) for ours, said in words for theirs in said]


# --------------------------------------------------------------------------- values


def _formed(line: Line, column: Column) -> Line:
    """The line with what its values are, where that must be said: signed, an epoch, of a zone."""
    if line.field in SIZES and _is_signed(column):
        return replace(line, form=SIGNED, why=f"{line.why}; a negative one is a short")
    if line.field not in TIMES or column.form not in (EPOCH_S, EPOCH_MS, NAIVE):
        return line
    if column.form != NAIVE:
        return replace(line, form=column.form)
    zone = zone_in(line.name)
    if zone is not None:
        return replace(line, form=zone, why=f"{line.why}; its name says {zone}")
    return replace(line, form="UTC", trust=Trust.LIKELY, why=f"{line.why}{UNZONED}: taken as UTC")


def _alike(lines: Sequence[Line], columns: Mapping[str, Column]) -> list[Line]:
    """The lines, with times that no record has yet spelled as all the others are."""
    told = [line for line in lines if line.field in TIMES and columns[line.name].values]
    if len({line.form for line in told}) != 1:
        return list(lines)
    one = told[0]
    return [
        replace(line, form=one.form, trust=one.trust, why=f"{line.why}; spelled as {one.name}")
        if line.field in TIMES and line not in told and one.form is not None
        else line
        for line in lines
    ]


_FAR = 5  # times the entry price, or a fifth of it
_MOST = 0.8


def _near(entry: Column, other: Column) -> bool:
    pairs = [(e, o) for e, o in zip(entry.numbers, other.numbers, strict=True) if e and o]
    return not pairs or sum(e / _FAR < o < e * _FAR for e, o in pairs) >= _MOST * len(pairs)


def _explain_pnl(columns: Mapping[str, Column], found: dict[str, Line], notes: list[str]) -> None:
    """Leaves out what is called P&L and is not that of prices and size, in the closed records that show all of them."""
    names = [found[f].name for f in ("realizedPnL", "entryPrice", "closePrice", "quantity") if f in found]
    if len(names) < 4:
        return
    rows = [row for row in zip(*(columns[name].numbers for name in names), strict=True) if all(row)]
    agree = sum(
        abs(abs(pnl) - abs((out - into) * size)) <= abs(into * size) / 500 + abs(pnl) / 20
        for pnl, into, out, size in rows
    )
    line = found["realizedPnL"]
    if rows and agree < _MOST * len(rows):
        del found["realizedPnL"]
        notes.append(
            f"{line.name} is called like realizedPnL, but prices and size give another amount in "
            f"{len(rows) - agree} of {len(rows)} closed records: left alone"
        )
    elif rows:
        why = f"{line.why}; that of prices and size in {agree} of {len(rows)} closed records"
        found["realizedPnL"] = replace(line, why=why)


_ORDER = (
    "id", "ticker", "side", "status", "quantity", "initialQuantity", "entryPrice", "stopPrice", "initialStopPrice",
    "takeProfitPrice", "alpacaOrderId", "clientOrderId", "stopOrderId", "takeProfitOrderId", "closeOrderId", "openedAt",
    "executedAt", "createdAt", "updatedAt", "closedAt", "closePrice", "closeReason", "realizedPnL",
)  # fmt: skip


def _in_order(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(sorted(lines, key=lambda line: _ORDER.index(line.field) if line.field in _ORDER else len(_ORDER)))
