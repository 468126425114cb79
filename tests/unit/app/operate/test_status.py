"""Status: the health rule, the document, and the comparison with the broker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ghostclean.adapters.alpaca.records import read_account, read_orders, read_positions
from ghostclean.app.operate.gate import judge, unknown
from ghostclean.app.operate.status import status_document, telemetry_document
from ghostclean.app.parts import Stores
from ghostclean.app.ports import RunCommit, Telemetry
from ghostclean.core.broker import BrokerTruth, iso
from tests.fakes import NOW, FakeLedger, FakeSpool, FakeState, raw_order, raw_position

INTERVAL = timedelta(minutes=5)


def test_summary_numbers_are_numbers_and_texts_stay_texts() -> None:
    found = {"runs": "12", "totalClosed": "3", "lastOk": "true", "lastRunId": "20261120", "lastSource": "7"}
    document = telemetry_document(Telemetry(found, ()))
    expected = {"runs": 12, "totalClosed": 3, "lastOk": "true", "lastRunId": "20261120", "lastSource": "7"}
    assert document["summary"] == expected


# --------------------------------------------------------------------------- the document


def parts() -> tuple[FakeState, FakeLedger]:
    state = FakeState()
    state.commit(
        RunCommit(
            "reconcile",
            "r1",
            {"ts": iso(NOW), "ok": True, "closed": 1},
            {"runs": 1, "success": 1},
            {"lastOk": "true", "lastRunAt": iso(NOW), "lastSuccessAt": iso(NOW)},
        )
    )
    ledger = FakeLedger(
        [
            {"id": "a", "ticker": "AAPL", "status": "OPEN", "openedAt": "2026-11-18T15:00:00Z"},
            {"id": "b", "ticker": "BTC/USD", "status": "partial", "createdAt": "2026-11-19T15:00:00Z"},
            {"id": "c", "ticker": "GOOGL", "status": "PENDING", "alpacaOrderId": "x"},
            {"id": "d", "ticker": "NVDA", "status": "PENDING"},
            {"id": "e", "ticker": "MSFT", "status": "CLOSED"},
        ]
    )
    return state, ledger


def document(state: FakeState, ledger: FakeLedger, **more: Any) -> dict[str, Any]:
    return status_document(Stores(ledger, state, FakeSpool()), now=NOW, interval=INTERVAL, limit=5, **more)


def test_the_document_of_a_healthy_ledger() -> None:
    found = document(*parts())
    assert found["ok"] is True
    assert found["now"] == "2026-11-20T15:05:00.000Z"
    assert found["health"] == "healthy"
    assert found["ledger"]["name"] == "fake:ledger"
    assert found["ledger"]["open"] == 2
    assert found["ledger"]["pending"] == 1
    assert found["ledger"]["oldestOpenAt"] == "2026-11-18T15:00:00.000Z"
    assert found["reconcileTelemetry"]["summary"]["runs"] == 1
    assert found["autoManageTelemetry"] == {"summary": {}, "runs": []}
    assert found["broker"] is None
    assert found["entryState"] is None
    assert found["spooled"] == 0


def test_a_ledger_that_cannot_be_read_is_said_beside_the_telemetry() -> None:
    state, ledger = parts()
    ledger.broken = "the ledger is out of reach"
    found = document(state, ledger)
    assert (found["ok"], found["ledger"], found["error"]) == (False, None, "ledger_failed")
    assert found["reconcileTelemetry"]["summary"]["runs"] == 1


def test_broker_truth_against_the_ledger_both_ways() -> None:
    state, ledger = parts()
    ledger.records.append({"id": "f", "ticker": "TSLA", "status": "OPEN"})
    truth = BrokerTruth(
        read_account({"id": "a"}),
        tuple(read_orders([raw_order("1", "TSLA", "buy")])),
        read_positions([raw_position("BTCUSD", "1", "90000"), raw_position("PLTR", "5", "800")], str),
        NOW,
    )
    found = document(state, ledger, look=lambda: (truth, judge(truth, 3)))
    assert found["broker"] == {
        "positionsCount": 2,
        "openOrdersCount": 1,
        "onlyAtBroker": ["PLTR"],
        "onlyInLedger": ["AAPL"],
    }
    assert found["entryState"]["allowed"] is False
    assert found["entryState"]["count"] == 3


def test_a_broker_that_cannot_be_read_closes_the_gate() -> None:
    found = document(*parts(), look=lambda: (None, unknown("no answer", 3)))
    assert (found["ok"], found["error"], found["broker"]) == (False, "broker_truth_failed", None)
    assert found["entryState"]["allowed"] is False


@pytest.mark.parametrize("holder", [None, "cron r9"])
def test_the_lock_is_shown_while_it_is_held(holder: str | None) -> None:
    state, ledger = parts()
    state.holder = holder
    lock = document(state, ledger)["lock"]
    assert lock == ({"holder": holder, "secondsLeft": 30.0} if holder else None)
