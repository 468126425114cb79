"""The desk that takes requests: submit, cancel, replace, close; and says no as the API does."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Any

from . import rules
from .book import STAMP_OF, ZERO
from .shapes import FINAL, Number, Row, asset_class_of, bad_parameter, decimal, forbidden, rule_refused, text, unslashed
from .venue import Venue


class Market(Venue):
    """The broker behind the HTTP face."""

    # --- submit -------------------------------------------------------------------------------------------------------

    def submit(self, raw: Any) -> Row:
        """Take an order, or raise a Refusal; returns the order as first answered, before anything happens to it."""
        with self.mutation():
            body = rules.normalised(raw)
            base = self.price_of(body["symbol"]) if isinstance(body.get("symbol"), str) else None
            rules.check_order(body, base)
            client_id = body.get("client_order_id")
            if client_id and client_id in self.client_ids:
                raise bad_parameter("client_order_id must be unique")
            if (body.get("order_class") or "") != "mleg":
                self._check_account(body)
            order = self._create(body)
            answer = dict(order) | {"legs": [dict(leg) for leg in self.legs_of(order["id"])] or None}
            self.later(self.quirks.accept_delay, lambda: self._route(order))
            return answer

    def _check_account(self, body: Row) -> None:
        symbol, side = body["symbol"], body["side"]
        asset = self.asset(symbol)
        if asset is None or not asset["tradable"] or asset["status"] != "active":
            raise rule_refused(f"asset {symbol} is not tradable")
        if self.account_fields.get("trading_blocked"):
            raise forbidden("account is not authorized to trade")
        if body.get("order_class") in (None, "", "simple"):
            self._check_wash_trade(body)
        qty = rules.number(body, "qty")
        held = self.positions.get(unslashed(symbol))
        if held is not None and (held.qty > 0) == (side == "sell") and qty is not None:
            self.check_available(held, qty)
        elif body.get("order_class") == "oco":
            raise rule_refused("oco orders must be exit orders")
        elif side == "sell" and asset["class"] == "crypto":
            raise forbidden(f"insufficient balance for {symbol.split('/')[0]} (requested: {qty}, available: 0)")
        elif side == "sell" and (qty is None or qty % 1):
            raise rule_refused("fractional orders cannot be sold short")
        else:
            self._check_buying_power(body, qty)

    def _check_wash_trade(self, body: Row) -> None:
        for resting in self.orders.values():
            live = resting["status"] not in FINAL | {"held"} and resting["order_class"] != "mleg"
            if live and resting.get("symbol") == body["symbol"] and rules.crosses(body, resting):
                raise forbidden(
                    "potential wash trade detected. use complex orders",
                    existing_order_id=resting["id"],
                    reject_reason=f"opposite side {resting['type']} order exists",
                )

    def _check_buying_power(self, body: Row, qty: Decimal | None) -> None:
        price = rules.number(body, "limit_price") or self.price_of(body["symbol"])
        cost = rules.number(body, "notional") or (qty or ZERO) * (price or ZERO)
        power = 2 * (self.cash + sum(self.market_values(), ZERO))
        if cost > power:
            raise forbidden("insufficient buying power", buying_power=text(power), cost_basis=text(cost))

    def _create(self, body: Row) -> Row:
        """Enter an order and its legs into the book."""
        order_class = body.get("order_class") or ""
        numbers = ("qty", "notional", "limit_price", "stop_price", "trail_price", "trail_percent")
        fields = {name: text(decimal(body[name])) for name in numbers if body.get(name) is not None}
        profit, loss = body.get("take_profit") or {}, body.get("stop_loss") or {}
        if order_class == "oco":
            fields["limit_price"] = text(decimal(profit["limit_price"]))
        if order_class == "mleg":
            return self._create_mleg(body, fields)
        opens = self._opens(body["symbol"], body["side"])
        trades = self._trades_now(body | {"asset_class": asset_class_of(body["symbol"])})
        order = self.enter(
            body["symbol"],
            **{"qty": None} | fields,
            **{k: body[k] for k in ("client_order_id", "extended_hours") if body.get(k)},
            type=body["type"],
            side=body["side"],
            time_in_force=body["time_in_force"],
            order_class="" if order_class == "simple" else order_class,
            position_intent=body.get("position_intent") or f"{body['side']}_to_{'open' if opens else 'close'}",
            status="pending_new" if trades else "accepted",
        )
        self._start_trailing(order)
        exit_side = order["side"] if order_class == "oco" else {"buy": "sell", "sell": "buy"}[order["side"]]
        if order_class in ("bracket", "oto") and profit.get("limit_price"):
            self.enter_leg(order, exit_side, limit_price=profit["limit_price"])
        if loss.get("stop_price"):
            self.enter_leg(order, exit_side, stop_price=loss["stop_price"], limit_price=loss.get("limit_price"))
        return order

    def _create_mleg(self, body: Row, fields: Row) -> Row:
        whole = {"type": body["type"], "time_in_force": "day", "order_class": "mleg", "asset_class": "us_option"}
        parent = self.enter("MLEG", **fields, **whole, status="accepted")
        # The official example shows the parent, and the type of its legs, with blanks.
        parent |= dict.fromkeys(("symbol", "side", "asset_id", "asset_class"), "")
        for leg in body["legs"]:
            opens = self._opens(leg["symbol"], leg["side"])
            row = self.enter(
                leg["symbol"],
                side=leg["side"],
                qty=text(decimal(body["qty"]) * decimal(leg["ratio_qty"])),
                ratio_qty=text(decimal(leg["ratio_qty"])),
                position_intent=leg.get("position_intent") or f"{leg['side']}_to_{'open' if opens else 'close'}",
                order_class="mleg",
                type="",
                status="accepted",
            )
            self._adopt(parent, row)
        return parent

    def _opens(self, symbol: str, side: str) -> bool:
        held = self.positions.get(unslashed(symbol))
        return held is None or (held.qty > 0) == (side == "buy")

    def _start_trailing(self, order: Row) -> None:
        last = self.price_of(order["symbol"])
        if order["type"] == "trailing_stop" and last is not None:
            self._trail(order, last)

    # --- cancel, replace, close ---------------------------------------------------------------------------------------

    def cancel(self, order_id: str) -> None:
        """Accept a cancel request; it takes effect after the quirk's delay."""
        with self.mutation():
            order = self.order(order_id)
            status = order["status"]
            if status in FINAL and self.quirks.cancel_of_final_is_204:
                return
            if status in FINAL or status in ("pending_cancel", "pending_replace"):
                raise rule_refused(f'order is already in "{status}" state')
            waits = self.quirks.offhours_cancel_waits and not self._trades_now(order)
            opening = self.sessions.next_open(self.now) if waits else None
            self.touch(order, status="pending_cancel")
            self.later(self.quirks.cancel_delay, lambda: self._finish_cancel(order), not_before=opening)

    def _finish_cancel(self, order: Row) -> None:
        if order["status"] == "pending_cancel":
            self._end(order, "canceled")

    def replace(self, order_id: str, body: Any) -> Row:
        """Take a replacement; returns the new order as first answered."""
        with self.mutation():
            old = self.order(order_id)
            if not isinstance(body, dict):
                raise bad_parameter("request body format is invalid")
            if body.get("client_order_id") in self.client_ids:
                raise bad_parameter("client_order_id must be unique")
            changes = rules.check_replacement(old, body, self.is_oto_leg(old))
            if "qty" in changes and self._grows_beyond_position(old, changes["qty"]):
                raise forbidden(f"insufficient qty available for order (requested: {text(changes['qty'])})")
            new = self.successor(old, changes, client_order_id=body.get("client_order_id"))
            status, filled = "held" if old["status"] == "held" else "new", decimal(old["filled_qty"])
            self.touch(old, status="pending_replace")
            answer = dict(new)
            self.later(self.quirks.replace_delay, lambda: self._finish_replace(old, new, status, filled))
            return answer

    def _grows_beyond_position(self, old: Row, qty: Decimal) -> bool:
        held = self.positions.get(unslashed(old["symbol"]))
        if held is None or (held.qty > 0) != (old["side"] == "sell") or self._is_dormant(old):
            return False
        holding, _ = self.holding_orders(held)
        return holding - self._left(old, Decimal(1)) + qty > abs(held.qty)

    def successor(self, old: Row, changes: Row, **more: Any) -> Row:
        """Enter the order that is to take an order's place."""
        dropped = ("id", "client_order_id", *STAMP_OF.values(), "replaced_by", "filled_qty", "filled_avg_price")
        kept = {k: v for k, v in old.items() if k not in (*dropped, "created_at", "submitted_at", "updated_at")}
        kept["qty"] = text(self._left(old, Decimal(1))) if old["qty"] else None
        fresh = {k: text(v) if isinstance(v, Decimal) else v for k, v in changes.items()}
        fresh |= {k: v for k, v in more.items() if v is not None}
        symbol = kept.pop("symbol")
        new = self.enter(symbol, **kept | fresh | {"status": "pending_new", "replaces": old["id"]})
        # A replaced trailing stop keeps the mark it has reached.
        new["hwm"] = old["hwm"]
        return new

    def _finish_replace(self, old: Row, new: Row, status: str, filled: Decimal) -> None:
        """Let the new order work, unless the old one ended first or left it nothing to do."""
        raced = decimal(old["filled_qty"]) - filled
        if old["status"] != "pending_replace" or (raced and decimal(new["qty"]) <= raced):
            self.touch(new, status="rejected", failed_at=self._stamp())
            return
        if raced:
            self.touch(new, qty=text(decimal(new["qty"]) - raced))
        self.take_over(old, new)
        if status == "held":
            self.touch(new, status="held")
            self._match(new, arriving=True)
        elif self._trades_now(new):
            self.touch(new, status="new")
            self._arrive(new)
        else:
            self._route(new)

    def close_position(self, symbol: str, *, qty: Number | None = None, percentage: Number | None = None) -> Row:
        """Send the market order that closes a position, or a part of it."""
        with self.mutation():
            held = self.find_position(symbol)
            size = abs(held.qty)
            if percentage is not None:
                size = (size * decimal(percentage) / 100).quantize(Decimal("1e-9"), ROUND_DOWN)
            if qty is not None:
                size = decimal(qty)
            self.check_available(held, size)
            crypto = held.asset_class == "crypto"
            order = {
                "symbol": held.symbol,
                "qty": text(size),
                "side": "sell" if held.qty > 0 else "buy",
                "type": "market",
                "time_in_force": "gtc" if crypto else "day",
            }
            return self.submit(order)
