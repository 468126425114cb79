"""What working orders can still take of a position."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from ghostclean.core.broker import ZERO, Order

_LINKED = frozenset({"bracket", "oco", "oto"})


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
