"""What a run reports: the JSON document of `reconcile` and its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXIT_CODES: Mapping[str | None, int] = {
    None: 0,
    "reconcile_failed": 1,
    "bad_settings": 2,
    "broker_truth_failed": 3,
    "ledger_failed": 4,
    "state_failed": 4,
    "account_mismatch": 5,
    "mass_close_stopped": 5,
    "deadline_exceeded": 6,
    "locked": 7,
}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run; `result` says what it had done until then."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one reconcile run.

    `results` rows are plain JSON objects `{id, ticker, verdict, stale, action, reason, proof,
    before, after}`; `notes` are one-line remarks for people (spool, warnings).
    """

    run_id: str
    source: str
    started_at: str
    duration_ms: int
    dry_run: bool = False
    checked: int = 0
    closed: int = 0
    synced: int = 0
    backfilled: int = 0
    held: int = 0
    orphans: int = 0
    failed: int = 0
    partial: bool = False
    broker: Mapping[str, Any] | None = None
    results: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    detail: str | None = None
    changed: bool = field(default=False)

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def exit_code(self) -> int:
        """0, or the code of `error`."""
        return EXIT_CODES[self.error]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, made of plain JSON values only."""
        return {
            "ok": self.ok,
            "dryRun": self.dry_run,
            "runId": self.run_id,
            "source": self.source,
            "startedAt": self.started_at,
            "durationMs": self.duration_ms,
            "checked": self.checked,
            "closed": self.closed,
            "synced": self.synced,
            "backfilled": self.backfilled,
            "held": self.held,
            "orphans": self.orphans,
            "failed": self.failed,
            "partial": self.partial,
            "broker": dict(self.broker) if self.broker is not None else None,
            "results": [dict(row) for row in self.results],
            "notes": list(self.notes),
            "error": self.error,
            "detail": self.detail,
        }
