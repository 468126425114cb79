"""A web server that monitors tell: it writes down what it hears, and answers as it is told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "SENTINELtoken"


@dataclass
class Eye:
    """`refused`: ends of paths that are answered with 500, whatever the `status` of the others."""

    url: str = ""
    status: int = 200
    hang: float = 0.0
    refused: tuple[str, ...] = ()
    seen: list[tuple[str, dict[str, list[str]], str, str]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, *_ in self.seen]

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for *_, body in self.seen]


@contextlib.contextmanager
def watching() -> Iterator[Eye]:
    heard = Eye()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            parts = urlsplit(self.path)
            heard.seen.append((parts.path, parse_qs(parts.query), self.headers.get("Content-Type", ""), body))
            time.sleep(heard.hang)
            self.send_response(500 if heard.refused and parts.path.endswith(heard.refused) else heard.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    heard.url = f"http://127.0.0.1:{server.server_port}/{TOKEN}"
    yield heard
    server.shutdown()
    server.server_close()
