"""How a verdict becomes a decision: the fields that differ, the proof, the fingerprint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from ghostclean.core.allocation import Board, Case, Entry, Lot, total
from ghostclean.core.broker import Order, plain
from ghostclean.core.ledger import changed

from .decision import Action, Decision, Proof, Verdict


def hold(board: Board, case: Case, verdict: Verdict, reason: str) -> Decision:
    """Nothing is written: what is true about the trade is open, or a person must look."""
    return _untouched(board, case, verdict, Action.HELD, reason)


def keep(board: Board, case: Case, verdict: Verdict, reason: str) -> Decision:
    """Nothing is written: the trade is as it should be."""
    return _untouched(board, case, verdict, Action.KEPT, reason)


def _untouched(board: Board, case: Case, verdict: Verdict, action: Action, reason: str) -> Decision:
    return Decision(
        case.trade.id,
        case.trade.symbol,
        verdict,
        action,
        reason,
        _proof(board, case),
        base=case.trade.record,
        facts=_facts(board, case, ()),
    )


def change(
    board: Board,
    case: Case,
    verdict: Verdict,
    action: Action,
    reason: str,
    fields: Mapping[str, Any],
    *,
    proof: Iterable[Proof] = (),
    exits: Iterable[Lot] = (),
    unproven: bool = False,
) -> Decision:
    """The fields are written as far as they differ; a sync without a difference is `kept`."""
    differing = changed(case.trade.record, fields, board.now)
    if not differing and action is Action.SYNCED:
        action = Action.KEPT
    exits = tuple(exits)
    return Decision(
        case.trade.id,
        case.trade.symbol,
        verdict,
        action,
        reason,
        (*_proof(board, case), *proof, *(_fill_proof(lot) for lot in exits)),
        differing,
        base=case.trade.record,
        unproven=unproven,
        facts=_facts(board, case, exits),
        exit_orders=tuple(dict.fromkeys(lot.order_id for lot in exits if lot.order_id)),
    )


def ago(span: timedelta) -> str:
    """A span in words."""
    return f"{max(0, span.total_seconds()):.0f} s ago"


def _proof(board: Board, case: Case) -> tuple[Proof, ...]:
    at = board.world.truth.at
    keys = [leg.key for leg in board.legs(case)] or [case.key]
    seen = []
    for key in keys:
        position = board.positions.get(key)
        held = f"position {position.symbol} {plain(position.qty)} {position.side}" if position is not None else None
        seen.append(Proof(held or f"no position in {key}", at))
    orders = [_order_proof(o, "entry") for o in case.own.chain] + [_order_proof(o, "exit") for o in case.own.exits]
    if case.own.entry is Entry.ABSENT:
        name = case.trade.entry_order or case.trade.client_order
        orders.append(Proof(f"order {name} is unknown to the broker (404 by both ids)", at))
    return (*seen, *orders)


def _order_proof(order: Order, role: str) -> Proof:
    facts = {"orderId": order.id, "status": order.status, "filledQty": plain(order.filled_qty)}
    if order.avg_price is not None:
        facts["price"] = plain(order.avg_price)
    return Proof(f"{role} order", order.last_time, facts)


def _fill_proof(lot: Lot) -> Proof:
    facts = {"orderId": lot.order_id, "side": lot.side, "qty": plain(lot.qty)}
    if lot.price is not None:
        facts["price"] = plain(lot.price)
    return Proof("fill", lot.at, facts)


def _facts(board: Board, case: Case, exits: Iterable[Lot]) -> str:
    """A fingerprint of the broker facts about one trade.

    An exit order counts the same whether the ledger names it or we found it, so that the
    fingerprint of a change is still the present one after the change was undone.
    """
    position = board.positions.get(case.key)
    held = f"{position.side}{plain(position.qty)}" if position is not None else "-"
    known = {o.id: o for o in (*case.own.chain, *case.own.exits)}
    exits = tuple(exits)
    known |= {lot.order.id: lot.order for lot in exits if lot.order is not None}
    orders = [f"{o.id}:{o.status}:{plain(o.filled_qty)}" for o in known.values()]
    nameless = {lot.order_id for lot in exits if lot.order is None}
    orders += [f"{i}:?:{plain(total(lot for lot in exits if lot.order_id == i))}" for i in nameless]
    return "|".join((held, case.own.entry.name, *sorted(orders)))
