"""Switches for what differs between days, accounts and reports of users."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Delay:
    """How long something takes: simulated seconds and requests served, both must have passed."""

    seconds: float = 0
    requests: int = 0


NO_DELAY = Delay()
NEVER = Delay(seconds=math.inf)


@dataclass
class Quirks:
    """Switches for behaviour that differs between days, accounts and reports of users."""

    hide_legs: bool = True
    """Working legs are missing from the open list: `held` ones when flat, all of them when nested."""
    legs_after_replace: str = "both"
    """Which leg ids a nested parent shows after a leg was replaced: "both", "old" or "new"."""
    accept_delay: Delay = NO_DELAY
    fill_delay: Delay = NO_DELAY
    cancel_delay: Delay = NO_DELAY
    replace_delay: Delay = NO_DELAY
    fill_ratio: Decimal | None = None
    """Market orders fill only this share by themselves; the rest stays working."""
    offhours_cancel_waits: bool = False
    """Cancels sent while the market is closed stay `pending_cancel` until the next open."""
    cancel_of_final_is_204: bool = False
    crypto_fee: Decimal = Decimal("0.0025")
    nanos: int = 217
    """Nanoseconds that end the times the broker writes itself."""
    rate_limit: int = 200
    enforce_rate_limit: bool = False
