"""Which working orders protect a trade.

Invariants: an order counts for one trade only; a stop that may not fire protects nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from ghostclean.core.broker import CRYPTO_DUST, ZERO, Order, OrderGraph, Side
from ghostclean.core.verdicts import Holding

from .sizing import can_take, remaining

GTC_LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=5)  # a long weekend, a holiday and a day on which nothing could be sent
_AT_THE_EXCHANGE = frozenset({"new", "held", "done_for_day"})


def own_ids(holding: Holding, known: OrderGraph) -> frozenset[str]:
    """The closing orders of a trade: named, nested, along the chain, or sent by us."""
    trade, entry = holding.trade, holding.entry
    named = set(trade.exit_orders)
    seeds = {o.id for o in holding.exits} | named | known.legs_of(entry)
    seeds |= known.named(named, trade.tags, holding.position.key)
    return known.tied_to(seeds, {entry.id} if entry else ())


def _id(holding: Holding) -> str:
    return holding.trade.id or ""


def exits_of(holding: Holding, known: OrderGraph) -> list[Order]:
    """The known closing orders of a trade, in any status."""
    found = {o.id: o for o in holding.exits} | {i: o for i in own_ids(holding, known) if (o := known.get(i))}
    return [o for o in found.values() if o.side == holding.trade.side.closing]


@dataclass(frozen=True, slots=True)
class Protection:
    """What stands between a trade and an unlimited loss.

    `stops` protect, tightest first; `waiting` are own orders that don't (`why`); `targets` rest; `foreign` closing
    orders have no single owner; `shared` stops must be neither moved nor cancelled.
    """

    stops: tuple[Order, ...] = ()
    waiting: tuple[Order, ...] = ()
    why: str | None = None
    targets: tuple[Order, ...] = ()
    foreign: tuple[Order, ...] = ()
    covered: Decimal = ZERO
    needed: Decimal = ZERO
    shared: frozenset[str] = frozenset()
    entry_works: bool = False

    @property
    def is_naked(self) -> bool:
        """Whether a part of the trade has no stop that can fire."""
        return self.covered < self.needed

    @property
    def missing(self) -> Decimal:
        return max(ZERO, self.needed - self.covered)

    @property
    def stop(self) -> Order | None:
        return self.stops[0] if self.stops else None

    @property
    def holders(self) -> tuple[Order, ...]:
        """Own working closing orders, all of which hold the shares."""
        return (*self.own_stops, *self.waiting, *self.targets)

    @property
    def own_stops(self) -> tuple[Order, ...]:
        """The protecting stops that are this trade's alone, the tightest first."""
        return tuple(o for o in self.stops if o.id not in self.shared)


def protections(holdings: Sequence[Holding], known: OrderGraph) -> dict[str, Protection]:
    """The protection of every holding, by trade id; orders are shared out symbol by symbol."""
    groups: dict[tuple[str, Side], list[Holding]] = {}
    for holding in holdings:
        groups.setdefault((holding.position.key, holding.trade.side), []).append(holding)
    found: dict[str, Protection] = {}
    for group in groups.values():
        found |= _of_symbol(group, known)
    return found


def _of_symbol(group: Sequence[Holding], known: OrderGraph) -> dict[str, Protection]:
    owners = _owners(group, known)
    common = _common(owners)
    shared = [*itertools.chain.from_iterable(common.values())]
    free = [order for order, owning in owners if not (owning or known.awaits_entry(order))]
    found: dict[str, Protection] = {}
    for holding in group:
        mine = [order for order, owning in owners if holding in owning and order not in shared]
        found[_id(holding)] = _protection(holding, mine, [*shared, *free], known)
    for several, orders in common.items():
        found |= _lent(several, orders, found, known)
    return found if _is_partly_foreign(group) else found | _lent(group, free, found, known, may_own=True)


def _is_partly_foreign(group: Sequence[Holding]) -> bool:
    """Whether the position has shares that no trade of this ledger explains: unnamed stops cover those first."""
    position = group[0].position
    explained = sum((h.open_qty for h in group), ZERO)
    return position.qty - explained > (position.qty * CRYPTO_DUST if position.is_crypto else ZERO)


def _common(owners: Sequence[tuple[Order, tuple[Holding, ...]]]) -> dict[tuple[Holding, ...], list[Order]]:
    common: dict[tuple[Holding, ...], list[Order]] = {}
    for order, several in owners:
        if len(several) > 1 and (order.is_stop or order.type == "limit"):
            common.setdefault(several, []).append(order)
    return common


def _owners(group: Sequence[Holding], known: OrderGraph) -> list[tuple[Order, tuple[Holding, ...]]]:
    closing = known.closing(group[0].position.key, group[0].trade.side)
    owned = [(holding, own_ids(holding, known)) for holding in group]
    return [(o, tuple(holding for holding, ids in owned if o.id in ids)) for o in closing]


def _protection(holding: Holding, mine: Sequence[Order], free: Sequence[Order], known: OrderGraph) -> Protection:
    side = holding.trade.side
    stops, waiting, targets = [], [], []
    why = None
    for order in mine:
        if not order.is_stop:
            if order.type == "limit":
                targets.append(order)
            else:
                waiting.append(order)
                why = f"its closing order {order.id} is {order.status}"
            continue
        reason = _why_dormant(order, holding.entry, known)
        if reason is None:
            stops.append(order)
        else:
            waiting.append(order)
            why = reason
    return Protection(
        stops=_by_tightness(side, stops),
        waiting=tuple(waiting),
        why=why,
        targets=tuple(targets),
        foreign=tuple(free),
        covered=can_take(stops, holding.open_qty),
        needed=_needed(holding),
        entry_works=holding.entry is not None and not holding.entry.is_final,
    )


def _needed(holding: Holding) -> Decimal:
    if holding.position.is_crypto:
        return holding.open_qty * (1 - CRYPTO_DUST)
    return holding.open_qty


def _why_dormant(order: Order, entry: Order | None, known: OrderGraph) -> str | None:
    """Why a working stop would not fire, None when it would; `entry` is its trade's."""
    if order.status == "pending_cancel":
        return "its stop is being cancelled"
    if order.status != "held":
        return None
    parent = known.get(order.parent)
    if order.order_class == "oco" or (parent is not None and parent.side == order.side):
        return None  # its parent is the resting target: held is how the stop of an OCO waits
    if parent is None or parent.status == "replaced":
        parent = entry
    if parent is None or parent.status != "filled":
        return "its stop leg is held until the entry is completely filled"
    return None


def _by_tightness(side: Side, stops: Sequence[Order]) -> tuple[Order, ...]:
    return tuple(sorted(stops, key=lambda o: (-side.sign * (o.stop_price or ZERO), -remaining(o, ZERO))))


def _lent(
    group: Sequence[Holding],
    orders: Sequence[Order],
    found: Mapping[str, Protection],
    known: OrderGraph,
    *,
    may_own: bool = False,
) -> dict[str, Protection]:
    """Unowned stops protect the trades of their symbol that lack one, if large enough for all of them.

    One such trade, and stops no larger than it lacks: with `may_own` they become its own.
    """
    bare = [h for h in group if found[_id(h)].is_naked]
    stops = [o for o in orders if o.is_stop and _why_dormant(o, None, known) is None]
    own = _is_own(bare, stops, found, may_own=may_own) if bare and stops else None
    if own is None:
        return {}
    return {_id(h): _with_stops(found[_id(h)], h.trade.side, stops, own=own) for h in bare}


def _is_own(
    bare: Sequence[Holding], stops: Sequence[Order], found: Mapping[str, Protection], *, may_own: bool
) -> bool | None:
    """Whether the stops become one trade's own; None if too small for all trades that lack one."""
    lacking = sum((h.open_qty - found[_id(h)].covered for h in bare), ZERO)
    offered = can_take(stops, lacking)
    if may_own and len(bare) == 1 and offered <= lacking:
        return True
    return False if offered >= sum((found[_id(h)].missing for h in bare), ZERO) else None


def _with_stops(old: Protection, side: Side, stops: Sequence[Order], *, own: bool) -> Protection:
    return replace(
        old,
        stops=_by_tightness(side, (*old.stops, *stops)),
        foreign=tuple(o for o in old.foreign if o not in stops),
        covered=old.covered + can_take(stops, old.missing) if own else old.needed,
        shared=old.shared if own else old.shared | {o.id for o in stops},
    )


# --------------------------------------------------------------------------- what can be done to a stop


def why_fixed(order: Order) -> str | None:
    """Why a working stop can never be moved by replacing it, None when it can."""
    if order.type == "trailing_stop":
        return "a trailing stop follows the market by itself"
    if order.order_class == "oto":
        return "the leg of an OTO order cannot be replaced"
    if order.qty is None:
        return "a notional order cannot be replaced"
    if not order.is_crypto and order.qty != order.qty.to_integral_value():
        return "an order for fractional shares cannot be replaced"
    return None


def is_replaceable_now(order: Order) -> bool:
    """Whether the order has reached the exchange and is not being worked on."""
    return order.status in _AT_THE_EXCHANGE and not order.filled_qty


def ages_out(order: Order, now: datetime) -> bool:
    """Whether a good-till-cancelled order reaches its 90 days within the next five."""
    if order.time_in_force != "gtc" or order.is_crypto:
        return False
    end = order.expires_at
    if end is None and order.submitted_at is not None:
        end = order.submitted_at + GTC_LIFE
    return end is not None and end - now <= RENEW_BEFORE


def last_stop(holding: Holding, known: OrderGraph, ids: Collection[str]) -> Order | None:
    """The latest of a trade's own stops that ended without a successor."""
    found = {o.id: o for o in (*holding.exits, *map(known.get, ids)) if o is not None}
    dated = [(o.last_time, o) for o in found.values() if _is_ended_stop(o) and o.last_time is not None]
    return max(dated, key=lambda row: row[0])[1] if dated else None


def _is_ended_stop(order: Order) -> bool:
    return order.is_stop and order.is_final and order.status != "replaced"
