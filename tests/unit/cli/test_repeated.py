"""A failure that repeats is said when it begins, once an hour with its count, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.cli.repeated import Memo, Series, judge

START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
DOWN = "broker_truth_failed"


def said(errors: Sequence[str | None], every: float = 300) -> list[str | None]:
    """What each run of a schedule says."""
    series: Series | None = None
    told = []
    for number, error in enumerate(errors):
        series, line = judge(series, error, f"{error}.", START + timedelta(seconds=every * number))
        told.append(line)
    return told


def test_silence_means_well() -> None:
    assert said([None, None]) == [None, None]


def test_it_is_said_when_it_begins_hourly_with_its_count_and_when_it_ends() -> None:
    told = said([DOWN] * 25 + [None, None])

    assert [number for number, line in enumerate(told) if line] == [0, 12, 24, 25]
    assert told[0] == "broker_truth_failed."
    assert told[12] == "broker_truth_failed. (13 failures in a row since 2026-11-24T03:00:00+00:00)"
    assert said([DOWN, None])[1] == "runs succeed again, after 1 failure since 2026-11-24T03:00:00+00:00"
    assert told[25] == "runs succeed again, after 25 failures in a row since 2026-11-24T03:00:00+00:00"


def test_a_failure_of_another_kind_is_news_and_two_that_take_turns_are_not() -> None:
    told = said([DOWN, "ledger_failed", DOWN, "ledger_failed"])

    assert [bool(line) for line in told] == [True, True, False, False]


def test_a_lock_collision_is_said_with_the_third_in_a_row() -> None:
    assert [bool(line) for line in said(["locked", "locked", "locked", "locked"])] == [False, False, True, False]
    assert said(["locked", "locked", None]) == [None, None, None]


@given(st.lists(st.sampled_from([None, DOWN, "locked"]), max_size=40))
def test_what_was_said_to_begin_is_said_to_end_and_nothing_else(errors: list[str | None]) -> None:
    told = said([*errors, None])

    heard = False
    for error, line in zip([*errors, None], told, strict=True):
        if error is None:
            assert (line is not None) is heard
            heard = False
        else:
            heard = heard or line is not None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("GHOSTCLEAN_LEDGER", "file:/a.json")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "other", [("GHOSTCLEAN_LEDGER", "file:/b.json"), ("REDIS_URL", "redis://:secret@host/2"), ("GHOSTCLEAN_STATE", "x")]
)
def test_two_accounts_in_one_folder_are_two_series(monkeypatch: pytest.MonkeyPatch, other: tuple[str, str]) -> None:
    assert Memo("reconcile", None).judged(DOWN, "one is down") == "one is down"
    monkeypatch.setenv(*other)

    assert Memo("reconcile", None).judged(None, "") is None
    assert Memo("reconcile", None).judged(DOWN, "the other too") == "the other too"


@pytest.mark.usefixtures("home")
def test_a_changed_password_is_no_other_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://u:one@host/2")
    assert Memo("reconcile", None).judged(DOWN, "down")
    monkeypatch.setenv("REDIS_URL", "redis://u:p@ss/word@host/2")

    assert Memo("reconcile", None).judged(DOWN, "down") is None


@pytest.mark.usefixtures("home")
def test_a_run_that_has_not_looked_ends_no_trouble_of_a_trade_but_every_other() -> None:
    def series(error: str) -> list[bool]:
        told = [Memo(error, None).judged(error, "why"), Memo(error, None).judged(None, "", looked=False)]
        return [bool(line) for line in (*told, Memo(error, None).judged(None, ""))]

    assert series("naked") == [True, False, True]
    assert series(DOWN) == [True, True, False]
