"""Tells the configured monitors about a run, within its deadline and without touching its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from ghostclean.app.deadline import bounded
from ghostclean.app.ports import EndedRun, Monitor, State
from ghostclean.core.alerts import Alert, Origin, changes, health_change, manage_changes
from ghostclean.core.broker import iso, parse_time
from ghostclean.errors import DeadlineExceeded, GhostcleanError

SECTION = "alerts"  # of the state: what the next run compares with
MEMORY = {"reconcile": "last", "auto-manage": "auto-manage"}  # its id there, by kind of run

_MOST_SECONDS = 2.0
_KEPT_FOR_THE_RECORD = 0.6
_MOST_UNSENT = 20

Memory = dict[str, Any]


class AlertMemo(Protocol):
    """The failure that was alerted while the state was lost, kept on this machine."""

    def recall(self) -> str | None: ...

    def remember(self, error: str | None) -> None: ...


@dataclass(slots=True)
class Monitors:
    """All configured channels; `failures` counts what did not get through."""

    channels: Sequence[Monitor] = ()
    memo: AlertMemo | None = None
    failures: list[str] = field(default_factory=list)

    def started(self, run_id: str, origin: Origin, left: float) -> None:
        """A reconcile run has begun; `left` are the seconds until its deadline."""
        for channel in self.channels:
            self._send(channel, channel.started(run_id, origin), min(_MOST_SECONDS, left / 8))

    def ended(
        self,
        kind: str,
        document: Mapping[str, Any],
        origin: Origin,
        *,
        state: State | None,
        now: datetime,
        left: Callable[[], float],
    ) -> Memory | None:
        """A run is over; returns what the next one of its kind compares with, None when unknown.

        `state` is None when it is lost: then only a change between failing and succeeding is told.
        `left` gives the seconds until the deadline.
        """
        if not self.channels:
            return None
        memory = None if state is None else self._recall(state, MEMORY[kind], left())
        local = self._asked(lambda memo: memo.recall())
        alerts, after = _news(kind, document, memory, local, now)
        unsent = [Alert(str(event), str(text)) for event, text in after.pop("untold", ())]
        told = [*unsent, *alerts][-_MOST_UNSENT:]
        run = EndedRun(kind, origin, document, told, parse_time(after.get("lastSuccess")), now)
        sent = self._tell(run, left)
        self._keep_local(run, local, lost=memory is None, sent=sent)
        if memory is None:
            return None
        return after if sent else {**after, "untold": [[alert.event, alert.text] for alert in run.alerts]}

    def _keep_local(self, run: EndedRun, local: str | None, *, lost: bool, sent: bool) -> None:
        """What was told while the state is lost; forgotten with the first reconcile that has it again."""
        if lost and run.alerts and sent:
            self._asked(lambda memo: memo.remember(run.document["error"]))
        elif local and not lost and run.kind == "reconcile":
            self._asked(lambda memo: memo.remember(None))

    def _tell(self, run: EndedRun, left: Callable[[], float]) -> bool:
        """Whether no alert waits any more; what reached no channel is told by the next run."""
        receivers = [channel for channel in self.channels if channel.sends_alerts]
        reached = [c for c in self.channels if self._send(c, c.ended(run), _share(left())) and c.sends_alerts]
        return bool(reached) or not (run.alerts and receivers)

    def _recall(self, state: State, name: str, left: float) -> Memory | None:
        found: list[Any] = []
        seconds = max(left / 4, 0.05)
        if not self._bounded("alerts", lambda: found.append(state.recall(SECTION, [name]).get(name)), seconds):
            return None
        return dict(found[0]) if isinstance(found[0], Mapping) else {}

    def _asked(self, ask: Callable[[AlertMemo], str | None]) -> str | None:
        memo, found = self.memo, list[str | None]()
        if memo is not None:
            self._bounded("alert", lambda: found.append(ask(memo)), _MOST_SECONDS)
        return found[0] if found else None

    def _send(self, channel: Monitor, send: Callable[[float], None] | None, seconds: float) -> bool:
        return send is not None and self._bounded(channel.name, lambda: send(seconds), seconds)

    def _bounded(self, what: str, call: Callable[[], None], seconds: float) -> bool:
        """Whether the call worked; a failure is counted and shown, a monitor must never break the run."""
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


def _news(
    kind: str,
    document: Mapping[str, Any],
    memory: Memory | None,
    local: str | None,
    now: datetime,
) -> tuple[list[Alert], Memory]:
    """The alerts that a run calls for, and the memory after it; `local` was told while the state was lost."""
    known = dict(memory or {})
    if document["ok"]:
        known["lastSuccess"] = iso(now)
    if memory is None:
        change = health_change({"error": local}, document)
        return [change] if change else [], known
    if kind == "auto-manage":
        alerts, after = manage_changes(memory, document)
        return alerts, {**memory, **after}
    alerts, after = changes({**known, "error": local} if local else known, document)
    return alerts, {**known, **after}


def _share(left: float) -> float:
    """Half of what the run's own record leaves over, and never long."""
    return min(_MOST_SECONDS, max(0.0, left - _KEPT_FOR_THE_RECORD) / 2)
