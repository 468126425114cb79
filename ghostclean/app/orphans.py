"""The orphans of a run: judged, written, or sold."""

from __future__ import annotations

from dataclasses import replace

from ghostclean.app.manage.within import within
from ghostclean.app.observation import Observation
from ghostclean.app.ports import Lease
from ghostclean.app.run import ReconcileRun
from ghostclean.core.evidence import OrdersOf, RecordsOf
from ghostclean.core.instrument import symbol_key
from ghostclean.core.orphans import LOOK_BACK, OrphanView, judge_orphans
from ghostclean.core.trade import record_id, text
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.errors import DeadlineExceeded

_WRITTEN = (Action.ADOPTED, Action.REOPENED)


def judge(run: ReconcileRun) -> list[Decision]:
    """One row an orphan; looks up what adopting or selling it needs."""
    observation, mode = run.observed(), run.policy.orphans
    if not run.plan.orphans:
        return []
    if mode != "report" and not observation.partial:
        since = observation.truth.at - LOOK_BACK
        needs = [OrdersOf(o.position.key, o.position.symbol, since) for o in run.plan.orphans]
        observation.lookups.answer([*needs, *(RecordsOf(o.position.key) for o in run.plan.orphans)])
        run.plan = replace(run.plan, activity=observation.decide_again(observation.view).activity)
    view = OrphanView(
        mode=mode,
        account=observation.truth.account.id,
        now=observation.truth.at,
        grace=run.policy.grace,
        evidence=observation.evidence,
        unproven=observation.memory.unproven,
        present={},
        closed=observation.lookups.closed,
        first_seen=observation.memory.first_seen,
        blocked=_blocked(run, observation),
    )
    decided = judge_orphans(run.plan, view)
    ids = {d.trade_id for d in decided if d.trade_id} | set(observation.memory.unproven)
    if not ids:
        return decided
    deadline = run.deadline
    try:
        present = deadline.writing(lambda: run.parts.ledger.get(i for i in ids if i), reserve=deadline.left() / 2)
    except DeadlineExceeded as error:
        # Orphans wait; what is proven about the trades must still be written.
        observation.lookups.open.append(f"the records of orphans: {error}")
        return judge_orphans(run.plan, replace(view, mode="report"))
    view = replace(view, present=present)
    decided = judge_orphans(run.plan, view)
    back = {symbol_key(d.ticker) for d in decided if d.action is Action.REOPENED}
    if mode == "report" and back:
        # A position that was bought since is no return of what was closed: its orders tell.
        since = observation.truth.at - LOOK_BACK
        returned = (o.position for o in run.plan.orphans if o.position.key in back)
        observation.lookups.answer([OrdersOf(p.key, p.symbol, since) for p in returned])
        decided = judge_orphans(run.plan, view)
    return decided


def _blocked(run: ReconcileRun, observation: Observation) -> str | None:
    if not observation.view.exists:
        return "the ledger was never seen"
    if run.pin is None and not run.policy.allow_mass_close:
        return "no account is pinned to the ledger yet"
    if run.error == "mass_close_stopped":
        return "the breaker tripped"
    if any(d.verdict is Verdict.UNREADABLE for d in run.plan.decisions) or observation.view.strangers:
        return "a record of the ledger is unreadable"
    if any(d.verdict is Verdict.UNKNOWN for d in run.plan.decisions) or run.plan.needs:
        return "a look-up is open"
    if not observation.view.complete:
        return "only the ledger's index was read, the next run reads all of it"
    return "this run is partial" if observation.partial else None


def writes(run: ReconcileRun, observation: Observation) -> list[Decision]:
    """Adoptions and reopenings, without those that a record, added by the app meanwhile, may explain."""
    if not any(d.action in _WRITTEN for d in run.orphan_rows):
        return []
    known = {record_id(r) for r in observation.view.active}
    present = run.deadline.writing(run.parts.ledger.read).active
    new = {symbol_key(text(r, "ticker", "symbol") or "") for r in present if record_id(r) not in known}
    why = "the app added a trade of this symbol while we looked; decided in the next run"
    run.orphan_rows = [
        Decision(None, d.ticker, d.verdict, Action.KEPT, why)
        if d.action in _WRITTEN and symbol_key(d.ticker) in new
        else d
        for d in run.orphan_rows
    ]
    return [d for d in run.orphan_rows if d.action in _WRITTEN]


def sell(run: ReconcileRun, lease: Lease) -> None:
    """Sells the orphans that are to be flattened, and gives back the stops that earlier sales took away."""
    selling = any(row.action is Action.FLATTENED for row in run.orphan_rows)
    # The short run inside auto-manage leaves the stops to the longer one around it.
    if not selling and (run.inner or not run.owed):
        return
    # Only this sends orders; every other run does without that code.
    from ghostclean.app.flatten import Flattener

    parts, grace = within(run.parts, run.deadline), run.policy.grace
    flattener = Flattener(parts, run.deadline, grace, run.observed(), lease, run.journal, run.owed)
    try:
        rows = run.orphan_rows
        run.orphan_rows = [flattener.flatten(row) if row.action is Action.FLATTENED else row for row in rows]
        flattener.give_back()
    finally:
        run.notes += [*flattener.notes, *flattener.naked]
    if flattener.naked and run.error is None:
        run.failed("reconcile_failed", "; ".join(flattener.naked))
