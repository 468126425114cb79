"""Undo: exact, only where nothing changed since, journaled, held, and itself undoable."""

from __future__ import annotations

from typing import Any

import pytest

from ghostclean.app.operate.corrections import NothingToDo
from ghostclean.app.operate.undo import undo_run
from ghostclean.app.ports import JournalEntry
from ghostclean.errors import Locked
from tests.fakes import NOW, FakeLedger, FakeState

CLOSED = {
    "id": "t1",
    "ticker": "AAPL",
    "status": "CLOSED",
    "quantity": 10,
    "note": "kept",
    "closePrice": 187.4,
    "updatedAt": "2026-11-20T15:00:00.000Z",
}
BEFORE = {"status": "OPEN", "updatedAt": "2026-11-18T15:00:00.000Z"}
AFTER = {"status": "CLOSED", "closePrice": 187.4, "updatedAt": "2026-11-20T15:00:00.000Z"}


def made(number: int = 0, trade_id: str = "t1", **changes: Any) -> JournalEntry:
    entry = JournalEntry(
        id=f"run-1:{trade_id}:{number}",
        at="2026-11-20T15:00:00.000Z",
        run_id="run-1",
        source="cron",
        trade_id=trade_id,
        ticker="AAPL",
        verdict="exited",
        action="closed",
        reason="its stop filled",
        proof=({"what": "broker facts", "at": None, "fingerprint": "f1"},),
        before=dict(BEFORE),
        after=dict(AFTER),
        outcome="written",
    )
    return JournalEntry.from_dict({**entry.to_dict(), **changes})


def world(*entries: JournalEntry, record: dict[str, Any] | None = None) -> tuple[FakeLedger, FakeState]:
    state = FakeState()
    state.intend(entries)
    return FakeLedger([dict(record or CLOSED)]), state


def undo(ledger: FakeLedger, state: FakeState, run_id: str = "run-1", undo_id: str = "undo-1", **options: Any) -> Any:
    return undo_run(ledger, state, run_id, undo_id=undo_id, now=NOW, **options)


def test_it_puts_back_exactly_what_was_there() -> None:
    ledger, state = world(made())
    report = undo(ledger, state)
    assert report.exit_code == 0
    assert ledger.records == [{"id": "t1", "ticker": "AAPL", "quantity": 10, "note": "kept", **BEFORE}]
    assert report.to_dict()["changed"] == 1


def test_what_was_undone_is_held_with_the_facts_it_rested_on() -> None:
    ledger, state = world(made())
    undo(ledger, state)
    assert state.memory["holds"] == {"t1": {"facts": "f1", "runId": "run-1"}}


def test_what_the_run_concluded_is_forgotten() -> None:
    ledger, state = world(made())
    state.memory = {"exits": {"t1": ["order-1"], "t9": ["order-9"]}, "unproven": {"t1": {"at": "x"}}}
    undo(ledger, state)
    assert state.memory["exits"] == {"t9": ["order-9"]}
    assert state.memory["unproven"] == {}


def test_it_is_journaled_before_the_ledger_is_written_and_settled_after() -> None:
    ledger, state = world(made())
    seen: list[str] = []
    ledger.before_write = lambda _: seen.extend(e.outcome for e in state.journal(run_id="undo-1"))
    undo(ledger, state)
    assert seen == ["intended"]
    assert [e.outcome for e in state.journal(run_id="undo-1")] == ["written"]
    assert state.intents() == []


def test_a_trade_that_changed_since_is_refused_and_left_alone() -> None:
    record = {**CLOSED, "updatedAt": "2026-11-20T15:04:00.000Z"}
    ledger, state = world(made(), record=record)
    report = undo(ledger, state)
    assert report.exit_code == 1
    assert ledger.records == [record]
    assert state.memory.get("holds", {}) == {}
    assert "changed since" in report.to_dict()["detail"]


def test_a_field_that_is_not_ours_may_have_changed() -> None:
    ledger, state = world(made(), record={**CLOSED, "note": "edited"})
    assert undo(ledger, state).exit_code == 0
    assert ledger.records[0]["note"] == "edited"


def test_a_change_between_look_and_write_is_refused_too() -> None:
    ledger, state = world(made())

    def app_edits(fake: FakeLedger) -> None:
        fake.records[0]["note"] = "edited meanwhile"

    ledger.before_write = app_edits
    report = undo(ledger, state)
    assert report.exit_code == 1
    assert ledger.records[0]["status"] == "CLOSED"
    assert state.memory["holds"] == {}
    assert [e.outcome for e in state.journal(run_id="undo-1")] == ["left"]


def test_the_trades_of_a_run_are_judged_one_by_one() -> None:
    ledger, state = world(made(), made(1, "t2"), made(2, "gone"))
    ledger.records.append({**CLOSED, "id": "t2", "status": "OPEN"})
    report = undo(ledger, state)
    assert [(row.trade_id, row.action) for row in report.rows] == [
        ("t1", "undone"),
        ("t2", "refused"),
        ("gone", "refused"),
    ]


def test_two_changes_of_one_trade_are_undone_together() -> None:
    first = made(0, before={"quantity": 10}, after={"quantity": 6, "initialQuantity": 10})
    second = made(1, before={"quantity": 6, "status": "OPEN"}, after={"quantity": 4, "status": "CLOSED"})
    record = {"id": "t1", "ticker": "AAPL", "quantity": 4, "initialQuantity": 10, "status": "CLOSED"}
    ledger, state = world(first, second, record=record)
    assert undo(ledger, state).exit_code == 0
    assert ledger.records == [{"id": "t1", "ticker": "AAPL", "quantity": 10, "status": "OPEN"}]


def test_a_dry_run_writes_nothing_at_all() -> None:
    ledger, state = world(made())
    report = undo(ledger, state, dry_run=True)
    assert [row.action for row in report.rows] == ["would_undo"]
    assert (ledger.records, state.memory, state.commits) == ([CLOSED], {}, [])


def test_an_undo_can_be_undone_which_lifts_the_hold() -> None:
    ledger, state = world(made())
    undo(ledger, state)
    assert undo(ledger, state, "undo-1", "undo-2").exit_code == 0
    assert ledger.records == [CLOSED]
    assert state.memory["holds"] == {}


def test_a_record_that_the_run_added_is_closed_as_deleted() -> None:
    adopted = {"id": "adopted-1", "ticker": "PLTR", "status": "OPEN", "source": "broker_backfill"}
    ledger, state = world(made(0, "adopted-1", before=None, after=adopted, action="adopted"), record=adopted)
    assert undo(ledger, state).exit_code == 0
    assert ledger.records[0]["status"] == "DELETED"
    assert ledger.records[0]["closeReason"] == "undone:run-1"


def test_what_was_only_noted_or_left_is_not_undone() -> None:
    ledger, state = world(made(outcome="left"), made(1, before=None, after=None, outcome="noted"))
    with pytest.raises(NothingToDo, match="changed nothing"):
        undo(ledger, state)


def test_an_unknown_run_is_an_error() -> None:
    with pytest.raises(NothingToDo, match="knows no run"):
        undo(*world(made()), run_id="run-2")


def test_it_takes_the_lock_that_runs_take() -> None:
    ledger, state = world(made())
    state.holder = "cron run-9"
    with pytest.raises(Locked):
        undo(ledger, state)
    assert state.holder == "cron run-9"
    state.holder = None
    undo(ledger, state)
    assert state.holder is None


@pytest.mark.parametrize("shows", [True, False])
def test_an_intent_of_a_killed_run_counts_when_the_ledger_shows_it(shows: bool) -> None:
    ledger, state = world(made(outcome="intended"), record=None if shows else {**CLOSED, **BEFORE})
    if shows:
        assert undo(ledger, state).exit_code == 0
        assert ledger.records[0]["status"] == "OPEN"
        assert state.entries["run-1:t1:0"].outcome == "written"
    else:
        with pytest.raises(NothingToDo):
            undo(ledger, state)
    assert state.intents() == [] or not shows


def test_a_refusal_names_what_stands_in_the_way() -> None:
    ledger, state = world(made(), record={**CLOSED, "status": "OPEN", "closePrice": 1})
    assert "the app has written closePrice, status" in undo(ledger, state).to_dict()["detail"]


def test_what_was_undone_already_says_so() -> None:
    ledger, state = world(made())
    undo(ledger, state)
    report = undo(ledger, state, undo_id="undo-2")
    assert "undo-1 has put it back already" in report.to_dict()["detail"]


def test_a_later_run_that_changed_the_trade_is_named() -> None:
    later = made(1, id="later", runId="run-2", action="synced", after={"closePrice": 2})
    ledger, state = world(made(), later, record={**CLOSED, "closePrice": 2})
    assert "run run-2 has synced it; undo that one first" in undo(ledger, state).to_dict()["detail"]


def test_a_sale_cannot_be_undone() -> None:
    sold = made(trade_id="adopted-1", action="flattened", before=None, after={})
    ledger, state = world(sold)
    assert "sold at the broker" in undo(ledger, state).to_dict()["detail"]
