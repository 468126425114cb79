"""The look of the engine that manages open trades: its own, after the reconcile before it."""

from __future__ import annotations

from ghostclean.core.policy import Policy
from ghostclean.core.safety import Pin
from ghostclean.errors import AccountMismatch

from .deadline import Deadline
from .parts import Parts
from .survey import Survey, make_survey, read_truth, recall


def survey_for_orders(parts: Parts, deadline: Deadline, policy: Policy) -> Survey:
    """Ledger and broker truth, decided; raises GhostcleanError, AccountMismatch among them.

    The account is checked here as well: a reconcile that refused it is only noted, and no order
    may go to an account that is not this ledger's.
    """
    view = deadline.reading(parts.ledger.read)
    memory = recall(parts, deadline)
    remembered = deadline.reading(lambda: parts.state.recall("orders"))
    pinned = deadline.reading(lambda: parts.state.recall("pin", ["account"])).get("account")
    truth = read_truth(parts, deadline)
    if isinstance(pinned, dict):
        why = Pin(str(pinned.get("id")), bool(pinned.get("live"))).mismatch(truth.account, parts.broker.live)
        if why is not None:
            raise AccountMismatch(
                f"wrong account: {why}; no order was sent; correct the keys, or `ghostclean doctor --pin` accepts it"
            )
    return make_survey(parts, deadline, policy, view, memory, remembered, truth, look_again=False)
