"""Decides what every trade of the ledger is, by broker truth; pure, no clock and no I/O.

`decide(world)` returns a Plan: one decision a trade, the orphans, and the look-ups that would
settle what is still open. Invariants, each with a property test of its name:
- nothing the broker still holds is ever closed;
- unknown is never read as empty: an open look-up or a failed one holds the trade;
- same input, same plan, in whatever order records, orders and fills arrive;
- applying a plan and deciding again changes nothing;
- no fill is used twice.
Source: CONTRACT section 5; the order of the verdicts there is the order of `_judge`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from . import fields as write
from .broker import Fill, Order, Position
from .client_ids import parse_client_id, trade_tag
from .evidence import ActivitiesSince, ClockNow, Evidence, FillsSince, Need, OrdersOf, RecordsOf
from .free_fills import FreeFills, free_fills
from .instrument import Side, expiry, is_option, multiplier
from .money import close_reason, settle, settle_part
from .numbers import ZERO, plain
from .own_orders import Entry, Lot, read_own_orders
from .plan import Holding, Orphan, Plan
from .sharing import (
    RENAME_TOLERANCE,
    Case,
    Explained,
    Share,
    entry_price,
    explain_gone,
    explain_short,
    is_dust,
    mark_duplicates,
    measure,
    share_position,
    start_of,
    within,
)
from .trade import Trade, order_ids
from .verdicts import Action, Decision, Proof, Verdict
from .world import World

_LOOK_BACK = timedelta(days=1)
_LONGEST_LOOK_BACK = timedelta(days=90)
_TOUCH_COUNTS = timedelta(hours=1)
_SAME_MOMENT = timedelta(minutes=10)
_SPLIT_ACTIVITIES = frozenset({"SPLIT", "SPIN", "REORG", "MA", "OPCA"})
_OPTION_ENDS = {"OPEXP": "option_expired", "OPASN": "option_assigned", "OPEXC": "option_exercised"}


def decide(world: World) -> Plan:
    """The plan for one consistent view of ledger and broker; see the module's invariants."""
    return _Decider(world).plan()


class _Decider:
    """Indexes over one World, and the verdicts that follow from them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.now
        self.evidence = world.evidence
        self.needs: dict[Need, None] = {}
        self.suspects = 0
        self.positions = {p.key: p for p in world.truth.positions}
        self.by_asset = {p.asset_id: p for p in world.truth.positions if p.asset_id and not p.is_crypto}
        self.readable, self.unreadable = _readable(world.trades)
        tags = {trade_tag(t.id): t.id for t in self.readable if t.id}
        self.by_tag = _orders_by_tag(world.evidence, tags)
        self.cases = [self._case(t) for t in self.readable]
        self.groups: dict[str, list[Case]] = defaultdict(list)
        for case in sorted(self.cases, key=lambda c: (c.opened, c.trade.id or "")):
            self.groups[case.key].append(case)
        self.claimed_legs = self._claim_legs()
        self.left: dict[tuple[str, Side], Decimal] = {}
        for key, cases in self.groups.items():
            self._share(key, cases)
        self.orphans = self._find_orphans()
        self._orders_of: dict[str, list[Order]] | None = None
        self._fills_of: dict[str, list[Fill]] | None = None
        self._free: dict[str, FreeFills] = {}
        self._explained: dict[tuple[str, Side], dict[int, Explained]] = {}
        self._owned: set[str] | None = None

    # ------------------------------------------------------------------ reading

    def _case(self, trade: Trade) -> Case:
        memory = self.world.memory
        trade_id = trade.id or ""
        own = read_own_orders(trade, self.evidence, self.by_tag, memory.exits.get(trade_id, ()))
        last = own.last
        key, crypto = trade.key, "/" in trade.symbol
        if last is not None:
            renamed = self.by_asset.get(last.asset_id)
            key = renamed.key if renamed is not None else (last.key or trade.key)
            crypto = last.is_crypto
        position = self.positions.get(key)
        crypto = crypto or (position is not None and position.is_crypto)
        opening = trade.opening
        if opening is None or opening > self.now:
            opening = memory.seen(trade_id, self.now)
        return Case(trade, own, key, crypto, opening)

    def _claim_legs(self) -> dict[str, Decimal]:
        """What multi-leg options trades hold of each leg's symbol."""
        claims: dict[str, Decimal] = defaultdict(Decimal)
        for case in self.cases:
            for leg in self._legs(case):
                claims[leg.key] += leg.filled_qty
        return claims

    def _legs(self, case: Case) -> list[Order]:
        last = case.own.last
        if last is None or not last.is_multi_leg:
            return []
        return [o for leg in last.legs if (o := self.evidence.orders.get(leg)) is not None]

    def _share(self, key: str, cases: list[Case]) -> None:
        mark_duplicates(cases)
        measure(cases)
        position = self.positions.get(key)
        for side in Side:
            members = [c for c in cases if c.side is side]
            if members:
                self.left[key, side] = share_position(members, position, side)

    # ------------------------------------------------------------------ the plan

    def plan(self) -> Plan:
        decisions = [self._unreadable(t, why) for t, why in self.unreadable]
        selected = self._selected()
        holdings: dict[str, Holding] = {}
        for case in self.cases:
            if case.trade.id not in selected:
                continue
            decision = self._held_after_undo(self._judge(case))
            decisions.append(self._allowed(decision))
            if decision.verdict in (Verdict.LIVE, Verdict.REDUCED) and (position := self.positions.get(case.key)):
                holdings[case.trade.id or ""] = self._holding(case, position)
        decisions.sort(key=lambda d: (d.ticker, d.trade_id or ""))
        return Plan(
            tuple(decisions),
            tuple(self.needs),
            self.suspects,
            holdings,
            tuple(self.orphans),
            self._activity(),
            sum(1 for t in self.world.trades if not t.is_pending),
            {t.id: frozenset() for t, _ in self.unreadable if t.id}
            | {c.trade.id: frozenset(c.own.ids()) for c in self.cases if c.trade.id},
        )

    def _selected(self) -> set[str | None]:
        """The trades worked on: uncovered ones first, then the longest unseen."""
        limit = self.world.policy.max_trades
        if len(self.cases) <= limit:
            return {c.trade.id for c in self.cases}
        worked = self.world.memory.last_worked
        order = sorted(
            self.cases,
            key=lambda c: (c.share is Share.COVERED, worked.get(c.trade.id or "", ""), c.trade.id or ""),
        )
        return {c.trade.id for c in order[:limit]}

    def _allowed(self, decision: Decision) -> Decision:
        """The decision under `--no-close` and `--no-sync`."""
        policy = self.world.policy
        if decision.action in (Action.CLOSED, Action.REDUCED) and not policy.close:
            return _with(decision, Action.SKIPPED, f"{decision.reason}; left open by --no-close")
        if decision.action is Action.SYNCED and not policy.sync:
            return _with(decision, Action.KEPT, decision.reason)
        return decision

    def _held_after_undo(self, decision: Decision) -> Decision:
        hold = self.world.memory.holds.get(decision.trade_id or "")
        if hold and decision.action in (Action.CLOSED, Action.REDUCED) and hold.get("facts") == decision.facts:
            why = f"{decision.reason}; undone by an operator and held until its broker facts change"
            return _with(decision, Action.HELD, why)
        return decision

    def _unreadable(self, trade: Trade, why: str) -> Decision:
        return Decision(trade.id, trade.symbol, Verdict.UNREADABLE, Action.HELD, why, base=trade.record)

    def _activity(self) -> dict[str, datetime]:
        """The latest moment anything is known to have happened, by symbol."""
        latest: dict[str, datetime] = {}
        for order in self.evidence.orders.values():
            at = order.last_time
            if at is not None and at <= self.now and (order.key not in latest or at > latest[order.key]):
                latest[order.key] = at
        for fill in self.evidence.fills.values():
            if fill.key not in latest or fill.at > latest[fill.key]:
                latest[fill.key] = fill.at
        return latest

    def _holding(self, case: Case, position: Position) -> Holding:
        return Holding(
            case.trade,
            position,
            case.open_qty,
            entry_price(case),
            initial_stop(case),
            case.own.last,
            case.own.exits,
        )

    # ------------------------------------------------------------------ verdicts

    def _judge(self, case: Case) -> Decision:
        """The first verdict of the table that matches."""
        own = case.own
        if own.defect:
            verdict = Verdict.MISMATCH if "entry order" in own.defect else Verdict.UNKNOWN
            return self._hold(case, verdict, own.defect)
        if own.last is not None and own.last.is_multi_leg:
            return self._multi_leg(case)
        if case.duplicate_of is not None:
            return self._duplicate(case)
        if own.needs or own.unanswered:
            return self._open_lookup(case)
        if case.share is Share.CLOSED:
            return self._exited_by_own_orders(case)
        if case.share is Share.COVERED:
            return self._covered(case)
        if case.share is Share.SHORT and (decision := self._short(case)) is not None:
            return decision
        if own.works:
            return self._working(case)
        if (since := self._settling_since(case)) is not None:
            left = self.world.policy.grace - (self.now - since)
            return self._hold(case, Verdict.SETTLING, f"something happened to it {_ago(self.now - since)}, "
                              f"settled in {left.total_seconds():.0f} s")  # fmt: skip
        if case.share is Share.EMPTY:
            return self._never_filled(case)
        if case.share is Share.GONE:
            return self._gone(case)
        return self._unexplained(case)

    def _hold(self, case: Case, verdict: Verdict, reason: str, proof: Iterable[Proof] = ()) -> Decision:
        return Decision(
            case.trade.id,
            case.trade.symbol,
            verdict,
            Action.HELD,
            reason,
            tuple(proof) or self._proof(case),
            base=case.trade.record,
            facts=self._facts(case),
        )

    def _change(
        self,
        case: Case,
        verdict: Verdict,
        action: Action,
        reason: str,
        fields: Mapping[str, Any],
        *,
        proof: Iterable[Proof] = (),
        unproven: bool = False,
        exits: Iterable[Lot] = (),
    ) -> Decision:
        changed = write.changed(case.trade.record, fields, self.now)
        if not changed and action is Action.SYNCED:
            action = Action.KEPT
        return Decision(
            case.trade.id,
            case.trade.symbol,
            verdict,
            action,
            reason,
            tuple((*self._proof(case), *proof)),
            changed,
            base=case.trade.record,
            unproven=unproven,
            facts=self._facts(case),
            exit_orders=tuple(dict.fromkeys(lot.order_id for lot in exits if lot.order_id)),
        )

    def _open_lookup(self, case: Case) -> Decision:
        own = case.own
        for need in own.needs:
            self.needs[need] = None
        if case.share is not Share.COVERED and not self._seems_covered(case):
            self.suspects += 1
        why = own.unanswered or "its orders have not been looked up yet"
        return self._hold(case, Verdict.UNKNOWN, f"held: {why}")

    def _seems_covered(self, case: Case) -> bool:
        position = self.positions.get(case.key)
        return position is not None and position.side is case.side and position.qty >= (case.trade.size or ZERO)

    def _duplicate(self, case: Case) -> Decision:
        last = case.own.last
        entry = last.id if last is not None else ""
        reason = f"same entry order {entry} as the older trade {case.duplicate_of}, whose fill does not cover both"
        fields = write.closed(f"duplicate_of:{case.duplicate_of}", self.now, None, case.own)
        fields |= {"realizedPnL": ZERO}
        fields.pop("filledQty", None)
        fields.pop("avgFillPrice", None)
        return self._change(case, Verdict.DUPLICATE, Action.CLOSED, reason, fields)

    def _multi_leg(self, case: Case) -> Decision:
        """A multi-leg options order: kept while every leg is held, otherwise left to a person."""
        own, legs = case.own, self._legs(case)
        if own.needs or own.unanswered:
            return self._open_lookup(case)
        if own.works:
            return self._working(case)
        if not own.filled:
            return self._never_filled(case)
        missing = [leg.symbol for leg in legs if leg.key not in self.positions]
        if legs and not missing:
            fields = write.live(case.trade, own, agrees_with_ledger=False)
            return self._change(case, Verdict.LIVE, Action.SYNCED, "every leg is held at the broker", fields)
        return self._hold(case, Verdict.MISMATCH, f"legs not held at the broker: {', '.join(missing) or 'all'}")

    # -- own orders

    def _exited_by_own_orders(self, case: Case) -> Decision:
        last_exit = max((lot.at for lot in case.exit_lots if lot.at), default=None)
        if case.still_shown and last_exit is not None and self.now - last_exit < self.world.policy.grace:
            return self._hold(case, Verdict.SETTLING, "its exit filled, the position still shows it")
        return self._close_with(case, case.exit_lots, "closed by its own orders")

    def _close_with(self, case: Case, lots: Sequence[Lot], how: str, reason: str | None = None) -> Decision:
        """Closes a trade with the fills that took it out."""
        lots = self._whole_exit(case, lots)
        entries = self._entry_lots(case, lots)
        tolerance = case.tolerance
        exit_ = settle(
            case.side,
            entries,
            lots,
            units=multiplier(case.key),
            tolerance=tolerance,
            initial_stop=initial_stop(case),
            cash_flow=self._split_between(case, entries, lots, tolerance),
        )
        order = next((lot.order for lot in lots if lot.order_id == exit_.order_id), None)
        if reason is None:
            target = order is not None and order.id == case.trade.target_order
            reason = close_reason(order, target=target)
            if order is None and exit_.order_id is not None:
                reason = "broker_exit"
        fields = write.closed(reason, exit_.at or self.now, exit_, case.own)
        price = f" at {plain(exit_.price)}" if exit_.price is not None else ""
        pnl = f", P&L {plain(exit_.pnl)}" if exit_.pnl is not None else ""
        text = f"{how}: {plain(exit_.qty)}{price} ({reason}){pnl}"
        proof = [_fill_proof(lot) for lot in lots]
        return self._change(case, Verdict.EXITED, Action.CLOSED, text, fields, proof=proof, exits=lots)

    def _whole_exit(self, case: Case, lots: Sequence[Lot]) -> list[Lot]:
        """All exits of the trade, the parts booked earlier included."""
        ours = {(lot.order_id, lot.at) for lot in lots}
        earlier = [lot for lot in case.exit_lots if (lot.order_id, lot.at) not in ours]
        return sorted([*earlier, *lots], key=lambda lot: (lot.at is None, lot.at, lot.order_id))

    def _entry_lots(self, case: Case, exits: Sequence[Lot]) -> list[Lot]:
        """The entry's fills; scale-ins by free fills where more was sold than the entry brought."""
        own = case.own
        if not case.certain:
            trade = case.trade
            if trade.avg_fill_price is not None and trade.filled_qty == case.entry_qty:
                return [Lot("", case.side.opening, case.entry_qty, trade.avg_fill_price, case.opened)]
            near = [
                lot
                for lot in self._free_fills(case).opening(case.side, case.opened - _SAME_MOMENT)
                if lot.qty == case.entry_qty and lot.at is not None and lot.at <= case.opened + _SAME_MOMENT
            ]
            return near if len(near) == 1 else []
        lots = own.entry_lots()
        if case.entry_qty != own.filled and len(lots) == 1:
            lots = [Lot(lots[0].order_id, lots[0].side, case.entry_qty, lots[0].price, lots[0].at, lots[0].order)]
        exited = sum((lot.qty for lot in exits), ZERO)
        missing = exited - case.entry_qty
        if missing > case.tolerance:
            more = [lot for lot in self._free_fills(case).opening(case.side, own.entered_at)]
            if sum((lot.qty for lot in more), ZERO) == missing:
                lots += more
        return lots

    def _split_between(self, case: Case, entries: Sequence[Lot], exits: Sequence[Lot], tolerance: Decimal) -> bool:
        """Whether an activity proves a split between an entry and an exit that differ in quantity."""
        entered, exited = (sum((lot.qty for lot in side), ZERO) for side in (entries, exits))
        if not entered or not exited or abs(entered - exited) <= tolerance:
            return False
        since = start_of(case)
        if since is None or not self._activities_known(since):
            return False
        return any(
            a.key == case.key and a.type in _SPLIT_ACTIVITIES and a.day >= since.date().isoformat()
            for a in self.evidence.activities
        )

    # -- position

    def _covered(self, case: Case) -> Decision:
        trade, own = case.trade, case.own
        if not case.certain and (trade.is_pending or not case.open_qty):
            return self._hold(
                case, Verdict.MISMATCH, "the broker does not know its order, yet a position of that side stands"
            )
        booked_less = trade.size is not None and trade.size > case.open_qty and bool(case.exit_lots)
        if booked_less and all(lot.order is None or lot.order.is_final for lot in case.exit_lots):
            return self._reduced(case, case.exit_lots, case.open_qty)
        fields = write.live(trade, own, agrees_with_ledger=self._agrees(case))
        reason = f"the position holds its {plain(case.open_qty)}"
        return self._change(case, Verdict.LIVE, Action.SYNCED, reason, fields)

    def _agrees(self, case: Case) -> bool:
        """Whether position and ledger agree on a quantity that the order does not show."""
        if case.agrees_with_ledger:
            return True
        position, said = self.positions.get(case.key), case.trade.filled_qty
        return said is not None and position is not None and said == position.qty and said != case.own.filled

    def _reduced(self, case: Case, lots: Sequence[Lot], left: Decimal) -> Decision:
        if (since := self._settling_since(case)) is not None:
            return self._hold(case, Verdict.SETTLING, f"a part of it was closed {_ago(self.now - since)}")
        entries = case.own.entry_lots() if case.certain else self._entry_lots(case, ())
        part = settle_part(case.side, entries, lots, units=multiplier(case.key), initial_stop=initial_stop(case))
        fields = write.reduced(case.trade, case.own, left, part)
        price = f" at {plain(part.price)}" if part.price is not None else ""
        reason = f"{plain(part.qty)} of it was closed{price}, {plain(left)} is left"
        proof = [_fill_proof(lot) for lot in lots]
        return self._change(case, Verdict.REDUCED, Action.REDUCED, reason, fields, proof=proof, exits=lots)

    def _short(self, case: Case) -> Decision | None:
        """A part of a single trade is missing: reduced where free fills tell how."""
        if not self._searched(case):
            return self._open_search(case)
        found = self._explanation(case)
        if found is None:
            return None
        lots = [*case.exit_lots, *found.lots]
        left = case.open_qty - sum((lot.qty for lot in found.lots), ZERO)
        if case.trade.size is not None and case.trade.size <= left:
            reason = f"the position holds its {plain(left)}, reduced already"
            fields = write.live(case.trade, case.own, agrees_with_ledger=True)
            return self._change(case, Verdict.LIVE, Action.SYNCED, reason, fields)
        return self._reduced(case, lots, left)

    def _working(self, case: Case) -> Decision:
        own, last = case.own, case.own.last
        status = last.status if last is not None else "?"
        reason = f"its entry order {last.id if last else '?'} still works ({status})"
        if case.trade.is_pending and own.filled:
            fields = write.live(case.trade, own, agrees_with_ledger=False)
            return self._change(case, Verdict.WORKING, Action.SYNCED, f"{reason}, first fill", fields)
        return Decision(
            case.trade.id,
            case.trade.symbol,
            Verdict.WORKING,
            Action.KEPT,
            reason,
            self._proof(case),
            base=case.trade.record,
            facts=self._facts(case),
        )

    def _settling_since(self, case: Case) -> datetime | None:
        """The latest activity if it lies within the grace."""
        trade, grace = case.trade, self.world.policy.grace
        times = [case.opened, *case.own.times()]
        touched = trade.updated_at
        if (
            touched is not None
            and not trade.has_order
            and not trade.exit_orders
            and touched - case.opened <= _TOUCH_COUNTS
        ):
            times.append(touched)
        if self._knows(case) and (latest := self._free_fills(case).latest()) is not None:
            times.append(latest)
        recent = [t if t <= self.now else self.world.memory.seen(trade.id or "", self.now) for t in times]
        latest = max(recent)
        return latest if self.now - latest < grace else None

    def _never_filled(self, case: Case) -> Decision:
        last = case.own.last
        status = last.status if last is not None else "unknown"
        left = self.left.get((case.key, case.side), ZERO) or self._orphaned(case)
        if left:
            return self._hold(case, Verdict.MISMATCH, f"its entry was {status} unfilled, yet an unexplained "
                              f"{case.side.lower()} position of {plain(left)} stands at the broker")  # fmt: skip
        if (order := self._foreign_entry(case)) is not None:
            why = f"its entry was {status} unfilled, yet another entry order {order.id} of it works"
            return self._hold(case, Verdict.MISMATCH, why)
        fields = write.without_fill(f"never_filled:{status}", self.now, case.own)
        return self._change(
            case, Verdict.NEVER_FILLED, Action.CLOSED, f"its entry order was {status}, nothing filled", fields
        )

    def _orphaned(self, case: Case) -> Decimal:
        """An unexplained position of the case's instrument and side."""
        return sum((o.qty for o in self.orphans if o.position.key == case.key and o.position.side is case.side), ZERO)

    def _foreign_entry(self, case: Case) -> Order | None:
        """A working order that could open this instrument and side and belongs to no record."""
        for order in self._orders(case.key):
            if order.id in self.evidence.working and order.side == case.side.opening and not self._is_owned(order):
                position = self.positions.get(case.key)
                if position is None or position.side is case.side:
                    return order
        return None

    # -- nothing left, or not enough

    def _gone(self, case: Case) -> Decision:
        if not self._searched(case):
            return self._open_search(case)
        if (
            not case.certain
            and self._beside_certain(case)
            and self._free_fills(case).closing(case.side, start_of(case))
        ):
            return self._hold(case, Verdict.AMBIGUOUS, "several trades share the symbol, and a sale that nobody owns "
                              "may have been of either")  # fmt: skip
        found = self._explanation(case)
        if found is not None:
            return self._close_with(case, found.lots, "closed by fills that no trade owns")
        if is_option(case.key) and (decision := self._option_end(case)) is not None:
            return decision
        if (why := self._renamed(case)) is not None:
            return self._hold(case, Verdict.MISMATCH, why)
        if not case.certain and (order := self._foreign_entry(case)) is not None:
            verdict = Verdict.WORKING if case.own.entry is Entry.NONE else Verdict.MISMATCH
            return self._hold(case, verdict, f"an entry order {order.id} of its symbol works and belongs to no trade")
        return self._missed(case)

    def _beside_certain(self, case: Case) -> bool:
        return any(c.certain and c.share is Share.COVERED and c.side is case.side for c in self.groups[case.key])

    def _missed(self, case: Case) -> Decision:
        """Gone, and nothing explains it: the second look, the confirmations, then `vanished`."""
        policy, trade_id = self.world.policy, case.trade.id or ""
        count, since = self.world.memory.miss(trade_id, self.now)
        if case.certain:
            why = "its entry filled, the position is gone, and nothing takes it away"
            if since is None or self.now - since < policy.grace:
                return self._hold(case, Verdict.FILLED_BUT_GONE, f"{why}; looked at again in the next run")
            if not case.crypto and not self._market_open():
                return self._hold(case, Verdict.FILLED_BUT_GONE, f"{why}; decided in the regular session")
        else:
            known = "the broker does not know its order" if case.trade.has_order else "it has no order id"
            why = f"{known}, and no position, order or fill explains it"
        if count + 1 < policy.confirmations:
            text = f"{why}; seen {count + 1} of {policy.confirmations} times"
            return self._hold(case, Verdict.VANISHED, text)
        fields = write.vanished(policy.close_reason, self.now)
        return self._change(case, Verdict.VANISHED, Action.CLOSED, why, fields, unproven=True)

    def _market_open(self) -> bool:
        if self.evidence.clock is None:
            if self.evidence.clock_failed is None:
                self.needs[ClockNow()] = None
            return False
        return self.evidence.clock.is_open

    def _option_end(self, case: Case) -> Decision | None:
        """Expiry, assignment and exercise take an option away without any order."""
        since = start_of(case) or self.now - _LONGEST_LOOK_BACK
        if not self._activities_known(since):
            if self.evidence.activities_failed:
                return self._hold(case, Verdict.UNKNOWN, f"held: activities: {self.evidence.activities_failed}")
            self.suspects += 1
            return self._hold(case, Verdict.UNKNOWN, "held: its option activities have not been looked up yet")
        activity = next((a for a in self.evidence.activities if a.key == case.key and a.type in _OPTION_ENDS), None)
        ends = expiry(case.key)
        if activity is None and (ends is None or self.now < ends):
            return None
        reason = _OPTION_ENDS[activity.type] if activity is not None else "option_expired"
        lots = []
        if activity is not None and activity.type == "OPEXP":
            lots = [Lot("", case.side.closing, case.open_qty, ZERO, ends or self.now)]
        proof = f"activity {activity.type} of {activity.day}" if activity else "past its date and no longer held"
        return self._end_option(case, lots, reason, ends, proof)

    def _end_option(self, case: Case, lots: Sequence[Lot], reason: str, ends: datetime | None, why: str) -> Decision:
        if lots:
            decision = self._close_with(case, lots, why, reason)
            fields = {name: value for name, value in decision.fields.items() if name != "closeOrderId"}
        else:
            at = min(ends, self.now) if ends is not None else self.now
            fields = write.closed(reason, at, None, case.own)
        return self._change(case, Verdict.EXITED, Action.CLOSED, f"{reason}: {why}", fields, proof=[Proof(why, ends)])

    def _renamed(self, case: Case) -> str | None:
        """An orphan of the same side and quantity or cost: probably this trade under a new name."""
        price = entry_price(case)
        for orphan in self.orphans:
            position = orphan.position
            if position.side is not case.side or orphan.remainder:
                continue
            same_cost = (
                price is not None
                and position.avg_price is not None
                and within(price * case.open_qty, position.avg_price * orphan.qty, RENAME_TOLERANCE)
            )
            if within(orphan.qty, case.open_qty, RENAME_TOLERANCE) or same_cost:
                return f"it is gone, and {plain(orphan.qty)} {position.symbol} of the same size stand unexplained (rename?)"
        return None

    def _unexplained(self, case: Case) -> Decision:
        position = self.positions.get(case.key)
        held = f"{plain(position.qty)} {position.side.lower()}" if position is not None else "nothing"
        if case.share is Share.SHARED:
            return self._shared(case, held)
        if case.share is Share.SPLIT:
            return self._hold(case, Verdict.MISMATCH, f"it should hold {plain(case.open_qty)}, the broker holds {held} "
                              "at the same cost: a split?")  # fmt: skip
        if case.share is Share.OTHER_SIDE:
            return self._hold(case, Verdict.MISMATCH, f"it is {case.side.lower()}, the broker holds {held}")
        return self._hold(case, Verdict.MISMATCH, f"it should hold {plain(case.open_qty)}, the broker holds {held}, "
                          "and nothing explains the difference")  # fmt: skip

    def _shared(self, case: Case, held: str) -> Decision:
        """Several trades want more than there is; only fills tied to one of them settle it."""
        if not self._searched(case):
            return self._open_search(case)
        found = self._explanation(case)
        if found is not None:
            if found.whole:
                return self._close_with(case, found.lots, "closed by fills that no other trade can own")
            return self._reduced(case, found.lots, case.open_qty - sum((lot.qty for lot in found.lots), ZERO))
        if self._explanations(case):
            fields = write.live(case.trade, case.own, agrees_with_ledger=False)
            return self._change(case, Verdict.LIVE, Action.SYNCED, "what is left of the position is its own", fields)
        sharers = [c for c in self.groups[case.key] if c.share is Share.SHARED and c.side is case.side]
        parts = ", ".join(f"{c.trade.id}: {plain(c.open_qty)}" for c in sharers)
        return self._hold(case, Verdict.AMBIGUOUS, f"the broker holds {held}, these trades share it: {parts}; "
                          "settle it with `ghostclean resolve`")  # fmt: skip

    # ------------------------------------------------------------------ searching

    def _knows(self, case: Case) -> bool:
        """Whether the orders of the symbol since the entry, and the records that own them, are known."""
        return self._knows_orders(case) and case.key in self.world.closed

    def _knows_orders(self, case: Case) -> bool:
        known = self.evidence.history.get(case.key)
        return case.key in self.evidence.truncated or (known is not None and known <= self._search_from(case))

    def _searched(self, case: Case) -> bool:
        """Whether everything that could explain an absence is known; asks for what is missing.

        The symbol's orders come first: they usually explain everything and are one request.
        """
        since = self._search_from(case)
        if case.own.dormant:
            self.needs.update(dict.fromkeys(case.own.dormant))
            return False
        if not self._knows(case):
            if case.key not in self.world.closed:
                self.needs[RecordsOf(case.key)] = None
            if not self._knows_orders(case):
                self.needs[OrdersOf(case.key, self._symbol(case), since)] = None
            return False
        if self._explained_by_orders(case):
            return True
        if self.evidence.fills_since is None or self.evidence.fills_since > since:
            if self.evidence.fills_failed is None:
                self.needs[FillsSince(since)] = None
            return False
        return True

    def _search_from(self, case: Case) -> datetime:
        start = min(start_of(case) or self.now, case.opened)
        return max(start, self.now - _LONGEST_LOOK_BACK) - _LOOK_BACK

    def _symbol(self, case: Case) -> str:
        return case.own.last.symbol if case.own.last is not None and case.own.last.symbol else case.trade.symbol

    def _explained_by_orders(self, case: Case) -> bool:
        """Whether the symbol's orders alone explain the case, so that fills need not be paged.

        Only where the trade is proven: a trade without an order is judged by all there is.
        """
        return case.share is not Share.EMPTY and case.certain and bool(self._explanations(case))

    def _open_search(self, case: Case) -> Decision:
        failed = self.evidence.fills_failed
        self.suspects += 1
        why = f"fills: {failed}" if failed else "its orders and fills have not been looked up yet"
        return self._hold(case, Verdict.UNKNOWN, f"held: {why}")

    def _explanation(self, case: Case) -> Explained | None:
        return self._explanations(case).get(id(case))

    def _explanations(self, case: Case) -> dict[int, Explained]:
        identity = (case.key, case.side)
        if identity not in self._explained:
            free = self._free_fills(case)
            members = [c for c in self.groups[case.key] if c.side is case.side]
            gone = [c for c in members if c.share is Share.GONE]
            short = [c for c in members if c.share in (Share.SHORT, Share.SHARED)]
            if any(c.own.needs or c.own.unanswered for c in members) and len(members) > 1:
                # Somebody whose own orders are unknown may own these fills.
                found: dict[int, Explained] = {}
            elif short:
                found = explain_short(short, short[0].has, free)
            else:
                found = explain_gone(gone, free)
            self._explained[identity] = found
        return self._explained[identity]

    def _free_fills(self, case: Case) -> FreeFills:
        key = case.key
        if key not in self._free:
            self._free[key] = free_fills(
                key,
                self._orders(key),
                self._fills(key),
                self.evidence,
                self._owned_ids(),
                self.world.closed.get(key, ()),
            )
        return self._free[key]

    def _orders(self, key: str) -> list[Order]:
        if self._orders_of is None:
            self._orders_of = defaultdict(list)
            for order in sorted(self.evidence.orders.values(), key=lambda o: o.id):
                self._orders_of[order.key].append(order)
        return self._orders_of.get(key, [])

    def _fills(self, key: str) -> list[Fill]:
        if self._fills_of is None:
            self._fills_of = defaultdict(list)
            for fill in sorted(self.evidence.fills.values(), key=lambda f: (f.at, f.id)):
                self._fills_of[fill.key].append(fill)
        return self._fills_of.get(key, [])

    def _owned_ids(self) -> set[str]:
        """Order ids that some record names, or that an earlier run attributed to one."""
        if self._owned is None:
            owned = {i for case in self.cases for i in case.own.ids()}
            for trade in (*self.world.trades, *self.world.others):
                owned.update(order_ids(trade.record))
            for ids in self.world.memory.exits.values():
                owned.update(ids)
            self._owned = owned
        return self._owned

    def _is_owned(self, order: Order) -> bool:
        owned = self._owned_ids()
        ties = (order.id, order.client_id, order.parent, order.replaces, order.replaced_by)
        return any(tie in owned for tie in ties if tie) or parse_client_id(order.client_id) is not None

    def _activities_known(self, since: datetime) -> bool:
        known = self.evidence.activities_since
        since -= _LOOK_BACK
        if known is not None and known <= since:
            return True
        if self.evidence.activities_failed is None:
            self.needs[ActivitiesSince(since)] = None
        return False

    # ------------------------------------------------------------------ orphans

    def _find_orphans(self) -> list[Orphan]:
        """Positions, or parts of them, that no non-final record explains."""
        claims: dict[tuple[str, Side], Decimal] = defaultdict(Decimal)
        for trade in self.world.others:
            claims[trade.key, trade.side] += trade.size or ZERO
        for trade, _ in self.unreadable:
            claims[trade.key, trade.side] += trade.size or ZERO
        orphans: list[Orphan] = []
        for position in sorted(self.world.truth.positions, key=lambda p: p.key):
            cases = [c for c in self.groups.get(position.key, ()) if c.side is position.side]
            left = self.left.get((position.key, position.side), ZERO) if cases else position.qty
            left -= claims.get((position.key, position.side), ZERO) + self.claimed_legs.get(position.key, ZERO)
            if left <= 0 or is_dust(position) or (position.is_crypto and left < position.qty * Decimal("0.005")):
                continue
            remainder = any(c.share not in (Share.EMPTY, Share.CLOSED) for c in self.groups.get(position.key, ()))
            orphans.append(Orphan(position, left, remainder))
        return orphans

    # ------------------------------------------------------------------ evidence for people

    def _proof(self, case: Case) -> tuple[Proof, ...]:
        position = self.positions.get(case.key)
        at = self.world.truth.at
        if position is None:
            seen = Proof(f"no position in {case.key}", at)
        else:
            seen = Proof(f"position {position.symbol} {plain(position.qty)} {position.side}", at)
        orders = [_order_proof(o, "entry") for o in case.own.chain] + [_order_proof(o, "exit") for o in case.own.exits]
        if case.own.entry is Entry.ABSENT:
            name = case.trade.entry_order or case.trade.client_order
            orders.append(Proof(f"order {name} is unknown to the broker (404 by both ids)", at))
        return (seen, *orders)

    def _facts(self, case: Case) -> str:
        """A fingerprint of the broker facts about one trade."""
        position = self.positions.get(case.key)
        held = f"{position.side}{plain(position.qty)}" if position is not None else "-"
        orders = sorted(f"{o.id}:{o.status}:{plain(o.filled_qty)}" for o in (*case.own.chain, *case.own.exits))
        return "|".join((held, case.own.entry.name, *orders))


def _readable(trades: Sequence[Trade]) -> tuple[list[Trade], list[tuple[Trade, str]]]:
    """Splits off trades with a defect; an id that is used twice names nobody."""
    count: dict[str | None, int] = defaultdict(int)
    for trade in trades:
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
    """Orders that carry our own client order ids, by trade id; only exits count."""
    found: dict[str, list[Order]] = defaultdict(list)
    for client_id, order_id in evidence.by_client.items():
        ours = parse_client_id(client_id)
        order = evidence.orders.get(order_id)
        if ours is not None and ours.trade in tags and order is not None:
            found[tags[ours.trade]].append(order)
    return found


def initial_stop(case: Case) -> Decimal | None:
    """The stop that 1R is measured by, never a moved one.

    `initialStopPrice`, `originalStopPrice`, the first order of the stop's chain, else
    `stopPrice` of a trade that no engine has managed yet.
    """
    trade = case.trade
    if trade.initial_stop is not None:
        return trade.initial_stop
    first = [o for o in case.own.exits if o.is_stop and o.stop_price is not None and o.replaces is None]
    if first:
        return min(first, key=lambda o: (o.submitted_at is None, o.submitted_at, o.id)).stop_price
    return None if trade.is_managed else trade.stop_price


def _with(decision: Decision, action: Action, reason: str) -> Decision:
    return Decision(
        decision.trade_id,
        decision.ticker,
        decision.verdict,
        action,
        reason,
        decision.proof,
        base=decision.base,
        facts=decision.facts,
    )


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


def _ago(span: timedelta) -> str:
    return f"{max(0, span.total_seconds()):.0f} s ago"
