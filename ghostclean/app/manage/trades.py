"""The open trades of one observation, with what protects them, their price and their risk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import IntEnum

from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.observation import Observation
from ghostclean.app.ports import Price
from ghostclean.core.allocation import first_stop
from ghostclean.core.broker import Order, RecordsOf, Side, is_option, money, multiplier, ratio4
from ghostclean.core.ledger import Trade, is_open, order_ids, record_id
from ghostclean.core.protection import (
    Exposure,
    ManagePolicy,
    Protection,
    Risk,
    exits_of,
    is_cut,
    is_through,
    measure_risk,
    protections,
)
from ghostclean.core.verdicts import Action, Holding, Plan

STALE_PRICE = timedelta(minutes=15)


class Urgency(IntEnum):
    """What is done first when time is short."""

    NAKED = 0
    CUT = 1
    TIGHTEN = 2


@dataclass(frozen=True, slots=True)
class ManagedTrade:
    """A holding with everything that is decided upon; `price` None leaves it alone."""

    holding: Holding
    exposure: Exposure
    protection: Protection
    price: Price | None
    risk: Risk | None

    @property
    def trade(self) -> Trade:
        return self.holding.trade

    @property
    def name(self) -> str:
        return self.exposure.name

    @property
    def side(self) -> Side:
        return self.trade.side

    @property
    def qty(self) -> Decimal:
        return self.holding.open_qty

    @property
    def is_crypto(self) -> bool:
        return self.exposure.crypto

    @property
    def own_price(self) -> Decimal | None:
        return self.holding.position.price

    @property
    def in_the_way(self) -> set[str]:
        """The orders that a close cancels first."""
        entry = self.holding.entry
        return {o.id for o in self.protection.holders} | ({entry.id} if entry is not None else set())

    def should_cut(self, policy: ManagePolicy, now: datetime) -> bool:
        """Whether cut loss applies, by two prices that agree."""
        if self.price is None or self.risk is None:
            return False
        return is_cut(
            self.risk,
            policy,
            sale=self.price.value,
            sale_at=self.price.at,
            is_sale=self.price.is_trade,
            own_price=self.own_price,
            now=now,
        )

    def stop_is_firing(self) -> bool:
        """Whether a working stop is at or through the market."""
        stop = self.protection.stop
        if stop is None or stop.stop_price is None or self.price is None:
            return False
        return is_through(self.side, stop.stop_price, self.price.value)

    def urgency(self, policy: ManagePolicy, now: datetime) -> Urgency:
        if self.protection.is_naked:
            return Urgency.NAKED
        return Urgency.CUT if self.should_cut(policy, now) else Urgency.TIGHTEN

    def money_fields(self) -> dict[str, Decimal]:
        """`lastPrice`, and P&L and R at it."""
        if self.price is None:
            return {}
        fields = {"lastPrice": self.price.value}
        if self.risk is None:
            return fields
        units = multiplier(self.holding.position.symbol)
        fields["unrealizedPnL"] = money(self.risk.gain(self.price.value) * self.qty * units)
        multiple = self.risk.multiple(self.price.value)
        return fields if multiple is None else fields | {"unrealizedR": ratio4(multiple)}


@dataclass(frozen=True, slots=True)
class OpenTrades:
    """The trades of an observation that may be managed, looked up where they seem unprotected."""

    observed: Observation
    gateway: OrderGateway

    @property
    def ids(self) -> set[str | None]:
        """The open trades of the ledger, without another account's."""
        return {record_id(r) for r in self.observed.ours if is_open(r)}

    def manageable(self) -> list[Holding]:
        """Open trades proven to be there on their own side; no options."""
        return self._manageable(self.observed.plan)

    def in_spite_of_grace(self, orders: Iterable[Order]) -> list[Holding]:
        """The holdings without waiting for the grace, knowing these orders too; for what a begun close has left."""
        self.observed.evidence.add_orders(orders)
        return self._manageable(self.observed.without_grace())

    def _manageable(self, plan: Plan) -> list[Holding]:
        held = {d.trade_id for d in plan.decisions if d.action in (Action.HELD, Action.SKIPPED)}
        ids = self.ids - held
        return [
            h
            for h in plan.holdings.values()
            if h.trade.id in ids
            and h.position.side is h.trade.side
            and h.open_qty > 0
            and not is_option(h.position.symbol)
        ]

    def managed(self, holdings: Sequence[Holding], prices: Mapping[str, Price], now: datetime) -> list[ManagedTrade]:
        """These holdings with protection, price and risk; apparently naked ones are looked up first."""
        ours = {h.trade.id for h in holdings}
        everybody = [*holdings, *(h for h in self.manageable() if h.trade.id not in ours)]
        found = protections(everybody, self.gateway.known)

        def seems_bare(holding: Holding) -> bool:
            return found[holding.trade.id or ""].is_naked or self._has_no_stop(holding)

        if self._look_up([h for h in holdings if seems_bare(h)]):
            found = protections(everybody, self.gateway.known)
        return [self._managed(h, everybody, found[h.trade.id or ""], prices, now) for h in holdings]

    def _managed(
        self,
        holding: Holding,
        everybody: Sequence[Holding],
        protection: Protection,
        prices: Mapping[str, Price],
        now: datetime,
    ) -> ManagedTrade:
        holding = self._with_first_stop(holding)
        closed = self._of_closed(holding) if protection.is_naked else frozenset()
        position = holding.position
        is_open = self.gateway.market.is_open(position.is_crypto, now)
        return ManagedTrade(
            holding,
            Exposure.of(holding, everybody, self.observed.truth.at, closed),
            protection,
            _usable_price(prices, position.key, now, market_open=is_open),
            _risk_of(holding),
        )

    def _of_closed(self, holding: Holding) -> frozenset[str]:
        """The orders of closed trades of its symbol: their fills took nothing of this one."""
        key, lookups = holding.position.key, self.observed.lookups
        lookups.answer([RecordsOf(key)])
        return self.gateway.known.tied_to({i for record in lookups.closed.get(key, ()) for i in order_ids(record)})

    def _has_no_stop(self, holding: Holding) -> bool:
        return holding.trade.initial_stop is None and not any(o.is_stop for o in exits_of(holding, self.gateway.known))

    def _with_first_stop(self, holding: Holding) -> Holding:
        """With the initial stop by all that is known now: the observation saw neither hidden legs nor old chains."""
        if holding.trade.initial_stop is not None:
            return holding
        asked: set[str] = set()
        while before := self._replaced_unseen(holding) - asked:
            asked |= before
            for order_id in before:
                self.gateway.looker.order(order_id)
        return replace(holding, initial_stop=first_stop(holding.trade, exits_of(holding, self.gateway.known)))

    def _replaced_unseen(self, holding: Holding) -> set[str]:
        exits = exits_of(holding, self.gateway.known)
        return {o.replaces for o in exits if o.is_stop and o.replaces} - {o.id for o in exits}

    def _look_up(self, suspects: Sequence[Holding]) -> bool:
        """Reads entry, stop and target anew with their legs: `held` legs are in no list."""
        wanted = {i for holding in suspects for i in _to_look_up(holding)}
        if len(wanted) > 1:
            wanted -= self._looked_up_together(suspects)
        for order_id in sorted(wanted):
            self.gateway.looker.order(order_id)
        return bool(suspects)

    def _looked_up_together(self, suspects: Sequence[Holding]) -> set[str]:
        times = [o.submitted_at for h in suspects for o in (h.entry, *h.exits) if o is not None and o.submitted_at]
        symbols = sorted({h.position.symbol for h in suspects})
        return self.gateway.looker.history(symbols, min(times) - timedelta(seconds=1)) if times else set()


def _to_look_up(holding: Holding) -> set[str]:
    trade, entry = holding.trade, holding.entry
    named = (entry.id if entry else None, trade.stop_order, trade.target_order)
    return {i for i in (*named, *(o.id for o in holding.exits if not o.is_final)) if i}


def _usable_price(prices: Mapping[str, Price], key: str, now: datetime, *, market_open: bool) -> Price | None:
    price = prices.get(key)
    if price is None or price.value <= 0:
        return None
    return None if market_open and now - price.at > STALE_PRICE else price


def _risk_of(holding: Holding) -> Risk | None:
    if holding.entry_price is None or holding.entry_price <= 0:
        return None
    return measure_risk(holding.trade.side, holding.entry_price, holding.initial_stop)
