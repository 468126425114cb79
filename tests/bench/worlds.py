"""Ledgers and broker contents of a given size, for the figures and for the counts."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.fakebroker import FakeBroker

NOW = "2026-11-18T15:00:00Z"  # a Wednesday, 10:00 in New York
ENTERED = "2026-11-17T15:00:00Z"
LEFT = "2026-11-17T18:00:00Z"
QTY, ENTRY, STOP, TARGET = 10, 100, 90, 120

Record = dict[str, Any]


def symbol(number: int) -> str:
    """A symbol of its own for every number: `QAAA`, `QAAB`, …"""
    letters = ""
    for _ in range(3):
        number, at = divmod(number, 26)
        letters = string.ascii_uppercase[at] + letters
    return "Q" + letters


def settings(broker: FakeBroker, folder: Path | None, ledger: str = "", state: str = "") -> dict[str, str]:
    """The variables of a run: ledger and state in files of this folder unless they are named."""
    return {
        "ALPACA_API_KEY": "k",
        "ALPACA_SECRET_KEY": "s",
        "GHOSTCLEAN_TRADING_URL": broker.url,
        "GHOSTCLEAN_DATA_URL": broker.url,
        "GHOSTCLEAN_LEDGER": ledger or f"file:{folder}/trades.json",
        "GHOSTCLEAN_STATE": state or f"sqlite:{folder}/state.db",
    }


def save(folder: Path, records: list[Record]) -> None:
    """Writes the ledger file."""
    (folder / "trades.json").write_text(json.dumps(records))


def record(number: int, entry: Mapping[str, Any] | None, **more: Any) -> Record:
    """An open trade as an app writes it, of the size that a real one has."""
    return {
        "id": f"trade-{number:07d}",
        "ticker": symbol(number % 17000),
        "side": "LONG",
        "status": "OPEN",
        "quantity": QTY,
        "entryPrice": ENTRY,
        "stopPrice": STOP,
        "takeProfitPrice": TARGET,
        "strategy": "breakout-of-the-opening-range",
        "notes": "entered on volume, second attempt",
        "score": 0.7312,
        "createdAt": ENTERED,
        "openedAt": ENTERED,
        "updatedAt": ENTERED,
        **({"alpacaOrderId": entry["id"]} if entry is not None else {}),
        **more,
    }


def final_record(number: int) -> Record:
    """A trade that was closed long ago."""
    return record(number, {"id": f"00000000-0000-4000-8000-{number:012d}"}) | {
        "status": "CLOSED",
        "closedAt": "2026-06-01T15:00:00Z",
        "closeReason": "take_profit",
        "closePrice": 104.25,
        "realizedPnL": 42.5,
        "realizedR": 0.425,
        "openedAt": "2026-05-31T15:00:00Z",
        "createdAt": "2026-05-31T15:00:00Z",
    }


def live_trades(broker: FakeBroker, count: int, *, protected: int = 0, bracket: bool = False) -> list[Record]:
    """Trades whose positions stand; the first `protected` have a working stop order, or a bracket."""
    records = []
    for number in range(count):
        name, safe = symbol(number), number < protected
        legs = (TARGET, STOP) if safe and bracket else None
        entry = broker.open_trade(name, QTY, ENTRY, at=ENTERED, bracket=legs)
        more = {}
        if safe and bracket:
            more = {"stopOrderId": broker.legs(entry)[1]["id"], "takeProfitOrderId": broker.legs(entry)[0]["id"]}
        elif safe:
            more = {"stopOrderId": _stop(broker, name)["id"]}
        records.append(record(number, entry, **more))
    return records


def _stop(broker: FakeBroker, name: str) -> Record:
    return broker.add_order(
        name, ENTERED, side="sell", type="stop", qty=QTY, stop_price=STOP, time_in_force="gtc", status="new"
    )


def ghosts(broker: FakeBroker, count: int, kind: str, start: int = 0) -> list[Record]:
    """Trades that were sold yesterday: by a `bracket` leg, by `hand`, or by a `stop` whose id is stored."""
    return list(_ghosts(broker, count, kind, start))


def _ghosts(broker: FakeBroker, count: int, kind: str, start: int) -> Iterator[Record]:
    for number in range(start, start + count):
        name = symbol(number)
        entry = broker.open_trade(name, QTY, ENTRY, at=ENTERED, bracket=(TARGET, STOP) if kind == "bracket" else None)
        more = {}
        if kind == "bracket":
            broker.fill(broker.legs(entry)[1], price=STOP, at=LEFT)
        elif kind == "hand":
            broker.sell(name, QTY, 104, at=LEFT)
        else:
            stop = _stop(broker, name)
            broker.fill(stop, price=STOP, at=LEFT)
            more = {"stopOrderId": stop["id"]}
        yield record(number, entry, **more)
