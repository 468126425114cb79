"""Closes trades (cut loss, end of the day) and ends what earlier runs began, with note, journal and ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.manage.closer import (
    CANCEL_SECONDS,
    FILL_SECONDS,
    NEEDS_SECONDS,
    SKEW,
    CloseOutcome,
    Closer,
    CloseState,
    CloseTarget,
)
from ghostclean.app.manage.stops import stop_fields
from ghostclean.app.manage.trade_journal import TradeChange, TradeJournal
from ghostclean.app.manage.trades import ManagedTrade
from ghostclean.core.attention import Kind
from ghostclean.core.broker import Order, Side, eastern_date, plain
from ghostclean.core.protection import CUT, EOD, SWAP, BegunClose, Exposure

REASONS = {CUT: "cut_loss", EOD: "eod_flatten", SWAP: "stop beside its target"}
MISSED = "eod_missed"
BLOCKED = "eod_flatten_blocked"  # it could not even be begun
UNFINISHED = "flatten_unfinished"
_LAG = timedelta(minutes=2)  # how long a position may still show what a fill has taken
# A close that came to this is over; what the trade needs then, the rules of the next run know.
_ENDED = frozenset({CloseState.OVER, CloseState.HELD, CloseState.RESTORED, CloseState.UNPROTECTED})
_FAILED = {CloseState.WAITING: "close_waits", CloseState.STANDS: "close_waits", CloseState.UNKNOWN: "close_unknown"}


@dataclass(frozen=True, slots=True)
class TradeCloser:
    """Closes trades of one run, each to its end."""

    gateway: OrderGateway
    closer: Closer
    journal: TradeJournal
    deadline: Deadline

    # ------------------------------------------------------------------ one close

    def close(self, managed: ManagedTrade, purpose: str, why: str) -> tuple[CloseState | None, str | None]:
        """Closes one trade: its state (None where no close was begun), and why that failed; raises BrokerError."""
        trade, word = managed.trade, REASONS[purpose]
        if self.deadline.left() < NEEDS_SECONDS:
            self.journal.note(trade, f"{word} waits: less than {NEEDS_SECONDS:.0f} s of deadline are left")
            return None, None
        working = [o for o in managed.protection.waiting if not o.is_stop]
        if working:
            self.journal.note(trade, f"its closing order {working[0].id} is {working[0].status}: in progress")
            return CloseState.WORKING, None
        refused = self.gateway.why_not_close(managed.exposure, managed.in_the_way)
        if refused is not None:
            self.journal.note(trade, f"{word} not started: {refused}")
            self.journal.need(Kind.UNFINISHED, trade, f"{word} not started: {refused}")
            self.journal.tell(trade, f"{word}_blocked", refused, {})
            return None, None
        stop = managed.protection.stop
        price = stop.stop_price if stop is not None and stop.stop_price else trade.stop_price
        begun = BegunClose.of_trade(managed.exposure, purpose, self.gateway.now(), price, managed.protection.holders)
        self.closer.remember(managed.name, begun)
        self.journal.note(trade, f"{word}: {why}")
        facts = {"quantity": plain(managed.qty), "price": plain(managed.price.value) if managed.price else None}
        self.journal.begin(trade, word, why, facts)
        return self._run(managed, begun)

    def _run(self, managed: ManagedTrade, begun: BegunClose) -> tuple[CloseState, str | None]:
        def on_sent(order: Order, request: Mapping[str, Any]) -> None:
            # A kill leaves the proof behind: the ledger names the close before its end is known.
            self._write(
                managed, {"closeOrderId": order.id}, "close_sent", f"closing order {order.id} was sent", request
            )

        found = self.closer.run(_target(managed), begun, on_sent)
        failed = self._record(managed, begun, found)
        if found.failure is not None:
            raise found.failure
        return found.state, failed

    def _record(self, managed: ManagedTrade, begun: BegunClose, found: CloseOutcome) -> str | None:
        trade, word, order = managed.trade, REASONS[begun.purpose], found.order
        request = dict(found.request or {})
        if found.state is CloseState.WOULD:
            self.journal.note(trade, f"{word}: would close {request.get('qty')}")
        elif found.state is CloseState.DONE and order is not None:
            self.journal.note(trade, f"{word}: {_filled(order)}")
            self.journal.tell(trade, word, "filled", request)
        elif found.state in (CloseState.WORKING, CloseState.OVER):
            self.journal.note(trade, f"{word}: {found.reason}")
            if found.state is CloseState.OVER:
                self.closer.forget(managed.name)
        elif found.state in _FAILED:
            self.journal.note(trade, f"{word} waits: {found.reason}; the next run goes on")
            self.journal.need(Kind.UNFINISHED, trade, f"{word}: {found.reason}")
            return _FAILED[found.state]
        else:
            self.journal.note(trade, f"{word} not done: {found.reason}")
            self.journal.need(Kind.UNFINISHED, trade, f"{word} not done: {found.reason}")
            self._restored(managed, found)
            self._unname(managed, order)
            return "close_incomplete" if order is not None and order.status == "filled" else "close_refused"
        return None

    def _restored(self, managed: ManagedTrade, found: CloseOutcome) -> None:
        """The ledger names the stop that is back; what is not back is said, and stays remembered."""
        if found.state is not CloseState.RESTORED:
            self.journal.flag(Kind.NAKED, managed.trade, found.reason)
        if found.state in _ENDED and found.failure is None:
            self.closer.forget(managed.name)
        answer = found.stop
        if answer is None or not answer.is_done:
            return
        fields, where = stop_fields(self.gateway.known, answer)
        said = f"stop restored ({answer.outcome}){where}"
        self.journal.note(managed.trade, said)
        if found.failure is None:
            self._write(managed, fields, "stop_restored", said, answer.request)

    # ------------------------------------------------------------------ what an earlier run began

    def finish(self, managed: ManagedTrade, begun: BegunClose) -> tuple[CloseState, str | None]:
        """Ends a close of an earlier run while its day lasts, else takes it back."""
        if begun.purpose == SWAP:
            return self._finish_swap(managed, begun)
        order = self.gateway.names.latest(begun.name, begun.purpose, since=begun.at - SKEW)
        if order is not None and (state := self._state_of(managed, order)) is not None:
            return state, None
        waits = self._why_unfinished(managed)
        if waits is not None:
            self.journal.note(managed.trade, f"{REASONS[begun.purpose]} of an earlier run waits: {waits}")
            self.journal.need(Kind.UNFINISHED, managed.trade, f"{REASONS[begun.purpose]}: {waits}")
            return CloseState.WAITING, UNFINISHED
        if not self._is_in_its_session(managed, begun):
            return self._take_back(managed, begun)
        self.journal.note(managed.trade, f"{REASONS[begun.purpose]} of an earlier run is finished")
        if begun.name != managed.exposure.signature:  # an earlier version's: its order is over
            begun = replace(begun, name=managed.exposure.signature)
            self.closer.remember(managed.name, begun)
        return self._run(managed, begun)

    def _state_of(self, managed: ManagedTrade, order: Order) -> CloseState | None:
        """Where the closing order of an earlier run has come to; None where it is over and left something."""
        was_final = order.is_final
        order = self.gateway.end_of(managed.exposure, order, FILL_SECONDS)
        if not order.is_final:
            self.journal.note(managed.trade, f"its close {order.id} is in progress ({order.status})")
            return CloseState.WORKING
        if order.status != "filled":
            return None
        if not was_final:
            return CloseState.DONE
        is_recent = order.fill_time is not None and self.gateway.now() - order.fill_time < _LAG
        return CloseState.WORKING if is_recent else None  # until then what is left is not known

    def _is_in_its_session(self, managed: ManagedTrade, begun: BegunClose) -> bool:
        same_day = eastern_date(begun.at) == eastern_date(self.gateway.now())
        return same_day and self.gateway.market.may_close(managed.is_crypto, self.gateway.now())

    def _why_unfinished(self, managed: ManagedTrade) -> str | None:
        if not managed.protection.holders:
            return None
        if self.deadline.left() < NEEDS_SECONDS:
            return "too little of the deadline is left"
        may_close = self.gateway.market.may_close(managed.is_crypto, self.gateway.now())
        return self.gateway.why_wash_trade(managed.exposure, managed.in_the_way) if may_close else None

    def _take_back(self, managed: ManagedTrade, begun: BegunClose) -> tuple[CloseState, str | None]:
        order = self.gateway.names.latest(begun.name, begun.purpose, since=begun.at - SKEW)
        if managed.protection.is_naked:
            found = self.closer.restore(_target(managed), begun, order)
            self.journal.note(
                managed.trade, f"{REASONS[begun.purpose]} of an earlier run came too late: {found.reason}"
            )
            self._restored(managed, found)
            ended = found.state in _ENDED
        else:
            found, ended = CloseOutcome(CloseState.STANDS, "its stop stands"), True
            self.closer.forget(managed.name)
        self._unname(managed, order)
        if not ended:
            self.journal.need(Kind.UNFINISHED, managed.trade, f"{REASONS[begun.purpose]}: {found.reason}")
            return found.state, UNFINISHED
        if begun.purpose != EOD:
            return found.state, None
        self.journal.need(Kind.MISSED, managed.trade, f"its close came too late: {found.reason}")
        return found.state, MISSED

    def _finish_swap(self, managed: ManagedTrade, begun: BegunClose) -> tuple[CloseState, str | None]:
        """The OCO that an earlier run made room for; over once a stop works or the target still stands."""
        if not managed.protection.is_naked:
            self.closer.forget(managed.name)
            return CloseState.STANDS, None
        found = self.closer.restore(_target(managed), begun)
        self.journal.note(managed.trade, f"{REASONS[SWAP]}: {found.reason}")
        if found.state is CloseState.STANDS:
            self.closer.forget(managed.name)
            return found.state, None
        self._restored(managed, found)
        return found.state, None if found.state is CloseState.RESTORED else "naked"

    def latest(self, begun: BegunClose) -> Order | None:
        return self.gateway.names.latest(begun.name, begun.purpose)

    def end_queued(self, begun: BegunClose) -> None:
        """Cancels a close that waits for the next open of its market."""
        order = self.latest(begun)
        if order is None or order.is_final or self.gateway.market.is_open(order.is_crypto, self.gateway.now()):
            return
        side = Side.LONG if order.side == Side.LONG.closing else Side.SHORT
        exposure = Exposure.behind(order, begun.name, side, self.gateway.now())
        self.gateway.cancel(exposure, [order], CANCEL_SECONDS, "the market has closed")

    # ------------------------------------------------------------------ the ledger

    def _unname(self, managed: ManagedTrade, order: Order | None) -> None:
        if order is None or not order.is_final or order.filled_qty:
            return
        trade = managed.trade
        before = trade.record.get("closeOrderId")
        fields = {"closeOrderId": None if before == order.id else before}
        reason = f"closing order {order.id} is {order.status} and filled nothing"
        change = TradeChange.of(trade, fields, "close_ended", reason)
        self.journal.write([replace(change, record={**trade.record, "closeOrderId": order.id})])

    def _write(
        self, managed: ManagedTrade, fields: Mapping[str, Any], action: str, reason: str, facts: Mapping[str, Any]
    ) -> None:
        self.journal.write([TradeChange.of(managed.trade, fields, action, reason, *self.journal.proof(facts))])


def _target(managed: ManagedTrade) -> CloseTarget:
    return CloseTarget(managed.exposure, managed.protection.holders, managed.holding.entry)


def _filled(order: Order) -> str:
    price = plain(order.avg_price) if order.avg_price is not None else "an unknown price"
    return f"{plain(order.filled_qty)} closed at {price} (order {order.id})"
