"""When the app's own index of open trades (`<key>:open`, Redis hash only) may be trusted.

Every second run reads the whole ledger, and so does a run that finds more new records than the index names:
a trade missing from the index is seen by the second run at the latest.
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
    """The memory of this reading; None forgets it, and the next run reads the whole ledger."""
    if view.index_sound:
        return {NAME: {"at": iso(now), "size": view.total}}
    return {NAME: None} if scanned is not None else {}
