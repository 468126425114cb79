"""What a trade's own orders say: how much was entered, how much its exits took out again.

Own orders are those the ledger names (by id or client id), the legs of its entry, both
directions of every replace chain, OCO siblings, and orders carrying our own client order id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto

from ghostclean.core.broker import ZERO, Evidence, Need, Order, OrderByClientId, OrderById, is_uuid
from ghostclean.core.ledger import Trade


class Entry(Enum):
    """What is known about the entry order a trade names."""

    NONE = auto()  # the ledger names none
    UNASKED = auto()
    UNANSWERED = auto()
    ABSENT = auto()  # a true 404 by both ids
    KNOWN = auto()


@dataclass(slots=True)
class Lot:
    """A quantity executed at one price; `price` None where the broker did not say."""

    order_id: str
    side: str
    qty: Decimal
    price: Decimal | None
    at: datetime | None
    order: Order | None = None


@dataclass(slots=True)
class OwnOrders:
    """The entry chain and the exit orders of one trade, and the look-ups that are missing.

    `needs` must be answered before anything is concluded; `dormant` are exit orders we have no
    present answer for although another one still works, harmless while a position covers the
    trade; `tied` are the exits that hang on this entry or were attributed to it, and so cannot
    be another trade's.
    """

    trade: Trade
    entry: Entry = Entry.NONE
    chain: tuple[Order, ...] = ()
    exits: tuple[Order, ...] = ()
    needs: list[Need] = field(default_factory=list)
    dormant: list[Need] = field(default_factory=list)
    tied: frozenset[str] = frozenset()
    unanswered: str | None = None
    defect: str | None = None

    @property
    def last(self) -> Order | None:
        """The entry order as it stands: the end of its replace chain."""
        return self.chain[-1] if self.chain else None

    @property
    def works(self) -> bool:
        """The entry, or what replaced it, can still fill."""
        return self.last is not None and not self.last.is_final

    @property
    def filled(self) -> Decimal:
        """Everything the entry chain filled."""
        return sum((o.filled_qty for o in self.chain), ZERO)

    @property
    def entered_at(self) -> datetime | None:
        """When the entry was first sent."""
        times = [o.submitted_at for o in self.chain if o.submitted_at]
        return min(times) if times else None

    def entry_lots(self) -> list[Lot]:
        return [Lot(o.id, o.side, o.filled_qty, o.avg_price, o.fill_time, o) for o in self.chain if o.filled_qty]

    def exit_lots(self) -> list[Lot]:
        """Fills of the own exit orders."""
        return [Lot(o.id, o.side, o.filled_qty, o.avg_price, o.fill_time, o) for o in self.exits if o.filled_qty]

    def ids(self) -> set[str]:
        """Every order id that belongs to this trade."""
        found = {o.id for o in self.chain} | {o.id for o in self.exits}
        return found | {leg for o in self.chain for leg in o.legs}

    def times(self) -> Iterable[datetime]:
        """When something happened to one of its orders."""
        return (t for o in (*self.chain, *self.exits) if (t := o.last_time) is not None)


def read_own_orders(
    trade: Trade, evidence: Evidence, by_tag: Mapping[str, Sequence[Order]], remembered: Sequence[str]
) -> OwnOrders:
    """Collects a trade's own orders from the evidence; never raises.

    `by_tag` are the orders that carry our client order ids, `remembered` the exit order ids that
    an earlier run attributed to this trade.
    """
    own = OwnOrders(trade)
    _read_entry(own, evidence)
    tied = [leg for o in own.chain for leg in o.legs]
    tied += sorted(o.id for o in by_tag.get(trade.id or "", ()))
    tied += remembered
    if tied or trade.exit_orders:
        _read_exits(own, tied, trade.exit_orders, evidence)
    return own


def _read_entry(own: OwnOrders, evidence: Evidence) -> None:
    trade = own.trade
    if not trade.has_order:
        return
    start = evidence.find(trade.entry_order) or evidence.find(trade.client_order)
    if start is None:
        own.entry = _absence(own, evidence)
        return
    own.entry = Entry.KNOWN
    chain = _chain(own, start, evidence)
    if any(o.side and o.side != trade.side.opening for o in chain) and not start.is_multi_leg:
        own.defect = f"its entry order {start.id} is a {start.side}, not a {trade.side.opening}"
    own.chain = tuple(chain)


def _absence(own: OwnOrders, evidence: Evidence) -> Entry:
    """How far the search for an unknown entry order has come; asks for the next step."""
    trade = own.trade
    ids = [i for i in dict.fromkeys((trade.entry_order, trade.client_order)) if i]
    for name in ids:
        if name in evidence.unanswered:
            own.unanswered = f"order {name}: {evidence.unanswered[name]}"
            return Entry.UNANSWERED
    for name in ids:
        by_id = name == trade.entry_order and is_uuid(name)
        if by_id and name not in evidence.absent:
            own.needs.append(OrderById(name, trade.key, trade.opening))
        elif name not in evidence.absent_clients:
            own.needs.append(OrderByClientId(name, trade.key, trade.opening))
    return Entry.UNASKED if own.needs else Entry.ABSENT


def _chain(own: OwnOrders, start: Order, evidence: Evidence) -> list[Order]:
    """The replace chain through `start`, oldest first; missing hops become needs."""
    chain = deque([start])
    seen = {start.id}
    while (before := chain[0].replaces) is not None:
        if before in seen:
            own.defect = f"the replace chain of order {start.id} loops"
            return list(chain)
        order = evidence.orders.get(before)
        if order is None:
            # What came before may hold fills of its own; only a true 404 is no obstacle.
            if before not in evidence.absent:
                _missing(own, before, start, evidence)
            break
        seen.add(before)
        chain.appendleft(order)
    while (after := chain[-1].replaced_by) is not None:
        if after in seen:
            own.defect = f"the replace chain of order {start.id} loops"
            return list(chain)
        order = evidence.orders.get(after)
        if order is None:
            _missing(own, after, start, evidence)
            break
        seen.add(after)
        chain.append(order)
    if chain[-1].status == "replaced" and chain[-1].replaced_by is None:
        own.unanswered = f"order {chain[-1].id} was replaced, by which order is not known"
    return list(chain)


def _missing(own: OwnOrders, order_id: str, near: Order, evidence: Evidence) -> None:
    if order_id in evidence.unanswered:
        own.unanswered = f"order {order_id}: {evidence.unanswered[order_id]}"
    elif order_id in evidence.absent:
        own.unanswered = f"order {order_id}, which replaced {near.id}, is unknown to the broker"
    else:
        own.needs.append(OrderById(order_id, near.key, near.submitted_at))


def _read_exits(own: OwnOrders, tied: Iterable[str], named: Iterable[str], evidence: Evidence) -> None:
    """Follows chains, legs and parents from every exit order that is known to be ours."""
    found: dict[str, Order] = {}
    unknown: dict[str, None] = {}
    _follow(own, tied, found, unknown, evidence)
    own.tied = frozenset(found)
    _follow(own, named, found, unknown, evidence)
    closing, keys = own.trade.side.closing, _instrument(own)
    exits = [o for o in found.values() if o.side == closing and not keys.isdisjoint((o.key, o.asset_id))]
    own.exits = tuple(sorted(exits, key=lambda o: (o.submitted_at is None, o.submitted_at, o.id)))
    works = any(o.id in evidence.working for o in own.exits)
    for order_id in unknown:
        _unknown_exit(own, order_id, evidence, asleep=works)


def _follow(
    own: OwnOrders, seeds: Iterable[str], found: dict[str, Order], unknown: dict[str, None], evidence: Evidence
) -> None:
    entries = {o.id for o in own.chain}
    queue = deque(seeds)
    asked: set[str] = set()
    while queue:
        order_id = queue.popleft()
        if order_id in asked:
            continue
        asked.add(order_id)
        order = evidence.find(order_id)
        if order is None:
            unknown[order_id] = None
        elif order.id not in found and order.id not in entries:
            found[order.id] = order
            queue.extend(i for i in (order.replaced_by, order.replaces, order.parent, *order.legs) if i)


def _instrument(own: OwnOrders) -> set[str]:
    """The keys and asset ids under which this trade's orders can stand (a rename changes the key)."""
    if not own.chain:
        return {own.trade.key}
    return {name for o in own.chain for name in (o.key, o.asset_id) if name}


def _unknown_exit(own: OwnOrders, order_id: str, evidence: Evidence, *, asleep: bool) -> None:
    if order_id in evidence.unanswered:
        own.unanswered = f"exit order {order_id}: {evidence.unanswered[order_id]}"
        return
    if order_id in evidence.absent or evidence.is_absent(order_id):
        return
    near = own.chain[0].key if own.chain else own.trade.key
    since = own.entered_at or own.trade.opening
    ask = OrderById if is_uuid(order_id) else OrderByClientId
    need: Need = ask(order_id, near, since)
    (own.dormant if asleep else own.needs).append(need)
