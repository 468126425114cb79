"""What --quiet says of a failure that repeats: when it begins, once an hour with its count, when it ends.

Cron mails every line, so a failure that lasts a night must not be a mail every five minutes. The
memory is a small file of this machine, as the mail is: the state may be what fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ghostclean.core.alerts import ABOUT_TRADES

AGAIN = timedelta(hours=1)
REPEATED_INSIDE = "reconcile_before"  # the short reconcile inside auto-manage, which alone fails nothing
# A collision now and then is how two schedules meet, and the short reconcile is soon out of time.
_PATIENCE = {"locked": 3, REPEATED_INSIDE: 3}


@dataclass(frozen=True, slots=True)
class Series:
    """Failures in a row: since when, how many, which words were said, and when the last."""

    since: str
    count: int = 0
    said: tuple[str, ...] = ()
    said_at: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    def and_one(self, error: str) -> Series:
        """The series with one more failure of this word."""
        return replace(self, count=self.count + 1, counts={**self.counts, error: self.counts.get(error, 0) + 1})


def judge(
    before: Series | None, error: str | None, detail: str, now: datetime, *, counted: bool = False
) -> tuple[Series | None, str | None]:
    """The series after a run that ended in this error (None: well), and what is to be said, if anything.

    The count is ours only where the detail has not `counted` already, by the runs of the state.
    """
    if error is None:
        if before is None or not before.said:
            return None, None
        failures = "1 failure" if before.count == 1 else f"{before.count} failures in a row"
        return None, f"runs succeed again, after {failures} since {before.since}"
    series = (before or Series(since=now.isoformat(timespec="seconds"))).and_one(error)
    is_new = error not in series.said and series.counts[error] >= _PATIENCE.get(error, 1)
    is_due = series.said_at is not None and now - datetime.fromisoformat(series.said_at) >= AGAIN
    if not (is_new or is_due):
        return series, None
    often = f" ({series.count} failures in a row since {series.since})" if series.count > 1 and not counted else ""
    said = series.said if error in series.said else (*series.said, error)
    return replace(series, said=said, said_at=now.isoformat()), f"{detail}{often}"


class Memo:
    """The series of one command here; one that can't be kept lets every failure be said."""

    def __init__(self, command: str, env_file: str | None) -> None:
        from platformdirs import user_state_path

        name = hashlib.sha256(f"{command}|{_folder()}|{env_file}|{_places()}".encode()).hexdigest()[:16]
        self._file = user_state_path("ghostclean", appauthor=False) / "repeated" / name

    def judged(self, error: str | None, detail: str, *, looked: bool = True, counted: bool = False) -> str | None:
        """What is to be said of a run that ended so; one that has not `looked` ends no trouble of a trade."""
        try:
            before = self._read()
            if error is None and not looked and before is not None and ABOUT_TRADES.issuperset(before.counts):
                return None
            after, said = judge(before, error, detail, datetime.now(UTC), counted=counted)
            if after != before:
                self._write(after)
        except (OSError, ValueError, TypeError):
            return detail if error is not None else None
        return said

    def _read(self) -> Series | None:
        try:
            raw = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Series(**{**raw, "said": tuple(raw["said"])})

    def _write(self, series: Series | None) -> None:
        if series is None:
            self._file.unlink(missing_ok=True)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        beside.write_text(json.dumps(asdict(series)), encoding="utf-8")
        beside.replace(self._file)


def _places() -> str:
    """What tells two schedules on one machine apart, beside folder and file; of a URL without its user and password."""
    names = ("GHOSTCLEAN_LEDGER", "GHOSTCLEAN_LEDGER_KEY", "GHOSTCLEAN_STATE", "GHOSTCLEAN_KEY_PREFIX", "REDIS_URL")
    return "|".join(re.sub(r"//.*@", "//", os.environ.get(name, "")) for name in names)


def _folder() -> str:
    """The working folder, which may have been taken away."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""
