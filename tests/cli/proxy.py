"""TCP proxies: one holds a command of Redis for ever, one ends a connection at a word."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.servers import Front

Match = Callable[[list[bytes]], bool]


@dataclass
class _Hold:
    match: Match
    skip: int
    after: bool


class RedisProxy:
    """Forwards commands of redis-py one by one; `hold` plans where it stops."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        user = f":{parts.password}@" if parts.password else ""
        self.url = urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{port}"))
        self.commands: list[list[bytes]] = []
        self.held = threading.Event()
        self._hold: _Hold | None = None
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, match: Match, *, skip: int = 0, after: bool = False) -> None:
        """Holds the command that matches after `skip` others have."""
        with self._lock:
            self._hold = _Hold(match, skip, after)
            self.held.clear()

    def release(self) -> None:
        """Holds nothing any more; what is held stays held."""
        with self._lock:
            self._hold = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.drop()

    def close(self) -> None:
        """Takes no connection any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def drop(self) -> None:
        """Ends every connection that there is."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open += [client, server]
        gate = threading.Event()
        gate.set()
        threading.Thread(target=self._answers, args=(server, client, gate), daemon=True).start()
        reader = client.makefile("rb")
        with contextlib.suppress(OSError, ValueError):
            while command := _command(reader):
                words, raw = command
                hold = self._stops(words)
                if hold is None:
                    server.sendall(raw)
                elif hold.after:
                    gate.clear()
                    server.sendall(raw)
                    self._wait_done(server, client)
                    return
                else:
                    self.held.set()
                    _until_gone(client)
                    return

    def _stops(self, words: list[bytes]) -> _Hold | None:
        with self._lock:
            self.commands.append(words)
            hold = self._hold
            if hold is None or not hold.match(words):
                return None
            if hold.skip:
                hold.skip -= 1
                return None
            self._hold = None
            return hold

    def _wait_done(self, server: socket.socket, client: socket.socket) -> None:
        """The answer stands in the server's socket, where `_answers` leaves it: the command was done."""
        server.settimeout(10)
        server.recv(1, socket.MSG_PEEK)
        self.held.set()
        _until_gone(client)

    @staticmethod
    def _answers(server: socket.socket, client: socket.socket, gate: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while True:
                server.recv(1, socket.MSG_PEEK)
                if not gate.is_set():
                    return
                data = server.recv(65536)
                if not data:
                    client.close()
                    return
                client.sendall(data)


def _until_gone(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while client.recv(65536):
            pass


def _command(reader: object) -> tuple[list[bytes], bytes] | None:
    """One command as redis-py sends it: an array of bulk strings."""
    head: bytes = reader.readline()  # type: ignore[attr-defined]
    if not head.startswith(b"*"):
        return None
    raw, words = head, []
    for _ in range(int(head[1:])):
        size: bytes = reader.readline()  # type: ignore[attr-defined]
        body: bytes = reader.read(int(size[1:]) + 2)  # type: ignore[attr-defined]
        raw += size + body
        words.append(body[:-2])
    return words, raw


class CuttingProxy(Front):
    """Forwards bytes; the first request that holds `word` ends its connection, with `after` once it was answered."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._word, self._after = b"", False
        super().__init__()

    def cut(self, word: bytes, *, after: bool) -> None:
        self._word, self._after = word, after

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._target) as server:
            while ready := select.select([client, server], [], [])[0]:
                data = ready[0].recv(65536)
                if not data:
                    return
                if ready[0] is server:
                    client.sendall(data)
                    continue
                cut = self._word and self._word in data
                if not cut or self._after:
                    server.sendall(data)
                if cut:
                    self._word = b""
                    if self._after:
                        server.recv(65536)
                    return
