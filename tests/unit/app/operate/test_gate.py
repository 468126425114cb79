"""The gate: broker truth only, distinct symbols, dust and exits do not count, unknown closes it."""

from __future__ import annotations

from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_account, read_orders, read_positions
from ghostclean.app.operate.gate import Gate, judge, unknown
from ghostclean.core.broker import BrokerTruth, Positions
from tests.fakes import NOW, raw_order, raw_position

ACCOUNT = read_account({"id": "account-1", "status": "ACTIVE"})


def gate(positions: list[dict[str, Any]] | None = None, orders: list[dict[str, Any]] | None = None) -> Gate:
    held = read_positions(positions or [], str)
    return judge(BrokerTruth(ACCOUNT, tuple(read_orders(orders or [])), held, NOW), 3)


def test_an_empty_account_is_open() -> None:
    answer = gate()
    assert answer.allowed
    assert answer.exit_code == 0
    assert answer.entry_state() == {"allowed": True, "count": 0, "maxOpen": 3, "reason": "0 of at most 3 symbols taken"}


def test_positions_and_working_entries_count_once_a_symbol() -> None:
    answer = gate(
        [raw_position("AAPL", "5", "900"), raw_position("BTCUSD", "0.1", "9000")],
        [raw_order("1", "AAPL", "buy"), raw_order("2", "BTC/USD", "buy"), raw_order("3", "NVDA", "buy")],
    )
    assert answer.symbols == ("AAPL", "BTCUSD", "NVDA")
    assert not answer.allowed
    assert answer.exit_code == 10


@pytest.mark.parametrize(("value", "taken"), [("0.99", 0), ("1", 1), ("-250", 1), (None, 1)])
def test_dust_does_not_count_but_unknown_worth_does(value: str | None, taken: int) -> None:
    assert len(gate([raw_position("SHIB", "-7" if value == "-250" else "7", value)]).symbols) == taken


@pytest.mark.parametrize(
    "order",
    [
        raw_order("1", "MSFT", "sell", position_intent="sell_to_close"),
        raw_order("1", "MSFT", "buy", position_intent="buy_to_close"),
        raw_order("1", "MSFT", "sell", order_class="oco"),
        raw_order("1", "MSFT", "sell", parent_order_id="0"),
        raw_order("1", "MSFT", "buy", status="filled", filled_qty="10"),
    ],
)
def test_exits_legs_and_final_orders_are_no_entries(order: dict[str, Any]) -> None:
    assert gate(orders=[order]).symbols == ()


def test_an_order_that_reduces_a_position_is_no_entry() -> None:
    dust = [raw_position("TSLA", "0.001", "0.4"), raw_position("F", "-0.01", "-0.1")]
    orders = [raw_order("1", "TSLA", "sell"), raw_order("2", "F", "buy")]
    assert gate(dust, orders).symbols == ()


def test_an_order_that_adds_to_a_position_is_an_entry() -> None:
    assert gate([raw_position("TSLA", "0.001", "0.4")], [raw_order("1", "TSLA", "buy")]).symbols == ("TSLA",)


def test_a_sale_without_position_may_open_a_short() -> None:
    assert gate(orders=[raw_order("1", "GME", "sell")]).symbols == ("GME",)


def test_a_bracket_counts_once() -> None:
    legs = [raw_order("2", "AMD", "sell", "held"), raw_order("3", "AMD", "sell", "held")]
    assert gate(orders=[raw_order("1", "AMD", "buy", order_class="bracket", legs=legs)]).symbols == ("AMD",)


def test_the_legs_of_a_multi_leg_entry_count() -> None:
    legs = [
        raw_order("2", "AAPL261218C00200000", "buy", position_intent="buy_to_open"),
        raw_order("3", "AAPL261218C00210000", "sell", position_intent="sell_to_open"),
    ]
    spread = raw_order("1", "", "", order_class="mleg", legs=legs)
    assert len(gate(orders=[spread]).symbols) == 2


def test_the_limit_is_strict() -> None:
    truth = BrokerTruth(ACCOUNT, (), Positions(), NOW)
    assert not judge(truth, 0).allowed


def test_unknown_fails_closed() -> None:
    answer = unknown("the broker gave no answer", 3)
    assert answer.allowed is None
    assert answer.exit_code == 3
    document = answer.to_dict()
    assert (document["ok"], document["allowed"], document["count"]) == (False, False, None)
    assert document["error"] == "broker_truth_failed"
