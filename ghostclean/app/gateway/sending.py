"""Sends, replaces and cancels orders, once each, and reads back what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.looking import Looker
from ghostclean.app.gateway.naming import Names
from ghostclean.app.ports import Broker, OrderRequest
from ghostclean.core.broker import Order, plain
from ghostclean.core.protection import Exposure, exclusive
from ghostclean.errors import BrokerError, DeadlineExceeded, Refusal, Refused


class Outcome(StrEnum):
    """What became of an order that was wanted."""

    SENT = "sent"
    STANDING = "standing"  # an earlier order of this name works already
    WOULD = "would_send"  # a dry run
    BLOCKED = "blocked"  # a rule of the gateway: nothing was sent
    CROSSED = "crossed"  # the market is at or through the stop: it is not sent
    MOOT = "moot"  # the position is gone
    REFUSED = "refused"  # the broker said no: nothing works because of us
    UNKNOWN = "unknown"  # sent, and neither found nor proven absent: the next run looks it up


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome with its reason, the order as last read, and the request as it was logged."""

    outcome: Outcome
    reason: str
    order: Order | None = None
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """It stands at the broker (or would, in a dry run)."""
        return self.outcome in (Outcome.SENT, Outcome.STANDING, Outcome.WOULD)


_TO_START = 4.0  # seconds of deadline below which nothing new is sent
_REPLACE_SECONDS = 3.0
_NEVER_PLACED = frozenset({"rejected", "canceled", "expired"})


@dataclass(slots=True)
class Sender:
    """The only code that writes to the broker.

    `verify` raises when the lock is lost; `log` lists every request, in a dry run the ones left out.
    """

    broker: Broker
    looker: Looker
    names: Names
    deadline: Deadline
    verify: Callable[[], None]
    dry_run: bool
    log: list[dict[str, Any]] = field(default_factory=list)

    # ------------------------------------------------------------------ a new order

    def submit(
        self, exposure: Exposure, purpose: str, make: Callable[[str], OrderRequest], *, first: bool = False
    ) -> Answer:
        """Sends `make(name)` under the next name of that purpose; `first` tries an unused one unasked."""
        if not first:
            self.looker.expire()
        name, standing = self.names.first(exposure, purpose) if first else None, None
        if name is None:
            name, standing = self.names.next(exposure, purpose)
        if standing is not None:
            return Answer(Outcome.STANDING, f"order {standing.client_id} is {standing.status}", standing)
        if self.names.is_asked(name):
            return blocked(exposure, purpose, f"order {name} was sent in this run already")
        order = make(name)
        self._claim(exposure, purpose, name)
        request = self._log("submit", exposure, purpose, **_described(order))
        if self.dry_run:
            return _said(request, Outcome.WOULD, "dry run")
        return self._submit(exposure, purpose, make, order, request)

    def _submit(
        self,
        exposure: Exposure,
        purpose: str,
        make: Callable[[str], OrderRequest],
        order: OrderRequest,
        request: dict[str, Any],
    ) -> Answer:
        try:
            return self._read_back(request, self.looker.ask(lambda: self.broker.submit(order))[0])
        except Refused as error:
            if error.why is not Refusal.NAME_TAKEN:
                return _said(request, Outcome.REFUSED, str(error))
            lost = "its name is taken and the order is not found"
        except (BrokerError, DeadlineExceeded) as error:
            lost = f"{error}; looked up and not found"
        found = self.names.find(order.client_id)
        if found is None:
            return _said(request, Outcome.UNKNOWN, lost)
        if not exposure.takes(found):
            return _said(request, Outcome.UNKNOWN, f"its name is that of order {found.id}, which is not its own")
        if found.is_final and lost.startswith("its name"):
            # Our memory is younger than our orders: the next name is found by the broker's answers.
            _said(request, Outcome.REFUSED, f"its name is that of order {found.id}, which is {found.status}")
            return self.submit(exposure, purpose, make)
        return self._read_back(request, found)

    def _claim(self, exposure: Exposure, purpose: str, name: str) -> None:
        if self.dry_run:
            return
        if self.deadline.left() < _TO_START:
            raise DeadlineExceeded("too little time is left to send an order")
        if not self.names.state_lost:
            self.verify()
        self.names.remember(exposure.signature, purpose, name)

    def _read_back(self, request: dict[str, Any], placed: Order) -> Answer:
        """An order may be accepted and rejected a moment later: only a second look tells."""
        now = placed
        try:
            now = self.looker.order(placed.id) or placed
        except (BrokerError, DeadlineExceeded):
            self.looker.known.add_orders((placed,))
        if now.status in _NEVER_PLACED and not now.filled_qty:
            return _said(request, Outcome.REFUSED, f"the order was {now.status} after it was taken", now)
        return _said(request, Outcome.SENT, "read back", now)

    # ------------------------------------------------------------------ a replacement

    def replace(
        self, exposure: Exposure, purpose: str, name: str, order: Order, changes: Mapping[str, Decimal]
    ) -> Answer:
        """Replaces a stop under a new name; done only when the new one works and the old one is over."""
        self._claim(exposure, purpose, name)
        self.looker.expire()
        request = self._log("replace", exposure, purpose, clientOrderId=name, orderId=order.id, **_shown(changes))
        if self.dry_run:
            return _said(request, Outcome.WOULD, "dry run")
        try:
            new = self.looker.ask(lambda: self.broker.replace(order.id, name, **changes))
        except Refused as error:
            return self._refused(request, order, error)
        except (BrokerError, DeadlineExceeded) as error:
            found = self._successor(order) or self.names.find(name) or self._successor(order)
            if found is None:
                return _said(request, Outcome.UNKNOWN, f"{error}; looked up and not found", order)
            new = found
        return self._read_replacement(request, order, new, changes["stop_price"])

    def _refused(self, request: dict[str, Any], order: Order, error: Refused) -> Answer:
        now = self.looker.order(order.id)
        if error.why is Refusal.NO_CHANGE:
            return _said(request, Outcome.STANDING, "it stands there already", now)
        if now is not None and now.status == "filled":
            return _said(request, Outcome.REFUSED, "the stop was filled meanwhile", now)
        return _said(request, Outcome.REFUSED, str(error), now)

    def _successor(self, order: Order) -> Order | None:
        """What replaced an order, by the order itself: the proof that a lost answer was a yes."""
        try:
            now = self.looker.order(order.id)
            return self.looker.order(now.replaced_by) if now is not None and now.replaced_by is not None else None
        except (BrokerError, DeadlineExceeded):
            return None

    def _read_replacement(self, request: dict[str, Any], old: Order, new: Order, stop: Decimal) -> Answer:
        self.looker.known.add_orders((new,))
        before = self.looker.watch(old.id, _REPLACE_SECONDS)
        now = self.looker.order(new.id)
        if before is not None and before.status == "filled":
            return _said(request, Outcome.REFUSED, "the stop was filled before it could be replaced", before)
        if now is None or now.status in _NEVER_PLACED:
            return _said(request, Outcome.REFUSED, f"the new stop is {now.status if now else 'gone'}", before)
        if before is not None and not before.is_final:
            return _said(request, Outcome.UNKNOWN, f"the old stop is still {before.status}", before)
        if now.stop_price != stop:
            return _said(request, Outcome.UNKNOWN, f"the stop reads {now.stop_price} after the replacement", now)
        return _said(request, Outcome.SENT, "read back", now)

    # ------------------------------------------------------------------ cancelling

    def cancel(self, exposure: Exposure, orders: Sequence[Order], seconds: float, why: str) -> list[Order]:
        """Cancels orders, one for each family, and waits; those that are not final yet."""
        if self.dry_run:
            for order in orders:
                _said(self._log("cancel", exposure, why, orderId=order.id), Outcome.WOULD, "dry run")
                self.looker.hidden.add(order.id)
            return []
        self.looker.expire()
        groups = exclusive(orders)
        for group in groups:
            self._cancel_one(exposure, group[0], why)
        watched = (self.looker.watch(o.id, seconds) for group in groups for o in group)
        return [now for now in watched if now is not None and not now.is_final]

    def _cancel_one(self, exposure: Exposure, order: Order, why: str) -> None:
        if order.status == "pending_cancel":
            return  # asked for already: it is only waited for
        request = self._log("cancel", exposure, why, orderId=order.id)
        try:
            self.looker.ask(lambda: self.broker.cancel(order.id))
        except Refused as error:
            _said(request, Outcome.REFUSED, str(error))
        except (BrokerError, DeadlineExceeded) as error:
            _said(request, Outcome.UNKNOWN, str(error))
        else:
            _said(request, Outcome.SENT, why)

    def _log(self, do: str, exposure: Exposure, purpose: str, **facts: Any) -> dict[str, Any]:
        entry = {"do": do, "tradeId": exposure.name, "symbol": exposure.symbol, "purpose": purpose, **facts}
        self.log.append(entry)
        return entry


def blocked(
    exposure: Exposure, purpose: str, reason: str, order: Order | None = None, outcome: Outcome = Outcome.BLOCKED
) -> Answer:
    return Answer(outcome, reason, order, {"tradeId": exposure.name, "purpose": purpose})


def _said(request: dict[str, Any], outcome: Outcome, reason: str, order: Order | None = None) -> Answer:
    request |= {"outcome": str(outcome), "reason": reason}
    return Answer(outcome, reason, order, request)


def _described(order: OrderRequest) -> dict[str, Any]:
    facts = {
        "side": order.side,
        "qty": plain(order.qty),
        "type": order.type,
        "orderClass": order.order_class,
        "timeInForce": order.time_in_force,
        "clientOrderId": order.client_id,
    }
    prices = {"stopPrice": order.stop_price or order.stop_loss, "limitPrice": order.limit_price}
    return facts | {name: plain(price) for name, price in prices.items() if price is not None}


def _shown(changes: Mapping[str, Decimal]) -> dict[str, Any]:
    names = {"stop_price": "stopPrice", "limit_price": "limitPrice", "qty": "qty"}
    return {names[name]: plain(value) for name, value in changes.items()}
