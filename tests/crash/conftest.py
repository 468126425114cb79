"""One broker and one Valkey a worker; every test has a ledger and a state of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import program
from tests.servers import redis_server

from .scene import Scene, build_broker

MakeScene = Callable[..., Scene]


@pytest.fixture(scope="session")
def world() -> Iterator[dict[str, Any]]:
    program.warm()
    broker, records = build_broker()
    with redis_server() as url:
        yield {"broker": broker, "records": records, "redis_url": url}
    broker.__exit__(None, None, None)


@pytest.fixture
def make_scene(world: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeScene]:
    made: list[Scene] = []

    def make(layout: str = "string", state_kind: str = "redis", **more: Any) -> Scene:
        if layout == "postgres":
            more["postgres_url"] = request.getfixturevalue("postgres_url")
        made.append(Scene(**{**world, **more}, folder=tmp_path, layout=layout, state_kind=state_kind))
        return made[-1]

    yield make
    for scene in made:
        scene.gone()
