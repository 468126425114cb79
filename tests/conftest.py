"""What every test relies on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

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
