"""The JSON shapes of the API: orders, positions, account, assets, clock, activities, prices, errors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .times import ET, Sessions, stamp

Row = dict[str, Any]
Number = Decimal | int | float | str

FINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
ORDER_TIMES = ("filled_at", "expired_at", "canceled_at", "failed_at", "replaced_at")
CRYPTO_BASES = frozenset(
    {"AAVE", "AVAX", "BCH", "BTC", "DOGE", "DOT", "ETH", "LINK", "LTC", "SHIB", "SOL", "UNI", "XRP"}
)
OPTION_SYMBOL = re.compile(r"[A-Z]{1,6}\d{6}[CP]\d{8}")
MISSING = object()
"""As the value of an override: leave this field out of the answer."""


class Refusal(Exception):
    """The API says no: HTTP status, error code (None: body without one), message and further body fields."""

    def __init__(self, status: int, code: int | None, message: str, **extra: Any) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status = status
        self.body: Row = {**({} if code is None else {"code": code}), "message": message, **extra}


def bad_parameter(message: str) -> Refusal:
    return Refusal(422, 40010001, message)


def rule_refused(message: str) -> Refusal:
    return Refusal(422, 42210000, message)


def forbidden(message: str, **extra: Any) -> Refusal:
    return Refusal(403, 40310000, message, **extra)


def not_found(message: str) -> Refusal:
    return Refusal(404, 40410000, message)


def decimal(value: Number) -> Decimal:
    """Read a number without the noise of binary floats."""
    return Decimal(str(value))


def text(value: Decimal, places: int = 9) -> str:
    """Write a number as the API does: plain digits, no exponent, no trailing zeros."""
    plain = f"{value:.{places}f}"
    trimmed = plain.rstrip("0").rstrip(".")
    return "0" if trimmed == "-0" else trimmed


def unslashed(symbol: str) -> str:
    return symbol.upper().replace("/", "")


def asset_class_of(symbol: str) -> str:
    """Tell the asset class from the spelling of a symbol."""
    if "/" in symbol or (symbol.endswith("USD") and symbol[:-3] in CRYPTO_BASES):
        return "crypto"
    return "us_option" if OPTION_SYMBOL.fullmatch(symbol) else "us_equity"


def slashed(symbol: str) -> str:
    """Spell a crypto pair as orders and data do (`BTC/USD`); other symbols stay as they are."""
    if "/" in symbol or asset_class_of(symbol) != "crypto":
        return symbol
    return f"{symbol[:-3]}/{symbol[-3:]}"


@dataclass
class Position:
    """A netted holding; quantity is negative for a short; `overrides` replace fields of the row."""

    symbol: str
    qty: Decimal
    avg_entry_price: Decimal
    asset_class: str
    asset_id: str
    overrides: Row = field(default_factory=dict)

    @property
    def multiplier(self) -> int:
        return 100 if self.asset_class == "us_option" else 1


@dataclass
class Price:
    """What the market data says of one symbol; None means there is no trade, a bid or ask of 0 no quote."""

    last: Decimal | None
    bid: Decimal
    ask: Decimal
    at: datetime


def asset_id(symbol: str, *, position: bool = False) -> str:
    """Return the stable id of an asset; crypto positions carry another one than crypto assets."""
    own_space = position and asset_class_of(symbol) == "crypto"
    return str(uuid5(NAMESPACE_URL, f"{'position' if own_space else 'asset'}:{unslashed(symbol)}"))


def asset_row(symbol: str) -> Row:
    kind = asset_class_of(symbol)
    row: Row = {
        "id": asset_id(symbol),
        "class": kind,
        "exchange": {"crypto": "CRYPTO", "us_option": ""}.get(kind, "NASDAQ"),
        "symbol": slashed(symbol),
        "name": f"{symbol} (simulated)",
        "status": "active",
        "tradable": True,
        "marginable": kind == "us_equity",
        "maintenance_margin_requirement": 30,
        "shortable": kind == "us_equity",
        "easy_to_borrow": kind == "us_equity",
        "fractionable": kind != "us_option",
        "attributes": [],
    }
    if kind == "crypto":
        row |= {"min_order_size": "0.0001", "min_trade_increment": "0.0001", "price_increment": "0.01"}
    return row


def order_row(order_id: str, symbol: str, created: str, **fields: Any) -> Row:
    """Build a complete order; given fields win over the defaults, unknown ones are kept as they are."""
    row: Row = {
        "id": order_id,
        "client_order_id": str(uuid5(NAMESPACE_URL, f"client:{order_id}")),
        "created_at": created,
        "updated_at": created,
        "submitted_at": created,
        **dict.fromkeys(ORDER_TIMES),
        "replaced_by": None,
        "replaces": None,
        "asset_id": asset_id(symbol),
        "symbol": symbol,
        "asset_class": asset_class_of(symbol),
        "notional": None,
        "qty": "1",
        "filled_qty": "0",
        "filled_avg_price": None,
        "order_class": "",
        "order_type": fields.get("type", "market"),
        "type": "market",
        "side": "buy",
        "position_intent": "sell_to_close" if fields.get("side") == "sell" else "buy_to_open",
        "time_in_force": "day",
        "limit_price": None,
        "stop_price": None,
        "status": "new",
        "extended_hours": False,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "subtag": None,
        "source": None,
    }
    return row | fields


def position_row(position: Position, price: Decimal, available: Decimal) -> Row:
    size = position.qty * position.multiplier
    value, cost = price * size, position.avg_entry_price * size
    profit = value - cost
    share = text(profit / abs(cost) if cost else Decimal(0))
    row: Row = {
        "asset_id": position.asset_id,
        "symbol": position.symbol,
        "exchange": {"crypto": "CRYPTO", "us_option": ""}.get(position.asset_class, "NASDAQ"),
        "asset_class": position.asset_class,
        "asset_marginable": position.asset_class == "us_equity",
        "qty": text(position.qty),
        "qty_available": text(available),
        "avg_entry_price": text(position.avg_entry_price),
        "side": "short" if position.qty < 0 else "long",
        "market_value": text(value),
        "cost_basis": text(cost),
        "unrealized_pl": text(profit),
        "unrealized_plpc": share,
        "unrealized_intraday_pl": text(profit),
        "unrealized_intraday_plpc": share,
        "current_price": text(price),
        "lastday_price": text(price),
        "change_today": "0",
    }
    return overridden(row, position.overrides)


def account_row(
    account_id: str, number: str, cash: Decimal, long_value: Decimal, short_value: Decimal, now: datetime
) -> Row:
    equity = cash + long_value + short_value
    return {
        "id": account_id,
        "account_number": number,
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "options_approved_level": 3,
        "options_trading_level": 3,
        "currency": "USD",
        "buying_power": text(max(equity * 2, Decimal(0))),
        "regt_buying_power": text(max(equity * 2, Decimal(0))),
        "non_marginable_buying_power": text(cash),
        "options_buying_power": text(cash),
        "cash": text(cash),
        "accrued_fees": "0",
        "portfolio_value": text(equity),
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "created_at": "2024-01-02T15:04:05.678901Z",
        "trade_suspended_by_user": False,
        "multiplier": "2",
        "shorting_enabled": True,
        "equity": text(equity),
        "last_equity": text(equity),
        "long_market_value": text(long_value),
        "short_market_value": text(short_value),
        "position_market_value": text(long_value + abs(short_value)),
        "initial_margin": text((long_value - short_value) / 2),
        "maintenance_margin": text((long_value - short_value) * 3 / 10),
        "last_maintenance_margin": "0",
        "sma": "0",
        "balance_asof": now.astimezone(ET).date().isoformat(),
        "intraday_adjustments": "0",
        "pending_reg_taf_fees": "0",
    }


def clock_row(sessions: Sessions, now: datetime) -> Row:
    return {
        "timestamp": stamp(now, zone=ET),
        "is_open": sessions.is_open(now),
        "next_open": stamp(sessions.next_open(now), zone=ET),
        "next_close": stamp(sessions.next_close(now), zone=ET),
    }


def calendar_row(sessions: Sessions, day: date) -> Row:
    opened, closed = sessions.hours(day)
    return {
        "date": day.isoformat(),
        "open": f"{opened:%H:%M}",
        "close": f"{closed:%H:%M}",
        "session_open": "0400",
        "session_close": "1700" if day in sessions.half_days else "2000",
        "settlement_date": sessions.settlement(day).isoformat(),
    }


def activity_id(moment: datetime, sequence: int) -> str:
    """Make a sortable id like Alpaca's: Eastern time to the millisecond, then a UUID in the order of writing."""
    local = moment.astimezone(ET)
    unique = uuid5(NAMESPACE_URL, f"activity:{sequence}")
    return f"{local:%Y%m%d%H%M%S}{local.microsecond // 1000:03d}::{sequence:08x}{str(unique)[8:]}"


def trade_row(price: Price, crypto: bool) -> Row:
    row: Row = {"t": stamp(price.at), "p": float(price.last or 0), "s": 100, "i": 1}
    return row | ({"tks": "B"} if crypto else {"x": "V", "c": ["@"], "z": "C"})


def quote_row(price: Price, crypto: bool) -> Row:
    row: Row = {"t": stamp(price.at), "bp": float(price.bid), "bs": 1, "ap": float(price.ask), "as": 1}
    return row | ({} if crypto else {"bx": "V", "ax": "V", "c": ["R"], "z": "C"})


def overridden(row: Row, overrides: Row) -> Row:
    """Apply a test's overrides; MISSING removes the field."""
    return {name: value for name, value in (row | overrides).items() if value is not MISSING}
