"""What is stored, in every store: limits, the name of a ledger, shapes of the memory, JSON.

Numbers are stored exactly (Decimal in, Decimal out), because undo puts them back into a ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ghostclean.app.ports import JournalEntry, RunCommit
from ghostclean.core.ledger import BadJson, dumps, loads
from ghostclean.errors import StateFailed

SCHEMA = 1
JOURNAL_KEPT = 20_000
DONE_KEPT = 10_000
INTENDED = "intended"
WRITTEN = "written"
NEIGHBOURS = "neighbours"  # the section of what the ledgers of one account tell each other, by account
LEFT = "left"
_COUNTER_BITS = 53  # more than any counter, fewer than a state can add to one
_RUNS_KEPT = {"reconcile": 100, "auto-manage": 200}
_SHAPES: Mapping[str, type] = {
    **dict.fromkeys(("first_seen", "last_worked"), str),
    "exits": list,
    **dict.fromkeys(("misses", "holds", "unproven", "orders", "verdicts", "owed_stops", "pin", "ledgers"), dict),
}


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


def account_in(pin: Mapping[str, Any]) -> str | None:
    """The account that a ledger is pinned to, from the section `pin`."""
    account = pin.get("account")
    found = account.get("id") if isinstance(account, dict) else None
    return found if isinstance(found, str) else None


def check_shape(section: str, values: dict[str, Any], place: str) -> dict[str, Any]:
    """The values of a section; one of another shape is damage: an undo or a pin might stand in it."""
    for name, value in values.items():
        if not _fits(section, value):
            raise _damaged(place, f"what it remembers of {name} under {section!r} has another shape")
    return values


def _fits(section: str, value: Any) -> bool:
    texts = section != "exits" or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    return texts and isinstance(value, _SHAPES.get(section, object))


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
    """A run's record from its stored form; raises ValueError, KeyError or TypeError when it is none."""
    data = _table(loads(text))
    return RunCommit(
        kind=_text(data["kind"]),
        run_id=_text(data["runId"]),
        run=_table(data["run"]),
        add={name: _count(number) for name, number in _table(data["add"]).items()},
        put={name: _text(value) for name, value in _table(data["put"]).items()},
        entries=tuple(_entry(entry) for entry in _list(data["entries"])),
        memory={section: _section(section, values) for section, values in _table(data["memory"]).items()},
        totals={entry_id: _text(name) for entry_id, name in _table(data.get("totals", {})).items()},
    )


def _section(name: str, value: Any) -> dict[str, Any]:
    values = _table(value)
    if not all(part is None or _fits(name, part) for part in values.values()):
        raise TypeError("another shape")
    return values


def _entry(value: Any) -> JournalEntry:
    data = _table(value)
    for name, part in data.items():
        if name == "proof":
            for proof in _list(part):
                _table(proof)
        elif name not in ("before", "after"):
            _text(part)
        elif part is not None:
            _table(part)
    return JournalEntry.from_dict(data)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    value.encode()  # half a character can be stored nowhere
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("no object")
    for name in value:
        _text(name)
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no array")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or value.bit_length() > _COUNTER_BITS:
        raise TypeError("no count")
    return value
