"""Reads a symbol just before an order is sent, and an order until its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from ghostclean.app.deadline import Deadline
from ghostclean.app.ports import Broker, Price
from ghostclean.core.broker import BadNumber, Fill, Order, OrderGraph, Position, Positions, number
from ghostclean.core.protection import Exposure, SymbolView
from ghostclean.errors import BrokerError

T = TypeVar("T")

_WATCH_WAITS = (0.1, 0.2, 0.3, 0.4, *([0.5] * 40))
_RELEASE_WAITS = (0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
_SHARED_SECONDS = 5.0  # how long one reading serves several missing stops
_FOR_THE_END = 1.5  # seconds of deadline that are left for ledger and telemetry


@dataclass(frozen=True, slots=True)
class _Lists:
    left: float
    positions: Positions
    fills: tuple[Fill, ...]


@dataclass(slots=True)
class Looker:
    """Every read of the gateway; raises BrokerError and DeadlineExceeded.

    `hidden`: orders that a dry run would have cancelled. `booked`: closes whose fills are counted already.
    `reserve`: seconds of deadline that a request must leave.
    """

    broker: Broker
    deadline: Deadline
    known: OrderGraph
    grace: timedelta
    sleep: Callable[[float], None] = time.sleep
    hidden: set[str] = field(default_factory=set)
    booked: set[str] = field(default_factory=set)
    reserve: float = _FOR_THE_END
    _lists: _Lists | None = None
    _prices: tuple[float, Mapping[str, Price]] = field(default_factory=lambda: (0.0, {}))
    _assets: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def has_time(self, seconds: float) -> bool:
        return self.deadline.left() - seconds > self.reserve

    def ask(self, call: Callable[[], T]) -> T:
        return self.deadline.writing(call, reserve=self.reserve)

    def view(self, exposure: Exposure, *, shared: bool = False) -> SymbolView:
        """Working orders, position and recent closing fills, read in this order.

        `shared` accepts lists read a moment ago for another stop.
        """
        lists = self._fresh_lists() if shared else self._read_lists()
        known = self.known
        closing = [o for o in known.closing(exposure.key, exposure.side) if o.id not in self.hidden]
        return SymbolView(
            _of(lists.positions, exposure),
            tuple(closing),
            tuple(known.opening(exposure.key, exposure.side)),
            tuple(f for f in lists.fills if exposure.sold_by(f) and f.order_id not in self.booked),
            frozenset(o.id for o in closing if known.awaits_entry(o)),
        )

    def _fresh_lists(self) -> _Lists:
        lists = self._lists
        return lists if lists is not None and self._is_young(lists.left) else self._read_lists()

    def _read_lists(self) -> _Lists:
        left = self.deadline.left()
        orders = self.ask(self.broker.working_orders)
        self.known.set_working(orders)
        positions = self.ask(self.broker.positions).without(orders.unread)
        since = self.broker.now() - self.grace
        self._lists = _Lists(left, positions, self.ask(lambda: self.broker.fills(since)))
        return self._lists

    def _is_young(self, left: float) -> bool:
        return left - self.deadline.left() < _SHARED_SECONDS

    def expire(self) -> None:
        self._lists = None

    def position(self, exposure: Exposure) -> Position | None:
        return _of(self.ask(self.broker.positions), exposure)

    def note_prices(self, prices: Mapping[str, Price]) -> None:
        self._prices = (self.deadline.left(), prices)

    def price(self, exposure: Exposure, *, shared: bool = False) -> Decimal | None:
        """The latest price; None if the broker fails."""
        left, prices = self._prices
        if not (shared and exposure.key in prices and self._is_young(left)):
            try:
                prices = self.ask(lambda: self.broker.prices([exposure.symbol]))
            except BrokerError:
                return None
        found = prices.get(exposure.key)
        return found.value if found is not None else None

    def are_released(self, exposure: Exposure, position: Position | None, qty: Decimal) -> bool:
        """Waits until no order holds the shares."""
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
        return self._found(self.ask(lambda: self.broker.order(order_id)))

    def history(self, symbols: Sequence[str], since: datetime) -> set[str]:
        """Reads orders of these symbols with their legs, in any status; their ids."""
        try:
            found = self.ask(lambda: self.broker.history(symbols, since, 1)).orders
        except BrokerError:
            return set()
        self.known.add_orders(found)
        return {order.id for order in found}

    def order_named(self, client_id: str) -> Order | None:
        return self._found(self.ask(lambda: self.broker.order_by_client_id(client_id)))

    def _found(self, answer: tuple[Order, ...] | None) -> Order | None:
        if answer is None:
            return None
        self.known.add_orders(answer)
        return self.known.get(answer[0].id)

    def watch(self, order_id: str, seconds: float) -> Order | None:
        """Re-reads an order until it is final or the time is up."""
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
        asset = self._asset(symbol)
        return asset is None or not (asset.get("tradable") is False or asset.get("status") == "inactive")

    def increment(self, exposure: Exposure) -> Decimal | None:
        """The price step of a crypto pair; None for everything that follows the cent rule."""
        return _positive(self._asset(exposure.symbol), "price_increment") if exposure.crypto else None

    def step(self, exposure: Exposure) -> Decimal | None:
        return _positive(self._asset(exposure.symbol), "min_trade_increment") if exposure.crypto else None

    def _asset(self, symbol: str) -> Mapping[str, Any] | None:
        if symbol not in self._assets:
            try:
                self._assets[symbol] = self.ask(lambda: self.broker.asset(symbol))
            except BrokerError:
                self._assets[symbol] = None  # the order itself will be refused if it must not be
        return self._assets[symbol]


def _of(positions: Positions, exposure: Exposure) -> Position | None:
    """The position of an exposure; raises BrokerError where it is not observed."""
    if (why := positions.why_unobserved(exposure.key)) is not None:
        raise BrokerError(why)
    return next((p for p in positions.rows if p.key == exposure.key), None)


def _positive(facts: Mapping[str, Any] | None, name: str) -> Decimal | None:
    try:
        value = number(facts.get(name)) if facts is not None else None
    except BadNumber:
        return None
    return value if value is not None and value > 0 else None
