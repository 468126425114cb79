"""Health: broken, in need of a person, stale or healthy."""

from __future__ import annotations

from datetime import timedelta

from ghostclean.core.attention import Needs
from ghostclean.core.broker import iso
from ghostclean.core.health import WORST_FIRST, Failing, judge
from ghostclean.errors import Cause
from tests.fakes import NOW

INTERVAL = timedelta(minutes=5)
NEEDS = Needs(2, "AAPL a: mismatch: why", "ghostclean resolve a")


def summary(*, ok: bool, success: float | None = None, **more: str) -> dict[str, str]:
    """The last run was just now, the last success so many minutes ago."""
    found = {"runs": "7", "lastOk": "true" if ok else "false", "lastRunAt": iso(NOW), **more}
    return found if success is None else {**found, "lastSuccessAt": iso(NOW - timedelta(minutes=success))}


def word(found: dict[str, str]) -> str:
    return judge(found, Needs(), NOW, INTERVAL).word


def test_a_recent_success_is_healthy() -> None:
    assert word(summary(ok=True, success=3)) == "healthy"
    assert word(summary(ok=True, success=10)) == "healthy"


def test_two_missed_intervals_are_stale() -> None:
    assert word(summary(ok=True, success=10.1)) == "stale"
    assert word({}) == "stale"


def test_a_failed_last_run_is_broken_and_says_what_to_do() -> None:
    found = judge(summary(ok=False, success=5, lastError="broker_truth_failed"), Needs(), NOW, INTERVAL)
    assert found.word == "broken"
    assert "broker_truth_failed" in found.why
    assert "doctor" in found.advice
    assert found.last_success == NOW - timedelta(minutes=5)


def test_a_failure_in_a_row_says_which_since_when_and_how_often() -> None:
    failing = Failing("03:00", 3, "keys_refused")
    found = judge(summary(ok=False, lastError="broker_truth_failed"), Needs(), NOW, INTERVAL, failing)
    assert found.why == (
        "the last run failed: broker_truth_failed: the broker refuses the keys (3 failed runs in a row since 03:00)"
    )
    assert found.advice == Cause.KEYS.cure


def test_failures_are_counted_from_the_first() -> None:
    first = Failing.after(None, "03:00", Cause.DOWN)
    second = Failing.after(first._asdict(), "03:05", None)

    assert (first, second) == (("03:00", 1, "broker_down"), ("03:00", 2, None))


def test_broken_comes_before_stale_and_the_longest_without_success_before_others() -> None:
    found = [
        judge(summary(ok=True, success=1), Needs(), NOW, INTERVAL),
        judge(summary(ok=True, success=20), Needs(), NOW, INTERVAL),
        judge({}, Needs(), NOW, INTERVAL),
        judge(summary(ok=False, success=1), Needs(), NOW, INTERVAL),
        judge(summary(ok=True, success=1), NEEDS, NOW, INTERVAL),
    ]
    worst_first = sorted(found, key=lambda health: health.severity())
    assert [health.word for health in worst_first] == ["broken", "needs you", "stale", "stale", "healthy"]
    assert [health.last_success for health in worst_first][2:4] == [None, NOW - timedelta(minutes=20)]
    assert {health.word for health in found} == set(WORST_FIRST)


def test_what_needs_a_person_comes_before_stale_with_its_next_command() -> None:
    found = judge(summary(ok=True, success=60), NEEDS, NOW, INTERVAL)

    assert (found.word, found.why, found.advice) == (
        "needs you", "AAPL a: mismatch: why, and 1 more", "ghostclean resolve a"
    )  # fmt: skip
    assert judge(summary(ok=False, success=5), NEEDS, NOW, INTERVAL).word == "broken"
