"""An app that speaks its own language: the tests' records in its names, words, signs and times, and back.

It is written without the mapping's code, as an app would be.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.cli.world import Record, Store

NEW_YORK = ZoneInfo("America/New_York")
STATUSES = {"OPEN": "active", "CLOSED": "done", "PENDING": "waiting", "DELETED": "done"}
STATUSES |= {name: name.lower() for name in ("PARTIAL", "CANCELED", "ERROR", "NEW", "BROKER_PENDING", "BROKER_FILLED")}
STATUSES |= {name: name.lower() for name in ("AUTO_PENDING", "REJECTED", "EXPIRED", "ARCHIVED", "CANCELLED")}
MEANINGS = {word: status for status, word in reversed(STATUSES.items())}
SIZES, TIMES = ("quantity", "initialQuantity", "filledQty"), ("createdAt", "openedAt", "updatedAt", "closedAt")
PLACES = {
    "id": "id", "ticker": "instrument", "status": "state", "quantity": "position.qty", "entryPrice": "entry_price",
    "stopPrice": "risk.stop", "takeProfitPrice": "risk.target", "alpacaOrderId": "orders.entry",
    "stopOrderId": "orders.stop", "closePrice": "exit.price", "closeReason": "exit.reason", "closedAt": "exit.at",
    "realizedPnL": "pnl",
}  # fmt: skip
# The fields that this app knows nothing of: they are kept beside its records.
UNKNOWN = ("realizedR", "autoEntryStatus", "alpacaStatus", "brokerStatus", "autoManage", "source", "lastPrice")


def place(name: str) -> list[str]:
    return PLACES.get(name, re.sub(r"(?<=[a-z])([A-Z]+)", r"_\1", name).lower()).split(".")


NAMES = (
    *PLACES, "initialStopPrice", "brokerOrderId", "clientOrderId", "takeProfitOrderId", "closeOrderId", "filledQty",
    "initialQuantity", "avgFillPrice", "createdAt", "executedAt", "openedAt", "updatedAt", "unrealizedPnL",
    "unrealizedR", "accountMode",
)  # fmt: skip
FILE = "\n".join(
    [
        'zone = "America/New_York"',
        "[fields]",
        *(
            f'{name} = {{ name = "{".".join(place(name))}", signed = true }}'
            if name in SIZES
            else f'{name} = "{".".join(place(name))}"'
            for name in NAMES
        ),
        "[values.status]",
        'CLOSED = ["done", "won", "lost"]',
        *(f'{status} = "{word}"' for status, word in STATUSES.items() if word != "done"),
    ]
)
SYNONYMS = {"symbol": "ticker", "originalStopPrice": "initialStopPrice", "targetPrice": "takeProfitPrice"}
SYNONYMS |= dict.fromkeys(("qty", "size", "positionSize", "shares"), "quantity")


def said(record: Record) -> Record:
    """The record as the app writes it."""
    own: Record = {}
    for given, value in record.items():
        name = SYNONYMS.get(given, given)
        if name == "side":
            continue
        if name in UNKNOWN or name not in NAMES:
            own[given] = value
            continue
        *way, last = place(name)
        holder = own
        for step in way:
            holder = holder.setdefault(step, {})
        if name == "status" and isinstance(value, str):
            value = STATUSES.get(value.upper(), value)
        if name in SIZES and record.get("side") == "SHORT" and value is not None:
            value = f"-{value}" if isinstance(value, str) else -value
        if name in TIMES and isinstance(value, str):
            moment = datetime.fromisoformat(value)
            precision = "milliseconds" if "." in value else "seconds"
            value = moment.astimezone(NEW_YORK).replace(tzinfo=None).isoformat(" ", precision)
        holder[last] = value
    return own


def heard(own: Record) -> Record:
    """The record as the tests know it."""
    record: Record = {k: v for k, v in own.items() if k not in {place(name)[0] for name in NAMES}}
    signs = set()
    for name in NAMES:
        value: Any = own
        for step in place(name):
            value = value.get(step, ...) if isinstance(value, dict) else ...
        if value is ...:
            continue
        if name == "status":
            value = MEANINGS.get(value, value)
        if name in SIZES and value not in (None, 0):
            signs.add(str(value).startswith("-"))
            value = value.lstrip("-") if isinstance(value, str) else abs(value)
        if name in TIMES and isinstance(value, str):
            moment = datetime.fromisoformat(value).replace(tzinfo=NEW_YORK).astimezone(UTC)
            fraction = f".{moment.microsecond // 1000:03d}" if "." in value else ""
            value = moment.strftime("%Y-%m-%dT%H:%M:%S") + f"{fraction}Z"
        record[name] = value
    assert len(signs) < 2, own
    return record | ({"side": "SHORT" if signs.pop() else "LONG"} if signs else {})


class OwnNames(Store):
    """A ledger that the app keeps in its own language, behind the face of one in the tests'."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.url, self.file = store, store.url, folder / "mapping.toml"
        self.file.write_text(FILE)

    def write(self, records: list[Record]) -> None:
        self.store.write([said(record) for record in records])

    def raw(self) -> Any:
        return self.store.raw()

    def records(self) -> dict[str, Record]:
        return {trade_id: heard(own) for trade_id, own in self.store.records().items()}

    def own(self, trade_id: str) -> Record:
        """The record as the app has it."""
        return self.store.records()[trade_id]

    def writes(self) -> int:
        return self.store.writes()
