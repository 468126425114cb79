"""Tells the outside eyes about a run, within its deadline and without touching its outcome."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from ghostclean.app.deadline import bounded
from ghostclean.core.alerts import Alert, changes, health_change, manage_changes, report
from ghostclean.core.broker import iso, parse_time
from ghostclean.errors import DeadlineExceeded, GhostcleanError

SECTION = "alerts"
_MOST_SECONDS = 2.0
_KEPT_FOR_THE_RECORD = 0.6
_MOST_UNTOLD = 20


class HeartbeatPort(Protocol):
    """A dead man's switch."""

    def started(self, run_id: str, seconds: float) -> None: ...

    def ended(self, run_id: str, ok: bool, report: str, seconds: float) -> None: ...


class WebhookPort(Protocol):
    """Where alerts go; it also keeps one word on this machine, for while the state is lost."""

    def send(self, alerts: Sequence[Alert], run_id: str, source: str, seconds: float) -> None: ...

    def recall(self) -> str | None: ...

    def remember(self, error: str | None) -> None: ...


class MetricsPort(Protocol):
    """Where the figures of a run are published."""

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
            self._bounded("heartbeat", lambda: heartbeat.started(run_id, seconds), seconds)

    def ended(
        self,
        document: Mapping[str, Any],
        before: Mapping[str, Any] | None,
        listed: Collection[str | None],
        now: datetime,
        left: Callable[[], float],
    ) -> dict[str, Any] | None:
        """The run is over; returns what the next one compares with, None when nothing is known.

        `before` is what the last run left, None when the state cannot be read: then only a
        change between failing and succeeding is told. `listed` are the ids still open in the
        ledger, `left` the seconds until the deadline.
        """
        memory = dict(before or {})
        if document["ok"]:
            memory["lastSuccess"] = iso(now)
        self._measure(document, parse_time(memory.get("lastSuccess")), now, left)
        if self.heartbeat is not None:
            heartbeat, seconds = self.heartbeat, _share(left())
            run_id, ok, body = str(document["runId"]), bool(document["ok"]), report(document)
            self._bounded("heartbeat", lambda: heartbeat.ended(run_id, ok, body, seconds), seconds)
        if before is None:
            self._alert_without_state(document, left)
            return None
        return self._alert(memory, document, listed, left)

    def managed(
        self, document: Mapping[str, Any], before: Mapping[str, Any] | None, left: Callable[[], float]
    ) -> dict[str, Any] | None:
        """An auto-manage run is over; `before`, `left` and what is returned are those of `ended`."""
        if before is None:
            self._alert_without_state(document, left)
            return None
        alerts, state = manage_changes(before, document)
        return self._tell(alerts, {**before, **state}, document, left)

    def _measure(
        self, document: Mapping[str, Any], success: datetime | None, now: datetime, left: Callable[[], float]
    ) -> None:
        if self.metrics is not None:
            metrics, at = self.metrics, success.timestamp() if success else None
            self._bounded("metrics file", lambda: metrics.write(document, at, now.timestamp()), _share(left()))

    def _alert(
        self,
        memory: dict[str, Any],
        document: Mapping[str, Any],
        listed: Collection[str | None],
        left: Callable[[], float],
    ) -> dict[str, Any]:
        """Tells what has changed; what does not arrive is told by the next run."""
        local = self._local()
        alerts, state = changes({**memory, "error": local} if local else memory, document, listed)
        kept = self._tell(alerts, {**memory, **state}, document, left)
        if local:
            self._keep_local(None)
        return kept

    def _tell(
        self,
        alerts: Sequence[Alert],
        kept: dict[str, Any],
        document: Mapping[str, Any],
        left: Callable[[], float],
    ) -> dict[str, Any]:
        """Sends the alerts, before them those that did not arrive; what is kept for the next run."""
        waiting = [Alert(str(event), str(text)) for event, text in kept.pop("untold", ())]
        alerts = [*waiting, *alerts][-_MOST_UNTOLD:]
        if alerts and self.webhook is not None and not self._send(alerts, document, left):
            kept["untold"] = [[alert.event, alert.text] for alert in alerts]
        return kept

    def _alert_without_state(self, document: Mapping[str, Any], left: Callable[[], float]) -> None:
        """The state is lost, so a word on this machine keeps a failure from being told every run."""
        if self.webhook is None:
            return
        alert = health_change(self._local(), document)
        if alert is not None and self._send([alert], document, left):
            self._keep_local(document["error"])

    def _send(self, alerts: Sequence[Alert], document: Mapping[str, Any], left: Callable[[], float]) -> bool:
        webhook, seconds = self.webhook, _share(left())
        if webhook is None:
            return False
        run_id, source = str(document["runId"]), str(document["source"])
        return self._bounded("alert", lambda: webhook.send(alerts, run_id, source, seconds), seconds)

    def _local(self) -> str | None:
        found: list[str | None] = []
        if self.webhook is not None:
            webhook = self.webhook
            self._bounded("alert", lambda: found.append(webhook.recall()), _MOST_SECONDS)
        return found[0] if found else None

    def _keep_local(self, error: str | None) -> None:
        if self.webhook is not None:
            webhook = self.webhook
            self._bounded("alert", lambda: webhook.remember(error), _MOST_SECONDS)

    def _bounded(self, what: str, call: Callable[[], None], seconds: float) -> bool:
        """Whether the call worked; a failure is counted and shown, an eye must never break the run."""
        try:
            bounded(call, seconds)
        except DeadlineExceeded as error:
            self.failures.append(f"{what}: {error}")
        except GhostcleanError as error:
            self.failures.append(str(error))
        except Exception as error:  # noqa: BLE001 - counted and shown; its text may hold a URL with a token
            self.failures.append(f"{what}: {type(error).__name__}")
        else:
            return True
        return False


def _share(left: float) -> float:
    """Half of what the run's own record leaves over, and never long."""
    return min(_MOST_SECONDS, max(0.0, left - _KEPT_FOR_THE_RECORD) / 2)
