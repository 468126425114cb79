"""Keeps one trade's stop: places a missing one, moves a loose one, renews an ageing one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.app.manage.books import Books
from ghostclean.app.manage.work import Work
from ghostclean.app.order_door import REST, Answer, OrderDoor, Outcome
from ghostclean.core.broker import ZERO, Order, plain
from ghostclean.core.manage import Manage
from ghostclean.core.protection import ages_out, is_replaceable_now, last_stop, own_ids, remaining, why_fixed
from ghostclean.core.stops import Aim, Risk, Rule, aim, is_fresh_sale, is_through, is_tighter, on_tick, renewed

_REFUSED_IN_A_ROW = 3
_REST_AFTER_REFUSALS = timedelta(hours=1)
_CANCEL_SECONDS = 5.0


@dataclass(slots=True)
class Kept:
    """What keeping a stop came to: ledger fields, whether anything changed, and what failed.

    `cut` asks for the position to be closed: its stop is through the market already. `crossed`: the
    market passed the stop in the moment in which it was to be sent. `over`: the
    position went while we worked (its stop was filled), and the trade has to be booked.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    updated: bool = False
    action: str = "managed"
    reason: str = "price and result refreshed"
    proof: Mapping[str, Any] = field(default_factory=dict)
    failed: str | None = None
    cut: bool = False
    crossed: bool = False
    over: bool = False


class StopKeeper:
    """Places, moves and renews the stops of one run."""

    def __init__(
        self,
        door: OrderDoor,
        books: Books,
        manage: Manage,
        *,
        grace: timedelta,
        now: Callable[[], datetime],
        may_close: Callable[[Work], bool],
    ) -> None:
        self._door = door
        self._books = books
        self._manage = manage
        self._grace = grace
        self._now = now
        self._may_close = may_close

    def keep(self, work: Work) -> Kept:
        """Does what this trade's stop needs; raises BrokerError and DeadlineExceeded."""
        naked = work.protection.is_naked
        if work.price is None:
            self._books.note(work.holding, f"no price, left alone{'; it is naked' if naked else ''}")
            return Kept()
        if work.risk is None:
            self._books.note(work.holding, f"its entry price is unknown, left alone{'; it is naked' if naked else ''}")
            return Kept()
        if work.risk.problem is not None:
            self._books.once(work.holding, f"{work.risk.problem}: its stop is kept, no rule of R applies")
        return (
            self._cover(work, work.risk, work.price.value)
            if naked
            else self._tighten(work, work.risk, work.price.value)
        )

    # ------------------------------------------------------------------ a missing stop

    def _cover(self, work: Work, risk: Risk, price: Decimal) -> Kept:
        waits = self._why_wait(work)
        if waits is not None:
            self._books.note(work.holding, f"naked: {waits}")
            return Kept()
        wanted = self._wanted(work, risk, price)
        if wanted.crossed is not None:
            return self._through(work, wanted.crossed, price)
        if wanted.price is None:
            return self._naked(work, "no stop price is known for it, or the last one is through the market")
        if self._rests_after_refusals(work, wanted.price):
            return self._naked(work, "the broker refuses its stop; tried again once an hour")
        if work.protection.targets and not work.protection.stops:
            return self._stop_beside_target(work, wanted.price)
        return self._placed(work, self._send_missing(work, wanted.price), "stop_placed", wanted.rule)

    def _send_missing(self, work: Work, price: Decimal) -> Answer:
        """A larger quantity for the stop there is, the OCO a killed run left undone, or a new stop."""
        if (order := self._growable(work)) is not None:
            price = self._not_looser(work, price, order)
            return self._door.move(work.claim, order, price, qty=work.holding.open_qty)
        memory = self._books.of(work.holding)
        if (target := memory.get("target")) is not None and not work.protection.stops:
            most = memory.get("targetQty")
            return self._door.place_oco(work.claim, price, Decimal(target), most=Decimal(most) if most else None)
        return self._door.place_stop(work.claim, price, least=work.protection.covered)

    def _why_wait(self, work: Work) -> str | None:
        """Why a missing stop must not be placed in this run, though it is missing."""
        protection = work.protection
        if protection.entry_works:
            return "its entry is filled in part and still works; a stop beside it would be a wash trade"
        if any(o.status == "pending_cancel" or not o.is_stop for o in protection.waiting):
            return protection.why
        if protection.stops:
            return None
        ended = last_stop(work.holding, self._door.book, own_ids(work.holding, self._door.book))
        if ended is not None and ended.status == "canceled" and ended.last_time is not None:
            age = self._now() - ended.last_time
            if age < self._grace and not self._books.of(work.holding).get("target"):
                return f"its stop was cancelled {age.total_seconds():.0f} s ago, within the grace"
        return None

    def _wanted(self, work: Work, risk: Risk, price: Decimal) -> Aim:
        """The ledger's stop or a tighter rule; without a ledger stop the last one that worked."""
        ledger = work.holding.trade.stop_price
        if ledger is None:
            ended = last_stop(work.holding, self._door.book, own_ids(work.holding, self._door.book))
            ledger = ended.stop_price if ended is not None and ended.stop_price else work.holding.initial_stop
        increment = self._door.increment(work.claim)
        return aim(risk, price, self._manage, ledger_stop=ledger, broker_stop=None, increment=increment)

    def _through(self, work: Work, stop: Decimal, price: Decimal) -> Kept:
        """A stop the market has passed is never sent: it would be a market order in disguise."""
        what = f"its stop {plain(stop)} is through the market ({plain(price)})"
        sale = work.price
        if (
            self._manage.cut_loss_enabled
            and sale is not None
            and is_fresh_sale(sale.at, sale.is_trade, self._now())
            and work.own_price is not None
            and is_through(work.side, stop, work.own_price)
            and self._may_close(work)
        ):
            return Kept(cut=True, reason=what)
        return self._naked(work, what)

    def _growable(self, work: Work) -> Order | None:
        """The one plain stop that is too small and can be given more shares."""
        stops = work.protection.stops
        if len(stops) != 1 or work.protection.shared:
            return None
        order = stops[0]
        whole = work.holding.open_qty == work.holding.open_qty.to_integral_value()
        plain_stop = order.order_class in ("", "simple") and order.type != "trailing_stop"
        fits = whole and plain_stop and not work.claim.crypto and why_fixed(order) is None and is_replaceable_now(order)
        return order if fits else None

    def _not_looser(self, work: Work, price: Decimal, order: Order) -> Decimal:
        if order.stop_price is not None and is_tighter(work.side, order.stop_price, price):
            return order.stop_price
        return price

    def _stop_beside_target(self, work: Work, stop: Decimal) -> Kept:
        """The trade's own target holds the shares: both go in as one OCO, and a stop for what it leaves."""
        target, has = work.protection.targets[0], work.holding.open_qty
        qty = min(remaining(target, has), has)
        whole = all(n == n.to_integral_value() for n in (has, qty))
        if work.claim.crypto or not whole or target.limit_price is None or len(work.protection.targets) > 1:
            return self._naked(
                work, f"its own target {target.id} holds the shares and cannot share an order with a stop"
            )
        if not self._may_close(work):
            return self._naked(work, f"its own target {target.id} holds the shares; changed when the market is open")
        if (free := self._door.free_without(work.claim, {target.id})) < has:
            return self._naked(work, f"only {plain(max(free, ZERO))} would be free without its own target {target.id}")
        self._books.of(work.holding).update(target=plain(target.limit_price), targetQty=plain(qty))
        self._books.keep_now(work.holding)
        left = self._door.cancel(work.claim, [target], _CANCEL_SECONDS, "makes room for one OCO")
        if left:
            return self._naked(work, f"its target {target.id} is still {left[0].status}: it holds the shares")
        answer, covered = self._door.place_oco(work.claim, stop, target.limit_price, most=qty), qty
        if not answer.is_done and answer.outcome is not Outcome.UNKNOWN:
            self._books.note(work.holding, f"the OCO was not placed ({answer.reason}): the stop alone goes in")
            answer, covered = self._door.place_stop(work.claim, stop), has
        if answer.is_done:
            self._forget_target(work)
        kept = self._placed(work, answer, "stop_placed", Rule.LEDGER)
        if not answer.is_done or covered == has:
            return kept
        rest = self._placed(work, self._door.place_stop(work.claim, stop, least=qty), "stop_placed", Rule.LEDGER)
        return replace(kept, failed=rest.failed, crossed=rest.crossed, over=rest.over)

    def _forget_target(self, work: Work) -> None:
        for name in ("target", "targetQty"):
            self._books.of(work.holding).pop(name, None)

    def put_back(self, work: Work, stop: Decimal, target: Decimal | None) -> Kept:
        """The stop (and the target) a trade had before its close was tried; no grace is waited for."""
        return self._placed(work, self._door.put_back(work.claim, stop, target), "stop_restored", Rule.BROKER)

    def _placed(self, work: Work, answer: Answer, action: str, rule: Rule | None) -> Kept:
        if answer.order is not None and answer.order.id in {o.id for o in work.protection.stops} and not answer.request:
            return self._naked(work, f"stop {answer.order.id} covers only {plain(work.protection.covered)} of it")
        if answer.is_done:
            self._books.of(work.holding).pop("refused", None)
            return self._stands(work, answer, action, rule)
        if answer.outcome is Outcome.MOOT:
            self._books.note(work.holding, answer.reason)
            return Kept(over=True)
        if answer.outcome is Outcome.REFUSED:
            self._count_refusal(work, answer)
        if answer.outcome is Outcome.CROSSED:
            self._naked(work, answer.reason)
            return Kept(failed="naked", crossed=True)
        return self._naked(work, f"{answer.outcome}: {answer.reason}", answer)

    def _stands(self, work: Work, answer: Answer, action: str, rule: Rule | None) -> Kept:
        """The stop as it was read back, for the ledger; an OCO's stop is its leg."""
        order = answer.order
        said = f"{action.replace('_', ' ')} ({rule}, {answer.outcome})"
        fields: dict[str, Any] = {}
        if order is not None:
            stop = next((self._door.book.orders[i] for i in order.legs if i in self._door.book.orders), order)
            if order.legs:
                fields["takeProfitOrderId"] = order.id
            if answer.request.get("purpose") != REST:  # the ledger names the stop that covers the most
                fields |= {"stopOrderId": stop.id, "stopPrice": stop.stop_price}
            said = f"{said}: {stop.id} at {plain(stop.stop_price) if stop.stop_price else '?'}"
        elif "stopPrice" in answer.request:
            said = f"{said}: would be at {answer.request['stopPrice']}"
        self._books.note(work.holding, said)
        return Kept(fields, True, action, said, answer.request)

    def _naked(self, work: Work, why: str, answer: Answer | None = None) -> Kept:
        foreign = work.protection.foreign
        if foreign:
            orders = ", ".join(f"{o.id} ({o.side} {o.type} {plain(remaining(o, o.filled_qty))})" for o in foreign)
            why = f"{why}; closing orders that no trade owns: {orders}"
        self._books.note(work.holding, f"naked: {why}")
        self._books.tell(work.holding, "naked", why, answer.request if answer is not None else {})
        return Kept(failed="naked")

    # ------------------------------------------------------------------ refusals

    def _count_refusal(self, work: Work, answer: Answer) -> None:
        memory = self._books.of(work.holding)
        price = answer.request.get("stopPrice")
        before = memory.get("refused")
        count = before["count"] + 1 if isinstance(before, dict) and before.get("price") == price else 1
        memory["refused"] = {"price": price, "count": count, "at": self._now().isoformat()}

    def _rests_after_refusals(self, work: Work, price: Decimal) -> bool:
        """Three refusals of the same stop in a row: the next try is an hour later."""
        before = self._books.of(work.holding).get("refused")
        if not isinstance(before, dict) or before.get("price") != plain(price) or before["count"] < _REFUSED_IN_A_ROW:
            return False
        return self._now() - datetime.fromisoformat(before["at"]) < _REST_AFTER_REFUSALS

    # ------------------------------------------------------------------ a stop that works

    def _tighten(self, work: Work, risk: Risk, price: Decimal) -> Kept:
        own = work.protection.own_stops
        if not own:
            return Kept()
        stop = own[0]
        self._forget_target(work)
        increment = self._door.increment(work.claim)
        kept = Kept()
        for order in own:
            wanted = aim(
                risk,
                price,
                self._manage,
                ledger_stop=work.holding.trade.stop_price,
                broker_stop=order.stop_price,
                increment=increment,
            )
            if wanted.crossed is not None and order is stop:
                crossed = plain(wanted.crossed)
                self._books.note(work.holding, f"the ledger's stop {crossed} is through the market: not sent")
            kept = self._keep_one(work, order, wanted, price, kept)
        current = kept.fields.get("stopPrice", stop.stop_price)
        kept.fields = self._as_it_stands(work, stop, current, increment) | kept.fields
        return kept

    def _keep_one(self, work: Work, order: Order, wanted: Aim, price: Decimal, kept: Kept) -> Kept:
        """Moves, resizes or renews one working stop."""
        target, rule = (wanted.price, wanted.rule) if wanted.send else (None, None)
        qty = self._too_many(work, order)
        if target is None and ages_out(order, self._now()) and order.stop_price is not None:
            target, rule = renewed(work.side, order.stop_price, price), Rule.BROKER
        price_wanted = target if target is not None else order.stop_price if qty is not None else None
        if price_wanted is None:
            return kept
        fixed = why_fixed(order)
        if fixed is not None:
            self._books.once(work.holding, f"stop {order.id} is left as it is: {fixed}")
            return kept
        answer = self._door.move(work.claim, order, price_wanted, qty=qty)
        if answer.is_done:
            moved = self._stands(work, answer, "stop_moved", rule)
            return replace(moved, fields=kept.fields | moved.fields) if kept.updated else moved
        if answer.outcome is Outcome.MOOT or (answer.order is not None and answer.order.status == "filled"):
            kept.over = True
        self._books.note(work.holding, f"stop {order.id} not moved: {answer.outcome}: {answer.reason}")
        self._books.tell(work.holding, "stop_not_moved", answer.reason, answer.request)
        return kept

    def _too_many(self, work: Work, order: Order) -> Decimal | None:
        """The smaller quantity for a plain stop that would sell more than the trade has."""
        has = work.holding.open_qty
        left = remaining(order, has)
        whole = has == has.to_integral_value() and has > 0
        lonely = len(work.protection.stops) == 1 and order.order_class in ("", "simple") and not work.claim.crypto
        # In a closed market stops are placed and tightened, nothing else; the next open comes with a run.
        return has if lonely and whole and left > has and self._may_close(work) else None

    def _as_it_stands(
        self, work: Work, stop: Order, price: Decimal | None, increment: Decimal | None
    ) -> dict[str, Any]:
        """Ledger fields that the broker knows better: which stop it is, and a tighter price."""
        trade = work.holding.trade
        fields: dict[str, Any] = {}
        if not any(trade.stop_order in (o.id, o.client_id) for o in work.protection.own_stops):
            fields["stopOrderId"] = stop.id
        if price is not None and stop.type != "trailing_stop":
            known = on_tick(work.side, trade.stop_price, increment) if trade.stop_price is not None else None
            if known is None or is_tighter(work.side, price, known):
                fields["stopPrice"] = price
        return fields
