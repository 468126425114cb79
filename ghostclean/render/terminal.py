"""What a terminal can show, and a word of patience on it when something takes long."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator

_PATIENCE = 0.3
_CLEAR = "\r\x1b[K"


def is_terminal() -> bool:
    """A terminal, or FORCE_COLOR is set, and not to 0."""
    return os.environ.get("FORCE_COLOR", "") not in ("", "0") or sys.stdout.isatty()


def is_plain() -> bool:
    """Whether colour was declined; bold text too: who asks for that wants bare text."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("FORCE_COLOR") == "0"


def folded(lines: Iterable[str], indent: str = "    ") -> Iterator[str]:
    """Lines wrapped to the terminal; elsewhere one line a fact."""
    if not sys.stdout.isatty():
        yield from lines
        return
    import textwrap

    width = shutil.get_terminal_size().columns
    for line in lines:
        own = line[: len(line) - len(line.lstrip(" "))]
        yield from textwrap.wrap(
            line, width, subsequent_indent=own + indent, break_long_words=False, break_on_hyphens=False
        ) or [""]


def is_dumb() -> bool:
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


@contextlib.contextmanager
def progress(what: str, silent: bool) -> Iterator[None]:
    """Shows `what…` after 300 ms and takes it away again."""
    if silent or not sys.stderr.isatty() or is_dumb():
        yield
        return
    over = threading.Event()

    def show() -> None:
        if not over.wait(_PATIENCE):
            sys.stderr.write(f"\r{what}…")
            sys.stderr.flush()
            over.wait()
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    helper = threading.Thread(target=show, daemon=True, name="ghostclean-progress")
    helper.start()
    try:
        yield
    finally:
        over.set()
        helper.join()
