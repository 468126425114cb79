"""From an unknown record to the mapping that reads it."""

from .columns import columns_of
from .evidence import Fit, confirmed, measure
from .names import FIELDS, worded_names
from .proposal import Line, NoLedger, Proposal, Trust, propose
from .toml import is_native, mapping_text
