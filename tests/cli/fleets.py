"""A fleet for tests: a folder of env files, each with a broker, keys and a ledger of its own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cli.world import (
    DAY_AGO,
    KEY,
    NOW,
    SECRET,
    YESTERDAY,
    Record,
    Run,
    World,
    build_world,
    long,
)
from tests.fakebroker import FakeBroker

FOREIGN = "SENTINEL-of-somebody-else"


@dataclass
class Fleet:
    """A folder of env files; `worlds` are its accounts by name, `station` runs the program for them."""

    folder: Path
    station: World
    worlds: dict[str, World] = field(default_factory=dict)

    def add(self, name: str, **more: str) -> World:
        home = self.station.folder / name
        home.mkdir()
        broker = FakeBroker(now=NOW, key=KEY + name, secret=SECRET + name).start()
        world = build_world("file", home, broker, None)
        world.env |= {"ALPACA_API_KEY": KEY + name, "ALPACA_SECRET_KEY": SECRET + name}
        self.worlds[name] = world
        ours = {key: value for key, value in world.env.items() if key.startswith(("ALPACA_", "GHOSTCLEAN_"))}
        self.write(name, **(ours | more))
        return world

    def write(self, name: str, **values: str) -> None:
        (self.folder / f"{name}.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))

    def run(self, *args: str, **more: str) -> Run:
        return self.station.run("fleet", str(self.folder), *args, **more)

    def command(self, name: str, *args: str) -> Run:
        """The command itself, on this account's file."""
        return self.station.run(*args, "--env-file", str(self.folder / f"{name}.env"))


def ghost(world: World) -> Record:
    """A trade that was sold by hand yesterday, in the ledger of this account."""
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.broker.sell("AAPL", 10, 185, at=YESTERDAY)
    trade = long("t-ghost", "AAPL", alpacaOrderId=entry["id"])
    world.ledger(trade)
    return trade


def by_name(run: Run) -> dict[str, Any]:
    return {row["name"]: row for row in run.document["accounts"]}


def settled(document: Any) -> Any:
    """Without what differs from run to run; the runs themselves are listed in between."""
    listed = ("reconcileTelemetry", "autoManageTelemetry")
    text = json.dumps({name: value for name, value in document.items() if name not in listed})
    text = re.sub(r"[a-z-]+-\d{8}T\d{6}-[0-9a-f]{6}", "RUN", text)
    text = re.sub(r"2026-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"\b[\d.]+(ms|s|m| ms a call| requests left)\b", "SOME", text)
    return json.loads(re.sub(r'("durationMs"|"secondsLeft"): [\d.]+', r"\1: 0", text))
