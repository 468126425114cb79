"""Does this ledger fit: its words, and whether the account knows the orders that it names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple, Self

from ghostclean.app.ports import Broker
from ghostclean.core.broker import is_uuid
from ghostclean.core.ledger import Fit
from ghostclean.counts import counted
from ghostclean.errors import BrokerError

_MOST_ASKED = 20  # orders: one request each


class Finding(NamedTuple):
    """What was found of one question, whether that is well (None: worth knowing), and the cure."""

    ok: bool | None
    found: str
    cure: str = ""


def statuses(fit: Fit, known: Iterable[str]) -> Finding:
    """Which statuses there are and what they count as; `known` are the app's own by earlier runs."""
    why = fit.why_not(known)
    if why is not None:
        return Finding(
            False,
            why,
            "say what they mean in a mapping, or let the app write OPEN and CLOSED (README: what a trade needs)",
        )
    return Finding(True, f"by status: {fit.line()}")


class Known(NamedTuple):
    """How many of the orders an account knows; `unasked` are those too many to ask for, or without an answer."""

    known: int
    named: int
    unasked: int

    def __str__(self) -> str:
        rest = f" ({self.unasked} not asked)" if self.unasked else ""
        return f"{self.known} of the {counted(self.named, 'order')} that the ledger names{rest}"

    @classmethod
    def of(cls, named: Collection[str], broker: Broker) -> Self:
        answers = [_knows(broker, order_id) for order_id in sorted(named)[:_MOST_ASKED]]
        return cls(answers.count(True), len(named), len(named) - len(answers) + answers.count(None))


def _knows(broker: Broker, order_id: str) -> bool | None:
    """None where the broker gives no answer."""
    try:
        return (broker.order if is_uuid(order_id) else broker.order_by_client_id)(order_id) is not None
    except BrokerError:
        return None


def orders(fit: Fit, broker: Broker) -> Iterator[Finding]:
    """How many trades name an order, and how many of these this account knows."""
    if fit.nameless:
        found = f"{fit.nameless} of {counted(fit.trades, 'trade')} without an order id: positions and fills decide"
        yield Finding(None, found, "let the app store the entry order's id as alpacaOrderId")
    if not fit.orders:
        return
    known = Known.of(fit.orders, broker)
    ok = True if known.known else None if known.unasked == known.named else False
    cure = "use the keys of the ledger's account (paper or live?), or let the app store Alpaca's order ids"
    yield Finding(ok, f"this account knows {known}", "" if ok else cure)
