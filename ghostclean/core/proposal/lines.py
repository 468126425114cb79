"""The lines of a proposed mapping, and how far each can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from .columns import EPOCH_MS, EPOCH_S
from .words import Words

DECISIVE = ("id", "ticker", "status", "side", "quantity", "alpacaOrderId")
SAID = "as you said"
UNZONED = ", without a zone"
NULL, SIGNED = "null", "signed"  # forms: open while it is null; a negative size is a short


class NoLedger(ValueError):
    """These records are no ledger of trades; says why."""


class Trust(StrEnum):
    """How far a line can be trusted; a doubtful one would decide wrongly, and needs a person's word."""

    SURE = "sure"
    LIKELY = "likely"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True, slots=True)
class Line:
    """One field of a trade and the app's name for it.

    `form` is what its values are, where that must be said: an epoch, the zone of naive times, `signed`, `null`.
    """

    field: str
    name: str
    trust: Trust
    why: str
    words: Words = ()
    form: str | None = None

    @property
    def is_sure(self) -> bool:
        return self.trust is Trust.SURE

    @property
    def is_zoned(self) -> bool:
        """Whether its times say nothing of their zone, so that the line must."""
        return self.form not in (None, EPOCH_S, EPOCH_MS, NULL, SIGNED)

    def but(self, doubt: str | None) -> Line:
        """The line with a doubt, if there is one; it does not outweigh the owner's word."""
        if not doubt:
            return self
        trust = self.trust if self.why.startswith(SAID) else unsure(self.field)
        return replace(self, trust=trust, why=f"{self.why}; {doubt}")


def unsure(field: str) -> Trust:
    return Trust.DOUBTFUL if field in DECISIVE else Trust.LIKELY


@dataclass(frozen=True, slots=True)
class Proposal:
    """The lines, and what else a person should know before saying yes."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def line(self, field: str) -> Line | None:
        return next((line for line in self.lines if line.field == field), None)

    def changed(self, field: str, **values: Any) -> Proposal:
        lines = tuple(replace(line, **values) if line.field == field else line for line in self.lines)
        return replace(self, lines=lines)

    def zoned(self, zone: str) -> Proposal:
        """All naive times are of this zone, as the owner says."""
        zoned = (replace(line, form=zone, trust=Trust.SURE, why=SAID) if line.is_zoned else line for line in self.lines)
        return replace(self, lines=tuple(zoned))

    @property
    def doubtful(self) -> tuple[Line, ...]:
        """The lines that need a person's word."""
        return tuple(line for line in self.lines if line.trust is Trust.DOUBTFUL)
