"""Several accounts as one table: for a terminal, for pipes, for GitHub's step summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ghostclean.counts import counted
from ghostclean.lines import printable

Document = Mapping[str, Any]

_MOST_NAME = 24
_COLUMNS = ("account", "kind", "result", "what it came to")
_GOOD = ("ok", "healthy", "SUCCESS", "SKIP", "enqueued", "kept", "queued", "running")


def fleet_lines(document: Document, changes: Iterable[str], *, quiet: bool) -> Iterator[str]:
    """The changes and failures within the accounts, then the table; quiet, only the accounts that are not well."""
    from .terminal import is_terminal

    yield from changes
    rows = [row for row in document["accounts"] if not quiet or row["exitCode"] or row["result"] not in _GOOD]
    if rows and is_terminal() and not quiet:
        yield from _screen(rows)
    else:
        yield from _plain(rows)
    if not quiet:
        good = sum(row["result"] in _GOOD for row in document["accounts"])
        yield f"fleet {document['command']}: {good} of {counted(len(document['accounts']), 'account')} ok"


def _cells(row: Document) -> tuple[str, str, str, str]:
    kind = "LIVE" if row["account"] == "live" else row["account"]
    return printable(row["name"], _MOST_NAME), kind, row["result"], printable(row["detail"] or row["said"])


def _plain(rows: Sequence[Document]) -> Iterator[str]:
    cells = [_cells(row) for row in rows]
    widths = [max((len(line[n]) for line in cells), default=0) for n in range(3)]
    for line in cells:
        yield "  ".join((*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[3]))


def _screen(rows: Sequence[Document]) -> Iterator[str]:
    from rich.text import Text

    from .screen import STYLES, console_lines, listing

    shown = listing(*_COLUMNS)
    for row in rows:
        name, kind, word, what = _cells(row)
        style = "green" if word in _GOOD else STYLES.get(word, "bold red")
        shown.add_row(name, Text(kind, "bold magenta" if kind == "LIVE" else "dim"), Text(word, style), what)
    yield from console_lines(shown)
