"""The one door through which every order to the broker passes.

Invariants (property tests carry their names):
- never grows, never flips: an order takes at most what the position, read just before, still
  has beyond what other working closing orders can take, and at most the trade's own quantity;
- never twice: an order's name is trade + purpose + n, and n rises only when the order before it
  is proven final; an answer that got lost is looked up by that name, never sent again;
- never crosses: a stop is compared with a price read just before it is sent;
- never blind: no order where closing fills are fresh or fills and position disagree, except a
  missing stop for the smaller quantity; no close while the instrument's market is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum
from typing import Any, TypeVar

from ghostclean.app.deadline import Deadline
from ghostclean.app.ports import Broker, OrderRequest, State
from ghostclean.core.broker import (
    CRYPTO_DUST,
    ZERO,
    BadNumber,
    Fill,
    Order,
    Position,
    Side,
    client_id,
    is_option,
    number,
    parse_client_id,
    plain,
    trade_tag,
)
from ghostclean.core.market import Market
from ghostclean.core.protection import OrderBook, can_take, families, is_replaceable_now
from ghostclean.core.stops import is_through, is_tighter, stop_limit
from ghostclean.core.verdicts import Holding
from ghostclean.errors import BrokerError, DeadlineExceeded, Refused

T = TypeVar("T")

NUMBERS = "order_numbers"  # the state section that remembers the last n of a trade and purpose
REST = "rest"  # the purpose of a stop beside one that covers a part of the trade
_MOST_NUMBERS = 500
_LOST_WAITS = (0.3, 0.7, 1.5, 2.5)
_WATCH_WAITS = (0.1, 0.2, 0.3, 0.4, *([0.5] * 40))
_TO_START = 4.0  # seconds of deadline below which nothing new is sent
_FOR_THE_END = 1.5  # seconds of deadline that reads must leave for ledger and telemetry
_SKEW = timedelta(seconds=2)
_GONE = "the position is gone or on the other side"
_NEVER_PLACED = frozenset({"rejected", "canceled", "expired"})


class Outcome(StrEnum):
    """What became of an order we wanted."""

    SENT = "sent"
    STANDING = "standing"  # an earlier order of this name works already
    WOULD = "would_send"  # a dry run
    BLOCKED = "blocked"  # a rule of this door: nothing was sent
    CROSSED = "crossed"  # the market is at or through the stop: it is not sent
    MOOT = "moot"  # the position is gone: nothing is left to do it for
    REFUSED = "refused"  # the broker said no: nothing works because of us
    UNKNOWN = "unknown"  # sent, and neither found nor proven absent: the next run looks it up


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome with its reason, the order as last read, and what was asked for."""

    outcome: Outcome
    reason: str
    order: Order | None = None
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """What was wanted stands at the broker (or would, in a dry run)."""
        return self.outcome in (Outcome.SENT, Outcome.STANDING, Outcome.WOULD)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks, and how much of a position is theirs by the survey at `at`.

    `all_open` is what all trades of that symbol and side hold together, `exits` all their exit
    orders (fills of other orders say that the position may be smaller than it looks), `own` this
    claim's among them, `over` the orders of closed trades, which took only what those held.
    """

    name: str
    symbol: str
    key: str
    side: Side
    open_qty: Decimal
    all_open: Decimal
    crypto: bool
    at: datetime
    exits: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    over: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, holding: Holding, everybody: Iterable[Holding], at: datetime, over: frozenset[str] = frozenset()
    ) -> Claim:
        """The claim of one trade among all holdings of the survey."""
        side = holding.trade.side
        same = [h for h in everybody if h.position.key == holding.position.key and h.trade.side is side]
        return cls(
            holding.trade.id or "",
            holding.position.symbol,
            holding.position.key,
            side,
            holding.open_qty,
            sum((h.open_qty for h in same), ZERO),
            holding.position.is_crypto,
            at,
            frozenset(o.id for h in same for o in h.exits),
            frozenset(o.id for o in holding.exits),
            over,
        )


@dataclass(frozen=True, slots=True)
class Sight:
    """A symbol at one moment: its position, closing orders, and closing fills within the grace."""

    position: Position | None
    closing: tuple[Order, ...]
    recent: tuple[Fill, ...]


class OrderDoor:
    """Sends, replaces and cancels orders; the only code that does. See the module's invariants.

    `verify` raises when the run's lock is lost. `log` lists everything that was, or in a dry run
    would have been, sent. With `state_lost` names are counted by the broker's answers alone: for
    putting back a stop when our memory fails half-way. Reads raise BrokerError or
    DeadlineExceeded; nothing is sent then.
    """

    def __init__(
        self,
        broker: Broker,
        state: State,
        market: Market,
        deadline: Deadline,
        *,
        grace: timedelta,
        verify: Callable[[], None],
        book: OrderBook | None = None,
        dry_run: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.book = book if book is not None else OrderBook()
        self.log: list[dict[str, Any]] = []
        self.dry_run = dry_run
        self.state_lost = False
        self._broker = broker
        self._state = state
        self._market = market
        self._deadline = deadline
        self._grace = grace
        self._verify = verify
        self._sleep = sleep
        self._asked: set[str] = set()
        self._would_cancel: set[str] = set()
        self._booked: dict[str, tuple[str, str, Decimal]] = {}
        self._stood: dict[str, Decimal] = {}
        self._assets: dict[str, Mapping[str, Any] | None] = {}

    # ------------------------------------------------------------------ looking

    def look(self, claim: Claim) -> Sight:
        """Working orders, then the position, then closing fills of the last grace, read anew."""
        self.book.set_working(self._read(self._broker.working_orders))
        positions = self._read(self._broker.positions)
        since = self._broker.now() - self._grace
        fills = self._read(lambda: self._broker.fills(since))
        closing = claim.side.closing
        return Sight(
            next((p for p in positions if p.key == claim.key), None),
            tuple(o for o in self.book.closing(claim.key, claim.side) if o.id not in self._would_cancel),
            tuple(f for f in fills if f.key == claim.key and f.side == closing and f.order_id not in self._booked),
        )

    def read_order(self, order_id: str) -> Order | None:
        """One order with its legs, read anew into the book; None for a true 404."""
        found = self._read(lambda: self._broker.order(order_id))
        if found is None:
            return None
        self.book.add(found)
        return self.book.orders[found[0].id]

    def watch(self, order_id: str, seconds: float) -> Order | None:
        """Re-reads an order until it is final or the time is up; its last known form."""
        waited = 0.0
        order = self.read_order(order_id)
        for wait in _WATCH_WAITS:
            if order is None or order.is_final or waited + wait > seconds or not self._has_time(wait):
                break
            self._sleep(wait)
            waited += wait
            order = self.read_order(order_id)
        return order

    def open_now(self, claim: Claim) -> Decimal:
        """The trade's quantity less what this run has closed of it since the survey."""
        return claim.open_qty - sum((q for _, name, q in self._booked.values() if name == claim.name), ZERO)

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        """The broker's facts about an instrument, asked once; None where it has none to give."""
        if symbol not in self._assets:
            try:
                self._assets[symbol] = self._read(lambda: self._broker.asset(symbol))
            except BrokerError:
                self._assets[symbol] = None  # the order itself will be refused if it must not be
        return self._assets[symbol]

    def increment(self, claim: Claim) -> Decimal | None:
        """The price step of a crypto pair; None for everything that follows the cent rule."""
        return _positive(self.asset(claim.symbol), "price_increment") if claim.crypto else None

    def _crossed(self, claim: Claim, purpose: str, stop: Decimal) -> Answer | None:
        """The answer for a stop that the market has passed by now; None where it may be sent."""
        try:
            price = self._read(lambda: self._broker.prices([claim.symbol])).get(claim.key)
        except BrokerError:
            return None  # the caller had a price a moment ago
        if price is None or not is_through(claim.side, stop, price.value):
            return None
        why = f"its stop {plain(stop)} is through the market ({plain(price.value)})"
        return Answer(Outcome.CROSSED, why, None, {"tradeId": claim.name, "purpose": purpose, "stopPrice": plain(stop)})

    # ------------------------------------------------------------------ placing

    def place_stop(
        self,
        claim: Claim,
        stop: Decimal,
        *,
        least: Decimal = ZERO,
        most: Decimal | None = None,
        time_in_force: str | None = None,
    ) -> Answer:
        """A missing stop for what no other closing order can take; `least` is covered already.

        A stop beside one that covers a part has a purpose, and so a name, of its own: under the
        name of the first it would be taken for it, and the rest would stay without one. `most` and
        `time_in_force` are those of a stop that is put back as it was.
        """
        purpose = REST if least else "stop"
        sight = self.look(claim)
        qty, why = self._quantity(claim, sight, missing_stop=True)
        qty = min(qty, self.open_now(claim) - least)
        if most is not None:
            qty = min(qty, most)
        if qty <= 0:
            return self._blocked(claim, purpose, why or "a stop covers it already")
        if (crossed := self._crossed(claim, purpose, stop)) is not None:
            return crossed
        whole = qty == qty.to_integral_value()
        limit = stop_limit(claim.side, stop, self.increment(claim)) if claim.crypto else None
        lasts = "day" if time_in_force == "day" or not whole else "gtc"

        def request(name: str) -> OrderRequest:
            return OrderRequest(
                claim.symbol,
                claim.side.closing,
                qty,
                "stop_limit" if claim.crypto else "stop",
                "gtc" if claim.crypto else lasts,
                name,
                limit_price=limit,
                stop_price=stop,
            )

        return self._send(claim, purpose, request)

    def free_without(self, claim: Claim, holders: Collection[str]) -> Decimal:
        """How much a missing stop could take once `holders` have let go; asked before cancelling them."""
        sight = self.look(claim)
        return ZERO if self._why_not(claim, sight, missing_stop=True) else self._free(claim, sight, besides=holders)

    def place_oco(
        self,
        claim: Claim,
        stop: Decimal,
        target: Decimal,
        *,
        most: Decimal | None = None,
        time_in_force: str | None = None,
    ) -> Answer:
        """Stop and target in one order of which only one can fill; whole shares only, `most` the target's."""
        sight = self.look(claim)
        qty, why = self._quantity(claim, sight, missing_stop=True)
        qty = (qty if most is None else min(qty, most)).to_integral_value(ROUND_FLOOR)
        if qty <= 0:
            return self._blocked(claim, "oco", why or "less than one share is free")
        if (crossed := self._crossed(claim, "oco", stop)) is not None:
            return crossed
        return self._send(
            claim,
            "oco",
            lambda name: OrderRequest(
                claim.symbol,
                claim.side.closing,
                qty,
                "limit",
                "day" if time_in_force == "day" else "gtc",
                name,
                limit_price=target,
                order_class="oco",
                take_profit=target,
                stop_loss=stop,
            ),
        )

    def put_back(
        self,
        claim: Claim,
        stop: Decimal,
        target: Decimal | None,
        *,
        most: Decimal | None = None,
        time_in_force: str | None = None,
    ) -> Answer:
        """The stop (and the target) that stood before a close was tried, as one OCO where that can be.

        `most` and `time_in_force` are the stop's own, where no trade says what it should be.
        """
        whole = claim.open_qty == claim.open_qty.to_integral_value()
        all_of_it = most is None or most >= claim.open_qty
        if target is not None and whole and all_of_it and not claim.crypto:
            answer = self.place_oco(claim, stop, target, time_in_force=time_in_force)
            if answer.is_done or answer.outcome in (Outcome.UNKNOWN, Outcome.CROSSED):
                return answer
        return self.place_stop(claim, stop, most=most, time_in_force=time_in_force)

    def close(self, claim: Claim, purpose: str, *, exactly: Decimal | None = None) -> Answer:
        """A market order for the trade's quantity, only while its market is open.

        `exactly`: nothing is sent unless just that quantity is free.
        """
        if not self._market.may_close(claim.crypto, self._broker.now()):
            return self._blocked(claim, purpose, "its market is closed, or closes in a moment")
        sight = self.look(claim)
        qty, why = self._quantity(claim, sight, missing_stop=False)
        if qty <= 0:
            return self._blocked(claim, purpose, why)
        if exactly is not None and qty != exactly:
            return self._blocked(claim, purpose, f"only {plain(qty)} of {plain(exactly)} are free")
        if not self._are_free(claim, sight, qty):
            return self._blocked(claim, purpose, "its shares are still held by an order")
        if sight.position is not None:
            self._stood.setdefault(claim.key, sight.position.qty)
        return self._send(
            claim,
            purpose,
            lambda name: OrderRequest(
                claim.symbol, claim.side.closing, qty, "market", "gtc" if claim.crypto else "day", name
            ),
        )

    def flatten_orphan(self, position: Position, qty: Decimal, name: str, seconds: float = 10.0) -> Answer:
        """Sells exactly an orphan's quantity, if the position is still what was surveyed.

        `name` is the orphan's deterministic id (the one `adopt` would use). The answer's order is
        the last form seen; it is closed only if that is `filled`.
        """
        if is_option(position.symbol):
            return Answer(Outcome.BLOCKED, "options never get orders")
        claim = Claim(
            name, position.symbol, position.key, position.side, qty, qty, position.is_crypto, self._broker.now()
        )
        now = self.look(claim).position
        if now is None or now.side is not position.side or now.qty != position.qty:
            return self._blocked(claim, "orphan", "the position has changed since it was read")
        answer = self.close(claim, "orphan", exactly=qty)
        if answer.order is None:
            return answer
        return self.settle(claim, answer, seconds)

    def settle(self, claim: Claim, answer: Answer, seconds: float) -> Answer:
        """Watches a closing order to its end and books what it filled."""
        if answer.order is None:
            return answer
        order = self.watch(answer.order.id, seconds) or answer.order
        self._booked[order.id] = (claim.key, claim.name, order.filled_qty)
        return Answer(answer.outcome, answer.reason, order, answer.request)

    def took_all(self, claim: Claim, positions: Iterable[Position]) -> bool:
        """Whether the position shows all that this run closed of it, whoever else holds the symbol."""
        stood = self._stood.get(claim.key)
        took = sum((q for key, _, q in self._booked.values() if key == claim.key), ZERO)
        if stood is None or not took:
            return False
        now = next((p for p in positions if p.key == claim.key), None)
        if now is not None and now.side is not claim.side:
            return False
        return (now.qty if now is not None else ZERO) == stood - took

    def why_not_close(self, claim: Claim, holders: Collection[str]) -> str | None:
        """Why a close would be refused here once `holders` have let go; asked before cancelling them.

        An opening order of somebody else makes the close a wash trade, and the stop as well that
        should go back then.
        """
        if not self._market.may_close(claim.crypto, self._broker.now()):
            return "its market is closed, or closes in a moment"
        sight = self.look(claim)
        why = self._why_not(claim, sight)
        if why is None:
            why = self.why_wash_trade(claim, holders)
        if why is None and self._free(claim, sight, besides=holders) <= 0:
            others = ", ".join(o.id for o in sight.closing if o.id not in holders)
            why = f"orders that are not its own hold the shares: {others}"
        return why

    def why_wash_trade(self, claim: Claim, own: Collection[str]) -> str | None:
        """Which opening order of the symbol, as last read, neither a close nor a stop can stand beside."""
        others = [o.id for o in self.book.opening(claim.key, claim.side) if o.id not in own]
        return (
            f"an opening order that is not its own would make it a wash trade: {', '.join(others)}" if others else None
        )

    def latest(self, claim_name: str, purpose: str, *, since: datetime | None = None) -> Order | None:
        """The last order of a trade and purpose that any run sent; None if the broker has none.

        One submitted before `since` belongs to an earlier try, over long ago.
        """
        counter = client_id(claim_name, purpose, 0)
        last = self._state.recall(NUMBERS, [counter]).get(counter)
        if not isinstance(last, int):
            return None
        found = self._read(lambda: self._broker.order_by_client_id(client_id(claim_name, purpose, last)))
        if found is None:
            return None
        self.book.add(found)
        order = self.book.orders[found[0].id]
        is_old = since is not None and order.submitted_at is not None and order.submitted_at < since
        return None if is_old else order

    def end_of(self, claim: Claim, order: Order, seconds: float) -> Order:
        """A close at its end, or as far as it got; in a closed market it must not wait for the next open."""
        if order.is_final:
            return order
        if self._market.is_open(claim.crypto, self._broker.now()):
            return self.watch(order.id, seconds) or order
        left = self.cancel(claim, [order], seconds, "the market has closed")
        return left[0] if left else self.read_order(order.id) or order

    # ------------------------------------------------------------------ moving

    def move(self, claim: Claim, order: Order, stop: Decimal, *, qty: Decimal | None = None) -> Answer:
        """Replaces a working stop by a tighter one (or one of another quantity), and reads it back."""
        sight = self.look(claim)
        now = self.book.orders.get(order.id) or self.read_order(order.id)
        if now is None or now.is_final:
            return self._blocked(claim, "stop", f"the stop {order.id} is {now.status if now else 'gone'}", now)
        if not is_replaceable_now(now):
            return self._blocked(claim, "stop", f"the stop is {now.status}: not at the exchange yet", now)
        if now.stop_price is not None and is_tighter(claim.side, now.stop_price, stop):
            return self._blocked(claim, "stop", f"{plain(stop)} would loosen the stop at {plain(now.stop_price)}", now)
        why = self._why_not(claim, sight)
        if why is not None:
            return self._blocked(claim, "stop", why, now)
        if qty is not None and qty > (free := self._free(claim, sight, besides=(now.id,))):
            return self._blocked(claim, "stop", f"only {plain(free)} of {plain(qty)} are free", now)
        if (crossed := self._crossed(claim, "stop", stop)) is not None:
            return crossed
        return self._replace(claim, now, stop, qty)

    def _replace(self, claim: Claim, order: Order, stop: Decimal, qty: Decimal | None) -> Answer:
        purpose, name, standing = self._name_for(claim, order)
        if standing is not None:
            return Answer(Outcome.UNKNOWN, f"an earlier order of this name is {standing.status}", standing)
        changes = {"stop_price": stop}
        if order.type == "stop_limit":
            changes["limit_price"] = stop_limit(claim.side, stop, self.increment(claim))
        if qty is not None:
            changes["qty"] = qty
        self._claim_name(claim, purpose, name)
        request = self._note("replace", claim, purpose, clientOrderId=name, orderId=order.id, **_shown(changes))
        if self.dry_run:
            return self._said(request, Outcome.WOULD, "dry run")
        try:
            new = self._write(lambda: self._broker.replace(order.id, name, **changes))
        except Refused as error:
            return self._refused_replace(request, order, error)
        except (BrokerError, DeadlineExceeded) as error:
            found = self._successor(order) or self._find(name) or self._successor(order)
            if found is None:
                return self._said(request, Outcome.UNKNOWN, f"{error}; looked up and not found", order)
            new = found
        return self._read_back_replacement(request, order, new, stop)

    def _name_for(self, claim: Claim, order: Order) -> tuple[str, str, Order | None]:
        """Purpose and name of what replaces a stop: its own purpose, and beside another one `rest`."""
        ours = parse_client_id(order.client_id)
        is_rest = ours is not None and ours.trade == trade_tag(claim.name) and ours.purpose == REST
        if not is_rest:
            name, standing = self._name(claim, "stop", replacing=order)
            if standing is None or standing.id == order.replaced_by or standing.replaces == order.id:
                return "stop", name, standing
        return (REST, *self._name(claim, REST, replacing=order))

    def _successor(self, order: Order) -> Order | None:
        """What replaced an order, by the order itself: the proof that a lost answer was a yes."""
        try:
            now = self.read_order(order.id)
            return self.read_order(now.replaced_by) if now is not None and now.replaced_by is not None else None
        except (BrokerError, DeadlineExceeded):
            return None

    def _refused_replace(self, request: dict[str, Any], order: Order, error: Refused) -> Answer:
        now = self.read_order(order.id)
        if "not changed" in str(error):
            return self._said(request, Outcome.STANDING, "it stands there already", now)
        if now is not None and now.status == "filled":
            return self._said(request, Outcome.REFUSED, "the stop was filled meanwhile", now)
        return self._said(request, Outcome.REFUSED, str(error), now)

    def _read_back_replacement(self, request: dict[str, Any], old: Order, new: Order, stop: Decimal) -> Answer:
        """The ledger may say so only when the new stop works at its price and the old one is over."""
        self.book.add((new,))
        before = self.watch(old.id, 3.0)
        now = self.read_order(new.id)
        if before is not None and before.status == "filled":
            return self._said(request, Outcome.REFUSED, "the stop was filled before it could be replaced", before)
        if now is None or now.status in _NEVER_PLACED:
            return self._said(request, Outcome.REFUSED, f"the new stop is {now.status if now else 'gone'}", before)
        if before is not None and not before.is_final:
            return self._said(request, Outcome.UNKNOWN, f"the old stop is still {before.status}", before)
        if now.stop_price != stop:
            return self._said(request, Outcome.UNKNOWN, f"the stop reads {now.stop_price} after the replacement", now)
        return self._said(request, Outcome.SENT, "read back", now)

    # ------------------------------------------------------------------ cancelling

    def cancel(self, claim: Claim, orders: Sequence[Order], seconds: float, why: str) -> list[Order]:
        """Cancels closing orders of this claim's symbol and waits; those that are not final yet.

        Legs of one family go with the first; a refusal is answered by reading the order again.
        """
        mine = [o for o in orders if o.key == claim.key and o.side == claim.side.closing]
        if self.dry_run:
            for order in mine:
                self._said(self._note("cancel", claim, why, orderId=order.id), Outcome.WOULD, "dry run", order)
                self._would_cancel.add(order.id)
            return []
        asked = []
        for family in families(mine):
            self._cancel_one(claim, family[0], why)
            asked += family
        return [now for o in asked if (now := self.watch(o.id, seconds)) is not None and not now.is_final]

    def cancel_entry(self, claim: Claim, entry: Order, seconds: float) -> Order | None:
        """Ends what is left of a claim's own entry; the entry if it is not final then."""
        if entry.key != claim.key or entry.side == claim.side.closing:
            return entry
        why = "its rest must not be filled any more"
        if self.dry_run:
            self._said(self._note("cancel", claim, why, orderId=entry.id), Outcome.WOULD, "dry run", entry)
            return None
        self._cancel_one(claim, entry, why)
        now = self.watch(entry.id, seconds)
        return now if now is not None and not now.is_final else None

    def _cancel_one(self, claim: Claim, order: Order, why: str) -> None:
        if order.status == "pending_cancel":
            return  # asked for already: it is only waited for
        request = self._note("cancel", claim, why, orderId=order.id)
        try:
            self._write(lambda: self._broker.cancel(order.id))
        except Refused as error:
            self._said(request, Outcome.REFUSED, str(error), order)
        except (BrokerError, DeadlineExceeded) as error:
            self._said(request, Outcome.UNKNOWN, str(error), order)
        else:
            self._said(request, Outcome.SENT, why, order)

    # ------------------------------------------------------------------ how much

    def _quantity(self, claim: Claim, sight: Sight, *, missing_stop: bool) -> tuple[Decimal, str]:
        """How much this claim may sell now, and why nothing where it is nothing."""
        why = self._why_not(claim, sight, missing_stop=missing_stop)
        if why is not None:
            return ZERO, why
        qty = self._free(claim, sight)
        if qty > 0:
            return qty, ""
        held = ", ".join(f"{o.id} ({o.side} {o.type}, {o.status})" for o in sight.closing)
        return ZERO, f"its shares are held by {held}" if held else "nothing of it is free"

    def _why_not(self, claim: Claim, sight: Sight, *, missing_stop: bool = False) -> str | None:
        """Why no order may be sent at all; a missing stop may be where the numbers still move."""
        position = sight.position
        if is_option(claim.symbol):
            return "options never get orders"
        if position is None or position.side is not claim.side:
            return _GONE
        if missing_stop:
            return None
        if sight.recent:
            return f"a closing fill at {sight.recent[-1].at:%H:%M:%S} UTC is younger than the grace"
        expected = self._expected(claim)
        slack = claim.all_open * CRYPTO_DUST if claim.crypto else ZERO
        if position.qty < expected - slack:
            return f"its fills say {plain(expected)}, the position {plain(position.qty)}"
        return None

    def _expected(self, claim: Claim) -> Decimal:
        """What all trades of the symbol hold less what this run has closed of it."""
        return claim.all_open - sum((q for key, _, q in self._booked.values() if key == claim.key), ZERO)

    def _free(self, claim: Claim, sight: Sight, besides: Collection[str] = ()) -> Decimal:
        """What neither another order nor a fill that the position may not show yet can take.

        `besides` are orders that the new one takes the place of, with all their siblings.
        """
        held = sight.position.qty if sight.position is not None else ZERO
        closing = [o for o in sight.closing if not self.book.awaits_entry(o)]
        others = [o for family in families(closing) if not _any_of(family, besides) for o in family]
        foreign = sum((f.qty for f in sight.recent if f.order_id not in claim.exits | claim.over), ZERO)
        # What a closed trade sold can be missing only from what the position has beyond the open ones.
        theirs = sum((f.qty for f in sight.recent if f.order_id in claim.over - claim.exits), ZERO)
        foreign += min(theirs, max(ZERO, held - self._expected(claim)))
        since = sum((f.qty for f in sight.recent if f.order_id in claim.own and f.at >= claim.at - _SKEW), ZERO)
        return self._step(claim, min(self.open_now(claim) - since, held - can_take(others, held) - foreign))

    def _step(self, claim: Claim, qty: Decimal) -> Decimal:
        step = _positive(self.asset(claim.symbol), "min_trade_increment") if claim.crypto else None
        return qty if step is None else (qty / step).to_integral_value(ROUND_FLOOR) * step

    def _are_free(self, claim: Claim, sight: Sight, qty: Decimal) -> bool:
        """Waits until the broker lets go of the shares; a broker that does not say has none held."""
        position = sight.position
        for wait in (0.0, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
            if wait:
                if self.dry_run or not self._has_time(wait):
                    break
                self._sleep(wait)
                positions = self._read(self._broker.positions)
                position = next((p for p in positions if p.key == claim.key), None)
            if position is None:
                return False
            available = position.available
            if available is None or available >= qty:
                return True
        return self.dry_run and bool(self._would_cancel)

    # ------------------------------------------------------------------ sending

    def _send(self, claim: Claim, purpose: str, make: Callable[[str], OrderRequest]) -> Answer:
        asset = self.asset(claim.symbol)
        if asset is not None and (asset.get("tradable") is False or asset.get("status") == "inactive"):
            return self._blocked(claim, purpose, f"{claim.symbol} is not tradable at the broker")
        name, standing = self._name(claim, purpose)
        if standing is not None:
            return Answer(Outcome.STANDING, f"order {standing.client_id} is {standing.status}", standing)
        if name in self._asked:
            return self._blocked(claim, purpose, f"order {name} was sent in this run already")
        order = make(name)
        self._claim_name(claim, purpose, name)
        request = self._note("submit", claim, purpose, **_described(order))
        if self.dry_run:
            return self._said(request, Outcome.WOULD, "dry run")
        try:
            placed: Order | None = self._write(lambda: self._broker.submit(order))[0]
        except Refused as error:
            if "unique" not in str(error):
                return self._said(request, Outcome.REFUSED, str(error))
            placed = self._find(name)
        except (BrokerError, DeadlineExceeded) as error:
            placed = self._find(name)
            if placed is None:
                return self._said(request, Outcome.UNKNOWN, f"{error}; looked up and not found")
        return self._read_back(request, placed)

    def _read_back(self, request: dict[str, Any], placed: Order | None) -> Answer:
        """An order may be accepted and rejected a moment later: only a second look tells."""
        if placed is None:
            return self._said(request, Outcome.UNKNOWN, "its name is taken and the order is not found")
        now = placed
        try:
            now = self.read_order(placed.id) or placed
        except (BrokerError, DeadlineExceeded):
            self.book.add((placed,))
        if now.status in _NEVER_PLACED and not now.filled_qty:
            return self._said(request, Outcome.REFUSED, f"the order was {now.status} after it was taken", now)
        return self._said(request, Outcome.SENT, "read back", now)

    def _name(self, claim: Claim, purpose: str, replacing: Order | None = None) -> tuple[str, Order | None]:
        """The name of the next order, or the order of that purpose that still works.

        Starts at the remembered n. An n that the broker does not know is free: it was never sent,
        or proven never to have arrived.
        """
        counter = client_id(claim.name, purpose, 0)
        last = None if self.state_lost else self._state.recall(NUMBERS, [counter]).get(counter)
        first = last if isinstance(last, int) and last > 0 else 1
        for n in range(first, first + _MOST_NUMBERS):
            name = client_id(claim.name, purpose, n)
            found = self._read(lambda name=name: self._broker.order_by_client_id(name))  # type: ignore[misc]
            if found is None:
                return name, None
            self.book.add(found)
            order = found[0]
            if not order.is_final and (replacing is None or order.id != replacing.id):
                return name, order
        raise BrokerError(f"more than {_MOST_NUMBERS} orders for one purpose of a trade", transient=False)

    def _claim_name(self, claim: Claim, purpose: str, name: str) -> None:
        """Remembers the name before it is used, and makes sure that the lock is still ours."""
        if self.dry_run:
            return
        if self._deadline.left() < _TO_START:
            raise DeadlineExceeded("too little time is left to send an order")
        if self.state_lost:
            self._asked.add(name)
            return
        self._verify()
        self._state.remember(NUMBERS, {client_id(claim.name, purpose, 0): int(name.rsplit("-", 1)[1])})
        self._asked.add(name)

    def _find(self, name: str) -> Order | None:
        """Looks an order up by name; a 404 right after sending may be a lag, so several times."""
        for wait in _LOST_WAITS:
            if not self._has_time(wait):
                break
            self._sleep(wait)
            try:
                found = self._read(lambda: self._broker.order_by_client_id(name))
            except (BrokerError, DeadlineExceeded):
                continue
            if found is not None:
                self.book.add(found)
                return self.book.orders[found[0].id]
        return None

    # ------------------------------------------------------------------ time and log

    def _has_time(self, seconds: float) -> bool:
        return self._deadline.left() - seconds > _FOR_THE_END

    def _read(self, call: Callable[[], T]) -> T:
        return self._deadline.writing(call, reserve=_FOR_THE_END)

    def _write(self, call: Callable[[], T]) -> T:
        return self._deadline.writing(call, reserve=_FOR_THE_END)

    def _note(self, do: str, claim: Claim, purpose: str, **facts: Any) -> dict[str, Any]:
        entry = {"do": do, "tradeId": claim.name, "symbol": claim.symbol, "purpose": purpose, **facts}
        self.log.append(entry)
        return entry

    def _said(self, request: dict[str, Any], outcome: Outcome, reason: str, order: Order | None = None) -> Answer:
        request |= {"outcome": str(outcome), "reason": reason}
        return Answer(outcome, reason, order, request)

    def _blocked(self, claim: Claim, purpose: str, reason: str, order: Order | None = None) -> Answer:
        outcome = Outcome.MOOT if reason == _GONE else Outcome.BLOCKED
        return Answer(outcome, reason, order, {"tradeId": claim.name, "purpose": purpose})


def _any_of(family: Iterable[Order], ids: Collection[str]) -> bool:
    return any(order.id in ids for order in family)


def _positive(facts: Mapping[str, Any] | None, name: str) -> Decimal | None:
    try:
        value = number(facts.get(name)) if facts is not None else None
    except BadNumber:
        return None
    return value if value is not None and value > 0 else None


def _described(order: OrderRequest) -> dict[str, Any]:
    facts = {
        "side": order.side,
        "qty": plain(order.qty),
        "type": order.type,
        "orderClass": order.order_class,
        "timeInForce": order.time_in_force,
        "clientOrderId": order.client_id,
    }
    prices = {
        "stopPrice": order.stop_price or order.stop_loss,
        "limitPrice": order.limit_price,
    }
    return facts | {name: plain(price) for name, price in prices.items() if price is not None}


def _shown(changes: Mapping[str, Decimal]) -> dict[str, Any]:
    names = {"stop_price": "stopPrice", "limit_price": "limitPrice", "qty": "qty"}
    return {names[name]: plain(value) for name, value in changes.items()}
