"""Auto-manage in trouble: races, stuck cancels, half-filled closes, an app that writes meanwhile."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.gateway.looking import Looker
from ghostclean.errors import StateFailed
from ghostclean.result import ManageOutcome
from tests.fakebroker import NEVER
from tests.office import Office
from tests.timing import SLACK

LATE = "2026-11-18T20:50:00Z"


def late(office: Office, price: float = 101) -> dict[str, Any]:
    """One protected trade in the last minutes of the day."""
    office.fake.now = LATE
    office.trade("t1", "AAPL", 10, 100, stop=95)
    stop = office.stop_order("AAPL", 10, 95)
    office.edit("t1", stopOrderId=stop["id"])
    office.fake.set_price("AAPL", price)
    return stop


# --------------------------------------------------------------------------- while a close is on its way


def test_a_stop_that_fills_while_it_is_being_cancelled(office: Office) -> None:
    stop = late(office)
    office.fake.before_request(
        lambda r: office.fake.fill(stop, None, 95) if r.label == "cancel" and stop["status"] == "new" else None
    )
    result = office.run(eod_flatten=True)
    assert (office.fake.count("submit"), dict(office.fake.positions)) == (0, {})
    record = office.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "stop_loss", 95)
    assert result.flattened == 0
    with closing(office.state()) as state:
        assert state.recall("flatten") == {}


def test_a_stop_that_fills_in_part_while_it_is_being_cancelled(office: Office) -> None:
    stop = late(office)
    office.fake.before_request(
        lambda r: office.fake.fill(stop, 4, 95) if r.label == "cancel" and stop["status"] == "new" else None
    )
    office.run(eod_flatten=True)
    assert office.stops("AAPL") == [("6", "95")]  # six are left, and the fresh fill forbids a close
    office.fake.advance(minutes=5)
    office.fake.set_price("AAPL", 101)
    result = office.run(eod_flatten=True)
    assert (result.flattened, dict(office.fake.positions)) == (1, {})
    record = office.record("t1")
    assert (record["closeReason"], record["realizedPnL"]) == ("eod_flatten", -14)


def test_a_cancel_that_sticks_is_waited_for_by_later_runs(office: Office) -> None:
    late(office)
    office.fake.quirks.cancel_delay = NEVER
    for _ in range(2):
        result = office.run(eod_flatten=True)
        assert result.outcome is ManageOutcome.FAIL
    assert office.fake.count("submit") == 0
    office.fake.set_status(office.fake.working("AAPL")[0], "canceled")
    result = office.run(eod_flatten=True)
    assert (result.flattened, dict(office.fake.positions)) == (1, {})


def test_a_close_that_fills_in_part_and_is_cancelled_gives_the_rest_its_stop_back(office: Office) -> None:
    late(office)
    office.fake.quirks.fill_ratio = Decimal("0.4")

    def cancel_the_rest(request: Any) -> None:
        close = office.fake.orders.get(
            next((i for i, o in office.fake.orders.items() if o["type"] == "market" and o["side"] == "sell"), "")
        )
        if close is not None and close["status"] == "partially_filled" and request.label == "order":
            office.fake.set_status(close, "canceled")

    office.fake.before_request(cancel_the_rest)
    result = office.run(eod_flatten=True)
    assert (result.outcome, result.reason) == (ManageOutcome.FAIL, "close_refused")
    assert office.stops("AAPL") == [("6", "95")]
    assert office.record("t1")["status"] == "OPEN"


def test_a_bracket_gets_stop_and_target_back(office: Office) -> None:
    office.fake.now = LATE
    office.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    office.fake.set_price("AAPL", 101)
    denied = {"code": 40310000, "message": "denied"}
    office.fake.fault(lambda r: r.label == "submit" and r.body["type"] == "market", 403, body=denied)
    office.run(eod_flatten=True)
    working = {(o["type"], o["limit_price"] or o["stop_price"]) for o in office.fake.working("AAPL")}
    assert working == {("limit", "130"), ("stop", "95")}


def test_a_stop_that_is_through_the_market_when_it_should_go_back(office: Office) -> None:
    late(office)
    office.fake.set_price("AAPL", 101)
    denied = {"code": 40310000, "message": "denied"}
    refused = office.fake.fault(lambda r: r.label == "submit" and r.body["type"] == "market", 403, body=denied)
    office.fake.after_request("cancel", lambda _: office.fake.set_price("AAPL", 94))
    result = office.run(eod_flatten=True)
    assert (result.outcome, office.stops("AAPL")) == (ManageOutcome.FAIL, [])
    assert refused is not None
    office.fake.clear_faults()
    office.fake.advance(minutes=5)
    office.fake.set_price("AAPL", 94)
    assert office.run(eod_flatten=True).flattened == 1


def test_an_unknown_close_is_looked_up_by_the_next_run(office: Office) -> None:
    late(office)
    office.fake.fault(lambda r: r.label == "submit", "lost_answer")
    office.fake.fault(lambda r: "by_client_order_id" in r.path and office.fake.count("submit") > 0, 500)
    assert office.run(eod_flatten=True).reason == "close_unknown"
    assert office.fake.count("submit") == 1
    office.fake.clear_faults()
    office.fake.advance(minutes=5)
    office.run(eod_flatten=True)
    assert office.fake.count("submit") == 1
    office.fake.advance(minutes=1)
    office.run(eod_flatten=True)
    assert office.fake.count("submit") == 1
    assert office.record("t1")["closeReason"] == "eod_flatten"


def test_a_kill_between_the_targets_cancel_and_the_oco(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.edit("t1", takeProfitOrderId=office.limit_order("AAPL", 10, 120)["id"])

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OrderGateway, "restore", die)
        with pytest.raises(KeyboardInterrupt):
            office.run()
    office.free_lock()
    assert office.fake.working("AAPL") == []
    office.run()
    oco = office.fake.order(office.client_id("t1", "oco", 1))
    assert (oco["limit_price"], office.stops("AAPL")) == ("120", [("10", "95")])


# --------------------------------------------------------------------------- others in the house


def test_a_shared_stop_is_not_moved(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.trade("t2", "AAPL", 20, 100, stop=95)
    office.stop_order("AAPL", 30, 95)
    office.fake.set_price("AAPL", 106)
    result = office.run()
    assert (result.outcome, office.stops("AAPL")) == (ManageOutcome.SUCCESS, [("30", "95")])


def test_one_trades_stop_moves_and_its_neighbours_stays(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.trade("t2", "AAPL", 20, 104, stop=99)
    office.run()
    office.fake.set_price("AAPL", 105.5)
    office.run()
    assert sorted(office.stops("AAPL")) == [("10", "100"), ("20", "99")]


def test_the_apps_edit_survives_our_write(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.before_request(lambda r: office.edit("t1", note="by the app") if r.label == "submit" else None)
    office.run()
    record = office.record("t1")
    assert (record["note"], record["stopOrderId"]) == ("by the app", office.fake.working("AAPL")[0]["id"])


def test_a_trade_the_app_closed_meanwhile_is_not_written(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.before_request(lambda r: office.edit("t1", status="CLOSED") if r.label == "submit" else None)
    office.run()
    assert "stopOrderId" not in office.record("t1")


def test_one_trades_trouble_is_not_the_others(office: Office) -> None:
    for name, symbol in (("t1", "AAPL"), ("t2", "MSFT")):
        office.trade(name, symbol, 10, 100, stop=95)
    office.fake.fault(lambda r: r.label == "asset" and "AAPL" in r.path, "cut")
    office.fake.fault(
        lambda r: r.label == "submit" and r.body["symbol"] == "AAPL",
        422,
        body={"code": 42210000, "message": "sub-penny increment"},
    )
    result = office.run()
    assert (result.reason, office.stops("MSFT"), office.stops("AAPL")) == ("naked", [("10", "95")], [])


def test_a_stop_that_grows_with_its_entry(office: Office) -> None:
    entry = office.limit_order("AAPL", 10, 100, side="buy")
    office.fake.set_price("AAPL", 101)
    office.fake.fill(entry, 4, 100, "2026-11-18T15:00:00Z")
    office.put(
        {
            "id": "t1",
            "ticker": "AAPL",
            "status": "OPEN",
            "quantity": 10,
            "entryPrice": 100,
            "stopPrice": 95,
            "alpacaOrderId": entry["id"],
            "createdAt": "2026-11-18T15:00:00Z",
        }
    )
    stop = office.stop_order("AAPL", 4, 95)  # the app protected its first part
    office.edit("t1", stopOrderId=stop["id"])
    assert office.run().outcome is ManageOutcome.SUCCESS
    office.fake.fill(entry, 6, 100)
    office.run()
    assert office.stops("AAPL") == [("10", "95")]
    assert office.fake.count("submit") == 0


def test_a_taken_name_is_looked_up(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    taken = {"code": 40010001, "message": "client_order_id must be unique"}
    office.fake.fault("submit", 422, times=1, body=taken)
    assert office.run().reason == "naked"
    assert office.run().outcome is ManageOutcome.SUCCESS


# --------------------------------------------------------------------------- time


def test_little_deadline_starts_no_close(office: Office) -> None:
    late(office)
    result = office.run(eod_flatten=True, seconds=19)
    assert (result.flattened, office.stops("AAPL")) == (0, [("10", "95")])
    assert any("less than 20 s" in note for note in result.notes)


def test_no_deadline_is_partial_and_exit_six(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    result = office.run(seconds=5)
    assert (result.reason, result.exit_code, office.fake.count("submit")) == ("deadline_exceeded", 6, 0)


def test_naked_positions_come_first(office: Office) -> None:
    office.trade("a", "AAPL", 10, 100, stop=95)
    office.run()
    office.fake.set_price("AAPL", 106)
    office.trade("b", "MSFT", 10, 100, stop=95)
    office.fake.reset_log()
    office.run()
    labels = [r.label for r in office.fake.requests if r.label in ("submit", "replace")]
    assert labels == ["submit", "replace"]


def test_a_hanging_broker_cannot_outlive_the_deadline(office: Office) -> None:
    import time

    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.fault("submit", "hang")
    began = time.monotonic()
    result = office.run(seconds=8)
    assert time.monotonic() - began < 8 + SLACK
    assert not result.ok


# --------------------------------------------------------------------------- what a close leaves behind


def half_filled(office: Office, qty: float = 6) -> None:
    """A close of the day that filled in part before its run ended."""
    late(office)
    office.fake.now = "2026-11-18T20:58:30Z"
    office.fake.set_price("AAPL", 101)
    office.fake.quirks.fill_delay = NEVER

    def fill(request: Any) -> None:
        closes = [o for o in office.fake.working("AAPL") if o["type"] == "market"]
        if request.label == "order" and closes and closes[0]["filled_qty"] == "0":
            office.fake.fill(closes[0], qty, 101)

    office.fake.before_request(fill)
    office.run(eod_flatten=True)


def test_what_a_close_left_is_protected_at_once_in_a_closed_market_and_inside_the_grace(office: Office) -> None:
    half_filled(office)
    office.fake.now = "2026-11-18T21:00:10Z"  # the close expired; its fill is younger than the grace
    result = office.run(eod_flatten=True)
    assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.FAIL, "eod_missed", 1)
    assert office.stops("AAPL") == [("4", "95")]
    assert [o["type"] for o in office.fake.working("AAPL")] == ["stop"]
    with closing(office.state()) as state:
        assert state.recall("flatten") == {}
    office.fake.advance(minutes=5)
    office.run(eod_flatten=True)
    record = office.record("t1")
    assert (record["status"], record["quantity"], record["realizedPnL"]) == ("OPEN", 4, 6)


def test_a_filled_close_that_is_not_booked_yet_is_no_failure(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.fake.open_trade("AAPL", 20, 99, at="2026-11-16T15:00:00Z")  # bought by hand
    late(office)
    with monkeypatch.context() as patch:
        patch.setattr(OrderGateway, "took_all", lambda *_: False)
        office.run(eod_flatten=True)
    assert office.record("t1")["status"] == "OPEN"  # the position could still show what the fill has taken
    office.fake.advance(seconds=30)
    result = office.run(eod_flatten=True)
    assert result.exit_code == 0
    assert any("booked once it is settled" in note for note in result.notes)
    office.fake.advance(minutes=3)
    office.run(eod_flatten=True)
    assert office.record("t1")["closeReason"] == "eod_flatten"


def test_a_close_is_booked_in_its_own_run_whoever_else_holds_the_symbol(office: Office) -> None:
    office.fake.open_trade("AAPL", 20, 99, at="2026-11-16T15:00:00Z")  # bought by hand
    late(office)
    office.trade("t2", "AAPL", 5, 100, stop=94)
    office.fake.set_price("AAPL", 101)
    result = office.run(eod_flatten=True)
    assert result.flattened == 2
    assert office.fake.positions["AAPL"].qty == 20
    for name, won in (("t1", 10), ("t2", 5)):
        record = office.record(name)
        assert (record["closeReason"], record["closePrice"], record["realizedPnL"]) == ("eod_flatten", 101, won)


@pytest.mark.parametrize("status", ["canceled", "expired"])
def test_the_ledger_does_not_keep_a_close_that_filled_nothing(office: Office, status: str) -> None:
    late(office)
    office.fake.quirks.fill_delay = NEVER
    seen = []

    def end(request: Any) -> None:
        closes = [o for o in office.fake.working("AAPL") if o["type"] == "market"]
        if request.label == "order" and closes:
            seen.append(office.record("t1").get("closeOrderId"))
            if len(seen) == 3:
                office.fake.set_status(closes[0], status)

    office.fake.before_request(end)
    result = office.run(eod_flatten=True)
    assert (result.reason, office.stops("AAPL")) == ("close_refused", [("10", "95")])
    assert seen[-1] is not None
    assert office.record("t1")["closeOrderId"] is None


def test_a_close_that_waits_comes_after_others_with_a_maximum(office: Office) -> None:
    office.trade("a", "AAPL", 10, 100, stop=95)
    office.limit_order("AAPL", 10, 110)  # nobody's: it holds the shares
    office.trade("m", "MSFT", 10, 100, stop=95)
    for _ in range(2):
        office.fake.set_price("AAPL", 94)
        office.fake.set_price("MSFT", 100)
        result = office.run(cut_loss_enabled=True, max_per_run=1)
        office.fake.advance(minutes=5)
        if result.reason == "naked":
            assert any("naked: its stop 95 is through the market" in note for note in result.notes)
    assert office.stops("MSFT") == [("10", "95")]


def test_a_pending_cancel_is_not_asked_for_again(office: Office) -> None:
    late(office)
    office.fake.quirks.cancel_delay = NEVER
    office.run(eod_flatten=True)
    office.fake.advance(minutes=5)
    result = office.run(eod_flatten=True)
    assert (result.reason, office.fake.count("cancel"), office.fake.count("submit")) == ("close_waits", 1, 0)


def test_little_deadline_leaves_the_stop_of_an_unfinished_close(office: Office) -> None:
    late(office)
    with closing(office.state()) as state:
        begun = {"purpose": "eod", "at": LATE, "stop": "95", "target": None, "symbol": "AAPL"}
        state.remember("flatten", {"t1": begun})
    result = office.run(eod_flatten=True, seconds=15)
    assert (result.reason, office.fake.count("cancel")) == ("flatten_unfinished", 0)
    assert office.stops("AAPL") == [("10", "95")]


@pytest.mark.parametrize(
    ("later", "stops", "status"),
    [("2026-11-18T20:55:00Z", [], "CLOSED"), ("2026-11-19T15:00:00Z", [("10", "95")], "OPEN")],
)
def test_what_version_0_1_remembered_of_a_flatten_is_finished(
    office: Office, later: str, stops: list[tuple[str, str]], status: str
) -> None:
    """As 0.1 stored it, killed between the cancel and the close."""
    stop = late(office)
    with closing(office.state()) as state:
        begun = {"purpose": "eod", "at": "2026-11-18T20:50:00.123Z", "stop": "95", "target": None, "symbol": "AAPL"}
        state.remember("flatten", {"t1": begun})
    office.fake.cancel(stop["id"])
    office.fake.now = later
    office.fake.set_price("AAPL", 101)
    office.run(eod_flatten=True)
    assert (office.stops("AAPL"), office.record("t1")["status"]) == (stops, status)
    with closing(office.state()) as state:
        assert state.recall("flatten") == {}


@pytest.mark.parametrize("trouble", ["broker", "state"])
def test_a_close_that_cannot_even_be_sent_gives_the_stop_back(
    office: Office, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    stop = late(office)
    if trouble == "broker":
        office.fake.fault(
            lambda r: "by_client_order_id" in r.path and "-eod-" in str(r.query) and stop["status"] == "canceled", 503
        )
    remember = SqliteState.remember

    def fail(self: SqliteState, section: str, values: Any) -> None:
        if trouble == "state" and stop["status"] == "canceled":
            raise StateFailed("gone")
        remember(self, section, values)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteState, "remember", fail)
        result = office.run(eod_flatten=True, seconds=30)
    assert not result.ok
    assert office.stops("AAPL") == [("10", "95")]
    office.fake.clear_faults()
    office.fake.advance(minutes=3)
    office.free_lock()
    office.run(eod_flatten=True)
    assert (office.record("t1")["closeReason"], dict(office.fake.positions)) == ("eod_flatten", {})


# --------------------------------------------------------------------------- the last seconds, and one run's patience


def test_the_last_seconds_miss_the_window_and_move_nothing(office: Office) -> None:
    late(office)
    office.fake.now = "2026-11-18T20:59:50Z"
    office.fake.set_price("AAPL", 111)  # the stop is due at 105
    result = office.run(eod_flatten=True)
    assert (result.reason, result.exit_code) == ("eod_missed", 1)
    assert office.fake.count("replace") + office.fake.count("cancel") + office.fake.count("submit") == 0


def test_the_last_seconds_still_protect_a_naked_trade(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.now = "2026-11-18T20:59:50Z"
    office.fake.set_price("AAPL", 101)
    assert office.run(eod_flatten=True).reason == "eod_missed"
    assert office.stops("AAPL") == [("10", "95")]


def test_a_trade_without_times_misses_the_window_too(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.edit("t1", createdAt=None, openedAt=None)
    office.fake.now = "2026-11-18T21:10:00Z"
    assert office.run(eod_flatten=True).reason == "eod_missed"


def test_a_firing_stop_that_covers_a_part_is_left_alone_for_one_run_too(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    stop = office.stop_order("AAPL", 6, 95, type="stop_limit", limit_price=95)  # triggered, and nobody buys at 95
    office.edit("t1", stopOrderId=stop["id"])
    office.fake.set_price("AAPL", 94)
    office.run(cut_loss_enabled=True)
    assert office.fake.count("submit") + office.fake.count("cancel") + office.fake.count("replace") == 0
    office.fake.advance(minutes=5)
    office.fake.set_price("AAPL", 94)
    assert office.run(cut_loss_enabled=True).flattened == 1


# --------------------------------------------------------------------------- names and answers


def test_a_stop_beside_one_that_covers_a_part_has_a_name_of_its_own(office: Office) -> None:
    office.trade("t1", "AAPL", 10.5, 100, stop=95)
    stop = office.stop_order("AAPL", 10, 95, client_order_id=office.client_id("t1", "stop", 1))
    office.edit("t1", stopOrderId=stop["id"])
    office.fake.set_price("AAPL", 101)
    office.run()
    assert office.stops("AAPL") == [("10", "95"), ("0.5", "95")]
    assert office.fake.order(office.client_id("t1", "rest", 1))["time_in_force"] == "day"
    assert office.record("t1")["stopOrderId"] == stop["id"]
    assert (office.run().updated, office.fake.count("submit")) == (0, 1)


def test_a_replacement_whose_answer_and_name_are_lost_is_found_by_the_old_order(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", 100)
    office.run()
    office.fake.set_price("AAPL", 106)
    office.fake.fault("replace", "lost_answer", times=1)
    asked = []

    def count(request: Any) -> None:
        if "by_client_order_id" in request.path and office.fake.count("replace"):
            asked.append(request)

    office.fake.before_request(count)
    result = office.run()
    assert (result.updated, office.stops("AAPL"), office.record("t1")["stopPrice"]) == (1, [("10", "100")], 100)
    assert not asked  # the old order names its successor; no look-up by a name that may lag


# --------------------------------------------------------------------------- reasons


def test_a_blocked_account_is_no_failure_where_nothing_would_be_sent(office: Office) -> None:
    office.fake.account["trading_blocked"] = True
    assert office.run().reason == "no_open_trades"
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.set_price("AAPL", 101)
    assert (office.run().reason, office.fake.count("submit")) == ("account_blocked", 0)
    office.fake.now = "2026-11-18T23:00:00Z"
    assert office.run().reason == "market_closed"


def test_an_unexpected_error_is_a_failure_with_a_record(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oops")

    office.trade("t1", "AAPL", 10, 100, stop=95)
    monkeypatch.setattr(Looker, "view", broken)
    office.fake.set_price("AAPL", 101)
    result = office.run()
    assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.FAIL, "auto_manage_failed", 1)
    with closing(office.state()) as state:
        summary = state.telemetry("auto-manage", 1).summary
    assert (summary["runs"], summary["success"], summary["fail"], summary["skipped"]) == ("1", "0", "1", "0")


def test_a_flatten_ends_the_rest_of_its_own_entry_first(office: Office) -> None:
    office.fake.now = LATE
    office.fake.set_price("AAPL", 100)
    entry = office.fake.submit(
        symbol="AAPL", qty=10, side="buy", type="limit", limit_price=90, time_in_force="gtc", order_class="bracket",
        take_profit={"limit_price": 120}, stop_loss={"stop_price": 85},
    )  # fmt: skip
    office.fake.fill(entry, 4, 90, at="2026-11-18T20:40:00Z")
    office.put({
        "id": "t1", "ticker": "AAPL", "side": "LONG", "status": "OPEN", "quantity": 10, "entryPrice": 90,
        "stopPrice": 85, "alpacaOrderId": entry["id"], "createdAt": "2026-11-18T20:00:00Z",
    })  # fmt: skip
    dry = office.run(eod_flatten=True, dry_run=True)
    assert [order["do"] for order in dry.orders][-1:] == ["submit"]
    assert (office.fake.count("cancel"), entry["status"]) == (0, "partially_filled")
    result = office.run(eod_flatten=True)
    assert (result.flattened, dict(office.fake.positions), office.fake.working()) == (1, {}, [])
    assert entry["status"] == "canceled"
    record = office.record("t1")
    assert (record["status"], record["closeReason"], record["realizedPnL"]) == ("CLOSED", "eod_flatten", 40)


def test_force_makes_no_stop_smaller_in_a_closed_market(office: Office) -> None:
    office.trade("t1", "AAPL", 10, 100, stop=95)
    office.fake.open_trade("AAPL", 5, 99, at="2026-11-16T15:00:00Z")  # bought by hand
    stop = office.stop_order("AAPL", 15, 95)
    office.edit("t1", stopOrderId=stop["id"])
    office.fake.now = "2026-11-18T23:00:00Z"
    office.fake.set_price("AAPL", 101)
    office.run(force=True)
    assert (office.fake.count("replace"), office.stops("AAPL")) == (0, [("15", "95")])
    office.fake.now = "2026-11-19T15:00:00Z"
    office.fake.set_price("AAPL", 101)
    office.run()
    assert office.stops("AAPL") == [("10", "95")]
