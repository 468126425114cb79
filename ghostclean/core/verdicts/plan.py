"""The plan of a run: data that is shown, guarded, applied, journaled and tested as one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from ghostclean.core.allocation import Orphan
from ghostclean.core.broker import Order, Position, Question
from ghostclean.core.ledger import Trade
from ghostclean.core.neighbours import Claim, explained_line

from .decision import Action, Decision, Verdict


@dataclass(frozen=True, slots=True)
class Holding:
    """What an open trade really has at the broker, for the engine that manages it.

    `open_qty` is proven by orders and the position; `exits` are its own exit orders of any
    status; `initial_stop` is the stop that 1R is measured by, None when unknown.
    """

    trade: Trade
    position: Position
    open_qty: Decimal
    entry_price: Decimal | None
    initial_stop: Decimal | None
    entry: Order | None
    exits: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Decisions in a stable order; `activity` is the latest moment anything happened in a symbol (by key),
    `own_orders` the order ids of every trade, `elsewhere` how many are of another account. `claims` is what
    the trades hold, `explained` what other ledgers of the account say they do, by ledger.
    """

    decisions: tuple[Decision, ...]
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    orphans: tuple[Orphan, ...] = ()
    activity: Mapping[str, datetime] = field(default_factory=dict)
    open_trades: int = 0
    own_orders: Mapping[str, frozenset[str]] = field(default_factory=dict)
    elsewhere: int = 0
    claims: tuple[Claim, ...] = ()
    explained: Mapping[str, Sequence[tuple[Position, Decimal]]] = field(default_factory=dict)

    @property
    def questions(self) -> tuple[Question, ...]:
        """The look-ups that would settle what is open."""
        return tuple(sorted({q for d in self.decisions for q in d.questions}, key=repr))

    @property
    def about_elsewhere(self) -> str | None:
        """One line about the trades of another account."""
        if not self.elsewhere:
            return None
        what = "1 trade says it is" if self.elsewhere == 1 else f"{self.elsewhere} trades say they are"
        return f"{what} of another account than this run's: left alone ({Verdict.OTHER_ACCOUNT})"

    @property
    def about_neighbours(self) -> str | None:
        """One line about what other ledgers of the account hold."""
        return explained_line(self.explained)

    @property
    def suspects(self) -> int:
        """How many trades may yet become closes without proof."""
        return sum(1 for d in self.decisions if d.suspect)

    @property
    def writing(self) -> tuple[Decision, ...]:
        """The decisions that change the ledger, closes before syncs."""
        order = {Action.CLOSED: 0, Action.REDUCED: 1, Action.REOPENED: 2, Action.ADOPTED: 3, Action.SYNCED: 4}
        changing = [d for d in self.decisions if d.action.writes]
        return tuple(sorted(changing, key=lambda d: (order.get(d.action, 5), d.trade_id or "")))

    @property
    def unproven(self) -> tuple[Decision, ...]:
        """The closes that rest on absence alone."""
        return tuple(d for d in self.decisions if d.unproven and d.action is Action.CLOSED)
