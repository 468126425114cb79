"""The HTTP face on 127.0.0.1: requests in, answers (or misbehaviour) out."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
from collections.abc import Callable
from contextlib import suppress
from email.utils import format_datetime
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .faults import Reply

RESET = struct.pack("ii", 1, 0)
Answerer = Callable[[str, str, dict[str, str], Any, dict[str, str]], Reply]


class Server(ThreadingHTTPServer):
    """A server whose end waits for nobody: hung and idle connections are shut, threads are daemons."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, answer: Answerer) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answer = answer
        self.closing = Event()
        self.connections: set[socket.socket] = set()
        Thread(target=self.serve_forever, args=(0.02,), daemon=True, name="fakebroker").start()

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the base class, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def stop(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what the tests are about; the broker records its own errors."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw.decode(errors="replace")
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        reply = self.server.answer(self.command, parts.path, query, body, dict(self.headers))
        if self.server.closing.is_set():
            self.close_connection = True
            return
        self._send(reply)

    # The base class looks methods up by these names.
    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve  # noqa: N815

    def _send(self, reply: Reply) -> None:
        """Put an answer on the wire in its manner."""
        head, body = _head(reply), b"" if reply.status == 204 else reply.body
        if reply.manner == "whole":
            self.wfile.write(head + body)
            return
        self.close_connection = True
        if reply.manner == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.connection.close()
        elif reply.manner == "hang":
            self.server.closing.wait()
        elif reply.manner == "cut":
            self.wfile.write(head + body[: len(body) * 2 // 3])
        elif reply.manner == "trickle":
            self.wfile.write(head)
            for byte in body:
                if self.server.closing.wait(reply.interval):
                    return
                self.wfile.write(bytes([byte]))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the broker keeps its own log."""


def _head(reply: Reply) -> bytes:
    headers = dict(reply.headers)
    if reply.status != 204:
        headers.setdefault("Content-Type", "application/json; charset=UTF-8")
        headers["Content-Length"] = str(len(reply.body))
    lines = [f"HTTP/1.1 {reply.status} {responses.get(reply.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def http_date(moment: Any) -> str:
    return format_datetime(moment, usegmt=True)
