"""A close that was begun: what it must put back, and how it is remembered."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_orders, read_position
from ghostclean.core.broker import Order, Side
from ghostclean.core.protection import CUT, ORPHAN, BegunClose, Exposure
from tests.builders import NOW, ago, order, position, uid

ORPHANED = Exposure.alone("orphan:AAPL:LONG", read_position(position()), Decimal(10), NOW)
MINE = Exposure("t1", "AAPL", "AAPL", Side.LONG, Decimal(10), Decimal(10), crypto=False, at=NOW)


def exit_(name: str, **fields: Any) -> Order:
    row = {"side": "sell", "status": "new", "type": "stop", "stop_price": "170", "time_in_force": "gtc"} | fields
    return read_orders([order(name, **row)])[0]


def target(name: str = "T", **fields: Any) -> Order:
    return exit_(name, **{"type": "limit", "stop_price": None, "limit_price": "200"} | fields)


def test_a_begun_close_reads_back_as_it_was_stored() -> None:
    trades = BegunClose.of_trade(MINE, CUT, NOW, Decimal(170), [exit_("S", filled_qty="2"), target()])
    swap = BegunClose.of_swap(MINE, NOW, Decimal(170), target(), Decimal(6))
    orphan = BegunClose.of_orphan(ORPHANED, [exit_("S")], None)
    for begun in (trades, swap, orphan):
        assert BegunClose.parse("other", begun.to_dict()) == begun
    assert trades.orders == {uid("S"): 2, uid("T"): 0}
    assert (trades.stop, trades.target, swap.target_qty) == (170, 200, 6)


def test_the_form_of_earlier_versions_is_read() -> None:
    stored = {"purpose": "eod", "symbol": "AAPL", "at": ago(60), "stop": "170", "target": None}
    found = BegunClose.parse("t1", stored)
    assert found is not None
    assert (found.name, found.purpose, found.stop, found.covered, found.orders) == ("t1", "eod", 170, None, {})


@pytest.mark.parametrize(
    "change",
    [{"at": "soon"}, {"stop": "high"}, {"symbol": ...}, {"orders": []}, {"orders": {"a": "x"}}, {"qty": "10"}],
)
def test_what_cannot_be_read_is_no_begun_close(change: dict[str, Any]) -> None:
    stored = BegunClose.of_trade(MINE, CUT, NOW, None, []).to_dict() | change
    assert BegunClose.parse("t1", {k: v for k, v in stored.items() if v is not ...}) is None
    assert BegunClose.parse("t1", None) is None


@pytest.mark.parametrize(
    ("holders", "restored"),
    [
        ([target()], 200),
        ([target(qty="9")], None),  # for less than the whole it would sell too much
        ([target(), target("T2")], None),
        ([target(type="market", limit_price=None)], None),
        ([exit_("S")], None),
    ],
)
def test_only_a_target_for_the_whole_trade_is_restored(holders: list[Order], restored: int | None) -> None:
    assert BegunClose.of_trade(MINE, CUT, NOW, Decimal(170), holders).target == restored


def test_an_orphans_tightest_stop_is_put_back_with_what_it_covered() -> None:
    begun = BegunClose.of_orphan(ORPHANED, [exit_("S", qty="4"), exit_("S2", qty="3", stop_price="175")], None)
    assert (begun.purpose, begun.stop, begun.covered, begun.time_in_force) == (ORPHAN, 175, 7, "gtc")
    assert begun.target is None
    more = BegunClose.of_orphan(ORPHANED, [exit_("S", qty="40")], None)
    assert more.covered == 10, "never for more than the orphan"


def test_an_orphans_target_is_put_back_where_it_is_tied_to_the_stop() -> None:
    tied = {"order_class": "oco", "parent_order_id": uid("P")}
    begun = BegunClose.of_orphan(ORPHANED, [exit_("S", **tied), target(**tied)], None)
    assert (begun.stop, begun.target) == (170, 200)
    assert BegunClose.of_orphan(ORPHANED, [exit_("S"), target()], None).target is None


def test_a_second_try_keeps_the_stop_that_the_first_took_away() -> None:
    first = BegunClose.of_orphan(ORPHANED, [exit_("S", filled_qty="1")], None)
    again = BegunClose.of_orphan(ORPHANED, [target()], first)
    assert (again.stop, again.covered, again.orders) == (170, 9, {uid("T"): 0})
    assert BegunClose.of_orphan(ORPHANED, [], None).stop is None


def test_what_its_cancelled_orders_filled_is_no_more_the_orphans() -> None:
    left = BegunClose.of_orphan(ORPHANED, [exit_("S")], None).exposure(NOW, Decimal(4))
    assert (left.qty, left.all_open, left.exits) == (6, 6, {uid("S")})
