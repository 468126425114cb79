"""A person is needed: every place says so from the run that finds it to the run that no longer does."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.cli.test_manage_contract import ON, holds, manage
from tests.cli.world import DAY_AGO, UNKNOWN_ORDER, YESTERDAY, Run, World, long


def mismatch(world: World) -> None:
    """A trade of ten of which the broker holds six, and nothing explains the difference."""
    world.pin()
    world.broker.open_trade("NVDA", 6, 100, at=DAY_AGO)
    world.ledger(long("n", "NVDA", quantity=10, entry=100))


def test_a_quiet_run_says_an_item_when_it_begins_and_when_it_ends(world: World) -> None:
    mismatch(world)

    begun, standing = world.run("reconcile", "--quiet"), world.run("reconcile", "--quiet")
    world.broker.open_trade("NVDA", 4, 100, at=DAY_AGO)
    ended, silent = world.run("reconcile", "--quiet"), world.run("reconcile", "--quiet")

    assert begun.stdout.startswith("needs you: NVDA n: mismatch: ")
    assert begun.stdout.rstrip().endswith("-> ghostclean resolve n")
    assert standing.stdout + standing.stderr == ""
    assert "settled: NVDA n (mismatch)" in ended.stdout
    assert silent.stdout + silent.stderr == ""


def test_the_document_of_a_run_carries_the_list(world: World) -> None:
    mismatch(world)
    world.broker.open_trade("XYZ", 5, 10, at=DAY_AGO)

    items = world.reconcile().document["attention"]

    assert [(i["kind"], i["symbol"], i["id"], i["new"]) for i in items] == [
        ("mismatch", "NVDA", "n", True), ("orphan", "XYZ", None, True)
    ]  # fmt: skip
    assert [i["new"] for i in world.reconcile().document["attention"]] == [False, False]


def test_a_dry_run_begins_nothing(world: World) -> None:
    mismatch(world)
    world.reconcile("--dry-run")

    assert world.reconcile().document["attention"][0]["new"]


def test_an_undone_close_is_an_item_until_it_is_settled(world: World) -> None:
    world.pin()
    world.ledger(long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER))
    world.run("undo", world.reconcile().document["runId"])

    items = world.reconcile().document["attention"]
    assert [(i["kind"], i["command"]) for i in items] == [("undone", "ghostclean resolve x")]

    assert world.run("resolve", "x", "--vanished").code == 0
    run = world.reconcile()
    assert (run.document["attention"], [i["kind"] for i in run.document["settled"]]) == ([], ["undone"])


def test_a_tripped_breaker_is_an_item_until_a_run_passes(world: World) -> None:
    world.pin()
    world.ledger(*(long(f"t{n}", f"SYM{n}", alpacaOrderId=UNKNOWN_ORDER[:-1] + str(n)) for n in range(6)))

    items = world.reconcile().document["attention"]
    command = "ghostclean reconcile --dry-run --allow-mass-close"
    assert [(i["kind"], i["command"]) for i in items] == [("mass_close_stopped", command)]

    assert [i["kind"] for i in world.reconcile("--allow-mass-close").document["settled"]] == ["mass_close_stopped"]


@pytest.mark.parametrize("mode", ["adopt", "flatten"])
def test_an_orphan_that_this_run_takes_in_or_sells_is_settled_by_it(world: World, mode: str) -> None:
    world.pin()
    world.broker.open_trade("XYZ", 5, 10, at=DAY_AGO)
    world.ledger()
    world.reconcile()

    run = world.reconcile("--orphans", mode)

    assert (kinds(run), kinds(run, "settled")) == ([], ["orphan"])
    assert (kinds(after := world.reconcile()), kinds(after, "settled")) == ([], [])


def test_a_ledger_that_cannot_be_read_takes_nothing_off_the_list(world: World) -> None:
    mismatch(world)
    metrics = world.folder / "ghostclean.prom"
    world.reconcile()
    world.redis.set(world.store.key, b"{")  # type: ignore[attr-defined]

    run = world.reconcile(GHOSTCLEAN_METRICS_FILE=str(metrics))

    assert (run.code, kinds(run), kinds(run, "settled")) == (4, ["mismatch"], [])
    assert 'kind="mismatch"} 1' in metrics.read_text()
    assert world.run("status", "--all", "--json").document["ledgers"][0]["needs"] == 1


def test_records_of_another_account_are_one_item(world: World) -> None:
    world.pin()
    world.ledger(*(long(f"t{n}", "AAPL", paper=False) for n in range(3)))

    items = world.reconcile().document["attention"]

    assert [(i["kind"], i["symbol"], i["id"]) for i in items] == [("other_account", None, None)]


# --------------------------------------------------------------------------- auto-manage


def naked(world: World, **more: Any) -> None:
    """Ten shares bought at 100 whose stop nobody knows."""
    world.pin()
    holds(world, stopPrice=None, **more)
    world.broker.set_price("AAPL", 100)


def kinds(run: Run, name: str = "attention") -> list[str]:
    return [item["kind"] for item in run.document[name]]


def test_a_naked_position_is_an_item_until_its_stop_stands(world: World) -> None:
    naked(world)

    begun, standing = manage(world), manage(world)
    reconciled = world.reconcile()
    world.ledger(world.trade("a") | {"stopPrice": 95})
    ended = manage(world)

    assert [(i["kind"], i["id"], i["new"]) for i in begun.document["attention"]] == [("naked", "a", True)]
    assert (standing.code, [i["new"] for i in standing.document["attention"]]) == (1, [False])
    assert kinds(reconciled) == ["naked"], "a reconcile does not forget what auto-manage found"
    assert (kinds(ended), kinds(ended, "settled")) == ([], ["naked"])


def test_a_quiet_naked_run_is_silent_after_the_first(world: World) -> None:
    naked(world)

    first, second = (world.run("auto-manage", "--quiet", **ON) for _ in range(2))

    assert "needs you: AAPL a: naked: " in first.stdout
    assert (second.code, second.stdout + second.stderr) == (1, "")


def test_a_closed_market_lists_the_naked_and_switched_off_nobody_looks(world: World) -> None:
    naked(world)
    world.broker.now = "2026-11-18T23:00:00Z"

    assert kinds(manage(world)) == ["naked"]
    assert kinds(manage(world, AUTO_MANAGE_ENABLED="0"), "settled") == ["naked"]


def test_a_naked_trade_that_the_app_closed_is_settled(world: World) -> None:
    naked(world)
    manage(world)
    world.ledger(world.trade("a") | {"status": "CLOSED"})

    run = manage(world)

    assert (kinds(run), [i["kind"] for i in run.document["reconcile"]["settled"]]) == (["orphan"], ["naked"])


def test_a_naked_trade_that_is_over_needs_no_auto_manage_to_be_settled(world: World) -> None:
    naked(world)
    manage(world)
    world.broker.sell("AAPL", 10, 101, at=YESTERDAY)

    run = world.reconcile()

    assert (kinds(run), kinds(run, "settled")) == ([], ["naked"])


def test_a_naked_trade_that_a_closed_market_could_not_judge_stays_one_item(world: World) -> None:
    naked(world)
    manage(world)
    world.broker.now = "2026-11-18T23:00:00Z"
    world.broker.add_position("AAPL", 6)  # of ten: held, and not managed

    run = manage(world)

    assert (run.document["reason"], kinds(run, "settled")) == ("market_closed", [])
    assert kinds(run) == ["naked", "mismatch"]


def trails(world: World) -> None:
    """A trade whose stop, a trailing one, cannot be moved."""
    world.pin()
    entry = holds(world, stopPrice=95)
    stop = world.broker.add_order(
        "AAPL", side="sell", qty="10", type="trailing_stop", trail_price="9", stop_price="91", status="new"
    )
    world.ledger(world.trade("a") | {"stopOrderId": stop["id"], "alpacaOrderId": entry["id"]})
    world.broker.set_price("AAPL", 100)


def test_a_trade_without_a_price_neither_ends_nor_repeats_an_item(world: World) -> None:
    trails(world)
    manage(world)

    world.broker.fault("data", 400, times=1000)
    run = manage(world)

    assert "no price, left alone" in " ".join(run.document["notes"])
    assert ([i["new"] for i in run.document["attention"]], kinds(run, "settled")) == ([False], [])


def test_a_stop_that_can_never_be_moved_stays_one_item_whatever_the_price_does(world: World) -> None:
    world.pin()
    entry = holds(world, qty=10.5, stopPrice=91)
    stop = world.broker.add_order("AAPL", side="sell", qty="10.5", type="stop", stop_price="91", status="new")
    world.ledger(world.trade("a") | {"stopOrderId": stop["id"], "alpacaOrderId": entry["id"]})

    told = []
    for price in (100, 110, 100, 110):  # at 110 it is to go to the entry
        world.broker.set_price("AAPL", price)
        run = manage(world)
        told.append(([i["new"] for i in run.document["attention"]], kinds(run, "settled")))

    assert told == [([], []), ([True], []), ([False], []), ([False], [])]


def test_a_naked_trade_is_not_well_because_the_market_closes(world: World) -> None:
    naked(world)
    world.run("auto-manage", "--quiet", **ON)
    world.broker.now = "2026-11-18T23:00:00Z"

    run = world.run("auto-manage", "--quiet", **ON)

    assert (run.code, run.stdout + run.stderr) == (0, "")


def test_a_breaker_inside_auto_manage_is_said_once_and_stays_an_item(world: World) -> None:
    world.pin()
    world.ledger(*(long(f"t{n}", f"SYM{n}", alpacaOrderId=UNKNOWN_ORDER[:-1] + str(n)) for n in range(6)))

    first, second = (world.run("auto-manage", "--quiet") for _ in range(2))

    assert first.stdout.startswith("needs you: the ledger: mass_close_stopped: ")
    assert second.stdout == ""
    assert [i["kind"] for i in world.status()["attention"]] == ["mass_close_stopped"]


def test_a_reconcile_that_keeps_failing_inside_auto_manage_is_said_with_the_third(world: World) -> None:
    world.pin()
    world.ledger()
    world.broker.fault("account", 500, times=1000)

    runs = [world.run("auto-manage", "--quiet") for _ in range(4)]

    assert [(run.code, bool(run.stderr)) for run in runs] == [(0, False), (0, False), (0, True), (0, False)]
    assert "the reconcile before it failed: broker truth is not observed" in runs[2].stderr


def test_a_stop_that_cannot_be_moved_is_an_item(world: World) -> None:
    trails(world)

    first, second = manage(world), manage(world)

    assert [(i["kind"], i["id"]) for i in first.document["attention"]] == [("stop", "a")]
    assert [i["new"] for i in second.document["attention"]] == [False]


def test_a_close_that_is_got_through_at_last_is_settled_by_the_run_that_does_it(world: World) -> None:
    world.pin()
    holds(world)
    world.broker.now = "2026-11-18T20:50:00Z"
    world.broker.fault("submit", 403, times=100)
    assert "unfinished_close" in kinds(manage(world, AUTO_MANAGE_EOD_FLATTEN="1"))

    world.broker.clear_faults()
    run = manage(world, AUTO_MANAGE_EOD_FLATTEN="1")

    assert run.document["flattened"] == 1
    assert (kinds(run), kinds(run, "settled")) == ([], ["naked", "unfinished_close"])


# --------------------------------------------------------------------------- a ledger that fits nothing


def test_a_ledger_that_was_never_there_is_an_item(world: World) -> None:
    world.redis.delete(world.store.key)  # type: ignore[attr-defined]

    (item, *_) = (i for i in world.reconcile().document["attention"] if i["kind"] == "ledger")

    assert item["why"].startswith("there is no ledger at ")
    assert item["command"] == "ghostclean doctor"


def test_records_of_statuses_that_mean_nothing_to_us_are_an_item(world: World) -> None:
    world.ledger(long("a", "AAPL", status="ACTIVE"), long("b", "MSFT", status="ACTIVE"), long("c", "IBM", status="WON"))

    items = world.reconcile().document["attention"]

    assert [i["kind"] for i in items] == ["ledger"]
    assert "ACTIVE (2), WON (1)" in items[0]["why"]


def test_words_that_stood_beside_open_trades_are_the_apps_own(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    won = long("b", "MSFT", status="WON")
    world.ledger(long("a", "AAPL", alpacaOrderId=bought["id"]), won)
    world.reconcile()
    world.broker.sell("AAPL", 10, 181, at=YESTERDAY)
    world.reconcile()

    assert world.reconcile().document["attention"] == []

    world.ledger(won, long("c", "IBM", status="ACTIVE"))
    assert [i["kind"] for i in world.reconcile().document["attention"]] == ["ledger"]


def test_a_ledger_of_closed_and_failed_records_fits(world: World) -> None:
    world.ledger(long("a", "AAPL", status="CLOSED"), long("b", "MSFT", status="ERROR"))

    assert world.reconcile().document["attention"] == []


# --------------------------------------------------------------------------- failures


def test_a_quiet_failure_is_said_once_and_its_end_too(world: World) -> None:
    world.pin()
    world.ledger()
    world.broker.fault("account", 500, times=1000)

    first, second = world.run("reconcile", "--quiet"), world.run("reconcile", "--quiet")
    world.broker.clear_faults()
    third, fourth = world.run("reconcile", "--quiet"), world.run("reconcile", "--quiet")

    assert [run.code for run in (first, second, third, fourth)] == [3, 3, 0, 0]
    assert "broker truth is not observed" in first.stderr
    assert second.stderr == ""
    assert "runs succeed again, after 2 failures in a row" in third.stderr
    assert fourth.stderr == ""


@pytest.mark.parametrize(("command", "number"), [("reconcile", signal.SIGTERM), ("auto-manage", signal.SIGINT)])
def test_an_interrupted_run_is_listed_and_not_a_failure_and_gives_its_lock_back(
    world: World, command: str, number: signal.Signals
) -> None:
    """`timeout` signals a process and then its group, a terminal all that runs in it: the same signal comes twice."""
    world.pin()
    world.ledger()
    world.broker.fault("account", "hang")
    process = world.start(command, "--json")
    end = time.monotonic() + 20
    while not world.broker.requests and time.monotonic() < end:
        time.sleep(0.02)
    for _ in range(2):
        process.send_signal(number)
        time.sleep(0.05)
    process.communicate(timeout=30)
    world.broker.clear_faults()

    assert process.returncode == 128 + number
    assert world.summary().get("fail", "0") == "0"
    assert world.run(command).code == 0, "the lock is free"


# --------------------------------------------------------------------------- where it is seen


def test_status_doctor_and_metrics_agree(world: World) -> None:
    mismatch(world)
    metrics = world.folder / "ghostclean.prom"
    world.reconcile(GHOSTCLEAN_METRICS_FILE=str(metrics))

    status = world.run("status", "--json").document
    doctor = {check["name"]: check for check in world.run("doctor", "--json").document["checks"]}

    assert (status["health"], [i["kind"] for i in status["attention"]]) == ("needs you", ["mismatch"])
    assert status["why"].startswith("NVDA n: mismatch: ")
    assert status["advice"] == "ghostclean resolve n"
    assert (doctor["attention"]["ok"], doctor["attention"]["cure"]) == (False, "ghostclean resolve n")
    assert 'kind="mismatch"} 1' in metrics.read_text()
    assert 'kind="naked"} 0' in metrics.read_text()
    assert world.run("status").stdout.splitlines()[0].startswith("needs you: NVDA n: mismatch: ")


def test_check_judges_the_list_and_check_runs_the_runs_only(world: World) -> None:
    mismatch(world)
    world.reconcile()

    assert world.run("status", "--check", "--quiet").code == 1
    assert world.run("status", "--check=runs", "--quiet").code == 0
    assert world.run("status", "--all", "--check").code == 1
    assert world.run("status", "--all", "--check=runs").code == 0
    (row,) = world.run("status", "--all", "--json").document["ledgers"]
    assert (row["health"], row["runsHealth"], row["needs"]) == ("needs you", "healthy", 1)


def test_what_auto_manage_finds_is_in_the_metrics_beside_what_reconcile_finds(world: World) -> None:
    naked(world)
    file = world.folder / "ghostclean.prom"

    manage(world, GHOSTCLEAN_METRICS_FILE=str(file))
    world.reconcile(GHOSTCLEAN_METRICS_FILE=str(file))

    text = file.read_text()
    values = {line.partition("{")[0]: line.rpartition(" ")[2] for line in text.splitlines() if line[0] != "#"}
    assert (values["ghostclean_auto_manage_naked"], values["ghostclean_auto_manage_last_run_ok"]) == ("1", "0")
    assert values["ghostclean_last_run_ok"] == "1"
    assert text.count("# TYPE ghostclean_attention gauge") == 1
    assert 'kind="naked"} 1' in text
