"""What managing leaves behind: journaled ledger writes, notes for people, memory for the next run.

The journal is written before the ledger, an order's read-back before both: a killed run leaves
nothing that the next one cannot put right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ghostclean.app.ports import Change, JournalEntry, Lease, Ledger, Record, State, WriteOutcome
from ghostclean.core.broker import ZERO, iso
from ghostclean.core.ledger import changed, is_open, read_trade
from ghostclean.core.stops import is_tighter
from ghostclean.core.verdicts import Holding

MANAGED = "managed"
FLATTEN = "flatten"
_SAID_KEPT = 8
# What every price changes. It is no decision, and fifty trades every five minutes would drive the
# proofs of real changes out of a journal that keeps its newest 20,000 entries.
_OBSERVED = frozenset({"lastPrice", "unrealizedPnL", "unrealizedR", "autoManage", "updatedAt"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A change of one trade with the reason for it; `fields` may hold Decimals."""

    trade_id: str
    ticker: str
    record: Record
    fields: Mapping[str, Any]
    action: str
    reason: str
    verdict: str = "live"
    proof: tuple[Mapping[str, Any], ...] = ()


class Books:
    """Ledger, journal and memory of one run; in a dry run everything is only noted."""

    def __init__(
        self,
        ledger: Ledger,
        state: State,
        lease: Lease | None,
        *,
        run_id: str,
        source: str,
        now: Callable[[], datetime],
        dry_run: bool,
    ) -> None:
        self.notes: list[str] = []
        self.entries: list[JournalEntry] = []
        self.managed: dict[str, dict[str, Any]] = {}
        self.dry_run = dry_run
        self._ledger = ledger
        self._state = state
        self._lease = lease
        self._run_id = run_id
        self._source = source
        self._now = now
        self._number = 0

    # ------------------------------------------------------------------ for people

    def note(self, holding: Holding, text: str) -> None:
        """One line about a trade, for the result document."""
        self.notes.append(f"{holding.trade.symbol} {holding.trade.id}: {text}")

    def once(self, holding: Holding, text: str) -> None:
        """A line about something that stays as it is: said when it is new, not every run."""
        memory = self.of(holding)
        said = memory.get("said")
        said = said if isinstance(said, list) else []
        if text not in said:
            memory["said"] = [*said, text][-_SAID_KEPT:]
            self.note(holding, text)

    def tell(self, holding: Holding, action: str, reason: str, facts: Mapping[str, Any]) -> None:
        """A journal entry that changes nothing in the ledger; repeated ones are left out."""
        memory = self.of(holding)
        line = f"{action}: {reason}"
        if memory.get("told") == line:
            return
        memory["told"] = line
        entry = Entry(holding.trade.id or "", holding.trade.symbol, holding.trade.record, {}, action, reason)
        self.entries.append(self._journal_entry(replace(entry, proof=self.proof(facts)), None, None, "noted"))

    def proof(self, facts: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        """The order that was asked for, with its numbers, as a journal entry's proof."""
        return ({"what": "order", "at": iso(self._now()), **facts},) if facts else ()

    def begin(self, holding: Holding, action: str, reason: str, facts: Mapping[str, Any]) -> None:
        """Journals what is about to be done, durable before this returns; it changes no field."""
        entry = Entry(
            holding.trade.id or "",
            holding.trade.symbol,
            holding.trade.record,
            {},
            action,
            reason,
            proof=({"what": "decision", "at": iso(self._now()), **facts},),
        )
        begun = self._journal_entry(entry, None, None, "intended")
        if not self.dry_run:
            self._state.intend([begun])
        self.entries.append(replace(begun, outcome="noted"))

    def settle_begun(self) -> None:
        """Marks what a killed run had begun; what came of it is told by entries of its own."""
        for entry in self._state.intents():
            if not entry.after and entry.run_id != self._run_id:
                self.entries.append(replace(entry, outcome="noted"))

    # ------------------------------------------------------------------ memory

    def recall(self, found: Mapping[str, Any]) -> None:
        """Takes what earlier runs remembered of every managed trade."""
        self.managed = {i: dict(value) for i, value in found.items() if isinstance(value, Mapping)}

    def of(self, holding: Holding) -> dict[str, Any]:
        """The memory of one trade; changes to it are kept at the end of the run."""
        return self.managed.setdefault(holding.trade.id or "", {})

    def keep_now(self, holding: Holding) -> None:
        """Stores a trade's memory at once, before something that a kill must not hide."""
        if not self.dry_run:
            self._state.remember(MANAGED, {holding.trade.id or "": self.of(holding)})

    # ------------------------------------------------------------------ ledger

    def write(self, entries: Sequence[Entry]) -> dict[str, bool]:
        """Journals and writes changes; by trade id, whether the ledger says so now.

        A record that the app changed meanwhile is read again and changed once more, as long as
        it is still open: what we write is what the broker says about our own orders.
        """
        pending = [(e, f) for e in entries if (f := changed(e.record, e.fields, self._now()))]
        lease = self._lease
        if not pending or self.dry_run or lease is None:
            return {e.trade_id: True for e, _ in pending}
        outcomes = self._write_once(pending, lease)
        again = [e for (e, _), outcome in zip(pending, outcomes, strict=True) if outcome is WriteOutcome.CHANGED]
        if again:
            fresh = self._ledger.get([e.trade_id for e in again])
            retried = [_anew(e, fresh[e.trade_id]) for e in again if is_open(fresh.get(e.trade_id, {}))]
            second = [(e, f) for e in retried if (f := changed(e.record, e.fields, self._now()))]
            done = dict(zip((e.trade_id for e, _ in second), self._write_once(second, lease), strict=True))
        else:
            done = {}
        return {
            e.trade_id: (done.get(e.trade_id, outcome) is WriteOutcome.WRITTEN)
            for (e, _), outcome in zip(pending, outcomes, strict=True)
        }

    def _write_once(self, pending: Sequence[tuple[Entry, dict[str, Any]]], lease: Lease) -> list[WriteOutcome]:
        if not pending:
            return []
        intended = [
            self._journal_entry(entry, {n: entry.record[n] for n in fields if n in entry.record}, fields, "intended")
            for entry, fields in pending
            if not _OBSERVED.issuperset(fields)
        ]
        if intended:
            self._state.intend(intended)
        changes = [Change(entry.trade_id, entry.record, fields) for entry, fields in pending]
        outcomes = self._ledger.write(changes, lease)
        became = {entry.trade_id: outcome for (entry, _), outcome in zip(pending, outcomes, strict=True)}
        for begun in intended:
            said = "written" if became[begun.trade_id] is WriteOutcome.WRITTEN else "left"
            self.entries.append(replace(begun, outcome=said))
        return outcomes

    def _journal_entry(
        self, entry: Entry, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, outcome: str
    ) -> JournalEntry:
        self._number += 1
        return JournalEntry(
            f"{self._run_id}:{self._number}:{entry.trade_id}",
            iso(self._now()),
            self._run_id,
            self._source,
            entry.trade_id,
            entry.ticker,
            entry.verdict,
            entry.action,
            entry.reason,
            entry.proof,
            before,
            after,
            outcome,
        )


def _anew(entry: Entry, record: Record) -> Entry:
    """The change on the record as the app has written it meanwhile: a tighter stop of its own stays."""
    before, now, ours = read_trade(entry.record), read_trade(record), entry.fields.get("stopPrice")
    moved = now.stop_price is not None and now.stop_price != before.stop_price
    if moved and ours is not None and is_tighter(now.side, now.stop_price or ZERO, ours):
        kept = {name: value for name, value in entry.fields.items() if name != "stopPrice"}
        return replace(entry, record=record, fields=kept)
    return replace(entry, record=record)
