"""What became of changes whose run died before it could say so, and the memory it took with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ghostclean.app.ports import JournalEntry
from ghostclean.app.run import Run
from ghostclean.core import counting
from ghostclean.core.jsonvalue import json_value
from ghostclean.core.verdicts import Action, Verdict
from ghostclean.core.world import Memory


def recover(run: Run, intents: Sequence[JournalEntry]) -> list[JournalEntry]:
    """What became of changes whose run died before it could say so."""
    if not intents or run.options.dry_run:
        return []
    present = run.options.deadline.reading(lambda: run.parts.ledger.get({e.trade_id for e in intents}))
    settled = []
    for entry in reversed(intents):  # the newest first: what it wrote hides what stood there before
        record = present.get(entry.trade_id)
        # The app may have closed a trade since we synced or reduced it: its status is no sign then.
        but = ("updatedAt", "status") if entry.action in (Action.SYNCED, Action.REDUCED) else ("updatedAt",)
        written = bool(entry.after) and record is not None and _says_all(record, entry.after or {}, but)
        written = written and not _written_by_another(run, entry, record or {})
        settled.append(replace(entry, outcome="written" if written else "left"))
        if written and record is not None:
            _restore(run, entry, record)
            kept = {n: v for n, v in record.items() if n not in (entry.after or {})}
            present[entry.trade_id] = {**kept, **(entry.before or {})}
    return settled[::-1]


def with_restored(run: Run, memory: Memory) -> Memory:
    """The memory as it would be, had no run died: the breaker and the free fills rest on it."""
    exits = run.restored.get("exits", {})
    for trade_id, orders in exits.items():
        exits[trade_id] = list(dict.fromkeys((*memory.exits.get(trade_id, ()), *orders)))
    unproven = {**memory.unproven, **run.restored.get("unproven", {})}
    return replace(
        memory, exits={**memory.exits, **exits}, unproven={i: e for i, e in unproven.items() if e is not None}
    )


def _written_by_another(run: Run, entry: JournalEntry, record: Mapping[str, Any]) -> bool:
    """Whether the record owes its values to another run, which decided the same while this one was paused."""
    after = entry.after or {}
    if "updatedAt" not in after or _says_all(record, after, ()):
        return False
    known = run.options.deadline.reading(lambda: run.parts.state.journal(trade_id=entry.trade_id))
    return any(e.outcome == "written" and e.id != entry.id and e.after and _says_all({**e.after}, after) for e in known)


def _restore(run: Run, entry: JournalEntry, record: Mapping[str, Any]) -> None:
    """What the dead run would have remembered of a change that it did make."""
    if entry.verdict == Verdict.VANISHED and entry.action == Action.CLOSED:
        run.restored.setdefault("unproven", {})[entry.trade_id] = counting.unproven_close(
            entry.at, entry.run_id, entry.before or {}, entry.after or {}, record
        )
    if entry.verdict == Verdict.REOPENED:
        run.restored.setdefault("unproven", {})[entry.trade_id] = None
    orders = [str(p["orderId"]) for p in entry.proof if p.get("what") == "fill" and p.get("orderId")]
    if orders and entry.action in (Action.CLOSED, Action.REDUCED):
        run.restored.setdefault("exits", {})[entry.trade_id] = list(dict.fromkeys(orders))


def _says_all(record: Mapping[str, Any], after: Mapping[str, Any], but: Collection[str] = ("updatedAt",)) -> bool:
    """Whether a record says what was to be written; `updatedAt` is the app's to touch as well."""
    names = after.keys() - set(but)
    return all(name in record and json_value(record[name]) == json_value(after[name]) for name in names)
