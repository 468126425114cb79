"""How much of a position an order may take: its own, less what others can take and what was just sold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_fill, read_orders, read_position
from ghostclean.core.broker import Fill, Order, Side
from ghostclean.core.protection import GONE, Exposure, SymbolView, allowance, barrier, free, wash_trade
from tests.builders import NOW, Record, fill, order, position, uid

MINE = Exposure("t1", "AAPL", "AAPL", Side.LONG, Decimal(10), Decimal(10), crypto=False, at=NOW)


def stop(name: str, qty: str = "4", **fields: Any) -> Order:
    return read_orders([order(name, side="sell", type="stop", status="new", qty=qty, **fields)])[0]


def sold(name: str, qty: int, seconds: float = 60) -> Fill:
    found = read_fill(fill(f"f-{name}", name, qty=qty, at=seconds))
    assert found is not None
    return found


def view(qty: Any = "10", closing: Iterable[Order] = (), row: Record | None = None, **seen: Any) -> SymbolView:
    return SymbolView(read_position(row or position(qty=qty)), tuple(closing), **seen)


def can_be_sold(seen: SymbolView, exposure: Exposure = MINE, *, step: str | None = None) -> Decimal:
    found, why = allowance(exposure, seen, missing_stop=True, step=Decimal(step) if step else None)
    assert bool(why) == (found == 0)
    return found


def test_at_most_its_own_and_what_other_closing_orders_leave() -> None:
    assert can_be_sold(view("25")) == 10
    assert can_be_sold(view("10", [stop("a")])) == 6
    assert can_be_sold(view("10", [stop("a"), stop("b", "6")])) == 0
    assert free(MINE, view("10", [stop("a"), stop("b", "6")]), without=[uid("b")]) == 6, "what is replaced lets go"


def test_a_leg_that_waits_for_its_entry_holds_no_shares() -> None:
    assert can_be_sold(view("10", [stop("a")], dormant=frozenset({uid("a")}))) == 10


def test_who_holds_the_shares_is_said() -> None:
    reason = allowance(MINE, view("10", [stop("a", "10")]), missing_stop=True)[1]
    assert reason == f"its shares are held by {uid('a')} (sell stop, new)"
    assert allowance(replace(MINE, qty=Decimal(0)), view(), missing_stop=True)[1] == "nothing of it is free"


def test_a_coin_is_sold_in_whole_steps() -> None:
    assert can_be_sold(view(), replace(MINE, qty=Decimal("1.2345")), step="0.01") == Decimal("1.23")


@pytest.mark.parametrize(
    ("fills", "exits", "closed", "qty", "left"),
    [
        ([sold("X", 4)], (), (), "10", 6),  # a stranger's: the position may not show it yet
        ([sold("X", 4)], (), (), "14", 10),
        ([sold("X", 4)], ("X",), (), "10", 10),  # an open trade's exit: its quantity is without it
        ([sold("X", 4)], (), ("X",), "10", 10),  # of a closed trade: only of what is beyond the open ones
        ([sold("X", 4)], (), ("X",), "12", 10),
    ],
)
def test_what_was_just_sold_may_not_be_shown_yet(
    fills: list[Fill], exits: tuple[str, ...], closed: tuple[str, ...], qty: str, left: int
) -> None:
    mine = replace(MINE, exits=frozenset(map(uid, exits)), closed=frozenset(map(uid, closed)))
    assert can_be_sold(view(qty, recent=tuple(fills)), mine) == left


@pytest.mark.parametrize(("seconds", "left"), [(-3, 6), (-2, 6), (2, 6), (3, 10)])
def test_what_its_own_exit_sold_since_it_was_measured_is_no_more_its(seconds: float, left: int) -> None:
    mine = replace(MINE, own=frozenset({uid("X")}), exits=frozenset({uid("X")}))
    assert can_be_sold(view("10", recent=(sold("X", 4, seconds),)), mine) == left


def test_no_order_for_an_option_or_against_what_is_not_there() -> None:
    option = "AAPL260116C00200000"
    assert barrier(replace(MINE, symbol=option), view()) == "options never get orders"
    assert barrier(MINE, view(row=position(qty=-10))) == GONE == barrier(MINE, SymbolView(None, ()))
    assert can_be_sold(SymbolView(None, ())) == 0


def test_never_blind_except_for_a_missing_stop() -> None:
    just_sold, less = view("10", recent=(sold("X", 4),)), view("9")
    assert barrier(MINE, just_sold) == "a closing fill at 15:59:00 UTC is younger than the grace"
    assert barrier(MINE, less) == "its fills say 10, the position 9"
    assert barrier(MINE, view("10")) is None
    assert barrier(MINE, just_sold, missing_stop=True) is None is barrier(MINE, less, missing_stop=True)


def test_a_coin_may_be_short_of_its_fee() -> None:
    coin = replace(MINE, crypto=True)
    assert (barrier(coin, view("9.95")), coin.dust, MINE.dust) == (None, Decimal("0.05"), 0)
    assert barrier(coin, view("9.94")) is not None


def test_an_opening_order_of_others_makes_a_wash_trade() -> None:
    [entry] = read_orders([order("E", status="new")])
    seen = view(opening=(entry,))
    assert wash_trade(seen, ()) == f"an opening order that is not its own would make it a wash trade: {entry.id}"
    assert wash_trade(seen, [entry.id]) is None


def test_an_exposure_takes_closing_orders_and_fills_of_its_own_symbol() -> None:
    assert MINE.takes(stop("a"))
    assert not MINE.takes(stop("a", symbol="MSFT"))
    assert not replace(MINE, side=Side.SHORT).takes(stop("a"))
    assert MINE.sold_by(sold("X", 1))
    assert not replace(MINE, side=Side.SHORT).sold_by(sold("X", 1))
    assert MINE.less(Decimal(3), Decimal(4)) == replace(MINE, qty=Decimal(7), all_open=Decimal(6))
    assert Exposure.behind(stop("a"), "t1", Side.LONG, NOW + timedelta(1)).qty == 0
