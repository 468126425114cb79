"""What became of changes whose run died before it could say so, and the memory it took with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ghostclean.app.journal import SKIPPED, WRITTEN, says
from ghostclean.app.operate.undo import CONCLUDED, UNDONE
from ghostclean.app.ports import JournalEntry, Recalled
from ghostclean.app.run import ReconcileRun
from ghostclean.core.safety import counting
from ghostclean.core.verdicts import Action, Verdict


def recover(run: ReconcileRun, intents: Sequence[JournalEntry]) -> list[JournalEntry]:
    if not intents or run.dry_run:
        return []
    present = run.deadline.reading(lambda: run.parts.ledger.get({e.trade_id for e in intents}))
    settled = []
    for entry in reversed(intents):  # the newest first: what it wrote hides what stood there before
        record = present.get(entry.trade_id)
        if record is None or not _shows(record, entry) or _written_by_another(run, entry, record):
            settled.append(replace(entry, outcome=SKIPPED))
            continue
        settled.append(replace(entry, outcome=WRITTEN))
        _restore(run, entry, record)
        present[entry.trade_id] = _without(record, entry)
    return settled[::-1]


def _without(record: Mapping[str, Any], entry: JournalEntry) -> dict[str, Any]:
    kept = {name: value for name, value in record.items() if name not in (entry.after or {})}
    return {**kept, **(entry.before or {})}


def with_restored(run: ReconcileRun, memory: Recalled) -> Recalled:
    """The memory as it would be, had no run died."""
    exits = run.restored.get("exits", {})
    for trade_id, orders in exits.items():
        if orders is not None:
            exits[trade_id] = list(dict.fromkeys((*memory.exits.get(trade_id, ()), *orders)))
    return replace(
        memory,
        exits=_known({**memory.exits, **exits}),
        unproven=_known({**memory.unproven, **run.restored.get("unproven", {})}),
    )


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {i: value for i, value in values.items() if value is not None}


def _shows(record: Mapping[str, Any], entry: JournalEntry) -> bool:
    before, after = entry.before or {}, entry.after or {}
    # The app may have closed a trade since we synced or reduced it: its status is no sign then.
    but = ("updatedAt", "status") if entry.action in (Action.SYNCED, Action.REDUCED) else ("updatedAt",)
    return bool(before or after) and says(record, before, after, but)


def _written_by_another(run: ReconcileRun, entry: JournalEntry, record: Mapping[str, Any]) -> bool:
    """Whether the record owes its values to another run, which decided the same while this one was paused."""
    after = entry.after or {}
    if "updatedAt" not in after or says(record, {}, after):
        return False
    known = run.deadline.reading(lambda: run.parts.state.journal(trade_id=entry.trade_id))
    others = (e.after for e in known if e.outcome == WRITTEN and e.id != entry.id and e.after)
    return any(says(theirs, {}, after, ("updatedAt",)) for theirs in others)


def _restore(run: ReconcileRun, entry: JournalEntry, record: Mapping[str, Any]) -> None:
    for section, value in _remembered(entry, record).items():
        # The newest entry of a trade comes first, and its word stands.
        run.restored.setdefault(section, {}).setdefault(entry.trade_id, value)


def _remembered(entry: JournalEntry, record: Mapping[str, Any]) -> dict[str, Any]:
    if entry.action == UNDONE:
        return dict.fromkeys(CONCLUDED)
    found: dict[str, Any] = {}
    if entry.verdict == Verdict.VANISHED and entry.action == Action.CLOSED:
        found["unproven"] = counting.unproven_close(
            entry.at, entry.run_id, entry.before or {}, entry.after or {}, record
        )
    if entry.verdict == Verdict.REOPENED:
        found["unproven"] = None
    orders = [str(i) for p in entry.proof if (i := p.get("activityId") or (p["what"] == "fill" and p.get("orderId")))]
    if orders and entry.action in (Action.CLOSED, Action.REDUCED):
        found["exits"] = list(dict.fromkeys(orders))
    return found
