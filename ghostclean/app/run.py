"""The frame of every run: state, lock, work, alerts, record, unlock.

A run ends in one error word, one line for a person, and a record that is committed or spooled.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.journal import Journal
from ghostclean.app.observation import Observation
from ghostclean.app.parts import Parts
from ghostclean.app.ports import FAILING, JournalEntry, Lease, Recalled, RunCommit, State, WriteOutcome
from ghostclean.core.alerts import Origin
from ghostclean.core.attention import Attention, Needs
from ghostclean.core.broker import BrokerTruth, iso
from ghostclean.core.health import Failing
from ghostclean.core.inputs import Policy
from ghostclean.core.ledger import Fit
from ghostclean.core.safety import Pin
from ghostclean.core.verdicts import Decision, Plan
from ghostclean.counts import counted
from ghostclean.errors import (
    BrokerError,
    BrokerTruthFailed,
    Cause,
    DeadlineExceeded,
    FencedOff,
    GhostcleanError,
    LedgerFailed,
    Locked,
    StateFailed,
)
from ghostclean.result import Result

_log = logging.getLogger("ghostclean")

_LOCK_OUTLIVES_DEADLINE = 5.0
_LOCK_POLL = 0.5
_SHORTEST = 0.3  # seconds after start-up below which no store can be blamed for the time
_LAST_WORDS = 0.35  # seconds that the run's own record gets even when the deadline is over
_TRUE_FOR_GOOD = ("exits", "unproven", "ledger")  # memory that a late record still may bring


@dataclass(slots=True, kw_only=True)
class Run:
    """One run, an `inner` one when its lease is given by the run around it; `alerted` is for the monitors' next run.

    `account` is number and kind of the account.
    """

    parts: Parts
    deadline: Deadline
    run_id: str
    source: str
    dry_run: bool
    interval: timedelta
    lease: Lease | None = None
    lock_wait: float = 0.0
    inner: bool = field(init=False)
    started: datetime = field(init=False)
    began: float = field(init=False)
    journal: Journal = field(init=False)
    state_ok: bool = False
    error: str | None = None
    detail: str | None = None
    cause: Cause | None = None
    failing: Failing | None = None
    partial: bool = False
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    account: Mapping[str, Any] | None = None
    alerted: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        parts = self.parts
        self.inner = self.lease is not None
        self.started = parts.wall()
        self.began = self.deadline.left()
        self.journal = Journal(
            parts.ledger, parts.state, self.lease, self.deadline, self.run_id, self.source, parts.wall
        )

    def failed(self, error: str, detail: str, cause: Cause | None = None) -> None:
        if error == "deadline_exceeded":
            self.partial = True
        self.error, self.detail, self.cause = error, detail, cause

    @property
    def counts(self) -> bool:
        """Whether it is one of the runs that the summary is about."""
        return not self.dry_run and not self.interrupted and self.error != "locked"

    def row_of_failures(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """What is remembered of failures in a row after this run; what could not be read stays as it is."""
        if not self.counts or (self.error is not None and self.failing is None):
            return {}
        return {FAILING: {kind: self.failing and self.failing._asdict()}}

    def duration_ms(self) -> int:
        return int((self.began - self.deadline.left()) * 1000)

    def origin(self) -> Origin:
        """Whose run it is; while the account is not read, by what the last one that did has left."""
        parts, live = self.parts, self.parts.broker.live
        known = self.account if self.account is not None and self.account.get("live") is live else {}
        return Origin(parts.ledger.place, str(known.get("number", "")), live, parts.host)

    def signed(self, listed: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of the list of runs, which says whose run it was."""
        origin = self.origin()
        return {**listed, "ledger": origin.ledger, "account": origin.account or None}

    def about(self, attention: Attention, failing: Mapping[str, Any] | None) -> dict[str, Any]:
        """What `status --all` must know of a ledger besides its runs; `failing` are reconcile runs in a row."""
        origin, needs = self.origin(), Needs.of(attention.items)
        return {
            "ledger": origin.ledger,
            "account": origin.account or None,
            "live": origin.live,
            "host": origin.host,
            "interval": self.interval.total_seconds(),
            "needs": [*needs],
            "failing": failing,
        }

    def told(self, tell: Callable[[], None]) -> None:
        """Tells the monitors; failures are noted."""
        failures = self.parts.monitors.failures
        before = len(failures)
        tell()
        self.notes += [f"outside: {failure}" for failure in failures[before:]]

    def tell(self, kind: str, document: Mapping[str, Any]) -> None:
        """Tells the monitors that the run is over."""
        self.alerted = self.parts.monitors.ended(
            kind,
            document,
            self.origin(),
            state=self.parts.state if self.state_ok else None,
            now=self.started,
            left=self.deadline.left,
        )


@dataclass(slots=True, kw_only=True)
class ReconcileRun(Run):
    """The facts of one reconcile run.

    `recovered`, `restored`: entries and memory of a dead run. `skipped`: changes the app got in the way of.
    `around`: what may be meant where there is no ledger. `met`: how often in a row the state had never seen it.
    `left`: trades that left the ledger but not the broker, with symbol key and side. `overwritten`: by trade, the
    run whose close the app took back. `is_stranger`: the ledger names orders, and the account knows none.
    """

    policy: Policy
    observation: Observation | None = None
    truth: BrokerTruth | None = None
    plan: Plan = field(default_factory=lambda: Plan(()))
    orphan_rows: list[Decision] = field(default_factory=list)
    written: list[Decision] = field(default_factory=list)
    skipped: dict[str, WriteOutcome] = field(default_factory=dict)
    out_of_time: bool = False
    memory: Recalled = field(default_factory=Recalled)
    recovered: list[JournalEntry] = field(default_factory=list)
    restored: dict[str, dict[str, Any]] = field(default_factory=dict)
    pin: Pin | None = None
    to_pin: Pin | None = None
    is_stranger: bool = False
    left: dict[str, tuple[str, str]] = field(default_factory=dict)
    overwritten: dict[str, str] = field(default_factory=dict)
    ledger_seen: bool = False
    around: list[str] = field(default_factory=list)
    met: int = 0
    fit: Fit | None = None
    result: Result | None = None

    def observed(self) -> Observation:
        assert self.observation is not None
        return self.observation

    def fitting(self) -> Fit:
        """Whether the ledger fits, as last read."""
        if self.fit is None:
            self.fit = self.observed().view.fit()
        return self.fit


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of run inside the frame; `report` counts once, before `tell` and `record`.

    `failure` is the error word for the unexpected, `broker_failed` the line for a failed broker (`{}`: how).
    """

    kind: str
    work: Callable[[], None]
    report: Callable[[], object]
    tell: Callable[[], None]
    record: Callable[[], RunCommit]
    failure: str
    broker_failed: str


def carry_out(run: Run, task: Task) -> None:
    """The run from its lock to its record; raises only KeyboardInterrupt."""
    try:
        _work(run, task)
    except KeyboardInterrupt:
        run.interrupted = True
        run.failed("interrupted", why_stopped(run))
        _finish(run, task)
        raise
    _finish(run, task)


def _work(run: Run, task: Task) -> None:
    try:
        _prepare(run)
        task.work()
    except GhostcleanError as error:
        run.failed(error.code, f"{error}{_what_stands(run)}", error.cause)
    except BrokerError as error:
        run.failed("broker_truth_failed", f"{task.broker_failed.format(error.line)}; {error.cure}", error.cause)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a run always ends in a record
        _log.debug("the run ended in an unexpected error", exc_info=error)
        # Its text may quote a URL or a key; the log, which is scrubbed, has it.
        run.failed(task.failure, f"an unexpected {type(error).__name__}; what was done is journaled; see --verbose")


def _what_stands(run: Run) -> str:
    written = run.journal.written
    return f" Written before that, and journaled: {written}." if written else ""


def why_stopped(run: Run) -> str:
    written = run.journal.written
    so_far = f" after {counted(written, 'change')} of the ledger" if written else ""
    return f"interrupted{so_far}; what was written stays and is journaled, the next run goes on from there"


def too_late(run: Run, what: str) -> GhostcleanError:
    """The error for time that ran out before broker truth: a hanging store, or the deadline itself."""
    if run.began < _SHORTEST:
        return BrokerTruthFailed(
            "the deadline passed before broker truth was complete: nothing was changed; raise --deadline"
        )
    failure = StateFailed if what == "state" else LedgerFailed
    return failure(f"the {what} did not answer in time: nothing was changed; see `ghostclean doctor`")


# --------------------------------------------------------------------------- before the work


def _prepare(run: Run) -> None:
    deadline, parts = run.deadline, run.parts
    try:
        deadline.reading(parts.state.open)
        run.state_ok = True
        delivered = deadline.reading(lambda: parts.spool.deliver(parts.state))
        if delivered:
            run.notes.append(f"{counted(delivered, 'spooled run record')} delivered")
        if not run.inner and not run.dry_run:
            run.lease = run.journal.lease = _take_lock(run)
    except DeadlineExceeded:
        raise too_late(run, "state") from None


def _take_lock(run: Run) -> Lease:
    state, deadline = run.parts.state, run.deadline
    holder, waited = f"{run.source} {run.run_id}", 0.0
    while True:
        lease = deadline.reading(lambda: state.acquire(holder, deadline.left() + _LOCK_OUTLIVES_DEADLINE))
        if lease is not None:
            return lease
        if waited >= run.lock_wait or deadline.left_for_reading() < 2 * _LOCK_POLL:
            info = deadline.reading(state.lock_info)
            by = f" ({info.holder}, {info.seconds_left:.0f} s left)" if info else ""
            raise Locked(f"another run holds the lock{by}: nothing was changed; it ends by itself")
        run.parts.pause(_LOCK_POLL)
        waited += _LOCK_POLL


# --------------------------------------------------------------------------- after the work


def _finish(run: Run, task: Task) -> None:
    locked = run.error == "locked"
    task.report()
    if run.error is not None and run.counts and run.state_ok:
        run.failing = _failing(run, task.kind)
        if run.failing is not None and run.failing.runs > 1:
            run.detail = f"{run.detail} ({run.failing})"
    if not run.dry_run and not locked:
        run.told(task.tell)
    delivered = run.state_ok and _deliver(run, task)
    if not delivered and not locked:
        _spool(run, late_record(task.record()))


def _failing(run: Run, kind: str) -> Failing | None:
    """The failed runs in a row, this one included, by what the state has of the ones before."""
    state, seconds = run.parts.state, max(_LAST_WORDS, run.deadline.left() / 4)
    with contextlib.suppress(GhostcleanError):
        before = run.deadline.within(lambda: state.recall(FAILING, [kind]).get(kind), seconds)
        return Failing.after(before, iso(run.started), run.cause)
    return None


def _deliver(run: Run, task: Task) -> bool:
    """Commits the run's record with the lock; a state that is lost by now makes the run a failed one."""
    commit, deadline, state = task.record(), run.deadline, run.parts.state
    try:
        deadline.within(
            lambda: deliver(state, commit, run.lease, release=not run.inner), max(deadline.left(), _LAST_WORDS)
        )
    except GhostcleanError as error:
        if run.dry_run and run.error is None:  # it needs no state that can be written
            run.notes.append(f"this dry run is not listed: {error}")
            return True
        run.notes.append("the run's record is kept locally, a later run delivers it")
        if run.error is None:
            run.failed("state_failed", f"the state was lost during the run ({error}); the ledger is as reported")
        return False
    return True


def _spool(run: Run, commit: RunCommit) -> None:
    try:
        run.deadline.within(lambda: run.parts.spool.put(commit), max(run.deadline.left(), _LAST_WORDS))
    except (GhostcleanError, OSError) as error:
        run.notes.append(f"the run's record is lost: {error}")


def late_record(commit: RunCommit) -> RunCommit:
    """A record that arrives late keeps only memory that is true for good: newer runs may know better."""
    kept = {name: values for name, values in commit.memory.items() if name in _TRUE_FOR_GOOD}
    return replace(commit, memory=kept, word=None)


def deliver(state: State, commit: RunCommit, lease: Lease | None, *, release: bool) -> None:
    """Commits a run's record, and the lock; an overtaken run's comes as a late one."""
    try:
        state.commit(commit, lease, release=release)
    except FencedOff:
        state.commit(late_record(commit))
