"""From an unknown record to the mapping that reads it."""

from .evidence import Fit, confirmed, measure
from .proposal import Line, NoLedger, Proposal, Trust, propose
from .toml import is_native, mapping_text
