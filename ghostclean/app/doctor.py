"""Checks everything a run depends on, one line each, with the cure of what fails."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ghostclean.core.broker import Account, BrokerTruth
from ghostclean.core.safety import short
from ghostclean.core.times import iso
from ghostclean.core.trade import is_open, is_pending, read_trade
from ghostclean.durations import spell
from ghostclean.errors import BadSettings, BrokerError, DeadlineExceeded, GhostcleanError

from .deadline import Deadline
from .operate.corrections import pinned_account
from .ports import Broker, Ledger, Spool, State
from .status import judge_health

_SLOW_SECONDS = 0.25
_SKEW_SECONDS = 10.0


class Check(NamedTuple):
    """One line: `ok` True, False (failed) or None (worth knowing), what was found, and the cure."""

    name: str
    ok: bool | None
    found: str
    cure: str = ""

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()


class Setting(Protocol):
    """One setting that is not the default, fit to be shown."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def shown(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined; `broker` builds it, because its settings may be what is wrong."""

    ledger: Ledger
    state: State
    spool: Spool
    broker: Callable[[], Broker]
    deadline: Deadline
    settings: Sequence[Setting]
    unread: Mapping[str, str]
    account_kind: str
    interval: timedelta
    grace: float


def examine(patient: Patient, *, pin: bool = False) -> Iterator[Check]:
    """Every check in order; with `pin` the account that answers becomes the ledger's."""
    yield from _settings(patient)
    yield from _ledger(patient)
    state_works = True
    for check in _state(patient):
        state_works = state_works and check.ok is not False
        yield check
    yield from _broker(patient, state_works=state_works, pin=pin)
    if state_works:
        yield from _history(patient)
    yield from _environment(patient)


def _settings(patient: Patient) -> Iterator[Check]:
    if not patient.settings:
        yield Check("settings", True, "all defaults")
    for setting in patient.settings:
        yield Check("settings", True, f"{setting.name} = {setting.shown} (from {setting.source})")
    for name, near in patient.unread.items():
        cure = f"did you mean {near}?" if near else "unset it, or look it up in the README"
        yield Check("settings", None, f"{name} is set and is no setting of ghostclean", cure)


def _ledger(patient: Patient) -> Iterator[Check]:
    try:
        view = patient.deadline.writing(patient.ledger.read)
        shape = patient.deadline.writing(patient.ledger.known_since)
    except (GhostcleanError, DeadlineExceeded) as error:
        yield Check("ledger", False, f"{patient.ledger.place}: {error}", "nothing is written until it can be read")
        return
    active = [record for record in view.active if is_open(record) or is_pending(record)]
    unreadable = [trade for trade in map(read_trade, active) if trade.problem]
    open_count = sum(1 for record in active if is_open(record))
    yield Check(
        "ledger", True, f"{patient.ledger.place}: {shape}; {open_count} open, {len(active) - open_count} pending"
    )
    for trade in unreadable[:5]:
        yield Check(
            "ledger",
            None,
            f"trade {trade.id or '?'} {trade.symbol or '?'} is unreadable: {trade.problem}",
            "correct the record in the app",
        )
    for stranger in view.strangers[:5]:
        cure = "repair it in the app; remove it only if it never was a trade"
        yield Check("ledger", None, f"not readable as a trade: {stranger}", cure)


def _state(patient: Patient) -> Iterator[Check]:
    state = patient.state
    try:
        patient.deadline.writing(state.open)
        started = time.monotonic()
        lock = patient.deadline.writing(state.lock_info)
        latency = time.monotonic() - started
        if lock is None:
            _try_lock(patient)
    except (GhostcleanError, DeadlineExceeded) as error:
        yield Check("state", False, f"{state.place}: {error}", "without state nothing is written to the ledger")
        return
    slow = latency > _SLOW_SECONDS
    found = f"{state.place}: schema and locking work, {latency * 1000:.0f} ms a call"
    yield Check("state", None if slow else True, found, "a slow state eats the deadline" if slow else "")
    held = f"held by {lock.holder} for {lock.seconds_left:.0f} s more" if lock else "free"
    yield Check("lock", True if lock is None else None, held)
    waiting = patient.spool.waiting()
    if waiting:
        yield Check("spool", None, f"{waiting} run records wait for the state", "the next run delivers them")


def _try_lock(patient: Patient) -> None:
    """Takes the lock for a moment: it proves that scripts (Redis) or writes (SQLite) are allowed."""
    lease = patient.deadline.writing(lambda: patient.state.acquire("doctor", 1.0))
    if lease is not None:
        patient.state.release(lease)


def _broker(patient: Patient, *, state_works: bool, pin: bool) -> Iterator[Check]:
    try:
        broker = patient.broker()
        account = patient.deadline.writing(broker.account)
        skew = (broker.now() - datetime.now(UTC)).total_seconds()
        orders = patient.deadline.writing(broker.working_orders)
        positions = patient.deadline.writing(broker.positions)
    except BadSettings as error:
        yield Check("broker", False, str(error), "set it right and ask again")
        return
    except (BrokerError, GhostcleanError, DeadlineExceeded) as error:
        yield Check("broker", False, str(error), "check keys, paper or live, and Alpaca's status page")
        return
    left = broker.requests_left()
    rate = f", {left} more requests this minute" if left is not None else ""
    yield Check("broker", True, f"{len(positions)} positions, {len(orders)} working orders{rate}")
    why = BrokerTruth(account, orders, positions, broker.now()).contradiction()
    if why is not None:
        yield Check("broker", False, f"it contradicts itself: {why}", "runs close nothing until it agrees; ask Alpaca")
    yield _account(patient, account)
    if patient.account_kind != "snapshot":
        wrong = abs(skew) > _SKEW_SECONDS
        found = f"ours differs from the broker's by {spell(abs(skew))}"
        yield Check("clock", None if wrong else True, found, "set this machine's clock (NTP)" if wrong else "")
    if state_works:
        yield _pin(patient, broker, account, pin=pin)


def _account(patient: Patient, account: Account) -> Check:
    found = f"{short(account.id)}, {patient.account_kind}, {account.status or 'status unknown'}"
    if account.blocked:
        return Check("account", False, f"{found}, blocked", "ask Alpaca; orders are refused until then")
    active = account.status.upper() == "ACTIVE"
    return Check("account", True if active else None, found, "" if active else "only an ACTIVE account trades")


def _pin(patient: Patient, broker: Broker, account: Account, *, pin: bool) -> Check:
    present = {"id": account.id, "live": broker.live, "at": iso(broker.now())}
    try:
        if pin:
            patient.state.remember("pin", {"account": present})
            return Check("pin", True, f"{short(account.id)} is now this ledger's account")
        pinned = pinned_account(patient.state)
    except GhostcleanError as error:
        return Check("pin", False, str(error), "repair the state and ask again")
    if pinned is None:
        return Check("pin", None, "no account is pinned yet", "the first run that decides pins it")
    why = pinned.mismatch(account, broker.live)
    if why is not None:
        return Check("pin", False, why, "use the right keys, or accept the new one: ghostclean doctor --pin")
    return Check("pin", True, "the account is this ledger's")


def _history(patient: Patient) -> Iterator[Check]:
    try:
        telemetry = patient.state.telemetry("reconcile", 20)
    except GhostcleanError as error:
        yield Check("runs", False, str(error), "repair the state and ask again")
        return
    health = judge_health(telemetry, datetime.now(UTC), patient.interval)
    ok = {"healthy": True, "stale": None, "broken": False}[health.word]
    found = f"{health.word}: {health.why}; expected every {spell(patient.interval.total_seconds())}"
    yield Check("runs", ok, found, "" if ok else health.advice)


def _environment(patient: Patient) -> Iterator[Check]:
    yield from _env_file()
    if os.environ.get("GITHUB_ACTIONS") == "true":
        yield Check("environment", True, "GitHub Actions: failures are annotated, a summary is added to the step")
        if patient.state.place.startswith("sqlite:"):
            found = "the state is a local file that this machine forgets after the job: no pin, journal or telemetry"
            yield Check("environment", None, found, "set REDIS_URL or GHOSTCLEAN_STATE to a Redis")
    elif not os.environ.get("TERM") and not os.environ.get("DISPLAY"):
        yield Check("environment", True, f"looks like cron or a service; .env is read from {Path.cwd()}")
    else:
        found = "a terminal; cron needs absolute paths and the same settings (ghostclean schedule)"
        yield Check("environment", True, found)


def _env_file() -> Iterator[Check]:
    """The rights of `.env`: it holds keys."""
    with contextlib.suppress(OSError):
        mode = Path(".env").stat().st_mode & 0o777
        if mode & 0o077:
            yield Check("environment", None, f".env may be read by others (mode {mode:o})", "chmod 600 .env")
