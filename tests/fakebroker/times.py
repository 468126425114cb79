"""Simulated time: the clock, the trading sessions and the API's time format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

ET = ZoneInfo("America/New_York")
REGULAR_OPEN, REGULAR_CLOSE, HALF_DAY_CLOSE = time(9, 30), time(16), time(13)
EXTENDED_OPEN, EXTENDED_CLOSE, HALF_DAY_EXTENDED_CLOSE = time(4), time(20), time(17)


def _days(year: int, *month_days: str) -> set[date]:
    return {date.fromisoformat(f"{year}-{month_day}") for month_day in month_days}


HOLIDAYS = (
    _days(2025, "01-01", "01-09", "01-20", "02-17", "04-18", "05-26", "06-19", "07-04", "09-01", "11-27", "12-25")
    | _days(2026, "01-01", "01-19", "02-16", "04-03", "05-25", "06-19", "07-03", "09-07", "11-26", "12-25")
    | _days(2027, "01-01", "01-18", "02-15", "03-26", "05-31", "06-18", "07-05", "09-06", "11-25", "12-24")
)
HALF_DAYS = _days(2025, "07-03", "11-28", "12-24") | _days(2026, "11-27", "12-24") | _days(2027, "11-26")


def stamp(moment: datetime, nanos: int = 0, zone: ZoneInfo | None = None) -> str:
    """Write a moment as the API does: up to nine fractional digits, trailing zeros cut."""
    local = moment.astimezone(zone or UTC)
    fraction = f".{local.microsecond:06d}{nanos:03d}".rstrip("0").rstrip(".")
    offset = "Z" if zone is None else local.isoformat()[-6:]
    return f"{local:%Y-%m-%dT%H:%M:%S}{fraction}{offset}"


@lru_cache(maxsize=65536)
def nanoseconds(text: str) -> int:
    """Read an RFC 3339 time or a plain date (midnight UTC) as nanoseconds since 1970; ValueError if it is neither."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000
    _, dot, tail = text.partition(".")
    digits = tail.rstrip("Zz").split("+")[0].split("-")[0]
    return whole + (int(digits[:9].ljust(9, "0")) if dot else 0)


def aware(moment: datetime | str) -> datetime:
    """Accept a datetime or an ISO string; naive means UTC."""
    parsed = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


class Clock:
    """The broker's clock: real time until it is set, then frozen until it is moved."""

    def __init__(self, now: datetime | str | None = None) -> None:
        self._frozen = aware(now) if now is not None else None
        self._offset = timedelta()
        self._held: datetime | None = None

    @property
    def now(self) -> datetime:
        return self._held or self._frozen or datetime.now(UTC) + self._offset

    def set(self, now: datetime | str) -> None:
        self._frozen = aware(now)

    def advance(self, step: timedelta) -> None:
        if self._frozen is None:
            self._offset += step
        else:
            self._frozen += step

    @contextmanager
    def at(self, moment: datetime) -> Iterator[None]:
        """Let things happen at a moment that has just been passed."""
        before, self._held = self._held, moment
        try:
            yield
        finally:
            self._held = before


@dataclass
class Sessions:
    """The trading calendar; `holidays` and `half_days` may be changed at will, `forced` overrides is_open."""

    holidays: set[date] = field(default_factory=lambda: set(HOLIDAYS))
    half_days: set[date] = field(default_factory=lambda: set(HALF_DAYS))
    forced: bool | None = None

    def is_session(self, day: date) -> bool:
        return day.weekday() < 5 and day not in self.holidays

    def hours(self, day: date) -> tuple[datetime, datetime]:
        """Return open and close of a session day."""
        close = HALF_DAY_CLOSE if day in self.half_days else REGULAR_CLOSE
        return datetime.combine(day, REGULAR_OPEN, ET), datetime.combine(day, close, ET)

    def between(self, start: date, end: date) -> Iterator[date]:
        """Yield the session days from start to end, both included."""
        for offset in range((end - start).days + 1):
            day = start + timedelta(days=offset)
            if self.is_session(day):
                yield day

    def is_open(self, now: datetime) -> bool:
        if self.forced is not None:
            return self.forced
        day = now.astimezone(ET).date()
        return self.is_session(day) and self.hours(day)[0] <= now < self.hours(day)[1]

    def is_extended(self, now: datetime) -> bool:
        """Say whether pre-market, core or after-hours trading is on."""
        local = now.astimezone(ET)
        end = HALF_DAY_EXTENDED_CLOSE if local.date() in self.half_days else EXTENDED_CLOSE
        return self.is_session(local.date()) and EXTENDED_OPEN <= local.time() < end

    def next_open(self, now: datetime) -> datetime:
        return next(moment for moment in self._hours_from(now, 0) if moment > now)

    def next_close(self, now: datetime) -> datetime:
        return next(moment for moment in self._hours_from(now, 1) if moment > now)

    def settlement(self, day: date) -> date:
        return next(self.between(day + timedelta(days=1), day + timedelta(days=12)))

    def boundaries(self, after: datetime, until: datetime) -> list[datetime]:
        """Return every open, close and sweep of aged GTC orders (close + 15 min) in (after, until]."""
        days = self.between(after.astimezone(ET).date(), until.astimezone(ET).date())
        moments = (moment for day in days for moment in (*self.hours(day), self.hours(day)[1] + timedelta(minutes=15)))
        return [moment for moment in moments if after < moment <= until]

    def _hours_from(self, now: datetime, which: int) -> Iterator[datetime]:
        today = now.astimezone(ET).date()
        return (self.hours(day)[which] for day in self.between(today, today + timedelta(days=30)))
