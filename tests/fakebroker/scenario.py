"""Short helpers with which a test says what the world of the broker looks like."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from .market import Market
from .quirks import NO_DELAY, Delay
from .shapes import FINAL, Number, Position, Price, Row, asset_class_of, asset_id, decimal, slashed, text, unslashed
from .times import aware, stamp

NUMBERS = frozenset({"qty", "notional", "filled_qty", "filled_avg_price", "ratio_qty", "trail"}) | {
    f"{kind}_{unit}" for kind in ("limit", "stop", "trail") for unit in ("price", "percent")
}
Moment = datetime | str | None


class Scenario:
    """What a test arranges; everything returned is live: it changes as the simulation goes on, and may be changed."""

    market: Market

    # --- time and prices --------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The simulated time; setting it freezes the clock there."""
        return self.market.now

    @now.setter
    def now(self, moment: datetime | str) -> None:
        self.market.move_clock(moment)

    def advance(self, seconds: float = 0, **parts: float) -> datetime:
        """Move the clock on by seconds (or minutes=, hours=, days=); what is due in between happens."""
        self.market.move_clock(step=timedelta(seconds=seconds, **parts))
        return self.now

    def open_market(self) -> None:
        """Declare the market open whatever the calendar says."""
        self.force_session(True)

    def close_market(self) -> None:
        """Declare the market closed whatever the calendar says."""
        self.force_session(False)

    def force_session(self, is_open: bool | None) -> None:
        """Override is_open; None gives it back to the calendar."""
        self.market.sessions.forced = is_open
        self.market.tick()

    def set_price(
        self, symbol: str, price: Number | None, bid: Number | None = None, ask: Number | None = None, at: Moment = None
    ) -> None:
        """Set last trade (None: none), quote (0: no such side) and trade time; triggers orders."""
        self.market.set_price(symbol, price, bid=bid, ask=ask, at=at)

    # --- orders -----------------------------------------------------------------------------------------------------

    def add_order(self, symbol: str = "AAPL", at: Moment = None, **fields: Any) -> Row:
        """Store an order as it is: any status, any time, no effect on positions; `at` = submitted_at."""
        if at is None:
            return self.market.enter(symbol, **_plain(fields))
        moment = stamp(aware(at))
        times = {"submitted_at": moment, "created_at": moment, "updated_at": moment}
        with self.market.lock, self.market.clock.at(aware(at)):
            return self.market.enter(symbol, **times | _plain(fields))

    def add_leg(self, parent: Row | str, **fields: Any) -> Row:
        """Store a leg under an order as it is; status `held` and the opposite side unless given."""
        above = self.order(parent)
        side = fields.pop("side", "sell" if above["side"] == "buy" else "buy")
        return self.market.enter_leg(above, side, **_plain(fields))

    def order(self, order: Row | str) -> Row:
        """Return an order by id, client order id or any earlier copy of it."""
        key = order if isinstance(order, str) else order["id"]
        return self.market.orders[key] if key in self.market.orders else self.market.order_by_client_id(key)

    def legs(self, order: Row | str) -> list[Row]:
        """Return the legs of an order, replaced ones included: target first, stop second."""
        return self.market.legs_of(self.order(order)["id"])

    def submit(self, **body: Any) -> Row:
        """Send an order as the API would take it (Refusal if not); returns the live order."""
        return self.order(self.market.submit(_plain(body))["id"])

    def fill(self, order: Row | str, qty: Number | None = None, price: Number | None = None, at: Moment = None) -> Row:
        """Fill an order, wholly or in part; price defaults to its limit, its stop, the market."""
        return self.market.fill(self.order(order)["id"], qty, price, at)

    def cancel(self, order: Row | str) -> Row:
        """Request a cancel as the API would."""
        self.market.cancel(self.order(order)["id"])
        return self.order(order)

    def set_status(self, order: Row | str, status: str, **fields: Any) -> Row:
        """Give an order any status, its time included; nothing else follows."""
        return self.market.set_status(self.order(order)["id"], status, **fields)

    def replace(self, order: Row | str, **changes: Any) -> Row:
        """Replace an order as the API would; returns the new one."""
        return self.order(self.market.replace(self.order(order)["id"], _plain(changes))["id"])

    def expire_day_orders(self) -> list[Row]:
        """End every working DAY order, as the close does."""
        working = [o for o in self.market.orders.values() if o["status"] not in FINAL and o["time_in_force"] == "day"]
        return [self.market.set_status(order["id"], "expired") for order in working]

    # --- positions --------------------------------------------------------------------------------------------------

    def add_position(self, symbol: str, qty: Number, avg_entry_price: Number = 100, **row_fields: Any) -> Position:
        """Put a position there (negative: short) without order or fill; further fields override its row."""
        with self.market.mutation():
            self.market.remember()
            key = unslashed(symbol)
            owner = asset_id(symbol, position=True)
            held = Position(key, decimal(qty), decimal(avg_entry_price), asset_class_of(symbol), owner, row_fields)
            self.market.positions[key] = held
            return held

    def remove_position(self, symbol: str) -> None:
        """Let a position vanish without a trace."""
        with self.market.mutation():
            self.market.remember()
            del self.market.positions[unslashed(symbol)]

    def open_trade(
        self,
        symbol: str,
        qty: Number,
        price: Number,
        at: Moment = None,
        side: str = "buy",
        bracket: tuple[Number | None, Number | None] | None = None,
        **fields: Any,
    ) -> Row:
        """Make a filled entry: order, position, fill row; `bracket=(target, stop)` adds exits (one None: an OTO)."""
        with self.market.mutation():
            order_class = "" if bracket is None else "bracket" if None not in bracket else "oto"
            base = {"side": side, "qty": qty, "order_class": order_class, "time_in_force": "gtc" if bracket else "day"}
            entry = self.add_order(slashed(symbol), at, **base | fields)
            target, stop = bracket or (None, None)
            if target is not None:
                self.add_leg(entry, limit_price=target)
            if stop is not None:
                self.add_leg(entry, stop_price=stop)
            if unslashed(symbol) not in self.market.prices:
                known = decimal(price)
                self.market.prices[unslashed(symbol)] = Price(known, known, known, self.now)
            return self.market.fill(entry["id"], None, price, at)

    def sell(
        self, symbol: str, qty: Number | None = None, price: Number | None = None, at: Moment = None, **fields: Any
    ) -> Row:
        """Close a position, or a part, by an unrelated filled order; holds are not asked (a short is bought back)."""
        with self.market.mutation():
            held = self.market.positions[unslashed(symbol)]
            side = "sell" if held.qty > 0 else "buy"
            base = {"side": side, "qty": abs(held.qty) if qty is None else qty, "position_intent": f"{side}_to_close"}
            order = self.add_order(slashed(symbol), at, **base | fields)
            return self.market.fill(order["id"], None, self.market.mark(held) if price is None else price, at)

    # --- events without orders --------------------------------------------------------------------------------------

    def activity(self, kind: str, at: Moment = None, after: Delay = NO_DELAY, **fields: Any) -> Row:
        """Write an activity row (OPEXP, OPASN, OPEXC, SPLIT, NC, FILL ...); `after` delays its appearance."""
        plain = {name: text(value) if isinstance(value, Decimal) else value for name, value in fields.items()}
        return self.market.add_activity(kind, None if at is None else aware(at), after=after, **plain)

    def split(self, symbol: str, ratio: Number, *, activity: bool = True) -> None:
        """Split a stock (10: ten for one, 0.1: one for ten), with what it does to the position and to orders.

        A reverse split cancels all GTC orders; a forward split replaces GTC buy limits and sell stops, the prices of
        bracket legs left as they are.
        """
        market, factor, key = self.market, decimal(ratio), unslashed(symbol)
        with market.mutation():
            market.remember()
            held = market.positions.get(key)
            if held is not None:
                gained = held.qty * (factor - 1)
                held.qty, held.avg_entry_price = held.qty * factor, held.avg_entry_price / factor
                if activity:
                    self.activity("SPLIT", symbol=key, qty=gained)
            if (price := market.prices.get(key)) is not None:
                # Not a trade: orders whose prices were left alone meet the new level with the next price.
                price.last = None if price.last is None else price.last / factor
                price.bid, price.ask = price.bid / factor, price.ask / factor
            for order in list(market.orders.values()):
                if order.get("symbol") == key and order["status"] not in FINAL and order["time_in_force"] == "gtc":
                    self._split_order(order, factor)

    def _split_order(self, order: Row, factor: Decimal) -> None:
        adjusted = (order["side"], order["type"]) in (("buy", "limit"), ("sell", "stop"))
        if factor < 1:
            self.market.set_status(order["id"], "canceled")
        elif adjusted:
            is_leg = order["id"] in self.market.parents
            prices = {n: decimal(order[n]) / factor for n in ("limit_price", "stop_price") if order[n] and not is_leg}
            status = order["status"]
            new = self.market.successor(order, {"qty": decimal(order["qty"]) * factor} | prices)
            self.market.take_over(order, new)
            new["status"] = status

    def rename(self, old: str, new: str, *, new_asset: bool = False, activity: bool = True) -> None:
        """Change a symbol on position, working orders and prices; `new_asset` as after a change of CUSIP."""
        market = self.market
        with market.mutation():
            market.remember()
            row = dict(market.asset(old) or {}) | {"symbol": new}
            row |= {"id": asset_id(new)} if new_asset else {}
            market.assets[new], market.assets[old] = row, None
            if old in market.prices:
                market.prices[new] = market.prices.pop(old)
            if old in market.positions:
                held = market.positions[new] = market.positions.pop(old)
                held.symbol, held.asset_id = new, row["id"]
                if activity:
                    self.activity("NC", symbol=new, qty=held.qty, description=f"Name change {old} to {new}")
            for order in market.orders.values():
                if order.get("symbol") == old and order["status"] not in FINAL:
                    market.touch(order, symbol=new, asset_id=row["id"])


def _plain(fields: Row) -> Row:
    """Write numbers as the API does."""

    def plain(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _plain(value)
        return text(decimal(value)) if name in NUMBERS and value is not None else value

    return {name: plain(name, value) for name, value in fields.items()}
