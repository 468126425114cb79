"""The broker's books in memory: orders with legs and replace chains, fills, what each hand really holds.

Every fill has an owner (a trade, or None for the owner of the account himself), which the tool
under test cannot see: it is what the oracles judge by.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from ghostclean.core.broker import Order
from tests.lots import ZERO, Lots

from .clock import START, Clock

FINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
DAY = 86400.0
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
_OPENS, _SESSION = -1800.0, 23400.0  # the first session, in seconds of the clock
_LONGEST_LAG = 60.0
_PLACES = Decimal("0.000001")


def moment(t: float) -> datetime:
    return START + timedelta(seconds=round(t, 3))


@dataclass(slots=True)
class Fill:
    order: str
    symbol: str
    side: str
    qty: Decimal
    price: Decimal
    t: float
    owner: str | None
    shown: bool  # False: no order and no fill tells of it (a wiped account)
    number: int

    @property
    def signed(self) -> Decimal:
        return self.qty if self.side == "buy" else -self.qty


@dataclass(slots=True)
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
    filled: Decimal = ZERO
    worth: Decimal = ZERO
    stop: Decimal | None = None
    limit: Decimal | None = None
    filled_t: float | None = None
    ended_t: float | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    legs: list[str] = field(default_factory=list)
    parent: str | None = None
    kind: str = "simple"
    versions: list[tuple[float, Order]] = field(default_factory=list)

    @property
    def left(self) -> Decimal:
        return self.qty - self.filled

    @property
    def works(self) -> bool:
        return self.status not in FINAL

    def keep(self, t: float) -> None:
        """Notes the order's new state."""
        average = (self.worth / self.filled).quantize(_PLACES) if self.filled else None
        self.versions.append((t, Order(
            self.id, self.client, self.symbol, self.symbol, f"asset-{self.symbol}", "us_equity", self.side, self.type,
            "bracket" if self.legs and self.kind == "simple" else self.kind, self.status, self.qty, self.filled,
            average, self.limit, self.stop, moment(self.t), _at(self.filled_t), _at(self.ended_t), None,
            self.replaced_by, self.replaces, tuple(self.legs), None, "gtc",
        )))  # fmt: skip

    def at(self, t: float) -> Order | None:
        return next((order for since, order in reversed(self.versions) if since <= t), None)


def _at(t: float | None) -> datetime | None:
    return moment(t) if t is not None else None


class World:
    """What happens at the broker, and the truth about it."""

    def __init__(self, clock: Clock, tag: int) -> None:
        self.clock = clock
        self.rng = random.Random(tag)
        self.orders: dict[str, SimOrder] = {}
        self.by_client: dict[str, str] = {}
        self.fills: list[Fill] = []
        self.prices: dict[str, Decimal] = {}
        self.costs: dict[str, Decimal] = {}  # average entry prices
        self.sides: dict[str, str] = {}  # the account is netted: one side a symbol
        self.position_lag = self.order_lag = self.fill_lag = 0.0
        self.hidden: dict[str, float] = {}  # symbol -> until when its row is missing
        self.account_lags = True
        self.later: list[tuple[float, Callable[[], None]]] = []  # what the exchange takes its time for
        self._by_symbol: dict[str, list[Fill]] = defaultdict(list)
        self._by_owner: dict[str | None, list[Fill]] = defaultdict(list)
        self._lately: dict[str, SimOrder] = {}
        self._tag = tag
        self._last = 0

    # ------------------------------------------------------------------ orders

    def uuid(self) -> str:
        self._last += 1
        return f"{self._last:08x}-0000-4000-8000-{self._tag & 0xFFFFFFFFFFFF:012x}"

    def submit(self, symbol: str, side: str, qty: Decimal, owner: str | None, *, t: float | None = None,
               type: str = "market", client: str | None = None, **more: object) -> SimOrder:  # fmt: skip
        t = self.clock.t if t is None else t
        order_id = self.uuid()
        order = SimOrder(order_id, client or f"c-{order_id}", symbol, side, qty, type, owner, t, **more)  # type: ignore[arg-type]
        self.orders[order_id] = self._lately[order_id] = order
        self.by_client[order.client] = order_id
        order.keep(t)
        return order

    def bracket(self, symbol: str, side: str, qty: Decimal, owner: str, *, t: float | None = None) -> SimOrder:
        price, sign = self.prices[symbol], 1 if side == "buy" else -1
        entry = self.submit(symbol, side, qty, owner, t=t)
        exits = {"side": "sell" if side == "buy" else "buy", "status": "held", "parent": entry.id, "kind": "bracket"}
        more = {"symbol": symbol, "qty": qty, "owner": owner, "t": t, **exits}
        target = self.submit(type="limit", limit=price + sign * 10, **more)  # type: ignore[arg-type]
        stop = self.submit(type="stop", stop=price - sign * 10, **more)  # type: ignore[arg-type]
        entry.legs = [target.id, stop.id]
        entry.versions.clear()
        entry.keep(entry.t)
        return entry

    def fill(self, order: SimOrder, qty: Decimal, *, t: float | None = None, owner: str | None = None) -> None:
        """Executes a part of an order; a filled exit leg cancels its sibling."""
        t = self.clock.t if t is None else t
        price = order.limit or order.stop or self.prices[order.symbol]
        self._execute(order.id, order.symbol, order.side, qty, price, t, owner or order.owner)
        order.filled += qty
        order.worth += qty * price
        order.filled_t = t
        order.status = "filled" if order.filled == order.qty else "partially_filled"
        order.keep(t)
        if order.status == "filled":
            for leg in map(self.orders.get, order.legs):
                if leg is not None and leg.side != order.side and leg.status == "held":
                    leg.status = "new"
                    leg.keep(t)
            for sibling in self.siblings(order):
                self.end(sibling, "canceled", t=t)

    def _execute(
        self, order: str, symbol: str, side: str, qty: Decimal, price: Decimal, t: float, owner: str | None,
        shown: bool = True,
    ) -> None:  # fmt: skip
        fill = Fill(order, symbol, side, qty, price, t, owner, shown, len(self.fills))
        net = self.net(symbol)
        if net * fill.signed >= 0:
            self.costs[symbol] = (self.costs.get(symbol, ZERO) * abs(net) + price * qty) / (abs(net) + qty)
        for rows in (self.fills, self._by_symbol[symbol], self._by_owner[owner]):
            rows.append(fill)

    def siblings(self, order: SimOrder) -> list[SimOrder]:
        """The orders of which at most one fills: legs of one bracket, the two of an OCO."""
        family = order.parent or (order.id if order.kind == "oco" else None)
        if family is None:
            return []
        ids = {family, *self.orders[family].legs} - {order.id}
        return [o for o in map(self.orders.__getitem__, ids) if o.side == order.side and o.works]

    def end(self, order: SimOrder, status: str, *, t: float | None = None) -> None:
        t = self.clock.t if t is None else t
        if not order.works:
            return
        order.status, order.ended_t = status, t
        order.keep(t)
        if not order.filled:
            for leg in order.legs:
                self.end(self.orders[leg], "canceled", t=t)

    def cancel(self, order: SimOrder) -> None:
        """What a cancel does: the other half of an OCO, and of a bracket's exits, goes too."""
        for one in (order, *self.siblings(order)):
            self.end(one, "canceled")

    def replace(self, order: SimOrder, client: str | None = None, **changes: Decimal) -> SimOrder:
        t, prices = self.clock.t, {"stop": order.stop, "limit": order.limit}
        prices |= {name: changes[f"{name}_price"] for name in prices if f"{name}_price" in changes}
        new = self.submit(
            order.symbol, order.side, changes.get("qty", order.left), order.owner, type=order.type, client=client,
            replaces=order.id, status="held" if order.status == "held" else "new", parent=order.parent,
            kind=order.kind, **prices,
        )  # fmt: skip
        order.status, order.ended_t, order.replaced_by = "replaced", t, new.id
        order.keep(t)
        if order.parent:
            parent = self.orders[order.parent]
            parent.legs = [new.id if leg == order.id else leg for leg in parent.legs]
            parent.keep(t)
        return new

    def wipe(self, symbol: str, side: str, qty: Decimal, owner: str) -> None:
        """The position disappears and nothing tells why."""
        self._execute("", symbol, side, qty, self.prices[symbol], self.clock.t, owner, shown=False)

    # ------------------------------------------------------------------ the exchange

    def session(self) -> tuple[float, float]:
        """The session in progress, or the next one."""
        days = (self.clock.t - _OPENS) // DAY
        opens = _OPENS + days * DAY
        opens += DAY if self.clock.t >= opens + _SESSION else 0.0
        return opens, opens + _SESSION

    @property
    def is_open(self) -> bool:
        return self.session()[0] <= self.clock.t

    def night(self) -> float:
        """How long the market has been closed; 0 while it is open."""
        opens, _ = self.session()
        return 0.0 if self.is_open else max(0.0, self.clock.t - (opens - DAY + _SESSION))

    def quote(self, symbol: str, price: Decimal) -> None:
        """A new price, and what trades on it."""
        self.prices[symbol] = price
        for order in [o for o in self.lately() if o.symbol == symbol and o.works and o.status != "held"]:
            if order.works and order.type != "market" and self.triggers(order, price):
                self.fill(order, order.left)

    @staticmethod
    def triggers(order: SimOrder, price: Decimal) -> bool:
        if order.type == "stop":
            return order.stop is not None and (price <= order.stop if order.side == "sell" else price >= order.stop)
        return order.limit is not None and (price >= order.limit if order.side == "sell" else price <= order.limit)

    def trade(self, order: SimOrder) -> None:
        """A market order trades at once, in two parts, or a moment later."""
        if self.rng.random() < 0.8:
            self.fill(order, order.qty)
            return
        if order.qty > 1 and self.rng.random() < 0.5:
            self.fill(order, Decimal(1))
        due = self.clock.t + self.rng.choice((1.0, 8.0))
        self.later.append((due, lambda: self.fill(order, order.left) if order.works else None))

    def settle(self) -> None:
        """What the exchange had put off."""
        waiting, self.later = self.later, []
        for at, act in waiting:
            if at <= self.clock.t:
                act()
            else:
                self.later.append((at, act))

    def available(self, symbol: str, without: Iterable[SimOrder] = ()) -> Decimal:
        """How much of a position no working closing order holds; of siblings only the larger one counts."""
        net, skipped = self.net(symbol), {o.id for o in without}
        closing = "sell" if net > 0 else "buy"
        held: dict[str, Decimal] = {}
        for order in self.lately():
            if order.works and order.symbol == symbol and order.side == closing and order.id not in skipped:
                family = order.parent or order.id
                opened = self.orders[family].side == closing or self.orders[family].status == "filled"
                if order.status != "held" or opened:
                    held[family] = max(held.get(family, ZERO), order.left)
        return abs(net) - sum(held.values(), ZERO)

    def lately(self) -> list[SimOrder]:
        """The orders that some list may still show as working."""
        oldest = self.clock.t - _LONGEST_LAG
        self._lately = {i: o for i, o in self._lately.items() if o.works or o.versions[-1][0] > oldest}
        return list(self._lately.values())

    # ------------------------------------------------------------------ the truth

    def held_of(self, owner: str | None, t: float | None = None) -> Decimal:
        """What a trade really holds, or held at a time, signed."""
        return sum((f.signed for f in self._by_owner[owner] if t is None or f.t <= t), ZERO)

    def net(self, symbol: str, t: float | None = None) -> Decimal:
        return sum((f.signed for f in self._by_symbol[symbol] if t is None or f.t <= t), ZERO)

    def lots_of(self, owner: str, t: float) -> Lots:
        """A trade's lots at a time, one an entry order."""
        fills, lots = sorted((f for f in self._by_owner[owner] if f.t <= t), key=lambda f: f.t), Lots()
        opening = fills[0].side if fills else ""
        entries: dict[str, list[Fill]] = {}
        for f in fills:
            if f.side == opening:
                entries.setdefault(f.order, []).append(f)
        for rows in entries.values():
            qty = sum((f.qty for f in rows), ZERO)
            lots.buy(qty, sum((f.qty * f.price for f in rows), ZERO) / qty)
        for f in fills:
            if f.side != opening:
                lots.sell(f.qty, f.price, 1 if f.side == "sell" else -1)
        return lots

    def flow(self, symbol: str) -> Decimal:
        """The money that all trading in a symbol has brought."""
        return -sum((f.signed * f.price for f in self._by_symbol[symbol]), ZERO)

    def moments(self, symbol: str, since: float) -> list[float]:
        """The times at which a run that began then may have seen the symbol: what it read is of one of them."""
        return [since, self.clock.t, *(f.t for f in self._by_symbol[symbol] if f.t > since)]
