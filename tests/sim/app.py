"""The trading app, the market and the hands in the world: what happens while we run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import iso
from tests.lots import ZERO

from .clock import Clock
from .stores import Store, is_final
from .world import DAY, SYMBOLS, SimOrder, World, moment

ONE, TEN = Decimal(1), Decimal(10)


@dataclass
class Truth:
    """What really happened to one trade; `certain`: its entry order is known to the broker."""

    id: str
    owner: str  # in the world: the ledgers may both count their trades 1, 2, 3
    symbol: str
    side: str
    qty: Decimal
    entry: SimOrder | None = None
    exits: list[SimOrder] = field(default_factory=list)
    certain: bool = True
    hand: bool = False  # some hand traded for it
    grown: bool = False  # bought more by orders that its record does not name
    unwritten: bool = False  # its size in the ledger is not yet what it bought
    wiped: bool = False
    kind: str = ""

    @property
    def opening(self) -> str:
        return "buy" if self.side == "LONG" else "sell"

    @property
    def closing(self) -> str:
        return "sell" if self.side == "LONG" else "buy"


class App:
    """Opens, edits and closes trades; remembers every write of its own.

    `sharing` lets trades enter together with others of their symbol (with one order, or with orders
    that no record names), leave while a stop of theirs still works (others' shares are free), and
    say their size after a part was sold though no record names their entry, or have parts sold
    though they were bought in parts.
    """

    def __init__(
        self, name: str, rng: random.Random, clock: Clock, world: World, store: Store, *, sharing: bool = False
    ) -> None:
        self.name, self.rng, self.clock, self.world, self.store, self.sharing = name, rng, clock, world, store, sharing
        self.truths: dict[str, Truth] = {}
        self.notes: dict[str, int] = {}  # the app's last word on a field of its own
        self.closed: dict[str, str] = {}  # trades that the app closed, with its reason
        self.deleted: set[str] = set()
        self.emptied = False  # its ledger was written empty for a while
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.orphaned: set[str] = set()  # symbols that hold what no trade of its ledger explains
        self._last = 0

    def held(self, truth: Truth, t: float | None = None) -> Decimal:
        return abs(self.world.held_of(truth.owner, t))

    def held_in(self, symbol: str, t: float | None = None) -> Decimal:
        """What all its trades hold of a symbol."""
        return sum((self.held(truth, t) for truth in self.in_symbol(symbol)), ZERO)

    def working(self, truth: Truth) -> list[list[SimOrder]]:
        """The exits that work for a trade, whoever sent them; of a family at most one fills."""
        families: dict[str, list[SimOrder]] = {}
        for order in self.world.lately():
            if order.works and order.owner == truth.owner and order.side == truth.closing:
                families.setdefault(order.parent or order.id, []).append(order)
        return [*families.values()]

    def in_symbol(self, symbol: str) -> list[Truth]:
        return [t for t in self.truths.values() if t.symbol == symbol]

    def unlisted(self, symbol: str, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a trade without a row holds something, or a record without one says so."""
        listed, records = {row["id"] for row in rows}, self.store.records
        said = {i for i, record in records.items() if not is_final(record)}
        return any((self.held(t) or t.id in said) and t.id not in listed for t in self.in_symbol(symbol))

    def grown(self) -> set[str]:
        return {t.symbol for t in self.truths.values() if t.grown}

    # ------------------------------------------------------------------ the ledger, by its own hand

    def insert(self, truth: Truth, **fields: Any) -> None:
        entry, price = truth.entry, self.world.prices[truth.symbol]
        record: dict[str, Any] = {
            "id": truth.id, "ticker": truth.symbol, "side": truth.side, "status": "OPEN", "quantity": truth.qty,
            "entryPrice": price, "stopPrice": price - TEN if truth.side == "LONG" else price + TEN,
            "alpacaOrderId": entry.id if entry else None,
            "openedAt": iso(moment(entry.t if entry else self.clock.t)), "appNote": 0,
        }  # fmt: skip
        self.store.records[truth.id] = record | fields
        self.notes[truth.id] = 0

    def write(self, trade_id: str, **fields: Any) -> None:
        record = self.store.records.get(trade_id)
        if record is not None:
            self.store.records[trade_id] = {**record, **fields}

    def edit(self, trade_id: str) -> None:
        self.notes[trade_id] = self.notes.get(trade_id, 0) + 1
        fields: dict[str, Any] = {"appNote": self.notes[trade_id]}
        if self.rng.random() < 0.5:
            fields["updatedAt"] = iso(moment(self.clock.t))
        self.write(trade_id, **fields)

    def write_size(self, truth: Truth) -> None:
        """The app writes what its trade has; of one that is out by now it never says what it had."""
        record = self.store.records.get(truth.id)
        if record is not None and not is_final(record) and (held := self.held(truth)):
            truth.unwritten = False
            self.write(truth.id, quantity=held)

    def close_record(self, trade_id: str) -> None:
        record = self.store.records.get(trade_id)
        if record is None or is_final(record):
            return
        self.closed[trade_id] = "app_close"
        now = iso(moment(self.clock.t))
        self.write(trade_id, status="CLOSED", closeReason="app_close", closedAt=now, updatedAt=now)

    def lose(self, trade_id: str) -> None:
        """A record leaves the ledger, and not because its trade is over."""
        self.deleted.add(trade_id)
        self.store.records.pop(trade_id, None)
        if trade_id in self.truths:
            self.orphaned.add(self.truths[trade_id].symbol)

    # ------------------------------------------------------------------ before the first run

    def new(self, symbol: str | None = None) -> Truth:
        self._last += 1
        rng = self.rng
        symbol = symbol or rng.choice(SYMBOLS[: rng.choice((1, 2, 4))])
        if symbol in (grown := self.grown()) and not self.sharing:
            symbol = next(s for s in SYMBOLS if s not in grown)
        trade_id = f"t{self._last}"
        truth = Truth(trade_id, self.name + trade_id, symbol, self.world.sides[symbol], Decimal(rng.randrange(2, 30)))
        self.truths[trade_id] = truth
        return truth

    def enter(self, truth: Truth, t: float, *, bracket: bool) -> SimOrder:
        world = self.world
        make = world.bracket if bracket else world.submit
        truth.entry = entry = make(truth.symbol, truth.opening, truth.qty, truth.owner, t=t)
        if bracket:
            truth.exits = [world.orders[leg] for leg in entry.legs]
        return entry

    def setup(self, kind: str) -> None:
        """One trade with a past."""
        rng, world = self.rng, self.world
        t = -rng.choice((90.0, 3600.0, DAY, 5 * DAY)) - rng.randrange(600)
        truth = self.new()
        truth.kind = kind
        fields: dict[str, Any] = {}
        if kind in ("bracket", "exited", "replaced"):
            world.fill(self.enter(truth, t, bracket=True), truth.qty, t=t + 1)
            if rng.random() < 0.5:
                fields["stopOrderId"], fields["takeProfitOrderId"] = truth.exits[1].id, truth.exits[0].id
            if kind == "replaced":
                truth.exits[1] = world.replace(truth.exits[1])
            if kind == "exited":
                world.fill(rng.choice(truth.exits), truth.qty, t=rng.choice((t + 30, -5.0)))
        elif kind in ("filled", "handsold", "gone", "stopped", "dup", "grown"):
            world.fill(self.enter(truth, t, bracket=False), truth.qty, t=t + 1)
            if kind == "stopped":
                fields["stopOrderId"] = self.stop(truth, t=t + 2).id
            elif kind == "handsold":
                self.hand_exit(truth, truth.qty, t=rng.choice((t + 60, -20.0)))
            elif kind == "gone":
                truth.wiped = True
                world.wipe(truth.symbol, truth.closing, truth.qty, truth.owner)
        elif kind in ("working", "partial", "never"):
            entry = self.enter(truth, t, bracket=rng.random() < 0.5)
            fields["status"] = rng.choice(("PENDING", "OPEN"))
            if kind == "partial":
                world.fill(entry, ONE, t=t + 5)
            if kind == "never":
                world.end(entry, rng.choice(("canceled", "expired", "rejected")), t=t + 10)
        elif kind in ("unknown", "no_id"):
            truth.certain = False
            fields["openedAt"] = iso(moment(t))
            if kind == "unknown":
                fields["alpacaOrderId"] = world.uuid()
            elif rng.random() < 0.5:
                world.fill(world.submit(truth.symbol, truth.opening, truth.qty, truth.owner, t=t), truth.qty, t=t + 1)
        elif kind == "closed":
            world.fill(self.enter(truth, t, bracket=True), truth.qty, t=t + 1)
            world.fill(truth.exits[0], truth.qty, t=t + 30)
            fields.update(status="CLOSED", closeReason="take_profit", closeOrderId=truth.exits[0].id)
            self.closed[truth.id] = "take_profit"
        elif kind == "error":
            world.fill(self.enter(truth, t, bracket=False), truth.qty, t=t + 1)
            fields["status"] = "ERROR"
        elif kind == "garbage":
            fields["quantity"] = "many"
        elif kind in ("shared", "child"):
            self._share(truth, t, child=kind == "child")
        if rng.random() < 0.3 and truth.entry is not None:
            fields["filledQty"] = min(truth.entry.filled, truth.qty)
        self.insert(truth, **fields)
        if kind == "dup":
            twin = self.new(truth.symbol)
            twin.kind, twin.qty, twin.certain = "twin", truth.qty, False
            self.insert(twin, alpacaOrderId=truth.entry.id if truth.entry else None, openedAt=iso(moment(t + 60)))
        if kind == "grown":
            self.scale_in(truth, t=min(t + 600, -5.0))

    def stop(self, truth: Truth, t: float | None = None) -> SimOrder:
        """A stop of its own for all that it holds, behind the price."""
        price, away = self.world.prices[truth.symbol], Decimal(5 if truth.closing == "sell" else -5)
        order = self.world.submit(truth.symbol, truth.closing, self.held(truth), truth.owner, t=t, type="stop",
                                  stop=price - away)  # fmt: skip
        truth.exits.append(order)
        return order

    def _share(self, truth: Truth, t: float, *, child: bool) -> None:
        """One entry for two trades; the second is a target of its own, or a part that is closed already."""
        other, world = self.new(truth.symbol), self.world
        other.kind = "sharing"
        entry = world.submit(truth.symbol, truth.opening, truth.qty + other.qty, truth.owner, t=t)
        truth.entry = other.entry = entry
        for one in (truth, other):
            world.fill(entry, one.qty, t=t + 1, owner=one.owner)
        fields: dict[str, Any] = {"initialQuantity": entry.qty} if self.rng.random() < 0.3 else {}
        stop = self.stop(other, t=t + 2)
        fields["stopOrderId"] = stop.id
        if child:
            world.fill(stop, other.qty, t=t + 60)
            fields |= {"status": "CLOSED", "closeReason": "stop_loss", "closeOrderId": stop.id}
            self.closed[other.id] = "stop_loss"
        self.insert(other, **fields)

    # ------------------------------------------------------------------ what it does

    def hand_exit(self, truth: Truth, qty: Decimal, t: float | None = None) -> None:
        truth.hand = True
        order = self.world.submit(truth.symbol, truth.closing, qty, truth.owner, t=t)
        self.world.fill(order, qty, t=t)

    def open_trade(self) -> None:
        """An order goes out; the record follows a little later, or came before."""
        rng, truth = self.rng, self.new()
        truth.kind = "opened"
        early = rng.random() < 0.3
        if early:
            self.insert(truth, status="PENDING", openedAt=None, createdAt=iso(moment(self.clock.t)))
        entry = self.enter(truth, self.clock.t, bracket=rng.random() < 0.5)
        if rng.random() < 0.6:
            self.world.fill(entry, truth.qty)
        if early:
            self.write(truth.id, alpacaOrderId=entry.id)
        else:
            self.put_off((0.0, 2.0, 20.0), lambda: self.insert(truth))

    def scale_in(self, truth: Truth, t: float | None = None) -> None:
        """Buys more by an order that its record does not name, and writes the size before, after or later."""
        world, qty = self.world, Decimal(self.rng.randrange(1, 9))
        parted = truth.exits or truth.hand or self.working(truth)
        if not self.sharing and (parted or len(self.in_symbol(truth.symbol)) > 1 or len(self.grown()) > 2):
            return
        truth.grown = truth.unwritten = True
        world.fill(world.submit(truth.symbol, truth.opening, qty, truth.owner, t=t), qty, t=t)
        if t is not None:
            self.write_size(truth)
        else:
            self.put_off((0.0, 0.0, 3.0, 20.0), lambda: self.write_size(truth))

    def sell_part(self, truth: Truth) -> None:
        """A target of its own takes a part; the size is written later, or never."""
        world, part = self.world, max(ONE, self.held(truth) // 2)
        record = self.store.records.get(truth.id)
        if record is None or record.get("takeProfitOrderId") or any(o.works for o in truth.exits):
            return
        if truth.grown and not self.sharing:
            return
        order = world.submit(truth.symbol, truth.closing, part, truth.owner, type="limit",
                             limit=world.prices[truth.symbol])  # fmt: skip
        truth.exits.append(order)
        self.write(truth.id, takeProfitOrderId=order.id)
        world.fill(order, part)
        if self.rng.random() < 0.4 and (truth.certain or self.sharing):
            self.put_off((0.0, 3.0, 30.0), lambda: self.write_size(truth))

    def close_trade(self, truth: Truth) -> None:
        """The app sells by its own order, and says so in the ledger a little later."""
        held = self.held(truth)
        if not (self.sharing and self.world.available(truth.symbol) >= held):
            for family in self.working(truth):
                self.world.cancel(family[0])
        order = self.world.submit(truth.symbol, truth.closing, held, truth.owner)
        truth.exits.append(order)
        if truth.id in self.store.records:
            if self.store.records[truth.id].get("closeOrderId"):
                truth.hand = True  # the order that closed an earlier part is named no more
            self.write(truth.id, closeOrderId=order.id)
        else:
            truth.hand = True  # its record comes later and will not name this order
        self.world.fill(order, held)
        if self.rng.random() < 0.6:
            self.put_off((0.0, 3.0, 30.0), lambda: self.close_record(truth.id))

    def put_off(self, seconds: tuple[float, ...], act: Callable[[], None]) -> None:
        wait = self.rng.choice(seconds)
        if wait:
            self.later.append((self.clock.t + wait, act))
        else:
            act()

    def due(self, *, all_of_it: bool = False) -> None:
        """What the app had put off."""
        waiting, self.later = self.later, []
        for at, act in waiting:
            if all_of_it or at <= self.clock.t:
                act()
            else:
                self.later.append((at, act))

    # ------------------------------------------------------------------ while we run

    def move(self) -> None:
        """One thing happens."""
        rng, world = self.rng, self.world
        what = rng.random()
        live = [t for t in self.truths.values() if self.held(t)]
        mine = {t.owner for t in self.truths.values()} | {None}
        working = [o for o in world.lately() if o.owner in mine and o.status in ("new", "partially_filled")]
        if what < 0.27 and self.store.records:
            self.edit(rng.choice(list(self.store.records)))
        elif what < 0.40:
            self.open_trade()
        elif what < 0.62 and working:
            self._work(rng.choice(working))
        elif what < 0.70 and live:
            truth = rng.choice(live)
            held = self.held(truth)
            for family in self.working(truth):
                world.cancel(family[0])
            whole = rng.random() < 0.6 or (truth.grown and not self.sharing)
            self.hand_exit(truth, held if whole else max(ONE, held // 3))
        elif what < 0.74:
            self.buy_by_hand()
        elif what < 0.82 and live:
            self.close_trade(rng.choice(live))
        elif what < 0.87 and live:
            self.scale_in(rng.choice(live))
        elif what < 0.92 and live:
            self.sell_part(rng.choice(live))
        elif what < 0.95:
            symbol = rng.choice(SYMBOLS)
            if all(t.certain for t in self.in_symbol(symbol)):
                world.hidden[symbol] = self.clock.t + rng.randrange(5, 90)
        else:
            # Of what we closed nobody could tell any more that we did, so only its own are archived; and
            # without a part that is closed nobody could tell what of a shared entry the rest has.
            shared = [i for i, t in self.truths.items() if t.kind in ("shared", "child", "sharing")]
            done = [i for i in self.closed if i in self.store.records and i not in shared]
            if done:
                gone = rng.choice(done)
                self.deleted.add(gone)
                del self.store.records[gone]

    def buy_by_hand(self) -> None:
        """The owner of the account buys for himself, with a stop or without."""
        world, symbol = self.world, self.rng.choice(SYMBOLS)
        self.orphaned.add(symbol)
        long = world.sides[symbol] == "LONG"
        order = world.submit(symbol, "buy" if long else "sell", Decimal(self.rng.randrange(1, 9)), None)
        world.fill(order, order.qty)
        if self.rng.random() < 0.4:
            stop = world.prices[symbol] - (5 if long else -5)
            world.submit(symbol, "sell" if long else "buy", order.qty, None, type="stop", stop=stop)

    def _work(self, order: SimOrder) -> None:
        """The exchange works on an order, or somebody cancels or replaces it."""
        rng, world = self.rng, self.world
        truth = next((t for t in self.truths.values() if t.owner == order.owner), None)
        opens = order.parent is None and (truth is None or order.side == truth.opening)
        left = order.left
        held = self.held(truth) if truth is not None else left
        if not opens and held < left:
            world.end(order, "canceled")
        elif rng.random() < 0.25 and order.status == "new":
            if opens or truth is None or rng.random() < 0.3:
                world.end(order, "canceled")
            else:
                truth.exits.append(world.replace(order))
        else:
            world.fill(order, left if rng.random() < 0.7 or left <= 1 else ONE)
