"""What is put right after a kill or a damage: an undo that died, a spooled record, a record with broken JSON."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, World, long

_KILLED = """
import os, sys
from ghostclean.adapters.ledgers import file, redis
from ghostclean.adapters.state.redis import RedisState
from ghostclean.adapters.state.sqlite import SqliteState
name, when = sys.argv[1:3]
for owner in (file.FileLedger, redis.RedisLedger, RedisState, SqliteState):
    if hasattr(owner, name):
        def killed(self, *given, real=getattr(owner, name), **more):
            when == "after" and real(self, *given, **more)
            os.kill(os.getpid(), 9)
        setattr(owner, name, killed)
from ghostclean.cli import main
sys.argv = ["ghostclean", *sys.argv[3:]]
sys.exit(main())
"""


def kill(world: World, effect: str, when: str, *args: str) -> None:
    """A run of the program that dies before or after an effect; its lock ends in time."""
    dead = subprocess.run(
        [sys.executable, "-c", _KILLED, effect, when, *args], env=world.environment(), cwd=world.folder, check=False
    )
    assert dead.returncode == -9
    world.release_dead_lock()


def concluded(world: World) -> dict[str, object]:
    return {section: world.recall(section) for section in ("exits", "unproven")}


@pytest.mark.parametrize(("effect", "when"), [("write", "before"), ("write", "after"), ("commit", "before")])
@pytest.mark.parametrize("layout", ["string", "hash"])
def test_a_killed_undo_forgets_as_any_other(make_world: MakeWorld, layout: str, effect: str, when: str) -> None:
    world = make_world(layout)
    world.pin()
    entry = world.broker.open_trade("AMD", 100, 50, at=DAY_AGO)
    stop = world.broker.sell("AMD", 40, "52.10", at=YESTERDAY)
    world.ledger(
        long("part", "AMD", 100, 50, 48, alpacaOrderId=entry["id"], stopOrderId=stop["id"]),
        long("gone", "KO", 5, 60, alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO),
    )
    first = world.reconcile("--run-id", "first")
    assert first.verdicts() == {"part": "reduced", "gone": "vanished"}
    remembered = concluded(world)
    assert all(remembered.values())
    kill(world, effect, when, "undo", "first")
    undone = (effect, when) != ("write", "before")
    assert world.trade("gone")["status"] == ("OPEN" if undone else "CLOSED")
    assert concluded(world) == remembered
    with world.untouched():
        assert world.reconcile().code == 0
    assert concluded(world) == ({"exits": {}, "unproven": {}} if undone else remembered)


def test_a_spooled_record_of_wrong_types_does_not_block_runs(world: World) -> None:
    world.pin()
    world.redis.set("telemetry:reconcile:runs", "not ours")
    assert world.reconcile().code == 4
    world.redis.delete("telemetry:reconcile:runs")
    world.release_dead_lock()
    [spooled] = [file for file in world.folder.rglob("*.json") if "spool" in file.parts]
    spooled.with_name("0.json").write_text(
        '{"kind":["reconcile"],"runId":"x","run":{},"add":{},"put":{},"entries":[],"memory":{}}'
    )
    spooled.with_name("1.json").mkdir()
    run = world.reconcile()
    assert run.code == 0, run.document
    assert run.stderr.count("is no record of a run") == 2
    assert sorted(file.name for file in spooled.parent.iterdir()) == ["0.bad", "1.bad"]
    assert len(world.runs()) == 3  # the pin, what was spooled, and this one


def test_doctor_says_repair_for_a_record_with_broken_json(make_world: MakeWorld) -> None:
    world = make_world("hash")
    world.redis.hset(world.store.key, "t1", '{"id":"t1","status":"OPEN"')
    checks = world.run("doctor", "--json").document["checks"]
    [check] = [check for check in checks if check["name"] == "ledger" and check["ok"] is None]
    assert "t1" in check["found"]
    assert check["cure"].startswith("repair it in the app")


def test_an_object_in_a_redis_string_is_no_target(make_world: MakeWorld) -> None:
    world = make_world("string")
    source = world.folder / "source.json"
    source.write_text('[{"id":"a","status":"OPEN"}]')
    world.redis.set("to", '{"trades":[],"settings":{}}')
    run = world.run("migrate", f"file:{source}", f"{world.redis_url}#to", "--json")
    assert (run.code, run.document["error"]) == (4, "ledger_failed")
    assert world.redis.get("to") == b'{"trades":[],"settings":{}}'
