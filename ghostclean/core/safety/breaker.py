"""The brakes: what must be true before closes without proof may be written. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ghostclean.core.broker import Account, Evidence, parse_time, symbol_key
from ghostclean.core.inputs import Memory, Policy
from ghostclean.core.ledger import order_ids, text
from ghostclean.core.verdicts import Action, Decision, Plan
from ghostclean.counts import counted

ORPHAN_ACTIONS = frozenset({Action.ADOPTED, Action.FLATTENED})
_RECENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pin:
    """The account that this ledger belongs to."""

    account: str
    live: bool

    def mismatch(self, account: Account, live: bool) -> str | None:
        """Why another account must be refused; None for the pinned one."""
        if self.account == account.id and self.live == live:
            return None
        kinds = {True: "live", False: "paper"}
        return (
            f"the broker answers for {kinds[live]} account {short(account.id)}, "
            f"this ledger belongs to {kinds[self.live]} account {short(self.account)}"
        )


def short(account_id: str) -> str:
    return f"{account_id[:8]}…" if len(account_id) > 8 else account_id


def breaker(
    plan: Plan, memory: Memory, policy: Policy, now: datetime, again: Collection[str | None] = ()
) -> str | None:
    """Why the closes without proof must not be written, if so.

    Counts those decided now, open suspects, and those of the last hour; not closes made `again`.
    """
    decided = sum(1 for decision in plan.unproven if decision.trade_id not in again)
    if not decided or policy.allow_mass_close:
        return None
    recent = sum(1 for entry in memory.unproven.values() if _is_recent(entry, now))
    count = decided + plan.suspects + recent
    if count <= policy.max_unproven_closes or count * 3 <= plan.open_trades:
        return None
    return (
        f"{counted(decided, 'close')} without proof ({counted(plan.suspects, 'suspect')} not looked up, "
        f"{recent} closed like that in the last hour) of {counted(plan.open_trades, 'open trade')}"
    )


def _is_recent(entry: Mapping[str, Any], now: datetime) -> bool:
    at = parse_time(entry.get("at"))
    return at is not None and now - at < _RECENT


def knows_this_ledger(records: Iterable[Mapping[str, Any]], evidence: Evidence, position_keys: Iterable[str]) -> bool:
    """One sign that the account is the ledger's: a known order id, or, if none is named, a position."""
    symbols: set[str] = set()
    named: set[str] = set()
    for record in records:
        symbols.add(symbol_key(text(record, "ticker", "symbol") or ""))
        named.update(order_ids(record))
    if named:
        return any(evidence.find(order_id) is not None for order_id in named)
    return not symbols.isdisjoint(position_keys)


def orphan_breaker(plan: Plan, decided: Iterable[Decision], positions: int, policy: Policy) -> str | None:
    """Why no orphan may be adopted or sold, as `breaker` for closes without proof."""
    acting = sum(1 for decision in decided if decision.action in ORPHAN_ACTIONS)
    if policy.allow_mass_close or acting <= policy.max_unproven_closes or acting * 3 <= positions:
        return None
    return (
        f"{acting} of the account's {counted(positions, 'position')} would be adopted or sold, "
        f"with {counted(plan.open_trades, 'open trade')}"
    )


def leaving(plan: Plan) -> frozenset[str]:
    """The trades that would leave the books, or shrink in them."""
    return frozenset(d.trade_id or "" for d in plan.decisions if d.action in (Action.CLOSED, Action.REDUCED))


def without_unproven(plan: Plan, why: str) -> Plan:
    """The same plan with its unproven closes held."""
    return replace(plan, decisions=tuple(_held(d, why) if d.unproven else d for d in plan.decisions))


def without_closes(plan: Plan, why: str) -> Plan:
    """The same plan with every trade held that would leave the ledger, or shrink in it."""
    held = leaving(plan)
    return replace(plan, decisions=tuple(_held(d, why) if d.trade_id in held else d for d in plan.decisions))


def _held(decision: Decision, why: str) -> Decision:
    reason = f"{decision.reason}; not closed: {why}"
    return replace(decision, action=Action.HELD, reason=reason, fields={}, unproven=False)
