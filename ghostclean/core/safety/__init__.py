"""The brakes on what may be written, orphans, and what a run remembers for the next."""

from .breaker import ORPHAN_ACTIONS, Pin, breaker, knows_this_ledger, orphan_breaker, short, without_unproven
from .orphans import LOOK_BACK, OrphanView, adopted_id, judge_orphans, orphan_name
