"""Fixtures of the black-box suite: one password-protected Redis a session, one world a test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import program
from tests.cli.fleets import Fleet
from tests.cli.own_names import OwnNames
from tests.cli.world import KEY, NOW, PASSWORD, ROOT, SECRET, World, build_world
from tests.fakebroker import FakeBroker
from tests.servers import redis_server

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real server that asks for a password."""
    program.warm()
    with redis_server(None, "--requirepass", PASSWORD) as plain:
        url = plain.replace("redis://", f"redis://:{PASSWORD}@")
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        yield url


@pytest.fixture
def make_world(tmp_path: Path, redis_url: str, request: pytest.FixtureRequest) -> Iterator[MakeWorld]:
    """Builds worlds; at the end nothing that was written anywhere may hold a secret."""
    worlds: list[World] = []

    def make(layout: str = "string", now: str = NOW, *, own_names: bool = False) -> World:
        folder = tmp_path / f"world-{len(worlds)}"
        folder.mkdir()
        layout = str(request.getfixturevalue("postgres_url")) if layout == "postgres" else layout
        broker = FakeBroker(now=now, key=KEY, secret=SECRET).start()
        world = build_world(layout, folder, broker, redis_url)
        if own_names or os.environ.get("TEST_OWN_NAMES"):  # by hand: the whole suite through a mapping
            world.store = OwnNames(world.store, folder)
            world.env["GHOSTCLEAN_MAPPING"] = str(world.store.file)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.broker.stop()
        leaks = world.leaks()
        if world.redis is not None:
            world.redis.close()
        assert not world.broker.errors
        assert not leaks


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A world on a Redis string, the layout of the first app."""
    return make_world()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """No accounts yet; in the end no secret may stand in any output or file."""
    station, folder = tmp_path / "station", tmp_path / "accounts"
    station.mkdir()
    folder.mkdir()
    env = {"HOME": str(station), "PYTHONPATH": str(ROOT)}
    broker: Any = None
    made = Fleet(folder, World(station, broker, broker, None, "", env))
    yield made
    for world in made.worlds.values():
        world.broker.stop()
        assert not world.broker.errors
    assert not made.station.leaks()
