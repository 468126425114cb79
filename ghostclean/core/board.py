"""The reading of one World: every trade with its own orders, its instrument and its share.

Indexes only; nothing here is a verdict, and nothing changes after it was built.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from .broker import Order
from .case import Case, Share, within
from .client_ids import parse_client_id
from .evidence import Evidence
from .instrument import Side, is_option
from .money import CRYPTO_DUST
from .numbers import ONE, ZERO
from .own_orders import Lot, read_own_orders
from .plan import Orphan
from .sharing import SAME_COST, is_dust, mark_duplicates, measure, share_position, spent_by_closed, surplus_of_closed
from .trade import Trade
from .world import World


class Board:
    """Cases by instrument, what each position has left, and the orphans."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.now
        self.evidence = world.evidence
        self.positions = {p.key: p for p in world.truth.positions}
        self._by_asset = {p.asset_id: p for p in world.truth.positions if p.asset_id and not p.is_crypto}
        readable, self.unreadable = _readable(world.trades, world.others)
        by_tag = _orders_by_tag(world.evidence, {tag: t.id for t in readable if t.id for tag in t.tags})
        cases = [self._case(trade, by_tag) for trade in readable]
        self.cases = sorted(cases, key=lambda c: (c.opened, c.name))
        self.groups: dict[str, list[Case]] = defaultdict(list)
        for case in self.cases:
            if case.own.last is None or not case.own.last.is_multi_leg:
                self.groups[case.key].append(case)
        self.surplus: dict[str, list[Lot]] = {}
        self._attributed = {order_id for ids in world.memory.exits.values() for order_id in ids}
        self._left: dict[tuple[str, Side], Decimal] = {}
        for key, members in self.groups.items():
            self._share(key, members)
        self.orphans = self._find_orphans()
        self._orphan_sizes: dict[Side, _Sizes] | None = None

    # ------------------------------------------------------------------ trades

    def _case(self, trade: Trade, by_tag: Mapping[str, Sequence[Order]]) -> Case:
        memory, trade_id = self.world.memory, trade.id or ""
        own = read_own_orders(trade, self.evidence, by_tag, memory.exits.get(trade_id, ()))
        last = own.last
        key, crypto = trade.key, "/" in trade.symbol
        if last is not None:
            # The same asset under another symbol is a rename, and still this instrument.
            renamed = self._by_asset.get(last.asset_id)
            key = renamed.key if renamed is not None else (last.key or trade.key)
            crypto = last.is_crypto
            if last.is_multi_leg:
                key = last.id  # several instruments: no single position can be its own
        position = self.positions.get(key)
        crypto = crypto or (position is not None and position.is_crypto)
        opened = trade.opening
        if opened is None or opened > self.now:
            opened = memory.seen(trade_id, self.now)
        return Case(trade, own, key, crypto, opened)

    def members(self, case: Case) -> list[Case]:
        """The trades of the same instrument and side, oldest first."""
        return [c for c in self.groups[case.key] if c.side is case.side]

    def legs(self, case: Case) -> list[Order]:
        """The known legs of a multi-leg options order."""
        last = case.own.last
        if last is None or not last.is_multi_leg:
            return []
        return [o for leg in last.legs if (o := self.evidence.orders.get(leg)) is not None]

    # ------------------------------------------------------------------ positions

    def _share(self, key: str, cases: list[Case]) -> None:
        mark_duplicates(cases)
        closed = self.world.closed.get(key, ())
        spent = spent_by_closed(closed, self.evidence)
        self.surplus[key] = measure(cases, spent)
        # What an earlier run attributed is counted there, and what an open trade names was measured just now.
        known = self._attributed.union(*(case.own.ids() for case in cases))
        rest = surplus_of_closed(closed, spent, self.evidence)
        self.surplus[key] += (lot for lot in rest if lot.order_id not in known)
        position = self.positions.get(key)
        # The side that is held comes first: where its trades explain the whole position, it says
        # nothing about a trade of the other side except that nothing of that one is left.
        explained = False
        for side in sorted(Side, key=lambda s: position is not None and s is not position.side):
            members = [c for c in cases if c.side is side]
            if not members:
                continue
            left = share_position(members, None if explained else position, side)
            self._left[key, side] = left
            if position is not None and position.side is side:
                explained = not left and any(c.share is Share.COVERED for c in members)

    def _find_orphans(self) -> list[Orphan]:
        """Positions, or parts of them, that no non-final record explains.

        A record of which the size is not known may hold all of it: then it is a remainder.
        """
        claims: dict[tuple[str, Side], Decimal] = defaultdict(Decimal)
        beside: set[str] = set()
        for trade in (*self.world.others, *(t for t, _ in self.unreadable)):
            claims[trade.key, trade.side] += trade.size or trade.filled_qty or ZERO
            beside.add(trade.key)
        for case in self.cases:
            for leg in self.legs(case):
                side = Side.LONG if leg.side == Side.LONG.opening else Side.SHORT
                claims[leg.key, side] += leg.filled_qty
                beside.add(leg.key)
        orphans: list[Orphan] = []
        for position in sorted(self.world.truth.positions, key=lambda p: p.key):
            group = self.groups.get(position.key, ())
            left = self._left.get((position.key, position.side), position.qty) - claims[position.key, position.side]
            if left <= 0 or is_dust(position) or (position.is_crypto and left < position.qty * CRYPTO_DUST):
                continue
            remainder = position.key in beside or any(c.share not in (Share.EMPTY, Share.CLOSED) for c in group)
            orphans.append(Orphan(position, left, remainder))
        return orphans

    def unexplained(self, case: Case) -> Decimal:
        """How much of the case's instrument and side stands at the broker without an owner."""
        if case.key not in self.positions:
            return ZERO
        return sum((o.qty for o in self.orphans if o.position.key == case.key and o.position.side is case.side), ZERO)

    def twin_of_other_name(self, case: Case) -> Orphan | None:
        """An orphan of the same side and quantity or cost: probably this trade under a new name."""
        return next(self._twins(case), None)

    def may_be(self, case: Case) -> Iterator[Orphan]:
        """The orphans that may be what a trade has of which nothing is left, or not known what."""
        if case.share is Share.EMPTY:
            yield from (o for o in self.orphans if o.position.key == case.key and o.position.side is case.side)
        elif case.share in (Share.GONE, Share.UNKNOWN):
            yield from self._twins(case)

    def _twins(self, case: Case) -> Iterator[Orphan]:
        if self._orphan_sizes is None:
            self._orphan_sizes = {
                side: _Sizes(o for o in self.orphans if o.position.side is side and not o.remainder) for side in Side
            }
        return self._orphan_sizes[case.side].like(case)

    def last_activity(self) -> dict[str, datetime]:
        """The latest moment anything is known to have happened, by symbol key; after `now` counts most of all."""
        latest: dict[str, datetime] = {}
        moments = [(o.key, o.last_time) for o in self.evidence.orders.values()]
        moments += [(f.key, f.at) for f in self.evidence.fills.values()]
        for key, at in moments:
            if at is not None and (key not in latest or at > latest[key]):
                latest[key] = at
        return latest


class _Sizes:
    """Orphans in order of quantity and of cost, so that a look-alike is found without a scan."""

    def __init__(self, orphans: Iterable[Orphan]) -> None:
        orphans = list(orphans)
        priced = [(o.position.avg_price * o.qty, o) for o in orphans if o.position.avg_price is not None]
        self._by_qty = sorted(((o.qty, o) for o in orphans), key=lambda row: row[0])
        self._by_cost = sorted(priced, key=lambda row: row[0])

    def like(self, case: Case) -> Iterator[Orphan]:
        price = case.entry_price
        yield from _near(self._by_qty, case.open_qty, case)
        if price is not None:
            yield from _near(self._by_cost, price * case.open_qty, case)


def _near(rows: Sequence[tuple[Decimal, Orphan]], wanted: Decimal, case: Case) -> Iterator[Orphan]:
    index = bisect_left(rows, wanted * (ONE - SAME_COST), key=lambda row: row[0])
    while index < len(rows) and rows[index][0] <= wanted / (ONE - SAME_COST):
        size, orphan = rows[index]
        alike = orphan.position.is_crypto == case.crypto and is_option(orphan.position.key) == is_option(case.key)
        if alike and within(size, wanted, SAME_COST):
            yield orphan
        index += 1


def _readable(trades: Sequence[Trade], others: Sequence[Trade]) -> tuple[list[Trade], list[tuple[Trade, str]]]:
    """Splits off trades with a defect; an id that is used twice names nobody."""
    count: dict[str | None, int] = defaultdict(int)
    for trade in (*trades, *others):
        count[trade.id] += 1
    readable: list[Trade] = []
    unreadable: list[tuple[Trade, str]] = []
    for trade in trades:
        if trade.problem is not None:
            unreadable.append((trade, trade.problem))
        elif count[trade.id] > 1:
            unreadable.append((trade, f"its id stands {count[trade.id]} times in the ledger"))
        else:
            readable.append(trade)
    return readable, unreadable


def _orders_by_tag(evidence: Evidence, tags: Mapping[str, str]) -> dict[str, list[Order]]:
    """Orders that carry our own client order ids, by trade id."""
    found: dict[str, list[Order]] = defaultdict(list)
    for client_id, order_id in evidence.by_client.items():
        ours = parse_client_id(client_id)
        order = evidence.orders.get(order_id)
        if ours is not None and ours.trade in tags and order is not None:
            found[tags[ours.trade]].append(order)
    return found
