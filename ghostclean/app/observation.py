"""One complete observation of ledger and broker, decided.

Account, working orders, positions; decide; look up; read the lists once more before anything is closed;
decide again. A close stands only if both readings agree on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from ghostclean.app.deadline import Deadline
from ghostclean.app.lookup import Lookups
from ghostclean.app.parts import Parts
from ghostclean.app.ports import RECONCILE_MEMORY, LedgerView, Recalled, Record
from ghostclean.core.broker import Account, BrokerTruth, Evidence, recall_orders
from ghostclean.core.inputs import Policy, World
from ghostclean.core.ledger import FINAL, Trade, is_open, is_pending, other_account, read_trade, status_of
from ghostclean.core.safety import Pin, leaving
from ghostclean.core.verdicts import Action, Decision, Plan, Verdict, decide
from ghostclean.errors import AccountMismatch, BrokerError, BrokerTruthFailed, Cause, DeadlineExceeded

_ROUNDS = 8
_SECOND_LOOK_AFTER = 1.0
_CHANGED_MEANWHILE = "the broker's answer changed while we looked; decided in the next run"


@dataclass(slots=True)
class Observation:
    """What was seen and decided; `agreed` are the trades that both readings call closed."""

    view: LedgerView
    memory: Recalled
    truth: BrokerTruth
    lookups: Lookups
    plan: Plan
    policy: Policy
    agreed: frozenset[str] | None = None
    reread_failed: str | None = None
    live: bool = False
    _split: tuple[LedgerView, tuple[Trade, ...], tuple[Trade, ...]] | None = None

    @property
    def evidence(self) -> Evidence:
        return self.lookups.evidence

    @property
    def partial(self) -> bool:
        return self.lookups.partial or self.reread_failed is not None

    def decide_again(self, view: LedgerView, written: Iterable[Decision] = ()) -> Plan:
        """The plan for a ledger that changed meanwhile, on the same broker truth.

        What this run has `written` as closed keeps its orders, though the closed records were read before.
        """
        self.view = view
        for decision in written:
            if decision.action is Action.CLOSED and decision.base is not None:
                self.lookups.note_closed({**decision.base, **decision.fields})
        self.plan = self.confirmed(decide(self.world()))
        return self.plan

    def without_grace(self) -> Plan:
        """The plan without waiting for the grace."""
        return _decide_with_lookups(replace(self, policy=replace(self.policy, grace=timedelta(0))))

    def world(self) -> World:
        if self._split is None or self._split[0] is not self.view:  # reading is a third of a quiet run's own time
            self._split = (self.view, *split_records(self.view))
        _, trades, others = self._split
        now, closed, repeated = self.truth.at, self.lookups.closed, self.view.repeated
        return World(
            trades, others, closed, self.truth, self.evidence, self.memory, self.policy, now, self.live, repeated
        )

    @property
    def ours(self) -> list[Record]:
        return [record for record in self.view.active if self.lookups.ours(record)]

    def confirmed(self, plan: Plan) -> Plan:
        """Takes back a close or a reduction that only one of the two readings shows."""
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


def read_truth(parts: Parts, deadline: Deadline, *, view: LedgerView | None = None) -> BrokerTruth:
    """Account, working orders, then positions, all complete, else BrokerTruthFailed.

    In this order an entry that fills between two reads is seen at least once.
    """
    broker = parts.broker
    try:
        account, orders, positions = deadline.reading(
            lambda: (broker.account(), broker.working_orders(), broker.positions())
        )
        truth = BrokerTruth.of(account, orders, positions, broker.now())
        if truth.contradiction() is not None:
            parts.pause(min(_SECOND_LOOK_AFTER, deadline.left_for_reading() / 4))
            account, positions = deadline.reading(lambda: (broker.account(), broker.positions()))
            truth = BrokerTruth.of(account, orders, positions, broker.now())
    except BrokerError as error:
        raise BrokerTruthFailed(
            f"broker truth is not observed: {error.line}; nothing was closed; {error.cure}",
            why=f"{error.line}; {error.cure}",
            cause=error.cause,
        ) from None
    except DeadlineExceeded:
        raise BrokerTruthFailed(
            "broker truth was not complete in time: nothing was closed; raise --deadline or see `ghostclean doctor`",
            why="broker truth was not complete in time",
        ) from None
    why = truth.contradiction()
    if why is None and account.is_bare and view is not None and _has_open(view, account, live=broker.live):
        why = "the account has neither equity nor cash, the ledger has open trades"
    if why is not None:
        raise BrokerTruthFailed(
            f"broker truth contradicts itself ({why}): nothing was closed; check the account, the next run tries again",
            why=f"broker truth contradicts itself ({why})",
            cause=Cause.WRONG,
        )
    return truth


def _has_open(view: LedgerView, account: Account, *, live: bool) -> bool:
    return any(is_open(record) and other_account(record, account, live=live) is None for record in view.active)


def observe(
    parts: Parts,
    deadline: Deadline,
    policy: Policy,
    view: LedgerView,
    memory: Recalled,
    truth: BrokerTruth,
    *,
    look_again: bool = True,
) -> Observation:
    """Decides, looks up, reads again before closing, decides again."""
    evidence = Evidence()
    evidence.add_orders(recall_orders(memory.orders.values()))
    evidence.set_working(truth.orders)
    account, live = truth.account, parts.broker.live

    def is_ours(record: Record) -> bool:
        return other_account(record, account, live=live) is None

    lookups = Lookups(parts.broker, parts.ledger, deadline, evidence, is_ours, parts.progress)
    observation = Observation(view, memory, truth, lookups, Plan(()), policy, live=live)
    observation.plan = _decide_with_lookups(observation)
    closing = leaving(observation.plan)
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
    """What auto-manage decides on; raises GhostcleanError, also for an account that is not the pinned one."""
    view = deadline.reading(parts.ledger.read)
    memory = deadline.reading(lambda: parts.state.recall_all(RECONCILE_MEMORY))
    truth = read_truth(parts, deadline, view=view)
    refuse_other_account(memory.pinned, truth.account, live=parts.broker.live)
    return observe(parts, deadline, policy, view, memory, truth, look_again=False)


def refuse_other_account(pin: Pin | None, account: Account, *, live: bool) -> None:
    """Raises AccountMismatch when another account than the pinned one answered."""
    why = pin.mismatch(account, live) if pin is not None else None
    if why is not None:
        raise AccountMismatch(
            f"wrong account: {why}; nothing was changed and no order was sent; correct the keys, "
            "or accept it with `ghostclean doctor --pin`"
        )


def _decide_with_lookups(observation: Observation) -> Plan:
    plan = decide(observation.world())
    asked: set[object] = set()
    for _ in range(_ROUNDS):
        fresh = [need for need in plan.questions if need not in asked]
        if not fresh:
            break
        asked.update(fresh)
        in_time = observation.lookups.answer(fresh)
        plan = decide(observation.world())
        if not in_time:
            # What the answers so far prove needs the ledger's own records still, not the broker.
            return decide(observation.world()) if observation.lookups.read_records(plan.questions) else plan
    return plan


def _unless_agreed(decision: Decision, agreed: frozenset[str]) -> Decision:
    if decision.action not in (Action.CLOSED, Action.REDUCED) or (decision.trade_id or "") in agreed:
        return decision
    return replace(
        decision, verdict=Verdict.SETTLING, action=Action.HELD, reason=_CHANGED_MEANWHILE, fields={}, unproven=False
    )
