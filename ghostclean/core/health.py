"""How a ledger is doing, by the summary of its runs and what needs a person. Pure.

*Broken*: the last counted run failed. *Needs you*: something waits for a person. *Stale*: no
success for two intervals. Else *healthy*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

from ghostclean.core.attention import Needs
from ghostclean.core.broker import parse_time
from ghostclean.durations import spell
from ghostclean.errors import Cause

NEEDS_YOU = "needs you"
WORST_FIRST = ("broken", NEEDS_YOU, "stale", "healthy")

_CURES = {
    "broker_truth_failed": "`ghostclean doctor` tells which part of the broker fails",
    "ledger_failed": "check the ledger with `ghostclean doctor`",
    "state_failed": "check the state with `ghostclean doctor`",
    "account_mismatch": "check which account the keys belong to; `ghostclean doctor --pin` accepts the present one",
    "mass_close_stopped": "look at `ghostclean reconcile --dry-run --allow-mass-close`; then without --dry-run",
    "deadline_exceeded": "the next run goes on where this one stopped; raise --deadline if it repeats",
}


class Failing(NamedTuple):
    """Failed runs in a row, when the first of them began, and the cause of the last."""

    since: str
    runs: int
    cause: str | None = None

    def __str__(self) -> str:
        return f"since {self.since}" if self.runs == 1 else f"{self.runs} failed runs in a row since {self.since}"

    @classmethod
    def parse(cls, raw: Mapping[str, Any] | None) -> Self | None:
        """The stored row; None where none is."""
        return cls(str(raw["since"]), int(raw["runs"]), raw.get("cause")) if raw else None

    @classmethod
    def after(cls, raw: Mapping[str, Any] | None, at: str, cause: Cause | None) -> Self:
        """The stored row with one more run, that began at this time."""
        before = cls.parse(raw)
        return cls(before.since if before else at, before.runs + 1 if before else 1, cause)


@dataclass(frozen=True, slots=True)
class Health:
    """One of `WORST_FIRST`, why, and the next step."""

    word: str
    why: str
    advice: str
    last_success: datetime | None

    def severity(self) -> tuple[int, datetime]:
        """Sorts the worst first, and among equals the longest without a success."""
        return WORST_FIRST.index(self.word), self.last_success or datetime.min.replace(tzinfo=UTC)


def judge(
    summary: Mapping[str, str], needs: Needs, now: datetime, interval: timedelta, failing: Failing | None = None
) -> Health:
    """The health of a ledger whose runs are expected every `interval`; `failing` are its last runs where they fail."""
    last_success = parse_time(summary.get("lastSuccessAt"))
    if summary.get("lastOk") == "false":
        error = summary.get("lastError") or "reconcile_failed"
        cause = Cause.of(failing.cause) if failing else None
        cure = cause.cure if cause else _CURES.get(error, "see `ghostclean doctor`")
        what = f"{error}: {cause.said}" if cause else error
        often = f" ({failing})" if failing else ""
        return Health("broken", f"the last run failed: {what}{often}", cure, last_success)
    if needs.number:
        more = f", and {needs.number - 1} more" if needs.number > 1 else ""
        return Health(NEEDS_YOU, f"{needs.first}{more}", needs.command, last_success)
    if last_success is None:
        return Health("stale", "no run has succeeded yet", "run `ghostclean reconcile`, then schedule it", None)
    age = now - last_success
    if age > 2 * interval:
        why = f"the last success was {_ago(age)} ago, expected every {spell(interval.total_seconds())}"
        return Health("stale", why, "check that the schedule still runs (`ghostclean schedule cron`)", last_success)
    return Health("healthy", f"the last success was {_ago(age)} ago", "nothing to do", last_success)


def _ago(age: timedelta) -> str:
    """In whole seconds at least: nobody waits for milliseconds here."""
    return spell(max(1, round(age.total_seconds())))
