"""The one way into the ledger: intend, compare and set, outcome.

Invariants:
- a change stands in the journal, durably, before the ledger is touched;
- of two intents for one trade at most the later one is open, whenever the run is killed;
- an intent without an outcome stays open for the next run (`recovery`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ghostclean.app.deadline import Deadline, explained
from ghostclean.app.ports import Change, JournalEntry, Lease, Ledger, State, WriteOutcome
from ghostclean.core.broker import iso
from ghostclean.core.ledger import json_value, means
from ghostclean.core.verdicts import Decision, Proof
from ghostclean.errors import TradeRefused

# The stored words for what became of an entry.
INTENDED, WRITTEN, NOTED = "intended", "written", "noted"
SKIPPED = "left"  # not written after all

_RESERVE = 0.2  # seconds kept for the run's own record


@dataclass(slots=True)
class Posting:
    """A change on its way into the ledger; without an entry it goes in unjournaled (refreshed prices)."""

    change: Change
    entry: JournalEntry | None
    outcome: WriteOutcome | None = None

    @property
    def written(self) -> bool:
        return self.outcome is WriteOutcome.WRITTEN


@dataclass(slots=True)
class Journal:
    """The journal of one run; `entries` are those with an outcome, for its commit, `written` counts changes."""

    ledger: Ledger
    state: State
    lease: Lease | None
    deadline: Deadline
    run_id: str
    source: str
    now: Callable[[], datetime]
    entries: list[JournalEntry] = field(default_factory=list)
    written: int = 0
    _number: int = 0

    # ------------------------------------------------------------------ entries

    def entry(
        self, trade_id: str, ticker: str, verdict: str, action: str, reason: str,
        proof: Sequence[Mapping[str, Any]] = (), change: Change | None = None,
    ) -> JournalEntry:  # fmt: skip
        """An intended entry. Its id has the number of the lock: a run id may be used again."""
        self._number += 1
        fence = self.lease.token.partition(":")[0] if self.lease is not None else "0"
        return JournalEntry(
            id=f"{self.run_id}:{fence}:{trade_id}:{self._number}",
            at=iso(self.now()),
            run_id=self.run_id,
            source=self.source,
            trade_id=trade_id,
            ticker=ticker,
            verdict=verdict,
            action=action,
            reason=reason,
            proof=tuple(json_value(row) for row in proof),
            before=_before(change),
            after=dict(change.fields) if change is not None else None,
            outcome=INTENDED,
        )

    def decided(self, decision: Decision) -> JournalEntry:
        change = _change(decision) if decision.action.writes else None
        proof = [*decision.proof]
        if decision.facts:
            proof.append(Proof("broker facts", facts={"fingerprint": decision.facts}))
        return self.entry(
            decision.trade_id or "",
            decision.ticker,
            str(decision.verdict),
            str(decision.action),
            decision.reason,
            [row.to_dict() for row in proof],
            change,
        )

    def posting(self, decision: Decision) -> Posting:
        return Posting(_change(decision), self.decided(decision))

    # ------------------------------------------------------------------ the ledger

    def post(self, postings: Sequence[Posting]) -> bool:
        """Journals and writes, keeping each outcome as soon as it is known; False when time ran out."""
        size, refused = self.ledger.chunk, None
        for start in range(0, len(postings), size):
            if self.deadline.left() <= _RESERVE:
                return False
            try:
                self._post(postings[start : start + size])
            except TradeRefused as error:
                refused = error
        if refused is not None:
            raise refused
        return True

    def _post(self, postings: Sequence[Posting]) -> None:
        lease = self.lease
        assert lease is not None, "a run without the lock writes nothing"
        self._intend([p.entry for p in postings if p.entry is not None], lease)
        changes = [p.change for p in postings]
        done: list[WriteOutcome] = []
        unknown = "changes without an answer may or may not be written, the next run finds out"
        try:
            with explained(f"Writing the ledger at {self.ledger.place}", unknown):
                self.deadline.writing(lambda: self.ledger.write(changes, lease, done), reserve=_RESERVE)
        finally:
            for posting, outcome in zip(postings, done, strict=False):
                posting.outcome = outcome
                if posting.entry is not None:
                    self.written += posting.written
                    self.end(posting.entry, WRITTEN if posting.written else SKIPPED)

    def _intend(self, entries: Sequence[JournalEntry], lease: Lease) -> None:
        if not entries:
            return
        again = {entry.trade_id for entry in entries}
        ended = [e for e in self.entries if e.outcome == SKIPPED and e.trade_id in again]
        unchanged = "no more was changed" if self.written else "nothing was changed"
        with explained(f"Writing the journal at {self.state.place}", unchanged):
            self.deadline.writing(lambda: self.state.intend([*ended, *entries], lease), reserve=_RESERVE)

    # ------------------------------------------------------------------ beside the ledger

    def begin(self, entry: JournalEntry) -> None:
        """Journals what is about to be done at the broker, durably."""
        with explained(f"Writing the journal at {self.state.place}", "nothing was sent"):
            self.deadline.writing(lambda: self.state.intend([entry], self.lease))

    def end(
        self, entry: JournalEntry, outcome: str = NOTED, *, reason: str | None = None,
        proof: Sequence[Mapping[str, Any]] = (),
    ) -> None:  # fmt: skip
        more = tuple(json_value(row) for row in proof)
        self.entries.append(replace(entry, outcome=outcome, reason=reason or entry.reason, proof=(*entry.proof, *more)))


def says(
    record: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any], but: Collection[str] = ()
) -> bool:
    """Whether a record has every value of `after` and no field that it took out; `but` are not compared."""
    removed = before.keys() - after.keys() - set(but)
    return removed.isdisjoint(record) and all(
        name in record and means(record[name], after[name]) for name in after.keys() - set(but)
    )


def _change(decision: Decision) -> Change:
    return Change(decision.trade_id or "", decision.base, decision.fields, decision.remove)


def _before(change: Change | None) -> dict[str, Any] | None:
    if change is None or change.base is None:
        return None
    return {name: change.base[name] for name in (*change.fields, *change.remove) if name in change.base}
