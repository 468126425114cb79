"""The brakes of a run: the right account, its first contact with a ledger, the breakers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ghostclean.app.journal import WRITTEN
from ghostclean.app.observation import Observation, refuse_other_account
from ghostclean.app.ports import JournalEntry
from ghostclean.app.run import ReconcileRun
from ghostclean.core.alerts import OVERWRITTEN
from ghostclean.core.broker import BrokerTruth
from ghostclean.core.ledger import ADOPTED, order_ids
from ghostclean.core.safety import (
    ORPHAN_ACTIONS,
    Pin,
    breaker,
    knows_this_ledger,
    leaving,
    orphan_breaker,
    without_closes,
    without_unproven,
)
from ghostclean.core.verdicts import Action, Decision, Plan, Verdict
from ghostclean.errors import BrokerError, DeadlineExceeded

_FIRST_CONTACT_BACK = timedelta(days=30)
_GONE = frozenset({Verdict.VANISHED, Verdict.FILLED_BUT_GONE})
_OUR_REASONS = ("duplicate_of:", "never_filled:", "undone:")
FORGETS = 3  # runs in a row whose state had never seen the ledger
_KEEP_IT = "keep the state, beside the ledger (GHOSTCLEAN_STATE=sqlite:PATH) or in a Redis"
_NAMED = 5
_MOST_ASKED = 50  # trades that are new to us and gone: each is one question to the journal


def check_account(run: ReconcileRun, truth: BrokerTruth) -> None:
    """Refuses another account than the pinned one; the first that answers may be pinned."""
    live = run.parts.broker.live
    if run.pin is None and run.to_pin is None:
        run.to_pin = Pin(truth.account.id, live)
    refuse_other_account(run.pin or run.to_pin, truth.account, live=live)


def brake(run: ReconcileRun) -> None:
    """Holds every close without proof when there are too many, and all of them where the account may be another's."""
    observation, policy = run.observed(), run.policy
    pin, run.to_pin = run.to_pin, None  # asking may fail: until it is answered nothing is pinned
    if pin is not None and not policy.allow_mass_close and _is_stranger(run, observation):
        run.is_stranger = _names_orders(observation)
        why = "nothing shows that this account is the ledger's"
        what = "nothing was closed" if run.is_stranger else "none of them was closed"
        if not leaving(run.plan):
            run.notes.append("this account knows no order of the ledger: it is not pinned as the ledger's")
            return
    else:
        run.to_pin = pin
        what = "none of them was closed, everything proven was"
        found = breaker(run.plan, observation.memory, policy, observation.truth.at, run.overwritten)
        if found is None:
            return
        why = found
    run.failed(
        "mass_close_stopped",
        f"stopped: {why}; {what}; check the account, then `ghostclean reconcile --allow-mass-close` if they are right",
    )
    run.plan = hold_back(run, run.plan)


def hold_back(run: ReconcileRun, plan: Plan) -> Plan:
    """The plan without what the brakes hold, also when it is decided again.

    Fills of an account that knows no order of the ledger prove nothing about its trades.
    """
    if run.is_stranger:
        return without_closes(plan, "nothing shows that this account is the ledger's")
    return without_unproven(plan, "the breaker tripped") if run.error == "mass_close_stopped" else plan


def brake_orphans(run: ReconcileRun, decided: list[Decision]) -> list[Decision]:
    """Reports instead of adopting or selling: a position whose trade left the ledger, or too many at once."""
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
    """Remembers trades of earlier runs whose record is gone from the ledger while the position stands."""
    positions = run.observed().truth.positions
    held = {(p.key, str(p.side)) for p in positions.rows}
    ours = {i: v for i, v in run.memory.verdicts.items() if v.get("verdict") != Verdict.OTHER_ACCOUNT}
    known = {i: (str(v.get("key")), str(v.get("side"))) for i, v in ours.items()}

    def may_hold(place: tuple[str, str]) -> bool:
        return place in held or positions.why_unobserved(place[0]) is not None

    suspects = {i: place for i, place in known.items() if i not in run.plan.own_orders and may_hold(place)}
    if not suspects:
        return
    try:
        present = run.deadline.writing(lambda: run.parts.ledger.get(suspects), reserve=run.deadline.left() / 2)
    except DeadlineExceeded:
        present = {}
    run.left = {i: place for i, place in suspects.items() if i not in present}


def note_lost_memory(run: ReconcileRun) -> None:
    """Notes an empty state beside a ledger that carries marks of earlier runs."""
    observation = run.observed()
    records = [*observation.view.active, *(r for rows in observation.lookups.closed.values() for r in rows)]
    if run.pin is None and not run.memory.verdicts and any(map(_is_marked, records)):
        run.notes.append(
            f"the state at {run.parts.state.place} remembers nothing of this ledger, which carries the marks of "
            f"earlier runs: pin, journal and breaker count are gone; this run starts as at first contact; {_KEEP_IT}"
        )


def note_forgetting(run: ReconcileRun) -> None:
    """Notes a state that forgets: run after run it has never seen a ledger in which there are trades."""
    if run.dry_run or not run.ledger_seen or not run.observed().view.total:
        return
    run.met = run.parts.met(bool(run.memory.ledger.get("seen")))
    if run.met >= FORGETS:
        run.notes.append(why_forgetting(run))


def why_forgetting(run: ReconcileRun) -> str:
    """What that means, and how the state is kept."""
    return (
        f"{run.met} runs in a row have met this ledger as the first: this machine forgets the state at "
        f"{run.parts.state.place}, and with it the pinned account, the journal and what earlier runs have seen; "
        f"{_KEEP_IT}"
    )


def _is_marked(record: Mapping[str, Any]) -> bool:
    managed = record.get("autoManage")
    if isinstance(managed, Mapping) and "lastRunId" in managed:
        return True
    adopted = record.get("source") == "broker_backfill" and str(record.get("id")).startswith(ADOPTED)
    return adopted or str(record.get("closeReason")).startswith(_OUR_REASONS)


def find_overwritten(run: ReconcileRun) -> None:
    """Closed trades that are open again because the app wrote back an older copy of its ledger."""
    run.overwritten = {i: v["overwritten"] for i, v in run.memory.verdicts.items() if v.get("overwritten")}
    for trade_id in _new_and_gone(run)[:_MOST_ASKED]:
        last = _last_written(run, trade_id)
        if last is not None and last.action == Action.CLOSED:
            run.overwritten[trade_id] = last.run_id
    again = [f"{d.ticker} {d.trade_id}" for d in run.plan.decisions if d.trade_id in run.overwritten]
    if again:
        more = f" and {len(again) - _NAMED} more" if len(again) > _NAMED else ""
        run.notes.append(f"{OVERWRITTEN} with an older copy of its ledger: {', '.join(again[:_NAMED])}{more}")
        run.plan = replace(run.plan, decisions=tuple(_closed_again(d, run.overwritten) for d in run.plan.decisions))


def _new_and_gone(run: ReconcileRun) -> list[str]:
    if run.pin is None:
        return []
    gone = (d.trade_id for d in run.plan.decisions if d.stale or d.verdict in _GONE)
    return [trade_id for trade_id in gone if trade_id is not None and trade_id not in run.memory.verdicts]


def _last_written(run: ReconcileRun, trade_id: str) -> JournalEntry | None:
    entries = run.deadline.writing(lambda: run.parts.state.journal(trade_id=trade_id))
    return next((entry for entry in reversed(entries) if entry.outcome == WRITTEN and entry.after), None)


def _closed_again(decision: Decision, overwritten: Mapping[str, str]) -> Decision:
    by = overwritten.get(decision.trade_id or "")
    if by is None:
        return decision
    return replace(decision, reason=f"{decision.reason}; run {by} has closed it, and the app overwrote that close")


def _is_stranger(run: ReconcileRun, observation: Observation) -> bool:
    """Whether a ledger that names orders, or would lose trades without proof, shows no sign of this account."""
    return (_names_orders(observation) or bool(run.plan.unproven)) and not _first_contact(run, observation)


def _names_orders(observation: Observation) -> bool:
    """Those of another account's records count: where no others are named, nothing shows this account to be right."""
    return any(True for record in observation.view.active for _ in order_ids(record))


def _first_contact(run: ReconcileRun, observation: Observation) -> bool:
    records = [*observation.ours, *(r for rows in observation.lookups.closed.values() for r in rows)]
    held = (p.key for p in observation.truth.positions.rows)
    return knows_this_ledger(records, observation.evidence, held) or _traded_for_it(run, observation)


def _traded_for_it(run: ReconcileRun, observation: Observation) -> bool:
    deadline, parts = run.deadline, run.parts
    try:
        fills = deadline.reading(lambda: parts.broker.fills(observation.truth.at - _FIRST_CONTACT_BACK))
        closed = deadline.reading(lambda: parts.ledger.history(frozenset(fill.key for fill in fills)))
    except (BrokerError, DeadlineExceeded):
        return False
    known = {fill.order_id for fill in fills}
    ours = filter(observation.lookups.ours, closed)
    return any(order_id in known for record in ours for order_id in order_ids(record))
