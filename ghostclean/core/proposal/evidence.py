"""How the ledger, read through a proposed mapping, meets the account: what agrees and what cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from ghostclean.core.broker import CRYPTO_DUST, ONE, Order, Positions, Side
from ghostclean.core.ledger import Trade

from .lines import UNZONED, Line, Proposal, Trust
from .words import AS_A_SHORT

# Where naive times come from; of those that fit alike the first.
ZONES = (
    "UTC",
    "America/New_York",
    "America/Chicago",
    "America/Los_Angeles",
    "Europe/London",
    "Europe/Berlin",
    "Asia/Kolkata",
)
_NEAR = timedelta(minutes=15)  # between what a bot notes down and what the broker says
_MOST = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of the trades that are open: how many there are, name an order, were asked about, are known, are covered.

    `crossed` are the ids of trades whose entry order went the other way.
    """

    open: int
    pending: int
    unreadable: int
    named: int
    asked: int
    known: int
    covered: int
    crossed: tuple[str, ...] = ()

    @property
    def is_strange(self) -> bool:
        """Whether nothing says that this is the ledger of this account, though its orders should."""
        return self.asked > 0 and not self.known and not self.covered


def measure(trades: Sequence[Trade], orders: Mapping[str, Order | None], positions: Positions) -> Overlap:
    """`orders` are the answers by the id that was asked for; None is a true "not found"."""
    opened = [t for t in trades if not t.is_pending and t.problem is None]
    asked = [t for t in trades if orders.keys() & t.entry_orders]
    known = [(t, order) for t in asked if (order := _entry(t, orders)) is not None]
    return Overlap(
        open=len(opened),
        pending=sum(t.is_pending and t.problem is None for t in trades),
        unreadable=sum(t.problem is not None for t in trades),
        named=sum(t.has_order for t in trades),
        asked=len(asked),
        known=len(known),
        covered=_covered(opened, positions),
        crossed=tuple(t.id for t, order in known if t.id is not None and order.side != t.side.opening),
    )


def _entry(trade: Trade, orders: Mapping[str, Order | None]) -> Order | None:
    return next((order for i in trade.entry_orders if (order := orders.get(i)) is not None), None)


def _covered(trades: Iterable[Trade], positions: Positions) -> int:
    """How many trades stand in symbols of which the broker holds what they say together."""
    wanted: dict[tuple[str, Side], list[Decimal]] = {}
    for trade in trades:
        wanted.setdefault((trade.key, trade.side), []).append(trade.size or Decimal(0))
    held = {(row.key, row.side): row.qty for row in positions.rows}
    return sum(
        len(sizes) for which, sizes in wanted.items() if held.get(which, Decimal(0)) >= sum(sizes) * (ONE - CRYPTO_DUST)
    )


def confirmed(proposal: Proposal, trades: Sequence[Trade], orders: Mapping[str, Order | None]) -> Proposal:
    """The proposal with the lines made sure, or doubted, that the account's own orders speak about."""
    known = [(trade, order) for trade in trades if (order := _entry(trade, orders)) is not None]
    lines = (_linked(line, trades, orders) for line in proposal.lines)
    return replace(
        proposal, lines=_same_zone([_timed(_agreed(_directed(line, known), known), known) for line in lines])
    )


def _linked(line: Line, trades: Sequence[Trade], orders: Mapping[str, Order | None]) -> Line:
    """An order id is sure where the account knows it, a client order id where the known orders have it."""
    if line.field == "alpacaOrderId":
        said = [orders[i] is not None for t in trades if (i := t.entry_order) is not None and i in orders]
        why = f"the account knows {sum(said)} of {len(said)}"
    elif line.field == "clientOrderId":
        known = [(t, order) for t in trades if t.client_order and (order := _entry(t, orders)) is not None]
        said = [t.client_order == order.client_id for t, order in known]
        why = f"{sum(said)} of {len(said)} known orders are called so"
    else:
        return line
    if not said:
        return line
    return replace(line, trust=Trust.SURE, why=f"{line.why}; {why}") if any(said) else line.but(why)


def _directed(line: Line, known: Sequence[tuple[Trade, Order]]) -> Line:
    """A side is sure where entry orders went that way; that a sale is a short, only a short can show."""
    if line.field != "side" or not known:
        return line
    crossed = [t for t, order in known if order.side != t.side.opening]
    if crossed:
        return line.but(f"{len(crossed)} entry orders of {len(known)} went the other way")
    if AS_A_SHORT not in line.why or any(t.side is Side.SHORT for t, _ in known):
        return replace(line, trust=Trust.SURE, why=f"{line.why}; {_proven(known)}")
    return line


def _agreed(line: Line, known: Sequence[tuple[Trade, Order]]) -> Line:
    """A symbol or a size is sure where all known entry orders say the same."""
    if line.field not in _SAME or line.is_sure or not known:
        return line
    agree = all(_SAME[line.field](trade, order) for trade, order in known)
    return replace(line, trust=Trust.SURE, why=f"{line.why}; {_proven(known)}") if agree else line


def _proven(known: Sequence[object]) -> str:
    return f"proven by {len(known)} entry order{'s' * (len(known) != 1)}"


_SAME: Mapping[str, Callable[[Trade, Order], bool]] = {
    "ticker": lambda trade, order: trade.key == order.key,
    "quantity": lambda trade, order: trade.size in (order.filled_qty, order.qty),
}


def _timed(line: Line, known: Sequence[tuple[Trade, Order]]) -> Line:
    """The zone of naive times is the one in which they stand beside the times of the orders."""
    if not line.is_zoned or line.is_sure or line.field not in _OPENINGS:
        return line
    read = ZoneInfo(line.form or "UTC")
    pairs = []
    for trade, order in known:
        said, at = _OPENINGS[line.field](trade), order.filled_at or order.submitted_at
        if said is not None and at is not None:
            pairs.append((said.astimezone(read).replace(tzinfo=None), at))
    zone = zone_of(pairs)
    if zone is None:
        return line
    return replace(
        line, form=zone, trust=Trust.SURE, why=f"{_bare(line.why)}; beside the orders' own times they are {zone}"
    )


_OPENINGS = {
    "openedAt": lambda trade: trade.opened_at,
    "executedAt": lambda trade: trade.executed_at,
    "createdAt": lambda trade: trade.created_at,
}


def zone_of(pairs: Sequence[tuple[datetime, datetime]]) -> str | None:
    """The zone of these naive times, each with the moment that it was; None where none fits most of them."""
    for zone in ZONES:
        near = sum(abs(said.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - at) < _NEAR for said, at in pairs)
        if near and near >= _MOST * len(pairs):
            return zone
    return None


def _same_zone(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The other naive times are of the zone that those of the openings have been found to be of."""
    found = {line.form for line in lines if line.field in _OPENINGS and line.is_sure and line.is_zoned}
    if len(found) != 1:
        return tuple(lines)
    zone = found.pop()
    return tuple(
        replace(line, form=zone, trust=Trust.SURE, why=f"{_bare(line.why)}; {zone} as the others")
        if line.is_zoned and not line.is_sure
        else line
        for line in lines
    )


def _bare(why: str) -> str:
    return why.partition(UNZONED)[0]
