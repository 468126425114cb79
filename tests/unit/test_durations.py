"""Durations as people write them."""

from __future__ import annotations

import pytest

from ghostclean.durations import DAY, parse_duration, spell


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60.0),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("0.1s", 0.1),
        ("3s", 3.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1d", DAY),
        (" 90 S ", 90.0),
        (".5", 0.5),
    ],
)
def test_every_written_form_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "-5s", "nan", "inf", "1e3", "60 sec", "one", "1w", "1:30", "٣"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 60"):
        parse_duration(text)


def test_zero_needs_permission() -> None:
    with pytest.raises(ValueError, match="zero"):
        parse_duration("0")
    assert parse_duration("0", zero=True) == 0.0


def test_absurd_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than"):
        parse_duration("99999999")
    assert parse_duration("86400") == DAY


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "10ms"), (3, "3s"), (59, "59s"), (300, "5m"), (7200, "2h"), (3 * 86400, "3d")],
)
def test_spelling_for_people(seconds: float, text: str) -> None:
    assert spell(seconds) == text
