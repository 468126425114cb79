"""What is worth waking somebody for: a change of state, never the same thing twice. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ghostclean.core.verdicts import Verdict, needs_person

OVERWRITTEN = "the app has overwritten closes"  # how a run's note of it begins
_NO_NEWS = frozenset({Verdict.UNKNOWN, Verdict.SETTLING})  # not decided in this run: what was told before still stands
_SAFETY = frozenset({"mass_close_stopped", "account_mismatch"})
_NOT_LOOKED = "market_closed"
_SHOWN = 5
_REPORTED = 100


@dataclass(frozen=True, slots=True)
class Alert:
    """One change: a word for programs, a line for people."""

    event: str
    text: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run is at home: ledger, account and host.

    `account` is the number of the broker's dashboard, else the id, empty while no run has read it.
    """

    ledger: str
    account: str
    live: bool
    host: str

    def line(self) -> str:
        """For people."""
        account = f"{'live' if self.live else 'paper'} account {self.account}".strip()
        return f"ledger {self.ledger}, {account}, host {self.host}"


def changes(
    before: Mapping[str, Any], document: Mapping[str, Any], listed: Collection[str | None] = ()
) -> tuple[list[Alert], dict[str, Any]]:
    """The alerts that a finished run calls for, and the memory its next run compares with; `listed` are open ids.

    Raised: the first ghost after a run without one, the breaker, the first failure and the recovery, trades that
    begin to need a person, and, by a run that did not fail, those that cease to.
    """
    alerts: list[Alert] = []
    error = document["error"]
    health = health_change(before.get("error"), document)
    if health is not None:
        alerts.append(health)
    was = dict(before.get("held") or {})
    held = _held(was, document, listed)
    alerts += _people(was, held)
    closing = bool(before.get("closing"))
    overwritten = [note for note in document.get("notes", ()) if note.startswith(OVERWRITTEN)]
    alerts += [Alert("close_overwritten", note) for note in overwritten]
    if document["closed"] and not closing and not overwritten:
        alerts.append(Alert("ghosts_closed", f"{document['closed']} ghosts closed{_listed(document)}"))
    if error is None or document["closed"]:
        closing = bool(document["closed"])
    return alerts, {"error": error, "held": held, "closing": closing}


def health_change(was: str | None, document: Mapping[str, Any]) -> Alert | None:
    """The first failure, the breaker or the recovery; further failures are the same trouble, unless a safety rule
    speaks.
    """
    error = document["error"]
    if _kind(error) == _kind(was):
        return None
    if error is None:
        return Alert("recovered", f"runs succeed again (the last one failed with {was})")
    event = "breaker" if error == "mass_close_stopped" else "failed"
    return Alert(event, f"{error}: {document['detail']}")


def manage_changes(before: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[list[Alert], dict[str, Any]]:
    """As `changes`, of auto-manage: every reason to fail is told once until a run succeeds."""
    failing, reason = [str(told) for told in before.get("failing") or ()], document["error"]
    if reason is None:
        if not failing or document["reason"] == _NOT_LOOKED:
            return [], {"failing": failing}
        text = f"auto-manage succeeds again (it failed with {', '.join(failing)})"
        return [Alert("manage_recovered", text)], {"failing": []}
    if reason in failing:
        return [], {"failing": failing}
    detail = str(document["detail"])
    why = detail if detail.startswith(f"{reason}:") else f"{reason}: {detail}"
    return [Alert("manage_failed", f"auto-manage failed: {why}")], {"failing": [*failing, reason]}


def _kind(error: str | None) -> str | None:
    return error if error is None or error in _SAFETY else "failed"


def _held(before: Mapping[str, str], document: Mapping[str, Any], listed: Collection[str | None]) -> dict[str, str]:
    held = dict(before)
    rows = {_key(row): row for row in document["results"] if row["verdict"] != Verdict.ORPHAN}
    for key, row in rows.items():
        if needs_person(row):
            held[key] = f"{row['ticker'] or '?'} {row['verdict']}"
        elif row["verdict"] not in _NO_NEWS:
            held.pop(key, None)
    left = () if document["error"] is not None else held.keys() - rows.keys() - set(listed)
    for key in left:
        del held[key]
    return held


def _key(row: Mapping[str, Any]) -> str:
    return str(row["id"] or f"{row['ticker'] or '?'} without id")


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


def report(document: Mapping[str, Any], origin: Origin) -> str:
    """The run in a few lines, as the body of a heartbeat: how it ended, whose it was, the counters, what it did."""
    counters = ("checked", "closed", "synced", "backfilled", "held", "orphans", "failed")
    counts = ", ".join(f"{document[name]} {name}" for name in counters)
    lines = [f"run {document['runId']} (source {document['source']}): {document['error'] or 'ok'}", origin.line()]
    if document["detail"]:
        lines.append(str(document["detail"]))
    lines.append(f"{counts} in {document['durationMs']} ms")
    rows = [row for row in document["results"] if row["action"] not in ("kept", "skipped")]
    lines += [f"{r['action']} {r['ticker']} {r['id'] or '-'} {r['verdict']}: {r['reason']}" for r in rows[:_REPORTED]]
    if len(rows) > _REPORTED:
        lines.append(f"and {len(rows) - _REPORTED} more")
    return "\n".join(lines)
