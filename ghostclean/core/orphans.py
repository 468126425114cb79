"""Orphans: broker positions that no trade explains, and closes of ours that proved wrong.

Reported always; adopted or flattened only on demand and only while nothing at all is open
about the ledger. An adopted trade has the same id on every run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from .broker import Order
from .evidence import Evidence
from .fields import same
from .instrument import is_option
from .numbers import ZERO, plain
from .plan import Orphan, Plan
from .times import iso
from .trade import read_trade, record_id, status_of
from .verdicts import Action, Decision, Proof, Verdict

LOOK_BACK = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class OrphanView:
    """What the judgement of orphans needs beside the plan.

    `present` are the ledger's records by id as they stand now (those of earlier unproven closes
    and of candidates), `closed` the final records of the orphans' symbols, `first_seen` when an
    orphan was first seen, `blocked` why nothing may be done about any of them.
    """

    mode: str
    account: str
    now: datetime
    grace: timedelta
    evidence: Evidence
    unproven: Mapping[str, Mapping[str, Any]]
    present: Mapping[str, Mapping[str, Any]]
    closed: Mapping[str, Sequence[Mapping[str, Any]]]
    first_seen: Mapping[str, str]
    blocked: str | None


def orphan_name(orphan: Orphan) -> str:
    """The name under which an orphan's first sight is remembered."""
    return f"orphan:{orphan.position.key}:{orphan.position.side}"


def judge_orphans(plan: Plan, view: OrphanView) -> list[Decision]:
    """One decision an orphan: reopened, adopted, to be flattened, or just reported."""
    return [_judge(orphan, plan, view) for orphan in plan.orphans]


def _judge(orphan: Orphan, plan: Plan, view: OrphanView) -> Decision:
    reopened = _reopen_ours(orphan, view)
    if reopened is not None:
        return reopened
    why_not = _why_only_reported(orphan, plan, view)
    if why_not is not None or view.mode == "report":
        return _report(orphan, why_not)
    if view.mode == "adopt":
        return _reopen_stranger(orphan, view) or _adopt(orphan, view)
    reason = f"{_describe(orphan)}, to be sold"
    return Decision(None, orphan.position.symbol, Verdict.ORPHAN, Action.FLATTENED, reason, _proof(orphan, view))


def _report(orphan: Orphan, why_not: str | None) -> Decision:
    reason = _describe(orphan) + (f" ({why_not})" if why_not else "")
    return Decision(None, orphan.position.symbol, Verdict.ORPHAN, Action.KEPT, reason)


def _describe(orphan: Orphan) -> str:
    position = orphan.position
    part = f"{plain(orphan.qty)} of {plain(position.qty)}" if orphan.qty != position.qty else plain(position.qty)
    return f"{part} {position.side.lower()} at the broker that no trade explains"


def _why_only_reported(orphan: Orphan, plan: Plan, view: OrphanView) -> str | None:
    if view.blocked:
        return view.blocked
    if orphan.remainder:
        return "beside a trade of the same symbol"
    if is_option(orphan.position.key):
        return "an option"
    latest = plan.activity.get(orphan.position.key)
    if latest is not None and view.now - latest < view.grace:
        return "its symbol saw activity just now"
    return None


def _proof(orphan: Orphan, view: OrphanView) -> tuple[Proof, ...]:
    position = orphan.position
    return (Proof(f"position {position.symbol} {plain(position.qty)} {position.side}", view.now),)


# --------------------------------------------------------------------------- reopened


def _reopen_ours(orphan: Orphan, view: OrphanView) -> Decision | None:
    """An unproven close of ours, untouched since, whose quantity is back as the position."""
    for trade_id, entry in sorted(view.unproven.items()):
        record = view.present.get(trade_id)
        after, before = entry.get("after"), entry.get("before")
        if record is None or not isinstance(after, dict) or not isinstance(before, dict):
            continue
        if entry.get("key") != orphan.position.key or entry.get("side") != orphan.position.side:
            continue
        untouched = all(same(record, name, value) for name, value in after.items())
        if untouched and Decimal(str(entry.get("qty") or 0)) == orphan.qty:
            remove = tuple(name for name in after if name not in before)
            reason = f"closed without proof by run {entry.get('runId')}, and its {plain(orphan.qty)} are back"
            return _reopened(trade_id, orphan, record, dict(before), remove, reason, view)
    return None


def _reopen_stranger(orphan: Orphan, view: OrphanView) -> Decision | None:
    """A close by somebody else without a price, whose quantity stands at the broker."""
    for record in view.closed.get(orphan.position.key, ()):
        trade_id = record_id(record)
        trade = read_trade(record)
        if trade_id is None or status_of(record) != "CLOSED" or record.get("closePrice") is not None:
            continue
        if "closePrice" not in record or trade.side is not orphan.position.side or trade.size != orphan.qty:
            continue
        names = ("closedAt", "closeReason", "closePrice", "realizedPnL", "realizedR", "closeOrderId")
        remove = tuple(name for name in names if name in record)
        fields = {"status": "OPEN", "autoEntryStatus": "OPEN", "updatedAt": iso(view.now)}
        return _reopened(trade_id, orphan, record, fields, remove, "closed without a price, and its shares are held", view)
    return None


def _reopened(
    trade_id: str,
    orphan: Orphan,
    record: Mapping[str, Any],
    fields: dict[str, Any],
    remove: tuple[str, ...],
    reason: str,
    view: OrphanView,
) -> Decision:
    symbol = orphan.position.symbol
    proof = _proof(orphan, view)
    return Decision(trade_id, symbol, Verdict.REOPENED, Action.REOPENED, reason, proof, fields, remove, record)


# --------------------------------------------------------------------------- adopted


def _adopt(orphan: Orphan, view: OrphanView) -> Decision:
    position = orphan.position
    openings = _opening_orders(orphan, view.evidence)
    first_seen = view.first_seen.get(orphan_name(orphan)) or iso(view.now)
    trade_id = adopted_id(orphan, view.account, view.evidence, first_seen)
    taken = view.present.get(trade_id)
    if taken is not None:
        return _report(orphan, f"adopted before as {trade_id}, whose record says {status_of(taken) or 'nothing'}")
    opened = (openings[0].fill_time if openings else None) or view.now
    record: dict[str, Any] = {
        "id": trade_id,
        "ticker": position.symbol,
        "side": str(position.side),
        "status": "OPEN",
        "quantity": orphan.qty,
        "entryPrice": position.avg_price,
        "source": "broker_backfill",
        "autoEntryStatus": "OPEN",
        "createdAt": iso(view.now),
        "openedAt": iso(opened),
        "updatedAt": iso(view.now),
    }
    whole = len(openings) == 1 and openings[0].filled_qty == orphan.qty
    status = openings[0].status if whole else "position_open"
    if whole:
        record |= {"alpacaOrderId": openings[0].id, "filledQty": orphan.qty, "avgFillPrice": openings[0].avg_price}
    record |= {"alpacaStatus": status, "brokerStatus": status}
    reason = f"{_describe(orphan)}, adopted as {trade_id}"
    return Decision(trade_id, position.symbol, Verdict.ORPHAN, Action.ADOPTED, reason, _proof(orphan, view), record)


def adopted_id(orphan: Orphan, account: str, evidence: Evidence, first_seen: str) -> str:
    """The orphan's id, the same on every run: account, symbol, side, opening order or first day."""
    openings = _opening_orders(orphan, evidence)
    origin = openings[0].id if openings else first_seen[:10]
    identity = "|".join((account, orphan.position.key, orphan.position.side, origin))
    return f"adopted-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _opening_orders(orphan: Orphan, evidence: Evidence) -> list[Order]:
    """The latest filled orders that built the position, oldest first; empty when they do not add up."""
    side = orphan.position.side.opening
    filled = [o for o in evidence.orders.values() if o.key == orphan.position.key and o.side == side and o.filled_qty]
    filled.sort(key=lambda o: (o.fill_time is not None, o.fill_time, o.id), reverse=True)
    found: list[Order] = []
    total = ZERO
    for order in filled:
        if total >= orphan.qty:
            break
        found.append(order)
        total += order.filled_qty
    return found[::-1] if total >= orphan.qty else []
