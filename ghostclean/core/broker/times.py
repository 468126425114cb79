"""Aware UTC times, parsed from ISO-8601 and written with three decimals."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from .numbers import BadNumber, number

EASTERN = ZoneInfo("America/New_York")
_SECOND, _MILLISECOND = 1, 1000  # units of an epoch in a second
_FIRST = 1_000_000_000  # seconds: September 2001


def parse_time(value: object) -> datetime | None:
    """An aware UTC time from ISO-8601 text (nine fractional digits included) or an epoch, else None.

    A time without an offset is taken as UTC; a bare date is no time. An epoch, as a number or as
    its digits, is in seconds or in milliseconds: between the years 2001 and 2286 they can't be mixed up.
    """
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
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def eastern_date(moment: datetime) -> date:
    """The exchange's calendar day of a moment."""
    return moment.astimezone(EASTERN).date()


def eastern(day: date, at: time) -> datetime:
    """The UTC moment of a wall-clock time in New York, daylight saving included."""
    return datetime.combine(day, at, EASTERN).astimezone(UTC)
