"""Auto-manage: reconcile, then keep, tighten or close what is really there.

Order of a run: lock, reconcile, own truth, an unfinished close, stops that the sale of an orphan
took away, the reasons to skip, leftovers, then the trades: naked ones, losses to cut, stops to
tighten; in the last minutes of the day all of them are closed. Nothing is sent but through
`OrderDoor`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.deadline import Deadline, bounded
from ghostclean.app.journal import Journal
from ghostclean.app.manage.books import FLATTEN, MANAGED, Books
from ghostclean.app.manage.desk import Desk, Seen
from ghostclean.app.manage.flatten import CUT, EOD
from ghostclean.app.manage.leftovers import cancel_leftovers
from ghostclean.app.manage.trades import MISSED, Tally, TradeManager
from ghostclean.app.manage.within import within
from ghostclean.app.order_door import NUMBERS, REST, OrderDoor
from ghostclean.app.orphans import OWED
from ghostclean.app.outside import SECTION
from ghostclean.app.owed import Owed, settle
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Lease, RunCommit
from ghostclean.app.record import deliver
from ghostclean.core.broker import Account, BrokerTruth
from ghostclean.core.client_ids import client_id
from ghostclean.core.instrument import is_option
from ghostclean.core.manage import Manage
from ghostclean.core.market import Market
from ghostclean.core.plan import Holding
from ghostclean.core.protection import OrderBook
from ghostclean.core.times import eastern_date, iso, parse_time
from ghostclean.core.trade import record_id
from ghostclean.errors import (
    BrokerError,
    DeadlineExceeded,
    GhostcleanError,
    StateFailed,
)
from ghostclean.manage_result import ManageOutcome, ManageResult
from ghostclean.result import Result

_log = logging.getLogger("ghostclean")

KIND = "auto-manage"
LOCK_WAIT = 20.0
_LOCK_OUTLIVES_DEADLINE = 5.0
_LAST_WORDS = 0.35  # seconds that the run's own record gets even when the deadline is over
_POLL = 0.5
_DUTY = "eod"  # the state section that remembers the last session in which flattening was on duty
_PURPOSES = ("stop", REST, "oco", CUT, EOD)
_COUNTED = {ManageOutcome.SUCCESS: "success", ManageOutcome.SKIP: "skipped", ManageOutcome.FAIL: "fail"}


@dataclass(frozen=True, slots=True)
class ManageOptions:
    """What one run was asked to do."""

    run_id: str
    source: str
    deadline: Deadline
    manage: Manage
    grace: timedelta = timedelta(seconds=120)
    dry_run: bool = False
    force: bool = False
    lock_wait: float = LOCK_WAIT


def run_auto_manage(
    parts: Parts,
    options: ManageOptions,
    *,
    reconcile_first: Callable[[Lease | None], Result],
    survey: Callable[[], Seen],
) -> ManageResult:
    """Makes one run and returns what happened; never raises for anything the world does.

    `reconcile_first` runs under the lock that it is handed (None in a dry run); `survey` looks at
    ledger and broker and raises GhostcleanError when either cannot be read.
    """
    return _Run(parts, options, reconcile_first, survey).result()


class _Stop(Exception):
    """Ends the run early with an outcome."""

    def __init__(self, outcome: ManageOutcome, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class _Run:
    """One run from lock to telemetry."""

    parts: Parts
    options: ManageOptions
    reconcile_first: Callable[[Lease | None], Result]
    survey: Callable[[], Seen]
    lease: Lease | None = None
    state_ok: bool = False
    reconciled: Mapping[str, Any] = field(default_factory=dict)
    market: Market | None = None
    tally: Tally = field(default_factory=Tally)
    active: frozenset[str] | None = None
    duty: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    orders: Sequence[Mapping[str, Any]] = ()
    alerted: Mapping[str, Any] | None = None
    stores: Parts = field(init=False)
    manage: Manage = field(init=False)
    began: float = field(init=False)
    started: datetime = field(init=False)
    books: Books = field(init=False)

    def __post_init__(self) -> None:
        self.stores = self.parts
        self.parts = within(self.parts, self.options.deadline)
        self.manage = self.options.manage
        self.began = self.options.deadline.left()
        self.started = self.parts.wall()
        self.books = self._new_books()

    def _new_books(self) -> Books:
        stores, options, now = self.stores, self.options, self.parts.broker.now
        journal = Journal(
            stores.ledger, stores.state, self.lease, options.deadline, options.run_id, options.source, now
        )
        return Books(self.parts.ledger, self.parts.state, journal, now=now, dry_run=options.dry_run)

    # ------------------------------------------------------------------ the frame

    def result(self) -> ManageResult:
        outcome, reason, detail = ManageOutcome.SUCCESS, None, None
        try:
            self._lock()
            self._work()
        except _Stop as stop:
            outcome, reason, detail = stop.outcome, stop.reason, stop.detail
        except GhostcleanError as error:
            outcome, reason, detail = ManageOutcome.FAIL, error.code, str(error)
        except BrokerError as error:
            outcome, reason = ManageOutcome.FAIL, "broker_truth_failed"
            detail = f"the broker failed ({error}): nothing more was sent; the next run goes on"
        except Exception as error:  # noqa: BLE001 - the last line of defence: a run always ends in a record
            _log.debug("the run ended in an unexpected error", exc_info=error)
            outcome, reason = ManageOutcome.FAIL, "auto_manage_failed"
            detail = f"{type(error).__name__}: {error}; what was sent is journaled, the next run goes on; see --verbose"
        if self.tally.failures and outcome is not ManageOutcome.FAIL:
            outcome, reason = ManageOutcome.FAIL, self.tally.reason
        return self._finish(self._tell_outside(self._report(outcome, reason, detail)))

    def _lock(self) -> None:
        deadline, state = self.options.deadline, self.parts.state
        try:
            deadline.reading(state.open)
            self.state_ok = True
            if not self.options.dry_run:
                self.lease = self._wait_for_lock()
                self.books = self._new_books()
        except DeadlineExceeded:
            raise StateFailed(
                "the state did not answer in time: nothing was changed; see `ghostclean doctor`"
            ) from None

    def _wait_for_lock(self) -> Lease:
        deadline, state = self.options.deadline, self.parts.state
        holder = f"{self.options.source} {self.options.run_id}"
        waited = 0.0
        while True:
            lease = deadline.reading(lambda: state.acquire(holder, deadline.left() + _LOCK_OUTLIVES_DEADLINE))
            if lease is not None:
                return lease
            if waited >= self.options.lock_wait or deadline.left_for_reading() < 2 * _POLL:
                why = "another run holds the lock: nothing was changed; it ends by itself"
                raise _Stop(ManageOutcome.SKIP, "locked", why)
            self.parts.pause(_POLL)
            waited += _POLL

    # ------------------------------------------------------------------ the order of a run

    def _work(self) -> None:
        self._reconcile()
        begun, owed = self.parts.state.recall(FLATTEN), self.parts.state.recall(OWED)
        if not self.manage.enabled and not begun and not owed:
            raise _Stop(ManageOutcome.SKIP, "disabled")
        seen = self.survey()
        self.active = frozenset(i for r in seen.view.active if (i := record_id(r)) is not None)
        self.books.recall()
        market = self._read_market()
        desk = self._desk(seen, market)
        trades = self._trades(desk)
        if begun:
            trades.finish_begun()
        if not self.options.dry_run:
            self._give_back(owed, desk.door)
        if not self.manage.enabled:
            raise _Stop(ManageOutcome.SKIP, "disabled")
        trades.manage(self._chosen(desk, market))

    def _give_back(self, stops: Mapping[str, Any], door: OrderDoor) -> None:
        """Stops that `reconcile --orphans flatten` took away and could not put back."""
        for orphan, raw in stops.items():
            owed = Owed.parse(raw)
            if owed is None:
                continue
            now = self.parts.broker.now()
            settled = settle(door, self.parts.state, orphan, owed, grace=self.options.grace, now=now)
            self.books.notes.append(f"{owed.symbol}: {'naked: ' if settled.naked else ''}{settled.said}")
            if settled.naked:
                self.tally.failures.append("naked")

    def _reconcile(self) -> None:
        result = self.reconcile_first(self.lease)
        self.reconciled = result.to_dict()
        if not result.ok:
            self.books.notes.append(f"the reconcile before it failed: {result.detail or result.error}")

    def _read_market(self) -> Market:
        """Clock and calendar; without the clock nothing is sent."""
        broker, deadline = self.parts.broker, self.options.deadline
        try:
            clock = deadline.reading(broker.clock)
        except BrokerError as error:
            why = f"the market clock cannot be read ({error}): nothing was sent"
            raise _Stop(ManageOutcome.FAIL, "clock_unavailable", why) from None
        today = eastern_date(clock.at)
        try:
            sessions = deadline.reading(lambda: broker.calendar(today - timedelta(days=7), today))
        except BrokerError as error:
            sessions = ()
            self.books.notes.append(f"the calendar cannot be read ({error}): the clock's close counts")
        self.market = market = Market.of(clock, sessions)
        return market

    def _check_account(self, truth: BrokerTruth) -> None:
        what = _takes_no_orders(truth.account)
        if what is not None:
            why = f"the account takes no orders ({what}): nothing was sent"
            raise _Stop(ManageOutcome.FAIL, "account_blocked", why)

    def _chosen(self, desk: Desk, market: Market) -> list[Holding]:
        """The trades to manage now; raises _Stop for the reasons to skip."""
        now = self.parts.broker.now()
        self._note_missed_close(desk, market, now)
        if market.clock.is_open and not _takes_no_orders(desk.seen.truth.account):
            self.tally.updated += self._leftovers(desk, now)
        if not desk.open_ids:
            raise _Stop(ManageOutcome.SKIP, "no_open_trades")
        ready = desk.manageable()
        if not market.clock.is_open and not self.options.force:
            self._list_naked(desk, [h for h in ready if not h.position.is_crypto], now)
            ready = [h for h in ready if h.position.is_crypto]
            if not ready:
                raise _Stop(ManageOutcome.SKIP, "market_closed")
        self._check_account(desk.seen.truth)
        self._list_held(desk)
        return self._longest_unmanaged(ready)

    # ------------------------------------------------------------------ which trades

    def _longest_unmanaged(self, holdings: Sequence[Holding]) -> list[Holding]:
        def managed_at(holding: Holding) -> str:
            known = self.books.managed.get(holding.trade.id or "", {}).get("at")
            own = holding.trade.record.get("autoManage")
            told = own.get("lastManagedAt") if isinstance(own, Mapping) else None
            return str(known or told or "")

        ordered = sorted(holdings, key=lambda h: (managed_at(h), h.trade.id or ""))
        most = self.manage.max_per_run
        if ordered[most:]:
            self.books.notes.append(f"{len(ordered) - most} trades wait for a later run (AUTO_MANAGE_MAX_PER_RUN)")
        return ordered[:most]

    def _list_naked(self, desk: Desk, holdings: Sequence[Holding], now: datetime) -> None:
        for work in desk.works(holdings, {}, now):
            if work.protection.is_naked:
                self.books.note(work.holding, "naked: no stop that can fire; its market is closed")

    def _list_held(self, desk: Desk) -> None:
        """Why an open trade gets no order in this run."""
        ready = {h.trade.id for h in desk.manageable()}
        for decision in desk.seen.plan.decisions:
            if decision.trade_id in ready or decision.trade_id not in desk.open_ids:
                continue
            why = "options never get orders" if is_option(decision.ticker) else f"{decision.verdict}: {decision.reason}"
            self.books.notes.append(f"{decision.ticker} {decision.trade_id}: no order ({why})")

    def _leftovers(self, desk: Desk, now: datetime) -> int:
        return cancel_leftovers(
            desk.door,
            self.books,
            self.parts.ledger,
            desk.seen.plan,
            desk.seen.view.active,
            desk.seen.truth.orders,
            grace=self.options.grace,
            now=now,
        )

    def _note_missed_close(self, desk: Desk, market: Market, now: datetime) -> None:
        """FAIL `eod_missed`: on the day itself in every run, later once."""
        if not self.manage.eod_flatten:
            return
        stored = self.parts.state.recall(_DUTY).get("last")
        duty = parse_time(stored.get("close")) if isinstance(stored, Mapping) else None
        closed = market.closed_today(now)
        if closed is None and duty is not None and now >= duty:
            closed = duty
        self.duty = {"last": {"close": iso(market.close)} if market.close is not None else None}
        if closed is None:
            return
        for holding in desk.manageable():
            opening = holding.trade.opening
            if not holding.position.is_crypto and (opening is None or opening < closed):
                self.books.note(holding, f"eod_missed: still open after the close at {iso(closed)}")
                self.tally.failures.append(MISSED)

    # ------------------------------------------------------------------ what they are managed with

    def _desk(self, seen: Seen, market: Market) -> Desk:
        book = OrderBook()
        book.add(seen.evidence.orders.values())
        book.set_working(seen.truth.orders)
        lease = self.lease
        door = OrderDoor(
            self.parts.broker,
            self.parts.state,
            market,
            self.options.deadline,
            grace=self.options.grace,
            verify=lease.verify if lease is not None else _nothing_to_verify,
            book=book,
            dry_run=self.options.dry_run,
            sleep=self.parts.pause,
        )
        self.orders = door.log
        return Desk(seen, door, market)

    def _trades(self, desk: Desk) -> TradeManager:
        return TradeManager(
            desk,
            self.parts,
            self.books,
            self.tally,
            self.manage,
            self.options.deadline,
            grace=self.options.grace,
            run_id=self.options.run_id,
            survey=self.survey,
        )

    # ------------------------------------------------------------------ the end

    def _report(self, outcome: ManageOutcome, reason: str | None, detail: str | None) -> ManageResult:
        options = self.options
        if outcome is ManageOutcome.FAIL and detail is None:
            about = [note for note in self.books.notes if (reason or "") in note]
            detail = f"{reason}: {'; '.join(about or self.books.notes)}"[:400]
        return ManageResult(
            outcome=outcome,
            reason=reason,
            run_id=options.run_id,
            source=options.source,
            started_at=iso(self.started),
            duration_ms=int((self.began - options.deadline.left()) * 1000),
            now=iso(self.parts.broker.now()),
            enabled=self.manage.enabled,
            forced=self.options.force,
            dry_run=options.dry_run,
            cfg=self.manage.to_dict(),
            checked=self.tally.checked,
            updated=self.tally.updated,
            flattened=self.tally.flattened,
            market=self.market.to_dict() if self.market is not None else None,
            notes=tuple(self.books.notes),
            orders=tuple(self.orders),
            reconcile=self.reconciled,
            detail=detail,
        )

    def _tell_outside(self, result: ManageResult) -> ManageResult:
        """Alerts of a change of the outcome, within the deadline and without touching it."""
        eyes, left = self.parts.eyes, self.options.deadline.left
        if eyes.webhook is None or result.dry_run or result.reason == "locked":
            return result
        before: Mapping[str, Any] | None = None
        notes, failed_before = [], len(eyes.failures)
        if self.state_ok:
            try:
                recall = self.stores.state.recall
                found = bounded(lambda: recall(SECTION, [KIND]), max(left() / 4, 0.05)).get(KIND)
                before = found if isinstance(found, Mapping) else {}
            except (GhostcleanError, DeadlineExceeded) as error:
                notes.append(f"alerts: {error}")
        self.alerted = eyes.managed(result.to_dict(), before, left)
        notes += [f"outside: {failure}" for failure in eyes.failures[failed_before:]]
        return replace(result, notes=(*result.notes, *notes))

    def _finish(self, result: ManageResult) -> ManageResult:
        """Telemetry, journal and memory in one transaction, then the lock; spooled if that fails."""
        commit = self._commit(result)
        try:
            if not self.state_ok:
                raise StateFailed("the state was never reached")
            bounded(
                lambda: deliver(self.stores.state, commit, self.lease), max(self.options.deadline.left(), _LAST_WORDS)
            )
        except (GhostcleanError, DeadlineExceeded) as error:
            result = self._spooled(result, commit, str(error))
        lease = self.lease
        if lease is None:
            return result
        try:
            bounded(lambda: self.stores.state.release(lease), max(self.options.deadline.left(), 0.2))
        except (GhostcleanError, DeadlineExceeded):
            result = replace(result, notes=(*result.notes, "the lock was not given back; it ends by itself"))
        return result

    def _spooled(self, result: ManageResult, commit: RunCommit, why: str) -> ManageResult:
        try:
            self.parts.spool.put(commit)
            note = f"the run's record is spooled ({why})"
        except (GhostcleanError, OSError) as error:
            note = f"the run's record is lost ({error})"
        result = replace(result, notes=(*result.notes, note))
        if result.outcome is ManageOutcome.FAIL:
            return result
        return replace(result, outcome=ManageOutcome.FAIL, reason="state_failed", detail=note)

    def _commit(self, result: ManageResult) -> RunCommit:
        run = {
            "ts": result.started_at,
            "outcome": str(result.outcome),
            "reason": result.reason,
            "checked": result.checked,
            "updated": result.updated,
            "flattened": result.flattened,
            "source": result.source,
            "runId": result.run_id,
            "durationMs": result.duration_ms,
            "dryRun": result.dry_run,
        }
        if result.dry_run or result.reason == "locked":
            return RunCommit(KIND, result.run_id, run)
        add = {"runs": 1, **dict.fromkeys(_COUNTED.values(), 0), _COUNTED[result.outcome]: 1}
        if result.reason:
            add[f"reason:{result.reason}"] = 1
        put = {
            "lastRunAt": result.started_at,
            "lastOutcome": str(result.outcome),
            "lastReason": result.reason or "",
            "lastSource": result.source,
            "lastRunId": result.run_id,
        }
        return RunCommit(KIND, result.run_id, run, add, put, tuple(self.books.journal.entries), self._memory())

    def _memory(self) -> dict[str, Mapping[str, Any]]:
        """What the next run must know of each trade; closed ones are forgotten, numbers included."""
        at = iso(self.parts.broker.now())
        managed: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        for trade_id, memory in self.books.managed.items():
            if self.active is not None and trade_id not in self.active:
                managed[trade_id] = None
                numbers |= {client_id(trade_id, purpose, 0): None for purpose in _PURPOSES}
            else:
                managed[trade_id] = {**memory, "at": at} if trade_id in self.tally.touched else memory
        alerted = {SECTION: {KIND: self.alerted}} if self.alerted is not None else {}
        return {MANAGED: managed, NUMBERS: numbers, _DUTY: self.duty, **alerted}


def _takes_no_orders(account: Account) -> str | None:
    """Why the account takes no orders at all, None when it does."""
    if account.blocked:
        return "trading is blocked"
    return None if account.status in ("ACTIVE", "") else f"its status is {account.status}"


def _nothing_to_verify() -> None:
    """A dry run holds no lock and sends nothing."""
