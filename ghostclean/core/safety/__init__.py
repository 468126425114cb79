"""The brakes on what may be written, orphans, and what a run remembers for the next."""

from .breaker import (
    ORPHAN_ACTIONS,
    Pin,
    breaker,
    knows_this_ledger,
    leaving,
    orphan_breaker,
    short,
    without_closes,
    without_unproven,
)
from .orphans import (
    LOOK_BACK,
    OrphanView,
    adopted_id,
    judge_orphans,
    orphan_name,
)

__all__ = [
    "LOOK_BACK",
    "ORPHAN_ACTIONS",
    "OrphanView",
    "Pin",
    "adopted_id",
    "breaker",
    "judge_orphans",
    "knows_this_ledger",
    "leaving",
    "orphan_breaker",
    "orphan_name",
    "short",
    "without_closes",
    "without_unproven",
]
