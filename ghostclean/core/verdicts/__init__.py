"""What every trade is by broker truth, and the plan that follows."""

from .decide import (
    decide,
)
from .decision import (
    Action,
    Decision,
    Proof,
    Verdict,
)
from .plan import (
    Holding,
    Plan,
)

__all__ = [
    "Action",
    "Decision",
    "Holding",
    "Plan",
    "Proof",
    "Verdict",
    "decide",
]
