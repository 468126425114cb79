"""Numbers and times as ledgers and brokers spell them: exact, or refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from ghostclean.core.broker import (
    BadNumber,
    eastern,
    eastern_date,
    iso,
    json_number,
    money,
    number,
    parse_time,
    plain,
    ratio4,
)

WHEN = datetime(2026, 11, 22, 7, 38, 12, 123000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, None), ("", None), ("  ", None), ("1.50", "1.50"), (" 7 ", "7"), (3, "3"), (0.1, "0.1"), ("-0.5", "-0.5")],
)
def test_a_number_is_exact_and_a_blank_is_none(value: Any, found: str | None) -> None:
    assert number(value) == (None if found is None else Decimal(found))


@pytest.mark.parametrize("value", [True, False, "ten", "nan", "inf", float("nan"), [], {}, "1e100", "1e-100"])
def test_what_is_no_usable_number_is_refused(value: Any) -> None:
    with pytest.raises(BadNumber):
        number(value)


def test_thirty_digits_are_enough_for_any_amount() -> None:
    assert [number(n) for n in ("1e30", "1e-30")] == [Decimal(10) ** 30, Decimal(10) ** -30]
    for n in ("1e31", "1e-31"):
        with pytest.raises(BadNumber):
            number(n)


def test_zero_is_a_number_whatever_its_exponent() -> None:
    assert number("0e100") == 0
    assert plain(Decimal("0E+2")) == "0"


@pytest.mark.parametrize(
    ("value", "text", "outside"),
    [("187.40", "187.4", 187.4), ("1E+3", "1000", 1000), ("0.00001", "0.00001", 0.00001), ("100", "100", 100)],
)
def test_a_number_is_written_without_exponent_or_idle_zeros(value: str, text: str, outside: float) -> None:
    assert plain(Decimal(value)) == text
    assert (json_number(Decimal(value)), type(json_number(Decimal(value)))) == (outside, type(outside))


def test_a_number_that_no_reader_could_hold_stays_a_text() -> None:
    assert plain(Decimal("1E+400")) == json_number(Decimal("1E+400")) == "1E+400"


def test_money_and_r_are_rounded_half_up() -> None:
    assert [money(Decimal(n)) for n in ("0.005", "0.004", "-0.005")] == [Decimal(n) for n in ("0.01", "0.00", "-0.01")]
    assert [ratio4(Decimal(n)) for n in ("1.00005", "1.00004")] == [Decimal("1.0001"), Decimal("1.0000")]


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T07:38:12.123Z",
        "2026-11-22T07:38:12.123",  # naive is UTC
        "2026-11-22 02:38:12.123-05:00",
        " 2026-11-22T07:38:12.123+00:00 ",
        1795333092.123,
        "1795333092123",
        1795333092123,
    ],
)
def test_every_spelling_of_a_time_is_one_moment_in_utc(value: Any) -> None:
    found = parse_time(value)
    assert (found, found and found.utcoffset()) == (WHEN, timedelta(0))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "2026-11-22",
        "yesterday at noon",
        0,
        12,
        999_999_999,
        10**10,
        10**13,
        True,
        "0001-01-01T00:00:00+23:00",
    ],
)
def test_what_is_no_time(value: Any) -> None:
    assert parse_time(value) is None


def test_the_bounds_of_an_epoch() -> None:
    assert parse_time(10**9) == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC) == parse_time(10**12)
    assert parse_time(10**10 - 1) is not None


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    assert iso(WHEN) == "2026-11-22T07:38:12.123Z"
    assert iso(WHEN.astimezone(timezone(timedelta(hours=-5)))) == "2026-11-22T07:38:12.123Z"
    assert iso(datetime(2026, 1, 2, microsecond=7999, tzinfo=UTC)) == "2026-01-02T00:00:00.007Z"


def test_the_day_of_the_exchange_is_new_yorks() -> None:
    assert eastern(date(2026, 7, 1), time(16)) == datetime(2026, 7, 1, 20, tzinfo=UTC)
    assert eastern(date(2026, 12, 1), time(16)) == datetime(2026, 12, 1, 21, tzinfo=UTC)
    assert eastern_date(datetime(2026, 12, 2, 4, 59, tzinfo=UTC)) == date(2026, 12, 1)
    assert eastern_date(datetime(2026, 12, 2, 5, tzinfo=UTC)) == date(2026, 12, 2)
