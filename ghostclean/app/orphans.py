"""The orphans of a run: judged, written, or sold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ghostclean.app.observation import Observation
from ghostclean.app.ports import Lease
from ghostclean.app.run import ReconcileRun
from ghostclean.core.allocation import Orphan
from ghostclean.core.broker import OrdersOf, Question, RecordsOf, symbol_key
from ghostclean.core.ledger import account_marks, record_id, text
from ghostclean.core.neighbours import Neighbours
from ghostclean.core.safety import LOOK_BACK, OrphanView, judge_orphans
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.errors import DeadlineExceeded

_WRITTEN = (Action.ADOPTED, Action.REOPENED)


def judge(run: ReconcileRun) -> list[Decision]:
    """One row an orphan, with the look-ups that adopting, selling or reopening needs."""
    observation, mode = run.observed(), run.policy.orphans
    if not run.plan.orphans:
        return []
    if mode != "report" and not observation.partial:
        _look_up(observation, run.plan.orphans, records=True)
        run.plan = replace(run.plan, activity=observation.decide_again(observation.view).activity)
    view = _view(run, observation)
    decided = judge_orphans(run.plan, view)
    ids = {d.trade_id for d in decided if d.trade_id} | set(observation.memory.unproven)
    if not ids:
        return decided
    deadline = run.deadline
    try:
        present = deadline.writing(lambda: run.parts.ledger.get(ids), reserve=deadline.left() / 2)
    except DeadlineExceeded as error:
        # Orphans wait; what is proven about the trades must still be written.
        observation.lookups.open.append(f"the records of orphans: {error}")
        return judge_orphans(run.plan, replace(view, mode="report"))
    unproven = {i: v for i, v in view.unproven.items() if observation.lookups.ours(present.get(i, {}))}
    view = replace(view, present=present, unproven=unproven)
    decided = judge_orphans(run.plan, view)
    back = {symbol_key(d.ticker) for d in decided if d.action is Action.REOPENED}
    if mode == "report" and back:
        # A position that was bought since is no return of what was closed: its orders tell.
        _look_up(observation, [o for o in run.plan.orphans if o.position.key in back], records=False)
        decided = judge_orphans(run.plan, view)
    return decided


def _look_up(observation: Observation, orphans: Sequence[Orphan], *, records: bool) -> None:
    since = observation.truth.at - LOOK_BACK
    needs: list[Question] = [OrdersOf(o.position.key, o.position.symbol, since) for o in orphans]
    if records:
        needs += [RecordsOf(o.position.key) for o in orphans]
    observation.lookups.answer(needs)


def _view(run: ReconcileRun, observation: Observation) -> OrphanView:
    account, closed = observation.truth.account, observation.lookups.closed
    records = [*observation.view.active, *(r for rows in closed.values() for r in rows)]
    return OrphanView(
        mode=run.policy.orphans,
        account=account.id,
        now=observation.truth.at,
        grace=run.policy.grace,
        evidence=observation.evidence,
        unproven=observation.memory.unproven,
        present={},
        closed=closed,
        first_seen=observation.memory.first_seen,
        marks=account_marks(records, account, live=observation.live),
        neighbours=Neighbours(observation.memory.neighbours, observation.truth.at, run.policy.grace),
        blocked=_not_ours(run, observation) or _not_whole(run, observation),
    )


def _not_ours(run: ReconcileRun, observation: Observation) -> str | None:
    if run.policy.orphans == "report":
        return None
    if not observation.view.exists:
        return "the ledger was never seen"
    if run.pin is None and not run.policy.allow_mass_close:
        return "no account is pinned to the ledger yet"
    return "the breaker tripped" if run.error == "mass_close_stopped" else None


def _not_whole(run: ReconcileRun, observation: Observation) -> str | None:
    verdicts = {d.verdict for d in run.plan.decisions}
    if Verdict.UNREADABLE in verdicts or observation.view.strangers:
        return "a record of the ledger is unreadable"
    if Verdict.UNKNOWN in verdicts or run.plan.questions:
        return "a look-up is open"
    if not observation.view.complete:
        return "only the ledger's index was read, the next run reads all of it"
    return "this run is partial" if observation.partial else None


def writes(run: ReconcileRun, observation: Observation) -> list[Decision]:
    """Adoptions and reopenings, without symbols in which the app has added a trade meanwhile."""
    if not any(d.action in _WRITTEN for d in run.orphan_rows):
        return []
    known = {record_id(r) for r in observation.view.active}
    present = run.deadline.writing(run.parts.ledger.read).active
    new = {symbol_key(text(r, "ticker", "symbol") or "") for r in present if record_id(r) not in known}
    run.orphan_rows = [_unless_explained(d, new) for d in run.orphan_rows]
    return [d for d in run.orphan_rows if d.action in _WRITTEN]


def _unless_explained(decision: Decision, new: Collection[str]) -> Decision:
    if decision.action not in _WRITTEN or symbol_key(decision.ticker) not in new:
        return decision
    why = "the app added a trade of this symbol while we looked; decided in the next run"
    return Decision(None, decision.ticker, decision.verdict, Action.KEPT, why)


def leave(run: ReconcileRun) -> None:
    """Says of what was to be sold that it was not, in a run that ends before."""
    why = "not sold: the run ended before"
    run.orphan_rows = [
        Decision(None, d.ticker, d.verdict, Action.KEPT, why) if d.action is Action.FLATTENED else d
        for d in run.orphan_rows
    ]


def sell(run: ReconcileRun, lease: Lease) -> None:
    selling = any(row.action is Action.FLATTENED for row in run.orphan_rows)
    # The short run inside auto-manage leaves the stops to the longer one around it.
    if not selling and (run.inner or not run.memory.owed_stops):
        return
    # Only this sends orders; every other run does without that code.
    from ghostclean.app.orphan_sales import OrphanSeller

    parts, grace = run.parts.bound(run.deadline.acting), run.policy.grace
    seller = OrphanSeller(parts, run.deadline, grace, run.observed(), lease, run.journal, run.memory.owed_stops)
    try:
        rows = run.orphan_rows
        run.orphan_rows = [seller.flatten(row) if row.action is Action.FLATTENED else row for row in rows]
        seller.restore_stops()
    finally:
        run.notes += [*seller.notes, *seller.naked]
    if seller.naked and run.error is None:
        run.failed("reconcile_failed", "; ".join(seller.naked))
