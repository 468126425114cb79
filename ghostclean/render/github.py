"""What GitHub Actions shows: annotations and a bounded step summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    failed = document.get("error") or (document.get("ok") is False and (document.get("reason") or "failed"))
    outcome = f"**{cell(failed)}**" if failed else "closed" if document.get("allowed") is False else "ok"
    yield f"### {title}: {outcome}"
    yield ""
    if document.get("detail"):
        yield cell(document["detail"], 1000)
        yield ""
    said = document.get("why") if document.get("health") else document.get("reason") if "allowed" in document else None
    if said and not document.get("detail"):
        yield cell(f"{document['health']}: {said}" if document.get("health") else said, 1000)
        yield ""
    if "checked" in document and "closed" in document:
        yield totals(document)
        yield ""
    results = document.get("results") or (document.get("reconcile") or {}).get("results") or ()
    rows = [row for row in results if changes(row) or row["action"] == "held"]
    if rows:
        yield "| action | symbol | trade | verdict | reason |"
        yield "|---|---|---|---|---|"
        for row in rows[:_MOST_ROWS]:
            cells = (row["action"], row["ticker"], row["id"] or "-", row["verdict"], row["reason"])
            yield "| " + " | ".join(cell(value) for value in cells) + " |"
        if len(rows) > _MOST_ROWS:
            yield f"| … | | | | {len(rows) - _MOST_ROWS} more |"
        yield ""


def cell(value: object, most: int = _MOST_TEXT) -> str:
    """Text that cannot break out of a Markdown table cell."""
    text = printable(value, most)
    for mark in ("\\", "|", "<", "`", "[", "*", "_"):
        text = text.replace(mark, "&lt;" if mark == "<" else f"\\{mark}")
    return text
