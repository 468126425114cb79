"""Checks everything a run depends on, one line each, with the cure of what fails.

Each part is tried as a run uses it, without a change, in a time of its own: what is slow or broken
says so, and the others are examined all the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ghostclean.app.deadline import bounded
from ghostclean.app.monitors import Monitors
from ghostclean.app.operate.fit import orders, statuses
from ghostclean.app.operate.pinning import Proposal, accept, propose
from ghostclean.app.parts import Stores
from ghostclean.app.ports import FAILING, WORDS, Broker, EndedRun, Monitor, Record, Trouble
from ghostclean.core import attention
from ghostclean.core.alerts import Alert, Origin
from ghostclean.core.attention import Needs
from ghostclean.core.broker import Account, BrokerTruth
from ghostclean.core.health import Failing, judge
from ghostclean.core.ledger import Fit, is_open, is_pending, read_trade
from ghostclean.core.safety import short
from ghostclean.counts import counted
from ghostclean.durations import spell
from ghostclean.errors import BadSettings, BrokerError, GhostcleanError, LedgerGone

_PART_SECONDS = 15.0  # one part's time: longer than a store that is silent takes to be called so
_ROUND_TRIPS = 10  # of a quiet run to its store
_OF_AUTO_MANAGE = 1.5  # seconds for them: half of what auto-manage gives its reconcile
_OF_A_RUN = 30.0
_ASKED = 3
_SKEW_SECONDS = 10.0
_SHOWN = 5


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
    @property
    def cure(self) -> str:
        """For one that does not do what its value seems to say."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What is examined; `broker` builds it, because its settings may be what is wrong."""

    stores: Stores
    broker: Callable[[], Broker]
    rehearsals: Mapping[str, Callable[[], list[Trouble]]]
    settings: Sequence[Setting]
    unread: Mapping[str, str]
    env_file: str
    read_from: str
    account_kind: str
    interval: timedelta
    channels: Callable[[], Sequence[Monitor]]


def examine(
    found: Installation, *, agrees: Callable[[str], bool] | None = None, test_alert: bool = False
) -> Iterator[Check]:
    """Every check in order; the account that answers becomes the ledger's where `agrees` says yes to it."""
    yield from _settings(found)
    fits: list[Fit] = []
    yield from _part("ledger", _ledger(found.stores, fits))
    yield from (state := _part("state", _state(found.stores)))
    ledger_works, state_works = bool(fits), all(check.ok is not False for check in state)
    for fit in (fit for fit in fits if fit.exists):
        yield from _part("ledger", _statuses(found.stores, fit, state_works=state_works))
    if ledger_works:
        yield from _part("ledger", _writing(found.stores, state_works=state_works))
    for name, rehearse in found.rehearsals.items():
        yield from _part(name, _rehearsed(name, rehearse))
    if test_alert:
        yield from _alerts(found)
    yield from _part("broker", _broker(found, fits, state_works=state_works and agrees is None))
    if state_works and agrees is not None:
        yield from _repin(found, agrees)
    if state_works:
        yield from _part("runs", _history(found))
    yield from _environment(found)


_CURES = {
    "ledger": "nothing is written until it can be read",
    "state": "without state nothing is written to the ledger",
    "broker": "check keys, paper or live, and Alpaca's status page",
}


def _part(name: str, checks: Iterator[Check]) -> list[Check]:
    """The checks of one part, as many as its time allows, and what ended them."""
    found: list[Check] = []
    cure = _CURES.get(name, "put that right and ask again")
    try:
        bounded(lambda: found.extend(checks), _PART_SECONDS)
    except BadSettings as error:
        return [*found, Check(name, False, str(error), "set it right and ask again")]
    except BrokerError as error:
        return [*found, Check(name, False, error.line, error.cure)]
    except GhostcleanError as error:
        return [*found, Check(name, False, str(error), cure)]
    return found


def _rehearsed(name: str, rehearse: Callable[[], list[Trouble]]) -> Iterator[Check]:
    """What a rehearsal has found, or that all went well."""
    troubles = rehearse()
    for trouble in troubles:
        yield Check(name, False if trouble.fails else None, trouble.found, trouble.cure)
    if not any(trouble.fails for trouble in troubles):
        yield Check(name, True, "all that a run does there is possible")


def _settings(found: Installation) -> Iterator[Check]:
    if found.read_from:
        yield Check("settings", True, found.read_from)
    if not found.settings:
        yield Check("settings", True, "all defaults")
    for setting in found.settings:
        what = f"{setting.name} = {setting.shown} (from {setting.source})"
        yield Check("settings", None if setting.cure else True, what, setting.cure)
    for name, near in found.unread.items():
        cure = f"did you mean {near}?" if near else "unset it, or look it up in the README"
        yield Check("settings", None, f"{name} is set and is no setting of ghostclean", cure)


def _ledger(stores: Stores, fits: list[Fit]) -> Iterator[Check]:
    ledger = stores.ledger
    try:
        view = ledger.read()
    except LedgerGone as error:
        yield Check("ledger", False, "; ".join([str(error), *stores.around()]), _CURES["ledger"])
        return
    fits.append(view.fit())
    if not view.exists:
        cure = "set REDIS_URL or GHOSTCLEAN_LEDGER, and GHOSTCLEAN_LEDGER_KEY, to where the app keeps its trades"
        yield Check("ledger", False, "; ".join([f"there is no ledger at {ledger.place}", *stores.around()]), cure)
        return
    opened, pending = ([r for r in view.active if belongs(r)] for belongs in (is_open, is_pending))
    yield Check("ledger", True, f"{ledger.place}: {ledger.describe()}; {len(opened)} open, {len(pending)} pending")
    yield from _unreadable((*opened, *pending), view.repeated)
    for stranger in view.strangers[:_SHOWN]:
        cure = "repair it in the app; remove it only if it never was a trade"
        yield Check("ledger", None, f"not readable as a trade: {stranger}", cure)


def _statuses(stores: Stores, fit: Fit, *, state_works: bool) -> Iterator[Check]:
    memory = stores.state.recall("ledger", [WORDS]) if state_works else {}
    yield Check("ledger", *statuses(fit, memory.get(WORDS) or ()))


def _unreadable(records: Iterable[Record], repeated: Collection[str]) -> Iterator[Check]:
    found = [(trade, why) for trade in map(read_trade, records) if (why := trade.unreadable(repeated))]
    for trade, why in found[:_SHOWN]:
        what = f"trade {trade.id or '?'} {trade.symbol or '?'} is unreadable: {why}"
        yield Check("ledger", None, what, "correct the record in the app")


def _state(stores: Stores) -> Iterator[Check]:
    state = stores.state
    state.open()
    took = []
    for _ in range(_ASKED):
        began = time.monotonic()
        lock = state.lock_info()
        took.append(time.monotonic() - began)
    if lock is None and (lease := state.acquire("doctor", 1.0)) is not None:
        state.release(lease)
    yield _distance(state.place, statistics.median(took))
    held = f"held by {lock.holder} for {lock.seconds_left:.0f} s more" if lock else "free"
    yield Check("lock", True if lock is None else None, held)
    yield from _rehearsed("state", state.rehearse)
    waiting = stores.spool.waiting()
    if waiting:
        yield Check(
            "spool", None, f"{counted(waiting, 'run record')} waiting for the state", "the next run delivers them"
        )


def _distance(place: str, latency: float) -> Check:
    """How far away the state is, against the time that a run has."""
    needed = _ROUND_TRIPS * latency
    what = f"{place}: schema and locking work, {latency * 1000:.0f} ms a call"
    if needed <= _OF_AUTO_MANAGE:
        return Check("state", True, what)
    cure = "run ghostclean nearer to it, or raise --deadline"
    return Check("state", None if needed <= _OF_A_RUN else False, f"{what}: {needed:.1f} s of a quiet run", cure)


def _writing(stores: Stores, *, state_works: bool) -> Iterator[Check]:
    """What a run does with the ledger, under the lock where that can be had."""
    lease = stores.state.acquire("doctor", _PART_SECONDS) if state_works else None
    try:
        yield from _rehearsed("ledger", lambda: stores.ledger.rehearse(lease))
    finally:
        if lease is not None:
            stores.state.release(lease)


def _broker(found: Installation, fits: Iterable[Fit], *, state_works: bool) -> Iterator[Check]:
    broker = found.broker()
    account = broker.account()
    skew = (broker.now() - datetime.now(UTC)).total_seconds()
    working, positions = broker.working_orders(), broker.positions()
    left = broker.requests_left()
    rate = f", {counted(left, 'request')} left this minute" if left is not None else ""
    works = counted(len(working), "working order")
    yield Check("broker", True, f"{counted(len(positions), 'position')}, {works}{rate}")
    truth = BrokerTruth.of(account, working, positions, broker.now())
    for row in truth.positions.unread:
        yield Check("broker", None, str(row), "its trades are held until the broker tells; ask Alpaca if it lasts")
    why = truth.contradiction()
    if why is not None:
        yield Check("broker", False, f"it contradicts itself: {why}", "runs close nothing until it agrees; ask Alpaca")
    yield _account(found, account)
    if found.account_kind != "snapshot":
        wrong = abs(skew) > _SKEW_SECONDS
        what = f"ours differs from the broker's by {spell(abs(skew))}"
        yield Check("clock", None if wrong else True, what, "set this machine's clock (NTP)" if wrong else "")
    if state_works:
        yield _pin(found, broker, account)
    for fit in fits:
        yield from (Check("orders", *finding) for finding in orders(fit, broker))


def _account(found: Installation, account: Account) -> Check:
    what = f"{short(account.id)}, {found.account_kind}, {account.status or 'status unknown'}"
    if account.blocked:
        return Check("account", False, f"{what}, blocked", "ask Alpaca; orders are refused until then")
    active = account.status.upper() == "ACTIVE"
    return Check("account", True if active else None, what, "" if active else "only an ACTIVE account trades")


def _pin(found: Installation, broker: Broker, account: Account) -> Check:
    try:
        pinned = found.stores.state.recall_all(["pin"]).pinned
    except GhostcleanError as error:
        return Check("pin", False, str(error), "repair the state and ask again")
    if pinned is None:
        return Check("pin", None, "no account is pinned yet", "the first run that decides pins it")
    why = pinned.mismatch(account, broker.live)
    if why is not None:
        return Check("pin", False, why, "use the right keys, or accept the new one: ghostclean doctor --pin")
    return Check("pin", True, "the account is this ledger's")


def _repin(found: Installation, agrees: Callable[[str], bool]) -> Iterator[Check]:
    """The question is asked outside of any part: a person takes the time that it takes."""
    proposals: list[Proposal] = []
    yield from _part("pin", _proposed(found, proposals))
    for proposal in proposals:
        if agrees(proposal.text):
            yield from _part("pin", _accepted(found, proposal))
        else:
            yield Check("pin", False, f"not accepted: {proposal.text}", "ghostclean doctor --pin --yes accepts it")


def _proposed(found: Installation, proposals: list[Proposal]) -> Iterator[Check]:
    proposal = propose(found.stores, found.broker())
    if proposal.text:
        proposals.append(proposal)
    else:
        yield Check("pin", True, "the account is this ledger's already")


def _accepted(found: Installation, proposal: Proposal) -> Iterator[Check]:
    yield Check("pin", True, f"{accept(found.stores.state, proposal)} is now this ledger's (before: {proposal.text})")


def _alerts(found: Installation) -> Iterator[Check]:
    """One alert by every channel; what is wrong with the setting has a check already."""
    try:
        monitors = Monitors(found.channels())
    except BadSettings:
        return
    origin = Origin(found.stores.ledger.place, "", found.account_kind == "live", socket.gethostname())
    alert = Alert("test", "a test: alerts of this ledger arrive here")
    document = {"source": "doctor", "runId": "doctor"}
    run = EndedRun("doctor", origin, document, [alert], None, datetime.now(UTC))
    for name, why in (results := list(monitors.rehearse(run))):
        if why is None:
            yield Check("alerts", True, f"{name}: the test has arrived")
        else:
            yield Check("alerts", False, f"the test has not arrived: {why}", "look at its URL, and at the service")
    if not results:
        yield Check("alerts", False, "no test was sent: GHOSTCLEAN_ALERT_URL is not set", "set it to where you are")


def _history(found: Installation) -> Iterator[Check]:
    telemetry = found.stores.state.telemetry("reconcile", 0)
    items = attention.recall(found.stores.state.recall("attention"))
    failing = Failing.parse(found.stores.state.recall(FAILING, ["reconcile"]).get("reconcile"))
    health = judge(telemetry.summary, Needs(), datetime.now(UTC), found.interval, failing)
    ok = {"healthy": True, "stale": None, "broken": False}[health.word]
    every = "" if "expected every" in health.why else f"; expected every {spell(found.interval.total_seconds())}"
    yield Check("runs", ok, f"{health.word}: {health.why}{every}", "" if ok else health.advice)
    needs = Needs.of(items)
    more = f" ({needs.number} items, `ghostclean status` lists them)" if needs.number > 1 else ""
    yield Check("attention", not items, f"{needs.first}{more}" or "nothing needs a person", needs.command)


def _environment(found: Installation) -> Iterator[Check]:
    yield from _env_file(found.env_file)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        yield Check("environment", True, "GitHub Actions: failures are annotated, a summary is added to the step")
        if found.stores.state.place.startswith("sqlite:"):
            what = "the state is a local file that this machine forgets after the job: no pin, journal or telemetry"
            yield Check("environment", None, what, "set REDIS_URL or GHOSTCLEAN_STATE to a Redis")
    elif not os.environ.get("TERM") and not os.environ.get("DISPLAY"):
        yield Check("environment", True, f"looks like cron or a service, at work in {Path.cwd()}")
    else:
        what = "a terminal; cron needs absolute paths and the same settings (ghostclean schedule)"
        yield Check("environment", True, what)


def _env_file(name: str) -> Iterator[Check]:
    """The rights of the file with the settings: it holds keys."""
    with contextlib.suppress(OSError):
        mode = Path(name).stat().st_mode & 0o777
        if mode & 0o077:
            yield Check("environment", None, f"{name} may be read by others (mode {mode:o})", f"chmod 600 {name}")
