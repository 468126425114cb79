"""Activities that move shares without an order, as executions: transfers, cash mergers, ends of options.

A merger for stock, a split, a spin-off or a rename only changes what a holding is called or how
its shares are counted: none of them is an execution.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime, time
from decimal import Decimal

from ghostclean.core.broker import ZERO, Activity, Side, eastern, expiry

from .execution import Execution

_CLOSE = time(16)
_FOR_CASH, _WORTHLESS = "CMA", "WRM"


def executions_of(
    activities: Sequence[Activity], key: str, sides: Collection[Side], missing: Decimal, now: datetime
) -> list[Execution]:
    """What activities did to one instrument, each at the close of its day.

    Rows of options are signed either way, so the only one of `sides` that a trade has says more. One
    that names no quantity took what is `missing` beside the others.
    """
    found: list[Execution] = []
    for row in activities:
        at = _at(row, key, now)
        if row.key != key or at is None or not _moves_shares(row, activities):
            continue
        qty = row.qty or ZERO
        if row.is_option_end and row.qty is None:
            qty = max(ZERO, missing - sum((abs(a.qty or ZERO) for a in activities if _ends(a, key)), ZERO))
            missing = ZERO
        side = "sell" if qty < 0 else "buy"
        if row.is_option_end and len(sides) == 1:
            [side] = (s.closing for s in sides)
        if qty:
            found.append(Execution(row.id, side, abs(qty), _price(row, activities), at, activity=row))
    return found


def _ends(activity: Activity, key: str) -> bool:
    return activity.is_option_end and activity.key == key


def _at(row: Activity, key: str, now: datetime) -> datetime | None:
    try:
        close = eastern(date.fromisoformat(row.day), _CLOSE)
    except ValueError:
        return None
    return min(close, expiry(key) or now, now)


def _moves_shares(row: Activity, activities: Sequence[Activity]) -> bool:
    if row.type == "MA":
        return _is_for_cash(row, activities)
    return row.is_option_end or row.is_transfer or (row.type == "REORG" and row.subtype == _WORTHLESS)


def _price(row: Activity, activities: Sequence[Activity]) -> Decimal | None:
    """What a share brought; what is assigned or exercised has no price of its own."""
    if row.type == "MA":
        return _cash_price(row, activities) or row.price
    if row.type in ("OPEXP", "REORG"):
        return ZERO
    return row.price if row.is_transfer else None


def _is_for_cash(row: Activity, activities: Sequence[Activity]) -> bool:
    """Whether a merger paid for the shares with cash alone.

    A row that does not say so itself must have brought cash, with no shares of the acquirer beside it.
    """
    if row.subtype:
        return row.subtype == _FOR_CASH
    deal = _deal(row, activities)
    named = any(a.subtype not in ("", _FOR_CASH) for a in deal)
    brought_shares = any((a.qty or ZERO) * (row.qty or ZERO) < 0 for a in deal)
    return not named and not brought_shares and _cash_price(row, activities) is not None


def _cash_price(row: Activity, activities: Sequence[Activity]) -> Decimal | None:
    """Cash for a share: it stands in the row that takes the shares, or in another of the same group."""
    deal = [a for a in _deal(row, activities) if row.group or a.key == row.key]
    cash = sum((a.amount or ZERO for a in deal), ZERO)
    taken = sum((a.qty or ZERO for a in deal if a.key == row.key), ZERO)
    price = -cash / taken if taken else ZERO
    return price if price > 0 else None


def _deal(row: Activity, activities: Sequence[Activity]) -> list[Activity]:
    """The rows of one merger: of its group, else those of its day that name no group."""
    same = (a for a in activities if a.type == row.type and a.group == row.group)
    return [a for a in same if row.group or a.day == row.day]
