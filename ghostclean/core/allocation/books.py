"""The books of one observation: every trade's allocation, every instrument's executions, the orphans.

Per instrument: entries + unallocated purchases - exits - unallocated sales = position. What the
trades hold is read off; where it does not add up somebody must look. Order families and the
position are read at once, unallocated executions when a verdict needs them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property

from ghostclean.core.broker import (
    CRYPTO_DUST,
    ONE,
    STOCK_DUST,
    ZERO,
    Fill,
    Order,
    Position,
    Positions,
    Side,
    parse_client_id,
    ties,
)
from ghostclean.core.inputs import World
from ghostclean.core.ledger import Trade
from ghostclean.core.neighbours import Claim, Neighbours

from .activities import executions_of
from .allocation import (
    Allocation,
    Closed,
    Coverage,
    Orphan,
    is_dust,
    names_of,
    read_closed,
    same_side,
)
from .attribution import Purchases
from .booking import Booking
from .coverage import share_out
from .execution import Execution, total
from .family import orders_of_ours, read_family
from .matching import Matches, match_gone, match_part
from .twins import Twins
from .unallocated import Unallocated, find_unallocated

_LOOK_BACK = timedelta(days=1)
_LONGEST_LOOK_BACK = timedelta(days=90)
_HOLDS_NOTHING = frozenset({Coverage.EXITED, Coverage.UNFILLED})
_MAY_BE_BACK = frozenset({Coverage.GONE, Coverage.OPPOSITE, Coverage.CLAIMED})


class Books:
    """All allocations of a world, by instrument; built once, asked by the verdicts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.now
        self.evidence = world.evidence
        rows = world.truth.positions.rows
        self.positions = {p.key: p for p in rows}
        self.neighbours = Neighbours(world.memory.neighbours, world.now, world.policy.grace)
        self._by_asset = {p.asset_id: p for p in rows if p.asset_id and not p.is_crypto}
        readable, self.unreadable = _split_off(world.trades, world.unreadable)
        readable, self.elsewhere = _split_off(readable, world.other_account)
        self._others = [trade for trade in world.others if world.other_account(trade) is None]
        ours = orders_of_ours(world.evidence, readable)
        allocations = [self._allocation(trade, ours) for trade in readable]
        self.allocations = sorted(allocations, key=lambda a: (a.opened, a.name))
        self.groups: dict[str, list[Allocation]] = defaultdict(list)
        for allocation in self.allocations:
            last = allocation.family.last
            if last is None or not last.is_multi_leg:
                self.groups[allocation.key].append(allocation)
        self._bookings: dict[str, Booking] = {}
        self._left: dict[str, Mapping[Side, Decimal]] = {}
        self._untold: set[str] = set()
        self._closed: dict[str, list[Closed]] = {}
        self._unallocated: dict[str, Unallocated] = {}
        self._matches: dict[tuple[str, Side], Matches] = {}
        self.settling: dict[tuple[str, Side], datetime | None] = {}
        for key, members in self.groups.items():
            self._bookings[key] = self._book(key, members)
            if any(a.unsure for a in members):
                self._untold.add(key)
            position = self.positions.get(key)
            self._left[key] = share_out(members, position, *self._elsewhere(position, members))
        self.explained: dict[str, list[tuple[Position, Decimal]]] = defaultdict(list)
        self.orphans = self._find_orphans()

    # ------------------------------------------------------------------ trades

    def _allocation(self, trade: Trade, ours: Mapping[str, Sequence[Order]]) -> Allocation:
        memory, trade_id = self.world.memory, trade.id or ""
        family = read_family(trade, self.evidence, ours.get(trade_id, ()), memory.exits.get(trade_id, ()))
        last = family.last
        key, crypto = trade.key, "/" in trade.symbol
        if last is not None:
            # The same asset under another symbol is a rename, and still this instrument.
            renamed = self._by_asset.get(last.asset_id)
            key = renamed.key if renamed is not None else (last.key or trade.key)
            crypto = last.is_crypto
            if last.is_multi_leg:
                key = last.id  # several instruments: no single position can be its own
        position = self.positions.get(key)
        opened = trade.opening
        if opened is None or opened > self.now:
            opened = memory.seen(trade_id, self.now)
        return Allocation(trade, family, key, crypto or (position is not None and position.is_crypto), opened)

    def members(self, allocation: Allocation) -> list[Allocation]:
        """The trades of the same instrument and side, oldest first, duplicates included."""
        return [a for a in self.groups[allocation.key] if a.side is allocation.side]

    def legs(self, allocation: Allocation) -> list[Order]:
        """The known legs of a multi-leg options order."""
        last = allocation.family.last
        if last is None or not last.is_multi_leg:
            return []
        return [o for leg in last.legs if (o := self.evidence.orders.get(leg)) is not None]

    def why_unobserved(self, allocation: Allocation) -> str | None:
        """Why the position of a trade is not observed."""
        if not self.world.truth.positions.unread:
            return None
        legs = [leg.key for leg in self.legs(allocation)]
        return self._told_by_assets.why_unobserved(*(legs or {allocation.key, allocation.trade.key}))

    @cached_property
    def _told_by_assets(self) -> Positions:
        known = {o.asset_id: o.key for o in self.evidence.orders.values() if o.asset_id}
        return self.world.truth.positions.named(known)

    def closed(self, key: str) -> list[Closed]:
        """The final records of an instrument that held shares; empty until they were read."""
        if key not in self._closed:
            self._closed[key] = read_closed(self.world.closed.get(key, ()), self.evidence)
        return self._closed[key]

    def families_open(self, allocation: Allocation) -> bool:
        """Whether the order family of some trade of its instrument and side is not known."""
        return any(a.family.questions or a.family.unanswered for a in self.members(allocation))

    # ------------------------------------------------------------------ executions

    def since(self, allocation: Allocation) -> datetime:
        """How far back the executions of a trade are searched."""
        start = min(allocation.start, allocation.opened)
        return max(start, self.now - _LONGEST_LOOK_BACK) - _LOOK_BACK

    def knows_executions(self, allocation: Allocation) -> bool:
        """Whether its instrument's orders since its entry, and their owners, are known."""
        known = self.evidence.knows_orders(allocation.key, self.since(allocation))
        return known and allocation.key in self.world.closed

    def unallocated(self, key: str) -> Unallocated:
        """The unallocated executions of an instrument, as far as they are known."""
        if key not in self._unallocated:
            orders, fills, closed = self.orders(key), self._fills.get(key, ()), self.closed(key)
            members, moved = self.groups[key], self._moved_by_activities(key)
            self._unallocated[key] = find_unallocated(orders, fills, self.evidence, self._owned, closed, members, moved)
        return self._unallocated[key]

    def _moved_by_activities(self, key: str) -> list[Execution]:
        activities, members = self.evidence.activities, self.groups[key]
        if not activities:
            return []
        missing = ZERO if key in self.positions else sum((a.open_qty for a in members), ZERO)
        return executions_of(activities, key, {a.side for a in members}, missing, self.now)

    def matches(self, allocation: Allocation) -> Matches:
        """The unallocated executions that took trades of its instrument and side out, wholly or in part.

        Beside proven trades that still stand, only executions from before these explain anything
        gone: a later sale may as well have been of them.
        """
        identity = (allocation.key, allocation.side)
        if identity not in self._matches:
            self._matches[identity] = self._match(allocation)
        return self._matches[identity]

    def _match(self, allocation: Allocation) -> Matches:
        members = same_side(self.groups[allocation.key], allocation.side)
        if any(a.unsure for a in members) or (len(members) > 1 and self.families_open(allocation)):
            return {}  # somebody of whom too little is known may own these executions
        unallocated, side = self.unallocated(allocation.key), allocation.side
        opens = unallocated.opening(side)
        end = self.proven_since(allocation)
        short = [a for a in members if a.coverage in (Coverage.SHORTFALL, Coverage.CONTESTED)]
        if short:
            return match_part(short, short[0].has, _before(unallocated.closing(side), end), _before(opens, end))
        gone = [a for a in members if a.coverage is Coverage.GONE]
        closes = [*unallocated.closing(side), *self._bookings[allocation.key].surplus]
        unproven = [r for r in self.closed(allocation.key) if r.unproven and r.trade.side is side]
        return match_gone(gone, _before(closes, end), _before(opens, end), unproven)

    def _book(self, key: str, members: Sequence[Allocation]) -> Booking:
        """Books once by what the order families tell; where that leaves doubts, with all executions."""
        known = (members, self.closed(key), self.evidence, self.world.memory.exits, self.positions.get(key))
        booking = Booking(*known)
        if booking.doubtful and all(self.knows_executions(a) for a in members):
            booking = Booking(*known, self._ours(key, {a.side.opening for a in members}))
            rest = tuple(e for e in self.unallocated(key).executions if e.order_id not in booking.used)
            self._unallocated[key] = Unallocated(rest)
        [first, *others] = members
        if first.crypto and not others and self.knows_executions(first):
            first.beside = total(self.unallocated(key).opening(first.side, first.start))
        return booking

    def _elsewhere(self, position: Position | None, members: Sequence[Allocation]) -> tuple[Decimal, Decimal]:
        """What other ledgers say they hold of a position, and what they prove of it since our last entry."""
        if position is None:
            return ZERO, ZERO
        ours = {a.name: a.family.ids() for a in members}
        proven = self.neighbours.disputed(position, ours, max(a.filled_at for a in members))
        return self.neighbours.held(position), proven * (ONE - (CRYPTO_DUST if position.is_crypto else STOCK_DUST))

    def _ours(self, key: str, opening: Collection[str]) -> Unallocated:
        """The unallocated executions without purchases that may be another ledger's."""
        known = self.unallocated(key).executions
        return Unallocated(tuple(e for e in known if e.side not in opening or self.neighbours.all_spoke_since(e.at)))

    def agrees(self, allocation: Allocation) -> bool:
        """Whether the sizes in the ledger are together exactly what the position holds."""
        position = self.positions.get(allocation.key)
        sizes = sum((a.trade.size or ZERO for a in self.members(allocation)), ZERO)
        return position is not None and position.side is allocation.side and position.qty == sizes

    def sold_again(self, allocation: Allocation) -> datetime | None:
        """When the last was sold of trades of which nobody can tell what each had; None where some are not gone.

        All orders since the first entry that no closed record names must net to nothing, as the position does.
        """
        if allocation.key not in self._untold or allocation.key in self.evidence.truncated:
            return None
        members = same_side(self.groups[allocation.key], allocation.side)
        unsure = {o.id for a in members if a.unsure for o in a.family.chain}
        if not unsure or self.positions.get(allocation.key) is not None:
            return None
        if any(c.entry is not None and c.entry.id in unsure for c in self.closed(allocation.key)):
            return None  # what a closed record had of the entry, these may never have had
        since = min(a.start for a in members)
        others = names_of(self.closed(allocation.key))
        filled = (o for o in self.orders(allocation.key) if o.filled_qty and o.id not in others)
        orders = [o for o in filled if (o.fill_time or self.now) >= since]
        signed = [o.filled_qty if o.side == allocation.side.opening else -o.filled_qty for o in orders]
        net, dust = sum(signed, ZERO), sum((a.tolerance for a in members), ZERO)
        return max((o.fill_time or self.now for o in orders), default=None) if abs(net) <= dust else None

    def may_have_bought(self, allocation: Allocation, qty: Decimal) -> bool:
        """Whether so much beyond its entry stands unexplained and was bought by orders that are nobody's."""
        if qty <= 0 or not self.unexplained(allocation):
            return False
        purchases = Purchases(self.unallocated(allocation.key).opening(allocation.side, allocation.start))
        return any(bought == qty for _, bought in purchases.sums)

    def proven_since(self, allocation: Allocation) -> datetime | None:
        """The first entry of the proven trades that hold this instrument and side now."""
        standing = (a for a in self.members(allocation) if a.certain and a.coverage is Coverage.HELD)
        return min((a.start for a in standing), default=None)

    def orders(self, key: str) -> list[Order]:
        """The known orders of an instrument, by id."""
        return self._orders.get(key, [])

    @cached_property
    def _orders(self) -> dict[str, list[Order]]:
        found: dict[str, list[Order]] = defaultdict(list)
        for order in sorted(self.evidence.orders.values(), key=lambda o: o.id):
            found[order.key].append(order)
        return found

    @cached_property
    def _fills(self) -> dict[str, list[Fill]]:
        found: dict[str, list[Fill]] = defaultdict(list)
        for fill in sorted(self.evidence.fills.values(), key=lambda f: (f.at, f.id)):
            found[fill.key].append(fill)
        return found

    @cached_property
    def _owned(self) -> set[str]:
        """Order ids that some record, of another ledger too, names, or that an earlier run allocated to one."""
        owned = {i for a in self.allocations for i in a.family.ids()} | self.neighbours.orders
        present = {a.name for a in self.allocations}
        for trade in (*(a.trade for a in self.allocations), *(t for t, _ in self.unreadable), *self._others):
            owned.update(trade.order_ids)
        present |= {trade.id or "" for trade, _ in self.elsewhere}
        for trade_id, ids in self.world.memory.exits.items():
            if trade_id not in present:  # those of a present trade are in its family
                owned.update(ids)
        return owned

    def foreign_entry(self, allocation: Allocation) -> Order | None:
        """A working order that could open this instrument and side and belongs to no record."""
        position = self.positions.get(allocation.key)
        if position is not None and position.side is not allocation.side:
            return None  # it would close that position
        for order in self.orders(allocation.key):
            opens = order.id in self.evidence.working and order.side == allocation.side.opening
            if opens and not self._is_owned(order):
                return order
        return None

    def _is_owned(self, order: Order) -> bool:
        names = (order.id, order.client_id, *ties(order))
        return any(n in self._owned for n in names if n) or parse_client_id(order.client_id) is not None

    # ------------------------------------------------------------------ orphans

    def _find_orphans(self) -> list[Orphan]:
        """Positions, or parts of them, that no non-final record explains, nor the orders of another ledger.

        A record of which the size is not known may hold all of it: then it is a remainder.
        """
        claims: dict[tuple[str, Side], Decimal] = defaultdict(Decimal)
        for claim in self._aside:
            claims[claim.place] += claim.qty
        beside = {symbol for symbol, _ in claims}
        orphans: list[Orphan] = []
        for position in sorted(self.positions.values(), key=lambda p: p.key):
            group = self.groups.get(position.key, ())
            left = self._left.get(position.key, {}).get(position.side, position.qty)
            left -= claims[position.key, position.side]
            for ledger, qty in self.neighbours.explained(position, left):
                self.explained[ledger].append((position, qty))
            left -= self.neighbours.proven(position)
            if left <= 0 or is_dust(position) or (position.is_crypto and left < position.qty * CRYPTO_DUST):
                continue
            standing = any(a.coverage not in (Coverage.UNFILLED, Coverage.EXITED) for a in group)
            orphans.append(Orphan(position, left, standing or position.key in beside))
        return orphans

    @cached_property
    def _aside(self) -> list[Claim]:
        """What records hold that take no part (not open, unreadable), and legs of options orders; 0: nobody knows."""
        found = []
        for trade in (*self._others, *(t for t, _ in self.unreadable)):
            qty, orders = trade.size or trade.filled_qty or ZERO, tuple(sorted(trade.order_ids))
            found.append(self._claim(trade.id or "", trade.key, trade.side, qty, orders))
        for a in self.allocations:
            for leg in self.legs(a):
                side = Side.LONG if leg.side == Side.LONG.opening else Side.SHORT
                found.append(self._claim(a.name, leg.key, side, leg.filled_qty, (leg.id,)))
        return found

    def _claim(self, trade: str, key: str, side: Side, qty: Decimal, orders: tuple[str, ...]) -> Claim:
        position = self.positions.get(key)
        return Claim(trade, key, side, qty, ZERO if position is None else position.qty, proven=False, orders=orders)

    def claimed(self, position: Position) -> list[tuple[str, Decimal]]:
        """What other ledgers of the account say they hold of a position."""
        return self.neighbours.explained(position, position.qty)

    def claims(self) -> list[Claim]:
        """What the records of this ledger explain, for the other ledgers of the account."""
        standing = {(p.key, p.side) for p in self.positions.values()}
        found = [claim for claim in self._aside if claim.place in standing]
        for a in self.allocations:
            orders = tuple(sorted(a.family.ids() | a.trade.order_ids))
            position, proven = self.positions.get(a.key), a.certain and a.coverage in (Coverage.HELD, Coverage.CLAIMED)
            if a.coverage in _HOLDS_NOTHING or a.duplicate_of is not None:
                continue
            if position is not None and position.side is a.side and (proven or a.coverage not in _MAY_BE_BACK):
                qty = a.open_qty if a.coverage is Coverage.HELD else a.claim
                found.append(Claim(a.name, position.symbol, a.side, qty, position.qty, proven, orders))
            else:
                found.append(self._claim(a.name, a.key, a.side, ZERO, orders))
        return found

    def unexplained(self, allocation: Allocation) -> Decimal:
        """How much of its instrument and side stands at the broker without an owner."""
        return sum((o.qty for o in self._orphans_of(allocation)), ZERO)

    def _orphans_of(self, allocation: Allocation) -> list[Orphan]:
        if allocation.key not in self.positions:
            return []
        identity = (allocation.key, allocation.side)
        return [o for o in self.orphans if (o.position.key, o.position.side) == identity]

    def twin_of_other_name(self, allocation: Allocation) -> Orphan | None:
        """An orphan of the same side and quantity or cost: probably this trade under a new name."""
        return next(self._twins(allocation), None)

    def may_be(self, allocation: Allocation) -> Iterator[Orphan]:
        """The orphans that may be what a trade has of which nothing is left, or not known what."""
        if allocation.coverage is Coverage.UNFILLED:
            yield from self._orphans_of(allocation)
        elif allocation.coverage in (Coverage.GONE, Coverage.UNKNOWN):
            yield from self._twins(allocation)

    def _twins(self, allocation: Allocation) -> Iterator[Orphan]:
        return self._twins_of[allocation.side].of(allocation)

    @cached_property
    def _twins_of(self) -> dict[Side, Twins]:
        return {side: Twins(o for o in self.orphans if o.position.side is side and not o.remainder) for side in Side}

    def last_activity(self) -> dict[str, datetime]:
        """The latest moment anything is known to have happened, by symbol key."""
        latest: dict[str, datetime] = {}
        moments = [(o.key, o.last_time) for o in self.evidence.orders.values()]
        moments += [(f.key, f.at) for f in self.evidence.fills.values()]
        for key, at in moments:
            if at is not None and (key not in latest or at > latest[key]):
                latest[key] = at
        return latest


def _before(executions: Sequence[Execution], end: datetime | None) -> Sequence[Execution]:
    """Those before a time, all of them for None; one without a time can't be told to be before."""
    return executions if end is None else [e for e in executions if e.at is not None and e.at < end]


def _split_off(
    trades: Iterable[Trade], why_not: Callable[[Trade], str | None]
) -> tuple[list[Trade], list[tuple[Trade, str]]]:
    """The trades that take part, and the others with the reason."""
    reasons = [(trade, why_not(trade)) for trade in trades]
    return [t for t, why in reasons if why is None], [(t, why) for t, why in reasons if why is not None]
