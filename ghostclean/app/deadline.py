"""A hard deadline in wall time: a call that may block runs on a daemon thread, abandoned when its time is up.

This is the only hard bound; adapters read `call_left` to choose their time-outs.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from ghostclean.errors import DeadlineExceeded

T = TypeVar("T")
Port = TypeVar("Port")
Runner = Callable[[Callable[[], Any]], Any]  # runs a call and gives its result, or raises DeadlineExceeded

_SHARE_KEPT_FOR_WRITING = 0.25
_LAST_MOMENT = 0.5  # seconds in which a call that Ctrl-C overtakes may still come back
_FOR_THE_END = 0.5  # seconds that the run's own record needs
_SAME_MOMENT = 0.01

_around = threading.local()


def process_age() -> float:
    """Seconds since this process started, interpreter start included; 0.0 where unknown."""
    try:
        stat = Path("/proc/self/stat").read_text()
        started = int(stat.rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


class Deadline:
    """The moment by which a run must be over; one that `writes` keeps a share of it from its reads."""

    def __init__(self, seconds: float, *, already_used: float = 0.0, writes: bool = True) -> None:
        self._end = time.monotonic() + max(0.0, seconds - already_used)
        kept = seconds * _SHARE_KEPT_FOR_WRITING
        self._read_end = self._end - (kept if writes else min(kept, _FOR_THE_END))
        self.seconds = seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def left_for_reading(self) -> float:
        """Seconds that reads and look-ups may still take; the rest is kept for what follows them."""
        return max(0.0, self._read_end - time.monotonic())

    def reading(self, call: Callable[[], T]) -> T:
        """Runs a read, raising DeadlineExceeded when the reading share is used up."""
        return self.within(call, self.left_for_reading())

    def writing(self, call: Callable[[], T], *, reserve: float = 0.0) -> T:
        """Runs a write within what is left, less a reserve for what must still follow."""
        return self.within(call, self.left() - reserve)

    def acting(self, call: Callable[[], T]) -> T:
        """Runs a read or a write of the second half, with time kept for the run's own record."""
        return self.writing(call, reserve=_FOR_THE_END)

    def within(self, call: Callable[[], T], seconds: float) -> T:
        """Runs a call that gets so many seconds and no more; simulations run it inline."""
        return bounded(call, seconds)


def call_left() -> float:
    """Seconds that the bounded call around us may still take; infinite outside of one."""
    return max(0.0, _end_around() - time.monotonic())


def _end_around() -> float:
    end: float = getattr(_around, "end", math.inf)
    return end


def bounded(call: Callable[[], T], seconds: float) -> T:
    """The result of `call`, or DeadlineExceeded after `seconds`; the call is then abandoned.

    After Ctrl-C it gets a moment more: a write on its way is better known than in doubt.
    """
    if seconds <= 0:
        raise DeadlineExceeded("no time left")
    end = time.monotonic() + seconds
    if end >= _end_around() - _SAME_MOMENT:
        return call()
    outcome: list[T] = []
    failure: list[BaseException] = []
    over = threading.Event()  # not `join`: after Ctrl-C it takes a running thread for a finished one

    def run() -> None:
        _around.end = end
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - carried over to the caller, whatever it is
            failure.append(error)
        finally:
            over.set()

    around = contextvars.copy_context()  # whose run it is, for the log
    worker = threading.Thread(target=around.run, args=(run,), daemon=True, name="ghostclean-call")
    try:
        worker.start()
        in_time = over.wait(seconds)
    except KeyboardInterrupt:
        over.wait(min(seconds, _LAST_MOMENT))
        raise
    if not in_time:
        raise DeadlineExceeded(f"no answer within {seconds:.1f} s")
    if failure:
        raise failure[0]
    return outcome[0]


def bound(port: Port, run: Runner) -> Port:
    """A port whose every call goes through `run`, such as `deadline.reading`."""
    return cast(Port, _Bound(port, run))


class _Bound:
    _asks_nothing = ("now", "requests_left")  # of a broker: no request

    def __init__(self, port: object, run: Runner) -> None:
        self._port = port
        self._run = run

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if not callable(value) or name in self._asks_nothing:
            return value
        return lambda *args, **options: self._run(lambda: value(*args, **options))


@contextlib.contextmanager
def explained(doing: str, meaning: str) -> Iterator[None]:
    """Gives a DeadlineExceeded inside the operation that failed and its meaning for the ledger."""
    try:
        yield
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            f"{doing} failed: {error}; {meaning}. Cure: see `ghostclean doctor`, or raise --deadline."
        ) from None
