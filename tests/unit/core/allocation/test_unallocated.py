"""The purchase that a trade without an order id came from, found by size and time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ghostclean.core.verdicts import Verdict, decide
from tests.builders import DAY, Record, ago, order, sale, trade, uid, world

NAMELESS = trade("N", alpacaOrderId=..., entryPrice=None)
ORDERS = [order("F", filled_avg_price="181"), sale("X", price=190)]


def pnl(others: Iterable[Record], orders: Iterable[Record] = (), **fields: Any) -> float | None:
    plan = decide(world([NAMELESS | fields, *others], [*ORDERS, *orders]))
    [decision] = [d for d in plan.decisions if d.trade_id == "N"]
    assert decision.verdict is Verdict.EXITED
    found = decision.fields["realizedPnL"]
    return None if found is None else float(found)


@pytest.mark.parametrize(("seconds", "found"), [(0, 90), (600, 90), (-600, 90), (601, None), (-601, None)])
def test_the_one_purchase_of_its_size_within_ten_minutes_of_its_opening_is_its(seconds: int, found: Any) -> None:
    assert pnl([], createdAt=ago(DAY + seconds)) == found


def test_two_purchases_of_its_size_prove_nothing() -> None:
    second = order("F2", filled_avg_price="185", submitted_at=ago(DAY - 60))
    assert pnl([], [second, sale("X2", price=191)]) is None


@pytest.mark.parametrize(("minutes", "found"), [(0, None), (20, None), (21, 90)])
def test_another_of_its_side_that_opened_beside_it_may_be_the_one(minutes: int, found: Any) -> None:
    rival = trade("R", alpacaOrderId=..., createdAt=ago(DAY + minutes * 60), closeOrderId=uid("XR"))
    assert pnl([rival], [sale("XR", price=200)]) == found


def test_one_of_the_other_side_is_no_rival() -> None:
    assert pnl([trade("S", alpacaOrderId=..., side="SHORT")]) == 90
