"""Auto-manage: reconcile, then keep, tighten or close what is really there.

Order of a run: lock, reconcile, own truth, an unfinished close, stops that the sale of an orphan
took away, the reasons to skip, leftovers, then the trades: naked ones, losses to cut, stops to
tighten; in the last minutes of the day all of them are closed. Nothing is sent but through
`OrderDoor`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.manage.books import FLATTEN, MANAGED, Books
from ghostclean.app.manage.desk import Desk, Seen
from ghostclean.app.manage.flatten import CUT, EOD
from ghostclean.app.manage.leftovers import cancel_leftovers
from ghostclean.app.manage.trades import MISSED, Tally, TradeManager
from ghostclean.app.manage.within import within
from ghostclean.app.order_door import NUMBERS, REST, OrderDoor
from ghostclean.app.outside import SECTION
from ghostclean.app.owed import Owed, settle
from ghostclean.app.parts import Parts
from ghostclean.app.ports import OWED, Lease, RunCommit
from ghostclean.app.run import Run, Task, carry_out
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
)
from ghostclean.manage_result import ManageOutcome, ManageResult
from ghostclean.result import Result

_log = logging.getLogger("ghostclean")

KIND = "auto-manage"
LOCK_WAIT = 20.0
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
    reconciled: Mapping[str, Any] = field(default_factory=dict)
    market: Market | None = None
    tally: Tally = field(default_factory=Tally)
    active: frozenset[str] | None = None
    duty: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    orders: Sequence[Mapping[str, Any]] = ()
    skipped: str | None = None
    run: Run = field(init=False)
    manage: Manage = field(init=False)
    books: Books = field(init=False)

    def __post_init__(self) -> None:
        options, now = self.options, self.parts.broker.now
        self.manage = options.manage
        self.run = Run(
            parts=self.parts,
            deadline=options.deadline,
            run_id=options.run_id,
            source=options.source,
            dry_run=options.dry_run,
            lock_wait=options.lock_wait,
        )
        self.run.journal.now = now
        self.parts = within(self.parts, options.deadline)
        stores = self.parts
        self.books = Books(
            stores.ledger, stores.state, self.run.journal, self.run.notes, now=now, dry_run=options.dry_run
        )

    # ------------------------------------------------------------------ the frame

    def result(self) -> ManageResult:
        task = Task(
            work=self._work_until_stopped,
            report=self._note_failures,
            tell=self._tell,
            record=self._record,
            failure="auto_manage_failed",
            broker_failed="the broker failed ({}): nothing more was sent; the next run goes on",
        )
        carry_out(self.run, task)
        return self._report()

    def _work_until_stopped(self) -> None:
        try:
            self._work()
        except _Stop as stop:
            if stop.outcome is ManageOutcome.FAIL:
                self.run.failed(stop.reason, stop.detail or self._about(stop.reason))
            else:
                self.skipped = stop.reason

    def _note_failures(self) -> None:
        """What failed on the way makes the run a failed one, unless something else has already."""
        reason = self.tally.reason
        if reason is not None and self.run.error is None:
            self.run.failed(reason, self._about(reason))

    def _about(self, reason: str) -> str:
        notes = self.run.notes
        about = [note for note in notes if reason in note]
        return f"{reason}: {'; '.join(about or notes)}"[:400]

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
        result = self.reconcile_first(self.run.lease)
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
        lease = self.run.lease
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

    def _report(self) -> ManageResult:
        run, options = self.run, self.options
        outcome, reason = ManageOutcome.SUCCESS, None
        if run.error is not None:
            outcome = ManageOutcome.SKIP if run.error == "locked" else ManageOutcome.FAIL
            reason = run.error
        elif self.skipped is not None:
            outcome, reason = ManageOutcome.SKIP, self.skipped
        return ManageResult(
            outcome=outcome,
            reason=reason,
            run_id=options.run_id,
            source=options.source,
            started_at=iso(run.started),
            duration_ms=run.duration_ms(),
            now=iso(self.parts.broker.now()),
            enabled=self.manage.enabled,
            forced=options.force,
            dry_run=options.dry_run,
            cfg=self.manage.to_dict(),
            checked=self.tally.checked,
            updated=self.tally.updated,
            flattened=self.tally.flattened,
            market=self.market.to_dict() if self.market is not None else None,
            notes=tuple(run.notes),
            orders=tuple(self.orders),
            reconcile=self.reconciled,
            detail=run.detail,
        )

    def _tell(self) -> None:
        """Alerts of a change of the outcome; an interrupted run is none."""
        run, eyes = self.run, self.parts.eyes
        if eyes.webhook is not None and not run.interrupted:
            before = run.alerted_before(KIND)
            run.alerted = eyes.managed(self._report().to_dict(), before, run.deadline.left)

    def _record(self) -> RunCommit:
        """Telemetry, journal and memory; dry, locked and interrupted runs are listed, not counted."""
        result = self._report()
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
        entries, memory = tuple(self.books.journal.entries), self._memory()
        if self.run.interrupted:
            return RunCommit(KIND, result.run_id, run, entries=entries, memory=memory)
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
        return RunCommit(KIND, result.run_id, run, add, put, entries, memory)

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
        alerted = {SECTION: {KIND: self.run.alerted}} if self.run.alerted is not None else {}
        return {MANAGED: managed, NUMBERS: numbers, _DUTY: self.duty, **alerted}


def _takes_no_orders(account: Account) -> str | None:
    """Why the account takes no orders at all, None when it does."""
    if account.blocked:
        return "trading is blocked"
    return None if account.status in ("ACTIVE", "") else f"its status is {account.status}"


def _nothing_to_verify() -> None:
    """A dry run holds no lock and sends nothing."""
