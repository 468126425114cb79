"""What the broker said in this run beside its three lists, and the questions still open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from .graph import OrderGraph
from .numbers import ZERO
from .records import Activity, Fill, MarketClock, Order


@dataclass(frozen=True, slots=True)
class OrderById:
    """An order by its id, with legs; key and time say where it is expected, for batching."""

    order_id: str
    key: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class OrderByClientId:
    """An order by its client order id."""

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


Question = OrderById | OrderByClientId | OrdersOf | FillsSince | ActivitiesSince | ClockNow | RecordsOf


@dataclass(slots=True)
class Evidence(OrderGraph):
    """The order graph, and what is known of fills, activities and the clock.

    `history` says since when all orders of a symbol key are known; `truncated` keys' lists were cut.
    """

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
    _fills_of: dict[str, list[Fill]] | None = field(default=None, repr=False)

    def add_fills(self, fills: Iterable[Fill], since: datetime) -> None:
        self.fills.update({f.id: f for f in fills})
        self.fills_since = since if self.fills_since is None else min(since, self.fills_since)
        self._fills_of = None

    def fills_of(self, order_id: str) -> list[Fill]:
        """The known fills of one order, oldest first."""
        if self._fills_of is None:
            self._fills_of = defaultdict(list)
            for fill in sorted(self.fills.values(), key=lambda f: (f.at, f.id)):
                self._fills_of[fill.order_id].append(fill)
        return self._fills_of.get(order_id, [])

    def all_fills_of(self, order: Order) -> list[Fill]:
        """The fills of an order where they add up to all it filled, else nothing."""
        rows = self.fills_of(order.id) if self.fills else []
        return rows if sum((f.qty for f in rows), ZERO) == order.filled_qty else []

    def price_of(self, order: Order) -> Decimal | None:
        """The average price of what an order filled: by its fills where known, else the broker's rounded one."""
        rows = self.all_fills_of(order)
        if not rows:
            return order.avg_price
        return sum((f.qty * f.price for f in rows), ZERO) / order.filled_qty

    def knows_orders(self, key: str, since: datetime) -> bool:
        """Whether the orders of a symbol since a time are known, as far as the broker lists them."""
        known = self.history.get(key)
        return key in self.truncated or (known is not None and known <= since)

    def knows_fills(self, since: datetime) -> bool:
        return self.fills_since is not None and self.fills_since <= since

    def knows_activities(self, since: datetime) -> bool:
        return self.activities_since is not None and self.activities_since <= since

    def failure(self, question: Question) -> str | None:
        """Why a question that was asked has no answer; None while it was not asked, or is answered."""
        match question:
            case OrderById(order_id=name) | OrderByClientId(client_id=name):
                return _failed(f"order {name}", self.unanswered.get(name))
            case OrdersOf(key=key):
                return _failed(f"orders of {key}", self.unanswered.get(f"orders of {key}"))
            case FillsSince():
                return _failed("fills", self.fills_failed)
            case ActivitiesSince():
                return _failed("activities", self.activities_failed)
            case ClockNow():
                return _failed("clock", self.clock_failed)
            case RecordsOf():
                return None


def _failed(what: str, why: str | None) -> str | None:
    return f"{what}: {why}" if why is not None else None
