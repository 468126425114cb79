"""The `Broker` port of one process: lists that lag behind, single orders as they are, orders that are taken or not.

Every list is answered as it was some seconds ago, each with a lag of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.app.ports import History, OrderRequest, Price, Session
from ghostclean.core.broker import Account, Activity, MarketClock, Order, Position, Positions, Side, WorkingOrders
from ghostclean.core.broker import Fill as BrokerFill
from ghostclean.errors import Refusal, Refused

from .clock import START
from .oracles import Judge
from .world import DAY, SimOrder, World, moment

ACCOUNT = "account-1"
Effect = Callable[[str, Callable[[], Any]], Any]


class SimBroker:
    """Every read, and every order, is one effect; `judge` sees what is sent, and knows whose it is."""

    live = False

    def __init__(self, world: World, effect: Effect, judge: Judge) -> None:
        self._world, self._effect, self._judge = world, effect, judge

    def requests_left(self) -> int | None:
        return None

    def now(self) -> datetime:
        return self._world.clock.now()

    # ------------------------------------------------------------------ lists

    def account(self) -> Account:
        return self._effect("broker", self._account)

    def _account(self) -> Account:
        world = self._world
        t = world.clock.t - (world.position_lag if world.account_lags else 0.0)
        values = [world.net(s, t) * p for s, p in world.prices.items()]
        long = sum((v for v in values if v > 0), Decimal(0))
        short = sum((v for v in values if v < 0), Decimal(0))
        return Account(ACCOUNT, "ACTIVE", long, short, False)

    def working_orders(self) -> WorkingOrders:
        return WorkingOrders(self._effect("broker", self._working))

    def _working(self) -> tuple[Order, ...]:
        world, rows = self._world, []
        t = world.clock.t - world.order_lag
        nested: set[str] = set()
        for order in world.lately():
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
        for symbol, price in world.prices.items():
            qty = world.net(symbol, world.clock.t - world.position_lag)
            if qty and world.hidden.get(symbol, -1.0) < world.clock.t:
                side = Side.LONG if qty > 0 else Side.SHORT
                rows.append(Position(
                    symbol, symbol, side, abs(qty), world.costs[symbol], qty * price, price, f"asset-{symbol}",
                    "us_equity", max(Decimal(0), world.available(symbol)),
                ))  # fmt: skip
        return Positions(tuple(rows))

    def fills(self, since: datetime) -> tuple[BrokerFill, ...]:
        return self._effect("broker", lambda: self._fills((since - START).total_seconds()))

    def _fills(self, first: float) -> tuple[BrokerFill, ...]:
        last = self._world.clock.t - self._world.fill_lag
        rows = [
            BrokerFill(f"f{f.number}", f.order, f.symbol, f.symbol, f.side, f.qty, f.price, moment(f.t))
            for f in self._world.fills
            if f.shown and first <= f.t <= last
        ]
        return tuple(sorted(rows, key=lambda f: f.at))

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        return self._effect("broker", lambda: self._history(set(symbols), since))

    def _history(self, keys: set[str], since: datetime) -> History:
        first = (since - START).total_seconds()
        rows: dict[str, Order] = {}
        recent = [o for o in self._world.orders.values() if o.symbol in keys and o.t > first]
        for order in recent:
            if order.parent is None:
                rows |= {row.id: row for row in self._nested(order)}
        for order in recent:  # what replaced a leg stands beside, not below
            rows.setdefault(order.id, order.versions[-1][1])
        return History(tuple(rows.values()), since)

    # ------------------------------------------------------------------ single answers

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

    def activities(self, since: datetime) -> tuple[Activity, ...]:
        return self._effect("broker", lambda: ())

    def clock(self) -> MarketClock:
        return self._effect("broker", self._clock)

    def _clock(self) -> MarketClock:
        opens, closes = self._world.session()
        is_open = self._world.is_open
        return MarketClock(self.now(), is_open, moment(opens + DAY * is_open), moment(closes))

    def calendar(self, first: date, last: date) -> tuple[Session, ...]:
        opens, closes = (moment(t) for t in self._world.session())
        days = [timedelta(days=n) for n in range(-9, 1)]
        return tuple(Session((opens + d).date(), opens + d, closes + d) for d in days if (opens + d).date() <= last)

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        return None

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Price]:
        world = self._world
        return self._effect("broker", lambda: {s: Price(world.prices[s], self.now(), True) for s in symbols})

    # ------------------------------------------------------------------ orders

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        return self._effect("order", lambda: self._submit(request))

    def _submit(self, request: OrderRequest) -> tuple[Order, ...]:
        world = self._world
        self._judge.submit(request)
        if request.client_id in world.by_client:
            raise Refused("client_order_id must be unique", status=422, why=Refusal.NAME_TAKEN)
        self._check_free(request.symbol, request.side, request.qty)
        owner, more = (
            self._judge.owner_of(request.client_id),
            {"kind": request.order_class, "client": request.client_id},
        )
        order = world.submit(
            request.symbol, request.side, request.qty, owner, type=request.type, stop=request.stop_price,
            limit=request.limit_price, **more,
        )  # fmt: skip
        if request.order_class == "oco":
            leg = world.submit(
                request.symbol, request.side, request.qty, owner, type="stop", stop=request.stop_loss, status="held",
                parent=order.id, kind="oco",
            )  # fmt: skip
            order.legs = [leg.id]
            order.keep(world.clock.t)
        if request.type == "market":
            world.trade(order)
        return self._nested(order)

    def _check_free(self, symbol: str, side: str, qty: Decimal, without: Sequence[SimOrder] = ()) -> None:
        net = self._world.net(symbol)
        if net and side == ("sell" if net > 0 else "buy") and qty > self._world.available(symbol, without):
            raise Refused("insufficient qty available for order", status=403)

    def replace(self, order_id: str, client_id: str, **changes: Decimal) -> Order:
        return self._effect("order", lambda: self._replace(order_id, client_id, changes))

    def _replace(self, order_id: str, client_id: str, changes: Mapping[str, Decimal]) -> Order:
        world = self._world
        order = world.orders[order_id]
        self._judge.touch(order, "replace", changes.get("stop_price"))
        if not order.works or order.filled:
            raise Refused(f"order is {order.status}", status=422)
        self._check_free(order.symbol, order.side, changes.get("qty", order.left), [order, *world.siblings(order)])
        return world.replace(order, client_id, **changes).versions[-1][1]

    def cancel(self, order_id: str) -> None:
        self._effect("order", lambda: self._cancel(order_id))

    def _cancel(self, order_id: str) -> None:
        order = self._world.orders[order_id]
        self._judge.touch(order, "cancel")
        if not order.works:
            raise Refused(f"order is {order.status}", status=422)
        self._world.cancel(order)
