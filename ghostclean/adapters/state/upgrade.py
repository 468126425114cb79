"""Upgrades the telemetry of a state that kept it for all ledgers together: the part of one ledger.

A run is a ledger's own when that ledger has delivered it. Where no run of another one is listed,
all that stands there is taken over; else what its own runs say, as far back as the list goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .form import run_from

Run = Mapping[str, Any]

_COUNTS = frozenset(("runs", "success", "fail", "skipped", "totalClosed", "totalSynced", "outsideFailed"))
_MANAGED = {"SUCCESS": "success", "SKIP": "skipped", "FAIL": "fail"}


@dataclass(frozen=True, slots=True)
class Shared:
    """What stood there for all ledgers of a state: summary, the listed runs, and which of them this one delivered."""

    summary: Mapping[str, str]
    runs: Sequence[str]
    delivered: Collection[str]


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a ledger goes on from: its summary, and its runs, newest first."""

    summary: Mapping[str, str]
    runs: Sequence[str]


def upgraded(kind: str, shared: Shared) -> Inherited:
    """The part of it that is this ledger's; nothing where all of it is of others."""
    listed = [(text, run_from(text)) for text in shared.runs]
    if any(_is_of_another(run, shared.delivered) for _, run in listed):
        listed = [(text, run) for text, run in listed if _is_own(run, shared.delivered)]
        summary = _counted(kind, [run for _, run in listed])
    else:
        summary = {name: value for name, value in shared.summary.items() if not _is_no_count(name, value)}
    if kind == "reconcile":
        summary |= _ended(summary, [run for _, run in listed])
    return Inherited(summary, [text for text, _ in listed])


def _is_own(run: Run, delivered: Collection[str]) -> bool:
    return f"{run.get('runId')}@{run.get('ts')}" in delivered or str(run.get("runId")) in delivered


def _is_of_another(run: Run, delivered: Collection[str]) -> bool:
    """Whether another ledger's; the app, which listed runs before us, knew nothing of dry ones."""
    return ("dryRun" in run or "ledger" in run) and not _is_own(run, delivered)


def _is_no_count(name: str, value: str) -> bool:
    return (name in _COUNTS or name.startswith("reason:")) and not value.removeprefix("-").isdecimal()


def _is_counted(run: Run) -> bool:
    return not run.get("dryRun") and "locked" not in (run.get("error"), run.get("reason"))


def _counted(kind: str, runs: Sequence[Run]) -> dict[str, str]:
    counted = [run for run in runs if _is_counted(run)]
    if not counted:
        return {}
    last, totals = counted[0], Counter(runs=len(counted))
    if kind == "reconcile":
        ended = {"lastOk": "true" if last.get("ok") else "false", "lastClosed": last.get("closed", 0)}
        ended |= {"lastSynced": last.get("synced", 0), "lastChecked": last.get("checked", 0)}
        for run in counted:
            totals.update(success=bool(run.get("ok")), fail=not run.get("ok"))
            totals.update(totalClosed=run.get("closed") or 0, totalSynced=run.get("synced") or 0)
    else:
        ended = {"lastOutcome": last.get("outcome"), "lastReason": last.get("reason") or ""}
        for run in counted:
            totals[_MANAGED.get(str(run.get("outcome")), "fail")] += 1
            if run.get("reason"):
                totals[f"reason:{run['reason']}"] += 1
    ended |= {"lastRunAt": last.get("ts"), "lastSource": last.get("source"), "lastRunId": last.get("runId")}
    return {name: str(value) for name, value in {**totals, **ended}.items()}


def _ended(summary: Mapping[str, str], runs: Sequence[Run]) -> dict[str, str]:
    """When a run last succeeded and why the last one failed, which the summary did not say."""
    counted = [run for run in runs if _is_counted(run)]
    good = summary.get("lastOk") == "true"
    successes = [summary.get("lastRunAt")] if good else [run.get("ts") for run in counted if run.get("ok")]
    found = {"lastSuccessAt": str(successes[0])} if successes and successes[0] else {}
    failures = [] if good else [run.get("error") for run in counted if not run.get("ok")]
    return {**found, "lastError": str(failures[0])} if failures and failures[0] else found
