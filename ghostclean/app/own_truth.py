"""The look of the engine that manages open trades: its own, after the reconcile before it."""

from __future__ import annotations

from ghostclean.app.brakes import recall_pin, refuse_other_account
from ghostclean.app.deadline import Deadline
from ghostclean.app.parts import Parts
from ghostclean.app.survey import Survey, make_survey, read_truth, recall, recall_section
from ghostclean.core.policy import Policy


def survey_for_orders(parts: Parts, deadline: Deadline, policy: Policy) -> Survey:
    """Ledger and broker truth, decided; raises GhostcleanError, AccountMismatch among them.

    The account is checked here as well: a reconcile that refused it is only noted, and no order
    may go to an account that is not this ledger's.
    """
    view = deadline.reading(parts.ledger.read)
    memory = recall(parts, deadline)
    remembered = recall_section(parts, deadline, "orders", dict)
    pin = recall_pin(parts, deadline)
    truth = read_truth(parts, deadline, view=view)
    if pin is not None:
        refuse_other_account(pin, truth, parts.broker.live)
    return make_survey(parts, deadline, policy, view, memory, remembered, truth, look_again=False)
