"""The look of the engine that manages open trades: its own, after the reconcile before it."""

from __future__ import annotations

from ghostclean.app.brakes import refuse_other_account
from ghostclean.app.deadline import Deadline
from ghostclean.app.parts import Parts
from ghostclean.app.ports import RECONCILE_MEMORY
from ghostclean.app.survey import Survey, make_survey, read_truth
from ghostclean.core.inputs import Policy


def survey_for_orders(parts: Parts, deadline: Deadline, policy: Policy) -> Survey:
    """Ledger and broker truth, decided; raises GhostcleanError, AccountMismatch among them.

    The account is checked here as well: a reconcile that refused it is only noted, and no order
    may go to an account that is not this ledger's.
    """
    view = deadline.reading(parts.ledger.read)
    memory = deadline.reading(lambda: parts.state.recall_all(RECONCILE_MEMORY))
    truth = read_truth(parts, deadline, view=view)
    if memory.pinned is not None:
        refuse_other_account(memory.pinned, truth, parts.broker.live)
    return make_survey(parts, deadline, policy, view, memory, truth, look_again=False)
