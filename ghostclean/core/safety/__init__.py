"""Brakes on writing, orphans, and the memory of a run for the next."""

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
from .orphans import LOOK_BACK, OrphanView, adopted_id, judge_orphans, orphan_name
