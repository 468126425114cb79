"""One reconcile run: lock, ledger, broker truth, decide, journal, write, telemetry.

Behind `ghostclean reconcile`, `auto-manage` and the Python function; failures end in a Result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from ghostclean.app import index, orphans
from ghostclean.app.brakes import (
    brake,
    brake_orphans,
    check_account,
    find_left,
    find_overwritten,
    hold_back,
    note_forgetting,
    note_lost_memory,
)
from ghostclean.app.deadline import explained
from ghostclean.app.observation import Observation, observe, read_truth
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import RECONCILE_MEMORY, Lease, LedgerView, Recalled, WriteOutcome
from ghostclean.app.recovery import recover, with_restored
from ghostclean.app.report import KIND, is_untold, record, report
from ghostclean.app.run import ReconcileRun, Task, carry_out, too_late, why_stopped
from ghostclean.core.verdicts import Decision
from ghostclean.errors import Cause, DeadlineExceeded, LedgerFailed, LedgerGone, TradeRefused
from ghostclean.result import Interrupted, Result

_ROUNDS_AGAINST_THE_APP = 4
_LOOKING_AROUND = 2.0  # seconds


def run_reconcile(parts: Parts, options: Options, *, lease: Lease | None = None) -> Result:
    """Makes one run; never raises for anything the world does, and Interrupted with the result on Ctrl-C.

    `lease` is the lock a caller already holds (auto-manage).
    """
    run = ReconcileRun(
        parts=parts,
        deadline=options.deadline,
        run_id=options.run_id,
        source=options.source,
        dry_run=options.dry_run,
        interval=options.policy.interval,
        lease=lease,
        policy=options.policy,
    )
    task = Task(
        kind=KIND,
        work=lambda: _work(run),
        report=lambda: report(run),
        tell=lambda: _tell(run),
        record=lambda: record(run),
        failure="reconcile_failed",
        broker_failed="broker truth is not observed: {}; nothing was closed",
    )
    try:
        carry_out(run, task)
    except KeyboardInterrupt as stop:
        run.failed("interrupted", why_stopped(run))
        raise Interrupted(report(run)) from stop
    return report(run)


# --------------------------------------------------------------------------- the work


def _work(run: ReconcileRun) -> None:
    parts = run.parts
    if not run.dry_run and not run.inner:
        # Not before the lock is ours: a run that exits 7 would leave a start without an end.
        run.told(lambda: parts.monitors.started(run.run_id, run.origin(), run.deadline.left()))
    _recall(run)
    view = _read_ledger(run)
    memory = _recover(run)
    if not view.complete and index.misses_something(view, memory.ledger.get(index.NAME), memory.verdicts.keys()):
        view = _read_ledger(run, whole=True)
    run.truth = read_truth(parts, run.deadline, view=view)
    check_account(run, run.truth)
    observation = observe(parts, run.deadline, run.policy, view, memory, run.truth)
    # Not before both readings are of the right account is anything of them remembered, or pinned.
    check_account(run, observation.truth)
    run.observation, run.truth, run.plan = observation, observation.truth, observation.plan
    account = observation.truth.account
    run.account = {"number": account.number or account.id, "live": observation.live}
    run.notes += (f"{row}; its trades are held" for row in run.truth.positions.unread)
    note_lost_memory(run)
    note_forgetting(run)
    if not run.ledger_seen:
        run.around = _look_around(run)
    if run.plan.about_elsewhere is not None:
        run.notes.append(run.plan.about_elsewhere)
    if run.plan.about_neighbours is not None:
        run.notes.append(run.plan.about_neighbours)
    find_overwritten(run)
    brake(run)
    find_left(run)
    run.orphan_rows = brake_orphans(run, orphans.judge(run))
    run.partial = observation.partial
    if run.lease is not None:
        _write(run, run.lease)
    if run.partial and run.error is None:
        run.failed(*_why_partial(run))


def _read_ledger(run: ReconcileRun, *, whole: bool = False) -> LedgerView:
    try:
        view = run.deadline.reading(lambda: run.parts.ledger.read(whole=whole))
    except DeadlineExceeded:
        raise too_late(run, "ledger") from None
    except LedgerGone as error:
        around = "; ".join(_look_around(run))
        raise LedgerFailed(f"{error} ({around})" if around else str(error)) from None
    run.ledger_seen = view.exists
    for stranger in view.strangers:
        run.notes.append(f"ledger: {stranger} is no trade and was left alone")
    return view


def _look_around(run: ReconcileRun) -> list[str]:
    """What the ledger may be that was meant, as far as a moment shows it."""
    with contextlib.suppress(DeadlineExceeded):
        return run.deadline.within(run.parts.around, min(_LOOKING_AROUND, run.deadline.left_for_reading() / 2))
    return []


def _recall(run: ReconcileRun) -> None:
    try:
        memory = run.deadline.reading(lambda: run.parts.state.recall_all(RECONCILE_MEMORY))
        run.memory, run.pin, run.account = memory, memory.pinned, memory.ledger.get("account")
    except DeadlineExceeded:
        raise too_late(run, "state") from None


def _recover(run: ReconcileRun) -> Recalled:
    try:
        run.recovered = recover(run, run.memory.intents)
        run.memory = with_restored(run, run.memory)
        return run.memory
    except DeadlineExceeded:
        raise too_late(run, "state") from None


def _why_partial(run: ReconcileRun) -> tuple[str, str, Cause | None]:
    if run.out_of_time:
        return (
            "deadline_exceeded",
            "time ran out: what was written stays and is journaled, the next run starts with the rest",
            None,
        )
    observation = run.observed()
    held, lookups = "those trades are held, the next run starts with them", observation.lookups
    if lookups.wrong and not lookups.open and observation.reread_failed is None:
        return "broker_truth_failed", f"a look-up was answered wrongly ({lookups.wrong[0]}): {held}", Cause.WRONG
    why = lookups.open[0] if lookups.open else f"the second reading failed ({observation.reread_failed})"
    return "deadline_exceeded", f"not everything could be looked up ({why}): {held}", None


# --------------------------------------------------------------------------- writing


def _write(run: ReconcileRun, lease: Lease) -> None:
    observation = run.observed()
    with explained(f"Reading the ledger at {run.parts.ledger.place} again", "nothing was changed"):
        writing: Sequence[Decision] = [*run.plan.writing, *orphans.writes(run, observation)]
    refused = None
    try:
        for _ in range(_ROUNDS_AGAINST_THE_APP):
            if not writing:
                break
            _post(run, writing)
            if run.out_of_time or not run.skipped:
                break
            writing = _decide_again(run, observation, frozenset(run.skipped))
    except TradeRefused as error:  # every run may meet it again: no stop stays off for that
        refused = error
    except BaseException:
        orphans.leave(run)
        raise
    run.partial |= run.out_of_time
    orphans.sell(run, lease)
    if refused is not None:
        raise refused


def _post(run: ReconcileRun, decisions: Sequence[Decision]) -> None:
    run.skipped.clear()
    postings = [run.journal.posting(decision) for decision in decisions]
    try:
        run.out_of_time = not run.journal.post(postings)
    finally:
        for decision, posting in zip(decisions, postings, strict=True):
            if posting.written:
                run.written.append(decision)
            elif posting.outcome is not None:
                run.skipped[decision.trade_id or ""] = posting.outcome


def _decide_again(run: ReconcileRun, observation: Observation, ids: frozenset[str]) -> list[Decision]:
    """New decisions for the trades that the app changed, or took away, while we worked."""
    ledger, unchanged = run.parts.ledger, "trades that the app changed meanwhile were left alone"
    with explained(f"Reading the ledger at {ledger.place} again", unchanged):
        view = run.deadline.writing(ledger.read)
    plan = hold_back(run, observation.decide_again(view, run.written))
    fresh = {d.trade_id: d for d in plan.decisions}
    # What the app took out of the ledger leaves nothing undone.
    gone = {i for i in ids - fresh.keys() if run.skipped[i] is not WriteOutcome.EXISTS}
    run.skipped = {i: outcome for i, outcome in run.skipped.items() if i not in gone}
    decisions = (fresh.get(d.trade_id) if d.trade_id in ids else d for d in run.plan.decisions)
    run.plan = replace(run.plan, decisions=tuple(d for d in decisions if d is not None))
    return [d for d in run.plan.writing if d.trade_id in ids]


# --------------------------------------------------------------------------- the end


def _tell(run: ReconcileRun) -> None:
    if not is_untold(run):
        run.tell(KIND, report(run).to_dict())
