"""An execution: a quantity that traded at one price."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from ghostclean.core.broker import ZERO, Activity, Evidence, Order


@dataclass(frozen=True, slots=True)
class Execution:
    """`side` is the order's (`buy`, `sell`); `price` per unit in USD, None where the broker did not say.

    One that no order made has an `activity`, and its id for an `order_id`.
    """

    order_id: str
    side: str
    qty: Decimal
    price: Decimal | None
    at: datetime | None
    order: Order | None = None
    activity: Activity | None = None

    def part(self, qty: Decimal) -> Execution:
        """The same execution of less."""
        return self if qty == self.qty else replace(self, qty=qty)

    @property
    def when(self) -> tuple[bool, datetime | None, str]:
        """A sort key: oldest first, those without a time last."""
        return self.at is None, self.at, self.order_id

    def not_before(self, since: datetime | None) -> bool:
        """Whether it can have happened at or after a time; one without a time can."""
        return since is None or self.at is None or self.at >= since


def whole(order: Order, evidence: Evidence) -> Execution:
    """All that an order filled, as one execution."""
    return Execution(order.id, order.side, order.filled_qty, evidence.price_of(order), order.fill_time, order)


def total(executions: Iterable[Execution]) -> Decimal:
    """The quantity of several."""
    result = ZERO
    for execution in executions:
        result += execution.qty
    return result


def value(executions: Iterable[Execution]) -> Decimal | None:
    """Price times quantity, summed; None when one price is unknown."""
    result = ZERO
    for execution in executions:
        if execution.price is None:
            return None
        result += execution.price * execution.qty
    return result


def average(executions: Iterable[Execution]) -> Decimal | None:
    """The quantity-weighted price; None for none, or when one price is unknown."""
    rows = list(executions)
    worth, qty = value(rows), total(rows)
    return worth / qty if qty and worth is not None else None
