"""Auto-manage in trouble: races, stuck cancels, half-filled closes, an app that writes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.gateway.looking import Looker
from ghostclean.errors import StateFailed
from ghostclean.result import ManageOutcome
from tests.fakebroker import NEVER
from tests.timing import SLACK
from tests.unit.managing import Office, office

LATE = "2026-11-18T20:50:00Z"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as opened:
        yield opened


def late(desk: Office, price: float = 101) -> dict[str, Any]:
    """One protected trade in the last minutes of the day."""
    desk.fake.now = LATE
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    stop = desk.stop_order("AAPL", 10, 95)
    desk.edit("t1", stopOrderId=stop["id"])
    desk.fake.set_price("AAPL", price)
    return stop


# --------------------------------------------------------------------------- while a close is on its way


def test_a_stop_that_fills_while_it_is_being_cancelled(desk: Office) -> None:
    stop = late(desk)
    desk.fake.before_request(
        lambda r: desk.fake.fill(stop, None, 95) if r.label == "cancel" and stop["status"] == "new" else None
    )
    result = desk.run(eod_flatten=True)
    assert (desk.fake.count("submit"), dict(desk.fake.positions)) == (0, {})
    record = desk.record("t1")
    assert (record["status"], record["closeReason"], record["closePrice"]) == ("CLOSED", "stop_loss", 95)
    assert result.flattened == 0
    with closing(desk.state()) as state:
        assert state.recall("flatten") == {}


def test_a_stop_that_fills_in_part_while_it_is_being_cancelled(desk: Office) -> None:
    stop = late(desk)
    desk.fake.before_request(
        lambda r: desk.fake.fill(stop, 4, 95) if r.label == "cancel" and stop["status"] == "new" else None
    )
    desk.run(eod_flatten=True)
    assert desk.stops("AAPL") == [("6", "95")]  # six are left, and the fresh fill forbids a close
    desk.fake.advance(minutes=5)
    desk.fake.set_price("AAPL", 101)
    result = desk.run(eod_flatten=True)
    assert (result.flattened, dict(desk.fake.positions)) == (1, {})
    record = desk.record("t1")
    assert (record["closeReason"], record["realizedPnL"]) == ("eod_flatten", -14)


def test_a_cancel_that_sticks_is_waited_for_by_later_runs(desk: Office) -> None:
    late(desk)
    desk.fake.quirks.cancel_delay = NEVER
    for _ in range(2):
        result = desk.run(eod_flatten=True)
        assert result.outcome is ManageOutcome.FAIL
    assert desk.fake.count("submit") == 0
    desk.fake.set_status(desk.fake.working("AAPL")[0], "canceled")
    result = desk.run(eod_flatten=True)
    assert (result.flattened, dict(desk.fake.positions)) == (1, {})


def test_a_close_that_fills_in_part_and_is_cancelled_gives_the_rest_its_stop_back(desk: Office) -> None:
    late(desk)
    desk.fake.quirks.fill_ratio = Decimal("0.4")

    def cancel_the_rest(request: Any) -> None:
        close = desk.fake.orders.get(
            next((i for i, o in desk.fake.orders.items() if o["type"] == "market" and o["side"] == "sell"), "")
        )
        if close is not None and close["status"] == "partially_filled" and request.label == "order":
            desk.fake.set_status(close, "canceled")

    desk.fake.before_request(cancel_the_rest)
    result = desk.run(eod_flatten=True)
    assert (result.outcome, result.reason) == (ManageOutcome.FAIL, "close_refused")
    assert desk.stops("AAPL") == [("6", "95")]
    assert desk.record("t1")["status"] == "OPEN"


def test_a_bracket_gets_stop_and_target_back(desk: Office) -> None:
    desk.fake.now = LATE
    desk.trade("t1", "AAPL", 10, 100, stop=95, bracket=(130, 95))
    desk.fake.set_price("AAPL", 101)
    denied = {"code": 40310000, "message": "denied"}
    desk.fake.fault(lambda r: r.label == "submit" and r.body["type"] == "market", 403, body=denied)
    desk.run(eod_flatten=True)
    working = {(o["type"], o["limit_price"] or o["stop_price"]) for o in desk.fake.working("AAPL")}
    assert working == {("limit", "130"), ("stop", "95")}


def test_a_stop_that_is_through_the_market_when_it_should_go_back(desk: Office) -> None:
    late(desk)
    desk.fake.set_price("AAPL", 101)
    denied = {"code": 40310000, "message": "denied"}
    refused = desk.fake.fault(lambda r: r.label == "submit" and r.body["type"] == "market", 403, body=denied)
    desk.fake.after_request("cancel", lambda _: desk.fake.set_price("AAPL", 94))
    result = desk.run(eod_flatten=True)
    assert (result.outcome, desk.stops("AAPL")) == (ManageOutcome.FAIL, [])
    assert refused is not None
    desk.fake.clear_faults()
    desk.fake.advance(minutes=5)
    desk.fake.set_price("AAPL", 94)
    assert desk.run(eod_flatten=True).flattened == 1


def test_an_unknown_close_is_looked_up_by_the_next_run(desk: Office) -> None:
    late(desk)
    desk.fake.fault(lambda r: r.label == "submit", "lost_answer")
    desk.fake.fault(lambda r: "by_client_order_id" in r.path and desk.fake.count("submit") > 0, 500)
    assert desk.run(eod_flatten=True).reason == "close_unknown"
    assert desk.fake.count("submit") == 1
    desk.fake.clear_faults()
    desk.fake.advance(minutes=5)
    desk.run(eod_flatten=True)
    assert desk.fake.count("submit") == 1
    desk.fake.advance(minutes=1)
    desk.run(eod_flatten=True)
    assert desk.fake.count("submit") == 1
    assert desk.record("t1")["closeReason"] == "eod_flatten"


def test_a_kill_between_the_targets_cancel_and_the_oco(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.edit("t1", takeProfitOrderId=desk.limit_order("AAPL", 10, 120)["id"])

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OrderGateway, "restore", die)
        with pytest.raises(KeyboardInterrupt):
            desk.run()
    desk.free_lock()
    assert desk.fake.working("AAPL") == []
    desk.run()
    oco = desk.fake.order(desk.client_id("t1", "oco", 1))
    assert (oco["limit_price"], desk.stops("AAPL")) == ("120", [("10", "95")])


# --------------------------------------------------------------------------- others in the house


def test_a_shared_stop_is_not_moved(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.trade("t2", "AAPL", 20, 100, stop=95)
    desk.stop_order("AAPL", 30, 95)
    desk.fake.set_price("AAPL", 106)
    result = desk.run()
    assert (result.outcome, desk.stops("AAPL")) == (ManageOutcome.SUCCESS, [("30", "95")])


def test_one_trades_stop_moves_and_its_neighbours_stays(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.trade("t2", "AAPL", 20, 104, stop=99)
    desk.run()
    desk.fake.set_price("AAPL", 105.5)
    desk.run()
    assert sorted(desk.stops("AAPL")) == [("10", "100"), ("20", "99")]


def test_the_apps_edit_survives_our_write(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.before_request(lambda r: desk.edit("t1", note="by the app") if r.label == "submit" else None)
    desk.run()
    record = desk.record("t1")
    assert (record["note"], record["stopOrderId"]) == ("by the app", desk.fake.working("AAPL")[0]["id"])


def test_a_trade_the_app_closed_meanwhile_is_not_written(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.before_request(lambda r: desk.edit("t1", status="CLOSED") if r.label == "submit" else None)
    desk.run()
    assert "stopOrderId" not in desk.record("t1")


def test_one_trades_trouble_is_not_the_others(desk: Office) -> None:
    for name, symbol in (("t1", "AAPL"), ("t2", "MSFT")):
        desk.trade(name, symbol, 10, 100, stop=95)
    desk.fake.fault(lambda r: r.label == "asset" and "AAPL" in r.path, "cut")
    desk.fake.fault(
        lambda r: r.label == "submit" and r.body["symbol"] == "AAPL",
        422,
        body={"code": 42210000, "message": "sub-penny increment"},
    )
    result = desk.run()
    assert (result.reason, desk.stops("MSFT"), desk.stops("AAPL")) == ("naked", [("10", "95")], [])


def test_a_stop_that_grows_with_its_entry(desk: Office) -> None:
    entry = desk.limit_order("AAPL", 10, 100, side="buy")
    desk.fake.set_price("AAPL", 101)
    desk.fake.fill(entry, 4, 100, "2026-11-18T15:00:00Z")
    desk.put(
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
    stop = desk.stop_order("AAPL", 4, 95)  # the app protected its first part
    desk.edit("t1", stopOrderId=stop["id"])
    assert desk.run().outcome is ManageOutcome.SUCCESS
    desk.fake.fill(entry, 6, 100)
    desk.run()
    assert desk.stops("AAPL") == [("10", "95")]
    assert desk.fake.count("submit") == 0


def test_a_taken_name_is_looked_up(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    taken = {"code": 40010001, "message": "client_order_id must be unique"}
    desk.fake.fault("submit", 422, times=1, body=taken)
    assert desk.run().reason == "naked"
    assert desk.run().outcome is ManageOutcome.SUCCESS


# --------------------------------------------------------------------------- time


def test_little_deadline_starts_no_close(desk: Office) -> None:
    late(desk)
    result = desk.run(eod_flatten=True, seconds=19)
    assert (result.flattened, desk.stops("AAPL")) == (0, [("10", "95")])
    assert any("less than 20 s" in note for note in result.notes)


def test_no_deadline_is_partial_and_exit_six(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    result = desk.run(seconds=5)
    assert (result.reason, result.exit_code, desk.fake.count("submit")) == ("deadline_exceeded", 6, 0)


def test_naked_positions_come_first(desk: Office) -> None:
    desk.trade("a", "AAPL", 10, 100, stop=95)
    desk.run()
    desk.fake.set_price("AAPL", 106)
    desk.trade("b", "MSFT", 10, 100, stop=95)
    desk.fake.reset_log()
    desk.run()
    labels = [r.label for r in desk.fake.requests if r.label in ("submit", "replace")]
    assert labels == ["submit", "replace"]


def test_a_hanging_broker_cannot_outlive_the_deadline(desk: Office) -> None:
    import time

    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.fault("submit", "hang")
    began = time.monotonic()
    result = desk.run(seconds=8)
    assert time.monotonic() - began < 8 + SLACK
    assert not result.ok


# --------------------------------------------------------------------------- what a close leaves behind


def half_filled(desk: Office, qty: float = 6) -> None:
    """A close of the day that filled in part before its run ended."""
    late(desk)
    desk.fake.now = "2026-11-18T20:58:30Z"
    desk.fake.set_price("AAPL", 101)
    desk.fake.quirks.fill_delay = NEVER

    def fill(request: Any) -> None:
        closes = [o for o in desk.fake.working("AAPL") if o["type"] == "market"]
        if request.label == "order" and closes and closes[0]["filled_qty"] == "0":
            desk.fake.fill(closes[0], qty, 101)

    desk.fake.before_request(fill)
    desk.run(eod_flatten=True)


def test_what_a_close_left_is_protected_at_once_in_a_closed_market_and_inside_the_grace(desk: Office) -> None:
    half_filled(desk)
    desk.fake.now = "2026-11-18T21:00:10Z"  # the close expired; its fill is younger than the grace
    result = desk.run(eod_flatten=True)
    assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.FAIL, "eod_missed", 1)
    assert desk.stops("AAPL") == [("4", "95")]
    assert [o["type"] for o in desk.fake.working("AAPL")] == ["stop"]
    with closing(desk.state()) as state:
        assert state.recall("flatten") == {}
    desk.fake.advance(minutes=5)
    desk.run(eod_flatten=True)
    record = desk.record("t1")
    assert (record["status"], record["quantity"], record["realizedPnL"]) == ("OPEN", 4, 6)


def test_a_filled_close_that_is_not_booked_yet_is_no_failure(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fake.open_trade("AAPL", 20, 99, at="2026-11-16T15:00:00Z")  # bought by hand
    late(desk)
    with monkeypatch.context() as patch:
        patch.setattr(OrderGateway, "took_all", lambda *_: False)
        desk.run(eod_flatten=True)
    assert desk.record("t1")["status"] == "OPEN"  # the position could still show what the fill has taken
    desk.fake.advance(seconds=30)
    result = desk.run(eod_flatten=True)
    assert result.exit_code == 0
    assert any("booked once it is settled" in note for note in result.notes)
    desk.fake.advance(minutes=3)
    desk.run(eod_flatten=True)
    assert desk.record("t1")["closeReason"] == "eod_flatten"


def test_a_close_is_booked_in_its_own_run_whoever_else_holds_the_symbol(desk: Office) -> None:
    desk.fake.open_trade("AAPL", 20, 99, at="2026-11-16T15:00:00Z")  # bought by hand
    late(desk)
    desk.trade("t2", "AAPL", 5, 100, stop=94)
    desk.fake.set_price("AAPL", 101)
    result = desk.run(eod_flatten=True)
    assert result.flattened == 2
    assert desk.fake.positions["AAPL"].qty == 20
    for name, won in (("t1", 10), ("t2", 5)):
        record = desk.record(name)
        assert (record["closeReason"], record["closePrice"], record["realizedPnL"]) == ("eod_flatten", 101, won)


@pytest.mark.parametrize("status", ["canceled", "expired"])
def test_the_ledger_does_not_keep_a_close_that_filled_nothing(desk: Office, status: str) -> None:
    late(desk)
    desk.fake.quirks.fill_delay = NEVER
    seen = []

    def end(request: Any) -> None:
        closes = [o for o in desk.fake.working("AAPL") if o["type"] == "market"]
        if request.label == "order" and closes:
            seen.append(desk.record("t1").get("closeOrderId"))
            if len(seen) == 3:
                desk.fake.set_status(closes[0], status)

    desk.fake.before_request(end)
    result = desk.run(eod_flatten=True)
    assert (result.reason, desk.stops("AAPL")) == ("close_refused", [("10", "95")])
    assert seen[-1] is not None
    assert desk.record("t1")["closeOrderId"] is None


def test_a_close_that_waits_comes_after_others_with_a_maximum(desk: Office) -> None:
    desk.trade("a", "AAPL", 10, 100, stop=95)
    desk.limit_order("AAPL", 10, 110)  # nobody's: it holds the shares
    desk.trade("m", "MSFT", 10, 100, stop=95)
    for _ in range(2):
        desk.fake.set_price("AAPL", 94)
        desk.fake.set_price("MSFT", 100)
        result = desk.run(cut_loss_enabled=True, max_per_run=1)
        desk.fake.advance(minutes=5)
        if result.reason == "naked":
            assert any("naked: its stop 95 is through the market" in note for note in result.notes)
    assert desk.stops("MSFT") == [("10", "95")]


def test_a_pending_cancel_is_not_asked_for_again(desk: Office) -> None:
    late(desk)
    desk.fake.quirks.cancel_delay = NEVER
    desk.run(eod_flatten=True)
    desk.fake.advance(minutes=5)
    result = desk.run(eod_flatten=True)
    assert (result.reason, desk.fake.count("cancel"), desk.fake.count("submit")) == ("close_waits", 1, 0)


def test_little_deadline_leaves_the_stop_of_an_unfinished_close(desk: Office) -> None:
    late(desk)
    with closing(desk.state()) as state:
        begun = {"purpose": "eod", "at": LATE, "stop": "95", "target": None, "symbol": "AAPL"}
        state.remember("flatten", {"t1": begun})
    result = desk.run(eod_flatten=True, seconds=15)
    assert (result.reason, desk.fake.count("cancel")) == ("flatten_unfinished", 0)
    assert desk.stops("AAPL") == [("10", "95")]


@pytest.mark.parametrize(
    ("later", "stops", "status"),
    [("2026-11-18T20:55:00Z", [], "CLOSED"), ("2026-11-19T15:00:00Z", [("10", "95")], "OPEN")],
)
def test_what_version_0_1_remembered_of_a_flatten_is_finished(
    desk: Office, later: str, stops: list[tuple[str, str]], status: str
) -> None:
    """As 0.1 stored it, killed between the cancel and the close."""
    stop = late(desk)
    with closing(desk.state()) as state:
        begun = {"purpose": "eod", "at": "2026-11-18T20:50:00.123Z", "stop": "95", "target": None, "symbol": "AAPL"}
        state.remember("flatten", {"t1": begun})
    desk.fake.cancel(stop["id"])
    desk.fake.now = later
    desk.fake.set_price("AAPL", 101)
    desk.run(eod_flatten=True)
    assert (desk.stops("AAPL"), desk.record("t1")["status"]) == (stops, status)
    with closing(desk.state()) as state:
        assert state.recall("flatten") == {}


@pytest.mark.parametrize("trouble", ["broker", "state"])
def test_a_close_that_cannot_even_be_sent_gives_the_stop_back(
    desk: Office, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    stop = late(desk)
    if trouble == "broker":
        desk.fake.fault(
            lambda r: "by_client_order_id" in r.path and "-eod-" in str(r.query) and stop["status"] == "canceled", 503
        )
    remember = SqliteState.remember

    def fail(self: SqliteState, section: str, values: Any) -> None:
        if trouble == "state" and stop["status"] == "canceled":
            raise StateFailed("gone")
        remember(self, section, values)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteState, "remember", fail)
        result = desk.run(eod_flatten=True, seconds=30)
    assert not result.ok
    assert desk.stops("AAPL") == [("10", "95")]
    desk.fake.clear_faults()
    desk.fake.advance(minutes=3)
    desk.free_lock()
    desk.run(eod_flatten=True)
    assert (desk.record("t1")["closeReason"], dict(desk.fake.positions)) == ("eod_flatten", {})


# --------------------------------------------------------------------------- the last seconds, and one run's patience


def test_the_last_seconds_miss_the_window_and_move_nothing(desk: Office) -> None:
    late(desk)
    desk.fake.now = "2026-11-18T20:59:50Z"
    desk.fake.set_price("AAPL", 111)  # the stop is due at 105
    result = desk.run(eod_flatten=True)
    assert (result.reason, result.exit_code) == ("eod_missed", 1)
    assert desk.fake.count("replace") + desk.fake.count("cancel") + desk.fake.count("submit") == 0


def test_the_last_seconds_still_protect_a_naked_trade(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.now = "2026-11-18T20:59:50Z"
    desk.fake.set_price("AAPL", 101)
    assert desk.run(eod_flatten=True).reason == "eod_missed"
    assert desk.stops("AAPL") == [("10", "95")]


def test_a_trade_without_times_misses_the_window_too(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.edit("t1", createdAt=None, openedAt=None)
    desk.fake.now = "2026-11-18T21:10:00Z"
    assert desk.run(eod_flatten=True).reason == "eod_missed"


def test_a_firing_stop_that_covers_a_part_is_left_alone_for_one_run_too(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    stop = desk.stop_order("AAPL", 6, 95, type="stop_limit", limit_price=95)  # triggered, and nobody buys at 95
    desk.edit("t1", stopOrderId=stop["id"])
    desk.fake.set_price("AAPL", 94)
    desk.run(cut_loss_enabled=True)
    assert desk.fake.count("submit") + desk.fake.count("cancel") + desk.fake.count("replace") == 0
    desk.fake.advance(minutes=5)
    desk.fake.set_price("AAPL", 94)
    assert desk.run(cut_loss_enabled=True).flattened == 1


# --------------------------------------------------------------------------- names and answers


def test_a_stop_beside_one_that_covers_a_part_has_a_name_of_its_own(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10.5, 100, stop=95)
    stop = desk.stop_order("AAPL", 10, 95, client_order_id=desk.client_id("t1", "stop", 1))
    desk.edit("t1", stopOrderId=stop["id"])
    desk.fake.set_price("AAPL", 101)
    desk.run()
    assert desk.stops("AAPL") == [("10", "95"), ("0.5", "95")]
    assert desk.fake.order(desk.client_id("t1", "rest", 1))["time_in_force"] == "day"
    assert desk.record("t1")["stopOrderId"] == stop["id"]
    assert (desk.run().updated, desk.fake.count("submit")) == (0, 1)


def test_a_replacement_whose_answer_and_name_are_lost_is_found_by_the_old_order(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", 100)
    desk.run()
    desk.fake.set_price("AAPL", 106)
    desk.fake.fault("replace", "lost_answer", times=1)
    asked = []

    def count(request: Any) -> None:
        if "by_client_order_id" in request.path and desk.fake.count("replace"):
            asked.append(request)

    desk.fake.before_request(count)
    result = desk.run()
    assert (result.updated, desk.stops("AAPL"), desk.record("t1")["stopPrice"]) == (1, [("10", "100")], 100)
    assert not asked  # the old order names its successor; no look-up by a name that may lag


# --------------------------------------------------------------------------- reasons


def test_a_blocked_account_is_no_failure_where_nothing_would_be_sent(desk: Office) -> None:
    desk.fake.account["trading_blocked"] = True
    assert desk.run().reason == "no_open_trades"
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.set_price("AAPL", 101)
    assert (desk.run().reason, desk.fake.count("submit")) == ("account_blocked", 0)
    desk.fake.now = "2026-11-18T23:00:00Z"
    assert desk.run().reason == "market_closed"


def test_an_unexpected_error_is_a_failure_with_a_record(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oops")

    desk.trade("t1", "AAPL", 10, 100, stop=95)
    monkeypatch.setattr(Looker, "view", broken)
    desk.fake.set_price("AAPL", 101)
    result = desk.run()
    assert (result.outcome, result.reason, result.exit_code) == (ManageOutcome.FAIL, "auto_manage_failed", 1)
    with closing(desk.state()) as state:
        summary = state.telemetry("auto-manage", 1).summary
    assert (summary["runs"], summary["success"], summary["fail"], summary["skipped"]) == ("1", "0", "1", "0")


def test_a_flatten_ends_the_rest_of_its_own_entry_first(desk: Office) -> None:
    desk.fake.now = LATE
    desk.fake.set_price("AAPL", 100)
    entry = desk.fake.submit(
        symbol="AAPL", qty=10, side="buy", type="limit", limit_price=90, time_in_force="gtc", order_class="bracket",
        take_profit={"limit_price": 120}, stop_loss={"stop_price": 85},
    )  # fmt: skip
    desk.fake.fill(entry, 4, 90, at="2026-11-18T20:40:00Z")
    desk.put({
        "id": "t1", "ticker": "AAPL", "side": "LONG", "status": "OPEN", "quantity": 10, "entryPrice": 90,
        "stopPrice": 85, "alpacaOrderId": entry["id"], "createdAt": "2026-11-18T20:00:00Z",
    })  # fmt: skip
    dry = desk.run(eod_flatten=True, dry_run=True)
    assert [order["do"] for order in dry.orders][-1:] == ["submit"]
    assert (desk.fake.count("cancel"), entry["status"]) == (0, "partially_filled")
    result = desk.run(eod_flatten=True)
    assert (result.flattened, dict(desk.fake.positions), desk.fake.working()) == (1, {}, [])
    assert entry["status"] == "canceled"
    record = desk.record("t1")
    assert (record["status"], record["closeReason"], record["realizedPnL"]) == ("CLOSED", "eod_flatten", 40)


def test_force_makes_no_stop_smaller_in_a_closed_market(desk: Office) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.fake.open_trade("AAPL", 5, 99, at="2026-11-16T15:00:00Z")  # bought by hand
    stop = desk.stop_order("AAPL", 15, 95)
    desk.edit("t1", stopOrderId=stop["id"])
    desk.fake.now = "2026-11-18T23:00:00Z"
    desk.fake.set_price("AAPL", 101)
    desk.run(force=True)
    assert (desk.fake.count("replace"), desk.stops("AAPL")) == (0, [("15", "95")])
    desk.fake.now = "2026-11-19T15:00:00Z"
    desk.fake.set_price("AAPL", 101)
    desk.run()
    assert desk.stops("AAPL") == [("10", "95")]
