"""The orders that may have opened or closed a trade for which proof is missing, each with whose it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.observation import Observation, observe, read_truth, refuse_other_account
from ghostclean.app.parts import Parts
from ghostclean.app.ports import RECONCILE_MEMORY
from ghostclean.core.broker import FillsSince, Order, OrdersOf, RecordsOf, Side, iso, plain
from ghostclean.core.inputs import Policy
from ghostclean.core.ledger import Trade, json_value, order_ids, read_trade, record_id
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.lines import command, shell_word

_BEFORE_OPENING = timedelta(days=1)
_LOOK_BACK = timedelta(days=90)
THIS = "this trade"
# No person's word ends these.
ALIVE = frozenset({Verdict.LIVE, Verdict.REDUCED, Verdict.WORKING, Verdict.SETTLING, Verdict.OTHER_ACCOUNT})


@dataclass(frozen=True, slots=True)
class Candidate:
    """An order that filled in the trade's instrument; `owner` is who names it, None for nobody."""

    order_id: str
    client_id: str
    side: str
    status: str
    qty: Decimal
    price: Decimal | None
    at: datetime | None
    owner: str | None
    enters: bool  # it may have opened the trade, not closed it
    command: str

    def to_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = json_value({"filledQty": self.qty, "price": self.price})
        return {
            "orderId": self.order_id,
            "clientOrderId": self.client_id,
            "side": self.side,
            "status": self.status,
            **fields,
            "at": iso(self.at) if self.at else None,
            "owner": self.owner,
            "enters": self.enters,
            "command": self.command,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person can choose from: the verdict, what the broker holds, and the candidates, oldest first."""

    trade: Trade
    decision: Decision
    held: str
    candidates: tuple[Candidate, ...]

    @property
    def vanished(self) -> str | None:
        """The command for a trade of which nothing is left and whose end nobody knows."""
        # A vanished one may stand beside a position that other trades explain.
        is_gone = self.held == "nothing" or self.decision.verdict is Verdict.VANISHED
        if not self.trade.symbol or not is_gone or self.decision.verdict in ALIVE:
            return None
        return command("resolve", self.trade.id or "", "--vanished", "--dry-run")

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.trade.id,
            "ticker": self.trade.symbol,
            "verdict": str(self.decision.verdict),
            "reason": self.decision.reason,
            "held": self.held,
            "vanished": self.vanished,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def find_candidates(parts: Parts, deadline: Deadline, policy: Policy, record: Mapping[str, Any]) -> Choice | None:
    """The choice for an open trade, None for one that runs do not work on or whose id stands twice.

    Raises LedgerFailed, StateFailed, BrokerTruthFailed, AccountMismatch.
    """
    view = deadline.reading(parts.ledger.read)
    memory = deadline.reading(lambda: parts.state.recall_all(RECONCILE_MEMORY))
    truth = read_truth(parts, deadline)
    refuse_other_account(memory.pinned, truth.account, live=parts.broker.live)
    observation = observe(parts, deadline, policy, view, memory, truth, look_again=False)
    trade = read_trade(record)
    decision = next((d for d in observation.plan.decisions if d.trade_id == trade.id), None)
    if decision is None or trade.id in view.repeated:
        return None
    since = max((trade.opening or truth.at) - _BEFORE_OPENING, truth.at - _LOOK_BACK)
    keys = instruments(observation, trade)
    asked = [OrdersOf(key, trade.symbol if key == trade.key else key, since) for key in keys]
    observation.lookups.answer([*asked, FillsSince(since), RecordsOf(trade.key)])
    positions = [p for p in truth.positions.rows if p.key in keys]
    held = ", ".join(f"{plain(p.qty)} {p.side.lower()}" for p in positions) or "nothing"
    return Choice(trade, decision, held, _candidates(observation, trade, keys, since))


def instruments(observation: Observation, trade: Trade) -> dict[str, Side]:
    """The symbol keys that a trade is of, each with its side: those of its entry order, else of its ticker."""
    evidence = observation.evidence
    entry = next((order for name in trade.entry_orders if (order := evidence.find_entry(name)) is not None), None)
    if entry is None:
        return {trade.key: trade.side}
    if not entry.is_multi_leg:
        return {entry.key: trade.side}
    legs = [leg for name in entry.legs if (leg := evidence.get(name)) is not None]
    return {leg.key: Side.LONG if leg.side == Side.LONG.opening else Side.SHORT for leg in legs}


def _candidates(
    observation: Observation, trade: Trade, keys: Collection[str], since: datetime
) -> tuple[Candidate, ...]:
    evidence, owners = observation.evidence, _owners(observation, trade)
    filled = [o for o in evidence.orders.values() if o.key in keys and o.filled_qty and not o.is_multi_leg]
    found = [
        Candidate(
            order.id,
            order.client_id,
            order.side,
            order.status,
            order.filled_qty,
            evidence.price_of(order),
            order.fill_time,
            owners.get(order.id) or owners.get(order.client_id),
            enters := order.side == trade.side.opening,
            _command(trade, order, "--entry-order" if enters else "--exit-order"),
        )
        for order in filled
        if order.fill_time is None or order.fill_time >= since
    ]
    return tuple(sorted(found, key=lambda c: (c.at is not None, c.at, c.order_id)))


def _owners(observation: Observation, trade: Trade) -> dict[str, str]:
    """Who names an order: this trade, another open one, or a closed record of the symbol."""
    closed = observation.lookups.closed.get(trade.key, ())
    owners = {name: f"closed trade {record_id(record)}" for record in closed for name in order_ids(record)}
    for other, names in observation.plan.own_orders.items():
        owners |= dict.fromkeys(names, THIS if other == trade.id else f"trade {other}")
    return owners


def _command(trade: Trade, order: Order, option: str) -> str:
    return command("resolve", trade.id or "", option, shell_word(order.id))


def unexplained_without(observation: Observation, key: str, side: Side) -> str | None:
    """What stands or works in an instrument, on that side, that no other trade explains.

    `observation` is of the ledger without the trade that is of it.
    """
    plan = observation.plan
    for orphan in plan.orphans:
        if (orphan.position.key, orphan.position.side) == (key, side):
            return f"{plain(orphan.qty)} {side.lower()} stand at the broker that no other trade explains"
    position = next((p for p in observation.truth.positions.rows if p.key == key), None)
    others = {t.id for t in observation.world().trades if (t.key, t.side) == (key, side)}
    rival = next((d for d in plan.decisions if d.trade_id in others and d.action is Action.HELD), None)
    if rival is not None and position is not None and position.side is side:
        return f"{plain(position.qty)} stand at the broker, and trade {rival.trade_id} beside it is {rival.verdict}"
    owned = frozenset().union(*plan.own_orders.values())
    closes = position is not None and position.side is not side
    for order in observation.truth.orders:
        enters = order.works and order.side == side.opening and not order.intent.endswith("_to_close")
        if order.key == key and enters and not closes and not owned & {order.id, order.client_id}:
            return f"order {order.id} ({order.side}) works there and is no other trade's"
    return None
