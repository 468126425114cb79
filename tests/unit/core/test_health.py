"""Health: broken, stale or healthy, from a ledger's summary alone."""

from __future__ import annotations

from datetime import timedelta

from ghostclean.core.broker import iso
from ghostclean.core.health import WORST_FIRST, judge
from tests.fakes import NOW

INTERVAL = timedelta(minutes=5)


def summary(*, ok: bool, success: float | None = None, **more: str) -> dict[str, str]:
    """The last run was just now, the last success so many minutes ago."""
    found = {"runs": "7", "lastOk": "true" if ok else "false", "lastRunAt": iso(NOW), **more}
    return found if success is None else {**found, "lastSuccessAt": iso(NOW - timedelta(minutes=success))}


def word(found: dict[str, str]) -> str:
    return judge(found, NOW, INTERVAL).word


def test_a_recent_success_is_healthy() -> None:
    assert word(summary(ok=True, success=3)) == "healthy"
    assert word(summary(ok=True, success=10)) == "healthy"


def test_two_missed_intervals_are_stale() -> None:
    assert word(summary(ok=True, success=10.1)) == "stale"
    assert word({}) == "stale"


def test_a_failed_last_run_is_broken_and_says_what_to_do() -> None:
    found = judge(summary(ok=False, success=5, lastError="broker_truth_failed"), NOW, INTERVAL)
    assert found.word == "broken"
    assert "broker_truth_failed" in found.why
    assert "doctor" in found.advice
    assert found.last_success == NOW - timedelta(minutes=5)


def test_broken_comes_before_stale_and_the_longest_without_success_before_others() -> None:
    found = [
        judge(summary(ok=True, success=1), NOW, INTERVAL),
        judge(summary(ok=True, success=20), NOW, INTERVAL),
        judge({}, NOW, INTERVAL),
        judge(summary(ok=False, success=1), NOW, INTERVAL),
    ]
    worst_first = sorted(found, key=lambda health: health.severity())
    assert [health.word for health in worst_first] == ["broken", "stale", "stale", "healthy"]
    assert [health.last_success for health in worst_first][1:3] == [None, NOW - timedelta(minutes=20)]
    assert {health.word for health in found} == set(WORST_FIRST)
