"""How the app spells the value of one field: its words, its times, its signs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from ghostclean.core.broker import BadNumber, Side, number, parse_time, plain

from .jsontext import same_json
from .trade import FINAL

Path = tuple[str, ...]  # of a member, dotted in the file

UNITS = {"epoch_s": 1, "epoch_ms": 1000}
ANY = "*"  # the row of a table for what no other row has
_UNMAPPED = "unmapped:"  # before a word that the mapping does not list
_DAY = 10  # characters of a date
_EPOCH = datetime.fromtimestamp(0, UTC)


class Unspeakable(ValueError):
    """A status or a side that the app has no word for."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(f"the mapping has no word for {name} {value}")


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field stands in the app's record, and how its values are spelled there.

    `values`: the contract's value -> the app's, of which the first is written; `strict`: there are no others.
    `null`: an open trade has none.
    """

    path: Path
    values: Mapping[str, tuple[Any, ...]] | None = None
    strict: bool = False
    unit: str | None = None
    zone: ZoneInfo | None = None
    signed: bool = False
    null: bool = False
    line: int | None = None

    # ------------------------------------------------------------------ reading

    def read(self, value: Any) -> Any:
        if self.null:
            return "OPEN" if value is None or value == "" else "CLOSED"
        if self.values is not None and value is not None:
            return self._meaning(value)
        if self.signed:
            return _unsigned(value)
        return _aware(value, self.zone) if self.zone is not None or isinstance(value, datetime) else value

    def _meaning(self, value: Any) -> Any:
        assert self.values is not None
        for meaning, words in self.values.items():
            if meaning != ANY and any(_is_word(value, word) for word in words):
                return meaning
        # A word that no row has must not pass for one of the contract's.
        return f"{_UNMAPPED}{value}" if self.strict else value

    def spellings(self, among: Collection[str]) -> tuple[Any, ...]:
        """The app's words for these values."""
        if self.values is None:
            return tuple(among)
        return tuple(word for meaning, words in self.values.items() if meaning in among for word in words)

    # ------------------------------------------------------------------ writing

    def write(self, name: str, value: Any, example: Any) -> Any:
        """The app's spelling, in the style of an `example` where there is one."""
        if self.values is not None and value is not None:
            return self._word(name, value)
        if self.unit is not None or self.zone is not None:
            return self._time(value, example)
        return value

    def _word(self, name: str, value: Any) -> Any:
        assert self.values is not None
        meaning = "CLOSED" if name == "status" and value in FINAL and value not in self.values else value
        words = self.values.get(meaning) if isinstance(meaning, str) else None
        words = words or self.values.get(ANY)
        if words is None and self.strict:
            raise Unspeakable(name, value)
        return words[0] if words else value

    def rewrites(self, name: str, word: Any) -> bool:
        """Whether a word that is read and written back becomes another."""
        try:
            return not same_json(self.write(name, self.read(word), word), word)
        except Unspeakable:
            return True

    def write_signed(self, value: Any, side: Any) -> Any:
        if side not in tuple(Side):
            raise Unspeakable("side", side)
        return _turned(value) if side == Side.SHORT and is_negative(value) is False else value

    def _time(self, value: Any, example: Any) -> Any:
        moment = parse_time(value) if isinstance(value, str) and ":" in value else None
        if moment is None:  # an epoch as it stood there, or null
            return value
        if self.unit is not None:
            return _epoch(moment, UNITS[self.unit], example)
        local = moment.astimezone(self.zone)
        offset = local.isoformat()[-6:]
        if value.endswith(offset):  # it was read here
            return value[: -len(offset)]
        spelled = local.replace(tzinfo=None).isoformat(timespec=_precision(example))
        blank = isinstance(example, str) and example[_DAY : _DAY + 1] == " "
        return spelled.replace("T", " ") if blank else spelled

    def shows_style(self, value: Any) -> bool:
        """Whether a value can be an example."""
        if self.unit is not None:
            return isinstance(value, str | int | float | Decimal) and not isinstance(value, bool) and value != ""
        return isinstance(value, str) and len(value) > _DAY

    def is_timed_as(self, other: Field) -> bool:
        return (self.unit, self.zone) == (other.unit, other.zone)


def _is_word(value: Any, word: Any) -> bool:
    if isinstance(value, str) and isinstance(word, str):
        return value.strip().casefold() == word.casefold()
    return same_json(value, word)


# --------------------------------------------------------------------------- times


def _aware(value: Any, zone: ZoneInfo | None) -> Any:
    """A time that says where it is; a naive one is of this zone."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=zone) if value.tzinfo is None else value).isoformat()
    if not isinstance(value, str) or ":" not in value:
        return value
    try:
        said = datetime.fromisoformat(value.strip())
    except ValueError:
        return value
    return value.strip() + said.replace(tzinfo=zone).isoformat()[-6:] if said.tzinfo is None else value


def _epoch(moment: datetime, factor: int, example: Any) -> Any:
    count = Decimal((moment - _EPOCH) // timedelta(microseconds=1)) * factor / 1_000_000
    exact = isinstance(example, float | Decimal) or (isinstance(example, str) and "." in example)
    told = count if exact else int(count)
    return plain(Decimal(told)) if isinstance(example, str) else told


def _precision(example: Any) -> str:
    if not isinstance(example, str):
        return "milliseconds"
    _, dot, fraction = example.partition(".")
    return "seconds" if not dot else "microseconds" if len(fraction) > 3 else "milliseconds"


# --------------------------------------------------------------------------- signs


def _unsigned(value: Any) -> Any:
    return _turned(value) if is_negative(value) else value


def is_negative(value: Any) -> bool | None:
    """The sign of a size; None where there is none."""
    try:
        size = number(value)
    except BadNumber:
        return None
    return size < 0 if size else None


def _turned(value: Any) -> Any:
    """The size with the other sign, all digits as they are."""
    if isinstance(value, str):
        said = value.strip().lstrip("+")
        return said[1:] if said.startswith("-") else f"-{said}"
    return value.copy_negate() if isinstance(value, Decimal) else -value
