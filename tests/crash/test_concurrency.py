"""Four reconciles and two app writers on one ledger: no app write lost, every ghost closed exactly once."""

from __future__ import annotations

import pytest

from .concurrency import compete
from .conftest import MakeScene


@pytest.mark.parametrize(
    ("layout", "writes"),
    [("string", 1000), ("long", 300), ("hash", 1000), ("file", 1000), ("postgres", 400)],
)
def test_runs_and_an_app_compete(make_scene: MakeScene, layout: str, writes: int) -> None:
    figures = compete(make_scene, layout, writes)
    assert figures["writes"] == writes
    assert figures["ghosts"] == 4 + 2 * -(-(writes // 2) // 100)
    assert figures["worked"] >= 1
