"""The columns of a table: how a value stands in the database, and how in a record.

A server gives every value as text and takes it as text, so that no driver rounds it, and two equal texts are one
value; SQLite gives and takes what it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum, auto
from typing import Any

from ghostclean.core.broker import BadNumber, iso, json_number, number, plain
from ghostclean.core.ledger import dumps, loads

_TRUTHS = {1: True, 0: False, "1": True, "0": False, "t": True, "f": False, "true": True, "false": False}
_STYLE = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(?:\.(\d{1,6}))?(Z|[+-]\d\d(?::?\d\d)?)?")
_STORED = "2026-01-01 00:00:00.000000"  # the style of most writers of naive times


class Kind(Enum):
    """What a column holds."""

    TEXT = auto()
    WHOLE = auto()
    NUMBER = auto()
    TRUTH = auto()
    MOMENT = auto()  # a time that knows its zone
    LOCAL = auto()  # a time that does not
    DAY = auto()
    JSON = auto()
    OTHER = auto()


class Unfit(ValueError):
    """A value that a column cannot hold; says which and why."""

    def __init__(self, column: str, value: object, why: str) -> None:
        shown = value if isinstance(value, str) else dumps(value)
        super().__init__(f"{column} = {shown[:60]!r}: {why}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `local`: the mapping says of which zone its naive times are, which else are UTC.

    `length` of text, `scale` and `digits` of an exact number, `most` of a whole one; `choices` of an enum.
    """

    name: str
    kind: Kind
    nullable: bool = True
    generated: bool = False
    length: int | None = None
    digits: int | None = None
    scale: int | None = None
    most: int | None = None
    choices: Sequence[str] = ()
    local: bool = False
    spells: bool = True  # the database takes text
    is_uuid: bool = False

    # ------------------------------------------------------------------ reading

    def show(self, raw: Any) -> Any:
        """The value as a record has it; what is not of the column's kind stays what it is."""
        read = self.reader()
        return raw if raw is None or read is None else read(raw)

    def reader(self) -> Callable[[Any], Any] | None:
        """What shows a value that is not null; None where every value is shown as it is."""
        reads: Mapping[Kind, Callable[[Any], Any]] = {
            Kind.WHOLE: int,
            Kind.NUMBER: Decimal,
            Kind.TRUTH: lambda raw: _TRUTHS.get(raw, raw),
            Kind.JSON: loads,
            Kind.MOMENT: self._time,
            Kind.LOCAL: self._time,
        }
        read = reads.get(self.kind)
        if self.spells and read is None:
            return None

        def shown(raw: Any) -> Any:
            if isinstance(raw, float):
                return Decimal(repr(raw))
            if isinstance(raw, bytes):
                return raw.decode(errors="backslashreplace")
            if read is None or not isinstance(raw, str | int):
                return raw
            try:
                return read(raw) if isinstance(raw, str) or self.kind is Kind.TRUTH else raw
            except (ValueError, ArithmeticError):
                return raw

        return shown

    def _time(self, raw: str) -> str:
        moment = datetime.fromisoformat(raw)
        if moment.tzinfo is None and self.local:
            return raw
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}" if moment.microsecond % 1000 else iso(moment)

    # ------------------------------------------------------------------ writing

    def store(self, value: Any, like: Any = None) -> Any:
        """The value as the database takes it; a time in SQLite is spelled `like` another. Raises Unfit."""
        if value is None:
            if not self.nullable:
                raise Unfit(self.name, value, "the column must not be null")
            return None
        if self.kind in (Kind.WHOLE, Kind.NUMBER):
            return self._number(value)
        if self.kind is Kind.TRUTH:
            return self._truth(value)
        if self.kind in (Kind.MOMENT, Kind.LOCAL, Kind.DAY):
            return self._spell(value, like)
        return self._text(value)

    def _number(self, value: Any) -> Any:
        try:
            said = number(value)
        except BadNumber as error:
            raise Unfit(self.name, value, str(error)) from None
        if said is None:
            raise Unfit(self.name, value, "the column holds numbers")
        if self.kind is Kind.WHOLE and (said != said.to_integral_value() or abs(said) > (self.most or abs(said))):
            raise Unfit(self.name, value, f"the column holds whole numbers{f' up to {self.most}' * bool(self.most)}")
        if self.scale is not None:
            said = said.quantize(Decimal(1).scaleb(-self.scale), ROUND_HALF_UP)
        if self.digits is not None and said and said.adjusted() >= self.digits - (self.scale or 0):
            raise Unfit(self.name, value, f"the column holds {self.digits} digits, {self.scale or 0} of them decimals")
        return plain(said) if self.spells else json_number(said)

    def _truth(self, value: Any) -> Any:
        if not isinstance(value, bool):
            raise Unfit(self.name, value, "the column holds true or false")
        return str(int(value)) if self.spells else int(value)

    def _spell(self, value: Any, like: Any) -> Any:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise Unfit(self.name, value, "the column holds times") from None
        if moment.tzinfo is None:  # as the mapping has spelled it
            return value if self.kind is not Kind.DAY else str(moment.date())
        moment = moment.astimezone(UTC)
        if self.kind is Kind.DAY:
            return str(moment.date())
        if self.spells:
            return f"{moment:%Y-%m-%d %H:%M:%S.%f}" + ("+00" if self.kind is Kind.MOMENT else "")
        style = _STYLE.fullmatch(str(like)) or _STYLE.fullmatch(_STORED)
        assert style is not None
        between, fraction, zone = style.groups(default="")
        ending = "." + f"{moment:%f}"[: len(fraction)] if fraction else ""
        return f"{moment:%Y-%m-%d}{between}{moment:%H:%M:%S}{ending}{zone if zone in ('', 'Z') else '+00:00'}"

    def _text(self, value: Any) -> Any:
        if self.kind is Kind.JSON:
            return dumps(value)
        said = value if isinstance(value, str) else dumps(value)
        if self.choices and said not in self.choices:
            raise Unfit(self.name, value, f"the column takes {', '.join(self.choices)[:120]}")
        if self.length is not None and len(said) > self.length:
            raise Unfit(self.name, value, f"the column takes {self.length} characters")
        # A column of SQLite without a type for text keeps a number a number.
        plain_number = not self.spells and self.kind is Kind.OTHER and isinstance(value, Decimal | int)
        return json_number(Decimal(value)) if plain_number else said


# --------------------------------------------------------------------------- reflection


def read_column(found: Mapping[str, Any], *, spells: bool) -> Column:
    """The column that SQLAlchemy's inspector has found."""
    import sqlalchemy as sa

    type_ = found["type"]
    type_ = getattr(type_, "data_type", type_)  # of a domain
    kind = _kind(type_, sa)
    if kind is Kind.NUMBER and not spells and getattr(type_, "asdecimal", False) and type_.precision is None:
        kind = Kind.OTHER  # what SQLite calls a type that it does not know
    whole = {sa.SmallInteger: 2**15 - 1, sa.BigInteger: 2**63 - 1, sa.Integer: 2**31 - 1}
    bound = next((most for of, most in whole.items() if isinstance(type_, of)), None)
    if kind is Kind.NUMBER and getattr(type_, "scale", None) == 0:
        kind = Kind.WHOLE
    exact, is_enum = kind is Kind.NUMBER and not isinstance(type_, sa.Float), isinstance(type_, sa.Enum)
    return Column(
        found["name"],
        kind,
        nullable=bool(found.get("nullable", True)),
        generated=bool(found.get("computed")) or bool((found.get("identity") or {}).get("always")),
        # SQLite keeps no value from being longer than it is declared.
        length=getattr(type_, "length", None) if spells and kind is Kind.TEXT and not is_enum else None,
        digits=getattr(type_, "precision", None) if spells and exact else None,
        scale=getattr(type_, "scale", None) if exact else None,
        most=bound if spells or bound is None else 2**63 - 1,
        choices=tuple(getattr(type_, "enums", ())),
        spells=spells,
        is_uuid=isinstance(type_, sa.Uuid),
    )


def _kind(type_: Any, sa: Any) -> Kind:
    if isinstance(type_, sa.DateTime):
        return Kind.MOMENT if type_.timezone else Kind.LOCAL
    kinds = {
        sa.Boolean: Kind.TRUTH,
        sa.Integer: Kind.WHOLE,
        sa.Numeric: Kind.NUMBER,
        sa.Float: Kind.NUMBER,
        sa.JSON: Kind.JSON,
        sa.Date: Kind.DAY,
        sa.String: Kind.TEXT,
    }
    return next((kind for of, kind in kinds.items() if isinstance(type_, of)), Kind.OTHER)
