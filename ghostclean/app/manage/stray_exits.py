"""Cancels exit orders that outlived their trade: on a flat position they would open a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ghostclean.app.manage.trade_journal import TradeJournal
from ghostclean.app.manage.trades import OpenTrades
from ghostclean.app.observation import Observation
from ghostclean.app.ports import Ledger, Record
from ghostclean.core.broker import Order, is_tagged, parse_time
from ghostclean.core.ledger import Trade, order_ids, read_trade
from ghostclean.core.protection import Exposure
from ghostclean.core.verdicts import Plan

_CANCEL_SECONDS = 3.0


def cancel_stray_exits(trades: OpenTrades, journal: TradeJournal, ledger: Ledger, before: datetime) -> int:
    """Cancels working exits of closed trades; how many.

    Not of trades closed after `before` (the broker cancels siblings itself), nor an order that an active record
    names or an orphan needs.
    """
    gateway, observed = trades.gateway, trades.observed
    free = _unowned(observed)
    stray = _of_closed(free, ledger, before, observed.lookups.ours) if free else []
    for trade, order in stray:
        exposure = Exposure.behind(order, trade.id or "", trade.side, gateway.now())
        left = gateway.cancel(exposure, [order], _CANCEL_SECONDS, "leftover of a closed trade")
        became = "would be cancelled" if gateway.dry_run else f"cancelled{_still(left)}"
        journal.notes.append(f"{order.symbol} {trade.id}: order {order.id} outlived its trade: {became}")
    return len(stray)


def _of_closed(
    free: Sequence[Order], ledger: Ledger, before: datetime, ours: Callable[[Record], bool]
) -> list[tuple[Trade, Order]]:
    closed = ledger.history(frozenset(o.key for o in free))
    trades = [read_trade(record) for record in closed if ours(record) and not _is_recent(record, before)]
    return [(trade, order) for trade in trades for order in free if _is_exit_of(order, trade)]


def _still(left: Sequence[Order]) -> str:
    return f", still {left[0].status}" if left else ""


def _unowned(observed: Observation) -> list[Order]:
    active, plan = observed.ours, observed.plan
    named = {i for record in active for i in order_ids(record)} | _exits_of(plan)
    tags = {tag for record in active for tag in read_trade(record).tags}
    orphans = {orphan.position.key for orphan in plan.orphans}

    def is_free(order: Order) -> bool:
        return named.isdisjoint((order.id, order.client_id)) and order.key not in orphans and not is_tagged(order, tags)

    return [order for order in observed.truth.orders if is_free(order)]


def _exits_of(plan: Plan) -> set[str]:
    return {order.id for holding in plan.holdings.values() for order in holding.exits}


def _is_recent(record: Mapping[str, Any], since: datetime) -> bool:
    closed_at = parse_time(record.get("closedAt")) or parse_time(record.get("updatedAt"))
    return closed_at is not None and closed_at > since


def _is_exit_of(order: Order, trade: Trade) -> bool:
    ours = order.id in trade.exit_orders or (order.key == trade.key and is_tagged(order, trade.tags))
    return ours and order.side == trade.side.closing
