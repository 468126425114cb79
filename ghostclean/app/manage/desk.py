"""The desk that the trades of one survey are managed at: door, protection, prices, risk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from ghostclean.app.lookup import Lookups
from ghostclean.app.manage.work import Work, risk_of, usable_price
from ghostclean.app.order_door import Claim, OrderDoor
from ghostclean.app.ports import LedgerView, Price
from ghostclean.core.broker import BrokerTruth, Order
from ghostclean.core.case import first_stop
from ghostclean.core.decide import decide
from ghostclean.core.evidence import Evidence, Need, RecordsOf
from ghostclean.core.instrument import is_option
from ghostclean.core.market import Market
from ghostclean.core.plan import Holding, Plan
from ghostclean.core.protection import Protection, exits_of, protections, with_family
from ghostclean.core.trade import is_open, order_ids, record_id
from ghostclean.core.verdicts import Action
from ghostclean.core.world import World


class Seen(Protocol):
    """What the engine needs of a survey (see `ghostclean.app.observation.Observation`)."""

    @property
    def view(self) -> LedgerView: ...

    @property
    def truth(self) -> BrokerTruth: ...

    @property
    def evidence(self) -> Evidence: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def lookups(self) -> Lookups: ...

    def world(self) -> World: ...


@dataclass(slots=True)
class Desk:
    """One survey with the door through which its trades' orders go."""

    seen: Seen
    door: OrderDoor
    market: Market

    @property
    def open_ids(self) -> set[str | None]:
        """The open trades of the ledger, by id."""
        return {record_id(r) for r in self.seen.view.active if is_open(r)}

    def manageable(self) -> list[Holding]:
        """Open trades that are proven to be there on their own side, and are no options."""
        return self._manageable(self.seen.plan)

    def in_spite_of_grace(self, orders: Iterable[Order]) -> list[Holding]:
        """What trades hold when the grace is not waited for and these orders are known too.

        For a close that was begun alone: what it left must get its stop back at once. A fill of
        it that is seconds old makes the reconcile wait, and nothing else is known of it.
        """
        self.seen.evidence.add_orders(orders)
        return self._manageable(without_grace(self.seen))

    def _manageable(self, plan: Plan) -> list[Holding]:
        held = {d.trade_id for d in plan.decisions if d.action in (Action.HELD, Action.SKIPPED)}
        open_ids = self.open_ids
        return [
            h
            for h in plan.holdings.values()
            if h.trade.id in open_ids
            and h.trade.id not in held
            and h.position.side is h.trade.side
            and h.open_qty > 0
            and not is_option(h.position.symbol)
        ]

    def works(self, holdings: Sequence[Holding], prices: Mapping[str, Price], now: datetime) -> list[Work]:
        """Claims, protection, price and risk of these holdings; what looks naked is looked up first."""
        ours = {h.trade.id for h in holdings}
        everybody = [*holdings, *(h for h in self.manageable() if h.trade.id not in ours)]
        found = protections(everybody, self.door.book)
        suspects = [h for h in holdings if found.get(h.trade.id or "", Protection()).is_naked or self._has_no_stop(h)]
        if self._look_up(suspects):
            found = protections(everybody, self.door.book)
        holdings = [self._with_first_stop(h) for h in holdings]
        at = self.seen.truth.at
        return [
            Work(
                h,
                Claim.of(h, everybody, at, self._of_closed(h) if found[h.trade.id or ""].is_naked else frozenset()),
                found.get(h.trade.id or "", Protection(needed=h.open_qty)),
                usable_price(prices, h.position.key, now, market_open=self.market.is_open(h.position.is_crypto, now)),
                risk_of(h),
            )
            for h in holdings
        ]

    def _of_closed(self, holding: Holding) -> frozenset[str]:
        """The orders of closed trades of its symbol: their fills took nothing of this one."""
        key, lookups = holding.position.key, self.seen.lookups
        lookups.answer([RecordsOf(key)])
        named = {i for record in lookups.closed.get(key, ()) for i in order_ids(record)}
        return with_family(named, self.door.book)

    def _has_no_stop(self, holding: Holding) -> bool:
        """Whether no stop is known of which 1R could be told."""
        return holding.trade.initial_stop is None and not any(o.is_stop for o in exits_of(holding, self.door.book))

    def _with_first_stop(self, holding: Holding) -> Holding:
        """With the initial stop by all that is known now: the survey saw neither hidden legs nor old chains."""
        if holding.trade.initial_stop is not None:
            return holding
        asked: set[str] = set()
        while before := self._replaced_unseen(holding) - asked:
            asked |= before
            for order_id in before:
                self.door.read_order(order_id)
        return replace(holding, initial_stop=first_stop(holding.trade, exits_of(holding, self.door.book)))

    def _replaced_unseen(self, holding: Holding) -> set[str]:
        exits = exits_of(holding, self.door.book)
        return {o.replaces for o in exits if o.is_stop and o.replaces} - {o.id for o in exits}

    def _look_up(self, suspects: Sequence[Holding]) -> bool:
        """Reads entry, stop and target anew with their legs: `held` legs are in no list."""
        asked: set[str] = set()
        for holding in suspects:
            named = (holding.entry.id if holding.entry else None, holding.trade.stop_order, holding.trade.target_order)
            exits = [o.id for o in holding.exits if not o.is_final]
            for order_id in (*named, *exits):
                if order_id and order_id not in asked:
                    asked.add(order_id)
                    self.door.read_order(order_id)
        return bool(asked)


def without_grace(seen: Seen) -> Plan:
    """What a survey comes to when nothing is waited for: for what is proven in another way."""
    asked: set[Need] = set()
    while True:
        world = seen.world()
        plan = decide(replace(world, policy=replace(world.policy, grace=timedelta(0))))
        needs = [need for need in plan.needs if need not in asked]
        asked.update(needs)
        if not needs or not seen.lookups.answer(needs):
            return plan
