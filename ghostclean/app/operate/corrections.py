"""Corrections of the ledger that an operator asked for: journaled, compare-and-set, undoable.

Made under the lock of the runs and listed under a kind of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.journal import Journal, Posting
from ghostclean.app.ports import Change, JournalEntry, Lease, Ledger, RunCommit, State
from ghostclean.core.broker import iso
from ghostclean.counts import counted
from ghostclean.errors import GhostcleanError, Locked

CHANGED_SINCE = "the trade has changed meanwhile; nothing was written to it; look at it again"

_LOCK_SECONDS = 60.0
_REFUSED = "refused"
_WOULD = {"undone": "would_undo", "resolved": "would_resolve"}


class NothingToDo(GhostcleanError):
    """The trade or run is not known, or what was asked is true already."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one trade, and why; `action` is `refused` where it was left alone."""

    trade_id: str
    ticker: str
    action: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"id": self.trade_id, "ticker": self.ticker, "action": self.action, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a person's change; exit 1 when something was refused."""

    run_id: str
    subject: str
    dry_run: bool
    rows: tuple[Row, ...]

    @property
    def refused(self) -> int:
        return sum(1 for row in self.rows if row.action == _REFUSED)

    @property
    def exit_code(self) -> int:
        return 1 if self.refused else 0

    def to_dict(self) -> dict[str, Any]:
        first = next((row for row in self.rows if row.action == _REFUSED), None)
        refused = f"{self.refused} of {counted(len(self.rows), 'trade')} refused"
        detail = f"{refused}, {first.ticker} {first.trade_id}: {first.reason}" if first else None
        return {
            "ok": first is None,
            "dryRun": self.dry_run,
            "runId": self.run_id,
            "subject": self.subject,
            "changed": len(self.rows) - self.refused,
            "refused": self.refused,
            "results": [row.to_dict() for row in self.rows],
            "error": "reconcile_failed" if first else None,
            "detail": detail,
        }


@dataclass(slots=True)
class Correction:
    """One change with its journal entry; `refusal` says why it is not made."""

    posting: Posting
    entry: JournalEntry
    refusal: str | None = None

    @classmethod
    def of(cls, change: Change, entry: JournalEntry, refusal: str | None) -> Correction:
        return cls(Posting(change, entry), entry, refusal)

    def row(self, *, dry_run: bool) -> Row:
        action = _REFUSED if self.refusal else _WOULD[self.entry.action] if dry_run else self.entry.action
        return Row(self.entry.trade_id, self.entry.ticker, action, self.refusal or self.entry.reason)


@contextlib.contextmanager
def locked(state: State, holder: str, *, dry_run: bool) -> Iterator[Lease | None]:
    """The lock that runs take too, given back in the end; none for a dry run; raises Locked."""
    if dry_run:
        yield None
        return
    lease = state.acquire(holder, _LOCK_SECONDS)
    if lease is None:
        raise Locked("another run holds the lock of this ledger: nothing was changed; try again when it has ended")
    try:
        yield lease
    finally:
        with contextlib.suppress(GhostcleanError):  # it ends by itself
            state.release(lease)


def journal_of(ledger: Ledger, state: State, lease: Lease | None, *, kind: str, run_id: str, now: datetime) -> Journal:
    return Journal(ledger, state, lease, Deadline(_LOCK_SECONDS), run_id, source=kind, now=lambda: now)


def carry_out(
    journal: Journal,
    corrections: Sequence[Correction],
    *,
    subject: str,
    holds: Mapping[str, Any],
    forget: Sequence[str] = (),
    settled: Sequence[JournalEntry] = (),
) -> None:
    """Makes the corrections that are not refused; a trade that changed meanwhile becomes a refusal.

    `holds` (by trade id, None lifts) are set before the ledger is touched; `forget` names sections of memory to
    clear for changed trades; `settled` are entries of a killed run whose outcome was found out.
    """
    ready = [correction for correction in corrections if correction.refusal is None]
    journal.state.remember("holds", {i: hold for i, hold in holds.items() if hold is not None})
    _post(journal, ready)
    refused = [correction.entry.trade_id for correction in ready if correction.refusal]
    changed = [correction.entry.trade_id for correction in ready if not correction.refusal]
    lifted = [*refused, *(i for i, hold in holds.items() if hold is None)]
    memory = {"holds": dict.fromkeys(lifted), **{section: dict.fromkeys(changed) for section in forget}}
    listed, entries = _listed(journal, corrections, subject), (*settled, *journal.entries)
    journal.state.commit(
        RunCommit(kind=journal.source, run_id=journal.run_id, run=listed, entries=entries, memory=memory)
    )


def _post(journal: Journal, corrections: Sequence[Correction]) -> None:
    journal.post([correction.posting for correction in corrections])
    for correction in corrections:
        if not correction.posting.written:
            correction.refusal = CHANGED_SINCE


def _listed(journal: Journal, corrections: Sequence[Correction], subject: str) -> dict[str, Any]:
    refused = sum(1 for correction in corrections if correction.refusal)
    return {
        "ts": iso(journal.now()),
        "source": journal.source,
        "runId": journal.run_id,
        "subject": subject,
        "changed": len(corrections) - refused,
        "refused": refused,
        "ok": not refused,
    }
