"""Makes a broker answer everything that a decision on this ledger needs, to be recorded.

Nothing remembered is used: what an earlier run knew would be missing from the record, and a
replay elsewhere could then not come to the same plan.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ghostclean.core.evidence import OrdersOf, RecordsOf
from ghostclean.core.orphans import LOOK_BACK
from ghostclean.core.policy import Policy
from ghostclean.core.trade import is_open, is_pending
from ghostclean.core.world import Memory
from ghostclean.errors import StateFailed

from .deadline import Deadline
from .observation import observe, read_truth
from .parts import Parts


def record(parts: Parts, deadline: Deadline, policy: Policy) -> list[Mapping[str, Any]]:
    """Asks the broker all of it and returns the ledger's open and pending trades.

    Raises LedgerFailed and BrokerTruthFailed. The state only tells whether a ledger that is
    missing was there before; a snapshot can be made without it.
    """
    with contextlib.suppress(StateFailed):
        deadline.reading(parts.state.open)
    view = deadline.reading(parts.ledger.read)
    truth = read_truth(parts, deadline)
    observation = observe(parts, deadline, policy, view, Memory(), {}, truth)
    orphans = [orphan.position for orphan in observation.plan.orphans]
    since = observation.truth.at - LOOK_BACK
    observation.lookups.answer([OrdersOf(position.key, position.symbol, since) for position in orphans])
    observation.lookups.answer([RecordsOf(position.key) for position in orphans])
    return [trade for trade in view.active if is_open(trade) or is_pending(trade)]
