"""The parts of a run with every call bounded in time, by one runner such as `deadline.reading`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, Protocol, TypeVar

from .parts import Parts
from .ports import Broker, Lease, Ledger, State, Trouble

P = ParamSpec("P")
T = TypeVar("T")


class Runner(Protocol):
    """Runs a call and gives its result, or raises DeadlineExceeded."""

    def __call__(self, call: Callable[[], T], /) -> T: ...


def bound(parts: Parts, run: Runner) -> Parts:
    """The same parts; each call of broker, ledger and state goes through `run`."""
    return replace(
        parts,
        broker=BoundBroker(parts.broker, run),
        ledger=BoundLedger(parts.ledger, run),
        state=BoundState(parts.state, run),
    )


def _through(run: Runner, method: Callable[P, T]) -> Callable[P, T]:
    def call(*args: P.args, **options: P.kwargs) -> T:
        return run(lambda: method(*args, **options))

    return call


class BoundBroker:
    """The `Broker` port; what asks nothing over the network is passed on as it is."""

    def __init__(self, broker: Broker, run: Runner) -> None:
        self._broker = broker
        self.now = broker.now
        self.requests_left = broker.requests_left
        self.account = _through(run, broker.account)
        self.working_orders = _through(run, broker.working_orders)
        self.positions = _through(run, broker.positions)
        self.order = _through(run, broker.order)
        self.order_by_client_id = _through(run, broker.order_by_client_id)
        self.history = _through(run, broker.history)
        self.fills = _through(run, broker.fills)
        self.activities = _through(run, broker.activities)
        self.clock = _through(run, broker.clock)
        self.calendar = _through(run, broker.calendar)
        self.asset = _through(run, broker.asset)
        self.prices = _through(run, broker.prices)
        self.submit = _through(run, broker.submit)
        self.replace = _through(run, broker.replace)
        self.cancel = _through(run, broker.cancel)

    @property
    def live(self) -> bool:
        return self._broker.live


class BoundLedger:
    """The `Ledger` port."""

    def __init__(self, ledger: Ledger, run: Runner) -> None:
        self.place = ledger.place
        self.read = _through(run, ledger.read)
        self.history = _through(run, ledger.history)
        self.get = _through(run, ledger.get)
        self.write = _through(run, ledger.write)
        self.records = _through(run, ledger.records)
        self.fill = _through(run, ledger.fill)
        self.describe = _through(run, ledger.describe)
        self._ledger, self._run = ledger, run

    @property
    def chunk(self) -> int:
        return self._ledger.chunk

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        return self._run(lambda: self._ledger.rehearse(lease))


class BoundState:
    """The `State` port."""

    def __init__(self, state: State, run: Runner) -> None:
        self.place = state.place
        self.open = _through(run, state.open)
        self.acquire = _through(run, state.acquire)
        self.release = _through(run, state.release)
        self.lock_info = _through(run, state.lock_info)
        self.recall = _through(run, state.recall)
        self.recall_all = _through(run, state.recall_all)
        self.remember = _through(run, state.remember)
        self.intend = _through(run, state.intend)
        self.intents = _through(run, state.intents)
        self.commit = _through(run, state.commit)
        self.journal = _through(run, state.journal)
        self.telemetry = _through(run, state.telemetry)
        self.close = _through(run, state.close)
        self._state, self._run = state, run

    def rehearse(self) -> list[Trouble]:
        return self._run(self._state.rehearse)
