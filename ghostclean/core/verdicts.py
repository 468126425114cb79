"""The words for what is true about a trade, and the plan that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from .times import iso


class Verdict(StrEnum):
    """What a trade is, by broker truth; in order of precedence."""

    UNREADABLE = "unreadable"
    DUPLICATE = "duplicate"
    EXITED = "exited"
    LIVE = "live"
    REDUCED = "reduced"
    WORKING = "working"
    SETTLING = "settling"
    NEVER_FILLED = "never_filled"
    AMBIGUOUS = "ambiguous"
    MISMATCH = "mismatch"
    FILLED_BUT_GONE = "filled_but_gone"
    VANISHED = "vanished"
    UNKNOWN = "unknown"  # a look-up is open or failed: held, never closed
    ORPHAN = "orphan"
    REOPENED = "reopened"

    @property
    def needs_person(self) -> bool:
        """Whether it stays as it is until somebody looks: a break that no later run can settle."""
        return self in _BREAKS


class Action(StrEnum):
    """What is done about it."""

    CLOSED = "closed"
    SYNCED = "synced"
    REDUCED = "reduced"
    ADOPTED = "adopted"
    FLATTENED = "flattened"
    REOPENED = "reopened"
    KEPT = "kept"
    HELD = "held"
    SKIPPED = "skipped"

    @property
    def writes(self) -> bool:
        """Whether the ledger changes."""
        return self in _WRITING

    def would(self) -> str:
        """The word in a dry run."""
        return _WOULD.get(self, str(self))


_BREAKS = frozenset({Verdict.UNREADABLE, Verdict.AMBIGUOUS, Verdict.MISMATCH, Verdict.FILLED_BUT_GONE})
_WRITING = frozenset({Action.CLOSED, Action.SYNCED, Action.REDUCED, Action.ADOPTED, Action.FLATTENED, Action.REOPENED})
_WOULD = {
    Action.CLOSED: "would_close",
    Action.SYNCED: "would_sync",
    Action.REDUCED: "would_reduce",
    Action.ADOPTED: "would_adopt",
    Action.FLATTENED: "would_flatten",
    Action.REOPENED: "would_reopen",
}


def needs_person(row: Mapping[str, Any]) -> bool:
    """Whether a row of a run's `results` is a trade that needs a person."""
    return row["action"] == Action.HELD and Verdict(row["verdict"]).needs_person


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing a verdict rests on, with the time it was seen or happened."""

    what: str
    at: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "at": iso(self.at) if self.at else None, **self.facts}


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on one trade (or orphan) and the exact fields to write.

    `fields` is what would be written, `unproven` marks the close that rests on absence alone,
    `facts` fingerprints the broker facts behind the verdict (for holds after an undo), and
    `exit_orders` are the orders whose fills took the trade out.
    """

    trade_id: str | None
    ticker: str
    verdict: Verdict
    action: Action
    reason: str
    proof: tuple[Proof, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    base: Mapping[str, Any] | None = field(default=None, repr=False)
    unproven: bool = False
    facts: str = ""
    exit_orders: tuple[str, ...] = ()

    @property
    def stale(self) -> bool:
        """Whether the trade is closed by this decision."""
        return self.action is Action.CLOSED

    def before(self) -> dict[str, Any] | None:
        """The present values of the fields that change; a field that is absent stays absent."""
        if not self.action.writes or self.base is None:
            return None
        return {name: self.base[name] for name in (*self.fields, *self.remove) if name in self.base}
