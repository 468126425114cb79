"""Client order ids of our own orders: owner + purpose + n, so that a retry is harmless.

An order carrying such an id belongs to its trade even if the record never got to know it. The
owner is unique in the account (`Trade.owner`): ledgers that count their trades 1, 2, 3 share
accounts. Orders of earlier versions carry the trade's id alone (`Trade.tags` has both).
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


def trade_tag(owner: str) -> str:
    """A short stable tag for an owner of any length and alphabet."""
    return hashlib.sha256(owner.encode()).hexdigest()[:20]


def client_id(owner: str, purpose: str, n: int) -> str:
    """The client order id of the n-th order for this owner and purpose."""
    return f"{PREFIX}{trade_tag(owner)}-{purpose}-{n}"


def parse_client_id(text: str) -> OwnId | None:
    """The parts of one of our ids; None for anybody else's."""
    if not text.startswith(PREFIX):
        return None
    parts = text.split("-")
    if len(parts) != 4 or not parts[3].isdigit():
        return None
    return OwnId(parts[1], parts[2], int(parts[3]))
