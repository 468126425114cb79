"""Final orders in the state: what is written reads back the same, and so does the form of older states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_orders
from ghostclean.core.broker import recall_orders, remember_order
from tests.builders import ago, order, uid


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "canceled", "filled_qty": "3.5", "canceled_at": ago(50), "limit_price": "181.10"},
        {"status": "expired", "expired_at": ago(40)},
        {"status": "rejected", "failed_at": ago(40), "qty": None},
        {"status": "replaced", "replaced_at": ago(30), "replaced_by": uid("next"), "replaces": uid("before")},
        {"order_class": "bracket", "legs": [order("target"), order("stop", status="canceled")]},
        {"symbol": "BTC/USD", "asset_class": "crypto", "qty": "0.123456789"},
    ],
)
def test_what_is_remembered_reads_back_the_same(fields: dict[str, Any]) -> None:
    for known in read_orders([order("one", **fields)]):
        row = remember_order(known, "t1")
        assert row["trade"] == "t1"
        assert list(recall_orders([row])) == [known]


def test_the_form_of_older_states_is_read() -> None:
    """They kept the broker's own texts, nine digits of a second and ids in any case included."""
    row = {
        "id": uid("stop").upper(), "client_order_id": "c-1", "symbol": "AAPL", "asset_id": "asset-AAPL",
        "asset_class": "us_equity", "side": "sell", "type": "stop", "order_class": "bracket", "status": "canceled",
        "qty": "10", "filled_qty": "0", "stop_price": "170.00", "submitted_at": "2026-11-17T16:00:00.123456789Z",
        "canceled_at": "2026-11-18T15:00:00Z", "replaces": uid("first"), "trade": "t1", "parent_order_id": uid("entry"),
        "leg_ids": [uid("leg")],
    }  # fmt: skip
    (found,) = recall_orders([row])
    raw = {k: v for k, v in row.items() if k not in ("trade", "leg_ids")}
    (expected,) = read_orders([raw])
    assert found == replace(expected, legs=(uid("leg"),))


@pytest.mark.parametrize("damage", [{"id": None}, {"status": "new"}, {"status": 5}, {"qty": "ten"}, {"filled_qty": []}])
def test_a_row_that_cannot_be_read_is_looked_up_again(damage: dict[str, Any]) -> None:
    (known,) = read_orders([order("one")])
    assert list(recall_orders([remember_order(known, "t1") | damage])) == []
