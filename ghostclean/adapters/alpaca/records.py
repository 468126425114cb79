"""Alpaca's JSON as the core's records.

Lenient about enums (an unknown order status counts as working), strict about values: an impossible answer
raises `Impossible`. Source: Trading API, schemas Account, Order, Position, TradingActivities, Clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from datetime import time as clock_time
from decimal import Decimal
from typing import Any

from ghostclean.app.ports import OrderRequest, Price
from ghostclean.core.broker import (
    ZERO,
    Account,
    Activity,
    BadNumber,
    Fill,
    MarketClock,
    Order,
    Position,
    Positions,
    Session,
    Side,
    Unread,
    WorkingOrders,
    canonical_id,
    crypto_pair,
    eastern,
    is_option,
    number,
    parse_time,
    plain,
    symbol_key,
)

Row = Mapping[str, Any]

_ENDED = ("canceled_at", "expired_at", "failed_at", "replaced_at")
_SHORTEST_PAIR = 6
_BLOCKED = ("trading_blocked", "account_blocked", "trade_suspended_by_user")


class Impossible(ValueError):
    """An answer that the API cannot have given."""


def read_account(raw: object) -> Account:
    """The account; an amount that is no number counts as not given."""
    data = _object(raw, "account")
    account_id = _text(data, "id")
    if not account_id:
        raise Impossible("account without id")
    return Account(
        id=account_id,
        status=_text(data, "status"),
        long_value=_optional(data, "long_market_value"),
        short_value=_optional(data, "short_market_value"),
        blocked=any(data.get(name) is True for name in _BLOCKED),
        equity=_optional(data, "equity"),
        cash=_optional(data, "cash"),
        number=_text(data, "account_number"),
    )


def read_positions(rows: object, symbol_of: Callable[[str], str]) -> Positions:
    """The rows that hold something, and the holdings that are not told: a bad row, two of one symbol.

    `symbol_of` names the symbol of an asset id, or nothing. A row without symbol and asset id says
    of no instrument that it is missing, so the whole list is an impossible answer.
    """
    held: dict[str, list[Position]] = defaultdict(list)
    unread: list[Unread] = []
    for row in _list(rows, "positions"):
        try:
            position = read_position(row)
        except Impossible as error:
            unread.append(_unread(row, symbol_of, str(error)))
        else:
            if position.qty:
                held[position.key].append(position)
    for same in held.values():
        unread += (_listed_twice(p) for p in same if len(same) > 1)
    bad = {u.key for u in unread}
    return Positions(tuple(p for [p, *_] in held.values() if p.key not in bad), tuple(unread))


def _unread(raw: object, symbol_of: Callable[[str], str], why: str) -> Unread:
    data = _object(raw, "position")
    symbol, asset = _text(data, "symbol"), _text(data, "asset_id")
    if not symbol and not asset:
        raise Impossible(why)
    symbol = symbol or symbol_of(asset)
    return Unread(symbol or asset, symbol_key(symbol), why, _optional(data, "market_value"))


def _listed_twice(position: Position) -> Unread:
    return Unread(position.symbol, position.key, "its position is listed twice", position.signed_value)


def read_position(raw: object) -> Position:
    data = _object(raw, "position")
    symbol = _text(data, "symbol")
    if not symbol:
        raise Impossible("position without symbol")
    what = f"position {symbol}"
    qty = _number(data, "qty", what)
    if qty is None:
        raise Impossible(f"{what} without qty")
    available = _optional(data, "qty_available")
    return Position(
        symbol=symbol,
        key=symbol_key(symbol),
        side=Side.SHORT if qty < 0 or _text(data, "side").lower() == "short" else Side.LONG,
        qty=abs(qty),
        avg_price=_number(data, "avg_entry_price", what),
        market_value=_number(data, "market_value", what),
        price=_number(data, "current_price", what),
        asset_id=_text(data, "asset_id"),
        asset_class=_text(data, "asset_class"),
        available=None if available is None else abs(available),
    )


def read_working(rows: object, symbol_of: Callable[[str], str]) -> WorkingOrders:
    """The working orders by id, and the instruments of those that cannot be read; `symbol_of` as above.

    A row that names no instrument may be an order of any trade: the whole list is an impossible answer.
    """
    found: dict[str, Order] = {}
    unread: dict[Unread, None] = {}
    for row in _list(rows, "orders"):
        try:
            found.update((order.id, order) for order in read_order(row))
        except Impossible as error:
            unread.update(dict.fromkeys(_unread_order(row, symbol_of, str(error))))
    return WorkingOrders(tuple(order for order in found.values() if not order.is_final), tuple(unread))


def _unread_order(raw: object, symbol_of: Callable[[str], str], why: str) -> Iterator[Unread]:
    data = _object(raw, "order")
    is_single = _text(data, "symbol") or _text(data, "asset_id")
    for row in [data] if is_single else [_object(leg, "order") for leg in _legs(data, "order")] or [{}]:
        symbol = _text(row, "symbol") or symbol_of(_text(row, "asset_id"))
        if not symbol:
            raise Impossible(why)
        yield Unread(symbol, symbol_key(symbol), f"a working order of it cannot be read ({why})", ZERO)


def read_orders(rows: object) -> list[Order]:
    return [order for row in _list(rows, "orders") for order in read_order(row)]


def read_order(raw: object, parent: str | None = None) -> Iterator[Order]:
    data = _object(raw, "order")
    order_id = _order_id(data, "id")
    if not order_id:
        raise Impossible("order without id")
    what = f"order {order_id}"
    legs = [leg for row in _legs(data, what) for leg in read_order(row, order_id)]
    symbol = _text(data, "symbol")
    order = Order(
        id=order_id,
        client_id=_text(data, "client_order_id"),
        symbol=symbol,
        key=symbol_key(symbol),
        asset_id=_text(data, "asset_id"),
        asset_class=_text(data, "asset_class"),
        side=_text(data, "side").lower(),
        type=_text(data, "type", "order_type").lower(),
        order_class=_text(data, "order_class").lower(),
        status=_text(data, "status").lower(),
        qty=_number(data, "qty", what),
        filled_qty=_number(data, "filled_qty", what) or ZERO,
        avg_price=_number(data, "filled_avg_price", what),
        limit_price=_number(data, "limit_price", what),
        stop_price=_number(data, "stop_price", what),
        submitted_at=_time(data, "submitted_at", "created_at"),
        filled_at=_time(data, "filled_at"),
        ended_at=_latest(data, _ENDED),
        expires_at=_time(data, "expires_at"),
        replaced_by=_link(data, "replaced_by"),
        replaces=_link(data, "replaces"),
        legs=tuple(leg.id for leg in legs if leg.parent == order_id),
        parent=parent or _link(data, "parent_order_id"),
        time_in_force=_text(data, "time_in_force").lower(),
        intent=_text(data, "position_intent").lower(),
    )
    _check(order, what)
    yield order
    yield from legs


def _legs(row: Row, what: str) -> list[Any]:
    legs = row.get("legs")
    return [] if legs is None else _list(legs, f"{what}: its legs")


def _check(order: Order, what: str) -> None:
    if not order.status:
        raise Impossible(f"{what} without status")
    if order.filled_qty < 0 or (order.qty is not None and 0 < order.qty < order.filled_qty):
        raise Impossible(f"{what} filled {order.filled_qty} of {order.qty}")
    if order.status == "filled" and not order.filled_qty:
        raise Impossible(f"{what} is filled with nothing filled")
    if order.avg_price is not None and order.avg_price < 0 and not order.is_multi_leg:
        raise Impossible(f"{what} filled at {order.avg_price}")


def read_fill(raw: object) -> Fill | None:
    """A FILL row; None for a canceled one."""
    data = _object(raw, "fill")
    if _text(data, "status").lower() == "canceled":
        return None
    fill_id, symbol = _text(data, "id"), _text(data, "symbol")
    at = _time(data, "transaction_time", "created_at")
    qty = _number(data, "qty", f"fill {fill_id}") or ZERO
    price = _number(data, "price", f"fill {fill_id}")
    side = _text(data, "side").lower()
    if not all((fill_id, symbol, side, qty > 0)) or at is None or price is None or price < 0:
        raise Impossible(f"fill {fill_id or '?'} without symbol, side, quantity, price or time")
    # `sell_short` is how some rows name a sale that opens a short
    side = "sell" if side.startswith("sell") else side
    return Fill(fill_id, _order_id(data, "order_id"), symbol, symbol_key(symbol), side, qty, price, at)


def read_activity(raw: object) -> Activity | None:
    """A non-trade activity; None for a canceled one."""
    data = _object(raw, "activity")
    if _text(data, "status").lower() == "canceled":
        return None
    symbol = _text(data, "symbol")
    return Activity(
        id=_text(data, "id"),
        type=_text(data, "activity_type"),
        symbol=symbol,
        key=symbol_key(symbol),
        qty=_number(data, "qty", "activity"),
        day=_text(data, "date", "created_at")[:10],
        subtype=_text(data, "activity_sub_type"),
        group=_text(data, "group_id"),
        amount=_optional(data, "net_amount"),
        # A row without a price says 0.
        price=_optional(data, "price") or None,
    )


def read_clock(raw: object) -> MarketClock:
    data = _object(raw, "clock")
    at, opens, closes = (_time(data, name) for name in ("timestamp", "next_open", "next_close"))
    is_open = data.get("is_open")
    if at is None or opens is None or closes is None or not isinstance(is_open, bool):
        raise Impossible("clock without timestamp, is_open, next_open or next_close")
    return MarketClock(at, is_open, opens, closes)


def read_session(row: Row) -> Session:
    try:
        day = date.fromisoformat(row["date"])
        opens, closes = (_when(day, row[name]) for name in ("open", "close"))
    except (KeyError, TypeError, ValueError):
        raise Impossible("a day without date, open or close") from None
    return Session(day, opens, closes)


def read_trade(row: Any) -> Price | None:
    """A last trade; None without a price or a time."""
    if not isinstance(row, dict):
        raise Impossible("a trade that is no object")
    price, at = _positive(row, "p"), parse_time(row.get("t"))
    return Price(price, at, is_trade=True) if price is not None and at is not None else None


def read_quote(row: Any) -> Price | None:
    """The middle; a 0 stands for a side on which nobody quotes, so there is no middle."""
    if not isinstance(row, dict):
        raise Impossible("a quote that is no object")
    bid, ask, at = _positive(row, "bp"), _positive(row, "ap"), parse_time(row.get("t"))
    if bid is None or ask is None or at is None or bid > ask:
        return None
    return Price((bid + ask) / 2, at, is_trade=False)


def is_pair(symbol: str) -> bool:
    """Whether a symbol is a crypto pair; unslashed ones are longer than any stock (GBTC is one)."""
    name = symbol.strip().upper()
    return "/" in name or (len(name) >= _SHORTEST_PAIR and not is_option(name) and "/" in crypto_pair(name))


def order_body(request: OrderRequest) -> dict[str, Any]:
    """The JSON of a new order; the price of an OCO's target goes into `take_profit` alone."""
    body: dict[str, Any] = {
        "symbol": crypto_pair(request.symbol.upper()) if is_pair(request.symbol) else request.symbol,
        "qty": plain(request.qty),
        "side": request.side,
        "type": request.type,
        "time_in_force": request.time_in_force,
        "order_class": request.order_class,
        "client_order_id": request.client_id,
    }
    if request.limit_price is not None and request.order_class != "oco":
        body["limit_price"] = plain(request.limit_price)
    if request.stop_price is not None:
        body["stop_price"] = plain(request.stop_price)
    if request.take_profit is not None:
        body["take_profit"] = {"limit_price": plain(request.take_profit)}
    if request.stop_loss is not None:
        body["stop_loss"] = {"stop_price": plain(request.stop_loss)}
    return body


# --------------------------------------------------------------------------- fields


def _object(raw: object, what: str) -> Row:
    if not isinstance(raw, dict):
        raise Impossible(f"{what} is no JSON object")
    return raw


def _list(raw: object, what: str) -> list[Any]:
    if not isinstance(raw, list):
        raise Impossible(f"{what} are no JSON array")
    return raw


def _text(row: Row, *names: str) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _time(row: Row, *names: str) -> datetime | None:
    return next((at for name in names if (at := parse_time(row.get(name))) is not None), None)


def _order_id(row: Row, name: str) -> str:
    return canonical_id(_text(row, name))


def _link(row: Row, name: str) -> str | None:
    return _order_id(row, name) or None


def _number(row: Row, name: str, what: str) -> Decimal | None:
    try:
        return number(row.get(name))
    except BadNumber as error:
        raise Impossible(f"{what} has {name}: {error}") from None


def _optional(row: Row, name: str) -> Decimal | None:
    try:
        return number(row.get(name))
    except BadNumber:
        return None


def _latest(row: Row, names: tuple[str, ...]) -> datetime | None:
    times = [at for name in names if (at := parse_time(row.get(name))) is not None]
    return max(times, default=None)


def _positive(row: Row, name: str) -> Decimal | None:
    try:
        value = number(row.get(name))
    except BadNumber as error:
        raise Impossible(f"{name}: {error}") from None
    return value if value is not None and value > 0 else None


def _when(day: date, value: str) -> datetime:
    """Wall-clock time in New York, as the calendar documents it, or a whole time with its offset."""
    return parse_time(value) or eastern(day, clock_time.fromisoformat(value))
