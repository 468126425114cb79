"""Which orders protect a trade, and how much closing orders can still take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.adapters.alpaca.records import read_orders, read_position
from ghostclean.core.allocation import first_stop
from ghostclean.core.broker import Order, OrderGraph, Side, client_id
from ghostclean.core.ledger import read_trade
from ghostclean.core.protection import (
    Protection,
    ages_out,
    can_take,
    is_replaceable_now,
    last_stop,
    protections,
    why_fixed,
)
from ghostclean.core.verdicts import Holding

D = Decimal
T0 = "2026-11-17T15:00:00Z"
NOW = datetime(2026, 11, 18, 15, tzinfo=UTC)


def raw(order_id: str, **fields: Any) -> dict[str, Any]:
    base = {
        "id": order_id,
        "client_order_id": f"c-{order_id}",
        "symbol": "AAPL",
        "asset_class": "us_equity",
        "side": "sell",
        "type": "stop",
        "order_class": "",
        "status": "new",
        "qty": "10",
        "filled_qty": "0",
        "stop_price": "95",
        "submitted_at": T0,
        "time_in_force": "gtc",
    }
    return base | fields


def orders(*rows: dict[str, Any]) -> list[Order]:
    return read_orders(list(rows))


def entry(**fields: Any) -> dict[str, Any]:
    filled = {"side": "buy", "type": "market", "status": "filled", "filled_qty": "10", "filled_avg_price": "100"}
    return raw("entry", stop_price=None, **filled | fields)


def holding(name: str = "t1", qty: str = "10", entry_row: dict[str, Any] | None = None, **record: Any) -> Holding:
    trade = read_trade({"id": name, "ticker": "AAPL", "status": "OPEN", "quantity": qty, "stopPrice": 95, **record})
    row = {"symbol": "AAPL", "qty": qty, "side": "long", "asset_class": "us_equity", "current_price": "101"}
    found = read_orders([entry_row])[0] if entry_row else None
    return Holding(trade, read_position(row), D(qty), D(100), D(95), found, ())


def protect(holdings: list[Holding], working: list[Order], known: list[Order] | None = None) -> dict[str, Protection]:
    known_orders = OrderGraph()
    known_orders.add_orders(known or [])
    known_orders.set_working(working)
    return protections(holdings, known_orders)


# --------------------------------------------------------------------------- finding the stop


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"stopOrderId": "s1"}, raw("s1")),
        ({"stopOrderId": "mine"}, raw("s1", client_order_id="mine")),
        ({}, raw("s1", client_order_id=client_id("t1", "stop", 3))),
        ({}, raw("s1")),  # standalone: symbol and side, nobody else's
        ({}, raw("s1", type="trailing_stop", stop_price="96")),
        ({}, raw("s1", type="stop_limit", limit_price="94")),
    ],
)
def test_finds_the_stop(record: dict[str, Any], row: dict[str, Any]) -> None:
    found = protect([holding(**record)], orders(row))["t1"]
    assert (not found.is_naked, bool(found.shared)) == (True, False)
    assert found.stop is not None
    assert found.stop.id == "s1"


@pytest.mark.parametrize(
    "row",
    [
        raw("s1", side="buy"),
        raw("s1", symbol="MSFT"),
        raw("s1", status="canceled"),
        raw("s1", status="pending_cancel"),
        raw("s1", type="limit", limit_price="120", stop_price=None),
    ],
)
def test_what_protects_nothing(row: dict[str, Any]) -> None:
    assert protect([holding(stopOrderId="s1")], orders(row))["t1"].is_naked


def test_along_the_replace_chain() -> None:
    known = orders(
        raw("s1", status="replaced", replaced_by="s2"), raw("s2", status="replaced", replaces="s1", replaced_by="s3")
    )
    found = protect([holding(stopOrderId="s1")], orders(raw("s3", replaces="s2", stop_price="97")), known)["t1"]
    assert found.stop is not None
    assert (found.stop.id, found.is_naked) == ("s3", False)


@pytest.mark.parametrize(
    ("status", "filled", "naked"),
    [("filled", "10", False), ("partially_filled", "4", True), ("canceled", "4", True), ("new", "0", True)],
)
def test_a_held_leg_protects_only_behind_a_filled_entry(status: str, filled: str, naked: bool) -> None:
    legs = [
        raw("tp", type="limit", limit_price="120", stop_price=None, order_class="bracket"),
        raw("sl", status="held", order_class="bracket"),
    ]
    row = entry(status=status, filled_qty=filled, order_class="bracket", legs=legs)
    found = protect([holding(entry_row=row)], orders(legs[0]), orders(row))["t1"]
    assert found.is_naked is naked
    assert [o.id for o in found.targets] == ["tp"]


def test_a_held_leg_of_an_oco_protects() -> None:
    oco = raw(
        "tp",
        type="limit",
        limit_price="120",
        stop_price=None,
        order_class="oco",
        legs=[raw("sl", status="held", order_class="oco")],
    )
    found = protect([holding(takeProfitOrderId="tp")], orders(oco))["t1"]
    assert (found.is_naked, found.covered) == (False, D(10))


def test_a_stop_for_a_part_leaves_the_rest_naked() -> None:
    found = protect([holding(stopOrderId="s1")], orders(raw("s1", qty="4")))["t1"]
    assert (found.is_naked, found.missing) == (True, D(6))


def test_a_working_close_is_no_target() -> None:
    row = raw("c1", type="market", stop_price=None, client_order_id=client_id("t1", "eod", 1))
    found = protect([holding()], orders(row))["t1"]
    assert (found.targets, [o.id for o in found.waiting]) == ((), ["c1"])


# --------------------------------------------------------------------------- several trades of one symbol


def test_another_trades_stop_protects_nobody_else() -> None:
    found = protect([holding("t1", "10", stopOrderId="s1"), holding("t2", "20")], orders(raw("s1")))
    assert (found["t1"].is_naked, found["t2"].is_naked) == (False, True)


def test_one_stop_for_all_protects_all_and_is_nobodys() -> None:
    found = protect([holding("t1", "10"), holding("t2", "20")], orders(raw("s1", qty="30")))
    assert [(p.is_naked, bool(p.shared)) for p in found.values()] == [(False, True)] * 2
    assert all(s not in p.holders for p in found.values() for s in p.stops)


def test_a_free_stop_is_lent_to_the_trade_that_lacks_one_alone() -> None:
    found = protect([holding("t1", stopOrderId="s1"), holding("t2")], orders(raw("s1"), raw("s2")))
    assert {name: [o.id for o in one.stops] for name, one in found.items()} == {"t1": ["s1"], "t2": ["s2"]}
    assert not any(one.shared or one.is_naked for one in found.values())


def test_a_free_stop_that_is_too_small_for_all_protects_none() -> None:
    found = protect([holding("t1", "10"), holding("t2", "20")], orders(raw("s1", qty="20")))
    assert all(p.is_naked for p in found.values())
    assert [o.id for o in found["t1"].foreign] == ["s1"]


def test_a_stop_over_hand_bought_shares_is_not_moved() -> None:
    found = protect([holding("t1", "10")], orders(raw("s1", qty="40")))["t1"]
    assert (found.is_naked, bool(found.shared)) == (False, True)


# --------------------------------------------------------------------------- what can be taken


def test_a_bracket_counts_once_with_or_without_its_parent() -> None:
    legs = [raw("tp", type="limit", limit_price="120", order_class="bracket"), raw("sl", order_class="bracket")]
    assert can_take(orders(*legs), D(50)) == 10
    parented = orders(entry(legs=legs))[1:]
    assert can_take(parented, D(50)) == 10


def test_a_replaced_leg_still_counts_with_its_sibling() -> None:
    legs = [
        raw("tp", type="limit", limit_price="120", order_class="bracket"),
        raw("sl2", order_class="bracket", replaces="sl", submitted_at="2026-11-18T15:00:00Z"),
    ]
    assert can_take(orders(*legs), D(50)) == 10


def test_separate_orders_add_up_and_a_notional_one_could_take_all() -> None:
    assert can_take(orders(raw("a", qty="3"), raw("b", qty="5", filled_qty="1")), D(50)) == 7
    assert can_take(orders(raw("a", qty=None, notional="500")), D(50)) == 50


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), max_size=6))
def test_never_more_than_the_sum_and_never_less_than_the_largest(sizes: list[tuple[int, int]]) -> None:
    rows = [raw(str(n), qty=str(qty), filled_qty=str(min(filled, qty))) for n, (qty, filled) in enumerate(sizes)]
    left = [qty - min(filled, qty) for qty, filled in sizes]
    assert can_take(orders(*rows), D(1000)) == sum(left)


# --------------------------------------------------------------------------- what can be done to a stop


@pytest.mark.parametrize(
    ("fields", "fixed"),
    [
        ({}, False),
        ({"order_class": "bracket", "status": "held"}, False),
        ({"order_class": "oto"}, True),
        ({"type": "trailing_stop"}, True),
        ({"qty": "1.5"}, True),
        ({"qty": None, "notional": "100"}, True),
        ({"qty": "0.5", "asset_class": "crypto", "symbol": "BTC/USD"}, False),
    ],
)
def test_what_can_never_be_replaced(fields: dict[str, Any], fixed: bool) -> None:
    assert (why_fixed(orders(raw("s1", **fields))[0]) is not None) is fixed


@pytest.mark.parametrize(
    ("status", "filled", "now"),
    [
        ("new", "0", True),
        ("held", "0", True),
        ("accepted", "0", False),
        ("pending_new", "0", False),
        ("pending_replace", "0", False),
        ("partially_filled", "3", False),
    ],
)
def test_what_cannot_be_replaced_yet(status: str, filled: str, now: bool) -> None:
    assert is_replaceable_now(orders(raw("s1", status=status, filled_qty=filled))[0]) is now


@pytest.mark.parametrize(("days", "due"), [(4, True), (5, True), (6, False)])
def test_ninety_days(days: int, due: bool) -> None:
    end = (NOW + timedelta(days=days)).isoformat()
    assert ages_out(orders(raw("s1", expires_at=end))[0], NOW) is due
    assert not ages_out(orders(raw("s1", expires_at=end, time_in_force="day"))[0], NOW)
    began = (NOW + timedelta(days=days - 90)).isoformat()
    assert ages_out(orders(raw("s1", submitted_at=began))[0], NOW) is due


def test_the_last_stop_is_the_one_that_ended_last() -> None:
    rows = orders(
        raw("s1", status="canceled", canceled_at="2026-11-17T16:00:00Z"),
        raw("s2", status="expired", expired_at="2026-11-17T21:00:00Z", stop_price="96"),
        raw("s3", status="replaced", replaced_at="2026-11-17T22:00:00Z"),
    )
    known_orders = OrderGraph({o.id: o for o in rows})
    found = last_stop(holding(), known_orders, {"s1", "s2", "s3"})
    assert found is not None
    assert found.id == "s2"


def test_a_side_of_short_looks_for_buy_stops() -> None:
    known_orders = OrderGraph()
    known_orders.set_working(orders(raw("s1", side="buy"), raw("s2")))
    assert [o.id for o in known_orders.closing("AAPL", Side.SHORT)] == ["s1"]


# --------------------------------------------------------------------------- whose stop it is


@pytest.mark.parametrize(("status", "filled"), [("new", "0"), ("partially_filled", "4")])
@pytest.mark.parametrize("nested", [True, False])
def test_the_legs_of_another_entry_that_still_works_protect_nobody(status: str, filled: str, nested: bool) -> None:
    legs = [
        raw("tp", type="limit", limit_price="120", stop_price=None, status="held", order_class="bracket"),
        raw("sl", status="held", order_class="bracket"),
    ]
    row = entry(status=status, filled_qty=filled, order_class="bracket", legs=legs if nested else None)
    found = protect([holding()], orders(row, *([] if nested else legs)))["t1"]
    assert (found.is_naked, found.stops, found.holders) == (True, (), ())
    assert [o.id for o in found.foreign] == ([] if nested else ["tp", "sl"])


def test_the_legs_of_another_filled_entry_are_lent() -> None:
    row = entry(order_class="bracket", legs=[raw("sl", status="held", order_class="bracket")])
    assert not protect([holding()], orders(row)[1:], orders(row))["t1"].is_naked


def test_a_stop_that_two_trades_name_is_shared_by_both_and_held_by_none() -> None:
    both = [holding("t1", stopOrderId="s1"), holding("t2", stopOrderId="s1")]
    found = protect(both, orders(raw("s1", qty="20")))
    assert [(p.is_naked, p.shared, p.own_stops, p.holders) for p in found.values()] == [
        (False, frozenset({"s1"}), (), ())
    ] * 2
    assert all(p.is_naked for p in protect(both, orders(raw("s1", qty="15"))).values())


def test_a_family_is_everything_tied_to_an_order() -> None:
    known_orders = OrderGraph()
    known_orders.add_orders(
        orders(entry(status="new", filled_qty="0", legs=[raw("sl", status="replaced", replaced_by="sl2")]))
    )
    known_orders.add_orders(orders(raw("sl2", replaces="sl"), raw("other")))
    assert known_orders.tied_to(["entry"]) == {"entry", "sl", "sl2"} == known_orders.tied_to(["sl2"])


def test_a_free_stop_covers_what_an_own_one_leaves() -> None:
    found = protect([holding(stopOrderId="s1")], orders(raw("s1", qty="6"), raw("s2", qty="4")))["t1"]
    assert (found.is_naked, found.covered, [o.id for o in found.holders]) == (False, D(10), ["s1", "s2"])


# --------------------------------------------------------------------------- the stop that 1R is measured by


@pytest.mark.parametrize(
    ("rows", "record", "stop"),
    [
        ([raw("s1", stop_price="97")], {}, D(97)),
        ([raw("s2", stop_price="99", replaces="s1"), raw("s1", stop_price="97", status="replaced")], {}, D(97)),
        ([raw("s2", stop_price="99", replaces="s1")], {}, None),
        ([raw("s1", stop_price="98", type="trailing_stop")], {}, D(95)),
        ([raw("s1", stop_price="98", type="trailing_stop")], {"autoManage": {"lastRunId": "r"}}, None),
        ([raw("s1", stop_price="100", client_order_id=client_id("t1", "stop", 1))], {}, D(95)),
        ([raw("s1", stop_price="97")], {"initialStopPrice": 90}, D(90)),
    ],
)
def test_the_initial_stop(rows: list[dict[str, Any]], record: dict[str, Any], stop: Decimal | None) -> None:
    assert first_stop(holding(**record).trade, orders(*rows)) == stop
