"""Orphans: broker positions that no trade explains, and closes of ours that proved wrong.

Always reported; adopted or flattened on demand, while the ledger has no open question.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.core.allocation import SAME_COST, Orphan, within
from ghostclean.core.broker import (
    CRYPTO_DUST,
    ZERO,
    BadNumber,
    Evidence,
    Order,
    is_option,
    iso,
    number,
    parse_time,
    plain,
)
from ghostclean.core.ledger import ADOPTED, POSITION_OPEN, order_ids, read_trade, record_id, same, status_of, text
from ghostclean.core.neighbours import Neighbours
from ghostclean.core.verdicts import Action, Decision, Plan, Proof, Verdict

LOOK_BACK = timedelta(days=90)
_TAKEN_OUT = frozenset({"DELETED", "ARCHIVED"})
_NOTHING_TO_REOPEN = ("duplicate_of:", "never_filled", "option_")


@dataclass(frozen=True, slots=True)
class OrphanView:
    """What the judgement of orphans needs beside the plan.

    `present`: records by id as they stand now. `closed`: final records of the symbols. `blocked`: why nothing may
    be done. `marks`: how records of this ledger spell their account. `neighbours`: what other ledgers of it say.
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
    neighbours: Neighbours
    marks: Mapping[str, Any] = field(default_factory=dict)


def orphan_name(orphan: Orphan) -> str:
    return f"orphan:{orphan.position.key}:{orphan.position.side}"


def judge_orphans(plan: Plan, view: OrphanView) -> list[Decision]:
    """One row an orphan: reopened, adopted, to be flattened, or reported."""
    filled = _filled(view.evidence)
    return [d for orphan in plan.orphans for d in _judge(orphan, plan, view, filled[orphan.position.key])]


def _filled(evidence: Evidence) -> dict[str, list[Order]]:
    filled: dict[str, list[Order]] = defaultdict(list)
    for order in evidence.orders.values():
        if order.filled_qty:
            filled[order.key].append(order)
    return filled


def _judge(orphan: Orphan, plan: Plan, view: OrphanView, filled: Sequence[Order]) -> Sequence[Decision]:
    reopened = _reopen_ours(orphan, view, filled)
    return reopened or [_judge_unknown(orphan, plan, view, filled)]


def _judge_unknown(orphan: Orphan, plan: Plan, view: OrphanView, filled: Sequence[Order]) -> Decision:
    why_not = _why_only_reported(orphan, plan, view)
    openings = _opening_orders(orphan, filled)
    named = _named(plan)
    if why_not is None and openings and not _opening_orders(orphan, [o for o in filled if o.id not in named]):
        why_not = "a trade of the ledger names the order that opened it"
    if why_not is not None or view.mode == "report":
        return _report(orphan, why_not)
    if view.mode == "adopt":
        return _reopen_stranger(orphan, openings, view) or _adopt(orphan, openings, named, view)
    reason = f"{_describe(orphan)}, to be sold"
    return Decision(None, orphan.position.symbol, Verdict.ORPHAN, Action.FLATTENED, reason, _proof(orphan, view))


def _named(plan: Plan) -> frozenset[str]:
    """The order ids of every open and pending trade, another account's too: it may be wrong about its account."""
    return frozenset().union(*plan.own_orders.values())


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
    if orphan.awaited_by is not None:
        return f"trade {orphan.awaited_by} of the ledger may be it"
    if orphan.neighbour is not None:
        return f"beside what ledger {orphan.neighbour} holds"
    if orphan.remainder:
        return "beside a trade of the same symbol"
    if is_option(orphan.position.key):
        return "an option"
    latest = plan.activity.get(orphan.position.key)
    if latest is not None and view.now - latest < view.grace:
        return "its symbol saw activity just now"
    return view.neighbours.may_hold(orphan.position, latest)


def _proof(orphan: Orphan, view: OrphanView) -> tuple[Proof, ...]:
    position = orphan.position
    return (Proof(f"position {position.symbol} {plain(position.qty)} {position.side}", view.now),)


# --------------------------------------------------------------------------- reopened


def _reopen_ours(orphan: Orphan, view: OrphanView, filled: Sequence[Order]) -> list[Decision]:
    """Untouched unproven closes of ours whose quantity is back: all together, else the only one that fits alone."""
    found: list[tuple[Decimal, Decimal | None, Decision]] = []
    for trade_id, entry in sorted(view.unproven.items()):
        record = view.present.get(trade_id)
        after, before = entry.get("after"), entry.get("before")
        if record is None or not isinstance(after, dict) or not isinstance(before, dict):
            continue
        if entry.get("key") != orphan.position.key or entry.get("side") != orphan.position.side:
            continue
        qty = _quantity(entry.get("qty"))
        if qty is None or not all(same(record, name, value) for name, value in after.items()):
            continue
        if _was_built_since(orphan, record, parse_time(entry.get("at")), filled):
            continue
        remove = tuple(name for name in after if name not in before)
        reason = f"closed without proof by run {entry.get('runId')}, and its {plain(qty)} are back"
        decision = _reopened(trade_id, orphan, record, dict(before), remove, reason, view)
        found.append((qty, _cost(qty, record), decision))
    costs = [cost for _, cost, _ in found if cost is not None]
    whole = sum(costs, ZERO) if len(costs) == len(found) else None
    if found and _is_back(sum((qty for qty, _, _ in found), ZERO), whole, orphan):
        return [decision for _, _, decision in found]
    alone = [decision for qty, cost, decision in found if _is_back(qty, cost, orphan)]
    return alone if len(alone) == 1 else []


def _is_back(qty: Decimal, cost: Decimal | None, orphan: Orphan) -> bool:
    dust, price = qty * CRYPTO_DUST if orphan.position.is_crypto else ZERO, orphan.position.avg_price
    alike = price is None or cost is None or within(price * qty, cost, SAME_COST)
    return alike and qty - dust <= orphan.qty <= qty


def _cost(qty: Decimal, record: Mapping[str, Any]) -> Decimal | None:
    trade = read_trade(record)
    price = trade.avg_fill_price or trade.entry_price
    return price * qty if price is not None else None


def _was_built_since(
    orphan: Orphan, record: Mapping[str, Any], closed_at: datetime | None, filled: Sequence[Order]
) -> bool:
    own, side = set(order_ids(record)), orphan.position.side
    later = [o for o in filled if o.id not in own and o.client_id not in own and _filled_since(o, closed_at)]
    return sum((o.filled_qty if o.side == side.opening else -o.filled_qty for o in later), ZERO) >= orphan.qty


def _filled_since(order: Order, moment: datetime | None) -> bool:
    return moment is not None and order.fill_time is not None and order.fill_time >= moment


def _quantity(value: object) -> Decimal | None:
    try:
        return number(value)
    except BadNumber:
        return None


def _reopen_stranger(orphan: Orphan, openings: Sequence[Order], view: OrphanView) -> Decision | None:
    found: list[Decision] = []
    for record in view.closed.get(orphan.position.key, ()):
        trade_id = record_id(record)
        trade = read_trade(record)
        status = status_of(record)
        if trade_id is None or status in _TAKEN_OUT or record.get("closePrice") is not None:
            continue
        if trade.side is not orphan.position.side or trade.size is None:
            continue
        if not _is_back(trade.size, _cost(trade.size, record), orphan):
            continue
        if (text(record, "closeReason") or "").startswith(_NOTHING_TO_REOPEN):
            continue
        if _was_built_since(orphan, record, parse_time(record.get("closedAt")), openings):
            continue
        entry, built_it = trade.entry_order, {i for o in openings for i in (o.id, o.client_id)}
        if entry is not None and openings and entry not in built_it:
            continue  # the position was built by another order
        if (status != "CLOSED" or "closePrice" not in record) and entry not in built_it:
            continue  # a record that never had a price, or an entry, is known by its entry order alone
        names = ("closedAt", "closeReason", "closePrice", "realizedPnL", "realizedR", "closeOrderId")
        remove = tuple(name for name in names if name in record)
        order = view.evidence.find(entry)
        said = order.status if order is not None else POSITION_OPEN
        fields = {"status": "OPEN", "autoEntryStatus": "OPEN", "alpacaStatus": said, "brokerStatus": said}
        fields["updatedAt"] = iso(view.now)
        reason = "closed without a price, and its shares are held"
        found.append(_reopened(trade_id, orphan, record, fields, remove, reason, view))
    return found[0] if len(found) == 1 else None


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


def _adopt(orphan: Orphan, openings: Sequence[Order], named: frozenset[str], view: OrphanView) -> Decision:
    position = orphan.position
    first_seen = view.first_seen.get(orphan_name(orphan)) or iso(view.now)
    trade_id = _identity(orphan, view.account, openings, first_seen)
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
        **view.marks,
        "autoEntryStatus": "OPEN",
        "createdAt": iso(view.now),
        "openedAt": iso(opened),
        "updatedAt": iso(view.now),
    }
    named |= {i for record in view.closed.get(position.key, ()) for i in order_ids(record)}
    whole = len(openings) == 1 and openings[0].filled_qty == orphan.qty and openings[0].id not in named
    status = openings[0].status if whole else POSITION_OPEN
    if whole:
        record |= {"alpacaOrderId": openings[0].id, "filledQty": orphan.qty, "avgFillPrice": openings[0].avg_price}
    record |= {"alpacaStatus": status, "brokerStatus": status}
    reason = f"{_describe(orphan)}, adopted as {trade_id}"
    return Decision(trade_id, position.symbol, Verdict.ORPHAN, Action.ADOPTED, reason, _proof(orphan, view), record)


def adopted_id(orphan: Orphan, account: str, evidence: Evidence, first_seen: str) -> str:
    """The orphan's id, the same on every run: account, symbol, side, opening order or first day."""
    return _identity(orphan, account, _opening_orders(orphan, _filled(evidence)[orphan.position.key]), first_seen)


def _identity(orphan: Orphan, account: str, openings: Sequence[Order], first_seen: str) -> str:
    origin = openings[0].id if openings else first_seen[:10]
    identity = "|".join((account, orphan.position.key, orphan.position.side, origin))
    return f"{ADOPTED}{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _opening_orders(orphan: Orphan, filled: Sequence[Order]) -> list[Order]:
    """The latest filled orders that built the position, oldest first; empty when they do not add up."""
    side = orphan.position.side.opening
    openings = [o for o in filled if o.side == side]
    openings.sort(key=lambda o: (o.fill_time is not None, o.fill_time, o.id), reverse=True)
    found: list[Order] = []
    total = ZERO
    for order in openings:
        if total >= orphan.qty:
            break
        found.append(order)
        total += order.filled_qty
    return found[::-1] if total >= orphan.qty else []
