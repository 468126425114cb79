"""One trade while it is being decided, and what its position says about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto

from ghostclean.core.broker import ZERO, Order, Position, Side, parse_client_id
from ghostclean.core.ledger import Trade

from .money import CRYPTO_DUST
from .own_orders import Entry, Lot, OwnOrders


class Share(Enum):
    """What the position says about one trade."""

    COVERED = auto()  # the position holds its open quantity
    CLOSED = auto()  # own exits took everything out
    EMPTY = auto()  # its entry filled nothing, or what filled so far is out again
    UNKNOWN = auto()  # its own orders are not known yet
    SHORT = auto()  # less than its open quantity is left
    SHARED = auto()  # several trades share less than they need
    GONE = auto()  # nothing is left
    OTHER_SIDE = auto()  # the position points the other way
    SPLIT = auto()  # a clean ratio of it at the same cost


@dataclass(slots=True, eq=False)
class Case:
    """One trade, its own orders, and its part of the position.

    `key` and `crypto` are its instrument, `opened` its opening or first sight; `contested` is an
    exit order that another trade names as well, `early` one that filled before the entry.
    """

    trade: Trade
    own: OwnOrders
    key: str
    crypto: bool
    opened: datetime
    entry_qty: Decimal = ZERO
    exit_lots: list[Lot] = field(default_factory=list)
    open_qty: Decimal = ZERO
    share: Share = Share.UNKNOWN
    has: Decimal = ZERO
    may_show: Decimal = ZERO
    duplicate_of: str | None = None
    contested: str | None = None
    early: str | None = None
    agrees_with_ledger: bool = False

    @property
    def side(self) -> Side:
        return self.trade.side

    @property
    def name(self) -> str:
        """The trade's id; a readable trade has one."""
        return self.trade.id or ""

    @property
    def certain(self) -> bool:
        """Its entry is proven by an order."""
        return self.own.entry is Entry.KNOWN

    @property
    def tolerance(self) -> Decimal:
        """How much may be missing: crypto fee dust, nothing for anything else."""
        return self.entry_qty * CRYPTO_DUST if self.crypto else ZERO

    @property
    def claim(self) -> Decimal:
        """What it may hold at the most, for judging what is left for others."""
        if self.own.entry in (Entry.KNOWN, Entry.NONE):
            return self.open_qty
        return self.trade.size or ZERO

    @property
    def start(self) -> datetime:
        """The earliest moment at which a fill can have closed this trade."""
        return self.own.entered_at or self.opened

    @property
    def entry_price(self) -> Decimal | None:
        """The price it was entered at: of its fills, else what the ledger says."""
        lots = self.own.entry_lots()
        if lots and all(lot.price is not None for lot in lots):
            value = sum(((lot.price or ZERO) * lot.qty for lot in lots), ZERO)
            return value / sum((lot.qty for lot in lots), ZERO)
        return self.trade.avg_fill_price or self.trade.entry_price

    @property
    def initial_stop(self) -> Decimal | None:
        """The stop that 1R is measured by; see `first_stop`."""
        return first_stop(self.trade, self.own.exits)


def first_stop(trade: Trade, exits: Iterable[Order]) -> Decimal | None:
    """The stop that 1R is measured by, never a moved one.

    `initialStopPrice`, `originalStopPrice`, the first order of the stop's chain, else `stopPrice`
    of a trade that no engine has managed yet; None where a stop was replaced and what it was
    before is not known. A trailing stop moves by itself, and a stop that we placed stands where
    the rules wanted it by then: neither tells what was risked.
    """
    if trade.initial_stop is not None:
        return trade.initial_stop
    stops = [o for o in exits if o.is_stop and o.stop_price is not None and o.type != "trailing_stop"]
    stops = [o for o in stops if o.replaces is not None or parse_client_id(o.client_id) is None]
    first = [o for o in stops if o.replaces is None]
    if first:
        return min(first, key=lambda o: (o.submitted_at is None, o.submitted_at, o.id)).stop_price
    return None if stops or trade.is_managed else trade.stop_price


@dataclass(frozen=True, slots=True)
class Orphan:
    """A position, or the part of one, that no trade explains; `awaited_by`: a held trade that may be it."""

    position: Position
    qty: Decimal
    remainder: bool
    awaited_by: str | None = None


def within(a: Decimal, b: Decimal, tolerance: Decimal) -> bool:
    """Whether two amounts differ by no more than a fraction of the larger."""
    return abs(a - b) <= max(abs(a), abs(b)) * tolerance
