"""The report of a run: its Result, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ghostclean.app.run import Run
from ghostclean.core.jsonvalue import json_value
from ghostclean.core.times import iso
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.result import Result


def report(run: Run, *, with_rows: bool = True) -> Result:
    """What happened so far, as the JSON document's parts."""
    duration = int((run.began - run.options.deadline.left()) * 1000)
    dry = run.options.dry_run
    done = {id(d) for d in run.written}
    rows = [*run.plan.decisions, *run.orphan_rows]
    counted = [d for d in rows if dry or id(d) in done]
    count = _counter(counted)
    not_written = [d for d in rows if not dry and d.action.writes and id(d) not in done] if run.survey else []
    flattened = [d for d in not_written if d.action is Action.FLATTENED]
    return Result(
        run_id=run.options.run_id,
        source=run.options.source,
        started_at=iso(run.started),
        duration_ms=duration,
        dry_run=dry,
        checked=sum(1 for d in run.plan.decisions),
        closed=count(Action.CLOSED),
        synced=count(Action.SYNCED, Action.REDUCED, Action.REOPENED),
        backfilled=count(Action.ADOPTED),
        held=_counter(rows)(Action.HELD),
        orphans=len(run.plan.orphans),
        failed=len(not_written) - len(flattened),
        partial=run.partial,
        broker=_broker(run),
        results=tuple(_row(d, written=id(d) in done, dry=dry) for d in rows) if with_rows else (),
        notes=tuple(run.notes),
        error=run.error,
        detail=run.detail,
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


def _broker(run: Run) -> dict[str, Any] | None:
    truth = run.truth
    if truth is None:
        return None
    return {
        "positionsCount": len(truth.positions),
        "openOrdersCount": len(truth.orders),
        "fetchedAt": iso(truth.at),
        "account": truth.account.id,
    }


def _counter(decisions: Iterable[Decision]) -> Callable[..., int]:
    listed = list(decisions)
    return lambda *actions: sum(1 for d in listed if d.action in actions)
