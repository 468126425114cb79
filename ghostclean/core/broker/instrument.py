"""What is traded: one key for every spelling, and the facts an option symbol carries."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum

from .values import ONE, eastern

OPTION_MULTIPLIER = Decimal(100)
# Alpaca takes the crypto fee (0.25 % and rounding) out of the coin that a purchase brings.
CRYPTO_DUST = Decimal("0.005")
# A fractional sale can leave a hair of the share behind.
STOCK_DUST = Decimal("0.000001")
_OCC = re.compile(r"^([A-Z0-9.]{1,6})(\d{2})(\d{2})(\d{2})([CP])(\d{8})$")
_CLASS = re.compile(r"([A-Z]+)[./-]([A-Z]{1,2})")  # a class of shares; a currency has three letters or more
_QUOTES = ("USD", "USDT", "USDC", "BTC")


class Side(StrEnum):
    """The direction of a trade or position."""

    LONG = "LONG"
    SHORT = "SHORT"

    @property
    def sign(self) -> int:
        return 1 if self is Side.LONG else -1

    @property
    def closing(self) -> str:
        """The order side that reduces a position of this side."""
        return "sell" if self is Side.LONG else "buy"

    @property
    def opening(self) -> str:
        """The order side that builds a position of this side."""
        return "buy" if self is Side.LONG else "sell"


def symbol_key(symbol: str) -> str:
    """One key for every spelling: `btc/usd` and `BTCUSD` are one, and so are `BRK-B`, `BRK/B` and `BRK.B`."""
    key = symbol.strip().upper()
    if (share := _CLASS.fullmatch(key)) is not None:
        return f"{share[1]}.{share[2]}"
    return key.replace("/", "")


def crypto_pair(symbol: str) -> str:
    if "/" in symbol:
        return symbol.upper()
    for quote in _QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return f"{symbol[: -len(quote)]}/{quote}"
    return symbol


def is_option(symbol: str) -> bool:
    """Whether a symbol is an OCC option symbol such as `AAPL260116C00200000`."""
    return len(symbol) >= 16 and _OCC.match(symbol) is not None


def multiplier(symbol: str) -> Decimal:
    """Units of the underlying per unit of quantity: 100 for options, 1 otherwise."""
    return OPTION_MULTIPLIER if is_option(symbol) else ONE


def expiry(symbol: str) -> datetime | None:
    """The close of an option's last day (16:00 in New York), None for anything else."""
    match = _OCC.match(symbol)
    if match is None:
        return None
    year, month, day = (int(match.group(i)) for i in (2, 3, 4))
    try:
        return eastern(date(2000 + year, month, day), time(16))
    except ValueError:
        return None
