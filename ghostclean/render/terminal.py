"""Whether a stream is a terminal that can show colour and be redrawn."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether somebody looks at it: a terminal, or FORCE_COLOR says to treat it as one."""
    return bool(os.environ.get("FORCE_COLOR")) or (stream or sys.stdout).isatty()


def folded(lines: Iterable[str], indent: str = "    ") -> Iterator[str]:
    """Lines as wide as the terminal, broken between words; elsewhere as they are, one line a fact."""
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
    """Whether the terminal cannot move its cursor."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")
