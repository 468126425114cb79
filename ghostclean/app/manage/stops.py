"""Keeps one trade's stop: places a missing one, moves a loose one, renews an ageing one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.app.gateway.gateway import REST, OrderGateway
from ghostclean.app.gateway.sending import Answer, Outcome
from ghostclean.app.manage.closer import Closer, CloseState, CloseTarget
from ghostclean.app.manage.trade_journal import TradeJournal
from ghostclean.app.manage.trades import ManagedTrade
from ghostclean.core.attention import Kind
from ghostclean.core.broker import ZERO, Order, OrderGraph, plain
from ghostclean.core.protection import (
    BegunClose,
    ManagePolicy,
    Risk,
    Rule,
    StopTarget,
    ages_out,
    aim,
    is_fresh_sale,
    is_replaceable_now,
    is_through,
    is_tighter,
    last_stop,
    on_tick,
    own_ids,
    remaining,
    renewed,
    why_fixed,
)

_REFUSED_IN_A_ROW = 3
_REST_AFTER_REFUSALS = timedelta(hours=1)


@dataclass(slots=True)
class StopOutcome:
    """What keeping a stop came to: ledger fields, and what failed.

    `cut`: the market is through the stop, close the trade. `over`: the position went meanwhile, book the trade.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    updated: bool = False
    action: str = "managed"
    reason: str = "price and result refreshed"
    proof: Mapping[str, Any] = field(default_factory=dict)
    failed: str | None = None
    cut: bool = False
    over: bool = False


def stop_fields(known: OrderGraph, answer: Answer) -> tuple[dict[str, Any], str]:
    """The ledger fields of a stop as read back (an OCO's is its leg), and the same in words."""
    order = answer.order
    if order is None:
        would = answer.request.get("stopPrice")
        return {}, f": would be at {would}" if would is not None else ""
    stop = next((leg for i in order.legs if (leg := known.get(i)) is not None), order)
    fields: dict[str, Any] = {"takeProfitOrderId": order.id} if order.legs else {}
    if answer.request.get("purpose") != REST:  # the ledger names the stop that covers the most
        fields |= {"stopOrderId": stop.id, "stopPrice": stop.stop_price}
    return fields, f": {stop.id} at {plain(stop.stop_price) if stop.stop_price else '?'}"


@dataclass(frozen=True, slots=True)
class StopKeeper:
    """Places, moves and renews the stops of one run."""

    gateway: OrderGateway
    journal: TradeJournal
    policy: ManagePolicy
    closer: Closer
    grace: timedelta

    def keep(self, managed: ManagedTrade) -> StopOutcome:
        """Does what this trade's stop needs; raises BrokerError and DeadlineExceeded."""
        naked = managed.protection.is_naked
        bare = "; it is naked" if naked else ""
        if naked and (managed.price is None or managed.risk is None):
            self.journal.need(Kind.NAKED, managed.trade, "no price, or no entry price, to place its stop by")
        if managed.price is None:
            self.journal.note(managed.trade, f"no price, left alone{bare}")
            return StopOutcome()
        if managed.risk is None:
            self.journal.note(managed.trade, f"its entry price is unknown, left alone{bare}")
            return StopOutcome()
        if managed.risk.wrong_side:
            return self._wrong_side(managed, managed.risk.problem or "")
        if managed.risk.problem is not None:
            self.journal.once(managed.trade, f"{managed.risk.problem}: its stop is kept, no rule of R applies")
        keep = self._cover if naked else self._tighten
        return keep(managed, managed.risk, managed.price.value)

    def _wrong_side(self, managed: ManagedTrade, why: str) -> StopOutcome:
        """No stop and no risk: sent, it would be a market order. Only a person knows what was meant."""
        if managed.protection.is_naked:
            return self._naked(managed, why)
        self.journal.note(managed.trade, f"wrong_stop: {why}; the stop that works is left alone")
        self.journal.need(Kind.STOP, managed.trade, why)
        self.journal.tell(managed.trade, "wrong_stop", why, {})
        return StopOutcome(failed="wrong_stop")

    def _may_close(self, managed: ManagedTrade) -> bool:
        return self.gateway.market.may_close(managed.is_crypto, self.gateway.now())

    # ------------------------------------------------------------------ a missing stop

    def _cover(self, managed: ManagedTrade, risk: Risk, price: Decimal) -> StopOutcome:
        waits = self._why_wait(managed)
        if waits is not None:
            self.journal.note(managed.trade, f"naked: {waits}")
            if managed.protection.entry_works:
                self.journal.need(Kind.NAKED, managed.trade, waits)
            return StopOutcome()
        wanted = self._wanted(managed, risk, price)
        if wanted.crossed is not None:
            return self._through(managed, wanted.crossed, price)
        if wanted.price is None:
            return self._naked(managed, "no stop price is known for it, or the last one is through the market")
        if self._rests_after_refusals(managed, wanted.price):
            return self._naked(managed, "the broker refuses its stop; tried again once an hour")
        if managed.protection.targets and not managed.protection.stops:
            return self._stop_beside_target(managed, wanted.price)
        return self._placed(managed, self._send_missing(managed, wanted.price), "stop_placed", wanted.rule)

    def _send_missing(self, managed: ManagedTrade, price: Decimal) -> Answer:
        order = self._growable(managed)
        if order is None:
            return self.gateway.place_stop(managed.exposure, price, least=managed.protection.covered, shared=True)
        if order.stop_price is not None and is_tighter(managed.side, order.stop_price, price):
            price = order.stop_price
        return self.gateway.move(managed.exposure, order, price, qty=managed.qty)

    def _why_wait(self, managed: ManagedTrade) -> str | None:
        protection = managed.protection
        if protection.entry_works:
            return "its entry is filled in part and still works; a stop beside it would be a wash trade"
        if any(o.status == "pending_cancel" or not o.is_stop for o in protection.waiting):
            return protection.why
        if protection.stops:
            return None
        ended = self._last_stop(managed)
        if ended is not None and ended.status == "canceled" and ended.last_time is not None:
            age = self.gateway.now() - ended.last_time
            if age < self.grace:
                return f"its stop was cancelled {age.total_seconds():.0f} s ago, within the grace"
        return None

    def _last_stop(self, managed: ManagedTrade) -> Order | None:
        known = self.gateway.known
        return last_stop(managed.holding, known, own_ids(managed.holding, known))

    def _wanted(self, managed: ManagedTrade, risk: Risk, price: Decimal) -> StopTarget:
        ledger = managed.trade.stop_price
        if ledger is None:
            ended = self._last_stop(managed)
            ledger = ended.stop_price if ended is not None and ended.stop_price else managed.holding.initial_stop
        increment = self.gateway.looker.increment(managed.exposure)
        return aim(risk, price, self.policy, ledger_stop=ledger, broker_stop=None, increment=increment)

    def _through(self, managed: ManagedTrade, stop: Decimal, price: Decimal) -> StopOutcome:
        """A stop the market has passed is never sent: it would be a market order in disguise."""
        what = f"its stop {plain(stop)} is through the market ({plain(price)})"
        sale = managed.price
        if (
            self.policy.cut_loss_enabled
            and sale is not None
            and is_fresh_sale(sale.at, sale.is_trade, self.gateway.now())
            and managed.own_price is not None
            and is_through(managed.side, stop, managed.own_price)
            and self._may_close(managed)
        ):
            return StopOutcome(cut=True, reason=what)
        return self._naked(managed, what)

    def _growable(self, managed: ManagedTrade) -> Order | None:
        stops = managed.protection.stops
        if len(stops) != 1 or managed.protection.shared:
            return None
        order = stops[0]
        whole = managed.qty == managed.qty.to_integral_value()
        plain_stop = order.order_class in ("", "simple") and order.type != "trailing_stop"
        fits = whole and plain_stop and not managed.is_crypto and why_fixed(order) is None and is_replaceable_now(order)
        return order if fits else None

    def _stop_beside_target(self, managed: ManagedTrade, stop: Decimal) -> StopOutcome:
        """The trade's own target holds the shares: both go in as one OCO, and a stop for what it leaves."""
        target, has = managed.protection.targets[0], managed.qty
        qty = min(remaining(target, has), has)
        why = self._why_no_swap(managed, target, qty)
        if why is not None:
            return self._naked(managed, why)
        begun = BegunClose.of_swap(managed.exposure, self.gateway.now(), stop, target, qty)
        self.closer.remember(managed.name, begun)
        found = self.closer.swap(CloseTarget(managed.exposure, [target]), begun)
        if found.stop is None:
            return self._naked(managed, found.reason)
        outcome = self._placed(managed, found.stop, "stop_placed", Rule.LEDGER)
        if found.stop.outcome not in (Outcome.UNKNOWN, Outcome.BLOCKED):
            self.closer.forget(managed.name)  # else the next run goes on with it
        if found.state is CloseState.NAKED and outcome.failed is None:
            outcome.failed = self._naked(managed, found.reason).failed
        return outcome

    def _why_no_swap(self, managed: ManagedTrade, target: Order, qty: Decimal) -> str | None:
        has, held = managed.qty, f"its own target {target.id} holds the shares"
        whole = all(n == n.to_integral_value() for n in (has, qty)) and not managed.is_crypto
        if not whole or target.limit_price is None or len(managed.protection.targets) > 1:
            return f"{held} and cannot share an order with a stop"
        if not self._may_close(managed):
            return f"{held}; changed when the market is open"
        free = self.gateway.free_without(managed.exposure, {target.id})
        return f"only {plain(max(free, ZERO))} would be free without its own target {target.id}" if free < has else None

    def _placed(self, managed: ManagedTrade, answer: Answer, action: str, rule: Rule | None) -> StopOutcome:
        stops = {o.id for o in managed.protection.stops}
        if answer.order is not None and answer.order.id in stops and not answer.request:
            covered = plain(managed.protection.covered)
            return self._naked(managed, f"stop {answer.order.id} covers only {covered} of it")
        if answer.is_done:
            self.journal.of(managed.trade).pop("refused", None)
            return self._stands(managed, answer, action, rule)
        if answer.outcome is Outcome.MOOT:
            self.journal.note(managed.trade, answer.reason)
            return StopOutcome(over=True)
        if answer.outcome is Outcome.REFUSED:
            self._count_refusal(managed, answer)
        if answer.outcome is Outcome.CROSSED:
            return self._naked(managed, answer.reason)
        return self._naked(managed, f"{answer.outcome}: {answer.reason}", answer)

    def _stands(self, managed: ManagedTrade, answer: Answer, action: str, rule: Rule | None) -> StopOutcome:
        fields, where = stop_fields(self.gateway.known, answer)
        said = f"{action.replace('_', ' ')} ({rule}, {answer.outcome}){where}"
        self.journal.note(managed.trade, said)
        return StopOutcome(fields, True, action, said, answer.request)

    def _naked(self, managed: ManagedTrade, why: str, answer: Answer | None = None) -> StopOutcome:
        foreign = managed.protection.foreign
        if foreign:
            orders = ", ".join(f"{o.id} ({o.side} {o.type} {plain(remaining(o, o.filled_qty))})" for o in foreign)
            why = f"{why}; closing orders that no trade owns: {orders}"
        self.journal.flag(Kind.NAKED, managed.trade, why)
        self.journal.tell(managed.trade, "naked", why, answer.request if answer is not None else {})
        return StopOutcome(failed="naked")

    # ------------------------------------------------------------------ refusals

    def _count_refusal(self, managed: ManagedTrade, answer: Answer) -> None:
        memory = self.journal.of(managed.trade)
        price = answer.request.get("stopPrice")
        before = memory.get("refused")
        count = before["count"] + 1 if isinstance(before, dict) and before.get("price") == price else 1
        memory["refused"] = {"price": price, "count": count, "at": self.gateway.now().isoformat()}

    def _rests_after_refusals(self, managed: ManagedTrade, price: Decimal) -> bool:
        before = self.journal.of(managed.trade).get("refused")
        if not isinstance(before, dict) or before.get("price") != plain(price) or before["count"] < _REFUSED_IN_A_ROW:
            return False
        return self.gateway.now() - datetime.fromisoformat(before["at"]) < _REST_AFTER_REFUSALS

    # ------------------------------------------------------------------ a stop that works

    def _tighten(self, managed: ManagedTrade, risk: Risk, price: Decimal) -> StopOutcome:
        own = managed.protection.own_stops
        if not own:
            return StopOutcome()
        stop, ledger = own[0], managed.trade.stop_price
        increment = self.gateway.looker.increment(managed.exposure)
        outcome = StopOutcome()
        for order in own:
            wanted = aim(
                risk, price, self.policy, ledger_stop=ledger, broker_stop=order.stop_price, increment=increment
            )
            if wanted.crossed is not None and order is stop:
                crossed = plain(wanted.crossed)
                self.journal.note(managed.trade, f"the ledger's stop {crossed} is through the market: not sent")
                self.journal.need(Kind.STOP, managed.trade, f"the ledger's stop {crossed} is through the market")
            outcome = self._keep_one(managed, order, wanted, price, outcome)
        current = outcome.fields.get("stopPrice", stop.stop_price)
        outcome.fields = self._as_it_stands(managed, stop, current, increment) | outcome.fields
        return outcome

    def _keep_one(
        self, managed: ManagedTrade, order: Order, wanted: StopTarget, price: Decimal, outcome: StopOutcome
    ) -> StopOutcome:
        target, rule, qty = self._change_of(managed, order, wanted, price)
        fixed, memory = why_fixed(order), self.journal.of(managed.trade)
        # Once it was to be moved it stays an item: a price that comes and goes must not begin and end it.
        if fixed is not None and (target is not None or memory.get("fixed") == order.id):
            memory["fixed"] = order.id
            self.journal.once(managed.trade, f"stop {order.id} is left as it is: {fixed}")
            self.journal.need(Kind.STOP, managed.trade, f"stop {order.id} cannot be moved: {fixed}")
            return outcome
        if target is None:
            return outcome
        answer = self.gateway.move(managed.exposure, order, target, qty=qty)
        if answer.is_done:
            moved = self._stands(managed, answer, "stop_moved", rule)
            return replace(moved, fields=outcome.fields | moved.fields) if outcome.updated else moved
        if answer.outcome is Outcome.MOOT or (answer.order is not None and answer.order.status == "filled"):
            outcome.over = True
        self.journal.note(managed.trade, f"stop {order.id} not moved: {answer.outcome}: {answer.reason}")
        self.journal.need(Kind.STOP, managed.trade, f"stop {order.id} not moved: {answer.reason}")
        self.journal.tell(managed.trade, "stop_not_moved", answer.reason, answer.request)
        return outcome

    def _change_of(
        self, managed: ManagedTrade, order: Order, wanted: StopTarget, price: Decimal
    ) -> tuple[Decimal | None, Rule | None, Decimal | None]:
        """The price, its rule and the quantity that a working stop should get; no price, no change."""
        target, rule = (wanted.price, wanted.rule) if wanted.send else (None, None)
        qty = self._too_many(managed, order)
        if target is None and ages_out(order, self.gateway.now()) and order.stop_price is not None:
            target, rule = renewed(managed.side, order.stop_price, price), Rule.BROKER
        if target is None and qty is not None:
            target = order.stop_price
        return target, rule, qty

    def _too_many(self, managed: ManagedTrade, order: Order) -> Decimal | None:
        has = managed.qty
        whole = has == has.to_integral_value() and has > 0
        plain_stop = order.order_class in ("", "simple") and not managed.is_crypto
        lonely = plain_stop and len(managed.protection.stops) == 1
        # In a closed market stops are placed and tightened, nothing else; the next open comes with a run.
        return has if lonely and whole and remaining(order, has) > has and self._may_close(managed) else None

    def _as_it_stands(
        self, managed: ManagedTrade, stop: Order, price: Decimal | None, increment: Decimal | None
    ) -> dict[str, Any]:
        trade = managed.trade
        fields: dict[str, Any] = {}
        if not any(trade.stop_order in (o.id, o.client_id) for o in managed.protection.own_stops):
            fields["stopOrderId"] = stop.id
        if price is not None and stop.type != "trailing_stop":
            known = on_tick(managed.side, trade.stop_price, increment) if trade.stop_price is not None else None
            if known is None or is_tighter(managed.side, price, known):
                fields["stopPrice"] = price
        return fields
