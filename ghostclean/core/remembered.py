"""Final order answers that a run may keep: they can never change, so a quiet run asks nothing.

The stored form, the broker's own names and spellings, is part of every existing state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from .broker import Order, canonical_id
from .instrument import symbol_key
from .numbers import ZERO, BadNumber, number, plain
from .times import parse_time

_END = {"canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at", "replaced": "replaced_at"}


def remember_order(order: Order, trade_id: str) -> dict[str, Any]:
    """The part of a final answer that decisions use; legs are kept by id only."""
    values = {
        "id": order.id,
        "client_order_id": order.client_id,
        "symbol": order.symbol,
        "asset_id": order.asset_id,
        "asset_class": order.asset_class,
        "side": order.side,
        "type": order.type,
        "order_class": order.order_class,
        "status": order.status,
        "qty": order.qty,
        "filled_qty": order.filled_qty,
        "filled_avg_price": order.avg_price,
        "limit_price": order.limit_price,
        "stop_price": order.stop_price,
        "submitted_at": order.submitted_at,
        "filled_at": order.filled_at,
        _END.get(order.status, "canceled_at"): order.ended_at,
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "trade": trade_id,
        "leg_ids": list(order.legs),
        "parent_order_id": order.parent,
    }
    return {name: _stored(value) for name, value in values.items() if value not in (None, "", [])}


def _stored(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    return value.isoformat() if isinstance(value, datetime) else value


def recall_orders(rows: Iterable[Mapping[str, Any]]) -> Iterable[Order]:
    """The remembered orders; a row that cannot be read is simply looked up again."""
    for row in rows:
        try:
            order = _recalled(row)
        except BadNumber:
            continue
        if order.id and order.is_final:
            yield order


def _recalled(row: Mapping[str, Any]) -> Order:
    def text(name: str) -> str:
        value = row.get(name)
        return value if isinstance(value, str) else ""

    legs = row.get("leg_ids")
    ended = [at for name in _END.values() if (at := parse_time(row.get(name))) is not None]
    return Order(
        id=canonical_id(text("id")),
        client_id=text("client_order_id"),
        symbol=text("symbol"),
        key=symbol_key(text("symbol")),
        asset_id=text("asset_id"),
        asset_class=text("asset_class"),
        side=text("side").lower(),
        type=text("type").lower(),
        order_class=text("order_class").lower(),
        status=text("status").lower(),
        qty=number(row.get("qty")),
        filled_qty=number(row.get("filled_qty")) or ZERO,
        avg_price=number(row.get("filled_avg_price")),
        limit_price=number(row.get("limit_price")),
        stop_price=number(row.get("stop_price")),
        submitted_at=parse_time(row.get("submitted_at")),
        filled_at=parse_time(row.get("filled_at")),
        ended_at=max(ended, default=None),
        expires_at=None,
        replaced_by=canonical_id(text("replaced_by")) or None,
        replaces=canonical_id(text("replaces")) or None,
        legs=tuple(legs) if isinstance(legs, list) else (),
        parent=canonical_id(text("parent_order_id")) or None,
    )
