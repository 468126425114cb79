"""One seed: a world, faulty runs and bad days in it, then quiet ones, and what must be true throughout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import chain
from typing import Any

from ghostclean.core.inputs import Policy
from ghostclean.result import Result
from tests.lots import CENT, ZERO

from .app import Truth
from .office import Office
from .oracles import said_of
from .scene import Scene, Violation
from .stores import Store, is_final
from .world import FINAL, SYMBOLS

KINDS = (
    "bracket", "bracket", "exited", "exited", "replaced", "filled", "handsold", "gone", "stopped", "working", "partial",
    "never", "unknown", "no_id", "closed", "error", "garbage", "dup", "grown",
)  # fmt: skip
SHARED_KINDS = ("shared", "shared", "child")
FAULTS = (
    "crash_before", "crash_before", "crash_after", "crash_after", "error_before", "error_after", "hang_before",
    "hang_after", "hang_late", "pause", "pause_and_second", "second", "clock_back",
)  # fmt: skip
BAD_DAYS = ("typo", "other", "emptied", "flushed", "lost")


class Play(Scene):
    """A seeded world and what happens in it."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda line: None, *, sharing: bool = False) -> None:
        super().__init__(seed, say)
        rng = self.rng
        self.busy = 0.0
        self.kinds = (*KINDS, *SHARED_KINDS) if sharing else KINDS
        names = ("a", "b") if rng.random() < 0.25 else ("a",)
        # What two ledgers that share nothing leave over for each other is an orphan: it is only reported.
        self.alone = len(names) > 1 and rng.random() < 0.3
        modes = ("report",) if self.alone else ("report", "report", "adopt", "flatten")
        self.offices: list[Office] = []
        for name in names:
            policy = Policy(orphans=rng.choice(modes), max_unproven_closes=rng.choice((3, 50)),
                            confirmations=rng.choice((1, 1, 1, 2)))  # fmt: skip
            office = Office(self, name, policy, one_text=rng.random() < 0.6, sharing=sharing, alone=self.alone)
            office.reused = rng.random() < 0.1
            self.offices.append(office)

    # ------------------------------------------------------------------ acts

    def perform(self) -> None:
        rng, world = self.rng, self.world
        for office in self.offices:
            for _ in range(rng.randrange(1, 7)):
                office.app.setup(rng.choice(self.kinds))
        self.introduce()
        self.busy = rng.choice((0.0, 0.05, 0.2))
        world.position_lag = rng.choice((0.0, 0.0, 1.0, 5.0, 40.0))
        world.order_lag = rng.choice((0.0, 0.0, 0.5, 2.0))
        world.fill_lag = rng.choice((0.0, 0.0, 3.0, 30.0))
        world.account_lags = rng.random() < 0.7
        for _ in range(rng.randrange(1, 4)):
            self.faulty_run(rng.choice(self.offices))
            if rng.random() < 0.5:
                self.land()
            if rng.random() < 0.12:
                self.bad_day(rng.choice(self.offices))
        self.calm()

    def introduce(self) -> None:
        """Each ledger of the state runs once: before its first word nobody can know of what it holds."""
        if len(self.offices) > 1 and not self.alone:
            for office in self.offices:
                office.reconcile({})

    def faulty_run(self, office: Office, store: Store | None = None) -> None:
        rng = self.rng
        strikes = rng.choice((0, 1, 1, 2, 3))
        office.reconcile({rng.randrange(1, 34): rng.choice(FAULTS) for _ in range(strikes)}, store=store)
        self.clock.advance(rng.choice((0.0, 3.0, 80.0, 130.0, 400.0)))

    def tick(self) -> None:
        rng = self.rng
        self.clock.advance(rng.choice((0.01, 0.05, 0.2)))
        self.world.settle()
        for app in self.apps:
            app.due()
        if self.busy and rng.random() < self.busy:
            symbol = rng.choice(SYMBOLS)
            self.world.prices[symbol] += Decimal(rng.randrange(-300, 301)) / 100
            rng.choice(self.apps).move()

    # ------------------------------------------------------------------ bad days of the store

    def bad_day(self, office: Office) -> None:
        """The store is another one, or empty, for a run or two; what comes back may lack a record."""
        rng, store, day = self.rng, office.store, self.rng.choice(BAD_DAYS)
        self.say(f"-- a bad day: {day}")
        held = [i for i, t in office.app.truths.items() if office.app.held(t) and i in store.records]
        if day == "lost":
            if held:
                office.app.lose(rng.choice(held))
            return
        elsewhere, backup = None, dict(store.records)
        if day == "typo":
            elsewhere = Store(self.clock, "typo", store.words, exists=False, on_write=store.on_write)
        elif day == "other":
            elsewhere = self.strangers_ledger(store)
        elif day == "emptied":
            store.records, office.app.emptied = {}, True
        else:
            store.flush()
        for _ in range(rng.choice((1, 2))):
            self.faulty_run(office, elsewhere)
        if day in ("emptied", "flushed"):
            store.records = {i: r for i, r in backup.items() if i not in office.app.deleted} | store.records
            if held and rng.random() < 0.5:
                office.app.lose(rng.choice(held))
            if len(self.offices) > 1:
                office.reconcile({})  # before it has spoken again nobody can know of what is back

    def strangers_ledger(self, store: Store) -> Store:
        """Trades of another account in symbols that this one holds too."""
        other = Store(self.clock, "stranger", store.words, foreign=True, on_write=store.on_write)
        for number in range(self.rng.randrange(1, 6)):
            other.records[f"s{number}"] = {
                "id": f"s{number}", "ticker": self.rng.choice(SYMBOLS), "side": "LONG", "status": "OPEN",
                "quantity": Decimal(5), "alpacaOrderId": self.world.uuid(), "openedAt": "2026-11-10T15:00:00.000Z",
            }  # fmt: skip
        return other

    # ------------------------------------------------------------------ oracles at the end

    def calm(self) -> None:
        """Faults and events stop: now the runs must converge, and say nothing twice."""
        self.say("-- calm")
        self.busy = 0.0
        self.world.position_lag = self.world.order_lag = self.world.fill_lag = 0.0
        self.world.hidden.clear()
        self.clock.skew = 0.0
        for app in self.apps:
            app.due(all_of_it=True)
        self.land()
        for office in self.offices:
            self.clock.advance(400.0)
            End(office).judge()
        if len(self.offices) > 1:
            self.judge_sums()

    def judge_sums(self) -> None:
        """Both books and the remainder that each names sum to the account; of ledgers apart, each with its own.

        But in symbols where somebody must look, and is told: a trade is held, or not in its ledger any more.
        """
        before = {symbol: self.world.net(symbol) for symbol in SYMBOLS}
        told = [End(office).quiet_run().results for office in self.offices]
        for symbol in (s for s in SYMBOLS if self.world.net(s) == before[s]):
            rows = [[row for row in results if row["ticker"] == symbol] for results in told]
            standing = all(_stands(row) for row in chain(*rows)) and all(o.store.pin for o in self.offices)
            if not standing or any(o.app.unlisted(symbol, own) for o, own in zip(self.offices, rows, strict=True)):
                continue
            books = [sum((said_of(row) for row in own if row["id"]), ZERO) for own in rows]
            for own, book in zip(rows, books, strict=True):
                rest = sum((said_of(row) for row in own if row["id"] is None), ZERO)
                total = rest + (book if self.alone else sum(books, ZERO))
                if total != abs(self.world.net(symbol)):
                    raise Violation(f"{total} {symbol} are accounted for, the account has {self.world.net(symbol)}")


def _stands(row: Mapping[str, Any]) -> bool:
    return row["verdict"] == "live" or (row["verdict"], row["action"]) == ("orphan", "kept")


class End:
    """Quiet runs of one office, and what must be true after them."""

    def __init__(self, office: Office) -> None:
        self.office, self.app, self.world = office, office.app, office.world

    @property
    def store(self) -> Store:
        return self.office.store

    def judge(self) -> None:
        clock, written = self.office.clock, lambda: len(self.store.written)
        first = self.quiet_run()
        for _ in range(2 if self.office.policy.confirmations > 1 else 1):
            clock.advance(200.0)
            before, second = written(), self.quiet_run()
        if written() > before:
            clock.advance(1.0)
            before, last = written(), self.quiet_run()
            if written() > before:
                raise Violation(f"a second run right after wrote again: {self.store.written[-1]}")
        else:
            last = second
        once = self.office.policy.confirmations == 1
        if once and not self.gone_involved() and second.closed and first.error is None:
            raise Violation("one run did not converge: the second closed more")
        self.judge_stores()
        self.judge_app()
        self.judge_totals()
        self.judge_ghosts(last)
        for symbol in SYMBOLS:
            self.judge_sum(symbol)
        for symbol in self.office.judge.taken:
            self.judge_stop(symbol)

    def quiet_run(self) -> Result:
        result = self.office.reconcile({})
        if result is None:
            raise Violation("a quiet run did not end")
        if result.error not in (None, "mass_close_stopped"):
            raise Violation(f"a quiet run failed: {result.error} {result.detail}")
        return result

    def gone_involved(self) -> bool:
        """Whether anything may take two looks: `filled_but_gone`, a hand's work that must settle, a word grown old."""
        # A trade that was adopted or reopened, or an orphan that was sold, is a mismatch less from the next run on.
        explains = len(self.store.words) > 1 or any(w.action in ("adopted", "reopened") for w in self.store.written)
        explains |= any("-orphan-" in order.client for order in self.world.orders.values())
        wiped = any(t.wiped for app in self.office.scene.apps for t in app.truths.values())
        return explains or self.twin_alone() or wiped

    def twin_alone(self) -> bool:
        """A duplicate is one of an older *open* trade; beside a closed one it is `filled_but_gone`."""
        records = (self.store.records.get(t.id, {}) for t in self.app.truths.values() if t.kind == "twin")
        return any(r.get("alpacaStatus") == "not_found_in_broker" for r in records)

    def judge_stores(self) -> None:
        store = self.store
        if store.holder() is not None:
            raise Violation("the lock is still held")
        if store.spooled:
            raise Violation("the spool was not delivered")
        if [e for e in store.journal.values() if e.outcome == "intended" and e.after]:
            raise Violation("an intent is still open")

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
        written, summary = self.store.written, self.store.summaries.get("reconcile", {})
        closed = sum(1 for w in written if w.action == "closed")
        synced = [w.change.trade_id for w in written if w.action in ("synced", "reopened")]
        # Whether a run that could not say so had written to a record is not to be known once the app took it away.
        said, known = int(summary.get("totalClosed", "0")), not self.app.emptied
        if said > closed or (said < closed and known):
            raise Violation(f"totalClosed {said}, really {closed}")
        provable = sum(1 for trade_id in synced if trade_id not in self.app.deleted and known)
        if not provable <= int(summary.get("totalSynced", "0")) <= len(synced):
            raise Violation(f"totalSynced {summary.get('totalSynced')}, really {len(synced)}")
        ours = [w.change.trade_id for w in written if w.action == "closed"]
        reopened = [w.change.trade_id for w in written if w.action == "reopened"]
        for trade_id in set(ours):
            if ours.count(trade_id) > 1 + reopened.count(trade_id):
                raise Violation(f"{trade_id} was closed {ours.count(trade_id)} times")

    def judge_ghosts(self, last: Result) -> None:
        """Every ghost that can be proven is closed."""
        rows = {row["id"]: row for row in last.results}
        for truth in self.app.truths.values():
            record = self.store.records.get(truth.id)
            if record is None or is_final(record) or truth.kind in ("garbage", "error"):
                continue
            why_not = self.excused(truth, last)
            if why_not is None:
                row = rows.get(truth.id, {})
                said = f"{row.get('verdict')} {row.get('reason')}"
                raise Violation(f"{truth.id} ({truth.kind}) is a ghost and still open: {said}")

    def excused(self, truth: Truth, last: Result) -> str | None:
        """Why an open trade may stay open; None for a ghost that should be closed."""
        app, world, mixed = self.app, self.world, self.office.judge.mixed
        if app.held(truth):
            return "held"
        entry = truth.entry
        if entry is not None and entry.status not in ("filled", "canceled", "expired", "rejected"):
            return "its entry works"
        trades = app.in_symbol(truth.symbol)
        neighbours = [t for t in trades if t is not truth]
        if entry is not None and not entry.filled and self.unexplained(truth):
            return "never_filled: beside an unexplained position of that instrument and side it is held"
        if mixed(truth.symbol):
            return "a hand, or another ledger, traded in its symbol"
        if any(not t.certain for t in trades) and any(t.hand or t.grown for t in trades):
            return "sizes nobody can prove, and sales or purchases by orders without a name"
        if truth.unwritten:
            return "the app has not said what it bought"
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
        if (truth.wiped or not truth.certain) and any(map(mixed, SYMBOLS)):
            return "an orphan elsewhere may be its new name"
        if self.foreign_entry(truth.symbol, truth.opening):
            return "an entry order that no record names works"
        return None

    def unexplained(self, truth: Truth) -> bool:
        """Whether trades whose records are final, or gone, hold something of its instrument and side."""
        closed = (t for t in self.app.truths.values() if is_final(self.store.records.get(t.id, {"status": "CLOSED"})))
        return any(t.symbol == truth.symbol and t.side == truth.side and self.app.held(t) for t in closed)

    def foreign_entry(self, symbol: str, side: str) -> bool:
        named = {r.get("alpacaOrderId") for r in self.store.records.values() if not is_final(r)}
        working = (o for o in self.world.orders.values() if o.status not in FINAL)
        return any(o.symbol == symbol and o.side == side and o.id not in named for o in working)

    def judge_stop(self, symbol: str) -> None:
        """A stop that was taken away for a sale is back, or what it protected is sold."""
        world = self.world
        if (world.net(symbol) > 0) is not (world.sides[symbol] == "LONG"):
            return  # it was sold, and the app has sold it once more
        trades = sum((self.app.held(t) for t in self.app.in_symbol(symbol)), Decimal(0))
        stops = [o for o in world.lately() if o.works and o.symbol == symbol and o.type == "stop" and o.owner is None]
        if abs(world.net(symbol)) > trades and not stops:
            raise Violation(f"{abs(world.net(symbol)) - trades} {symbol} stand without the stop that was taken away")

    def judge_sum(self, symbol: str) -> None:
        """Whoever's a sale was: the P&L of a flat symbol's trades, where all are known, is its money."""
        records = [r for t in self.app.in_symbol(symbol) if (r := self.store.records.get(t.id)) is not None]
        whole = len(records) == len(self.app.in_symbol(symbol)) and not self.office.judge.mixed(symbol)
        ours = all(r["id"] not in self.app.closed and not self.app.truths[r["id"]].unwritten for r in records)
        known = ours and all(is_final(r) and r.get("realizedPnL") is not None for r in records)
        if not whole or not known or self.world.net(symbol):
            return
        said = sum((Decimal(str(r["realizedPnL"])) for r in records), Decimal(0))
        if abs(said - self.world.flow(symbol)) > CENT * len(records):
            raise Violation(f"P&L of {symbol} sums to {said}, its trades brought {self.world.flow(symbol)}")


def play(seed: int, say: Callable[[str], None] = lambda line: None, *, sharing: bool = False) -> None:
    """Plays one seed; raises Violation with what went wrong."""
    Play(seed, say, sharing=sharing).perform()
