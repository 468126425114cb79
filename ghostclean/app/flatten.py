"""Sells orphans (`--orphans flatten`): exactly what no trade explains, through the one order door.

Ledger and position are read again first; the intent is journaled before anything is cancelled;
only an order that filled counts as flattened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from ghostclean.app.apply import Writer
from ghostclean.app.order_door import Answer, Claim, OrderDoor, Outcome
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import JournalEntry, Lease
from ghostclean.app.survey import Survey
from ghostclean.core.broker import Order
from ghostclean.core.decide import decide
from ghostclean.core.jsonvalue import json_value
from ghostclean.core.market import Market
from ghostclean.core.numbers import plain
from ghostclean.core.orphans import adopted_id
from ghostclean.core.plan import Orphan
from ghostclean.core.stops import tightest
from ghostclean.core.times import iso
from ghostclean.core.trade import order_ids
from ghostclean.core.verdicts import Action, Decision, Proof
from ghostclean.errors import BrokerError, DeadlineExceeded

_SECONDS_AN_ORPHAN = 10.0
_LEAST_SECONDS = 3.0


@dataclass(slots=True)
class Flattener:
    """Flattens the orphans of one run."""

    parts: Parts
    options: Options
    survey: Survey
    lease: Lease
    entries: list[JournalEntry]

    def flatten(self, decision: Decision) -> Decision:
        """The row with what became of the orphan; never raises for what a broker does."""
        orphan = next((o for o in self.survey.plan.orphans if o.position.symbol == decision.ticker), None)
        if orphan is None or self.options.deadline.left() < _LEAST_SECONDS:
            return _left(decision, "no time was left to sell it")
        try:
            return self._flatten(decision, orphan)
        except (BrokerError, DeadlineExceeded) as error:
            return _left(decision, f"not sold: {error}")

    def _flatten(self, decision: Decision, orphan: Orphan) -> Decision:
        if not self._still_unexplained(orphan):
            return _left(decision, "a trade explains it by now")
        position = orphan.position
        door = self._door()
        name = adopted_id(orphan, self.survey.truth.account.id, self.survey.evidence, self._day(orphan))
        claim = Claim(
            name, position.symbol, position.key, position.side, orphan.qty, orphan.qty, position.is_crypto,
            self.parts.broker.now(),
        )  # fmt: skip
        holders = [o for o in door.look(claim).closing if not self._is_owned(o.id)]
        why = door.why_not_close(claim, [o.id for o in holders])
        if why is not None:
            return _left(decision, why)
        writer = self._writer()
        intent = writer.entry(replace(decision, trade_id=name), "intended", 0)
        self.options.deadline.writing(lambda: self.parts.state.intend([intent]))
        still = door.cancel(claim, holders, _SECONDS_AN_ORPHAN, "it holds shares that no trade explains")
        if still:
            self.entries.append(replace(intent, outcome="left"))
            return _left(decision, f"order {still[0].id} still holds its shares")
        answer = door.flatten_orphan(position, orphan.qty, name, _SECONDS_AN_ORPHAN)
        proof = tuple(json_value(entry) for entry in door.log)
        order = answer.order
        if order is not None and order.status == "filled":
            price = f" at {plain(order.avg_price)}" if order.avg_price is not None else ""
            self.entries.append(replace(intent, outcome="written", proof=(*intent.proof, *proof)))
            sold = Proof("order", order.fill_time, {"orderId": order.id, "filledQty": plain(order.filled_qty)})
            return replace(
                decision, reason=f"{plain(orphan.qty)} sold{price}, no trade explained them",
                proof=(*decision.proof, sold), facts="done",
            )  # fmt: skip
        self.entries.append(replace(intent, outcome="left", proof=(*intent.proof, *proof)))
        return _left(decision, f"not sold yet: {answer.reason}{_put_back(door, claim, answer, holders)}")

    def _still_unexplained(self, orphan: Orphan) -> bool:
        """The orphan by a fresh reading of the ledger."""
        view = self.options.deadline.writing(self.parts.ledger.read)
        plan = decide(replace(self.survey, view=view).world())
        return any(o.position.key == orphan.position.key and o.qty == orphan.qty for o in plan.orphans)

    def _is_owned(self, order_id: str) -> bool:
        return any(order_id in set(order_ids(record)) for record in self.survey.view.active)

    def _day(self, orphan: Orphan) -> str:
        return iso(
            self.survey.memory.seen(f"orphan:{orphan.position.key}:{orphan.position.side}", self.survey.truth.at)
        )

    def _door(self) -> OrderDoor:
        broker, deadline = self.parts.broker, self.options.deadline
        clock = deadline.writing(broker.clock)
        today = clock.at.date()
        sessions = deadline.writing(lambda: broker.calendar(today - timedelta(days=4), today + timedelta(days=1)))
        return OrderDoor(
            broker,
            self.parts.state,
            Market.of(clock, sessions),
            deadline,
            grace=self.options.policy.grace,
            verify=self.lease.verify,
        )

    def _writer(self) -> Writer:
        at = iso(self.parts.wall())
        return Writer(self.parts, self.options.deadline, self.lease, self.options.run_id, self.options.source, at)


def _put_back(door: OrderDoor, claim: Claim, answer: Answer, holders: Sequence[Order]) -> str:
    """The stop that made room for a sale which the broker refused; what is said about it.

    Not while the sale may still fill: a stop beside it could sell the shares twice.
    """
    stops = [o.stop_price for o in holders if o.is_stop and o.stop_price is not None]
    if not stops or answer.outcome is Outcome.UNKNOWN or (answer.order is not None and not answer.order.is_final):
        return ""
    stop = tightest(claim.side, stops)
    back = door.place_stop(claim, stop)
    return f"; its stop at {plain(stop)} is {'back' if back.is_done else f'not back: {back.reason}'}"


def _left(decision: Decision, why: str) -> Decision:
    return replace(decision, action=Action.KEPT, reason=f"{decision.reason}; {why}")
