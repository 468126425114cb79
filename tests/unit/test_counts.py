"""One of a thing is said otherwise than none or two."""

from __future__ import annotations

import pytest

from ghostclean.counts import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 open trades"), (1, "1 open trade"), (2, "2 open trades")])
def test_a_noun_follows_its_number(number: int, said: str) -> None:
    assert counted(number, "open trade") == said
