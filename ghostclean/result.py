"""What a run of `reconcile` or `auto-manage` reports: its JSON document and its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ghostclean.core.attention import Attention
from ghostclean.core.health import Failing
from ghostclean.errors import Cause

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
    "interrupted": 130,
}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run; `result` says what it had done until then."""

    def __init__(self, result: Result | ManageResult) -> None:
        super().__init__()
        self.result = result


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one reconcile run; `results` rows are JSON objects, `notes` remarks for people."""

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
    attention: Attention = field(default_factory=Attention)
    error: str | None = None
    detail: str | None = None
    cause: Cause | None = None
    failing: Failing | None = None
    fit: Mapping[str, Any] | None = None
    changed: bool = field(default=False)

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.error]

    def to_dict(self) -> dict[str, Any]:
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
            "fit": self.fit,
            **self.attention.to_dict(),
            "error": self.error,
            "detail": self.detail,
            "cause": self.cause,
            "failing": self.failing and {"since": self.failing.since, "runs": self.failing.runs},
        }


class ManageOutcome(StrEnum):
    """The words that telemetry counts."""

    SUCCESS = "SUCCESS"
    SKIP = "SKIP"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class ManageResult:
    """The outcome of one auto-manage run: trades `checked`, changed (`updated`), closed (`flattened`), and orders."""

    outcome: ManageOutcome
    reason: str | None
    run_id: str
    source: str
    started_at: str
    duration_ms: int
    now: str
    enabled: bool
    forced: bool
    dry_run: bool
    cfg: Mapping[str, Any]
    checked: int = 0
    updated: int = 0
    flattened: int = 0
    market: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    orders: tuple[Mapping[str, Any], ...] = ()
    reconcile: Mapping[str, Any] = field(default_factory=dict)
    attention: Attention = field(default_factory=Attention)
    detail: str | None = None
    cause: Cause | None = None
    failing: Failing | None = None

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0 for SUCCESS and SKIP, 7 when locked out, else the code of the reason, 1 by default."""
        if self.outcome is ManageOutcome.FAIL:
            return EXIT_CODES.get(self.reason, 1) or 1
        return EXIT_CODES["locked"] if self.reason == "locked" else 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "skipped": self.outcome is ManageOutcome.SKIP,
            "reason": self.reason,
            "outcome": str(self.outcome),
            "checked": self.checked,
            "updated": self.updated,
            "flattened": self.flattened,
            "enabled": self.enabled,
            "now": self.now,
            "market": dict(self.market) if self.market is not None else None,
            "notes": list(self.notes),
            "forced": self.forced,
            "cfg": dict(self.cfg),
            "reconcile": dict(self.reconcile),
            "orders": [dict(order) for order in self.orders],
            "dryRun": self.dry_run,
            "runId": self.run_id,
            "source": self.source,
            "startedAt": self.started_at,
            "durationMs": self.duration_ms,
            **self.attention.to_dict(),
            "error": None if self.ok else self.reason,
            "detail": self.detail,
            "cause": self.cause,
            "failing": self.failing and {"since": self.failing.since, "runs": self.failing.runs},
        }
