"""Auto-manage: reconcile, then keep, tighten or close the open trades.

The order of a run: lock, reconcile, broker truth, unfinished closes, stops that a sale of an orphan took
away, the reasons to skip, stray exits, then the trades by urgency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.gateway import OCO, REST, STOP, OrderGateway, open_gateway, read_market
from ghostclean.app.gateway.naming import NUMBERS
from ghostclean.app.manage.engine import Counts, Engine
from ghostclean.app.manage.selection import (
    list_held,
    list_naked,
    longest_unmanaged,
    note_held_overnight,
    note_missed_close,
    session_on_duty,
)
from ghostclean.app.manage.stray_exits import cancel_stray_exits
from ghostclean.app.manage.trade_journal import MANAGED, TradeJournal
from ghostclean.app.manage.trades import OpenTrades
from ghostclean.app.monitors import MEMORY, SECTION
from ghostclean.app.observation import Observation
from ghostclean.app.orphan_sales import OrphanSeller
from ghostclean.app.parts import Parts
from ghostclean.app.ports import MANAGE_MEMORY, Lease, Recalled, RunCommit
from ghostclean.app.run import Run, Task, carry_out
from ghostclean.core import attention
from ghostclean.core.alerts import NOT_LOOKED
from ghostclean.core.attention import Attention, Item, Kind
from ghostclean.core.broker import Account, BrokerTruth, client_id, iso
from ghostclean.core.ledger import record_id
from ghostclean.core.protection import CUT, EOD, BegunClose, ManagePolicy, Market
from ghostclean.core.verdicts import Holding
from ghostclean.errors import BrokerError
from ghostclean.result import Interrupted, ManageOutcome, ManageResult, Result

KIND = "auto-manage"
LOCK_WAIT = 20.0
_DISABLED, _NOTHING_OPEN, _CLOSED = "disabled", "no_open_trades", "market_closed"  # reasons to skip
_DUTY = "eod"  # the state section that remembers the last session in which flattening was on duty
_PURPOSES = (STOP, REST, OCO, CUT, EOD)
_COUNTED = {ManageOutcome.SUCCESS: "success", ManageOutcome.SKIP: "skipped", ManageOutcome.FAIL: "fail"}


@dataclass(frozen=True, slots=True)
class ManageOptions:
    """What one run was asked to do."""

    run_id: str
    source: str
    deadline: Deadline
    manage: ManagePolicy
    grace: timedelta = timedelta(seconds=120)
    dry_run: bool = False
    force: bool = False
    lock_wait: float = LOCK_WAIT
    interval: timedelta = timedelta(minutes=5)


def run_auto_manage(
    parts: Parts,
    options: ManageOptions,
    *,
    reconcile_first: Callable[[Lease | None], Result],
    observe: Callable[[], Observation],
) -> ManageResult:
    """Makes one run; never raises for anything the world does.

    Ctrl-C comes out as `Interrupted`, with the result so far. `reconcile_first` runs under the lock
    that it is handed (None in a dry run); `observe` looks at ledger and broker and raises
    GhostcleanError when either cannot be read.
    """
    return _Run(parts, options, reconcile_first, observe).result()


class _Stop(Exception):
    """Ends the run early with an outcome."""

    def __init__(self, outcome: ManageOutcome, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class _Run:
    parts: Parts
    options: ManageOptions
    reconcile_first: Callable[[Lease | None], Result]
    observe: Callable[[], Observation]
    reconciled: Mapping[str, Any] = field(default_factory=dict)
    market: Market | None = None
    counts: Counts = field(default_factory=Counts)
    active: frozenset[str] | None = None
    looked_at: frozenset[str] = frozenset()
    duty: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    orders: Sequence[Mapping[str, Any]] = ()
    skipped: str | None = None
    memory: Recalled = field(default_factory=Recalled)
    run: Run = field(init=False)
    manage: ManagePolicy = field(init=False)
    journal: TradeJournal = field(init=False)

    def __post_init__(self) -> None:
        options, now = self.options, self.parts.broker.now
        self.manage = options.manage
        self.run = Run(
            parts=self.parts,
            deadline=options.deadline,
            run_id=options.run_id,
            source=options.source,
            dry_run=options.dry_run,
            interval=options.interval,
            lock_wait=options.lock_wait,
        )
        self.run.journal.now = now
        self.parts = self.parts.bound(options.deadline.acting)
        self.journal = TradeJournal(
            ledger=self.parts.ledger,
            journal=self.run.journal,
            notes=self.run.notes,
            now=now,
            dry_run=options.dry_run,
        )

    # ------------------------------------------------------------------ the frame

    def result(self) -> ManageResult:
        task = Task(
            kind=KIND,
            work=self._work_until_stopped,
            report=self._note_failures,
            tell=self._tell,
            record=self._record,
            failure="auto_manage_failed",
            broker_failed="{}; nothing more was sent",
        )
        try:
            carry_out(self.run, task)
        except KeyboardInterrupt as stop:
            raise Interrupted(self._report()) from stop
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
        reason = self.counts.reason
        if reason is not None and self.run.error is None:
            self.run.failed(reason, self._about(reason))

    def _about(self, reason: str) -> str:
        notes = self.run.notes
        about = [note for note in notes if reason in note]
        return f"{reason}: {'; '.join(about or notes)}"[:400]

    # ------------------------------------------------------------------ the order of a run

    def _work(self) -> None:
        self._reconcile()
        self.memory = self.parts.state.recall_all(MANAGE_MEMORY)
        self.run.account = self.memory.ledger.get("account")
        begun, owed = _begun(self.memory.flatten), _begun(self.memory.owed_stops)
        if not self.manage.enabled and not begun and not owed:
            raise _Stop(ManageOutcome.SKIP, _DISABLED)
        observed = self.observe()
        self.active = frozenset(i for r in observed.view.active if (i := record_id(r)) is not None)
        self.journal.recall(self.memory.managed)
        market = self._read_market()
        gateway = self._gateway(observed, market)
        trades = OpenTrades(observed, gateway)
        engine = self._engine(trades)
        engine.finish(begun)
        if not self.options.dry_run:
            self._restore_stops(observed, gateway)
        if not self.manage.enabled:
            raise _Stop(ManageOutcome.SKIP, _DISABLED)
        engine.manage(self._chosen(trades))

    def _restore_stops(self, observed: Observation, gateway: OrderGateway) -> None:
        parts, options, run = self.parts, self.options, self.run
        seller = OrphanSeller(
            parts, options.deadline, options.grace, observed, run.lease, run.journal, self.memory.owed_stops, gateway
        )
        seller.restore_stops()
        self.journal.notes += [*seller.notes, *(f"naked: {line}" for line in seller.naked)]
        self.counts.failures += ["naked"] * len(seller.naked)
        self.journal.items += [
            Item(Kind.NAKED, line, "ghostclean auto-manage", line.partition(":")[0]) for line in seller.naked
        ]

    def _reconcile(self) -> None:
        result = self.reconcile_first(self.run.lease)
        self.reconciled = result.to_dict()
        if not result.ok:
            self.journal.notes.append(f"the reconcile before it failed: {result.detail or result.error}")

    def _read_market(self) -> Market:
        try:
            self.market = read_market(self.parts.broker, self.options.deadline, self.journal.notes)
        except BrokerError as error:
            why = f"the market clock cannot be read: {error.line}; nothing was sent; {error.cure}"
            raise _Stop(ManageOutcome.FAIL, "clock_unavailable", why) from None
        return self.market

    def _check_account(self, truth: BrokerTruth) -> None:
        what = _takes_no_orders(truth.account)
        if what is not None:
            why = f"the account takes no orders ({what}): nothing was sent"
            raise _Stop(ManageOutcome.FAIL, "account_blocked", why)

    def _chosen(self, trades: OpenTrades) -> list[Holding]:
        journal, market, now = self.journal, trades.gateway.market, self.parts.broker.now()
        if trades.observed.plan.about_elsewhere is not None:
            journal.notes.append(trades.observed.plan.about_elsewhere)
        self._note_missed_close(trades, now)
        self._cancel_stray_exits(trades, now)
        if not trades.ids:
            raise _Stop(ManageOutcome.SKIP, _NOTHING_OPEN)
        ready = trades.manageable()
        if not market.clock.is_open and not self.options.force:
            closed = [h for h in ready if not h.position.is_crypto]
            list_naked(journal, trades, closed, now)
            self.looked_at = frozenset(h.trade.id or "" for h in closed)
            ready = [h for h in ready if h.position.is_crypto]
            if not ready:
                raise _Stop(ManageOutcome.SKIP, _CLOSED)
        self._check_account(trades.observed.truth)
        list_held(journal, trades)
        return longest_unmanaged(journal, ready, self.manage.max_per_run)

    def _cancel_stray_exits(self, trades: OpenTrades, now: datetime) -> None:
        takes_orders = _takes_no_orders(trades.observed.truth.account) is None
        if takes_orders and trades.gateway.market.clock.is_open:
            before = now - self.options.grace
            self.counts.updated += cancel_stray_exits(trades, self.journal, self.parts.ledger, before)

    def _note_missed_close(self, trades: OpenTrades, now: datetime) -> None:
        if not self.manage.eod_flatten:
            return
        market, stored = trades.gateway.market, self.memory.eod.get("last")
        self.duty = {"last": session_on_duty(market)}
        self.counts.failures += note_missed_close(self.journal, trades.manageable(), market, stored, now)
        if market.in_last(self.manage.eod_window, now):
            self.counts.failures += note_held_overnight(self.journal, trades)

    # ------------------------------------------------------------------ what they are managed with

    def _gateway(self, observed: Observation, market: Market) -> OrderGateway:
        options = self.options
        gateway = open_gateway(
            self.parts, observed, market, options.deadline, self.run.lease, grace=options.grace, dry_run=options.dry_run
        )
        self.orders = gateway.log
        return gateway

    def _engine(self, trades: OpenTrades) -> Engine:
        options = self.options
        return Engine(
            trades, self.parts, self.journal, self.counts, self.manage, options.deadline, options.grace,
            options.run_id, self.observe,
        )  # fmt: skip

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
            checked=self.counts.checked,
            updated=self.counts.updated,
            flattened=self.counts.flattened,
            market=self.market.to_dict() if self.market is not None else None,
            notes=tuple(run.notes),
            orders=tuple(self.orders),
            reconcile=self.reconciled,
            attention=self._attention(),
            detail=run.detail,
            cause=run.cause,
            failing=run.failing,
        )

    def _attention(self) -> Attention:
        """What needs a person after this run; a trade that it did not work on is as it was."""
        found, at = self.journal.items, iso(self.parts.broker.now())
        return attention.follow(attention.recall(self.memory.attention), found, self._still, at)

    def _still(self, item: Item) -> bool:
        if item.kind not in attention.MANAGED or self.run.interrupted:
            return True
        if self.skipped in (_DISABLED, _NOTHING_OPEN):
            return False
        if self.active is None:
            return True
        if item.id not in self.active:
            return False
        return item.id not in self.counts.judged and not (item.kind is Kind.NAKED and item.id in self.looked_at)

    def _tell(self) -> None:
        self.run.tell(KIND, self._report().to_dict())

    def _record(self) -> RunCommit:
        """Telemetry, journal and memory; dry, locked and interrupted runs are listed, not counted."""
        result = self._report()
        listed = {
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
            "detail": result.detail,
        }
        run = self.run.signed(listed)
        if result.dry_run or result.reason == "locked":
            return RunCommit(KIND, result.run_id, run)
        entries, memory = tuple(self.journal.journal.entries), self._memory()
        if self.run.interrupted:  # perhaps before it knew what needs a person
            return RunCommit(KIND, result.run_id, run, entries=entries, memory=memory)
        inside = self.reconciled
        failing = inside.get("failing") and {**inside["failing"], "cause": inside["cause"]}
        about = self.run.about(result.attention, failing)
        if result.reason != NOT_LOOKED:
            memory |= self.run.row_of_failures(KIND)
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
        return RunCommit(KIND, result.run_id, run, add, put, entries, memory, about=about)

    def _memory(self) -> dict[str, Mapping[str, Any]]:
        at = iso(self.parts.broker.now())
        managed: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        for trade_id, memory in self.journal.managed.items():
            if self.active is not None and trade_id not in self.active:
                managed[trade_id] = None
                owners = {trade_id, str(memory.get("owner", trade_id))}
                numbers |= {client_id(owner, purpose, 0): None for owner in owners for purpose in _PURPOSES}
            else:
                managed[trade_id] = {**memory, "at": at} if trade_id in self.counts.touched else memory
        needed = {"attention": self._attention().memory()}
        alerted = {SECTION: {MEMORY[KIND]: self.run.alerted}} if self.run.alerted is not None else {}
        return {MANAGED: managed, NUMBERS: numbers, _DUTY: self.duty, **needed, **alerted}


def _takes_no_orders(account: Account) -> str | None:
    if account.blocked:
        return "trading is blocked"
    return None if account.status in ("ACTIVE", "") else f"its status is {account.status}"


def _begun(stored: Mapping[str, Any]) -> dict[str, BegunClose]:
    found = {i: BegunClose.parse(i, raw) for i, raw in stored.items()}
    return {i: begun for i, begun in found.items() if begun is not None}
