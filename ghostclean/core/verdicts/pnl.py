"""Exit price, P&L and R of a trade, from real executions only.

Gross of fees; options times 100; R by the initial stop. What is not known, or does not balance,
is None: never 0 and never a stand-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from ghostclean.core.allocation import Execution, average, total, value
from ghostclean.core.broker import ZERO, Order, Side, money, parse_client_id, ratio4

_PURPOSES = {"cut": "cut_loss", "eod": "eod_flatten"}


@dataclass(frozen=True, slots=True)
class Exit:
    """How a trade (or a part of it) ended; prices per unit in USD."""

    price: Decimal | None
    at: datetime | None
    order_id: str | None
    qty: Decimal
    pnl: Decimal | None
    r: Decimal | None


def settle(
    side: Side,
    entries: Sequence[Execution],
    exits: Sequence[Execution],
    *,
    units: Decimal,
    tolerance: Decimal,
    initial_stop: Decimal | None,
    cash_flow: bool = False,
) -> Exit:
    """The whole trade from all its executions.

    P&L is written when entered and exited quantity differ by no more than `tolerance` (dust,
    which counts as cost), or with `cash_flow` (a proven split in between). A transfer realizes none.
    """
    entered, sold = total(entries), total(exits)
    cost, proceeds = value(entries), value(exits)
    pnl = None
    balanced = bool(entered) and bool(sold) and (cash_flow or abs(entered - sold) <= tolerance)
    balanced = balanced and not any(e.activity is not None and e.activity.is_transfer for e in exits)
    if balanced and cost is not None and proceeds is not None:
        pnl = (proceeds - cost) * side.sign * units
    last = max(exits, key=lambda e: (e.at is not None, e.at, e.order_id), default=None)
    return Exit(
        average(exits),
        last.at if last else None,
        last.order_id if last and last.activity is None else None,
        sold,
        money(pnl) if pnl is not None else None,
        _r_multiple(side, entries, initial_stop, pnl, units),
    )


def settle_part(
    side: Side,
    entries: Sequence[Execution],
    exits: Sequence[Execution],
    *,
    units: Decimal,
    initial_stop: Decimal | None,
) -> Exit:
    """The part that is out so far, taken from the entries first in, first out."""
    lots = _first_lots(entries, total(exits))
    return settle(side, lots, exits, units=units, tolerance=ZERO, initial_stop=initial_stop)


def _first_lots(entries: Sequence[Execution], qty: Decimal) -> list[Execution]:
    lots: list[Execution] = []
    for entry in sorted(entries, key=lambda e: e.when):
        part = min(entry.qty, qty)
        if part > 0:
            lots.append(entry.part(part))
            qty -= part
    return lots


def _r_multiple(
    side: Side, entries: Sequence[Execution], initial_stop: Decimal | None, pnl: Decimal | None, units: Decimal
) -> Decimal | None:
    price = average(entries)
    if pnl is None or price is None or initial_stop is None:
        return None
    risk = (price - initial_stop) * side.sign
    # A stop on the wrong side of the entry risks nothing: R has no meaning.
    return ratio4(pnl / (risk * total(entries) * units)) if risk > 0 else None


def close_reason(order: Order | None, *, target: bool) -> str:
    """What ended the trade, by the order that filled: stop, target, an engine's close, a hand."""
    if order is None:
        return "manual_close"
    ours = parse_client_id(order.client_id)
    if ours is not None and ours.purpose in _PURPOSES:
        return _PURPOSES[ours.purpose]
    if order.is_stop:
        return "stop_loss"
    if order.type == "limit" and (target or order.parent is not None or order.order_class in ("oco", "bracket", "oto")):
        return "take_profit"
    return "manual_close"
