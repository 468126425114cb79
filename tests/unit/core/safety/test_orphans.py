"""Positions that no trade explains: reported, adopted, flattened; closes that proved wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ghostclean.app.observation import Observation
from ghostclean.app.orphan_sales import OrphanSeller
from ghostclean.app.ports import LedgerView
from ghostclean.core.inputs import Memory
from ghostclean.core.safety import adopted_id, counting
from ghostclean.core.verdicts import Action, Verdict, decide
from tests.builders import (
    DAY,
    GRACE,
    NOW,
    after,
    ago,
    closed_unproven,
    entry,
    is_final,
    of,
    order,
    orphan,
    orphans,
    position,
    sale,
    trade,
    uid,
    world,
    written,
)

TSLA = position("TSLA", 15)


def test_a_position_that_nobody_explains_is_reported() -> None:
    decision = orphan(world([], [], [TSLA]), mode="report")
    assert (decision.trade_id, decision.verdict, decision.action) == (None, Verdict.ORPHAN, Action.KEPT)
    assert "15 long" in decision.reason


def test_adopted_with_an_id_that_is_the_same_on_every_run() -> None:
    w = world([], [], [TSLA])
    first = orphan(w, first_seen={"orphan:TSLA:LONG": ago(DAY)})
    again = orphan(w, first_seen={"orphan:TSLA:LONG": ago(DAY)}, now=NOW + timedelta(days=3))
    other = orphan(w, account="account-2", first_seen={"orphan:TSLA:LONG": ago(DAY)})
    assert first.action is Action.ADOPTED
    assert first.trade_id == again.trade_id != other.trade_id
    assert first.fields["quantity"] == 15
    assert first.fields["source"] == "broker_backfill"
    assert first.fields["entryPrice"] == 180


def test_adopted_from_its_opening_order_with_its_price() -> None:
    built = order("O", symbol="TSLA", qty="15", filled_avg_price="201.5")
    w = world([], [built], [TSLA])
    decision = orphan(w)
    assert decision.fields["alpacaOrderId"] == uid("O")
    assert float(decision.fields["avgFillPrice"]) == 201.5
    assert decision.fields["openedAt"] == ago(DAY)
    [left] = decide(w).orphans
    assert decision.trade_id == adopted_id(left, "account-1", w.evidence, ago())


def test_adopt_twice_is_one_trade() -> None:
    built = order("O", symbol="TSLA", qty="15")
    decision = orphan(world([], [built], [TSLA]))
    adopted = written({}, decision)
    plan = decide(world([adopted], [built], [TSLA]))
    assert of(plan, decision.trade_id or "").verdict is Verdict.LIVE
    assert not plan.orphans
    closed = adopted | {"status": "CLOSED", "closePrice": 1}
    assert orphan(world([closed], [built], [TSLA]), [closed]).action is Action.KEPT


@pytest.mark.parametrize(
    ("records", "orders"),
    [
        ([trade(status="ERROR", quantity=15, ticker="TSLA")], []),
        ([trade(status="ERROR", ticker="TSLA", quantity=4)], []),
        ([trade(status="ERROR", ticker="TSLA", quantity=None)], []),
        ([trade(quantity=5, ticker="TSLA")], [entry(symbol="TSLA", asset_id="asset-TSLA", qty="5")]),
        ([trade(ticker="TSLA", quantity="x")], []),
        ([trade(status="PENDING", ticker="TSLA", quantity=15)], []),
    ],
)
def test_never_adopted_beside_a_record_that_may_explain_it(records: list[Any], orders: list[Any]) -> None:
    assert all(d.action is Action.KEPT for d in orphans(world(records, orders, [TSLA])))


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_nothing_is_done_while_anything_is_open(mode: str) -> None:
    assert orphan(world([], [], [TSLA]), mode=mode).action is not Action.KEPT
    assert orphan(world([], [], [TSLA]), mode=mode, blocked="a look-up is open").action is Action.KEPT
    assert orphan(world([], [], [position("AAPL261218C00200000", 1)]), mode=mode).action is Action.KEPT
    for age, acted in ((GRACE - 1, False), (GRACE, True)):
        w = world([], [order("O", symbol="TSLA", qty="15", submitted_at=ago(age))], [TSLA])
        assert (orphan(w, mode=mode).action is not Action.KEPT) is acted


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
@pytest.mark.parametrize("age", [DAY, GRACE - 1])
def test_what_a_held_trade_may_be_under_a_new_name_is_only_reported(mode: str, age: float) -> None:
    metas = [position("META"), position("MSFT")]  # both of its size: it may be either
    rows = orphans(world([trade(createdAt=ago(age))], [entry(submitted_at=ago(age))], metas), mode=mode)
    assert [d.action for d in rows] == [Action.KEPT, Action.KEPT]
    assert all("trade T1 of the ledger may be it" in d.reason for d in rows)
    assert orphan(world([trade()], [entry()], [position("META", 15, avg_entry_price="7")]), mode=mode).action.writes


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_what_stands_beside_an_entry_that_never_filled_is_only_reported(mode: str) -> None:
    w = world([trade()], [entry(status="canceled")], [position()])
    assert of(decide(w)).verdict is Verdict.MISMATCH
    assert orphan(w, mode=mode).action is Action.KEPT


def test_a_trade_that_waits_for_another_run_may_be_the_orphan_as_well() -> None:
    records = [trade(), trade("B", ticker="IBM")]
    w = world(records, [entry(), entry("B", symbol="IBM", asset_id="asset-IBM")], [position("META")], max_trades=1)
    assert len(decide(w).decisions) == 1
    assert orphan(w, mode="flatten").action is Action.KEPT


def test_a_trade_whose_order_is_not_looked_up_yet_may_be_the_orphan() -> None:
    """So it is when the app adds it between the reading and the sale."""
    [orphan] = decide(world([trade()], [], [position("META")])).orphans
    assert orphan.awaited_by == "T1"


def test_the_ledger_is_read_again_before_an_orphan_is_sold() -> None:
    w = world([], [], [position("META")])
    plan = decide(w)
    lookups: Any = SimpleNamespace(evidence=w.evidence, closed={})
    survey = Observation(LedgerView((), 0), Memory(), w.truth, lookups, plan, w.policy)
    deadline: Any = SimpleNamespace(writing=lambda read: read())
    for added, may_be_sold in (((), True), ((trade(),), False)):
        parts: Any = SimpleNamespace(ledger=SimpleNamespace(read=lambda added=added: LedgerView(added, len(added))))
        unused: Any = None
        seller = OrphanSeller(parts, deadline, w.policy.grace, survey, unused, unused, {})
        assert seller._still_unexplained(plan.orphans[0]) is may_be_sold


def test_a_trade_that_is_sold_waits_for_no_orphan() -> None:
    w = world([trade()], [entry(), sale("X")], [position("META")])
    assert orphan(w, mode="flatten").action is Action.FLATTENED


def test_flatten_is_for_the_orphan_alone() -> None:
    decision = orphan(world([], [], [TSLA]), mode="flatten")
    assert (decision.trade_id, decision.action) == (None, Action.FLATTENED)


def test_crypto_dust_is_no_orphan() -> None:
    dust = position("BTCUSD", "0.000001", asset_class="crypto", market_value="0.09")
    assert not decide(world([], [], [dust])).orphans


# --------------------------------------------------------------------------- reopened


def vanish(record: dict[str, Any]) -> tuple[dict[str, Any], Memory]:
    """The record as our unproven close left it, and what the run remembered."""
    plan = decide(world([record]))
    changes = counting.unproven(plan.writing, Memory(), "run-1", NOW)
    return after([record], plan)[0], Memory(unproven=changes)


def test_an_unproven_close_of_ours_is_taken_back_when_its_shares_are() -> None:
    record = trade(alpacaOrderId=...)
    closed, memory = vanish(record)
    for mode in ("report", "adopt", "flatten"):
        decision = orphan(world([closed], [], [position()], memory=memory), [closed], mode=mode)
        assert (decision.verdict, decision.action, decision.trade_id) == (Verdict.REOPENED, Action.REOPENED, "T1")
        assert written(closed, decision) == record


def test_it_stays_closed_when_somebody_touched_it_or_the_quantity_differs() -> None:
    closed, memory = vanish(trade(alpacaOrderId=...))
    touched = closed | {"closeReason": "manual"}
    assert orphan(world([touched], [], [position()], memory=memory), [touched], mode="report").action is Action.KEPT
    for qty in (9, 11, -10):
        w = world([closed], [], [position(qty=qty)], memory=memory)
        assert orphan(w, [closed], mode="report").action is Action.KEPT


def test_crypto_comes_back_less_its_fee() -> None:
    closed, memory = vanish(trade(ticker="BTC/USD", alpacaOrderId=..., quantity="0.5"))
    back = position("BTCUSD", "0.4987", asset_class="crypto", market_value="40000")
    assert orphan(world([closed], [], [back], memory=memory), [closed], mode="report").action is Action.REOPENED


def test_of_two_that_match_none_is_guessed_and_both_come_back_together() -> None:
    pairs = [vanish(trade(i, alpacaOrderId=...)) for i in ("A", "B")]
    records = [closed for closed, _ in pairs]
    unproven: dict[str, Mapping[str, Any]] = {}
    for _, memory in pairs:
        unproven |= memory.unproven
    half = world(records, [], [position()], memory=Memory(unproven=unproven))
    assert [d.action for d in orphans(half, records, mode="report")] == [Action.KEPT]
    whole = world(records, [], [position(qty=20)], memory=Memory(unproven=unproven))
    assert [d.trade_id for d in orphans(whole, records, mode="report")] == ["A", "B"]


def test_a_reduced_trade_is_back_with_what_it_had_left() -> None:
    closed, memory = vanish(trade(alpacaOrderId=..., quantity=6, initialQuantity=10, filledQty=10))
    assert (
        orphan(world([closed], [], [position(qty=6)], memory=memory), [closed], mode="report").action is Action.REOPENED
    )


@pytest.mark.parametrize(
    ("price", "action"), [("181.5", Action.REOPENED), ("190", Action.KEPT), (None, Action.REOPENED)]
)
def test_what_was_bought_at_another_price_is_not_what_was_closed(price: Any, action: Action) -> None:
    closed, memory = vanish(trade(alpacaOrderId=...))
    w = world([closed], [], [position(avg_entry_price=price)], memory=memory)
    assert orphan(w, [closed], mode="report").action is action


@pytest.mark.parametrize(("at", "action"), [(60.0, Action.REOPENED), (-60.0, Action.KEPT)])
def test_what_was_bought_after_the_close_is_not_what_was_closed(at: float, action: Action) -> None:
    closed, memory = vanish(trade(alpacaOrderId=...))
    w = world([closed], [order("HAND", submitted_at=ago(at))], [position()], memory=memory)
    assert orphan(w, [closed], mode="report").action is action
    sold = [order("HAND", submitted_at=ago(at)), sale("X", at=at - 1)]  # by hand, in and out: the old ones are back
    assert orphan(world([closed], sold, [position()], memory=memory), [closed], mode="report").action is Action.REOPENED


def test_trades_of_several_prices_come_back_at_their_average() -> None:
    pairs = [vanish(trade(i, alpacaOrderId=..., entryPrice=price)) for i, price in (("A", 180), ("B", 200))]
    unproven = {k: v for _, memory in pairs for k, v in memory.unproven.items()}
    records = [closed for closed, _ in pairs]
    w = world(records, [], [position(qty=20, avg_entry_price="190")], memory=Memory(unproven=unproven))
    assert [d.trade_id for d in orphans(w, records, mode="report")] == ["A", "B"]


def test_a_later_purchase_is_no_strangers_close_come_back() -> None:
    record = closed_unproven(alpacaOrderId=...)
    bought = [order("HAND", submitted_at=ago(3600))]
    assert orphan(world([record], bought, [position()]), [record]).action is Action.ADOPTED
    dear = position(avg_entry_price="200")
    assert orphan(world([record], [], [dear]), [record]).action is Action.ADOPTED


def stranger(**fields: Any) -> dict[str, Any]:
    return trade(**{"status": "CLOSED", "closePrice": None, "closeReason": "stale", "closedAt": ago(DAY)} | fields)


def test_a_strangers_close_without_a_price_is_reopened_by_adopt_only() -> None:
    record = closed_unproven()
    w = world([record], [entry()], [position()])
    assert orphan(w, [record], mode="report").action is Action.KEPT
    decision = orphan(w, [record])
    assert (decision.action, decision.trade_id) == (Action.REOPENED, "T1")
    reopened = written(record, decision)
    assert reopened["status"] == "OPEN"
    assert not {"closedAt", "closeReason", "closePrice"} & reopened.keys()
    assert of(decide(world([reopened], [entry()], [position()]))).verdict is Verdict.LIVE


@pytest.mark.parametrize(
    "record",
    [
        stranger() | {"closePrice": 190},
        {k: v for k, v in stranger().items() if k not in ("closePrice", "alpacaOrderId")},
        stranger() | {"closeReason": "never_filled:canceled"},
        stranger() | {"closeReason": "duplicate_of:T0"},
        stranger() | {"side": "SHORT"},
        stranger() | {"quantity": 11},
        stranger() | {"status": "DELETED"},
        stranger() | {"status": "ARCHIVED"},
        {k: v for k, v in stranger(status="CANCELED").items() if k != "alpacaOrderId"},
        stranger() | {"alpacaOrderId": uid("another order")},
    ],
)
def test_what_ended_properly_is_not_reopened(record: dict[str, Any]) -> None:
    assert is_final(record)
    assert orphan(world([record], [entry()], [position()]), [record]).action is Action.ADOPTED


def test_a_close_that_never_had_a_price_is_reopened_by_its_entry_order() -> None:
    record = {k: v for k, v in closed_unproven().items() if k != "closePrice"}
    assert orphan(world([record], [entry()], [position()]), [record]).action is Action.REOPENED


@pytest.mark.parametrize("status", ["CANCELED", "EXPIRED", "REJECTED", "CLOSED_MANUAL"])
def test_a_record_that_an_app_gave_up_is_reopened_where_its_entry_filled_after_all(status: str) -> None:
    record = {k: v for k, v in stranger().items() if k != "closePrice"} | {"status": status}
    assert orphan(world([record], [entry()], [position()]), [record]).action is Action.REOPENED


def test_a_closed_trade_that_is_explained_by_its_sale_is_no_business_of_ours() -> None:
    record = trade(status="CLOSED", closePrice=190, closeOrderId=uid("X"))
    assert not decide(world([record], [entry(), sale("X")])).decisions


def test_activity_later_than_the_reading_is_activity() -> None:
    """Its exit filled after the positions were read, and before its orders were: nothing of it is an orphan."""
    records = [trade(stopOrderId=uid("S"))]
    [decision] = orphans(world(records, [entry(), sale("S", at=-5.0)], [position()]), records)
    assert decision.action is Action.KEPT
    assert "activity just now" in decision.reason


def test_a_position_that_only_a_trades_own_entry_can_have_opened_is_not_adopted() -> None:
    records = [trade(stopOrderId=uid("S"))]
    [decision] = orphans(world(records, [entry(), sale("S", at=7200.0)], [position()]), records)
    assert decision.action is Action.KEPT
    assert "names the order that opened it" in decision.reason


def test_a_later_purchase_beside_a_trade_that_is_out_is_adopted_without_its_order() -> None:
    records = [trade(stopOrderId=uid("S"))]
    orders = [order("HAND", submitted_at=ago(2 * DAY)), entry(), sale("S", at=7200.0)]
    [decision] = orphans(world(records, orders, [position()]), records)
    assert decision.action is Action.ADOPTED
    assert "alpacaOrderId" not in decision.fields
