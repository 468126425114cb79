"""The book of the simulated broker: orders and their groups, positions, money, and what they were before.

Everything here happens under one lock and on one simulated clock. Orders are kept in their JSON shape, so a test may
look at them, or bend them, directly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from decimal import ROUND_DOWN, Decimal
from threading import RLock
from typing import Any
from uuid import UUID

from .quirks import Quirks
from .shapes import (
    FINAL,
    Number,
    Position,
    Price,
    Row,
    asset_row,
    bad_parameter,
    decimal,
    forbidden,
    not_found,
    order_row,
    overridden,
    text,
    unslashed,
)
from .times import ET, Clock, Sessions, stamp

ZERO = Decimal(0)
GTC_LIFE = timedelta(days=90)
STAMP_OF = {
    "filled": "filled_at",
    "expired": "expired_at",
    "canceled": "canceled_at",
    "rejected": "failed_at",
    "replaced": "replaced_at",
}


@dataclass
class _Undo:
    """What the last mutation replaced: earlier copies of orders (None: did not exist) and of the rest."""

    orders: dict[str, Row | None] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    cash: Decimal = ZERO
    activities: int = 0


class Book:
    """What the broker knows; every public method takes the lock and may be called from any thread."""

    def __init__(self, now: datetime | str | None = None, seed: int = 0) -> None:
        self.lock = RLock()
        self.clock = Clock(now)
        self.sessions = Sessions()
        self.quirks = Quirks()
        self.cash = Decimal(1_000_000)
        self.account_id = ""
        self.account_number = ""
        self.account_fields: Row = {}
        self.orders: dict[str, Row] = {}
        self.sequence: dict[str, int] = {}
        self.parents: dict[str, str] = {}
        self.legs: dict[str, list[str]] = {}
        self.positions: dict[str, Position] = {}
        self.prices: dict[str, Price] = {}
        self.assets: dict[str, Row | None] = {}
        self.activities: list[Row] = []
        self.activity_times: dict[str, int] = {}
        self.client_ids: dict[str, str] = {}
        self._random = random.Random(seed)
        self._depth = 0
        self._change: _Undo | None = None
        self._undo: _Undo | None = None

    @property
    def now(self) -> datetime:
        return self.clock.now

    def new_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def _stamp(self, at: datetime | None = None) -> str:
        return stamp(at) if at is not None else stamp(self.now, self.quirks.nanos)

    def _expiry(self, time_in_force: str) -> str:
        if time_in_force != "gtc":
            return stamp(self.sessions.next_close(self.now))
        last_day = (self.now + GTC_LIFE).astimezone(ET).date()
        return stamp(datetime.combine(last_day, time(16), ET))

    # --- change log ---------------------------------------------------------------------------------------------------

    @contextmanager
    def mutation(self) -> Iterator[None]:
        """Bracket one change, so that `stale()` can show the state before it."""
        with self.lock:
            if self._depth == 0:
                self._change = None
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._change is not None:
                    self._undo, self._change = self._change, None

    def remember(self) -> _Undo:
        """Keep what `stale()` needs; to be called before anything but an order is changed."""
        if self._change is None:
            copies = {symbol: Position(**vars(held)) for symbol, held in self.positions.items()}
            self._change = _Undo({}, copies, self.cash, len(self.activities))
        return self._change

    def touch(self, order: Row, **changes: Any) -> None:
        """Change an order, remembering what it was."""
        undo = self.remember().orders
        if order["id"] not in undo:
            undo[order["id"]] = dict(order) if order["id"] in self.orders else None
        order.update(changes)
        order["updated_at"] = self._stamp()

    @contextmanager
    def stale(self) -> Iterator[None]:
        """Show, while inside, the orders, positions, cash and activities from before the last change."""
        if self._undo is None:
            yield
            return
        undo, present = self._undo, (self.orders, self.positions, self.cash, self.activities)
        overlay = {order_id: undo.orders.get(order_id, row) for order_id, row in self.orders.items()}
        self.orders = {order_id: row for order_id, row in overlay.items() if row is not None}
        self.positions, self.cash, self.activities = undo.positions, undo.cash, self.activities[: undo.activities]
        try:
            yield
        finally:
            self.orders, self.positions, self.cash, self.activities = present

    # --- look-ups -----------------------------------------------------------------------------------------------------

    def order(self, order_id: str) -> Row:
        """Return an order; 422 for what is no UUID, 404 for an unknown one."""
        try:
            known = str(UUID(order_id))
        except ValueError:
            raise bad_parameter(f"invalid order id: {order_id}") from None
        if known not in self.orders:
            raise not_found(f"order not found for {order_id}")
        return self.orders[known]

    def order_by_client_id(self, client_order_id: str) -> Row:
        order_id = self.client_ids.get(client_order_id)
        if order_id is None or order_id not in self.orders:
            raise not_found(f"order not found for {client_order_id}")
        return self.orders[order_id]

    def legs_of(self, order_id: str) -> list[Row]:
        return [self.orders[leg] for leg in self.legs.get(order_id, []) if leg in self.orders]

    def asset(self, symbol: str) -> Row | None:
        """Return an asset row to read or to bend; any symbol exists until `assets[symbol]` is set to None."""
        key = unslashed(symbol)
        return self.assets.setdefault(key, asset_row(symbol.upper()))

    def find_position(self, symbol_or_id: str) -> Position:
        for held in self.positions.values():
            if symbol_or_id in (held.symbol, held.asset_id):
                return held
        raise not_found("position does not exist")

    def price_of(self, symbol: str) -> Decimal | None:
        """Return the last trade price, if there is one."""
        price = self.prices.get(unslashed(symbol))
        return price.last if price else None

    def mark(self, held: Position) -> Decimal:
        return self.price_of(held.symbol) or held.avg_entry_price

    def market_values(self) -> tuple[Decimal, Decimal]:
        """Return the long and the (negative) short market value."""
        values = [self.mark(held) * held.qty * held.multiplier for held in self.positions.values()]
        return sum((v for v in values if v > 0), ZERO), sum((v for v in values if v < 0), ZERO)

    def account_overrides(self, row: Row) -> Row:
        return overridden(row, self.account_fields)

    # --- order groups and holds ---------------------------------------------------------------------------------------

    def _alternatives(self, order: Row) -> list[Row]:
        """Return the working exits of which only one can fill, the order itself included."""
        parent = self.orders.get(self.parents.get(order["id"], ""))
        if parent is None:
            group = [order, *self.legs_of(order["id"])] if order["order_class"] == "oco" else [order]
        else:
            group = self.legs_of(parent["id"])
            group += [parent] if parent["order_class"] == "oco" else []
        return [member for member in group if member["status"] not in FINAL]

    def _is_dormant(self, order: Row) -> bool:
        """Say whether an order is a leg whose entry has not filled completely."""
        parent = self.orders.get(self.parents.get(order["id"], ""))
        return parent is not None and parent["order_class"] in ("bracket", "oto") and parent["status"] != "filled"

    def is_oto_leg(self, order: Row) -> bool:
        return order["id"] in self.parents and order["order_class"] == "oto"

    def working_by_symbol(self) -> dict[str, list[Row]]:
        """Return the orders that are not final under their unslashed symbols."""
        found: dict[str, list[Row]] = {}
        for order in self.orders.values():
            if order["status"] not in FINAL:
                found.setdefault(unslashed(order["symbol"]), []).append(order)
        return found

    def holding_orders(self, held: Position, working: dict[str, list[Row]] | None = None) -> tuple[Decimal, list[Row]]:
        """Return how much of a position working orders hold, a group counted once, and those orders."""
        closing = "sell" if held.qty > 0 else "buy"
        groups: dict[str, Decimal] = {}
        holders = []
        for order in (self.working_by_symbol() if working is None else working).get(held.symbol, []):
            if order["side"] != closing or order["qty"] is None or self._is_dormant(order) or self._is_offered(order):
                continue
            holders.append(order)
            group = min(member["id"] for member in self._alternatives(order))
            left = decimal(order["qty"]) - decimal(order["filled_qty"])
            groups[group] = max(groups.get(group, ZERO), left)
        return sum(groups.values(), ZERO), holders

    def _is_offered(self, order: Row) -> bool:
        """Say whether an order is a replacement that has not taken its place yet."""
        return self.orders.get(order["replaces"] or "", {}).get("status") == "pending_replace"

    def available(self, held: Position, working: dict[str, list[Row]] | None = None) -> Decimal:
        """Return the quantity no working order holds, with the sign of the position."""
        free = max(abs(held.qty) - self.holding_orders(held, working)[0], ZERO)
        return free if held.qty >= 0 else -free

    def check_available(self, held: Position, qty: Decimal) -> None:
        """Refuse to close more than what no working order holds."""
        holding, holders = self.holding_orders(held)
        free = max(abs(held.qty) - holding, ZERO)
        if qty > free:
            raise forbidden(
                f"insufficient qty available for order (requested: {text(qty)}, available: {text(free)})",
                available=text(free),
                existing_qty=text(abs(held.qty)),
                held_for_orders=text(holding),
                related_orders=[order["id"] for order in holders],
                symbol=held.symbol,
            )

    def _left(self, order: Row, price: Decimal) -> Decimal:
        if order["qty"] is None:
            return (decimal(order["notional"]) / price).quantize(Decimal("1e-9"), ROUND_DOWN)
        return decimal(order["qty"]) - decimal(order["filled_qty"])

    # --- entries ------------------------------------------------------------------------------------------------------

    def enter(self, symbol: str, **fields: Any) -> Row:
        """Put an order into the book as it is, completed with defaults."""
        with self.mutation():
            order_id = fields.pop("id", None) or self.new_id()
            created = fields.get("submitted_at") or fields.get("created_at") or self._stamp()
            expires = {"expires_at": self._expiry(fields.get("time_in_force", "day"))}
            asset = {"asset_id": (self.asset(symbol) or asset_row(symbol))["id"]}
            order = order_row(order_id, symbol, created, **expires | asset | fields)
            self.remember().orders.setdefault(order_id, None)
            self.orders[order_id] = order
            self.sequence[order_id] = len(self.sequence)
            self.client_ids[order["client_order_id"]] = order_id
            return order

    def enter_leg(
        self,
        parent: Row,
        side: str,
        *,
        stop_price: Number | None = None,
        limit_price: Number | None = None,
        **more: Any,
    ) -> Row:
        """Hang an exit leg under a parent: `held`, with the parent's submission time."""
        kind = "limit" if stop_price is None else "stop" if limit_price is None else "stop_limit"
        prices = {"stop_price": stop_price, "limit_price": limit_price}
        shared = ("qty", "time_in_force", "order_class", "submitted_at", "created_at", "expires_at")
        fields = {name: parent[name] for name in shared}
        fields |= {name: None if price is None else text(decimal(price)) for name, price in prices.items()}
        fields |= {"type": kind, "side": side, "status": "held", "position_intent": f"{side}_to_close"}
        leg = self.enter(parent["symbol"], **fields | more)
        self._adopt(parent, leg)
        return leg

    def _adopt(self, parent: Row, leg: Row) -> None:
        self.parents[leg["id"]] = parent["id"]
        self.legs.setdefault(parent["id"], []).append(leg["id"])

    def set_status(self, order_id: str, status: str, **fields: Any) -> Row:
        """Give an order any status, with the time that goes with it; nothing else follows."""
        with self.mutation():
            order = self.order(order_id)
            times = {STAMP_OF[status]: self._stamp()} if status in STAMP_OF else {}
            self.touch(order, **{"status": status} | times | fields)
            return order

    def take_over(self, old: Row, new: Row) -> None:
        """Mark an order replaced by another, which takes its place in the group."""
        self.touch(old, status="replaced", replaced_at=self._stamp(), replaced_by=new["id"])
        if old["id"] in self.parents:
            self._adopt(self.orders[self.parents[old["id"]]], new)
        if old["id"] in self.legs:
            self.legs[new["id"]] = self.legs.pop(old["id"])
            for leg in self.legs[new["id"]]:
                self.parents[leg] = new["id"]
