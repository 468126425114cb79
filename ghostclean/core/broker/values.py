"""Decimal numbers and aware UTC times, read from whatever the ledger or the broker wrote, and their spelling."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from zoneinfo import ZoneInfo

ZERO = Decimal(0)
ONE = Decimal(1)
CENT = Decimal("0.01")
BASIS_POINT = Decimal("0.0001")
_MOST_DIGITS = 30


class BadNumber(ValueError):
    """A field holds something that is no finite number."""


def number(value: object) -> Decimal | None:
    """The exact Decimal of a JSON number or numeric string, None for null and blank; raises BadNumber."""
    if isinstance(value, str):
        value = value.strip() or None
    if value is None:
        return None
    result = value if isinstance(value, Decimal) else _decimal(value)
    if not result.is_finite():
        raise BadNumber(f"{value!s:.40} is no finite number")
    if -_MOST_DIGITS <= result.adjusted() <= _MOST_DIGITS or not result:
        return result
    raise BadNumber(f"{result:.6E} is no amount of anything")


def _decimal(value: object) -> Decimal:
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            raise BadNumber(f"{value[:40]!r} is no number") from None
    if isinstance(value, bool):
        raise BadNumber("a true/false where a number belongs")
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value))
    raise BadNumber(f"a {type(value).__name__} where a number belongs")


def _is_huge(value: Decimal) -> bool:
    return not -_MOST_DIGITS <= value.adjusted() <= _MOST_DIGITS and bool(value)


def money(value: Decimal) -> Decimal:
    return value.quantize(CENT, ROUND_HALF_UP)


def ratio4(value: Decimal) -> Decimal:
    """Rounded to four decimals, half up: the precision of R."""
    return value.quantize(BASIS_POINT, ROUND_HALF_UP)


def plain(value: Decimal) -> str:
    """The shortest spelling: no exponent, no trailing zeros (`187.4`, `0.00001`); absurd sizes keep theirs."""
    if not value:
        return "0"
    if _is_huge(value):
        return str(value)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def json_number(value: Decimal) -> int | float | str:
    """The JSON number outside for a Decimal inside; as text where no reader could hold it."""
    if _is_huge(value):
        return str(value)
    return int(value) if value == value.to_integral_value() else float(value)


# --------------------------------------------------------------------------- times

EASTERN = ZoneInfo("America/New_York")
_SECOND, _MILLISECOND = 1, 1000  # units of an epoch in a second
_FIRST = 1_000_000_000  # seconds: September 2001


def parse_time(value: object) -> datetime | None:
    """An aware UTC time from ISO-8601 text (naive is UTC) or an epoch in seconds or milliseconds, else None.

    A bare date is no time.
    """
    if value is None:
        return None
    if not isinstance(value, str) or len(value) < 16:
        return _epoch(value)
    try:
        parsed = datetime.fromisoformat(value.strip())
    except ValueError:
        return _epoch(value)
    if parsed.tzinfo is UTC:
        return parsed
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=UTC)
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        return None


def _epoch(value: object) -> datetime | None:
    try:
        given = number(value)
    except BadNumber:
        return None
    for unit in (_SECOND, _MILLISECOND):
        if given is not None and _FIRST * unit <= given < 10 * _FIRST * unit:
            return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(given * 1_000_000 / unit))
    return None


def iso(moment: datetime) -> str:
    """`2026-11-22T07:38:12.123Z`: UTC, milliseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def eastern_date(moment: datetime) -> date:
    return moment.astimezone(EASTERN).date()


def eastern(day: date, at: time) -> datetime:
    """The UTC moment of a wall-clock time in New York, daylight saving included."""
    return datetime.combine(day, at, EASTERN).astimezone(UTC)
