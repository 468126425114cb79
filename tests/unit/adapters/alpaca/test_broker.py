"""AlpacaBroker against the stateful fake: complete lists or an error, and never the wrong order."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.adapters.alpaca import AlpacaBroker
from ghostclean.app.ports import OrderRequest, Price
from ghostclean.core.broker import Session, Side
from ghostclean.errors import AnswerLost, BrokerError, Refused
from tests.fakebroker import FakeBroker, Request
from tests.timing import SLACK

NOON = datetime(2026, 11, 18, 17, 0, tzinfo=UTC)
NOWHERE = "00000000-0000-4000-8000-00000000dead"


def broker_at(url: str, time_left: Callable[[], float] = lambda: 20.0) -> AlpacaBroker:
    return AlpacaBroker.connect(
        trading_url=url,
        data_url=url,
        api_key="PKSENTINEL",
        secret_key="sentinelsecret",
        live=False,
        time_left=time_left,
        sleep=lambda _: None,
    )


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker(NOON) as broker:
        yield broker


@pytest.fixture
def broker(fake: FakeBroker) -> AlpacaBroker:
    return broker_at(fake.url)


def working(fake: FakeBroker, count: int, tied: int = 1) -> set[str]:
    """So many working orders, always `tied` of them submitted in the same instant."""
    start = NOON - timedelta(days=2)
    rows = [
        fake.add_order("AAPL", start + timedelta(seconds=i // tied), type="limit", limit_price=50, qty=1)
        for i in range(count)
    ]
    return {row["id"] for row in rows}


# --------------------------------------------------------------------------- broker truth


def test_account_and_positions(fake: FakeBroker, broker: AlpacaBroker) -> None:
    fake.add_position("AAPL", 10, 100)
    fake.add_position("TSLA", -3, 200)
    fake.add_position("BTC/USD", Decimal("0.123456789"), 50000)
    assert broker.account().id
    assert {(p.key, p.side, p.qty) for p in broker.positions().rows} == {
        ("AAPL", Side.LONG, Decimal(10)),
        ("TSLA", Side.SHORT, Decimal(3)),
        ("BTCUSD", Side.LONG, Decimal("0.123456789")),
    }
    assert broker.live is False
    assert abs(broker.now() - NOON) < timedelta(seconds=1.5)


def test_the_working_legs_of_a_filled_bracket_are_in_the_list(fake: FakeBroker, broker: AlpacaBroker) -> None:
    entry = fake.open_trade("AAPL", 10, 100, bracket=(120, 90))
    fake.quirks.hide_legs = False
    assert {o.id for o in broker.working_orders()} == {leg["id"] for leg in fake.legs(entry)}
    assert fake.requests[-1].query["nested"] == "false"


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 499, 500, 501, 620, 1000])
def test_every_page_of_the_working_orders_is_read(fake: FakeBroker, broker: AlpacaBroker, count: int) -> None:
    expected = working(fake, count)
    orders = broker.working_orders()
    assert {order.id for order in orders} == expected
    assert len(orders) == count


@pytest.mark.parametrize("tied", [2, 3, 7, 499, 620])
def test_equal_times_at_the_seam_lose_no_row(fake: FakeBroker, broker: AlpacaBroker, tied: int) -> None:
    expected = working(fake, 620, tied)
    assert {order.id for order in broker.working_orders()} == expected


@pytest.mark.parametrize("tied", [2, 3, 7])
def test_a_cursor_meant_by_time_loses_no_row_either(fake: FakeBroker, broker: AlpacaBroker, tied: int) -> None:
    expected = working(fake, 620, tied)

    def by_time(request: Request) -> None:
        cursor = request.query.pop("before_order_id", None)
        if cursor:
            request.query["until"] = fake.orders[cursor]["submitted_at"]

    fake.before_request(by_time)
    assert {order.id for order in broker.working_orders()} == expected


def test_a_server_that_ignores_the_limit_is_read_to_its_end(fake: FakeBroker, broker: AlpacaBroker) -> None:
    expected = working(fake, 120)
    fake.before_request(lambda request: request.query.pop("limit", None))
    assert {order.id for order in broker.working_orders()} == expected


@pytest.mark.parametrize("kind", [500, 502, 429, "reset", "cut", "short", "html", "wrong_type", "redirect", "[]", "{}"])
def test_a_second_page_that_fails_fails_the_list(fake: FakeBroker, broker: AlpacaBroker, kind: Any) -> None:
    working(fake, 620)
    fake.fault(lambda request: "before_order_id" in request.query, kind)
    with pytest.raises(BrokerError):
        broker.working_orders()


@pytest.mark.parametrize("tied", [1, 3, 620])
def test_a_page_that_comes_twice_fails_the_list(fake: FakeBroker, broker: AlpacaBroker, tied: int) -> None:
    working(fake, 620, tied)
    fake.fault("orders:2", "duplicate_page")
    with pytest.raises(BrokerError, match="may be cut"):
        broker.working_orders()


def test_a_page_that_skips_rows_fails_the_list(fake: FakeBroker, broker: AlpacaBroker) -> None:
    working(fake, 620)

    def skip(request: Request) -> None:
        if "before_order_id" in request.query:
            request.query["before_order_id"] = sorted(fake.orders.values(), key=lambda o: o["submitted_at"])[60]["id"]

    fake.before_request(skip)
    with pytest.raises(BrokerError, match="rows may be missing"):
        broker.working_orders()


def test_a_page_of_rows_already_seen_fails_the_list(fake: FakeBroker, broker: AlpacaBroker) -> None:
    working(fake, 620, 620)
    rows = [fake.orders[name] for name in sorted(fake.orders, key=fake.market.sequence.__getitem__, reverse=True)]
    fake.fault(lambda request: "before_order_id" in request.query, 200, body=[*rows[:49], rows[499]])
    with pytest.raises(BrokerError, match="repeats itself"):
        broker.working_orders()


def test_a_row_from_the_midst_of_an_earlier_page_is_no_continuation(fake: FakeBroker, broker: AlpacaBroker) -> None:
    working(fake, 620)
    rows = sorted(fake.orders.values(), key=lambda o: o["submitted_at"], reverse=True)
    fake.fault("orders:2", "empty", value=[rows[499], rows[3]])
    with pytest.raises(BrokerError, match="repeats itself"):
        broker.working_orders()


def listing(fake: FakeBroker, rows: list[dict[str, Any]], continues: Callable[[dict[str, Any]], list[Any]]) -> None:
    """Answers the list of orders from these rows; `continues` gives the page for a cursor's row."""
    by_id = {row["id"]: row for row in rows}

    def answer(request: Request) -> None:
        cursor = request.query.get("before_order_id")
        page = rows if cursor is None else continues(by_id[cursor])
        fake.fault("orders", "empty", value=page[: int(request.query["limit"])])

    fake.before_request(answer)


@pytest.mark.parametrize("count", [50, 500, 620, 1000])
@pytest.mark.parametrize("tied", [1, 3])
def test_a_cursor_that_includes_its_own_row_is_a_cursor(
    fake: FakeBroker, broker: AlpacaBroker, count: int, tied: int
) -> None:
    expected = working(fake, count, tied)
    rows = sorted(fake.orders.values(), key=lambda o: o["submitted_at"], reverse=True)
    listing(fake, rows, lambda cursor: [row for row in rows if row["submitted_at"] <= cursor["submitted_at"]])
    assert {order.id for order in broker.working_orders()} == expected


@pytest.mark.parametrize("count", [50, 500, 620, 1000])
def test_a_list_that_is_not_sorted_goes_on_by_place(fake: FakeBroker, broker: AlpacaBroker, count: int) -> None:
    expected = working(fake, count)
    rows = sorted(fake.orders.values(), key=lambda o: o["submitted_at"])
    listing(fake, rows, lambda cursor: rows[rows.index(cursor) + 1 :])
    assert {order.id for order in broker.working_orders()} == expected


@pytest.mark.parametrize(("count", "tied"), [(50, 1), (50, 3), (500, 1), (500, 620), (620, 1), (620, 3), (620, 620)])
def test_a_cursor_that_is_ignored_fails_the_list(fake: FakeBroker, broker: AlpacaBroker, count: int, tied: int) -> None:
    working(fake, count, tied)
    rows = sorted(fake.orders.values(), key=lambda o: o["submitted_at"], reverse=True)
    newest = {**rows[0], "id": NOWHERE, "submitted_at": "2026-11-18T16:59:59Z"}
    for page in (rows, [newest, *rows]):
        listing(fake, rows, lambda _, page=page: page)  # type: ignore[misc]
        with pytest.raises(BrokerError, match=r"may be (cut|missing)"):
            broker.working_orders()


def test_the_letter_case_of_an_id_means_nothing(fake: FakeBroker, broker: AlpacaBroker) -> None:
    name = "A1B2C3D4-0000-4000-8000-00000000BEEF"
    row = {"id": name, "status": "new", "replaces": name, "parent_order_id": name, "legs": None}
    fake.fault("orders", "empty", value=[row])
    (order,) = broker.working_orders()
    assert (order.id, order.replaces, order.parent) == (name.lower(),) * 3
    fill = {"id": "1::A", "order_id": name, "symbol": "AAPL", "side": "buy", "qty": "1", "price": "1"}
    fake.fault("fills", "empty", value=[{**fill, "created_at": "2026-11-18T17:00:00Z"}])
    (found,) = broker.fills(NOON - timedelta(days=1))
    assert (found.order_id, found.at) == (name.lower(), NOON)


def test_a_calendar_with_whole_times_is_read(fake: FakeBroker, broker: AlpacaBroker) -> None:
    day = "2026-11-18"
    row = {"date": day, "open": f"{day}T09:30:00-05:00", "close": f"{day}T16:00:00-05:00"}
    fake.fault("calendar", "empty", value=[row])
    (session,) = broker.calendar(NOON.date(), NOON.date())
    assert (session.open.hour, session.close.hour) == (14, 21)


def test_an_order_that_ends_at_the_seam_is_read_again(fake: FakeBroker, broker: AlpacaBroker) -> None:
    working(fake, 620)
    last = sorted(fake.orders.values(), key=lambda o: o["submitted_at"])[120]
    fake.after_request("orders:1", lambda _: fake.set_status(last, "canceled"))
    assert len(broker.working_orders()) == 619
    assert fake.count("orders") == 4


def test_the_newest_page_wins_for_an_order_seen_twice(fake: FakeBroker, broker: AlpacaBroker) -> None:
    working(fake, 620)
    last = sorted(fake.orders.values(), key=lambda o: o["submitted_at"])[120]
    fake.after_request("orders:1", lambda _: fake.set_status(last, "pending_cancel"))
    (found,) = [order for order in broker.working_orders() if order.id == last["id"]]
    assert found.status == "pending_cancel"


def test_a_list_without_end_is_given_up(fake: FakeBroker, broker: AlpacaBroker, monkeypatch: Any) -> None:
    monkeypatch.setattr("ghostclean.adapters.alpaca.broker._ORDER_PAGES", 2)
    working(fake, 1200)
    with pytest.raises(BrokerError, match="more than 2 pages"):
        broker.working_orders()


@pytest.mark.parametrize("value", [{}, None, "x", 5, [None], ["a"], [[]], [{}], [{"id": ""}], [{"id": "a"}]])
def test_a_list_of_orders_that_is_none_is_an_error(fake: FakeBroker, broker: AlpacaBroker, value: Any) -> None:
    fake.fault("orders", "empty", value=value)
    with pytest.raises(BrokerError):
        broker.working_orders()


READS: list[tuple[str, Callable[[AlpacaBroker], Any], list[Any]]] = [
    ("account", lambda b: b.account(), [[], None, "x", {}, {"id": ""}, 1]),
    ("positions", lambda b: b.positions(), [{}, None, [{}], [{"qty": "1"}], ["A"], [None]]),
    ("order", lambda b: b.order(NOWHERE), [[], None, {}, {"id": NOWHERE}, {"id": "other", "status": "new"}]),
    ("order", lambda b: b.order_by_client_id("c"), [[], {}, {"id": "x", "status": "new", "client_order_id": "d"}]),
    ("fills", lambda b: b.fills(NOON), [{}, None, [{}], [{"id": "1::a"}], [{"id": "1::a", "symbol": "A"}]]),
    ("fills", lambda b: b.activities(NOON), [{}, None, "x", [{}], [5]]),
    ("clock", lambda b: b.clock(), [[], None, {}, {"is_open": "yes"}]),
    ("calendar", lambda b: b.calendar(NOON.date(), NOON.date()), [{}, None, [{}], [{"date": "x"}], [[]]]),
    ("asset", lambda b: b.asset("AAPL"), [[], None, {}, {"symbol": "MSFT"}]),
    ("data", lambda b: b.prices(["AAPL"]), [[], None, {}, {"trades": []}, {"trades": {"AAPL": 5}}]),
    ("data", lambda b: b.prices(["AAPL"]), [{"trades": {}, "quotes": {"AAPL": 5}}]),
    ("data", lambda b: b.prices(["AAPL"]), [{"trades": {"AAPL": {"p": "NaN", "t": "2026-11-18T17:00:00Z"}}}]),
]


@pytest.mark.parametrize(("label", "read", "value"), [(lb, rd, v) for lb, rd, values in READS for v in values])
def test_an_answer_the_api_cannot_have_given_is_an_error(
    fake: FakeBroker, broker: AlpacaBroker, label: str, read: Callable[[AlpacaBroker], Any], value: Any
) -> None:
    fake.fault(label, "empty", value=value)
    with pytest.raises(BrokerError) as caught:
        read(broker)
    assert caught.value.transient
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["hang", "trickle"])
def test_a_read_that_never_ends_ends(fake: FakeBroker, kind: str) -> None:
    fake.fault("*", kind, interval=0.1)
    start = time.monotonic()
    broker = broker_at(fake.url, lambda: start + 0.4 - time.monotonic())
    with pytest.raises(BrokerError):
        broker.account()
    assert time.monotonic() - start < 0.4 + SLACK


# --------------------------------------------------------------------------- look-ups


def test_an_order_comes_with_its_legs_and_first(fake: FakeBroker, broker: AlpacaBroker) -> None:
    entry = fake.open_trade("AAPL", 10, 100, bracket=(120, 90), client_order_id="mine 1/ä")
    ids = [entry["id"], *(leg["id"] for leg in fake.legs(entry))]
    for found in (broker.order(entry["id"]), broker.order_by_client_id("mine 1/ä"), broker.order(entry["id"].upper())):
        assert found is not None
        assert [order.id for order in found] == ids
        assert found[0].legs == tuple(ids[1:])


def test_an_unknown_order_is_none_only_when_the_broker_says_so(fake: FakeBroker, broker: AlpacaBroker) -> None:
    assert broker.order(NOWHERE) is None
    assert broker.order_by_client_id("never-sent") is None
    for kind in (401, 403, 500, "html", "empty", "redirect", "reset"):
        fake.clear_faults()
        fake.fault("order", kind)
        with pytest.raises(BrokerError):
            broker.order(NOWHERE)
        with pytest.raises(BrokerError):
            broker.order_by_client_id("never-sent")
    fake.clear_faults()
    fake.fault("order", 404, html=True)
    with pytest.raises(BrokerError):
        broker.order(NOWHERE)


@pytest.mark.parametrize("order_id", ["not-a-uuid", "", ".", "..", " ", "../positions", "a/b?c=d", "x" * 300])
def test_an_id_that_is_none_is_refused_and_never_absent(fake: FakeBroker, broker: AlpacaBroker, order_id: str) -> None:
    with pytest.raises(BrokerError) as caught:
        broker.order(order_id)
    assert not caught.value.transient
    assert all(request.path.startswith("/v2/orders/") for request in fake.requests)


@pytest.mark.parametrize("order_id", ["", ".", "..", " ", "../"])
def test_no_write_ever_means_every_order(fake: FakeBroker, broker: AlpacaBroker, order_id: str) -> None:
    working(fake, 3)
    with pytest.raises(BrokerError):
        broker.cancel(order_id)
    with pytest.raises(BrokerError):
        broker.replace(order_id, "r1", stop_price=Decimal(1))
    assert len(fake.working()) == 3
    assert all("%2F" in request.path for request in fake.requests)


def test_an_empty_client_id_asks_nothing(fake: FakeBroker, broker: AlpacaBroker) -> None:
    with pytest.raises(BrokerError):
        broker.order_by_client_id(" ")
    assert fake.requests == []


def test_an_answer_with_the_leg_that_was_asked_for_is_accepted(fake: FakeBroker, broker: AlpacaBroker) -> None:
    entry = fake.open_trade("AAPL", 10, 100, bracket=(120, 90))
    stop = fake.legs(entry)[1]
    fake.fault("order", "empty", value={**entry, "legs": fake.legs(entry)})
    found = broker.order(stop["id"])
    assert found is not None
    assert found[0].id == stop["id"]
    assert len(found) == 3


def test_an_order_known_by_one_id_only_is_a_contradiction(fake: FakeBroker, broker: AlpacaBroker) -> None:
    entry = fake.open_trade("AAPL", 10, 100, bracket=(120, 90))
    fake.fault(lambda request: entry["id"] in request.path, 404)
    with pytest.raises(BrokerError, match="unknown by its own"):
        broker.order_by_client_id(entry["client_order_id"])


# --------------------------------------------------------------------------- history


def test_history_finds_orders_of_any_status_in_any_spelling(fake: FakeBroker, broker: AlpacaBroker) -> None:
    entry = fake.open_trade("AAPL", 10, 100, bracket=(120, 90))
    coin = fake.open_trade("BTC/USD", 1, 50000)
    fake.open_trade("MSFT", 1, 300)
    since = NOON - timedelta(days=3)
    history = broker.history(["AAPL", "BTCUSD"], since, 3)
    assert {order.id for order in history.orders} == {entry["id"], coin["id"], *(leg["id"] for leg in fake.legs(entry))}
    assert (history.since, history.truncated) == (since, False)
    (request,) = fake.requests
    assert request.query["symbols"] == "AAPL,BTC/USD,BTCUSD"
    assert not {"after", "until"} & set(request.query)


def test_history_stops_at_its_beginning_and_says_when_it_could_not(fake: FakeBroker, broker: AlpacaBroker) -> None:
    expected = working(fake, 1100, 3)
    everything = broker.history(["AAPL"], NOON - timedelta(days=9), 5)
    assert {order.id for order in everything.orders} == expected
    assert not everything.truncated
    cut = broker.history(["AAPL"], NOON - timedelta(days=9), 1)
    assert (len(cut.orders), cut.truncated) == (500, True)
    fake.reset_log()
    recent = broker.history(["AAPL"], NOON - timedelta(days=1), 5)
    assert not recent.truncated
    assert len(fake.requests) == 1


def test_history_of_many_symbols_asks_in_short_urls(fake: FakeBroker, broker: AlpacaBroker) -> None:
    symbols = [f"SYM{i:04d}USD" for i in range(700)]
    history = broker.history(symbols, NOON, 20)
    assert not history.truncated
    assert len(fake.requests) > 2
    asked = {name for request in fake.requests for name in request.query["symbols"].split(",")}
    assert set(symbols) < asked
    assert all(len(request.query["symbols"]) < 5200 for request in fake.requests)
    assert broker.history(symbols, NOON, 1).truncated
    assert broker.history([], NOON, 1).orders == ()


# --------------------------------------------------------------------------- activities


def add_fill(fake: FakeBroker, at: datetime, **fields: Any) -> dict[str, Any]:
    row = {"order_id": NOWHERE, "symbol": "AAPL", "side": "sell", "qty": "1", "price": "10", "type": "fill"}
    return fake.activity("FILL", at, transaction_time=at.isoformat().replace("+00:00", "Z"), **(row | fields))


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250, 300])
def test_every_page_of_the_fills_is_read(fake: FakeBroker, broker: AlpacaBroker, count: int) -> None:
    rows = [add_fill(fake, NOON - timedelta(seconds=i // 3)) for i in range(count)]
    fills = broker.fills(NOON - timedelta(hours=1))
    assert {fill.id for fill in fills} == {row["id"] for row in rows}
    assert [(f.at, f.id) for f in fills] == sorted((f.at, f.id) for f in fills)
    assert all(request.query["direction"] == "asc" for request in fake.requests)


def test_fills_are_asked_for_a_day_more_and_chosen_by_their_own_time(fake: FakeBroker, broker: AlpacaBroker) -> None:
    since = NOON - timedelta(hours=1)
    add_fill(fake, since - timedelta(seconds=1))
    inside = add_fill(fake, since)
    assert [fill.id for fill in broker.fills(since)] == [inside["id"]]
    assert fake.requests[0].query["after"] == "2026-11-17T16:00:00Z"


def test_rows_repeated_over_a_seam_count_once(fake: FakeBroker, broker: AlpacaBroker) -> None:
    rows = [add_fill(fake, NOON - timedelta(seconds=200 - i)) for i in range(130)]

    def overlap(request: Request) -> None:
        if "page_token" in request.query:
            request.query["page_token"] = rows[95]["id"]

    fake.before_request(overlap)
    assert len(broker.fills(NOON - timedelta(hours=1))) == 130


def test_a_full_page_of_fills_that_comes_twice_fails(fake: FakeBroker, broker: AlpacaBroker) -> None:
    for i in range(130):
        add_fill(fake, NOON - timedelta(seconds=200 - i))
    fake.fault("fills:2", "duplicate_page")
    with pytest.raises(BrokerError, match="repeats itself"):
        broker.fills(NOON - timedelta(hours=1))


def test_fills_without_end_are_given_up(fake: FakeBroker, broker: AlpacaBroker, monkeypatch: Any) -> None:
    monkeypatch.setattr("ghostclean.adapters.alpaca.paging._ACTIVITY_PAGES", 1)
    for i in range(130):
        add_fill(fake, NOON - timedelta(seconds=200 - i))
    with pytest.raises(BrokerError, match="not read to its end"):
        broker.fills(NOON - timedelta(hours=1))


def test_amended_fills_count_as_amended(fake: FakeBroker, broker: AlpacaBroker) -> None:
    add_fill(fake, NOON, status="canceled")
    corrected = add_fill(fake, NOON, price="11", status="correct")
    busted = add_fill(fake, NOON)
    add_fill(fake, NOON, execution_type="trade_bust", previous_id=busted["id"].split("::")[1])
    wrong = add_fill(fake, NOON, price="99")
    right = add_fill(fake, NOON, price="12", execution_type="trade_correct", previous_id=wrong["id"])
    fills = broker.fills(NOON - timedelta(hours=1))
    assert {(fill.id, fill.price) for fill in fills} == {(corrected["id"], 11), (right["id"], 12)}


def test_activities_of_options_and_companies(fake: FakeBroker, broker: AlpacaBroker) -> None:
    expired = fake.activity("OPEXP", NOON, symbol="AAPL261120C00200000", qty="-1")
    fake.activity("SPLIT", NOON, symbol="NVDA", qty="90", status="canceled")
    fake.activity("DIV", NOON, symbol="AAPL")
    (found,) = broker.activities(NOON - timedelta(days=1))
    assert (found.id, found.type, found.symbol, found.day) == (
        expired["id"],
        "OPEXP",
        "AAPL261120C00200000",
        "2026-11-18",
    )


# --------------------------------------------------------------------------- market


def test_clock_and_calendar_know_half_days(broker: AlpacaBroker) -> None:
    assert broker.clock().is_open
    sessions = broker.calendar(date(2026, 11, 26), date(2026, 11, 28))
    half_day = Session(
        date(2026, 11, 27),
        datetime(2026, 11, 27, 14, 30, tzinfo=UTC),
        datetime(2026, 11, 27, 18, 0, tzinfo=UTC),
    )
    assert sessions == (half_day,)


def test_assets_by_any_spelling(fake: FakeBroker, broker: AlpacaBroker) -> None:
    for symbol, answer in (("AAPL", "AAPL"), ("BTCUSD", "BTC/USD"), ("btc/usd", "BTC/USD")):
        asset = broker.asset(symbol)
        assert asset is not None
        assert asset["symbol"] == answer
    fake.market.assets["GONE"] = None
    assert broker.asset("GONE") is None
    with pytest.raises(BrokerError):
        broker.asset("..")


def test_a_price_is_a_trade_or_a_two_sided_quote(fake: FakeBroker, broker: AlpacaBroker) -> None:
    fake.set_price("AAPL", Decimal("187.40"), bid=187, ask=188)
    fake.set_price("MSFT", None, bid=300, ask=302)
    fake.set_price("BIDLESS", None, bid=0, ask=302)
    fake.set_price("ASKLESS", None, bid=300, ask=0)
    fake.set_price("CROSSED", None, bid=303, ask=302)
    fake.set_price("BTC/USD", 50000)
    prices = broker.prices(
        ["AAPL", "MSFT", "BIDLESS", "ASKLESS", "CROSSED", "UNKNOWN", "BTCUSD", "AAPL261120C00200000"]
    )
    assert {key: (price.value, price.is_trade) for key, price in prices.items()} == {
        "AAPL": (Decimal("187.40"), True),
        "MSFT": (Decimal(301), False),
        "BTCUSD": (Decimal(50000), True),
    }
    assert broker.prices([]) == {}


def test_a_newer_quote_stands_in_for_a_stale_trade(fake: FakeBroker, broker: AlpacaBroker) -> None:
    broker.clock()
    fake.set_price("THIN", 10, bid=11, ask=13, at=fake.now - timedelta(minutes=5))
    fake.fault(lambda r: "quotes" in r.path, "wrong_type", value={"quotes": {"THIN": {
        "bp": 11, "ap": 13, "t": fake.now.isoformat()}}})  # fmt: skip
    price = broker.prices(["THIN"])["THIN"]
    assert (price.value, price.is_trade) == (Decimal(12), False)


@pytest.mark.parametrize("row", [{"p": 5}, {"p": 5, "t": None}, {"p": 0, "t": "2026-11-18T17:00:00Z"}])
def test_a_trade_without_price_or_time_is_no_price(fake: FakeBroker, broker: AlpacaBroker, row: Any) -> None:
    fake.fault("data", "empty", value={"trades": {"AAPL": row}, "quotes": {}})
    assert broker.prices(["AAPL"]) == {}


def test_one_invalid_symbol_does_not_take_the_others_along(fake: FakeBroker, broker: AlpacaBroker) -> None:
    fake.set_price("AAPL", 10)
    fake.set_price("GBTC", 20)
    fake.fault(lambda r: "BAD" in r.query.get("symbols", "").split(","), 400, body={"message": "invalid symbol: BAD"})
    prices: dict[str, Price] = dict(broker.prices(["BAD", "AAPL", "GBTC"]))
    assert {key: price.value for key, price in prices.items()} == {"AAPL": 10, "GBTC": 20}
    assert dict(broker.prices(["BAD"])) == {}


@pytest.mark.parametrize("kind", [400, 401, 403, 429, 500, "html", "empty"])
def test_a_feed_that_fails_is_no_absent_price(fake: FakeBroker, broker: AlpacaBroker, kind: Any) -> None:
    fake.fault("data", kind)
    with pytest.raises(BrokerError):
        broker.prices(["AAPL"])


def test_prices_are_asked_in_batches(fake: FakeBroker, broker: AlpacaBroker) -> None:
    assert broker.prices([f"S{i}" for i in range(130)]) == {}
    assert [len(request.query["symbols"].split(",")) for request in fake.requests] == [100, 30, 100, 30]


# --------------------------------------------------------------------------- writes

STOP = OrderRequest("AAPL", "sell", Decimal("10.50"), "stop", "gtc", "gc-t1-stop-1", stop_price=Decimal("90.10"))


def test_an_order_is_sent_in_strings_once(fake: FakeBroker, broker: AlpacaBroker) -> None:
    fake.add_position("AAPL", 20, 100)
    (order,) = broker.submit(replace(STOP, qty=Decimal("10.0"), client_id="c1"))
    assert (order.client_id, order.stop_price) == ("c1", Decimal("90.1"))
    assert fake.requests[-1].body == {
        "symbol": "AAPL",
        "qty": "10",
        "side": "sell",
        "type": "stop",
        "time_in_force": "gtc",
        "order_class": "simple",
        "client_order_id": "c1",
        "stop_price": "90.1",
    }


def test_an_oco_brings_both_its_legs(fake: FakeBroker, broker: AlpacaBroker) -> None:
    fake.add_position("AAPL", 20, 100)
    fake.set_price("AAPL", 100)
    request = OrderRequest(
        "AAPL",
        "sell",
        Decimal(10),
        "limit",
        "gtc",
        "oco-1",
        order_class="oco",
        limit_price=Decimal(120),
        take_profit=Decimal(120),
        stop_loss=Decimal(90),
    )
    target, stop = broker.submit(request)
    assert "limit_price" not in fake.requests[-1].body
    assert fake.requests[-1].body["take_profit"] == {"limit_price": "120"}
    assert (target.client_id, target.limit_price, stop.stop_price) == ("oco-1", 120, 90)


def test_crypto_orders_are_sent_with_the_slash(fake: FakeBroker, broker: AlpacaBroker) -> None:
    fake.add_position("BTC/USD", 1, 50000)
    fake.set_price("BTC/USD", 50000)
    broker.submit(
        OrderRequest(
            "BTCUSD",
            "sell",
            Decimal("0.00001"),
            "stop_limit",
            "gtc",
            "b1",
            limit_price=Decimal(40000),
            stop_price=Decimal(41000),
        )
    )
    body = fake.requests[-1].body
    assert (body["symbol"], body["qty"], body["limit_price"], body["stop_price"]) == (
        "BTC/USD",
        "0.00001",
        "40000",
        "41000",
    )


def test_a_replacement_is_the_new_order(fake: FakeBroker, broker: AlpacaBroker) -> None:
    entry = fake.open_trade("AAPL", 10, 100, bracket=(120, 90))
    stop = fake.legs(entry)[1]
    new = broker.replace(stop["id"], "r1", stop_price=Decimal("95.50"))
    assert (new.client_id, new.stop_price, new.replaces) == ("r1", Decimal("95.5"), stop["id"])
    assert fake.requests[-1].body == {"client_order_id": "r1", "stop_price": "95.5"}
    broker.cancel(new.id)
    assert fake.order(new.id)["status"] == "canceled"


def test_refusals_are_refused_with_their_body(fake: FakeBroker, broker: AlpacaBroker) -> None:
    with pytest.raises(Refused) as caught:
        broker.submit(STOP)
    assert isinstance(caught.value.body, dict)
    with pytest.raises(Refused):
        broker.replace(NOWHERE, "r1", stop_price=Decimal(1))
    with pytest.raises(Refused):
        broker.cancel(NOWHERE)


@pytest.mark.parametrize("value", [[], {}, None, {"id": "a", "status": "new", "client_order_id": "b"}, {"id": "a"}])
def test_an_answer_about_another_order_is_an_answer_lost(fake: FakeBroker, broker: AlpacaBroker, value: Any) -> None:
    fake.add_position("AAPL", 20, 100)
    for label, send in (
        ("submit", lambda: broker.submit(STOP)),
        ("replace", lambda: broker.replace(NOWHERE, "r1", stop_price=Decimal(1))),
    ):
        fake.fault(label, 200, body=value)
        fake.reset_log()
        with pytest.raises(AnswerLost):
            send()
        assert len(fake.requests) == 1


# --------------------------------------------------------------------------- start-up


def test_neither_pandas_nor_numpy_is_loaded() -> None:
    code = "import sys, ghostclean.adapters.alpaca.transport, ghostclean.adapters.snapshot; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"\b(pandas|numpy|alpaca\.trading|alpaca\.data)\b", loaded)
