"""The facts of one reconcile run, as they come to be known: what its report and its record are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ghostclean.app.journal import Journal
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import JournalEntry, Lease, WriteOutcome
from ghostclean.app.survey import Survey
from ghostclean.core.broker import BrokerTruth
from ghostclean.core.plan import Plan
from ghostclean.core.safety import Pin
from ghostclean.core.verdicts import Decision


@dataclass(slots=True)
class Run:
    """One run; what is not known yet, or never came to be known, is None or empty.

    `inner` is a run inside auto-manage, under a lock that is not its own; `skipped` are trades that
    the app kept us from writing, with the outcome. `remembered`,
    `verdicts`, `scanned` and `owed` (stops) are what earlier runs left; `recovered` and `restored`
    what a dead run would have left; `alerted` what the outside eyes compare with next time.
    """

    parts: Parts
    options: Options
    lease: Lease | None
    inner: bool
    started: datetime
    began: float
    journal: Journal
    state_ok: bool = False
    survey: Survey | None = None
    truth: BrokerTruth | None = None
    plan: Plan = field(default_factory=lambda: Plan(()))
    orphan_rows: list[Decision] = field(default_factory=list)
    written: list[Decision] = field(default_factory=list)
    skipped: dict[str, WriteOutcome] = field(default_factory=dict)
    out_of_time: bool = False
    error: str | None = None
    detail: str | None = None
    partial: bool = False
    notes: list[str] = field(default_factory=list)
    remembered: dict[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Any] = field(default_factory=dict)
    scanned: Any = None
    owed: dict[str, Any] = field(default_factory=dict)
    recovered: list[JournalEntry] = field(default_factory=list)
    restored: dict[str, dict[str, Any]] = field(default_factory=dict)
    pin: Pin | None = None
    may_pin: bool = False
    ledger_seen: bool = False
    alerted: dict[str, Any] | None = None

    @classmethod
    def begin(cls, parts: Parts, options: Options, lease: Lease | None) -> Run:
        """A run that starts now."""
        deadline = options.deadline
        journal = Journal(
            parts.ledger, parts.state, lease, deadline, run_id=options.run_id, source=options.source, now=parts.wall
        )
        return cls(parts, options, lease, lease is not None, parts.wall(), deadline.left(), journal)

    def failed(self, error: str, detail: str) -> None:
        """Notes why the run is not ok."""
        if error == "deadline_exceeded":
            self.partial = True
        self.error, self.detail = error, detail

    def surveyed(self) -> Survey:
        """The survey, in the steps that follow it."""
        assert self.survey is not None
        return self.survey
