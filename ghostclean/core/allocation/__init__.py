"""Executions and positions allocated to the trades of the ledger."""

from .attribution import (
    Explained,
    explain_gone,
    explain_short,
)
from .board import (
    Board,
)
from .case import (
    Case,
    Orphan,
    Share,
    first_stop,
    within,
)
from .finished import (
    Finished,
)
from .free_fills import (
    FreeFills,
    before,
    free_fills,
    total,
)
from .money import (
    CRYPTO_DUST,
    Exit,
    average,
    close_reason,
    settle,
    settle_part,
)
from .own_orders import (
    Entry,
    Lot,
    OwnOrders,
)
from .sharing import (
    SAME_COST,
    SPLIT_RATIOS,
    is_dust,
)

__all__ = [
    "CRYPTO_DUST",
    "SAME_COST",
    "SPLIT_RATIOS",
    "Board",
    "Case",
    "Entry",
    "Exit",
    "Explained",
    "Finished",
    "FreeFills",
    "Lot",
    "Orphan",
    "OwnOrders",
    "Share",
    "average",
    "before",
    "close_reason",
    "explain_gone",
    "explain_short",
    "first_stop",
    "free_fills",
    "is_dust",
    "settle",
    "settle_part",
    "total",
    "within",
]
