"""Alerts on change: each change is told once, nothing is told twice, silence is not taken for news."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.cli.reconcile import warnings
from ghostclean.core.alerts import Origin, changes, manage_changes, report
from ghostclean.core.verdicts import Verdict
from ghostclean.result import EXIT_CODES

HOME = Origin("file:/app/trades.json", "", True, "bot-1")
NEED_A_PERSON = sorted(verdict for verdict in Verdict if verdict.needs_person)

Row = dict[str, Any]


def row(trade_id: str | None, verdict: str, action: str = "held", ticker: str = "AAPL") -> Row:
    return {"id": trade_id, "ticker": ticker, "verdict": verdict, "action": action, "reason": "why"}


def run(*rows: Row, error: str | None = None, closed: int | None = None) -> dict[str, Any]:
    done = sum(r["action"] == "closed" for r in rows) if closed is None else closed
    counters = dict.fromkeys(("checked", "synced", "backfilled", "held", "orphans", "failed"), 0)
    return {
        "runId": "r-1", "source": "test", "ok": error is None, "error": error,
        "detail": "the detail" if error else None,
        "results": list(rows), "closed": done, "durationMs": 12, **counters,
    }  # fmt: skip


def told(*documents: dict[str, Any], listed: Sequence[str] = ()) -> list[list[str]]:
    """The events of each run of a series."""
    state: dict[str, Any] = {}
    events = []
    for document in documents:
        alerts, state = changes(state, document, listed)
        events.append([alert.event for alert in alerts])
    return events


def test_the_first_ghost_closed_is_told_and_the_next_ones_in_a_row_are_not() -> None:
    closing = run(row("a", "exited", "closed"))

    assert told(closing, closing, run(), closing) == [["ghosts_closed"], [], [], ["ghosts_closed"]]
    alerts, _ = changes({}, closing)
    assert alerts[0].text == "1 ghosts closed: AAPL (exited)"


def test_the_first_failure_and_the_recovery_are_told_once() -> None:
    bad = run(error="broker_truth_failed")

    assert told(run(), bad, bad, bad, run(), run()) == [[], ["failed"], [], [], ["recovered"], []]


def test_one_failure_after_another_is_the_same_trouble() -> None:
    assert told(run(error="broker_truth_failed"), run(error="ledger_failed"), run(error="deadline_exceeded")) == [
        ["failed"], [], []
    ]  # fmt: skip


def test_the_breaker_speaks_even_among_failures() -> None:
    stopped = run(error="mass_close_stopped")

    assert told(run(error="broker_truth_failed"), stopped, stopped, run()) == [
        ["failed"], ["breaker"], [], ["recovered"]
    ]  # fmt: skip


def test_a_wrong_account_is_told_even_among_failures() -> None:
    assert told(run(error="ledger_failed"), run(error="account_mismatch")) == [["failed"], ["failed"]]


@pytest.mark.parametrize("verdict", NEED_A_PERSON)
def test_a_trade_that_needs_a_person_is_told_when_it_appears_and_when_it_clears(verdict: str) -> None:
    bad, good = run(row("a", verdict)), run(row("a", "live", "kept"))

    assert told(good, bad, bad, good, good) == [[], ["needs_a_person"], [], ["cleared"], []]


def test_a_trade_that_changes_from_one_trouble_to_another_is_told() -> None:
    assert told(run(row("a", "mismatch")), run(row("a", "ambiguous"))) == [["needs_a_person"], ["needs_a_person"]]


def test_a_trade_without_id_is_told_once() -> None:
    assert told(run(row(None, "unreadable")), run(row(None, "unreadable")), run()) == [
        ["needs_a_person"], [], ["cleared"]
    ]  # fmt: skip


def test_an_orphan_is_no_trade() -> None:
    assert told(run(row(None, "orphan", "kept"))) == [[]]


@pytest.mark.parametrize("verdict", ["unknown", "settling"])
def test_an_undecided_run_neither_clears_nor_repeats(verdict: str) -> None:
    bad, open_ = run(row("a", "mismatch")), run(row("a", verdict))

    assert told(bad, open_, bad, run(row("a", "live", "kept"))) == [["needs_a_person"], [], [], ["cleared"]]


def test_a_trade_not_worked_on_in_a_limited_run_is_not_taken_for_settled() -> None:
    assert told(run(row("a", "mismatch")), run(), run(row("a", "mismatch")), listed=["a"]) == [
        ["needs_a_person"], [], []
    ]  # fmt: skip


def test_a_trade_that_left_the_ledger_is_settled() -> None:
    assert told(run(row("a", "mismatch")), run(), listed=["b"]) == [["needs_a_person"], ["cleared"]]


@pytest.mark.parametrize("error", [word for word in EXIT_CODES if word])
def test_a_failed_run_says_nothing_by_silence(error: str) -> None:
    bad = run(row("a", "mismatch"))

    assert told(bad, run(error=error), run(row("a", "mismatch"))) == [
        ["needs_a_person"], ["breaker" if error == "mass_close_stopped" else "failed"], ["recovered"]
    ]  # fmt: skip


def test_many_trades_make_a_short_line() -> None:
    alerts, _ = changes({}, run(*(row(str(n), "mismatch", ticker=f"T{n}") for n in range(12))))

    assert [alert.text for alert in alerts] == [
        "needs a person: T0 mismatch, T1 mismatch, T10 mismatch, T11 mismatch, T2 mismatch and 7 more"
    ]


ROWS = st.builds(
    row,
    st.sampled_from([None, "a", "b", "c"]),
    st.sampled_from([*NEED_A_PERSON, "live", "unknown", "settling", "exited", "orphan"]),
    st.sampled_from(["held", "kept"]),
)
RUNS = st.builds(
    lambda rows, error: run(*{str(r["id"]): r for r in rows}.values(), error=error),
    st.lists(ROWS, max_size=4),
    st.sampled_from([None, "broker_truth_failed", "mass_close_stopped", "deadline_exceeded"]),
)


@given(st.lists(RUNS, max_size=6), RUNS)
def test_the_same_run_twice_tells_nothing_the_second_time(past: list[dict[str, Any]], last: dict[str, Any]) -> None:
    events = told(*past, last, last)

    assert events[-1] == []


def test_the_report_names_the_run_how_it_ended_and_what_it_did() -> None:
    text = report(run(row("a", "exited", "closed"), row("b", "live", "kept"), error="mass_close_stopped"), HOME)

    assert text.splitlines() == [
        "run r-1 (source test): mass_close_stopped",
        "ledger file:/app/trades.json, live account, host bot-1",
        "the detail",
        "0 checked, 1 closed, 0 synced, 0 backfilled, 0 held, 0 orphans, 0 failed in 12 ms",
        "closed AAPL a exited: why",
    ]


def test_a_long_report_is_bounded() -> None:
    lines = report(run(*(row(str(n), "mismatch") for n in range(500))), HOME).splitlines()

    assert len(lines) == 104
    assert lines[-1] == "and 400 more"


# --------------------------------------------------------------------------- auto-manage


def managed(reason: str | None = None, *, ok: bool = True, detail: str | None = None) -> dict[str, Any]:
    return {"reason": reason, "error": None if ok else reason, "detail": detail}


def failed(reason: str) -> dict[str, Any]:
    return managed(reason, ok=False, detail=f"{reason}: AAPL a: why")


SUCCESS, CLOSED, NOTHING_OPEN = managed(), managed("market_closed"), managed("no_open_trades")


def manage_told(*documents: dict[str, Any]) -> list[list[str]]:
    state: dict[str, Any] = {}
    events = []
    for document in documents:
        alerts, state = manage_changes(state, document)
        events.append([alert.event for alert in alerts])
    return events


def test_a_failure_of_auto_manage_and_its_end_are_told_once() -> None:
    naked = failed("naked")

    assert manage_told(SUCCESS, naked, naked, naked, SUCCESS, SUCCESS, naked) == [
        [], ["manage_failed"], [], [], ["manage_recovered"], [], ["manage_failed"]
    ]  # fmt: skip


def test_every_reason_is_told_once_even_when_they_take_turns() -> None:
    naked, missed = failed("naked"), failed("eod_missed")

    assert manage_told(naked, missed, naked, missed, SUCCESS) == [
        ["manage_failed"], ["manage_failed"], [], [], ["manage_recovered"]
    ]  # fmt: skip


def test_an_alert_of_auto_manage_names_reason_and_trade_and_its_end_what_is_over() -> None:
    first, state = manage_changes({}, failed("naked"))
    second, state = manage_changes(state, managed("broker_truth_failed", ok=False, detail="the broker failed"))
    last, _ = manage_changes(state, SUCCESS)

    assert [alert.text for alert in (*first, *second, *last)] == [
        "auto-manage failed: naked: AAPL a: why",
        "auto-manage failed: broker_truth_failed: the broker failed",
        "auto-manage succeeds again (it failed with naked, broker_truth_failed)",
    ]


def test_a_closed_market_is_no_recovery_and_an_empty_ledger_is() -> None:
    assert manage_told(failed("naked"), CLOSED, CLOSED, failed("naked"), NOTHING_OPEN, CLOSED) == [
        ["manage_failed"], [], [], [], ["manage_recovered"], []
    ]  # fmt: skip


MANAGED = st.sampled_from([SUCCESS, CLOSED, NOTHING_OPEN, failed("naked"), failed("eod_missed"), failed("clock")])


@given(st.lists(MANAGED, max_size=6), MANAGED)
def test_the_same_auto_manage_run_twice_tells_nothing_the_second_time(
    past: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    assert manage_told(*past, last, last)[-1] == []


def test_the_command_names_the_same_trades_as_the_alert() -> None:
    document = run(*(row(str(verdict), str(verdict)) for verdict in Verdict))

    (warning,) = warnings(document)
    _, state = changes({}, document)

    assert warning.startswith(f"{len(NEED_A_PERSON)} trades need a person: ")
    assert all(f"AAPL {verdict}" in warning for verdict in NEED_A_PERSON)
    assert sorted(state["held"]) == NEED_A_PERSON
