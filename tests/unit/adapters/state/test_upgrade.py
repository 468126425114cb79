"""What a ledger takes over from telemetry that an earlier version kept for all ledgers together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ghostclean.adapters.state.upgrade import Shared, upgraded

SUMMARY = {"runs": "41", "success": "40", "fail": "1", "totalClosed": "7", "lastOk": "true", "lastRunAt": "t3"}


def run(n: int, **more: Any) -> dict[str, Any]:
    """A run as the version before listed it."""
    listed = {"ts": f"t{n}", "source": "cron", "runId": f"r{n}", "checked": 3, "closed": n, "synced": 1, "ok": True}
    return {**listed, "error": None, "dryRun": False, **more}


def shared(*runs: Any, of: tuple[int, ...], summary: dict[str, str] | None = None) -> Shared:
    """These runs, newest first; those numbered `of` are the ledger's own."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in runs]
    return Shared(SUMMARY if summary is None else summary, texts, {f"r{n}@t{n}" for n in of})


def test_what_only_this_ledger_wrote_is_its_own_in_full() -> None:
    found = upgraded("reconcile", shared(run(3), run(2), of=(3, 2)))
    assert found.summary == {**SUMMARY, "lastSuccessAt": "t3"}
    assert [json.loads(text)["runId"] for text in found.runs] == ["r3", "r2"]


def test_what_the_app_wrote_before_us_is_kept() -> None:
    by_the_app = {"ts": "t1", "source": "app", "runId": "a1", "checked": 1, "closed": 0, "synced": 0, "ok": True}
    found = upgraded("reconcile", shared(run(3), by_the_app, "garbled", of=(3,), summary={**SUMMARY, "own": "kept"}))
    assert found.summary["own"] == "kept"
    assert found.summary["runs"] == "41"
    assert len(found.runs) == 3


def test_a_count_that_is_no_number_is_left_behind() -> None:
    summary = {"runs": "41", "totalClosed": "n/a", "reason:disabled": "x", "lastOk": "true", "lastRunAt": "t3"}
    assert set(upgraded("reconcile", shared(of=(), summary=summary)).summary) == {
        "runs", "lastOk", "lastRunAt", "lastSuccessAt",
    }  # fmt: skip


def test_the_success_of_another_ledger_is_not_ours() -> None:
    ours = (run(2, ok=False, error="ledger_failed"), run(1))
    found = upgraded("reconcile", shared(run(4), run(3), *ours, of=(1, 2)))
    assert found.summary == {
        "runs": "2", "success": "1", "fail": "1", "totalClosed": "3", "totalSynced": "2",
        "lastRunAt": "t2", "lastOk": "false", "lastError": "ledger_failed", "lastSuccessAt": "t1",
        "lastSource": "cron", "lastRunId": "r2", "lastClosed": "2", "lastSynced": "1", "lastChecked": "3",
    }  # fmt: skip
    assert [json.loads(text)["runId"] for text in found.runs] == ["r2", "r1"]


def test_dry_and_locked_runs_are_listed_and_not_counted() -> None:
    not_counted = (run(4, dryRun=True, ok=True), run(3, ok=False, error="locked"))
    ours = (*not_counted, run(2, ok=False, error="ledger_failed"), run(1))
    found = upgraded("reconcile", shared(run(5), *ours, of=(1, 2, 3, 4)))
    assert (found.summary["runs"], found.summary["lastError"], found.summary["lastSuccessAt"]) == (
        "2", "ledger_failed", "t1",
    )  # fmt: skip
    assert len(found.runs) == 4


def test_a_new_ledger_beside_an_old_one_begins_with_nothing() -> None:
    found = upgraded("reconcile", shared(run(4), run(3), of=()))
    assert (found.summary, found.runs) == ({}, [])


def test_a_ledger_that_writes_for_itself_already_is_another_one() -> None:
    said = {"ts": "t1", "runId": "r1", "ok": True, "ledger": "file:/elsewhere.json"}
    assert upgraded("reconcile", shared(said, of=())).summary == {}


@pytest.mark.parametrize(("outcome", "counted"), [("SUCCESS", "success"), ("SKIP", "skipped"), ("FAIL", "fail")])
def test_auto_manage_runs_are_counted_by_outcome_and_reason(outcome: str, counted: str) -> None:
    listed = {"ts": "t1", "runId": "m1", "source": "cron", "outcome": outcome, "reason": "why", "dryRun": False}
    theirs = {**listed, "runId": "m2"}
    found = upgraded("auto-manage", Shared({}, [json.dumps(theirs), json.dumps(listed)], {"m1"}))
    assert found.summary == {
        "runs": "1", counted: "1", "reason:why": "1",
        "lastOutcome": outcome, "lastReason": "why", "lastRunAt": "t1", "lastSource": "cron", "lastRunId": "m1",
    }  # fmt: skip
