"""The words for what is true about a trade, and the decision that follows from one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from ghostclean.core.allocation import Allocation, Books, Coverage, EntryState, Execution, total
from ghostclean.core.broker import ZERO, Order, Question, iso, plain
from ghostclean.core.ledger import changed


class Verdict(StrEnum):
    """What a trade is, by broker truth; in order of precedence."""

    UNREADABLE = "unreadable"
    OTHER_ACCOUNT = "other_account"
    DUPLICATE = "duplicate"
    EXITED = "exited"
    LIVE = "live"
    REDUCED = "reduced"
    WORKING = "working"
    SETTLING = "settling"
    NEVER_FILLED = "never_filled"
    AMBIGUOUS = "ambiguous"
    MISMATCH = "mismatch"
    FILLED_BUT_GONE = "filled_but_gone"
    VANISHED = "vanished"
    UNKNOWN = "unknown"  # a look-up is open or failed: held, never closed
    ORPHAN = "orphan"
    REOPENED = "reopened"

    @property
    def needs_person(self) -> bool:
        """Whether it stays as it is until somebody looks: a break that no later run can settle."""
        return self in _BREAKS


_BREAKS = frozenset({Verdict.UNREADABLE, Verdict.AMBIGUOUS, Verdict.MISMATCH, Verdict.FILLED_BUT_GONE})


class Action(StrEnum):
    """What is done about it."""

    CLOSED = "closed"
    SYNCED = "synced"
    REDUCED = "reduced"
    ADOPTED = "adopted"
    FLATTENED = "flattened"
    REOPENED = "reopened"
    KEPT = "kept"
    HELD = "held"
    SKIPPED = "skipped"

    @property
    def writes(self) -> bool:
        """Whether the ledger changes."""
        return self in _WOULD

    def would(self) -> str:
        """The word in a dry run."""
        return _WOULD.get(self, str(self))


_WOULD = {
    Action.CLOSED: "would_close",
    Action.SYNCED: "would_sync",
    Action.REDUCED: "would_reduce",
    Action.ADOPTED: "would_adopt",
    Action.FLATTENED: "would_flatten",
    Action.REOPENED: "would_reopen",
}


def needs_person(row: Mapping[str, Any]) -> bool:
    """Whether a row of a run's `results` is a trade that needs a person."""
    return row["action"] == Action.HELD and Verdict(row["verdict"]).needs_person


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing a verdict rests on, with the time it was seen or happened."""

    what: str
    at: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "at": iso(self.at) if self.at else None, **self.facts}


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on one trade (or orphan) and the exact fields to write.

    `unproven` marks the close that rests on absence alone, `suspect` a trade that may yet become
    one, `facts` fingerprints the broker facts behind the verdict (for holds after an undo),
    `exit_orders` are the orders (or activities) that took the trade out, `questions` what would settle it.
    """

    trade_id: str | None
    ticker: str
    verdict: Verdict
    action: Action
    reason: str
    proof: tuple[Proof, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    base: Mapping[str, Any] | None = field(default=None, repr=False)
    unproven: bool = False
    suspect: bool = False
    facts: str = ""
    exit_orders: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()

    @property
    def stale(self) -> bool:
        """Whether the trade is closed by this decision."""
        return self.action is Action.CLOSED

    def before(self) -> dict[str, Any] | None:
        """The present values of the fields that change; a field that is absent stays absent."""
        if not self.action.writes or self.base is None:
            return None
        return {name: self.base[name] for name in (*self.fields, *self.remove) if name in self.base}


def hold(books: Books, allocation: Allocation, verdict: Verdict, reason: str) -> Decision:
    """Nothing is written: what is true about the trade is open, or a person must look."""
    return _untouched(books, allocation, verdict, Action.HELD, reason)


def keep(books: Books, allocation: Allocation, verdict: Verdict, reason: str) -> Decision:
    """Nothing is written: the trade is as it should be."""
    return _untouched(books, allocation, verdict, Action.KEPT, reason)


def unknown(books: Books, allocation: Allocation, questions: Iterable[Question]) -> Decision:
    """Held until some questions are answered; a suspect unless the position seems to cover it."""
    questions = tuple(questions)
    failures = [why for q in questions if (why := books.evidence.failure(q)) is not None]
    why = failures[0] if failures else "its orders and fills have not been looked up yet"
    position, trade = books.positions.get(allocation.key), allocation.trade
    covered = position is not None and position.side is allocation.side and position.qty >= (trade.size or ZERO)
    return Decision(
        trade.id,
        trade.symbol,
        Verdict.UNKNOWN,
        Action.HELD,
        f"held: {why}",
        _proof(books, allocation),
        base=trade.record,
        suspect=allocation.coverage is Coverage.GONE or (allocation.coverage is Coverage.UNKNOWN and not covered),
        facts=_facts(books, allocation, ()),
        questions=tuple(q for q in questions if books.evidence.failure(q) is None),
    )


def _untouched(books: Books, allocation: Allocation, verdict: Verdict, action: Action, reason: str) -> Decision:
    trade, proof, facts = allocation.trade, _proof(books, allocation), _facts(books, allocation, ())
    return Decision(trade.id, trade.symbol, verdict, action, reason, proof, base=trade.record, facts=facts)


def change(
    books: Books,
    allocation: Allocation,
    verdict: Verdict,
    action: Action,
    reason: str,
    fields: Mapping[str, Any],
    *,
    proof: Iterable[Proof] = (),
    exits: Iterable[Execution] = (),
    unproven: bool = False,
) -> Decision:
    """The fields are written as far as they differ; a sync without a difference is `kept`."""
    trade, exits = allocation.trade, tuple(exits)
    differing = changed(trade.record, fields, books.now)
    if not differing and action is Action.SYNCED:
        action = Action.KEPT
    return Decision(
        trade.id,
        trade.symbol,
        verdict,
        action,
        reason,
        (*_proof(books, allocation), *proof, *(_execution_proof(e) for e in exits)),
        differing,
        base=trade.record,
        unproven=unproven,
        facts=_facts(books, allocation, exits),
        exit_orders=tuple(dict.fromkeys(e.order_id for e in exits if e.order_id)),
    )


def ago(span: timedelta) -> str:
    """A span in words."""
    return f"{max(0, span.total_seconds()):.0f} s ago"


def _proof(books: Books, allocation: Allocation) -> tuple[Proof, ...]:
    at, family = books.world.truth.at, allocation.family
    rows = []
    for key in [leg.key for leg in books.legs(allocation)] or [allocation.key]:
        position = books.positions.get(key)
        held = f"position {position.symbol} {plain(position.qty)} {position.side}" if position is not None else None
        rows.append(Proof(held or f"no position in {key}", at))
    rows += [_order_proof(o, "entry") for o in family.entries]
    rows += [_order_proof(o, "exit") for o in family.exits]
    if family.state is EntryState.ABSENT:
        name = allocation.trade.entry_orders[0]
        rows.append(Proof(f"order {name} is unknown to the broker (404 by both ids)", at))
    return tuple(rows)


def _order_proof(order: Order, role: str) -> Proof:
    facts = {"orderId": order.id, "status": order.status, "filledQty": plain(order.filled_qty)}
    if order.avg_price is not None:
        facts["price"] = plain(order.avg_price)
    return Proof(f"{role} order", order.last_time, facts)


def _execution_proof(execution: Execution) -> Proof:
    row = execution.activity
    what, name = ("fill", "orderId") if row is None else (f"activity {row.type} of {row.day}", "activityId")
    facts = {name: execution.order_id, "side": execution.side, "qty": plain(execution.qty)}
    if execution.price is not None:
        facts["price"] = plain(execution.price)
    return Proof(what, execution.at, facts)


def _facts(books: Books, allocation: Allocation, exits: Iterable[Execution]) -> str:
    """A fingerprint of the broker facts about one trade.

    An exit order counts the same whether the ledger names it or we found it, so that the
    fingerprint of a change is still the present one after the change was undone.
    """
    position, family, exits = books.positions.get(allocation.key), allocation.family, tuple(exits)
    held = f"{position.side}{plain(position.qty)}" if position is not None else "-"
    known = {o.id: o for o in (*family.entries, *family.exits)}
    known |= {e.order.id: e.order for e in exits if e.order is not None}
    orders = [f"{o.id}:{o.status}:{plain(o.filled_qty)}" for o in known.values()]
    nameless = {e.order_id for e in exits if e.order is None}
    orders += [f"{i}:?:{plain(total(e for e in exits if e.order_id == i))}" for i in nameless]
    return "|".join((held, family.state.name, *sorted(orders)))
