"""Puts back what one run changed in the ledger, where the trade still says what the run wrote.

What is put back is held until its broker facts change; undoing an undo lifts the hold. A record that the run
added is closed as `DELETED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ghostclean.app.journal import INTENDED, SKIPPED, WRITTEN, Journal, says
from ghostclean.app.ports import Change, JournalEntry, Ledger, Record, State
from ghostclean.core.broker import iso
from ghostclean.core.verdicts import Action

from .corrections import Correction, NothingToDo, Report, carry_out, journal_of, locked

KIND = "undo"
UNDONE = "undone"

# What the undone run concluded from the facts: kept, it would itself look like a change of facts.
CONCLUDED = ("exits", "unproven")


@dataclass(slots=True)
class _Trace:
    """All that one run did to one trade: the first old and the last new value of each field."""

    last: JournalEntry
    before: dict[str, Any]
    after: dict[str, Any]
    added: bool
    facts: Any = None


def last_run(state: State) -> str:
    """The last run with a change of the ledger that was not undone since; raises NothingToDo."""
    undone = set()
    for entry in reversed(state.journal()):
        if entry.outcome != WRITTEN or entry.after is None or (entry.trade_id, _reason(entry.run_id)) in undone:
            continue
        if entry.action != UNDONE:
            return entry.run_id
        undone.add((entry.trade_id, entry.reason))
    raise NothingToDo("the journal knows no run that could be undone: nothing was changed")


def undo_run(
    ledger: Ledger,
    state: State,
    run_id: str,
    *,
    undo_id: str,
    trade_id: str | None = None,
    dry_run: bool = False,
    now: datetime | None = None,
) -> Report:
    """Undoes a run, or what it did to one trade; raises NothingToDo, Locked, LedgerFailed, StateFailed."""
    at = now or datetime.now(UTC)
    with locked(state, f"undo {run_id}", dry_run=dry_run) as lease:
        entries = state.journal(run_id=run_id)
        if trade_id is not None:
            entries = [step for step in entries if step.trade_id == trade_id]
            if not entries:
                raise NothingToDo(f"run {run_id!r} did nothing to trade {trade_id!r}: nothing was changed")
        present = ledger.get({step.trade_id for step in entries})
        settled = _settled(entries, present)
        traces = _traces([settled.get(step.id, step) for step in entries], run_id)
        journal = journal_of(ledger, state, lease, kind=KIND, run_id=undo_id, now=at)
        corrections = [_correction(trace, present.get(i), i, run_id, journal) for i, trace in traces.items()]
        if lease is not None:
            ready = [correction.entry.trade_id for correction in corrections if correction.refusal is None]
            holds = {i: _hold(traces[i], run_id) for i in ready}
            carry_out(
                journal,
                corrections,
                subject=run_id,
                holds=holds,
                forget=CONCLUDED,
                settled=tuple(settled.values()),
            )
    return Report(undo_id, run_id, dry_run, tuple(correction.row(dry_run=dry_run) for correction in corrections))


def _settled(entries: Sequence[JournalEntry], present: Mapping[str, Record]) -> dict[str, JournalEntry]:
    found = {}
    for step in entries:
        if step.outcome == INTENDED:
            record = present.get(step.trade_id)
            shows = step.after and record is not None and says(record, step.before or {}, step.after)
            found[step.id] = replace(step, outcome=WRITTEN if shows else SKIPPED)
    return found


def _traces(entries: Sequence[JournalEntry], run_id: str) -> dict[str, _Trace]:
    if not entries:
        raise NothingToDo(
            f"the journal knows no run {run_id!r}: nothing was changed; `ghostclean status` lists the runs"
        )
    traces: dict[str, _Trace] = {}
    for step in entries:
        if step.after is None or step.outcome != WRITTEN:
            continue
        trace = traces.get(step.trade_id)
        if trace is None:
            added = not step.before and "id" in step.after
            trace = traces[step.trade_id] = _Trace(step, dict(step.before or {}), dict(step.after), added)
        else:
            _follow(trace, step)
        trace.facts = _facts(step)
    if not traces:
        raise NothingToDo(f"run {run_id!r} changed nothing in the ledger: there is nothing to put back")
    return traces


def _follow(trace: _Trace, step: JournalEntry) -> None:
    before, after = step.before or {}, step.after or {}
    known = trace.before.keys() | trace.after.keys()
    trace.before.update({name: value for name, value in before.items() if name not in known})
    for name in before.keys() - after.keys():
        trace.after.pop(name, None)
    trace.after.update(after)
    trace.last = step


def _facts(step: JournalEntry) -> Any:
    return next((proof.get("fingerprint") for proof in step.proof if proof.get("what") == "broker facts"), None)


def _hold(trace: _Trace, run_id: str) -> dict[str, Any] | None:
    return None if trace.last.action == UNDONE else {"facts": trace.facts, "runId": run_id}


def _correction(trace: _Trace, record: Record | None, trade_id: str, run_id: str, journal: Journal) -> Correction:
    change, last = _change(trace, record, trade_id, run_id, journal.now()), trace.last
    made = journal.entry(trade_id, last.ticker, last.verdict, UNDONE, _reason(run_id), change=change)
    return Correction.of(change, made, _refusal(trace, record, journal.state))


def _reason(run_id: str) -> str:
    """Said of what was undone, and how it is found again."""
    return f"put back to what it was before run {run_id}"


def _change(trace: _Trace, record: Record | None, trade_id: str, run_id: str, now: datetime) -> Change:
    if trace.added:
        gone = {
            "status": "DELETED",
            "autoEntryStatus": "CLOSED",
            "closedAt": iso(now),
            "closeReason": f"undone:{run_id}",
        }
        return Change(trade_id, record, {**gone, "updatedAt": iso(now)})
    return Change(trade_id, record, trace.before, tuple(sorted(trace.after.keys() - trace.before.keys())))


def _refusal(trace: _Trace, record: Record | None, state: State) -> str | None:
    if trace.last.action == Action.FLATTENED:
        return "its shares were sold at the broker: no undo buys them back"
    if record is None:
        return "the trade is no longer in the ledger"
    if says(record, trace.before, trace.after):
        return None
    return f"the trade has changed since that run: {_changed_by(trace, record, state)}"


def _changed_by(trace: _Trace, record: Record, state: State) -> str:
    entries = state.journal(trade_id=trace.last.trade_id)
    known = [entry.id for entry in entries]
    later = entries[known.index(trace.last.id) + 1 :] if trace.last.id in known else []
    written = [entry for entry in later if entry.outcome == WRITTEN and entry.after is not None]
    if written and written[-1].action == UNDONE:
        return f"{written[-1].run_id} has put it back already"
    if written:
        return f"run {written[-1].run_id} has {written[-1].action} it; undo that one first"
    return f"the app has written {', '.join(sorted(_differing(trace, record)))}"


def _differing(trace: _Trace, record: Record) -> set[str]:
    changed = {name for name, value in trace.after.items() if not says(record, {}, {name: value})}
    return changed | ((trace.before.keys() - trace.after.keys()) & record.keys())
