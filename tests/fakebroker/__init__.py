"""A stateful fake of Alpaca's Trading API for tests; see README.md."""

from .api import Request
from .broker import FakeBroker
from .faults import Fault
from .quirks import NEVER, Delay, Quirks
from .shapes import MISSING, Refusal

__all__ = ["MISSING", "NEVER", "Delay", "FakeBroker", "Fault", "Quirks", "Refusal", "Request"]
