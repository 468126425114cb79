"""Closes a trade's position, and finishes or takes back what a killed run left half done.

Steps of one close: remember the intent, cancel what holds the shares, wait until they are free,
close, verify. Whatever stops it on the way, the stop goes back at once; the intent is forgotten
only when the position is closed or protected again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.manage.books import FLATTEN, Books, Entry
from ghostclean.app.manage.stops import StopKeeper
from ghostclean.app.manage.work import Work
from ghostclean.app.order_door import Answer, Claim, OrderDoor, Outcome
from ghostclean.app.ports import State
from ghostclean.core.broker import CRYPTO_DUST, ZERO, Order, Side, eastern_date, iso, parse_time, plain
from ghostclean.core.market import Market
from ghostclean.core.protection import remaining
from ghostclean.errors import BrokerError, StateFailed

CUT = "cut"
EOD = "eod"
REASONS = {CUT: "cut_loss", EOD: "eod_flatten"}
NEEDS_SECONDS = 20.0  # of deadline, for one close from its first cancel to its verified end
_CANCEL_SECONDS = 6.0
_FILL_SECONDS = 6.0
_LAG = timedelta(minutes=2)  # how long a position may still show what a fill has taken
_SKEW = timedelta(seconds=5)  # between the broker's answers and its order times


@dataclass(frozen=True, slots=True)
class Closing:
    """What one close came to: `done` filled completely, `failed` why it was not.

    Neither: it waits, in progress (`order`) or, with `begun` false, untouched for a later run;
    or the position went before we could close it (`over`).
    """

    done: bool = False
    failed: str | None = None
    order: Order | None = None
    begun: bool = True
    over: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """A close that was begun: why, when, and the stop and target it took away."""

    purpose: str
    at: datetime
    stop: Decimal | None
    target: Decimal | None
    symbol: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "purpose": self.purpose,
            "at": iso(self.at),
            "stop": plain(self.stop) if self.stop is not None else None,
            "target": plain(self.target) if self.target is not None else None,
            "symbol": self.symbol,
        }

    @classmethod
    def parse(cls, raw: object) -> Intent | None:
        if not isinstance(raw, Mapping) or raw.get("purpose") not in REASONS:
            return None
        at = parse_time(raw.get("at"))
        if at is None:
            return None
        stop, target = (Decimal(v) if (v := raw.get(name)) else None for name in ("stop", "target"))
        return cls(str(raw["purpose"]), at, stop, target, str(raw.get("symbol", "")))


class Flattener:
    """Closes trades of one run, each to its end."""

    def __init__(
        self,
        door: OrderDoor,
        books: Books,
        keeper: StopKeeper,
        state: State,
        market: Market,
        deadline: Deadline,
        now: Callable[[], datetime],
    ) -> None:
        self.intents: dict[str, Intent] = {}
        self._door = door
        self._books = books
        self._keeper = keeper
        self._state = state
        self._market = market
        self._deadline = deadline
        self._now = now

    # ------------------------------------------------------------------ one close

    def close(self, work: Work, purpose: str, why: str) -> Closing:
        """Closes one trade now; raises BrokerError and DeadlineExceeded with the intent kept."""
        if self._deadline.left() < NEEDS_SECONDS:
            self._books.note(
                work.holding, f"{REASONS[purpose]} waits: less than {NEEDS_SECONDS:.0f} s of deadline are left"
            )
            return Closing(begun=False)
        working = [o for o in work.protection.waiting if not o.is_stop]
        if working:
            self._books.note(work.holding, f"its closing order {working[0].id} is {working[0].status}: in progress")
            return Closing(order=working[0])
        refused = self._door.why_not_close(work.claim, _own(work))
        if refused is not None:
            self._books.note(work.holding, f"{REASONS[purpose]} not started: {refused}")
            self._books.tell(work.holding, f"{REASONS[purpose]}_blocked", refused, {})
            return Closing(begun=False)
        intent = Intent(purpose, self._now(), self._stop_price(work), self._target_price(work), work.claim.symbol)
        self._remember(work, intent)
        self._books.note(work.holding, f"{REASONS[purpose]}: {why}")
        facts = {"quantity": plain(work.holding.open_qty), "price": plain(work.price.value) if work.price else None}
        self._books.begin(work.holding, REASONS[purpose], why, facts)
        return self._steps(work, intent)

    def _stop_price(self, work: Work) -> Decimal | None:
        stop = work.protection.stop
        return stop.stop_price if stop is not None and stop.stop_price else work.holding.trade.stop_price

    def _target_price(self, work: Work) -> Decimal | None:
        """The target of the whole trade: put back with its stop, another one would sell too much there."""
        targets = [o for o in work.protection.targets if o.limit_price is not None]
        is_whole = len(targets) == 1 and remaining(targets[0], work.holding.open_qty) >= work.holding.open_qty
        return targets[0].limit_price if is_whole else None

    def _steps(self, work: Work, intent: Intent) -> Closing:
        entry = work.holding.entry
        if entry is not None and not entry.is_final:
            # It would buy back what is sold, and the broker calls the pair a wash trade.
            entry = self._door.cancel_entry(work.claim, entry, _CANCEL_SECONDS)
            if entry is not None:
                word = REASONS[intent.purpose]
                self._books.note(work.holding, f"{word} waits: its entry {entry.id} is still {entry.status}")
                return Closing(failed="close_waits")
        left = self._door.cancel(work.claim, work.protection.holders, _CANCEL_SECONDS, intent.purpose)
        if left:
            # It still holds the shares, and may yet fill or be cancelled: the next run looks again.
            self._books.note(work.holding, f"{REASONS[intent.purpose]} waits: {left[0].id} is still {left[0].status}")
            return Closing(failed="close_waits")
        try:
            answer = self._door.close(work.claim, intent.purpose)
        except (BrokerError, StateFailed) as error:
            self._put_back_in_trouble(work, intent, error)
            raise
        if answer.order is not None and not (answer.order.is_final and not answer.order.filled_qty):
            self._write_close_order(work, answer.order, answer.request)
            answer = self._door.settle(work.claim, answer, _FILL_SECONDS)
        return self._judge(work, intent, answer)

    def _judge(self, work: Work, intent: Intent, answer: Answer) -> Closing:
        """Done, in progress, unknown, or back to where it was."""
        order = answer.order
        word = REASONS[intent.purpose]
        if answer.outcome is Outcome.WOULD:
            self._books.note(work.holding, f"{word}: would close {answer.request.get('qty')}")
            return Closing(done=True)
        if answer.outcome is Outcome.MOOT:
            self._books.note(work.holding, f"{word}: {answer.reason}")
            self.forget(work.claim.name)
            return Closing(over=True)
        if answer.outcome is Outcome.UNKNOWN:
            self._books.note(work.holding, f"{word}: {answer.reason}; the next run looks it up")
            return Closing(failed="close_unknown")
        if order is not None and order.status == "filled":
            price = plain(order.avg_price) if order.avg_price is not None else "an unknown price"
            self._books.note(work.holding, f"{word}: {plain(order.filled_qty)} closed at {price} (order {order.id})")
            self._books.tell(work.holding, word, "filled", dict(answer.request))
            return self._whole(work, intent, order)
        if order is not None and not order.is_final:
            filled = f"{plain(order.filled_qty)} of {plain(order.qty or order.filled_qty)} filled"
            self._books.note(work.holding, f"{word} in progress: order {order.id} is {order.status}, {filled}")
            return Closing(order=order)
        said = f"order {order.id} is {order.status}" if order is not None else f"{answer.outcome}: {answer.reason}"
        self._books.note(work.holding, f"{word} refused ({said}): the stop goes back")
        self._put_back(work, intent)
        self._unname_close_order(work, order)
        return Closing(failed="close_refused", order=order)

    def _whole(self, work: Work, intent: Intent, order: Order) -> Closing:
        """Done when the close took all that the trade has; what is left of it needs its stop."""
        left = self._door.open_now(work.claim)
        if left <= (work.claim.open_qty * CRYPTO_DUST if work.claim.crypto else ZERO):
            return Closing(done=True, order=order)
        self._books.note(work.holding, f"{REASONS[intent.purpose]}: {plain(left)} of it are left: the stop goes back")
        self._put_back(work, intent)
        return Closing(failed="close_incomplete", order=order)

    def _put_back(self, work: Work, intent: Intent) -> None:
        """The stop where it was, at once; the intent lives until it stands."""
        if self._door.open_now(work.claim) <= 0:
            self.forget(work.claim.name)
            return
        if intent.stop is None:
            self._books.note(work.holding, "naked: it had no stop to put back")
            self.forget(work.claim.name)
            return
        kept = self._keeper.put_back(work, intent.stop, intent.target)
        if kept.failed is not None and not kept.crossed:
            return
        self.forget(work.claim.name)  # a stop through the market is for the rules of the next run
        if kept.fields:
            self._write(work, kept.fields, kept.action, kept.reason, kept.proof)

    def _put_back_in_trouble(self, work: Work, intent: Intent, error: Exception) -> None:
        """The close could not be sent, its stop is cancelled: one try to protect the position again.

        The intent stays, and tells the next run. Without our state the lock still holds: it
        outlives the deadline.
        """
        if intent.stop is None:
            return
        word = REASONS[intent.purpose]
        self._books.note(work.holding, f"{word} could not be sent ({error}): the stop goes back")
        self._door.state_lost = isinstance(error, StateFailed)
        with contextlib.suppress(BrokerError, StateFailed):
            self._keeper.put_back(work, intent.stop, intent.target)

    # ------------------------------------------------------------------ what a killed run left

    def unfinished(self) -> dict[str, Intent]:
        """The closes that were begun and not ended, by trade id."""
        found = {i: Intent.parse(raw) for i, raw in self._state.recall(FLATTEN).items()}
        self.intents = {i: intent for i, intent in found.items() if intent is not None}
        return self.intents

    def finish(self, work: Work, intent: Intent) -> Closing:
        """Finishes a close of an earlier run while its day lasts, else takes it back."""
        word = REASONS[intent.purpose]
        order = self._door.latest(work.claim.name, intent.purpose, since=intent.at - _SKEW)
        if order is not None and not order.is_final:
            order = self._end_of(work, order)
            if not order.is_final:
                return Closing(order=order)
            if order.status == "filled":
                return Closing(done=True, order=order)
        filled_at = order.fill_time if order is not None and order.status == "filled" else None
        if filled_at is not None and self._now() - filled_at < _LAG:
            return Closing(order=order)  # what is left of the position is not known yet
        today = eastern_date(intent.at) == eastern_date(self._now())
        if work.protection.holders and self._deadline.left() < NEEDS_SECONDS:
            self._books.note(work.holding, f"{word} of an earlier run waits: too little of the deadline is left")
            return Closing(failed="flatten_unfinished")
        if today and self._market.may_close(work.claim.crypto, self._now()):
            crossing = self._door.why_wash_trade(work.claim, _own(work)) if work.protection.holders else None
            if crossing is not None:
                self._books.note(work.holding, f"{word} of an earlier run waits: {crossing}")
                return Closing(failed="flatten_unfinished")
            self._books.note(work.holding, f"{word} of an earlier run is finished")
            return self._steps(work, intent)
        if work.protection.is_naked:
            self._books.note(work.holding, f"{word} of an earlier run came too late: the stop goes back")
            self._put_back(work, intent)
        else:
            self.forget(work.claim.name)
        self._unname_close_order(work, order)
        if work.claim.name in self.intents:
            return Closing(failed="flatten_unfinished")
        return Closing(failed="eod_missed" if intent.purpose == EOD else None)

    def _end_of(self, work: Work, order: Order) -> Order:
        now = self._door.end_of(work.claim, order, _FILL_SECONDS)
        if not now.is_final and self._market.is_open(work.claim.crypto, self._now()):
            self._books.note(work.holding, f"its close {now.id} is in progress ({now.status})")
        elif not now.is_final:
            self._books.note(work.holding, f"its close {now.id} is still {now.status} in the closed market")
        return now

    def end_queued(self, trade_id: str, purpose: str) -> None:
        """Cancels a close that waits for the next open though nothing else is proven of its trade."""
        order = self._door.latest(trade_id, purpose)
        if order is None or order.is_final or self._market.is_open(order.is_crypto, self._now()):
            return
        side = Side.LONG if order.side == Side.LONG.closing else Side.SHORT
        claim = Claim(trade_id, order.symbol, order.key, side, ZERO, ZERO, order.is_crypto, self._now())
        self._door.cancel(claim, [order], _CANCEL_SECONDS, "the market has closed")

    # ------------------------------------------------------------------ traces

    def _remember(self, work: Work, intent: Intent) -> None:
        self.intents[work.claim.name] = intent
        if not self._books.dry_run:
            self._state.remember(FLATTEN, {work.claim.name: intent.to_dict()})

    def forget(self, trade_id: str) -> None:
        """The close is over, one way or the other."""
        self.intents.pop(trade_id, None)
        if not self._books.dry_run:
            self._state.remember(FLATTEN, {trade_id: None})

    def _write_close_order(self, work: Work, order: Order, request: Mapping[str, Any]) -> None:
        """The ledger names the closing order before its end is known: a kill leaves the proof behind."""
        reason = f"closing order {order.id} was sent"
        self._write(work, {"closeOrderId": order.id}, "close_sent", reason, request)

    def _unname_close_order(self, work: Work, order: Order | None) -> None:
        """A close that ended without a fill closed nothing: the ledger no longer names it."""
        if order is None or not order.is_final or order.filled_qty:
            return
        record = work.holding.trade.record
        before = record.get("closeOrderId")
        base = {**record, "closeOrderId": order.id}
        fields = {"closeOrderId": None if before == order.id else before}
        trade, reason = work.holding.trade, f"closing order {order.id} is {order.status} and filled nothing"
        self._books.write([Entry(trade.id or "", trade.symbol, base, fields, "close_ended", reason)])

    def _write(self, work: Work, fields: Mapping[str, Any], action: str, reason: str, facts: Mapping[str, Any]) -> None:
        trade, proof = work.holding.trade, self._books.proof(facts)
        self._books.write([Entry(trade.id or "", trade.symbol, trade.record, fields, action, reason, proof=proof)])


def _own(work: Work) -> set[str]:
    """The orders that a close cancels first."""
    entry = work.holding.entry
    return {o.id for o in work.protection.holders} | ({entry.id} if entry is not None else set())
