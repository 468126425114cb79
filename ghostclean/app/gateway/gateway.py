"""What can be done with orders: place a stop, move it, close, cancel.

Invariants, besides those of `sizing` (property tests carry their names):
- never twice: a name is trade + purpose + n, and n rises only when the order before it is final; a lost
  answer is looked up by name;
- never crosses: a stop is compared with a price read just before it is sent;
- no close while the instrument's market is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.looking import Looker
from ghostclean.app.gateway.naming import Names
from ghostclean.app.gateway.sending import Answer, Outcome, Sender, blocked
from ghostclean.app.observation import Observation
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Broker, Lease, OrderRequest, State
from ghostclean.core.broker import (
    ZERO,
    Order,
    OrderGraph,
    Position,
    Positions,
    eastern_date,
    is_tagged,
    parse_client_id,
    plain,
)
from ghostclean.core.protection import (
    GONE,
    BegunClose,
    Exposure,
    Market,
    SymbolView,
    allowance,
    barrier,
    free,
    is_gone,
    is_replaceable_now,
    is_through,
    is_tighter,
    stop_limit,
    wash_trade,
)
from ghostclean.counts import counted
from ghostclean.errors import BrokerError

REST = "rest"  # the purpose of a stop beside one that covers a part of the trade
OCO = "oco"
STOP = "stop"
_REQUESTS_OF_A_CLOSE = 30  # what a close needs that goes wrong and gives its stop back


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An order before its quantity and name are known; `stop` None is a close."""

    purpose: str
    stop: Decimal | None = None
    target: Decimal | None = None
    least: Decimal = ZERO  # covered already
    most: Decimal | None = None
    exactly: Decimal | None = None
    time_in_force: str | None = None
    shared: bool = False  # lists and prices of a moment ago will do

    def quantity(self, exposure: Exposure, qty: Decimal) -> Decimal:
        qty = min(qty, exposure.qty - self.least, *([self.most] if self.most is not None else []))
        return qty.to_integral_value(ROUND_FLOOR) if self.target is not None else qty

    def request(self, exposure: Exposure, qty: Decimal, limit: Decimal | None, name: str) -> OrderRequest:
        symbol, way = exposure.symbol, exposure.side.closing
        if self.stop is None:
            return OrderRequest(symbol, way, qty, "market", "gtc" if exposure.crypto else "day", name)
        lasts = "day" if self.time_in_force == "day" or qty != qty.to_integral_value() else "gtc"
        if self.target is not None:
            return OrderRequest(
                symbol, way, qty, "limit", lasts, name,
                limit_price=self.target, order_class="oco", take_profit=self.target, stop_loss=self.stop,
            )  # fmt: skip
        kind, lasts = ("stop_limit", "gtc") if exposure.crypto else ("stop", lasts)
        return OrderRequest(symbol, way, qty, kind, lasts, name, limit_price=limit, stop_price=self.stop)


class OrderGateway:
    """Decides whether and how much is sent; every method raises BrokerError or DeadlineExceeded of its reads."""

    def __init__(
        self,
        broker: Broker,
        state: State,
        market: Market,
        deadline: Deadline,
        *,
        grace: timedelta,
        verify: Callable[[], None],
        known: OrderGraph | None = None,
        dry_run: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.known = known if known is not None else OrderGraph()
        self.looker = Looker(broker, deadline, self.known, grace, sleep)
        self.names = Names(self.looker, state)
        self._sender = Sender(broker, self.looker, self.names, deadline, verify, dry_run)
        self.market = market
        self.now = broker.now
        self._requests_left = broker.requests_left
        self._closed: dict[str, tuple[str, str, Decimal]] = {}  # by order: symbol key, trade, quantity
        self._stood: dict[str, Decimal] = {}

    @property
    def dry_run(self) -> bool:
        return self._sender.dry_run

    @property
    def log(self) -> list[dict[str, Any]]:
        return self._sender.log

    def present(self, exposure: Exposure) -> Exposure:
        """The exposure less what this run has closed since the observation."""
        own = sum((q for _, name, q in self._closed.values() if name == exposure.name), ZERO)
        return exposure.less(own, self._closed_of(exposure.key))

    def _closed_of(self, key: str) -> Decimal:
        return sum((q for closed, _, q in self._closed.values() if closed == key), ZERO)

    # ------------------------------------------------------------------ placing

    def place_stop(self, exposure: Exposure, stop: Decimal, *, least: Decimal = ZERO, shared: bool = False) -> Answer:
        """A missing stop for what no other closing order can take; `least` is covered already.

        Beside a stop for a part it has a purpose of its own: the name of the first would be taken for it.
        """
        return self._send(exposure, _Wanted(REST if least else STOP, stop, least=least, shared=shared))

    def restore(self, exposure: Exposure, begun: BegunClose, stop: Decimal) -> tuple[Answer, Answer | None]:
        """The stop (and the target) that a begun close took away, as one OCO where that can be.

        The second answer is for the stop beside a smaller target.
        """
        held, lasts = self.present(exposure).qty, begun.time_in_force
        qty = _oco_quantity(exposure, begun, held)
        if qty is not None:
            answer = self._send(exposure, _Wanted(OCO, stop, begun.target, most=qty, time_in_force=lasts))
            if answer.is_done and qty < held:
                return answer, self.place_stop(exposure, stop, least=qty)
            if answer.is_done or answer.outcome in (Outcome.UNKNOWN, Outcome.CROSSED):
                return answer, None
        return self._send(exposure, _Wanted(STOP, stop, most=begun.covered, time_in_force=lasts)), None

    def close(self, exposure: Exposure, purpose: str, *, expected: Position | None = None) -> Answer:
        """A market order; with `expected` (an orphan) for exactly the exposure, of exactly that position."""
        exactly = exposure.qty if expected is not None else None
        return self._send(exposure, _Wanted(purpose, exactly=exactly), expected)

    def _send(self, exposure: Exposure, wanted: _Wanted, expected: Position | None = None) -> Answer:
        if wanted.stop is None and (why := self._why_shut(exposure)) is not None:
            return blocked(exposure, wanted.purpose, why)
        view, present = self.looker.view(exposure, shared=wanted.shared), self.present(exposure)
        if expected is not None and not _is_same(view.position, expected):
            return blocked(exposure, wanted.purpose, "the position has changed since it was read")
        most, why = allowance(present, view, missing_stop=wanted.stop is not None, step=self.looker.step(exposure))
        qty = wanted.quantity(present, most)
        if qty <= 0:
            outcome = Outcome.MOOT if is_gone(exposure, view) else Outcome.BLOCKED
            return blocked(exposure, wanted.purpose, why or "what is free of it has its stop", None, outcome)
        refused = self._checked(exposure, wanted, view, qty)
        if refused is not None:
            return refused
        limit = self._stop_limit(exposure, wanted.stop)

        def make(name: str) -> OrderRequest:
            return wanted.request(exposure, qty, limit, name)

        return self._sender.submit(exposure, wanted.purpose, make, first=wanted.shared)

    def _checked(self, exposure: Exposure, wanted: _Wanted, view: SymbolView, qty: Decimal) -> Answer | None:
        if wanted.stop is not None:
            crossed = self._crossed(exposure, wanted.purpose, wanted.stop, shared=wanted.shared)
            if crossed is not None:
                return crossed
        elif (why := self._why_not_now(exposure, view, qty, wanted.exactly)) is not None:
            return blocked(exposure, wanted.purpose, why)
        if not self.looker.is_tradable(exposure.symbol):
            return blocked(exposure, wanted.purpose, f"{exposure.symbol} is not tradable at the broker")
        return None

    def _why_shut(self, exposure: Exposure) -> str | None:
        shut = not self.market.may_close(exposure.crypto, self.now())
        return "its market is closed, or closes in a moment" if shut else None

    def _why_not_now(self, exposure: Exposure, view: SymbolView, qty: Decimal, exactly: Decimal | None) -> str | None:
        if exactly is not None and qty != exactly:
            return f"only {plain(qty)} of {plain(exactly)} are free"
        if not (self.dry_run and self.looker.hidden) and not self.looker.are_released(exposure, view.position, qty):
            return "its shares are still held by an order"
        self._stood.setdefault(exposure.key, view.qty)
        return self._why_shut(exposure)

    def _crossed(self, exposure: Exposure, purpose: str, stop: Decimal, *, shared: bool = False) -> Answer | None:
        price = self.looker.price(exposure, shared=shared)
        if price is None or not is_through(exposure.side, stop, price):
            return None
        why = f"its stop {plain(stop)} is through the market ({plain(price)})"
        facts = {"tradeId": exposure.name, "purpose": purpose, "stopPrice": plain(stop)}
        return Answer(Outcome.CROSSED, why, None, facts)

    def _stop_limit(self, exposure: Exposure, stop: Decimal | None) -> Decimal | None:
        if stop is None or not exposure.crypto:
            return None
        return stop_limit(exposure.side, stop, self.looker.increment(exposure))

    # ------------------------------------------------------------------ closing

    def settle(self, exposure: Exposure, order: Order, seconds: float) -> Order:
        """Watches a closing order to its end and books what it filled."""
        order = self.looker.watch(order.id, seconds) or order
        self._closed[order.id] = (exposure.key, exposure.name, order.filled_qty)
        self.looker.booked.add(order.id)
        return order

    def end_of(self, exposure: Exposure, order: Order, seconds: float) -> Order:
        """A close at its end or as far as it got; in a closed market it is cancelled."""
        if order.is_final:
            return order
        if self.is_open(exposure):
            return self.looker.watch(order.id, seconds) or order
        left = self.cancel(exposure, [order], seconds, "the market has closed")
        return left[0] if left else self.looker.order(order.id) or order

    def took_all(self, exposure: Exposure, positions: Positions) -> bool:
        """Whether the position shows all that this run closed of it."""
        stood, took = self._stood.get(exposure.key), self._closed_of(exposure.key)
        if stood is None or not took or positions.why_unobserved(exposure.key) is not None:
            return False
        now = next((p for p in positions.rows if p.key == exposure.key), None)
        if now is not None and now.side is not exposure.side:
            return False
        return (now.qty if now is not None else ZERO) == stood - took

    def why_not_close(self, exposure: Exposure, holders: Collection[str]) -> str | None:
        """Why a close would be refused even once `holders` have let go; asked before cancelling them."""
        why = self._why_shut(exposure)
        if why is not None:
            return why
        view, present = self.looker.view(exposure), self.present(exposure)
        why = barrier(present, view) or wash_trade(view, holders) or self._why_too_many_requests()
        if why is None and free(present, view, step=self.looker.step(exposure), without=holders) <= 0:
            others = ", ".join(o.id for o in view.closing if o.id not in holders)
            why = f"orders that are not its own hold the shares: {others}"
        return why

    def _why_too_many_requests(self) -> str | None:
        left = self._requests_left()
        if left is None or left >= _REQUESTS_OF_A_CLOSE:
            return None
        return f"the broker takes only {counted(left, 'more request')} in this minute"

    def why_wash_trade(self, exposure: Exposure, own: Collection[str]) -> str | None:
        """Which opening order, as last read, neither a close nor a stop can stand beside."""
        return wash_trade(SymbolView(None, (), tuple(self.known.opening(exposure.key, exposure.side))), own)

    def free_without(self, exposure: Exposure, holders: Collection[str]) -> Decimal:
        """How much a missing stop could take once `holders` have let go."""
        view, present = self.looker.view(exposure), self.present(exposure)
        if barrier(present, view, missing_stop=True) is not None:
            return ZERO
        return free(present, view, step=self.looker.step(exposure), without=holders)

    def is_open(self, exposure: Exposure) -> bool:
        return self.market.is_open(exposure.crypto, self.now())

    # ------------------------------------------------------------------ moving

    def move(self, exposure: Exposure, order: Order, stop: Decimal, *, qty: Decimal | None = None) -> Answer:
        """Replaces a working stop by a tighter one, or another quantity, and reads it back."""
        view = self.looker.view(exposure)
        now = self.known.get(order.id) or self.looker.order(order.id)
        why = self._why_not_move(exposure, view, now, stop, qty)
        if now is None or why is not None:
            outcome = Outcome.MOOT if why == GONE else Outcome.BLOCKED
            return blocked(exposure, STOP, why or f"the stop {order.id} is gone", now, outcome)
        if (crossed := self._crossed(exposure, STOP, stop)) is not None:
            return crossed
        purpose, name, standing = self._name_for(exposure, now)
        if standing is not None:
            return Answer(Outcome.UNKNOWN, f"an earlier order of this name is {standing.status}", standing)
        changes = {"stop_price": stop}
        if now.type == "stop_limit":
            changes["limit_price"] = stop_limit(exposure.side, stop, self.looker.increment(exposure))
        if qty is not None:
            changes["qty"] = qty
        return self._sender.replace(exposure, purpose, name, now, changes)

    def _why_not_move(
        self, exposure: Exposure, view: SymbolView, now: Order | None, stop: Decimal, qty: Decimal | None
    ) -> str | None:
        if now is None:
            return None
        if now.is_final:
            return f"the stop {now.id} is {now.status}"
        if not is_replaceable_now(now):
            return f"the stop is {now.status}: not at the exchange yet"
        if now.stop_price is not None and is_tighter(exposure.side, now.stop_price, stop):
            return f"{plain(stop)} would loosen the stop at {plain(now.stop_price)}"
        present = self.present(exposure)
        why = barrier(present, view)
        if why is None and qty is not None:
            most = free(present, view, step=self.looker.step(exposure), without=(now.id,))
            why = f"only {plain(most)} of {plain(qty)} are free" if qty > most else None
        return why

    def _name_for(self, exposure: Exposure, order: Order) -> tuple[str, str, Order | None]:
        """Purpose and name of what replaces a stop: its own purpose, and beside another one `rest`."""
        ours = parse_client_id(order.client_id)
        is_rest = is_tagged(order, exposure.tags) and ours is not None and ours.purpose == REST
        if not is_rest:
            name, standing = self.names.next(exposure, STOP, replacing=order)
            if standing is None or standing.id == order.replaced_by or standing.replaces == order.id:
                return STOP, name, standing
        return (REST, *self.names.next(exposure, REST, replacing=order))

    # ------------------------------------------------------------------ cancelling

    def cancel(self, exposure: Exposure, orders: Sequence[Order], seconds: float, why: str) -> list[Order]:
        """Cancels closing orders of this symbol and side and waits; those that are not final yet."""
        return self._sender.cancel(exposure, [o for o in orders if exposure.takes(o)], seconds, why)

    def cancel_entry(self, exposure: Exposure, entry: Order, seconds: float) -> Order | None:
        """Ends the rest of a trade's own entry; the entry if it is not final then."""
        if entry.key != exposure.key or entry.side == exposure.side.closing:
            return entry
        left = self._sender.cancel(exposure, [entry], seconds, "its rest must not be filled any more")
        return left[0] if left else None


def _oco_quantity(exposure: Exposure, begun: BegunClose, held: Decimal) -> Decimal | None:
    qty = held if begun.target_qty is None else min(begun.target_qty, held)
    whole = all(n == n.to_integral_value() for n in (held, qty)) and not exposure.crypto
    all_of_it = begun.covered is None or begun.covered >= held
    return qty if begun.target is not None and whole and all_of_it else None


def _is_same(now: Position | None, expected: Position) -> bool:
    return now is not None and now.side is expected.side and now.qty == expected.qty


def read_market(broker: Broker, deadline: Deadline, notes: list[str]) -> Market:
    """Clock and calendar; raises BrokerError without the clock, and does without the calendar."""
    clock = deadline.writing(broker.clock)
    today = eastern_date(clock.at)
    try:
        sessions = deadline.writing(lambda: broker.calendar(today - timedelta(days=7), today))
    except BrokerError as error:
        sessions = ()
        notes.append(f"the calendar cannot be read ({error}): the clock's close counts")
    return Market.of(clock, sessions)


def open_gateway(
    parts: Parts,
    observed: Observation,
    market: Market,
    deadline: Deadline,
    lease: Lease | None,
    *,
    grace: timedelta,
    dry_run: bool = False,
) -> OrderGateway:
    """The gateway after an observation, knowing every order that it saw."""
    known = OrderGraph()
    known.add_orders(observed.evidence.orders.values())
    known.set_working(observed.truth.orders)
    return OrderGateway(
        parts.broker,
        parts.state,
        market,
        deadline,
        grace=grace,
        verify=lease.verify if lease is not None else lambda: None,
        known=known,
        dry_run=dry_run,
        sleep=parts.pause,
    )
