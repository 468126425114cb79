"""Broker truth as values: orders, executions, positions, instruments, numbers and times."""

from .client_ids import client_id, parse_client_id, trade_tag
from .evidence import (
    ActivitiesSince,
    ClockNow,
    Evidence,
    FillsSince,
    OrderByClientId,
    OrderById,
    OrdersOf,
    Question,
    RecordsOf,
)
from .graph import OrderGraph, connected, is_tagged, ties
from .instrument import CRYPTO_DUST, STOCK_DUST, Side, crypto_pair, expiry, is_option, multiplier, symbol_key
from .numbers import ONE, ZERO, BadNumber, json_number, money, number, plain, ratio4
from .records import FINAL, Account, Activity, BrokerTruth, Fill, MarketClock, Order, Position, canonical_id, is_uuid
from .remembered import recall_orders, remember_order
from .times import eastern, eastern_date, iso, parse_time
