"""Simulated time, and a deadline that runs calls inline instead of on threads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from ghostclean.app.deadline import Deadline
from ghostclean.errors import DeadlineExceeded

T = TypeVar("T")
START = datetime(2026, 11, 18, 15, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process was killed: nothing that it would still have done happens."""


class Hang(Exception):
    """The call never answers."""


class Clock:
    """One time for broker and servers; our own wall clock may be off by `skew` seconds."""

    def __init__(self) -> None:
        self.t = 0.0
        self.skew = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=round(self.t, 3))

    def wall(self) -> datetime:
        return START + timedelta(seconds=round(self.t + self.skew, 3))

    def advance(self, seconds: float) -> None:
        self.t += max(0.0, seconds)


class SimDeadline(Deadline):
    """The run's deadline in simulated time: a hanging call uses up all that it was given."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._last = clock.t + seconds
        self._reads_until = self._last - seconds * 0.25
        self.seconds = seconds

    def left(self) -> float:
        return max(0.0, self._last - self._clock.t)

    def left_for_reading(self) -> float:
        return max(0.0, self._reads_until - self._clock.t)

    def within(self, call: Callable[[], T], seconds: float) -> T:
        if seconds <= 0:
            raise DeadlineExceeded("no time left")
        end = self._clock.t + seconds
        try:
            answer = call()
        except Hang:
            self._clock.advance(end - self._clock.t)
            raise DeadlineExceeded(f"no answer within {seconds:.1f} s") from None
        if self._clock.t > end:  # it came too late, whatever it did
            raise DeadlineExceeded(f"no answer within {seconds:.1f} s")
        return answer
