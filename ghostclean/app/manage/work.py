"""One trade in this run: what it holds, what protects it, its price and its risk; and what is urgent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import IntEnum

from ghostclean.app.order_door import Claim
from ghostclean.app.ports import Price
from ghostclean.core.broker import Side, money, multiplier, ratio4
from ghostclean.core.manage import Manage
from ghostclean.core.protection import Protection
from ghostclean.core.stops import Risk, is_cut, is_through, measure_risk
from ghostclean.core.verdicts import Holding

STALE_PRICE = timedelta(minutes=15)


class Urgency(IntEnum):
    """What is done first when time is short."""

    NAKED = 0
    CUT = 1
    TIGHTEN = 2


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that is decided upon for one trade; `price` None leaves it alone."""

    holding: Holding
    claim: Claim
    protection: Protection
    price: Price | None
    risk: Risk | None

    @property
    def side(self) -> Side:
        return self.holding.trade.side

    @property
    def own_price(self) -> Decimal | None:
        """The position's own price, by the broker."""
        return self.holding.position.price

    def should_cut(self, manage: Manage, now: datetime) -> bool:
        """Whether cut loss applies by two prices that agree."""
        if self.price is None or self.risk is None:
            return False
        return is_cut(
            self.risk,
            manage,
            sale=self.price.value,
            sale_at=self.price.at,
            is_sale=self.price.is_trade,
            own_price=self.own_price,
            now=now,
        )

    def stop_is_firing(self) -> bool:
        """Whether a working stop is at or through the market: it is the cut already."""
        stop = self.protection.stop
        if stop is None or stop.stop_price is None or self.price is None:
            return False
        return is_through(self.side, stop.stop_price, self.price.value)

    def urgency(self, manage: Manage, now: datetime) -> Urgency:
        """Naked positions, then losses to cut, then everything else."""
        if self.protection.is_naked:
            return Urgency.NAKED
        return Urgency.CUT if self.should_cut(manage, now) else Urgency.TIGHTEN

    def money_fields(self) -> dict[str, Decimal]:
        """`lastPrice` and what it means for the trade; nothing without a price."""
        if self.price is None:
            return {}
        fields = {"lastPrice": self.price.value}
        if self.risk is None:
            return fields
        units = multiplier(self.holding.position.symbol)
        fields["unrealizedPnL"] = money(self.risk.gain(self.price.value) * self.holding.open_qty * units)
        multiple = self.risk.multiple(self.price.value)
        return fields if multiple is None else fields | {"unrealizedR": ratio4(multiple)}


def usable_price(prices: Mapping[str, Price], key: str, now: datetime, *, market_open: bool) -> Price | None:
    """A price young enough to act on; while the market is closed its last one is the price."""
    price = prices.get(key)
    if price is None or price.value <= 0:
        return None
    return None if market_open and now - price.at > STALE_PRICE else price


def risk_of(holding: Holding) -> Risk | None:
    """The trade's risk; None without an entry price."""
    if holding.entry_price is None or holding.entry_price <= 0:
        return None
    return measure_risk(holding.trade.side, holding.entry_price, holding.initial_stop)
