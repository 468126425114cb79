"""Carries a begun close to its end, or back to the stop that it took away.

Invariants:
- a close is remembered before anything is cancelled, and forgotten only when it filled, the position is gone
  or in other hands, or a stop stands again;
- no stop beside a close that may still fill: it is looked up by its name first;
- without an answer from the broker the close stays remembered, and the next run goes on;
- while the stop is off, no request may use up the time that restoring it needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.gateway.sending import Answer, Outcome
from ghostclean.app.ports import State
from ghostclean.core.broker import ZERO, Order, Position, parse_client_id, plain, trade_tag
from ghostclean.core.protection import BegunClose, Exposure, SymbolView, can_take, exclusive, is_gone
from ghostclean.errors import BrokerError, DeadlineExceeded, StateFailed

NEEDS_SECONDS = 20.0  # of deadline, for one close from its first cancel to its verified end
SKEW = timedelta(seconds=5)  # between the broker's answers and its order times
CANCEL_SECONDS = 6.0
FILL_SECONDS = 6.0
_TO_RESTORE = 6.0  # seconds of deadline that are kept for the stop while it is off


class CloseState(Enum):
    """Where a close has come to."""

    WOULD = auto()  # a dry run
    DONE = auto()  # filled for all of it
    WORKING = auto()  # the closing order works: never sent again
    WAITING = auto()  # an order that holds the shares is not cancelled yet
    OVER = auto()  # the position is gone
    HELD = auto()  # orders of others hold the shares
    STANDS = auto()  # nothing was closed, and what held the shares still does
    RESTORED = auto()  # not closed, and the stop is back
    UNPROTECTED = auto()  # not closed, and there is no stop that may be sent
    NAKED = auto()  # not closed, and the stop is not back
    UNKNOWN = auto()  # whether the close arrived is not known


@dataclass(frozen=True, slots=True)
class CloseOutcome:
    """What a close came to, with its order and the restored stop; `failure` (our state was lost) ends the run."""

    state: CloseState
    reason: str
    order: Order | None = None
    request: Mapping[str, Any] | None = None
    stop: Answer | None = None
    failure: StateFailed | None = None


@dataclass(frozen=True, slots=True)
class CloseTarget:
    """What is closed; its `holders` and `entry` are cancelled first, `expected` must be unchanged (an orphan)."""

    exposure: Exposure
    holders: Sequence[Order] = ()
    entry: Order | None = None
    expected: Position | None = None


@dataclass(frozen=True, slots=True)
class Closer:
    """Closes, restores and remembers; `section` is where the begun closes are kept in the state."""

    gateway: OrderGateway
    state: State
    section: str

    # ------------------------------------------------------------------ memory

    def remember(self, key: str, begun: BegunClose) -> None:
        if not self.gateway.dry_run:
            self.state.remember(self.section, {key: begun.to_dict()})

    def forget(self, key: str) -> None:
        """Drops a close that is over; with the state lost just now, the next run drops it."""
        if not self.gateway.dry_run:
            with contextlib.suppress(StateFailed, DeadlineExceeded):
                self.state.remember(self.section, {key: None})

    # ------------------------------------------------------------------ the steps of a close

    def run(
        self,
        target: CloseTarget,
        begun: BegunClose,
        on_sent: Callable[[Order, Mapping[str, Any]], None] = lambda order, request: None,
    ) -> CloseOutcome:
        """Cancels what holds the shares, closes and verifies, else restores the stop; `on_sent` gets the order."""
        exposure = target.exposure
        with self._keeping_time_to_restore():
            try:
                left = self._make_room(target, begun)
                if left is not None:
                    reason = f"{left.id} is still {left.status}"
                    answer = Answer(Outcome.BLOCKED, reason)
                else:
                    answer = self.gateway.close(exposure, begun.purpose, expected=target.expected)
            except (BrokerError, DeadlineExceeded) as error:
                answer = Answer(Outcome.UNKNOWN, str(error))
            except StateFailed as error:
                self.gateway.names.state_lost = True
                return self._restored(target, begun, Answer(Outcome.UNKNOWN, str(error)), error)
        if answer.outcome is Outcome.WOULD:
            return CloseOutcome(CloseState.WOULD, answer.reason, None, answer.request)
        if answer.outcome is Outcome.MOOT:
            return CloseOutcome(CloseState.OVER, answer.reason)
        order = answer.order
        if order is None or (order.is_final and not order.filled_qty):
            return self._restored(target, begun, answer)
        on_sent(order, answer.request)
        return self._verify(target, begun, answer, order)

    def swap(self, target: CloseTarget, begun: BegunClose) -> CloseOutcome:
        """Cancels a target and sends it anew, together with a stop."""
        with contextlib.suppress(BrokerError, DeadlineExceeded):
            self.gateway.cancel(target.exposure, target.holders, CANCEL_SECONDS, "makes room for one OCO")
        return self.restore(target, begun)

    def _make_room(self, target: CloseTarget, begun: BegunClose) -> Order | None:
        gateway, entry = self.gateway, target.entry
        if entry is not None and not entry.is_final:
            # It would buy back what is sold, and the broker calls the pair a wash trade.
            entry = gateway.cancel_entry(target.exposure, entry, CANCEL_SECONDS)
            if entry is not None:
                return entry
        # Stops go last: none is taken off while something else still holds the shares.
        for group in sorted(exclusive(target.holders), key=lambda group: any(o.is_stop for o in group)):
            left = gateway.cancel(target.exposure, group, CANCEL_SECONDS, begun.purpose)
            if left:
                return left[0]
        return None

    def _verify(self, target: CloseTarget, begun: BegunClose, answer: Answer, order: Order) -> CloseOutcome:
        exposure = target.exposure
        try:
            order = self.gateway.settle(exposure, order, FILL_SECONDS)
        except (BrokerError, DeadlineExceeded) as error:
            return CloseOutcome(CloseState.UNKNOWN, str(error), order, answer.request)
        if order.status == "filled" and self.gateway.present(exposure).qty <= exposure.dust:
            return CloseOutcome(CloseState.DONE, "filled", order, answer.request)
        if not order.is_final and self.gateway.is_open(exposure):
            return CloseOutcome(CloseState.WORKING, _working(order), order, answer.request)
        return self._restored(target, begun, Answer(answer.outcome, answer.reason, order, answer.request))

    def _restored(
        self, target: CloseTarget, begun: BegunClose, answer: Answer, failure: StateFailed | None = None
    ) -> CloseOutcome:
        found = self.restore(target, begun, answer.order)
        said = f"order {answer.order.id} is {answer.order.status}" if answer.order is not None else answer.reason
        reason = f"{said}; {found.reason}"
        return CloseOutcome(found.state, reason, found.order or answer.order, answer.request, found.stop, failure)

    @contextlib.contextmanager
    def _keeping_time_to_restore(self) -> Iterator[None]:
        looker = self.gateway.looker
        before = looker.reserve
        looker.reserve = before + _TO_RESTORE
        try:
            yield
        finally:
            looker.reserve = before

    # ------------------------------------------------------------------ the stop goes back

    def restore(self, target: CloseTarget | None, begun: BegunClose, close: Order | None = None) -> CloseOutcome:
        """Restores the stop unless the close stands; never raises for what the broker does.

        `close` is the closing order if the caller has read it; `target` None takes the remembered orphan.
        """
        exposure = target.exposure if target is not None else begun.exposure(self.gateway.now())
        try:
            close, is_filled = self._close_so_far(exposure, begun, close)
        except (BrokerError, DeadlineExceeded) as error:
            return CloseOutcome(CloseState.UNKNOWN, str(error), close)
        if close is not None and is_filled:
            return CloseOutcome(CloseState.DONE, f"its close {close.id} is filled", close)
        if close is not None and not close.is_final:
            return CloseOutcome(CloseState.WORKING, _working(close), close)
        try:
            found = self._restore(exposure, begun)
        except (BrokerError, DeadlineExceeded) as error:
            found = CloseOutcome(CloseState.NAKED, str(error))
        return CloseOutcome(found.state, found.reason, found.order or close, None, found.stop)

    def _close_so_far(self, exposure: Exposure, begun: BegunClose, close: Order | None) -> tuple[Order | None, bool]:
        gateway = self.gateway
        if close is not None:
            return gateway.end_of(exposure, close, FILL_SECONDS), False
        if not gateway.names.state_lost:
            close = gateway.names.latest(begun.name, begun.purpose, since=begun.at - SKEW)
        if close is None:
            return None, False
        close = gateway.settle(exposure, gateway.end_of(exposure, close, FILL_SECONDS), 0)
        is_all = begun.orphan is not None or gateway.present(exposure).qty <= exposure.dust
        return close, is_all and close.status == "filled"

    def _restore(self, exposure: Exposure, begun: BegunClose) -> CloseOutcome:
        looker = self.gateway.looker
        cancelled = [o for i in begun.orders if i not in looker.hidden and (o := looker.order(i)) is not None]
        standing = _still_working(cancelled)
        if standing is not None:
            return standing
        if begun.orphan is not None:
            exposure = begun.exposure(self.gateway.now(), _taken(cancelled, begun))
        view = self.gateway.looker.view(exposure)
        elsewhere = _no_longer_its(exposure, view, begun)
        if elsewhere is not None:
            return elsewhere
        if begun.stop is None:
            return CloseOutcome(CloseState.UNPROTECTED, "it had no stop to restore")
        return _as_restored(begun.stop, *self.gateway.restore(exposure, begun, begun.stop))


def _still_working(cancelled: Sequence[Order]) -> CloseOutcome | None:
    working = sorted((o for o in cancelled if not o.is_final), key=lambda o: o.status != "pending_cancel")
    if not working:
        return None
    first = working[0]
    if first.status == "pending_cancel":
        return CloseOutcome(CloseState.WAITING, f"order {first.id} is still {first.status}")
    return CloseOutcome(CloseState.STANDS, f"order {first.id} still stands")


def _taken(cancelled: Sequence[Order], begun: BegunClose) -> Decimal:
    return sum((max(ZERO, o.filled_qty - begun.orders.get(o.id, ZERO)) for o in cancelled), ZERO)


def _no_longer_its(exposure: Exposure, view: SymbolView, begun: BegunClose) -> CloseOutcome | None:
    if is_gone(exposure, view):
        return CloseOutcome(CloseState.OVER, "its position is gone")
    close = next((o for o in view.closing if is_close(o, begun.name, begun.purpose)), None)
    if close is not None:
        return CloseOutcome(CloseState.WORKING, _working(close), close)
    if view.closing and can_take(view.closing, view.qty) >= view.qty:
        held = ", ".join(o.id for o in view.closing)
        return CloseOutcome(CloseState.HELD, f"its shares are in other hands: held by {held}")
    return None


def is_close(order: Order, name: str, purpose: str) -> bool:
    ours = parse_client_id(order.client_id)
    return ours is not None and ours.trade == trade_tag(name) and ours.purpose == purpose


def _working(order: Order) -> str:
    filled = f", {plain(order.filled_qty)} of {plain(order.qty or order.filled_qty)} filled"
    return f"its close {order.id} is {order.status}{filled}: in progress"


def _as_restored(stop: Decimal, answer: Answer, rest: Answer | None) -> CloseOutcome:
    worst = answer if rest is None or rest.is_done else rest
    if worst.is_done:
        return CloseOutcome(CloseState.RESTORED, f"its stop at {plain(stop)} is back", stop=answer)
    states = {Outcome.MOOT: CloseState.OVER, Outcome.CROSSED: CloseState.UNPROTECTED}
    return CloseOutcome(states.get(worst.outcome, CloseState.NAKED), worst.reason, stop=answer)
