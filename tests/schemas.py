"""Ten ways in which bots keep their trades, each with the trades that must be read from it.

The shapes are those of public bots: their tables, names, words and units; the values are made up.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = dict[str, Any]

AAPL, MSFT, TSLA, NVDA, AMD = (f"61e69015-8549-4bfd-b9c3-01e75843f47{n}" for n in range(5))
AAPL_STOP, TSLA_STOP = "904837e3-3b76-47ec-b432-046db621571b", "904837e3-3b76-47ec-b432-046db621571c"
MSFT_EXIT = "904837e3-3b76-47ec-b432-046db621571d"


@dataclass(frozen=True)
class Schema:
    """A bot's records; `trades` is what ghostclean must read of those that are not over, by id.

    `table` is the DDL of one that lives in a database; `refused` a part of the reason why it is none.
    """

    name: str
    records: Sequence[Record]
    trades: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    table: str = ""
    refused: str = ""
    native: bool = False  # its names are ghostclean's own

    def __str__(self) -> str:
        return self.name

    def write(self, folder: Path) -> str:
        """Puts it there as the bot would; returns the place of the ledger."""
        if self.table:
            return self._database(folder / "bot.db")
        path = folder / "trades.json"
        path.write_text(json.dumps(list(self.records), indent=2))
        return f"file:{path}"

    def _database(self, path: Path) -> str:
        name = self.table.split()[2]
        with sqlite3.connect(path) as database:
            database.executescript(self.table)
            for record in self.records:
                marks = ", ".join("?" * len(record))
                database.execute(f"INSERT INTO {name} ({', '.join(record)}) VALUES ({marks})", [*record.values()])
        database.close()
        return f"sqlite:///{path}#{name}"


# Integer ids, sides as directions, times without a zone as SQLite's CURRENT_TIMESTAMP gives them.
PAPER_TRADES = Schema(
    "paper trades",
    [
        {"id": 1, "symbol": "AAPL", "direction": "BUY", "shares": 10, "entry_price": 180.0, "exit_price": None,
         "stop_price": 175.0, "target_price": 195.0, "pnl": None, "status": "open", "alert_type": "breakout",
         "alpaca_order_id": AAPL, "alpaca_close_order_id": None, "session_date": "2026-11-17",
         "opened_at": "2026-11-17 15:00:00", "closed_at": None},
        {"id": 2, "symbol": "MSFT", "direction": "BUY", "shares": 5, "entry_price": 400.0, "exit_price": 410.0,
         "stop_price": 390.0, "target_price": 430.0, "pnl": 50.0, "status": "closed", "alert_type": "pullback",
         "alpaca_order_id": MSFT, "alpaca_close_order_id": MSFT_EXIT, "session_date": "2026-11-16",
         "opened_at": "2026-11-16 15:00:00", "closed_at": "2026-11-16 18:00:00"},
        {"id": 3, "symbol": "TSLA", "direction": "SHORT", "shares": 4, "entry_price": 250.0, "exit_price": None,
         "stop_price": 260.0, "target_price": 220.0, "pnl": None, "status": "open", "alert_type": "breakdown",
         "alpaca_order_id": TSLA, "alpaca_close_order_id": None, "session_date": "2026-11-17",
         "opened_at": "2026-11-17 15:30:00", "closed_at": None},
    ],
    {
        "1": {"symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "entry_price": "180",
              "stop_price": "175", "entry_orders": (AAPL,), "opened_at": "2026-11-17T15:00:00+00:00"},
        "3": {"symbol": "TSLA", "side": "SHORT", "status": "OPEN", "size": "4", "entry_orders": (TSLA,)},
    },
    table="""CREATE TABLE paper_trades (
        id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL, direction TEXT NOT NULL DEFAULT 'BUY',
        shares INTEGER NOT NULL, entry_price REAL, exit_price REAL, stop_price REAL, target_price REAL, pnl REAL,
        status TEXT NOT NULL DEFAULT 'open', alert_type TEXT, alpaca_order_id TEXT, alpaca_close_order_id TEXT,
        session_date TEXT NOT NULL, opened_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, closed_at TIMESTAMP)""",
)  # fmt: skip

# No status: a trade is open while it has no exit time.
NO_STATUS = Schema(
    "no status",
    [
        {"id": "t-1", "symbol": "AAPL", "side": "long", "entry_time": "2026-11-17T15:00:00+00:00", "exit_time": None,
         "entry_price": 180.0, "exit_price": None, "qty": 10.0, "fees": 0.0, "notes": "",
         "created_at": "2026-11-17T15:00:00+00:00", "updated_at": "2026-11-17T15:00:00+00:00"},
        {"id": "t-2", "symbol": "NVDA", "side": "short", "entry_time": "2026-11-16T15:00:00+00:00",
         "exit_time": "2026-11-16T17:00:00+00:00", "entry_price": 140.0, "exit_price": 138.0, "qty": 20.0, "fees": 0.0,
         "notes": "", "created_at": "2026-11-16T15:00:00+00:00", "updated_at": "2026-11-16T17:00:00+00:00"},
    ],
    {"t-1": {"symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "entry_price": "180",
             "opened_at": "2026-11-17T15:00:00+00:00"}},
    table="""CREATE TABLE trades (
        id TEXT PRIMARY KEY, symbol TEXT NOT NULL, side TEXT NOT NULL CHECK (side IN ('long', 'short')),
        entry_time TIMESTAMP NOT NULL, exit_time TIMESTAMP NULL, entry_price REAL NOT NULL, exit_price REAL NULL,
        qty REAL NOT NULL, fees REAL NOT NULL DEFAULT 0, notes TEXT NOT NULL DEFAULT '',
        created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL)""",
)  # fmt: skip

# Quantities with a sign instead of a side, times in epoch milliseconds.
SIGNED = Schema(
    "signed quantities",
    [
        {"trade_id": "aa-1", "symbol": "AAPL", "qty": 10, "entry_price": 180.0, "stop_loss": 175.0, "state": "active",
         "order_id": AAPL, "opened_at": 1_795_186_800_000, "closed_at": None, "exit_price": None},
        {"trade_id": "aa-2", "symbol": "TSLA", "qty": -4, "entry_price": 250.0, "stop_loss": 260.0, "state": "active",
         "order_id": TSLA, "opened_at": 1_795_188_600_000, "closed_at": None, "exit_price": None},
        {"trade_id": "aa-3", "symbol": "MSFT", "qty": 5, "entry_price": 400.0, "stop_loss": 390.0, "state": "done",
         "order_id": MSFT, "opened_at": 1_795_100_400_000, "closed_at": 1_795_111_200_000, "exit_price": 410.0},
    ],
    {
        "aa-1": {"symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "stop_price": "175",
                 "entry_orders": (AAPL,), "opened_at": "2026-11-20T15:00:00+00:00"},
        "aa-2": {"symbol": "TSLA", "side": "SHORT", "status": "OPEN", "size": "4", "entry_orders": (TSLA,)},
    },
)  # fmt: skip

# Orders and prices in objects of their own.
NESTED = Schema(
    "nested orders",
    [
        {"id": "n1", "symbol": "AAPL", "direction": "long", "status": "OPEN", "qty": 10,
         "entry": {"order_id": AAPL, "price": 180.0, "time": "2026-11-17T15:00:00Z"},
         "stop": {"order_id": AAPL_STOP, "price": 175.0},
         "exit": {"order_id": None, "price": None, "time": None, "reason": None}, "tags": ["gap", "orb"]},
        {"id": "n2", "symbol": "MSFT", "direction": "long", "status": "CLOSED", "qty": 5,
         "entry": {"order_id": MSFT, "price": 400.0, "time": "2026-11-16T15:00:00Z"},
         "stop": {"order_id": TSLA_STOP, "price": 390.0},
         "exit": {"order_id": MSFT_EXIT, "price": 410.0, "time": "2026-11-16T18:00:00Z", "reason": "target"},
         "tags": []},
    ],
    {"n1": {"symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "entry_price": "180",
            "stop_price": "175", "entry_orders": (AAPL,), "stop_order": AAPL_STOP,
            "opened_at": "2026-11-17T15:00:00+00:00"}},
)  # fmt: skip

# One row an order: nothing of it can be reconciled trade by trade.
ORDERS = Schema(
    "one row an order",
    [
        {"id": 1, "created_at": "2026-11-17T15:00:00.000Z", "trade_date": "2026-11-17", "symbol": "AAPL",
         "side": "buy", "qty": 10.0, "notional": None, "order_type": "limit", "limit_price": 180.0,
         "alpaca_order_id": AAPL, "status": "filled", "reason": "signal"},
        {"id": 2, "created_at": "2026-11-17T18:00:00.000Z", "trade_date": "2026-11-17", "symbol": "AAPL",
         "side": "sell", "qty": 10.0, "notional": None, "order_type": "market", "limit_price": None,
         "alpaca_order_id": AAPL_STOP, "status": "pending", "reason": "exit"},
    ],
    table="""CREATE TABLE trades (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TEXT NOT NULL, trade_date TEXT NOT NULL,
        symbol TEXT NOT NULL, side TEXT NOT NULL, qty REAL, notional REAL, order_type TEXT NOT NULL,
        limit_price REAL, alpaca_order_id TEXT, status TEXT NOT NULL, reason TEXT NOT NULL)""",
    refused="one record an order",
)  # fmt: skip

# Flags for open and short, rates for prices, a size called amount.
FLAGS = Schema(
    "flags",
    [
        {"id": 1, "exchange": "alpaca", "pair": "BTC/USD", "is_open": 1, "is_short": 0, "open_rate": 91000.0,
         "close_rate": None, "close_profit": None, "close_profit_abs": None, "stake_amount": 910.0, "amount": 0.01,
         "open_date": "2026-11-17 15:00:00", "close_date": None, "stop_loss": 88000.0, "initial_stop_loss": 87000.0,
         "exit_reason": None, "strategy": "Breakout", "enter_tag": None, "timeframe": 5},
        {"id": 2, "exchange": "alpaca", "pair": "ETH/USD", "is_open": 0, "is_short": 0, "open_rate": 3000.0,
         "close_rate": 3100.0, "close_profit": 0.0333, "close_profit_abs": 10.0, "stake_amount": 300.0, "amount": 0.1,
         "open_date": "2026-11-16 15:00:00", "close_date": "2026-11-16 20:00:00", "stop_loss": 2900.0,
         "initial_stop_loss": 2900.0, "exit_reason": "roi", "strategy": "Breakout", "enter_tag": None, "timeframe": 5},
    ],
    {"1": {"symbol": "BTC/USD", "side": "LONG", "status": "OPEN", "size": "0.01", "entry_price": "91000",
           "stop_price": "88000", "initial_stop": "87000", "opened_at": "2026-11-17T15:00:00+00:00"}},
    table="""CREATE TABLE trades (
        id INTEGER PRIMARY KEY, exchange VARCHAR(25) NOT NULL, pair VARCHAR(25) NOT NULL, is_open BOOLEAN NOT NULL,
        is_short BOOLEAN NOT NULL, open_rate FLOAT, close_rate FLOAT, close_profit FLOAT, close_profit_abs FLOAT,
        stake_amount FLOAT NOT NULL, amount FLOAT, open_date DATETIME NOT NULL, close_date DATETIME, stop_loss FLOAT,
        initial_stop_loss FLOAT, exit_reason VARCHAR(255), strategy VARCHAR(100), enter_tag VARCHAR(255),
        timeframe INTEGER)""",
)  # fmt: skip

# Times of New York whose names say so; no side at all.
EASTERN = Schema(
    "times of New York",
    [
        {"id": 11, "alpaca_order_id": AAPL, "symbol": "AAPL", "account": "swing", "entry_price": 180.0, "shares": 10.0,
         "stop_loss_price": 175.0, "stop_loss_hit": 0, "exit_reason": None, "exit_price": None, "total_pnl": None,
         "entry_time_et": "2026-11-17 10:00:00", "exit_time_et": None},
        {"id": 12, "alpaca_order_id": MSFT, "symbol": "MSFT", "account": "swing", "entry_price": 400.0, "shares": 5.0,
         "stop_loss_price": 390.0, "stop_loss_hit": 0, "exit_reason": "t1", "exit_price": 410.0, "total_pnl": 50.0,
         "entry_time_et": "2026-11-16 10:00:00", "exit_time_et": "2026-11-16 13:00:00"},
    ],
    {"11": {"symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "entry_price": "180",
            "stop_price": "175", "entry_orders": (AAPL,), "opened_at": "2026-11-17T15:00:00+00:00"}},
    table="""CREATE TABLE trades (
        id INTEGER PRIMARY KEY AUTOINCREMENT, alpaca_order_id TEXT UNIQUE, symbol TEXT, account TEXT, entry_price REAL,
        shares REAL, stop_loss_price REAL, stop_loss_hit INTEGER DEFAULT 0, exit_reason TEXT, exit_price REAL,
        total_pnl REAL, entry_time_et TEXT, exit_time_et TEXT)""",
)  # fmt: skip

# An ORM's table: enums in capitals, buy and sell for the sides, orders for entry, stop and target.
ORM = Schema(
    "an ORM's table",
    [
        {"id": "0c7d8f6e-58a5-4b0e-8f0e-7b8f3a2c1d01", "symbol": "AAPL", "side": "BUY", "quantity": 10,
         "entry_price": 180.0, "exit_price": None, "stop_loss": 175.0, "take_profit": 195.0, "status": "FILLED",
         "client_order_id": "bot-1", "alpaca_order_id": AAPL, "stop_order_id": AAPL_STOP, "pnl": None,
         "created_at": "2026-11-17T14:59:58.120000+00:00", "filled_at": "2026-11-17T15:00:00.340000+00:00",
         "closed_at": None},
        {"id": "0c7d8f6e-58a5-4b0e-8f0e-7b8f3a2c1d02", "symbol": "TSLA", "side": "SELL", "quantity": 4,
         "entry_price": 250.0, "exit_price": None, "stop_loss": 260.0, "take_profit": 220.0, "status": "FILLED",
         "client_order_id": "bot-2", "alpaca_order_id": TSLA, "stop_order_id": TSLA_STOP, "pnl": None,
         "created_at": "2026-11-17T15:29:58.120000+00:00", "filled_at": "2026-11-17T15:30:00.340000+00:00",
         "closed_at": None},
        {"id": "0c7d8f6e-58a5-4b0e-8f0e-7b8f3a2c1d03", "symbol": "MSFT", "side": "BUY", "quantity": 5,
         "entry_price": 400.0, "exit_price": 410.0, "stop_loss": 390.0, "take_profit": 430.0, "status": "CLOSED",
         "client_order_id": "bot-3", "alpaca_order_id": MSFT, "stop_order_id": None, "pnl": 50.0,
         "created_at": "2026-11-16T14:59:58.120000+00:00", "filled_at": "2026-11-16T15:00:00.340000+00:00",
         "closed_at": "2026-11-16T18:00:00.000000+00:00"},
        {"id": "0c7d8f6e-58a5-4b0e-8f0e-7b8f3a2c1d04", "symbol": "NVDA", "side": "BUY", "quantity": 7,
         "entry_price": 140.0, "exit_price": None, "stop_loss": 135.0, "take_profit": 150.0, "status": "PENDING",
         "client_order_id": "bot-4", "alpaca_order_id": NVDA, "stop_order_id": None, "pnl": None,
         "created_at": "2026-11-17T15:40:00.000000+00:00", "filled_at": None, "closed_at": None},
    ],
    {
        "0c7d8f6e-58a5-4b0e-8f0e-7b8f3a2c1d01": {
            "symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "stop_price": "175",
            "entry_orders": (AAPL, "bot-1"), "stop_order": AAPL_STOP,
            "executed_at": "2026-11-17T15:00:00.340000+00:00"},
        "0c7d8f6e-58a5-4b0e-8f0e-7b8f3a2c1d02": {"symbol": "TSLA", "side": "SHORT", "status": "OPEN", "size": "4"},
        "0c7d8f6e-58a5-4b0e-8f0e-7b8f3a2c1d04": {"symbol": "NVDA", "side": "LONG", "status": "PENDING", "size": "7"},
    },
    table="""CREATE TABLE trades (
        id CHAR(36) PRIMARY KEY, symbol VARCHAR(16) NOT NULL, side VARCHAR(4) NOT NULL,
        quantity NUMERIC(18, 8) NOT NULL, entry_price NUMERIC(12, 4), exit_price NUMERIC(12, 4),
        stop_loss NUMERIC(12, 4), take_profit NUMERIC(12, 4), status VARCHAR(9) NOT NULL,
        client_order_id VARCHAR(48), alpaca_order_id VARCHAR(36), stop_order_id VARCHAR(36), pnl NUMERIC(12, 2),
        created_at TEXT NOT NULL, filled_at TEXT, closed_at TEXT)""",
)  # fmt: skip

# camelCase as ghostclean has it: nothing is to be mapped.
OWN_NAMES = Schema(
    "ghostclean's own names",
    [
        {"id": "trade-1", "ticker": "AAPL", "side": "LONG", "status": "OPEN", "quantity": 10, "entryPrice": 180.0,
         "stopPrice": 175.0, "targetPrice": 195.0, "brokerOrderId": AAPL, "createdAt": "2026-11-17T15:00:00.000Z",
         "updatedAt": "2026-11-17T15:00:00.000Z", "reasoning": "gap"},
        {"id": "trade-2", "ticker": "MSFT", "side": "LONG", "status": "CLOSED", "quantity": 5, "entryPrice": 400.0,
         "stopPrice": 390.0, "targetPrice": 430.0, "brokerOrderId": MSFT, "createdAt": "2026-11-16T15:00:00.000Z",
         "updatedAt": "2026-11-16T18:00:00.000Z", "reasoning": "pullback"},
    ],
    {"trade-1": {"symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "entry_price": "180",
                 "stop_price": "175", "entry_orders": (AAPL,), "created_at": "2026-11-17T15:00:00+00:00"}},
    native=True,
)  # fmt: skip

# Short names and epoch seconds; the stop is a share of the price, and the profit one of the stake.
TERSE = Schema(
    "short names",
    [
        {"id": 1, "ts": 1_795_186_800, "symbol": "AAPL", "side": "long", "entry": 180.0, "qty": 10.0, "sl": 175.0,
         "tp": 195.0, "stop_loss": 0.03, "exit_price": None, "pnl": None, "fee": 0.0, "status": "open", "meta": "{}"},
        {"id": 2, "ts": 1_795_100_400, "symbol": "MSFT", "side": "long", "entry": 400.0, "qty": 5.0, "sl": 390.0,
         "tp": 430.0, "stop_loss": 0.03, "exit_price": 410.0, "pnl": 0.025, "fee": 0.0, "status": "closed",
         "meta": "{}"},
        {"id": 3, "ts": 1_795_100_400, "symbol": "AMD", "side": "long", "entry": 150.0, "qty": 5.0, "sl": 145.0,
         "tp": 170.0, "stop_loss": 0.03, "exit_price": None, "pnl": None, "fee": 0.0, "status": "cancelled",
         "meta": "{}"},
    ],
    {"1": {"symbol": "AAPL", "side": "LONG", "status": "OPEN", "size": "10", "entry_price": "180",
           "stop_price": "175", "created_at": "2026-11-20T15:00:00+00:00"}},
    table="""CREATE TABLE trades (
        id INTEGER PRIMARY KEY AUTOINCREMENT, ts INTEGER, symbol TEXT, side TEXT, entry REAL, qty REAL, sl REAL,
        tp REAL, stop_loss REAL, exit_price REAL, pnl REAL, fee REAL, status TEXT, meta TEXT)""",
)  # fmt: skip

SCHEMAS = (
    PAPER_TRADES, NO_STATUS, SIGNED, NESTED, ORDERS, FLAGS, EASTERN, ORM, OWN_NAMES, TERSE,
)  # fmt: skip
