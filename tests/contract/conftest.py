"""The stores that every contract test runs on: fakeredis, Valkey, redis-server, files, SQLite."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import fakeredis
import pytest

from ghostclean.adapters.redis_client import RedisServer
from tests.servers import binaries, redis_server

REDISES = ("fake", "valkey", "redis", *(("env",) if os.environ.get("TEST_REDIS_URL") else ()))


@dataclass
class Site:
    """A Redis for one test: `prefix` is its own, `client` the app's hands on it."""

    url: str
    client: Any
    prefix: str
    fake: bool

    def server(self) -> RedisServer:
        """Our own connection to it."""
        return RedisServer(self.url, client=self.client if self.fake else None)


class Servers:
    """Starts each kind of server once, when a test first asks for it."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._urls: dict[str, str] = {}

    def url(self, name: str) -> str:
        if name not in self._urls:
            self._urls[name] = self._running.enter_context(redis_server(name))
        return self._urls[name]

    def close(self) -> None:
        self._running.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    started = Servers()
    yield started
    started.close()


def open_site(name: str, servers: Servers) -> Site:
    """The Redis of that name, or a skip where this machine has none."""
    prefix = f"t{uuid.uuid4().hex[:10]}:"
    if name == "fake":
        return Site("redis://fake:6379/0", fakeredis.FakeRedis(server=fakeredis.FakeServer()), prefix, fake=True)
    if name == "env":
        url = os.environ["TEST_REDIS_URL"]
    elif name in binaries():
        url = servers.url(name)
    else:
        pytest.skip(f"no {name} server on this machine")
    return Site(url, RedisServer(url).client, prefix, fake=False)


def sql_url(name: str, request: pytest.FixtureRequest) -> str:
    """The database of that name."""
    if name == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path') / 'bot.db'}"
    return str(request.getfixturevalue("postgres_url"))


def close_site(site: Site) -> None:
    """Removes what the test left and closes the app's connection."""
    for key in site.client.scan_iter(match=f"{site.prefix}*", count=1000):
        site.client.delete(key)
    site.client.close()


@pytest.fixture(params=REDISES)
def site(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Site]:
    """Each Redis in turn."""
    opened = open_site(request.param, servers)
    yield opened
    close_site(opened)
