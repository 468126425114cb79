"""What the broker said in this run beside its three lists, and the questions still open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from .graph import OrderGraph
from .instrument import symbol_key
from .records import Activity, Fill, MarketClock, Order, canonical_id
from .values import ZERO, BadNumber, number, parse_time, plain

FILLS, ACTIVITIES, CLOCK = "fills", "activities", "clock"  # as which they stand in `unanswered`


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
    """The order graph, with fills, activities and the clock.

    `history`: since when all orders of a symbol key are known. `truncated`: keys whose lists were cut.
    """

    history: dict[str, datetime] = field(default_factory=dict)
    truncated: set[str] = field(default_factory=set)
    fills: dict[str, Fill] = field(default_factory=dict)
    fills_since: datetime | None = None
    activities: tuple[Activity, ...] = ()
    activities_since: datetime | None = None
    clock: MarketClock | None = None
    _fills_of: dict[str, list[Fill]] | None = field(default=None, repr=False)

    def add_fills(self, fills: Iterable[Fill], since: datetime) -> None:
        self.fills.update({f.id: f for f in fills})
        self.fills_since = since if self.fills_since is None else min(since, self.fills_since)
        self._fills_of = None

    def fills_of(self, order_id: str) -> list[Fill]:
        if self._fills_of is None:
            self._fills_of = defaultdict(list)
            for fill in sorted(self.fills.values(), key=lambda f: (f.at, f.id)):
                self._fills_of[fill.order_id].append(fill)
        return self._fills_of.get(order_id, [])

    def all_fills_of(self, order: Order) -> list[Fill]:
        """An order's fills if they add up to its filled quantity, else an empty list."""
        rows = self.fills_of(order.id) if self.fills else []
        return rows if sum((f.qty for f in rows), ZERO) == order.filled_qty else []

    def price_of(self, order: Order) -> Decimal | None:
        """The average price of an order's executions: by its fills where known, else the broker's rounded one."""
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
        """Why an asked question has no answer, if so."""
        match question:
            case OrderById(order_id=name) | OrderByClientId(client_id=name):
                what = f"order {name}"
            case OrdersOf(key=key):
                name = what = f"orders of {key}"
            case FillsSince():
                name = what = FILLS
            case ActivitiesSince():
                name = what = ACTIVITIES
            case ClockNow():
                name = what = CLOCK
            case RecordsOf():
                return None
        why = self.unanswered.get(name)
        return f"{what}: {why}" if why is not None else None


# --------------------------------------------------------------------------- final answers, remembered

# They can never change, so a quiet run asks nothing. The stored form, in the broker's own names and
# spellings, is part of every existing state: stored name -> attribute of the order.
_IDS = {"id": "id", "replaced_by": "replaced_by", "replaces": "replaces", "parent_order_id": "parent"}
_TEXTS = {"client_order_id": "client_id"} | {
    name: name for name in ("symbol", "asset_id", "asset_class", "side", "type", "order_class", "status")
}
_NUMBERS = {"filled_avg_price": "avg_price"} | {
    name: name for name in ("qty", "filled_qty", "limit_price", "stop_price")
}
_TIMES = {name: name for name in ("submitted_at", "filled_at")}
_END = {"canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at", "replaced": "replaced_at"}


def remember_order(order: Order, trade_id: str) -> dict[str, Any]:
    """The part of a final answer that decisions use; legs are kept by id only."""
    names = _IDS | _TEXTS | _NUMBERS | _TIMES | {_END.get(order.status, "canceled_at"): "ended_at"}
    values = {name: getattr(order, attribute) for name, attribute in names.items()}
    values |= {"trade": trade_id, "leg_ids": list(order.legs)}
    return {name: _stored(value) for name, value in values.items() if value not in (None, "", [])}


def _stored(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    return value.isoformat() if isinstance(value, datetime) else value


def recall_orders(rows: Iterable[Mapping[str, Any]]) -> Iterable[Order]:
    """The remembered orders; a row that cannot be read is simply looked up again."""
    for row in rows:
        try:
            order = _recalled(row)
        except BadNumber:
            continue
        if order.id and order.is_final:
            yield order


def _recalled(row: Mapping[str, Any]) -> Order:
    values = dict(_UNTOLD)
    for name in row.keys() & _READERS.keys():
        attribute, read = _READERS[name]
        values[attribute] = read(row[name])
    legs = row.get("leg_ids")
    return Order(
        **values | {"filled_qty": values["filled_qty"] or ZERO},
        key=symbol_key(values["symbol"]),
        ended_at=max((at for name in _END.values() if (at := parse_time(row.get(name))) is not None), default=None),
        expires_at=None,
        legs=tuple(legs) if isinstance(legs, list) else (),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _id(value: object) -> str | None:
    return canonical_id(_text(value)) or None


_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    name: (attribute, read)
    for names, read in ((_IDS, _id), (_TEXTS, _text), (_NUMBERS, number), (_TIMES, parse_time))
    for name, attribute in names.items()
}
_UNTOLD = {attribute: read(None) for attribute, read in _READERS.values()}
