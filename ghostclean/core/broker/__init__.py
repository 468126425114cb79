"""Broker truth as values: orders, executions, positions, instruments, numbers and times."""

from .evidence import (
    ACTIVITIES,
    CLOCK,
    FILLS,
    ActivitiesSince,
    ClockNow,
    Evidence,
    FillsSince,
    OrderByClientId,
    OrderById,
    OrdersOf,
    Question,
    RecordsOf,
    recall_orders,
    remember_order,
)
from .graph import OrderGraph, connected, is_tagged, ties
from .instrument import CRYPTO_DUST, STOCK_DUST, Side, crypto_pair, expiry, is_option, multiplier, symbol_key
from .records import (
    FINAL,
    Account,
    Activity,
    BrokerTruth,
    Fill,
    MarketClock,
    Order,
    Position,
    Positions,
    Session,
    Unread,
    WorkingOrders,
    canonical_id,
    client_id,
    is_activity_id,
    is_uuid,
    parse_client_id,
    trade_tag,
)
from .values import (
    ONE,
    ZERO,
    BadNumber,
    eastern,
    eastern_date,
    iso,
    json_number,
    money,
    number,
    parse_time,
    plain,
    ratio4,
)
