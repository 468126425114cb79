"""Final order answers that a run may keep: they can never change, so a quiet run asks nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .records import Impossible, Order, parse_orders

_KEPT = (
    "id",
    "client_order_id",
    "symbol",
    "asset_id",
    "asset_class",
    "side",
    "type",
    "order_class",
    "status",
    "qty",
    "filled_qty",
    "filled_avg_price",
    "limit_price",
    "stop_price",
    "submitted_at",
    "filled_at",
    "canceled_at",
    "expired_at",
    "failed_at",
    "replaced_at",
    "replaced_by",
    "replaces",
)


def remember_order(order: Order, trade_id: str) -> dict[str, Any]:
    """The part of a final answer that decisions use; legs are kept by id only."""
    kept: dict[str, Any] = {name: value for name in _KEPT if (value := order.raw.get(name)) is not None}
    kept["trade"] = trade_id
    if order.legs:
        kept["leg_ids"] = list(order.legs)
    if order.parent:
        kept["parent_order_id"] = order.parent
    return kept


def recall_orders(rows: Iterable[Mapping[str, Any]]) -> Iterable[Order]:
    """The remembered orders; a row that cannot be read is simply looked up again."""
    for row in rows:
        try:
            order = next(parse_orders(row))
        except (Impossible, StopIteration):
            continue
        legs = row.get("leg_ids")
        if order.is_final:
            yield order.with_legs(tuple(legs)) if isinstance(legs, list) else order
