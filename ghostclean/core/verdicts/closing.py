"""Closing a trade with the executions that took it out: the whole trade, recomputed, never added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ghostclean.core.allocation import Allocation, Books, Execution, total
from ghostclean.core.broker import ZERO, Order, multiplier, plain

from .decision import Action, Decision, Proof, Verdict, change
from .fields import closed_fields, unbooked
from .pnl import close_reason, settle

_SPLITS = frozenset({"SPLIT", "REORG", "OPCA"})
_ENDED_BY = {
    "OPEXP": "option_expired",
    "OPASN": "option_assigned",
    "OPEXC": "option_exercised",
    "MA": "cash_merger",
    "REORG": "worthless_removal",
}


def close_with(
    books: Books, allocation: Allocation, exits: Sequence[Execution], how: str, *, priced: bool = True
) -> Decision:
    """Closes a trade; not `priced`: what one share of it brought is not known."""
    exits = whole_exit(allocation, exits)
    exit_ = settle(
        allocation.side,
        allocation.entries,
        exits,
        units=multiplier(allocation.key),
        tolerance=max(allocation.tolerance, allocation.open_qty if exits == allocation.exits else ZERO),
        initial_stop=allocation.initial_stop,
        cash_flow=needs_split(allocation, exits) and split_before(books, allocation, exits),
    )
    if not priced:
        exit_ = replace(exit_, price=None, pnl=None, r=None)
    reason = _reason(books, allocation, exits) if exits else "manual_close"
    fields = closed_fields(reason, exit_.at or books.now, exit_, allocation)
    if exit_.pnl is None and _ended_by(exits) is not None:
        fields |= _unpriced(allocation)
    price = f" at {plain(exit_.price)}" if exit_.price is not None else ""
    pnl = f", P&L {plain(exit_.pnl)}" if exit_.pnl is not None else ""
    left = total(allocation.entries) - exit_.qty
    dust = f", {plain(left)} left as dust" if exit_.pnl is not None and left > 0 and not allocation.crypto else ""
    booked = "" if exit_.pnl is not None or fields["realizedPnL"] is None else "; the P&L booked of a part stays"
    text = f"{how}: {plain(exit_.qty)}{price} ({reason}){pnl}{dust}{booked}"
    return change(books, allocation, Verdict.EXITED, Action.CLOSED, text, fields, exits=exits)


def close_past_its_date(books: Books, allocation: Allocation, at: datetime, why: str) -> Decision:
    """An option of which activities explain a part of its end at the most: its price stays unknown."""
    known = books.unallocated(allocation.key).closing(allocation.side, allocation.start)
    rows = [e for e in known if e.activity is not None]
    reason = _ended_by(rows) or "option_expired"
    fields = closed_fields(reason, at, None, allocation) | _unpriced(allocation)
    proof = [Proof(why, at)]
    return change(books, allocation, Verdict.EXITED, Action.CLOSED, f"{reason}: {why}", fields, proof=proof, exits=rows)


def whole_exit(allocation: Allocation, executions: Sequence[Execution]) -> list[Execution]:
    """All exits of the trade, oldest first, the parts booked earlier included."""
    given = {e.order_id for e in executions}
    earlier = [e for e in allocation.exits if e.order_id not in given]
    return sorted((*earlier, *executions), key=lambda e: (e.at is not None, e.at, e.order_id))


def needs_split(allocation: Allocation, exits: Sequence[Execution]) -> bool:
    """Whether its entries and exits differ in quantity, so that only a split can make them one life."""
    entered, sold = total(allocation.entries), total(exits)
    return bool(entered) and bool(sold) and abs(entered - sold) > allocation.tolerance


def split_before(books: Books, allocation: Allocation, exits: Sequence[Execution]) -> bool:
    """Whether a known activity may have changed the number of its shares between entry and exits."""
    first, last = allocation.start, max((e.at or books.now for e in exits), default=books.now)
    days = [a.day for a in books.evidence.activities if a.key == allocation.key and a.type in _SPLITS]
    return any(first.date().isoformat() <= day <= last.date().isoformat() for day in days)


def _reason(books: Books, allocation: Allocation, exits: Sequence[Execution]) -> str:
    last = exits[-1]
    if last.activity is not None and (ended_by := _ended_by(exits)) is not None:
        return ended_by
    if last.order is None:
        return "broker_exit"
    return close_reason(last.order, target=_is_target(books, allocation, last.order))


def _ended_by(exits: Iterable[Execution]) -> str | None:
    """The activity that ended a trade; an option that was assigned in part never counts as expired."""
    rows = [e.activity for e in exits if e.activity is not None]
    row = max(rows, key=lambda a: (a.type != "OPEXP", a.day, a.id), default=None)
    return _ENDED_BY.get(row.type, "transferred_out") if row is not None else None


def by_activities(exits: Iterable[Execution]) -> str:
    """The activities that took shares, in words; empty where none did."""
    exits = list(exits)
    rows = dict.fromkeys(f"{e.activity.type} of {e.activity.day}" for e in exits if e.activity is not None)
    sold = " and fills" if any(e.activity is None for e in exits) else ""
    return f"activity {', '.join(rows)}{sold}" if rows else ""


def _unpriced(allocation: Allocation) -> dict[str, Any]:
    """P&L and R of an end without a price: what was booked of a part before stays."""
    record = allocation.trade.record
    booked = ("realizedPnL", "realizedR")
    return {name: record[name] for name in booked if name in record} | unbooked(record)


def _is_target(books: Books, allocation: Allocation, order: Order) -> bool:
    """Whether the order is the trade's stored target, or replaced it."""
    target = allocation.trade.target_order
    return any(target in (o.id, o.client_id) for o in books.evidence.chain(order).orders if target is not None)
