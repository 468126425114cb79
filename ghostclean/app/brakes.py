"""The brakes of a run: the right account, its first contact with a ledger, the breakers."""

from __future__ import annotations

from datetime import timedelta

from ghostclean.app.observation import Observation, refuse_other_account
from ghostclean.app.run import ReconcileRun
from ghostclean.core.broker import BrokerTruth
from ghostclean.core.safety import (
    ORPHAN_ACTIONS,
    Pin,
    breaker,
    knows_this_ledger,
    orphan_breaker,
    without_unproven,
)
from ghostclean.core.trade import order_ids
from ghostclean.core.verdicts import Action, Decision
from ghostclean.errors import BrokerError, DeadlineExceeded

_FIRST_CONTACT_BACK = timedelta(days=30)


def check_account(run: ReconcileRun, truth: BrokerTruth) -> None:
    """Refuses another account than the pinned one; the first that answers may be pinned."""
    live = run.parts.broker.live
    if run.pin is None and run.to_pin is None:
        run.to_pin = Pin(truth.account.id, live)
    refuse_other_account(run.pin or run.to_pin, truth.account, live=live)


def brake(run: ReconcileRun) -> None:
    """Holds every close without proof when there are too many, or nothing shows whose account this is."""
    observation, policy = run.observed(), run.policy
    why = None
    if run.to_pin is not None and not policy.allow_mass_close and _is_stranger(run, observation):
        run.to_pin = None
        if run.plan.unproven:
            why = "nothing shows that this account is the ledger's"
        else:
            run.notes.append("this account knows no order of the ledger: it is not pinned as the ledger's")
    why = why or breaker(run.plan, observation.memory, policy, observation.truth.at)
    if why is not None:
        run.plan = without_unproven(run.plan, "the breaker tripped")
        run.failed(
            "mass_close_stopped",
            f"stopped: {why}; none of them was closed, everything proven was; check the account, "
            "then `ghostclean reconcile --allow-mass-close` if they are right",
        )


def brake_orphans(run: ReconcileRun, decided: list[Decision]) -> list[Decision]:
    """Holds back what must not be adopted or sold: a position whose trade left the ledger, or too many at once."""
    why = orphan_breaker(run.plan, decided, len(run.observed().truth.positions), run.policy)
    if why is not None:
        run.failed(
            "mass_close_stopped",
            f"stopped: {why}; no orphan was adopted or sold; check that this is the right ledger and that it is whole, "
            "then `--allow-mass-close` if they are right",
        )
    gone = {place: trade_id for trade_id, place in run.left.items()}
    places = {o.position.symbol: (o.position.key, str(o.position.side)) for o in run.plan.orphans}
    braked = []
    for decision in decided:
        if decision.action in ORPHAN_ACTIONS:
            trade_id = gone.get(places[decision.ticker])
            if trade_id is not None:
                decision = _reported(decision, f"trade {trade_id} has left the ledger")
            elif why is not None:
                decision = _reported(decision, "the breaker tripped")
        braked.append(decision)
    return braked


def _reported(decision: Decision, why: str) -> Decision:
    return Decision(None, decision.ticker, decision.verdict, Action.KEPT, f"{decision.reason}; only reported: {why}")


def find_left(run: ReconcileRun) -> None:
    """The trades of earlier runs whose record is gone from the ledger, but not their position."""
    held = {(p.key, str(p.side)) for p in run.observed().truth.positions}
    known = {i: (str(v.get("key")), str(v.get("side"))) for i, v in run.verdicts.items()}
    suspects = {i: place for i, place in known.items() if i not in run.plan.own_orders and place in held}
    if not suspects:
        return
    try:
        present = run.deadline.writing(lambda: run.parts.ledger.get(suspects), reserve=run.deadline.left() / 2)
    except DeadlineExceeded:
        present = {}
    run.left = {i: place for i, place in suspects.items() if i not in present}


def _is_stranger(run: ReconcileRun, observation: Observation) -> bool:
    """Whether a ledger that names orders, or would lose trades without proof, shows no sign of this account."""
    names = any(order_ids(record) for record in observation.view.active)
    return (names or bool(run.plan.unproven)) and not _first_contact(run, observation)


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
