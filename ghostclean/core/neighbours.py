"""What other ledgers of the same account say that their trades hold. Pure.

A ledger's word is believed for two of its own intervals. It explains what no trade of ours does; it
never takes from a trade whose own orders prove it, and never proves that one of ours is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import ZERO, BadNumber, Position, Side, iso, number, parse_time, plain, symbol_key

_FORGOTTEN = timedelta(days=7)  # a ledger that is silent for so long is not waited for any more
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Claim:
    """What one trade holds of a position of `whole`; `proven` by its own orders, which are `orders`."""

    trade: str
    symbol: str
    side: Side
    qty: Decimal
    whole: Decimal
    proven: bool
    orders: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, Side]:
        return symbol_key(self.symbol), self.side

    def to_dict(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "tradeId": self.trade,
            "symbol": self.symbol,
            "side": str(self.side),
            "quantity": self.qty,
            "position": self.whole,
            "proven": self.proven,
            "orderIds": list(self.orders),
        }


def word(ledger: str, at: datetime, interval: timedelta, claims: Iterable[Claim]) -> dict[str, Any]:
    """What a run of a ledger publishes for the others."""
    said = [claim.to_dict() for claim in claims]
    return {"ledger": ledger, "at": iso(at), "interval": interval.total_seconds(), "holds": said}


@dataclass(frozen=True, slots=True)
class _Word:
    ledger: str
    at: datetime
    interval: timedelta
    claims: tuple[Claim, ...]


class Neighbours:
    """The words of the other ledgers at one moment; one that cannot be read says nothing.

    An app may write its record later than it trades: a word speaks of what had happened a grace before it.
    """

    def __init__(self, said: Mapping[str, Mapping[str, Any]], now: datetime, grace: timedelta) -> None:
        self._grace = grace
        found = [w for value in said.values() if (w := _read(value)) is not None]
        self._words = sorted((w for w in found if now - w.at < _FORGOTTEN), key=lambda w: w.ledger)
        self._fresh = [w for w in self._words if now - w.at < 2 * w.interval]
        self._claims: dict[tuple[str, Side], list[tuple[str, Claim]]] = defaultdict(list)
        for fresh in self._fresh:
            for claim in fresh.claims:
                self._claims[claim.place].append((fresh.ledger, claim))
        # Whose an order is does not change with time.
        self.orders = frozenset(i for w in self._words for claim in w.claims for i in claim.orders)

    def held(self, position: Position | None) -> Decimal:
        """How much of a position is theirs."""
        return ZERO if position is None else sum((claim.qty for _, claim in self._of(position)), ZERO)

    def proven(self, position: Position) -> Decimal:
        """How much of it is theirs by their own orders, while nothing has moved since they looked."""
        claims = (c for _, c in self._of(position) if c.proven and c.whole == position.qty)
        return sum((claim.qty for claim in claims), ZERO)

    def explained(self, position: Position, left: Decimal) -> list[tuple[str, Decimal]]:
        """Which ledgers explain how much of what is left of it."""
        shares: dict[str, Decimal] = defaultdict(Decimal)
        for ledger, claim in self._of(position):
            share = min(claim.qty, left)
            if share > 0:
                shares[ledger] += share
                left -= share
        return list(shares.items())

    def all_spoke_since(self, moment: datetime | None) -> bool:
        """Whether what happened then is no other ledger's, or named by it."""
        return not self._words or (moment is not None and all(said.at - self._grace > moment for said in self._words))

    def _of(self, position: Position) -> Sequence[tuple[str, Claim]]:
        return self._claims.get((position.key, position.side), ())

    def may_hold(self, position: Position, latest: datetime | None) -> str | None:
        """Why a position may be another ledger's by now, though no word that counts says so.

        `latest` is when anything last happened in its symbol.
        """
        place = position.key, position.side
        for said in self._words:
            if latest is not None and said.at - self._grace <= latest:
                return f"ledger {said.ledger} has not run since its symbol saw activity"
            if said not in self._fresh and any(claim.place == place for claim in said.claims):
                return f"ledger {said.ledger} had it when it last ran, at {iso(said.at)}"
        return None


def explained_line(explained: Mapping[str, Sequence[tuple[Position, Decimal]]]) -> str | None:
    """One line about what other ledgers of the account hold."""
    parts = []
    for ledger, shares in sorted(explained.items()):
        texts = [f"{plain(qty)} {position.symbol} {position.side.lower()}" for position, qty in shares]
        more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
        parts.append(f"{', '.join(texts[:_NAMED])}{more} explained by ledger {ledger}")
    return "; ".join(parts) or None


def _read(value: Mapping[str, Any]) -> _Word | None:
    try:
        at = parse_time(value["at"])
        claims = tuple(_claim(one) for one in value["holds"])
        interval = timedelta(seconds=float(value["interval"]))
        return None if at is None else _Word(str(value["ledger"]), at, interval, claims)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, BadNumber):
        return None


def _claim(value: Mapping[str, Any]) -> Claim:
    qty, whole = number(value["quantity"]), number(value["position"])
    if qty is None or whole is None or qty < 0:
        raise ValueError("no quantity")
    orders = tuple(str(i) for i in value["orderIds"])
    names = str(value["tradeId"]), str(value["symbol"]), Side(value["side"])
    return Claim(*names, qty, whole, value["proven"] is True, orders)
