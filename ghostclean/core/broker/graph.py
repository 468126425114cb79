"""What is known about orders and fills, and what still has to be looked up.

An order is *known* (some answer described it), *absent* (a true 404), *unanswered* (a look-up
failed) or simply not asked for yet; these are different things and never stand for each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from .records import Activity, Fill, MarketClock, Order, is_uuid


@dataclass(frozen=True, slots=True)
class OrderById:
    """Look an order up by its id, with legs."""

    order_id: str
    key: str  # where it is expected, so that look-ups can be batched by symbol
    since: datetime | None


@dataclass(frozen=True, slots=True)
class OrderByClientId:
    """Look an order up by its client order id; where it is expected only serves batching."""

    client_id: str
    key: str = field(default="", compare=False)
    since: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class OrdersOf:
    """All orders of a symbol since a time, of any status."""

    key: str
    symbol: str
    since: datetime


@dataclass(frozen=True, slots=True)
class FillsSince:
    """All fills of the account since a time."""

    since: datetime


@dataclass(frozen=True, slots=True)
class ActivitiesSince:
    """Option and corporate-action activities since a time."""

    since: datetime


@dataclass(frozen=True, slots=True)
class ClockNow:
    """The market clock."""


@dataclass(frozen=True, slots=True)
class RecordsOf:
    """The ledger's final records of a symbol key: what they own is not free."""

    key: str


Need = OrderById | OrderByClientId | OrdersOf | FillsSince | ActivitiesSince | ClockNow | RecordsOf


@dataclass(slots=True)
class Evidence:
    """Everything the broker said about orders, fills and activities in this run.

    `working` are the ids of the working list; `remembered` final answers of earlier runs are
    part of `orders`. `history` says since when all orders of a symbol key are known.
    """

    orders: dict[str, Order] = field(default_factory=dict)
    by_client: dict[str, str] = field(default_factory=dict)
    working: frozenset[str] = frozenset()
    absent: set[str] = field(default_factory=set)
    absent_clients: set[str] = field(default_factory=set)
    unanswered: dict[str, str] = field(default_factory=dict)
    history: dict[str, datetime] = field(default_factory=dict)
    truncated: set[str] = field(default_factory=set)
    fills: dict[str, Fill] = field(default_factory=dict)
    fills_since: datetime | None = None
    fills_failed: str | None = None
    activities: tuple[Activity, ...] = ()
    activities_since: datetime | None = None
    activities_failed: str | None = None
    clock: MarketClock | None = None
    clock_failed: str | None = None

    def add_orders(self, orders: Iterable[Order]) -> None:
        """Adds answers; a later answer replaces an earlier one and keeps known legs and parent."""
        for order in orders:
            known = self.orders.get(order.id)
            if known is not None:
                order = order.joined(known)
            self.orders[order.id] = order
            if order.client_id:
                self.by_client[order.client_id] = order.id
            for leg in order.legs:
                child = self.orders.get(leg)
                if child is not None and child.parent is None:
                    self.orders[leg] = child.under(order.id)

    def set_working(self, orders: Iterable[Order]) -> None:
        """Replaces the working list; a non-final answer that stood only in the old one is stale."""
        orders = tuple(orders)
        left = self.working.difference(o.id for o in orders)
        for order_id in left:
            order = self.orders.get(order_id)
            if order is not None and not order.is_final:
                del self.orders[order_id]
        self.working = frozenset(o.id for o in orders)
        self.add_orders(orders)

    def add_fills(self, fills: Iterable[Fill], since: datetime) -> None:
        self.fills.update({f.id: f for f in fills})
        self.fills_since = since if self.fills_since is None else min(since, self.fills_since)

    def find(self, order_id: str | None) -> Order | None:
        """The order with this id, or with this as client order id."""
        if order_id is None:
            return None
        order = self.orders.get(order_id)
        if order is None:
            order = self.orders.get(self.by_client.get(order_id, ""))
        return order

    def is_absent(self, order_id: str) -> bool:
        """Proven unknown to the broker under this text, both as id and as client order id."""
        return (order_id in self.absent or not is_uuid(order_id)) and order_id in self.absent_clients
