"""What a first run asks the account, before anything is written: whether it knows this ledger's orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ghostclean.app.deadline import bounded
from ghostclean.app.ports import Broker
from ghostclean.core.broker import Account, Order, Positions, is_uuid
from ghostclean.core.ledger import LedgerMapping, Trade, is_open, is_pending, read_trade

_ASKED = 25  # orders that are looked up, of the newest records
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Met:
    """What the account has said; `orders` by the id that was asked for, None for a true "not found"."""

    account: Account
    live: bool
    positions: Positions
    orders: Mapping[str, Order | None]


def open_trades(records: Sequence[Mapping[str, Any]], mapping: LedgerMapping) -> list[Trade]:
    """The trades that are not over, as the mapping reads them."""
    shown = [mapping.read(record) for record in records if mapping.belongs(record)]
    return [read_trade(record) for record in shown if is_open(record) or is_pending(record)]


def meet(broker: Broker, trades: Sequence[Trade]) -> Met:
    """Reads the account and looks up the entry orders of some trades; raises BrokerError and DeadlineExceeded."""
    return bounded(lambda: _meet(broker, trades), _SECONDS)


def _meet(broker: Broker, trades: Sequence[Trade]) -> Met:
    account = broker.account()
    working = {key: order for order in broker.working_orders() for key in (order.id, order.client_id)}
    positions = broker.positions()
    orders: dict[str, Order | None] = {}
    for trade in [trade for trade in trades if trade.has_order][-_ASKED:]:
        for order_id in trade.entry_orders:
            orders[order_id] = working.get(order_id) or _looked_up(broker, order_id, trade)
            if orders[order_id] is not None:
                break
    return Met(account, broker.live, positions, orders)


def _looked_up(broker: Broker, order_id: str, trade: Trade) -> Order | None:
    is_clients = order_id == trade.client_order or not is_uuid(order_id)
    found = broker.order_by_client_id(order_id) if is_clients else broker.order(order_id)
    return found[0] if found else None
