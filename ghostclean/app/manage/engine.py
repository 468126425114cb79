"""Manages the open trades of one observation: what earlier runs began, then the most urgent trades."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.manage.closer import Closer, CloseState
from ghostclean.app.manage.stops import StopKeeper, StopOutcome
from ghostclean.app.manage.trade_closer import BLOCKED, MISSED, REASONS, UNFINISHED, TradeCloser
from ghostclean.app.manage.trade_journal import TradeChange, TradeJournal
from ghostclean.app.manage.trades import ManagedTrade, OpenTrades
from ghostclean.app.observation import Observation
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Price
from ghostclean.core.attention import Kind, about
from ghostclean.core.broker import iso
from ghostclean.core.ledger import is_open, same
from ghostclean.core.protection import CUT, EOD, BegunClose, ManagePolicy
from ghostclean.core.verdicts import Action, Decision, Holding
from ghostclean.counts import counted
from ghostclean.errors import BrokerError, DeadlineExceeded, GhostcleanError

FLATTEN = "flatten"  # the state section of closes of trades that were begun
_TO_TOUCH_A_TRADE = 6.0  # seconds of deadline below which no further trade is begun
_BOOKED = frozenset({CloseState.DONE, CloseState.OVER})


@dataclass(slots=True)
class Counts:
    """What a run counts: trades worked on, changed and closed, and why it failed (first first).

    `touched` are those it tried, `judged` those of which it now knows what they need.
    """

    checked: int = 0
    updated: int = 0
    flattened: int = 0
    failures: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    judged: set[str] = field(default_factory=set)

    @property
    def reason(self) -> str | None:
        """Why the run failed: a position held over night first."""
        return MISSED if MISSED in self.failures else next(iter(self.failures), None)


@dataclass(slots=True)
class Engine:
    """Manages trades through the gateway; `observe_again` looks anew, for booking what was closed."""

    trades: OpenTrades
    parts: Parts
    journal: TradeJournal
    counts: Counts
    policy: ManagePolicy
    deadline: Deadline
    grace: timedelta
    run_id: str
    observe_again: Callable[[], Observation]
    _closer: Closer = field(init=False)
    _closes: TradeCloser = field(init=False)
    _stops: StopKeeper = field(init=False)
    _handled: set[str | None] = field(default_factory=set)  # their close of an earlier run was this one's work
    _refreshed: list[TradeChange] = field(default_factory=list)  # to be written together
    _ended: list[ManagedTrade] = field(default_factory=list)  # to be booked

    def __post_init__(self) -> None:
        gateway, journal = self.gateway, self.journal
        self._closer = Closer(gateway, self.parts.state, FLATTEN)
        self._closes = TradeCloser(gateway, self._closer, journal, self.deadline)
        self._stops = StopKeeper(gateway, journal, self.policy, self._closer, self.grace)

    @property
    def gateway(self) -> OrderGateway:
        return self.trades.gateway

    # ------------------------------------------------------------------ the trades of a run

    def manage(self, chosen: Sequence[Holding]) -> None:
        policy, now = self.policy, self.gateway.now()
        chosen = [h for h in chosen if h.trade.id not in self._handled]
        managed = self.trades.managed(chosen, self._prices(chosen), now)
        in_window = policy.eod_flatten and self.gateway.market.in_last(policy.eod_window, now)
        managed.sort(key=lambda m: (not (in_window and not m.is_crypto), m.urgency(policy, now), m.name))
        try:
            for index, one in enumerate(managed):
                if self.deadline.left() < _TO_TOUCH_A_TRADE:
                    self._out_of_time(len(managed) - index)
                    break
                self.parts.progress("managing", index + 1, len(managed))
                self._manage_one(one, in_window and not one.is_crypto)
        except DeadlineExceeded:
            self._out_of_time(len(managed) - self.counts.checked)
        self.journal.write(self._refreshed)
        self._write_closed()

    def _prices(self, holdings: Sequence[Holding]) -> Mapping[str, Price]:
        symbols = sorted({h.position.symbol for h in holdings})
        if not symbols:
            return {}
        try:
            prices = self.deadline.reading(lambda: self.parts.broker.prices(symbols))
            self.gateway.looker.note_prices(prices)
            return prices
        except BrokerError as error:
            self.journal.notes.append(f"prices cannot be read ({error}): only what needs none is done")
            self.counts.failures.append("no_prices")
            return {}

    def _out_of_time(self, left: int) -> None:
        self.journal.notes.append(f"the deadline left {counted(left, 'trade')} for the next run")
        self.counts.failures.append("deadline_exceeded")

    def _manage_one(self, managed: ManagedTrade, flatten: bool) -> None:
        self.counts.checked += 1
        # Tried is managed, whatever came of it: a trade whose close never gets through must not
        # stand first in every run while others wait behind the per-run maximum.
        self.counts.touched.add(managed.name)
        self.journal.of(managed.trade)["owner"] = managed.exposure.signature
        try:
            outcome = self._close_or_keep(managed, flatten)
        except BrokerError as error:
            self.journal.note(managed.trade, f"the broker failed: {error}")
            self.counts.failures.append("broker_failed")
            return
        if managed.price is not None:
            self.counts.judged.add(managed.name)
        if outcome is None:
            return
        if outcome.failed is not None:
            self.counts.failures.append(outcome.failed)
        self._write_kept(managed, outcome)

    def _close_or_keep(self, managed: ManagedTrade, flatten: bool) -> StopOutcome | None:
        """What keeping its stop came to; None where the trade was closed, or ended, instead."""
        if flatten and self._is_too_late(managed) and not managed.protection.is_naked:
            return StopOutcome()
        purpose, why = self._purpose(managed, flatten)
        if purpose is not None and self._close(managed, purpose, why):
            return None
        if purpose is None and why:
            return StopOutcome()
        outcome = self._stops.keep(managed)
        if outcome.over:
            self._ended.append(managed)
            return None
        return self._cut(managed, outcome) if outcome.cut else outcome

    def _cut(self, managed: ManagedTrade, outcome: StopOutcome) -> StopOutcome | None:
        if self._close(managed, CUT, outcome.reason):
            return None
        self.journal.flag(Kind.NAKED, managed.trade, outcome.reason)
        outcome.failed = "naked"
        return outcome

    def _is_too_late(self, managed: ManagedTrade) -> bool:
        if not self.gateway.market.in_last_seconds(managed.is_crypto, self.gateway.now()):
            return False
        self.journal.flag(Kind.MISSED, managed.trade, "too near to the close to be flattened")
        self.counts.failures.append(MISSED)
        return True

    def _purpose(self, managed: ManagedTrade, flatten: bool) -> tuple[str | None, str]:
        """Why the trade is to be closed now, if it is; a reason without a purpose leaves it alone."""
        now = self.gateway.now()
        may_close = self.gateway.market.may_close(managed.is_crypto, now)
        if flatten and may_close:
            return EOD, "the session ends within its last minutes"
        memory = self.journal.of(managed.trade)
        self._watch_stop(managed, memory, may_close)
        if not managed.should_cut(self.policy, now) or not may_close:
            memory.pop("firing", None)
            return None, ""
        if managed.stop_is_firing() and "firing" not in memory:
            memory["firing"] = iso(now)
            why = "its stop is at or through the market and is the cut: left alone for one run"
            self.journal.note(managed.trade, why)
            return None, why
        return CUT, f"R is at or below {self.policy.cut_loss_r} by its last sale and by its position"

    def _watch_stop(self, managed: ManagedTrade, memory: dict[str, object], may_close: bool) -> None:
        """A stop that the market has passed for more than one run does not fire."""
        if not (may_close and managed.stop_is_firing()):
            memory.pop("passed", None)
        elif "passed" in memory:
            why = f"its stop is at or through the market since {memory['passed']} and not filled"
            self.journal.need(Kind.STOP, managed.trade, why)
        else:
            memory["passed"] = iso(self.gateway.now())

    def _close(self, managed: ManagedTrade, purpose: str, why: str) -> bool:
        """Tries to close a trade; whether that was this run's work on it."""
        state, failed = self._closes.close(managed, purpose, why)
        if state is None and purpose == EOD:
            failed = BLOCKED
        self._count_close(state, failed, managed)
        return state is not None

    def _count_close(self, state: CloseState | None, failed: str | None, managed: ManagedTrade) -> None:
        if failed is not None:
            self.counts.failures.append(failed)
        self.counts.flattened += state in (CloseState.DONE, CloseState.WOULD)
        if state in _BOOKED:
            self.counts.judged.add(managed.name)
            self._ended.append(managed)

    def _write_kept(self, managed: ManagedTrade, outcome: StopOutcome) -> None:
        self.counts.updated += 1 if outcome.updated or outcome.fields else 0
        trade = managed.trade
        fields = dict(managed.money_fields()) | outcome.fields
        wrong_side = managed.risk is not None and managed.risk.wrong_side
        if trade.initial_stop is None and managed.holding.initial_stop is not None and not wrong_side:
            fields["initialStopPrice"] = managed.holding.initial_stop
        proof = self.journal.proof(outcome.proof)
        change = self._stamped(TradeChange.of(trade, fields, outcome.action, outcome.reason, *proof))
        if outcome.updated:
            self.journal.write([change])
        else:
            self._refreshed.append(change)

    def _stamped(self, change: TradeChange) -> TradeChange:
        if all(same(change.record, name, value) for name, value in change.fields.items()):
            return replace(change, fields={})
        own = change.record.get("autoManage")
        stamp = dict(own) if isinstance(own, Mapping) else {}
        stamp |= {"lastManagedAt": iso(self.gateway.now()), "lastRunId": self.run_id, "lastAction": change.action}
        return replace(change, fields={**change.fields, "autoManage": stamp})

    def _write_closed(self) -> None:
        """Books closed trades by a new observation, so that price and P&L come from the fills alone."""
        ended, self._ended = self._ended, []
        if not ended or self.journal.dry_run:
            return
        try:
            decisions = self._decided_again(ended)
        except (GhostcleanError, BrokerError) as error:
            self.journal.notes.append(f"the closed trades are booked by the next run ({error})")
            return
        for managed in ended:
            decision = decisions.get(managed.name)
            if not _is_proven_close(decision):
                self.journal.note(managed.trade, "it ended at the broker; the next run books it")
            elif self._book(decision):
                self._closer.forget(managed.name)

    def _decided_again(self, ended: Sequence[ManagedTrade]) -> dict[str | None, Decision]:
        """Decided anew; without the grace where the position shows all that was closed."""
        observed = self.observe_again()
        went = {m.name for m in ended if self.gateway.took_all(m.exposure, observed.truth.positions)}
        at_once = observed.without_grace().decisions if went else ()
        return {d.trade_id: d for d in observed.plan.decisions} | {d.trade_id: d for d in at_once if d.trade_id in went}

    def _book(self, decision: Decision | None) -> bool:
        assert decision is not None
        change = TradeChange(
            decision.trade_id or "",
            decision.ticker,
            decision.base or {},
            decision.fields,
            "closed",
            decision.reason,
            str(decision.verdict),
            tuple(p.to_dict() for p in decision.proof),
        )
        return self.journal.write([change]).get(change.trade_id, False)

    # ------------------------------------------------------------------ what earlier runs began

    def finish(self, begun: Mapping[str, BegunClose]) -> None:
        holdings = {h.trade.id: h for h in self.trades.manageable()}
        for trade_id, close in begun.items():
            try:
                holding = holdings.get(trade_id) or self._in_spite_of_grace(trade_id, close)
                if holding is None:
                    self._handled.add(trade_id)
                    self._finish_without_position(trade_id, close)
                    continue
                managed = self.trades.managed([holding], self._prices([holding]), self.gateway.now())[0]
                state, failed = self._closes.finish(managed, close)
                if state is not CloseState.STANDS:
                    self._handled.add(trade_id)
                self._count_close(state, failed, managed)
            except BrokerError as error:
                self._handled.add(trade_id)
                self._unfinished(trade_id, close, str(error))
                self.counts.failures.append(UNFINISHED)
        self._write_closed()

    def _in_spite_of_grace(self, trade_id: str, close: BegunClose) -> Holding | None:
        order = self._closes.latest(close)
        found = self.trades.in_spite_of_grace([order] if order is not None else [])
        return next((h for h in found if h.trade.id == trade_id), None)

    def _finish_without_position(self, trade_id: str, close: BegunClose) -> None:
        record = self.parts.ledger.get([trade_id]).get(trade_id)
        if record is None or not is_open(record):
            self._closer.forget(trade_id)
            return
        decision = next((d for d in self.trades.observed.plan.decisions if d.trade_id == trade_id), None)
        if _is_proven_close(decision):
            if self._book(decision):
                self.counts.flattened += 1
                self._closer.forget(trade_id)
            return
        order = self._closes.latest(close)
        if order is not None and order.status == "filled":
            self.journal.notes.append(
                f"{trade_id}: its {REASONS[close.purpose]} is filled and booked once it is settled"
            )
            return
        self._closes.end_queued(close)
        self._unfinished(trade_id, close, "what it holds is not proven")
        self.counts.failures.append(UNFINISHED)

    def _unfinished(self, trade_id: str, close: BegunClose, why: str) -> None:
        self.journal.notes.append(f"{trade_id}: its {REASONS[close.purpose]} is unfinished ({why})")
        self.journal.items.append(about(Kind.UNFINISHED, None, trade_id, f"{REASONS[close.purpose]}: {why}"))


def _is_proven_close(decision: Decision | None) -> bool:
    return decision is not None and decision.action is Action.CLOSED and not decision.unproven
