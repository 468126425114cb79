"""Stops that the sale of an orphan took away, and that go back unless the sale fills.

Invariants:
- a stop is remembered before it is cancelled, and forgotten only when the sale filled, the
  position is gone or in other hands, or a stop stands again;
- no stop beside a sale that may still fill: the sale is looked up by its name first;
- a broker that does not answer proves nothing: the stop stays owed, and the next run looks again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from ghostclean.app.order_door import Answer, Claim, OrderDoor, Outcome
from ghostclean.app.ports import OWED, State
from ghostclean.core.broker import Order
from ghostclean.core.client_ids import parse_client_id, trade_tag
from ghostclean.core.instrument import Side
from ghostclean.core.numbers import ZERO, plain
from ghostclean.core.protection import can_take, families
from ghostclean.core.stops import tightest
from ghostclean.core.times import iso, parse_time
from ghostclean.errors import BrokerError, DeadlineExceeded, StateFailed

SALE = "orphan"  # the purpose of the sale's order
_SALE_SECONDS = 6.0  # how long a sale that works is watched
_SKEW = timedelta(seconds=5)  # between the broker's answers and its order times


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an owed stop: `over` when nothing is owed any more, `naked` when shares lie bare."""

    said: str
    over: bool = False
    naked: bool = False
    sale: Order | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """A stop as it stood before the sale: for how much of the orphan's `qty`, at what price.

    `name` is the orphan's id and so the sale's; `orders` are those that were cancelled, with what
    each had filled by then.
    """

    name: str
    symbol: str
    key: str
    side: Side
    crypto: bool
    qty: Decimal
    stop: Decimal
    covered: Decimal
    target: Decimal | None
    time_in_force: str | None
    orders: Mapping[str, Decimal]
    at: datetime

    @classmethod
    def of(cls, claim: Claim, holders: Sequence[Order], at: datetime) -> Owed | None:
        """What cancelling these orders takes away; None when there is no stop among them."""
        stops = [(o.stop_price, o) for o in holders if o.is_stop and o.stop_price is not None]
        if not stops:
            return None
        price = tightest(claim.side, [p for p, _ in stops])
        first = next(o for p, o in stops if p == price)
        with_stop = [f for f in families(holders) if any(o.is_stop for o in f)]
        targets = [o.limit_price for f in with_stop for o in f if not o.is_stop and o.limit_price is not None]
        in_force = first.raw.get("time_in_force")
        return cls(
            claim.name, claim.symbol, claim.key, claim.side, claim.crypto, claim.open_qty, price,
            min(can_take([o for _, o in stops], claim.open_qty), claim.open_qty),
            targets[0] if len(targets) == 1 else None,
            in_force if isinstance(in_force, str) else None,
            {o.id: o.filled_qty for o in holders},
            at,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "symbol": self.symbol,
            "key": self.key,
            "side": str(self.side),
            "crypto": self.crypto,
            "qty": plain(self.qty),
            "stop": plain(self.stop),
            "covered": plain(self.covered),
            "target": plain(self.target) if self.target is not None else None,
            "timeInForce": self.time_in_force,
            "orders": {i: plain(filled) for i, filled in self.orders.items()},
            "at": iso(self.at),
        }

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Owed | None:
        try:
            at, target = parse_time(raw["at"]), raw["target"]
            if at is None:
                return None
            return cls(
                raw["name"], raw["symbol"], raw["key"], Side(raw["side"]), raw["crypto"] is True,
                Decimal(raw["qty"]), Decimal(raw["stop"]), Decimal(raw["covered"]),
                Decimal(target) if target is not None else None,
                raw["timeInForce"],
                {i: Decimal(filled) for i, filled in raw["orders"].items()},
                at,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, InvalidOperation):
            return None

    def not_back(self, why: str) -> Settled:
        """The shares are without their stop, or nobody can say."""
        stop = f"its stop at {plain(self.stop)} for {plain(self.covered)}"
        said = f"{stop} was cancelled for a sale and is not back: {why}; the next run looks the sale up and finishes"
        return Settled(said, naked=True)


def is_sale(order: Order, name: str) -> bool:
    """Whether this is an order that sells the orphan of that name."""
    ours = parse_client_id(order.client_id)
    return ours is not None and ours.trade == trade_tag(name) and ours.purpose == SALE


def settle(door: OrderDoor, state: State, orphan: str, owed: Owed, *, grace: timedelta, now: datetime) -> Settled:
    """Looks at the sale and gives the stop back where the sale does not stand.

    Never raises for what the broker does. With `state_lost` nothing was sent: a sale's name is
    remembered before it is used.
    """
    try:
        settled = _settle(door, owed, grace, now)
    except (BrokerError, DeadlineExceeded) as error:
        return owed.not_back(str(error))
    if settled.over:
        forget(state, orphan)
    return settled


def forget(state: State, orphan: str) -> None:
    """Nothing is owed any more. Should the state be lost just now, the next run comes to the same end."""
    with contextlib.suppress(StateFailed, DeadlineExceeded):
        state.remember(OWED, {orphan: None})


def _settle(door: OrderDoor, owed: Owed, grace: timedelta, now: datetime) -> Settled:
    claim = _claim(owed, owed.qty, now)
    sale = None if door.state_lost else door.latest(owed.name, SALE, since=owed.at - _SKEW)
    if sale is not None:
        end = door.end_of(claim, sale, _SALE_SECONDS)
        sale = door.settle(claim, Answer(Outcome.STANDING, "", end), 0).order or end
        if not sale.is_final:
            return Settled(f"its sale {sale.id} is {sale.status}: in progress", sale=sale)
        if sale.status == "filled":
            return Settled(f"its sale {sale.id} is filled", over=True, sale=sale)
    cancelled = [o for i in owed.orders if (o := door.read_order(i)) is not None]
    working = [o for o in cancelled if not o.is_final]
    if any(o.status == "pending_cancel" for o in working):
        return owed.not_back(f"order {working[0].id} is still {working[0].status}")
    if working:
        # A cancel whose answer was lost may yet arrive: for a while the stop stays in our books.
        return Settled(f"order {working[0].id} still stands", over=now - owed.at > grace)
    took = sum((max(ZERO, o.filled_qty - owed.orders[o.id]) for o in cancelled if o.id in owed.orders), ZERO)
    return _give_back(door, _claim(owed, owed.qty - took, now), owed)


def _give_back(door: OrderDoor, claim: Claim, owed: Owed) -> Settled:
    sight = door.look(claim)
    position = sight.position
    if position is None or position.side is not claim.side:
        return Settled("its position is gone", over=True)
    sale = next((o for o in sight.closing if is_sale(o, owed.name)), None)
    if sale is not None:
        return Settled(f"its sale {sale.id} is {sale.status}: in progress")
    if sight.closing and can_take(sight.closing, position.qty) >= position.qty:
        held = ", ".join(o.id for o in sight.closing)
        return Settled(f"its shares are in other hands: held by {held}", over=True)
    answer = door.put_back(claim, owed.stop, owed.target, most=owed.covered, time_in_force=owed.time_in_force)
    if answer.is_done:
        return Settled(f"its stop at {plain(owed.stop)} is back", over=True)
    if answer.outcome is Outcome.MOOT:
        return Settled(answer.reason, over=True)
    return owed.not_back(answer.reason)


def _claim(owed: Owed, qty: Decimal, now: datetime) -> Claim:
    """What is left of the orphan; fills of the cancelled orders are out of `qty` already."""
    exits = frozenset(owed.orders)
    return Claim(owed.name, owed.symbol, owed.key, owed.side, qty, qty, owed.crypto, now, exits)
