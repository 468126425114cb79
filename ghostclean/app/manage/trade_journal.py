"""What managing leaves behind: changes of the ledger, notes for people, memory for the next run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from ghostclean.app.journal import Journal, Posting
from ghostclean.app.ports import Change, Ledger, Record, WriteOutcome
from ghostclean.core.broker import ZERO, iso
from ghostclean.core.ledger import Trade, changed, is_open, read_trade
from ghostclean.core.protection import is_tighter
from ghostclean.errors import DeadlineExceeded

MANAGED = "managed"
_SAID_KEPT = 8
# What every price changes. It is no decision, and fifty trades every five minutes would drive the
# proofs of real changes out of a journal that keeps its newest 20,000 entries.
_OBSERVED = frozenset({"lastPrice", "unrealizedPnL", "unrealizedR", "autoManage", "updatedAt"})


@dataclass(frozen=True, slots=True)
class TradeChange:
    """A change of one trade with the reason for it; `fields` may hold Decimals."""

    trade_id: str
    ticker: str
    record: Record
    fields: Mapping[str, Any]
    action: str
    reason: str
    verdict: str = "live"
    proof: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, trade: Trade, fields: Mapping[str, Any], action: str, reason: str, *proof: Mapping[str, Any]) -> Self:
        return cls(trade.id or "", trade.symbol, trade.record, fields, action, reason, proof=proof)


@dataclass(slots=True, kw_only=True)
class TradeJournal:
    """Ledger, notes and memory of the trades that one run manages; in a dry run everything is only noted."""

    ledger: Ledger
    journal: Journal
    notes: list[str]
    now: Callable[[], datetime]
    dry_run: bool
    managed: dict[str, dict[str, Any]] = field(default_factory=dict)

    # ------------------------------------------------------------------ for people

    def note(self, trade: Trade, text: str) -> None:
        self.notes.append(f"{trade.symbol} {trade.id}: {text}")

    def once(self, trade: Trade, text: str) -> None:
        """A note that is repeated only when it is new."""
        memory = self.of(trade)
        said = memory.get("said")
        said = said if isinstance(said, list) else []
        if text not in said:
            memory["said"] = [*said, text][-_SAID_KEPT:]
            self.note(trade, text)

    def tell(self, trade: Trade, action: str, reason: str, facts: Mapping[str, Any]) -> None:
        """Journals without a change of the ledger; repetitions are left out."""
        memory = self.of(trade)
        line = f"{action}: {reason}"
        if memory.get("told") == line:
            return
        memory["told"] = line
        self.journal.end(self.journal.entry(trade.id or "", trade.symbol, "live", action, reason, self.proof(facts)))

    def proof(self, facts: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        """The requested order as proof of a journal entry."""
        return ({"what": "order", "at": iso(self.now()), **facts},) if facts else ()

    def begin(self, trade: Trade, action: str, reason: str, facts: Mapping[str, Any]) -> None:
        """Journals an order to come, durably, without changing a field."""
        proof = ({"what": "decision", "at": iso(self.now()), **facts},)
        begun = self.journal.entry(trade.id or "", trade.symbol, "live", action, reason, proof)
        if not self.dry_run:
            self.journal.begin(begun)
        self.journal.end(begun)

    # ------------------------------------------------------------------ memory

    def recall(self, found: Mapping[str, Any]) -> None:
        self.managed = {i: dict(value) for i, value in found.items() if isinstance(value, Mapping)}

    def of(self, trade: Trade) -> dict[str, Any]:
        """The memory of one trade, kept at the end of the run."""
        return self.managed.setdefault(trade.id or "", {})

    # ------------------------------------------------------------------ ledger

    def write(self, changes: Sequence[TradeChange]) -> dict[str, bool]:
        """Journals and writes changes; by trade id, whether the ledger says so now.

        A record that the app changed meanwhile is changed once more while it is open.
        """
        pending = self._postings(changes)
        if not pending or self.dry_run:
            return dict.fromkeys(pending, True)
        self._post(pending)
        pending |= self._anew(changes, {i for i, p in pending.items() if p.outcome is WriteOutcome.CHANGED})
        return {trade_id: posting.written for trade_id, posting in pending.items()}

    def _anew(self, changes: Sequence[TradeChange], overtaken: set[str]) -> dict[str, Posting]:
        """The changes of records that the app has written meanwhile, on what they say now."""
        if not overtaken:
            return {}
        fresh = {i: record for i, record in self.ledger.get(overtaken).items() if is_open(record)}
        second = self._postings([_anew(c, fresh[c.trade_id]) for c in changes if c.trade_id in fresh])
        self._post(second)
        return second

    def _postings(self, changes: Sequence[TradeChange]) -> dict[str, Posting]:
        return {e.trade_id: self._posting(e, f) for e in changes if (f := changed(e.record, e.fields, self.now()))}

    def _posting(self, entry: TradeChange, fields: Mapping[str, Any]) -> Posting:
        change = Change(entry.trade_id, entry.record, fields)
        if _OBSERVED.issuperset(fields):
            return Posting(change, None)
        said = (entry.verdict, entry.action, entry.reason)
        return Posting(change, self.journal.entry(entry.trade_id, entry.ticker, *said, entry.proof, change))

    def _post(self, postings: Mapping[str, Posting]) -> None:
        if not self.journal.post([*postings.values()]):
            raise DeadlineExceeded("no time was left to write the ledger: nothing more was changed")


def _anew(entry: TradeChange, record: Record) -> TradeChange:
    """The change on the record as the app has written it meanwhile: a tighter stop of its own stays."""
    before, now, ours = read_trade(entry.record), read_trade(record), entry.fields.get("stopPrice")
    moved = now.stop_price is not None and now.stop_price != before.stop_price
    if moved and ours is not None and is_tighter(now.side, now.stop_price or ZERO, ours):
        kept = {name: value for name, value in entry.fields.items() if name != "stopPrice"}
        return replace(entry, record=record, fields=kept)
    return replace(entry, record=record)
