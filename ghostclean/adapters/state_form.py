"""What every state has in common: its limits, the name of a ledger in it, and the stored JSON.

Numbers are stored exactly (Decimal in, Decimal out), because undo puts them back into a ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ghostclean.app.ports import JournalEntry, RunCommit
from ghostclean.core.jsontext import BadJson, dumps, loads
from ghostclean.errors import StateFailed

SCHEMA = 1
JOURNAL_KEPT = 20_000
DONE_KEPT = 10_000
INTENDED = "intended"
WRITTEN = "written"
LEFT = "left"
_RUNS_KEPT = {"reconcile": 100, "auto-manage": 200}


def namespace(ledger_place: str) -> str:
    """The short name of a ledger, under which its journal, lock and memory are kept."""
    return hashlib.sha256(ledger_place.encode()).hexdigest()[:12]


def runs_kept(kind: str) -> int:
    """How many runs of a kind are listed."""
    return _RUNS_KEPT.get(kind, 100)


def check_schema(found: int, place: str) -> None:
    """Refuses a state that a newer ghostclean has written; older ones are read for ever."""
    if found > SCHEMA:
        raise StateFailed(
            f"The state at {place} was written by a newer ghostclean (schema {found}, this one knows {SCHEMA}); "
            "nothing was changed. Cure: upgrade ghostclean here."
        )


def entry_text(entry: JournalEntry) -> str:
    """The stored form of a journal entry."""
    return dumps(entry.to_dict())


def entry_from(text: str | bytes, place: str) -> JournalEntry:
    """A journal entry from its stored form; damage is StateFailed."""
    try:
        return JournalEntry.from_dict(value_from(text, place))
    except (KeyError, TypeError) as error:
        raise _damaged(place, f"a journal entry without {error}") from None


def value_from(text: str | bytes, place: str) -> Any:
    """A stored value; damage is StateFailed."""
    try:
        return loads(text if isinstance(text, str) else text.decode())
    except (BadJson, UnicodeDecodeError) as error:
        raise _damaged(place, str(error)) from None


def _damaged(place: str, what: str) -> StateFailed:
    return StateFailed(
        f"The state at {place} is damaged: {what}; nothing was changed. "
        "Cure: restore it, or point GHOSTCLEAN_STATE at a new place."
    )


def run_from(text: str) -> Mapping[str, Any]:
    """A listed run; one that others have garbled is shown as such, not dropped."""
    try:
        value = loads(text)
    except BadJson:
        value = None
    return value if isinstance(value, dict) else {"unreadable": text[:200]}


def commit_text(commit: RunCommit) -> str:
    """The stored form of a run's record, for the spool."""
    return dumps(
        {
            "kind": commit.kind,
            "runId": commit.run_id,
            "run": commit.run,
            "add": commit.add,
            "put": commit.put,
            "entries": [entry.to_dict() for entry in commit.entries],
            "memory": commit.memory,
            "totals": commit.totals,
        }
    )


def commit_from(text: str) -> RunCommit:
    """A run's record from its stored form; raises BadJson, KeyError or TypeError when broken."""
    data = loads(text)
    return RunCommit(
        kind=data["kind"],
        run_id=data["runId"],
        run=data["run"],
        add={str(k): int(v) for k, v in data["add"].items()},
        put={str(k): str(v) for k, v in data["put"].items()},
        entries=tuple(JournalEntry.from_dict(entry) for entry in data["entries"]),
        memory=data["memory"],
        totals={str(k): str(v) for k, v in data.get("totals", {}).items()},
    )
