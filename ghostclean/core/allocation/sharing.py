"""Attribution: one net position among the trades of its symbol, and what each of them has left.

Own orders count first, the position second: a trade's open quantity is its entry fills less its
own exit fills. Trades proven by orders are served before trades that only the ledger knows;
what remains is an orphan remainder, what is missing must be explained by fills nobody owns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import ONE, ZERO, Evidence, Order, Position, Side
from ghostclean.core.ledger import ENTRY_ORDER_FIELDS, record_size, text

from .case import Case, Share, within
from .own_orders import Entry, Lot

SAME_COST = Decimal("0.01")
_CLOCKS_DIFFER = timedelta(minutes=10)
SPLIT_RATIOS = frozenset(Decimal(n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50, 100)) | {
    Decimal("1.5")
}
_OWNS_NOTHING = ("duplicate_of:", "never_filled")
_ALL = Decimal("Infinity")


def owns_fills(record: Mapping[str, Any]) -> bool:
    """Whether a closed record can have held shares: a duplicate or an unfilled entry cannot."""
    return not (text(record, "closeReason") or "").startswith(_OWNS_NOTHING)


def spent_by_closed(records: Iterable[Mapping[str, Any]], evidence: Evidence) -> dict[str, Decimal]:
    """How much of each exit order's fill belongs to closed records, by order id."""
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for record in records:
        if not owns_fills(record):
            continue
        left = record_size(record) or _ALL
        for order in exits_of_closed(record, evidence):
            part = min(order.filled_qty, left)
            spent[order.id] += part
            left -= part
    return dict(spent)


def surplus_of_closed(
    records: Iterable[Mapping[str, Any]], spent: Mapping[str, Decimal], evidence: Evidence
) -> list[Lot]:
    """What close orders of closed records sold beyond these: one sale for several trades, not all closed yet."""
    orders = {o.id: o for r in records if owns_fills(r) and (o := evidence.find(text(r, "closeOrderId"))) is not None}
    rest = ((o, o.filled_qty - spent.get(o.id, ZERO)) for o in orders.values() if o.is_final)
    return [Lot(o.id, o.side, qty, o.avg_price, o.fill_time, o) for o, qty in rest if qty > 0]


def exits_of_closed(record: Mapping[str, Any], evidence: Evidence) -> list[Order]:
    """The orders a closed record went out by: its close order, else its stop and target, or the legs."""
    close = text(record, "closeOrderId")
    names = [close] if close else [n for n in (text(record, "stopOrderId"), text(record, "takeProfitOrderId")) if n]
    entry = evidence.find(text(record, *ENTRY_ORDER_FIELDS))
    if not close and entry is not None:
        names += entry.legs
    found: dict[str, Order] = {}
    for name in names:
        order = evidence.find(name)
        while order is not None and order.id not in found:
            found[order.id] = order
            order = evidence.find(order.replaced_by)
    return list(found.values())


# --------------------------------------------------------------------------- own orders


def mark_duplicates(cases: Sequence[Case]) -> None:
    """Marks the newer of two trades on one entry order whose fill does not cover both."""
    first: dict[tuple[str, Side], tuple[Case, Decimal]] = {}
    for case in sorted(cases, key=lambda c: c.trade.is_pending):
        if not case.certain:
            continue
        identity = (case.own.chain[0].id, case.side)
        claim = max(case.trade.initial_size or ZERO, case.trade.size or case.own.filled)
        known = first.get(identity)
        if known is None:
            first[identity] = (case, claim)
            continue
        older, claimed = known
        last = case.own.chain[-1]
        most = case.own.filled if last.is_final else max(case.own.filled, last.qty or ZERO)
        if claimed + claim > most:
            case.duplicate_of = older.trade.id
        else:
            first[identity] = (older, claimed + claim)


def measure(cases: Sequence[Case], spent: Mapping[str, Decimal]) -> list[Lot]:
    """Entry fills, own exit fills and open quantity of each case of one symbol.

    `spent` is what closed records took of each order. Exits that hang on a trade's own entry
    come first, then those that the ledger merely names; an order that several trades name and
    that does not suffice for all of them proves nothing about any. Returns what own exits sold
    beyond their own trades: a sale for several.
    """
    used = dict(spent)
    active = [c for c in cases if c.duplicate_of is None]
    heads = Counter(c.own.chain[0].id for c in active if c.certain)
    crowd = Counter(c.side for c in active)
    twins: dict[str | None, list[Lot]] = defaultdict(list)
    for case in cases:
        if case.duplicate_of is not None:
            twins[case.duplicate_of] += case.own.exit_lots()
    named: dict[str, list[tuple[Case, Lot]]] = defaultdict(list)
    for case in active:
        case.entry_qty = case.open_qty = _entry_quantity(case, heads, used)
        lots = {lot.order_id: lot for lot in (*case.own.exit_lots(), *twins[case.trade.id])}
        for lot in _after_entry(case, lots.values()):
            if lot.order_id in case.own.tied:
                _take(case, lot, used, whole=heads[case.own.chain[0].id] == 1 if case.certain else False)
            else:
                named[lot.order_id].append((case, lot))
    surplus: list[Lot] = []
    for order_id, claims in sorted(named.items(), key=lambda item: _when(item[1][0][1])):
        lot = claims[0][1]
        free = lot.qty - used.get(order_id, ZERO)
        if len(claims) > 1 and 0 < free < sum((c.open_qty for c, _ in claims), ZERO):
            for case, _ in claims:
                case.contested = order_id
            continue
        for case, lot in claims:
            _take(case, lot, used, whole=len(claims) == 1 and crowd[case.side] == 1)
        if (rest := lot.qty - used.get(order_id, ZERO)) > 0 and lot.order is not None and lot.order.is_final:
            surplus.append(Lot(order_id, lot.side, rest, lot.price, lot.at, lot.order))
    for case in active:
        case.exit_lots.sort(key=_when)
    return surplus


def _when(lot: Lot) -> tuple[bool, Any, str]:
    return lot.at is None, lot.at, lot.order_id


def _after_entry(case: Case, lots: Iterable[Lot]) -> list[Lot]:
    """The exits that can be exits of this trade; one from before its entry is noted."""
    start = case.own.entered_at
    if start is None and case.trade.opening is not None:
        start = case.opened - _CLOCKS_DIFFER  # the app's clock, not the broker's
    later = []
    for lot in sorted(lots, key=_when):
        if start is not None and lot.at is not None and lot.at < start:
            case.early = lot.order_id
        else:
            later.append(lot)
    return later


def _take(case: Case, lot: Lot, used: dict[str, Decimal], *, whole: bool) -> None:
    """Books an exit's fill; `whole`: also what exceeds the entry (a scale-in, a split)."""
    free = lot.qty - used.get(lot.order_id, ZERO)
    part = free if whole and case.open_qty > 0 else min(free, case.open_qty)
    if part > 0:
        used[lot.order_id] = used.get(lot.order_id, ZERO) + part
        case.exit_lots.append(Lot(lot.order_id, lot.side, part, lot.price, lot.at, lot.order))
        case.open_qty = max(ZERO, case.open_qty - part)


def _entry_quantity(case: Case, heads: Mapping[str, int], used: dict[str, Decimal]) -> Decimal:
    """The entry's fills; its part of them by size where several trades share one entry order."""
    if not case.certain:
        return case.trade.initial_size or case.trade.size or ZERO
    filled = case.own.filled
    head = case.own.chain[0].id
    if heads[head] == 1:
        return filled
    # The key is the entry order's: an exit order can never have the same id.
    free = filled - used.get(head, ZERO)
    part = min(free, case.trade.initial_size or case.trade.size or free)
    used[head] = used.get(head, ZERO) + part
    return part


# --------------------------------------------------------------------------- the position


def share_position(cases: Sequence[Case], position: Position | None, side: Side) -> Decimal:
    """Gives every case of one symbol and side its share; what remains unexplained is returned."""
    held = position.qty if position is not None and position.side is side else ZERO
    flipped = position is not None and position.side is not side and not is_dust(position)
    active = [c for c in cases if c.duplicate_of is None]
    if len(active) == 1:
        _trust_scale_in(active[0], held)
    for case in active:
        _own_share(case)
    unsettled = [c for c in active if c.share is Share.UNKNOWN]
    waiting = [c for c in unsettled if _is_open(c)]
    certain = [c for c in unsettled if c.certain and not _is_open(c)]
    by_size = [c for c in unsettled if not c.certain and not _is_open(c)]
    if flipped:
        for case in (*certain, *by_size):
            case.share = Share.OTHER_SIDE
        return ZERO
    if position is not None and is_dust(position) and _wanted(unsettled) > held:
        held = ZERO
    if not by_size and not waiting:
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
    _mark_may_show(active, held)
    return max(ZERO, left - sum((c.claim for c in waiting), ZERO))


def _is_open(case: Case) -> bool:
    """Whether a trade cannot be judged by the position yet: its entry, or that it is one, is open."""
    return case.own.defect is not None or case.own.entry in (Entry.UNASKED, Entry.UNANSWERED)


def _wanted(cases: Iterable[Case]) -> Decimal:
    """What the cases need at the least."""
    return sum((c.open_qty - c.tolerance for c in cases), ZERO)


def _own_share(case: Case) -> None:
    """What own orders alone settle; a trade whose entry still works is never out."""
    if case.own.needs or case.own.unanswered or case.own.defect or case.agrees_with_ledger:
        return
    out = bool(case.exit_lots) and case.open_qty <= case.tolerance
    if case.certain and (not case.entry_qty or (out and case.own.works)):
        case.share = Share.EMPTY
    elif out:
        case.share = Share.CLOSED


def _trust_scale_in(case: Case, held: Decimal) -> None:
    """A ledger size above a whole entry is a scale-in: what its exits left of it may still stand."""
    size = case.trade.size
    if size is None or not held or not _entered_whole(case) or size <= case.own.filled:
        return
    if size - sum((lot.qty for lot in case.exit_lots), ZERO) == held:
        case.open_qty, case.agrees_with_ledger = held, True


def _trust_ledger_where_it_agrees(certain: Sequence[Case], held: Decimal) -> None:
    """Takes the ledger's sizes where they add up to the position and the orders do not.

    That is a scale-in by orders the ledger does not name, or a reduction the app has booked
    already. It must not be read off a partly filled entry, whose size is only a wish, nor off a
    size that own exits have made stale.
    """
    sizes = [c.trade.size for c in certain]
    if not certain or not held or any(size is None for size in sizes):
        return
    if sum((c.open_qty for c in certain), ZERO) == held or sum((s or ZERO for s in sizes), ZERO) != held:
        return
    for case in certain:
        if not _entered_whole(case):
            return
        size = case.trade.size or ZERO
        if size > case.own.filled and len(certain) > 1:
            return
        if case.open_qty < size <= case.own.filled:
            return
    for case in certain:
        case.open_qty = case.trade.size or ZERO
        case.agrees_with_ledger = case.open_qty > case.own.filled


def _entered_whole(case: Case) -> bool:
    """Whether the entry filled all it asked for, so that the size is no mere wish."""
    last = case.own.last
    if last is None or not last.is_final:
        return False
    return len(case.own.chain) > 1 or last.qty is None or last.qty == last.filled_qty


def _trust_size_where_it_fits(by_size: Sequence[Case], held: Decimal) -> None:
    """Takes the present size where the app has booked an exit in it already."""
    if held and sum((c.trade.size or ZERO for c in by_size), ZERO) == held:
        for case in by_size:
            case.open_qty = case.trade.size or ZERO


def _serve(cases: Sequence[Case], held: Decimal) -> Decimal | None:
    """Covers all cases or none; returns what is left, None when they need more than there is."""
    if not cases:
        return held
    if held and _wanted(cases) <= held:
        for case in cases:
            case.share, case.has = Share.COVERED, min(case.open_qty, held)
        return max(ZERO, held - sum((c.open_qty for c in cases), ZERO))
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
    price = case.entry_price
    if ratio not in SPLIT_RATIOS or price is None or not position.avg_price:
        return
    if within(price * case.open_qty, position.avg_price * held, SAME_COST):
        case.share = Share.SPLIT


def _mark_may_show(cases: Sequence[Case], held: Decimal) -> None:
    """How much of what closed cases sold the position may still show (it can lag behind a fill)."""
    rest = held - sum((c.open_qty for c in cases if c.share not in (Share.CLOSED, Share.EMPTY)), ZERO)
    for case in cases:
        if case.share is Share.CLOSED:
            case.may_show = max(ZERO, rest)


def is_dust(position: Position) -> bool:
    """A crypto remainder worth less than $1 is no position."""
    return position.is_crypto and position.market_value is not None and abs(position.market_value) < ONE
