"""The brakes of a run: the right account, its first contact with a ledger, the breaker."""

from __future__ import annotations

from datetime import timedelta

from ghostclean.app.deadline import Deadline
from ghostclean.app.parts import Parts
from ghostclean.app.run import ReconcileRun
from ghostclean.app.survey import Survey, recall_section
from ghostclean.core.broker import BrokerTruth
from ghostclean.core.safety import Pin, breaker, knows_this_ledger, without_unproven
from ghostclean.core.trade import order_ids
from ghostclean.errors import AccountMismatch, BrokerError, DeadlineExceeded

_FIRST_CONTACT_BACK = timedelta(days=30)


def recall_pin(parts: Parts, deadline: Deadline) -> Pin | None:
    """The account that this ledger belongs to, None while nothing is pinned."""
    pinned = recall_section(parts, deadline, "pin", dict).get("account")
    return Pin(str(pinned.get("id")), bool(pinned.get("live"))) if pinned is not None else None


def refuse_other_account(pin: Pin, truth: BrokerTruth, live: bool) -> None:
    """Raises AccountMismatch unless the pinned account answered."""
    why = pin.mismatch(truth.account, live)
    if why is not None:
        raise AccountMismatch(
            f"wrong account: {why}; nothing was changed and no order was sent; correct the keys, "
            "or accept it with `ghostclean doctor --pin`"
        )


def check_account(run: ReconcileRun, truth: BrokerTruth) -> None:
    """Refuses another account than the pinned one; the first that answers may be pinned."""
    live = run.parts.broker.live
    if run.pin is None:
        run.pin, run.may_pin = Pin(truth.account.id, live), True
    else:
        refuse_other_account(run.pin, truth, live)


def brake(run: ReconcileRun) -> None:
    """Holds every close without proof when there are too many, or nothing shows whose account this is."""
    survey, policy = run.surveyed(), run.policy
    why = None
    if run.may_pin and run.plan.unproven and not policy.allow_mass_close and not _first_contact(run, survey):
        why = "nothing shows that this account is the ledger's"
        run.may_pin = False
    why = why or breaker(run.plan, survey.memory, policy, survey.truth.at)
    if why is not None:
        run.plan = without_unproven(run.plan, "the breaker tripped")
        run.failed(
            "mass_close_stopped",
            f"stopped: {why}; none of them was closed, everything proven was; check the account, "
            "then `ghostclean reconcile --allow-mass-close` if they are right",
        )


def _first_contact(run: ReconcileRun, survey: Survey) -> bool:
    records = [*survey.view.active, *(r for rows in survey.lookups.closed.values() for r in rows)]
    held = (p.key for p in survey.truth.positions)
    return knows_this_ledger(records, survey.evidence, held) or _traded_for_it(run, survey)


def _traded_for_it(run: ReconcileRun, survey: Survey) -> bool:
    """Whether a record, a closed one too, names an order that filled in this account of late."""
    deadline, parts = run.deadline, run.parts
    try:
        fills = deadline.reading(lambda: parts.broker.fills(survey.truth.at - _FIRST_CONTACT_BACK))
        closed = deadline.reading(lambda: parts.ledger.history(frozenset(fill.key for fill in fills)))
    except (BrokerError, DeadlineExceeded):
        return False
    known = {fill.order_id for fill in fills}
    return any(order_id in known for record in closed for order_id in order_ids(record))
