"""An exact ledger of lots: every share has one entry and at most one exit, first in, first out."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

ZERO = Decimal(0)
CENT = Decimal("0.01")


@dataclass
class Lot:
    """Shares that a trade entered with one order; `left` is net of what was sold, and of a fee."""

    qty: Decimal
    price: Decimal
    left: Decimal


@dataclass
class Lots:
    """What one trade really entered and lost; `booked` is the P&L of what is out."""

    lots: list[Lot] = field(default_factory=list)
    booked: Decimal = ZERO
    sold: Decimal = ZERO

    @property
    def entered(self) -> Decimal:
        return sum((lot.qty for lot in self.lots), ZERO)

    @property
    def left(self) -> Decimal:
        return sum((lot.left for lot in self.lots), ZERO)

    def buy(self, qty: Decimal, price: Decimal, fee: Decimal = ZERO) -> None:
        self.lots.append(Lot(qty, price, qty - fee))

    def sell(self, qty: Decimal, price: Decimal, sign: int) -> None:
        self.sold += qty
        for lot in self.lots:
            part = min(lot.left, qty)
            lot.left -= part
            qty -= part
            self.booked += (price - lot.price) * part * sign
