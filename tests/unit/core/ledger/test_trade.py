"""A record of the ledger as a trade: what it may leave out, and what makes it unreadable."""

from __future__ import annotations

from typing import Any

import pytest

from ghostclean.core.broker import Side
from ghostclean.core.ledger import read_trade, record_id
from tests.builders import trade


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": None}, "it has no id"),
        ({"id": "  "}, "it has no id"),
        ({"id": True}, "it has no id"),
        ({"id": "half a pair \ud800"}, "it has no id"),
        ({"ticker": " "}, "it has no symbol"),
        ({"ticker": "AAPL\udfff"}, "ticker is no text that can be sent"),
        ({"stopOrderId": "\ud800"}, "stopOrderId is no text that can be sent"),
        ({"side": "BUY"}, "side 'BUY' is neither LONG nor SHORT"),
        ({"quantity": "ten"}, "quantity is impossible: 'ten' is no number"),
        ({"entryPrice": -1}, "entryPrice is impossible: -1"),
        ({"quantity": 0, "alpacaOrderId": ...}, "it has no positive size and no entry order to take one from"),
    ],
)
def test_what_makes_a_record_unreadable(fields: dict[str, Any], said: str) -> None:
    assert read_trade(trade(**fields)).problem == said


@pytest.mark.parametrize(
    "fields",
    [{"id": 7}, {"id": "Zürich 🚀"}, {"side": " short "}, {"side": None}, {"quantity": 0}, {"entryPrice": 0}],
)
def test_what_is_readable(fields: dict[str, Any]) -> None:
    assert read_trade(trade(**fields)).problem is None


def test_a_record_without_a_side_is_long_and_a_number_is_an_id() -> None:
    assert read_trade(trade(side="")).side is Side.LONG
    assert read_trade(trade(side="short")).side is Side.SHORT
    assert record_id({"id": 7}) == "7"
