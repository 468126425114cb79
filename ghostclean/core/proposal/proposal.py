"""Which of an app's fields is which of a trade's: proposed from names and values, with the reason of every line.

Invariants:
1. A line is sure only where its name says one thing, its values are of that kind and no other column claims it.
2. What decides whether a trade is open, which way it goes or how large it is, is proposed or refused, never assumed.
3. No column stands for two fields, no field has two columns (a status may be read from what tells the end).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ghostclean.core.ledger import SIZES, TIMES

from .columns import DAY, EPOCH_MS, EPOCH_S, NAIVE, Column, columns_of
from .lines import NULL, SIGNED, UNZONED, Line, NoLedger, Proposal, Trust
from .names import KINDS, OF_ORDERS, OF_OWNERS, plain_key, zone_in
from .naming import named
from .words import Told, Words, only_of_orders, side_words, status_words

Record = Mapping[str, Any]

ENDS = ("closedAt", "closePrice", "closeOrderId")
_MOST = 0.8  # of the records that must agree
_MANY_MARKS = 2  # of an order


def propose(records: Sequence[Record], said: Mapping[str, str] | None = None) -> Proposal:
    """The mapping these records suggest; raises NoLedger.

    `said` has the owner's own names by field, empty for none, and words by meaning: `status.OPEN` -> `offen, aktiv`.
    """
    if not records:
        raise NoLedger("it has no record to learn from")
    columns, notes = columns_of(records), list[str]()
    names = {field: name for field, name in (said or {}).items() if "." not in field}
    told = {field: _told(said or {}, field) for field in ("status", "side")}
    found = named(columns, names, told["side"], notes)
    _refuse_orders(columns, found)
    for field, what in (("id", "an id that is there in every record and different in each"), ("ticker", "a symbol")):
        if field not in found:
            raise NoLedger(f"none of its columns is called like {what}; it has {', '.join(columns)}")
    _explain_pnl(columns, found, notes)
    lines = [_formed(line, columns[line.name]) for line in found.values() if line.field not in ("status", "side")]
    lines += _status(columns, found, told["status"])
    lines += _side(columns, found, told["side"], notes)
    if "quantity" not in found and "alpacaOrderId" not in found and "clientOrderId" not in found:
        raise NoLedger("none of its columns says how large a trade is, and none names an order that would tell")
    notes += _several(columns, {line.name for line in lines})
    return Proposal(_in_order(_alike(lines, columns)), tuple(notes))


def _told(said: Mapping[str, str], field: str) -> Told:
    """What the owner has said of the words of a field."""
    of_field = {key.partition(".")[2]: words for key, words in said.items() if key.startswith(f"{field}.")}
    return {word.strip(): ours for ours, words in of_field.items() for word in words.split(",")}


def _several(columns: Mapping[str, Column], taken: Collection[str]) -> Iterator[str]:
    """What may tell several ledgers in one place apart."""
    for name, column in columns.items():
        if name not in taken and plain_key(name) in OF_OWNERS and len(column.words) > 1:
            words = ", ".join(map(str, column.words))
            yield f"{name} has {len(column.words)} values ({words}): if they are not all of this account, filter by it"


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


def _status(columns: Mapping[str, Column], found: Mapping[str, Line], told: Told) -> list[Line]:
    """The line that tells open from over: a status, else a time or reason that only an ended trade has."""
    line = found.get("status")
    if line is not None:
        return [_worded(line, columns, found, told)]
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


def _worded(line: Line, columns: Mapping[str, Column], found: Mapping[str, Line], told: Told) -> Line:
    ends = [columns[found[field].name] for field in ENDS if field in found]
    read = status_words(columns[line.name], ends, told)
    if not any(ours == "OPEN" for ours, _ in read.words):
        words = ", ".join(map(str, read.unknown))
        raise NoLedger(f"no value of {line.name} says that a trade is open ({words}); say which: status.OPEN=WORD")
    line = replace(line, words=read.words)
    if read.notes:
        trust = Trust.LIKELY if line.is_sure else line.trust
        line = replace(line, trust=trust, why="; ".join((line.why, *read.notes)))
    return line.but("; ".join(read.doubts))


def _side(columns: Mapping[str, Column], found: Mapping[str, Line], told: Told, notes: list[str]) -> list[Line]:
    signed = [columns[line.name] for field, line in found.items() if field in SIZES and _is_signed(columns[line.name])]
    if "side" not in found:
        if not signed:
            notes.append("no column says long or short: every trade is read as LONG")
        return []
    line = found["side"]
    words, doubt = side_words(columns[line.name], told)
    if not words:
        raise NoLedger(f"the values of {line.name} do not say long or short; say which: side.LONG=WORD")
    if signed:
        doubt = f"the sign of {signed[0].name} says which way it goes as well"
    elif doubt and (proven := _by_stops(columns, found, words)):
        doubt, line = None, replace(line, why=f"{line.why}; {proven}")
    return [replace(line, words=words).but(doubt)]


def _is_signed(column: Column) -> bool:
    return any(n is not None and n < 0 for n in column.numbers)


def _by_stops(columns: Mapping[str, Column], found: Mapping[str, Line], words: Words) -> str | None:
    """Whether stops above the entry prove that `sell` is a short, and no row says otherwise."""
    if not all(field in found for field in ("side", "entryPrice", "stopPrice")):
        return None
    meant = dict(_flat(words))
    sides = columns[found["side"].name].cells
    rows = zip(sides, columns[found["entryPrice"].name].numbers, columns[found["stopPrice"].name].numbers, strict=True)
    above = [(meant.get(side), stop > entry) for side, entry, stop in rows if entry and stop and stop != entry]
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
