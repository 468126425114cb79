"""Client order ids: trade + purpose + n, so that a lost answer is found by name and an order never sent twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ghostclean.app.gateway.looking import Looker
from ghostclean.app.ports import State
from ghostclean.core.broker import Order, client_id
from ghostclean.core.protection import Exposure
from ghostclean.errors import BrokerError, DeadlineExceeded

NUMBERS = "order_numbers"  # the state section that remembers the last n of a trade and purpose
_MOST_NUMBERS = 500
_LOST_WAITS = (0.3, 0.7, 1.5, 2.5)


@dataclass(slots=True)
class Names:
    """The names of our orders; n rises only when the order before it is proven final.

    With `state_lost` n is found by asking the broker alone, so that a stop can still be restored.
    """

    looker: Looker
    state: State
    state_lost: bool = False
    _asked: set[str] = field(default_factory=set)

    def first(self, exposure: Exposure, purpose: str) -> str | None:
        """The first name if none was ever used; the broker refuses it should our memory be wrong."""
        owner = exposure.signature
        return None if self.state_lost or self._last(owner, purpose) is not None else client_id(owner, purpose, 1)

    def next(self, exposure: Exposure, purpose: str, replacing: Order | None = None) -> tuple[str, Order | None]:
        """The name of the next order, or the order of that purpose that still works.

        An order of that name in another symbol or side belongs to somebody else.
        """
        owner = exposure.signature
        first = max(self._last(owner, purpose) or 1, 1)
        for n in range(first, first + _MOST_NUMBERS):
            name = client_id(owner, purpose, n)
            order = self.looker.order_named(name)
            if order is None:
                return name, None
            is_own = exposure.takes(order) and (replacing is None or order.id != replacing.id)
            if is_own and not order.is_final:
                return name, order
        raise BrokerError(f"more than {_MOST_NUMBERS} orders for one purpose of a trade", transient=False)

    def _last(self, owner: str, purpose: str) -> int | None:
        if self.state_lost:
            return None
        counter = client_id(owner, purpose, 0)
        last = self.state.recall(NUMBERS, [counter]).get(counter)
        return last if isinstance(last, int) else None

    def is_asked(self, name: str) -> bool:
        return name in self._asked

    def remember(self, owner: str, purpose: str, name: str) -> None:
        """Stores the name before it is used."""
        if not self.state_lost:
            self.state.remember(NUMBERS, {client_id(owner, purpose, 0): int(name.rsplit("-", 1)[1])})
        self._asked.add(name)

    def latest(self, owner: str, purpose: str, *, since: datetime | None = None) -> Order | None:
        """The last order of an owner and purpose, submitted not before `since`."""
        last = self._last(owner, purpose)
        order = self.looker.order_named(client_id(owner, purpose, last)) if last is not None else None
        is_old = (
            order is not None and since is not None and order.submitted_at is not None and order.submitted_at < since
        )
        return None if is_old else order

    def find(self, name: str) -> Order | None:
        """Looks an order up by name, several times: a 404 right after sending may be a lag."""
        for wait in _LOST_WAITS:
            if not self.looker.has_time(wait):
                break
            self.looker.sleep(wait)
            try:
                order = self.looker.order_named(name)
            except (BrokerError, DeadlineExceeded):
                continue
            if order is not None:
                return order
        return None
