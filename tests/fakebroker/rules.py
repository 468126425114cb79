"""The rules an order must obey before the broker takes it; pure checks of one request body."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from .shapes import Row, asset_class_of, bad_parameter, decimal, forbidden, rule_refused, slashed

TYPES = {
    "us_equity": {"market", "limit", "stop", "stop_limit", "trailing_stop"},
    "us_option": {"market", "limit"},
    "crypto": {"market", "limit", "stop_limit"},
}
TIMES_IN_FORCE = {
    "us_equity": {"day", "gtc", "opg", "cls", "ioc", "fok"},
    "us_option": {"day"},
    "crypto": {"gtc", "ioc"},
}
CLASSES = {
    "us_equity": {"", "simple", "bracket", "oco", "oto"},
    "us_option": {"", "simple", "mleg"},
    "crypto": {"", "simple"},
}
CENT = Decimal("0.01")


def number(body: Row, name: str) -> Decimal | None:
    """Read an optional positive number of a request body."""
    raw = body.get(name)
    if raw is None:
        return None
    try:
        value = decimal(raw)
    except InvalidOperation:
        raise bad_parameter(f"invalid {name}: {raw}") from None
    if not value.is_finite() or value <= 0:
        raise bad_parameter(f"{name} must be > 0")
    return value


def check_tick(name: str, price: Decimal | None) -> None:
    """Refuse more than two decimals from $1.00, more than four below."""
    if price is None:
        return
    places = 2 if price >= 1 else 4
    if price != round(price, places):
        raise rule_refused(f"invalid {name} {price}. sub-penny increment does not fulfill minimum pricing criteria")


def check_order(body: Row, base_price: Decimal | None) -> None:
    """Refuse a submission that breaks a rule; `base_price` is what the market pays now, if known."""
    kind = body.get("type")
    order_class = body.get("order_class") or ""
    if order_class == "mleg":
        _check_mleg(body)
        return
    if not body.get("symbol"):
        raise bad_parameter("symbol is required")
    if body.get("side") not in ("buy", "sell"):
        raise bad_parameter("side must be buy or sell")
    asset_class = asset_class_of(body["symbol"].upper())
    if kind not in TYPES["us_equity"]:
        raise bad_parameter(f"invalid order type: {kind}")
    if kind not in TYPES[asset_class]:
        raise rule_refused(f"invalid order type for {asset_class} order")
    if body.get("time_in_force") not in TIMES_IN_FORCE["us_equity"]:
        raise bad_parameter("time_in_force is required")
    if body["time_in_force"] not in TIMES_IN_FORCE[asset_class]:
        raise rule_refused(f"invalid {asset_class} time_in_force")
    if order_class not in CLASSES[asset_class]:
        raise rule_refused(f"order class {order_class} is not allowed for {asset_class}")
    if len(str(body.get("client_order_id") or "")) > 128:
        raise bad_parameter("client_order_id must be at most 128 characters")
    _check_quantity(body, asset_class)
    _check_prices(body, asset_class)
    if body.get("extended_hours") and (kind != "limit" or body["time_in_force"] not in ("day", "gtc")):
        raise rule_refused("extended hours order must be DAY or GTC limit orders")
    if order_class in ("bracket", "oco", "oto"):
        _check_exits(body, order_class, base_price)


def _check_quantity(body: Row, asset_class: str) -> None:
    qty, notional = number(body, "qty"), number(body, "notional")
    if (qty is None) == (notional is None):
        raise bad_parameter("exactly one of qty or notional is required")
    if notional is not None and (body["type"] != "market" or asset_class == "us_option"):
        raise rule_refused("notional orders must be market orders")
    fractional = notional is not None or (qty is not None and qty != qty.to_integral_value())
    if not fractional or asset_class == "crypto":
        return
    if asset_class == "us_option":
        raise rule_refused("option orders must be in whole contracts")
    if body["time_in_force"] != "day":
        raise rule_refused("fractional orders must be DAY orders")
    if body["type"] == "trailing_stop":
        raise rule_refused("fractional orders cannot be trailing stop orders")
    if body.get("order_class") not in (None, "", "simple"):
        raise rule_refused("fractional orders must be simple orders")


def _check_prices(body: Row, asset_class: str) -> None:
    kind = body["type"]
    limit, stop = number(body, "limit_price"), number(body, "stop_price")
    oco = body.get("order_class") == "oco"
    if kind in ("limit", "stop_limit") and limit is None and not oco:
        raise bad_parameter(f"{kind} orders require a limit price")
    if kind in ("stop", "stop_limit") and stop is None:
        raise bad_parameter(f"{kind} orders require a stop price")
    if kind in ("market", "stop", "trailing_stop") and limit is not None:
        raise bad_parameter(f"{kind} orders require no limit price")
    if kind in ("market", "limit", "trailing_stop") and stop is not None:
        raise bad_parameter(f"{kind} orders require no stop price")
    trails = [number(body, name) for name in ("trail_price", "trail_percent")]
    if kind == "trailing_stop":
        if trails.count(None) != 1:
            raise bad_parameter("trailing stop orders require one of trail_price and trail_percent")
        if body["time_in_force"] not in ("day", "gtc") or body.get("order_class") not in (None, "", "simple"):
            raise rule_refused("trailing stop orders must be simple DAY or GTC orders")
    elif trails != [None, None]:
        raise bad_parameter(f"{kind} orders require no trail")
    if asset_class == "us_equity":
        check_tick("limit_price", limit)
        check_tick("stop_price", stop)


def _check_exits(body: Row, order_class: str, base_price: Decimal | None) -> None:
    profit: Row = body.get("take_profit") or {}
    loss: Row = body.get("stop_loss") or {}
    target, stop = number(profit, "limit_price"), number(loss, "stop_price")
    both = target is not None and stop is not None
    if order_class == "oto" and (target is None) == (stop is None):
        raise bad_parameter("oto orders require exactly one of take_profit.limit_price and stop_loss.stop_price")
    if order_class != "oto" and not both:
        raise bad_parameter(f"{order_class} orders require take_profit.limit_price and stop_loss.stop_price")
    if order_class == "oco" and body["type"] != "limit":
        raise bad_parameter("oco orders must be limit orders")
    if body["time_in_force"] not in ("day", "gtc") or body.get("extended_hours"):
        raise rule_refused(f"{order_class} orders must be DAY or GTC without extended hours")
    for name, price in (("take_profit.limit_price", target), ("stop_loss.stop_price", stop)):
        check_tick(name, price)
    check_tick("stop_loss.limit_price", number(loss, "limit_price"))

    exit_is_sell = (body["side"] == "sell") == (order_class == "oco")
    sign = 1 if exit_is_sell else -1
    if target is not None and stop is not None and (target - stop) * sign <= 0:
        side = "greater" if exit_is_sell else "less"
        raise rule_refused(f"take_profit.limit_price must be {side} than stop_loss.stop_price")
    base = base_price if order_class == "oco" else number(body, "limit_price") or base_price
    if base is None:
        return
    if stop is not None and (base - stop) * sign < CENT:
        relation = "<= base_price - 0.01" if exit_is_sell else ">= base_price + 0.01"
        raise rule_refused(f"stop_loss.stop_price must be {relation}")
    if order_class != "oco" and target is not None and (target - base) * sign < CENT:
        relation = ">= base_price + 0.01" if exit_is_sell else "<= base_price - 0.01"
        raise rule_refused(f"take_profit.limit_price must be {relation}")


def _check_mleg(body: Row) -> None:
    legs = body.get("legs")
    if not isinstance(legs, list) or not 2 <= len(legs) <= 4:
        raise bad_parameter("mleg orders require 2 to 4 legs")
    if body.get("type") not in TYPES["us_option"] or body.get("time_in_force") != "day":
        raise rule_refused("mleg orders must be DAY market or limit orders")
    if number(body, "qty") is None:
        raise bad_parameter("qty is required")
    for leg in legs:
        if asset_class_of(str(leg.get("symbol"))) != "us_option" or leg.get("side") not in ("buy", "sell"):
            raise bad_parameter("mleg legs require an option symbol and a side")
        if number(leg, "ratio_qty") is None:
            raise bad_parameter("mleg legs require ratio_qty")


def check_replacement(order: Row, body: Row, is_oto_leg: bool) -> Row:
    """Refuse an impossible replacement, else return the changed fields of the new order."""
    status = order["status"]
    if status in ("filled", "canceled", "expired", "rejected", "replaced"):
        raise rule_refused(f'order is already in "{status}" state')
    if status in ("accepted", "pending_new", "pending_cancel", "pending_replace"):
        raise rule_refused(f'unable to replace order, order isn\'t sent to exchange yet: status "{status}"')
    if is_oto_leg:
        raise rule_refused("oto legs cannot be replaced")
    if order["notional"] is not None:
        raise rule_refused("notional orders cannot be replaced")
    names = {"qty": "qty", "limit_price": "limit_price", "stop_price": "stop_price"}
    if order["type"] == "trailing_stop":
        trail = "trail_price" if order["trail_price"] is not None else "trail_percent"
        names = {"qty": "qty", "trail": trail}
    changes: Row = {}
    for name, target in names.items():
        value = number(body, name)
        if value is None:
            continue
        if order[target] is None:
            raise bad_parameter(f"{name} cannot be set on {order['type']} orders")
        if value != decimal(order[target]):
            changes[target] = value
    if body.get("time_in_force") not in (None, order["time_in_force"]):
        changes["time_in_force"] = body["time_in_force"]
    if not changes and body.get("client_order_id") is None:
        raise forbidden("order parameters are not changed")
    if "qty" in changes:
        _check_new_quantity(order, changes["qty"])
    if order["asset_class"] == "us_equity":
        for name in ("limit_price", "stop_price"):
            check_tick(name, changes.get(name))
    return changes


def _check_new_quantity(order: Row, qty: Decimal) -> None:
    if order["asset_class"] != "crypto" and (qty % 1 or decimal(order["qty"]) % 1):
        raise rule_refused("qty must be whole shares to be replaced")
    if qty <= decimal(order["filled_qty"]):
        raise rule_refused("qty must be greater than filled_qty")


def crosses(body: Row, resting: Row) -> bool:
    """Say whether a new simple order could trade with a working order of the same account."""
    if resting["side"] == body["side"]:
        return False
    if body["type"] != "limit" or resting["type"] != "limit":
        return True
    buy, sell = (body, resting) if body["side"] == "buy" else (resting, body)
    return decimal(buy["limit_price"]) >= decimal(sell["limit_price"])


def normalised(body: Any) -> Row:
    """Check that a request body is an object and spell its symbol as orders do."""
    if not isinstance(body, dict):
        raise bad_parameter("request body format is invalid")
    symbol = body.get("symbol")
    return body | {"symbol": slashed(symbol.upper())} if isinstance(symbol, str) else body
