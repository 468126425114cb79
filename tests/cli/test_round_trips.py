"""How often a run asks Redis: a far server must leave the deadline to the broker."""

from __future__ import annotations

import pytest
import redis

from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, long


@pytest.mark.parametrize(("layout", "most"), [("string", 8), ("hash", 10)])
def test_a_quiet_run_takes_few_round_trips(
    make_world: MakeWorld, layout: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sign in, open, lock, the ledger, one reading of everything remembered, then the record with the lock."""
    world = make_world(layout)
    world.env["REDIS_URL"] = world.redis_url
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.ledger(long("a", "AAPL", 10, 180, alpacaOrderId=entry["id"]))
    for _ in range(2):
        assert world.inside().exit_code == 0
    sent = 0
    real = redis.connection.AbstractConnection.send_packed_command

    def counted(*args: object, **options: object) -> None:
        nonlocal sent
        sent += 1
        real(*args, **options)  # type: ignore[arg-type]

    with world.untouched():
        monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
        result = world.inside()
        monkeypatch.undo()
        assert (result.exit_code, result.synced) == (0, 0)
        assert sent <= most
