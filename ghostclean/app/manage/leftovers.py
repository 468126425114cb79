"""Cancels exit orders that outlived their trade: on a flat position they would open a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.manage.books import Books
from ghostclean.app.order_door import Claim, OrderDoor
from ghostclean.app.ports import Ledger
from ghostclean.core.broker import ZERO, Order, Side, parse_client_id, parse_time, trade_tag
from ghostclean.core.ledger import order_ids, read_trade, record_id
from ghostclean.core.verdicts import Plan

_CANCEL_SECONDS = 3.0


def cancel_leftovers(
    door: OrderDoor,
    books: Books,
    ledger: Ledger,
    plan: Plan,
    active: Sequence[Mapping[str, Any]],
    working: Iterable[Order],
    *,
    grace: timedelta,
    now: datetime,
) -> int:
    """Cancels working exits of closed trades; how many.

    Left alone: within the grace of the close (the broker cancels siblings itself), an id that an
    active record names too, and symbols with an orphan, which the order may be protecting.
    """
    named = {i for record in active for i in order_ids(record)}
    tags = {trade_tag(i) for record in active if (i := record_id(record)) is not None}
    orphans = {orphan.position.key for orphan in plan.orphans}
    exits = {i for h in plan.holdings.values() for i in (o.id for o in h.exits)}
    free = [
        o
        for o in working
        if o.id not in named | exits and o.client_id not in named and o.key not in orphans and not _is_of(o, tags)
    ]
    if not free:
        return 0
    cancelled = 0
    for record in ledger.history(frozenset(o.key for o in free)):
        closed_at = parse_time(record.get("closedAt")) or parse_time(record.get("updatedAt"))
        if closed_at is not None and now - closed_at < grace:
            continue
        trade = read_trade(record)
        mine = [
            o
            for o in free
            if o.side == trade.side.closing and (o.id in trade.exit_orders or _is_of(o, {trade_tag(trade.id or "")}))
        ]
        for order in mine:
            claim = _nothing_of(order, trade.side, trade.id or "", now)
            left = door.cancel(claim, [order], _CANCEL_SECONDS, "leftover of a closed trade")
            still = f", still {left[0].status}" if left else ""
            word = "would be cancelled" if door.dry_run else "cancelled"
            books.notes.append(f"{order.symbol} {trade.id}: order {order.id} outlived its trade: {word}{still}")
            cancelled += 1
    return cancelled


def _is_of(order: Order, tags: set[str]) -> bool:
    ours = parse_client_id(order.client_id)
    return ours is not None and ours.trade in tags


def _nothing_of(order: Order, side: Side, trade_id: str, now: datetime) -> Claim:
    """A claim that owns no shares: good for a cancel and for nothing else."""
    return Claim(trade_id, order.symbol, order.key, side, ZERO, ZERO, order.is_crypto, now)
