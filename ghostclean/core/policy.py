"""What the operator allows: the numbers that decisions depend on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings and the options of one run that the core needs."""

    grace: timedelta = timedelta(seconds=120)
    max_unproven_closes: int = 3
    confirmations: int = 1
    close: bool = True
    sync: bool = True
    close_reason: str = "reconciled_not_in_alpaca"
    orphans: str = "report"
    allow_mass_close: bool = False
    max_trades: int = 500
