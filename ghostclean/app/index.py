"""When the app's own index of open trades may be trusted, and when the whole ledger is read.

Only a Redis hash has one (`<key>:open`). It is trusted after a reading of the whole ledger found
every active record in it, for an hour, while the ledger grows by no more than the new trades
it names. Orphans are judged by whole readings alone: a pending record may explain them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.ports import LedgerView
from ghostclean.core.broker import iso, parse_time
from ghostclean.core.ledger import record_id

SECTION, NAME = "ledger", "scanned"
TRUSTED_FOR = timedelta(hours=1)


def scan_is_due(scanned: Any, now: datetime) -> bool:
    """Whether the whole ledger must be read, from what the last runs remembered under `NAME`."""
    at = parse_time(scanned.get("at")) if isinstance(scanned, dict) else None
    return at is None or not timedelta(0) <= now - at < TRUSTED_FOR


def misses_something(view: LedgerView, scanned: Any, known: Collection[str]) -> bool:
    """Whether the ledger grew by more records than the index names new ones."""
    size = scanned.get("size") if isinstance(scanned, dict) else None
    if not isinstance(size, int):
        return True
    return view.total - size > sum(1 for record in view.active if record_id(record) not in known)


def remembered(view: LedgerView, scanned: Any, now: datetime, *, doubted: bool) -> Mapping[str, Any]:
    """What the next run should know of this reading; None forgets, so that it reads everything."""
    if doubted and not view.complete:
        return {NAME: None}
    if not view.complete:
        return {NAME: {**scanned, "size": view.total}} if isinstance(scanned, dict) else {}
    if view.index_sound:
        return {NAME: {"at": iso(now), "size": view.total}}
    return {NAME: None} if scanned is not None else {}
