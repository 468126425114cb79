"""From an unknown record to the mapping that reads it."""

from .columns import columns_of
from .evidence import Overlap, confirmed, measure
from .lines import Line, NoLedger, Proposal, Trust
from .names import FIELDS, worded_names
from .proposal import propose
from .toml import is_native, mapping_text
from .words import WORDS
