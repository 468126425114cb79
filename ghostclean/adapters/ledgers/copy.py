"""Copies a ledger into another place or layout, record by record, each with its exact text, or value in a table.

The target must hold no trades and still be what was looked at; the copy is read back and compared with
a source that must not have changed. Other members of an object stay behind, named in the notes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ghostclean.app.ports import Records
from ghostclean.core.ledger import IDENTITY, LedgerMapping, loads, same_value
from ghostclean.errors import BadSettings, LedgerFailed
from ghostclean.places import Place

from . import open_ledger

_log = logging.getLogger("ghostclean")

_NAMED = 5  # members of a source that the note names


def copy_ledger(
    source: Place, target: Place, *, mapping: LedgerMapping = IDENTITY, layout: str | None, dry_run: bool
) -> dict[str, Any]:
    """Copies and verifies, in the app's own names; raises LedgerFailed, and BadSettings for an impossible wish."""
    if target.kind != "redis" and layout is not None:
        raise BadSettings("--layout is for a Redis target; a file is a JSON array, a table a table (nothing was done)")
    from_, to = (open_ledger(place, mapping=mapping, new_layout=layout) for place in (source, target))
    if from_.place == to.place:
        raise BadSettings("FROM and TO are the same ledger (nothing was done)")
    found = from_.records()
    if not found.exists:
        raise LedgerFailed(f"{source.describe()} does not exist; nothing was changed; check FROM")
    to.fill(found.texts, dry_run=dry_run)
    if not dry_run:
        copied = to.records().texts
        is_copy = _says(copied, found.texts, mapping) if target.kind == "sql" else sorted(copied) == sorted(found.texts)
        if not is_copy:
            raise LedgerFailed(
                f"the copy in {target.describe()} is not what was read; the source is untouched; remove the copy"
            )
        if sorted(from_.records().texts) != sorted(found.texts):
            raise LedgerFailed(
                f"{source.describe()} changed while it was copied, so the copy in {target.describe()} is old; "
                "stop the app, remove the copy and migrate again"
            )
    return {
        "ok": True,
        "dryRun": dry_run,
        "from": source.describe(),
        "to": target.describe(),
        "layout": {"file": "file", "sql": "table"}.get(target.kind) or layout or "string",
        "trades": len(found.texts),
        "notes": _notes(source, found),
        "error": None,
        "detail": None,
    }


def _says(copied: Sequence[str], found: Sequence[str], mapping: LedgerMapping) -> bool:
    """Whether the rows say all that the records say."""
    rows = {mapping.id_of(row): row for row in map(loads, copied)}
    records = [loads(text) for text in found]
    return len(copied) == len(found) and all(
        same_value(rows.get(mapping.id_of(record), {}).get(name), value)
        for record in records
        for name, value in record.items()
    )


def _notes(source: Place, found: Records) -> list[str]:
    if not found.beside:
        return []
    more = f" and {len(found.beside) - _NAMED} more" if len(found.beside) > _NAMED else ""
    names = ", ".join(name[:40] for name in found.beside[:_NAMED])
    note = f"only trades are copied: {source.describe()} also has {names}{more}"
    _log.warning(note)
    return [note]
