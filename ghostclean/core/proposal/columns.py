"""What an app's records hold, column by column: names, values, gaps; nested fields have dotted names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any
from uuid import UUID

from ghostclean.core.broker import BadNumber, is_uuid, number, parse_time

_SYMBOL = re.compile(r"[A-Z][A-Z0-9.]{0,20}(?:[/-][A-Z0-9]{1,6})?")
_DEPTH = 4  # of nested objects
_FEW = 24  # different words that one can look through
_WORD = 40  # characters

EPOCH_S, EPOCH_MS, NAIVE, AWARE, DAY = "epoch_s", "epoch_ms", "naive", "aware", "day"


@dataclass(frozen=True)
class Column:
    """One field of all records; a cell is None where the field is null, blank or absent."""

    name: str
    cells: tuple[Any, ...]

    @cached_property
    def values(self) -> tuple[Any, ...]:
        return tuple(cell for cell in self.cells if cell is not None)

    @property
    def is_empty(self) -> bool:
        return not self.values

    @property
    def has_gaps(self) -> bool:
        return len(self.values) < len(self.cells)

    @cached_property
    def numbers(self) -> tuple[Decimal | None, ...]:
        """The cells as numbers, None for what is none."""
        return tuple(map(_number, self.cells))

    @property
    def is_numeric(self) -> bool:
        return all(
            number is not None for number, cell in zip(self.numbers, self.cells, strict=True) if cell is not None
        )

    @property
    def is_flag(self) -> bool:
        return bool(self.values) and all(isinstance(v, (bool, int)) and v in (0, 1) for v in self.values)

    @cached_property
    def words(self) -> tuple[Any, ...]:
        """The different values, commonest first, where they are few and short; else none."""
        counted: dict[Any, int] = {}
        for value in self.values:
            if isinstance(value, (bool, int)) or (isinstance(value, str) and len(value) <= _WORD):
                counted[value] = counted.get(value, 0) + 1
            else:
                return ()
        return tuple(sorted(counted, key=lambda w: (-counted[w], str(w)))) if len(counted) <= _FEW else ()

    @property
    def is_key(self) -> bool:
        """Whether each record has a value of its own that can be a trade's id."""
        texts = [str(v) for v in self.values if isinstance(v, (str, int, UUID)) and not isinstance(v, bool)]
        return len(texts) == len(self.cells) == len(set(texts))

    @property
    def are_symbols(self) -> bool:
        return bool(self.values) and all(
            isinstance(v, str) and _SYMBOL.fullmatch(v.strip().upper()) is not None for v in self.values
        )

    @property
    def are_order_ids(self) -> bool:
        """Whether all are what Alpaca gives, or what a bot may give, an order."""
        return all(isinstance(v, str) and len(v) >= 8 and not v.isdecimal() for v in self.values)

    @property
    def are_uuids(self) -> bool:
        return bool(self.values) and all(isinstance(v, str) and is_uuid(v) for v in self.values)

    @cached_property
    def form(self) -> str | None:
        """In which way all its values are times; None for no time, or several ways."""
        forms = {_form(value) for value in self.values}
        return forms.pop() if len(forms) == 1 else None


def columns_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns by name, in the order in which the records name them; one that is an object elsewhere is left out."""
    flat = [dict(_flat(record)) for record in records]
    outer = {name[:at] for row in flat for name in row for at, c in enumerate(name) if c == "."}
    names = dict.fromkeys(name for row in flat for name in row if name not in outer)
    return {name: Column(name, tuple(row.get(name) for row in flat)) for name in names}


def _flat(record: Mapping[str, Any], before: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if "." in name or name != name.strip() or not name:
            continue  # a mapping has no way to name it
        if isinstance(value, Mapping) and value and depth < _DEPTH:
            yield from _flat(value, f"{before}{name}.", depth + 1)
        else:
            yield f"{before}{name}", _cell(value)


def _cell(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, UUID):
        return str(value)
    return None if isinstance(value, str) and not value.strip() else value


def _number(value: Any) -> Decimal | None:
    try:
        return number(value)
    except BadNumber:
        return None


def _form(value: Any) -> str | None:
    if isinstance(value, datetime):
        return NAIVE if value.tzinfo is None else AWARE
    if isinstance(value, date):
        return DAY
    if isinstance(value, str) and _number(value) is None:
        return _form_of_text(value.strip())
    moment = parse_time(value) if not isinstance(value, bool) else None
    given = _number(value)
    if moment is None or given is None:
        return None
    return EPOCH_MS if abs(given - int(moment.timestamp())) > 1 else EPOCH_S


def _form_of_text(text: str) -> str | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return DAY if len(text) <= len("2026-11-18") else NAIVE if moment.tzinfo is None else AWARE


def moment_of(value: Any) -> datetime | None:
    """A time as UTC, a naive one as it stands."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return parse_time(value)


def key_of(name: str) -> str:
    """One key for every spelling: `entry.orderId` and `entry_order_id` are one."""
    return "".join(c for c in name.lower() if c.isalnum())
