"""Sells orphans (`--orphans flatten`): exactly what no trade explains, through the one order door.

Ledger and position are read again first; the intent is journaled, and a stop that holds the
shares remembered, before anything is cancelled; only an order that filled counts as flattened.
Whatever else becomes of a sale, its stop goes back: at once, or by the next run (`owed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.journal import NOTED, SKIPPED, WRITTEN, Journal
from ghostclean.app.manage.flatten import NEEDS_SECONDS
from ghostclean.app.observation import Observation
from ghostclean.app.order_door import Answer, Claim, OrderDoor, Outcome
from ghostclean.app.owed import Owed, Settled, forget, is_sale, settle
from ghostclean.app.parts import Parts
from ghostclean.app.ports import OWED, JournalEntry, Lease
from ghostclean.core.broker import Order
from ghostclean.core.client_ids import parse_client_id, trade_tag
from ghostclean.core.decide import decide
from ghostclean.core.market import Market
from ghostclean.core.numbers import plain
from ghostclean.core.orphans import adopted_id, orphan_name
from ghostclean.core.plan import Orphan
from ghostclean.core.protection import OrderBook, with_family
from ghostclean.core.times import iso
from ghostclean.core.trade import order_ids, record_id
from ghostclean.core.verdicts import Action, Decision, Proof, Verdict
from ghostclean.errors import BrokerError, DeadlineExceeded, StateFailed

_SECONDS_AN_ORPHAN = 10.0
_LEAST_SECONDS = 3.0


@dataclass(slots=True)
class Flattener:
    """Flattens the orphans of one run, and gives back the stops that sales took away.

    `owed` are the stops of earlier runs by the orphan's name; `notes` is what is said of those
    that no row tells of, `naked` one line for each stop that is still not back.
    """

    parts: Parts
    deadline: Deadline
    grace: timedelta
    survey: Observation
    lease: Lease
    journal: Journal
    owed: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)
    naked: list[str] = field(default_factory=list)
    _settled: set[str] = field(default_factory=set)

    def flatten(self, decision: Decision) -> Decision:
        """The row with what became of the orphan; never raises for what a broker does."""
        orphan = next((o for o in self.survey.plan.orphans if o.position.symbol == decision.ticker), None)
        if orphan is None or self.deadline.left() < _LEAST_SECONDS:
            return _left(decision, "no time was left to sell it")
        try:
            return self._flatten(decision, orphan)
        except (BrokerError, DeadlineExceeded) as error:
            return _left(decision, f"not sold: {error}")

    def _flatten(self, decision: Decision, orphan: Orphan) -> Decision:
        if not self._still_unexplained(orphan):
            return _left(decision, "a trade of the ledger explains it by now, or may be it")
        position = orphan.position
        earlier = Owed.parse(self.owed.get(orphan_name(orphan), {}))
        name = earlier.name if earlier is not None else self._name(orphan)
        door = self._door()
        claim = Claim(
            name, position.symbol, position.key, position.side, orphan.qty, orphan.qty, position.is_crypto,
            self.parts.broker.now(),
        )  # fmt: skip
        closing = door.look(claim).closing
        sale = next((o for o in closing if is_sale(o, name)), None)
        if sale is not None:
            return _left(decision, f"its sale {sale.id} is {sale.status}: in progress")
        owned = self._owned(door.book)
        holders = [o for o in closing if o.id not in owned and not door.book.awaits_entry(o)]
        why = door.why_not_close(claim, [o.id for o in holders])
        if why is not None:
            return _left(decision, why)
        owed = self._owe(claim, holders, earlier)
        if owed is not None and self.deadline.left() < NEEDS_SECONDS:
            return _left(decision, f"less than {NEEDS_SECONDS:.0f} s of deadline are left to take its stop away")
        intent = self.journal.decided(replace(decision, trade_id=name))
        self.journal.begin(intent)
        if owed is not None:
            self.parts.state.remember(OWED, {orphan_name(orphan): owed.to_dict()})
        return self._sell(door, claim, orphan, holders, owed, decision, intent)

    def _owe(self, claim: Claim, holders: Sequence[Order], earlier: Owed | None) -> Owed | None:
        """The stop that goes back unless the sale fills; without one now, the one of an earlier try."""
        now = Owed.of(claim, holders, claim.at)
        if now is not None or earlier is None:
            return now
        return replace(earlier, qty=claim.open_qty, orders={o.id: o.filled_qty for o in holders}, at=claim.at)

    def _sell(
        self,
        door: OrderDoor,
        claim: Claim,
        orphan: Orphan,
        holders: Sequence[Order],
        owed: Owed | None,
        decision: Decision,
        intent: JournalEntry,
    ) -> Decision:
        try:
            answer = self._cancel_and_sell(door, claim, orphan, holders)
        except StateFailed as error:
            door.state_lost = True
            why = f"not sold: {error}{self._settle(door, orphan_name(orphan), owed).said}"
            self.journal.end(intent, SKIPPED, reason=why, proof=door.log)
            raise
        order, said = answer.order, ""
        if order is None or order.status != "filled":
            settled = self._settle(door, orphan_name(orphan), owed)
            order, said = settled.sale or order, settled.said
        elif owed is not None:
            forget(self.parts.state, orphan_name(orphan))
        self._settled.add(orphan_name(orphan))
        if order is None or order.status != "filled":
            left = _left(decision, f"not sold yet: {answer.reason}{said}")
            self.journal.end(intent, SKIPPED, reason=left.reason, proof=door.log)
            return left
        price = f" at {plain(order.avg_price)}" if order.avg_price is not None else ""
        self.journal.end(intent, WRITTEN, proof=door.log)
        sold = Proof("order", order.fill_time, {"orderId": order.id, "filledQty": plain(order.filled_qty)})
        return replace(
            decision, reason=f"{plain(orphan.qty)} sold{price}, no trade explained them",
            proof=(*decision.proof, sold), facts="done",
        )  # fmt: skip

    def _cancel_and_sell(self, door: OrderDoor, claim: Claim, orphan: Orphan, holders: Sequence[Order]) -> Answer:
        """The sale's answer; a broker that fails on the way leaves it open what stands."""
        try:
            still = door.cancel(claim, holders, _SECONDS_AN_ORPHAN, "it holds shares that no trade explains")
            if still:
                return Answer(Outcome.BLOCKED, f"order {still[0].id} still holds its shares")
            return door.flatten_orphan(orphan.position, orphan.qty, claim.name, _SECONDS_AN_ORPHAN)
        except (BrokerError, DeadlineExceeded) as error:
            return Answer(Outcome.UNKNOWN, str(error))

    # ------------------------------------------------------------------ stops that are owed

    def _settle(self, door: OrderDoor, name: str, owed: Owed | None) -> Settled:
        """What became of the sale and its stop, as the end of a sentence."""
        if owed is None:
            return Settled("")
        settled = settle(door, self.parts.state, name, owed, grace=self.grace, now=self._now())
        self._settled.add(name)
        if settled.naked:
            self.naked.append(f"{owed.symbol}: {settled.said}")
        return replace(settled, said=f"; {settled.said}")

    def give_back(self) -> None:
        """The stops of earlier sales that this run has not sold again; never raises for what a broker does."""
        for name, raw in self.owed.items():
            owed = Owed.parse(raw)
            if owed is None or name in self._settled:
                continue
            try:
                door = self._door()
            except (BrokerError, DeadlineExceeded) as error:
                settled = owed.not_back(str(error))
            else:
                settled = settle(door, self.parts.state, name, owed, grace=self.grace, now=self._now())
                if door.log:
                    told = Decision(owed.name, owed.symbol, Verdict.ORPHAN, Action.KEPT, settled.said)
                    self.journal.end(self.journal.decided(told), NOTED, proof=door.log)
            line = f"{owed.symbol}: {settled.said}"
            (self.naked if settled.naked else self.notes).append(line)

    # ------------------------------------------------------------------ what it works with

    def _now(self) -> datetime:
        return self.parts.broker.now()

    def _name(self, orphan: Orphan) -> str:
        seen = self.survey.memory.seen(orphan_name(orphan), self.survey.truth.at)
        return adopted_id(orphan, self.survey.truth.account.id, self.survey.evidence, iso(seen))

    def _still_unexplained(self, orphan: Orphan) -> bool:
        """The orphan by a fresh reading of the ledger."""
        view = self.deadline.writing(self.parts.ledger.read)
        plan = decide(replace(self.survey, view=view).world())
        same = (o for o in plan.orphans if o.position.key == orphan.position.key and o.qty == orphan.qty)
        return any(o.awaited_by is None for o in same)

    def _owned(self, book: OrderBook) -> frozenset[str]:
        """The orders of every record that is not closed, with their legs, parents and replace chains."""
        active = self.survey.view.active
        named = {i for record in active for i in order_ids(record)}
        tags = {trade_tag(i) for record in active if (i := record_id(record)) is not None}
        for order in book.orders.values():
            ours = parse_client_id(order.client_id)
            if order.client_id in named or (ours is not None and ours.trade in tags):
                named.add(order.id)
        return with_family(named, book)

    def _door(self) -> OrderDoor:
        broker, deadline = self.parts.broker, self.deadline
        # Legs that wait (`held`) are in no list of working orders: only their family shows them.
        book = OrderBook()
        book.add(self.survey.evidence.orders.values())
        book.set_working(self.survey.truth.orders)
        clock = deadline.writing(broker.clock)
        today = clock.at.date()
        sessions = deadline.writing(lambda: broker.calendar(today - timedelta(days=4), today + timedelta(days=1)))
        return OrderDoor(
            broker,
            self.parts.state,
            Market.of(clock, sessions),
            deadline,
            grace=self.grace,
            verify=self.lease.verify,
            book=book,
            sleep=self.parts.pause,
        )


def _left(decision: Decision, why: str) -> Decision:
    return replace(decision, action=Action.KEPT, reason=f"{decision.reason}; {why}")
