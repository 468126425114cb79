"""What a run leaves in the state: telemetry, journal outcomes, and the memory of the next runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ghostclean.app import index
from ghostclean.app.journal import NOTED, WRITTEN
from ghostclean.app.outside import SECTION
from ghostclean.app.ports import JournalEntry, Lease, RunCommit, State
from ghostclean.app.report import report
from ghostclean.app.run import Run
from ghostclean.app.survey import Survey
from ghostclean.core import counting
from ghostclean.core.orphans import orphan_name
from ghostclean.core.times import iso
from ghostclean.core.verdicts import Action, Verdict
from ghostclean.errors import FencedOff
from ghostclean.result import Result

KIND = "reconcile"
_TOTALS = {"closed": "totalClosed", "synced": "totalSynced", "reduced": "totalSynced", "reopened": "totalSynced"}


def record(run: Run) -> RunCommit:
    """All of it, for one transaction; dry runs and runs without the lock are listed, not counted."""
    counted = not run.options.dry_run and run.error != "locked"
    told = report(run, with_rows=False)
    listed = _listed(run, told)
    if not counted:
        return RunCommit(KIND, _delivery(run), listed)
    add = {"runs": 1, "success": int(told.ok), "fail": int(not told.ok), "totalClosed": 0, "totalSynced": 0}
    if run.parts.eyes.failures:
        add["outsideFailed"] = len(run.parts.eyes.failures)
    put = {
        "lastRunAt": iso(run.started),
        "lastOk": "true" if told.ok else "false",
        "lastSource": told.source,
        "lastRunId": told.run_id,
        "lastClosed": str(told.closed),
        "lastSynced": str(told.synced),
        "lastChecked": str(told.checked),
    }
    entries = (*run.recovered, *run.journal.entries, *_verdict_changes(run))
    memory = dict(_memory(run))
    for name, values in run.restored.items():
        memory[name] = {**values, **memory.get(name, {})}
    if run.alerted is not None:
        memory[SECTION] = {"last": run.alerted}
    totals = {e.id: _TOTALS[e.action] for e in entries if e.outcome == WRITTEN and e.action in _TOTALS}
    return RunCommit(KIND, _delivery(run), listed, add, put, entries, memory, totals)


def _listed(run: Run, told: Result) -> dict[str, Any]:
    """The entry of the list of runs."""
    return {
        "ts": iso(run.started),
        "source": told.source,
        "runId": told.run_id,
        "checked": told.checked,
        "closed": told.closed,
        "synced": told.synced,
        "ok": told.ok,
        "backfilled": told.backfilled,
        "held": told.held,
        "orphans": told.orphans,
        "failed": told.failed,
        "partial": told.partial,
        "durationMs": told.duration_ms,
        "dryRun": told.dry_run,
        "error": told.error,
        "outsideFailed": len(run.parts.eyes.failures),
    }


def _delivery(run: Run) -> str:
    """The name of this run's record: a run id may be used again, its record may not be taken for a copy."""
    return f"{run.options.run_id}@{iso(run.started)}"


def late_record(commit: RunCommit) -> RunCommit:
    """The record that comes late: by the time it arrives, newer runs may know better than its memory.

    What its own writes imply is true for good; all else is left out, as of any failed run.
    """
    kept = {name: values for name, values in commit.memory.items() if name in ("exits", "unproven", "ledger")}
    return replace(commit, memory=kept)


def deliver(state: State, commit: RunCommit, lease: Lease | None) -> None:
    """Commits a run's record; one that another run has overtaken meanwhile comes as a late one."""
    try:
        state.commit(commit, lease)
    except FencedOff:
        state.commit(late_record(commit))


def _memory(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """What the next runs should know; of a run without a plan only that it has seen the ledger."""
    survey = run.survey
    seen: Mapping[str, Any] = {"seen": True} if run.ledger_seen else {}
    if survey is None:
        return {index.SECTION: seen} if seen else {}
    memory, now, run_id = survey.memory, survey.truth.at, run.options.run_id
    written = run.written
    orphan_names = [orphan_name(o) for o in run.plan.orphans]
    gone = {d.trade_id for d in written if d.action is Action.CLOSED}
    owners = {i: ids for i, ids in run.plan.own_orders.items() if i not in gone}
    sections: dict[str, Mapping[str, Any]] = {
        "misses": {} if run.error is not None else counting.misses(run.plan, memory, now),
        "first_seen": counting.first_seen(survey.world().trades, orphan_names, memory, now),
        "exits": counting.exits(written, memory),
        "orders": counting.final_orders(owners, survey.evidence, run.remembered),
        "unproven": counting.unproven(written, memory, run_id, now),
        "verdicts": _verdict_memory(run),
    }
    for decision in run.orphan_rows:
        if decision.verdict is Verdict.REOPENED and decision in written:
            sections["unproven"] = {**sections["unproven"], decision.trade_id or "": None}
    if len(survey.world().trades) > run.options.policy.max_trades:
        sections["last_worked"] = {d.trade_id: iso(now) for d in run.plan.decisions if d.trade_id}
    if run.may_pin and run.pin is not None:
        sections["pin"] = {"account": {"id": run.pin.account, "live": run.pin.live, "at": iso(now)}}
    if seen:
        sections[index.SECTION] = {**seen, **_index_memory(run, survey)}
    return {name: values for name, values in sections.items() if values}


def _index_memory(run: Run, survey: Survey) -> Mapping[str, Any]:
    """How far the app's index may be trusted; an orphan that it shows for the first time is a doubt."""
    acts = run.options.policy.orphans != "report"
    doubted = any(acts or orphan_name(o) not in survey.memory.first_seen for o in run.plan.orphans)
    return index.remembered(survey.view, run.scanned, run.started, doubted=doubted)


def _verdict_changes(run: Run) -> list[JournalEntry]:
    """A journal entry for every trade whose verdict is another than in the run before."""
    if run.survey is None or run.options.dry_run or run.lease is None:
        return []
    changed = {d.trade_id for d in run.written}
    entries = []
    for decision in run.plan.decisions:
        known = run.verdicts.get(decision.trade_id or "")
        if decision.trade_id is None or decision.trade_id in changed:
            continue
        if known is None and decision.action is Action.KEPT:
            continue
        if known is None or known.get("verdict") != str(decision.verdict):
            noted = replace(
                decision, fields={}, remove=(), action=Action.KEPT if decision.action.writes else decision.action
            )
            entries.append(replace(run.journal.decided(noted), outcome=NOTED))
    return entries


def _verdict_memory(run: Run) -> dict[str, Any]:
    now = iso(run.started)
    present = {d.trade_id: d for d in run.plan.decisions if d.trade_id}
    changes: dict[str, Any] = {
        i: {"verdict": str(d.verdict), "reason": d.reason, "since": now, "runId": run.options.run_id}
        for i, d in present.items()
        if run.verdicts.get(i, {}).get("verdict") != str(d.verdict)
    }
    closed = {d.trade_id for d in run.written if d.action is Action.CLOSED}
    listed = run.plan.own_orders.keys()
    gone = {i: None for i in run.verdicts if i not in listed}
    return {**changes, **gone, **dict.fromkeys(i for i in closed if i)}
