"""Answers the look-ups that a plan asks for, with few requests: orders by symbol first, single ones after.

A failed look-up is kept as unanswered: it holds the trade and may make the run partial.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from ghostclean.app.deadline import Deadline, bound
from ghostclean.app.parts import Progress, unseen
from ghostclean.app.ports import Broker, History, Ledger
from ghostclean.core.broker import (
    ACTIVITIES,
    CLOCK,
    FILLS,
    ActivitiesSince,
    ClockNow,
    Evidence,
    FillsSince,
    Order,
    OrderByClientId,
    OrderById,
    OrdersOf,
    Question,
    RecordsOf,
    symbol_key,
)
from ghostclean.core.ledger import text
from ghostclean.errors import BrokerError, DeadlineExceeded, WrongAnswer

T = TypeVar("T")

_HISTORY_PAGES = 8
_SYMBOLS_A_PAGE = 500
_WORTH_ASKING = 0.05
_FINAL_REFUSALS = frozenset({None, 400, 422})  # None: our own refusal to ask, as for an id that is none
_FEW = 2
_MARGIN = timedelta(days=2)  # one request then serves the search for exits as well
_OLDEST = timedelta(days=90)


@dataclass(slots=True)
class Lookups:
    """The look-ups of one run. `closed` are final records by symbol, without those of another account."""

    broker: Broker
    ledger: Ledger
    deadline: Deadline
    evidence: Evidence
    ours: Callable[[Mapping[str, Any]], bool] = lambda record: True
    progress: Progress = unseen
    closed: dict[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.broker = bound(self.broker, self._ask)

    @property
    def partial(self) -> bool:
        """Whether an answer is missing that a later run may get."""
        return bool(self.open or self.wrong)

    def answer(self, needs: Iterable[Question]) -> bool:
        """Looks everything up that is asked for; False once time has run out."""
        needs = tuple(needs)
        self.read_records(needs)
        try:
            self._orders_by_symbol(needs)
            for number, need in enumerate(needs, start=1):
                self.progress("looking up", number, len(needs))
                self._answer_one(need)
        except DeadlineExceeded as error:
            self.open.append(f"look-ups: {error}")
            return False
        return True

    def read_records(self, needs: Iterable[Question]) -> bool:
        """Reads the final records of these symbols, with the reading time used up too; False if none was read."""
        keys = frozenset(n.key for n in needs if isinstance(n, RecordsOf)) - self.closed.keys()
        if not keys:
            return False
        found: dict[str, list[Mapping[str, Any]]] = {key: [] for key in keys}
        try:
            records = self.deadline.writing(lambda: self.ledger.history(keys), reserve=self.deadline.left() / 2)
        except DeadlineExceeded as error:
            self.open.append(f"the ledger's closed records: {error}")
            return False
        for record in records:
            key = symbol_key(text(record, "ticker", "symbol") or "")
            if key in found and self.ours(record):
                found[key].append(record)
        self.closed.update({key: tuple(records) for key, records in found.items()})
        return True

    def note_closed(self, record: Mapping[str, Any]) -> None:
        """A record that this run has closed; where none of its symbol were read, they still will be."""
        key, same = symbol_key(text(record, "ticker", "symbol") or ""), record.get("id")
        if key in self.closed:
            self.closed[key] = (*(r for r in self.closed[key] if r.get("id") != same), record)

    # ------------------------------------------------------------------ orders

    def _orders_by_symbol(self, needs: Sequence[Question]) -> None:
        single = [n for n in needs if isinstance(n, OrderById | OrderByClientId)]
        listed = [n for n in needs if isinstance(n, OrdersOf)]
        if listed:
            self._list_orders(listed, single, ())
        elif len(single) > _FEW:
            self._list_orders((), single, [_name_of(need) for need in single])

    def _list_orders(
        self, listed: Sequence[OrdersOf], single: Sequence[OrderById | OrderByClientId], names: Collection[str]
    ) -> None:
        since = self._beginnings(listed, single)
        if not since:
            return
        symbols = {key: key for key in since} | {need.key: need.symbol for need in listed}
        try:
            history = self._history(sorted(symbols.values()), min(since.values()), names)
        except BrokerError as error:
            self._note("orders by symbol", error)
            self.evidence.unanswered.update({f"orders of {need.key}": str(error) for need in listed})
            return
        self.evidence.add_orders(history.orders)
        if not history.truncated:
            for key in since:
                self.evidence.history[key] = min(history.since, self.evidence.history.get(key, history.since))
        elif not names or not _names(history).issuperset(names):
            self.evidence.truncated.update(since)

    def _beginnings(
        self, listed: Iterable[OrdersOf], single: Iterable[OrderById | OrderByClientId]
    ) -> dict[str, datetime]:
        now = self.broker.now()
        since: dict[str, datetime] = {}
        for need in listed:
            since[need.key] = min(need.since, since.get(need.key, need.since))
        for order in single:
            if order.key and order.key not in self.evidence.history and order.key not in self.evidence.truncated:
                start = max(order.since or now, now - _OLDEST) - _MARGIN
                since[order.key] = min(start, since.get(order.key, start))
        return since

    def _history(self, symbols: list[str], since: datetime, names: Collection[str]) -> History:
        """The orders of symbols; where only these are asked for, no pages after the last of them."""
        if names:
            few = 1 + (len(symbols) - 1) // _SYMBOLS_A_PAGE
            begin = self.broker.history(symbols, since, few)
            if not begin.truncated or few >= _HISTORY_PAGES or _names(begin).issuperset(names):
                return begin
        return self.broker.history(symbols, since, _HISTORY_PAGES)

    def _answer_one(self, need: Question) -> None:
        evidence = self.evidence
        if isinstance(need, OrderById):
            if need.order_id not in evidence.orders and need.order_id not in evidence.absent:
                self._single(need.order_id, self.broker.order, evidence.absent)
        elif isinstance(need, OrderByClientId):
            if need.client_id not in evidence.by_client and need.client_id not in evidence.absent_clients:
                self._single(need.client_id, self.broker.order_by_client_id, evidence.absent_clients)
        elif isinstance(need, FillsSince):
            self._fills(need.since)
        elif isinstance(need, ActivitiesSince):
            self._activities(need.since)
        elif isinstance(need, ClockNow):
            self._clock()

    def _single(self, name: str, ask: Callable[[str], tuple[Order, ...] | None], absent: set[str]) -> None:
        with self._noting(name, f"order {name}"):
            answer = ask(name)
            if answer is None:
                absent.add(name)
            else:
                self.evidence.add_orders(answer)

    # ------------------------------------------------------------------ the rest

    def _fills(self, since: datetime) -> None:
        evidence = self.evidence
        if FILLS not in evidence.unanswered and not evidence.knows_fills(since):
            with self._noting(FILLS):
                evidence.add_fills(self.broker.fills(since), since)

    def _activities(self, since: datetime) -> None:
        evidence = self.evidence
        if ACTIVITIES not in evidence.unanswered and not evidence.knows_activities(since):
            with self._noting(ACTIVITIES):
                evidence.activities = self.broker.activities(since)
                evidence.activities_since = since

    def _clock(self) -> None:
        with self._noting(CLOCK):
            self.evidence.clock = self.broker.clock()

    @contextlib.contextmanager
    def _noting(self, name: str, what: str = "") -> Iterator[None]:
        try:
            yield
        except BrokerError as error:
            self.evidence.unanswered[name] = str(error)
            self._note(what or name, error)

    def _ask(self, call: Callable[[], T]) -> T:
        """One look-up. It gets half of the time that is left: one that hangs must not starve the others."""
        self.count += 1
        left = self.deadline.left_for_reading()
        try:
            return self.deadline.within(call, left / 2)
        except DeadlineExceeded:
            if self.deadline.left_for_reading() < _WORTH_ASKING:
                raise
            raise BrokerError(f"no answer within {left / 2:.1f} s") from None

    def _note(self, what: str, error: BrokerError) -> None:
        """Only a refusal of the question itself is final; everything else may be answered later."""
        if isinstance(error, WrongAnswer):
            self.wrong.append(f"{what}: {error}")
        elif error.transient or error.status not in _FINAL_REFUSALS:
            self.open.append(f"{what}: {error}")


def _name_of(need: OrderById | OrderByClientId) -> str:
    return need.order_id if isinstance(need, OrderById) else need.client_id


def _names(history: History) -> set[str]:
    return {order.id for order in history.orders} | {order.client_id for order in history.orders}
