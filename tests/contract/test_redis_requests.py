"""Every request to Redis stays small in its number of arguments, however much there is to read or write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ghostclean.adapters.redis_client import Conversation
from ghostclean.adapters.state.redis import RedisState
from ghostclean.app.ports import Change, RunCommit, WriteOutcome

from .conftest import Site
from .kits import HashKit, free

MOST = 3998  # what some managed servers take in one request
MANY = 6000


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """The arguments of each command that was sent, with its name."""
    sent: list[tuple[int, Any]] = []

    def ask(own: Conversation, *commands: Any, original: Any = Conversation.ask) -> Any:
        sent.extend((len(command), command[0]) for command in commands)
        return original(own, *commands)

    monkeypatch.setattr(Conversation, "ask", ask)
    return sent


def test_of_a_state_with_thousands_of_trades(site: Site, longest: list[tuple[int, Any]]) -> None:
    state = RedisState(site.server(), ledger_place="redis://h:6379/0#k", prefix=site.prefix)
    ids = [f"t{n}" for n in range(MANY)]
    memory = {"verdicts": {i: {"verdict": "live"} for i in ids}}
    state.commit(RunCommit("reconcile", "r1", {"runId": "r1"}, {"runs": 1}, {}, memory=memory))
    assert len(state.recall("verdicts", ids)) == len(state.recall_all(["verdicts"]).verdicts) == MANY
    state.remember("verdicts", dict.fromkeys(ids))
    assert state.recall("verdicts") == {}
    assert max(longest)[0] <= MOST, max(longest)


def test_of_a_hash_with_thousands_of_trades(site: Site, longest: list[tuple[int, Any]]) -> None:
    kit = HashKit(site)
    ids = [f"t{n}" for n in range(MANY)]
    site.client.hset(kit.key, mapping={i: json.dumps({"id": i, "status": "OPEN"}) for i in ids})
    site.client.sadd(f"{kit.key}:open", *ids)
    ledger = kit.open(full_scan=lambda: False)
    view = ledger.read()
    assert len(view.active) == len(ledger.get(ids)) == MANY
    closing = [Change(str(record["id"]), record, {"status": "CLOSED"}) for record in view.active[:600]]
    assert ledger.write(closing, free()) == [WriteOutcome.WRITTEN] * 600
    assert max(longest)[0] <= MOST, max(longest)
