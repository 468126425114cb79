"""The routes: one request in, a status and a JSON payload out."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote

from . import queries
from .market import Market
from .shapes import (
    FINAL,
    Refusal,
    Row,
    account_row,
    bad_parameter,
    calendar_row,
    clock_row,
    not_found,
    quote_row,
    trade_row,
    unslashed,
)

CURSORS = ("before_order_id", "after_order_id", "until", "page_token")


@dataclass
class Request:
    """One request as it came in; `label` names its kind, `page` counts the pages of one listing."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    at: datetime
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    label: str = ""
    page: int = 1
    status: int | None = None
    """What was answered; None while, or if never, answered."""
    stale: bool = field(default=False, repr=False)
    """Answer from the state before the last change."""

    @property
    def is_next_page(self) -> bool:
        return any(name in self.query for name in CURSORS)

    def first_page(self) -> Request:
        """Return the same request without its cursor."""
        kept = {name: value for name, value in self.query.items() if name not in CURSORS}
        return Request(self.method, self.path, kept, self.body, self.at, self.headers, self.label)


Answer = tuple[int, Any]
Handler = Callable[..., Answer]
ROUTES: list[tuple[str, re.Pattern[str], str, Handler]] = []


def route(method: str, pattern: str, label: str) -> Callable[[Handler], Handler]:
    """Register a handler; each group of the pattern becomes an argument, URL-decoded."""

    def register(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(pattern), label, handler))
        return handler

    return register


def find(method: str, path: str) -> tuple[str, Handler | None, list[str]]:
    """Return label, handler and arguments for a path; handler None if there is no such route."""
    for verb, pattern, label, handler in ROUTES:
        match = pattern.fullmatch(path)
        if verb == method and match:
            return label, handler, [unquote(group) for group in match.groups()]
    return "unknown", None, []


def dispatch(market: Market, request: Request) -> Answer:
    """Answer a request from the state of the market."""
    _, handler, arguments = find(request.method, request.path)
    try:
        with market.lock, market.stale() if request.stale else nullcontext():
            if handler is None:
                raise Refusal(404, 40410000, "endpoint not found")
            return handler(market, request, *arguments)
    except Refusal as refusal:
        return refusal.status, refusal.body


@route("GET", "/v2/account", "account")
def account(market: Market, _: Request) -> Answer:
    values = market.market_values()
    row = account_row(market.account_id, market.account_number, market.cash, *values, market.now)
    return 200, market.account_overrides(row)


@route("GET", "/v2/positions", "positions")
def positions(market: Market, _: Request) -> Answer:
    return 200, queries.list_positions(market)


@route("GET", "/v2/positions/([^/]+)", "position")
def position(market: Market, _: Request, symbol: str) -> Answer:
    return 200, queries.show_position(market, symbol)


@route("DELETE", "/v2/positions", "close")
def close_all(market: Market, request: Request) -> Answer:
    results = []
    for held in list(market.positions.values()):
        if request.query.get("cancel_orders") == "true":
            for order in market.holding_orders(held)[1]:
                if order["status"] not in FINAL:
                    market.cancel(order["id"])
        try:
            results.append({"symbol": held.symbol, "status": 200, "body": market.close_position(held.symbol)})
        except Refusal as refusal:
            results.append({"symbol": held.symbol, "status": refusal.status, "body": refusal.body})
    return 207, results


@route("DELETE", "/v2/positions/([^/]+)", "close")
def close_one(market: Market, request: Request, symbol: str) -> Answer:
    amounts = {name: request.query[name] for name in ("qty", "percentage") if name in request.query}
    if len(amounts) == 2:
        raise bad_parameter("only one of qty and percentage is allowed")
    return 200, market.close_position(symbol, **amounts)


@route("GET", "/v2/orders", "orders")
def orders(market: Market, request: Request) -> Answer:
    return 200, queries.list_orders(market, request.query)


@route("POST", "/v2/orders", "submit")
def submit(market: Market, request: Request) -> Answer:
    return 200, market.submit(request.body)


@route("DELETE", "/v2/orders", "cancel")
def cancel_all(market: Market, _: Request) -> Answer:
    results = []
    for order in list(market.orders.values()):
        if order["status"] not in FINAL and order["id"] not in market.parents:
            try:
                market.cancel(order["id"])
                results.append({"id": order["id"], "status": 200})
            except Refusal as refusal:
                results.append({"id": order["id"], "status": refusal.status})
    return 207, results


@route("GET", "/v2/orders:by_client_order_id", "order")
def order_by_client_id(market: Market, request: Request) -> Answer:
    wanted = request.query.get("client_order_id")
    if not wanted:
        raise bad_parameter("client_order_id is required")
    return 200, queries.show_order(market, market.order_by_client_id(wanted), nested=False)


@route("GET", "/v2/orders/([^/]+)", "order")
def order(market: Market, request: Request, order_id: str) -> Answer:
    return 200, queries.show_order(market, market.order(order_id), queries.nested_flag(request.query))


@route("PATCH", "/v2/orders/([^/]+)", "replace")
def replace(market: Market, request: Request, order_id: str) -> Answer:
    return 200, market.replace(order_id, request.body)


@route("DELETE", "/v2/orders/([^/]+)", "cancel")
def cancel(market: Market, _: Request, order_id: str) -> Answer:
    market.cancel(order_id)
    return 204, None


@route("GET", "/v2/account/activities", "fills")
def activities(market: Market, request: Request) -> Answer:
    return 200, queries.list_activities(market, request.query)


@route("GET", "/v2/account/activities/([A-Z]+)", "fills")
def activities_of_type(market: Market, request: Request, kind: str) -> Answer:
    return 200, queries.list_activities(market, request.query, kind)


@route("GET", "/v2/clock", "clock")
def clock(market: Market, _: Request) -> Answer:
    return 200, clock_row(market.sessions, market.now)


@route("GET", "/v2/calendar", "calendar")
def calendar(market: Market, request: Request) -> Answer:
    today = market.now.date()
    try:
        start = date.fromisoformat(request.query.get("start", today.isoformat())[:10])
        end = date.fromisoformat(request.query.get("end", f"{start.year + 1}-12-31")[:10])
    except ValueError as error:
        raise bad_parameter(str(error)) from None
    return 200, [calendar_row(market.sessions, day) for day in market.sessions.between(start, end)]


@route("GET", "/v2/assets/(.+)", "asset")
def asset(market: Market, _: Request, symbol_or_id: str) -> Answer:
    by_id = [row for row in market.assets.values() if row and row["id"] == symbol_or_id]
    found = by_id[0] if by_id else market.asset(symbol_or_id)
    if found is None:
        raise not_found(f"asset not found for {symbol_or_id}")
    return 200, found


def _latest(market: Market, symbols: list[str], what: str, crypto: bool = False) -> Row:
    shape = trade_row if what == "trades" else quote_row
    found = {s: market.prices[unslashed(s)] for s in queries.latest(market, symbols, crypto=crypto)}
    return {s: shape(price, crypto) for s, price in found.items() if what == "quotes" or price.last is not None}


@route("GET", "/v2/stocks/(trades|quotes)/latest", "data")
@route("GET", "/v1beta1/options/(trades|quotes)/latest", "data")
def latest(market: Market, request: Request, what: str) -> Answer:
    return 200, {what: _latest(market, request.query.get("symbols", "").split(","), what)}


@route("GET", "/v2/stocks/([^/]+)/(trades|quotes)/latest", "data")
def latest_of_one(market: Market, _: Request, symbol: str, what: str) -> Answer:
    found = _latest(market, [symbol], what)
    if not found:
        raise Refusal(404, None, f"no {what} found for {symbol}")
    return 200, {"symbol": symbol, what[:-1]: found[symbol]}


@route("GET", "/v1beta3/crypto/us/latest/(trades|quotes)", "data")
def latest_crypto(market: Market, request: Request, what: str) -> Answer:
    return 200, {what: _latest(market, request.query.get("symbols", "").split(","), what, crypto=True)}


@route("GET", "/v1beta3/crypto/us/latest/orderbooks", "data")
def latest_books(market: Market, request: Request) -> Answer:
    symbols = queries.latest(market, request.query.get("symbols", "").split(","), crypto=True)
    prices = {symbol: market.prices[unslashed(symbol)] for symbol in symbols}
    quotes = {symbol: quote_row(price, crypto=True) for symbol, price in prices.items()}
    sides = (("b", "bp"), ("a", "ap"))
    return 200, {
        "orderbooks": {
            symbol: {"t": quote["t"]} | {side: [{"p": quote[p], "s": 1}] if quote[p] else [] for side, p in sides}
            for symbol, quote in quotes.items()
        }
    }
