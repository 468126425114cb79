"""The trading app, the market and the hands in the world: what happens while we run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import iso

from .broker import DAY, FINAL, SimOrder, World
from .clock import START, Clock
from .stores import Store, is_final

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
ONE = Decimal(1)


def moment(t: float) -> str:
    from datetime import timedelta

    return iso(START + timedelta(seconds=round(t, 3)))


@dataclass
class Truth:
    """What really happened to one trade; `certain`: its entry order is known to the broker."""

    id: str
    symbol: str
    side: str
    qty: Decimal
    entry: SimOrder | None = None
    exits: list[SimOrder] = field(default_factory=list)
    certain: bool = True
    hand: bool = False  # some hand traded for it
    wiped: bool = False
    kind: str = ""

    @property
    def opening(self) -> str:
        return "buy" if self.side == "LONG" else "sell"

    @property
    def closing(self) -> str:
        return "sell" if self.side == "LONG" else "buy"


class App:
    """Opens, edits and closes trades, and moves the market; remembers every write of its own."""

    def __init__(self, rng: random.Random, clock: Clock, world: World, store: Store) -> None:
        self.rng, self.clock, self.world, self.store = rng, clock, world, store
        self.truths: dict[str, Truth] = {}
        self.notes: dict[str, int] = {}  # the app's last word on a field of its own
        self.closed: dict[str, str] = {}  # trades that the app closed, with its reason
        self.deleted: set[str] = set()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.orphaned: set[str] = set()  # symbols in which a hand bought
        self.sides = {s: rng.choice(("LONG", "LONG", "LONG", "SHORT")) for s in SYMBOLS}
        self._last = 0
        for symbol in SYMBOLS:
            world.prices[symbol] = Decimal(rng.randrange(40, 200))

    # ------------------------------------------------------------------ the ledger, by its own hand

    def insert(self, truth: Truth, **fields: Any) -> None:
        entry = truth.entry
        record: dict[str, Any] = {
            "id": truth.id, "ticker": truth.symbol, "side": truth.side, "status": "OPEN", "quantity": truth.qty,
            "entryPrice": self.world.prices[truth.symbol], "stopPrice": self.world.prices[truth.symbol] - 10,
            "alpacaOrderId": entry.id if entry else None, "openedAt": moment(entry.t if entry else self.clock.t),
            "appNote": 0,
        }  # fmt: skip
        record.update(fields)
        self.store.records[truth.id] = record
        self.notes[truth.id] = 0

    def write(self, trade_id: str, **fields: Any) -> None:
        record = self.store.records.get(trade_id)
        if record is not None:
            self.store.records[trade_id] = {**record, **fields}

    def edit(self, trade_id: str) -> None:
        self.notes[trade_id] = self.notes.get(trade_id, 0) + 1
        fields: dict[str, Any] = {"appNote": self.notes[trade_id]}
        if self.rng.random() < 0.5:
            fields["updatedAt"] = moment(self.clock.t)
        self.write(trade_id, **fields)

    def close_record(self, trade_id: str) -> None:
        record = self.store.records.get(trade_id)
        if record is None or is_final(record):
            return
        self.closed[trade_id] = "app_close"
        self.write(trade_id, status="CLOSED", closeReason="app_close", closedAt=moment(self.clock.t),
                   updatedAt=moment(self.clock.t))  # fmt: skip

    # ------------------------------------------------------------------ before the first run

    def new(self, symbol: str | None = None) -> Truth:
        self._last += 1
        rng = self.rng
        symbol = symbol or rng.choice(SYMBOLS[: rng.choice((1, 2, 4))])
        truth = Truth(f"t{self._last}", symbol, self.sides[symbol], Decimal(rng.randrange(2, 30)))
        self.truths[truth.id] = truth
        return truth

    def _entered(self, truth: Truth, t: float, *, bracket: bool) -> SimOrder:
        world = self.world
        make = world.bracket if bracket else world.submit
        truth.entry = entry = make(truth.symbol, truth.opening, truth.qty, truth.id, t=t)
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
            entry = self._entered(truth, t, bracket=True)
            world.fill(entry, truth.qty, t=t + 1)
            if rng.random() < 0.5:
                fields["stopOrderId"], fields["takeProfitOrderId"] = truth.exits[1].id, truth.exits[0].id
            if kind == "replaced":
                truth.exits[1] = world.replace(truth.exits[1])
            if kind == "exited":
                world.fill(rng.choice(truth.exits), truth.qty, t=rng.choice((t + 30, -5.0)))
        elif kind in ("filled", "handsold", "gone", "stopped", "dup"):
            entry = self._entered(truth, t, bracket=False)
            world.fill(entry, truth.qty, t=t + 1)
            if kind == "stopped":
                stop = world.submit(truth.symbol, truth.closing, truth.qty, truth.id, t=t + 2, type="stop",
                                    stop=world.prices[truth.symbol] - 5)  # fmt: skip
                truth.exits.append(stop)
                fields["stopOrderId"] = stop.id
            elif kind == "handsold":
                self.hand_exit(truth, truth.qty, t=rng.choice((t + 60, -20.0)))
            elif kind == "gone":
                truth.wiped = True
                world.wipe(truth.symbol, truth.closing, truth.qty, truth.id)
        elif kind in ("working", "partial", "never"):
            entry = self._entered(truth, t, bracket=rng.random() < 0.5)
            fields["status"] = rng.choice(("PENDING", "OPEN"))
            if kind == "partial":
                world.fill(entry, ONE, t=t + 5)
            if kind == "never":
                world.end(entry, rng.choice(("canceled", "expired", "rejected")), t=t + 10)
        elif kind == "unknown":
            truth.certain = False
            fields["alpacaOrderId"] = world.uuid()
            fields["openedAt"] = moment(t)
        elif kind == "no_id":
            truth.certain = False
            fields["openedAt"] = moment(t)
            if rng.random() < 0.5:
                order = world.submit(truth.symbol, truth.opening, truth.qty, truth.id, t=t)
                world.fill(order, truth.qty, t=t + 1)
        elif kind == "closed":
            entry = self._entered(truth, t, bracket=True)
            world.fill(entry, truth.qty, t=t + 1)
            world.fill(truth.exits[0], truth.qty, t=t + 30)
            fields.update(status="CLOSED", closeReason="take_profit", closeOrderId=truth.exits[0].id)
            self.closed[truth.id] = "take_profit"
        elif kind == "error":
            world.fill(self._entered(truth, t, bracket=False), truth.qty, t=t + 1)
            fields["status"] = "ERROR"
        elif kind == "garbage":
            fields["quantity"] = "many"
        if rng.random() < 0.3 and truth.entry is not None:
            fields["filledQty"] = truth.entry.filled
        self.insert(truth, **fields)
        if kind == "dup":
            twin = self.new(truth.symbol)
            twin.kind, twin.qty, twin.certain = "twin", truth.qty, False
            self.insert(twin, alpacaOrderId=truth.entry.id if truth.entry else None, openedAt=moment(t + 60))

    # ------------------------------------------------------------------ while we run

    def hand_exit(self, truth: Truth, qty: Decimal, t: float | None = None) -> None:
        truth.hand = True
        order = self.world.submit(truth.symbol, truth.closing, qty, truth.id, t=t)
        self.world.fill(order, qty, t=t)

    def move(self) -> None:
        """One thing happens."""
        rng, world = self.rng, self.world
        what = rng.random()
        live = [t for t in self.truths.values() if world.held_of(t.id)]
        working = [o for o in world.orders.values() if o.status in ("new", "partially_filled")]
        if what < 0.30 and self.store.records:
            self.edit(rng.choice(list(self.store.records)))
        elif what < 0.45:
            self.open_trade()
        elif what < 0.70 and working:
            self._work(rng.choice(working))
        elif what < 0.80 and live:
            truth = rng.choice(live)
            held = abs(world.held_of(truth.id))
            for order in truth.exits:
                world.end(order, "canceled")
            self.hand_exit(truth, held if rng.random() < 0.6 else max(ONE, held // 3))
        elif what < 0.85:
            symbol = rng.choice(SYMBOLS)
            self.orphaned.add(symbol)
            side = "buy" if self.sides[symbol] == "LONG" else "sell"
            order = world.submit(symbol, side, Decimal(rng.randrange(1, 9)), None)
            world.fill(order, order.qty)
        elif what < 0.93 and live:
            self.close_trade(rng.choice(live))
        elif what < 0.96:
            symbol = rng.choice(SYMBOLS)
            if all(t.certain for t in self.truths.values() if t.symbol == symbol):
                world.hidden[symbol] = self.clock.t + rng.randrange(5, 90)
        elif self.truths:
            # Of what we closed nobody could tell any more that we did, so only its own are archived.
            done = [i for i in self.closed if i in self.store.records]
            if done:
                gone = rng.choice(done)
                self.deleted.add(gone)
                del self.store.records[gone]

    def _work(self, order: SimOrder) -> None:
        rng, world = self.rng, self.world
        opens = order.parent is None and (order.owner is None or order.side == self._truth(order).opening)
        left = order.qty - order.filled
        held = abs(world.held_of(order.owner)) if order.owner else left
        if not opens and held < left:
            world.end(order, "canceled")
        elif rng.random() < 0.25 and order.status == "new":
            if opens or rng.random() < 0.3:
                world.end(order, "canceled")
            else:
                new = world.replace(order)
                self._truth(order).exits.append(new)
        else:
            world.fill(order, left if rng.random() < 0.7 or left <= 1 else ONE)

    def _truth(self, order: SimOrder) -> Truth:
        return self.truths[order.owner or ""]

    def open_trade(self) -> None:
        """An order goes out; the record follows a little later, or came before."""
        rng, truth = self.rng, self.new()
        truth.kind = "opened"
        early = rng.random() < 0.3
        if early:
            self.insert(truth, status="PENDING", openedAt=None, createdAt=moment(self.clock.t))
        entry = self._entered(truth, self.clock.t, bracket=rng.random() < 0.5)
        if rng.random() < 0.6:
            self.world.fill(entry, truth.qty)
        if early:
            self.write(truth.id, alpacaOrderId=entry.id)
        else:
            self.later.append((self.clock.t + rng.choice((0.0, 2.0, 20.0)), lambda: self.insert(truth)))

    def close_trade(self, truth: Truth) -> None:
        """The app sells by its own order, and says so in the ledger a little later."""
        held = abs(self.world.held_of(truth.id))
        for old in truth.exits:
            self.world.end(old, "canceled")
        order = self.world.submit(truth.symbol, truth.closing, held, truth.id)
        truth.exits.append(order)
        if truth.id in self.store.records:
            if self.store.records[truth.id].get("closeOrderId"):
                truth.hand = True  # the order that closed an earlier part is named no more
            self.write(truth.id, closeOrderId=order.id)
        else:
            truth.hand = True  # its record comes later and will not name this order
        self.world.fill(order, held)
        if self.rng.random() < 0.6:
            self.later.append((self.clock.t + self.rng.choice((0.0, 3.0, 30.0)), lambda: self.close_record(truth.id)))

    def due(self, *, all_of_it: bool = False) -> None:
        """What the app had put off."""
        waiting, self.later = self.later, []
        for at, act in waiting:
            if all_of_it or at <= self.clock.t:
                act()
            else:
                self.later.append((at, act))

    def final(self, order: SimOrder) -> bool:
        return order.status in FINAL
