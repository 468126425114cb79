"""The least rights on Redis: README's user may do all that is needed, and the doctor misses each of its rights."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ghostclean import wiring
from ghostclean.errors import GhostcleanError
from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, LEDGER_KEY, PASSWORD, YESTERDAY, World, long

README = (Path(__file__).parents[2] / "README.md").read_text()
RULE = re.search(r"^ACL SETUSER ghostclean (on [^`]+)", README, flags=re.MULTILINE)
WORDS = RULE[1].replace(">PASSWORD", f">{PASSWORD}").replace("trades:v1:live", LEDGER_KEY).split() if RULE else []
COMMANDS = [word[1:] for word in WORDS if word.startswith("+")]


@pytest.fixture
def rights(redis_url: str) -> Iterator[redis.Redis]:
    """Gives the user `bob` what README says; the tests take some of it away."""
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "bob", "reset", *WORDS)
        yield client
        client.execute_command("ACL", "DELUSER", "bob")


def traded(world: World, layout: str) -> World:
    """A ledger with a live trade and a ghost, reached as bob."""
    held = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    gone = world.broker.open_trade("MSFT", 5, 400, at=DAY_AGO)
    world.broker.sell("MSFT", 5, 410, at=YESTERDAY)
    pad = "x" * 100_000 if layout == "long string" else ""  # those are written under WATCH
    world.ledger(
        long("live", "AAPL", 10, 180, alpacaOrderId=held["id"], pad=pad),
        long("ghost", "MSFT", 5, 400, alpacaOrderId=gone["id"]),
    )
    if layout == "indexed hash":
        world.redis.sadd(f"{LEDGER_KEY}:open", "live", "ghost")
    world.env["REDIS_URL"] = world.redis_url.replace("//:", "//bob:")
    return world


def test_a_user_that_may_not_look_for_a_ledger_is_told_that_there_is_none(world: World, rights: redis.Redis) -> None:
    world = traded(world, "string")
    world.env["GHOSTCLEAN_LEDGER_KEY"] = f"{LEDGER_KEY}:open"
    [item] = (i for i in world.reconcile().document["attention"] if i["kind"] == "ledger")
    assert item["why"].startswith("there is no ledger at ")
    assert "may be" not in item["why"]
    assert item["why"] in world.run("doctor", "--json").stdout


@pytest.mark.parametrize("layout", ["string", "long string", "hash", "indexed hash"])
def test_the_user_of_the_readme_may_do_all_that_is_needed(
    make_world: MakeWorld, rights: redis.Redis, layout: str
) -> None:
    if layout != "indexed hash":
        rights.execute_command(
            "ACL", "SETUSER", "bob", "resetkeys", *(w for w in WORDS if w[0] == "~" and ":open" not in w)
        )
    if layout == "hash":
        rights.execute_command("ACL", "SETUSER", "bob", f"%R~{LEDGER_KEY}:open")
    world = traded(make_world(layout.rsplit(maxsplit=1)[-1]), layout)
    run = world.reconcile()
    assert run.code == 0, run.document
    assert world.trade("ghost")["status"] == "CLOSED"
    assert world.run("undo", run.document["runId"], "--json").code == 0
    assert world.trade("ghost")["status"] == "OPEN"
    manage = world.run("auto-manage", "--json", AUTO_MANAGE_ENABLED="1")
    assert manage.code == 0, manage.document
    assert world.trade("live")["stopOrderId"]
    assert world.status()["runsHealth"] == "healthy"
    doctor = world.run("doctor", "--json").document
    assert [check["name"] for check in doctor["checks"] if check["ok"] is False] == ["attention"]  # the undone close


def rehearsed(world: World) -> Iterator[str]:
    """What the doctor finds in both stores."""
    kept = wiring.stores(world.settings())
    for rehearse in (kept.state.rehearse, functools.partial(kept.ledger.rehearse, None)):
        try:
            yield from (trouble.found for trouble in rehearse())
        except GhostcleanError as error:  # what can't even be asked is told as well
            yield str(error)
    kept.state.close()


def test_the_doctor_misses_every_right_that_is_taken_away(make_world: MakeWorld, rights: redis.Redis) -> None:
    """So none of them is there for nothing, and what a run would miss at night is found before."""
    assert len(COMMANDS) > 30
    found: dict[str, set[str]] = {}
    for layout in ("string", "indexed hash"):
        world = traded(make_world(layout.split()[-1]), layout)
        assert world.inside().exit_code == 0
        for command in COMMANDS:
            rights.execute_command("ACL", "SETUSER", "bob", f"-{command}")
            troubles = set(rehearsed(world))
            found.setdefault(command, set()).update(troubles)
            rights.execute_command("ACL", "SETUSER", "bob", f"+{command}")
    for command, troubles in found.items():
        named = any(f"lacks a permission ({command.upper()}" in trouble for trouble in troubles)
        assert named == (command != "info"), (command, troubles)


@pytest.mark.parametrize("key", ["ghostclean", "telemetry", LEDGER_KEY])
def test_the_doctor_names_the_keys_that_may_not_be_used(make_world: MakeWorld, rights: redis.Redis, key: str) -> None:
    world = traded(make_world(), "string")
    kept = [word for word in WORDS if word[0] == "~" and not word.startswith(f"~{key}")]
    rights.execute_command("ACL", "SETUSER", "bob", "resetkeys", *kept)
    run = world.run("doctor", "--json")
    failed = [check for check in run.document["checks"] if check["ok"] is False]
    assert run.code == 1
    assert any(f" on {key}" in check["found"] for check in failed), failed
    assert [check["ok"] for check in run.document["checks"] if check["name"] == "broker"] == [True]
