"""What is worth waking somebody for: a change of state, never the same thing twice. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ghostclean.core.attention import describe, of
from ghostclean.core.health import Failing
from ghostclean.counts import counted
from ghostclean.errors import Cause
from ghostclean.lines import printable

OVERWRITTEN = "the app has overwritten closes"  # how a run's note of it begins
INTERRUPTED = "interrupted"  # by a person or a scheduler: no failure of a run
SAFETY = frozenset({"mass_close_stopped", "account_mismatch"})
# Why auto-manage fails about single trades.
ABOUT_TRADES = frozenset({
    "naked", "eod_missed", "eod_flatten_blocked", "flatten_unfinished", "close_waits", "close_unknown",
    "close_refused", "close_incomplete", "wrong_stop",
})  # fmt: skip
NOT_LOOKED = "market_closed"
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


def message(alerts: Sequence[Alert], origin: Origin, most: int) -> str:
    """The alerts as text of at most so many characters: what is too long loses its end, not whose it is."""
    shown, whose = "\n".join(f"ghostclean: {printable(alert.text, None)}" for alert in alerts), f"\n{origin.line()}"
    if len(shown) + len(whose) <= most:
        return shown + whose
    room = most - len(whose) - 1
    return f"{shown[:room]}…{whose}" if room > most // 2 else f"{shown[: max(0, most - 1)]}…"


def changes(before: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[list[Alert], dict[str, Any]]:
    """The alerts that a finished run calls for, and what the next run compares with.

    `document` is the run's JSON document. Raised are: the first ghost closed after a run without
    one, the breaker, the first failure and the recovery, items of attention that begin or end.
    """
    alerts: list[Alert] = []
    error = document["error"]
    health = health_change(before, document)
    if health is not None:
        alerts.append(health)
    alerts += attention_changes(document)
    closing = bool(before.get("closing"))
    overwritten = [note for note in document.get("notes", ()) if note.startswith(OVERWRITTEN)]
    alerts += [Alert("close_overwritten", note) for note in overwritten]
    if document["closed"] and not closing and not overwritten:
        alerts.append(Alert("ghosts_closed", f"{counted(document['closed'], 'ghost')} closed{_listed(document)}"))
    if error is None or document["closed"]:
        closing = bool(document["closed"])
    return alerts, {**_failure(before if error == INTERRUPTED else document), "closing": closing}


def attention_changes(document: Mapping[str, Any]) -> list[Alert]:
    """What begins to need a person, and what no longer does."""
    began = [describe(item) for item in document["attention"] if item["new"]]
    ended = [f"{of(item)}: {item['kind']}" for item in document["settled"]]
    return [*_few("needs_a_person", "needs a person: ", began), *_few("cleared", "settled: ", ended)]


def _few(event: str, start: str, texts: Sequence[str]) -> list[Alert]:
    alerts = [Alert(event, f"{start}{text}") for text in texts[:_SHOWN]]
    if len(texts) > _SHOWN:
        alerts.append(Alert(event, f"{start}{len(texts) - _SHOWN} more; `ghostclean status` lists them"))
    return alerts


def _failure(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is remembered of how a run failed."""
    return {name: document.get(name) for name in ("error", "cause", "failing")}


def health_change(before: Mapping[str, Any], document: Mapping[str, Any]) -> Alert | None:
    """The first failure, the breaker or the recovery.

    Further failures are the same trouble, unless a safety rule speaks, or it has become one that no later run ends.
    """
    error = document["error"]
    if error == INTERRUPTED or _kind(document) == _kind(before):
        return None
    if error is None:
        return Alert("recovered", f"runs succeed again (the last one failed with {before['error']}{_often(before)})")
    event = "breaker" if error == "mass_close_stopped" else "failed"
    return Alert(event, f"{error}: {document['detail']}")


def manage_changes(before: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[list[Alert], dict[str, Any]]:
    """As `changes`, of auto-manage: every reason to fail is told once until a run succeeds.

    What fails it about a trade is told as that trade's item of attention.
    """
    alerts = attention_changes(document)
    failing, reason = [str(told) for told in before.get("failing") or ()], document["error"]
    if reason == INTERRUPTED:
        return alerts, {}
    if reason is None:
        if not failing or document["reason"] == NOT_LOOKED:
            return alerts, {"failing": failing}
        text = f"auto-manage succeeds again (it failed with {', '.join(failing)}{_often(before, 'series')})"
        return [*alerts, Alert("manage_recovered", text)], {"failing": []}
    series = document.get("failing")
    if reason in failing or reason in ABOUT_TRADES:
        return alerts, {"failing": failing, "series": series}
    detail = str(document["detail"])
    why = detail if detail.startswith(f"{reason}:") else f"{reason}: {detail}"
    alerts.append(Alert("manage_failed", f"auto-manage failed: {why}"))
    return alerts, {"failing": [*failing, reason], "series": series}


def _often(before: Mapping[str, Any], name: str = "failing") -> str:
    """How often, and since when, runs had failed before."""
    known = before.get(name)
    return f", {Failing(**known)}" if known else ""


def _kind(document: Mapping[str, Any]) -> str | None:
    error: str | None = document.get("error")
    if error is None or error in SAFETY:
        return error
    cause = Cause.of(document.get("cause"))
    return "failed" if cause is None or cause.passes else str(cause)


def _listed(document: Mapping[str, Any]) -> str:
    closed = [
        f"{row['ticker']} {row['id']} ({row['verdict']})" for row in document["results"] if row["action"] == "closed"
    ]
    more = f" and {len(closed) - _SHOWN} more" if len(closed) > _SHOWN else ""
    return f": {', '.join(closed[:_SHOWN])}{more}" if closed else ""


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
    return "\n".join(printable(line, None) for line in lines)


def manage_report(document: Mapping[str, Any], origin: Origin) -> str:
    """An auto-manage run in a few lines: how it ended, and what needs a person."""
    lines = [f"auto-manage run {document['runId']} (source {document['source']}): {document['reason'] or 'ok'}"]
    lines.append(origin.line())
    return "\n".join([*lines, *(describe(item) for item in document["attention"][:_REPORTED])])


def interrupted(document: Mapping[str, Any]) -> bool:
    """Whether a person or a scheduler ended the run."""
    return bool(document["error"] == INTERRUPTED)
