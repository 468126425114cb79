"""The order graph: every order this run knows, and how they are tied.

An order is *known*, *absent* (a true 404), *unanswered* (the look-up failed) or not asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from .instrument import Side
from .records import Order, is_uuid, parse_client_id


class Chain(NamedTuple):
    """A replace chain, oldest first; `missing` are its ends that are not known, `loops` an impossible one."""

    orders: tuple[Order, ...]
    missing: tuple[str, ...] = ()
    loops: bool = False


@dataclass(slots=True)
class OrderGraph:
    """Orders by id, whatever the answer that showed them; `working` are the ids of the working list."""

    orders: dict[str, Order] = field(default_factory=dict)
    by_client: dict[str, str] = field(default_factory=dict)
    working: frozenset[str] = frozenset()
    absent: set[str] = field(default_factory=set)
    absent_clients: set[str] = field(default_factory=set)
    unanswered: dict[str, str] = field(default_factory=dict)

    def add_orders(self, orders: Iterable[Order]) -> None:
        """Adds answers; a later one replaces an earlier one and keeps its legs and parent."""
        for order in orders:
            known = self.orders.get(order.id)
            if known is not None:
                order = order.joined(known)
            self.orders[order.id] = order
            if order.client_id:
                self.by_client[order.client_id] = order.id
            for leg in order.legs:
                self._set_parent(leg, order.id)
            # A replaced leg hands its parent on: the order that took its place is shown without one.
            before = self.orders.get(order.replaces or "")
            if before is not None and before.parent is not None:
                self._set_parent(order.id, before.parent)
            if order.parent is not None and order.replaced_by is not None:
                self._set_parent(order.replaced_by, order.parent)

    def _set_parent(self, order_id: str, parent: str) -> None:
        child = self.orders.get(order_id)
        if child is not None and child.parent is None:
            self.orders[order_id] = child.under(parent)

    def set_working(self, orders: Iterable[Order]) -> None:
        """Replaces the working list; an answer that stood only in the old one is stale."""
        orders = tuple(orders)
        for order_id in self.working.difference(o.id for o in orders):
            order = self.orders.get(order_id)
            if order is not None and not order.is_final:
                del self.orders[order_id]
        self.working = frozenset(o.id for o in orders)
        self.add_orders(orders)

    def find(self, name: str | None) -> Order | None:
        """The order with this id, or with this as client order id."""
        if name is None:
            return None
        return self.orders.get(name) or self.orders.get(self.by_client.get(name, ""))

    def find_entry(self, name: str) -> Order | None:
        """As `find`, but a UUID is a client order id only once absent as an id: bots reuse entry ids so."""
        if is_uuid(name) and name not in self.absent:
            return self.orders.get(name)
        return self.find(name)

    def get(self, order_id: str | None) -> Order | None:
        return self.orders.get(order_id or "")

    def named(self, names: Collection[str], tags: Collection[str], key: str | None = None) -> set[str]:
        """The ids of orders with one of these client order ids, or with one of ours in that symbol."""
        return {
            o.id for o in self.orders.values() if o.client_id in names or (key in (None, o.key) and is_tagged(o, tags))
        }

    def legs_of(self, entry: Order | None) -> set[str]:
        if entry is None:
            return set()
        return {*entry.legs, *(o.id for o in self.orders.values() if o.parent == entry.id)}

    def tied_to(self, seeds: Iterable[str], without: Collection[str] = ()) -> frozenset[str]:
        """The ids with all that legs, parents and replace chains tie to them; `without` are left out."""
        return frozenset(connected(self.orders.values(), seeds, without))

    def is_absent(self, name: str) -> bool:
        """Proven unknown to the broker, both as id and as client order id."""
        return (name in self.absent or not is_uuid(name)) and name in self.absent_clients

    def chain(self, start: Order) -> Chain:
        chain, seen, missing = [start], {start.id}, []
        for forward in (False, True):
            while (name := chain[-1].replaced_by if forward else chain[0].replaces) is not None:
                if name in seen:
                    return Chain(tuple(chain), loops=True)
                order = self.orders.get(name)
                if order is None:
                    missing.append(name)
                    break
                seen.add(name)
                chain.insert(len(chain) if forward else 0, order)
        return Chain(tuple(chain), tuple(missing))

    def family(self, seeds: Iterable[str], without: Collection[str] = ()) -> tuple[dict[str, Order], list[str]]:
        """The known orders tied to some ids by legs, parent and replace chain, and the ids not known."""
        found: dict[str, Order] = {}
        unknown: dict[str, None] = {}
        queue, asked = list(seeds), set()
        while queue:
            name = queue.pop(0)
            if name in asked:
                continue
            asked.add(name)
            order = self.find(name)
            if order is None:
                unknown[name] = None
            elif order.id not in found and order.id not in without:
                found[order.id] = order
                queue.extend(ties(order))
        return found, list(unknown)

    def closing(self, key: str, side: Side) -> list[Order]:
        """The orders of a symbol that can still reduce a position of this side."""
        return self._open(key, side.closing)

    def opening(self, key: str, side: Side) -> list[Order]:
        """The orders of a symbol that can still enlarge a position of this side."""
        return self._open(key, side.opening)

    def _open(self, key: str, side: str) -> list[Order]:
        return [
            o for o in self.orders.values() if o.key == key and o.side == side and not (o.is_final or o.is_multi_leg)
        ]

    def awaits_entry(self, order: Order) -> bool:
        """Whether it is the leg of an entry that still works."""
        parent = self.orders.get(order.parent or "")
        while parent is not None and parent.status == "replaced":
            parent = self.orders.get(parent.replaced_by or "")
        return parent is not None and parent.side != order.side and not parent.is_final


def ties(order: Order) -> list[str]:
    """The ids an order itself names as its family: legs, parent, both neighbours in its chain."""
    return [i for i in (order.replaced_by, order.replaces, order.parent, *order.legs) if i]


def connected(orders: Iterable[Order], seeds: Iterable[str], without: Collection[str] = ()) -> set[str]:
    """The ids reached from some, in both directions of every tie among these orders."""
    neighbours: dict[str, list[str]] = defaultdict(list)
    for order in orders:
        for other in ties(order):
            neighbours[order.id].append(other)
            neighbours[other].append(order.id)
    reached = set(seeds).difference(without)
    queue = list(reached)
    while queue:
        for other in neighbours.get(queue.pop(), ()):
            if other not in reached and other not in without:
                reached.add(other)
                queue.append(other)
    return reached


def is_tagged(order: Order, tags: Collection[str]) -> bool:
    """Whether an order carries one of our client order ids with one of these tags."""
    ours = parse_client_id(order.client_id)
    return ours is not None and ours.trade in tags
