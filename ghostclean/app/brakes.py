"""The brakes of a run: the right account, its first contact with a ledger, the breaker."""

from __future__ import annotations

from datetime import timedelta

from ghostclean.app.observation import Observation, refuse_other_account
from ghostclean.app.run import ReconcileRun
from ghostclean.core.broker import BrokerTruth
from ghostclean.core.safety import Pin, breaker, knows_this_ledger, without_unproven
from ghostclean.core.trade import order_ids
from ghostclean.errors import BrokerError, DeadlineExceeded

_FIRST_CONTACT_BACK = timedelta(days=30)


def check_account(run: ReconcileRun, truth: BrokerTruth) -> None:
    """Refuses another account than the pinned one; the first that answers may be pinned."""
    live = run.parts.broker.live
    if run.pin is None:
        run.pin, run.may_pin = Pin(truth.account.id, live), True
    else:
        refuse_other_account(run.pin, truth.account, live=live)


def brake(run: ReconcileRun) -> None:
    """Holds every close without proof when there are too many, or nothing shows whose account this is."""
    observation, policy = run.observed(), run.policy
    why = None
    if run.may_pin and run.plan.unproven and not policy.allow_mass_close and not _first_contact(run, observation):
        why = "nothing shows that this account is the ledger's"
        run.may_pin = False
    why = why or breaker(run.plan, observation.memory, policy, observation.truth.at)
    if why is not None:
        run.plan = without_unproven(run.plan, "the breaker tripped")
        run.failed(
            "mass_close_stopped",
            f"stopped: {why}; none of them was closed, everything proven was; check the account, "
            "then `ghostclean reconcile --allow-mass-close` if they are right",
        )


def _first_contact(run: ReconcileRun, observation: Observation) -> bool:
    records = [*observation.view.active, *(r for rows in observation.lookups.closed.values() for r in rows)]
    held = (p.key for p in observation.truth.positions)
    return knows_this_ledger(records, observation.evidence, held) or _traded_for_it(run, observation)


def _traded_for_it(run: ReconcileRun, observation: Observation) -> bool:
    """Whether a record, a closed one too, names an order that filled in this account of late."""
    deadline, parts = run.deadline, run.parts
    try:
        fills = deadline.reading(lambda: parts.broker.fills(observation.truth.at - _FIRST_CONTACT_BACK))
        closed = deadline.reading(lambda: parts.ledger.history(frozenset(fill.key for fill in fills)))
    except (BrokerError, DeadlineExceeded):
        return False
    known = {fill.order_id for fill in fills}
    return any(order_id in known for record in closed for order_id in order_ids(record))
