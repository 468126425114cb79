"""One complete observation of ledger and broker, decided: what reconcile, auto-manage and snapshot share.

Account, then working orders, then positions; decide; look up what the decision needs; read the
lists once more before anything is closed; decide again. A close stands only if both readings
agree on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.lookup import Lookups
from ghostclean.app.parts import Parts
from ghostclean.app.ports import LedgerView
from ghostclean.core.broker import Account, BrokerTruth
from ghostclean.core.decide import decide
from ghostclean.core.evidence import Evidence
from ghostclean.core.plan import Plan
from ghostclean.core.policy import Policy
from ghostclean.core.remembered import recall_orders
from ghostclean.core.safety import Pin
from ghostclean.core.trade import FINAL, Trade, is_open, is_pending, read_trade, status_of
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.core.world import Memory, World
from ghostclean.errors import AccountMismatch, BrokerError, BrokerTruthFailed, DeadlineExceeded, StateFailed

_ROUNDS = 8
_SECOND_LOOK_AFTER = 1.0
_SECTIONS: Mapping[str, type] = {
    "first_seen": str, "last_worked": str, "misses": dict, "exits": list, "holds": dict, "unproven": dict,
}  # fmt: skip
_CHANGED_MEANWHILE = "the broker's answer changed while we looked; decided in the next run"


@dataclass(slots=True)
class Observation:
    """What was seen and decided; `agreed` are the trades that both readings call closed."""

    view: LedgerView
    memory: Memory
    truth: BrokerTruth
    lookups: Lookups
    plan: Plan
    policy: Policy
    agreed: frozenset[str] | None = None
    reread_failed: str | None = None
    _split: tuple[LedgerView, tuple[Trade, ...], tuple[Trade, ...]] | None = None

    @property
    def evidence(self) -> Evidence:
        return self.lookups.evidence

    @property
    def partial(self) -> bool:
        return self.lookups.partial or self.reread_failed is not None

    def decide_again(self, view: LedgerView) -> Plan:
        """The plan for a ledger that changed meanwhile, on the same broker truth."""
        self.view = view
        self.plan = self.confirmed(decide(self.world()))
        return self.plan

    def world(self) -> World:
        if self._split is None or self._split[0] is not self.view:  # reading is a third of a quiet run's own time
            self._split = (self.view, *split_records(self.view))
        _, trades, others = self._split
        now = self.truth.at
        closed = self.lookups.closed
        return World(trades, others, closed, self.truth, self.evidence, self.memory, self.policy, now)

    def confirmed(self, plan: Plan) -> Plan:
        """Takes back what only one of the two readings would close or reduce."""
        if self.agreed is None:
            return plan
        agreed = self.agreed
        return replace(plan, decisions=tuple(_unless_agreed(d, agreed) for d in plan.decisions))


def split_records(view: LedgerView) -> tuple[tuple[Trade, ...], tuple[Trade, ...]]:
    """Open and pending trades, and the other records that are not final."""
    trades: list[Trade] = []
    others: list[Trade] = []
    for record in view.active:
        if is_open(record) or is_pending(record):
            trades.append(read_trade(record))
        elif status_of(record) not in FINAL and status_of(record):
            others.append(read_trade(record))
    return tuple(trades), tuple(others)


def recall(parts: Parts, deadline: Deadline) -> Memory:
    """What earlier runs remembered about this ledger."""
    return Memory(**{name: recall_section(parts, deadline, name, shape) for name, shape in _SECTIONS.items()})


def recall_section(parts: Parts, deadline: Deadline, name: str, shape: type) -> dict[str, Any]:
    """One section of the memory; a value of another shape is damage: an undo or a pin might stand in it."""
    found = deadline.reading(lambda: parts.state.recall(name))
    for key, value in found.items():
        texts = not isinstance(value, list) or all(isinstance(v, str) for v in value)
        if not isinstance(value, shape) or not texts:
            raise StateFailed(
                f"The state at {parts.state.place} is damaged: what it remembers of {key} under {name!r} has another "
                "shape; nothing was changed. Cure: restore it, or point GHOSTCLEAN_STATE at a new place."
            )
    return found


def read_truth(parts: Parts, deadline: Deadline) -> BrokerTruth:
    """Account, working orders, then positions; BrokerTruthFailed unless all of it is complete.

    Orders come first: an entry that fills between the two reads is then seen at least once.
    """
    broker = parts.broker
    try:
        account = deadline.reading(broker.account)
        orders = deadline.reading(broker.working_orders)
        positions = deadline.reading(broker.positions)
        truth = BrokerTruth(account, orders, positions, broker.now())
        if truth.contradiction() is not None:
            parts.pause(min(_SECOND_LOOK_AFTER, deadline.left_for_reading() / 4))
            account = deadline.reading(broker.account)
            positions = deadline.reading(broker.positions)
            truth = BrokerTruth(account, orders, positions, broker.now())
    except BrokerError as error:
        raise BrokerTruthFailed(
            f"broker truth is not observed ({error}): nothing was closed; the next run tries again"
        ) from None
    except DeadlineExceeded:
        raise BrokerTruthFailed(
            "broker truth was not complete in time: nothing was closed; raise --deadline or see `ghostclean doctor`"
        ) from None
    why = truth.contradiction()
    if why is not None:
        raise BrokerTruthFailed(
            f"broker truth contradicts itself ({why}): nothing was closed; check the account, the next run tries again"
        )
    return truth


def observe(
    parts: Parts,
    deadline: Deadline,
    policy: Policy,
    view: LedgerView,
    memory: Memory,
    remembered: Mapping[str, Any],
    truth: BrokerTruth,
    *,
    look_again: bool = True,
) -> Observation:
    """Decides, looks up, reads again before closing, decides again."""
    evidence = Evidence()
    evidence.add_orders(recall_orders(remembered.values()))
    evidence.set_working(truth.orders)
    lookups = Lookups(parts.broker, parts.ledger, deadline, evidence)
    observation = Observation(view, memory, truth, lookups, Plan(()), policy)
    observation.plan = _decide_with_lookups(observation)
    closing = _rests_on_absence(observation.plan)
    if not closing or not look_again:
        return observation
    observation.agreed = closing
    try:
        second = read_truth(parts, deadline)
    except (BrokerError, BrokerTruthFailed, DeadlineExceeded) as error:
        observation.reread_failed = str(error)
        # What own orders prove stands without a second look; absence does not.
        observation.agreed = frozenset(
            d.trade_id or "" for d in observation.plan.decisions if d.action.writes and not d.unproven
        )
        observation.plan = observation.confirmed(observation.plan)
        return observation
    observation.truth = second
    evidence.set_working(second.orders)
    observation.plan = observation.confirmed(_decide_with_lookups(observation))
    return observation


def observe_for_orders(parts: Parts, deadline: Deadline, policy: Policy) -> Observation:
    """What auto-manage decides on, after the reconcile before it; raises GhostcleanError.

    The account is checked here as well: a reconcile that refused it is only noted, and no order
    may go to an account that is not this ledger's.
    """
    view = deadline.reading(parts.ledger.read)
    memory = recall(parts, deadline)
    remembered = recall_section(parts, deadline, "orders", dict)
    pin = recall_pin(parts, deadline)
    truth = read_truth(parts, deadline)
    refuse_other_account(pin, truth.account, live=parts.broker.live)
    return observe(parts, deadline, policy, view, memory, remembered, truth, look_again=False)


def recall_pin(parts: Parts, deadline: Deadline) -> Pin | None:
    """The account that this ledger belongs to, None while nothing is pinned."""
    pinned = recall_section(parts, deadline, "pin", dict).get("account")
    return Pin(str(pinned.get("id")), bool(pinned.get("live"))) if pinned is not None else None


def refuse_other_account(pin: Pin | None, account: Account, *, live: bool) -> None:
    """Raises AccountMismatch when another account than the pinned one answered."""
    why = pin.mismatch(account, live) if pin is not None else None
    if why is not None:
        raise AccountMismatch(
            f"wrong account: {why}; nothing was changed and no order was sent; correct the keys, "
            "or accept it with `ghostclean doctor --pin`"
        )


def _decide_with_lookups(observation: Observation) -> Plan:
    """Decides and looks up in turns until nothing more is asked for."""
    plan = decide(observation.world())
    asked: set[object] = set()
    for _ in range(_ROUNDS):
        fresh = [need for need in plan.needs if need not in asked]
        if not fresh:
            break
        asked.update(fresh)
        in_time = observation.lookups.answer(fresh)
        plan = decide(observation.world())
        if not in_time:
            # What the answers so far prove needs the ledger's own records still, not the broker.
            return decide(observation.world()) if observation.lookups.read_records(plan.needs) else plan
    return plan


def _rests_on_absence(plan: Plan) -> frozenset[str]:
    """The trades that would leave the books, or shrink in them."""
    return frozenset(d.trade_id or "" for d in plan.decisions if d.action in (Action.CLOSED, Action.REDUCED))


def _unless_agreed(decision: Decision, agreed: frozenset[str]) -> Decision:
    if decision.action not in (Action.CLOSED, Action.REDUCED) or (decision.trade_id or "") in agreed:
        return decision
    return replace(
        decision, verdict=Verdict.SETTLING, action=Action.HELD, reason=_CHANGED_MEANWHILE, fields={}, unproven=False
    )
