"""What people write by hand, to be beaten: `python -m tests.bench.scripts sdk|requests LEDGER_FILE`, or `trips`.

`sdk` goes through the SDK's TradingClient, `requests` is the same with plain HTTP: both ask for
each live trade's entry order, one after the other, every run, as the reference did. `trips` is
no script but a measure: four round trips.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def _write(path: Path, trades: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(trades))


def by_sdk(path: Path) -> None:
    from alpaca.trading.client import TradingClient

    url = os.environ["GHOSTCLEAN_TRADING_URL"]
    client = TradingClient(os.environ["ALPACA_API_KEY"], os.environ["ALPACA_SECRET_KEY"], url_override=url)
    trades = json.loads(path.read_text())
    client.get_orders()
    held = {position.symbol: position for position in client.get_all_positions()}
    for trade in trades:
        if trade["status"] == "OPEN" and trade["ticker"] in held:
            order = client.get_order_by_id(trade["alpacaOrderId"])
            trade["alpacaStatus"], trade["filledQty"] = str(order.status), str(order.filled_qty)
    _write(path, trades)


def by_requests(path: Path) -> None:
    import requests

    url = os.environ["GHOSTCLEAN_TRADING_URL"] + "/v2"
    session = requests.Session()
    session.headers["APCA-API-KEY-ID"] = os.environ["ALPACA_API_KEY"]
    session.headers["APCA-API-SECRET-KEY"] = os.environ["ALPACA_SECRET_KEY"]
    trades = json.loads(path.read_text())
    session.get(f"{url}/orders").json()
    held = {row["symbol"] for row in session.get(f"{url}/positions").json()}
    for trade in trades:
        if trade["status"] == "OPEN" and trade["ticker"] in held:
            order = session.get(f"{url}/orders/{trade['alpacaOrderId']}").json()
            trade["alpacaStatus"], trade["filledQty"] = order["status"], order["filled_qty"]
    _write(path, trades)


def four_trips() -> None:
    import requests

    url = os.environ["GHOSTCLEAN_TRADING_URL"] + "/v2"
    session = requests.Session()
    for what in ("account", "orders?limit=500", "positions", "orders?limit=500"):
        session.get(f"{url}/{what}").json()


if __name__ == "__main__":
    if sys.argv[1] == "trips":
        four_trips()
    else:
        {"sdk": by_sdk, "requests": by_requests}[sys.argv[1]](Path(sys.argv[2]))
