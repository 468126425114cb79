"""Activities that explain an absence: cash mergers, transfers, options assigned in part."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.core.inputs import Memory
from ghostclean.core.verdicts import Action, Decision, Verdict, decide
from tests.builders import (
    DAY,
    NOW,
    Record,
    activity,
    after,
    ago,
    entry,
    missed,
    of,
    order,
    position,
    remembered,
    sale,
    trade,
    uid,
    world,
)

CALL, LATER = "AAPL261117C00200000", "AAPL261218C00200000"


def decided(
    records: list[Record], orders: list[Record], rows: list[Record], *positions: Record, **more: Any
) -> Decision:
    return of(decide(world(records, orders, positions, activities=rows, memory=missed(), **more)))


def merger(qty: str = "-10", cash: str = "1850", **fields: Any) -> list[Record]:
    """A cash merger as the API books it: the cash in one row, the shares in another, one group."""
    group: Record = {"activity_sub_type": "CMA", "group_id": "g", "price": "0", **fields}
    return [
        activity("MA", "AAPL", id="2026-11-18::1", qty="0", net_amount=cash, **group),
        activity("MA", "AAPL", id="2026-11-18::2", qty=qty, net_amount="0", **group),
    ]


# --------------------------------------------------------------------------- mergers


@pytest.mark.parametrize(
    "rows",
    [
        merger(),
        merger(activity_sub_type=...),
        [activity("MA", "AAPL", qty="-10", net_amount="1850")],
        [activity("MA", "AAPL", qty="-10", price="185", activity_sub_type="CMA")],
    ],
)
def test_a_merger_for_cash_ends_a_trade_at_what_a_share_brought(rows: list[Record]) -> None:
    rows = [{name: value for name, value in row.items() if value is not ...} for row in rows]
    decision = decided([trade(stopPrice=170)], [entry()], rows)
    assert (decision.verdict, decision.action) == (Verdict.EXITED, Action.CLOSED)
    fields = decision.fields
    assert (fields["closeReason"], fields["closePrice"], fields["realizedPnL"]) == ("cash_merger", 185, 50)
    assert fields["realizedR"] == Decimal("0.5")
    assert "closeOrderId" not in fields
    assert "activity MA of 2026-11-18" in [p.what for p in decision.proof]


def test_a_merger_for_cash_is_closed_at_the_close_of_its_day() -> None:
    rows = [activity("MA", "AAPL", at=DAY, qty="-10", net_amount="1850")]
    assert decided([trade(createdAt=ago(3 * DAY))], [entry(submitted_at=ago(3 * DAY))], rows).fields["closedAt"] == (
        "2026-11-17T21:00:00.000Z"
    )


def test_a_merger_for_cash_covers_a_short() -> None:
    decision = decided([trade(side="SHORT")], [entry(side="sell")], merger("10", "-1850"))
    assert (decision.fields["closePrice"], decision.fields["realizedPnL"]) == (185, -50)


def test_a_merger_that_names_no_cash_leaves_the_price_open() -> None:
    decision = decided([trade()], [entry()], merger(cash="0"))
    assert decision.verdict is Verdict.EXITED
    assert (decision.fields["closePrice"], decision.fields["realizedPnL"]) == (None, None)


@pytest.mark.parametrize(
    "rows",
    [
        merger(activity_sub_type="SMA"),
        merger(activity_sub_type="SCMA"),
        [activity("MA", "AAPL", qty="-10", price="180")],  # the price of a stock merger is the cost
        [
            activity("MA", "AAPL", qty="-10", net_amount="20"),
            activity("MA", "NEWCO", qty="5", net_amount="0"),
        ],
        [activity("NC", "AAPL", qty="-10", price="180")],
        [activity("SPIN", "AAPL", qty="-10")],
        [activity("MA", "AAPL", net_amount="1850", activity_sub_type="CMA")],
        [activity("ACATS", "AAPL")],
        [activity("ACATS", "AAPL", qty="-4")],
    ],
)
def test_what_may_have_taken_it_but_does_not_say_so_is_held(rows: list[Record]) -> None:
    assert decided([trade()], [entry()], rows).verdict is Verdict.MISMATCH


def test_a_worthless_removal_ends_a_trade_at_nothing() -> None:
    rows = [activity("REORG", "AAPL", qty="-10", activity_sub_type="WRM")]
    fields = decided([trade()], [entry()], rows).fields
    assert (fields["closeReason"], fields["closePrice"], fields["realizedPnL"]) == ("worthless_removal", 0, -1800)


# --------------------------------------------------------------------------- transfers


@pytest.mark.parametrize("kind", ["ACATS", "JNLS", "FOPT", "JNL"])
@pytest.mark.parametrize(("price", "written"), [("0", None), ("190", 190)])
def test_a_transfer_out_ends_a_trade_and_realizes_nothing(kind: str, price: str, written: Any) -> None:
    decision = decided([trade()], [entry()], [activity(kind, "AAPL", qty="-10", price=price)])
    assert (decision.verdict, decision.fields["closeReason"]) == (Verdict.EXITED, "transferred_out")
    assert (decision.fields["closePrice"], decision.fields["realizedPnL"]) == (written, None)


def test_a_transfer_needs_no_order_in_the_ledger() -> None:
    rows = [activity("JNLS", "AAPL", qty="-10")]
    assert decided([trade(alpacaOrderId=...)], [], rows).verdict is Verdict.EXITED


def test_a_transfer_in_explains_no_absence() -> None:
    for rows in (
        [activity("JNLS", "AAPL", qty="10")],
        [activity("JNLS", "AAPL", qty="-10"), activity("ACATS", "AAPL", qty="10")],
    ):
        assert decided([trade()], [entry()], rows).verdict is Verdict.MISMATCH


def test_an_activity_from_before_the_entry_or_of_another_symbol_ends_nothing() -> None:
    for row in (activity("JNLS", "AAPL", at=3 * DAY, qty="-10"), activity("JNLS", "MSFT", qty="-10")):
        assert decided([trade()], [entry()], [row]).verdict is Verdict.VANISHED


def test_a_transfer_of_a_part_reduces_once() -> None:
    records, orders, rows = [trade()], [entry()], [activity("ACATS", "AAPL", at=DAY, qty="-4")]
    plan = decide(world(records, orders, [position(qty=6)], activities=rows))
    decision = of(plan)
    assert (decision.verdict, decision.fields["quantity"], decision.fields["initialQuantity"]) == (
        Verdict.REDUCED,
        6,
        10,
    )
    assert decision.fields["realizedPnL"] is None
    assert "activity ACATS of 2026-11-17" in decision.reason
    reduced, memory = after(records, plan), remembered(plan, Memory())
    again = decide(world(reduced, orders, [position(qty=6)], activities=rows, memory=memory))
    assert (of(again).verdict, again.writing) == (Verdict.LIVE, ())
    assert not of(decide(world(reduced, orders, [position(qty=6)], memory=memory, complete=False))).questions
    sold = [*orders, sale("X", qty=6, at=600)]
    ended = of(decide(world(reduced, sold, activities=rows, memory=memory)))
    assert (ended.verdict, ended.fields["closeOrderId"]) == (Verdict.EXITED, uid("X"))
    assert ended.fields.get("realizedPnL") is None, "what the transferred part made is not known"


def test_a_part_sold_and_a_part_transferred_end_a_trade_together() -> None:
    orders = [entry(), sale("X", qty=6, at=7200)]
    rows = [activity("ACATS", "AAPL", qty="-4")]
    booked = trade(quantity=4, initialQuantity=10, realizedPnL=-12)
    decision = decided([booked], orders, rows)
    assert decision.verdict is Verdict.EXITED
    assert "realizedPnL" not in decision.fields, "what was booked of the part that was sold stays"
    assert decision.reason.endswith("; the P&L booked of a part stays")
    assert "booked" not in decided([trade()], [entry(), sale("X")], []).reason, "the whole is known"


def test_a_transfer_of_everything_ends_all_trades_and_of_a_part_none() -> None:
    records, orders = [trade(), trade("B", quantity=5)], [entry(), entry("B", qty="5")]
    whole = decide(world(records, orders, activities=[activity("JNLS", "AAPL", qty="-15")]))
    assert [d.verdict for d in whole.decisions] == [Verdict.EXITED, Verdict.EXITED]
    part = decide(world(records, orders, [position(qty=10)], activities=[activity("JNLS", "AAPL", qty="-5")]))
    assert [d.verdict for d in part.decisions] == [Verdict.AMBIGUOUS, Verdict.AMBIGUOUS]


def test_a_row_that_ended_one_trade_ends_no_other() -> None:
    rows = [activity("JNLS", "AAPL", qty="-10")]
    plan = decide(world([trade()], [entry()], activities=rows))
    closed, memory = after([trade()], plan), remembered(plan, Memory())
    newer = trade("B", createdAt=ago(7200))
    orders = [entry(), entry("B", submitted_at=ago(7200))]
    later = decide(world([*closed, newer], orders, activities=rows, memory=memory))
    assert of(later, "B").verdict is Verdict.FILLED_BUT_GONE


def test_activities_are_asked_for_only_where_orders_and_fills_explain_nothing() -> None:
    w = world([trade()], [entry(), sale("X")])
    w.evidence.activities_since = None
    assert decide(w).questions == ()
    w = world([trade()], [entry()])
    w.evidence.activities_since, w.evidence.unanswered["activities"] = None, "HTTP 500"
    assert of(decide(w)).verdict is Verdict.UNKNOWN


# --------------------------------------------------------------------------- options


def written_calls(symbol: str = LATER) -> tuple[list[Record], list[Record]]:
    """Five calls written at 3.5."""
    sold = entry(
        symbol=symbol, asset_class="us_option", side="sell", qty="5", filled_avg_price="3.5", submitted_at=ago(5 * DAY)
    )
    return [trade(ticker=symbol, side="SHORT", quantity=5, createdAt=ago(5 * DAY))], [sold]


def test_an_option_assigned_in_part_is_reduced_without_a_price() -> None:
    records, orders = written_calls()
    held = position(LATER, -3, asset_class="us_option")
    decision = decided(records, orders, [activity("OPASN", LATER, qty="2")], held)
    assert (decision.verdict, decision.fields["quantity"]) == (Verdict.REDUCED, 3)
    assert decision.fields["realizedPnL"] is None
    bought = order("X", symbol=LATER, side="buy", qty="1", filled_avg_price="1", submitted_at=ago(2 * DAY))
    records[0] |= {"quantity": 4, "initialQuantity": 5, "realizedPnL": 250}
    decision = decided(records, [*orders, bought], [activity("OPASN", LATER, qty="2")], position(LATER, -2))
    assert decision.fields["quantity"] == 2
    assert "realizedPnL" not in decision.fields, "what was booked stays"


def test_an_option_past_its_date_and_assigned_in_part_waits_and_never_counts_as_expired() -> None:
    records, orders = written_calls(CALL)
    rows = [activity("OPASN", CALL, at=DAY, qty="2")]
    early = decided(records, orders, rows)
    assert (early.verdict, early.action) == (Verdict.SETTLING, Action.HELD)
    late = decided(records, orders, rows, now=NOW + timedelta(days=2))
    assert (late.verdict, late.fields["closeReason"]) == (Verdict.EXITED, "option_assigned")
    assert late.fields["closePrice"] is None
    rest = activity("OPEXP", CALL, at=DAY, qty="3")
    both = decided(records, orders, [*rows, rest])
    assert (both.fields["closeReason"], both.fields["realizedPnL"]) == ("option_assigned", None)


def test_options_assigned_for_several_trades_are_booked_once() -> None:
    records, orders = written_calls()
    records.append(trade("B", ticker=LATER, side="SHORT", quantity=5, createdAt=ago(4 * DAY)))
    orders.append({**orders[0], "id": uid("E-B"), "client_order_id": "client-B", "submitted_at": ago(4 * DAY)})
    whole = decide(world(records, orders, activities=[activity("OPASN", LATER, qty="10")]))
    assert [d.verdict for d in whole.decisions] == [Verdict.EXITED, Verdict.EXITED]
    less = decide(world(records, orders, activities=[activity("OPASN", LATER, qty="7")]))
    assert {d.action for d in less.decisions} == {Action.HELD}
