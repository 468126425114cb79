"""What a reconcile run leaves: its Result, its telemetry, the memory of the next runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ghostclean.app import index
from ghostclean.app.journal import NOTED, WRITTEN
from ghostclean.app.observation import Observation
from ghostclean.app.outside import SECTION
from ghostclean.app.ports import JournalEntry, RunCommit
from ghostclean.app.run import ReconcileRun
from ghostclean.core import counting
from ghostclean.core.broker import BrokerTruth
from ghostclean.core.jsonvalue import json_value
from ghostclean.core.orphans import orphan_name
from ghostclean.core.times import iso
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.result import Result

KIND = "reconcile"
_TOTALS = {"closed": "totalClosed", "synced": "totalSynced", "reduced": "totalSynced", "reopened": "totalSynced"}


# --------------------------------------------------------------------------- the result


def report(run: ReconcileRun) -> Result:
    """The Result; its rows and counters are made once, when the work is over."""
    if run.result is None:
        run.result = _counted(run)
    return replace(
        run.result,
        duration_ms=run.duration_ms(),
        partial=run.partial,
        notes=tuple(run.notes),
        error=run.error,
        detail=run.detail,
    )


def _counted(run: ReconcileRun) -> Result:
    dry = run.dry_run
    done = {id(d) for d in run.written}
    rows = [*run.plan.decisions, *run.orphan_rows]
    made = Counter(d.action for d in rows if dry or id(d) in done)
    not_written = [d for d in rows if d.action.writes and id(d) not in done] if run.observation and not dry else []
    return Result(
        run_id=run.run_id,
        source=run.source,
        started_at=iso(run.started),
        duration_ms=0,
        dry_run=dry,
        checked=len(run.plan.decisions),
        closed=made[Action.CLOSED],
        synced=made[Action.SYNCED] + made[Action.REDUCED] + made[Action.REOPENED],
        backfilled=made[Action.ADOPTED],
        held=sum(1 for d in rows if d.action is Action.HELD),
        orphans=len(run.plan.orphans),
        failed=sum(1 for d in not_written if d.action is not Action.FLATTENED),
        broker=_broker(run.truth),
        results=tuple(_row(d, written=id(d) in done, dry=dry) for d in rows),
        changed=bool(run.written),
    )


def _row(decision: Decision, *, written: bool, dry: bool) -> dict[str, Any]:
    action = str(decision.action)
    if decision.action.writes:
        done = written or decision.action is Action.FLATTENED
        action = decision.action.would() if dry else (action if done else str(Action.SKIPPED))
    shows = decision.action.writes and (dry or written)
    adopted = decision.verdict is Verdict.ORPHAN
    return {
        "id": None if adopted and not (written and decision.trade_id) else decision.trade_id,
        "ticker": decision.ticker,
        "verdict": str(decision.verdict),
        "stale": decision.stale,
        "action": action,
        "reason": decision.reason,
        "proof": [json_value(p.to_dict()) for p in decision.proof],
        "before": json_value(decision.before()) if shows else None,
        "after": json_value(dict(decision.fields)) if shows else None,
    }


def _broker(truth: BrokerTruth | None) -> dict[str, Any] | None:
    if truth is None:
        return None
    return {
        "positionsCount": len(truth.positions),
        "openOrdersCount": len(truth.orders),
        "fetchedAt": iso(truth.at),
        "account": truth.account.id,
    }


# --------------------------------------------------------------------------- the record


def record(run: ReconcileRun) -> RunCommit:
    """All that the run leaves, for one transaction; dry runs and locked ones are listed, not counted."""
    told = report(run)
    # A run id may be used again, and its record must not be taken for a copy of the first.
    delivery, listed = f"{run.run_id}@{iso(run.started)}", _listed(run, told)
    if run.dry_run or run.error == "locked":
        return RunCommit(KIND, delivery, listed)
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
    again = run.overwritten
    memory = dict(_memory(run))
    for name, values in run.restored.items():
        memory[name] = {**values, **memory.get(name, {})}
    if run.alerted is not None:
        memory[SECTION] = {"last": run.alerted}
    counted = (e for e in entries if e.outcome == WRITTEN and e.action in _TOTALS)
    # A close that the app overwrote was counted when it was made first.
    totals = {e.id: _TOTALS[e.action] for e in counted if e.action != Action.CLOSED or e.trade_id not in again}
    return RunCommit(KIND, delivery, listed, add, put, entries, memory, totals)


def _listed(run: ReconcileRun, told: Result) -> dict[str, Any]:
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


# --------------------------------------------------------------------------- what the next runs know


def _memory(run: ReconcileRun) -> Mapping[str, Mapping[str, Any]]:
    """What the next runs should know; of a run without a plan only that it has seen the ledger."""
    observation = run.observation
    seen: Mapping[str, Any] = {"seen": True} if run.ledger_seen else {}
    if observation is None:
        return {index.SECTION: seen} if seen else {}
    memory, now, run_id = observation.memory, observation.truth.at, run.run_id
    written = run.written
    orphan_names = [orphan_name(o) for o in run.plan.orphans]
    gone = {d.trade_id for d in written if d.action is Action.CLOSED}
    owners = {i: ids for i, ids in run.plan.own_orders.items() if i not in gone}
    sections: dict[str, Mapping[str, Any]] = {
        "misses": {} if run.error is not None else counting.misses(run.plan, memory, now),
        "first_seen": counting.first_seen(observation.world().trades, orphan_names, memory, now),
        "exits": counting.exits(written, memory),
        "orders": counting.final_orders(owners, observation.evidence, run.remembered),
        "unproven": counting.unproven(written, memory, run_id, now),
        "verdicts": _verdict_memory(run),
    }
    for decision in run.orphan_rows:
        if decision.verdict is Verdict.REOPENED and decision in written:
            sections["unproven"] = {**sections["unproven"], decision.trade_id or "": None}
    if len(observation.world().trades) > run.policy.max_trades:
        sections["last_worked"] = {d.trade_id: iso(now) for d in run.plan.decisions if d.trade_id}
    if run.to_pin is not None:
        sections["pin"] = {"account": {"id": run.to_pin.account, "live": run.to_pin.live, "at": iso(now)}}
    if seen:
        sections[index.SECTION] = {**seen, **_index_memory(run, observation)}
    return {name: values for name, values in sections.items() if values}


def _index_memory(run: ReconcileRun, observation: Observation) -> Mapping[str, Any]:
    """How far the app's index may be trusted; an orphan that it shows for the first time is a doubt."""
    acts = run.policy.orphans != "report"
    doubted = any(acts or orphan_name(o) not in observation.memory.first_seen for o in run.plan.orphans)
    return index.remembered(observation.view, run.scanned, run.started, doubted=doubted)


def _verdict_changes(run: ReconcileRun) -> list[JournalEntry]:
    """A journal entry for every trade whose verdict is another than in the run before."""
    if run.observation is None or run.dry_run or run.lease is None:
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


def _verdict_memory(run: ReconcileRun) -> dict[str, Any]:
    """The last verdict on every trade, and what it is of; a trade that left its position behind is kept."""
    now, known = iso(run.started), run.verdicts
    changes: dict[str, Any] = {}
    trades = {trade.id: trade for trade in run.observed().world().trades}
    for decision in run.plan.decisions:
        before, trade = known.get(decision.trade_id or "", {}), trades.get(decision.trade_id)
        if trade is None or trade.id is None:
            continue
        place = {"key": trade.key, "side": str(trade.side)}
        if trade.id in run.overwritten:
            place["overwritten"] = run.overwritten[trade.id]
        if before.get("verdict") != str(decision.verdict):
            said = {"verdict": str(decision.verdict), "reason": decision.reason, "since": now, "runId": run.run_id}
            changes[trade.id] = {**said, **place}
        elif place.items() - before.items():
            changes[trade.id] = {**before, **place}
    closed = [d.trade_id for d in run.written if d.action is Action.CLOSED and d.trade_id]
    gone = [i for i in known if i not in run.plan.own_orders and i not in run.left]
    return {**changes, **dict.fromkeys((*gone, *closed))}
