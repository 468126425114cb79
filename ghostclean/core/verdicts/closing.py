"""Closing a trade with the fills that took it out: the whole trade, recomputed, never added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ghostclean.core.allocation import Case, Lot, close_reason, settle, total
from ghostclean.core.broker import ZERO, Order, multiplier, plain

from . import fields as write
from .decision import Action, Decision, Proof, Verdict
from .ruling import change
from .search import Search

_SPLITS = frozenset({"SPLIT", "REORG", "OPCA"})


def close_with(search: Search, case: Case, lots: Sequence[Lot], how: str, *, priced: bool = True) -> Decision:
    """Closes a trade by its own exits or by free fills; not `priced`: what a share of it brought is not known."""
    lots = whole_exit(case, lots)
    entries = entry_lots(search, case, lots)
    exit_ = settle(
        case.side,
        entries,
        lots,
        units=multiplier(case.key),
        tolerance=case.tolerance,
        initial_stop=case.initial_stop,
        cash_flow=_split_between(search, case, entries, lots),
    )
    if not priced:
        exit_ = replace(exit_, price=None, pnl=None, r=None)
    reason = _reason(search, case, lots[-1]) if lots else "manual_close"
    fields = write.closed(reason, exit_.at or search.board.now, exit_, case.own)
    price = f" at {plain(exit_.price)}" if exit_.price is not None else ""
    pnl = f", P&L {plain(exit_.pnl)}" if exit_.pnl is not None else ""
    text = f"{how}: {plain(exit_.qty)}{price} ({reason}){pnl}"
    return change(search.board, case, Verdict.EXITED, Action.CLOSED, text, fields, exits=lots)


def close_option(
    search: Search, case: Case, reason: str, at: datetime, why: str, *, worthless: bool, sold: Sequence[Lot] = ()
) -> Decision:
    """An option that ended without an order; `worthless`: expired, and an activity says so.

    `sold` is the part that free fills had taken out before.
    """
    fields = write.closed(reason, at, None, case.own)
    earlier = whole_exit(case, sold)
    if worthless:
        lots = [*earlier, Lot("", case.side.closing, case.open_qty - total(sold), ZERO, at)]
        entries = entry_lots(search, case, lots)
        stop, units = case.initial_stop, multiplier(case.key)
        exit_ = settle(case.side, entries, lots, units=units, tolerance=ZERO, initial_stop=stop)
        fields |= {"closePrice": exit_.price, "realizedPnL": exit_.pnl, "realizedR": exit_.r}
    text, proof = f"{reason}: {why}", [Proof(why, at)]
    return change(search.board, case, Verdict.EXITED, Action.CLOSED, text, fields, proof=proof, exits=earlier)


def whole_exit(case: Case, lots: Sequence[Lot]) -> list[Lot]:
    """All exits of the trade, oldest first, the parts booked earlier included."""
    ours = {lot.order_id for lot in lots}
    earlier = [lot for lot in case.exit_lots if lot.order_id not in ours]
    return sorted((*earlier, *lots), key=lambda lot: (lot.at is not None, lot.at, lot.order_id))


def needs_more_entries(case: Case) -> bool:
    """Whether its own orders alone do not say what was entered at which price."""
    if not case.certain:
        return case.trade.avg_fill_price is None or case.trade.filled_qty != case.entry_qty
    return total(case.exit_lots) - case.entry_qty > case.tolerance


def entry_lots(search: Search, case: Case, exits: Sequence[Lot]) -> list[Lot]:
    """The entry's fills; scale-ins by free fills where more was sold than the entry brought."""
    if not case.certain:
        return _entry_by_ledger(search, case)
    lots = case.own.entry_lots()
    if case.entry_qty != case.own.filled and len(lots) == 1:
        lots = [Lot(lots[0].order_id, lots[0].side, case.entry_qty, lots[0].price, lots[0].at, lots[0].order)]
    missing = total(exits) - case.entry_qty
    if missing > case.tolerance:
        more = search.free_fills(case).opening(case.side, case.start)
        if total(more) == missing:
            lots += more
    return lots


def _entry_by_ledger(search: Search, case: Case) -> list[Lot]:
    """The entry of a trade whose order is not known: what the app noted, or the one fill it can be."""
    trade, side = case.trade, case.side.opening
    if trade.avg_fill_price is not None and trade.filled_qty == case.entry_qty:
        return [Lot("", side, case.entry_qty, trade.avg_fill_price, case.opened)]
    lot = search.only_entry_near(case)
    return [lot] if lot is not None else []


def _split_between(search: Search, case: Case, entries: Sequence[Lot], exits: Sequence[Lot]) -> bool:
    """Whether an activity proves a split between an entry and an exit that differ in quantity."""
    if not entries or not exits or abs(total(entries) - total(exits)) <= case.tolerance:
        return False
    return search.knows_activities(case.start) and split_before(search, case, exits)


def split_before(search: Search, case: Case, exits: Sequence[Lot]) -> bool:
    """Whether a known activity may have changed the number of its shares between entry and exits."""
    now = search.board.now
    first, last = case.start, max((lot.at or now for lot in exits), default=now)
    days = [a.day for a in search.board.evidence.activities if a.key == case.key and a.type in _SPLITS]
    return any(first.date().isoformat() <= day <= last.date().isoformat() for day in days)


def _reason(search: Search, case: Case, last: Lot) -> str:
    order = last.order
    if order is None:
        return "broker_exit"
    return close_reason(order, target=_is_target(search, case, order))


def _is_target(search: Search, case: Case, order: Order) -> bool:
    """Whether the order is the trade's stored target, or what replaced it."""
    seen: set[str] = set()
    at: Order | None = order
    while at is not None and at.id not in seen:
        if case.trade.target_order in (at.id, at.client_id):
            return True
        seen.add(at.id)
        at = search.board.evidence.find(at.replaces)
    return False
