"""One seed: a world, faulty runs in it, then quiet ones, judged by the oracles of CRAFT section 5."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ghostclean.app.parts import Options, Parts
from ghostclean.app.reconcile import run_reconcile
from ghostclean.core.inputs import Policy
from ghostclean.errors import BrokerError, GhostcleanError, LedgerFailed, StateFailed
from ghostclean.result import Result

from .app import App, Truth
from .broker import FINAL, SimBroker, World
from .clock import Clock, Crash, Hang, SimDeadline
from .stores import SimLedger, SimSpool, SimState, Store, Written, is_final

KINDS = (
    "bracket", "bracket", "exited", "exited", "replaced", "filled", "handsold", "gone", "stopped", "working", "partial",
    "never", "unknown", "no_id", "closed", "error", "garbage", "dup",
)  # fmt: skip
FAULTS = (
    "crash_before", "crash_before", "crash_after", "crash_after", "error_before", "error_after", "hang_before",
    "hang_after", "hang_late", "pause", "pause_and_second", "second", "clock_back",
)  # fmt: skip
ERRORS: dict[str, Callable[[], Exception]] = {
    "broker": lambda: BrokerError("the network is down"),
    "ledger": lambda: LedgerFailed("the ledger is out of reach"),
    "state": lambda: StateFailed("the state is out of reach"),
    "spool": lambda: StateFailed("the disk is full"),
}
DEADLINE = 60.0


class Violation(AssertionError):
    """An oracle was broken."""


@dataclass
class Process:
    """One running reconcile: its effects are counted, and the faults strike at their numbers."""

    play: Play
    run_id: str
    faults: dict[int, str]
    count: int = 0
    dead: bool = False
    struck: list[str] = field(default_factory=list)

    def effect(self, part: str, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash
        self.count += 1
        self.play.tick()
        fault = self.faults.get(self.count)
        if fault is None:
            return call()
        self.struck.append(f"{fault}@{self.count}:{part}")
        self.play.say(f"  {self.run_id}: {fault} at effect {self.count} ({part})")
        return self._strike(fault, part, call)

    def _strike(self, fault: str, part: str, call: Callable[[], Any]) -> Any:
        play = self.play
        if fault.endswith("_after"):
            call()
        if fault.startswith("crash"):
            self.dead = True
            raise Crash
        if fault.startswith("error"):
            raise ERRORS[part]()
        if fault.startswith("hang"):
            if fault == "hang_late":
                play.late.append(call)
            raise Hang
        if fault.startswith("pause"):
            play.clock.advance(play.rng.choice((20.0, 70.0, 400.0)))
        if fault.endswith("second"):
            play.run({})
        if fault == "clock_back":
            play.clock.skew = play.rng.choice((-86400.0, -30.0, 45.0, 3600.0))
        return call()


class Play:
    """A seeded world and what happens in it."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda line: None) -> None:
        self.rng = rng = random.Random(seed)
        self.say = say
        self.clock = Clock()
        self.world = World(self.clock, seed)
        self.store = Store(self.clock, on_write=self.watch)
        self.broken: Violation | None = None  # kept, because the run under test catches what it is thrown
        self.app = App(rng, self.clock, self.world, self.store)
        self.late: list[Callable[[], Any]] = []
        self.busy = 0.0
        self.depth = 0
        self.began = 0.0  # of the run that is at work
        self.runs = 0
        self.one_text = rng.random() < 0.6
        self.mode = rng.choice(("report", "report", "report", "adopt"))
        self.policy = Policy(orphans=self.mode, max_unproven_closes=rng.choice((3, 50)),
                             confirmations=rng.choice((1, 1, 1, 2)))  # fmt: skip
        self.reused = rng.random() < 0.1  # every run is given the same run id

    # ------------------------------------------------------------------ acts

    def perform(self) -> None:
        rng = self.rng
        for _ in range(rng.randrange(1, 7)):
            self.app.setup(rng.choice(KINDS))
        self.busy = rng.choice((0.0, 0.05, 0.2))
        self.world.position_lag = rng.choice((0.0, 0.0, 1.0, 5.0, 40.0))
        self.world.order_lag = rng.choice((0.0, 0.0, 0.5, 2.0))
        self.world.fill_lag = rng.choice((0.0, 0.0, 3.0, 30.0))
        self.world.account_lags = rng.random() < 0.7
        for _ in range(rng.randrange(1, 4)):
            faults = {rng.randrange(1, 34): rng.choice(FAULTS) for _ in range(rng.choice((0, 1, 1, 2, 3)))}
            self.run(faults)
            self.clock.advance(rng.choice((0.0, 3.0, 80.0, 130.0, 400.0)))
            if rng.random() < 0.5:
                self.land()
        self.calm()

    def land(self) -> None:
        """Calls that were given up on reach their server after all."""
        late, self.late = self.late, []
        for call in late:
            try:
                call()
            except GhostcleanError as error:
                self.say(f"  late call refused: {error}")

    def tick(self) -> None:
        self.clock.advance(self.rng.choice((0.01, 0.05, 0.2)))
        self.app.due()
        if self.busy and self.rng.random() < self.busy:
            self.app.move()

    def run(self, faults: dict[int, str]) -> Result | None:
        if self.depth > 1:
            return None
        self.depth += 1
        self.runs += 1
        run_id = "always" if self.reused else f"r{self.runs}"
        process = Process(self, run_id, faults)
        state = SimState(self.store, process.effect)
        parts = Parts(
            SimLedger(self.store, process.effect, run_id, one_text=self.one_text),
            state,
            SimSpool(self.store, process.effect),
            SimBroker(self.world, process.effect),
            wall=self.clock.wall,
            pause=self.clock.advance,
        )
        options = Options(run_id, "sim", SimDeadline(self.clock, DEADLINE), policy=self.policy)
        before = len(self.store.written)
        outer, self.began = self.began, self.clock.t
        began = self.began
        try:
            result = run_reconcile(parts, options)
        except Crash:
            self.say(f"{run_id}: killed at effect {process.count}")
            return None
        finally:
            self.depth -= 1
            self.began = outer
            if self.broken is not None:
                raise self.broken
        self.say(f"{run_id}: error={result.error} closed={result.closed} synced={result.synced} {result.detail or ''}")
        for row in result.results:
            self.say(f"    {row['id']} {row['ticker']} {row['verdict']} {row['action']}: {row['reason']}")
        if result.error == "reconcile_failed":
            raise Violation(f"unexpected failure: {result.detail}")
        if not faults and self.depth == 0 and len(self.store.written) - before < result.closed:
            raise Violation(f"{run_id} says it closed {result.closed}, the ledger shows fewer")
        if not faults and self.clock.t - began > DEADLINE + 5:
            raise Violation("a run without faults took longer than its deadline")
        return result

    # ------------------------------------------------------------------ oracles at every write

    def watch(self, done: Written) -> None:
        try:
            self.judge_write(done)
        except Violation as error:
            self.broken = self.broken or error

    def judge_write(self, done: Written) -> None:
        self.say(f"    [{self.clock.t:.2f}] write {done.action} {done.change.trade_id} {dict(done.change.fields)}")
        trade_id = done.change.trade_id
        entry = next(
            (e for e in reversed(self.store.journal.values())
             if e.trade_id == trade_id and e.after is not None and e.outcome == "intended"), None,
        )  # fmt: skip
        if entry is None:
            raise Violation(f"{trade_id} was written without a journaled intent")
        if set(entry.after or {}) != set(done.change.fields):
            raise Violation(f"{trade_id}: the intent does not say what was written")
        if done.action == "closed":
            self.judge_close(done, entry)
        if done.action == "adopted":
            self.judge_adopted(done)

    def judge_close(self, done: Written, entry: Any) -> None:
        trade_id, fields = done.change.trade_id, done.change.fields
        if not entry.reason or not entry.proof or not fields.get("closeReason") or not fields.get("closedAt"):
            raise Violation(f"{trade_id} was closed without a reason, a time or a proof")
        truth = self.app.truths.get(trade_id)
        if truth is None:
            return  # adopted by us: judged by the symbol
        held = self.world.held_of(trade_id)
        if held:
            why = fields["closeReason"]
            raise Violation(f"{trade_id} was closed ({why}) while the broker still holds {held} of it")

    def judge_adopted(self, done: Written) -> None:
        record = done.after
        symbol = str(record["ticker"])
        ours = [r for r in self.store.records.values() if r["ticker"] == symbol and not is_final(r)]
        adopted = sum((r["quantity"] for r in ours if r.get("source") == "broker_backfill"), record["quantity"])
        world = self.world
        # What happens between the last look and the write nobody can know: one moment of the run must bear it out.
        moments = [self.began, self.clock.t, *(f.t for f in world.fills if f.symbol == symbol and f.t > self.began)]
        explained = {t: sum((abs(world.held_of(str(r["id"]), t)) for r in ours), Decimal(0)) for t in moments}
        if all(explained[t] + adopted > abs(world.net(symbol, t)) for t in moments):
            raise Violation(f"adopted {record['quantity']} {symbol}, of which the ledger already explains a part")

    # ------------------------------------------------------------------ oracles at the end

    def calm(self) -> None:
        """Faults and events stop: now the runs must converge, and say nothing twice."""
        self.say("-- calm")
        self.busy = 0.0
        self.app.due(all_of_it=True)
        self.world.position_lag = self.world.order_lag = self.world.fill_lag = 0.0
        self.world.hidden.clear()
        self.clock.skew = 0.0
        self.land()
        self.clock.advance(400.0)
        first = self.quiet_run()
        self.clock.advance(200.0)
        second = self.quiet_run()
        if self.policy.confirmations > 1:
            self.clock.advance(200.0)
            second = self.quiet_run()
        self.clock.advance(1.0)
        before = len(self.store.written)
        last = self.quiet_run()
        if len(self.store.written) != before:
            raise Violation(f"a second run right after wrote again: {self.store.written[-1]}")
        if not self.gone_involved() and second.closed and first.error is None and self.policy.confirmations == 1:
            raise Violation("one run did not converge: the second closed more")
        self.judge_end(last)

    def gone_involved(self) -> bool:
        """Whether anything may take two looks: `filled_but_gone`, or a hand's work that must settle."""
        # A trade that was adopted or reopened explains a position from the next run on: a mismatch less.
        explains = any(w.action == "adopted" or self.reopens(w) for w in self.store.written)
        return explains or self.twin_alone() or any(t.wiped for t in self.app.truths.values())

    @staticmethod
    def reopens(written: Written) -> bool:
        """Whether a write made an open trade of a closed one."""
        return written.before is not None and is_final(written.before)

    def twin_alone(self) -> bool:
        """A duplicate is one of an older *open* trade; beside a closed one it is `filled_but_gone`."""
        records = (self.store.records.get(t.id, {}) for t in self.app.truths.values() if t.kind == "twin")
        return any(r.get("alpacaStatus") == "not_found_in_broker" for r in records)

    def quiet_run(self) -> Result:
        result = self.run({})
        if result is None:
            raise Violation("a quiet run did not end")
        if result.error not in (None, "mass_close_stopped"):
            raise Violation(f"a quiet run failed: {result.error} {result.detail}")
        return result

    def judge_end(self, last: Result) -> None:
        store = self.store
        if store.holder() is not None:
            raise Violation("the lock is still held")
        if store.spooled:
            raise Violation("the spool was not delivered")
        if [e for e in store.journal.values() if e.outcome == "intended" and e.after]:
            raise Violation("an intent is still open")
        self.judge_app()
        self.judge_totals()
        self.judge_closed(last)

    def judge_app(self) -> None:
        """No write of the app is lost."""
        records = self.store.records
        for trade_id, note in self.app.notes.items():
            if trade_id in self.app.deleted:
                if trade_id in records:
                    raise Violation(f"{trade_id}, deleted by the app, is back")
                continue
            if trade_id not in records:
                raise Violation(f"{trade_id} is lost")
            if records[trade_id]["appNote"] != note:
                raise Violation(f"{trade_id} lost an app write: {records[trade_id]['appNote']} instead of {note}")
        for trade_id, reason in self.app.closed.items():
            record = records.get(trade_id)
            if record is not None and (record["status"], record["closeReason"]) != ("CLOSED", reason):
                raise Violation(f"{trade_id}, closed by the app, was written over")

    def judge_totals(self) -> None:
        """Telemetry says what happened, each effect once."""
        written, summary = self.store.written, self.store.summary
        closed = sum(1 for w in written if w.action == "closed")
        synced = sum(1 for w in written if w.action == "synced")
        if int(summary.get("totalClosed", "0")) != closed:
            raise Violation(f"totalClosed {summary.get('totalClosed')}, really {closed}")
        # Whether a run that could not say so had written to a record is not to be known once the app deleted it.
        provable = sum(1 for w in written if w.action == "synced" and w.change.trade_id not in self.app.deleted)
        if not provable <= int(summary.get("totalSynced", "0")) <= synced:
            raise Violation(f"totalSynced {summary.get('totalSynced')}, really {synced}")
        ours = [w.change.trade_id for w in written if w.action == "closed"]
        reopened = [w.change.trade_id for w in written if self.reopens(w)]
        for trade_id in set(ours):
            if ours.count(trade_id) > 1 + reopened.count(trade_id):
                raise Violation(f"{trade_id} was closed {ours.count(trade_id)} times")

    def judge_closed(self, last: Result) -> None:
        """Every ghost that can be proven is closed."""
        rows = {row["id"]: row for row in last.results}
        for truth in self.app.truths.values():
            record = self.store.records.get(truth.id)
            if record is None or is_final(record) or truth.kind in ("garbage", "error"):
                continue
            why_not = self.excused(truth.id, last)
            if why_not is None:
                row = rows.get(truth.id, {})
                said = f"{row.get('verdict')} {row.get('reason')}"
                raise Violation(f"{truth.id} ({truth.kind}) is a ghost and still open: {said}")

    def excused(self, trade_id: str, last: Result) -> str | None:
        """Why an open trade may stay open; None for a ghost that should be closed."""
        app, world = self.app, self.world
        truth = app.truths[trade_id]
        if world.held_of(trade_id):
            return "held"
        entry = truth.entry
        if entry is not None and entry.status not in ("filled", "canceled", "expired", "rejected"):
            return "its entry works"
        neighbours = [t for t in app.truths.values() if t.symbol == truth.symbol and t.id != trade_id]
        if entry is not None and not entry.filled and self.unexplained(truth):
            return "never_filled: beside an unexplained position of that instrument and side it is held"
        if truth.symbol in app.orphaned:
            return "a hand traded in its symbol"
        if any(not t.certain for t in (truth, *neighbours)) and (truth.hand or any(t.hand for t in neighbours)):
            return "sizes nobody can prove, and sales by hand"
        if (truth.hand or truth.wiped) and world.net(truth.symbol):
            return "what is left may be anybody's"
        if truth.wiped and any(t.hand or t.wiped for t in neighbours):
            return "sales by hand beside a wiped trade"
        if any(t.kind == "error" or t.kind == "garbage" for t in neighbours):
            return "beside a record that cannot be judged"
        if (not truth.certain or truth.wiped) and (last.error == "mass_close_stopped" or world.net(truth.symbol)):
            return "the breaker, or an unexplained position"
        if any(t.wiped for t in neighbours) and truth.hand:
            return "beside a wiped trade"
        if (truth.wiped or not truth.certain) and self.app.orphaned:
            return "an orphan elsewhere may be its new name"
        if self.foreign_entry(truth.symbol, truth.opening):
            return "an entry order that no record names works"
        return None

    def unexplained(self, truth: Truth) -> bool:
        """Whether trades whose records are final, or gone, hold something of its instrument and side."""
        closed = (t for t in self.app.truths.values() if is_final(self.store.records.get(t.id, {"status": "CLOSED"})))
        return any(t.symbol == truth.symbol and t.side == truth.side and self.world.held_of(t.id) for t in closed)

    def foreign_entry(self, symbol: str, side: str) -> bool:
        named = {r.get("alpacaOrderId") for r in self.store.records.values() if not is_final(r)}
        working = (o for o in self.world.orders.values() if o.status not in FINAL)
        return any(o.symbol == symbol and o.side == side and o.id not in named for o in working)


def play(seed: int, say: Callable[[str], None] = lambda line: None) -> None:
    """Plays one seed; raises Violation with what went wrong."""
    Play(seed, say).perform()
