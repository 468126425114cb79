"""Aware UTC times, parsed from ISO-8601 and written with three decimals."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

EASTERN = ZoneInfo("America/New_York")


def parse_time(value: object) -> datetime | None:
    """An aware UTC time from ISO-8601 text (nine fractional digits included), else None.

    A time without an offset is taken as UTC; a bare date is no time.
    """
    if not isinstance(value, str) or len(value) < 16:
        return None
    try:
        parsed = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if parsed.tzinfo is UTC:
        return parsed
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=UTC)
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
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
