"""What GitHub Actions shows: annotations and a bounded step summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ghostclean.lines import printable
from ghostclean.render.text import changes, totals

_MOST_ROWS = 20
_MOST_TEXT = 160


def annotation(level: str, text: str) -> str:
    """One workflow command: `error`, `warning` or `notice`, with its data escaped."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level}::{escaped}"


def summary(title: str, document: Mapping[str, Any]) -> Iterator[str]:
    """A short Markdown block: the outcome, the counters, at most twenty rows."""
    yield f"### {title}: {_outcome(document)}"
    yield ""
    said = document.get("detail") or _answer(document)
    if said:
        yield cell(said, 1000)
        yield ""
    if "checked" in document and "closed" in document:
        yield totals(document)
        yield ""
    rows = [row for row in _results(document) if changes(row) or row["action"] == "held"]
    if rows:
        yield from _table(("action", "symbol", "trade", "verdict", "reason"), map(_result, rows), len(rows))
        yield ""
    if accounts := document.get("accounts"):
        yield from _table(("account", "kind", "result", "what it came to"), map(_account, accounts), len(accounts))
        yield ""


def _outcome(document: Mapping[str, Any]) -> str:
    failed = document.get("error") or (document.get("ok") is False and (document.get("reason") or "failed"))
    if failed:
        return f"**{cell(failed)}**"
    return "closed" if document.get("allowed") is False else "ok"


def _answer(document: Mapping[str, Any]) -> object:
    if document.get("health"):
        return f"{document['health']}: {document['why']}" if document.get("why") else None
    return document.get("reason") if "allowed" in document else None


def _results(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return document.get("results") or (document.get("reconcile") or {}).get("results") or ()


def _result(row: Mapping[str, Any]) -> tuple[object, ...]:
    return row["action"], row["ticker"], row["id"] or "-", row["verdict"], row["reason"]


def _account(row: Mapping[str, Any]) -> tuple[object, ...]:
    return row["name"], row["account"], row["result"], row["said"]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], count: int) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for cells in islice(rows, _MOST_ROWS):
        yield "| " + " | ".join(cell(value) for value in cells) + " |"
    if count > _MOST_ROWS:
        yield "| … " + "| " * (len(columns) - 2) + f"| {count - _MOST_ROWS} more |"


def cell(value: object, most: int = _MOST_TEXT) -> str:
    """Text that cannot break out of a Markdown table cell."""
    text = printable(value, most)
    for mark in ("\\", "|", "<", "`", "[", "*", "_"):
        text = text.replace(mark, "&lt;" if mark == "<" else f"\\{mark}")
    return text
