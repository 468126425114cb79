"""When the app's own index of open trades may be trusted, and when the whole ledger is read.

Only a Redis hash has one (`<key>:open`). One run in two reads by it: after a reading of the whole
ledger that found every active record in it, and while the ledger has grown by no more than the new
trades it names. So a trade that is missing there, whatever the reason, is seen by the second run at
the latest. Orphans are judged by whole readings alone: a pending record may explain them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ghostclean.app.ports import LedgerView
from ghostclean.core.broker import iso
from ghostclean.core.ledger import record_id

SECTION, NAME = "ledger", "scanned"


def scan_is_due(scanned: Any) -> bool:
    """Whether the whole ledger must be read, from what the last run remembered under `NAME`."""
    return not isinstance(scanned, dict)


def misses_something(view: LedgerView, scanned: Any, known: Collection[str]) -> bool:
    """Whether the ledger grew by more records than the index names new ones."""
    size = scanned.get("size") if isinstance(scanned, dict) else None
    if not isinstance(size, int):
        return True
    return view.total - size > sum(1 for record in view.active if record_id(record) not in known)


def remembered(view: LedgerView, scanned: Any, now: datetime) -> Mapping[str, Any]:
    """What the next run should know of this reading; None forgets, so that it reads everything."""
    if view.index_sound:
        return {NAME: {"at": iso(now), "size": view.total}}
    return {NAME: None} if scanned is not None else {}
