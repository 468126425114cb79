"""Symbols: one key for every spelling, and what the symbol of an option says."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ghostclean.core.broker import crypto_pair, expiry, is_option, multiplier, symbol_key

OPTION = "AAPL260116C00200000"


@pytest.mark.parametrize(
    ("key", "spellings"),
    [
        ("AAPL", ("AAPL", " aapl ")),
        ("BTCUSD", ("BTC/USD", "BTCUSD", "btc/usd")),
        ("BRK.B", ("BRK.B", "BRK-B", "BRK/B", "brk/b")),
        (OPTION, (OPTION, OPTION.lower())),
    ],
)
def test_every_spelling_of_a_symbol_is_one_key(key: str, spellings: tuple[str, ...]) -> None:
    assert {symbol_key(spelling) for spelling in spellings} == {key}


@pytest.mark.parametrize(
    ("symbol", "pair"),
    [
        ("BTC/USD", "BTC/USD"),
        ("eth/btc", "ETH/BTC"),
        ("BTCUSD", "BTC/USD"),
        ("BTCUSDT", "BTC/USDT"),
        ("ETHBTC", "ETH/BTC"),
        ("USD", "USD"),  # a quote alone is no pair
        ("AAPL", "AAPL"),
    ],
)
def test_a_pair_is_sent_with_its_slash(symbol: str, pair: str) -> None:
    assert crypto_pair(symbol) == pair


@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD", "ABCDEFGHIJKLMNOPQ", "AAPL260116X00200000", "A1234567890123456"])
def test_what_is_no_option(symbol: str) -> None:
    assert not is_option(symbol)
    assert (multiplier(symbol), expiry(symbol)) == (Decimal(1), None)


def test_an_option_counts_a_hundred_and_ends_with_its_day_in_new_york() -> None:
    assert is_option(OPTION)
    assert is_option("F260116P00012000"), "the shortest name"
    assert multiplier(OPTION) == Decimal(100)
    assert expiry(OPTION) == datetime(2026, 1, 16, 21, tzinfo=UTC)
    assert expiry("SPY260717P00500000") == datetime(2026, 7, 17, 20, tzinfo=UTC), "daylight saving"
    assert expiry("AAPL260230C00200000") is None, "no such day"
