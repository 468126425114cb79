"""The order family of a trade: its entries, its exits, and the look-ups still missing.

Own are the orders the record names (by id or client id), the legs of its entries, replace
chains in both directions, exits that carry the entry's id or one of our names as client order
id, and exits that an earlier run allocated to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto

from ghostclean.core.broker import (
    ZERO,
    Evidence,
    Order,
    OrderByClientId,
    OrderById,
    Question,
    is_activity_id,
    is_uuid,
    parse_client_id,
)
from ghostclean.core.ledger import Trade


class EntryState(Enum):
    """What is known of the entry order a trade names."""

    NONE = auto()  # the record names none
    UNASKED = auto()
    UNANSWERED = auto()
    ABSENT = auto()  # a true 404 by both ids
    KNOWN = auto()


@dataclass(slots=True)
class Family:
    """`chain` is the entry order's replace chain, oldest first; `added` are further entries it names.

    `entries` are all of them: `filled` is what they filled, `entered_at` when the first was sent, and the
    family `works` while one of them can still fill. `questions` must be answered before anything is
    concluded; `dormant` ones concern exits beside one that still works and are harmless while a
    position covers the trade. `tied` exits hang on the entry itself and can be no other trade's.
    """

    trade: Trade
    state: EntryState = EntryState.NONE
    chain: tuple[Order, ...] = ()
    added: tuple[Order, ...] = ()
    entries: tuple[Order, ...] = ()
    filled: Decimal = ZERO
    works: bool = False
    entered_at: datetime | None = None
    exits: tuple[Order, ...] = ()
    questions: list[Question] = field(default_factory=list)
    dormant: list[Question] = field(default_factory=list)
    tied: frozenset[str] = frozenset()
    unanswered: str | None = None
    defect: str | None = None

    @property
    def last(self) -> Order | None:
        """The entry order as it stands: the end of its replace chain."""
        return self.chain[-1] if self.chain else None

    @property
    def filled_whole(self) -> bool:
        """Whether the entry filled all it asked for, so that the record's size is no mere wish."""
        last = self.last
        if last is None or last.works:
            return False
        return len(self.chain) > 1 or last.qty is None or last.qty == last.filled_qty

    def asked_for(self, qty: Decimal | None) -> bool:
        """Whether a quantity is what an entry asked for that filled less."""
        return not self.filled_whole and self.last is not None and self.last.qty == qty

    @property
    def is_open(self) -> bool:
        """Whether too little is known of its orders to judge it by the position."""
        return self.defect is not None or self.state in (EntryState.UNASKED, EntryState.UNANSWERED)

    def ids(self) -> frozenset[str]:
        """Every order id that belongs to this trade."""
        return frozenset([o.id for o in (*self.entries, *self.exits)] + [leg for o in self.entries for leg in o.legs])

    def times(self) -> Iterable[datetime]:
        """When something happened to one of its orders."""
        return (t for o in (*self.entries, *self.exits) if (t := o.last_time) is not None)


def read_family(trade: Trade, evidence: Evidence, ours: Sequence[Order], allocated: Sequence[str]) -> Family:
    """The order family of a trade; never raises.

    `ours` carry our client order ids for this trade, `allocated` are exits of an earlier run.
    """
    family = Family(trade)
    if trade.has_order:
        _read_entries(family, evidence)
    tied = [leg for o in family.entries for leg in o.legs]
    tied += (i for o in family.entries if (i := evidence.by_client.get(o.id)) is not None and i != o.id)
    tied += sorted(o.id for o in ours)
    tied += (i for i in allocated if not is_activity_id(i))
    if tied or trade.exit_orders:
        _read_exits(family, tied, evidence)
    return family


def _read_entries(family: Family, evidence: Evidence) -> None:
    trade = family.trade
    known: set[str] = set()
    for name in trade.entry_orders:
        order = evidence.find(name) if name == trade.client_order else evidence.find_entry(name)
        if order is None or order.id in known or (family.chain and not _adds(family, order)):
            continue
        orders = _chain(family, order, evidence)
        known.update(o.id for o in orders)
        if family.chain:
            family.added += orders
        else:
            family.chain = orders
    if not family.chain:
        family.state = _absence(family, evidence)
        return
    family.state = EntryState.KNOWN
    family.entries = family.chain + family.added
    family.filled = sum([o.filled_qty for o in family.entries], ZERO)
    family.works = any(o.works for o in (family.chain[-1], *family.added))
    family.entered_at = min((o.submitted_at for o in family.entries if o.submitted_at), default=None)
    first = family.chain[0]
    if any(o.side and o.side != trade.side.opening for o in family.chain) and not first.is_multi_leg:
        family.defect = f"its entry order {first.id} is a {first.side}, not a {trade.side.opening}"
    elif (trade.size or ZERO) > family.filled and not family.works:
        _ask_further_entries(family, evidence)


def _adds(family: Family, order: Order) -> bool:
    """Whether a second order that a record names as its entry is one: same instrument, opening side."""
    first = family.chain[0]
    return order.side == family.trade.side.opening and order.key == first.key and not first.is_multi_leg


def _ask_further_entries(family: Family, evidence: Evidence) -> None:
    """A record of more than its entry filled may name a second entry that is not known yet."""
    trade = family.trade
    for name in trade.entry_orders:
        order = evidence.find(name) if name == trade.client_order else evidence.find_entry(name)
        question = _next_question(trade, name, evidence)
        if order is None and question is not None and name not in evidence.unanswered:
            family.questions.append(question)


def _absence(family: Family, evidence: Evidence) -> EntryState:
    """How far the search for an unknown entry order has come; asks the next question."""
    names = family.trade.entry_orders
    for name in names:
        if name in evidence.unanswered:
            family.unanswered = f"order {name}: {evidence.unanswered[name]}"
            return EntryState.UNANSWERED
    family.questions += (q for n in names if (q := _next_question(family.trade, n, evidence)) is not None)
    return EntryState.UNASKED if family.questions else EntryState.ABSENT


def _next_question(trade: Trade, name: str, evidence: Evidence) -> Question | None:
    if name != trade.client_order and is_uuid(name) and name not in evidence.absent:
        return OrderById(name, trade.key, trade.opening)
    if name not in evidence.absent_clients:
        return OrderByClientId(name, trade.key, trade.opening)
    return None


def _chain(family: Family, start: Order, evidence: Evidence) -> tuple[Order, ...]:
    """The replace chain through an entry; hops that are not known become questions."""
    chain = evidence.chain(start)
    if chain.loops:
        family.defect = f"the replace chain of order {start.id} loops"
    for name in chain.missing:
        if name in evidence.unanswered:
            family.unanswered = f"order {name}: {evidence.unanswered[name]}"
        elif name not in evidence.absent:
            family.questions.append(OrderById(name, start.key, start.submitted_at))
        elif name == chain.orders[-1].replaced_by:
            # What came before an absent order can hold no fills of its own, what came after can.
            family.unanswered = f"order {name}, which replaced {start.id}, is unknown to the broker"
    if chain.orders[-1].status == "replaced" and chain.orders[-1].replaced_by is None:
        family.unanswered = f"order {chain.orders[-1].id} was replaced, by which order is not known"
    return chain.orders


def _read_exits(family: Family, tied: Iterable[str], evidence: Evidence) -> None:
    """Follows chains, legs and parents from every exit that is known to be the trade's."""
    trade, entries = family.trade, {o.id for o in family.entries}
    hanging, unknown = evidence.family(tied, entries)
    named, unknown_too = evidence.family(trade.exit_orders, entries | hanging.keys())
    family.tied = frozenset(hanging)
    instrument = {name for o in family.entries for name in (o.key, o.asset_id) if name} or {trade.key}
    exits = [o for o in (hanging | named).values() if o.side == trade.side.closing]
    exits = [o for o in exits if not instrument.isdisjoint((o.key, o.asset_id))]
    family.exits = tuple(sorted(exits, key=lambda o: (o.submitted_at is None, o.submitted_at, o.id)))
    asleep = any(o.id in evidence.working for o in family.exits)
    for name in dict.fromkeys((*unknown, *unknown_too)):
        if name in evidence.unanswered:
            family.unanswered = f"exit order {name}: {evidence.unanswered[name]}"
        elif name not in evidence.absent and not evidence.is_absent(name):
            ask = OrderById if is_uuid(name) else OrderByClientId
            near = family.chain[0].key if family.chain else trade.key
            question = ask(name, near, family.entered_at or trade.opening)
            (family.dormant if asleep else family.questions).append(question)


def first_stop(trade: Trade, exits: Iterable[Order]) -> Decimal | None:
    """The stop that 1R is measured by, never a moved one.

    `initialStopPrice`, `originalStopPrice`, the first order of the stop's chain, else `stopPrice`
    of a trade that no engine has managed yet; None where a stop was replaced and its first price
    is not known. A trailing stop moves by itself, and a stop that we placed stands where the
    rules wanted it by then: neither tells what was risked.
    """
    if trade.initial_stop is not None:
        return trade.initial_stop
    known = {o.id: o for o in exits}
    stops = [o for o in known.values() if o.is_stop and o.stop_price is not None and o.type != "trailing_stop"]

    def moved(order: Order) -> bool:
        before = known.get(order.replaces or "")
        # The link from a bracket's target to its stop is no move.
        return order.replaces is not None and (before is None or before.is_stop)

    stops = [o for o in stops if moved(o) or parse_client_id(o.client_id) is None]
    first = [o for o in stops if not moved(o)]
    if first:
        return min(first, key=lambda o: (o.submitted_at is None, o.submitted_at, o.id)).stop_price
    return None if stops or trade.is_managed else trade.stop_price


def orders_of_ours(evidence: Evidence, trades: Iterable[Trade]) -> dict[str, list[Order]]:
    """Orders that carry our own client order ids, by trade id."""
    named = {i: ours for i in evidence.by_client if (ours := parse_client_id(i)) is not None}
    if not named:
        return {}
    owners = {tag: trade.id for trade in trades if trade.id for tag in trade.tags}
    found: dict[str, list[Order]] = defaultdict(list)
    for client_id, ours in named.items():
        order = evidence.orders.get(evidence.by_client[client_id])
        if ours.trade in owners and order is not None:
            found[owners[ours.trade]].append(order)
    return found
