"""The fake broker as a state machine: what it keeps, refuses, fills and forgets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import pytest

from tests.fakebroker import MISSING, NEVER, Delay, FakeBroker, Refusal
from tests.fakebroker.api import Request, dispatch

OPEN = "2026-11-18T15:00:00Z"
DAY_BEFORE = "2026-11-17T15:00:00Z"
FRIDAY_EVENING = "2026-11-20T23:00:00Z"


@pytest.fixture
def broker() -> FakeBroker:
    """A broker on a Wednesday morning; nobody listens on a port."""
    return FakeBroker(OPEN)


def ask(broker: FakeBroker, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
    """Ask the routes directly, as the server does."""
    broker.market.requests_served += 1
    broker.market.tick()
    return dispatch(broker.market, Request(method, path, query, body, broker.now))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def refused(code: int | None = None, status: int | None = None, match: str | None = None) -> Any:
    def check(error: BaseException) -> bool:
        assert isinstance(error, Refusal)
        return (code is None or error.body.get("code") == code) and status in (None, error.status)

    return pytest.RaisesExc(Refusal, match=match, check=check)


class TestOpenListNastiness:
    @pytest.fixture
    def entry(self, broker: FakeBroker) -> dict[str, Any]:
        return broker.open_trade("AAPL", 10, 180, at=DAY_BEFORE, bracket=(200, 170))

    def test_flat_open_list_shows_the_target_but_not_the_held_stop(self, broker: FakeBroker, entry: Any) -> None:
        target, stop = broker.legs(entry)
        assert (target["status"], stop["status"]) == ("new", "held")
        assert ids(ask(broker, "GET", "/v2/orders")[1]) == [target["id"]]

    def test_nested_open_list_shows_neither_leg_once_the_entry_filled(self, broker: FakeBroker, entry: Any) -> None:
        assert ask(broker, "GET", "/v2/orders", nested="true")[1] == []

    def test_the_switch_shows_both(self, broker: FakeBroker, entry: Any) -> None:
        broker.quirks.hide_legs = False
        for nested in ("true", "false"):
            assert set(ids(ask(broker, "GET", "/v2/orders", nested=nested)[1])) == set(ids(broker.legs(entry)))

    def test_nested_all_rolls_legs_up_and_flat_all_does_not(self, broker: FakeBroker, entry: Any) -> None:
        nested = ask(broker, "GET", "/v2/orders", status="all", nested="true")[1]
        assert ids(nested) == [entry["id"]]
        assert ids(nested[0]["legs"]) == ids(broker.legs(entry))
        flat = ask(broker, "GET", "/v2/orders", status="all")[1]
        assert len(flat) == 3
        assert {row["legs"] for row in flat} == {None}

    def test_an_entry_still_working_carries_its_held_legs(self, broker: FakeBroker) -> None:
        bracket = {"order_class": "bracket", "take_profit": {"limit_price": 210}, "stop_loss": {"stop_price": 170}}
        order = broker.submit(
            symbol="MSFT", qty=1, side="buy", type="limit", limit_price=200, time_in_force="gtc", **bracket
        )
        (shown,) = ask(broker, "GET", "/v2/orders", nested="true")[1]
        assert shown["id"] == order["id"]
        assert [leg["status"] for leg in shown["legs"]] == ["held", "held"]
        assert {leg["submitted_at"] for leg in shown["legs"]} == {order["submitted_at"]}


class TestOrderList:
    def test_limit_defaults_to_50_and_ends_at_500(self, broker: FakeBroker) -> None:
        for _ in range(60):
            broker.add_order("AAPL")
        assert len(ask(broker, "GET", "/v2/orders")[1]) == 50
        assert ask(broker, "GET", "/v2/orders", limit="501")[0] == 422
        assert ask(broker, "GET", "/v2/orders", limit="0")[0] == 422

    def test_id_cursors_walk_through_equal_times_without_loss_or_repeat(self, broker: FakeBroker) -> None:
        made = ids([broker.add_order("AAPL") for _ in range(7)])
        seen: list[str] = []
        query = {"limit": "3"}
        for _ in range(4):
            seen += ids(ask(broker, "GET", "/v2/orders", **query)[1])
            query["before_order_id"] = seen[-1]
        assert seen == made[::-1]
        assert ids(ask(broker, "GET", "/v2/orders", after_order_id=made[4], direction="asc")[1]) == made[5:]

    def test_until_is_exclusive_and_loses_equal_times(self, broker: FakeBroker) -> None:
        old = broker.add_order("AAPL", DAY_BEFORE)
        broker.add_order("AAPL", OPEN)
        assert ids(ask(broker, "GET", "/v2/orders", until=OPEN)[1]) == [old["id"]]
        assert ask(broker, "GET", "/v2/orders", after=OPEN)[1] == []
        assert len(ask(broker, "GET", "/v2/orders", after=DAY_BEFORE)[1]) == 1

    @pytest.mark.parametrize(
        "query",
        [
            {"nested": "True"},
            {"status": "working"},
            {"direction": "down"},
            {"side": "long"},
            {"asset_class": "stocks"},
            {"until": "yesterday"},
            {"before_order_id": "nonsense"},
        ],
    )
    def test_wrong_parameters_are_refused(self, broker: FakeBroker, query: dict[str, str]) -> None:
        status, body = ask(broker, "GET", "/v2/orders", **query)
        assert (status, body["code"]) == (422, 40010001)

    @pytest.mark.parametrize("other", ["after_order_id", "after", "until"])
    def test_cursors_do_not_mix(self, broker: FakeBroker, other: str) -> None:
        order = broker.add_order("AAPL")
        query = {"before_order_id": order["id"], other: order["id"] if other == "after_order_id" else OPEN}
        assert ask(broker, "GET", "/v2/orders", **query)[0] == 422

    def test_filters(self, broker: FakeBroker) -> None:
        stock = broker.add_order("AAPL", side="sell")
        coin = broker.add_order("BTC/USD")
        assert ids(ask(broker, "GET", "/v2/orders", symbols="BTCUSD,TSLA")[1]) == [coin["id"]]
        assert ids(ask(broker, "GET", "/v2/orders", side="sell")[1]) == [stock["id"]]
        assert ids(ask(broker, "GET", "/v2/orders", asset_class="crypto,us_option")[1]) == [coin["id"]]

    def test_an_unknown_status_is_open(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", status="teleported")
        done = broker.add_order("AAPL", status="replaced")
        assert ids(ask(broker, "GET", "/v2/orders")[1]) == [order["id"]]
        assert ids(ask(broker, "GET", "/v2/orders", status="closed")[1]) == [done["id"]]

    def test_look_ups(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", client_order_id="mine")
        by_client = ask(broker, "GET", "/v2/orders:by_client_order_id", client_order_id="mine")
        assert by_client[1]["id"] == order["id"]
        assert ask(broker, "GET", "/v2/orders/nonsense")[1]["code"] == 40010001
        unknown = ask(broker, "GET", "/v2/orders/00000000-0000-4000-8000-000000000000")
        assert (unknown[0], unknown[1]["code"]) == (404, 40410000)
        assert ask(broker, "GET", "/v2/orders:by_client_order_id", client_order_id="theirs")[0] == 404


class TestFills:
    def test_partial_fills_average_and_net(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=10)
        broker.fill(order, 4, 100)
        assert (order["status"], order["filled_qty"]) == ("partially_filled", "4")
        broker.fill(order, price=110)
        assert (order["status"], order["filled_avg_price"]) == ("filled", "106")
        held = broker.positions["AAPL"]
        assert (held.qty, held.avg_entry_price) == (10, 106)
        rows = ask(broker, "GET", "/v2/account/activities/FILL", direction="asc")[1]
        assert [(r["type"], r["qty"], r["cum_qty"], r["leaves_qty"]) for r in rows] == [
            ("partial_fill", "4", "4", "6"),
            ("fill", "6", "10", "0"),
        ]

    def test_a_sale_through_zero_flips(self, broker: FakeBroker) -> None:
        broker.add_position("AAPL", 10, 100)
        broker.fill(broker.add_order("AAPL", side="sell", qty=15), price=120)
        (row,) = ask(broker, "GET", "/v2/positions")[1]
        assert (row["qty"], row["side"], row["avg_entry_price"]) == ("-5", "short", "120")

    def test_a_flat_position_is_gone(self, broker: FakeBroker) -> None:
        broker.open_trade("AAPL", 10, 100)
        broker.sell("AAPL", price=110)
        status, body = ask(broker, "GET", "/v2/positions/AAPL")
        assert (status, body["code"]) == (404, 40410000)
        account = ask(broker, "GET", "/v2/account")[1]
        assert (account["equity"], account["long_market_value"]) == ("1000100", "0")

    def test_at_dates_everything(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 100, at=DAY_BEFORE)
        times = {entry[name][:19] + "Z" for name in ("created_at", "submitted_at", "updated_at", "filled_at")}
        assert times == {DAY_BEFORE}
        assert ask(broker, "GET", "/v2/account/activities")[1][0]["transaction_time"] == DAY_BEFORE

    def test_final_orders_and_too_much_are_mistakes_of_the_test(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=1)
        with pytest.raises(ValueError, match="cannot fill 2"):
            broker.fill(order, 2, 100)
        broker.fill(order, price=100)
        with pytest.raises(ValueError, match="is filled"):
            broker.fill(order, price=100)

    def test_crypto_pays_its_fee_in_coin_and_has_another_asset_id(self, broker: FakeBroker) -> None:
        order = broker.open_trade("BTC/USD", "0.5", 60000)
        (row,) = ask(broker, "GET", "/v2/positions")[1]
        assert (row["symbol"], row["qty"], row["exchange"]) == ("BTCUSD", "0.49875", "CRYPTO")
        assert order["symbol"] == "BTC/USD"
        assert row["asset_id"] != order["asset_id"]
        assert ask(broker, "GET", "/v2/positions/BTC%2FUSD")[0] == 404
        assert ask(broker, "GET", "/v2/positions/BTC/USD")[0] == 404
        assert ask(broker, "GET", "/v2/positions/BTCUSD")[0] == 200

    def test_an_option_counts_a_hundredfold(self, broker: FakeBroker) -> None:
        broker.open_trade("AAPL261218C00250000", 2, "3.5")
        (row,) = ask(broker, "GET", "/v2/positions")[1]
        assert (row["asset_class"], row["exchange"], row["market_value"]) == ("us_option", "", "700")


class TestGroups:
    def test_the_stop_fills_and_cancels_the_target(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        broker.set_price("AAPL", "169.5")
        target, stop = broker.legs(entry)
        assert (target["status"], stop["status"], stop["filled_avg_price"]) == ("canceled", "filled", "169.5")
        assert broker.positions == {}

    def test_the_target_fills_at_its_limit_and_cancels_the_stop(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        broker.set_price("AAPL", 201)
        target, stop = broker.legs(entry)
        assert (target["filled_avg_price"], stop["status"]) == ("200", "canceled")

    def test_a_partly_filled_target_shrinks_the_stop(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        target, stop = broker.legs(entry)
        broker.fill(target, 4)
        assert stop["qty"] == "6"
        broker.set_price("AAPL", 170)
        assert (stop["filled_qty"], broker.positions) == ("6", {})

    def test_legs_sleep_until_the_entry_is_completely_filled(self, broker: FakeBroker) -> None:
        broker.set_price("AAPL", 180)
        order = broker.submit(
            symbol="AAPL", qty=10, side="buy", type="limit", limit_price=175, time_in_force="gtc",
            order_class="bracket", take_profit={"limit_price": 200}, stop_loss={"stop_price": 170},
        )  # fmt: skip
        broker.fill(order, 4)
        assert [leg["status"] for leg in broker.legs(order)] == ["held", "held"]
        assert broker.market.available(broker.positions["AAPL"]) == 4
        broker.cancel(order)
        assert [leg["status"] for leg in broker.legs(order)] == ["canceled", "canceled"]

    def test_a_group_holds_its_shares_once(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        broker.fill(broker.add_order("AAPL", qty=5), price=180)
        held = ask(broker, "GET", "/v2/positions/AAPL")[1]
        assert (held["qty"], held["qty_available"]) == ("15", "5")
        status, body = ask(broker, "DELETE", "/v2/positions/AAPL")
        assert (status, body["code"]) == (403, 40310000)
        assert {k: body[k] for k in ("available", "existing_qty", "held_for_orders", "symbol")} == {
            "available": "5",
            "existing_qty": "15",
            "held_for_orders": "10",
            "symbol": "AAPL",
        }
        assert body["related_orders"] == ids(broker.legs(entry))
        assert ask(broker, "DELETE", "/v2/positions/AAPL", qty="5")[0] == 200
        assert broker.positions["AAPL"].qty == 10

    def test_cancelling_a_leg_cancels_its_sibling(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        target, stop = broker.legs(entry)
        assert ask(broker, "DELETE", f"/v2/orders/{stop['id']}") == (204, None)
        assert target["status"] == "canceled"

    def test_oco_has_the_target_as_parent_and_holds_once(self, broker: FakeBroker) -> None:
        broker.open_trade("AAPL", 10, 180)
        oco = broker.submit(
            symbol="AAPL", qty=10, side="sell", type="limit", time_in_force="gtc", order_class="oco",
            take_profit={"limit_price": 200}, stop_loss={"stop_price": 170},
        )  # fmt: skip
        (stop,) = broker.legs(oco)
        assert (oco["limit_price"], oco["status"], stop["status"]) == ("200", "new", "held")
        assert broker.market.holding_orders(broker.positions["AAPL"])[0] == 10
        assert ids(ask(broker, "GET", "/v2/orders")[1]) == [oco["id"]]
        broker.set_price("AAPL", 169)
        assert (oco["status"], stop["status"], broker.positions) == ("canceled", "filled", {})

    def test_mleg_fills_leg_by_leg(self, broker: FakeBroker) -> None:
        legs = [
            {"symbol": "AAPL261218C00250000", "side": "buy", "ratio_qty": "1"},
            {"symbol": "AAPL261218C00260000", "side": "sell", "ratio_qty": "1"},
        ]
        order = broker.submit(order_class="mleg", qty=2, type="limit", limit_price=1, time_in_force="day", legs=legs)
        broker.fill(order, price=1)
        assert {symbol: held.qty for symbol, held in broker.positions.items()} == {
            "AAPL261218C00250000": 2,
            "AAPL261218C00260000": -2,
        }
        fills = ask(broker, "GET", "/v2/account/activities/FILL")[1]
        assert {row["order_id"] for row in fills} == set(ids(broker.legs(order)))
        assert ids(ask(broker, "GET", "/v2/orders", status="all")[1]) == [order["id"]]


class TestSubmit:
    STOCK: ClassVar = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}

    def test_first_answer_is_not_the_end(self, broker: FakeBroker) -> None:
        broker.set_price("AAPL", 180)
        status, first = ask(broker, "POST", "/v2/orders", self.STOCK)
        assert (status, first["status"], first["filled_qty"]) == (200, "pending_new", "0")
        assert broker.order(first)["status"] == "filled"

    def test_market_orders_take_the_quote(self, broker: FakeBroker) -> None:
        broker.set_price("AAPL", 180, bid=179, ask=181)
        assert broker.submit(**self.STOCK)["filled_avg_price"] == "181"
        assert broker.submit(**self.STOCK | {"side": "sell"})["filled_avg_price"] == "179"
        broker.set_price("AAPL", 180, bid=0, ask=0)
        assert broker.submit(**self.STOCK)["filled_avg_price"] == "180"

    def test_closed_market_queues_until_the_open(self) -> None:
        broker = FakeBroker(FRIDAY_EVENING)
        broker.set_price("AAPL", 180)
        order = broker.submit(**self.STOCK)
        broker.advance(hours=48)
        assert order["status"] == "accepted"
        broker.now = "2026-11-23T15:00:00Z"
        assert (order["status"], order["filled_at"][:19]) == ("filled", "2026-11-23T14:30:00")

    def test_fill_delay_and_share(self, broker: FakeBroker) -> None:
        broker.set_price("AAPL", 180)
        broker.quirks.fill_delay = Delay(seconds=5)
        broker.quirks.fill_ratio = Decimal("0.35")
        order = broker.submit(**self.STOCK)
        broker.advance(4)
        assert order["status"] == "new"
        broker.advance(1)
        assert (order["status"], order["filled_qty"]) == ("partially_filled", "3")
        broker.set_price("AAPL", 181)
        assert order["filled_qty"] == "3"

    @pytest.mark.parametrize(
        ("change", "status", "code"),
        [
            ({"type": "limit", "limit_price": "180.001"}, 422, 42210000),
            ({"type": "limit"}, 422, 40010001),
            ({"qty": "0"}, 422, 40010001),
            ({"qty": "ten"}, 422, 40010001),
            ({"notional": "100"}, 422, 40010001),
            ({"qty": "1.5", "time_in_force": "gtc"}, 422, 42210000),
            ({"qty": "1.5", "order_class": "oto", "stop_loss": {"stop_price": "170"}}, 422, 42210000),
            ({"symbol": "BTC/USD", "type": "stop", "stop_price": "9", "time_in_force": "gtc"}, 422, 42210000),
            ({"symbol": "BTC/USD"}, 422, 42210000),
            ({"symbol": "AAPL261218C00250000", "time_in_force": "gtc"}, 422, 42210000),
            ({"type": "trailing_stop"}, 422, 40010001),
            ({"extended_hours": True}, 422, 42210000),
            ({"qty": "1000000"}, 403, 40310000),
            ({"symbol": "DELISTED"}, 422, 42210000),
            ({"side": "sell", "qty": "0.5"}, 422, 42210000),
            ({"order_class": "bracket", "take_profit": {"limit_price": "200"}}, 422, 40010001),
            ({"client_order_id": "x" * 129}, 422, 40010001),
        ],
    )
    def test_refusals(self, broker: FakeBroker, change: dict[str, Any], status: int, code: int) -> None:
        broker.set_price("AAPL", 180)
        broker.market.assets["DELISTED"] = None
        answered, body = ask(broker, "POST", "/v2/orders", self.STOCK | change)
        assert (answered, body["code"]) == (status, code), body
        assert broker.orders == {}

    @pytest.mark.parametrize(
        ("target", "stop"), [("170", "200"), ("200", "180"), ("180", "170"), ("200", "179.995"), ("200.001", "170")]
    )
    def test_bracket_prices_stand_on_their_side_of_the_market(self, broker: FakeBroker, target: str, stop: str) -> None:
        broker.set_price("AAPL", 180)
        exits = {"take_profit": {"limit_price": target}, "stop_loss": {"stop_price": stop}}
        assert ask(broker, "POST", "/v2/orders", self.STOCK | exits | {"order_class": "bracket"})[0] == 422

    def test_client_order_ids_are_unique_for_ever(self, broker: FakeBroker) -> None:
        order = broker.submit(**self.STOCK, client_order_id="once")
        broker.cancel(order)
        with refused(40010001, 422, "unique"):
            broker.submit(**self.STOCK, client_order_id="once")

    def test_wash_trades_are_refused(self, broker: FakeBroker) -> None:
        resting = broker.submit(**self.STOCK | {"type": "limit", "limit_price": 170})
        status, body = ask(broker, "POST", "/v2/orders", self.STOCK | {"side": "sell"})
        assert (status, body["existing_order_id"]) == (403, resting["id"])
        higher = self.STOCK | {"side": "sell", "type": "limit", "limit_price": "171"}
        assert ask(broker, "POST", "/v2/orders", higher)[0] == 200

    def test_a_sale_never_passes_through_zero(self, broker: FakeBroker) -> None:
        broker.add_position("AAPL", 5)
        with refused(40310000, 403, r"requested: 10, available: 5"):
            broker.submit(**self.STOCK | {"side": "sell"})

    def test_crypto_cannot_be_sold_short(self, broker: FakeBroker) -> None:
        with refused(40310000, 403, "insufficient balance"):
            broker.submit(symbol="BTC/USD", qty=1, side="sell", type="market", time_in_force="gtc")

    def test_a_buy_stop_does_not_run_after_a_gap(self, broker: FakeBroker) -> None:
        broker.add_position("AAPL", -10, 100)
        broker.set_price("AAPL", 100)
        order = broker.submit(**self.STOCK | {"type": "stop", "stop_price": 105, "time_in_force": "gtc"})
        broker.set_price("AAPL", 120)
        assert order["status"] == "new"
        broker.set_price("AAPL", 106)
        assert order["status"] == "filled"

    def test_a_trailing_stop_follows(self, broker: FakeBroker) -> None:
        broker.add_position("AAPL", 10, 100)
        broker.set_price("AAPL", 100)
        order = broker.submit(**self.STOCK | {"side": "sell", "type": "trailing_stop", "trail_percent": 10})
        broker.set_price("AAPL", 120)
        broker.set_price("AAPL", 110)
        assert (order["hwm"], order["stop_price"], order["status"]) == ("120", "108", "new")
        broker.set_price("AAPL", 108)
        assert order["status"] == "filled"

    def test_stops_wait_for_the_open_market(self, broker: FakeBroker) -> None:
        broker.add_position("AAPL", 10, 100)
        stop = broker.add_order("AAPL", qty=10, side="sell", type="stop", stop_price=95, time_in_force="gtc")
        broker.close_market()
        broker.set_price("AAPL", 90)
        assert stop["status"] == "new"
        broker.open_market()
        broker.set_price("AAPL", 91)
        assert stop["filled_avg_price"] == "91"


class TestCancel:
    def test_accepted_is_not_done(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL")
        broker.quirks.cancel_delay = Delay(requests=2)
        path = f"/v2/orders/{order['id']}"
        assert ask(broker, "DELETE", path)[0] == 204
        assert [ask(broker, "GET", path)[1]["status"] for _ in range(2)] == ["pending_cancel", "canceled"]

    def test_a_pending_cancel_can_still_fill(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=2)
        broker.quirks.cancel_delay = Delay(seconds=5)
        broker.cancel(order)
        broker.fill(order, 1, 100)
        assert order["status"] == "pending_cancel"
        broker.fill(order, 1, 100)
        broker.advance(10)
        assert order["status"] == "filled"

    def test_a_stuck_cancel_holds_the_shares(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(None, 170))
        broker.quirks.cancel_delay = NEVER
        broker.cancel(broker.legs(entry)[0])
        broker.advance(hours=3)
        assert ask(broker, "DELETE", "/v2/positions/AAPL")[0] == 403

    def test_offhours_cancels_may_wait_for_the_open(self) -> None:
        broker = FakeBroker(FRIDAY_EVENING)
        broker.quirks.offhours_cancel_waits = True
        order = broker.add_order("AAPL", time_in_force="gtc")
        broker.cancel(order)
        broker.advance(days=2)
        assert order["status"] == "pending_cancel"
        broker.advance(days=1)
        assert order["canceled_at"][:19] == "2026-11-23T14:30:00"

    @pytest.mark.parametrize("status", ["filled", "canceled", "pending_replace", "replaced"])
    def test_what_cannot_be_cancelled_is_422(self, broker: FakeBroker, status: str) -> None:
        order = broker.add_order("AAPL", status=status)
        answered, body = ask(broker, "DELETE", f"/v2/orders/{order['id']}")
        assert (answered, body["message"]) == (422, f'order is already in "{status}" state')

    def test_the_204_on_a_filled_order(self, broker: FakeBroker) -> None:
        broker.quirks.cancel_of_final_is_204 = True
        order = broker.add_order("AAPL", status="filled")
        assert ask(broker, "DELETE", f"/v2/orders/{order['id']}")[0] == 204
        assert order["status"] == "filled"


class TestReplace:
    def test_a_bracket_stop_moves_by_a_new_order(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        target, stop = broker.legs(entry)
        status, new = ask(broker, "PATCH", f"/v2/orders/{stop['id']}", {"stop_price": "175"})
        assert (status, new["replaces"], new["stop_price"]) == (200, stop["id"], "175")
        assert (stop["status"], stop["replaced_by"]) == ("replaced", new["id"])
        assert ids(broker.legs(entry)) == [target["id"], stop["id"], new["id"]]
        assert broker.market.available(broker.positions["AAPL"]) == 0
        broker.set_price("AAPL", 174)
        assert (broker.order(new)["status"], target["status"]) == ("filled", "canceled")

    @pytest.mark.parametrize(("shown", "count"), [("both", 3), ("old", 2), ("new", 2)])
    def test_which_legs_a_parent_shows_afterwards(self, broker: FakeBroker, shown: str, count: int) -> None:
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        stop = broker.legs(entry)[1]
        new = broker.replace(stop, stop_price=175)
        broker.quirks.legs_after_replace = shown
        legs = ids(ask(broker, "GET", f"/v2/orders/{entry['id']}", nested="true")[1]["legs"])
        assert (len(legs), stop["id"] in legs, new["id"] in legs) == (count, shown != "new", shown != "old")

    @pytest.mark.parametrize("status", ["accepted", "pending_new", "pending_cancel", "pending_replace", "filled"])
    def test_not_in_every_status(self, broker: FakeBroker, status: str) -> None:
        order = broker.add_order("AAPL", type="limit", limit_price=100, status=status)
        with refused(42210000, 422):
            broker.replace(order, limit_price=101)

    def test_no_change_is_403(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", type="limit", limit_price=100)
        with refused(40310000, 403, "not changed"):
            broker.replace(order, limit_price="100.00")

    def test_sub_penny_and_oto_legs_are_refused(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", type="limit", limit_price=100)
        with refused(42210000, 422, "sub-penny"):
            broker.replace(order, limit_price="100.005")
        entry = broker.open_trade("MSFT", 10, 180, bracket=(None, 170))
        with refused(42210000, 422, "oto"):
            broker.replace(broker.legs(entry)[0], stop_price=171)

    def test_a_fill_that_comes_first_wins(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=10, type="limit", limit_price=100)
        broker.quirks.replace_delay = Delay(seconds=2)
        new = broker.replace(order, limit_price=101)
        assert (order["status"], new["status"]) == ("pending_replace", "pending_new")
        broker.fill(order)
        broker.advance(2)
        assert (order["status"], new["status"], broker.positions["AAPL"].qty) == ("filled", "rejected", 10)

    def test_a_pending_replacement_does_not_hold_twice(self, broker: FakeBroker) -> None:
        broker.add_position("AAPL", 20)
        stop = broker.add_order("AAPL", qty=10, side="sell", type="stop", stop_price=90)
        broker.quirks.replace_delay = NEVER
        broker.replace(stop, stop_price=95)
        assert broker.market.available(broker.positions["AAPL"]) == 10

    def test_a_partial_fill_in_between_is_not_bought_twice(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=10, type="limit", limit_price=100)
        broker.quirks.replace_delay = Delay(seconds=2)
        new = broker.replace(order, limit_price=101)
        broker.fill(order, 4)
        broker.advance(2)
        assert (order["status"], order["filled_qty"], new["qty"]) == ("replaced", "4", "6")

    def test_off_hours_the_successor_waits(self) -> None:
        broker = FakeBroker(FRIDAY_EVENING)
        order = broker.add_order("AAPL", type="stop", side="sell", stop_price=90, time_in_force="gtc")
        new = broker.replace(order, stop_price=95)
        assert (order["status"], new["status"]) == ("replaced", "accepted")


class TestTime:
    def test_day_orders_end_at_the_close_gtc_orders_do_not(self, broker: FakeBroker) -> None:
        day, gtc = broker.add_order("AAPL"), broker.add_order("AAPL", time_in_force="gtc")
        broker.now = "2026-11-18T20:59:59Z"
        assert day["status"] == "new"
        broker.advance(2)
        assert (day["status"], day["expired_at"][:19], gtc["status"]) == ("expired", "2026-11-18T21:00:00", "new")

    def test_gtc_orders_age(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", time_in_force="gtc")
        assert order["expires_at"] == "2027-02-16T21:00:00Z"
        broker.now = "2027-02-16T21:14:00Z"
        assert order["status"] == "new"
        broker.now = "2027-02-16T21:15:00Z"
        assert order["status"] == "canceled"

    def test_an_order_stored_with_a_past_end_stays_as_it_is(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", at="2026-11-10T15:00:00Z", status="done_for_day")
        broker.advance(days=2)
        assert order["status"] == "done_for_day"

    def test_clock_and_half_day(self) -> None:
        broker = FakeBroker("2026-11-27T17:59:59.25Z")
        clock = ask(broker, "GET", "/v2/clock")[1]
        assert clock == {
            "timestamp": "2026-11-27T12:59:59.25-05:00",
            "is_open": True,
            "next_open": "2026-11-30T09:30:00-05:00",
            "next_close": "2026-11-27T13:00:00-05:00",
        }
        broker.advance(1)
        assert not ask(broker, "GET", "/v2/clock")[1]["is_open"]

    def test_calendar_skips_holidays(self, broker: FakeBroker) -> None:
        days = ask(broker, "GET", "/v2/calendar", start="2026-11-25", end="2026-11-30")[1]
        assert [(d["date"], d["close"], d["settlement_date"]) for d in days] == [
            ("2026-11-25", "16:00", "2026-11-27"),
            ("2026-11-27", "13:00", "2026-11-30"),
            ("2026-11-30", "16:00", "2026-12-01"),
        ]


class TestActivities:
    def test_paging_resumes_exactly(self, broker: FakeBroker) -> None:
        rows = [broker.activity("NC", symbol=f"S{n}")["id"] for n in range(7)]
        first = ids(ask(broker, "GET", "/v2/account/activities", direction="asc", page_size="3")[1])
        rest = ids(ask(broker, "GET", "/v2/account/activities", direction="asc", page_token=first[-1])[1])
        assert first + rest == rows
        newest = ids(ask(broker, "GET", "/v2/account/activities", page_size="2")[1])
        assert newest == rows[:-3:-1]
        assert ids(ask(broker, "GET", "/v2/account/activities", page_token=newest[-1])[1]) == rows[:5][::-1]

    def test_filters(self, broker: FakeBroker) -> None:
        broker.open_trade("AAPL", 1, 100, at=DAY_BEFORE)
        broker.activity("OPEXP", symbol="AAPL261218C00250000")
        kinds = [("activity_types", "FILL,OPASN"), ("category", "trade_activity"), ("until", OPEN)]
        for name, value in kinds:
            rows = ask(broker, "GET", "/v2/account/activities", **{name: value})[1]
            assert [row["activity_type"] for row in rows] == ["FILL"]
        assert len(ask(broker, "GET", "/v2/account/activities", date="2026-11-18")[1]) == 1
        assert ask(broker, "GET", "/v2/account/activities", page_size="101")[0] == 422
        assert ask(broker, "GET", "/v2/account/activities", category="fills")[0] == 422

    def test_a_row_may_be_late(self, broker: FakeBroker) -> None:
        broker.activity("OPEXP", after=Delay(seconds=3600), symbol="AAPL261218C00250000")
        assert ask(broker, "GET", "/v2/account/activities")[1] == []
        broker.advance(3600)
        assert len(ask(broker, "GET", "/v2/account/activities")[1]) == 1


class TestCorporateActions:
    def test_forward_split_leaves_the_prices_of_legs(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 5, 500, bracket=(600, 400))
        lone = broker.add_order("AAPL", type="limit", limit_price=300, time_in_force="gtc")
        broker.split("AAPL", 10)
        held = broker.positions["AAPL"]
        assert (held.qty, held.avg_entry_price, broker.market.price_of("AAPL")) == (50, 50, 50)
        assert broker.order(lone["replaced_by"])["limit_price"] == "30"
        stop = broker.order(broker.legs(entry)[1]["replaced_by"])
        assert (stop["qty"], stop["stop_price"]) == ("50", "400")
        assert ask(broker, "GET", "/v2/account/activities/SPLIT")[1][0]["qty"] == "45"

    def test_reverse_split_takes_the_stop_away(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 50, 5, bracket=(6, 4))
        broker.split("AAPL", "0.1")
        assert broker.positions["AAPL"].qty == 5
        assert {leg["status"] for leg in broker.legs(entry)} == {"canceled"}

    def test_rename(self, broker: FakeBroker) -> None:
        broker.open_trade("FB", 5, 300)
        before = broker.positions["FB"].asset_id
        broker.rename("FB", "META")
        assert broker.positions["META"].asset_id == before
        assert ask(broker, "GET", "/v2/assets/FB")[0] == 404
        broker.rename("META", "MVRS", new_asset=True)
        assert broker.positions["MVRS"].asset_id != before
        assert broker.activity("NC")["activity_type"] == "NC"


class TestAccount:
    def test_values_follow_positions_and_prices(self, broker: FakeBroker) -> None:
        broker.add_position("AAPL", 10, 100)
        broker.add_position("TSLA", -2, 50)
        broker.set_price("AAPL", 120)
        account = ask(broker, "GET", "/v2/account")[1]
        assert (account["long_market_value"], account["short_market_value"]) == ("1200", "-100")

    def test_overrides(self, broker: FakeBroker) -> None:
        broker.account |= {"status": "ACCOUNT_CLOSED", "equity": MISSING}
        account = ask(broker, "GET", "/v2/account")[1]
        assert account["status"] == "ACCOUNT_CLOSED"
        assert "equity" not in account

    def test_a_new_account_knows_nothing(self, broker: FakeBroker) -> None:
        entry = broker.open_trade("AAPL", 10, 100)
        before = ask(broker, "GET", "/v2/account")[1]["id"]
        broker.market.new_account()
        assert ask(broker, "GET", "/v2/account")[1]["id"] != before
        assert ask(broker, "GET", f"/v2/orders/{entry['id']}")[0] == 404
        assert ask(broker, "GET", "/v2/positions")[1] == []


class TestStaleness:
    def test_the_state_before_the_last_change(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=10)
        broker.fill(order, price=100)
        with broker.market.stale():
            assert broker.orders[order["id"]]["status"] == "new"
            assert broker.positions == {}
            assert broker.market.activities == []
        assert broker.orders[order["id"]] is order
        assert broker.positions["AAPL"].qty == 10


def test_ids_depend_on_the_seed_alone() -> None:
    first, again, other = (FakeBroker(OPEN, seed=seed).add_order("AAPL")["id"] for seed in (7, 7, 8))
    assert first == again != other
