"""What GitHub Actions shows: annotations and a bounded step summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ghostclean.render.text import changes, printable, totals

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
        yield from _table(rows)
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


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| action | symbol | trade | verdict | reason |"
    yield "|---|---|---|---|---|"
    for row in rows[:_MOST_ROWS]:
        cells = (row["action"], row["ticker"], row["id"] or "-", row["verdict"], row["reason"])
        yield "| " + " | ".join(cell(value) for value in cells) + " |"
    if len(rows) > _MOST_ROWS:
        yield f"| … | | | | {len(rows) - _MOST_ROWS} more |"


def cell(value: object, most: int = _MOST_TEXT) -> str:
    """Text that cannot break out of a Markdown table cell."""
    text = printable(value, most)
    for mark in ("\\", "|", "<", "`", "[", "*", "_"):
        text = text.replace(mark, "&lt;" if mark == "<" else f"\\{mark}")
    return text
