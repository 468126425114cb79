"""Days at one account: two bots under auto-manage, in one state or with nothing in common, and an owner who trades.

Their trades have the same ids, often the same symbols. Whatever is filled, killed or refused: no
run touches what is not proven its own, what the books say sums to the account with the owner's
rest, and no trade is left without a stop in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from ghostclean.core.inputs import Policy
from ghostclean.core.protection import ManagePolicy
from ghostclean.result import ManageOutcome, ManageResult
from tests.lots import ZERO

from .office import Office
from .oracles import said_of
from .scene import Scene, Violation
from .stores import is_final
from .world import SYMBOLS, SimOrder

TICKS = 200
TICK = 300.0
FAULTS = (
    "crash_before", "crash_after", "error_before", "error_after", "hang_before", "hang_after", "hang_late", "refused",
    "refused", "pause",
)  # fmt: skip
_LAST_EFFECT = 120
_OPEN_TRADES = 4
_AFTER_HOURS = 1200.0  # of the night that is played; the rest is slept through
_QUIET_TICKS = 4


class Desk(Scene):
    """The account, its two bots, its owner."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda line: None, *, sharing: bool = False) -> None:
        super().__init__(seed, say)
        rng = self.rng
        self.calm = False
        self.rest: list[SimOrder] = []  # the owner's own exits
        self.offices: list[Office] = []
        self.rules: dict[str, ManagePolicy] = {}
        self.alone = rng.random() < 0.5
        for name in ("a", "b"):
            office = Office(self, name, Policy(), one_text=rng.random() < 0.6, sharing=sharing, alone=self.alone)
            office.judge.certain = True
            self.offices.append(office)
            self.rules[name] = ManagePolicy(
                enabled=True, eod_flatten=rng.random() < 0.5, trail_enabled=rng.random() < 0.5,
                cut_loss_enabled=rng.random() < 0.5,
            )  # fmt: skip

    def perform(self, ticks: int) -> None:
        for number in range(ticks):
            self.calm = number >= ticks - _QUIET_TICKS
            self.sleep()
            self.land()
            if not self.calm:
                self.happen()
            for office in self.rng.sample(self.offices, 2):
                self.run(office)
            self.clock.advance(TICK - self.clock.t % TICK)
            self.world.settle()

    def sleep(self) -> None:
        opens, _ = self.world.session()
        night = self.world.night()
        if night > _AFTER_HOURS or (self.calm and night):
            self.clock.advance(opens + TICK - self.clock.t)
        self.say(f"-- {self.clock.now():%a %H:%M}{'' if self.world.is_open else ' (closed)'}")

    def tick(self) -> None:
        self.clock.advance(self.rng.choice((0.01, 0.05, 0.2)))
        self.world.settle()
        if not self.calm and self.world.is_open and self.rng.random() < 0.01:
            self.move_price(self.rng.choice(SYMBOLS), 100)

    # ------------------------------------------------------------------ what happens between the runs

    def happen(self) -> None:
        rng = self.rng
        for symbol in SYMBOLS:
            if self.world.is_open and rng.random() < 0.6:
                self.move_price(symbol, rng.choice((50, 100, 400)))
        if not self.world.is_open:
            return
        for office in self.offices:
            self.trade(office)
        if rng.random() < 0.5:
            self.be_owner(rng.choice(SYMBOLS))

    def move_price(self, symbol: str, most: int) -> None:
        """By so many hundredths of a percent at most."""
        world = self.world
        price = world.prices[symbol] * (10000 + self.rng.randrange(-most, most + 1)) / 10000
        world.quote(symbol, max(Decimal(5), price.quantize(Decimal("0.01"))))

    def trade(self, office: Office) -> None:
        """One thing that a bot does by itself."""
        app, rng, what = office.app, self.rng, self.rng.random()
        held = [t for t in app.truths.values() if app.held(t)]
        if what < 0.25 and len(held) < _OPEN_TRADES:
            truth = app.new()
            self.world.fill(app.enter(truth, self.clock.t, bracket=rng.random() < 0.4), truth.qty)
            app.insert(truth)
        elif what < 0.32 and held:
            app.close_trade(rng.choice(held))
        elif what < 0.45 and held:
            app.edit(rng.choice(held).id)
        elif what < 0.50 and held:
            truth = rng.choice(held)
            if not app.working(truth) and self.world.available(truth.symbol) >= app.held(truth):
                app.write(truth.id, stopOrderId=app.stop(truth).id)

    def owners(self, symbol: str) -> Decimal:
        """What the owner of the account holds for himself."""
        trades = (t for app in self.apps for t in app.in_symbol(symbol))
        return abs(self.world.net(symbol)) - sum((abs(self.world.held_of(t.owner)) for t in trades), ZERO)

    def be_owner(self, symbol: str) -> None:
        """The owner buys, sells, protects his own, and changes his mind about it."""
        rng, world = self.rng, self.world
        opening, closing = ("buy", "sell") if world.sides[symbol] == "LONG" else ("sell", "buy")
        mine = [o for o in self.rest if o.works and o.symbol == symbol]
        free = min(self.owners(symbol) - sum((o.left for o in mine), ZERO), world.available(symbol))
        what = rng.random()
        if what < 0.3:
            qty = Decimal(rng.randrange(1, 20))
            world.fill(world.submit(symbol, opening, qty, None), qty)
        elif what < 0.7 and free > 0:
            away = world.prices[symbol] / 20 * (-1 if closing == "sell" else 1)
            kind, price = rng.choice((("stop", away), ("limit", -away)))
            price = (world.prices[symbol] + price).quantize(Decimal("0.01"))
            self.rest.append(world.submit(symbol, closing, free, None, type=kind, **{kind: price}))
        elif what < 0.8 and free > 0:
            world.fill(world.submit(symbol, closing, free, None), free)
        elif mine and what < 0.9:
            self.rest.append(world.replace(rng.choice(mine)))
        elif mine:
            world.cancel(rng.choice(mine))

    # ------------------------------------------------------------------ a run and its oracles

    def run(self, office: Office) -> None:
        rng, faults = self.rng, {}
        if not self.calm and rng.random() < 0.25:
            faults = {rng.randrange(1, _LAST_EFFECT): rng.choice(FAULTS) for _ in range(rng.choice((1, 1, 2)))}
        began = self.clock.t
        result = office.manage(faults, self.rules[office.name])
        if result is not None:
            self.judge_sums(office, result, began)
        if result is not None and not faults:
            self.judge_protection(office, result)
            self.judge_evening(office, result, began)

    def judge_sums(self, office: Office, result: ManageResult, began: float) -> None:
        """What the book holds, and what it says is left over, is what it is: both books and the rest sum up."""
        app, world = office.app, self.world
        if not result.reconcile.get("ok"):
            return  # not all of it was looked up
        for row in result.reconcile["results"]:
            if row["verdict"] == "live" and row["action"] != "skipped":
                said = office.store.records[row["id"]]["quantity"]
                true = {app.held(app.truths[row["id"]], t) for t in world.moments(row["ticker"], began)}
                if said not in true:
                    raise Violation(f"{office.name} says {said} {row['ticker']} ({row['id']}), true is {true}")
            elif row["verdict"] == "ambiguous":  # nobody trades without a name here
                raise Violation(f"{office.name} can't tell whose {row['ticker']} is: {row['reason']}")
            elif row["verdict"] == "orphan":
                self.judge_rest(office, row["ticker"], said_of(row), began)

    def judge_rest(self, office: Office, symbol: str, said: Decimal, began: float) -> None:
        """What is left over is what it is, but for what the other's word explains, as old as two ticks."""
        app, world, others = office.app, self.world, [o for o in self.apps if o is not office.app and not self.alone]
        rest = [abs(world.net(symbol, t)) - app.held_in(symbol, t) for t in world.moments(symbol, began)]
        lately = world.moments(symbol, began - 2 * TICK)
        theirs = max((o.held_in(symbol, t) for o in others for t in lately), default=ZERO)
        if not any(left - theirs <= said <= left for left in rest):
            raise Violation(f"{office.name} says {said} {symbol} are left, true is {rest} with {theirs} of the other's")

    def judge_protection(self, office: Office, result: ManageResult) -> None:
        """A trade without a stop for all of it is at least named, and nothing can take more than it has."""
        for truth in office.app.truths.values():
            record, held = office.store.records[truth.id], office.app.held(truth)
            families = office.app.working(truth)
            takes = sum((max(o.left for o in orders) for orders in families), ZERO)
            if takes > held:
                raise Violation(f"exits of {takes} work for {truth.owner}, which holds {held}")
            stops = sum((o.left for orders in families for o in orders if o.type == "stop"), ZERO)
            said = any(note.startswith(f"{truth.symbol} {truth.id}: ") for note in result.notes)
            managed = result.outcome is not ManageOutcome.SKIP and not is_final(record)
            if managed and stops < held and not said and result.reason != "deadline_exceeded":
                raise Violation(f"{truth.owner} holds {held}, its stops {stops}, and nothing is said of it")

    def judge_evening(self, office: Office, result: ManageResult, began: float) -> None:
        """What the end of the day should have closed is closed, or the run says that it is not."""
        rules, (_, closes) = self.rules[office.name], self.world.session()
        in_window = closes - rules.eod_window.total_seconds() <= began < closes - 120
        if not rules.eod_flatten or not in_window or result.outcome is not ManageOutcome.SUCCESS:
            return
        for truth in office.app.truths.values():
            said = any(note.startswith(f"{truth.symbol} {truth.id}: ") for note in result.notes)
            if office.app.held(truth) and not said:
                raise Violation(f"{truth.owner} is held into the night, and nothing is said of it")


def desk(
    seed: int, say: Callable[[str], None] = lambda line: None, *, ticks: int = TICKS, sharing: bool = False
) -> None:
    """Plays one seed for so many ticks; raises Violation with what went wrong."""
    Desk(seed, say, sharing=sharing).perform(ticks)
