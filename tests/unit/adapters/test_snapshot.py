"""Snapshots: what was recorded is replayed exactly, what was not is *not observed*."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ghostclean import api
from ghostclean.adapters.snapshot import RecordingBroker, SnapshotBroker
from ghostclean.app.ports import OrderRequest
from ghostclean.errors import BadSettings, BrokerError, Refused
from tests.fakebroker import FakeBroker

NOON = datetime(2026, 11, 18, 17, 0, tzinfo=UTC)
SINCE = NOON - timedelta(days=2)
NOWHERE = "00000000-0000-4000-8000-00000000dead"
KEY, SECRET = "PKSENTINEL", "sentinelsecret"
SCHEMA_1 = Path(__file__).parent / "data" / "snapshot-schema-1.json"
REQUEST = OrderRequest("AAPL", "sell", Decimal(1), "stop", "gtc", "c1", stop_price=Decimal(9))


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker(NOON) as broker:
        yield broker


@pytest.fixture
def recorder(fake: FakeBroker) -> RecordingBroker:
    return RecordingBroker.connect(
        trading_url=fake.url,
        data_url=fake.url,
        api_key=KEY,
        secret_key=SECRET,
        live=False,
        time_left=lambda: 20.0,
        sleep=lambda _: None,
    )


def replayed(recorder: RecordingBroker, **changes: Any) -> SnapshotBroker:
    """The recording after a trip through JSON text."""
    return SnapshotBroker(json.loads(json.dumps(recorder.document())) | changes)


def document(**parts: Any) -> dict[str, Any]:
    """A hand-written snapshot."""
    base = {"schema": 1, "kind": "ghostclean-snapshot", "time": "2026-11-18T17:00:00Z", "live": False}
    return base | {"account": {"id": "acc"}, "orders": [], "positions": []} | parts


def order(order_id: str, **fields: Any) -> dict[str, Any]:
    base = {"id": order_id, "client_order_id": f"c-{order_id}", "symbol": "AAPL", "side": "buy", "status": "filled"}
    times = {"submitted_at": "2026-11-18T15:00:00Z", "filled_at": "2026-11-18T15:01:00Z"}
    return base | times | {"qty": "10", "filled_qty": "10", "filled_avg_price": "100"} | fields


# --------------------------------------------------------------------------- recorded, then replayed


def test_every_recorded_answer_is_given_again(fake: FakeBroker, recorder: RecordingBroker) -> None:
    fake.quirks.hide_legs = False
    entry = fake.open_trade("AAPL", 10, 100, NOON - timedelta(hours=3), bracket=(120, 90))
    gone = fake.open_trade("BTC/USD", Decimal("0.5"), 50000, NOON - timedelta(hours=2))
    fake.sell("BTC/USD", at=NOON - timedelta(hours=1))
    fake.activity("SPLIT", NOON - timedelta(hours=1), symbol="NVDA", qty="90")
    first = {
        "account": recorder.account().id,
        "orders": recorder.working_orders(),
        "positions": recorder.positions(),
        "order": recorder.order(entry["id"]),
        "client": recorder.order_by_client_id(gone["client_order_id"]),
        "history": recorder.history(["AAPL", "BTC/USD"], SINCE, 3),
        "fills": recorder.fills(SINCE),
        "activities": recorder.activities(SINCE),
        "clock": recorder.clock(),
        "absent": recorder.order(NOWHERE),
        "absent client": recorder.order_by_client_id("never"),
    }
    snapshot = replayed(recorder)
    for _ in range(2):
        history = snapshot.history(["AAPL", "BTCUSD"], SINCE, 3)
        assert snapshot.account().id == first["account"]
        assert snapshot.working_orders() == first["orders"]
        assert snapshot.positions() == first["positions"]
        assert snapshot.order(entry["id"]) == first["order"]
        assert snapshot.order_by_client_id(gone["client_order_id"]) == first["client"]
        assert {o.id: o for o in history.orders} == {o.id: o for o in first["history"].orders}  # type: ignore[attr-defined]
        assert not history.truncated
        assert snapshot.fills(SINCE) == first["fills"]
        assert snapshot.activities(SINCE) == first["activities"]
        assert snapshot.clock() == first["clock"]
        assert snapshot.order(NOWHERE) is None
        assert snapshot.order_by_client_id("never") is None
    assert snapshot.live is False
    assert abs(snapshot.now() - NOON) < timedelta(seconds=2)
    assert snapshot.now() == snapshot.now()


def test_a_leg_asked_for_by_its_own_id_comes_first(fake: FakeBroker, recorder: RecordingBroker) -> None:
    entry = fake.open_trade("AAPL", 10, 100, bracket=(120, 90))
    recorder.order(entry["id"])
    stop = fake.legs(entry)[1]["id"]
    found = replayed(recorder).order(stop)
    assert found is not None
    assert found[0].id == stop


def test_the_latest_reading_of_a_list_counts(fake: FakeBroker, recorder: RecordingBroker) -> None:
    recorder.positions()
    fake.add_position("AAPL", 10)
    recorder.positions()
    assert [p.symbol for p in replayed(recorder).positions().rows] == ["AAPL"]


def test_a_failed_read_is_not_recorded(fake: FakeBroker, recorder: RecordingBroker) -> None:
    fake.fault("order", 500)
    fake.fault("account", 500)
    for read in (lambda: recorder.order(NOWHERE), recorder.account):
        with pytest.raises(BrokerError):
            read()
    for read in (lambda: replayed(recorder).order(NOWHERE), replayed(recorder).account):
        with pytest.raises(BrokerError, match="not in the snapshot"):
            read()


def test_fills_of_two_readings_are_one_list(fake: FakeBroker, recorder: RecordingBroker) -> None:
    fake.open_trade("AAPL", 10, 100, NOON - timedelta(hours=30))
    fake.open_trade("MSFT", 10, 100, NOON - timedelta(hours=3))
    recorder.fills(SINCE)
    recorder.fills(NOON - timedelta(hours=4))
    snapshot = replayed(recorder)
    assert [fill.symbol for fill in snapshot.fills(SINCE)] == ["AAPL", "MSFT"]
    assert [fill.symbol for fill in snapshot.fills(NOON - timedelta(hours=4))] == ["MSFT"]


def test_writes_pass_through_the_recorder(fake: FakeBroker, recorder: RecordingBroker) -> None:
    fake.add_position("AAPL", 10)
    (placed,) = recorder.submit(REQUEST)
    moved = recorder.replace(placed.id, "c2", stop_price=Decimal(8))
    recorder.cancel(moved.id)
    assert fake.order(moved.id)["status"] == "canceled"


def test_nothing_secret_is_in_the_document(fake: FakeBroker, recorder: RecordingBroker) -> None:
    recorder.account()
    text = json.dumps(recorder.document([{"id": "t1", "entryPrice": Decimal("187.40")}]))
    assert KEY not in text
    assert SECRET not in text
    assert fake.market.account_number not in text
    assert json.loads(text)["ledger"]["trades"] == [{"id": "t1", "entryPrice": 187.4}]
    assert json.loads(text)["account"]["id"] == fake.market.account_id


# --------------------------------------------------------------------------- not recorded


def test_what_was_not_recorded_is_not_observed() -> None:
    snapshot = SnapshotBroker(document(orders=[order(NOWHERE, status="new", filled_qty="0")]))
    for read in (
        lambda: snapshot.order(NOWHERE),
        lambda: snapshot.order_by_client_id("c"),
        lambda: snapshot.history(["AAPL"], SINCE, 3),
        lambda: snapshot.fills(SINCE),
        lambda: snapshot.activities(SINCE),
        snapshot.clock,
        lambda: snapshot.calendar(NOON.date(), NOON.date()),
        lambda: snapshot.asset("AAPL"),
        lambda: snapshot.prices(["AAPL"]),
    ):
        with pytest.raises(BrokerError, match="not in the snapshot") as caught:
            read()
        assert caught.value.transient


@pytest.mark.parametrize("part", ["account", "orders", "positions"])
def test_broker_truth_without_a_list_is_not_observed(part: str) -> None:
    snapshot = SnapshotBroker(document(complete=True, **{part: None}))
    read = {"account": snapshot.account, "orders": snapshot.working_orders, "positions": snapshot.positions}[part]
    with pytest.raises(BrokerError, match="not in the snapshot"):
        read()


def test_a_reading_covers_its_symbols_and_its_time_only(fake: FakeBroker, recorder: RecordingBroker) -> None:
    recorder.history(["AAPL"], SINCE, 3)
    recorder.fills(SINCE)
    snapshot = replayed(recorder)
    assert snapshot.history(["AAPL"], NOON, 3).orders == ()
    for read in (
        lambda: snapshot.history(["MSFT"], SINCE, 3),
        lambda: snapshot.history(["AAPL"], SINCE - timedelta(seconds=1), 3),
        lambda: snapshot.fills(SINCE - timedelta(seconds=1)),
    ):
        with pytest.raises(BrokerError, match="not in the snapshot"):
            read()


def test_a_truncated_history_stays_truncated(fake: FakeBroker, recorder: RecordingBroker) -> None:
    recorder.history(["AAPL"], SINCE, 0)
    assert replayed(recorder).history(["AAPL"], SINCE, 9).truncated


# --------------------------------------------------------------------------- written by hand


def test_in_a_complete_snapshot_what_is_not_listed_does_not_exist() -> None:
    snapshot = SnapshotBroker(
        document(
            complete=True,
            orders=[order("w", status="new", filled_qty="0", symbol="BTC/USD")],
            lookups={"orders": [order("e")], "fills": {"rows": []}},
        )
    )
    assert [o.id for o in snapshot.order("e") or ()] == ["e"]
    assert [o.id for o in snapshot.order_by_client_id("c-w") or ()] == ["w"]
    assert snapshot.order("x") is None
    assert snapshot.order_by_client_id("x") is None
    assert [o.id for o in snapshot.history(["AAPL", "BTCUSD"], SINCE, 3).orders] == ["e", "w"]
    assert snapshot.history(["AAPL"], NOON, 3).orders == ()
    assert snapshot.fills(SINCE) == ()
    assert snapshot.activities(SINCE) == ()
    assert snapshot.asset("AAPL") is None
    assert snapshot.prices(["AAPL"]) == {}
    with pytest.raises(BrokerError, match="not in the snapshot"):
        snapshot.clock()


def test_writes_are_refused() -> None:
    snapshot = SnapshotBroker(document(complete=True))
    for send in (
        lambda: snapshot.submit(REQUEST),
        lambda: snapshot.replace("a", "b", qty=Decimal(1)),
        lambda: snapshot.cancel("a"),
    ):
        with pytest.raises(Refused, match="recording"):
            send()


# --------------------------------------------------------------------------- damaged


@pytest.mark.parametrize(
    "bad",
    [
        [],
        None,
        "x",
        {},
        {"kind": "other"},
        document(schema=2),
        document(schema=None),
        document(time="yesterday"),
        document(time=None),
        document(live="no"),
        document(lookups=[]),
        document(lookups="x"),
    ],
)
def test_a_document_that_is_no_snapshot_is_a_wrong_setting(bad: Any) -> None:
    with pytest.raises(BadSettings) as caught:
        SnapshotBroker(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        ({"account": []}, lambda s: s.account()),
        ({"orders": {}}, lambda s: s.working_orders()),
        ({"orders": [5]}, lambda s: s.working_orders()),
        ({"positions": {}}, lambda s: s.positions()),
        ({"positions": [{"qty": "1"}]}, lambda s: s.positions()),
        ({"lookups": {"orders": {"a": 1}}}, lambda s: s.order("a")),
        ({"lookups": {"orders": [{"id": "a"}]}}, lambda s: s.order("a")),
        ({"lookups": {"fills": {"since": "2026-01-01T00:00:00Z", "rows": 5}}}, lambda s: s.fills(NOON)),
        ({"lookups": {"fills": {"since": "2026-01-01T00:00:00Z", "rows": [{}]}}}, lambda s: s.fills(NOON)),
        ({"lookups": {"fills": []}}, lambda s: s.fills(NOON)),
        ({"lookups": {"history": [{"symbols": "AAPL", "since": "x"}]}}, lambda s: s.history(["AAPL"], NOON, 1)),
        ({"lookups": {"history": [{"symbols": 5, "since": "2026-01-01T00:00Z"}]}}, lambda s: s.history(["A"], NOON, 1)),
        ({"lookups": {"clock": {}}}, lambda s: s.clock()),
        ({"lookups": {"absentOrders": "abc"}}, lambda s: s.order("b")),
    ],
)
def test_a_damaged_part_is_an_error_when_it_is_read(parts: dict[str, Any], read: Any) -> None:
    snapshot = SnapshotBroker(document(**parts), "snapshot x.json")
    with pytest.raises(BrokerError) as caught:
        read(snapshot)
    assert "\n" not in str(caught.value)


def test_a_snapshot_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document(positions=[{"symbol": "AAPL", "qty": "10", "side": "long"}])))
    assert [p.symbol for p in SnapshotBroker.load(path).positions().rows] == ["AAPL"]


def test_a_file_that_cannot_be_read_is_a_wrong_setting(tmp_path: Path) -> None:
    cut, binary, deep = tmp_path / "cut.json", tmp_path / "b.json", tmp_path / "deep.json"
    cut.write_text(json.dumps(document())[:-20])
    binary.write_bytes(b"\xff\xfe\x00")
    deep.write_text("[" * 100_000)
    for path in (cut, binary, deep, tmp_path, tmp_path / "missing.json"):
        with pytest.raises(BadSettings, match=str(path.name)) as caught:
            SnapshotBroker.load(path)
        assert "\n" not in str(caught.value)


def test_a_snapshot_has_the_time_of_its_decision(fake: FakeBroker, recorder: RecordingBroker) -> None:
    recorder.account()
    decided_at = recorder.now()
    fake.advance(minutes=5)
    recorder.clock()
    assert replayed(recorder).now() == decided_at


# --------------------------------------------------------------------------- documents of earlier versions


def test_a_snapshot_of_the_first_schema_decides_as_it_did_then(tmp_path: Path) -> None:
    document = json.loads(SCHEMA_1.read_text())
    (tmp_path / "trades.json").write_text(json.dumps(document["ledger"]["trades"]))
    result = api.reconcile(
        settings={
            "GHOSTCLEAN_LEDGER": f"file:{tmp_path}/trades.json",
            "GHOSTCLEAN_STATE": f"sqlite:{tmp_path}/state.db",
            "GHOSTCLEAN_BROKER": f"file:{SCHEMA_1}",
        },
        dry_run=True,
    )
    assert result.ok
    assert {(row["id"] or row["ticker"]): (row["verdict"], row["action"]) for row in result.results} == {
        "live": ("live", "would_sync"),
        "stopped": ("exited", "would_close"),
        "sold": ("exited", "would_close"),
        "reduced": ("reduced", "would_reduce"),
        "option": ("exited", "would_close"),
        "unknown": ("vanished", "would_close"),
        "noorder": ("vanished", "would_close"),
        "pending": ("working", "kept"),
        "PLTR": ("orphan", "kept"),
    }


def test_a_snapshot_of_a_snapshot_is_the_same_truth_beside_another_ledger() -> None:
    document = json.loads(SCHEMA_1.read_text())
    again = SnapshotBroker(document).document([{"id": "t", "entryPrice": Decimal("1.5")}])
    assert again == document | {"ledger": {"trades": [{"id": "t", "entryPrice": 1.5}]}}
