"""What an auto-manage run reports: its JSON document and exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ghostclean.result import EXIT_CODES


class ManageOutcome(StrEnum):
    """The words that telemetry counts."""

    SUCCESS = "SUCCESS"
    SKIP = "SKIP"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class ManageResult:
    """The outcome of one auto-manage run.

    `checked` counts trades worked on, `updated` those whose stop was placed or moved (or whose
    ledger fields about it were put right), `flattened` those closed; `orders` is everything that
    was sent, or in a dry run would have been.
    """

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
    detail: str | None = None

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
        """The JSON document, made of plain JSON values only."""
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
            "error": None if self.ok else self.reason,
            "detail": self.detail,
        }
