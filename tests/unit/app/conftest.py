"""The installation on which auto-manage is tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakebroker import FakeBroker
from tests.office import NOON, Office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with FakeBroker(now=NOON) as broker:
        yield Office(broker, tmp_path)
