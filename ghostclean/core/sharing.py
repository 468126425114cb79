"""Attribution: one net position among the trades of its symbol, and what each of them has left.

Own orders count first, the position second: a trade's open quantity is its entry fills less its
own exit fills. Trades proven by orders are served before trades that only the ledger knows;
what remains is an orphan remainder, what is missing must be explained by fills nobody owns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto

from .broker import Position
from .free_fills import FreeFills, take
from .instrument import Side
from .money import CRYPTO_DUST
from .numbers import ONE, ZERO
from .own_orders import Entry, Lot, OwnOrders
from .trade import Trade

RENAME_TOLERANCE = Decimal("0.01")
_SPLIT_RATIOS = frozenset(Decimal(n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50, 100)) | {
    Decimal("1.5")
}


class Share(Enum):
    """What the position says about one trade."""

    COVERED = auto()  # the position holds its open quantity
    CLOSED = auto()  # own exits took everything out
    EMPTY = auto()  # its entry filled nothing
    UNKNOWN = auto()  # its own orders are not known yet
    SHORT = auto()  # less than its open quantity is left
    SHARED = auto()  # several trades share less than they need
    GONE = auto()  # nothing is left
    OTHER_SIDE = auto()  # the position points the other way
    SPLIT = auto()  # a clean ratio of it at the same cost


@dataclass(slots=True)
class Case:
    """One trade while it is being decided."""

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
    still_shown: bool = False
    duplicate_of: str | None = None
    agrees_with_ledger: bool = False

    @property
    def side(self) -> Side:
        return self.trade.side

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
        if self.duplicate_of is not None:
            return ZERO
        if self.own.entry in (Entry.KNOWN, Entry.NONE):
            return self.open_qty
        return self.trade.size or ZERO


def measure(cases: Sequence[Case]) -> None:
    """Entry fills, own exit fills and open quantity of each case of one symbol.

    An order that several trades name is used up oldest trade first, each fill once.
    """
    used: dict[str, Decimal] = {}
    for case in cases:
        if case.duplicate_of is not None:
            continue
        case.entry_qty = _entry_quantity(case, cases, used)
        open_qty = case.entry_qty
        start = case.own.entered_at
        for lot in case.own.exit_lots():
            if start is not None and lot.at is not None and lot.at < start:
                continue
            free = lot.qty - used.get(lot.order_id, ZERO)
            part = min(free, open_qty)
            if part > 0:
                used[lot.order_id] = used.get(lot.order_id, ZERO) + part
                case.exit_lots.append(Lot(lot.order_id, lot.side, part, lot.price, lot.at, lot.order))
                open_qty -= part
        case.open_qty = open_qty


def _entry_quantity(case: Case, cases: Sequence[Case], used: dict[str, Decimal]) -> Decimal:
    """The entry's fills; its part of them by size where several trades share one entry order."""
    if not case.certain:
        return case.trade.initial_size or case.trade.size or ZERO
    filled = case.own.filled
    head = case.own.chain[0].id
    sharers = [c for c in cases if c.certain and c.duplicate_of is None and c.own.chain[0].id == head]
    if len(sharers) == 1:
        return filled
    free = filled - used.get(head, ZERO)
    part = min(free, case.trade.size or free)
    used[head] = used.get(head, ZERO) + part
    return part


def mark_duplicates(cases: Sequence[Case]) -> None:
    """Marks the newer of two trades on one entry order whose fill does not cover both."""
    first: dict[tuple[str, Side], tuple[Case, Decimal]] = {}
    for case in cases:
        if not case.certain:
            continue
        identity = (case.own.chain[0].id, case.side)
        known = first.get(identity)
        if known is None:
            first[identity] = (case, case.trade.size or case.own.filled)
            continue
        older, claimed = known
        last = case.own.chain[-1]
        most = case.own.filled if last.is_final else max(case.own.filled, last.qty or ZERO)
        wanted = claimed + (case.trade.size or case.own.filled)
        if wanted > most:
            case.duplicate_of = older.trade.id
        else:
            first[identity] = (older, wanted)


def share_position(cases: Sequence[Case], position: Position | None, side: Side) -> Decimal:
    """Gives every case of one symbol and side its share; what remains unexplained is returned."""
    held = position.qty if position is not None and position.side is side else ZERO
    flipped = position is not None and position.side is not side and not is_dust(position)
    active = [c for c in cases if c.duplicate_of is None]
    for case in active:
        _own_share(case)
    waiting = [c for c in active if c.share is Share.UNKNOWN and c.own.entry is not Entry.KNOWN and not _settled(c)]
    sharing = [c for c in active if c.share is Share.UNKNOWN and c not in waiting]
    certain = [c for c in sharing if c.certain]
    by_size = [c for c in sharing if not c.certain]
    if flipped and not held:
        for case in sharing:
            case.share = Share.OTHER_SIDE
        _mark_still_shown(active, held)
        return ZERO
    if position is not None and is_dust(position):
        held = ZERO
    _trust_ledger_where_it_agrees(certain, held)
    left = _serve(certain, held)
    if left is None and held:
        # Who owns what is left is open already, so nobody can be proven gone beside it.
        for case in by_size:
            case.share, case.has = Share.SHARED, held
    else:
        _trust_size_where_it_fits(by_size, left or ZERO)
        left = _serve(by_size, left or ZERO)
    left = left or ZERO
    _mark_split(certain, by_size, position, held)
    _mark_still_shown(active, held)
    claimed = sum((c.claim for c in waiting), ZERO)
    return max(ZERO, left - claimed)


def _settled(case: Case) -> bool:
    """Whether a trade without a known entry may be judged by its size."""
    return case.own.entry in (Entry.NONE, Entry.ABSENT)


def _own_share(case: Case) -> None:
    """What own orders alone settle."""
    if case.own.needs or case.own.unanswered or case.own.defect:
        return
    if case.certain and not case.entry_qty:
        case.share = Share.EMPTY
    elif case.exit_lots and case.open_qty <= case.tolerance:
        case.share = Share.CLOSED


def _trust_ledger_where_it_agrees(certain: Sequence[Case], held: Decimal) -> None:
    """Takes the ledger's sizes where they add up to the position and the orders do not.

    That is a scale-in by orders the ledger does not name, or a reduction the app has booked
    already; it must not be read off a partly filled entry, whose size is only a wish.
    """
    sizes = [c.trade.size for c in certain]
    if not certain or not held or any(size is None for size in sizes):
        return
    if sum((c.open_qty for c in certain), ZERO) == held or sum((s or ZERO for s in sizes), ZERO) != held:
        return
    for case in certain:
        last = case.own.last
        if last is None or not last.is_final or case.own.filled != _ordered(case):
            return
        if (case.trade.size or ZERO) > case.own.filled and len(certain) > 1:
            return
    for case in certain:
        case.open_qty = case.trade.size or ZERO
        case.agrees_with_ledger = case.open_qty > case.own.filled


def _ordered(case: Case) -> Decimal:
    """What the end of the entry chain asked for, less nothing: equals the fills of a whole entry."""
    last = case.own.last
    if last is None:
        return ZERO
    return last.qty if last.qty is not None and len(case.own.chain) == 1 else case.own.filled


def _trust_size_where_it_fits(by_size: Sequence[Case], held: Decimal) -> None:
    """Takes the present size where the app has booked an exit in it already."""
    if held and sum((c.trade.size or ZERO for c in by_size), ZERO) == held:
        for case in by_size:
            case.open_qty = case.trade.size or ZERO


def _serve(cases: Sequence[Case], held: Decimal) -> Decimal | None:
    """Covers all cases or none; returns what is left, None when they need more than there is."""
    if not cases:
        return held
    wanted = sum((c.open_qty for c in cases), ZERO)
    slack = sum((c.tolerance for c in cases), ZERO)
    if held and wanted <= held + slack:
        for case in cases:
            case.share, case.has = Share.COVERED, min(case.open_qty, held)
        return max(ZERO, held - wanted)
    for case in cases:
        if not held:
            case.share = Share.GONE
        else:
            case.share = Share.SHORT if len(cases) == 1 else Share.SHARED
        case.has = held
    return None


def _mark_split(certain: Sequence[Case], by_size: Sequence[Case], position: Position | None, held: Decimal) -> None:
    """A clean multiple of a single trade at the same cost is a split, not a hand-bought remainder."""
    if len(certain) + len(by_size) != 1 or position is None or not held:
        return
    case = (*certain, *by_size)[0]
    if not case.open_qty or case.open_qty == held or case.crypto:
        return
    ratio = held / case.open_qty if held > case.open_qty else case.open_qty / held
    if ratio not in _SPLIT_RATIOS:
        return
    price = entry_price(case)
    if position.avg_price is None or price is None or not position.avg_price:
        return
    if within(price * case.open_qty, position.avg_price * held, RENAME_TOLERANCE):
        case.share = Share.SPLIT


def entry_price(case: Case) -> Decimal | None:
    """The price the trade was entered at: of its fills, else what the ledger says."""
    lots = case.own.entry_lots()
    if lots and all(lot.price is not None for lot in lots):
        value = sum(((lot.price or ZERO) * lot.qty for lot in lots), ZERO)
        return value / sum((lot.qty for lot in lots), ZERO)
    return case.trade.avg_fill_price or case.trade.entry_price


def within(a: Decimal, b: Decimal, tolerance: Decimal) -> bool:
    """Whether two amounts differ by no more than a fraction of the larger."""
    return abs(a - b) <= max(abs(a), abs(b)) * tolerance


def _mark_still_shown(cases: Sequence[Case], held: Decimal) -> None:
    """Marks closed cases whose quantity the position may still show (it lags behind the fill)."""
    others = sum((c.open_qty for c in cases if c.share not in (Share.CLOSED, Share.EMPTY)), ZERO)
    for case in cases:
        if case.share is Share.CLOSED:
            case.still_shown = held - others >= case.entry_qty - case.tolerance and held > 0


def is_dust(position: Position) -> bool:
    """A crypto remainder worth less than $1, or too small to have a value, is no position."""
    if not position.is_crypto:
        return False
    return position.market_value is not None and abs(position.market_value) < ONE


# --------------------------------------------------------------------------- what is missing


@dataclass(slots=True)
class Explained:
    """Free fills that took (a part of) a trade out."""

    lots: list[Lot]
    whole: bool


def explain_gone(cases: Sequence[Case], free: FreeFills) -> dict[int, Explained]:
    """Free closing fills for trades of which nothing is left; empty unless they cover all.

    Oldest trade first, oldest fill first, each fill once: one sale may have closed several.
    """
    used: dict[int, Decimal] = {}
    result: dict[int, Explained] = {}
    for case in cases:
        lots = _take_after_entry(case, free, case.open_qty, used)
        if sum((lot.qty for lot in lots), ZERO) < case.open_qty - case.tolerance:
            return {}
        result[id(case)] = Explained(lots, whole=True)
    return result


def explain_short(cases: Sequence[Case], held: Decimal, free: FreeFills) -> dict[int, Explained]:
    """Free closing fills that can only belong to one of the trades that share a position."""
    missing = sum((c.open_qty for c in cases), ZERO) - held
    eligible = [c for c in cases if _closing_after_entry(c, free)]
    if len(eligible) != 1:
        return {}
    case = eligible[0]
    closing = _closing_after_entry(case, free)
    sold = sum((lot.qty for lot in closing), ZERO)
    bought = sum((lot.qty for lot in free.opening(case.side, start_of(case))), ZERO)
    if missing > case.open_qty or missing not in (sold, sold - bought):
        return {}
    lots = take(closing, missing, {})
    return {id(case): Explained(lots, whole=missing >= case.open_qty - case.tolerance)}


def start_of(case: Case) -> datetime | None:
    """The earliest moment at which a fill can have closed this trade."""
    return case.own.entered_at or case.opened


def _closing_after_entry(case: Case, free: FreeFills) -> list[Lot]:
    return free.closing(case.side, start_of(case))


def _take_after_entry(case: Case, free: FreeFills, wanted: Decimal, used: dict[int, Decimal]) -> list[Lot]:
    """Fills after the entry was filled; those since it was sent only where these do not suffice."""
    filled_at = case.own.last.fill_time if case.own.last is not None else None
    if filled_at is not None:
        trial = dict(used)
        lots = take(free.closing(case.side, filled_at), wanted, trial)
        if sum((lot.qty for lot in lots), ZERO) >= wanted:
            used.update(trial)
            return lots
    return take(_closing_after_entry(case, free), wanted, used)
