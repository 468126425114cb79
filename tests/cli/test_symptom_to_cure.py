"""From symptom to cure in at most two commands: explain, resolve alone, history, undo of a part."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import pty
import shlex
import subprocess
import sys
import termios
from typing import Any

import pytest

from tests.cli.test_manage_contract import ON, holds, manage
from tests.cli.world import DAY_AGO, UNKNOWN_ORDER, YESTERDAY, World, long


def paste(world: World, command: str, *more: str) -> Any:
    """Runs a printed command as a person would."""
    program, *args = shlex.split(command)
    assert program == "ghostclean"
    return world.run(*args, *more)


def two_share(world: World) -> None:
    """A of thirty and B of twenty, neither with an order, over a position of twenty: ambiguous."""
    world.pin()
    world.broker.open_trade("NVDA", 20, 100, at=DAY_AGO)
    world.ledger(long("A", "NVDA", quantity=30, entry=100), long("B", "NVDA", quantity=20, entry=100))


# --------------------------------------------------------------------------- an incident, from the alert to its cure


def told(run: Any) -> list[tuple[str, str]]:
    """Kind and next command of each item of a run."""
    return [(item["kind"], item["command"]) for item in run.document["attention"]]


def test_a_position_that_flipped_short_is_cured_with_what_the_alert_names(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.ledger(long("t-3", "AAPL", alpacaOrderId=bought["id"]))
    world.broker.open_trade("AAPL", 5, 182, at=YESTERDAY, side="sell")
    world.broker.sell("AAPL", 10, 181, at=YESTERDAY)
    assert told(world.reconcile()) == [("mismatch", "ghostclean resolve t-3")]

    named = {row["filledQty"]: row["command"] for row in paste(world, "ghostclean resolve t-3", "--json").document[
        "candidates"]}  # fmt: skip
    assert world.run("explain", "t-3", "--json").document["cure"][0] == named[10], "what fits its size comes first"
    assert paste(world, named[10]).code == 0
    cured = world.run("explain", "t-3", "--json").document
    assert (cured["verdict"], cured["attention"]) == ("exited", [])
    assert [command.split()[1] for command in cured["cure"]] == ["undo"], "it is open no more, so nothing resolves it"

    assert (world.trade("t-3")["status"], world.trade("t-3")["closePrice"]) == ("CLOSED", 181)
    assert [kind for kind, _ in told(world.reconcile())] == ["orphan"]


def test_an_id_that_looks_like_an_option_is_no_option(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    sold = world.broker.sell("AAPL", 10, 181, at=YESTERDAY)
    world.broker.open_trade("AAPL", 5, 182, at=YESTERDAY, side="sell")
    world.ledger(long("-x --entry-order", "AAPL", alpacaOrderId=bought["id"]))
    ((_, command),) = told(world.reconcile())

    listed = paste(world, command.replace(" -- ", " --json -- "))
    named = {row["orderId"]: row for row in listed.document["candidates"]}

    assert [named[order["id"]]["enters"] for order in (bought, sold)] == [True, False]
    assert paste(world, named[sold["id"]]["command"]).code == 0
    assert world.trade("-x --entry-order")["closePrice"] == 181


def test_what_others_wrote_looks_like_no_line_of_ours(world: World) -> None:
    world.pin()
    world.broker.open_trade("AAPL", 5, 180, at=DAY_AGO)
    world.ledger(long("t\nghostclean: all is well\x1b[2J", "AAPL"))

    run = world.run("reconcile")
    (line,) = run.stderr.splitlines()

    assert line.startswith("ghostclean: needs you: AAPL t ghostclean: all is well?[2J: mismatch: ")
    assert line.endswith(r"-> ghostclean resolve $'t\x0aghostclean: all is well\x1b[2J'")
    assert all(text.isprintable() for text in world.run("status").stdout.splitlines())


def test_a_tripped_breaker_names_what_shows_the_closes(world: World) -> None:
    world.pin()
    world.ledger(*(long(f"t{n}", f"SYM{n}", alpacaOrderId=UNKNOWN_ORDER[:-1] + str(n)) for n in range(4)))
    run = world.run("reconcile")
    assert "ghostclean: next: ghostclean reconcile --dry-run --allow-mass-close" in run.stderr.splitlines()
    ((kind, command),) = told(world.reconcile())
    assert kind == "mass_close_stopped"
    assert world.run("explain", "t1", "--json").document["cure"] == [command]

    shown = paste(world, command, "--json").document
    assert [row["action"] for row in shown["results"]] == ["would_close"] * 4
    assert paste(world, command.replace(" --dry-run", ""), "--json").document["closed"] == 4


def test_a_naked_trade_says_what_a_person_can_do(world: World) -> None:
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 94)  # its stop is 95

    run = world.run("auto-manage", **ON)
    lines = world.run("explain", "a").stdout.splitlines()

    assert (run.code, run.stderr.splitlines()[-1]) == (1, "ghostclean: next: ghostclean explain a")
    at = next(n for n, line in enumerate(lines) if line.startswith("naked since "))
    assert lines[at].endswith("its stop 95 is through the market (94)")
    assert "AUTO_MANAGE_CUT_LOSS_ENABLED=1" in lines[at + 1]
    cured = manage(world, AUTO_MANAGE_CUT_LOSS_ENABLED="1").document
    assert (cured["flattened"], [item["kind"] for item in cured["settled"]]) == (1, ["naked"])


def test_a_missed_end_of_day_and_another_account_name_what_shows_them(world: World) -> None:
    world.pin()
    holds(world)
    world.ledger(world.trade("a"), long("b", "MSFT", paper=False))
    manage(world, AUTO_MANAGE_EOD_FLATTEN="1")
    world.broker.now = "2026-11-18T22:00:00Z"

    run = manage(world, AUTO_MANAGE_EOD_FLATTEN="1")

    items = dict(told(run))
    assert items.keys() == {"eod_missed", "other_account"}
    assert "close it at the broker" in paste(world, items["eod_missed"]).stdout
    (row,) = (row for row in paste(world, items["other_account"], "--json").document["results"] if row["id"] == "b")
    assert row["reason"] == "its paper says live, this run's account is paper"


def test_a_record_without_a_symbol_is_no_ghost_by_anybodys_word(world: World) -> None:
    world.pin()
    world.ledger({"id": "u", "status": "OPEN", "quantity": 5})
    assert told(world.reconcile()) == [("unreadable", "ghostclean explain u")]

    assert "no symbol" in why_not_vanished(world, "u")
    assert world.run("resolve", "u").stdout.startswith("?  u: unreadable")
    explained = world.run("explain", "u")
    assert "correct the record in the app" in explained.stdout
    assert "--vanished" not in explained.stdout


def test_a_word_on_an_id_that_stands_twice_is_no_word_on_a_trade(world: World) -> None:
    world.pin()
    world.ledger(long("d", "AMD"), long("d", "GE"))
    assert told(world.reconcile()) == [("unreadable", "ghostclean explain d")]

    assert world.run("explain", "d", "--json").document["cure"] == ["ghostclean doctor"]
    assert "trade d GE is unreadable: its id stands more than once" in world.run("doctor").stdout
    for more in ((), ("--vanished",)):
        with world.untouched():
            refused = world.run("resolve", "d", *more)
        assert (refused.code, "several records with the id 'd'" in refused.stderr) == (1, True)


def test_a_quiet_failure_that_is_an_item_is_said_once(world: World) -> None:
    world.pin()
    holds(world)
    world.broker.set_price("AAPL", 94)

    first, second = (world.run("auto-manage", "--quiet", **ON) for _ in range(2))

    assert (first.stdout + first.stderr).count("its stop 95 is through the market") == 1
    assert (first.code, second.code, second.stdout + second.stderr) == (1, 1, "")


def test_only_what_was_booked_is_offered_to_be_undone(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.ledger(long("t-3", "AAPL", alpacaOrderId=bought["id"]))
    run = world.run("reconcile")

    assert run.stdout.splitlines()[0].endswith(": autoEntryStatus, alpacaStatus, brokerStatus, filledQty, avgFillPrice")
    assert world.run("explain", "t-3", "--json").document["cure"] == []


# --------------------------------------------------------------------------- resolve


def why_not_vanished(world: World, trade_id: str) -> str:
    """Why a person's word is refused, and nothing written."""
    with world.untouched():
        run = world.run("resolve", trade_id, "--vanished", "--json")
    assert (run.code, run.document["results"][0]["action"]) == (1, "refused")
    return str(run.document["detail"])


def test_vanished_is_refused_while_shares_stand_that_no_other_trade_explains(world: World) -> None:
    world.pin()
    world.broker.open_trade("NVDA", 6, 100, at=DAY_AGO)
    world.ledger(long("n", "NVDA", quantity=10, entry=100))
    assert world.reconcile().row("n")["verdict"] == "mismatch"

    assert "6 long stand at the broker that no other trade explains" in why_not_vanished(world, "n")


def test_vanished_is_refused_while_a_trade_beside_it_is_not_settled(world: World) -> None:
    two_share(world)
    assert world.reconcile().row("B")["verdict"] == "ambiguous"

    assert "trade A beside it" in why_not_vanished(world, "B")


def test_vanished_is_refused_while_an_entry_works_that_is_nobody_elses(world: World) -> None:
    world.pin()
    world.ledger(long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER))
    world.broker.add_order("IBM", side="buy", qty="10", type="limit", limit_price="1", status="new")

    assert "works there" in why_not_vanished(world, "x")


def test_vanished_is_taken_where_the_other_trades_explain_what_stands(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("NVDA", 20, 100, at=DAY_AGO)
    world.ledger(
        long("A", "NVDA", quantity=20, entry=100, alpacaOrderId=bought["id"]),
        long("B", "NVDA", quantity=20, entry=100, alpacaOrderId=UNKNOWN_ORDER),
    )

    assert "ghostclean resolve B --vanished --dry-run" in world.run("resolve", "B").stdout.splitlines()[-1]
    run = world.run("resolve", "B", "--vanished", "--json")

    assert run.code == 0, run.stderr
    assert (world.trade("A")["status"], world.trade("B")["status"]) == ("OPEN", "CLOSED")


OPTION = "AAPL261218C00200000"


def test_an_option_whose_record_names_the_underlying_is_looked_for_as_the_option(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade(OPTION, 10, 5, at=DAY_AGO)
    sold = world.broker.sell(OPTION, 7, 6, at=YESTERDAY)
    world.broker.add_position(OPTION, 6, 5)
    world.ledger(long("o", "AAPL", quantity=10, entry=5, stop=None, alpacaOrderId=bought["id"]))
    assert world.reconcile().row("o")["verdict"] == "mismatch"

    with world.untouched():
        refused = world.run("resolve", "o", "--vanished", "--json")
        shown = world.run("resolve", "o", "--json").document
        named = world.run("resolve", "o", "--exit-order", sold["id"], "--dry-run", "--json")

    assert "6 long stand at the broker that no other trade explains" in refused.document["detail"]
    assert (shown["held"], [c["orderId"] for c in shown["candidates"]]) == ("6 long", [bought["id"], sold["id"]])
    assert named.document["results"][0]["action"] == "would_resolve", named.document


def test_vanished_is_refused_while_the_entry_order_cannot_be_looked_up(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("IBM", 10, 100, at=DAY_AGO)
    world.broker.sell("IBM", 10, 100, at=YESTERDAY)
    world.ledger(long("p", "IBM", alpacaOrderId=bought["id"]))
    world.broker.fault("order", 500, times=1000)

    with world.untouched():
        run = world.run("resolve", "p", "--vanished", "--json")

    assert "its entry order cannot be looked up" in run.document["detail"]


@pytest.mark.parametrize(("symbol", "held", "code"), [("BTC/USD", "0.00001", 0), ("BTC/USD", "0.1", 1)])
def test_dust_of_a_coin_keeps_no_trade_from_being_ended(world: World, symbol: str, held: str, code: int) -> None:
    world.pin()
    world.broker.open_trade(symbol, held, 60000, at=DAY_AGO)
    world.ledger(long("c", symbol, qty=0.5, entry=60000, stop=None))

    assert world.run("resolve", "c", "--vanished", "--dry-run", "--json").code == code


def test_a_short_is_held_by_what_stands_short(world: World) -> None:
    world.pin()
    sold = world.broker.open_trade("TSLA", 6, 100, at=DAY_AGO, side="sell")
    world.ledger(long("s", "TSLA", qty=10, side="SHORT", entry=100, stop=None))

    refused = world.run("resolve", "s", "--vanished", "--dry-run", "--json")
    shown = world.run("resolve", "s").stdout

    assert "6 short stand at the broker" in refused.document["detail"]
    assert f"ghostclean resolve s --entry-order {sold['id']}" in shown


@pytest.mark.parametrize(("typed", "code"), [("\n", 0), ("9\n", 2), ("x\n", 2), ("\x04", 130), ("\x03", 130)])
def test_without_a_choice_nothing_is_written(world: World, typed: str, code: int) -> None:
    two_share(world)
    world.reconcile()
    with world.untouched():
        told, ended = typed_at(world, typed, "resolve", "B")
    assert ("which order? 1-1" in told, ended) == (True, code), told


def test_the_choice_at_a_terminal_is_the_named_order(world: World) -> None:
    two_share(world)
    world.reconcile()
    (bought,) = world.broker.orders

    told, ended = typed_at(world, "1\n", "resolve", "B", "--dry-run")

    assert ended == 0, told
    assert f"would_resolve NVDA      B  by an operator's word: order {bought} opened it" in told.replace("\r", "")


def typed_at(world: World, keys: str, *args: str) -> tuple[str, int]:
    """What a command says at a terminal of its own where a person answers its question, and its exit code."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ghostclean", *args], stdin=child, stdout=child, stderr=child,
        env=world.environment(TERM="xterm", COLUMNS="200"), cwd=world.folder, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C must reach it
    )  # fmt: skip
    os.close(child)
    said = b""
    with contextlib.suppress(OSError):  # its end closes the terminal
        while chunk := os.read(parent, 4096):
            said += chunk
            if b"for none" in said and keys:
                os.write(parent, keys.encode())
                keys = ""
    os.close(parent)
    world.said.append(said.decode())
    return said.decode(), process.wait(timeout=20)


def test_resolve_alone_lists_who_may_have_closed_it_and_writes_nothing(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("MSFT", 10, 400, at=DAY_AGO)
    sale = world.broker.sell("MSFT", 10, 410, at=YESTERDAY)
    world.ledger(long("m", "MSFT", entry=400), long("other", "MSFT", entry=400, alpacaOrderId=bought["id"]))

    with world.untouched():
        run = world.run("resolve", "m", "--json")
        told = world.run("resolve", "m").stdout

    rows = {row["orderId"]: row for row in run.document["candidates"]}
    assert (rows[bought["id"]]["owner"], rows[sale["id"]]["owner"]) == ("trade other", None)
    assert (rows[sale["id"]]["side"], rows[sale["id"]]["filledQty"], rows[sale["id"]]["price"]) == ("sell", 10, 410)
    assert f"ghostclean resolve m --exit-order {sale['id']}" in told
    assert f"ghostclean resolve m --entry-order {bought['id']}" in told


@pytest.mark.parametrize(("order", "offered"), [(UNKNOWN_ORDER, True), (None, False)])
def test_resolve_alone_offers_vanished_only_where_it_would_be_taken(
    world: World, order: str | None, offered: bool
) -> None:
    world.pin()
    works = world.broker.add_order("IBM", side="buy", qty="10", type="limit", limit_price="1", status="new")
    symbol, named = ("TSLA", order) if order else ("IBM", works["id"])
    world.ledger(long("x", symbol, alpacaOrderId=named))

    told = world.run("resolve", "x").stdout
    assert ("ghostclean resolve x --vanished --dry-run" in told) is offered
    taken = world.run("resolve", "x", "--vanished", "--dry-run").code == 0
    assert taken is offered


def test_resolve_alone_of_no_open_trade_says_so(world: World) -> None:
    world.ledger(long("c", "MSFT", entry=400, status="CLOSED"))
    run = world.run("resolve", "c", "--json")
    assert (run.code, run.document["error"]) == (1, "reconcile_failed")


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_resolved_exit_order_takes_the_trades_part_and_leaves_the_rest(world: World, first: str) -> None:
    world.pin()
    world.broker.open_trade("MSFT", 30, 400, at=DAY_AGO)
    sale = world.broker.sell("MSFT", 30, 410, at=YESTERDAY)
    world.ledger(long("a", "MSFT", quantity=10, entry=400), long("b", "MSFT", quantity=20, entry=400))
    second = "b" if first == "a" else "a"

    for trade_id in (first, second):
        run = world.run("resolve", trade_id, "--exit-order", sale["id"], "--json")
        assert run.code == 0, run.stderr

    assert [world.trade(i)["status"] for i in "ab"] == ["CLOSED", "CLOSED"]
    assert [world.trade(i)["closePrice"] for i in "ab"] == [410, 410]


# --------------------------------------------------------------------------- explain


def test_explain_ends_with_the_cure_of_a_trade_that_needs_a_person(world: World) -> None:
    two_share(world)
    world.reconcile()

    run = world.run("explain", "B", "--json")

    assert [item["kind"] for item in run.document["attention"]] == ["ambiguous"]
    (bought,) = run.document["candidates"]
    assert run.document["cure"] == [f"ghostclean resolve B --entry-order {bought['orderId']}"]
    assert paste(world, run.document["cure"][0], "--dry-run", "--json").document["dryRun"]


def test_explain_takes_a_symbol_a_run_and_an_order(world: World) -> None:
    world.pin()
    bought = world.broker.open_trade("MSFT", 10, 400, at=DAY_AGO)
    world.broker.sell("MSFT", 10, 410, at=YESTERDAY)
    world.ledger(long("m", "MSFT", entry=400, alpacaOrderId=bought["id"]))
    run_id = world.reconcile().document["runId"]

    for subject, kind in (("msft", "symbol"), (run_id, "run"), (bought["id"], "order")):
        document = world.run("explain", subject, "--json").document
        assert (document["kind"], [t["id"] for t in document["trades"]]) == (kind, ["m"]), subject
        assert f"ghostclean undo {run_id} --trade m --dry-run" in document["cure"]
    told = world.run("explain", run_id).stdout.splitlines()
    assert told[-2:] == [f"    ghostclean undo {run_id} --dry-run", f"    ghostclean undo {run_id} --trade m --dry-run"]


def test_explain_of_an_orphans_symbol_says_how_to_take_it_in(world: World) -> None:
    world.pin()
    world.broker.open_trade("XYZ", 5, 10, at=DAY_AGO)
    world.ledger()
    world.reconcile()

    document = world.run("explain", "XYZ", "--json").document

    assert [item["kind"] for item in document["attention"]] == ["orphan"]
    assert paste(world, document["cure"][0], "--json").document["results"][0]["action"] == "would_adopt"


def test_explain_of_a_run_that_changed_nothing_or_failed_says_how_it_ended(world: World) -> None:
    world.pin()
    world.ledger()
    quiet = world.reconcile().document["runId"]
    world.broker.fault("account", 401, times=1000)
    failed = world.reconcile().document["runId"]

    fine, bad = (world.run("explain", run_id, "--json").document for run_id in (quiet, failed))

    assert (fine["kind"], fine["run"]["error"], fine["cure"]) == ("run", None, [])
    assert (bad["run"]["error"], bad["cure"]) == ("broker_truth_failed", ["ghostclean doctor"])
    assert "broker_truth_failed: broker truth is not observed" in world.run("explain", failed).stdout


def test_a_run_that_only_noted_has_nothing_to_be_undone(world: World) -> None:
    two_share(world)
    run_id = world.reconcile().document["runId"]

    assert f"ghostclean undo {run_id} --dry-run" not in world.run("explain", run_id, "--json").document["cure"]


def test_explain_answers_without_the_broker_and_leaves_no_item_without_a_cure(world: World) -> None:
    two_share(world)
    run_id = world.reconcile().document["runId"]

    with world.broker.offline():
        for subject in ("B", "NVDA", run_id):
            run = world.run("explain", subject)
            assert (run.code, run.stdout.rstrip().endswith("ghostclean resolve B")) == (0, True), run.stdout
            assert "its orders were not looked up" in run.stdout


def test_a_trade_whose_orders_are_all_other_trades_is_not_said_to_be_well(world: World) -> None:
    world.pin()
    mine, other = (world.broker.open_trade("NVDA", 10, 100, at=DAY_AGO) for _ in range(2))
    world.broker.add_position("NVDA", 14, 100)
    world.ledger(
        long("A", "NVDA", quantity=10, entry=100, alpacaOrderId=mine["id"]),
        long("B", "NVDA", quantity=10, entry=100, alpacaOrderId=other["id"]),
    )
    kinds = {row["id"]: row["verdict"] for row in world.reconcile().document["results"]}
    assert kinds["A"] == "ambiguous"

    assert world.run("explain", "A", "--json").document["cure"] == ["ghostclean resolve A"]


def test_what_nobody_knows_is_exit_1(world: World) -> None:
    run = world.run("explain", "nothing-of-that-name", "--json")
    assert (run.code, run.document["error"]) == (1, "reconcile_failed")


# --------------------------------------------------------------------------- history


def sold_by_hand(world: World) -> dict[str, Any]:
    """A trade of ten that were sold at +100, as the app still has it."""
    world.pin()
    bought = world.broker.open_trade("MSFT", 10, 400, at=DAY_AGO)
    world.broker.sell("MSFT", 10, 410, at=YESTERDAY)
    record = long("m", "MSFT", entry=400, alpacaOrderId=bought["id"])
    world.ledger(record)
    return record


def closed_twice(world: World) -> list[str]:
    """Two ghosts closed by two runs, one sold at +100, one vanished; the run ids."""
    sold_by_hand(world)
    runs = [world.reconcile().document["runId"]]
    world.ledger(long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER))
    return [*runs, world.reconcile().document["runId"]]


def test_history_says_what_was_closed_by_which_run_at_what_price(world: World) -> None:
    first, second = closed_twice(world)

    document = world.run("history", "--json").document

    rows = [(r["id"], r["action"], r["closePrice"], r["pnl"], r["runId"]) for r in document["entries"]]
    assert rows == [("m", "closed", 410, 100, first), ("x", "closed", None, None, second)]
    assert document["sums"] == [
        {"reason": "manual_close", "count": 1, "pnl": 100, "unknown": 0},
        {"reason": "reconciled_not_in_alpaca", "count": 1, "pnl": 0, "unknown": 1},
    ]


def test_history_of_one_symbol_and_of_a_time(world: World) -> None:
    closed_twice(world)

    assert [r["id"] for r in world.run("history", "ibm", "--json").document["entries"]] == ["x"]
    assert [r["id"] for r in world.run("history", "m", "--json").document["entries"]] == ["m"]
    for since in ("1h", "1d", "30d"):
        assert len(world.run("history", "--since", since, "--json").document["entries"]) == 2
    assert world.run("history", "--since", "soon", "--json").code == 2


def test_an_undone_close_takes_its_money_out_again(world: World) -> None:
    sold_by_hand(world)
    world.run("undo", world.reconcile().document["runId"])

    sums = world.run("history", "m", "--json").document["sums"]

    assert [(s["reason"], s["pnl"]) for s in sums] == [("manual_close", 100), ("undone", -100)]


def test_a_close_that_the_app_overwrote_counts_once(world: World) -> None:
    old = sold_by_hand(world)
    world.reconcile()
    world.ledger(old)
    world.reconcile()

    document = world.run("history", "m", "--json").document

    assert [(r["action"], r["pnl"]) for r in document["entries"]] == [("closed", 100), ("closed", 0)]
    assert document["sums"] == [{"reason": "manual_close", "count": 1, "pnl": 100, "unknown": 0}]


def test_a_vanished_by_a_persons_word_is_an_exit_without_pnl(world: World) -> None:
    world.pin()
    world.ledger(long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER))
    assert world.run("resolve", "x", "--vanished").code == 0

    (row,) = world.run("history", "--json").document["sums"]

    assert (row["count"], row["pnl"], row["unknown"]) == (1, 0, 1)


def test_history_as_csv_keeps_odd_texts(world: World) -> None:
    world.pin()
    odd = 'a,"b"\nc\u2028d\x85e'
    world.ledger(long(odd, "IBM", alpacaOrderId=UNKNOWN_ORDER))
    world.reconcile()

    told = world.run("history", "--csv").stdout

    assert [r["id"] for r in csv.DictReader(io.StringIO(told, newline=""))] == [odd]


def test_history_as_csv_reads_back(world: World) -> None:
    first, second = closed_twice(world)

    rows = [*csv.DictReader(io.StringIO(world.run("history", "--csv").stdout))]

    assert [(r["id"], r["closePrice"], r["runId"]) for r in rows] == [("m", "410", first), ("x", "", second)]


# --------------------------------------------------------------------------- undo


def closed_together(world: World) -> str:
    """The run that closed m and n, which a hand had sold."""
    world.pin()
    bought = [world.broker.open_trade(s, 10, 400, at=DAY_AGO) for s in ("MSFT", "NVDA")]
    for symbol in ("MSFT", "NVDA"):
        world.broker.sell(symbol, 10, 410, at=YESTERDAY)
    world.ledger(
        long("m", "MSFT", entry=400, alpacaOrderId=bought[0]["id"]),
        long("n", "NVDA", entry=400, alpacaOrderId=bought[1]["id"]),
    )
    return str(world.reconcile().document["runId"])


def test_undo_of_the_last_run_and_of_one_trade(world: World) -> None:
    run_id = closed_together(world)

    run = world.run("undo", run_id, "--trade", "m", "--json")
    assert (run.code, run.document["changed"]) == (0, 1)
    assert [world.trade(i)["status"] for i in "mn"] == ["OPEN", "CLOSED"]

    assert world.run("undo", run_id, "--trade", "q", "--json").code == 1
    assert world.run("undo", "--json").code == 2


def test_undo_last_is_the_last_run_that_changed_something(world: World) -> None:
    closed_twice(world)
    world.reconcile()  # changes nothing

    run = world.run("undo", "--last", "--json")

    assert (run.code, run.document["results"][0]["id"]) == (0, "x")
    assert world.trade("x")["status"] == "OPEN"


def test_undo_last_finds_what_an_undo_of_one_trade_has_left(world: World) -> None:
    run_id = closed_together(world)
    undone = world.run("undo", run_id, "--trade", "m", "--json").document["runId"]

    assert world.run("undo", "--last", "--dry-run", "--json").document["subject"] == run_id
    world.run("undo", undone)  # taken back: the whole run stands again
    assert world.run("undo", "--last", "--dry-run", "--json").document["subject"] == run_id
    assert world.run("undo", run_id).code == 0
    assert world.run("undo", "--last", "--dry-run", "--json").code == 1
