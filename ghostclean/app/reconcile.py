"""One reconcile run: lock, ledger, broker truth, decide, journal, write, telemetry.

The shared core of `ghostclean reconcile`, `auto-manage` and the Python function. Failures end
in a Result with an error word; nothing but wrong settings is ever raised from here.

`run` holds what a run knows, `survey` looks and decides, `brakes` may stop it, `journal` writes,
`orphans` deals with what no trade explains, `recovery` with what a dead run left, `record` and
`report` say what happened.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ghostclean.app import index, orphans
from ghostclean.app.brakes import brake, check_account, recall_pin
from ghostclean.app.deadline import explained
from ghostclean.app.outside import SECTION
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import Lease, LedgerView, WriteOutcome
from ghostclean.app.record import deliver, late_record, record
from ghostclean.app.recovery import recover, with_restored
from ghostclean.app.report import report
from ghostclean.app.run import Run
from ghostclean.app.survey import Survey, make_survey, read_truth, recall, recall_section
from ghostclean.core.safety import without_unproven
from ghostclean.core.verdicts import Decision
from ghostclean.core.world import Memory
from ghostclean.errors import (
    BrokerError,
    BrokerTruthFailed,
    DeadlineExceeded,
    GhostcleanError,
    LedgerFailed,
    Locked,
    StateFailed,
)
from ghostclean.result import Interrupted, Result

_log = logging.getLogger("ghostclean")

_ROUNDS_AGAINST_THE_APP = 4
_LOCK_OUTLIVES_DEADLINE = 5.0
_SHORTEST = 0.3  # seconds after start-up below which no store can be blamed for the time
_LAST_WORDS = 0.25  # seconds kept for the run's own record


def run_reconcile(parts: Parts, options: Options, *, lease: Lease | None = None) -> Result:
    """Makes one run and returns what happened; never raises for anything the world does.

    `lease` is the lock a caller already holds (auto-manage). Ctrl-C comes out as `Interrupted`,
    with the result so far.
    """
    run = Run.begin(parts, options, lease)
    try:
        _carry_out(run)
    except KeyboardInterrupt as stop:
        run.failed("reconcile_failed", _why_stopped(run))
        raise Interrupted(report(run)) from stop
    return report(run)


def _carry_out(run: Run) -> None:
    """The run from its start to its own record, whatever happens."""
    try:
        _prepare(run)
        _work(run)
    except GhostcleanError as error:
        run.failed(error.code, f"{error}{_what_stands(run)}")
    except BrokerError as error:
        run.failed("broker_truth_failed", f"broker truth is not observed ({error}): nothing was closed")
    except Exception as error:  # noqa: BLE001 - the last line of defence: a run always ends in a record
        _log.debug("the run ended in an unexpected error", exc_info=error)
        # Its text may quote a URL or a key; the log, which is scrubbed, has it.
        kind = type(error).__name__
        run.failed("reconcile_failed", f"an unexpected {kind}; what was written is journaled; see --verbose")
    except BaseException:  # Ctrl-C and the like: recorded as the failure that it is
        run.failed("reconcile_failed", _why_stopped(run))
        raise
    finally:
        _finish(run)


def _what_stands(run: Run) -> str:
    """What a run that failed has changed nevertheless, as a sentence to follow the failure."""
    written = len(run.written)
    return f" Written before that, and journaled: {written}." if written else ""


def _why_stopped(run: Run) -> str:
    written = len(run.written)
    so_far = f" after {written} change{'s' * (written != 1)} of the ledger" if written else ""
    return f"interrupted{so_far}; what was written stays and is journaled, the next run goes on from there"


# --------------------------------------------------------------------------- before anything is read


def _prepare(run: Run) -> None:
    """State, spool, lock; without them nothing may be written."""
    deadline, parts = run.options.deadline, run.parts
    try:
        deadline.reading(parts.state.open)
        run.state_ok = True
        delivered = deadline.reading(lambda: parts.spool.deliver(parts.state))
        if delivered:
            run.notes.append(f"{delivered} spooled run records delivered")
        if run.lease is None and not run.options.dry_run:
            run.lease = run.journal.lease = deadline.reading(lambda: _take_lock(run))
    except DeadlineExceeded:
        raise _too_late(run, "state") from None
    if not run.options.dry_run and not run.inner:
        # Not before the lock is ours: a run that exits 7 would leave a start without an end.
        parts.eyes.started(run.options.run_id, deadline.left())


def _take_lock(run: Run) -> Lease:
    state, options = run.parts.state, run.options
    lease = state.acquire(f"{options.source} {options.run_id}", options.deadline.left() + _LOCK_OUTLIVES_DEADLINE)
    if lease is None:
        info = state.lock_info()
        by = f" ({info.holder}, {info.seconds_left:.0f} s left)" if info else ""
        raise Locked(f"another run holds the lock{by}: nothing was changed; it ends by itself")
    return lease


def _too_late(run: Run, what: str) -> GhostcleanError:
    """Whose fault it is that time ran out before broker truth: a store that hangs, or the deadline itself."""
    if run.began < _SHORTEST:
        return BrokerTruthFailed(
            "the deadline passed before broker truth was complete: nothing was changed; raise --deadline"
        )
    failure = StateFailed if what == "state" else LedgerFailed
    return failure(f"the {what} did not answer in time: nothing was changed; see `ghostclean doctor`")


# --------------------------------------------------------------------------- the work


def _work(run: Run) -> None:
    parts, options = run.parts, run.options
    view = _read_ledger(run)
    memory = _recall(run)
    if not view.complete and index.misses_something(view, run.scanned, run.verdicts.keys()):
        view = _read_ledger(run, whole=True)
    run.truth = read_truth(parts, options.deadline)
    check_account(run, run.truth)
    survey = make_survey(parts, options.deadline, options.policy, view, memory, run.remembered, run.truth)
    # Not before both readings are of the right account is anything of them remembered, or pinned.
    check_account(run, survey.truth)
    run.survey, run.truth, run.plan = survey, survey.truth, survey.plan
    brake(run)
    run.orphan_rows = orphans.judge(run)
    run.partial = survey.partial
    if run.lease is not None:
        _write(run, run.lease)
    if run.partial and run.error is None:
        run.failed("deadline_exceeded", _why_partial(run))


def _read_ledger(run: Run, *, whole: bool = False) -> LedgerView:
    ledger = run.parts.ledger
    read = getattr(ledger, "read_all", ledger.read) if whole else ledger.read  # only a hash has an index
    try:
        view: LedgerView = run.options.deadline.reading(read)
    except DeadlineExceeded:
        raise _too_late(run, "ledger") from None
    run.ledger_seen = view.exists
    for stranger in view.strangers:
        run.notes.append(f"ledger: {stranger} is no trade and was left alone")
    return view


def _recall(run: Run) -> Memory:
    """What earlier runs remembered, and what the last one could not."""
    parts, deadline = run.parts, run.options.deadline
    try:
        memory = recall(parts, deadline)
        run.remembered = recall_section(parts, deadline, "orders", dict)
        run.verdicts = recall_section(parts, deadline, "verdicts", dict)
        run.owed = recall_section(parts, deadline, orphans.OWED, dict)
        scanned = deadline.reading(lambda: parts.state.recall(index.SECTION, [index.NAME]))
        run.scanned = scanned.get(index.NAME)
        run.pin = recall_pin(parts, deadline)
        run.recovered = recover(run, deadline.reading(parts.state.intents))
        return with_restored(run, memory)
    except DeadlineExceeded:
        raise _too_late(run, "state") from None


def _why_partial(run: Run) -> str:
    survey = run.surveyed()
    if run.out_of_time:
        return "time ran out: what was written stays and is journaled, the next run starts with the rest"
    why = survey.lookups.open[0] if survey.lookups.open else f"the second reading failed ({survey.reread_failed})"
    return f"not everything could be looked up ({why}): those trades are held, the next run starts with them"


# --------------------------------------------------------------------------- writing


def _write(run: Run, lease: Lease) -> None:
    survey = run.surveyed()
    with explained(f"Reading the ledger at {run.parts.ledger.place} again", "nothing was changed"):
        writing: Sequence[Decision] = [*run.plan.writing, *orphans.writes(run, survey)]
    for _ in range(_ROUNDS_AGAINST_THE_APP):
        if not writing:
            break
        _post(run, writing)
        if run.out_of_time or not run.skipped:
            break
        writing = _decide_again(run, survey, frozenset(run.skipped))
    run.partial |= run.out_of_time
    orphans.sell(run, lease)


def _post(run: Run, decisions: Sequence[Decision]) -> None:
    """Journals and writes; what became of each decision is kept, also when this fails half-way."""
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


def _decide_again(run: Run, survey: Survey, ids: frozenset[str]) -> list[Decision]:
    """New decisions for the trades that the app changed, or took away, while we worked."""
    ledger, unchanged = run.parts.ledger, "trades that the app changed meanwhile were left alone"
    with explained(f"Reading the ledger at {ledger.place} again", unchanged):
        view = run.options.deadline.writing(ledger.read)
    plan = survey.decide_again(view)
    if run.error == "mass_close_stopped":
        plan = without_unproven(plan, "the breaker tripped")
    fresh = {d.trade_id: d for d in plan.decisions}
    for trade_id in ids - fresh.keys():
        if run.skipped[trade_id] is not WriteOutcome.EXISTS:
            del run.skipped[trade_id]  # the app took it out of the ledger: nothing was left undone
    decisions = [fresh.get(d.trade_id) if d.trade_id in ids else d for d in run.plan.decisions]
    run.plan = replace(run.plan, decisions=tuple(d for d in decisions if d is not None))
    return [d for d in run.plan.writing if d.trade_id in ids]


# --------------------------------------------------------------------------- the end


def _finish(run: Run) -> None:
    """The run's own record, and the lock given back; what fails here is spooled or noted."""
    deadline, parts = run.options.deadline, run.parts
    # A failed run inside auto-manage is only noted: its few seconds make no alarm.
    if not run.options.dry_run and run.error != "locked" and not (run.inner and run.error):
        run.alerted = _tell_outside(run)
    delivered = run.state_ok and _deliver(run)
    if not delivered and run.error != "locked":
        spooled = late_record(record(run))
        try:
            deadline.within(lambda: parts.spool.put(spooled), max(deadline.left(), _LAST_WORDS))
        except (GhostcleanError, OSError) as error:
            run.notes.append(f"the run's record is lost: {error}")
    if run.lease is not None and not run.inner and delivered:
        lease = run.lease
        try:
            deadline.within(lambda: parts.state.release(lease), max(deadline.left(), 0.1))
        except GhostcleanError as error:
            run.notes.append(f"the lock was not given back ({error}); it ends by itself")


def _deliver(run: Run) -> bool:
    """Commits the run's record; a state that is lost by now makes the run a failed one."""
    commit, deadline = record(run), run.options.deadline
    try:
        deadline.within(lambda: deliver(run.parts.state, commit, run.lease), max(deadline.left(), _LAST_WORDS))
    except GhostcleanError as error:
        run.notes.append("the run's record is kept locally, a later run delivers it")
        if run.error is None:
            run.failed("state_failed", f"the state was lost during the run ({error}); the ledger is as reported")
        return False
    return True


def _tell_outside(run: Run) -> dict[str, Any] | None:
    """Heartbeat, metrics and alerts; returns what the next run compares with."""
    eyes, deadline, state = run.parts.eyes, run.options.deadline, run.parts.state
    if eyes.heartbeat is None and eyes.webhook is None and eyes.metrics is None:
        return None
    before: Mapping[str, Any] | None = None
    if run.state_ok and (eyes.webhook is not None or eyes.metrics is not None):
        try:
            before = deadline.within(lambda: state.recall(SECTION), max(deadline.left() / 4, 0.05)).get("last", {})
        except GhostcleanError as error:
            run.notes.append(f"alerts: {error}")
    told = eyes.ended(report(run).to_dict(), before, run.plan.own_orders.keys(), run.parts.wall(), deadline.left)
    run.notes += [f"outside: {failure}" for failure in eyes.failures]
    return told
