"""Every order known in this run: working ones and look-ups alike, with their families."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from ghostclean.core.broker import ZERO, Order, Side, parse_client_id

_LINKED = frozenset({"bracket", "oco", "oto"})


@dataclass(slots=True)
class KnownOrders:
    """Orders by id; `working` are the ids of the latest working list."""

    orders: dict[str, Order] = field(default_factory=dict)
    working: frozenset[str] = frozenset()

    def get(self, order_id: str | None) -> Order | None:
        return self.orders.get(order_id or "")

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
            before = self.get(order.replaces)
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
        return self._active(key, side.closing)

    def opening(self, key: str, side: Side) -> list[Order]:
        """The orders of a symbol that can still enlarge a position of this side."""
        return self._active(key, side.opening)

    def _active(self, key: str, way: str) -> list[Order]:
        return [
            o for o in self.orders.values() if o.key == key and o.side == way and not o.is_final and not o.is_multi_leg
        ]

    def awaits_entry(self, order: Order) -> bool:
        """Whether it is the leg of an entry that still works: it can take only what that brings."""
        parent = self.get(order.parent)
        while parent is not None and parent.status == "replaced":
            parent = self.get(parent.replaced_by)
        return parent is not None and parent.side != order.side and not parent.is_final

    def named(self, names: Collection[str], tags: Collection[str], key: str | None = None) -> set[str]:
        """The ids of orders with one of these client order ids, or with one of ours in that symbol."""
        return {
            o.id for o in self.orders.values() if o.client_id in names or (key in (None, o.key) and is_tagged(o, tags))
        }

    def legs_of(self, entry: Order | None) -> set[str]:
        """The ids of an entry's legs, by the entry's word or by theirs."""
        if entry is None:
            return set()
        return {*entry.legs, *(o.id for o in self.orders.values() if o.parent == entry.id)}

    def family(self, seeds: Iterable[str], entries: Collection[str] = ()) -> frozenset[str]:
        """The ids with all that legs, parents and replace chains tie to them; `entries` are left out."""
        ties: dict[str, set[str]] = {}
        for order in self.orders.values():
            for other in filter(None, (order.replaced_by, order.replaces, order.parent, *order.legs)):
                ties.setdefault(order.id, set()).add(other)
                ties.setdefault(other, set()).add(order.id)
        found: set[str] = set()
        new = set(seeds).difference(entries)
        while new:
            found |= new
            new = {other for i in new for other in ties.get(i, ())} - found - set(entries)
        return frozenset(found)


def is_tagged(order: Order, tags: Collection[str]) -> bool:
    """Whether an order carries one of our client order ids with one of these tags."""
    ours = parse_client_id(order.client_id)
    return ours is not None and ours.trade in tags


# --------------------------------------------------------------------------- what orders can take


def remaining(order: Order, whole: Decimal) -> Decimal:
    """What an order can still take; an order without a quantity (notional) could take all."""
    return max(ZERO, order.qty - order.filled_qty) if order.qty is not None else whole


def can_take(orders: Sequence[Order], whole: Decimal) -> Decimal:
    """The shares that working closing orders can still take; a bracket or OCO counts once."""
    return sum((max(remaining(o, whole) for o in group) for group in exclusive(orders)), ZERO)


def exclusive(orders: Sequence[Order]) -> list[list[Order]]:
    """Orders of which only one can fill stand together.

    By parent; a flat list shows legs without one, so a stop and a limit of the same class and
    quantity are siblings too, when they were sent in one moment or one has been replaced since.
    """
    groups: dict[str, list[Order]] = {}
    for order in orders:
        groups.setdefault(order.parent or order.id, []).append(order)
    joined = [group for group in groups.values() if not _is_lonely_stop(group)]
    for group in filter(_is_lonely_stop, groups.values()):
        sibling = next((g for g in joined if len(g) == 1 and _are_siblings(g[0], group[0])), None)
        if sibling is not None:
            sibling.extend(group)
        else:
            joined.append(group)
    return joined


def _is_lonely_stop(group: Sequence[Order]) -> bool:
    return len(group) == 1 and group[0].order_class in _LINKED and group[0].is_stop


def _are_siblings(limit: Order, stop: Order) -> bool:
    return (
        limit.order_class == stop.order_class
        and not limit.is_stop
        and limit.qty == stop.qty
        and (limit.parent is None or stop.parent is None)
        and (limit.submitted_at == stop.submitted_at or bool(limit.replaces or stop.replaces))
    )
