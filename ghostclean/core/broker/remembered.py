"""Final order answers that a run may keep: they can never change, so a quiet run asks nothing.

The stored form, the broker's own names and spellings, is part of every existing state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from .instrument import symbol_key
from .numbers import ZERO, BadNumber, number, plain
from .records import Order, canonical_id
from .times import parse_time

# Stored name -> attribute of the order
_IDS = {"id": "id", "replaced_by": "replaced_by", "replaces": "replaces", "parent_order_id": "parent"}
_TEXTS = {"client_order_id": "client_id"} | {
    name: name for name in ("symbol", "asset_id", "asset_class", "side", "type", "order_class", "status")
}
_NUMBERS = {"filled_avg_price": "avg_price"} | {
    name: name for name in ("qty", "filled_qty", "limit_price", "stop_price")
}
_TIMES = {name: name for name in ("submitted_at", "filled_at")}
_END = {"canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at", "replaced": "replaced_at"}


def remember_order(order: Order, trade_id: str) -> dict[str, Any]:
    """The part of a final answer that decisions use; legs are kept by id only."""
    names = _IDS | _TEXTS | _NUMBERS | _TIMES | {_END.get(order.status, "canceled_at"): "ended_at"}
    values = {name: getattr(order, attribute) for name, attribute in names.items()}
    values |= {"trade": trade_id, "leg_ids": list(order.legs)}
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
    texts = {name: value for name, value in row.items() if isinstance(value, str)}
    legs = row.get("leg_ids")
    values: dict[str, Any] = {attribute: texts.get(name, "") for name, attribute in _TEXTS.items()}
    values |= {attribute: canonical_id(texts.get(name, "")) or None for name, attribute in _IDS.items()}
    values |= {attribute: number(row.get(name)) for name, attribute in _NUMBERS.items()}
    values |= {attribute: parse_time(row.get(name)) for name, attribute in _TIMES.items()}
    values |= {
        "key": symbol_key(values["symbol"]),
        "filled_qty": values["filled_qty"] or ZERO,
        "ended_at": max(filter(None, (parse_time(row.get(name)) for name in _END.values())), default=None),
        "expires_at": None,
        "legs": tuple(legs) if isinstance(legs, list) else (),
    }
    return Order(**values)
