"""The order gateway: nothing grows or flips a position, nothing is sent twice, nothing is sent blind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghostclean.adapters.alpaca.records import read_clock, read_fill, read_orders, read_position, read_working
from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.gateway.naming import NUMBERS
from ghostclean.app.gateway.sending import Answer, Outcome
from ghostclean.app.ports import Broker, OrderRequest, Price, State
from ghostclean.core.broker import Fill, Order, Position, Positions, Side, WorkingOrders, client_id
from ghostclean.core.protection import BegunClose, Exposure, Market, can_take
from ghostclean.errors import AnswerLost, BrokerError, FencedOff, Refusal, Refused

D = Decimal
NOW = datetime(2026, 11, 18, 17, tzinfo=UTC)
CLOSE = datetime(2026, 11, 18, 21, tzinfo=UTC)


class SmallBroker:
    """The broker port over plain lists; `sent` are the orders that reached it."""

    def __init__(self, position: str | None = "10", side: str = "long", orders: Iterable[dict[str, Any]] = ()) -> None:
        self.orders = {o["id"]: dict(o) for o in orders}
        self.position = position
        self.side = side
        self.fill_rows: list[dict[str, Any]] = []
        self.sent: list[OrderRequest] = []
        self.replaced: list[tuple[str, Mapping[str, Decimal]]] = []
        self.cancelled: list[str] = []
        self.fail: BrokerError | None = None
        self.arrives = True
        self.available: str | None = None
        self.when = NOW
        self.price: str | None = None

    def now(self) -> datetime:
        return self.when

    def requests_left(self) -> int | None:
        return None

    def working_orders(self) -> WorkingOrders:
        return read_working(list(self.orders.values()), str)

    def positions(self) -> Positions:
        if self.position is None:
            return Positions()
        row = {"symbol": "AAPL", "qty": self.position, "side": self.side, "asset_class": "us_equity"}
        return Positions((read_position(row | ({"qty_available": self.available} if self.available else {})),))

    def fills(self, since: datetime) -> tuple[Fill, ...]:
        found = [cast(Fill, read_fill(row)) for row in self.fill_rows]
        return tuple(f for f in found if f.at >= since)

    def order(self, order_id: str) -> tuple[Order, ...] | None:
        return tuple(read_orders([self.orders[order_id]])) if order_id in self.orders else None

    def order_by_client_id(self, name: str) -> tuple[Order, ...] | None:
        found = [o for o in self.orders.values() if o["client_order_id"] == name]
        return tuple(read_orders(found[:1])) if found else None

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Price]:
        return {} if self.price is None else {"AAPL": Price(D(self.price), NOW, True)}

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        return None

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        if isinstance(self.fail, Refused):
            raise self.fail
        if any(o["client_order_id"] == request.client_id for o in self.orders.values()):
            raise Refused("client_order_id must be unique", status=422, why=Refusal.NAME_TAKEN)
        self.sent.append(request)
        row = order(
            f"o{len(self.sent)}",
            side=request.side,
            type=request.type,
            qty=str(request.qty),
            client_order_id=request.client_id,
            stop_price=request.stop_price and str(request.stop_price),
        )
        if self.arrives:
            self.orders[row["id"]] = row
        if self.fail is not None:
            raise self.fail
        return tuple(read_orders([row]))

    def replace(self, order_id: str, name: str, **prices: Decimal) -> Order:
        if self.fail is not None:
            raise self.fail
        self.replaced.append((order_id, prices))
        old = self.orders[order_id]
        new = (
            old
            | {n: str(v) for n, v in prices.items()}
            | {"id": f"{order_id}'", "client_order_id": name, "replaces": order_id}
        )
        old |= {"status": "replaced", "replaced_by": new["id"]}
        self.orders[new["id"]] = new
        return read_orders([new])[0]

    def cancel(self, order_id: str) -> None:
        self.cancelled.append(order_id)
        self.orders[order_id]["status"] = "canceled"


class SmallState:
    """The two memory calls that the gateway makes."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}

    def recall(self, section: str, ids: Sequence[str] | None = None) -> dict[str, Any]:
        assert section == NUMBERS
        return {i: self.memory[i] for i in ids or () if i in self.memory}

    def remember(self, section: str, values: Mapping[str, Any]) -> None:
        assert section == NUMBERS
        self.memory |= values


def order(order_id: str, **fields: Any) -> dict[str, Any]:
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
        "submitted_at": "2026-11-17T15:00:00Z",
        "time_in_force": "gtc",
    }
    return base | fields


def fill(qty: str, at: datetime, order_id: str = "foreign", side: str = "sell") -> dict[str, Any]:
    return {
        "id": f"f-{at}-{order_id}",
        "order_id": order_id,
        "symbol": "AAPL",
        "side": side,
        "qty": qty,
        "price": "100",
        "transaction_time": at.isoformat(),
    }


def market(*, is_open: bool = True) -> Market:
    row = {
        "timestamp": NOW.isoformat(),
        "is_open": is_open,
        "next_open": "2026-11-19T14:30:00Z",
        "next_close": CLOSE.isoformat(),
    }
    return Market.of(read_clock(row), ())


def gateway(broker: SmallBroker, state: SmallState | None = None, **more: Any) -> OrderGateway:
    options = {"grace": timedelta(seconds=120), "verify": lambda: None, "sleep": lambda seconds: None}
    ports = cast(Broker, broker), cast(State, state or SmallState())
    return OrderGateway(*ports, more.pop("market", market()), Deadline(60), **options | more)


def exposure(
    qty: str = "10", all_open: str | None = None, side: Side = Side.LONG, exits: Iterable[str] = ()
) -> Exposure:
    return Exposure(
        "t1", "AAPL", "AAPL", side, D(qty), D(all_open or qty), False, NOW - timedelta(seconds=5), frozenset(exits)
    )


def sell_orphan(way_out: OrderGateway, position: Position, qty: int) -> Answer:
    return way_out.close(Exposure.alone("orphan-1", position, D(qty), NOW), "orphan", expected=position)


def place_oco(way_out: OrderGateway, mine: Exposure, stop: int) -> Answer:
    begun = BegunClose(mine.name, "swap", mine.symbol, NOW, D(stop), D(120))
    return way_out.restore(mine, begun, D(stop))[0]


# --------------------------------------------------------------------------- how much


@pytest.mark.parametrize(
    ("position", "open_qty", "working", "sent"),
    [
        ("10", "10", [], "10"),
        ("100", "10", [], "10"),  # the other 90 are a neighbour's or bought by hand
        ("6", "10", [], "6"),  # a missing stop for the smaller quantity
        ("10", "10", [order("a", qty="4")], "6"),
        ("10", "10", [order("a", qty="10")], None),
        ("10", "10", [order("a", qty="4"), order("b", side="buy", qty="50")], "6"),
        (
            "10",
            "10",
            [
                order("a", qty="4", order_class="oco", type="limit", limit_price="120"),
                order("b", qty="4", order_class="oco"),
            ],
            "6",
        ),
        ("10", "10", [order("a", qty="4", status="canceled")], "10"),
        ("10", "10", [order("a", qty="4", symbol="MSFT")], "10"),
        (None, "10", [], None),
    ],
)
def test_a_stop_takes_what_is_free(
    position: str | None, open_qty: str, working: list[dict[str, Any]], sent: str | None
) -> None:
    broker = SmallBroker(position, orders=working)
    gateway(broker).place_stop(exposure(open_qty), D(95))
    assert [str(r.qty) for r in broker.sent] == ([sent] if sent else [])


def test_nothing_against_the_other_side() -> None:
    broker = SmallBroker("10", "short")
    assert gateway(broker).place_stop(exposure(), D(95)).outcome is Outcome.MOOT
    assert gateway(broker).close(exposure(), "cut").outcome is Outcome.MOOT
    assert broker.sent == []


def test_a_short_is_closed_by_buying() -> None:
    broker = SmallBroker("10", "short")
    gateway(broker).close(exposure(side=Side.SHORT), "cut")
    assert [(r.side, r.type, r.qty) for r in broker.sent] == [("buy", "market", D(10))]


@given(
    position=st.none() | st.integers(1, 60),
    side=st.sampled_from(["long", "short"]),
    wants=st.sampled_from([Side.LONG, Side.SHORT]),
    open_qty=st.integers(1, 60),
    neighbours=st.integers(0, 40),
    working=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 10), st.sampled_from(["buy", "sell"])), max_size=4),
    recent=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 300), st.sampled_from(["buy", "sell"])), max_size=2),
    action=st.sampled_from(["stop", "oco", "close", "orphan"]),
)
@settings(max_examples=300, deadline=None)
def test_never_grows_never_flips(
    position: int | None,
    side: str,
    wants: Side,
    open_qty: int,
    neighbours: int,
    working: list[tuple[int, int, str]],
    recent: list[tuple[int, int, str]],
    action: str,
) -> None:
    rows = [
        order(f"w{n}", qty=str(qty), filled_qty=str(min(filled, qty - 1)), side=way, stop_price="90")
        for n, (qty, filled, way) in enumerate(working)
    ]
    broker = SmallBroker(str(position) if position else None, side, rows)
    broker.fill_rows = [fill(str(q), NOW - timedelta(seconds=s), f"x{n}", way) for n, (q, s, way) in enumerate(recent)]
    mine = exposure(str(open_qty), str(open_qty + neighbours), wants)
    before = can_take([o for o in broker.working_orders() if o.side == wants.closing], D(position or 0))
    way_out = gateway(broker)
    if action == "stop":
        way_out.place_stop(mine, D(95))
    elif action == "oco":
        place_oco(way_out, mine, 95)
    elif action == "close":
        way_out.close(mine, "cut")
    elif broker.positions().rows:
        sell_orphan(way_out, broker.positions().rows[0], min(open_qty, position or 0))
    for request in broker.sent:
        assert position is not None
        held = Side.LONG if side == "long" else Side.SHORT
        assert request.side == held.closing  # never grows
        assert request.qty > 0
        assert request.qty <= open_qty
        if action != "orphan":
            assert request.qty + before <= position  # never flips, whatever fills first
    assert len(broker.sent) <= 1


# --------------------------------------------------------------------------- never blind


def test_no_close_beside_a_fresh_closing_fill() -> None:
    broker = SmallBroker("20")
    broker.fill_rows = [fill("5", NOW - timedelta(seconds=60))]
    assert "younger than the grace" in gateway(broker).close(exposure(all_open="20"), "cut").reason
    broker.fill_rows = [fill("5", NOW - timedelta(seconds=121))]
    assert gateway(broker).close(exposure(all_open="20"), "cut").outcome is Outcome.SENT


def test_a_missing_stop_beside_a_fresh_fill_is_for_the_smaller_quantity() -> None:
    broker = SmallBroker("10")
    broker.fill_rows = [fill("4", NOW - timedelta(seconds=60))]  # the position may not show it yet
    gateway(broker).place_stop(exposure(), D(95))
    assert [r.qty for r in broker.sent] == [D(6)]


def test_a_fill_of_an_own_exit_before_the_survey_is_accounted_for() -> None:
    broker = SmallBroker("10")
    broker.fill_rows = [fill("4", NOW - timedelta(seconds=60), "mine")]
    gateway(broker).place_stop(exposure(exits=["mine"]), D(95))
    assert [r.qty for r in broker.sent] == [D(10)]


def test_no_close_where_fills_and_position_disagree() -> None:
    broker = SmallBroker("8")
    assert "its fills say 10" in gateway(broker).close(exposure(), "cut").reason
    assert broker.sent == []


def test_no_close_in_a_closed_market_or_its_last_seconds() -> None:
    broker = SmallBroker()
    assert gateway(broker, market=market(is_open=False)).close(exposure(), "cut").outcome is Outcome.BLOCKED
    broker.when = CLOSE - timedelta(seconds=15)
    assert gateway(broker).close(exposure(), "cut").outcome is Outcome.BLOCKED
    broker.when = CLOSE - timedelta(seconds=16)
    assert gateway(broker).close(exposure(), "cut").outcome is Outcome.SENT


def test_no_close_while_the_shares_are_not_free() -> None:
    broker = SmallBroker()
    broker.available = "4"
    assert "still held" in gateway(broker).close(exposure(), "cut").reason


def test_an_orphan_is_sold_exactly_or_not_at_all() -> None:
    broker = SmallBroker("10", orders=[order("a", qty="4")])
    position = broker.positions().rows[0]
    assert "only 6 of 10" in sell_orphan(gateway(broker), position, 10).reason
    broker.orders.clear()
    broker.position = "12"
    assert "has changed" in sell_orphan(gateway(broker), position, 10).reason
    broker.position = "10"
    assert sell_orphan(gateway(broker), position, 10).outcome is Outcome.SENT
    assert [(r.qty, r.client_id) for r in broker.sent] == [(D(10), client_id("orphan-1", "orphan", 1))]


# --------------------------------------------------------------------------- never twice


def test_n_rises_only_when_the_one_before_is_final() -> None:
    broker, state = SmallBroker(), SmallState()
    assert gateway(broker, state).place_stop(exposure(), D(95)).outcome is Outcome.SENT
    broker.position = "30"  # room for another, which must not be sent
    assert gateway(broker, state).place_stop(exposure(), D(95), least=D(0)).outcome is Outcome.STANDING
    broker.orders["o1"]["status"] = "canceled"
    gateway(broker, state).place_stop(exposure(), D(95))
    assert [r.client_id for r in broker.sent] == [client_id("t1", "stop", 1), client_id("t1", "stop", 2)]


def test_a_forgotten_counter_is_found_again() -> None:
    rows = [order(f"s{n}", status="canceled", client_order_id=client_id("t1", "stop", n)) for n in (1, 2, 3)]
    broker = SmallBroker(orders=rows)
    gateway(broker, SmallState()).place_stop(exposure(), D(95))
    assert [r.client_id for r in broker.sent] == [client_id("t1", "stop", 4)]


def test_a_lost_answer_is_looked_up_and_never_sent_again() -> None:
    broker, state = SmallBroker(), SmallState()
    broker.fail = AnswerLost("gone")
    way_out = gateway(broker, state)
    assert way_out.place_stop(exposure(), D(95)).outcome is Outcome.SENT
    lost = SmallBroker()
    lost.fail, lost.arrives = AnswerLost("gone"), False
    way_out = gateway(lost, state_2 := SmallState())
    assert way_out.place_stop(exposure(), D(95)).outcome is Outcome.UNKNOWN
    assert way_out.place_stop(exposure(), D(95)).outcome is Outcome.BLOCKED
    assert len(lost.sent) == 1
    lost.fail, lost.arrives = None, True  # the next run: proven absent, so the same name goes out again
    assert gateway(lost, state_2).place_stop(exposure(), D(95)).outcome is Outcome.SENT
    assert {r.client_id for r in lost.sent} == {client_id("t1", "stop", 1)}


def test_a_refusal_is_the_brokers_last_word() -> None:
    broker = SmallBroker()
    broker.fail = Refused("potential wash trade detected", status=403)
    answer = gateway(broker).place_stop(exposure(), D(95))
    assert (answer.outcome, answer.reason) == (Outcome.REFUSED, "potential wash trade detected")


def test_nothing_is_sent_without_the_lock() -> None:
    def lost() -> None:
        raise FencedOff("the lock is gone")

    broker = SmallBroker()
    with pytest.raises(FencedOff):
        gateway(broker, verify=lost).place_stop(exposure(), D(95))
    assert broker.sent == []


# --------------------------------------------------------------------------- moving and cancelling


def moved(broker: SmallBroker, stop: str, *, qty: str | None = None, **fields: Any) -> Answer:
    return gateway(broker).move(
        exposure(), read_orders([order("s1", **fields)])[0], D(stop), qty=D(qty) if qty else None
    )


def test_a_stop_is_moved_and_read_back() -> None:
    broker = SmallBroker(orders=[order("s1")])
    answer = moved(broker, "97")
    assert answer.outcome is Outcome.SENT
    assert answer.order is not None
    assert (answer.order.id, answer.order.stop_price) == ("s1'", D(97))


@pytest.mark.parametrize(
    ("stop", "fields", "said"),
    [
        ("94", {}, "would loosen"),
        ("97", {"status": "accepted"}, "not at the exchange"),
        ("97", {"status": "filled", "filled_qty": "10"}, "is filled"),
        ("97", {"status": "partially_filled", "filled_qty": "3"}, "not at the exchange"),
    ],
)
def test_a_stop_that_is_not_moved(stop: str, fields: dict[str, Any], said: str) -> None:
    broker = SmallBroker(orders=[order("s1", **fields)])
    answer = moved(broker, stop, **fields)
    assert (answer.outcome, said in answer.reason, broker.replaced) == (Outcome.BLOCKED, True, [])


@pytest.mark.parametrize(
    ("price", "outcome"), [("97", Outcome.CROSSED), ("96.5", Outcome.CROSSED), ("97.01", Outcome.SENT)]
)
def test_never_crosses(price: str, outcome: Outcome) -> None:
    broker = SmallBroker(orders=[order("s1")])
    broker.price = price
    assert moved(broker, "97").outcome is outcome
    naked = SmallBroker()
    naked.price = price
    assert gateway(naked).place_stop(exposure(), D(97)).outcome is outcome
    naked = SmallBroker()
    naked.price = price
    assert place_oco(gateway(naked), exposure(), 97).outcome is outcome


def test_a_stop_never_grows_beyond_what_is_free() -> None:
    broker = SmallBroker("10", orders=[order("s1", qty="4"), order("s2", qty="4")])
    answer = gateway(broker).move(exposure(), read_orders([order("s1", qty="4")])[0], D(95), qty=D(7))
    assert (answer.outcome, broker.replaced) == (Outcome.BLOCKED, [])


def test_only_closing_orders_of_the_symbol_are_cancelled() -> None:
    rows = [order("s1"), order("buy", side="buy"), order("other", symbol="MSFT")]
    broker = SmallBroker(orders=rows)
    assert gateway(broker).cancel(exposure(), read_orders(rows), 1, "test") == []
    assert broker.cancelled == ["s1"]


def test_a_dry_run_sends_nothing_and_counts_as_if() -> None:
    broker, state = SmallBroker(orders=[order("s1")]), SmallState()
    way_out = gateway(broker, state, dry_run=True)
    way_out.cancel(exposure(), read_orders([order("s1")]), 1, "eod")
    answer = way_out.close(exposure(), "eod")
    assert (answer.outcome, answer.request["qty"]) == (Outcome.WOULD, "10")
    assert (broker.sent, broker.cancelled, state.memory) == ([], [], {})
