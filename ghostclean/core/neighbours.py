"""What other ledgers of the same account say that their trades hold. Pure.

A ledger's word is believed for two of its own intervals. It explains what no trade of ours does, and
never proves that one of ours is gone; where the orders of both prove more than stands, neither is covered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import ZERO, BadNumber, Position, Side, iso, number, parse_time, plain, symbol_key
from ghostclean.core.ledger import ADOPTED

_FORGOTTEN = timedelta(days=7)  # a ledger that is silent for so long is not waited for any more
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Claim:
    """What one trade holds of a position of `whole`; `proven` by its own orders, which are `orders`.

    A quantity of 0: the trade may hold some of it, and nobody knows how much.
    """

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
        self._claims: dict[tuple[str, Side], list[tuple[_Word, Claim]]] = defaultdict(list)
        for fresh in self._fresh:
            for claim in fresh.claims:
                self._claims[claim.place].append((fresh, claim))
        # Whose an order is does not change with time.
        self.orders = frozenset(i for w in self._words for claim in w.claims for i in claim.orders)

    def held(self, position: Position | None) -> Decimal:
        """How much of a position is theirs."""
        return ZERO if position is None else sum((claim.qty for _, claim in self._of(position)), ZERO)

    def proven(self, position: Position) -> Decimal:
        """How much of it is theirs by their own orders, while nothing has moved since they looked."""
        return sum((claim.qty for _, claim in self._proven(position)), ZERO)

    def disputed(self, position: Position, ours: Mapping[str, AbstractSet[str]], since: datetime) -> Decimal:
        """The same, by those who have looked since, but for copies of our own trades (by id, with their orders).

        What two ledgers have adopted has one id in both, and is no copy.
        """
        found = (claim for said, claim in self._proven(position) if said.at > since)
        copied = {trade: orders for trade, orders in ours.items() if not trade.startswith(ADOPTED)}
        return sum((c.qty for c in found if copied.get(c.trade, frozenset()).isdisjoint(c.orders)), ZERO)

    def _proven(self, position: Position) -> Iterator[tuple[_Word, Claim]]:
        rows = self._of(position)
        return ((said, c) for said, c in rows if c.proven and c.qty <= c.whole == position.qty)

    def explained(self, position: Position, left: Decimal) -> list[tuple[str, Decimal]]:
        """Which ledgers explain how much of what is left of it."""
        shares: dict[str, Decimal] = defaultdict(Decimal)
        for said, claim in self._of(position):
            share = min(claim.qty, left)
            if share > 0:
                shares[said.ledger] += share
                left -= share
        return list(shares.items())

    def all_spoke_since(self, moment: datetime | None) -> bool:
        """Whether what happened then is no other ledger's, or named by it."""
        return not self._words or (moment is not None and all(said.at - self._grace > moment for said in self._words))

    def _of(self, position: Position) -> Sequence[tuple[_Word, Claim]]:
        return self._claims.get((position.key, position.side), ())

    def may_hold(self, position: Position, latest: datetime | None) -> str | None:
        """Why a position may be another ledger's by now, though no word that counts says so.

        `latest` is when anything last happened in its symbol.
        """
        place = position.key, position.side
        for said in self._words:
            if latest is not None and said.at - self._grace <= latest:
                return f"ledger {said.ledger} has not run since its symbol saw activity"
            claims = [claim for claim in said.claims if claim.place == place]
            if claims and said not in self._fresh:
                return f"ledger {said.ledger} had it when it last ran, at {iso(said.at)}"
            if doubt := next((claim.trade for claim in claims if not claim.qty), None):
                return f"trade {doubt} of ledger {said.ledger} may be it"
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
