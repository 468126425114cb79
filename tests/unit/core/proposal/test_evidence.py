"""What the account says of a proposed mapping: whose orders, which way, of which zone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_orders, read_positions
from ghostclean.core.broker import Order, Positions
from ghostclean.core.ledger import Trade, read_mapping, read_trade
from ghostclean.core.proposal import Line, confirmed, mapping_text, measure, propose
from tests.builders import order, position, trade, uid
from tests.schemas import AAPL, ORM, PAPER_TRADES, TSLA, Schema


def known(*rows: dict[str, Any], absent: Iterable[str] = ()) -> dict[str, Order | None]:
    return {**{o.id: o for o in read_orders(list(rows))}, **dict.fromkeys(absent)}


def held(*rows: dict[str, Any]) -> Positions:
    return read_positions(list(rows), str)


def lines(schema: Schema, orders: dict[str, Order | None]) -> dict[str, Line]:
    proposal = propose(schema.records)
    mapping = read_mapping(mapping_text(proposal, ""))
    trades = [read_trade(mapping.read(record)) for record in schema.records]
    return {line.field: line for line in confirmed(proposal, trades, orders).lines}


def bought(name: str, at: str, **fields: Any) -> dict[str, Any]:
    return {**order(name, submitted_at=at, **fields), "id": name}


def test_an_order_id_is_sure_where_the_account_knows_it_and_doubted_where_it_knows_none() -> None:
    first = lines(PAPER_TRADES, known(bought(AAPL, "2026-11-17T15:00:00Z"), absent=[TSLA]))["alpacaOrderId"]
    assert (first.is_sure, first.why.endswith("the account knows 1 of 2")) == (True, True)
    second = lines(PAPER_TRADES, known(absent=[AAPL, TSLA]))["alpacaOrderId"]
    assert (second.is_sure, second.why.endswith("the account knows 0 of 2")) == (False, True)
    assert lines(PAPER_TRADES, {})["alpacaOrderId"] == propose(PAPER_TRADES.records).line("alpacaOrderId")


def test_a_client_order_id_is_that_of_the_known_orders() -> None:
    named = lines(ORM, known(bought(AAPL, "2026-11-17T15:00:00Z", client_order_id="bot-1")))["clientOrderId"]
    assert (named.is_sure, named.why.endswith("1 of 1 known orders are called so")) == (True, True)
    assert not lines(ORM, known(bought(AAPL, "2026-11-17T15:00:00Z")))["clientOrderId"].is_sure


@pytest.mark.parametrize(
    ("at", "zone"),
    [
        ("2026-11-17T15:00:07Z", "UTC"),
        ("2026-11-17T20:00:03Z", "America/New_York"),
        ("2026-11-17T09:30:01Z", "Asia/Kolkata"),
    ],
)
def test_the_zone_of_naive_times_is_that_of_the_orders_beside_them(at: str, zone: str) -> None:
    found = lines(PAPER_TRADES, known(bought(AAPL, at)))
    assert [(found[field].form, found[field].is_sure) for field in ("openedAt", "closedAt")] == [(zone, True)] * 2


def test_a_time_that_fits_no_zone_stays_a_doubt() -> None:
    found = lines(PAPER_TRADES, known(bought(AAPL, "2026-11-14T12:17:00Z")))["openedAt"]
    assert (found.form, found.is_sure) == ("UTC", False)


def test_daylight_saving_is_in_the_zone() -> None:
    summer = {**PAPER_TRADES.records[0], "opened_at": "2026-07-01 10:00:00"}
    winter = {**PAPER_TRADES.records[2], "opened_at": "2026-11-17 10:00:00"}
    orders = known(bought(AAPL, "2026-07-01T14:00:00Z"), bought(TSLA, "2026-11-17T15:00:00Z", side="sell"))
    schema = Schema("both", [summer, PAPER_TRADES.records[1], winter])
    assert lines(schema, orders)["openedAt"].form == "America/New_York"


def test_a_sale_that_opened_a_trade_makes_its_side_sure_and_one_that_did_not_a_doubt() -> None:
    schema = Schema("no stops", [{k: v for k, v in record.items() if k != "stop_loss"} for record in ORM.records])
    at = "2026-11-17T15:30:00Z"
    assert not lines(schema, {})["side"].is_sure
    assert lines(schema, known(bought(TSLA, at, side="sell")))["side"].is_sure
    crossed = lines(schema, known(bought(TSLA, at, side="buy")))["side"]
    assert (crossed.is_sure, "1 entry orders of 1 went the other way" in crossed.why) == (False, True)


def test_entry_orders_settle_which_of_two_columns_is_the_size_and_what_a_name_means() -> None:
    records = [
        {("action" if k == "direction" else "name" if k == "symbol" else k): v for k, v in {**r, "qty": 3}.items()}
        for r in PAPER_TRADES.records[:2]
    ]
    at = "2026-11-17T15:00:00Z"
    wrong = lines(Schema("longs", records), known(bought(AAPL, at)))
    assert [wrong[field].is_sure for field in ("ticker", "side", "quantity")] == [True, True, False]
    right = lines(Schema("longs", records), known(bought(AAPL, at, qty="3")))["quantity"]
    assert (right.name, right.is_sure, right.why.endswith("proven by 1 entry order")) == ("qty", True, True)


def read(*records: dict[str, Any]) -> list[Trade]:
    return [read_trade(record) for record in records]


def test_what_is_counted_and_what_is_covered() -> None:
    trades = read(
        trade("A"), trade("B", ticker="MSFT", quantity=5), trade("C", ticker="TSLA", side="SHORT"),
        trade("D", ticker="NVDA", status="PENDING"), trade("E", quantity="x", alpacaOrderId=...),
        trade("F", ticker="AMD", alpacaOrderId=...),
    )  # fmt: skip
    orders = known(order("E-A"), order("E-C", side="buy"), absent=[uid("E-B")])
    overlap = measure(trades, orders, held(position("AAPL", 10), position("MSFT", 4), position("TSLA", -10)))
    assert (overlap.open, overlap.pending, overlap.unreadable) == (4, 1, 1)
    assert (overlap.named, overlap.asked, overlap.known, overlap.covered) == (4, 3, 2, 2)
    assert overlap.crossed == ("C",)
    assert not overlap.is_strange


def test_trades_that_share_a_symbol_are_covered_by_what_they_hold_together() -> None:
    trades = read(trade("A"), trade("B"))
    assert measure(trades, {}, held(position("AAPL", 19))).covered == 0
    assert measure(trades, {}, held(position("AAPL", 20))).covered == 2


def test_a_ledger_of_which_the_account_knows_nothing_is_strange() -> None:
    assert measure(read(trade("A")), known(absent=[uid("E-A")]), held()).is_strange
    assert not measure(read(trade("A")), known(absent=[uid("E-A")]), held(position())).is_strange
    assert not measure(read(trade("A", alpacaOrderId=...)), {}, held()).is_strange
    assert not measure(read(trade("A", alpacaOrderId=...)), {}, held(position())).is_strange
    assert not measure([], {}, held()).is_strange
