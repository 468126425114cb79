"""What is worth waking somebody for: a change of state, never the same thing twice. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ASK_A_PERSON = frozenset({"mismatch", "ambiguous", "filled_but_gone", "unreadable"})
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Alert:
    """One change: a word for programs, a line for people."""

    event: str
    text: str


def changes(before: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[list[Alert], dict[str, Any]]:
    """The alerts that a finished run calls for, and what the next run compares with.

    `document` is the run's JSON document. Raised are: the first ghost closed after a run without
    one, the breaker, the first failure and the recovery, trades that begin or cease to need a
    person. A failed run says nothing about the trades, so theirs stay as they were.
    """
    alerts: list[Alert] = []
    error, was = document["error"], before.get("error")
    held: dict[str, str] = dict(before.get("held") or {})
    closing = bool(before.get("closing"))
    if error != was:
        alerts.append(_health(error, was, document))
    if error in (None, "deadline_exceeded", "mass_close_stopped"):
        now = {
            str(row["id"]): f"{row['ticker']} {row['verdict']}"
            for row in document["results"]
            if row["id"] is not None and row["verdict"] in ASK_A_PERSON and row["action"] == "held"
        }
        alerts += _people(held, now)
        held = now
        if document["closed"] and not closing:
            alerts.append(Alert("ghosts_closed", f"{document['closed']} ghosts closed{_listed(document)}"))
        closing = bool(document["closed"])
    return alerts, {"error": error, "held": held, "closing": closing}


def _health(error: str | None, was: str | None, document: Mapping[str, Any]) -> Alert:
    if error is None:
        return Alert("recovered", f"runs succeed again (the last one failed with {was})")
    event = "breaker" if error == "mass_close_stopped" else "failed"
    return Alert(event, f"{error}: {document['detail']}")


def _people(before: Mapping[str, str], now: Mapping[str, str]) -> list[Alert]:
    appeared = [now[i] for i in sorted(now) if before.get(i) != now[i]]
    cleared = [before[i] for i in sorted(before) if i not in now]
    alerts = []
    if appeared:
        alerts.append(Alert("needs_a_person", f"needs a person: {_few(appeared)}"))
    if cleared:
        alerts.append(Alert("cleared", f"settled: {_few(cleared)}"))
    return alerts


def _listed(document: Mapping[str, Any]) -> str:
    closed = [f"{row['ticker']} ({row['verdict']})" for row in document["results"] if row["action"] == "closed"]
    return f": {_few(closed)}" if closed else ""


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
