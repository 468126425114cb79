"""Manages the chosen trades of one survey, the most urgent first, and books what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from ghostclean.app.deadline import Deadline
from ghostclean.app.manage.books import Books, Entry
from ghostclean.app.manage.desk import Desk, Seen, without_grace
from ghostclean.app.manage.flatten import CUT, EOD, REASONS, Closing, Flattener
from ghostclean.app.manage.stops import Kept, StopKeeper
from ghostclean.app.manage.work import Work
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Price
from ghostclean.core.broker import iso
from ghostclean.core.ledger import is_open, same
from ghostclean.core.manage import Manage
from ghostclean.core.verdicts import Action, Decision, Holding
from ghostclean.errors import BrokerError, DeadlineExceeded, GhostcleanError

MISSED = "eod_missed"
_TO_TOUCH_A_TRADE = 6.0  # seconds of deadline below which no further trade is begun


@dataclass(slots=True)
class Tally:
    """What a run counts: trades worked on, changed and closed, and why it failed (first first)."""

    checked: int = 0
    updated: int = 0
    flattened: int = 0
    failures: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)

    @property
    def reason(self) -> str | None:
        """Why the run failed: a position held over night outweighs what led to it."""
        return MISSED if MISSED in self.failures else next(iter(self.failures), None)


class TradeManager:
    """Manages trades at one desk; `survey` looks anew, for booking what was closed."""

    def __init__(
        self,
        desk: Desk,
        parts: Parts,
        books: Books,
        tally: Tally,
        manage: Manage,
        deadline: Deadline,
        *,
        grace: timedelta,
        run_id: str,
        survey: Callable[[], Seen],
    ) -> None:
        self._desk = desk
        self._parts = parts
        self._books = books
        self._tally = tally
        self._settings = manage
        self._deadline = deadline
        self._run_id = run_id
        self._survey = survey
        self._handled: set[str | None] = set()  # trades whose close of an earlier run was the work of this one
        now = parts.broker.now
        self._keeper = StopKeeper(
            desk.door,
            books,
            manage,
            grace=grace,
            now=now,
            may_close=lambda w: desk.market.may_close(w.claim.crypto, now()),
        )
        self._flattener = Flattener(desk.door, books, self._keeper, parts.state, desk.market, deadline, now)

    # ------------------------------------------------------------------ the trades of a run

    def manage(self, chosen: Sequence[Holding]) -> None:
        """Works on these trades until they are done or the deadline is near."""
        manage, now = self._settings, self._parts.broker.now()
        chosen = [h for h in chosen if h.trade.id not in self._handled]
        works = self._desk.works(chosen, self._prices(chosen), now)
        in_window = manage.eod_flatten and self._desk.market.in_last(manage.eod_window, now)
        works.sort(key=lambda w: (not (in_window and not w.claim.crypto), w.urgency(manage, now), w.claim.name))
        refreshed: list[Entry] = []
        done: list[Work] = []
        try:
            for index, work in enumerate(works):
                if self._deadline.left() < _TO_TOUCH_A_TRADE:
                    self._out_of_time(len(works) - index)
                    break
                self._manage_one(work, in_window and not work.claim.crypto, refreshed, done)
        except DeadlineExceeded:
            self._out_of_time(len(works) - self._tally.checked)
        if refreshed:
            self._books.write(refreshed)
        self._write_closed(done)

    def _prices(self, holdings: Sequence[Holding]) -> Mapping[str, Price]:
        symbols = sorted({h.position.symbol for h in holdings})
        if not symbols:
            return {}
        try:
            return self._deadline.reading(lambda: self._parts.broker.prices(symbols))
        except BrokerError as error:
            self._books.notes.append(f"prices cannot be read ({error}): only what needs none is done")
            self._tally.failures.append("no_prices")
            return {}

    def _out_of_time(self, left: int) -> None:
        self._books.notes.append(f"the deadline left {left} trades for the next run")
        self._tally.failures.append("deadline_exceeded")

    def _manage_one(self, work: Work, flatten: bool, refreshed: list[Entry], done: list[Work]) -> None:
        """One trade, from its close or its stop to its ledger fields; an error is its own affair."""
        self._tally.checked += 1
        # Tried is managed, whatever came of it: a trade whose close never gets through must not
        # stand first in every run while others wait behind the per-run maximum.
        self._tally.touched.add(work.claim.name)
        try:
            if flatten and self._desk.market.in_last_seconds(work.claim.crypto, self._parts.broker.now()):
                self._books.note(work.holding, "eod_missed: too near to the close to be flattened")
                self._tally.failures.append(MISSED)
                if not work.protection.is_naked:
                    self._note_kept(work, Kept(), refreshed)
                    return
            purpose, why = self._purpose(work, flatten)
            if purpose is not None and self._closed(work, purpose, why, done):
                return
            kept = Kept() if purpose is None and why else self._keeper.keep(work)
            if kept.over:
                done.append(work)
                return
            if kept.cut:
                if self._closed(work, CUT, kept.reason, done):
                    return
                self._books.note(work.holding, f"naked: {kept.reason}")
                kept.failed = "naked"
            if kept.failed is not None:
                self._tally.failures.append(kept.failed)
            self._note_kept(work, kept, refreshed)
        except BrokerError as error:
            self._books.note(work.holding, f"the broker failed: {error}")
            self._tally.failures.append("broker_failed")

    def _purpose(self, work: Work, flatten: bool) -> tuple[str | None, str]:
        """Why the trade is to be closed now, if it is; a reason without a purpose leaves it alone."""
        now = self._parts.broker.now()
        if flatten and self._desk.market.may_close(work.claim.crypto, now):
            return EOD, "the session ends within its last minutes"
        memory = self._books.of(work.holding)
        if not work.should_cut(self._settings, now) or not self._desk.market.may_close(work.claim.crypto, now):
            memory.pop("firing", None)
            return None, ""
        if work.stop_is_firing() and "firing" not in memory:
            memory["firing"] = iso(now)
            why = "its stop is at or through the market and is the cut: left alone for one run"
            self._books.note(work.holding, why)
            return None, why
        return CUT, f"R is at or below {self._settings.cut_loss_r} by its last sale and by its position"

    def _closed(self, work: Work, purpose: str, why: str, done: list[Work]) -> bool:
        """Tries to close a trade; whether that was this run's work on it."""
        closing = self._flattener.close(work, purpose, why)
        self._count_close(closing, work, done)
        return closing.begun

    def _count_close(self, closing: Closing, work: Work, done: list[Work]) -> None:
        if closing.failed is not None:
            self._tally.failures.append(closing.failed)
        self._tally.flattened += closing.done
        if closing.done or closing.over:
            done.append(work)

    def _note_kept(self, work: Work, kept: Kept, refreshed: list[Entry]) -> None:
        """Ledger fields of a managed trade: at once after an order, together with all others else."""
        self._tally.updated += 1 if kept.updated or kept.fields else 0
        trade = work.holding.trade
        fields = dict(work.money_fields()) | kept.fields
        if trade.initial_stop is None and work.holding.initial_stop is not None:
            fields["initialStopPrice"] = work.holding.initial_stop
        proof = self._books.proof(kept.proof)
        entry = Entry(trade.id or "", trade.symbol, trade.record, fields, kept.action, kept.reason, proof=proof)
        entry = self._stamped(entry)
        if kept.updated:
            self._books.write([entry])
        else:
            refreshed.append(entry)

    def _stamped(self, entry: Entry) -> Entry:
        """With `autoManage`, when there is anything to write at all."""
        if all(same(entry.record, name, value) for name, value in entry.fields.items()):
            return replace(entry, fields={})
        own = entry.record.get("autoManage")
        stamp = dict(own) if isinstance(own, Mapping) else {}
        stamp |= {
            "lastManagedAt": iso(self._parts.broker.now()),
            "lastRunId": self._run_id,
            "lastAction": entry.action,
        }
        return replace(entry, fields={**entry.fields, "autoManage": stamp})

    def _write_closed(self, done: Sequence[Work]) -> None:
        """Books closed trades by a new survey, so that price and P&L come from the fills alone."""
        if not done or self._books.dry_run:
            return
        try:
            seen = self._survey()
            positions = seen.truth.positions
            went = {w.claim.name for w in done if self._desk.door.took_all(w.claim, positions)}
            plan, shown = seen.plan, without_grace(seen) if went else seen.plan
        except (GhostcleanError, BrokerError) as error:
            self._books.notes.append(f"the closed trades are booked by the next run ({error})")
            return
        decisions = {d.trade_id: d for d in plan.decisions}
        at_once = {d.trade_id: d for d in shown.decisions}
        for work in done:
            decision = (at_once if work.claim.name in went else decisions).get(work.claim.name)
            if decision is None or decision.action is not Action.CLOSED or decision.unproven:
                self._books.note(work.holding, "it ended at the broker; the next run books it")
                continue
            written = self._books.write([_closed_entry(decision)])
            if written.get(work.claim.name):
                self._flattener.forget(work.claim.name)

    # ------------------------------------------------------------------ what earlier runs began

    def finish_begun(self) -> None:
        """The first work of a run: what an earlier one began to close."""
        intents = dict(self._flattener.unfinished())
        holdings = {h.trade.id: h for h in self._desk.manageable()}
        done: list[Work] = []
        for trade_id, intent in intents.items():
            self._handled.add(trade_id)
            try:
                holding = holdings.get(trade_id) or self._in_spite_of_grace(trade_id, intent.purpose)
                if holding is None:
                    self._finish_without_position(trade_id, intent.purpose)
                    continue
                work = self._desk.works([holding], self._prices([holding]), self._parts.broker.now())[0]
                self._count_close(self._flattener.finish(work, intent), work, done)
            except BrokerError as error:
                self._books.notes.append(f"{trade_id}: its {REASONS[intent.purpose]} is unfinished ({error})")
                self._tally.failures.append("flatten_unfinished")
        self._write_closed(done)

    def _in_spite_of_grace(self, trade_id: str, purpose: str) -> Holding | None:
        order = self._desk.door.latest(trade_id, purpose)
        found = self._desk.in_spite_of_grace([order] if order is not None else [])
        return next((h for h in found if h.trade.id == trade_id), None)

    def _finish_without_position(self, trade_id: str, purpose: str) -> None:
        """The trade is closed already, or its verdict is open: only a queued close must not wait."""
        record = self._parts.ledger.get([trade_id]).get(trade_id)
        if record is None or not is_open(record):
            self._flattener.forget(trade_id)
            return
        decision = next((d for d in self._desk.seen.plan.decisions if d.trade_id == trade_id), None)
        if decision is not None and decision.action is Action.CLOSED and not decision.unproven:
            if self._books.write([_closed_entry(decision)]).get(trade_id):
                self._tally.flattened += 1
                self._flattener.forget(trade_id)
            return
        order = self._desk.door.latest(trade_id, purpose)
        if order is not None and order.status == "filled":
            self._books.notes.append(f"{trade_id}: its {REASONS[purpose]} is filled and booked once it is settled")
            return
        self._flattener.end_queued(trade_id, purpose)
        self._books.notes.append(f"{trade_id}: its {REASONS[purpose]} is unfinished and what it holds is not proven")
        self._tally.failures.append("flatten_unfinished")


def _closed_entry(decision: Decision) -> Entry:
    """A proven close of the reconcile core: it knows the purpose of our orders by their names."""
    return Entry(
        decision.trade_id or "",
        decision.ticker,
        decision.base or {},
        decision.fields,
        "closed",
        decision.reason,
        str(decision.verdict),
        tuple(p.to_dict() for p in decision.proof),
    )
