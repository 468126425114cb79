"""Executions and positions allocated to the trades of the ledger."""

from .allocation import SAME_COST, Allocation, Coverage, Orphan, is_dust, within
from .books import Books
from .coverage import SPLIT_RATIOS
from .execution import Execution, average, total, value
from .family import EntryState, Family, first_stop
from .matching import Match
