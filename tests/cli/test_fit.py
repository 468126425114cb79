"""Watching nothing is not health: a ledger that fits nothing is said to be so, with what may be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.test_attention import kinds
from tests.cli.world import DAY_AGO, LEDGER_KEY, UNKNOWN_ORDER, World, long


def doctor(world: World, name: str, **more: str | None) -> list[tuple[bool | None, str]]:
    """The checks of that part: their marks, and what was found with the cure."""
    document: Any = world.run("doctor", "--json", **more).document
    return [(c["ok"], f"{c['found']}; {c['cure']}") for c in document["checks"] if c["name"] == name]


def everywhere_needs_you(world: World, why: str, **more: str | None) -> None:
    """A run, status, --check, metrics and doctor agree on it."""
    metrics = world.folder / "ghostclean.prom"
    run = world.reconcile(GHOSTCLEAN_METRICS_FILE=str(metrics), **more)
    status = world.run("status", "--json", **more).document
    assert (run.code, kinds(run)) == (0, ["ledger"])
    assert why in run.document["attention"][0]["why"]
    assert (status["health"], why in status["why"], status["advice"]) == ("needs you", True, "ghostclean doctor")
    assert world.run("status", "--check", "--quiet", **more).code == 1
    assert 'kind="ledger"} 1' in metrics.read_text()
    checked = world.run("doctor", "--json", **more)
    assert (checked.code, why in checked.stdout) == (1, True)


@pytest.mark.parametrize("layout", ["string", "hash"])
def test_a_key_that_was_never_there_names_the_keys_that_may_be_meant(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.ledger(long("a", "AAPL"))
    world.redis.set("prices", "[1, 2]")
    world.reconcile()
    world.reconcile(GHOSTCLEAN_KEY_PREFIX="bot:")
    wrong = {"GHOSTCLEAN_LEDGER_KEY": "trades:v1:typo", "GHOSTCLEAN_LEDGER": None}

    everywhere_needs_you(world, f"no .env in {world.folder}; it may be the key {LEDGER_KEY}", **wrong)

    assert world.redis.exists("trades:v1:typo") == 0


def test_a_file_that_was_never_there_names_the_files_and_the_settings_that_were_read(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.ledger(long("a", "AAPL"))
    (world.folder / "config.json").write_text('{"host": "x"}')
    (world.folder / ".env").write_text("GHOSTCLEAN_LEDGER=file:data/trades.json\n")

    everywhere_needs_you(
        world,
        f"settings from {world.folder}/.env; it may be the file {world.folder}/trades.json",
        GHOSTCLEAN_LEDGER=None,
    )


@pytest.mark.parametrize("layout", ["string", "file"])
def test_a_ledger_that_has_gone_names_what_may_have_become_of_it(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.ledger(long("a", "AAPL", status="CLOSED"))
    world.reconcile()
    if layout == "file":
        (world.folder / "trades.json").rename(world.folder / "trades-v2.json")
    else:
        world.redis.rename(LEDGER_KEY, "trades:v2:test")

    run = world.reconcile()

    meant = "the key trades:v2:test" if layout == "string" else f"the file {world.folder}/trades-v2.json"
    assert run.code == 4
    assert f"it may be {meant}" in run.document["detail"]
    assert any(ok is False and f"it may be {meant}" in said for ok, said in doctor(world, "ledger"))


def test_records_without_any_status_are_watched_in_vain(world: World) -> None:
    records = [{**long(name, "AAPL"), "state": "open"} for name in "abc"]
    for record in records:
        del record["status"]
    world.ledger(*records)

    everywhere_needs_you(world, "no trade is open, and these statuses are not known: none (3)")


def test_entries_that_are_no_records_are_watched_in_vain(make_world: MakeWorld) -> None:
    world = make_world("file")
    (world.folder / "trades.json").write_text(json.dumps(["AAPL", "MSFT"]))

    everywhere_needs_you(world, "none of its 2 entries is a record")


def test_order_ids_that_the_account_does_not_know_are_another_accounts(world: World) -> None:
    world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.ledger(long("a", "AAPL", alpacaOrderId=UNKNOWN_ORDER))

    run = world.reconcile()

    assert run.document["attention"], run.document["notes"]
    assert run.document["fit"]["orders"] == {"named": 1, "known": 0, "unknown": 1}
    [(ok, said)] = doctor(world, "orders")
    assert ok is False
    assert "this account knows 0 of the 1 order that the ledger names" in said


def test_a_ledger_that_fits_is_shown_as_it_is_understood(world: World) -> None:
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.broker.open_trade("MSFT", 10, 180, at=DAY_AGO)
    world.ledger(
        long("a", "AAPL", alpacaOrderId=entry["id"]), long("b", "MSFT"),
        long("c", "IBM", status="WATCHING"), long("d", "IBM", status="CLOSED"),
    )  # fmt: skip

    run = world.reconcile("--verbose")

    assert run.document["fit"] == {
        "exists": True,
        "statuses": [
            {"status": "OPEN", "count": 2, "means": "open"}, {"status": "WATCHING", "count": 1, "means": "not known"}
        ],
        "over": 1, "withoutOrder": 1, "orders": {"named": 1, "known": 1, "unknown": 0},
    }  # fmt: skip
    said = world.run("reconcile", "--verbose").stdout
    assert "ledger: 2 OPEN (open), 1 WATCHING (not known), 1 over; the account knows 1 of 1 order ids" in said
    assert any(ok and "by status: 2 OPEN (open)" in found for ok, found in doctor(world, "ledger"))
    assert [ok for ok, _ in doctor(world, "orders")] == [None, True]


# --------------------------------------------------------------------------- a machine that forgets


def test_a_state_that_is_forgotten_is_said_with_the_third_run(make_world: MakeWorld) -> None:
    world = make_world("file")
    entry = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.ledger(long("a", "AAPL", alpacaOrderId=entry["id"]))

    def forgetful_run() -> Any:
        for left in world.folder.glob("state.db*"):
            left.unlink()
        return world.reconcile().document

    world.reconcile("--dry-run")
    runs = [forgetful_run() for _ in range(4)]

    assert [any("forgets the state" in note for note in run["notes"]) for run in runs] == [False, False, True, True]
    assert [[item["kind"] for item in run["attention"]] for run in runs] == [[], [], ["ledger"], []]
    assert "GHOSTCLEAN_STATE=sqlite:PATH" in runs[2]["attention"][0]["why"]

    assert not world.reconcile().document["notes"]
    assert [len(forgetful_run()["notes"]) for _ in range(2)] == [0, 0], "it counts anew"


def test_what_an_app_keeps_in_the_lock_file_stays_and_counts_nothing(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.ledger(long("a", "AAPL"))
    lock = Path(f"{world.store.path}.lock")
    lock.write_text("4711\n")  # the app's process id

    runs = [world.reconcile(), world.reconcile(), world.reconcile(GHOSTCLEAN_STATE=f"sqlite:{world.folder}/new.db")]

    assert lock.read_text() == "4711\n"
    assert not [note for run in runs for note in run.document["notes"] if "forgets" in note]
