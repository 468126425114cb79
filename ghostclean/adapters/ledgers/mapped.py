"""A ledger whose records have the app's own names, in the contract's terms.

A layout deals in the app's records. A change is decided on the record as it stands, and written while that stands;
what a record cannot show of a trade is kept beside it, in the state (`core/ledger/facts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from ghostclean.app.ports import Change, Lease, Ledger, LedgerView, Record, Records, State, Trouble, WriteOutcome
from ghostclean.core.ledger import (
    FACTS,
    LedgerMapping,
    Unspeakable,
    Written,
    facts_of,
    not_shown,
    pending,
    same_json,
    settled,
    shown,
    words_of,
)
from ghostclean.errors import TradeRefused

from .text import result_of


@dataclass(frozen=True, slots=True)
class Step:
    """A change in the app's terms; `before` and `after` are what the state keeps, `row` decides between them."""

    change: Change
    refused: TradeRefused | None = None
    before: Any = None
    meanwhile: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None

    @property
    def keeps(self) -> bool:
        return not same_json(self.after, self.before)


class MappedLedger:
    """The `Ledger` over a layout and a mapping."""

    def __init__(self, layout: Ledger, mapping: LedgerMapping, state: Callable[[], State] | None) -> None:
        self.place = layout.place + mapping.rows
        self._layout = layout
        self._mapping = mapping
        self._state = state

    @property
    def chunk(self) -> int:
        return self._layout.chunk

    @property
    def mapping(self) -> LedgerMapping:
        return self._mapping

    # ------------------------------------------------------------------ reading

    def read(self, *, whole: bool = False) -> LedgerView:
        view = self._layout.read(whole=whole)
        return replace(view, active=tuple(self._records(view.active)))

    def history(self, keys: frozenset[str]) -> list[Record]:
        return self._records(self._layout.history(keys))

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        raws = self._layout.get(ids)
        return dict(zip(raws, self._records(raws.values()), strict=True))

    def records(self) -> Records:
        return self._layout.records()

    def fill(self, texts: Sequence[str], *, dry_run: bool = False) -> None:
        self._layout.fill(texts, dry_run=dry_run)

    def describe(self) -> str:
        return f"{self._layout.describe()}, by {self.mapping.source}".removesuffix(", by ")

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        return [*self._layout.rehearse(lease), *unplaced(self.mapping)]

    def _records(self, raws: Iterable[Record]) -> list[Record]:
        raws = list(raws)
        ids = [self.mapping.id_of(raw) for raw in raws]
        kept = self._kept(i for i in ids if i is not None)
        return [self._record(raw, kept.get(i or "")) for raw, i in zip(raws, ids, strict=True)]

    def _record(self, raw: Record, kept: Any) -> Record:
        return shown(self.mapping.read(raw), facts_of(kept, raw))

    # ------------------------------------------------------------------ writing

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        outcomes = [] if done is None else done
        if not changes:
            return outcomes
        kept = self._kept(change.trade_id for change in changes)
        present = self._layout.get([change.trade_id for change in changes if change.base is not None])
        steps = [self._step(c, present.get(c.trade_id), kept.get(c.trade_id)) for c in changes]
        told = {step.change.trade_id: step.meanwhile for step in steps if step.keeps and step.meanwhile is not None}
        self._remember(told, lease)
        try:
            self._write(steps, lease, outcomes)
        finally:
            ended: dict[str, Any] = {}
            for step, outcome in zip(steps, outcomes, strict=False):
                if step.keeps and (outcome is WriteOutcome.WRITTEN or step.change.trade_id in told):
                    ended |= self._ended(step, outcome)
            self._remember(ended, lease)
        return outcomes

    def _write(self, steps: Sequence[Step], lease: Lease, outcomes: list[WriteOutcome]) -> None:
        """Lets the layout write; what is refused of one trade is told when all others are written."""
        refused: list[TradeRefused] = []
        for is_refused, group in groupby(steps, lambda step: step.refused is not None):
            if is_refused:
                these = [step.refused for step in group if step.refused is not None]
                refused += these
                outcomes += [WriteOutcome.REFUSED] * len(these)
                continue
            try:
                self._layout.write([step.change for step in group], lease, outcomes)
            except TradeRefused as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def _ended(self, step: Step, outcome: WriteOutcome) -> dict[str, Any]:
        """What is kept now that the outcome is known."""
        return {step.change.trade_id: step.after if outcome is WriteOutcome.WRITTEN else step.before}

    def _step(self, change: Change, raw: Record | None, kept: Any) -> Step:
        """The change on the record as it stands, if that still says what the decision saw."""
        if change.base is None:
            return self._translated(change, {}, kept)
        if raw is None:
            return Step(replace(change, base={}, fields={}, remove=()))
        there = self._record(raw, kept)
        if same_json(there, change.base):
            return self._translated(change, raw, kept)
        if same_json(there, result_of(change)):
            return self._translated(replace(change, fields={}, remove=()), raw, kept)
        return Step(replace(change, base={}, fields={}, remove=()))

    def _translated(self, change: Change, raw: Record, kept: Any) -> Step:
        mapping, words, before = self.mapping, words_of(kept), facts_of(kept, raw)
        try:
            new = change.base is None
            written = mapping.insert(change.fields) if new else mapping.write(raw, change.fields, change.remove, words)
            now = self._after(change.trade_id, raw, written)
        except Unspeakable as error:
            why = f"Trade {change.trade_id} cannot be written to {self.place}: {error}; nothing of it was changed."
            return Step(change, TradeRefused(f"{why} Cure: give it one in {mapping.source}."))
        except TradeRefused as error:
            return Step(change, error)
        facts = {n: pair for n, pair in before.items() if n not in change.fields and n not in change.remove}
        facts |= not_shown(mapping.read(now), change.fields)
        words = {**words, **mapping.own_words(raw, change.fields)}
        told = replace(change, base=None if new else raw, fields=written.fields, remove=written.remove)
        row = {name: now[name] for name in written.fields if name in now}
        meanwhile = pending(before, facts, _decisive(mapping, row), words) if row else None
        return Step(told, None, kept, meanwhile, settled(facts, words))

    def _after(self, trade_id: str, raw: Record, written: Written) -> Record:
        """What the record shows once this is written."""
        return {name: value for name, value in {**raw, **written.fields}.items() if name not in written.remove}

    # ------------------------------------------------------------------ what is kept beside

    def _kept(self, ids: Iterable[str]) -> dict[str, Any]:
        wanted = list(ids)
        return self._state().recall(FACTS, wanted) if self._state is not None and wanted else {}

    def _remember(self, kept: Mapping[str, Any], lease: Lease) -> None:
        if self._state is not None and kept:
            lease.verify()
            self._state().remember(FACTS, kept)


def _decisive(mapping: LedgerMapping, written: Mapping[str, Any]) -> Mapping[str, Any]:
    """What tells that a change was written: not its time, which the app sets as well."""
    stamp = mapping.fields.get("updatedAt")
    others = {name: value for name, value in written.items() if stamp is None or name != stamp.path[0]}
    return others or written


def mapped(layout: Ledger, mapping: LedgerMapping, state: Callable[[], State] | None = None) -> Ledger:
    """The ledger of a layout that reads with this mapping; without one the app's terms are the contract's."""
    return layout if mapping.is_identity else MappedLedger(layout, mapping, state)


def unplaced(mapping: LedgerMapping) -> list[Trouble]:
    """What runs write and the app has no field for."""
    if mapping.extra is not None or not mapping.unplaced:
        return []
    found = f"no field for {', '.join(mapping.unplaced)}: ghostclean keeps them in its own state"
    return [Trouble(found, "name their fields in the mapping, or a field for all of them as extra", fails=False)]
