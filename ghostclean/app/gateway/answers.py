"""What became of an order that was wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ghostclean.core.broker import Order


class Outcome(StrEnum):
    """What became of an order that was wanted."""

    SENT = "sent"
    STANDING = "standing"  # an earlier order of this name works already
    WOULD = "would_send"  # a dry run
    BLOCKED = "blocked"  # a rule of the gateway: nothing was sent
    CROSSED = "crossed"  # the market is at or through the stop: it is not sent
    MOOT = "moot"  # the position is gone
    REFUSED = "refused"  # the broker said no: nothing works because of us
    UNKNOWN = "unknown"  # sent, and neither found nor proven absent: the next run looks it up


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome with its reason, the order as last read, and the request as it was logged."""

    outcome: Outcome
    reason: str
    order: Order | None = None
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """What was wanted stands at the broker (or would, in a dry run)."""
        return self.outcome in (Outcome.SENT, Outcome.STANDING, Outcome.WOULD)
