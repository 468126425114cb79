"""Whether a ledger fits: what its statuses mean to us, and whether its trades name their orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from .trade import OPEN, PENDING, is_open, is_pending, order_ids, status_of

_NAMED = 5
_NONE = "none"  # stands for a status that is not there, or no text
_FAILED = frozenset({"ERROR", "FAILED"})
_MEANINGS = {**dict.fromkeys(OPEN, "open"), **dict.fromkeys(_FAILED, "failed"), **dict.fromkeys(PENDING, "pending")}


@dataclass(frozen=True, slots=True)
class Fit:
    """The records by status, those that are over in one number, and the order ids that open and pending trades name.

    `strangers` are entries that are no records; `nameless` trades name no order.
    """

    exists: bool
    over: int
    strangers: int
    statuses: Mapping[str, int]
    trades: int
    nameless: int
    orders: frozenset[str]

    @classmethod
    def of(cls, active: Collection[Mapping[str, Any]], *, total: int, strangers: int, exists: bool) -> Self:
        """Of the records that are not final, and the counts of one reading."""
        trades = [record for record in active if is_open(record) or is_pending(record)]
        named = [frozenset(order_ids(record)) for record in trades]
        statuses = Counter(status_of(record) or _NONE for record in active)
        over, orders = max(0, total - len(active)), frozenset().union(*named)
        return cls(exists, over, strangers, statuses, len(trades), named.count(frozenset()), orders)

    @property
    def unknown(self) -> dict[str, int]:
        """The statuses that mean nothing to us, the most frequent first."""
        strange = ((status, count) for status, count in self.statuses.items() if status not in _MEANINGS)
        return dict(sorted(strange, key=lambda row: -row[1]))

    def why_not(self, known: Iterable[str] = ()) -> str | None:
        """Why nothing of it can be watched; `known` are statuses that once stood beside open trades."""
        if self.trades:
            return None
        if self.strangers and not self.statuses and not self.over:
            return f"none of its {self.strangers} entries is a record"
        if self.unknown.keys() <= set(known):
            return None
        said = ", ".join(f"{status} ({count})" for status, count in [*self.unknown.items()][:_NAMED])
        return f"no trade is open, and these statuses are not known: {said}"

    def line(self) -> str:
        """The statuses with what they count as, for a person."""
        said = [f"{count} {status} ({_meaning(status)})" for status, count in sorted(self.statuses.items())]
        return ", ".join([*said, f"{self.over} over"])

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        statuses = [{"status": s, "count": n, "means": _meaning(s)} for s, n in sorted(self.statuses.items())]
        return {"exists": self.exists, "statuses": statuses, "over": self.over, "withoutOrder": self.nameless}


def _meaning(status: str) -> str:
    return _MEANINGS.get(status, "not known")
