"""The app's record of a trade, and its fields."""

from .fields import (
    NOT_FOUND,
    POSITION_OPEN,
    changed,
    is_vanished,
    same,
)
from .trade import (
    ENTRY_ORDER_FIELDS,
    FINAL,
    SIZE_FIELDS,
    Trade,
    is_open,
    is_pending,
    order_ids,
    read_trade,
    record_id,
    record_size,
    status_of,
    text,
)

__all__ = [
    "ENTRY_ORDER_FIELDS",
    "FINAL",
    "NOT_FOUND",
    "POSITION_OPEN",
    "SIZE_FIELDS",
    "Trade",
    "changed",
    "is_open",
    "is_pending",
    "is_vanished",
    "order_ids",
    "read_trade",
    "record_id",
    "record_size",
    "same",
    "status_of",
    "text",
]
