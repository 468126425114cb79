"""The parts that one run is made of, and the options it was asked for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ghostclean.app.deadline import Deadline, Runner, bound
from ghostclean.app.monitors import Monitors
from ghostclean.app.ports import Broker, Ledger, Spool, State
from ghostclean.core.inputs import Policy

Progress = Callable[[str, int, int], None]  # what is being done, how much of how much


def unseen(doing: str, done: int, of: int) -> None:
    """For work that nobody watches."""


def wall_clock() -> datetime:
    """Our own time, for telemetry; decisions use the broker's."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Stores:
    """The ledger, and ghostclean's own memory of it.

    `around` tells, where there is no ledger, what else was meant perhaps. `met` counts the runs in a row, this one
    included, whose state had never seen the ledger, and is told whether this one's has.
    """

    ledger: Ledger
    state: State
    spool: Spool
    around: Callable[[], list[str]] = field(default=list, kw_only=True)
    met: Callable[[bool], int] = field(default=lambda known: 0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Parts(Stores):
    """Adapters of one run; the broker is already bound to the run's deadline."""

    broker: Broker
    monitors: Monitors = field(default_factory=Monitors)
    wall: Callable[[], datetime] = wall_clock
    pause: Callable[[float], None] = time.sleep
    host: str = field(default_factory=socket.gethostname)
    progress: Progress = unseen

    def bound(self, run: Runner) -> Parts:
        """The same parts; each call of broker, ledger and state goes through `run`."""
        broker, ledger, state = bound(self.broker, run), bound(self.ledger, run), bound(self.state, run)
        return replace(self, broker=broker, ledger=ledger, state=state)


@dataclass(frozen=True, slots=True)
class Options:
    """What one reconcile run was asked to do."""

    run_id: str
    source: str
    deadline: Deadline
    policy: Policy = field(default_factory=Policy)
    dry_run: bool = False
