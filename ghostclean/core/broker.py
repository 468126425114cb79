"""Broker truth as immutable records, mapped leniently from the API's own JSON.

An unknown enum value is kept as it is (an unknown order status counts as working); an answer
the API cannot have given (no id, a quantity that is no number, filled without a fill) raises
`Impossible`, and the read it came from is *not observed*.
Source: Alpaca Trading API, schemas Account, Order, Position, TradingActivities.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from .instrument import Side, symbol_key
from .numbers import ZERO, BadNumber, number
from .times import parse_time

Json = Mapping[str, Any]

FINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
_STOP_TYPES = frozenset({"stop", "stop_limit", "trailing_stop"})
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def is_uuid(text: str) -> bool:
    """Whether a stored order id can be an id of the broker at all."""
    return _UUID.fullmatch(text) is not None


class Impossible(ValueError):
    """An answer that the API cannot have given."""


def _text(raw: Json, name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _order_id(raw: Json, name: str) -> str:
    """An order id; a UUID in lower case, as the ledger's ids are read: its case means nothing."""
    value = _text(raw, name)
    return value.lower() if is_uuid(value) else value


def _number(raw: Json, name: str, what: str) -> Decimal | None:
    try:
        return number(raw.get(name))
    except BadNumber as error:
        raise Impossible(f"{what} has {name}: {error}") from None


def _object(raw: object, what: str) -> Json:
    if not isinstance(raw, dict):
        raise Impossible(f"{what} is no JSON object")
    return raw


@dataclass(frozen=True, slots=True)
class Account:
    """The account that answered; market values in USD, None where the API did not say."""

    id: str
    status: str
    long_value: Decimal | None
    short_value: Decimal | None
    blocked: bool
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def parse(cls, raw: object) -> Account:
        data = _object(raw, "account")
        account_id = _text(data, "id")
        if not account_id:
            raise Impossible("account without id")
        values = []
        for name in ("long_market_value", "short_market_value"):
            try:
                values.append(number(data.get(name)))
            except BadNumber:
                values.append(None)
        blocked = any(
            data.get(name) is True for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user")
        )
        return cls(account_id, _text(data, "status"), values[0], values[1], blocked, data)


@dataclass(frozen=True, slots=True)
class Position:
    """One netted holding; `qty` is always positive, `side` says which way."""

    symbol: str
    key: str
    side: Side
    qty: Decimal
    avg_price: Decimal | None
    market_value: Decimal | None
    price: Decimal | None
    asset_id: str
    asset_class: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def parse(cls, raw: object) -> Position:
        data = _object(raw, "position")
        symbol = _text(data, "symbol")
        if not symbol:
            raise Impossible("position without symbol")
        what = f"position {symbol}"
        qty = _number(data, "qty", what)
        if qty is None:
            raise Impossible(f"{what} without qty")
        said = _text(data, "side").lower()
        side = Side.SHORT if qty < 0 or (said == "short") else Side.LONG
        return cls(
            symbol,
            symbol_key(symbol),
            side,
            abs(qty),
            _number(data, "avg_entry_price", what),
            _number(data, "market_value", what),
            _number(data, "current_price", what),
            _text(data, "asset_id"),
            _text(data, "asset_class"),
            data,
        )

    @property
    def is_crypto(self) -> bool:
        return self.asset_class == "crypto"


@dataclass(frozen=True, slots=True)
class Order:
    """One order as the broker last described it; `legs` are ids, the legs stand beside it."""

    id: str
    client_id: str
    symbol: str
    key: str
    asset_id: str
    asset_class: str
    side: str
    type: str
    order_class: str
    status: str
    qty: Decimal | None
    filled_qty: Decimal
    avg_price: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    submitted_at: datetime | None
    filled_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    replaced_by: str | None
    replaces: str | None
    legs: tuple[str, ...]
    parent: str | None
    raw: Json = field(repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """Nothing can happen to this id any more (a replaced order lives on under another)."""
        return self.status in FINAL

    @property
    def is_stop(self) -> bool:
        return self.type in _STOP_TYPES

    @property
    def is_crypto(self) -> bool:
        return self.asset_class == "crypto" or "/" in self.symbol

    @property
    def is_multi_leg(self) -> bool:
        return self.order_class == "mleg"

    @property
    def last_time(self) -> datetime | None:
        """The latest moment at which something happened to this order."""
        times = [t for t in (self.submitted_at, self.filled_at, self.ended_at) if t is not None]
        return max(times) if times else None

    @property
    def fill_time(self) -> datetime | None:
        """When it was last filled, as far as the order itself tells; None with nothing filled."""
        if not self.filled_qty:
            return None
        return self.filled_at or self.ended_at or self.submitted_at

    def joined(self, earlier: Order) -> Order:
        """The newer answer, keeping the legs and the parent that an earlier one showed."""
        if (self.legs or not earlier.legs) and (self.parent or not earlier.parent):
            return self
        return replace(self, legs=self.legs or earlier.legs, parent=self.parent or earlier.parent)

    def with_legs(self, legs: tuple[str, ...]) -> Order:
        """The same order with legs that are known by id only."""
        return replace(self, legs=legs)

    def under(self, parent: str) -> Order:
        """The same order, known to be a leg of another."""
        return replace(self, parent=parent)


def parse_orders(raw: object, parent: str | None = None) -> Iterator[Order]:
    """The order and its nested legs (parent first); raises Impossible."""
    data = _object(raw, "order")
    order_id = _order_id(data, "id")
    if not order_id:
        raise Impossible("order without id")
    what = f"order {order_id}"
    status = _text(data, "status").lower()
    if not status:
        raise Impossible(f"{what} without status")
    qty = _number(data, "qty", what)
    filled = _number(data, "filled_qty", what) or ZERO
    price = _number(data, "filled_avg_price", what)
    if filled < 0 or (qty is not None and qty > 0 and filled > qty):
        raise Impossible(f"{what} filled {filled} of {qty}")
    if status == "filled" and not filled:
        raise Impossible(f"{what} is filled with nothing filled")
    if price is not None and price < 0 and _text(data, "order_class") != "mleg":
        raise Impossible(f"{what} filled at {price}")
    legs_raw = data.get("legs")
    if legs_raw is not None and not isinstance(legs_raw, list):
        raise Impossible(f"{what} has legs that are no list")
    legs = [leg for row in legs_raw or () for leg in parse_orders(row, order_id)]
    symbol = _text(data, "symbol")
    ended = [
        t for t in (parse_time(data.get(n)) for n in ("canceled_at", "expired_at", "failed_at", "replaced_at")) if t
    ]
    yield Order(
        id=order_id,
        client_id=_text(data, "client_order_id"),
        symbol=symbol,
        key=symbol_key(symbol),
        asset_id=_text(data, "asset_id"),
        asset_class=_text(data, "asset_class"),
        side=_text(data, "side").lower(),
        type=(_text(data, "type") or _text(data, "order_type")).lower(),
        order_class=_text(data, "order_class").lower(),
        status=status,
        qty=qty,
        filled_qty=filled,
        avg_price=price,
        limit_price=_number(data, "limit_price", what),
        stop_price=_number(data, "stop_price", what),
        submitted_at=parse_time(data.get("submitted_at")) or parse_time(data.get("created_at")),
        filled_at=parse_time(data.get("filled_at")),
        ended_at=max(ended) if ended else None,
        expires_at=parse_time(data.get("expires_at")),
        replaced_by=_order_id(data, "replaced_by") or None,
        replaces=_order_id(data, "replaces") or None,
        legs=tuple(leg.id for leg in legs if leg.parent == order_id),
        parent=parent or (_order_id(data, "parent_order_id") or None),
        raw=data,
    )
    yield from legs


def flatten(rows: object, what: str = "orders") -> list[Order]:
    """Every order of a list answer, legs included; raises Impossible for anything but a list."""
    if not isinstance(rows, list):
        raise Impossible(f"{what} is no JSON array")
    return [order for row in rows for order in parse_orders(row)]


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution; `qty` and `price` as Decimal, `at` in UTC."""

    id: str
    order_id: str
    symbol: str
    key: str
    side: str
    qty: Decimal
    price: Decimal
    at: datetime
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def parse(cls, raw: object) -> Fill | None:
        """A FILL row; None for a row that was canceled; raises Impossible."""
        data = _object(raw, "fill")
        if _text(data, "status").lower() == "canceled":
            return None
        fill_id, order_id, symbol = _text(data, "id"), _order_id(data, "order_id"), _text(data, "symbol")
        at = parse_time(data.get("transaction_time")) or parse_time(data.get("created_at"))
        qty = _number(data, "qty", f"fill {fill_id}")
        price = _number(data, "price", f"fill {fill_id}")
        side = _text(data, "side").lower()
        if not (fill_id and symbol and at and qty and qty > 0 and price is not None and price >= 0 and side):
            raise Impossible(f"fill {fill_id or '?'} without symbol, side, quantity, price or time")
        # `sell_short` is how some rows name a sale that opens a short.
        side = "sell" if side.startswith("sell") else side
        return cls(fill_id, order_id, symbol, symbol_key(symbol), side, qty, price, at, data)


@dataclass(frozen=True, slots=True)
class Activity:
    """A non-trade activity: option expiry, assignment, exercise, split, rename."""

    id: str
    type: str
    symbol: str
    key: str
    qty: Decimal | None
    day: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def parse(cls, raw: object) -> Activity | None:
        data = _object(raw, "activity")
        if _text(data, "status").lower() == "canceled":
            return None
        symbol = _text(data, "symbol")
        return cls(
            _text(data, "id"),
            _text(data, "activity_type"),
            symbol,
            symbol_key(symbol),
            _number(data, "qty", "activity"),
            _text(data, "date")[:10] or _text(data, "created_at")[:10],
            data,
        )


@dataclass(frozen=True, slots=True)
class MarketClock:
    """The exchange's core session, by the broker."""

    at: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def parse(cls, raw: object) -> MarketClock:
        data = _object(raw, "clock")
        at, opens, closes = (parse_time(data.get(n)) for n in ("timestamp", "next_open", "next_close"))
        is_open = data.get("is_open")
        if at is None or opens is None or closes is None or not isinstance(is_open, bool):
            raise Impossible("clock without timestamp, is_open, next_open or next_close")
        return cls(at, is_open, opens, closes, data)


@dataclass(frozen=True, slots=True)
class BrokerTruth:
    """Account, all working orders and positions, read completely in one run.

    `at` is the broker's own time of the last read.
    """

    account: Account
    orders: tuple[Order, ...]
    positions: tuple[Position, ...]
    at: datetime

    def contradiction(self) -> str | None:
        """Why the account's market value and the rows cannot both be true; None when they can.

        Per side: $1 or more in the account and no row, or rows worth less than 80 % of it.
        More than the account says, a missing field or a null price is no contradiction.
        """
        for side, value in ((Side.LONG, self.account.long_value), (Side.SHORT, self.account.short_value)):
            if value is None or abs(value) < 1:
                continue
            rows = [p for p in self.positions if p.side is side and p.qty]
            if not rows:
                return f"the account holds {side.lower()} positions worth ${abs(value)}, the position list has none"
            if any(p.market_value is None for p in rows):
                continue
            shown = sum((abs(p.market_value or ZERO) for p in rows), ZERO)
            if shown < abs(value) * Decimal("0.8"):
                return (
                    f"the account holds {side.lower()} positions worth ${abs(value)}, the position list only ${shown}"
                )
        return None


def merge_positions(rows: Iterable[Position]) -> tuple[Position, ...]:
    """The rows that hold something; a second row of one symbol is an impossible answer."""
    kept: dict[str, Position] = {}
    for row in rows:
        if not row.qty:
            continue
        if row.key in kept:
            raise Impossible(f"position {row.symbol} is listed twice")
        kept[row.key] = row
    return tuple(kept.values())
