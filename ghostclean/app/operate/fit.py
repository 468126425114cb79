"""Does this ledger fit: its words, and whether the account knows the orders that it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ghostclean.app.ports import Broker
from ghostclean.core.broker import is_uuid
from ghostclean.core.ledger import Fit

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
        return Finding(False, why, "let the app write OPEN and CLOSED (README: what a trade needs)")
    return Finding(True, f"by status: {fit.line()}")


def orders(fit: Fit, broker: Broker) -> Iterator[Finding]:
    """How many of the order ids this account knows; raises BrokerError."""
    if fit.nameless:
        found = f"{fit.nameless} of {fit.trades} trades name no order: positions and fills alone decide"
        yield Finding(None, found, "let the app store the entry order's id as alpacaOrderId")
    asked = sorted(fit.orders)[:_MOST_ASKED]
    if not asked:
        return
    knows = sum((broker.order if is_uuid(i) else broker.order_by_client_id)(i) is not None for i in asked)
    more = f" ({len(fit.orders) - len(asked)} not asked for)" if len(fit.orders) > len(asked) else ""
    found = f"this account knows {knows} of the {len(asked)} order ids of the ledger's trades{more}"
    cure = "use the keys of the ledger's account (paper or live?), or let the app store Alpaca's order ids"
    yield Finding(knows > 0, found, "" if knows else cure)
