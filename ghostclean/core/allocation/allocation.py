"""The allocation of one trade: its executions, its open quantity, its part of the position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from ghostclean.core.broker import CRYPTO_DUST, ONE, STOCK_DUST, ZERO, Evidence, Order, Position, Side, parse_time
from ghostclean.core.ledger import ENTRY_ORDER_FIELDS, Trade, is_vanished, read_trade, record_size, text

from .execution import Execution, average, total
from .family import EntryState, Family, first_stop

SAME_COST = Decimal("0.01")
_HELD_NOTHING = ("duplicate_of:", "never_filled")


class Coverage(Enum):
    """What the position says of a trade's open quantity."""

    HELD = auto()
    EXITED = auto()  # own exits took everything out
    UNFILLED = auto()  # its entry filled nothing, or what filled so far is out again
    UNKNOWN = auto()  # its own orders are not known yet
    SHORTFALL = auto()  # less than its open quantity is left
    CONTESTED = auto()  # several trades share less than they need
    CLAIMED = auto()  # another ledger of the account claims what it needs as well, and nothing proves whose it is
    GONE = auto()
    OPPOSITE = auto()  # the position points the other way
    SPLIT = auto()  # a clean ratio of it at the same cost


@dataclass(slots=True, eq=False)
class Allocation:
    """One trade with the executions booked to it.

    It is `certain` where its entry is proven by an order; `name` is the trade's id, which a readable
    trade has. `key` and `crypto` are its instrument, `opened` its opening or first sight; `scale_in` is the
    quantity it entered beyond its booked entries, by ledger or exits; `part` is its part of an
    entry order that other records name as well, None for all of it; `beside` was bought of a coin
    for nobody, and its fee was taken off the same position. `unsure` says that what it entered
    can't be told, `doubtful` that its sizes and exits say it entered more. `disputed` is an exit
    order that another trade owns as well, `early` one that filled before the entry.
    """

    trade: Trade
    family: Family
    key: str
    crypto: bool
    opened: datetime
    name: str = field(init=False)
    side: Side = field(init=False)
    certain: bool = field(init=False)
    entries: list[Execution] = field(default_factory=list)
    exits: list[Execution] = field(default_factory=list)
    open_qty: Decimal = ZERO
    scale_in: Decimal = ZERO
    beside: Decimal = ZERO
    coverage: Coverage = Coverage.UNKNOWN
    has: Decimal = ZERO
    may_show: Decimal = ZERO
    part: Decimal | None = None
    unsure: bool = False
    doubtful: bool = False
    duplicate_of: str | None = None
    disputed: str | None = None
    early: str | None = None

    def __post_init__(self) -> None:
        self.name, self.side = self.trade.id or "", self.trade.side
        self.certain = self.family.state is EntryState.KNOWN

    def reset(self) -> None:
        """Takes back what was booked, but for an entry that was found by size and time."""
        if not any(e.order_id for e in self.entries) or self.certain:
            self.entries = []
        self.exits = []
        self.open_qty = self.scale_in = ZERO
        self.part = self.duplicate_of = self.disputed = self.early = None
        self.unsure = self.doubtful = False

    @property
    def entry_qty(self) -> Decimal:
        """What its own entry brought in, as far as it is booked."""
        return total(self.entries)

    @property
    def is_scaled(self) -> bool:
        """Whether it entered more than its own entry orders filled."""
        own = self.family.filled if self.part is None else self.part
        return self.certain and (self.scale_in > 0 or self.entry_qty > own)

    @property
    def tolerance(self) -> Decimal:
        """How much may be missing: crypto fee dust, a hair of a fractional share."""
        return (self.entry_qty + self.scale_in + self.beside) * (CRYPTO_DUST if self.crypto else STOCK_DUST)

    @property
    def claim(self) -> Decimal:
        """What it may hold at the most, for judging what is left for others."""
        if self.family.state in (EntryState.KNOWN, EntryState.NONE):
            return self.open_qty
        return self.trade.size or ZERO

    @property
    def start(self) -> datetime:
        """The earliest moment at which an execution can have closed this trade."""
        return self.family.entered_at or self.opened

    @property
    def filled_at(self) -> datetime:
        """When its entry was filled, as far as its order tells; else `start`."""
        last = self.family.last
        return (last.fill_time if last is not None else None) or self.start

    @property
    def entry_price(self) -> Decimal | None:
        """The price it was entered at: of its executions, else what the ledger says."""
        return average(self.entries) or self.trade.avg_fill_price or self.trade.entry_price

    @property
    def initial_stop(self) -> Decimal | None:
        """The stop that 1R is measured by; see `first_stop`."""
        return first_stop(self.trade, self.family.exits)


@dataclass(frozen=True, slots=True)
class Closed:
    """A final record that held shares: what of the executions is spoken for.

    `size` is what it entered, None where neither record nor order tells; `exits` are its exit
    orders as far as they are known.
    """

    trade: Trade
    entry: Order | None
    exits: tuple[Order, ...]
    size: Decimal | None
    closed_at: datetime | None
    unproven: bool
    close_order: str | None

    @property
    def record(self) -> Mapping[str, Any]:
        return self.trade.record

    @property
    def start(self) -> datetime | None:
        """When its entry was sent, else its opening."""
        return (self.entry.submitted_at if self.entry is not None else None) or self.trade.opening

    @property
    def certain(self) -> bool:
        """Whether its entry is known to have filled."""
        if self.entry is not None:
            return bool(self.entry.filled_qty)
        return bool(self.trade.entry_order and self.trade.filled_qty)

    @property
    def sold(self) -> Decimal:
        """What its exit orders filled."""
        return sum((o.filled_qty for o in self.exits), ZERO)

    @property
    def went_out_by_order(self) -> bool:
        """Whether it names the order that closed it."""
        return self.close_order is not None or any(o.filled_qty for o in self.exits)


def read_closed(records: Iterable[Mapping[str, Any]], evidence: Evidence) -> list[Closed]:
    """The final records that can have held shares: duplicates and unfilled entries can't."""
    return [
        _closed(record, evidence)
        for record in records
        if not (text(record, "closeReason") or "").startswith(_HELD_NOTHING)
    ]


def _closed(record: Mapping[str, Any], evidence: Evidence) -> Closed:
    trade = read_trade(record)
    entry = evidence.find(text(record, *ENTRY_ORDER_FIELDS))
    close = text(record, "closeOrderId")
    names = [close] if close else [n for n in (trade.stop_order, trade.target_order) if n]
    names += entry.legs if entry is not None and not close else ()
    exits: dict[str, Order] = {}
    for name in names:
        order = evidence.find(name)
        while order is not None and order.id not in exits:
            exits[order.id] = order
            order = evidence.find(order.replaced_by)
    # A first size is less than what it entered where it was scaled in later.
    size = max(record_size(record) or ZERO, trade.size or ZERO) or trade.filled_qty
    size = size or (entry.filled_qty if entry is not None else None) or None
    unproven = is_vanished(record)
    if unproven and size is not None and trade.filled_qty:
        size = min(size, trade.filled_qty)
    return Closed(trade, entry, tuple(exits.values()), size, parse_time(record.get("closedAt")), unproven, close)


def names_of(closed: Iterable[Closed]) -> set[str]:
    """Every order id that some closed records store."""
    return {name for c in closed for name in c.trade.order_ids}


@dataclass(frozen=True, slots=True)
class Orphan:
    """A position, or the part of one, that no trade explains; `awaited_by`: a held trade that may be it.

    `neighbour` is another ledger of the account that explains the rest of it.
    """

    position: Position
    qty: Decimal
    remainder: bool
    awaited_by: str | None = None
    neighbour: str | None = None


def is_dust(position: Position) -> bool:
    """Worth less than $1: no position to act on."""
    return position.market_value is not None and abs(position.market_value) < ONE


def within(a: Decimal, b: Decimal, tolerance: Decimal) -> bool:
    """Whether two amounts differ by no more than a fraction of the larger."""
    return abs(a - b) <= max(abs(a), abs(b)) * tolerance


def same_side(allocations: Sequence[Allocation], side: Side) -> list[Allocation]:
    """Those of one side, duplicates left out."""
    return [a for a in allocations if a.side is side and a.duplicate_of is None]
