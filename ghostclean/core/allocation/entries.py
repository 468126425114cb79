"""Books what the trades of one instrument and side entered, before any exit is booked.

A trade has all that its entry orders filled, or its part where other records name the same
order; and of the purchases that no record names those that the ledger's sizes show to be its
scale-ins. Where records and executions do not add up, or several attributions fit, the trade
is `unsure`: it is never closed or reduced while what may be its shares stands at the broker.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from ghostclean.core.broker import ZERO, Evidence, Side

from .allocation import Allocation, Closed
from .attribution import Attribution, Claim, Entry, Purchases, attribute, bought_in
from .execution import Execution, total, whole
from .unallocated import Unallocated

_MOST_SALES = 5


class Entries:
    """The entries of one side's trades; `exits` are those that are one trade's alone.

    `used` are the orders of the purchases booked, `doubtful` says that knowing the unallocated
    executions (None: not known) may tell more.
    """

    def __init__(
        self,
        members: Sequence[Allocation],
        closed: Sequence[Closed],
        evidence: Evidence,
        exits: Mapping[str, Sequence[Execution]],
        earlier: Mapping[str, Decimal],
        held: Decimal,
        unallocated: Unallocated | None,
    ) -> None:
        self._closed = closed
        self._evidence = evidence
        self._exits = exits
        self._earlier = earlier
        self._held = held
        self._unallocated = unallocated
        self._is_sole = len(members) == 1
        self._of_closed: list[Claim] = []
        self.used: set[str] = set()
        sharing: dict[str, list[Allocation]] = defaultdict(list)
        for allocation in members:
            if allocation.certain:
                sharing[allocation.family.chain[0].id].append(allocation)
            else:
                _book_size(allocation)
        unsolved = [sharers for sharers in sharing.values() if not self._book_parts(sharers)]
        for allocation in members:
            allocation.doubtful = allocation.certain and bool(allocation.entries) and self._is_doubtful(allocation)
        lone = [a for a in members if a.doubtful]
        if closed:
            self._of_closed += self._lone_closed(set(sharing), members[0].side)
        shared = closed or any(len(sharers) > 1 for sharers in sharing.values())
        self.doubtful = bool(lone or unsolved or shared)
        if unallocated is not None and self.doubtful:
            unsolved = self._book_purchases(members, lone, unsolved, unallocated)
        for sharers in unsolved:
            self._book_claims(sharers)

    # ------------------------------------------------------------------ parts of an entry

    def _book_parts(self, sharers: Sequence[Allocation]) -> bool:
        """Books an entry order to those that name it; whether their records tell the parts."""
        family, closed = sharers[0].family, self._closed_sharers(sharers[0])
        if len(sharers) == 1 and not closed:
            self._book_part(sharers[0], _told_part(sharers[0]))
            return True
        if family.works or any(a.family.added for a in sharers):
            return False
        bookings = self._shared(sharers, ()).bookings(Purchases())
        parts = {tuple(a.part for a in booking) for booking in bookings}
        if len(parts) != 1 or not self._bears_out(sharers, parts):
            return False
        told = parts.pop()
        for allocation, part in zip(sharers, told, strict=False):
            self._book_part(allocation, part)
        self._of_closed += self._enlarged(zip(closed, told[len(sharers) :], strict=True))
        return True

    def _lone_closed(self, shared: Collection[str], side: Side) -> Iterator[Claim]:
        """Claims of closed records that have their entry alone and went out with more than that."""
        own = [(c, c.entry) for c in self._closed if c.entry is not None and c.trade.side is side and not c.unproven]
        names = Counter(entry.id for _, entry in own)
        alone = ((c, e.filled_qty) for c, e in own if names[e.id] == 1 and e.id not in shared)
        return self._enlarged(alone)

    def _enlarged(self, closed: Iterable[tuple[Closed, Decimal]]) -> Iterator[Claim]:
        for record, part in closed:
            sold, first = record.sold, record.trade.initial_size or ZERO
            if part < max(sold, first, record.trade.size or ZERO) and part > 0:
                yield Claim(
                    record.trade.size,
                    first=first or None,
                    lost=frozenset(_prefixes(_sales_of(record))),
                    least=sold,
                    whole=part,
                    sold=sold if sold > part else None,
                )

    def _bears_out(self, sharers: Sequence[Allocation], parts: set[tuple[Decimal, ...]]) -> bool:
        """Whether sales and purchases that no record names, as far as known, leave no other parts possible."""
        if self._unallocated is None:
            return True
        side, since = sharers[0].side, min(a.start for a in sharers)
        purchases = Purchases(self._unallocated.opening(side, since))
        found = self._shared(sharers, self._unallocated.closing(side, since)).bookings(purchases)
        return {tuple(a.part for a in booking) for booking in found} <= parts

    def _closed_sharers(self, allocation: Allocation) -> list[Closed]:
        if not self._closed:
            return []
        ids = {o.id for o in allocation.family.chain}
        return [c for c in self._closed if c.entry is not None and c.entry.id in ids]

    def _shared(self, sharers: Sequence[Allocation], sales: Sequence[Execution]) -> Entry:
        filled = sharers[0].family.filled
        claims = [self._claim(a, sales) for a in sharers]
        closed = [_claim_of_closed(c) for c in self._closed_sharers(sharers[0])]
        return Entry(filled, [*claims, *closed])

    def _claim(self, allocation: Allocation, sales: Sequence[Execution]) -> Claim:
        trade, exits = allocation.trade, self._exits.get(allocation.name, ())
        lost, earlier = _lost(exits, sales), self._earlier.get(allocation.name, ZERO)
        # What an earlier run allocated, it took off the size.
        lost = frozenset(out for out in lost if out >= earlier) or lost
        own = frozenset(_prefixes(exits))
        return Claim(trade.size, trade.filled_qty, trade.initial_size, lost, own, total(exits))

    def _book_part(self, allocation: Allocation, part: Decimal | None, bought: Sequence[Execution] = ()) -> None:
        """Books a part of its entry, None for all of it, and the purchases of its scale-ins."""
        filled = [whole(o, self._evidence) for o in allocation.family.entries if o.filled_qty]
        allocation.part = part
        if part is not None:
            filled = [_at_one_price(filled, part)] if filled and part else []
        allocation.entries = [*filled, *bought]

    # ------------------------------------------------------------------ scale-ins

    def _is_doubtful(self, allocation: Allocation) -> bool:
        """Whether its entry does not explain its sizes and exits; what the ledger says it entered beyond that."""
        entered, first = allocation.entry_qty, _first_size(allocation)
        if not entered or allocation.family.works:
            return False
        exits = self._exits.get(allocation.name, ())
        if allocation.trade.size == entered >= max(total(exits), first) and allocation.name not in self._earlier:
            return False
        claim = self._claim(allocation, ())
        size = _had(allocation, claim)
        explained = size is None or any(size + out == entered for out in claim.lost)
        if explained and max(claim.least - allocation.tolerance, first) <= entered:
            return False
        said = ZERO if explained or size is None else size + self._earlier.get(allocation.name, ZERO)
        allocation.scale_in = max(ZERO, said - entered, first - entered)
        return True

    def _book_purchases(
        self,
        members: Sequence[Allocation],
        lone: Sequence[Allocation],
        unsolved: Sequence[list[Allocation]],
        unallocated: Unallocated,
    ) -> list[list[Allocation]]:
        """Books the purchases that must be scale-ins; the sharers that remain unsolved."""
        side, since = members[0].side, min(a.start for a in members)
        purchases = Purchases(unallocated.opening(side, since))
        sales = unallocated.closing(side, since)
        entries = [self._lone(a, sales) for a in lone] + [self._shared(s, sales) for s in unsolved]
        closed = [Entry(claim.whole or ZERO, [claim]) for claim in self._of_closed]
        found = attribute([*entries, *closed], purchases)
        for bookings in found:
            self.used.update(e.order_id for e in purchases.chosen(bought_in(bookings)))
        owners = [[a] for a in lone] + list(unsolved)
        for sharers, bookings in zip(owners, found, strict=False):
            for number, allocation in enumerate(sharers):
                self._book_attributions(allocation, {booking[number] for booking in bookings}, purchases)
        return [s for s, bookings in zip(unsolved, found[len(lone) :], strict=False) if not bookings]

    def _lone(self, allocation: Allocation, sales: Sequence[Execution]) -> Entry:
        entered, first, claim = allocation.entry_qty, _first_size(allocation), self._claim(allocation, sales)
        claim = replace(
            claim,
            size=_had(allocation, claim),
            first=first or None,
            least=max(claim.least, first),
            whole=entered,
            sold=claim.least if self._is_sole and claim.least > entered else None,
            tolerance=allocation.tolerance,
        )
        return Entry(entered, [claim])

    def _book_attributions(self, allocation: Allocation, found: set[Attribution], purchases: Purchases) -> None:
        """Books the only attribution; of several what they agree on."""
        entered = {a.entered for a in found}
        if len(found) == 1:
            [only] = found
            allocation.doubtful = False
            shared = allocation.part is not None or only.part != allocation.family.filled
            self._book_part(allocation, only.part if shared else None, purchases.chosen(only.bought))
            allocation.scale_in = ZERO
        elif found and allocation.entries:
            allocation.scale_in = max(entered) - allocation.entry_qty
            allocation.unsure = len(entered) > 1
        elif found:
            self._book_untold(allocation, max(entered))
            allocation.unsure = len(entered) > 1
        else:
            gone = total(self._exits.get(allocation.name, ()))
            nobody_bought = not purchases.sums[1:]
            if nobody_bought:  # a size above its entry was only a wish, unless it is just what stands
                allocation.doubtful = allocation.trade.size == self._held
            over = nobody_bought or gone >= allocation.entry_qty
            if over and allocation.entry_qty + allocation.scale_in - gone != self._held:
                allocation.scale_in = ZERO

    def _book_untold(self, allocation: Allocation, qty: Decimal) -> None:
        """Books a quantity of which nobody can say what it cost."""
        filled = [o for o in allocation.family.entries if o.filled_qty]
        allocation.entries = [replace(whole(o, self._evidence), qty=qty, price=None) for o in filled[:1]]
        allocation.part = ZERO

    # ------------------------------------------------------------------ records that do not add up

    def _book_claims(self, sharers: Sequence[Allocation]) -> None:
        """Trades whose records do not make up the entry they name: duplicates, or parts nobody can tell."""
        family, given = sharers[0].family, ZERO
        if family.works or self._unallocated is not None:
            self._mark_duplicates(sharers)
        left = [a for a in sharers if a.duplicate_of is None]
        for allocation in left:
            claim = self._claimed(allocation, sharers)
            if len(left) == 1 < len(sharers):
                self._book_part(allocation, None)
            elif family.works:
                self._book_part(allocation, min(claim, family.filled - given))
                given += allocation.entry_qty
            else:
                self._book_untold(allocation, claim)
                allocation.unsure = True

    def _claimed(self, allocation: Allocation, sharers: Sequence[Allocation]) -> Decimal:
        """What its record claims of a shared entry; an `initialQuantity` that a split-off record copied doesn't."""
        initial = allocation.trade.initial_size or ZERO
        now = (allocation.trade.size or allocation.family.filled) + self._earlier.get(allocation.name, ZERO)
        copied = any(a.trade.initial_size == initial for a in sharers if a is not allocation)
        return now if copied else max(initial, now)

    def _mark_duplicates(self, sharers: Sequence[Allocation]) -> None:
        """Marks the newer of two trades on one entry order whose fill does not cover both.

        Both records are of one and the same trade where both are of the whole fill; where they say
        the same or the older one is of the whole fill, as long as no more than that stands at the
        broker. Other sizes are parts of a shared entry, one of them enlarged since.
        """
        family = sharers[0].family
        filled = family.filled
        most = max(filled, family.chain[-1].qty or ZERO) if family.chain[-1].works else filled
        older: Allocation | None = None
        claimed = first = ZERO
        for allocation in sorted(sharers, key=lambda a: a.trade.is_pending):
            claim = self._claimed(allocation, sharers)
            if older is None or claimed + claim <= most:
                older, first, claimed = older or allocation, first or claim, claimed + claim
                continue
            same = first == claimed == claim and (claim >= filled or self._held < claimed + claim)
            if same or (first == filled and self._held <= filled):
                allocation.duplicate_of = older.trade.id


def _book_size(allocation: Allocation) -> None:
    """A trade without a known entry order entered what its record says."""
    trade = allocation.trade
    size = trade.initial_size or trade.size
    if size and not allocation.entries:
        price = trade.avg_fill_price if trade.filled_qty == size else None
        allocation.entries = [Execution("", allocation.side.opening, size, price, allocation.opened)]


def _told_part(allocation: Allocation) -> Decimal | None:
    """Its part of an entry that other records may share, as an earlier run wrote it; None for all of it."""
    trade, family = allocation.trade, allocation.family
    size = trade.initial_size or trade.size
    untouched = not any(o.filled_qty for o in family.exits) and size == trade.filled_qty
    return size if size is not None and untouched and size < family.filled else None


def _had(allocation: Allocation, claim: Claim) -> Decimal | None:
    """The present size, unless that may be only what its entry asked for: no exit sold so much."""
    is_wish = claim.size is None or (claim.size > claim.least and allocation.family.asked_for(claim.size))
    return None if is_wish else claim.size


def _first_size(allocation: Allocation) -> Decimal:
    """The first size of a trade that has its entry alone; zero where that may be a wish."""
    first = allocation.trade.initial_size
    return ZERO if first is None or allocation.part is not None or allocation.family.asked_for(first) else first


def _claim_of_closed(closed: Closed) -> Claim:
    """Of a record that is over: what it had at the end, or what its exits sold in all."""
    trade = closed.trade
    if closed.unproven:
        return Claim(closed.size)
    size = trade.size
    lost = {ZERO, closed.sold - size} if size is not None and closed.sold > size else {ZERO}
    return Claim(size, trade.filled_qty, trade.initial_size, frozenset(lost))


def _sales_of(closed: Closed) -> list[Execution]:
    return [Execution(o.id, o.side, o.filled_qty, None, o.fill_time) for o in closed.exits]


def _lost(exits: Sequence[Execution], sales: Sequence[Execution]) -> frozenset[Decimal]:
    """What a size may be net of: its own exits up to some time, and some of the sales nobody owns."""
    own = _prefixes(exits)
    free = {ZERO}
    if len(sales) <= _MOST_SALES:
        for sale in sales:
            free |= {out + sale.qty for out in free}
    else:
        free = set(_prefixes(sales))
    return frozenset(out + by_hand for out in own for by_hand in free)


def _prefixes(executions: Iterable[Execution]) -> list[Decimal]:
    sums = [ZERO]
    for execution in executions:
        sums.append(sums[-1] + execution.qty)
    return sums


def _at_one_price(filled: Sequence[Execution], qty: Decimal) -> Execution:
    """A part of what several orders filled; at several prices nobody can say which part is whose."""
    price = filled[0].price if len({e.price for e in filled}) == 1 else None
    return replace(filled[0], qty=qty, price=price)
