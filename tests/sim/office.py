"""One installation in the world: a bot with its ledger, the tool's runs on it, and what must hold at every effect."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ghostclean.app.auto_manage import ManageOptions, run_auto_manage
from ghostclean.app.observation import observe_for_orders
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import Lease, OrderRequest
from ghostclean.app.reconcile import run_reconcile
from ghostclean.core.broker import parse_client_id
from ghostclean.core.inputs import Policy
from ghostclean.core.ledger import order_ids, read_trade
from ghostclean.core.protection import ManagePolicy
from ghostclean.errors import AnswerLost, BrokerError, LedgerFailed, Refused, StateFailed
from ghostclean.result import ManageResult, Result
from tests.lots import CENT, ZERO

from .app import App, Truth
from .broker import SimBroker
from .clock import Clock, Crash, Hang, SimDeadline
from .stores import SimLedger, SimSpool, SimState, Store, Written, is_final
from .world import SYMBOLS, SimOrder, World

ERRORS: dict[str, Callable[[], Exception]] = {
    "broker": lambda: BrokerError("the network is down"),
    "order": lambda: AnswerLost("the network is down"),
    "ledger": lambda: LedgerFailed("the ledger is out of reach"),
    "state": lambda: StateFailed("the state is out of reach"),
    "spool": lambda: StateFailed("the disk is full"),
}
DEADLINE = 60.0
_INNER_DEADLINE = 3.0
_NAMES = ("alpacaOrderId", "stopOrderId", "takeProfitOrderId", "closeOrderId")


class Violation(AssertionError):
    """An oracle was broken."""


class Scene:
    """A seeded world with its offices; what happens in it between two effects is `tick`."""

    def __init__(self, seed: int, say: Callable[[str], None]) -> None:
        self.rng = random.Random(seed)
        self.say = say
        self.clock = Clock()
        self.world = World(self.clock, seed)
        for symbol in SYMBOLS:
            self.world.prices[symbol] = Decimal(self.rng.randrange(40, 200))
            self.world.sides[symbol] = self.rng.choice(("LONG", "LONG", "LONG", "SHORT"))
        self.late: list[Callable[[], Any]] = []
        self.offices: list[Office] = []

    def tick(self) -> None:
        """Time passes between two effects."""

    def land(self) -> None:
        """Calls that were given up on reach their server after all."""
        late, self.late = self.late, []
        for call in late:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - nobody hears the answer any more
                self.say(f"  late call refused: {error}")


@dataclass
class Process:
    """One run at work: its effects are counted, and the faults strike at their numbers."""

    office: Office
    run_id: str
    faults: dict[int, str]
    count: int = 0
    dead: bool = False

    def effect(self, part: str, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash
        self.count += 1
        self.office.scene.tick()
        fault = self.faults.get(self.count)
        if fault is None:
            return call()
        self.office.say(f"  {self.run_id}: {fault} at effect {self.count} ({part})")
        return self._strike(fault, part, call)

    def _strike(self, fault: str, part: str, call: Callable[[], Any]) -> Any:
        scene = self.office.scene
        if fault == "refused" and part == "order":
            raise Refused("not now", status=403)
        if fault.endswith("_after"):
            call()
        if fault.startswith("crash"):
            self.dead = True
            raise Crash
        if fault.startswith("error"):
            raise ERRORS[part]()
        if fault.startswith("hang"):
            if fault == "hang_late":
                scene.late.append(call)
            raise Hang
        if fault.startswith("pause"):
            scene.clock.advance(scene.rng.choice((20.0, 70.0, 400.0)))
        if fault.endswith("second"):
            self.office.reconcile({})
        if fault == "clock_back":
            scene.clock.skew = scene.rng.choice((-86400.0, -30.0, 45.0, 3600.0))
        return call()


class Office:
    """One bot, its store and the tool's schedule on it; keeps the first oracle that broke."""

    def __init__(
        self, scene: Scene, name: str, policy: Policy, *, one_text: bool = True, sharing: bool = False
    ) -> None:
        self.scene, self.name, self.policy, self.one_text = scene, name, policy, one_text
        self.clock: Clock = scene.clock
        self.world: World = scene.world
        self.say = scene.say
        self.store = Store(scene.clock, on_write=self._watch)
        self.app = App(name, scene.rng, scene.clock, scene.world, self.store, sharing=sharing)
        self.certain = False  # every order in its symbols is some record's, or carries a trade's name
        self.reused = False  # every run is given the same run id
        self.runs = self.depth = 0
        self.began = 0.0  # of the run that is at work
        self.run_of = self.store  # the store that it works on, and whether it may act on orphans
        self.may_act = False
        self.broken: Violation | None = None  # kept, because the run under test catches what it is thrown
        scene.offices.append(self)

    # ------------------------------------------------------------------ runs

    def reconcile(self, faults: dict[int, str], *, store: Store | None = None) -> Result | None:
        """One `reconcile`, on another store if that is what the settings say today."""
        process, before = self._process(faults), len(self.store.written)
        if process is None:
            return None
        options = Options(process.run_id, "sim", SimDeadline(self.clock, DEADLINE), policy=self.policy)
        parts = self._parts(process, store or self.store)
        result = self._carried_out(process, store or self.store, lambda: run_reconcile(parts, options))
        if result is None:
            return None
        self._tell(process.run_id, result)
        _judge_failure(result.detail)
        if not faults and self.depth == 0 and len(self.store.written) - before < result.closed and store is None:
            raise Violation(f"{process.run_id} says it closed {result.closed}, the ledger shows fewer")
        return result

    def manage(self, faults: dict[int, str], manage: ManagePolicy) -> ManageResult | None:
        """One `auto-manage`, its short reconcile first."""
        process = self._process(faults)
        if process is None:
            return None
        parts, deadline, run_id = self._parts(process, self.store), SimDeadline(self.clock, DEADLINE), process.run_id
        options = ManageOptions(run_id, "sim", deadline, manage, self.policy.grace, lock_wait=1.0)

        def reconcile_first(lease: Lease | None) -> Result:
            short = SimDeadline(self.clock, min(_INNER_DEADLINE, deadline.left()))
            inner = Options(f"{run_id}-reconcile", "auto-manage", short, self.policy)
            return run_reconcile(parts, inner, lease=lease)

        def work() -> ManageResult:
            return run_auto_manage(
                parts, options, reconcile_first=reconcile_first,
                observe=lambda: observe_for_orders(parts, deadline, self.policy),
            )  # fmt: skip

        result = self._carried_out(process, self.store, work)
        if result is not None:
            self.say(f"{run_id}: {result.outcome} {result.reason or ''} {result.detail or ''}")
            for note in result.notes:
                self.say(f"    {note}")
            _judge_failure(result.detail)
        return result

    def _process(self, faults: dict[int, str]) -> Process | None:
        if self.depth > 1:
            return None
        self.runs += 1
        return Process(self, "always" if self.reused else f"{self.name}r{self.runs}", faults)

    def _parts(self, process: Process, store: Store) -> Parts:
        return Parts(
            SimLedger(store, process.effect, process.run_id, one_text=self.one_text),
            SimState(store, process.effect),
            SimSpool(store, process.effect),
            SimBroker(self.world, process.effect, self),
            wall=self.clock.wall,
            pause=self.clock.advance,
        )

    def _carried_out(self, process: Process, store: Store, work: Callable[[], Any]) -> Any:
        around = self.began, self.run_of, self.may_act
        self.began, self.run_of = self.clock.t, store
        self.may_act = store.is_there and not store.foreign and store.pin is not None
        unpinned = store.pin is None
        self.depth += 1
        try:
            result = work()
        except Crash:
            self.say(f"{process.run_id}: killed at effect {process.count}")
            result = None
        finally:
            self.depth -= 1
            took = self.clock.t - self.began
            self.began, self.run_of, self.may_act = around
        if self.broken is not None:
            raise self.broken
        if not process.faults and took > DEADLINE + 5:
            raise Violation("a run without faults took longer than its deadline")
        if unpinned and store.pin is not None:
            self._judge_pin(store)
        return result

    def _tell(self, run_id: str, result: Result) -> None:
        self.say(f"{run_id}: error={result.error} closed={result.closed} synced={result.synced} {result.detail or ''}")
        for row in result.results:
            self.say(f"    {row['id']} {row['ticker']} {row['verdict']} {row['action']}: {row['reason']}")
            if result.error is None and row["verdict"] in ("live", "reduced") and row["id"]:
                self.run_of.explained.add(str(row["id"]))

    # ------------------------------------------------------------------ what nobody can tell

    def mixed(self, symbol: str) -> bool:
        """Whether somebody else than this ledger's trades trades in a symbol."""
        offices = self.scene.offices
        traded = (o.app.in_symbol(symbol) for o in offices if o is not self)
        return any(symbol in o.app.orphaned for o in offices) or any(traded)

    def vague(self, symbol: str) -> bool:
        """Whether a purchase or sale in a symbol can't be told to be this or that trade's."""
        trades = self.app.in_symbol(symbol)
        if self.certain:
            return False
        unnamed = any(t.hand or t.grown or t.wiped or not t.certain for t in trades)
        return self.mixed(symbol) or (unnamed and len(trades) > 1) or any(t.unwritten for t in trades)

    # ------------------------------------------------------------------ oracles at every write of the ledger

    def _watch(self, done: Written) -> None:
        try:
            self._judge_write(done)
        except Violation as error:
            self.broken = self.broken or error

    def _judge_write(self, done: Written) -> None:
        trade_id, fields = done.change.trade_id, done.change.fields
        self.say(f"    [{self.clock.t:.2f}] write {done.action} {trade_id} {dict(fields)}")
        unjournaled = {"lastPrice", "unrealizedPnL", "unrealizedR", "autoManage", "updatedAt"}
        entries = reversed(self.run_of.journal.values())
        intents = (e for e in entries if e.trade_id == trade_id and e.after is not None and e.outcome == "intended")
        entry = next(intents, None)
        if entry is None and not unjournaled.issuperset(fields):
            raise Violation(f"{trade_id} was written without a journaled intent")
        if entry is not None and set(entry.after or {}) != set(fields) and not unjournaled.issuperset(fields):
            raise Violation(f"{trade_id}: the intent does not say what was written")
        if self.run_of.foreign and done.action in ("closed", "adopted"):
            raise Violation(f"{trade_id} was {done.action} in the ledger of another account")
        if done.action == "closed":
            self._judge_close(done, entry)
        if done.action == "adopted":
            self._judge_adopted(done)
        truth = self.app.truths.get(trade_id)
        if truth is not None and truth.certain:
            self._judge_names(truth, done)
            self._judge_money(truth, done)
            self._judge_fills(truth, done)
        if "quantity" in fields and done.before is not None:
            self._judge_size(done)

    def _judge_close(self, done: Written, entry: Any) -> None:
        trade_id, fields = done.change.trade_id, done.change.fields
        if not entry.reason or not entry.proof or not fields.get("closeReason") or not fields.get("closedAt"):
            raise Violation(f"{trade_id} was closed without a reason, a time or a proof")
        truth = self.app.truths.get(trade_id)
        if truth is None or truth.unwritten:
            return  # adopted by us: judged by the symbol; bought more and not said so: nobody can know
        if held := self.app.held(truth):
            why = fields["closeReason"]
            raise Violation(f"{trade_id} was closed ({why}) while the broker still holds {held} of it")

    def _judge_adopted(self, done: Written) -> None:
        """What is adopted is nobody's: not of a trade in the ledger, nor of one that has left it."""
        record = done.after
        symbol = str(record["ticker"])
        if not self.may_act:
            raise Violation(f"{symbol} was adopted, though the ledger was never seen or no account is pinned")
        ours = [r for r in self.store.records.values() if r["ticker"] == symbol and not is_final(r)]
        adopted = sum((r["quantity"] for r in ours if r.get("source") == "broker_backfill"), record["quantity"])
        if not self._is_free(symbol, adopted):
            raise Violation(f"adopted {record['quantity']} {symbol}, of which a trade explains a part")

    def _is_free(self, symbol: str, qty: Decimal) -> bool:
        """Whether so much of a position is no known trade's; one moment of the run must bear it out."""
        guarded = [t for t in self.app.in_symbol(symbol) if self._guards(t)]
        guarded += [t for o in self.scene.offices if o is not self for t in o.app.in_symbol(symbol)]
        world, moments = self.world, self.world.moments(symbol, self.began)
        explained = {t: sum((abs(world.held_of(g.owner, t)) for g in guarded), ZERO) for t in moments}
        return any(explained[t] + qty <= abs(world.net(symbol, t)) for t in moments)

    def _guards(self, truth: Truth) -> bool:
        """Whether a trade explains what it holds: by its record, or because an earlier run knew it."""
        record = self.run_of.records.get(truth.id)
        return truth.id in self.run_of.explained if record is None else not is_final(record)

    def _judge_names(self, truth: Truth, done: Written) -> None:
        """No record names an order that is another's."""
        if truth.hand or truth.wiped:
            return
        for name in _NAMES:
            order = self.world.orders.get(done.change.fields.get(name) or "")
            sharing = order is not None and truth.entry is not None and order.id == truth.entry.id
            if order is not None and order.owner != truth.owner and not sharing:
                raise Violation(f"{truth.id} names order {order.id} as {name}, which is {order.owner or 'a hand'}'s")

    def _judge_money(self, truth: Truth, done: Written) -> None:
        """Written P&L is the lots' to the cent, or null."""
        pnl = done.change.fields.get("realizedPnL")
        if pnl is None or self.vague(truth.symbol) or done.action == "reopened":
            return
        booked = {self.world.lots_of(truth.owner, t).booked for t in self.world.moments(truth.symbol, self.began)}
        if all(abs(Decimal(str(pnl)) - true) > CENT for true in booked):
            raise Violation(f"{truth.id}: P&L {pnl} written, {max(booked)} is true")

    def _judge_fills(self, truth: Truth, done: Written) -> None:
        """No share has two entries: none is said to have filled more than it entered."""
        filled = done.change.fields.get("filledQty")
        if filled is not None and filled > (entered := self.world.lots_of(truth.owner, self.clock.t).entered):
            raise Violation(f"{truth.id}: {filled} written as filled, it entered {entered}")

    def _judge_size(self, done: Written) -> None:
        """No size is set below what the trades hold together."""
        symbol, side = str(done.after["ticker"]), done.after["side"]
        rows = [r for r in {**self.store.records, done.change.trade_id: done.after}.values() if not is_final(r)]
        rows = [r for r in rows if (r["ticker"], r["side"]) == (symbol, side)]
        trades = [t for r in rows if (t := self.app.truths.get(str(r["id"]))) is not None]
        if done.after["quantity"] <= 0:
            raise Violation(f"{done.change.trade_id} stays open with a size of {done.after['quantity']}")
        if len(trades) < len(rows) or any(t.unwritten or t.kind == "garbage" for t in trades):
            return
        sizes = sum((r["quantity"] for r in rows), ZERO)
        moments = self.world.moments(symbol, self.began)
        if all(sizes < sum((self.app.held(t, at) for t in trades), ZERO) for at in moments):
            raise Violation(f"{done.change.trade_id}: {sizes} {symbol} left in the ledger, the trades hold more")

    def _judge_pin(self, store: Store) -> None:
        """No ledger is pinned to an account that knows none of its orders."""
        named = {i for record in store.records.values() for i in order_ids(record)}
        if named and named.isdisjoint(self.world.orders):
            raise Violation("the account was pinned to a ledger of which it knows no order")

    # ------------------------------------------------------------------ oracles at every order

    def owner_of(self, client: str) -> str | None:
        """The trade whose name an order carries."""
        own = parse_client_id(client)
        for trade_id, record in self.store.records.items():
            if own is not None and own.trade in read_trade(record).tags and trade_id in self.app.truths:
                return self.app.truths[trade_id].owner
        return None

    def trade(self, order: SimOrder) -> None:
        """A market order trades at once, in two parts, or a moment later."""
        world, rng = self.world, self.scene.rng
        if rng.random() < 0.8:
            world.fill(order, order.qty)
            return
        if order.qty > 1 and rng.random() < 0.5:
            world.fill(order, Decimal(1))
        due = self.clock.t + rng.choice((1.0, 8.0))
        world.later.append((due, lambda: world.fill(order, order.left) if order.works else None))

    def judge_submit(self, request: OrderRequest) -> None:
        try:
            self._judge_submit(request)
        except Violation as error:
            self.broken = self.broken or error

    def _judge_submit(self, request: OrderRequest) -> None:
        world, symbol = self.world, request.symbol
        self.say(f"    [{self.clock.t:.2f}] sends {request.side} {request.qty} {symbol} {request.type}"
                 f" {request.stop_price or request.limit_price or ''} {request.client_id}")  # fmt: skip
        if request.type == "market" and not world.is_open:
            raise Violation(f"a close of {symbol} was sent while its market was closed")
        owner = self.owner_of(request.client_id)
        if owner is None:
            if not self.may_act:
                raise Violation(f"{symbol} was sold, though the ledger was never seen or no account is pinned")
            if not self._is_free(symbol, request.qty):
                raise Violation(f"{request.qty} {symbol} were sold, of which a trade explains a part")
            return
        held = max(abs(world.held_of(owner, t)) for t in world.moments(symbol, self.began))
        if request.qty > held or request.side == ("buy" if world.sides[symbol] == "LONG" else "sell"):
            raise Violation(f"{request.side} {request.qty} {symbol} for {owner}, which holds {held}")

    def judge_touch(self, order: SimOrder, what: str, stop: Decimal | None = None) -> None:
        """Nothing but what is proven own is replaced or cancelled, and no stop is loosened."""
        self.say(f"    [{self.clock.t:.2f}] {what} {order.id} of {order.owner} {stop or ''}")
        mine = {t.owner for t in self.app.truths.values()}
        orphans = {None} if self.policy.orphans == "flatten" else set()
        if order.owner not in mine | orphans:
            self.broken = self.broken or Violation(f"{what} of order {order.id}, which is {order.owner or 'a hand'}'s")
        looser = stop is not None and order.stop is not None and (stop < order.stop) == (order.side == "sell")
        if looser and stop != order.stop:
            self.broken = self.broken or Violation(f"stop {order.stop} of {order.owner} was loosened to {stop}")


def _judge_failure(detail: str | None) -> None:
    if detail is not None and "an unexpected" in detail:
        raise Violation(f"unexpected failure: {detail}")
