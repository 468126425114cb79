"""Puts back what one run changed in the ledger, and keeps the next run from doing it again.

Trade by trade, and only where the trade still has every value that the run wrote. The hold is
remembered before the ledger is touched, the change is journaled before it is written, and an
undo is itself a run that can be undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ghostclean.core.jsontext import same_json
from ghostclean.core.times import iso
from ghostclean.errors import GhostcleanError, Locked

from .ports import Change, JournalEntry, Lease, Ledger, Record, RunCommit, State, WriteOutcome

KIND = "undo"
UNDONE = "undone"

_LOCK_SECONDS = 30.0
_WRITTEN = "written"
_CHANGED_SINCE = "the trade has changed since that run"


class UnknownRun(GhostcleanError):
    """The journal has no such run, or nothing of it that could be put back."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one trade: `undone`, `would_undo` or `refused`, and why."""

    trade_id: str
    ticker: str
    action: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"id": self.trade_id, "ticker": self.ticker, "action": self.action, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an operator's change; exit 1 when something was refused."""

    run_id: str
    subject: str
    dry_run: bool
    rows: tuple[Row, ...]

    @property
    def refused(self) -> int:
        return sum(1 for row in self.rows if row.action == "refused")

    @property
    def exit_code(self) -> int:
        return 1 if self.refused else 0

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        detail = f"{self.refused} of {len(self.rows)} trades were refused" if self.refused else None
        return {
            "ok": not self.refused,
            "dryRun": self.dry_run,
            "runId": self.run_id,
            "undoes": self.subject,
            "undone": len(self.rows) - self.refused,
            "refused": self.refused,
            "results": [row.to_dict() for row in self.rows],
            "error": "reconcile_failed" if self.refused else None,
            "detail": detail,
        }


@dataclass(slots=True)
class _Step:
    """All that one run did to one trade, as one change back."""

    trade_id: str
    entry: JournalEntry
    before: dict[str, Any]
    after: dict[str, Any]
    inserted: bool
    base: Record | None = None
    refusal: str | None = None
    facts: Any = None
    journaled: JournalEntry | None = field(default=None, repr=False)


def undo_run(
    ledger: Ledger, state: State, run_id: str, *, undo_id: str, dry_run: bool = False, now: datetime | None = None
) -> Report:
    """Undoes a run; raises UnknownRun, Locked, LedgerFailed, StateFailed."""
    lease = None if dry_run else _lock(state, run_id)
    try:
        steps = _steps(state.journal(run_id=run_id), run_id)
        _check(steps, ledger)
        if lease is not None:
            _apply(steps, ledger, state, lease, run_id, undo_id, now or datetime.now(UTC))
    finally:
        if lease is not None:
            state.release(lease)
    return Report(undo_id, run_id, dry_run, tuple(_row(step, dry_run) for step in steps))


def _lock(state: State, run_id: str) -> Lease:
    lease = state.acquire(f"undo {run_id}", _LOCK_SECONDS)
    if lease is None:
        raise Locked("another run holds the lock of this ledger; nothing was changed; try again when it has ended")
    return lease


def _steps(entries: Sequence[JournalEntry], run_id: str) -> list[_Step]:
    """One step a trade, from all entries of the run that changed it, in their order."""
    if not entries:
        raise UnknownRun(f"the journal knows no run {run_id!r}; nothing was changed; `ghostclean status` lists the runs")
    steps: dict[str, _Step] = {}
    for entry in entries:
        if entry.after is None or entry.outcome != _WRITTEN:
            continue
        step = steps.get(entry.trade_id)
        if step is None:
            before = dict(entry.before or {})
            steps[entry.trade_id] = _Step(entry.trade_id, entry, before, dict(entry.after), entry.before is None)
        else:
            _follow(step, entry)
        steps[entry.trade_id].facts = _facts(entry)
    if not steps:
        raise UnknownRun(f"run {run_id!r} changed nothing in the ledger; there is nothing to put back")
    return list(steps.values())


def _follow(step: _Step, entry: JournalEntry) -> None:
    """A later entry of the same trade: its old values matter only for fields not seen yet."""
    known = step.before.keys() | step.after.keys()
    step.before.update({n: v for n, v in (entry.before or {}).items() if n not in known})
    for name in (entry.before or {}).keys() - (entry.after or {}).keys():
        step.after.pop(name, None)
    step.after.update(entry.after or {})
    step.entry = entry


def _facts(entry: JournalEntry) -> Any:
    """The fingerprint of the broker facts that the change rested on, as its proof carries it."""
    return next((proof["facts"] for proof in entry.proof if proof.get("what") == "facts"), None)


def _check(steps: Iterable[_Step], ledger: Ledger) -> None:
    """Compares every trade with what the run left behind."""
    steps = list(steps)
    present = ledger.get([step.trade_id for step in steps])
    for step in steps:
        record = present.get(step.trade_id)
        step.base = record
        if record is None:
            step.refusal = "the trade is no longer in the ledger"
        elif not _still(record, step):
            step.refusal = _CHANGED_SINCE


def _still(record: Record, step: _Step) -> bool:
    """Whether every field that the run touched still stands as the run left it."""
    removed = step.before.keys() - step.after.keys()
    same = all(name in record and same_json(record[name], value) for name, value in step.after.items())
    return same and not any(name in record for name in removed)


def _apply(
    steps: list[_Step], ledger: Ledger, state: State, lease: Lease, run_id: str, undo_id: str, now: datetime
) -> None:
    ready = [step for step in steps if step.refusal is None]
    redo = all(step.entry.action == UNDONE for step in ready)
    if not redo:
        state.remember("holds", {step.trade_id: {"facts": step.facts, "runId": run_id} for step in ready})
    for step in ready:
        step.journaled = _entry(step, run_id, undo_id, now)
    state.intend([step.journaled for step in ready if step.journaled])
    outcomes = ledger.write([_change(step) for step in ready], lease)
    for step, outcome in zip(ready, outcomes, strict=True):
        if outcome is not WriteOutcome.WRITTEN:
            step.refusal = _CHANGED_SINCE
    forget = {step.trade_id: None for step in ready if step.refusal or redo}
    state.commit(
        RunCommit(
            kind=KIND,
            run_id=undo_id,
            run=_listed(steps, run_id, undo_id, now),
            entries=tuple(_settled(step) for step in ready if step.journaled),
            memory={"holds": forget} if forget else {},
        )
    )


def _change(step: _Step) -> Change:
    """The change back; a record that the run inserted is taken out with all its fields."""
    names = (step.base or {}).keys() if step.inserted else step.after.keys() - step.before.keys()
    fields: Mapping[str, Any] = {} if step.inserted else step.before
    return Change(step.trade_id, step.base, fields, tuple(sorted(names)))


def _entry(step: _Step, run_id: str, undo_id: str, now: datetime) -> JournalEntry:
    return JournalEntry(
        id=f"{undo_id}:{step.trade_id}",
        at=iso(now),
        run_id=undo_id,
        source=KIND,
        trade_id=step.trade_id,
        ticker=step.entry.ticker,
        verdict=step.entry.verdict,
        action=UNDONE,
        reason=f"put back to what it was before run {run_id}",
        proof=(),
        before=step.after,
        after=step.before,
        outcome="intended",
    )


def _settled(step: _Step) -> JournalEntry:
    entry = step.journaled
    if entry is None:
        raise AssertionError("only journaled steps are settled")
    return JournalEntry.from_dict({**entry.to_dict(), "outcome": "left" if step.refusal else _WRITTEN})


def _listed(steps: list[_Step], run_id: str, undo_id: str, now: datetime) -> dict[str, Any]:
    refused = sum(1 for step in steps if step.refusal)
    return {
        "ts": iso(now),
        "source": KIND,
        "runId": undo_id,
        "undoes": run_id,
        "undone": len(steps) - refused,
        "refused": refused,
        "ok": not refused,
    }


def _row(step: _Step, dry_run: bool) -> Row:
    if step.refusal:
        return Row(step.trade_id, step.entry.ticker, "refused", step.refusal)
    what = f"{step.entry.verdict} of {step.entry.at}"
    return Row(step.trade_id, step.entry.ticker, "would_undo" if dry_run else UNDONE, what)
