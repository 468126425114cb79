"""Alerts on change: each change is told once, nothing is told twice, silence is not taken for news."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.cli.reconcile import warnings
from ghostclean.core.alerts import Alert, Origin, changes, manage_changes, message, report
from ghostclean.result import EXIT_CODES

HOME = Origin("file:/app/trades.json", "", True, "bot-1")


@pytest.mark.parametrize("most", [40_000, 300, 120, 60, 1])
def test_a_message_keeps_its_length_and_says_whose_it_is_where_that_leaves_room(most: int) -> None:
    text = message([Alert("failed", "x" * 200), Alert("cleared", "y" * 20)], HOME, most)
    assert len(text) <= most
    assert text.startswith("ghostclean: x"[: most - 1])
    assert text.endswith(HOME.line()) is (most >= 120)
    assert ("…" in text) is (most < 300)


Row = dict[str, Any]


def row(trade_id: str | None, verdict: str, action: str = "held", ticker: str = "AAPL") -> Row:
    return {"id": trade_id, "ticker": ticker, "verdict": verdict, "action": action, "reason": "why"}


def run(
    *rows: Row,
    error: str | None = None,
    closed: int | None = None,
    attention: Sequence[Row] = (),
    settled: Sequence[Row] = (),
) -> dict[str, Any]:
    done = sum(r["action"] == "closed" for r in rows) if closed is None else closed
    counters = dict.fromkeys(("checked", "synced", "backfilled", "held", "orphans", "failed"), 0)
    return {
        "runId": "r-1", "source": "test", "ok": error is None, "error": error,
        "detail": "the detail" if error else None,
        "results": list(rows), "closed": done, "durationMs": 12,
        "attention": attention, "settled": settled, **counters,
    }  # fmt: skip


def told(*documents: dict[str, Any]) -> list[list[str]]:
    """The events of each run of a series."""
    state: dict[str, Any] = {}
    events = []
    for document in documents:
        alerts, state = changes(state, document)
        events.append([alert.event for alert in alerts])
    return events


def test_the_first_ghost_closed_is_told_and_the_next_ones_in_a_row_are_not() -> None:
    closing = run(row("a", "exited", "closed"))

    assert told(closing, closing, run(), closing) == [["ghosts_closed"], [], [], ["ghosts_closed"]]
    alerts, _ = changes({}, closing)
    assert alerts[0].text == "1 ghost closed: AAPL a (exited)"


def test_the_first_failure_and_the_recovery_are_told_once() -> None:
    bad = run(error="broker_truth_failed")

    assert told(run(), bad, bad, bad, run(), run()) == [[], ["failed"], [], [], ["recovered"], []]


def test_a_failure_that_no_later_run_ends_is_news_among_those_that_pass() -> None:
    down = {**run(error="broker_truth_failed"), "cause": "broker_down"}
    refused = {**down, "cause": "keys_refused"}

    assert told(down, {**down, "cause": "unreachable"}, refused, refused, run()) == [
        ["failed"], [], ["failed"], [], ["recovered"]
    ]  # fmt: skip


def test_the_recovery_says_how_long_it_was() -> None:
    _, state = changes({}, {**run(error="ledger_failed"), "failing": {"since": "03:00", "runs": 7}})
    (alert,), _ = changes(state, run())

    assert (
        alert.text == "runs succeed again (the last one failed with ledger_failed, 7 failed runs in a row since 03:00)"
    )


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


def item(trade_id: str | None, kind: str, *, new: bool = True) -> Row:
    return {
        "kind": kind, "symbol": "AAPL", "id": trade_id, "why": "why", "new": new,
        "command": f"ghostclean explain {trade_id}", "since": "2026-11-24T15:00:00.000Z",
    }  # fmt: skip


def test_an_item_of_attention_is_told_when_it_begins_and_when_it_ends() -> None:
    begins, stands = run(attention=[item("a", "mismatch")]), run(attention=[item("a", "mismatch", new=False)])
    ends = run(settled=[item("a", "mismatch")])

    assert told(begins, stands, ends) == [["needs_a_person"], [], ["cleared"]]


def test_an_alert_names_the_trade_the_reason_and_the_next_command() -> None:
    (begun,), state = changes({}, run(attention=[item("a", "mismatch")]))
    (ended,), _ = changes(state, run(settled=[item("a", "mismatch")]))

    assert begun.text == "needs a person: AAPL a: mismatch: why -> ghostclean explain a"
    assert ended.text == "settled: AAPL a: mismatch"


def test_many_items_make_a_few_alerts() -> None:
    alerts, _ = changes({}, run(attention=[item(f"t-{n}", "mismatch") for n in range(12)]))

    assert len(alerts) == 6
    assert alerts[-1].text == "needs a person: 7 more; `ghostclean status` lists them"


@pytest.mark.parametrize("error", [word for word in EXIT_CODES if word])
def test_a_failed_run_is_told_as_what_it_is(error: str) -> None:
    if error == "interrupted":
        assert told(run(), run(error=error), run()) == [[], [], []]
        return
    expected = "breaker" if error == "mass_close_stopped" else "failed"
    assert told(run(), run(error=error), run()) == [[], [expected], ["recovered"]]


RUNS = st.builds(
    lambda rows, error: run(*rows, error=error),
    st.lists(st.builds(row, st.sampled_from("ab"), st.just("exited"), st.sampled_from(["closed", "kept"])), max_size=3),
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


def managed(reason: str | None = None, *, ok: bool = True, detail: str | None = None, **more: Any) -> dict[str, Any]:
    return {"reason": reason, "error": None if ok else reason, "detail": detail, "attention": [], "settled": [], **more}


def failed(reason: str) -> dict[str, Any]:
    return managed(reason, ok=False, detail=f"{reason}: AAPL a: why")


SUCCESS, CLOSED, NOTHING_OPEN = managed(), managed("market_closed"), managed("no_open_trades")


def manage_told(*documents: dict[str, Any]) -> list[list[str]]:
    state: dict[str, Any] = {}
    events = []
    for document in documents:
        alerts, after = manage_changes(state, document)
        state = {**state, **after}
        events.append([alert.event for alert in alerts])
    return events


def test_a_failure_of_auto_manage_and_its_end_are_told_once() -> None:
    down = failed("clock_unavailable")

    assert manage_told(SUCCESS, down, down, down, SUCCESS, SUCCESS, down) == [
        [], ["manage_failed"], [], [], ["manage_recovered"], [], ["manage_failed"]
    ]  # fmt: skip


def test_every_reason_is_told_once_even_when_they_take_turns() -> None:
    clock, prices = failed("clock_unavailable"), failed("no_prices")

    assert manage_told(clock, prices, clock, prices, SUCCESS) == [
        ["manage_failed"], ["manage_failed"], [], [], ["manage_recovered"]
    ]  # fmt: skip


def test_an_alert_of_auto_manage_names_reason_and_trade_and_its_end_what_is_over() -> None:
    first, state = manage_changes({}, failed("no_prices"))
    second, state = manage_changes(state, managed("broker_truth_failed", ok=False, detail="the broker failed"))
    last, _ = manage_changes(state, SUCCESS)

    assert [alert.text for alert in (*first, *second, *last)] == [
        "auto-manage failed: no_prices: AAPL a: why",
        "auto-manage failed: broker_truth_failed: the broker failed",
        "auto-manage succeeds again (it failed with no_prices, broker_truth_failed)",
    ]


def test_a_closed_market_is_no_recovery_and_an_empty_ledger_is() -> None:
    down = failed("no_prices")
    assert manage_told(down, CLOSED, CLOSED, down, NOTHING_OPEN, CLOSED) == [
        ["manage_failed"], [], [], [], ["manage_recovered"], []
    ]  # fmt: skip


def test_an_interrupted_run_tells_and_forgets_nothing() -> None:
    down = failed("no_prices")
    assert manage_told(down, failed("interrupted"), down, SUCCESS) == [["manage_failed"], [], [], ["manage_recovered"]]


def test_what_fails_it_about_a_trade_is_told_as_that_trades_item() -> None:
    begins = managed("naked", ok=False, detail="naked: AAPL a: why", attention=[item("a", "naked")])
    stands = managed("naked", ok=False, detail="naked: AAPL a: why", attention=[item("a", "naked", new=False)])
    ends = managed(settled=[item("a", "naked")])

    assert manage_told(begins, stands, ends) == [["needs_a_person"], [], ["cleared"]]


MANAGED = st.sampled_from([SUCCESS, CLOSED, NOTHING_OPEN, failed("naked"), failed("eod_missed"), failed("clock")])


@given(st.lists(MANAGED, max_size=6), MANAGED)
def test_the_same_auto_manage_run_twice_tells_nothing_the_second_time(
    past: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    assert manage_told(*past, last, last)[-1] == []


def test_the_command_says_the_same_as_the_alert() -> None:
    document = run(attention=[item("a", "mismatch")])

    (alert,), _ = changes({}, document)

    assert [*warnings(document)] == [alert.text.replace("needs a person", "needs you")]
