"""Sells orphans (`--orphans flatten`): exactly what no trade explains, through the gateway.

Ledger and position are read again, the intent journaled and the stop remembered before anything is
cancelled; unless the sale fills, its stop is restored, at once or by the next run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.gateway import OrderGateway, open_gateway, read_market
from ghostclean.app.journal import NOTED, SKIPPED, WRITTEN, Journal
from ghostclean.app.manage.closer import NEEDS_SECONDS, CloseOutcome, Closer, CloseState, CloseTarget, is_close
from ghostclean.app.observation import Observation
from ghostclean.app.parts import Parts
from ghostclean.app.ports import OWED, JournalEntry, Lease
from ghostclean.core.allocation import Orphan
from ghostclean.core.broker import OrderGraph, iso, plain
from ghostclean.core.ledger import order_ids, read_trade
from ghostclean.core.protection import ORPHAN, BegunClose, Exposure, SymbolView
from ghostclean.core.safety import adopted_id, orphan_name
from ghostclean.core.verdicts import Action, Decision, Proof, Verdict, decide
from ghostclean.errors import BrokerError, DeadlineExceeded

_LEAST_SECONDS = 3.0
_OVER = frozenset({CloseState.DONE, CloseState.OVER, CloseState.HELD, CloseState.RESTORED})
_NAKED = frozenset({CloseState.WAITING, CloseState.UNPROTECTED, CloseState.NAKED, CloseState.UNKNOWN})


@dataclass(slots=True)
class OrphanSeller:
    """Sells the orphans of one run, and restores the stops that sales took away.

    `begun`: sales of earlier runs by the orphan's name. `naked`: one line for each stop that is still missing.
    Each sale has a gateway of its own, unless one is given.
    """

    parts: Parts
    deadline: Deadline
    grace: timedelta
    observed: Observation
    lease: Lease | None
    journal: Journal
    begun: Mapping[str, Any]
    gateway: OrderGateway | None = None
    notes: list[str] = field(default_factory=list)
    naked: list[str] = field(default_factory=list)
    _settled: set[str] = field(default_factory=set)

    def flatten(self, decision: Decision) -> Decision:
        """The row with what became of the orphan; never raises for what a broker does."""
        orphan = next((o for o in self.observed.plan.orphans if o.position.symbol == decision.ticker), None)
        if orphan is None or self.deadline.left() < _LEAST_SECONDS:
            return _kept(decision, "no time was left to sell it")
        try:
            return self._flatten(decision, orphan)
        except (BrokerError, DeadlineExceeded) as error:
            return _kept(decision, f"not sold: {error}")

    def _flatten(self, decision: Decision, orphan: Orphan) -> Decision:
        if not self._still_unexplained(orphan):
            return _kept(decision, "a trade of the ledger explains it by now, or may be it")
        key = orphan_name(orphan)
        earlier = BegunClose.parse("", self.begun.get(key))
        name = earlier.name if earlier is not None else self._name(orphan)
        gateway = self._gateway()
        exposure = Exposure.alone(name, orphan.position, orphan.qty, self._now())
        view = gateway.looker.view(exposure)
        owned = self._owned(gateway.known) | view.dormant
        holders = [o for o in view.closing if o.id not in owned]
        begun = BegunClose.of_orphan(exposure, holders, earlier)
        why = self._why_not(gateway, exposure, view, begun)
        if why is not None:
            return _kept(decision, why)
        intent = self.journal.decided(replace(decision, trade_id=name))
        self.journal.begin(intent)
        closer = self._closer(gateway)
        if begun.stop is not None:
            closer.remember(key, begun)
        self._settled.add(key)
        found = closer.run(CloseTarget(exposure, holders, expected=orphan.position), begun)
        return self._sold(decision, orphan, begun, found, intent, gateway)

    def _why_not(self, gateway: OrderGateway, exposure: Exposure, view: SymbolView, begun: BegunClose) -> str | None:
        sale = next((o for o in view.closing if is_close(o, begun.name, ORPHAN)), None)
        if sale is not None:
            return f"its sale {sale.id} is {sale.status}: in progress"
        why = gateway.why_not_close(exposure, begun.orders)
        if why is None and begun.stop is not None and self.deadline.left() < NEEDS_SECONDS:
            why = f"less than {NEEDS_SECONDS:.0f} s of deadline are left to take its stop away"
        return why

    def _sold(
        self,
        decision: Decision,
        orphan: Orphan,
        begun: BegunClose,
        found: CloseOutcome,
        intent: JournalEntry,
        gateway: OrderGateway,
    ) -> Decision:
        line, naked = self._settle(gateway, orphan_name(orphan), begun, found)
        order = found.order
        if order is None or found.state is not CloseState.DONE:
            if naked:
                self.naked.append(f"{begun.symbol}: {line}")
            kept = _kept(decision, f"not sold: {line}")
            self.journal.end(intent, SKIPPED, reason=kept.reason, proof=gateway.log)
            if found.failure is not None:
                raise found.failure
            return kept
        price = f" at {plain(order.avg_price)}" if order.avg_price is not None else ""
        self.journal.end(intent, WRITTEN, proof=gateway.log)
        sold = Proof("order", order.fill_time, {"orderId": order.id, "filledQty": plain(order.filled_qty)})
        return replace(
            decision, reason=f"{plain(orphan.qty)} sold{price}, no trade explained them",
            proof=(*decision.proof, sold), facts="done",
        )  # fmt: skip

    # ------------------------------------------------------------------ stops of earlier sales

    def restore_stops(self) -> None:
        """The stops of earlier sales that this run has not sold again; never raises for what a broker does."""
        for key, raw in self.begun.items():
            begun = BegunClose.parse(key, raw)
            if begun is None or key in self._settled:
                continue
            try:
                gateway = self._gateway()
            except (BrokerError, DeadlineExceeded) as error:
                self.naked.append(f"{begun.symbol}: {_not_back(begun, str(error))}")
                continue
            before = len(gateway.log)
            line, naked = self._settle(gateway, key, begun, self._closer(gateway).restore(None, begun))
            if sent := gateway.log[before:]:
                done = Decision(begun.name, begun.symbol, Verdict.ORPHAN, Action.KEPT, line)
                self.journal.end(self.journal.decided(done), NOTED, proof=sent)
            (self.naked if naked else self.notes).append(f"{begun.symbol}: {line}")

    def _settle(self, gateway: OrderGateway, key: str, begun: BegunClose, found: CloseOutcome) -> tuple[str, bool]:
        """The outcome of a sale in words, and whether its stop is missing; forgets what is over.

        A stop that stands is remembered for the grace: a cancel whose answer was lost may yet arrive.
        """
        if begun.stop is None:
            return found.reason, False
        stands_for_long = found.state is CloseState.STANDS and self._now() - begun.at > self.grace
        if found.state in _OVER or stands_for_long:
            self._closer(gateway).forget(key)
        naked = found.state in _NAKED
        return _not_back(begun, found.reason) if naked else found.reason, naked

    # ------------------------------------------------------------------ what it works with

    def _now(self) -> datetime:
        return self.parts.broker.now()

    def _closer(self, gateway: OrderGateway) -> Closer:
        return Closer(gateway, self.parts.state, OWED)

    def _name(self, orphan: Orphan) -> str:
        seen = self.observed.memory.seen(orphan_name(orphan), self.observed.truth.at)
        return adopted_id(orphan, self.observed.truth.account.id, self.observed.evidence, iso(seen))

    def _still_unexplained(self, orphan: Orphan) -> bool:
        view = self.deadline.writing(self.parts.ledger.read)
        plan = decide(replace(self.observed, view=view).world())
        same = (o for o in plan.orphans if o.position.key == orphan.position.key and o.qty == orphan.qty)
        return any(o.awaited_by is None for o in same)

    def _owned(self, known: OrderGraph) -> frozenset[str]:
        active = self.observed.ours
        named = {i for record in active for i in order_ids(record)}
        tags = {tag for record in active for tag in read_trade(record).tags}
        return known.tied_to(named | known.named(named, tags))

    def _gateway(self) -> OrderGateway:
        if self.gateway is not None:
            return self.gateway
        market = read_market(self.parts.broker, self.deadline, self.notes)
        return open_gateway(self.parts, self.observed, market, self.deadline, self.lease, grace=self.grace)


def _not_back(begun: BegunClose, why: str) -> str:
    stop = (
        f"its stop at {plain(begun.stop) if begun.stop else '?'} for {plain(begun.covered) if begun.covered else '?'}"
    )
    return f"{stop} was cancelled for a sale and is not back: {why}; the next run looks the sale up and finishes"


def _kept(decision: Decision, why: str) -> Decision:
    return replace(decision, action=Action.KEPT, reason=f"{decision.reason}; {why}")
