"""Auto-manage in trouble: races, stuck cancels, half-filled closes, an app that writes meanwhile."""

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
from tests.fakebroker import NEVER
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
    desk.fake.fault(
        lambda r: "by_client_order_id" in r.path and r.query.get("client_order_id", "").endswith("eod-1"), 500
    )
    desk.run(eod_flatten=True)
    desk.fake.clear_faults()
    desk.fake.advance(minutes=5)
    desk.run(eod_flatten=True)
    assert desk.fake.count("submit") <= 1
    desk.fake.advance(minutes=1)
    desk.run(eod_flatten=True)
    assert desk.fake.count("submit") == 1
    assert desk.record("t1")["closeReason"] == "eod_flatten"


def test_a_kill_between_the_targets_cancel_and_the_oco(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.trade("t1", "AAPL", 10, 100, stop=95)
    desk.edit("t1", takeProfitOrderId=desk.limit_order("AAPL", 10, 120)["id"])

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OrderDoor, "place_oco", die)
        with pytest.raises(KeyboardInterrupt):
            desk.run()
    desk.free_lock()
    assert desk.fake.working("AAPL") == []
    desk.run()
    oco = desk.fake.order(client_id("t1", "oco", 1))
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
    assert time.monotonic() - began < 9
    assert not result.ok
