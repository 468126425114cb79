"""When an instrument trades: half days, the last seconds, the end-of-day window, the day that is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ghostclean.core.broker import MarketClock, Session
from ghostclean.core.protection import Market

DAY = timedelta(days=1)
OPEN, CLOSE = datetime(2026, 11, 18, 14, 30, tzinfo=UTC), datetime(2026, 11, 18, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def market(at: datetime, *sessions: Session, open: bool = True) -> Market:
    return Market.of(MarketClock(at, open, OPEN + DAY, CLOSE if at < CLOSE else CLOSE + DAY), sessions)


def session(start: datetime, end: datetime) -> Session:
    return Session(start.date(), start, end)


DURING = market(OPEN + SECOND, session(OPEN - DAY, CLOSE - DAY), session(OPEN, CLOSE))


@pytest.mark.parametrize(
    ("left", "open", "may_close"),
    [(16, True, True), (15, True, False), (1, True, False), (0, False, False)],
)
def test_no_close_in_the_last_fifteen_seconds(left: int, open: bool, may_close: bool) -> None:
    now = CLOSE - left * SECOND
    assert DURING.is_open(False, now) is open
    assert DURING.may_close(False, now) is may_close
    assert DURING.in_last_seconds(False, now) is (open and not may_close)


def test_crypto_trades_at_any_hour() -> None:
    for found in (DURING, market(CLOSE + SECOND, open=False)):
        assert found.is_open(True, CLOSE + DAY)
        assert found.may_close(True, CLOSE)
        assert not found.in_last_seconds(True, CLOSE - SECOND)


def test_the_last_minutes_are_those_before_the_close_and_none_after() -> None:
    window = timedelta(minutes=12)
    times = {seconds: DURING.in_last(window, CLOSE - seconds * SECOND) for seconds in (721, 720, 1, 0)}
    assert times == {721: False, 720: True, 1: True, 0: False}
    assert not market(CLOSE + SECOND, open=False).in_last(window, CLOSE - SECOND)


def test_on_a_half_day_the_calendar_s_close_counts() -> None:
    early = CLOSE - timedelta(hours=3)
    assert market(OPEN, session(OPEN, early)).close == early
    assert market(OPEN, session(OPEN, CLOSE + timedelta(hours=1))).close == CLOSE, "the earlier of both"
    assert market(OPEN, session(OPEN + DAY, early + DAY)).close == CLOSE, "another day says nothing of this one"
    assert market(OPEN).to_dict()["nextClose"] == "2026-11-18T21:00:00.000Z"


def test_a_day_is_over_only_once_its_session_has_ended() -> None:
    sessions = (session(OPEN - DAY, CLOSE - DAY), session(OPEN, CLOSE))
    assert DURING.closed_today(CLOSE - SECOND) is None
    assert market(CLOSE, *sessions, open=False).closed_today(CLOSE) == CLOSE
    before = market(OPEN - SECOND, *sessions, open=False)
    assert (before.last_close, before.closed_today(OPEN - SECOND)) == (CLOSE - DAY, None)
    midnight = datetime(2026, 11, 19, 5, tzinfo=UTC)  # in New York
    evening = market(CLOSE + SECOND, *sessions, open=False)
    assert evening.closed_today(midnight - SECOND) == CLOSE
    assert evening.closed_today(midnight) is None
