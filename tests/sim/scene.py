"""A seeded world: its clock, its broker's books, the bots that trade there."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .app import App
from .clock import Clock
from .world import SYMBOLS, World


class Violation(AssertionError):
    """An oracle was broken."""


class Scene:
    """A seeded world and the bots in it; what happens between two effects is `tick`."""

    def __init__(self, seed: int, say: Callable[[str], None]) -> None:
        self.rng = random.Random(seed)
        self.say = say
        self.clock = Clock()
        self.world = World(self.clock, seed)
        for symbol in SYMBOLS:
            self.world.prices[symbol] = Decimal(self.rng.randrange(40, 200))
            self.world.sides[symbol] = self.rng.choice(("LONG", "LONG", "LONG", "SHORT"))
        self.late: list[Callable[[], Any]] = []
        self.apps: list[App] = []
        self.words: dict[str, str] = {}  # of the ledgers that keep their state in one place

    def tick(self) -> None:
        """Time passes between two effects."""

    def land(self) -> None:
        """Calls that were given up on reach their server after all."""
        late, self.late = self.late, []
        for call in late:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - nobody hears the answer any more
                self.say(f"  late call refused: {error}")
