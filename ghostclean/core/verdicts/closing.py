"""Closing a trade with the executions that took it out: the whole trade, recomputed, never added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ghostclean.core.allocation import Allocation, Books, Execution, total
from ghostclean.core.broker import ZERO, Order, multiplier, plain

from .decision import Action, Decision, Proof, Verdict, change
from .fields import closed_fields, unbooked
from .pnl import close_reason, settle

_SPLITS = frozenset({"SPLIT", "REORG", "OPCA"})


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
    reason = _reason(books, allocation, exits[-1]) if exits else "manual_close"
    fields = closed_fields(reason, exit_.at or books.now, exit_, allocation)
    price = f" at {plain(exit_.price)}" if exit_.price is not None else ""
    pnl = f", P&L {plain(exit_.pnl)}" if exit_.pnl is not None else ""
    left = total(allocation.entries) - exit_.qty
    dust = f", {plain(left)} left as dust" if exit_.pnl is not None and left > 0 and not allocation.crypto else ""
    text = f"{how}: {plain(exit_.qty)}{price} ({reason}){pnl}{dust}"
    return change(books, allocation, Verdict.EXITED, Action.CLOSED, text, fields, exits=exits)


def close_option(
    books: Books,
    allocation: Allocation,
    reason: str,
    at: datetime,
    why: str,
    *,
    worthless: bool,
    sold: Sequence[Execution] = (),
) -> Decision:
    """An option that ended without an order; `worthless`: expired, and an activity says so.

    `sold` is the part that unallocated executions had taken out before.
    """
    fields = closed_fields(reason, at, None, allocation)
    earlier = whole_exit(allocation, sold)
    if worthless:
        expired = Execution("", allocation.side.closing, allocation.open_qty - total(sold), ZERO, at)
        exit_ = settle(
            allocation.side,
            allocation.entries,
            [*earlier, expired],
            units=multiplier(allocation.key),
            tolerance=ZERO,
            initial_stop=allocation.initial_stop,
        )
        fields |= {"closePrice": exit_.price, "realizedPnL": exit_.pnl, "realizedR": exit_.r}
    else:
        del fields["realizedPnL"], fields["realizedR"]
        fields |= unbooked(allocation.trade.record)
    text, proof = f"{reason}: {why}", [Proof(why, at)]
    return change(books, allocation, Verdict.EXITED, Action.CLOSED, text, fields, proof=proof, exits=earlier)


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


def _reason(books: Books, allocation: Allocation, last: Execution) -> str:
    if last.order is None:
        return "broker_exit"
    return close_reason(last.order, target=_is_target(books, allocation, last.order))


def _is_target(books: Books, allocation: Allocation, order: Order) -> bool:
    """Whether the order is the trade's stored target, or replaced it."""
    target = allocation.trade.target_order
    return any(target in (o.id, o.client_id) for o in books.evidence.chain(order).orders if target is not None)
