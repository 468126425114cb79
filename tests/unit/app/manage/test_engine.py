"""Auto-manage, run by run: through the real adapter against the fake broker over HTTP."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.result import ManageOutcome
from tests.fakebroker import NEVER, Delay
from tests.office import Office


def sent(office: Office) -> int:
    return sum(office.fake.count(what) for what in ("submit", "replace", "cancel", "close"))


# --------------------------------------------------------------------------- placing


def test_a_missing_stop_is_placed_once(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", 101)
    result = office.run()
    assert (result.outcome, result.exit_code, result.checked, result.updated) == (ManageOutcome.SUCCESS, 0, 1, 1)
    assert office.stops("AAPL") == [("10", "95")]
    order = office.fake.order(office.client_id("t1", "stop", 1))
    assert (order["type"], order["time_in_force"], order["side"]) == ("stop", "gtc", "sell")
    record = office.record("t1")
    assert (record["stopOrderId"], record["stopPrice"], record["initialStopPrice"]) == (order["id"], 95, 95)
    before, written = sent(office), office.path.read_text()
    again = office.run()
    assert (again.outcome, again.updated, sent(office)) == (ManageOutcome.SUCCESS, 0, before)
    assert office.path.read_text() == written


def test_a_dry_run_sends_nothing_and_shows_the_order(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    written = office.path.read_text()
    result = office.run(dry_run=True)
    assert sent(office) == 0
    assert office.path.read_text() == written
    assert result.orders[0] | {"reason": ""} == {
        "do": "submit", "tradeId": "t1", "symbol": "AAPL", "purpose": "stop", "side": "sell", "qty": "10",
        "type": "stop", "orderClass": "simple", "timeInForce": "gtc", "stopPrice": "95",
        "clientOrderId": office.client_id("t1", "stop", 1), "outcome": "would_send", "reason": "",
    }  # fmt: skip


def test_a_short_gets_its_stop_above(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=104.999, side="SHORT")
    office.run()
    assert [(o["side"], o["stop_price"]) for o in office.fake.working("AAPL")] == [("buy", "105")]


def test_only_the_trades_own_shares_are_protected(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.open_trade("AAPL", 30, 100, at="2026-11-17T16:00:00Z")  # bought by hand
    office.run()
    assert office.stops("AAPL") == [("10", "95")]


def test_two_trades_of_one_symbol_get_a_stop_each(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.trade("t2", "AAPL", 20, 100, stop=96)
    office.run()
    assert sorted(office.stops("AAPL")) == [("10", "95"), ("20", "96")]


def test_fractional_shares_get_a_day_stop_and_a_new_one_in_the_morning(office: Office) -> None:
    office.trade("t1", "AAPL", 1.5, 100, stop=95)
    office.run()
    first = office.fake.order(office.client_id("t1", "stop", 1))
    assert (first["qty"], first["time_in_force"]) == ("1.5", "day")
    office.fake.now = "2026-11-19T15:00:00Z"
    office.fake.set_price("AAPL", 101)
    assert first["status"] == "expired"
    office.run()
    assert office.fake.order(office.client_id("t1", "stop", 2))["status"] == "new"


def test_crypto_gets_a_stop_limit_whenever(office: Office) -> None:
    office.fake.now = "2026-11-21T17:00:00Z"  # a Saturday
    office.trade("t1", "BTC/USD", 0.5, 60000, stop=58000)
    office.fake.set_price("BTC/USD", 60500)
    result = office.run()
    assert result.outcome is ManageOutcome.SUCCESS
    order = office.fake.order(office.client_id("t1", "stop", 1))
    assert (order["type"], order["time_in_force"], order["stop_price"], order["limit_price"]) == (
        "stop_limit", "gtc", "58000", "57420",
    )  # fmt: skip
    assert float(order["qty"]) <= 0.49875


def test_options_never_get_orders(office: Office) -> None:
    office.trade("t1", "AAPL270115C00200000", 1, 5, stop=3)
    result = office.run()
    assert sent(office) == 0
    assert any("options never get orders" in note for note in result.notes)


def test_a_stop_through_the_market_is_never_sent(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", 94)
    for _ in range(2):
        result = office.run()
        assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.FAIL, "naked", 1)
    assert sent(office) == 0


def test_a_stop_through_the_market_is_a_close_with_cut_loss(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", 94)
    result = office.run(cut_loss_enabled=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 1)
    record = office.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "cut_loss", 94)
    assert (record["realizedPnL"], record["realizedR"]) == (-60, -1.2)


def test_without_a_price_a_trade_is_left_alone(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", None, bid=101, ask=0)
    result = office.run()
    assert sent(office) == 0
    assert any("no price" in note for note in result.notes)


def test_a_stale_price_is_no_price(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", 101, at="2026-11-18T16:40:00Z")
    assert any("no price" in note for note in office.run().notes)


# --------------------------------------------------------------------------- moving


def test_break_even_lock_and_trail_by_replacing(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    first = office.fake.order(office.client_id("t1", "stop", 1))["id"]
    for price, stop in ((105, 100), (110, 105), (113, 112.43)):
        office.fake.set_price("AAPL", price)
        result = office.run(trail_enabled=True)
        assert (result.outcome, result.updated) == (ManageOutcome.SUCCESS, 1)
        assert office.stops("AAPL") == [("10", f"{stop:g}")]
        assert office.record("t1")["stopPrice"] == stop
        assert office.record("t1")["initialStopPrice"] == 95
    assert (office.fake.count("replace"), office.fake.count("cancel"), office.fake.count("submit")) == (3, 0, 1)
    assert office.fake.order(first)["status"] == "replaced"
    office.fake.set_price("AAPL", 104)
    office.run(trail_enabled=True)
    assert office.record("t1")["status"] == "CLOSED"
    assert office.record("t1")["closeReason"] == "stop_loss"


def test_a_bracket_leg_is_moved_and_its_target_stays(office: Office) -> None:
    entry = office.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    office.fake.set_price("AAPL", 106)
    result = office.run()
    assert (result.outcome, result.updated) == (ManageOutcome.SUCCESS, 1)
    assert office.stops("AAPL") == [("10", "100")]
    assert [leg["limit_price"] for leg in office.fake.legs(entry) if leg["status"] == "new"] == ["130"]
    assert office.record("t1")["stopPrice"] == 100


def test_a_healthy_bracket_is_not_naked(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    result = office.run()
    assert (result.outcome, sent(office)) == (ManageOutcome.SUCCESS, 0)
    assert not any("naked" in note for note in result.notes)


def test_an_app_that_moved_the_stop_itself_wins_when_tighter(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=97, initialStopPrice=95)
    office.stop_order("AAPL", 10, 98)
    office.run()
    assert office.stops("AAPL") == [("10", "98")]
    assert office.record("t1")["stopPrice"] == 98


def test_a_replace_that_loses_the_race(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    stop = office.fake.order(office.client_id("t1", "stop", 1))
    office.fake.set_price("AAPL", 106)
    office.fake.before_request(
        lambda request: office.fake.fill(stop["id"], None, 95) if request.label == "replace" else None
    )
    result = office.run()
    assert any("filled meanwhile" in note for note in result.notes)
    assert office.fake.count("submit") == 1
    record = office.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "stop_loss", 95)


def test_a_trailing_stop_is_left_alone_and_noted_once(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.stop_order("AAPL", 10, 86, type="trailing_stop", trail_price="20")
    office.fake.set_price("AAPL", 106)
    noted = [sum("trailing stop" in note for note in office.run().notes) for _ in range(2)]
    assert noted == [1, 0]
    assert sent(office) == 0


def test_a_stop_about_to_age_out_is_renewed_one_tick_tighter(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.stop_order("AAPL", 10, 95, expires_at="2026-11-22T21:15:00Z")
    office.run()
    assert office.stops("AAPL") == [("10", "95.01")]


def test_an_unknown_initial_stop_only_protects(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=100, initialStopPrice=100)
    office.fake.set_price("AAPL", 150)
    result = office.run()
    assert office.stops("AAPL") == [("10", "100")]
    assert any("less than 0.05 %" in note for note in result.notes)


def test_a_stop_that_sells_too_much_is_made_smaller(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    stop = office.fake.order(office.client_id("t1", "stop", 1))
    stop["qty"] = "12"
    office.run()
    assert office.stops("AAPL") == [("10", "95")]


# --------------------------------------------------------------------------- who holds the shares


def test_the_trades_own_target_becomes_one_oco(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    target = office.limit_order("AAPL", 10, 120)
    office.edit("t1", takeProfitOrderId=target["id"])
    result = office.run()
    assert result.outcome is ManageOutcome.SUCCESS
    oco = office.fake.order(office.client_id("t1", "oco", 1))
    assert (oco["order_class"], oco["limit_price"], oco["status"]) == ("oco", "120", "new")
    assert office.stops("AAPL") == [("10", "95")]
    record = office.record("t1")
    assert record["takeProfitOrderId"] == oco["id"]
    assert record["stopOrderId"] == office.fake.legs(oco)[0]["id"]
    before = sent(office)
    assert (office.run().outcome, sent(office)) == (ManageOutcome.SUCCESS, before)


def test_a_foreign_order_that_holds_the_shares_is_reported(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    foreign = office.limit_order("AAPL", 10, 120)
    result = office.run()
    assert (result.reason, sent(office)) == ("naked", 0)
    assert any(foreign["id"] in note for note in result.notes)


def test_a_partly_filled_entry_is_reported_and_no_failure(office: Office) -> None:
    entry = office.limit_order("AAPL", 10, 100, side="buy", order_class="bracket")
    office.fake.add_leg(entry, limit_price=120)
    office.fake.add_leg(entry, stop_price=95)
    office.fake.set_price("AAPL", 101)
    office.fake.fill(entry, 4, 100, "2026-11-18T16:01:00Z")
    office.put({"id": "t1", "ticker": "AAPL", "status": "OPEN", "quantity": 10, "entryPrice": 100, "stopPrice": 95,
              "alpacaOrderId": entry["id"], "createdAt": "2026-11-18T16:00:00Z"})  # fmt: skip
    for _ in range(2):
        result = office.run()
        assert result.outcome is ManageOutcome.SUCCESS
        assert any("naked" in note for note in result.notes)
    assert sent(office) == 0


def test_a_stop_cancelled_a_moment_ago_is_the_apps_business(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.cancel(office.client_id("t1", "stop", 1))
    assert any("within the grace" in note for note in office.run().notes)
    office.fake.advance(minutes=5)
    office.fake.set_price("AAPL", 101)
    office.run()
    assert office.fake.order(office.client_id("t1", "stop", 2))["status"] == "new"


def test_no_order_beside_a_fresh_closing_fill(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.open_trade("AAPL", 5, 100, at="2026-11-17T16:00:00Z")
    office.fake.sell("AAPL", 5, 106)  # by hand, this second
    office.fake.set_price("AAPL", 106)
    result = office.run()
    assert office.fake.count("replace") == 0
    assert any("younger than the grace" in note for note in result.notes)


# --------------------------------------------------------------------------- cut loss


def test_cut_loss_cancels_closes_and_books(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=80, initialStopPrice=95)
    office.stop_order("AAPL", 10, 80)
    office.fake.set_price("AAPL", 94.5)
    result = office.run(cut_loss_enabled=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 1)
    record = office.record("t1")
    assert (record["closeReason"], record["closePrice"], record["realizedPnL"]) == ("cut_loss", 94.5, -55)
    assert record["closeOrderId"] == office.fake.order(office.client_id("t1", "cut", 1))["id"]
    assert office.fake.working("AAPL") == []
    with_state = office.state()
    assert [e.action for e in with_state.journal(trade_id="t1")][-3:].count("closed") == 1
    assert with_state.recall("flatten") == {}
    with_state.close()


def test_a_stop_at_the_market_is_the_cut_for_one_run(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.stop_order("AAPL", 10, 95, type="stop_limit", limit_price=95)  # triggered, and nobody buys at 95
    office.fake.set_price("AAPL", 94)
    first = office.run(cut_loss_enabled=True)
    assert (first.flattened, sent(office)) == (0, 0)
    office.fake.advance(minutes=5)
    office.fake.set_price("AAPL", 94)
    assert office.run(cut_loss_enabled=True).flattened == 1


# --------------------------------------------------------------------------- end of the day


def test_eod_flatten_on_a_half_day(office: Office) -> None:
    office.fake.now = "2026-11-27T17:40:00Z"  # the Friday after Thanksgiving closes at 13:00
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.trade("t2", "MSFT", 5, 50, stop=45, bracket=(60, 45))
    office.trade("t3", "BTC/USD", 1, 60000, stop=50000)
    for symbol, price in (("AAPL", 101), ("MSFT", 52), ("BTC/USD", 60000)):
        office.fake.set_price(symbol, price)
    assert office.run(eod_flatten=True).flattened == 0
    office.fake.now = "2026-11-27T17:50:00Z"
    for symbol, price in (("AAPL", 101), ("MSFT", 52), ("BTC/USD", 60000)):
        office.fake.set_price(symbol, price)
    result = office.run(eod_flatten=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 2)
    for name, pnl in (("t1", 10), ("t2", 10)):
        record = office.record(name)
        assert (record["status"], record["closeReason"], record["realizedPnL"]) == ("CLOSED", "eod_flatten", pnl)
    assert office.record("t3")["status"] == "OPEN"
    assert set(office.fake.positions) == {"BTCUSD"}


def test_two_trades_of_one_symbol_are_flattened_in_one_run(office: Office) -> None:
    office.fake.now = "2026-11-18T20:50:00Z"
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.trade("t2", "AAPL", 20, 100, stop=96)
    office.fake.set_price("AAPL", 101)
    result = office.run(eod_flatten=True)
    assert (result.flattened, dict(office.fake.positions)) == (2, {})
    assert [r["closeReason"] for r in office.records()] == ["eod_flatten", "eod_flatten"]


def test_a_close_that_is_refused_puts_the_stop_back(office: Office) -> None:
    office.fake.now = "2026-11-18T20:50:00Z"
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.stop_order("AAPL", 10, 95)
    office.fake.set_price("AAPL", 101)
    denied = {"code": 40310100, "message": "trade denied due to pattern day trading protection"}
    office.fake.fault(lambda r: r.label == "submit" and r.body["type"] == "market", 403, body=denied)
    result = office.run(eod_flatten=True)
    assert (result.outcome, result.reason) == (ManageOutcome.FAIL, "close_refused")
    assert office.stops("AAPL") == [("10", "95")]
    assert office.record("t1")["status"] == "OPEN"


def test_a_window_that_was_missed_is_a_failure(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    office.fake.now = "2026-11-18T21:05:00Z"
    result = office.run(eod_flatten=True)
    assert (result.outcome, result.reason, result.exit_code, sent(office)) == (ManageOutcome.FAIL, "eod_missed", 1, 0)


def test_nothing_is_touched_in_the_last_seconds(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.now = "2026-11-18T20:59:50Z"
    office.fake.set_price("AAPL", 101)
    before = sent(office)
    office.run(eod_flatten=True)
    assert sent(office) == before


def test_a_partly_filled_close_is_in_progress_and_never_sent_again(office: Office) -> None:
    office.fake.now = "2026-11-18T20:50:00Z"
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", 101)
    office.fake.quirks.fill_ratio = Decimal("0.4")
    for _ in range(2):
        result = office.run(eod_flatten=True)
        assert any("in progress" in note for note in result.notes)
        assert office.record("t1")["status"] == "OPEN"
    assert office.fake.count("submit") == 1
    office.fake.fill(office.client_id("t1", "eod", 1), 6, 101)
    office.run(eod_flatten=True)
    record = office.record("t1")
    assert (record["status"], record["closeReason"], record["realizedPnL"]) == ("CLOSED", "eod_flatten", 10)


# --------------------------------------------------------------------------- killed in between


class Killed(BaseException):
    """The process ends here."""


def kill(monkeypatch: pytest.MonkeyPatch, office: Office, method: str, *, after: bool = False, **manage: Any) -> None:
    """A run that dies at the first call of a method of the gateway (or right after it)."""
    original = getattr(OrderGateway, method)

    def die(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(OrderGateway, method, die)
        with pytest.raises(Killed):
            office.run(**manage)
    # its lock ends by itself, at most ten seconds after its deadline
    with closing(office.state()) as state:
        info = state.lock_info()
        assert info is not None
        assert info.seconds_left <= 70
    office.free_lock()


def test_an_interrupted_run_gives_its_lock_back_and_is_listed_but_not_counted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(office)

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OrderGateway, "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            office.run(eod_flatten=True)
    with closing(office.state()) as state:
        assert state.lock_info() is None
        known = state.telemetry("auto-manage", 5)
    assert "runs" not in known.summary
    assert known.runs[0]["outcome"] == "FAIL"


def before_the_close(office: Office) -> None:
    office.fake.now = "2026-11-18T20:50:00Z"
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.stop_order("AAPL", 10, 95)
    office.fake.set_price("AAPL", 101)


def test_a_kill_between_cancel_and_close_is_finished_by_the_next_run(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(office)
    kill(monkeypatch, office, "close", eod_flatten=True)
    assert office.stops("AAPL") == []
    office.fake.advance(minutes=5)
    result = office.run(eod_flatten=True)
    assert (result.outcome, result.flattened) == (ManageOutcome.SUCCESS, 1)
    assert office.record("t1")["closeReason"] == "eod_flatten"


def test_it_is_finished_even_when_the_engine_is_disabled_meanwhile(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(office)
    kill(monkeypatch, office, "close", eod_flatten=True)
    result = office.run(enabled=False)
    assert (result.outcome, result.reason, result.flattened) == (ManageOutcome.SKIP, "disabled", 1)


@pytest.mark.parametrize("later", ["2026-11-18T21:00:30Z", "2026-11-19T14:35:00Z"])
def test_too_late_to_finish_puts_the_stop_back(office: Office, monkeypatch: pytest.MonkeyPatch, later: str) -> None:
    before_the_close(office)
    kill(monkeypatch, office, "close", eod_flatten=True)
    office.fake.now = later
    office.fake.set_price("AAPL", 101)
    result = office.run(eod_flatten=True)
    assert office.stops("AAPL") == [("10", "95")]
    assert result.reason == "eod_missed"
    assert office.fake.count("submit") == 1
    with closing(office.state()) as state:
        assert state.recall("flatten") == {}


def test_a_close_queued_for_the_next_open_is_cancelled_and_the_stop_put_back(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_close(office)
    office.fake.quirks.accept_delay = NEVER
    kill(monkeypatch, office, "settle", eod_flatten=True)
    office.fake.quirks.accept_delay = Delay()
    close = office.fake.order(office.client_id("t1", "eod", 1))
    close["expires_at"] = None  # it slipped behind the close
    office.fake.now = "2026-11-18T21:01:00Z"
    assert close["status"] == "pending_new"
    office.run(eod_flatten=True)
    assert close["status"] == "canceled"
    assert office.stops("AAPL") == [("10", "95")]


def test_a_kill_after_the_close_is_booked_as_what_it_was(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    before_the_close(office)
    kill(monkeypatch, office, "close", after=True, eod_flatten=True)
    assert dict(office.fake.positions) == {}
    assert "closeOrderId" not in office.record("t1")
    office.fake.advance(minutes=5)
    office.run(enabled=False)
    record = office.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "eod_flatten", 101)


def test_a_kill_after_the_replace_leaves_a_ledger_that_is_put_right(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.set_price("AAPL", 106)
    kill(monkeypatch, office, "move", after=True)
    assert office.record("t1")["stopPrice"] == 95
    office.run()
    assert office.record("t1")["stopPrice"] == 100
    assert office.fake.count("replace") == 1


# --------------------------------------------------------------------------- answers that get lost


def test_an_order_whose_answer_is_lost_is_found_by_its_name(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.fault("submit", "lost_answer", times=1)
    result = office.run()
    assert (result.outcome, office.fake.count("submit")) == (ManageOutcome.SUCCESS, 1)
    assert office.stops("AAPL") == [("10", "95")]


def test_an_order_that_cannot_be_found_is_sent_again_by_the_next_run_only(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.fault("submit", 500, times=1)
    result = office.run()
    assert (result.reason, office.fake.count("submit")) == ("naked", 1)
    office.run()
    names = [r.body["client_order_id"] for r in office.fake.requests if r.label == "submit"]
    assert names == [office.client_id("t1", "stop", 1)] * 2
    assert office.stops("AAPL") == [("10", "95")]


def test_a_lost_answer_to_a_replace(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.set_price("AAPL", 106)
    office.fake.fault("replace", "lost_answer", times=1)
    office.run()
    assert (office.fake.count("replace"), office.stops("AAPL")) == (1, [("10", "100")])
    assert office.record("t1")["stopPrice"] == 100


def test_a_refusal_is_not_repeated_for_ever(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.fault("submit", 403, body={"code": 40310000, "message": "potential wash trade detected"})
    for _ in range(5):
        assert office.run().reason == "naked"
    assert office.fake.count("submit") == 3


# --------------------------------------------------------------------------- reasons to skip and to fail


def test_disabled_still_reconciles(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.sell("AAPL", 10, 110, at="2026-11-18T15:00:00Z")
    result = office.run(enabled=False)
    assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.SKIP, "disabled", 0)
    assert result.to_dict()["reconcile"]["closed"] == 1
    assert office.record("t1")["status"] == "CLOSED"


def test_no_open_trades(office: Office) -> None:
    result = office.run()
    assert (result.outcome, result.reason, result.ok) == (ManageOutcome.SKIP, "no_open_trades", True)


def test_market_closed_lists_the_naked_ones_and_force_protects_them(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.now = "2026-11-18T22:00:00Z"
    result = office.run()
    assert (result.outcome, result.reason, sent(office)) == (ManageOutcome.SKIP, "market_closed", 0)
    assert any("naked" in note and "t1" in note for note in result.notes)
    assert office.run(force=True, cut_loss_enabled=True).outcome is ManageOutcome.SUCCESS
    assert office.stops("AAPL") == [("10", "95")]


def test_force_never_closes_in_a_closed_market(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.now = "2026-11-18T22:00:00Z"
    office.fake.set_price("AAPL", 90)
    assert office.run(force=True, cut_loss_enabled=True).reason == "naked"
    assert sent(office) == 0


def test_without_the_clock_nothing_is_sent(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.fault("clock", 500)
    result = office.run()
    assert (result.outcome, result.reason, result.exit_code, sent(office)) == (
        ManageOutcome.FAIL,
        "clock_unavailable",
        1,
        0,
    )


def test_without_broker_truth_nothing_is_sent(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.fault("positions", 500)
    result = office.run()
    assert (result.outcome, result.reason, result.exit_code, sent(office)) == (
        ManageOutcome.FAIL,
        "broker_truth_failed",
        3,
        0,
    )


def test_a_blocked_account_gets_no_orders(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.account["trading_blocked"] = True
    result = office.run()
    assert (result.reason, sent(office)) == ("account_blocked", 0)


def test_locked(office: Office) -> None:
    with closing(office.state()) as state:
        lease = state.acquire("somebody", 100)
        assert lease is not None
        result = office.run()
        assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.SKIP, "locked", 7)
        assert state.telemetry("auto-manage", 5).summary == {}
        assert len(state.telemetry("auto-manage", 5).runs) == 1


def test_locked_for_longer_than_the_deadline(office: Office) -> None:
    with closing(office.state()) as state:
        assert state.acquire("somebody", 100) is not None
        assert office.run(seconds=1).reason == "locked"


def test_an_asset_that_is_not_tradable_gets_no_order(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    asset = dict(office.fake.market.asset("AAPL") or {})
    office.fake.market.assets["AAPL"] = asset | {"tradable": False}
    result = office.run()
    assert (result.reason, sent(office)) == ("naked", 0)


def test_held_trades_get_no_order(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.positions["AAPL"].qty = -10
    result = office.run()
    assert sent(office) == 0
    assert any("mismatch" in note for note in result.notes)


# --------------------------------------------------------------------------- housekeeping


def test_the_stop_of_a_closed_trade_is_cancelled(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.sell("AAPL", 10, 110)
    office.fake.advance(minutes=5)
    result = office.run()
    assert office.record("t1")["status"] == "CLOSED"
    assert result.reason == "no_open_trades"
    office.fake.advance(minutes=5)
    office.run()
    assert office.fake.working("AAPL") == []


def test_the_longest_unmanaged_come_first(office: Office) -> None:
    for n in range(5):
        office.trade(f"t{n}", f"SYM{n}", 10, 100, stop=95)
    for expected in (2, 4, 5):
        result = office.run(max_per_run=2)
        assert result.checked == 2
        assert sum(bool(office.stops(f"SYM{n}")) for n in range(5)) == expected


def test_telemetry_counts_outcomes_and_reasons(office: Office) -> None:
    office.run()
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.fault("clock", 500)
    office.run()
    office.run(dry_run=True)
    with closing(office.state()) as state:
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


def test_a_new_price_is_written_and_not_journaled(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    with closing(office.state()) as state:
        before = len(state.journal(trade_id="t1"))
    office.fake.set_price("AAPL", 102)
    office.run()
    assert (office.record("t1")["lastPrice"], office.record("t1")["unrealizedR"]) == (102, 0.4)
    with closing(office.state()) as state:
        assert len(state.journal(trade_id="t1")) == before


def test_the_journal_tells_every_decision_with_its_numbers(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.set_price("AAPL", 106)
    office.run()
    with closing(office.state()) as state:
        entries = state.journal(trade_id="t1")
        assert state.intents() == []
    moved = [e for e in entries if e.action == "stop_moved"]
    assert [e.outcome for e in moved] == ["written"]
    assert any(p.get("stopPrice") == "100" for e in moved for p in e.proof)


def test_a_trade_without_a_stop_costs_three_requests(office: Office) -> None:
    for n in range(8):
        office.trade(f"t{n}", f"SYM{n}", 10, 100, stop=95)
    office.fake.reset_log()
    assert office.run(reconcile=False).updated == 8
    stops = [r for r in office.fake.requests if r.label in ("asset", "submit") or (r.label == "order")]
    assert len(stops) == 3 * 8
    assert len(office.fake.requests) - len(stops) < 12


def test_names_that_our_memory_has_lost_are_found_by_the_brokers_refusal(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    for n in (1, 2):
        name = office.client_id("t1", "stop", n)
        office.stop_order("AAPL", 10, 95, client_order_id=name, status="expired", expired_at="2026-11-17T21:00:00Z")
    assert office.run().outcome is ManageOutcome.SUCCESS
    assert office.fake.order(office.client_id("t1", "stop", 3))["status"] == "new"
