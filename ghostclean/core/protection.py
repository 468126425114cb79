"""Which working orders protect a trade, and how many shares closing orders can still take.

Invariants:
- an order counts for one trade only, by ids, legs, replace chain or our own client order id;
- the legs of one bracket or OCO can take their shares once, never twice;
- a stop that may not fire (cancel pending, entry not completely filled) protects nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from ghostclean.core.broker import CRYPTO_DUST, ZERO, Order, Side, parse_client_id, trade_tag
from ghostclean.core.verdicts import Holding

GTC_LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=5)  # a long weekend, a holiday and a day on which nothing could be sent
_LINKED = frozenset({"bracket", "oco", "oto"})
_AT_THE_EXCHANGE = frozenset({"new", "held", "done_for_day"})


@dataclass(slots=True)
class OrderBook:
    """Every order known in this run, by id; working orders and look-ups alike."""

    orders: dict[str, Order] = field(default_factory=dict)
    working: frozenset[str] = frozenset()

    def add(self, orders: Iterable[Order]) -> None:
        """Adds answers; a later one replaces an earlier one and keeps the family it showed."""
        for order in orders:
            known = self.orders.get(order.id)
            self.orders[order.id] = order.joined(known) if known is not None else order
            for leg in order.legs:
                child = self.orders.get(leg)
                if child is not None and child.parent is None:
                    self.orders[leg] = child.under(order.id)
        self._inherit_parents()

    def _inherit_parents(self) -> None:
        """A replaced leg hands its parent on: the new order is shown without one."""
        for order in list(self.orders.values()):
            before = self.orders.get(order.replaces or "")
            if order.parent is None and before is not None and before.parent is not None:
                self.orders[order.id] = order.under(before.parent)

    def set_working(self, orders: Sequence[Order]) -> None:
        """Takes a new reading of the working list; what left it is no longer known to work."""
        now_working = frozenset(o.id for o in orders)
        for order_id in self.working - now_working:
            self.orders.pop(order_id, None)
        self.working = now_working
        self.add(orders)

    def closing(self, key: str, side: Side) -> list[Order]:
        """The orders of a symbol that can still reduce a position of this side."""
        return [
            o
            for o in self.orders.values()
            if o.key == key and o.side == side.closing and not o.is_final and not o.is_multi_leg
        ]

    def opening(self, key: str, side: Side) -> list[Order]:
        """The orders of a symbol that can still enlarge a position of this side."""
        return [
            o
            for o in self.orders.values()
            if o.key == key and o.side == side.opening and not o.is_final and not o.is_multi_leg
        ]

    def awaits_entry(self, order: Order) -> bool:
        """Whether it is the leg of an entry that still works: it can take only what that brings."""
        parent = self.orders.get(order.parent or "")
        while parent is not None and parent.status == "replaced":
            parent = self.orders.get(parent.replaced_by or "")
        return parent is not None and parent.side != order.side and not parent.is_final


def own_ids(holding: Holding, book: OrderBook) -> frozenset[str]:
    """The closing orders that belong to a trade: named, nested, along the chain, or sent by us."""
    trade = holding.trade
    tag = trade_tag(trade.id or "")
    seeds = {o.id for o in holding.exits} | set(trade.exit_orders)
    if holding.entry is not None:
        seeds |= set(holding.entry.legs)
    named = set(trade.exit_orders)
    for order in book.orders.values():
        ours = parse_client_id(order.client_id)
        if (ours is not None and ours.trade == tag) or order.client_id in named:
            seeds.add(order.id)
        if holding.entry is not None and order.parent == holding.entry.id:
            seeds.add(order.id)
    return with_family(seeds, book, frozenset({holding.entry.id} if holding.entry else ()))


def with_family(seeds: Iterable[str], book: OrderBook, entries: Collection[str] = ()) -> frozenset[str]:
    """The ids with everything tied to them by legs, parent and replace chain; entries left out."""
    ties: dict[str, set[str]] = {}
    for order in book.orders.values():
        for other in (order.replaced_by, order.replaces, order.parent, *order.legs):
            if other:
                ties.setdefault(order.id, set()).add(other)
                ties.setdefault(other, set()).add(order.id)
    found: set[str] = set()
    queue = [i for i in seeds if i not in entries]
    while queue:
        order_id = queue.pop()
        if order_id not in found:
            found.add(order_id)
            queue.extend(i for i in ties.get(order_id, ()) if i not in entries and i not in found)
    return frozenset(found)


def exits_of(holding: Holding, book: OrderBook) -> list[Order]:
    """The closing orders of a trade that are known, whatever became of them."""
    known = {o.id: o for o in holding.exits} | {i: book.orders[i] for i in own_ids(holding, book) if i in book.orders}
    return [o for o in known.values() if o.side == holding.trade.side.closing]


# --------------------------------------------------------------------------- what orders can take


def remaining(order: Order, whole: Decimal) -> Decimal:
    """What an order can still take; an order without a quantity (notional) could take all."""
    return max(ZERO, order.qty - order.filled_qty) if order.qty is not None else whole


def can_take(orders: Sequence[Order], whole: Decimal) -> Decimal:
    """The shares that working closing orders can still take; a bracket or OCO counts once."""
    return sum((max(remaining(o, whole) for o in family) for family in families(orders)), ZERO)


def families(orders: Sequence[Order]) -> list[list[Order]]:
    """Orders of which only one can fill stand together.

    By parent; a flat list shows legs without one, so a stop and a limit of the same class and
    quantity are siblings too, when they were sent in one moment or one has been replaced since.
    """
    groups: dict[str, list[Order]] = {}
    for order in orders:
        groups.setdefault(order.parent or order.id, []).append(order)
    joined: list[list[Order]] = []
    lonely_stops: list[Order] = []
    for group in groups.values():
        if len(group) == 1 and group[0].order_class in _LINKED and group[0].is_stop:
            lonely_stops.append(group[0])
        else:
            joined.append(group)
    for stop in lonely_stops:
        sibling = next((g for g in joined if len(g) == 1 and _are_siblings(g[0], stop)), None)
        if sibling is not None:
            sibling.append(stop)
        else:
            joined.append([stop])
    return joined


def _are_siblings(limit: Order, stop: Order) -> bool:
    return (
        limit.order_class == stop.order_class
        and not limit.is_stop
        and limit.qty == stop.qty
        and (limit.parent is None or stop.parent is None)
        and (limit.submitted_at == stop.submitted_at or bool(limit.replaces or stop.replaces))
    )


# --------------------------------------------------------------------------- protection


@dataclass(frozen=True, slots=True)
class Protection:
    """What stands between a trade and an unlimited loss.

    `stops` protect (tightest first), `waiting` are own orders that do not (`why`: a stop that may
    not fire, a close in progress), `targets` are own resting targets, `foreign` closing orders of
    nobody, or of several trades. `shared` are the stops that are not this trade's alone: they must
    be neither moved nor cancelled for it.
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
        """How much of the trade no stop covers."""
        return max(ZERO, self.needed - self.covered)

    @property
    def stop(self) -> Order | None:
        """The tightest protecting stop."""
        return self.stops[0] if self.stops else None

    @property
    def holders(self) -> tuple[Order, ...]:
        """Own working closing orders, all of which hold the shares."""
        return (*self.own_stops, *self.waiting, *self.targets)

    @property
    def own_stops(self) -> tuple[Order, ...]:
        """The protecting stops that are this trade's alone, the tightest first."""
        return tuple(o for o in self.stops if o.id not in self.shared)


def protections(holdings: Sequence[Holding], book: OrderBook) -> dict[str, Protection]:
    """The protection of every holding, by trade id; orders are shared out symbol by symbol."""
    owned = {h.trade.id or "": own_ids(h, book) for h in holdings}
    found: dict[str, Protection] = {}
    by_symbol: dict[tuple[str, Side], list[Holding]] = {}
    for holding in holdings:
        by_symbol.setdefault((holding.position.key, holding.trade.side), []).append(holding)
    for (key, side), group in by_symbol.items():
        closing = book.closing(key, side)
        owners = {o.id: tuple(h for h in group if o.id in owned[h.trade.id or ""]) for o in closing}
        free = [o for o in closing if not owners[o.id] and not book.awaits_entry(o)]
        common = [o for o in closing if len(owners[o.id]) > 1 and (o.is_stop or o.type == "limit")]
        for holding in group:
            mine = [o for o in closing if holding in owners[o.id] and o not in common]
            found[holding.trade.id or ""] = _protection(holding, mine, [*common, *free], book)
        for several in dict.fromkeys(owners[o.id] for o in common):
            _lend(several, [o for o in common if owners[o.id] == several], found, book)
        _lend(group, free, found, book, may_own=True)
    return found


def _protection(holding: Holding, mine: Sequence[Order], free: Sequence[Order], book: OrderBook) -> Protection:
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
        reason = _why_dormant(order, holding.entry, book)
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
    """What must be covered: crypto fee dust and fractions no order can take are let off."""
    if holding.position.is_crypto:
        return holding.open_qty * (1 - CRYPTO_DUST)
    return holding.open_qty


def _why_dormant(order: Order, entry: Order | None, book: OrderBook) -> str | None:
    """Why a working stop would not fire, None when it would; `entry` is its trade's."""
    if order.status == "pending_cancel":
        return "its stop is being cancelled"
    if order.status != "held":
        return None
    parent = book.orders.get(order.parent or "")
    if order.order_class == "oco" or (parent is not None and parent.side == order.side):
        return None  # its parent is the resting target: held is how the stop of an OCO waits
    if parent is None or parent.status == "replaced":
        parent = entry
    if parent is None or parent.status != "filled":
        return "its stop leg is held until the entry is completely filled"
    return None


def _by_tightness(side: Side, stops: Sequence[Order]) -> tuple[Order, ...]:
    """The tightest first, of equal ones the largest."""
    return tuple(sorted(stops, key=lambda o: (-side.sign * (o.stop_price or ZERO), -remaining(o, ZERO))))


def _lend(
    group: Sequence[Holding],
    orders: Sequence[Order],
    found: dict[str, Protection],
    book: OrderBook,
    *,
    may_own: bool = False,
) -> None:
    """Lets stops that are no single trade's protect the trades of their symbol that lack one.

    One such trade and stops no larger than what it lacks: with `may_own` they are its own.
    Otherwise they protect only where they are large enough for all of them, and stay where they are.
    """
    bare = [h for h in group if found[h.trade.id or ""].is_naked]
    stops = [o for o in orders if o.is_stop and _why_dormant(o, None, book) is None]
    if not bare or not stops:
        return
    lacking = sum((h.open_qty - found[h.trade.id or ""].covered for h in bare), ZERO)
    offered = can_take(stops, lacking)
    alone = may_own and len(bare) == 1 and offered <= lacking
    if not alone and offered < sum((found[h.trade.id or ""].missing for h in bare), ZERO):
        return
    for holding in bare:
        old = found[holding.trade.id or ""]
        found[holding.trade.id or ""] = replace(
            old,
            stops=_by_tightness(holding.trade.side, (*old.stops, *stops)),
            foreign=tuple(o for o in old.foreign if o not in stops),
            covered=old.covered + offered if alone else old.needed,
            shared=old.shared if alone else old.shared | {o.id for o in stops},
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


def last_stop(holding: Holding, book: OrderBook, ids: Collection[str]) -> Order | None:
    """The latest of a trade's own stops that ended without a successor: when and at which price."""
    known = {o.id: o for o in holding.exits} | {i: book.orders[i] for i in ids if i in book.orders}
    ended = [(o.last_time, o) for o in known.values() if o.is_stop and o.is_final and o.status != "replaced"]
    dated = [(at, o) for at, o in ended if at is not None]
    return max(dated, key=lambda row: row[0])[1] if dated else None
