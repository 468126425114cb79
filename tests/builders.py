"""Short functions that make records, orders, positions, fills and whole worlds for the pure core.

Rows are the API's own JSON, parsed by the real parsers. Times are ISO text or offsets from NOW.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ghostclean.adapters.alpaca.records import (
    read_account,
    read_activity,
    read_clock,
    read_fill,
    read_orders,
    read_positions,
)
from ghostclean.core.broker import BrokerTruth, Evidence, MarketClock, Order, iso, symbol_key
from ghostclean.core.inputs import Memory, Policy, World
from ghostclean.core.ledger import (
    FINAL,
    Trade,
    is_open,
    is_pending,
    json_value,
    other_account,
    read_trade,
    record_id,
    status_of,
)
from ghostclean.core.neighbours import Neighbours
from ghostclean.core.safety import OrphanView, counting, judge_orphans
from ghostclean.core.verdicts import Action, Decision, Plan, decide

NOW = datetime(2026, 11, 18, 16, 0, tzinfo=UTC)  # a Wednesday, in the session
GRACE = 120.0
DAY = 86_400.0
ACCOUNT, NUMBER = "account-1", "PA3TESTING01"
Record = dict[str, Any]


def ago(seconds: float = 0.0) -> str:
    """An ISO time so many seconds before NOW (negative: after)."""
    return iso(NOW - timedelta(seconds=seconds))


def uid(name: str) -> str:
    """A stable UUID for a readable name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def trade(trade_id: Any = "T1", **fields: Any) -> Record:
    """An open AAPL long of 10 shares at 180, a day old, entered by the order named E-<id>."""
    record: Record = {
        "id": trade_id,
        "ticker": "AAPL",
        "side": "LONG",
        "status": "OPEN",
        "quantity": 10,
        "entryPrice": 180,
        "alpacaOrderId": uid(f"E-{trade_id}"),
        "createdAt": ago(DAY),
    }
    record |= fields
    return {name: value for name, value in record.items() if value is not ...}


def order(name: str, **fields: Any) -> Record:
    """A filled AAPL buy of 10 at 180, a day old; `legs` nest."""
    row: Record = {
        "id": uid(name),
        "client_order_id": f"client-{name}",
        "symbol": "AAPL",
        "asset_id": "asset-AAPL",
        "asset_class": "us_equity",
        "side": "buy",
        "type": "market",
        "order_class": "simple",
        "status": "filled",
        "qty": "10",
        "filled_qty": None,
        "filled_avg_price": None,
        "submitted_at": ago(DAY),
    }
    row |= fields
    if row["filled_qty"] is None:
        row["filled_qty"] = row["qty"] if row["status"] == "filled" else "0"
    if row["filled_qty"] not in ("0", None) and row["filled_avg_price"] is None:
        row["filled_avg_price"] = "180"
    if row["status"] == "filled" and "filled_at" not in row:
        row["filled_at"] = row["submitted_at"]
    return row


def entry(trade_id: str = "T1", **fields: Any) -> Record:
    """The entry order that `trade` names."""
    return order(f"E-{trade_id}", **fields)


def sale(name: str, qty: Any = "10", price: Any = "187.40", at: Any = 3600.0, **fields: Any) -> Record:
    """A filled sell, an hour old."""
    row = {"side": "sell", "qty": str(qty), "filled_avg_price": str(price), "submitted_at": ago(at)} | fields
    return order(name, **row)


def position(symbol: str = "AAPL", qty: Any = "10", **fields: Any) -> Record:
    """A holding; a negative quantity is short."""
    signed = str(qty)
    row: Record = {
        "symbol": symbol,
        "asset_id": f"asset-{symbol}",
        "asset_class": "us_equity",
        "qty": signed,
        "side": "short" if signed.startswith("-") else "long",
        "avg_entry_price": "180",
        "market_value": "1800",
        "current_price": "180",
    }
    return row | fields


def fill(
    name: str, order_name: str, qty: Any = "10", price: Any = "187.40", at: float = 3600.0, **fields: Any
) -> Record:
    """A FILL activity of a sell."""
    row: Record = {
        "id": name,
        "activity_type": "FILL",
        "order_id": uid(order_name),
        "symbol": "AAPL",
        "side": "sell",
        "qty": str(qty),
        "price": str(price),
        "transaction_time": ago(at),
    }
    return row | fields


def activity(kind: str, symbol: str, at: float = 3600.0, **fields: Any) -> Record:
    """A non-trade activity."""
    row = {"id": f"{ago(at)[:10]}::{kind}-{symbol}", "activity_type": kind, "symbol": symbol, "date": ago(at)[:10]}
    return row | fields


def clock(*, is_open: bool = True) -> MarketClock:
    """The market clock at NOW."""
    return read_clock({"timestamp": ago(), "is_open": is_open, "next_open": ago(-DAY), "next_close": ago(-2 * DAY)})


def policy(**fields: Any) -> Policy:
    """The default policy with some fields replaced."""
    return replace(Policy(), **fields)


def world(
    records: Sequence[Mapping[str, Any]],
    orders: Iterable[Record] = (),
    positions: Iterable[Record] = (),
    *,
    fills: Iterable[Record] = (),
    activities: Iterable[Record] = (),
    absent: Iterable[str] = (),
    complete: bool = True,
    memory: Memory | None = None,
    market_open: bool = True,
    now: datetime = NOW,
    live: bool = False,
    **options: Any,
) -> World:
    """A World in which every look-up was answered (unless `complete` is off).

    Final records go where the shell puts them; orders that work are the working list, the rest
    are answers to look-ups; `absent` names are unknown to the broker by both ids.
    """
    account = read_account({"id": ACCOUNT, "account_number": NUMBER, "status": "ACTIVE"})
    evidence = Evidence()
    parsed = read_orders(list(orders))
    evidence.add_orders(o for o in parsed if o.is_final)
    evidence.set_working(o for o in parsed if not o.is_final)
    evidence.add_orders(parsed)
    evidence.absent.update(absent)
    evidence.absent_clients.update(absent)
    rows = [parsed_fill for row in fills if (parsed_fill := read_fill(row)) is not None]
    closed: dict[str, tuple[Mapping[str, Any], ...]] = {}
    if complete:
        long_ago = now - timedelta(days=400)
        keys = {symbol_key(str(r.get("ticker") or r.get("symbol") or "")) for r in records}
        keys |= {o.key for o in parsed} | {symbol_key(p["symbol"]) for p in positions}
        evidence.history = dict.fromkeys(keys, long_ago)
        evidence.add_fills(rows, long_ago)
        evidence.activities = tuple(a for row in activities if (a := read_activity(row)) is not None)
        evidence.activities_since = long_ago
        evidence.clock = clock(is_open=market_open)
        ours = [r for r in records if is_final(r) and other_account(r, account, live=live) is None]
        closed = {k: tuple(r for r in ours if key_of(r) == k) for k in keys}
    trades, others = split(records)
    truth = BrokerTruth(
        account,
        tuple(o for o in parsed if not o.is_final),
        read_positions(list(positions), lambda asset: asset.removeprefix("asset-")),
        now,
    )
    ids = Counter(record_id(r) for r in records)
    repeated = frozenset(i for i, count in ids.items() if i is not None and count > 1)
    return World(trades, others, closed, truth, evidence, memory or Memory(), policy(**options), now, live, repeated)


def key_of(record: Mapping[str, Any]) -> str:
    return symbol_key(str(record.get("ticker") or record.get("symbol") or ""))


def is_final(record: Mapping[str, Any]) -> bool:
    return status_of(record) in FINAL


def split(records: Iterable[Mapping[str, Any]]) -> tuple[tuple[Trade, ...], tuple[Trade, ...]]:
    """Open and pending trades, and the other records that are not final."""
    trades, others = [], []
    for record in records:
        if is_open(record) or is_pending(record):
            trades.append(read_trade(record))
        elif not is_final(record):
            others.append(read_trade(record))
    return tuple(trades), tuple(others)


def of(plan: Plan, trade_id: str = "T1") -> Decision:
    """The decision on one trade."""
    [decision] = [d for d in plan.decisions if d.trade_id == trade_id]
    return decision


def written(record: Mapping[str, Any], decision: Decision) -> Record:
    """The record after a decision was written to the ledger and read back."""
    after = {**record, **{name: json_value(value) for name, value in decision.fields.items()}}
    return {name: value for name, value in after.items() if name not in decision.remove}


def after(records: Sequence[Mapping[str, Any]], plan: Plan) -> list[Record]:
    """The ledger once a plan was applied to it."""
    changes = {d.trade_id: d for d in plan.writing if d.action is not Action.ADOPTED}
    return [written(r, changes[r["id"]]) if r.get("id") in changes else dict(r) for r in records]


def remembered(plan: Plan, memory: Memory, now: datetime = NOW) -> Memory:
    """What the next run knows after a plan was applied."""

    def merged(known: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in {**known, **changes}.items() if v is not None}

    return replace(
        memory,
        misses=merged(memory.misses, counting.misses(plan, memory, now)),
        exits=merged(memory.exits, counting.exits(plan.writing, memory)),
    )


def missed(trade_id: str = "T1", count: int = 1, first: float = 600.0, last: float = 300.0) -> Memory:
    """A memory of earlier runs that found a trade gone."""
    return Memory(misses={trade_id: {"count": count, "first": ago(first), "last": ago(last)}})


def working(*rows: Record) -> list[Order]:
    """Parsed orders."""
    return read_orders(list(rows))


def orphans(w: World, records: list[Record] | None = None, **changes: Any) -> list[Decision]:
    """What a run that adopts makes of the positions that no trade explains."""
    given: dict[str, Any] = {
        "mode": "adopt",
        "account": "account-1",
        "now": w.now,
        "grace": timedelta(seconds=GRACE),
        "evidence": w.evidence,
        "unproven": w.memory.unproven,
        "present": {r["id"]: r for r in records or ()},
        "closed": w.closed,
        "first_seen": {},
        "blocked": None,
        "neighbours": Neighbours(w.memory.neighbours, w.now, timedelta(seconds=GRACE)),
    }
    return judge_orphans(decide(w), OrphanView(**(given | changes)))


def orphan(w: World, records: list[Record] | None = None, **changes: Any) -> Decision:
    [decision] = orphans(w, records, **changes)
    return decision


def closed_unproven(**fields: Any) -> Record:
    """A trade that somebody else's run closed without proof."""
    return trade(status="CLOSED", closePrice=None, closeReason="stale", closedAt=ago(DAY), **fields)


def row(action: str, verdict: str = "exited", **more: Any) -> Record:
    """A row of a result document."""
    return {
        "id": "t1",
        "ticker": "AAPL",
        "verdict": verdict,
        "action": action,
        "reason": "its stop filled",
        "proof": [],
        "before": None,
        "after": None,
        **more,
    }


def document(*rows: Record, **more: Any) -> Record:
    """The document of a reconcile."""
    counters = dict.fromkeys(("closed", "synced", "backfilled", "held", "orphans", "failed"), 0)
    return {
        "ok": True,
        "dryRun": False,
        "runId": "r1",
        "durationMs": 1234,
        "checked": len(rows),
        **counters,
        "partial": False,
        "results": list(rows),
        "notes": [],
        "fit": None,
        "attention": [],
        "settled": [],
        "error": None,
        "detail": None,
        **more,
    }
