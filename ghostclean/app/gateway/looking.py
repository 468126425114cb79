"""Reads a symbol just before an order is sent, and an order until its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

from ghostclean.app.deadline import Deadline
from ghostclean.app.ports import Broker
from ghostclean.core.broker import BadNumber, Order, Position, number
from ghostclean.core.protection import Exposure, KnownOrders, SymbolView
from ghostclean.errors import BrokerError

T = TypeVar("T")

_WATCH_WAITS = (0.1, 0.2, 0.3, 0.4, *([0.5] * 40))
_RELEASE_WAITS = (0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
_FOR_THE_END = 1.5  # seconds of deadline that are left for ledger and telemetry


class Looker:
    """Every read of the gateway; raises BrokerError and DeadlineExceeded.

    `hidden` are orders that a dry run would have cancelled, `booked` closes whose fills are counted
    already. `reserve` are the seconds of deadline that a request must leave.
    """

    def __init__(
        self,
        broker: Broker,
        deadline: Deadline,
        known: KnownOrders,
        *,
        grace: timedelta,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.known = known
        self.hidden: set[str] = set()
        self.booked: set[str] = set()
        self.reserve = _FOR_THE_END
        self.sleep = sleep
        self._broker = broker
        self._deadline = deadline
        self._grace = grace
        self._assets: dict[str, Mapping[str, Any] | None] = {}

    def has_time(self, seconds: float) -> bool:
        """Whether the deadline allows waiting that long."""
        return self._deadline.left() - seconds > self.reserve

    def ask(self, call: Callable[[], T]) -> T:
        """One request within what the deadline leaves."""
        return self._deadline.writing(call, reserve=self.reserve)

    def view(self, exposure: Exposure) -> SymbolView:
        """Working orders, then the position, then closing fills of the last grace, read anew."""
        known = self.known
        known.set_working(self.ask(self._broker.working_orders))
        position = self.position(exposure)
        since = self._broker.now() - self._grace
        fills = self.ask(lambda: self._broker.fills(since))
        way = exposure.side.closing
        closing = [o for o in known.closing(exposure.key, exposure.side) if o.id not in self.hidden]
        return SymbolView(
            position,
            tuple(closing),
            tuple(known.opening(exposure.key, exposure.side)),
            tuple(f for f in fills if f.key == exposure.key and f.side == way and f.order_id not in self.booked),
            frozenset(o.id for o in closing if known.awaits_entry(o)),
        )

    def position(self, exposure: Exposure) -> Position | None:
        return next((p for p in self.ask(self._broker.positions) if p.key == exposure.key), None)

    def price(self, exposure: Exposure) -> Decimal | None:
        """The latest price; None when it cannot be had, for callers that had one a moment ago."""
        try:
            found = self.ask(lambda: self._broker.prices([exposure.symbol])).get(exposure.key)
        except BrokerError:
            return None
        return found.value if found is not None else None

    def are_released(self, exposure: Exposure, position: Position | None, qty: Decimal) -> bool:
        """Waits until no order holds the shares; a broker that does not say has none held."""
        waits = iter(_RELEASE_WAITS)
        while position is not None and position.available is not None and position.available < qty:
            wait = next(waits, None)
            if wait is None or not self.has_time(wait):
                return False
            self.sleep(wait)
            position = self.position(exposure)
        return position is not None

    # ------------------------------------------------------------------ one order

    def order(self, order_id: str) -> Order | None:
        """One order with its legs, read anew; None for a true 404."""
        return self._found(self.ask(lambda: self._broker.order(order_id)))

    def order_named(self, client_id: str) -> Order | None:
        """An order by its client order id; None for a true 404."""
        return self._found(self.ask(lambda: self._broker.order_by_client_id(client_id)))

    def _found(self, answer: tuple[Order, ...] | None) -> Order | None:
        if answer is None:
            return None
        self.known.add(answer)
        return self.known.get(answer[0].id)

    def watch(self, order_id: str, seconds: float) -> Order | None:
        """Re-reads an order until it is final or the time is up; its last known form."""
        waited = 0.0
        order = self.order(order_id)
        for wait in _WATCH_WAITS:
            if order is None or order.is_final or waited + wait > seconds or not self.has_time(wait):
                break
            self.sleep(wait)
            waited += wait
            order = self.order(order_id)
        return order

    # ------------------------------------------------------------------ the instrument

    def is_tradable(self, symbol: str) -> bool:
        """Whether the broker takes orders for an instrument, as far as it says."""
        asset = self._asset(symbol)
        return asset is None or not (asset.get("tradable") is False or asset.get("status") == "inactive")

    def increment(self, exposure: Exposure) -> Decimal | None:
        """The price step of a crypto pair; None for everything that follows the cent rule."""
        return _positive(self._asset(exposure.symbol), "price_increment") if exposure.crypto else None

    def step(self, exposure: Exposure) -> Decimal | None:
        """The smallest quantity of a crypto pair."""
        return _positive(self._asset(exposure.symbol), "min_trade_increment") if exposure.crypto else None

    def _asset(self, symbol: str) -> Mapping[str, Any] | None:
        if symbol not in self._assets:
            try:
                self._assets[symbol] = self.ask(lambda: self._broker.asset(symbol))
            except BrokerError:
                self._assets[symbol] = None  # the order itself will be refused if it must not be
        return self._assets[symbol]


def _positive(facts: Mapping[str, Any] | None, name: str) -> Decimal | None:
    try:
        value = number(facts.get(name)) if facts is not None else None
    except BadNumber:
        return None
    return value if value is not None and value > 0 else None
