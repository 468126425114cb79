"""Exit price, P&L and R of a trade, from real fills only.

Gross of fees; options times 100; R by the initial stop. Whatever is not known, or does not
balance, is None: never 0 and never a stand-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from ghostclean.core.broker import ZERO, Order, Side, money, parse_client_id, ratio4

from .own_orders import Lot

# Alpaca takes the crypto fee (0.25 % and rounding) out of the coin that a purchase brings.
CRYPTO_DUST = Decimal("0.005")

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


def average(lots: Sequence[Lot]) -> Decimal | None:
    """The quantity-weighted price; None when empty or when one price is unknown."""
    qty = sum((lot.qty for lot in lots), ZERO)
    value = value_of(lots)
    return value / qty if qty and value is not None else None


def value_of(lots: Sequence[Lot]) -> Decimal | None:
    """Sum of price times quantity; None when one price is unknown."""
    total = ZERO
    for lot in lots:
        if lot.price is None:
            return None
        total += lot.price * lot.qty
    return total


def settle(
    side: Side,
    entries: Sequence[Lot],
    exits: Sequence[Lot],
    *,
    units: Decimal,
    tolerance: Decimal,
    initial_stop: Decimal | None,
    cash_flow: bool = False,
) -> Exit:
    """The whole trade from all its fills.

    P&L is written when entered and exited quantity differ by no more than `tolerance` (crypto
    fee dust, which counts as cost), or with `cash_flow` (a proven split in between).
    """
    entered = sum((lot.qty for lot in entries), ZERO)
    exited = sum((lot.qty for lot in exits), ZERO)
    cost, proceeds = value_of(entries), value_of(exits)
    pnl = None
    balanced = bool(entered) and bool(exited) and (cash_flow or abs(entered - exited) <= tolerance)
    if balanced and cost is not None and proceeds is not None:
        pnl = (proceeds - cost) * side.sign * units
    last = max(exits, key=lambda lot: (lot.at is not None, lot.at, lot.order_id), default=None)
    return Exit(
        average(exits),
        last.at if last else None,
        last.order_id if last else None,
        exited,
        money(pnl) if pnl is not None else None,
        _r_multiple(side, entries, initial_stop, pnl, units),
    )


def settle_part(
    side: Side, entries: Sequence[Lot], exits: Sequence[Lot], *, units: Decimal, initial_stop: Decimal | None
) -> Exit:
    """The part that is out so far, at the average entry price."""
    price, exited = average(entries), sum((lot.qty for lot in exits), ZERO)
    bought = [Lot("", "", exited, price, None)] if price is not None else []
    return settle(side, bought, exits, units=units, tolerance=ZERO, initial_stop=initial_stop)


def _r_multiple(
    side: Side, entries: Sequence[Lot], initial_stop: Decimal | None, pnl: Decimal | None, units: Decimal
) -> Decimal | None:
    price = average(entries)
    if pnl is None or price is None or initial_stop is None:
        return None
    risk = (price - initial_stop) * side.sign
    if risk <= 0:
        return None
    qty = sum((lot.qty for lot in entries), ZERO)
    return ratio4(pnl / (risk * qty * units))


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
