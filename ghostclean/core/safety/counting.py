"""What a run remembers for the next ones: misses, exits, final orders, verdicts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ghostclean.core.broker import Evidence, iso, parse_time, plain, remember_order
from ghostclean.core.inputs import Memory
from ghostclean.core.ledger import Trade, read_trade
from ghostclean.core.verdicts import Action, Decision, Plan, Verdict

_MISSES = frozenset({Verdict.FILLED_BUT_GONE, Verdict.VANISHED})
_UNPROVEN_KEPT = timedelta(days=30)


def misses(plan: Plan, memory: Memory, now: datetime) -> dict[str, Any]:
    """Counts of runs in a row that found a trade gone without explanation."""
    changes: dict[str, Any] = {}
    for decision in plan.decisions:
        trade_id = decision.trade_id
        if trade_id is None:
            continue
        if decision.verdict in _MISSES and decision.action is not Action.CLOSED:
            count, first = memory.miss(trade_id, now)
            changes[trade_id] = {"count": count + 1, "first": iso(first or now), "last": iso(now)}
        elif trade_id in memory.misses and decision.verdict is not Verdict.UNKNOWN:
            changes[trade_id] = None
    left = [trade_id for trade_id in memory.misses if trade_id not in plan.own_orders]
    return changes | dict.fromkeys(left)


def first_seen(trades: Iterable[Trade], names: Iterable[str], memory: Memory, now: datetime) -> dict[str, Any]:
    """First sights of trades without a usable opening time, and of orphans."""
    wanted = {t.id for t in trades if t.id and (t.opening is None or t.opening > now)} | set(names)
    changes: dict[str, Any] = {name: iso(now) for name in wanted if name not in memory.first_seen}
    known = {t.id for t in trades}
    gone = [name for name in memory.first_seen if name not in wanted and name not in known]
    return changes | dict.fromkeys(gone)


def exits(written: Iterable[Decision], memory: Memory) -> dict[str, Any]:
    """The exit orders attributed to trades, but for the one that a closed record names itself."""
    changes: dict[str, Any] = {}
    for decision in written:
        if decision.exit_orders and decision.trade_id:
            known = memory.exits.get(decision.trade_id, [])
            merged: list[str] | None = list(dict.fromkeys((*known, *decision.exit_orders)))
            if decision.action is Action.CLOSED and merged == [decision.fields.get("closeOrderId")]:
                merged = None
            if merged != (list(known) or None):
                changes[decision.trade_id] = merged
    return changes


def final_orders(
    owners: Mapping[str, Iterable[str]], evidence: Evidence, remembered: Mapping[str, Any]
) -> dict[str, Any]:
    """Final answers worth keeping, by order id; those of trades that left are forgotten."""
    changes: dict[str, Any] = {}
    for trade_id, ids in owners.items():
        for order_id in ids:
            order = evidence.orders.get(order_id)
            if order is not None and order.is_final and order_id not in remembered:
                changes[order_id] = remember_order(order, trade_id)
    for order_id, row in remembered.items():
        if row.get("trade") not in owners:
            changes[order_id] = None
    return changes


def unproven(written: Iterable[Decision], memory: Memory, run_id: str, now: datetime) -> dict[str, Any]:
    """Closes without proof, kept a month so that they can be taken back and counted."""
    changes: dict[str, Any] = {}
    for decision in written:
        if decision.unproven and decision.trade_id and decision.base is not None:
            changes[decision.trade_id] = unproven_close(
                iso(now), run_id, decision.before() or {}, decision.fields, decision.base
            )
    for trade_id, entry in memory.unproven.items():
        at = parse_time(entry.get("at"))
        if trade_id not in changes and (at is None or now - at > _UNPROVEN_KEPT):
            changes[trade_id] = None
    return changes


def unproven_close(
    at: str, run_id: str, before: Mapping[str, Any], after: Mapping[str, Any], record: Mapping[str, Any]
) -> dict[str, Any]:
    """A remembered close without proof: its changes, and what it held (the smaller of size and fill)."""
    trade = read_trade(record)
    qty = min((q for q in (trade.filled_qty, trade.size) if q is not None), default=None)
    return {
        "at": at,
        "runId": run_id,
        "before": dict(before),
        "after": dict(after),
        "key": trade.key,
        "side": str(trade.side),
        "qty": plain(qty) if qty is not None else None,
    }
