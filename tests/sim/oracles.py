"""What must hold at every effect of a run: every write of the ledger, every order that is sent or touched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ghostclean.app.ports import OrderRequest
from ghostclean.core.broker import parse_client_id
from ghostclean.core.ledger import order_ids, read_trade
from tests.lots import CENT, ZERO

from .app import App, Truth
from .scene import Scene, Violation
from .stores import Store, Written, is_final
from .world import SimOrder

_NAMES = ("alpacaOrderId", "stopOrderId", "takeProfitOrderId", "closeOrderId")
_UNJOURNALED = frozenset({"lastPrice", "unrealizedPnL", "unrealizedR", "autoManage", "updatedAt"})


def said_of(row: Mapping[str, Any]) -> Decimal:
    """How much a live trade's row says it holds, or an orphan's that nobody explains."""
    return Decimal(re.search(r"\d[\d.]*", row["reason"]).group())  # type: ignore[union-attr]


class Judge:
    """The oracles of one bot's runs; keeps the first that broke, because a run catches what it is thrown.

    Of the run at work: when it `began`, the `store` it works on, whether that `was_pinned` then.
    `certain` where every order in its symbols is some record's, or carries a trade's name.
    """

    def __init__(self, scene: Scene, app: App, *, sells_orphans: bool) -> None:
        self.scene, self.app, self.world, self.clock, self.say = scene, app, scene.world, scene.clock, scene.say
        self.sells_orphans = sells_orphans
        self.certain = False
        self.began = 0.0
        self.store: Store = app.store
        self.was_pinned = False
        self.taken: set[str] = set()  # symbols in which an exit was cancelled for the sale of an orphan
        self.broken: Violation | None = None

    @property
    def may_act(self) -> bool:
        """Whether the run may adopt and sell."""
        return self.was_pinned and self.store.is_there and not self.store.foreign

    # ------------------------------------------------------------------ what nobody can tell

    def mixed(self, symbol: str) -> bool:
        """Whether somebody else than this ledger's trades trades in a symbol."""
        traded = (o.in_symbol(symbol) for o in self.scene.apps if o is not self.app)
        return any(symbol in o.orphaned for o in self.scene.apps) or any(traded)

    def vague(self, symbol: str) -> bool:
        """Whether a purchase or sale in a symbol can't be told to be this or that trade's."""
        trades = self.app.in_symbol(symbol)
        if self.certain:
            return False
        unnamed = any(t.hand or t.grown or t.wiped or not t.certain for t in trades)
        return self.mixed(symbol) or (unnamed and len(trades) > 1) or any(t.unwritten for t in trades)

    # ------------------------------------------------------------------ oracles at every write of the ledger

    def write(self, done: Written) -> None:
        try:
            self._write(done)
        except Violation as error:
            self.broken = self.broken or error

    def _write(self, done: Written) -> None:
        trade_id, fields = done.change.trade_id, done.change.fields
        self.say(f"    [{self.clock.t:.2f}] write {done.action} {trade_id} {dict(fields)}")
        entries = reversed(self.store.journal.values())
        intents = (e for e in entries if e.trade_id == trade_id and e.after is not None and e.outcome == "intended")
        entry = next(intents, None)
        if entry is None and not _UNJOURNALED.issuperset(fields):
            raise Violation(f"{trade_id} was written without a journaled intent")
        if entry is not None and set(entry.after or {}) != set(fields) and not _UNJOURNALED.issuperset(fields):
            raise Violation(f"{trade_id}: the intent does not say what was written")
        if self.store.foreign and done.action in ("closed", "adopted"):
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
        if held := min(self.app.held(truth), abs(self.world.net(truth.symbol))):
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
        guarded = [t for app in self.scene.apps for t in app.in_symbol(symbol) if self._guards(app, t)]
        world, moments = self.world, self.world.moments(symbol, self.began)
        explained = {t: sum((abs(world.held_of(g.owner, t)) for g in guarded), ZERO) for t in moments}
        return any(explained[t] + qty <= abs(world.net(symbol, t)) for t in moments)

    def _guards(self, app: App, truth: Truth) -> bool:
        """Whether a trade explains what it holds: by its record, or because an earlier run knew it.

        Of another ledger nobody can know before it has spoken in this state.
        """
        store = self.store if app is self.app else app.store
        record = store.records.get(truth.id)
        known = truth.id in store.explained if record is None else not is_final(record)
        return known and (app is self.app or store.name in self.store.words)

    def _judge_names(self, truth: Truth, done: Written) -> None:
        """No record names an order that is another's; of what another ledger has closed its word is silent."""
        if truth.hand or truth.wiped:
            return
        for name in _NAMES:
            order = self.world.orders.get(done.change.fields.get(name) or "")
            sharing = order is not None and truth.entry is not None and order.id == truth.entry.id
            if order is None or order.owner == truth.owner or sharing:
                continue
            told = any(order.id in word for word in self.store.words.values())
            if told or order.owner is None or self.owns(order.owner):
                raise Violation(f"{truth.id} names order {order.id} as {name}, which is {order.owner or 'a hand'}'s")

    def owns(self, owner: str | None) -> bool:
        """Whether that is a trade of this ledger."""
        return any(truth.owner == owner for truth in self.app.truths.values())

    def _judge_money(self, truth: Truth, done: Written) -> None:
        """Written P&L is the lots' to the cent, or null."""
        pnl = done.change.fields.get("realizedPnL")
        if pnl is None or self.vague(truth.symbol) or done.action == "reopened":
            return
        booked = {self.world.lots_of(truth.owner, t).booked for t in self.world.moments(truth.symbol, self.began)}
        if all(abs(Decimal(str(pnl)) - true) > CENT for true in booked):
            raise Violation(f"{truth.id}: P&L {pnl} written, {max(booked)} is true")

    def _judge_fills(self, truth: Truth, done: Written) -> None:
        """No share has two entries: none is said to have filled more than it entered.

        But where another trade of its entry has left the ledger: then the entry is its own, by all that can be known.
        """
        filled = done.change.fields.get("filledQty")
        if filled is None or self._left_by_a_sharer(truth):
            return
        if filled > (entered := self.world.lots_of(truth.owner, self.clock.t).entered):
            raise Violation(f"{truth.id}: {filled} written as filled, it entered {entered}")

    def _left_by_a_sharer(self, truth: Truth) -> bool:
        shares = (t.entry is not None and t.entry is truth.entry for t in self.app.truths.values())
        gone = (t.id not in self.store.records for t in self.app.truths.values())
        return any(a and b for a, b in zip(shares, gone, strict=True))

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

    def may_pin(self) -> bool:
        """Whether the account knows an order of the ledger, or none is named."""
        named = {i for record in self.store.records.values() for i in order_ids(record)}
        return not named or not named.isdisjoint(self.world.orders)

    # ------------------------------------------------------------------ oracles at every order

    def owner_of(self, client: str) -> str | None:
        """The trade whose name an order carries."""
        own = parse_client_id(client)
        for trade_id, record in self.store.records.items():
            if own is not None and own.trade in read_trade(record).tags and trade_id in self.app.truths:
                return self.app.truths[trade_id].owner
        return None

    def submit(self, request: OrderRequest) -> None:
        try:
            self._submit(request)
        except Violation as error:
            self.broken = self.broken or error

    def _submit(self, request: OrderRequest) -> None:
        world, symbol = self.world, request.symbol
        self.say(f"    [{self.clock.t:.2f}] sends {request.side} {request.qty} {symbol} {request.type}"
                 f" {request.stop_price or request.limit_price or ''} {request.client_id}")  # fmt: skip
        if request.type == "market" and not world.is_open:
            raise Violation(f"a close of {symbol} was sent while its market was closed")
        if request.side == ("buy" if world.sides[symbol] == "LONG" else "sell"):
            raise Violation(f"{request.side} {request.qty} {symbol} would open a position")
        owner = self.owner_of(request.client_id)
        if owner is None and request.type != "market":
            if symbol not in self.taken:
                raise Violation(f"an exit for {request.qty} {symbol} was placed that is no trade's")
        elif owner is None:
            if not self.may_act:
                raise Violation(f"{symbol} was sold, though the ledger was never seen or no account is pinned")
            if not self._is_free(symbol, request.qty):
                raise Violation(f"{request.qty} {symbol} were sold, of which a trade explains a part")
        elif request.qty > (held := max(abs(world.held_of(owner, t)) for t in world.moments(symbol, self.began))):
            raise Violation(f"{request.side} {request.qty} {symbol} for {owner}, which holds {held}")

    def touch(self, order: SimOrder, what: str, stop: Decimal | None = None) -> None:
        """Nothing but what is proven own is replaced or cancelled, and no stop is loosened."""
        self.say(f"    [{self.clock.t:.2f}] {what} {order.id} of {order.owner} {stop or ''}")
        mine = {t.owner for t in self.app.truths.values()}
        others = {t.owner for app in self.scene.apps for t in app.truths.values() if self._guards(app, t)}
        if order.owner not in mine and (order.owner in others or not self.sells_orphans):
            self.broken = self.broken or Violation(f"{what} of order {order.id}, which is {order.owner or 'a hand'}'s")
        if self.sells_orphans:
            self.taken.add(order.symbol)
        looser = stop is not None and order.stop is not None and (stop < order.stop) == (order.side == "sell")
        if looser and stop != order.stop:
            self.broken = self.broken or Violation(f"stop {order.stop} of {order.owner} was loosened to {stop}")
