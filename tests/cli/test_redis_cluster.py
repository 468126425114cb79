"""A Redis Cluster of one node and of three: with one hash tag all works, without it the cure is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.cli.world import DAY_AGO, KEY, NOW, SECRET, YESTERDAY, HashStore, StringStore, World, environment, long
from tests.fakebroker import FakeBroker
from tests.servers import redis_cluster

LEDGER = "{bot}:trades"
TAGGED = {"GHOSTCLEAN_LEDGER_KEY": LEDGER, "GHOSTCLEAN_KEY_PREFIX": "{bot}:"}

ClusterWorld = Callable[[str], World]


@pytest.fixture(scope="module", params=[1, 3])
def nodes(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    try:
        with redis_cluster(request.param) as urls:
            yield urls
    except RuntimeError as error:
        pytest.skip(f"no cluster mode: {error}")


@pytest.fixture
def clustered(nodes: list[str], tmp_path: Path) -> Iterator[ClusterWorld]:
    """A world whose ledger lives in the cluster, with one pinned account, a ghost and a live trade."""
    broker = FakeBroker(now=NOW, key=KEY, secret=SECRET).start()
    app = redis.RedisCluster.from_url(nodes[0])
    app.flushall()

    def make(layout: str) -> World:
        store = (HashStore if layout == "hash" else StringStore)(app, nodes[0], LEDGER)
        pad = "x" * 100_000 if layout == "long string" else ""  # those are written under WATCH
        env = {**environment(tmp_path, broker), "REDIS_URL": nodes[0], **TAGGED}
        world = World(tmp_path, broker, store, app, nodes[0], env)
        held = broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
        gone = broker.open_trade("MSFT", 5, 400, at=DAY_AGO)
        broker.sell("MSFT", 5, 410, at=YESTERDAY)
        world.ledger(
            long("live", "AAPL", 10, 180, alpacaOrderId=held["id"], pad=pad),
            long("ghost", "MSFT", 5, 400, alpacaOrderId=gone["id"]),
        )
        return world

    yield make
    broker.stop()
    app.close()


@pytest.mark.parametrize("layout", ["string", "long string", "hash"])
def test_one_hash_tag_is_all_it_takes(clustered: ClusterWorld, nodes: list[str], layout: str) -> None:
    world = clustered(layout)
    if layout == "hash":
        world.redis.sadd(f"{LEDGER}:open", "live", "ghost")
    run = world.reconcile()
    assert run.code == 0, run.document
    assert run.row("ghost")["action"] == "closed"
    assert world.trade("ghost")["closePrice"] == 410
    for url in nodes:  # every node leads to the one that has the keys
        world.env["REDIS_URL"] = url
        quiet = world.inside()
        assert (quiet.exit_code, quiet.closed, quiet.synced) == (0, 0, 0)
    assert world.status()["health"] == "healthy"
    undo = world.run("undo", run.document["runId"], "--json")
    assert undo.code == 0, undo.document
    assert world.trade("ghost")["status"] == "OPEN"
    manage = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1")
    assert (manage.code, manage.document["reconcile"]["ok"]) == (0, True), manage.document
    doctor = world.run("doctor", "--json").document
    assert [check["name"] for check in doctor["checks"] if check["ok"] is False] == ["attention"]  # the undone close


@pytest.mark.parametrize(
    "untagged", [{"GHOSTCLEAN_KEY_PREFIX": ""}, {"GHOSTCLEAN_KEY_PREFIX": "{other}:"}], ids=["no tag", "another tag"]
)
@pytest.mark.parametrize("layout", ["string", "hash"])
def test_keys_that_do_not_live_together_are_named_with_the_cure(
    clustered: ClusterWorld, untagged: dict[str, str], layout: str
) -> None:
    world = clustered(layout)
    before = world.store.raw()
    run = world.reconcile(**untagged)
    assert run.code == 4
    assert "part of a Redis Cluster, where all keys of a ledger must have one hash tag; " in run.document["detail"]
    assert "GHOSTCLEAN_LEDGER_KEY={bot}:trades and GHOSTCLEAN_KEY_PREFIX={bot}:" in run.document["detail"]
    assert "may or may not" not in run.document["detail"]
    assert world.store.raw() == before
    doctor = world.run("doctor", "--json", **untagged)
    failed = [check["found"] for check in doctor.document["checks"] if check["ok"] is False]
    assert any("one hash tag" in found for found in failed), doctor.document


def test_a_cluster_has_one_database(clustered: ClusterWorld, nodes: list[str]) -> None:
    run = clustered("string").reconcile(REDIS_URL=nodes[0].replace("/0", "/1"))
    assert run.code == 4
    assert "the server has no database of that number; " in run.document["detail"]


def test_a_cluster_without_a_node_for_the_keys_is_down(clustered: ClusterWorld, nodes: list[str]) -> None:
    world = clustered("string")
    if len(nodes) > 1:
        pytest.skip("one node is enough")
    with redis.Redis.from_url(nodes[0]) as node:
        node.execute_command("CLUSTER", "DELSLOTSRANGE", 0, 16383)
        run = world.reconcile()
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    assert run.code == 4
    assert "part of a Redis Cluster that is down, or without a node for these keys; " in run.document["detail"]
