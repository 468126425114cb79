"""Opens the gateway after an observation, with the market's hours."""

from __future__ import annotations

from datetime import timedelta

from ghostclean.app.deadline import Deadline
from ghostclean.app.gateway.gateway import OrderGateway
from ghostclean.app.observation import Observation
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Broker, Lease
from ghostclean.core.broker import OrderGraph, eastern_date
from ghostclean.core.protection import Market
from ghostclean.errors import BrokerError


def read_market(broker: Broker, deadline: Deadline, notes: list[str]) -> Market:
    """Clock and calendar; raises BrokerError without the clock. Without the calendar the clock's close counts."""
    clock = deadline.writing(broker.clock)
    today = eastern_date(clock.at)
    try:
        sessions = deadline.writing(lambda: broker.calendar(today - timedelta(days=7), today))
    except BrokerError as error:
        sessions = ()
        notes.append(f"the calendar cannot be read ({error}): the clock's close counts")
    return Market.of(clock, sessions)


def open_gateway(
    parts: Parts,
    observed: Observation,
    market: Market,
    deadline: Deadline,
    lease: Lease | None,
    *,
    grace: timedelta,
    dry_run: bool = False,
) -> OrderGateway:
    """The gateway after an observation: it knows every order that the observation saw, `held` legs included."""
    known = OrderGraph()
    known.add_orders(observed.evidence.orders.values())
    known.set_working(observed.truth.orders)
    return OrderGateway(
        parts.broker,
        parts.state,
        market,
        deadline,
        grace=grace,
        verify=lease.verify if lease is not None else lambda: None,
        known=known,
        dry_run=dry_run,
        sleep=parts.pause,
    )
