"""What every test relies on."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.eye import TOKEN, Eye, watching
from tests.servers import postgres_binaries, postgres_server

# No example is judged by its time: a machine may be busy with other things.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell that starts us in the background ignores Ctrl-C for all our children, and tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real Postgres, its user `bot` and its database `postgres`."""
    if postgres_binaries() is None:
        pytest.skip("no Postgres on this machine (apt-get install postgresql)")
    with postgres_server() as url:
        yield url


@pytest.fixture
def eye() -> Iterator[Eye]:
    with watching() as heard:
        yield heard


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/{TOKEN}"
