"""What every trade is by broker truth, and the plan that follows."""

from .decide import decide
from .decision import Action, Decision, Proof, Verdict
from .fields import vanished_fields
from .plan import Holding, Plan
from .pnl import settle, settle_part
