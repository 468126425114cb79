"""Which column is called like which field, and has values of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .columns import DAY, Column
from .lines import SAID, Line, NoLedger, Trust, unsure
from .names import KINDS, Kind, plain_key
from .words import Told, side_words

Fits = Callable[[Column], bool]

_FAR = 5  # times the entry price, or a fifth of it
_MOST = 0.8


def _near(entry: Column, other: Column) -> bool:
    pairs = [(e, o) for e, o in zip(entry.numbers, other.numbers, strict=True) if e and o]
    return not pairs or sum(e / _FAR < o < e * _FAR for e, o in pairs) >= _MOST * len(pairs)


def named(columns: Mapping[str, Column], said: Mapping[str, str], sides: Told, notes: list[str]) -> dict[str, Line]:
    """The best column of each field by its name, among those whose values are of its kind."""
    fits = {**_FITS, "side": lambda column: bool(side_words(column, sides)[0])}
    found = {field: Line(field, name, Trust.SURE, SAID) for field, name in said.items() if name}
    for field, line in found.items():
        if line.name not in columns:
            raise NoLedger(f"it has no {line.name}, which was to be its {field}; it has {', '.join(columns)}")
    entry: Column | None = None
    for kind in KINDS:
        if kind.field not in said:
            taken = {line.name for line in found.values()}
            free = [column for name, column in columns.items() if name not in taken]
            claimed = _claimed(kind, free, entry, fits, notes)
            found |= {kind.field: claimed} if claimed is not None else {}
        if kind.field == "entryPrice" and "entryPrice" in found:
            entry = columns[found["entryPrice"].name]
    return found


def _claimed(
    kind: Kind, free: Sequence[Column], entry: Column | None, fits: Mapping[str, Fits], notes: list[str]
) -> Line | None:
    claims = sorted((claim, column.name) for column in free if (claim := _claim(kind, column)) is not None)
    by_name = {column.name: column for column in free}
    fitting = []
    for claim, name in claims:
        column = by_name[name]
        if not fits[kind.values](column):
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
        return Line(kind.field, column.name, unsure(kind.field), f"{' and '.join(rivals)} may be it as well; {fits}")
    if rank == len(kind.ranks) - 1:
        return Line(kind.field, column.name, unsure(kind.field), f"the name may mean something else; {fits}")
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


_FITS: Mapping[str, Fits] = {
    "id": lambda column: column.is_key,
    "symbol": lambda column: column.are_symbols,
    "status": lambda column: bool(column.words),
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
