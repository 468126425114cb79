"""Tells the outside eyes about a run, within its deadline and without touching its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from ghostclean.app.deadline import bounded
from ghostclean.core.alerts import Alert, changes
from ghostclean.core.times import iso, parse_time

SECTION = "alerts"
_MOST_SECONDS = 2.0
_KEPT_FOR_THE_RECORD = 0.6


class HeartbeatPort(Protocol):
    def started(self, run_id: str, seconds: float) -> None: ...

    def ended(self, run_id: str, ok: bool, report: str, seconds: float) -> None: ...


class WebhookPort(Protocol):
    def send(self, alerts: Sequence[Alert], run_id: str, source: str, seconds: float) -> None: ...


class MetricsPort(Protocol):
    def write(self, document: Mapping[str, Any], last_success: float | None, now: float) -> None: ...


@dataclass(slots=True)
class OutsideEyes:
    """The configured eyes; `failures` counts what did not arrive."""

    heartbeat: HeartbeatPort | None = None
    webhook: WebhookPort | None = None
    metrics: MetricsPort | None = None
    failures: list[str] = field(default_factory=list)

    def started(self, run_id: str, left: float) -> None:
        """The run has begun."""
        if self.heartbeat is not None:
            heartbeat = self.heartbeat
            seconds = min(_MOST_SECONDS, left / 8)
            self._bounded(lambda: heartbeat.started(run_id, seconds), seconds)

    def ended(
        self, document: Mapping[str, Any], report: str, before: Mapping[str, Any] | None, now: datetime, left: float
    ) -> dict[str, Any] | None:
        """The run is over; returns what the next one compares with, None when nothing is known.

        `before` is what the last run left, None when the state cannot be read: then there is
        nothing to compare with, and only heartbeat and metrics are told.
        """
        run_id, source = str(document["runId"]), str(document["source"])
        ok = bool(document["ok"])
        memory = dict(before or {})
        if ok:
            memory["lastSuccess"] = iso(now)
        if self.metrics is not None:
            metrics, success = self.metrics, parse_time(memory.get("lastSuccess"))
            at = success.timestamp() if success else None
            self._bounded(lambda: metrics.write(document, at, now.timestamp()), self._share(left))
        if self.heartbeat is not None:
            heartbeat = self.heartbeat
            seconds = self._share(left)
            self._bounded(lambda: heartbeat.ended(run_id, ok, report, seconds), seconds)
        if before is None:
            return None
        alerts, state = changes(before, document)
        if alerts and self.webhook is not None:
            webhook, seconds = self.webhook, self._share(left)
            if not self._bounded(lambda: webhook.send(alerts, run_id, source, seconds), seconds):
                # Not told, so the next run must find the same change and tell it.
                return memory
        return {**memory, **state}

    def _share(self, left: float) -> float:
        """Half of what the run's own record leaves over, and never long."""
        return min(_MOST_SECONDS, max(0.0, left - _KEPT_FOR_THE_RECORD) / 2)

    def _bounded(self, call: Callable[[], None], seconds: float) -> bool:
        try:
            bounded(call, seconds)
        except Exception as error:  # counted and shown: an eye must never break the run
            self.failures.append(str(error) or type(error).__name__)
            return False
        return True
