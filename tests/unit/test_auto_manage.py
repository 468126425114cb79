"""Auto-manage, run by run: through the real adapter against the fake broker over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ghostclean.app.order_door import OrderDoor
from ghostclean.core.client_ids import client_id
from ghostclean.manage_result import ManageOutcome
from tests.fakebroker import NEVER, Delay
from tests.unit.managing import Office, office


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as opened:
        yield opened


def sent(desk: Office) -> int:
    return sum(desk.fake.count(what) for what in ("submit", "replace", "cancel", "close"))


# --------------------------------------------------------------------------- placing


def test_a_missing_stop_is_placed_once(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", 101)
    result = desk.run()
    assert (result.outcome, result.exit_code, result.checked, result.updated) == (ManageOutcome.SUCCESS, 0, 1, 1)
    assert desk.stops("AAPL") == [("10", "95")]
    order = desk.fake.order(client_id("t1", "stop", 1))
    assert (order["type"], order["time_in_force"], order["side"]) == ("stop", "gtc", "sell")
    record = desk.record("t1")
    assert (record["stopOrderId"], record["stopPrice"], record["initialStopPrice"]) == (order["id"], 95, 95)
    before, written = sent(desk), desk.path.read_text()
    again = desk.run()
    assert (again.outcome, again.updated, sent(desk)) == (ManageOutcome.SUCCESS, 0, before)
    assert desk.path.read_text() == written


def test_a_dry_run_sends_nothing_and_shows_the_order(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    written = desk.path.read_text()
    result = desk.run(dry_run=True)
    assert sent(desk) == 0
    assert desk.path.read_text() == written
    assert result.orders[0] | {"reason": ""} == {
        "do": "submit", "tradeId": "t1", "symbol": "AAPL", "purpose": "stop", "side": "sell", "qty": "10",
        "type": "stop", "orderClass": "simple", "timeInForce": "gtc", "stopPrice": "95",
        "clientOrderId": client_id("t1", "stop", 1), "outcome": "would_send", "reason": "",
    }  # fmt: skip


def test_a_short_gets_its_stop_above(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=104.999, side="SHORT")
    desk.run()
    assert [(o["side"], o["stop_price"]) for o in desk.fake.working("AAPL")] == [("buy", "105")]


def test_only_the_trades_own_shares_are_protected(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.open_trade("AAPL", 30, 100, at="2026-11-17T16:00:00Z")  # bought by hand
    desk.run()
    assert desk.stops("AAPL") == [("10", "95")]


def test_two_trades_of_one_symbol_get_a_stop_each(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.trade("t2", "AAPL", 20, 100, stop=96)
    desk.run()
    assert sorted(desk.stops("AAPL")) == [("10", "95"), ("20", "96")]


def test_fractional_shares_get_a_day_stop_and_a_new_one_in_the_morning(desk: Office) -> None:
    desk.trade("t1", "AAPL", 1.5, 100, stop=95)
    desk.run()
    first = desk.fake.order(client_id("t1", "stop", 1))
    assert (first["qty"], first["time_in_force"]) == ("1.5", "day")
    desk.fake.now = "2026-11-19T15:00:00Z"
    desk.fake.set_price("AAPL", 101)
    assert first["status"] == "expired"
    desk.run()
    assert desk.fake.order(client_id("t1", "stop", 2))["status"] == "new"


def test_crypto_gets_a_stop_limit_whenever(desk: Office) -> None:
    desk.fake.now = "2026-11-21T17:00:00Z"  # a Saturday
    desk.trade("t1", "BTC/USD", 0.5, 60000, stop=58000)
    desk.fake.set_price("BTC/USD", 60500)
    result = desk.run()
    assert result.outcome is ManageOutcome.SUCCESS
    order = desk.fake.order(client_id("t1", "stop", 1))
    assert (order["type"], order["time_in_force"], order["stop_price"], order["limit_price"]) == (
        "stop_limit", "gtc", "58000", "57420",
    )  # fmt: skip
    assert float(order["qty"]) <= 0.49875


def test_options_never_get_orders(desk: Office) -> None:
    desk.trade("t1", "AAPL270115C00200000", 1, 5, stop=3)
    result = desk.run()
    assert sent(desk) == 0
    assert any("options never get orders" in note for note in result.notes)


def test_a_stop_through_the_market_is_never_sent(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", 94)
    for _ in range(2):
        result = desk.run()
        assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.FAIL, "naked", 1)
    assert sent(desk) == 0


def test_a_stop_through_the_market_is_a_close_with_cut_loss(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", 94)
    result = desk.run(cut_loss_enabled=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 1)
    record = desk.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "cut_loss", 94)
    assert (record["realizedPnL"], record["realizedR"]) == (-60, -1.2)


def test_without_a_price_a_trade_is_left_alone(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", None, bid=101, ask=0)
    result = desk.run()
    assert sent(desk) == 0
    assert any("no price" in note for note in result.notes)


def test_a_stale_price_is_no_price(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", 101, at="2026-11-18T16:40:00Z")
    assert any("no price" in note for note in desk.run().notes)


# --------------------------------------------------------------------------- moving


def test_break_even_lock_and_trail_by_replacing(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    first = desk.fake.order(client_id("t1", "stop", 1))["id"]
    for price, stop in ((105, 100), (110, 105), (113, 112.43)):
        desk.fake.set_price("AAPL", price)
        result = desk.run(trail_enabled=True)
        assert (result.outcome, result.updated) == (ManageOutcome.SUCCESS, 1)
        assert desk.stops("AAPL") == [("10", f"{stop:g}")]
        assert desk.record("t1")["stopPrice"] == stop
        assert desk.record("t1")["initialStopPrice"] == 95
    assert (desk.fake.count("replace"), desk.fake.count("cancel"), desk.fake.count("submit")) == (3, 0, 1)
    assert desk.fake.order(first)["status"] == "replaced"
    desk.fake.set_price("AAPL", 104)
    desk.run(trail_enabled=True)
    assert desk.record("t1")["status"] == "CLOSED"
    assert desk.record("t1")["closeReason"] == "stop_loss"


def test_a_bracket_leg_is_moved_and_its_target_stays(desk: Office) -> None:
    entry = desk.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    desk.fake.set_price("AAPL", 106)
    result = desk.run()
    assert (result.outcome, result.updated) == (ManageOutcome.SUCCESS, 1)
    assert desk.stops("AAPL") == [("10", "100")]
    assert [leg["limit_price"] for leg in desk.fake.legs(entry) if leg["status"] == "new"] == ["130"]
    assert desk.record("t1")["stopPrice"] == 100


def test_a_healthy_bracket_is_not_naked(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    result = desk.run()
    assert (result.outcome, sent(desk)) == (ManageOutcome.SUCCESS, 0)
    assert not any("naked" in note for note in result.notes)


def test_an_app_that_moved_the_stop_itself_wins_when_tighter(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=97, initialStopPrice=95)
    desk.stop_order("AAPL", 10, 98)
    desk.run()
    assert desk.stops("AAPL") == [("10", "98")]
    assert desk.record("t1")["stopPrice"] == 98


def test_a_replace_that_loses_the_race(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    stop = desk.fake.order(client_id("t1", "stop", 1))
    desk.fake.set_price("AAPL", 106)
    desk.fake.before_request(
        lambda request: desk.fake.fill(stop["id"], None, 95) if request.label == "replace" else None
    )
    result = desk.run()
    assert any("filled meanwhile" in note for note in result.notes)
    assert desk.fake.count("submit") == 1
    record = desk.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "stop_loss", 95)


def test_a_trailing_stop_is_left_alone_and_noted_once(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.stop_order("AAPL", 10, 86, type="trailing_stop", trail_price="20")
    desk.fake.set_price("AAPL", 106)
    noted = [sum("trailing stop" in note for note in desk.run().notes) for _ in range(2)]
    assert noted == [1, 0]
    assert sent(desk) == 0


def test_a_stop_about_to_age_out_is_renewed_one_tick_tighter(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.stop_order("AAPL", 10, 95, expires_at="2026-11-22T21:15:00Z")
    desk.run()
    assert desk.stops("AAPL") == [("10", "95.01")]


def test_an_unknown_initial_stop_only_protects(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=100, initialStopPrice=100)
    desk.fake.set_price("AAPL", 150)
    result = desk.run()
    assert desk.stops("AAPL") == [("10", "100")]
    assert any("less than 0.05 %" in note for note in result.notes)


def test_a_stop_that_sells_too_much_is_made_smaller(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    stop = desk.fake.order(client_id("t1", "stop", 1))
    stop["qty"] = "12"
    desk.run()
    assert desk.stops("AAPL") == [("10", "95")]


# --------------------------------------------------------------------------- who holds the shares


def test_the_trades_own_target_becomes_one_oco(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    target = desk.limit_order("AAPL", 10, 120)
    desk.edit("t1", takeProfitOrderId=target["id"])
    result = desk.run()
    assert result.outcome is ManageOutcome.SUCCESS
    oco = desk.fake.order(client_id("t1", "oco", 1))
    assert (oco["order_class"], oco["limit_price"], oco["status"]) == ("oco", "120", "new")
    assert desk.stops("AAPL") == [("10", "95")]
    record = desk.record("t1")
    assert record["takeProfitOrderId"] == oco["id"]
    assert record["stopOrderId"] == desk.fake.legs(oco)[0]["id"]
    before = sent(desk)
    assert (desk.run().outcome, sent(desk)) == (ManageOutcome.SUCCESS, before)


def test_a_foreign_order_that_holds_the_shares_is_reported(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    foreign = desk.limit_order("AAPL", 10, 120)
    result = desk.run()
    assert (result.reason, sent(desk)) == ("naked", 0)
    assert any(foreign["id"] in note for note in result.notes)


def test_a_partly_filled_entry_is_reported_and_no_failure(desk: Office) -> None:
    entry = desk.limit_order("AAPL", 10, 100, side="buy", order_class="bracket")
    desk.fake.add_leg(entry, limit_price=120)
    desk.fake.add_leg(entry, stop_price=95)
    desk.fake.set_price("AAPL", 101)
    desk.fake.fill(entry, 4, 100, "2026-11-18T16:01:00Z")
    desk.put({"id": "t1", "ticker": "AAPL", "status": "OPEN", "quantity": 10, "entryPrice": 100, "stopPrice": 95,
              "alpacaOrderId": entry["id"], "createdAt": "2026-11-18T16:00:00Z"})  # fmt: skip
    for _ in range(2):
        result = desk.run()
        assert result.outcome is ManageOutcome.SUCCESS
        assert any("naked" in note for note in result.notes)
    assert sent(desk) == 0


def test_a_stop_cancelled_a_moment_ago_is_the_apps_business(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.cancel(client_id("t1", "stop", 1))
    assert any("within the grace" in note for note in desk.run().notes)
    desk.fake.advance(minutes=5)
    desk.fake.set_price("AAPL", 101)
    desk.run()
    assert desk.fake.order(client_id("t1", "stop", 2))["status"] == "new"


def test_no_order_beside_a_fresh_closing_fill(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.open_trade("AAPL", 5, 100, at="2026-11-17T16:00:00Z")
    desk.fake.sell("AAPL", 5, 106)  # by hand, this second
    desk.fake.set_price("AAPL", 106)
    result = desk.run()
    assert desk.fake.count("replace") == 0
    assert any("younger than the grace" in note for note in result.notes)


# --------------------------------------------------------------------------- cut loss


def test_cut_loss_cancels_closes_and_books(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=80, initialStopPrice=95)
    desk.stop_order("AAPL", 10, 80)
    desk.fake.set_price("AAPL", 94.5)
    result = desk.run(cut_loss_enabled=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 1)
    record = desk.record("t1")
    assert (record["closeReason"], record["closePrice"], record["realizedPnL"]) == ("cut_loss", 94.5, -55)
    assert record["closeOrderId"] == desk.fake.order(client_id("t1", "cut", 1))["id"]
    assert desk.fake.working("AAPL") == []
    with_state = desk.state()
    assert [e.action for e in with_state.journal(trade_id="t1")][-3:].count("closed") == 1
    assert with_state.recall("flatten") == {}
    with_state.close()


def test_a_stop_at_the_market_is_the_cut_for_one_run(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.stop_order("AAPL", 10, 95, type="stop_limit", limit_price=95)  # triggered, and nobody buys at 95
    desk.fake.set_price("AAPL", 94)
    first = desk.run(cut_loss_enabled=True)
    assert (first.flattened, sent(desk)) == (0, 0)
    desk.fake.advance(minutes=5)
    desk.fake.set_price("AAPL", 94)
    assert desk.run(cut_loss_enabled=True).flattened == 1


# --------------------------------------------------------------------------- end of the day


def test_eod_flatten_on_a_half_day(desk: Office) -> None:
    desk.fake.now = "2026-11-27T17:40:00Z"  # the Friday after Thanksgiving closes at 13:00
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.trade("t2", "MSFT", 5, 50, stop=45, bracket=(60, 45))
    desk.trade("t3", "BTC/USD", 1, 60000, stop=50000)
    for symbol, price in (("AAPL", 101), ("MSFT", 52), ("BTC/USD", 60000)):
        desk.fake.set_price(symbol, price)
    assert desk.run(eod_flatten=True).flattened == 0
    desk.fake.now = "2026-11-27T17:50:00Z"
    for symbol, price in (("AAPL", 101), ("MSFT", 52), ("BTC/USD", 60000)):
        desk.fake.set_price(symbol, price)
    result = desk.run(eod_flatten=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 2)
    for name, pnl in (("t1", 10), ("t2", 10)):
        record = desk.record(name)
        assert (record["status"], record["closeReason"], record["realizedPnL"]) == ("CLOSED", "eod_flatten", pnl)
    assert desk.record("t3")["status"] == "OPEN"
    assert set(desk.fake.positions) == {"BTCUSD"}


def test_two_trades_of_one_symbol_are_flattened_in_one_run(desk: Office) -> None:
    desk.fake.now = "2026-11-18T20:50:00Z"
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.trade("t2", "AAPL", 20, 100, stop=96)
    desk.fake.set_price("AAPL", 101)
    result = desk.run(eod_flatten=True)
    assert (result.flattened, dict(desk.fake.positions)) == (2, {})
    assert [r["closeReason"] for r in desk.records()] == ["eod_flatten", "eod_flatten"]


def test_a_close_that_is_refused_puts_the_stop_back(desk: Office) -> None:
    desk.fake.now = "2026-11-18T20:50:00Z"
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.stop_order("AAPL", 10, 95)
    desk.fake.set_price("AAPL", 101)
    denied = {"code": 40310100, "message": "trade denied due to pattern day trading protection"}
    desk.fake.fault(lambda r: r.label == "submit" and r.body["type"] == "market", 403, body=denied)
    result = desk.run(eod_flatten=True)
    assert (result.outcome, result.reason) == (ManageOutcome.FAIL, "close_refused")
    assert desk.stops("AAPL") == [("10", "95")]
    assert desk.record("t1")["status"] == "OPEN"


def test_a_window_that_was_missed_is_a_failure(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    desk.fake.now = "2026-11-18T21:05:00Z"
    result = desk.run(eod_flatten=True)
    assert (result.outcome, result.reason, result.exit_code, sent(desk)) == (ManageOutcome.FAIL, "eod_missed", 1, 0)


def test_nothing_is_touched_in_the_last_seconds(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.now = "2026-11-18T20:59:50Z"
    desk.fake.set_price("AAPL", 101)
    before = sent(desk)
    desk.run(eod_flatten=True)
    assert sent(desk) == before


def test_a_partly_filled_close_is_in_progress_and_never_sent_again(desk: Office) -> None:
    desk.fake.now = "2026-11-18T20:50:00Z"
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", 101)
    desk.fake.quirks.fill_ratio = Decimal("0.4")
    for _ in range(2):
        result = desk.run(eod_flatten=True)
        assert any("in progress" in note for note in result.notes)
        assert desk.record("t1")["status"] == "OPEN"
    assert desk.fake.count("submit") == 1
    desk.fake.fill(client_id("t1", "eod", 1), 6, 101)
    desk.run(eod_flatten=True)
    record = desk.record("t1")
    assert (record["status"], record["closeReason"], record["realizedPnL"]) == ("CLOSED", "eod_flatten", 10)


# --------------------------------------------------------------------------- killed in between


class Killed(BaseException):
    """The process ends here."""


def kill(monkeypatch: pytest.MonkeyPatch, desk: Office, method: str, *, after: bool = False, **manage: Any) -> None:
    """A run that dies at the first call of a method of the door (or right after it)."""
    original = getattr(OrderDoor, method)

    def die(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(OrderDoor, method, die)
        with pytest.raises(Killed):
            desk.run(**manage)
    # its lock ends by itself, at most ten seconds after its deadline
    with closing(desk.state()) as state:
        info = state.lock_info()
        assert info is not None
        assert info.seconds_left <= 70
    desk.free_lock()


def test_an_interrupted_run_gives_its_lock_back_and_is_listed_but_not_counted(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(desk)

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OrderDoor, "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            desk.run(eod_flatten=True)
    with closing(desk.state()) as state:
        assert state.lock_info() is None
        known = state.telemetry("auto-manage", 5)
    assert "runs" not in known.summary
    assert known.runs[0]["outcome"] == "FAIL"


def before_the_close(desk: Office) -> None:
    desk.fake.now = "2026-11-18T20:50:00Z"
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.stop_order("AAPL", 10, 95)
    desk.fake.set_price("AAPL", 101)


def test_a_kill_between_cancel_and_close_is_finished_by_the_next_run(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(desk)
    kill(monkeypatch, desk, "close", eod_flatten=True)
    assert desk.stops("AAPL") == []
    desk.fake.advance(minutes=5)
    result = desk.run(eod_flatten=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 1)
    assert desk.record("t1")["closeReason"] == "eod_flatten"


def test_it_is_finished_even_when_the_engine_is_disabled_meanwhile(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(desk)
    kill(monkeypatch, desk, "close", eod_flatten=True)
    result = desk.run(enabled=False)
    assert (result.outcome, result.reason, result.flattened) == (ManageOutcome.SKIP, "disabled", 1)


@pytest.mark.parametrize("later", ["2026-11-18T21:00:30Z", "2026-11-19T14:35:00Z"])
def test_too_late_to_finish_puts_the_stop_back(desk: Office, monkeypatch: pytest.MonkeyPatch, later: str) -> None:
    before_the_close(desk)
    kill(monkeypatch, desk, "close", eod_flatten=True)
    desk.fake.now = later
    desk.fake.set_price("AAPL", 101)
    result = desk.run(eod_flatten=True)
    assert desk.stops("AAPL") == [("10", "95")]
    assert result.reason == "eod_missed"
    assert desk.fake.count("submit") == 1
    with closing(desk.state()) as state:
        assert state.recall("flatten") == {}


def test_a_close_queued_for_the_next_open_is_cancelled_and_the_stop_put_back(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(desk)
    desk.fake.quirks.accept_delay = NEVER
    kill(monkeypatch, desk, "settle", eod_flatten=True)
    desk.fake.quirks.accept_delay = Delay()
    close = desk.fake.order(client_id("t1", "eod", 1))
    close["expires_at"] = None  # it slipped behind the close
    desk.fake.now = "2026-11-18T21:01:00Z"
    assert close["status"] == "pending_new"
    desk.run(eod_flatten=True)
    assert close["status"] == "canceled"
    assert desk.stops("AAPL") == [("10", "95")]


def test_a_kill_after_the_close_is_booked_as_what_it_was(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    before_the_close(desk)
    kill(monkeypatch, desk, "close", after=True, eod_flatten=True)
    assert dict(desk.fake.positions) == {}
    assert "closeOrderId" not in desk.record("t1")
    desk.fake.advance(minutes=5)
    desk.run(enabled=False)
    record = desk.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "eod_flatten", 101)


def test_a_kill_after_the_replace_leaves_a_ledger_that_is_put_right(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.set_price("AAPL", 106)
    kill(monkeypatch, desk, "move", after=True)
    assert desk.record("t1")["stopPrice"] == 95
    desk.run()
    assert desk.record("t1")["stopPrice"] == 100
    assert desk.fake.count("replace") == 1


# --------------------------------------------------------------------------- answers that get lost


def test_an_order_whose_answer_is_lost_is_found_by_its_name(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.fault("submit", "lost_answer", times=1)
    result = desk.run()
    assert (result.outcome, desk.fake.count("submit")) == (ManageOutcome.SUCCESS, 1)
    assert desk.stops("AAPL") == [("10", "95")]


def test_an_order_that_cannot_be_found_is_sent_again_by_the_next_run_only(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.fault("submit", 500, times=1)
    result = desk.run()
    assert (result.reason, desk.fake.count("submit")) == ("naked", 1)
    desk.run()
    names = [r.body["client_order_id"] for r in desk.fake.requests if r.label == "submit"]
    assert names == [client_id("t1", "stop", 1)] * 2
    assert desk.stops("AAPL") == [("10", "95")]


def test_a_lost_answer_to_a_replace(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.set_price("AAPL", 106)
    desk.fake.fault("replace", "lost_answer", times=1)
    desk.run()
    assert (desk.fake.count("replace"), desk.stops("AAPL")) == (1, [("10", "100")])
    assert desk.record("t1")["stopPrice"] == 100


def test_a_refusal_is_not_repeated_for_ever(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.fault("submit", 403, body={"code": 40310000, "message": "potential wash trade detected"})
    for _ in range(5):
        assert desk.run().reason == "naked"
    assert desk.fake.count("submit") == 3


# --------------------------------------------------------------------------- reasons to skip and to fail


def test_disabled_still_reconciles(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.sell("AAPL", 10, 110, at="2026-11-18T15:00:00Z")
    result = desk.run(enabled=False)
    assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.SKIP, "disabled", 0)
    assert result.to_dict()["reconcile"]["closed"] == 1
    assert desk.record("t1")["status"] == "CLOSED"


def test_no_open_trades(desk: Office) -> None:
    result = desk.run()
    assert (result.outcome, result.reason, result.ok) == (ManageOutcome.SKIP, "no_open_trades", True)


def test_market_closed_lists_the_naked_ones_and_force_protects_them(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.now = "2026-11-18T22:00:00Z"
    result = desk.run()
    assert (result.outcome, result.reason, sent(desk)) == (ManageOutcome.SKIP, "market_closed", 0)
    assert any("naked" in note and "t1" in note for note in result.notes)
    assert desk.run(force=True, cut_loss_enabled=True).outcome is ManageOutcome.SUCCESS
    assert desk.stops("AAPL") == [("10", "95")]


def test_force_never_closes_in_a_closed_market(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.now = "2026-11-18T22:00:00Z"
    desk.fake.set_price("AAPL", 90)
    assert desk.run(force=True, cut_loss_enabled=True).reason == "naked"
    assert sent(desk) == 0


def test_without_the_clock_nothing_is_sent(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.fault("clock", 500)
    result = desk.run()
    assert (result.outcome, result.reason, result.exit_code, sent(desk)) == (
        ManageOutcome.FAIL,
        "clock_unavailable",
        1,
        0,
    )


def test_without_broker_truth_nothing_is_sent(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.fault("positions", 500)
    result = desk.run()
    assert (result.outcome, result.reason, result.exit_code, sent(desk)) == (
        ManageOutcome.FAIL,
        "broker_truth_failed",
        3,
        0,
    )


def test_a_blocked_account_gets_no_orders(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.account["trading_blocked"] = True
    result = desk.run()
    assert (result.reason, sent(desk)) == ("account_blocked", 0)


def test_locked(desk: Office) -> None:
    with closing(desk.state()) as state:
        lease = state.acquire("somebody", 100)
        assert lease is not None
        result = desk.run()
        assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.SKIP, "locked", 7)
        assert state.telemetry("auto-manage", 5).summary == {}
        assert len(state.telemetry("auto-manage", 5).runs) == 1


def test_locked_for_longer_than_the_deadline(desk: Office) -> None:
    with closing(desk.state()) as state:
        assert state.acquire("somebody", 100) is not None
        assert desk.run(seconds=1).reason == "locked"


def test_an_asset_that_is_not_tradable_gets_no_order(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    asset = dict(desk.fake.market.asset("AAPL") or {})
    desk.fake.market.assets["AAPL"] = asset | {"tradable": False}
    result = desk.run()
    assert (result.reason, sent(desk)) == ("naked", 0)


def test_held_trades_get_no_order(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.positions["AAPL"].qty = -10
    result = desk.run()
    assert sent(desk) == 0
    assert any("mismatch" in note for note in result.notes)


# --------------------------------------------------------------------------- housekeeping


def test_the_stop_of_a_closed_trade_is_cancelled(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.sell("AAPL", 10, 110)
    desk.fake.advance(minutes=5)
    result = desk.run()
    assert desk.record("t1")["status"] == "CLOSED"
    assert result.reason == "no_open_trades"
    desk.fake.advance(minutes=5)
    desk.run()
    assert desk.fake.working("AAPL") == []


def test_the_longest_unmanaged_come_first(desk: Office) -> None:
    for n in range(5):
        desk.trade(f"t{n}", f"SYM{n}", 10, 100, stop=95)
    for expected in (2, 4, 5):
        result = desk.run(max_per_run=2)
        assert result.checked == 2
        assert sum(bool(desk.stops(f"SYM{n}")) for n in range(5)) == expected


def test_telemetry_counts_outcomes_and_reasons(desk: Office) -> None:
    desk.run()
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.fault("clock", 500)
    desk.run()
    desk.run(dry_run=True)
    with closing(desk.state()) as state:
        told = state.telemetry("auto-manage", 10)
    summary = dict(told.summary)
    assert {k: summary[k] for k in ("runs", "success", "skipped", "fail")} == {
        "runs": "3", "success": "1", "skipped": "1", "fail": "1",
    }  # fmt: skip
    assert (summary["reason:no_open_trades"], summary["reason:clock_unavailable"]) == ("1", "1")
    assert (summary["lastOutcome"], summary["lastReason"], summary["lastRunId"]) == (
        "FAIL",
        "clock_unavailable",
        "run-3",
    )
    assert [run["outcome"] for run in told.runs] == ["FAIL", "FAIL", "SUCCESS", "SKIP"]
    assert told.runs[0]["dryRun"] is True


def test_a_new_price_is_written_and_not_journaled(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    with closing(desk.state()) as state:
        before = len(state.journal(trade_id="t1"))
    desk.fake.set_price("AAPL", 102)
    desk.run()
    assert (desk.record("t1")["lastPrice"], desk.record("t1")["unrealizedR"]) == (102, 0.4)
    with closing(desk.state()) as state:
        assert len(state.journal(trade_id="t1")) == before


def test_the_journal_tells_every_decision_with_its_numbers(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.set_price("AAPL", 106)
    desk.run()
    with closing(desk.state()) as state:
        entries = state.journal(trade_id="t1")
        assert state.intents() == []
    moved = [e for e in entries if e.action == "stop_moved"]
    assert [e.outcome for e in moved] == ["written"]
    assert any(p.get("stopPrice") == "100" for e in moved for p in e.proof)
