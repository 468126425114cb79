"""Makes a broker answer every question of a decision on this ledger, without the memory of earlier runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.observation import observe, read_truth
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Recalled
from ghostclean.core.broker import OrdersOf, RecordsOf
from ghostclean.core.inputs import Policy
from ghostclean.core.ledger import is_open, is_pending
from ghostclean.core.safety import LOOK_BACK
from ghostclean.errors import StateFailed


def record(parts: Parts, deadline: Deadline, policy: Policy) -> list[Mapping[str, Any]]:
    """Asks the broker all of it and returns the ledger's open and pending trades; raises LedgerFailed,
    BrokerTruthFailed.
    """
    with contextlib.suppress(StateFailed):
        deadline.reading(parts.state.open)
    view = deadline.reading(parts.ledger.read)
    truth = read_truth(parts, deadline)
    observation = observe(parts, deadline, policy, view, Recalled(), truth)
    orphans = [orphan.position for orphan in observation.plan.orphans]
    since = observation.truth.at - LOOK_BACK
    observation.lookups.answer([OrdersOf(position.key, position.symbol, since) for position in orphans])
    observation.lookups.answer([RecordsOf(position.key) for position in orphans])
    return [trade for trade in view.active if is_open(trade) or is_pending(trade)]
