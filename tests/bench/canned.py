"""A broker of recorded answers for the big rows: 10,000 positions take the stateful fake too long to build."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from tests.bench.worlds import ENTERED, ENTRY, NOW, QTY, Record, record, symbol
from tests.fakebroker import FakeBroker


def entry_order(number: int) -> Record:
    """The filled entry order of a trade."""
    row = dict(_template()[0])
    times = dict.fromkeys(("created_at", "submitted_at", "filled_at", "updated_at"), ENTERED)
    return row | times | {"id": order_id(number), "client_order_id": f"c-{number}", "symbol": symbol(number)}


def order_id(number: int) -> str:
    """The id of a trade's entry order."""
    return f"11111111-0000-4000-8000-{number:012d}"


def synced(number: int) -> Record:
    """A trade whose fields agree with its entry order."""
    filled = {"filledQty": 10, "avgFillPrice": 100, "alpacaStatus": "filled", "brokerStatus": "filled"}
    return record(number, {"id": order_id(number)}, **filled, autoEntryStatus="OPEN")


_rows: list[Record] = []


def _template() -> list[Record]:
    """One order, one position and one account as the fake writes them."""
    if not _rows:
        with FakeBroker(now=NOW) as fake:
            order = dict(fake.open_trade("QAAA", QTY, ENTRY, at=ENTERED))
            _rows.extend([order, _get(fake, "/v2/positions")[0], _get(fake, "/v2/account")])
    return _rows


def _get(fake: FakeBroker, path: str) -> Any:
    with urlopen(fake.url + path) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def canned_broker(positions: int, delay: float = 0.0) -> Iterator[str]:
    """Serves that many positions, no working order, and entry orders by symbol, each late; gives the URL."""
    _, position, account = _template()
    rows = [position | {"symbol": symbol(n), "asset_id": order_id(n)} for n in range(positions)]
    value = str(sum(float(row["market_value"]) for row in rows))
    held = json.dumps(rows).encode()
    owner = json.dumps(account | {"long_market_value": value}).encode()
    numbers = {symbol(n): n for n in range(positions)}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(delay)
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            if parts.path.endswith("/account"):
                body = owner
            elif parts.path.endswith("/positions"):
                body = held
            elif parts.path.count("/") == 3:
                body = json.dumps(entry_order(int(parts.path[-12:]))).encode()
            elif query.get("status") == ["all"]:
                body = json.dumps([entry_order(numbers[s]) for s in query["symbols"][0].split(",")]).encode()
            else:
                body = b"[]"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Wed, 18 Nov 2026 15:00:00 GMT"

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
