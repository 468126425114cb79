"""What is known about a trade's absence, what must still be asked, and whose the fills are.

Every question that is open becomes a need of the plan; until it is answered the trade is held.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from math import inf

from ghostclean.core.allocation import (
    Board,
    Case,
    Explained,
    Finished,
    FreeFills,
    Lot,
    Share,
    before,
    explain_gone,
    explain_short,
    free_fills,
    is_dust,
)
from ghostclean.core.broker import (
    ZERO,
    ActivitiesSince,
    Fill,
    FillsSince,
    Need,
    Order,
    OrderById,
    OrdersOf,
    RecordsOf,
    Side,
    is_uuid,
    parse_client_id,
    plain,
)
from ghostclean.core.ledger import order_ids

_LOOK_BACK = timedelta(days=1)
_LONGEST_LOOK_BACK = timedelta(days=90)
_SAME_MOMENT = timedelta(minutes=10)


class Search:
    """Lazily built indexes of orders and fills, and the needs that come up on the way."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.needs: dict[Need, None] = {}
        self.suspects = 0
        self._evidence = board.evidence
        self._orders_of: dict[str, list[Order]] | None = None
        self._fills_of: dict[str, list[Fill]] | None = None
        self._owned: set[str] | None = None
        self._free: dict[str, FreeFills] = {}
        self._open: dict[tuple[str, Side], bool] = {}
        self._proven: dict[tuple[str, Side], datetime | None] = {}
        self._openings: dict[tuple[str, Side], tuple[list[datetime], dict[Decimal, list[Lot]]]] = {}
        self._finished: dict[str, Finished] = {}
        self._brought: dict[tuple[str, Side], tuple[list[float], list[Decimal]]] = {}
        self._unowned: dict[tuple[str, Side], list[Lot]] = {}
        self._sharers: dict[tuple[str, Side], str] = {}
        self._explained: dict[tuple[str, Side], dict[Case, Explained]] = {}

    def ask(self, needs: Iterable[Need]) -> None:
        """Adds look-ups to the plan."""
        self.needs.update(dict.fromkeys(needs))

    # ------------------------------------------------------------------ what is known

    def records_known(self, case: Case) -> bool:
        """Whether the final records of the symbol are known: what they own is not this trade's."""
        if case.key in self.board.world.closed:
            return True
        self.ask([RecordsOf(case.key)])
        return False

    def knows_fills(self, case: Case) -> bool:
        """Whether the symbol's orders since the entry, and their owners, are known."""
        return self._knows_orders(case) and case.key in self.board.world.closed

    def _knows_orders(self, case: Case) -> bool:
        known = self._evidence.history.get(case.key)
        return case.key in self._evidence.truncated or (known is not None and known <= self._since(case))

    def done(self, case: Case) -> bool:
        """Whether everything that could explain an absence is known; asks for what is missing.

        The symbol's orders come first: they usually explain everything and are one request.
        """
        if case.own.dormant:
            self.ask(case.own.dormant)
            return False
        records = self.records_known(case)
        if not self._knows_orders(case):
            self.ask([OrdersOf(case.key, self._symbol(case), self._since(case))])
            return False
        if not records:
            return False
        if not (self._explained_by_orders(case) or self._knows_all_fills(case)):
            return False
        return self._knows_their_orders(case)

    def _since(self, case: Case) -> datetime:
        start = min(case.start, case.opened)
        return max(start, self.board.now - _LONGEST_LOOK_BACK) - _LOOK_BACK

    def _symbol(self, case: Case) -> str:
        position = self.board.positions.get(case.key)
        if position is not None and not position.is_crypto:
            return position.symbol
        return case.own.last.symbol if case.own.last is not None and case.own.last.symbol else case.trade.symbol

    def _explained_by_orders(self, case: Case) -> bool:
        """Whether the symbol's orders alone explain the case, so that fills need not be paged.

        Only where the trade is proven, and the list of orders was not cut.
        """
        if not case.certain or case.key in self._evidence.truncated:
            return False
        found = self.explanations(case)
        return case in found if case.share is Share.GONE else bool(found)

    def _knows_all_fills(self, case: Case) -> bool:
        known, since = self._evidence.fills_since, self._since(case)
        if known is not None and known <= since:
            return True
        if self._evidence.fills_failed is None:
            self.ask([FillsSince(since)])
        return False

    def _knows_their_orders(self, case: Case) -> bool:
        """Whether the orders behind the explaining fills are known: they may be tied to an owner."""
        found = self.explanation(case)
        if found is None:
            return True
        evidence = self._evidence
        unknown = {lot.order_id for lot in found.lots if lot.order is None and is_uuid(lot.order_id)} - evidence.absent
        self.ask(OrderById(i, case.key, self._since(case)) for i in sorted(unknown) if i not in evidence.unanswered)
        return not unknown

    def failure(self, case: Case) -> str:
        """Why the search for an explanation is not done."""
        evidence = self._evidence
        for name in (f"orders of {case.key}", *(n.order_id for n in case.own.dormant if isinstance(n, OrderById))):
            if name in evidence.unanswered:
                return f"{name}: {evidence.unanswered[name]}"
        if evidence.fills_failed:
            return f"fills: {evidence.fills_failed}"
        return "its orders and fills have not been looked up yet"

    def knows_activities(self, since: datetime) -> bool:
        """Whether option ends and corporate actions since a time are known; asks for them."""
        since -= _LOOK_BACK
        known = self._evidence.activities_since
        if known is not None and known <= since:
            return True
        if self._evidence.activities_failed is None:
            self.ask([ActivitiesSince(since)])
        return False

    # ------------------------------------------------------------------ explanations

    def explanation(self, case: Case) -> Explained | None:
        """The free fills that took this trade, or a part of it, out."""
        return self.explanations(case).get(case)

    def explanations(self, case: Case) -> dict[Case, Explained]:
        """The same for all trades of its instrument and side.

        Beside proven trades that still stand, fills from before these alone explain anything: a
        later sale may as well have been of them.
        """
        identity = (case.key, case.side)
        if identity not in self._explained:
            members = self.board.members(case)
            short = [c for c in members if c.share in (Share.SHORT, Share.SHARED)]
            found: dict[Case, Explained] = {}
            if len(members) > 1 and self.rivals_open(case):
                pass  # somebody whose own orders are unknown may own these fills
            else:
                end = self._proven_since(case)
                free = FreeFills(tuple(before(self.free_fills(case).lots, end)))
                if short:
                    found = explain_short(short, short[0].has, free)
                else:
                    gone = [c for c in members if c.share is Share.GONE]
                    surplus, openings = before(self._surplus(case), end), before(self.openings_of_nobody(case), end)
                    found = explain_gone(gone, free, surplus, openings, self.finished(case).vanished(case.side))
            self._explained[identity] = found
        return self._explained[identity]

    def rivals_open(self, case: Case) -> bool:
        """Whether the own orders of some trade of its instrument and side are not known."""
        identity = (case.key, case.side)
        if identity not in self._open:
            members = self.board.members(case)
            self._open[identity] = any(c.own.needs or c.own.unanswered for c in members)
        return self._open[identity]

    def _proven_since(self, case: Case) -> datetime | None:
        """The first entry of the proven trades that hold this instrument and side now."""
        identity = (case.key, case.side)
        if identity not in self._proven:
            members = (c for c in self.board.members(case) if c.certain and c.share is Share.COVERED)
            self._proven[identity] = min((c.start for c in members), default=None)
        return self._proven[identity]

    def may_be_a_rivals(self, case: Case) -> bool:
        """Whether a sale that nobody owns may as well have been of a proven trade beside this unproven one."""
        since = None if case.certain else self._proven_since(case)
        return since is not None and self.free_fills(case).closes_after(case.side, max(since, case.start))

    def sharers(self, case: Case, most: int) -> str:
        """The trades that want a part of one position, with their quantities."""
        identity = (case.key, case.side)
        if identity not in self._sharers:
            rivals = [c for c in self.board.members(case) if c.share is case.share or c.contested is not None]
            names = [f"{c.trade.id}: {plain(c.open_qty)}" for c in rivals[:most]]
            more = [f"and {len(rivals) - most} more"] if len(rivals) > most else []
            self._sharers[identity] = ", ".join((*names, *more))
        return self._sharers[identity]

    def _surplus(self, case: Case) -> list[Lot]:
        return self.board.surplus.get(case.key, [])

    def free_fills(self, case: Case) -> FreeFills:
        """The executions of the case's symbol that nobody owns."""
        key = case.key
        if key not in self._free:
            closed = self.board.world.closed.get(key, ())
            self._free[key] = free_fills(self.orders(key), self._fills(key), self._evidence, self._owned_ids(), closed)
        return self._free[key]

    def finished(self, case: Case) -> Finished:
        """What the final records of the case's symbol say."""
        if case.key not in self._finished:
            self._finished[case.key] = Finished(self.board.world.closed.get(case.key, ()), self._evidence)
        return self._finished[case.key]

    def openings_of_nobody(self, case: Case) -> list[Lot]:
        """Free opening fills, without the entries of trades that name no order and are out again."""
        identity = (case.key, case.side)
        if identity not in self._unowned:
            out = [c for c in self.board.members(case) if not c.certain and c.share is Share.CLOSED]
            over = [*((c.entry_qty, c.opened) for c in out), *self.finished(case).nameless(case.side)]
            self._unowned[identity] = _without_entries(self.free_fills(case).opening(case.side), over)
        return self._unowned[identity]

    def lost(self, case: Case) -> Decimal:
        """What fills that nobody owns brought in and none took out again, although proven trades hold all there is.

        Then something left without a trace, and it need not have been this trade.
        """
        position = self.board.positions.get(case.key)
        if position is None or position.side is not case.side or is_dust(position):
            return ZERO
        identity = (case.key, case.side)
        if identity not in self._brought:
            self._brought[identity] = self._brought_in(case)
        times, most = self._brought[identity]
        return most[bisect_right(times, -self._since(case).timestamp())]

    def _brought_in(self, case: Case) -> tuple[list[float], list[Decimal]]:
        """Moments, the latest first, and the most that was bought and not sold from any of them, or a later one, on."""
        # A trade that fills of nobody explain is out with its entry and its sales.
        out = self.explanations(case)
        openings = _without_entries(self.openings_of_nobody(case), [(c.entry_qty, c.opened) for c in out])
        moves: dict[float, Decimal] = defaultdict(Decimal)
        for lot in (*openings, *(lot for found in out.values() for lot in found.lots)):
            moves[-lot.at.timestamp() if lot.at else -inf] += lot.qty  # without a time: it counts in any case
        for lot in self.free_fills(case).closing(case.side):
            moves[-lot.at.timestamp() if lot.at else inf] -= lot.qty
        times = sorted(moves)
        left = accumulate((moves[at] for at in times), initial=ZERO)
        return times, list(accumulate(left, max))

    def only_entry_near(self, case: Case) -> Lot | None:
        """The one free fill that can have opened a trade without an order: its size, at its opening.

        None where another such trade was opened at the same time: it may have been that one's.
        """
        identity = (case.key, case.side)
        if identity not in self._openings:
            nameless = [c.opened for c in self.board.members(case) if not c.certain]
            by_size: dict[Decimal, list[Lot]] = defaultdict(list)
            for lot in self.free_fills(case).opening(case.side):
                by_size[lot.qty].append(lot)
            self._openings[identity] = sorted(nameless), by_size
        opened, by_size = self._openings[identity]
        rivals = bisect_right(opened, case.opened + 2 * _SAME_MOMENT) - bisect_left(
            opened, case.opened - 2 * _SAME_MOMENT
        )
        if rivals > 1:
            return None
        near = [x for x in by_size.get(case.entry_qty, ()) if x.at and abs(x.at - case.opened) <= _SAME_MOMENT]
        return near[0] if len(near) == 1 else None

    def orders(self, key: str) -> list[Order]:
        """The known orders of a symbol, by id."""
        if self._orders_of is None:
            self._orders_of = defaultdict(list)
            for order in sorted(self._evidence.orders.values(), key=lambda o: o.id):
                self._orders_of[order.key].append(order)
        return self._orders_of.get(key, [])

    def _fills(self, key: str) -> list[Fill]:
        if self._fills_of is None:
            self._fills_of = defaultdict(list)
            for fill in sorted(self._evidence.fills.values(), key=lambda f: (f.at, f.id)):
                self._fills_of[fill.key].append(fill)
        return self._fills_of.get(key, [])

    def _owned_ids(self) -> set[str]:
        """Order ids that some record names, or that an earlier run attributed to one."""
        if self._owned is None:
            world = self.board.world
            owned = {i for case in self.board.cases for i in case.own.ids()}
            for trade in (*world.trades, *world.others):
                owned.update(order_ids(trade.record))
            present = {case.trade.id for case in self.board.cases}
            for trade_id, ids in world.memory.exits.items():
                if trade_id not in present:  # those of a present trade are among its own
                    owned.update(ids)
            self._owned = owned
        return self._owned

    def foreign_entry(self, case: Case) -> Order | None:
        """A working order that could open this instrument and side and belongs to no record."""
        position = self.board.positions.get(case.key)
        if position is not None and position.side is not case.side:
            return None  # it would close that position
        for order in self.orders(case.key):
            if order.id in self._evidence.working and order.side == case.side.opening and not self._is_owned(order):
                return order
        return None

    def _is_owned(self, order: Order) -> bool:
        owned = self._owned_ids()
        ties = (order.id, order.client_id, order.parent, order.replaces, order.replaced_by)
        return any(tie in owned for tie in ties if tie) or parse_client_id(order.client_id) is not None


def _without_entries(lots: Sequence[Lot], over: Iterable[tuple[Decimal, datetime]]) -> list[Lot]:
    """Leaves out the entries of trades that name no order; they are recognised by whole quantity and time."""
    by_size: dict[Decimal, list[Lot]] = defaultdict(list)
    for lot in lots:
        by_size[lot.qty].append(lot)
    entries: set[int] = set()
    for size, opened in over:
        near = (x for x in by_size.get(size, ()) if x.at and abs(x.at - opened) <= _SAME_MOMENT)
        if (entry := next((x for x in near if id(x) not in entries), None)) is not None:
            entries.add(id(entry))
    return [lot for lot in lots if id(lot) not in entries]
