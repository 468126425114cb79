"""Everything a decision is made from: the ledger's side, the broker's side, our memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ghostclean.core.broker import BrokerTruth, Evidence, parse_time
from ghostclean.core.ledger import Trade, other_account

MISS_EXPIRES = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings and the options of one run that the core needs; runs are expected every `interval`."""

    grace: timedelta = timedelta(seconds=120)
    max_unproven_closes: int = 3
    confirmations: int = 1
    close: bool = True
    sync: bool = True
    close_reason: str = "reconciled_not_in_alpaca"
    orphans: str = "report"
    allow_mass_close: bool = False
    max_trades: int = 500
    interval: timedelta = timedelta(seconds=300)

    @property
    def patience(self) -> timedelta:
        """How long nobody is called: two runs as they are expected."""
        return 2 * self.interval


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier runs remembered, by trade id.

    `first_seen`, `last_worked`: ISO times. `misses`: how often, and since when, a trade was found gone. `exits`:
    attributed exit orders. `holds`: broker facts at which an undone change is held.
    """

    first_seen: Mapping[str, str] = field(default_factory=dict)
    last_worked: Mapping[str, str] = field(default_factory=dict)
    misses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exits: Mapping[str, list[str]] = field(default_factory=dict)
    holds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unproven: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    neighbours: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def seen(self, trade_id: str, now: datetime) -> datetime:
        """When a trade was first seen; now for a new one."""
        return parse_time(self.first_seen.get(trade_id)) or now

    def miss(self, trade_id: str, now: datetime) -> tuple[int, datetime | None]:
        """How many runs in a row found it gone before this one, and since when."""
        entry = self.misses.get(trade_id)
        if not entry:
            return 0, None
        last, first = parse_time(entry.get("last")), parse_time(entry.get("first"))
        if last is None or first is None or now - last > MISS_EXPIRES:
            return 0, None
        return int(entry.get("count", 0)), first


@dataclass(frozen=True, slots=True)
class World:
    """One consistent input of `decide`; `now` is the broker's time.

        `trades` are open and pending, `others` the remaining active records, `closed` the final ones of a symbol (None
    until read), without another account's.
     `repeated`: ids of several records.
    """

    trades: tuple[Trade, ...]
    others: tuple[Trade, ...]
    closed: Mapping[str, tuple[Mapping[str, Any], ...]]
    truth: BrokerTruth
    evidence: Evidence
    memory: Memory
    policy: Policy
    now: datetime
    live: bool = False
    repeated: frozenset[str] = frozenset()

    def unreadable(self, trade: Trade) -> str | None:
        """What keeps a record from being a trade."""
        return trade.unreadable(self.repeated)

    def other_account(self, trade: Trade) -> str | None:
        """Why a record is of another account than this one, by its own word."""
        return other_account(trade.record, self.truth.account, live=self.live)
