"""What a terminal can show, and a word of patience on it when something takes long."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

_PATIENCE = 0.3
_START, _END_OF_LINE = "\r", "\x1b[K"
_COMMAND = "ghostclean "


def is_terminal() -> bool:
    """A terminal, or FORCE_COLOR is set, and not to 0."""
    return os.environ.get("FORCE_COLOR", "") not in ("", "0") or sys.stdout.isatty()


def is_plain() -> bool:
    """Whether colour was declined; bold text too: who asks for that wants bare text."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("FORCE_COLOR") == "0"


def folded(lines: Iterable[str], indent: str = "    ", stream: TextIO | None = None) -> Iterator[str]:
    """Lines wrapped to a terminal, commands left whole for pasting; elsewhere one line a fact."""
    if not (stream or sys.stdout).isatty():
        yield from lines
        return
    width = shutil.get_terminal_size().columns
    for line in lines:
        yield from _wrapped(line, width, indent)


def _wrapped(line: str, width: int, indent: str) -> Iterator[str]:
    import textwrap

    text, arrow, command = line.partition(f" -> {_COMMAND}")
    own = text[: len(text) - len(text.lstrip(" "))] + indent
    if len(line) <= width or text.lstrip().startswith(_COMMAND):
        yield line
        return
    yield from textwrap.wrap(text, width, subsequent_indent=own, break_long_words=False, break_on_hyphens=False)
    if arrow:
        yield f"{own}{_COMMAND}{command}"


def is_dumb() -> bool:
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


@contextlib.contextmanager
def progress(what: str, silent: bool, limit: float | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Shows on a terminal what takes longer than 300 ms, and takes it away again.

    What it gives is told how far the work is: `("looking up", 162, 500)`. `limit` is how many seconds there are.
    """
    far = [what]

    def told(doing: str, done: int, of: int) -> None:
        far[0] = f"{doing} {done} of {of}"

    if silent or not sys.stderr.isatty() or is_dumb():
        yield told
        return
    began, over = time.monotonic(), threading.Event()

    def show() -> None:
        shown = False
        while not over.wait(_PATIENCE):
            _draw(_patience(far[0], time.monotonic() - began, limit))
            shown = True
        if shown:
            _draw("")

    helper = threading.Thread(target=show, daemon=True, name="ghostclean-progress")
    helper.start()
    try:
        yield told
    finally:
        over.set()
        helper.join()


def _patience(what: str, passed: float, limit: float | None) -> str:
    """`looking up 162 of 500 · 23 s of 60 s`, cut to one line of the terminal."""
    time_left = f"{passed:.0f} s" + (f" of {limit:g} s" if limit is not None else "")
    return f"{what} · {time_left}"[: shutil.get_terminal_size().columns - 1]


def _draw(line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that has gone away is no failure
        sys.stderr.write(f"{_START}{line}{_END_OF_LINE}")
        sys.stderr.flush()
