"""Writes a plan: journal first, then the ledger by compare-and-set, closes before syncs.

What the app changed meanwhile is reported back to be decided again; what was written before the
deadline, a failure or Ctrl-C stays written, journaled and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ghostclean.app.deadline import Deadline, explained
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Change, JournalEntry, Lease, WriteOutcome
from ghostclean.core.ledger import json_value
from ghostclean.core.verdicts import Action, Decision, Proof

_RESERVE = 0.2  # seconds kept for the run's own record


@dataclass(slots=True)
class Applied:
    """What became of the decisions so far."""

    written: list[Decision] = field(default_factory=list)
    left: dict[str, WriteOutcome] = field(default_factory=dict)
    entries: list[JournalEntry] = field(default_factory=list)
    out_of_time: bool = False


@dataclass(frozen=True, slots=True)
class Writer:
    """Applies decisions for one run under one lease."""

    parts: Parts
    deadline: Deadline
    lease: Lease
    run_id: str
    source: str
    at: str

    def apply(self, decisions: Sequence[Decision], applied: Applied) -> None:
        """Journals and writes; outcomes are added to `applied`, also when this fails half-way."""
        size = self.parts.ledger.chunk
        for start in range(0, len(decisions), size):
            chunk = decisions[start : start + size]
            if self.deadline.left() <= _RESERVE:
                applied.out_of_time = True
                return
            self._apply_chunk(chunk, applied)

    def _apply_chunk(self, chunk: Sequence[Decision], applied: Applied) -> None:
        entries = [self.entry(d, "intended", len(applied.entries) + n) for n, d in enumerate(chunk)]
        changes = [_change(d) for d in chunk]
        # What the app kept us from writing before is settled now, so that of two intents for one
        # trade only the last can be open when we are killed.
        again = {e.trade_id for e in entries}
        settled = [e for e in applied.entries if e.outcome == "left" and e.trade_id in again]
        state, ledger = self.parts.state, self.parts.ledger
        unchanged = "no more was changed" if applied.written else "nothing was changed"
        with explained(f"Writing the journal at {state.place}", unchanged):
            self.deadline.writing(lambda: state.intend([*settled, *entries], self.lease), reserve=_RESERVE)
        done: list[WriteOutcome] = []
        unknown = "changes without an answer may or may not be written, the next run finds out"
        try:
            with explained(f"Writing the ledger at {ledger.place}", unknown):
                self.deadline.writing(lambda: ledger.write(changes, self.lease, done), reserve=_RESERVE)
        finally:
            # Of what has no outcome the intent stays, and the next run completes it.
            _settle(chunk, entries, done, applied)

    def entry(self, decision: Decision, outcome: str, number: int) -> JournalEntry:
        """The journal's form of a decision; the id is the same however often it is made.

        The lock's number is part of it: a run id that is used again never writes over old entries.
        """
        facts = Proof("broker facts", facts={"fingerprint": decision.facts}) if decision.facts else None
        proof = (*decision.proof, facts) if facts else decision.proof
        return JournalEntry(
            id=f"{self.run_id}:{self.lease.token.partition(':')[0]}:{decision.trade_id}:{number}",
            at=self.at,
            run_id=self.run_id,
            source=self.source,
            trade_id=decision.trade_id or "",
            ticker=decision.ticker,
            verdict=str(decision.verdict),
            action=str(decision.action),
            reason=decision.reason,
            proof=tuple(json_value(p.to_dict()) for p in proof),
            before=decision.before() if decision.action.writes else None,
            after=after(decision) if decision.action.writes else None,
            outcome=outcome,
        )


def _settle(
    chunk: Sequence[Decision], entries: Sequence[JournalEntry], outcomes: Sequence[WriteOutcome], applied: Applied
) -> None:
    """Keeps what became of the first decisions; of the others nothing is known."""
    for decision, entry, outcome in zip(chunk, entries, outcomes, strict=False):
        if outcome is WriteOutcome.WRITTEN:
            applied.written.append(decision)
            applied.entries.append(replace(entry, outcome="written"))
        else:
            applied.left[decision.trade_id or ""] = outcome
            applied.entries.append(replace(entry, outcome="left"))


def after(decision: Decision) -> dict[str, object] | None:
    """The values a decision writes."""
    return dict(decision.fields) if decision.action.writes else None


def _change(decision: Decision) -> Change:
    base = None if decision.action is Action.ADOPTED else decision.base
    return Change(decision.trade_id or "", base, decision.fields, decision.remove)
