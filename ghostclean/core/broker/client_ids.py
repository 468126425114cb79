"""Client order ids of our own orders: trade + purpose + n, so that a retry is harmless.

An order carrying such an id belongs to its trade even if the record never got to know it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

PREFIX = "gc-"


@dataclass(frozen=True, slots=True)
class OwnId:
    """The parts of one of our client order ids."""

    trade: str
    purpose: str
    n: int


def trade_tag(trade_id: str) -> str:
    """A short stable tag for a trade id of any length and alphabet."""
    return hashlib.sha256(trade_id.encode()).hexdigest()[:20]


def client_id(trade_id: str, purpose: str, n: int) -> str:
    """The client order id of the n-th order for this trade and purpose."""
    return f"{PREFIX}{trade_tag(trade_id)}-{purpose}-{n}"


def parse_client_id(text: str) -> OwnId | None:
    """The parts of one of our ids; None for anybody else's."""
    if not text.startswith(PREFIX):
        return None
    parts = text.split("-")
    if len(parts) != 4 or not parts[3].isdigit():
        return None
    return OwnId(parts[1], parts[2], int(parts[3]))
