"""The venue: time passes, orders are matched against prices, and fills become positions and money."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

from .book import STAMP_OF, ZERO, Book
from .quirks import NO_DELAY, Delay
from .shapes import FINAL, Number, Position, Price, Row, activity_id, asset_id, decimal, text, unslashed
from .times import ET, aware, nanoseconds, stamp

MATCHABLE = frozenset({"new", "partially_filled", "pending_cancel", "pending_replace"})
SWEEP_DELAY = timedelta(minutes=15)


@dataclass
class _Pending:
    due: datetime | None
    requests: int
    act: Callable[[], None]


class Venue(Book):
    """A book whose orders trade."""

    def __init__(self, now: datetime | str | None = None, seed: int = 0) -> None:
        super().__init__(now, seed)
        self.requests_served = 0
        self._waiting: list[str] = []
        self._marketable: set[str] = set()
        self._stop_limits: dict[str, Decimal] = {}
        self._pending: list[_Pending] = []
        self._activity_count = 0
        self._ticked = self.clock.now
        self.new_account()

    def new_account(self) -> None:
        """Start over with another account: what happens when a paper account is deleted and created again."""
        with self.mutation():
            self.remember()
            self.account_id = self.new_id()
            self.account_number = f"PA{self._random.randrange(10**9):09d}"
            for memory in (self.orders, self.client_ids, self.parents, self.legs, self.positions):
                memory.clear()
            for rows in (self.activities, self._waiting, self._pending):
                rows.clear()

    # --- time ---------------------------------------------------------------------------------------------------------

    def move_clock(self, now: datetime | str | None = None, step: timedelta = timedelta()) -> None:
        """Set or advance the clock; what is due in between happens at its own moment."""
        with self.mutation():
            if now is not None:
                self.clock.set(now)
            self.clock.advance(step)
            self.tick()

    def tick(self) -> None:
        """Let everything happen that is due by now."""
        with self.mutation():
            until = self.clock.now
            for moment in self._moments(until):
                with self.clock.at(moment):
                    self._settle()
                    self._expire(moment)
                self._ticked = moment
            self._settle()
            self._ticked = until

    def later(self, delay: Delay, act: Callable[[], None], *, not_before: datetime | None = None) -> None:
        """Do something after a delay; at once when there is none."""
        forever = math.isinf(delay.seconds)
        due = None if forever else self.now + timedelta(seconds=delay.seconds)
        if due is not None and not_before is not None:
            due = max(due, not_before)
        self._pending.append(_Pending(due, self.requests_served + delay.requests, act))
        self._settle()

    def _moments(self, until: datetime) -> list[datetime]:
        """Return the moments since the last tick at which something may be due."""
        if until <= self._ticked:
            return []
        due = {p.due for p in self._pending if p.due is not None and self._ticked < p.due <= until}
        return sorted(due | set(self.sessions.boundaries(self._ticked, until)))

    def _settle(self) -> None:
        for order_id in list(self._waiting):
            if self._trades_now(self.orders[order_id]):
                self._route(self.orders[order_id])
        while ready := [p for p in self._pending if self._is_due(p)]:
            self._pending.remove(ready[0])
            ready[0].act()

    def _is_due(self, pending: _Pending) -> bool:
        return pending.due is not None and pending.due <= self.now and pending.requests <= self.requests_served

    def _expire(self, moment: datetime) -> None:
        """End DAY orders at their close and aged GTC orders a quarter of an hour after it, once each."""
        for order in list(self.orders.values()):
            if order["status"] in FINAL or order["asset_class"] == "crypto" or not order.get("expires_at"):
                continue
            gtc = order["time_in_force"] == "gtc"
            due = nanoseconds(order["expires_at"]) + gtc * int(SWEEP_DELAY.total_seconds()) * 10**9
            if nanoseconds(stamp(self._ticked)) < due <= nanoseconds(stamp(moment)):
                self._end(order, "canceled" if gtc else "expired")

    # --- matching -----------------------------------------------------------------------------------------------------

    def set_price(
        self,
        symbol: str,
        price: Number | None,
        *,
        bid: Number | None = None,
        ask: Number | None = None,
        at: datetime | str | None = None,
    ) -> None:
        """Set the last trade and the quote of a symbol, and let orders trade on it."""
        with self.mutation():
            last = None if price is None else decimal(price)
            quote = {"bid": bid, "ask": ask}
            sides = {side: last or ZERO if value is None else decimal(value) for side, value in quote.items()}
            self.prices[unslashed(symbol)] = Price(last, **sides, at=self.now if at is None else aware(at))
            self.tick()
            self.match_symbol(symbol)

    def match_symbol(self, symbol: str) -> None:
        """Match all working orders of a symbol against its present price."""
        key = unslashed(symbol)
        for order in list(self.orders.values()):
            if order["order_class"] != "mleg" and unslashed(order["symbol"]) == key:
                self._match(order)

    def _trades_now(self, order: Row) -> bool:
        """Say whether the venue would match this order now."""
        if order["asset_class"] == "crypto" or self.sessions.is_open(self.now):
            return True
        return bool(order.get("extended_hours")) and self.sessions.is_extended(self.now)

    def _route(self, order: Row) -> None:
        """Send an accepted order to the venue, or let it wait for the open."""
        if order["status"] not in ("accepted", "pending_new"):
            if order["id"] in self._waiting:
                self._waiting.remove(order["id"])
            return
        if not self._trades_now(order):
            if order["id"] not in self._waiting:
                self._waiting.append(order["id"])
            self.touch(order, status="accepted")
            return
        if order["id"] in self._waiting:
            self._waiting.remove(order["id"])
        self.touch(order, status="new")
        for leg in self.legs_of(order["id"]):
            if order["order_class"] == "mleg":
                self.touch(leg, status="new")
        self.later(self.quirks.fill_delay, lambda: self._arrive(order))

    def _arrive(self, order: Row) -> None:
        """Let an order that has just reached the venue trade at once if it can."""
        self._marketable.add(order["id"])
        if order["order_class"] != "mleg":
            self._match(order, arriving=True)
        if order["time_in_force"] in ("ioc", "fok") and order["status"] not in FINAL:
            self._end(order, "canceled")

    def _match(self, order: Row, *, arriving: bool = False) -> None:
        last, taker = self.price_of(order["symbol"]), self._taker_price(order)
        armed = order["status"] == "held" and order["type"] in ("stop", "stop_limit") and not self._is_dormant(order)
        if last is None or taker is None or not (order["status"] in MATCHABLE or armed):
            return
        if not self._trades_now(order):
            return
        price = self._execution_price(order, last, taker, arriving)
        if price is not None:
            self._execute(order, self._share(order, price), price)

    def _execution_price(self, order: Row, last: Decimal, taker: Decimal, arriving: bool) -> Decimal | None:
        """Return the price at which an order trades now, None if it does not."""
        kind, buys = order["type"], order["side"] == "buy"
        if kind == "market":
            return taker if order["id"] in self._marketable else None
        if kind == "limit":
            return self._limited(decimal(order["limit_price"]), taker, buys, arriving)
        if kind == "trailing_stop":
            self._trail(order, last)
        if order["id"] not in self._stop_limits:
            stop = decimal(order["stop_price"])
            if (last < stop) if buys else (last > stop):
                return None
            if kind == "stop_limit":
                self._stop_limits[order["id"]] = decimal(order["limit_price"])
            elif kind == "stop" and buys:
                # Alpaca turns a buy stop into a stop-limit so that a gap cannot run away with the buyer.
                self._stop_limits[order["id"]] = stop * (Decimal("1.04") if stop < 50 else Decimal("1.025"))
            arriving = True
        limit = self._stop_limits.get(order["id"])
        return taker if limit is None else self._limited(limit, taker, buys, arriving)

    @staticmethod
    def _limited(limit: Decimal, taker: Decimal, buys: bool, arriving: bool) -> Decimal | None:
        """A marketable limit takes the market's price; a resting one trades at its own."""
        if (taker > limit) if buys else (taker < limit):
            return None
        return taker if arriving else limit

    def _taker_price(self, order: Row) -> Decimal | None:
        """Return what a market order gets now: the other side's quote, else the last trade."""
        price = self.prices.get(unslashed(order["symbol"]))
        if price is None:
            return None
        return (price.ask if order["side"] == "buy" else price.bid) or price.last

    def _share(self, order: Row, price: Decimal) -> Decimal:
        """Return how much of an order fills by itself."""
        left = self._left(order, price)
        ratio = self.quirks.fill_ratio
        if order["type"] != "market" or ratio is None:
            return left
        self._marketable.discard(order["id"])
        grain = Decimal(1) if order["qty"] and decimal(order["qty"]) % 1 == 0 else Decimal("1e-9")
        return (left * ratio).quantize(grain, ROUND_DOWN)

    def _trail(self, order: Row, last: Decimal) -> None:
        """Move the high (low) water mark and the stop behind it."""
        sells = order["side"] == "sell"
        mark = decimal(order["hwm"]) if order["hwm"] else last
        mark = max(mark, last) if sells else min(mark, last)
        gap = decimal(order["trail_price"] or 0) or mark * decimal(order["trail_percent"] or 0) / 100
        self.touch(order, hwm=text(mark), stop_price=text(mark - gap if sells else mark + gap, 2))

    # --- fills --------------------------------------------------------------------------------------------------------

    def fill(
        self, order_id: str, qty: Number | None = None, price: Number | None = None, at: datetime | str | None = None
    ) -> Row:
        """Fill an order, wholly or in part, whatever the session; ValueError if it is final or too small."""
        with self.mutation():
            order = self.order(order_id)
            if order["status"] in FINAL:
                raise ValueError(f"order {order_id} is {order['status']}")
            moment = None if at is None else aware(at)
            with self.clock.at(moment) if moment else nullcontext():
                if order["order_class"] == "mleg" and order_id in self.legs:
                    return self._fill_mleg(order, qty, price, moment)
                paid = decimal(price) if price is not None else self._natural_price(order)
                size = self._left(order, paid) if qty is None else decimal(qty)
                if size <= 0 or size > self._left(order, paid):
                    raise ValueError(f"cannot fill {size} of {self._left(order, paid)}")
                self._execute(order, size, paid, moment)
            return order

    def _natural_price(self, order: Row) -> Decimal:
        for price in (order["limit_price"], order["stop_price"], self._taker_price(order)):
            if price is not None:
                return decimal(price)
        raise ValueError(f"no price known for {order['symbol']}: give one")

    def _fill_mleg(self, parent: Row, qty: Number | None, price: Number | None, at: datetime | None) -> Row:
        units = decimal(qty) if qty is not None else self._left(parent, Decimal(1))
        for leg in self.legs_of(parent["id"]):
            self._execute(leg, units * decimal(leg["ratio_qty"]), self._taker_price(leg) or Decimal(1), at)
        net = decimal(price if price is not None else parent["limit_price"] or 1)
        self._record_fill(parent, units, net, at)
        return parent

    def _record_fill(self, order: Row, qty: Decimal, price: Decimal, at: datetime | None) -> None:
        """Write a fill into the order itself."""
        before, average = decimal(order["filled_qty"]), decimal(order["filled_avg_price"] or 0)
        total = before + qty
        whole = order["qty"] is None or total >= decimal(order["qty"])
        requested = order["status"] in ("pending_cancel", "pending_replace")
        status = "filled" if whole else order["status"] if requested else "partially_filled"
        self.touch(
            order,
            filled_qty=text(total),
            filled_avg_price=text((average * before + price * qty) / total),
            filled_at=self._stamp(at),
            status=status,
        )

    def _execute(self, order: Row, qty: Decimal, price: Decimal, at: datetime | None = None) -> None:
        """Trade: order, activity, position and cash, then what follows for the order's group."""
        if qty <= 0:
            return
        group = self._alternatives(order)
        self._record_fill(order, qty, price, at)
        self._apply_to_position(order, qty, price)
        done = order["status"] == "filled"
        self.add_activity(
            "FILL",
            at,
            order_id=order["id"],
            symbol=order["symbol"],
            side=order["side"],
            qty=text(qty),
            price=text(price),
            cum_qty=order["filled_qty"],
            leaves_qty=text(decimal(order["qty"]) - decimal(order["filled_qty"])) if order["qty"] else "0",
            type="fill" if done else "partial_fill",
            order_status=order["status"],
            transaction_time=self._stamp(at),
        )
        for sibling in group:
            if sibling is order:
                continue
            if done:
                self._end(sibling, "canceled", at)
            else:
                left = decimal(order["qty"]) - decimal(order["filled_qty"])
                self.touch(sibling, qty=text(left + decimal(sibling["filled_qty"])))
        if done and order["order_class"] in ("bracket", "oto"):
            self._wake_legs(order)

    def _wake_legs(self, entry: Row) -> None:
        """After the entry: the target works, the stop stays `held` behind it; a lone leg works."""
        legs = [leg for leg in self.legs_of(entry["id"]) if leg["status"] == "held"]
        for leg in legs:
            if leg["type"] == "limit" or len(legs) == 1:
                self.touch(leg, status="new")

    def _apply_to_position(self, order: Row, qty: Decimal, price: Decimal) -> None:
        key = unslashed(order["symbol"])
        crypto = order["asset_class"] == "crypto"
        fee = qty * self.quirks.crypto_fee if crypto and order["side"] == "buy" else ZERO
        change = qty - fee if order["side"] == "buy" else -qty
        held = self.positions.get(key)
        self.remember()
        if held is None:
            owner = asset_id(order["symbol"], position=True) if crypto else order["asset_id"]
            held = self.positions[key] = Position(key, ZERO, price, order["asset_class"], owner)
        self.cash -= (qty if order["side"] == "buy" else -qty) * price * held.multiplier
        if crypto and order["side"] == "sell":
            self.cash -= qty * price * self.quirks.crypto_fee
        total = held.qty + change
        if held.qty * change >= 0:
            size = abs(held.qty) + abs(change)
            held.avg_entry_price = (held.avg_entry_price * abs(held.qty) + price * abs(change)) / size
        elif held.qty * total < 0:
            held.avg_entry_price = price
        held.qty = total
        if total == 0:
            del self.positions[key]
        if fee:
            self.add_activity("CFEE", None, symbol=key, qty=text(-fee), price=text(price), net_amount="0")

    def add_activity(self, kind: str, at: datetime | None = None, *, after: Delay = NO_DELAY, **fields: Any) -> Row:
        """Write an activity row; `after` delays its appearance in the list."""
        with self.mutation():
            self.remember()
            self._activity_count += 1
            moment = at or self.now
            row: Row = {"id": activity_id(moment, self._activity_count), "activity_type": kind}
            if kind != "FILL":
                day = moment.astimezone(ET).date().isoformat()
                row |= {"date": day, "created_at": self._stamp(at), "status": "executed", "net_amount": "0"}
            row |= fields
            self.activity_times[row["id"]] = nanoseconds(row.get("transaction_time") or row["created_at"])
            self.later(after, lambda: self.activities.append(row))
            return row

    def _end(self, order: Row, status: str, at: datetime | None = None) -> None:
        """Make an order final; its dormant legs and its working siblings end with it."""
        group = [*self._alternatives(order), *self.legs_of(order["id"])]
        for member in [order, *group]:
            if member["status"] not in FINAL:
                self.touch(member, status=status, **{STAMP_OF[status]: self._stamp(at)})
