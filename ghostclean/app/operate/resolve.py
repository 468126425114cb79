"""The operator's claim on a trade for which proof is missing.

A named order is linked and judged like any other; *vanished* is taken on the person's word, and never while
the broker still holds or works the trade.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.observation import Observation, observe, read_truth, refuse_other_account
from ghostclean.app.parts import Parts
from ghostclean.app.ports import RECONCILE_MEMORY, Change, LedgerView, Record
from ghostclean.core.broker import BrokerTruth, Order, is_uuid
from ghostclean.core.inputs import Policy
from ghostclean.core.ledger import Trade, changed, is_open, is_pending, read_trade, record_id
from ghostclean.core.verdicts import Action, Decision, Verdict, vanished_fields
from ghostclean.errors import BrokerError, BrokerTruthFailed

from .candidates import ALIVE, instruments, unexplained_without
from .corrections import Correction, NothingToDo, Report, carry_out, journal_of, locked

KIND = "resolve"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the person says: exactly one of the three."""

    exit_order: str | None = None
    entry_order: str | None = None
    vanished: bool = False

    def named(self, order_id: str) -> Claim:
        return replace(self, exit_order=order_id) if self.exit_order else replace(self, entry_order=order_id)

    @property
    def link(self) -> dict[str, str]:
        if self.exit_order is not None:
            return {"closeOrderId": self.exit_order}
        return {"alpacaOrderId": self.entry_order} if self.entry_order is not None else {}

    def __str__(self) -> str:
        if self.exit_order is not None:
            return f"order {self.exit_order} closed it"
        return f"order {self.entry_order} opened it" if self.entry_order is not None else "it has vanished"


def resolve_trade(
    parts: Parts, deadline: Deadline, policy: Policy, trade_id: str, claim: Claim, *, run_id: str, dry_run: bool = False
) -> Report:
    """Applies the claim; raises NothingToDo, BrokerTruthFailed, AccountMismatch, Locked, LedgerFailed, StateFailed."""
    at = datetime.now(UTC)
    with locked(parts.state, f"resolve {trade_id}", dry_run=dry_run) as lease:
        view = parts.ledger.read()
        record = open_record(view, trade_id)
        trade = read_trade(record)
        truth = read_truth(parts, deadline)
        refuse_other_account(parts.state.recall_all(["pin"]).pinned, truth.account, live=parts.broker.live)
        look = partial(_observed, parts, deadline, policy, view, record, truth)
        unclaimed = look({})
        order = _named(parts, claim, trade, {trade.key, *instruments(unclaimed, trade)})
        if order is not None:
            claim = claim.named(order.id)
        # What a run sees without the claim: an undo of this is held for as long as that stays the same.
        facts = _judged(unclaimed, trade).facts
        decision = _judged(look(claim.link) if claim.link else unclaimed, trade)
        change, refusal = _change(decision, record, claim, policy, at)
        if claim.vanished and refusal is None:
            refusal = _why_not_vanished(unclaimed, look(None), trade)
        journal = journal_of(parts.ledger, parts.state, lease, kind=KIND, run_id=run_id, now=at)
        verdict = str(Verdict.VANISHED if claim.vanished else decision.verdict)
        reason = f"by an operator's word: {claim}" + ("" if claim.vanished else f"; {decision.reason}")
        proof = _proof(order, decision, facts)
        correction = Correction.of(
            change, journal.entry(trade_id, trade.symbol, verdict, "resolved", reason, proof, change), refusal
        )
        if lease is not None and refusal is None:
            carry_out(journal, [correction], subject=trade_id, holds={trade_id: None})
    return Report(run_id, trade_id, dry_run, (correction.row(dry_run=dry_run),))


def open_record(view: LedgerView, trade_id: str) -> Record:
    """The open or pending record with that id; raises NothingToDo, also where several records have it."""
    if trade_id in view.repeated:
        raise NothingToDo(
            f"the ledger has several records with the id {trade_id!r}: nothing was changed; "
            "give each an id of its own in the app"
        )
    for record in view.active:
        if record_id(record) == trade_id and (is_open(record) or is_pending(record)):
            return record
    raise NothingToDo(
        f"the ledger has no open trade {trade_id!r}: nothing was changed; `ghostclean explain` knows closed ones"
    )


def _why_not_vanished(observation: Observation, without: Observation, trade: Trade) -> str | None:
    """What of the trade's instruments is not seen, or still there; `without` is of the ledger without the trade."""
    if not trade.symbol:
        return "it has no symbol, so nobody knows what may be left of it; correct the record in the app"
    if any(observation.evidence.unanswered.get(name) for name in trade.entry_orders):
        return "its entry order cannot be looked up, so nobody knows what may be left of it; try again"
    keys = instruments(observation, trade)
    unseen = without.truth.positions.why_unobserved(*keys)
    return unseen or next((why for key, side in keys.items() if (why := unexplained_without(without, key, side))), None)


def _named(parts: Parts, claim: Claim, trade: Trade, keys: Collection[str]) -> Order | None:
    """The order the person names, checked to be one that can have done it; raises NothingToDo."""
    order_id = claim.exit_order or claim.entry_order
    if order_id is None:
        return None
    found = _look_up(parts, order_id)
    order = found[0]
    wanted = trade.side.closing if claim.exit_order else trade.side.opening
    why = None
    if not any(leg.key in keys for leg in found):
        why = f"is of {order.symbol}, the trade of {trade.symbol}"
    elif order.side and order.side != wanted:
        why = f"is a {order.side}, a {wanted} is needed"
    elif claim.exit_order and not order.filled_qty:
        why = "filled nothing, so it closed nothing"
    if why is not None:
        raise NothingToDo(f"order {order_id} {why}: nothing was changed")
    return order


def _look_up(parts: Parts, order_id: str) -> tuple[Order, ...]:
    try:
        found = parts.broker.order(order_id) if is_uuid(order_id) else None
        found = found or parts.broker.order_by_client_id(order_id)
    except BrokerError as error:
        raise BrokerTruthFailed(
            f"order {order_id} cannot be looked up ({error}): nothing was changed; try again"
        ) from None
    if found is None:
        raise NothingToDo(f"the broker knows no order {order_id}: nothing was changed; check the id")
    return found


def _observed(
    parts: Parts,
    deadline: Deadline,
    policy: Policy,
    view: LedgerView,
    record: Record,
    truth: BrokerTruth,
    link: Mapping[str, str] | None,
) -> Observation:
    """The ledger with the named order linked to the trade, or without that trade at all."""
    linked = [{**record, **link}] if link is not None else []
    seen = replace(view, active=tuple(row for other in view.active for row in (linked if other is record else [other])))
    known = deadline.reading(lambda: parts.state.recall_all(RECONCILE_MEMORY))
    memory = replace(known, holds={}, misses={}, orders={})
    return observe(parts, deadline, policy, seen, memory, truth, look_again=False)


def _judged(observation: Observation, trade: Trade) -> Decision:
    found = next((decision for decision in observation.plan.decisions if decision.trade_id == trade.id), None)
    if found is None:
        raise NothingToDo(f"trade {trade.id!r} is not one that runs work on: nothing was changed")
    return found


def _change(
    decision: Decision, record: Record, claim: Claim, policy: Policy, now: datetime
) -> tuple[Change, str | None]:
    trade_id = record_id(record) or ""
    if claim.vanished:
        fields = changed(record, vanished_fields(policy.close_reason, now, record), now)
        alive = decision.verdict in ALIVE
        return Change(trade_id, record, fields), f"it is {decision.verdict}: {decision.reason}" if alive else None
    fields = {**claim.link}
    proven = decision.action.writes and not decision.unproven
    if proven:
        fields |= decision.fields
    # An exit order must take the trade out: one whose fills another trade owns does not.
    if claim.exit_order:
        fits = proven and decision.action in (Action.CLOSED, Action.REDUCED)
    else:
        fits = decision.verdict not in (Verdict.MISMATCH, Verdict.DUPLICATE, Verdict.OTHER_ACCOUNT)
    refusal = None if fits else f"with that order it is {decision.verdict}: {decision.reason}"
    return Change(trade_id, record, changed(record, fields, now), decision.remove), refusal


def _proof(order: Order | None, decision: Decision, facts: str) -> list[dict[str, Any]]:
    rows = [{"what": "named by an operator", "at": None, "order": order.id, "status": order.status}] if order else []
    seen = [{"what": "broker facts", "at": None, "fingerprint": facts}] if facts else []
    return [*rows, *(proof.to_dict() for proof in decision.proof), *seen]
