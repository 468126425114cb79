"""Tells the configured monitors about a run, within its deadline and without touching its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from ghostclean.app.deadline import bounded
from ghostclean.app.ports import EndedRun, Monitor, State
from ghostclean.core.alerts import Alert, Origin, changes, health_change, manage_changes
from ghostclean.core.broker import iso, parse_time
from ghostclean.errors import DeadlineExceeded, GhostcleanError

SECTION = "alerts"  # of the state: what the next run compares with
MEMORY = {"reconcile": "last", "auto-manage": "auto-manage"}  # its id there, by kind of run

_MEMO_SECONDS = 2.0
_KEPT_FOR_THE_RECORD = 0.6
_MOST_UNSENT = 20

Memory = dict[str, Any]
Send = Callable[[float], None]


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
        sends = {c: send for c in self.channels if (send := c.started(run_id, origin)) is not None}
        self._send(sends, lambda channel: min(channel.patience, left / 8))

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
        run = EndedRun(kind, origin, document, alerts, parse_time(after.get("lastSuccess")), now)
        waited = {address: [Alert(*alert) for alert in kept] for address, kept in after.pop("undelivered", {}).items()}
        waiting = self._tell(run, waited, left)
        self._keep_local(run, local, lost=memory is None, sent=len(waiting) < len(self._receivers()))
        if memory is None:
            return None
        return {**after, "undelivered": waiting} if waiting else after

    def rehearse(self, run: EndedRun) -> Iterator[tuple[str, str | None]]:
        """Sends an alert by every channel that sends any; its name, and why it did not arrive."""
        for channel in self._receivers():
            send = channel.ended(run)
            assert send is not None
            arrived = self._send({channel: send}, lambda channel: channel.patience)
            yield channel.name, None if arrived else self.failures[-1]

    def _receivers(self) -> list[Monitor]:
        return [channel for channel in self.channels if channel.address]

    def _keep_local(self, run: EndedRun, local: str | None, *, lost: bool, sent: bool) -> None:
        """What was told while the state is lost; forgotten with the first reconcile that has it again."""
        if lost and run.alerts and sent:
            self._asked(lambda memo: memo.remember(run.document["error"]))
        elif local and not lost and run.kind == "reconcile":
            self._asked(lambda memo: memo.remember(None))

    def _tell(
        self, run: EndedRun, waited: Mapping[str, Sequence[Alert]], left: Callable[[], float]
    ) -> dict[str, list[list[str]]]:
        """What has not arrived, by address: the next run tells it again there, and only there."""
        told = {c: [*waited.get(c.address, ()), *run.alerts][-_MOST_UNSENT:] for c in self.channels}
        sends = {c: send for c in self.channels if (send := c.ended(replace(run, alerts=told[c]))) is not None}
        arrived = self._send(sends, lambda channel: _share(left(), channel.patience))
        waiting = [c for c in self._receivers() if told[c] and c not in arrived]
        return {c.address: [[alert.event, alert.text] for alert in told[c]] for c in waiting}

    def _recall(self, state: State, name: str, left: float) -> Memory | None:
        found: list[Any] = []
        seconds = max(left / 4, 0.05)
        why = _failure("alerts", lambda: found.append(state.recall(SECTION, [name]).get(name)), seconds)
        if why is not None:
            self.failures.append(why)
            return None
        return dict(found[0]) if isinstance(found[0], Mapping) else {}

    def _asked(self, ask: Callable[[AlertMemo], str | None]) -> str | None:
        memo, found = self.memo, list[str | None]()
        if memo is not None and (why := _failure("alert", lambda: found.append(ask(memo)), _MEMO_SECONDS)) is not None:
            self.failures.append(why)
        return found[0] if found else None

    def _send(self, sends: Mapping[Monitor, Send], time_of: Callable[[Monitor], float]) -> list[Monitor]:
        """The channels that took it; all at once, so that one that hangs costs the others nothing."""
        why: dict[Monitor, str | None] = {}

        def send(channel: Monitor) -> None:
            seconds = time_of(channel)
            why[channel] = _failure(channel.name, lambda: sends[channel](seconds), seconds)

        threads = [threading.Thread(target=send, args=(channel,), daemon=True) for channel in sends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.failures += [text for channel in sends if (text := why[channel]) is not None]
        return [channel for channel in sends if why[channel] is None]


def _failure(what: str, call: Callable[[], None], seconds: float) -> str | None:
    """Why the call failed: counted and shown, for a monitor must never break the run."""
    try:
        bounded(call, seconds)
    except DeadlineExceeded as error:
        return f"{what}: {error}"
    except GhostcleanError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - its text may hold a URL with a token
        return f"{what}: {type(error).__name__}"
    return None


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


def _share(left: float, most: float) -> float:
    """Half of what the run's own record leaves over, and never long."""
    return min(most, max(0.0, left - _KEPT_FOR_THE_RECORD) / 2)
