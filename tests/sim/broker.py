"""A lean broker in memory: orders with legs and replace chains, fills, positions that lag behind.

Every list is answered as it was `lag` seconds ago, each list with a lag of its own; single
orders are answered as they are. Each fill has an owner (a trade, or None for a hand), which
the app under test cannot see: it is what the oracles judge by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.adapters.alpaca.records import read_order, read_position
from ghostclean.app.ports import History, OrderRequest
from ghostclean.core.broker import Account, Activity, MarketClock, Order, Positions, symbol_key
from ghostclean.core.broker import Fill as BrokerFill

from .clock import START, Clock

FINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
DAY = 86400.0


def stamp(t: float) -> str:
    return (START + timedelta(seconds=round(t, 3))).isoformat()


@dataclass
class Fill:
    order: str
    symbol: str
    side: str
    qty: Decimal
    price: Decimal
    t: float
    owner: str | None
    shown: bool = True  # False: no order and no fill tells of it (a wiped account)
    number: int = 0


@dataclass
class SimOrder:
    id: str
    client: str
    symbol: str
    side: str
    qty: Decimal
    type: str
    owner: str | None
    t: float
    status: str = "new"
    filled: Decimal = Decimal(0)
    price: Decimal | None = None
    stop: Decimal | None = None
    limit: Decimal | None = None
    filled_t: float | None = None
    ended_t: float | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    legs: list[str] = field(default_factory=list)
    parent: str | None = None
    versions: list[tuple[float, Order]] = field(default_factory=list)

    def keep(self, t: float) -> None:
        """Notes the order's new state."""
        raw: dict[str, Any] = {
            "id": self.id, "client_order_id": self.client, "symbol": self.symbol, "asset_id": f"asset-{self.symbol}",
            "asset_class": "us_equity", "side": self.side, "type": self.type,
            "order_class": "bracket" if self.legs else "simple", "status": self.status, "qty": str(self.qty),
            "filled_qty": str(self.filled), "filled_avg_price": str(self.price) if self.price else None,
            "stop_price": str(self.stop) if self.stop else None,
            "limit_price": str(self.limit) if self.limit else None, "submitted_at": stamp(self.t),
            "filled_at": stamp(self.filled_t) if self.filled_t is not None else None,
            "canceled_at": stamp(self.ended_t) if self.ended_t is not None else None,
            "replaced_by": self.replaced_by, "replaces": self.replaces,
        }  # fmt: skip
        order = next(iter(read_order(raw)))
        self.versions.append((t, replace(order, legs=tuple(self.legs)) if self.legs else order))

    def at(self, t: float) -> Order | None:
        for since, order in reversed(self.versions):
            if since <= t:
                return order
        return None


class World:
    """The broker's books."""

    def __init__(self, clock: Clock, tag: int) -> None:
        self.clock = clock
        self.orders: dict[str, SimOrder] = {}
        self.by_client: dict[str, str] = {}
        self.fills: list[Fill] = []
        self.prices: dict[str, Decimal] = {}
        self.position_lag = self.order_lag = self.fill_lag = 0.0
        self.hidden: dict[str, float] = {}  # symbol -> until when its row is missing
        self.account_lags = True
        self._tag = tag
        self._last = 0

    # ------------------------------------------------------------------ what happens

    def uuid(self) -> str:
        self._last += 1
        return f"{self._last:08x}-0000-4000-8000-{self._tag & 0xFFFFFFFFFFFF:012x}"

    def submit(self, symbol: str, side: str, qty: Decimal, owner: str | None, *, t: float | None = None,
               type: str = "market", status: str = "new", **more: Any) -> SimOrder:  # fmt: skip
        t = self.clock.t if t is None else t
        order_id = self.uuid()
        order = SimOrder(order_id, f"c-{order_id}", symbol, side, qty, type, owner, t, status, **more)
        self.orders[order_id] = order
        self.by_client[order.client] = order_id
        order.keep(t)
        return order

    def bracket(self, symbol: str, side: str, qty: Decimal, owner: str, *, t: float | None = None) -> SimOrder:
        t = self.clock.t if t is None else t
        price, sign = self.prices[symbol], 1 if side == "buy" else -1
        entry = self.submit(symbol, side, qty, owner, t=t)
        other = "sell" if side == "buy" else "buy"
        target = self.submit(symbol, other, qty, owner, t=t, type="limit", status="held", limit=price + sign * 10)
        stop = self.submit(symbol, other, qty, owner, t=t, type="stop", status="held", stop=price - sign * 10)
        entry.legs = [target.id, stop.id]
        target.parent = stop.parent = entry.id
        entry.versions.clear()
        entry.keep(t)
        return entry

    def fill(self, order: SimOrder, qty: Decimal, *, t: float | None = None, owner: str | None = None) -> None:
        """Executes a part of an order; a filled exit leg cancels its sibling."""
        t = self.clock.t if t is None else t
        price = order.limit or order.stop or self.prices[order.symbol]
        self.fills.append(Fill(order.id, order.symbol, order.side, qty, price, t, owner or order.owner,
                               number=len(self.fills)))  # fmt: skip
        order.filled += qty
        order.price, order.filled_t = price, t
        order.status = "filled" if order.filled == order.qty else "partially_filled"
        order.keep(t)
        if order.status == "filled":
            for leg in order.legs:
                child = self.orders[leg]
                if child.status == "held":
                    child.status = "new"
                    child.keep(t)
            if order.parent:
                for leg in self.orders[order.parent].legs:
                    if leg != order.id:
                        self.end(self.orders[leg], "canceled", t=t)

    def end(self, order: SimOrder, status: str, *, t: float | None = None) -> None:
        t = self.clock.t if t is None else t
        if order.status in FINAL:
            return
        order.status, order.ended_t = status, t
        order.keep(t)
        if not order.filled:
            for leg in order.legs:
                self.end(self.orders[leg], "canceled", t=t)

    def replace(self, order: SimOrder) -> SimOrder:
        t = self.clock.t
        new = self.submit(
            order.symbol,
            order.side,
            order.qty - order.filled,
            order.owner,
            type=order.type,
            stop=order.stop,
            limit=order.limit,
            replaces=order.id,
            status="held" if order.status == "held" else "new",
            parent=order.parent,
        )
        order.status, order.ended_t, order.replaced_by = "replaced", t, new.id
        order.keep(t)
        if order.parent:
            parent = self.orders[order.parent]
            parent.legs = [new.id if leg == order.id else leg for leg in parent.legs]
            parent.keep(t)
        return new

    def wipe(self, symbol: str, side: str, qty: Decimal, owner: str) -> None:
        """The position disappears and nothing tells why."""
        self.fills.append(Fill("", symbol, side, qty, self.prices[symbol], self.clock.t, owner, shown=False))

    # ------------------------------------------------------------------ the truth

    def held_of(self, owner: str, t: float | None = None) -> Decimal:
        """What a trade really holds, or held at a time, signed."""
        fills = (f for f in self.fills if f.owner == owner and (t is None or f.t <= t))
        return sum((f.qty if f.side == "buy" else -f.qty for f in fills), Decimal(0))

    def net(self, symbol: str, t: float | None = None) -> Decimal:
        t = self.clock.t if t is None else t
        fills = (f for f in self.fills if f.symbol == symbol and f.t <= t)
        return sum((f.qty if f.side == "buy" else -f.qty for f in fills), Decimal(0))


class SimBroker:
    """The `Broker` port of one process; every read is one effect."""

    live = False

    def requests_left(self) -> int | None:
        return None

    def __init__(self, world: World, effect: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._world, self._effect = world, effect

    def now(self) -> datetime:
        return self._world.clock.now()

    def account(self) -> Account:
        return self._effect("broker", self._account)

    def _account(self) -> Account:
        world = self._world
        t = world.clock.t - (world.position_lag if world.account_lags else 0.0)
        values = [world.net(s, t) * p for s, p in world.prices.items()]
        long = sum((v for v in values if v > 0), Decimal(0))
        short = sum((v for v in values if v < 0), Decimal(0))
        return Account("account-1", "ACTIVE", long, short, False)

    def working_orders(self) -> tuple[Order, ...]:
        return self._effect("broker", self._working)

    def _working(self) -> tuple[Order, ...]:
        world, rows = self._world, []
        t = world.clock.t - world.order_lag
        nested: set[str] = set()
        for order in world.orders.values():
            seen = order.at(t)
            if seen is None or seen.is_final or order.id in nested:
                continue
            rows.append(seen)
            for leg in seen.legs:
                child = world.orders[leg].at(t)
                if child is not None:
                    rows.append(child.under(order.id))
                    nested.add(leg)
        unique = {row.id: row for row in rows if not (row.id in nested and row.parent is None)}
        return tuple(unique.values())

    def positions(self) -> Positions:
        return self._effect("broker", self._positions)

    def _positions(self) -> Positions:
        world, rows = self._world, []
        t = world.clock.t - world.position_lag
        for symbol, price in world.prices.items():
            qty = world.net(symbol, t)
            if qty and world.hidden.get(symbol, -1.0) < world.clock.t:
                rows.append(read_position({
                    "symbol": symbol, "qty": str(qty), "side": "long" if qty > 0 else "short",
                    "avg_entry_price": str(price), "market_value": str(qty * price), "current_price": str(price),
                    "asset_id": f"asset-{symbol}", "asset_class": "us_equity",
                }))  # fmt: skip
        return Positions(tuple(rows))

    def order(self, order_id: str) -> tuple[Order, ...] | None:
        return self._effect("broker", lambda: self._one(order_id))

    def order_by_client_id(self, client_id: str) -> tuple[Order, ...] | None:
        return self._effect("broker", lambda: self._one(self._world.by_client.get(client_id, "")))

    def _one(self, order_id: str) -> tuple[Order, ...] | None:
        order = self._world.orders.get(order_id)
        return self._nested(order) if order is not None else None

    def _nested(self, order: SimOrder) -> tuple[Order, ...]:
        legs = [self._world.orders[leg].versions[-1][1].under(order.id) for leg in order.legs]
        return (order.versions[-1][1], *legs)

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        return self._effect("broker", lambda: self._history({symbol_key(s) for s in symbols}, since))

    def _history(self, keys: set[str], since: datetime) -> History:
        first = (since - START).total_seconds()
        rows: dict[str, Order] = {}
        for order in self._world.orders.values():
            if symbol_key(order.symbol) in keys and order.t > first and order.parent is None:
                for row in self._nested(order):
                    rows[row.id] = row
        for order in self._world.orders.values():  # what replaced a leg stands beside, not below
            if symbol_key(order.symbol) in keys and order.t > first and order.id not in rows:
                rows[order.id] = order.versions[-1][1]
        return History(tuple(rows.values()), since)

    def fills(self, since: datetime) -> tuple[BrokerFill, ...]:
        return self._effect("broker", lambda: self._fills((since - START).total_seconds()))

    def _fills(self, first: float) -> tuple[BrokerFill, ...]:
        last = self._world.clock.t - self._world.fill_lag
        rows = []
        for f in self._world.fills:
            if f.shown and first <= f.t <= last:
                at = START + timedelta(seconds=round(f.t, 3))
                rows.append(BrokerFill(f"f{f.number}", f.order, f.symbol, f.symbol, f.side, f.qty, f.price, at))
        return tuple(sorted(rows, key=lambda f: f.at))

    def activities(self, since: datetime) -> tuple[Activity, ...]:
        return self._effect("broker", lambda: ())

    def clock(self) -> MarketClock:
        now = self._world.clock.now()
        return self._effect("broker", lambda: MarketClock(now, True, now + timedelta(days=1), now + timedelta(hours=4)))

    def calendar(self, first: date, last: date) -> tuple[Any, ...]:
        return ()

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        return None

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Any]:
        return {}

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        raise NotImplementedError

    def replace(self, order_id: str, client_id: str, **prices: Decimal) -> Order:
        raise NotImplementedError

    def cancel(self, order_id: str) -> None:
        raise NotImplementedError
