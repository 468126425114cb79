"""The process around a command: signals end it in order, and a broken stdout or stderr loses output, no more."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

_STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ECHO = 1.0  # seconds; a person who insists takes longer


class Sink(io.FileIO):
    """The descriptor of a standard stream; after its first failure, `lost`, the rest goes nowhere."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        while self.lost is None:
            try:
                written: int | None = super().write(data)
                if written is not None:
                    return written
                self._wait()
            except OSError as error:
                self.lost = error
        return len(data)

    def _wait(self) -> None:
        import select

        select.select([], [self], [])


def secure_streams() -> None:
    """Opens what was closed on the null device, and makes writing to stdout and stderr safe."""
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number is this one: those below are open by now
            setattr(sys, name, None)
        stream = getattr(sys, name)
        if number and stream is getattr(sys, f"__{name}__", None):
            setattr(sys, name, _safe(number, stream))


def _safe(number: int, stream: io.TextIOWrapper | None) -> io.TextIOWrapper:
    raw = Sink(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
    )


def _failure() -> OSError | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, Sink) else None


def lost_output() -> str | None:
    """Why stdout could not be written; a reader that went away is no reason."""
    failure = _failure()
    return failure.strerror if failure is not None and failure.errno != errno.EPIPE else None


def reader_gone() -> bool:
    """Whether stdout goes nowhere, from the start or since its reader went away."""
    if _failure() is not None:
        return True
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.stat(os.devnull))  # noqa: PTH116 - pathlib is slow to load
    except (OSError, ValueError):
        return False


# --------------------------------------------------------------------------- signals


class Terminated(KeyboardInterrupt):
    """A signal to end: in order, so that the lock is given back."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def catch_signals() -> Mapping[signal.Signals, Any]:
    """Lets SIGINT, SIGTERM and SIGHUP end the process in order, unless ignored (nohup); returns the old handlers."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    _on_signals(_terminate)
    return before


def restore_signals(before: Mapping[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def hold_signals() -> None:
    """Makes a signal wait until the outcome has been printed; a second one ends the process."""
    _on_signals(_ignore_once)


def _on_signals(handler: Callable[[int, Any], None]) -> None:
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _terminate(number: int, frame: object) -> None:
    _ignore_once(number, frame)
    raise Terminated(number)


def _ignore_once(number: int, frame: object) -> None:
    """A second one ends the process at once, but not its echo: `timeout` signals a process and then its group."""
    del number, frame
    first = time.monotonic()

    def again(number: int, frame: object) -> None:
        del frame
        if time.monotonic() - first > _ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    _on_signals(again)


def stopped_code(stop: BaseException | None) -> int:
    """The exit code of an interruption, which may have been given another form on its way."""
    while stop is not None and not isinstance(stop, Terminated):
        stop = stop.__cause__
    return stop.exit_code if stop is not None else 130
