"""The list reads with the API's exact filter, order and paging rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from .market import Market
from .shapes import FINAL, Refusal, Row, bad_parameter, unslashed
from .shapes import position_row as shape_position
from .times import ET, nanoseconds

Query = Mapping[str, str]
ASSET_CLASSES = frozenset({"us_equity", "us_option", "crypto", "crypto_perp", "treasury", "corporate", "ipo"}) | {
    "global_equity",
    "us_index",
    "us_equity_chain",
}
MAX_ORDERS, MAX_ACTIVITIES = 500, 100


def _choice(query: Query, name: str, allowed: tuple[str, ...]) -> str:
    """Read a parameter of few values; the first is the default."""
    value = query.get(name, allowed[0])
    if value not in allowed:
        raise bad_parameter(f"invalid {name}: {value}")
    return value


def _moment(query: Query, name: str) -> int | None:
    raw = query.get(name)
    if raw is None:
        return None
    try:
        return nanoseconds(raw)
    except ValueError:
        raise bad_parameter(f"invalid {name}: {raw}") from None


def _count(query: Query, name: str, default: int, maximum: int) -> int:
    raw = query.get(name, str(default))
    if not raw.isdecimal() or not 1 <= int(raw) <= maximum:
        raise bad_parameter(f"invalid {name}: {raw}. must be between 1 and {maximum}")
    return int(raw)


def nested_flag(query: Query) -> bool:
    return _choice(query, "nested", ("false", "true")) == "true"


def show_order(market: Market, order: Row, nested: bool) -> Row:
    """Return an order as answered: legs under it when nested, null otherwise; mleg orders always carry theirs."""
    legs = market.legs_of(order["id"])
    wanted = market.quirks.legs_after_replace
    if wanted == "old":
        legs = [leg for leg in legs if leg["replaces"] is None]
    elif wanted == "new":
        legs = [leg for leg in legs if leg["status"] != "replaced"]
    shown = nested or order["order_class"] == "mleg"
    return order | {"legs": [dict(leg) for leg in legs] if legs and shown else None}


def list_orders(market: Market, query: Query) -> list[Row]:
    """Answer GET /v2/orders."""
    status = _choice(query, "status", ("open", "closed", "all"))
    descending = _choice(query, "direction", ("desc", "asc")) == "desc"
    limit = _count(query, "limit", 50, MAX_ORDERS)
    nested = nested_flag(query)
    after, until = _moment(query, "after"), _moment(query, "until")
    before_id, after_id = query.get("before_order_id"), query.get("after_order_id")
    if (before_id and after_id) or ((before_id or after_id) and (after is not None or until is not None)):
        raise bad_parameter("before_order_id, after_order_id and after/until are mutually exclusive")
    side = query.get("side")
    if side not in (None, "buy", "sell"):
        raise bad_parameter(f"invalid side: {side}")
    classes = set(query["asset_class"].split(",")) if "asset_class" in query else None
    if classes is not None and not classes <= ASSET_CLASSES:
        raise bad_parameter(f"invalid asset_class: {query['asset_class']}")
    symbols = {unslashed(s) for s in query["symbols"].split(",")} if query.get("symbols") else None

    def place(order: Row) -> tuple[int, int]:
        return nanoseconds(order["submitted_at"] or order["created_at"]), market.sequence[order["id"]]

    upper = place(market.order(before_id)) if before_id else None
    lower = place(market.order(after_id)) if after_id else None

    def wanted(order: Row) -> bool:
        if status != "all" and (order["status"] in FINAL) != (status == "closed"):
            return False
        if symbols is not None and symbols.isdisjoint(_symbols(market, order)):
            return False
        if side not in (None, order.get("side")) or (classes is not None and order["asset_class"] not in classes):
            return False
        submitted = place(order)
        if (after is not None and submitted[0] <= after) or (until is not None and submitted[0] >= until):
            return False
        return (upper is None or submitted < upper) and (lower is None or submitted > lower)

    rows = sorted((o for o in market.orders.values() if wanted(o)), key=place, reverse=descending)
    shown = {order["id"] for order in rows}
    top = (order for order in rows if _at_top(market, order, status, nested, shown))
    page = [order for order, _ in zip(top, range(limit), strict=False)]
    return [show_order(market, order, nested) for order in page]


def _symbols(market: Market, order: Row) -> set[str]:
    return {unslashed(row["symbol"]) for row in (order, *market.legs_of(order["id"])) if "symbol" in row}


def _at_top(market: Market, order: Row, status: str, nested: bool, shown: set[str]) -> bool:
    """Say whether an order stands in the list itself: legs may be rolled up, or missing as users report."""
    parent = market.parents.get(order["id"])
    if parent is not None and order["order_class"] == "mleg":
        return False
    hides = market.quirks.hide_legs
    if not nested:
        return not (hides and status == "open" and order["status"] == "held")
    if parent is None:
        return True
    rolled_up = parent in shown and order["id"] in {
        leg["id"] for leg in show_order(market, market.orders[parent], nested=True)["legs"] or []
    }
    return not rolled_up and not hides


def list_positions(market: Market) -> list[Row]:
    """Answer GET /v2/positions: every position, no paging."""
    working = market.working_by_symbol()
    return [
        shape_position(held, market.mark(held), market.available(held, working)) for held in market.positions.values()
    ]


def show_position(market: Market, symbol_or_id: str) -> Row:
    held = market.find_position(symbol_or_id)
    return shape_position(held, market.mark(held), market.available(held))


def list_activities(market: Market, query: Query, kind: str | None = None) -> list[Row]:
    """Answer GET /v2/account/activities, of one type if `kind` is given."""
    if "activity_types" in query and ("category" in query or kind is not None):
        raise bad_parameter("activity_types cannot be used here")
    kinds = {kind} if kind else set(query["activity_types"].split(",")) if query.get("activity_types") else None
    category = query.get("category")
    if category not in (None, "trade_activity", "non_trade_activity"):
        raise bad_parameter(f"invalid category: {category}")
    ascending = _choice(query, "direction", ("desc", "asc")) == "asc"
    after, until = _moment(query, "after"), _moment(query, "until")
    if "date" in query and (after is not None or until is not None):
        raise bad_parameter("date cannot be used with after or until")
    day = _day(query)
    size = _count(query, "page_size", 10**9 if day else MAX_ACTIVITIES, 10**9 if day else MAX_ACTIVITIES)
    token = query.get("page_token")

    def wanted(row: Row) -> bool:
        moment = market.activity_times[row["id"]]
        if kinds is not None and row["activity_type"] not in kinds:
            return False
        if category is not None and (row["activity_type"] == "FILL") != (category == "trade_activity"):
            return False
        if day is not None and datetime.fromtimestamp(moment // 10**9, ET).date().isoformat() != day:
            return False
        if (after is not None and moment <= after) or (until is not None and moment >= until):
            return False
        return token is None or (row["id"] > token if ascending else row["id"] < token)

    rows = sorted((row for row in market.activities if wanted(row)), key=lambda r: str(r["id"]), reverse=not ascending)
    return rows[:size]


def _day(query: Query) -> str | None:
    if "date" not in query:
        return None
    moment = _moment(query, "date")
    assert moment is not None
    return query["date"][:10]


def latest(market: Market, symbols: list[str], *, crypto: bool) -> list[str]:
    """Check the spelling of the symbols and return those with a price."""
    for symbol in symbols:
        if not symbol or ("/" in symbol) != crypto:
            raise Refusal(400, None, f"invalid symbol: {symbol}")
    return [symbol for symbol in symbols if unslashed(symbol) in market.prices]
