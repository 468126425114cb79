"""Screens: health first, right at any width, without colour, and with whole lines through a pipe."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.core.verdicts import Action
from ghostclean.render.github import annotation, cell, summary
from ghostclean.render.jsondoc import document_text
from ghostclean.render.screen import ledgers_screen, reconcile_screen, sparkline, status_screen
from tests.builders import document, row

ACTIONS = [*map(str, Action), *(action.would() for action in Action if action.writes)]
NOW = "2026-11-20T15:05:00.000Z"


@pytest.fixture(autouse=True)
def pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def run(number: int, **more: Any) -> dict[str, Any]:
    return {
        "ts": f"2026-11-20T15:0{number}:00.000Z",
        "source": "github-actions",
        "runId": f"gh-reconcile-1234567890-1-17327{number}-with-a-very-long-name-indeed",
        "checked": 120,
        "closed": number,
        "synced": 2 * number,
        "ok": True,
        **more,
    }


def status(**more: Any) -> dict[str, Any]:
    return {
        "ok": True,
        "now": NOW,
        "health": "healthy",
        "why": "the last success was 60s ago",
        "advice": "nothing to do",
        "attention": [],
        "reconcileTelemetry": {
            "summary": {"runs": 9, "success": 8, "fail": 1, "totalClosed": 12, "totalSynced": 40},
            "runs": [run(4), run(3, ok=False, error="broker_truth_failed"), run(2, dryRun=True, closed=99), run(1)],
        },
        "autoManageTelemetry": {
            "summary": {"lastOutcome": "SKIP", "lastReason": "market_closed", "lastRunAt": "2026-11-20T15:03:00.000Z"},
            "runs": [],
        },
        "ledger": {
            "name": "file:/app/trades.json",
            "open": 7,
            "pending": 1,
            "oldestOpenAt": "2026-11-18T15:05:00.000Z",
        },
        "broker": None,
        "entryState": None,
        "lock": None,
        "spooled": 0,
        "error": None,
        "detail": None,
        **more,
    }


def test_the_first_line_is_the_health_and_what_to_do() -> None:
    lines = list(status_screen(status(health="stale", why="the last success was 2h ago", advice="check the schedule")))
    assert lines[0] == "stale: the last success was 2h ago - check the schedule"


def wide(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """The terminal has so many columns."""
    monkeypatch.setattr("ghostclean.render.screen._width", lambda: columns)


def test_in_a_pipe_a_line_is_whole() -> None:
    why = "AAPL t-3: mismatch: " + "the broker holds something else than the ledger says, " * 5
    item = {"kind": "mismatch", "symbol": "AAPL", "id": "t-3", "why": why, "since": NOW, "command": "ghostclean x " * 9}
    lines = list(status_screen(status(health="needs you", why=why, advice="ghostclean resolve t-3", attention=[item])))

    assert lines[0] == f"needs you: {why} - ghostclean resolve t-3"
    assert sum(why.strip() in line for line in lines) == 2
    assert any(line.strip() == item["command"].strip() for line in lines)


def test_it_fits_80_columns_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    wide(monkeypatch, 80)
    broker = {
        "positionsCount": 3,
        "openOrdersCount": 1,
        "onlyAtBroker": [f"SYM{n}" for n in range(40)],
        "onlyInLedger": [],
    }
    entry = {"allowed": False, "count": 3, "maxOpen": 3, "reason": "3 of 3 symbols are taken (A, B, C)"}
    lock = {"holder": "github-actions gh-1", "secondsLeft": 41.0}
    lines = list(status_screen(status(broker=broker, entryState=entry, lock=lock, spooled=2)))
    assert max(len(line) for line in lines) <= 80
    assert not any("\x1b" in line for line in lines)
    text = "\n".join(lines)
    for word in (
        "SYM39",
        "only in ledger  none",
        "held by github-actions gh-1",
        "2 run records waiting",
        "3 positions, 1 working order\n",
        "SKIP (market_closed)",
    ):
        assert word in text


def test_runs_show_their_error_and_dry_runs_are_left_out_of_the_bars() -> None:
    text = "\n".join(status_screen(status()))
    assert "broker_truth_failed" in text
    assert "dry run" in text
    assert re.search(r"closed  \S{3}  8\n", text)


def test_locked_and_interrupted_runs_are_no_failures_in_the_bars() -> None:
    errors = (None, "locked", "interrupted", "broker_truth_failed")
    runs = [run(number, ok=error is None, error=error) for number, error in enumerate(errors)]

    text = "\n".join(status_screen(status(reconcileTelemetry={"summary": {}, "runs": runs})))

    assert re.search(r"failed  █▁▁▁  1$", text, re.MULTILINE)


def test_colour_on_demand_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1;32m" in next(iter(status_screen(status())))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;32m" not in next(iter(status_screen(status())))


def test_a_new_installation_has_a_screen_too() -> None:
    empty = {"summary": {}, "runs": []}
    found = status(health="stale", ledger=None, reconcileTelemetry=empty, autoManageTelemetry=empty)
    assert next(iter(status_screen(found))).startswith("stale")


def test_markup_in_a_ledger_stays_text() -> None:
    lines = list(reconcile_screen(document(row("closed", ticker="[red]X", reason="[bold]why[/bold] \x1b[31m"))))
    assert any("[red]X" in line and "[bold]why[/bold] ?[31m" in line for line in lines)


def test_sparkline_scales_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    assert sparkline([0, 0]) == "▁▁"


def test_json_knows_decimals_and_any_locale() -> None:
    text = document_text({"price": Decimal("187.40"), "count": Decimal(3), "name": "Zürich"}, for_person=False)
    assert json.loads(text) == {"price": 187.4, "count": 3, "name": "Zürich"}
    assert text.isascii()


def test_an_annotation_is_one_line() -> None:
    assert annotation("error", "100% wrong\nreally") == "::error::100%25 wrong%0Areally"


def test_the_step_summary_is_bounded_and_cannot_break_its_table() -> None:
    rows = [row("closed", id=f"t{n}", reason="a | b <b> `c`") for n in range(50)]
    lines = list(summary("ghostclean reconcile", document(*rows, closed=50)))
    assert lines[0] == "### ghostclean reconcile: ok"
    assert sum(line.startswith("| closed") for line in lines) == 20
    assert any("30 more" in line for line in lines)
    assert cell("a|b") == "a\\|b"
    assert "a \\| b &lt;b> \\`c\\`" in "\n".join(lines)


def test_a_run_id_of_ours_stands_on_one_line_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    wide(monkeypatch, 80)
    ours = "reconcile-20261122T184541-a8b795"  # to be copied for an `undo`
    telemetry = {"summary": {}, "runs": [run(4, runId=ours, ok=False, error="broker_truth_failed")]}
    assert any(line.endswith(ours) for line in status_screen(status(reconcileTelemetry=telemetry)))


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1", "NO_COLOR": "1"}, {"FORCE_COLOR": "0"}])
def test_declined_colour_means_bare_text(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not any("\x1b" in line for line in status_screen(status()))


def test_the_summary_of_a_document_without_ok_is_no_failure() -> None:
    assert next(iter(summary("ghostclean snapshot", {"schema": 1}))) == "### ghostclean snapshot: ok"
    assert next(iter(summary("ghostclean gate", {"ok": True, "allowed": False}))) == "### ghostclean gate: closed"
    assert "stale: no run" in "\n".join(
        summary("s", {"ok": True, "health": "stale", "why": "no run has succeeded yet"})
    )


@pytest.mark.parametrize("action", ACTIONS)
def test_no_column_of_a_run_runs_into_the_next_at_any_width(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    ticker = "AAPL261218C00200000"
    shown = document(row(action, "filled_but_gone", ticker=ticker, reason="why"))

    for width in range(60, 201):
        wide(monkeypatch, width)
        lines = list(reconcile_screen(shown, verbose=True))
        (line,) = (line for line in lines if line.startswith(action))
        assert line.split() == [action, ticker, "filled_but_gone", "why"], width
        assert max(map(len, lines)) <= width


def test_a_sync_names_the_fields_it_would_write() -> None:
    changed = row("would_sync", "live", before={"updatedAt": "then"}, after={"filledQty": 10, "updatedAt": "now"})
    assert any(line.endswith("its stop filled: filledQty") for line in reconcile_screen(document(changed)))


# --------------------------------------------------------------------------- all ledgers


def ledger(name: str, health: str = "healthy", **more: Any) -> dict[str, Any]:
    why = "the last success was 60s ago, and a lot more could be said about it than fits on a line"
    return {"ledger": name, "account": "PA3XYZ123456", "live": False, "health": health, "why": why, **more}


@pytest.mark.parametrize("width", [80, 120])
def test_every_ledger_is_one_line_that_fits(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    wide(monkeypatch, width)
    server = "rediss://a-very-long-name-of-a-managed-redis.eu-central-1.example.com:6379/0#trades:v1:"
    rows = [ledger(f"{server}{name}", "broken" if name == "beta" else "healthy") for name in ("beta", "alpha", "g")]
    lines = list(ledgers_screen({"ledgers": rows}))
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("broken")
    assert [f"trades:v1:{name}" in line for name, line in zip(("beta", "alpha", "g"), lines, strict=True)] == [True] * 3
    assert all("paper PA3XYZ123456" in line for line in lines)


def test_short_names_leave_the_room_to_the_reason() -> None:
    (line,) = ledgers_screen({"ledgers": [ledger("file:/a.json", account=None, live=True, why="the last run failed")]})
    assert line == "healthy    file:/a.json  live  the last run failed"


def test_a_state_without_runs_says_so() -> None:
    (line,) = ledgers_screen({"ledgers": [], "places": {"state": "sqlite:/s.db"}})
    assert line == "no ledger has recorded a run in sqlite:/s.db"
