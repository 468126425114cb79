"""A ledger that holds records of two accounts: those of the other one are left alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.test_manage_contract import manage, writes
from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, Record, World, long, orphaned

TICKERS = ("AAPL", "MSFT", "NVDA", "AMZN")
EOD = {"AUTO_MANAGE_EOD_FLATTEN": "1", "AUTO_MANAGE_CUT_LOSS_ENABLED": "1"}


def ours(world: World, ticker: str, **fields: Any) -> Record:
    """A live trade with its entry, of this account."""
    short = fields.get("side") == "SHORT"
    row = world.broker.open_trade(ticker, 10, 180, at=DAY_AGO, side="sell" if short else "buy")
    return long(ticker.lower(), ticker, alpacaOrderId=row["id"], stop=185 if short else 175) | fields


def theirs(n: int, ticker: str = "", **fields: Any) -> Record:
    """A trade of another account; its order is unknown here."""
    mark = {} if {"accountId", "account", "env", "accountMode"} & fields.keys() else {"paper": False}
    name = f"{UNKNOWN_ORDER[:-1]}{n}"
    return long(f"other{n}", ticker or f"OTH{n}", openedAt=THREE_DAYS_AGO, alpacaOrderId=name) | mark | fields


def told(document: Any) -> list[str]:
    return [note for note in document["notes"] if "another account" in note]


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_three_live_records_among_four_paper_trades(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    others = [theirs(1), theirs(2, "AAPL"), theirs(3, side="SHORT", stopPrice=190)]
    world.ledger(*(ours(world, ticker, paper=True) for ticker in TICKERS), *others)
    dry = world.reconcile("--dry-run")
    for run in (dry, world.reconcile(), world.reconcile()):
        assert run.code == 0
        assert run.verdicts() == dict.fromkeys(map(str.lower, TICKERS), "live") | {
            f"other{n}": "other_account" for n in (1, 2, 3)
        }
        assert {run.row(f"other{n}")["action"] for n in (1, 2, 3)} == {"kept"}
        assert told(run.document) == [
            "3 trades say they are of another account than this run's: left alone (other_account)"
        ]
        counters = ("checked", "closed", "held", "orphans", "failed")
        assert [run.document[name] for name in counters] == [7, 0, 0, 0, 0]
    assert [world.trade(record["id"]) for record in others] == others


@pytest.mark.parametrize(
    "mark",
    [
        {"env": "live"},
        {"accountMode": "LIVE"},
        {"accountId": "5a3d1b7e-88c1-4c55-8f0e-2b9d44aa7002"},
        {"account": "PA3OTHER0001"},
    ],
)
def test_every_way_to_say_it(world: World, mark: Record) -> None:
    record = theirs(1, **mark)
    world.ledger(ours(world, "AAPL"), record)
    run = world.reconcile()
    assert (run.code, run.verdicts()) == (0, {"aapl": "live", "other1": "other_account"})
    assert world.trade("other1") == record


def test_the_accounts_own_id_and_number_and_a_name_are_no_reason(world: World) -> None:
    market = world.broker.market
    marks: list[Record] = [
        {"accountId": market.account_id.upper()}, {"account": market.account_number}, {"account": "main", "env": "prod"}
    ]  # fmt: skip
    world.ledger(*(ours(world, ticker, **mark) for ticker, mark in zip(TICKERS, marks, strict=False)))
    run = world.reconcile()
    assert (run.code, set(run.verdicts().values()), told(run.document)) == (0, {"live"}, [])


def test_many_of_them_trip_no_breaker_and_a_ghost_beside_them_is_closed(world: World) -> None:
    world.ledger(ours(world, "AAPL"), ours(world, "MSFT"), *(theirs(n) for n in range(9)))
    world.broker.sell("MSFT", 10, "187.40", at=YESTERDAY)
    run = world.reconcile()
    assert (run.code, run.document["closed"]) == (0, 1)
    assert run.row("msft")["verdict"] == "exited"


@pytest.mark.parametrize("short", [False, True])
def test_an_exit_order_that_both_name_is_of_the_trade_here(world: World, short: bool) -> None:
    side = {"side": "SHORT"} if short else {}
    own = ours(world, "AAPL", **side)
    out = world.broker.open_trade("AAPL", 10, 170, at=YESTERDAY, side="buy" if short else "sell")
    world.ledger(own | {"closeOrderId": out["id"]}, theirs(1, "AAPL", closeOrderId=out["id"], **side))
    run = world.reconcile()
    assert (run.code, run.verdicts()) == (0, {"aapl": "exited", "other1": "other_account"})
    assert world.trade("aapl")["closePrice"] == 170
    assert world.trade("other1")["status"] == "OPEN"


def test_auto_manage_sends_nothing_for_them(world: World) -> None:
    """Same symbol and none of its own, long and short, with a loss to cut and the day ending."""
    world.pin()
    world.ledger(ours(world, "AAPL"), theirs(1, "AAPL"), theirs(2, "MSFT", side="SHORT", stopPrice=190), theirs(3))
    for symbol in ("AAPL", "MSFT"):
        world.broker.set_price(symbol, 180)
    run = manage(world)
    assert (run.code, writes(world)) == (0, ["submit"])
    [stop] = world.broker.working("AAPL")
    assert (stop["qty"], stop["id"]) == ("10", world.trade("aapl")["stopOrderId"])
    assert len(told(run.document)) == 1
    assert not [note for note in run.document["notes"] if "other1" in note or "other2" in note]
    world.broker.reset_log()
    assert (manage(world, **EOD).code, writes(world)) == (0, [])
    assert all("autoManage" not in world.trade(f"other{n}") for n in (1, 2, 3))


def test_auto_manage_with_nothing_else_has_no_open_trades(make_world: MakeWorld) -> None:
    """Not even at the end of the day, with their symbols' positions in this account."""
    world = make_world("file", now="2026-11-18T20:50:00Z")
    world.pin()
    world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)
    world.broker.set_price("AAPL", 170)
    world.ledger(theirs(1, "AAPL"), theirs(2, "MSFT"))
    run = manage(world, **EOD)
    assert (run.code, run.document["reason"], writes(world)) == (0, "no_open_trades", [])
    assert len(told(run.document)) == 1


def test_an_adopted_trade_says_whose_it_is(world: World) -> None:
    """The record of the same symbol in the other account has no part in the position, and no twin of the new one."""
    orphaned(world)
    world.ledger(ours(world, "AAPL", paper=True, env="PAPER"), theirs(1, "AMD", env="LIVE"))
    run = world.reconcile("--orphans", "adopt")
    assert (run.code, run.document["backfilled"]) == (0, 1)
    [adopted] = [r for r in world.store.records().values() if str(r["id"]).startswith("adopted-")]
    assert (adopted["ticker"], adopted["quantity"], adopted["paper"], adopted["env"]) == ("AMD", 8, True, "PAPER")
    again = world.reconcile("--orphans", "adopt")
    assert again.verdicts() == {"aapl": "live", "other1": "other_account", adopted["id"]: "live"}


def test_a_position_whose_order_such_a_record_names_is_neither_adopted_nor_sold(world: World) -> None:
    world.pin()
    own = ours(world, "AAPL")
    world.broker.set_price("AAPL", 180)
    wrong = own | {"paper": False}
    world.ledger(wrong)
    for mode in ("adopt", "flatten"):
        run = world.reconcile("--orphans", mode)
        assert (run.code, run.document["orphans"], run.document["backfilled"], writes(world)) == (0, 1, 0, [])
        assert world.trade("aapl") == wrong


def test_a_ledger_of_the_other_account_alone_pins_nothing(world: World) -> None:
    """Started with the wrong keys: nothing is done, and the right account is still to be pinned."""
    others = [theirs(1), theirs(2)]
    world.ledger(*others)
    with world.untouched():
        run = world.reconcile()
    assert (run.code, run.document["closed"], len(told(run.document))) == (0, 0, 1)
    assert not world.recall("pin")


def test_a_bare_paper_account_beside_live_records_is_no_contradiction(world: World) -> None:
    world.broker.account |= {"equity": "0", "cash": "0"}
    world.ledger(theirs(1))
    assert world.reconcile().code == 0
    world.ledger(long("aapl", "AAPL", 10, 180, 175))
    assert world.reconcile().code == 3


def test_what_left_the_ledger_was_not_of_this_account(world: World) -> None:
    """A record of the other account that goes away leaves no position here behind."""
    orphaned(world)
    world.ledger(ours(world, "AAPL"), theirs(1, "AMD"))
    assert world.reconcile().code == 0
    world.ledger(*(r for r in world.store.records().values() if r["id"] != "other1"))
    run = world.reconcile("--orphans", "adopt")
    assert (run.code, run.document["backfilled"]) == (0, 1)


def test_resolve_and_status_know_whose_it_is(world: World) -> None:
    record = theirs(1)
    world.ledger(ours(world, "AAPL"), record)
    assert world.reconcile().code == 0
    run = world.run("resolve", "other1", "--vanished")
    assert run.code == 1
    assert "other_account" in run.stdout + run.stderr
    assert world.trade("other1") == record
    broker = world.run("status", "--broker", "--json").document["broker"]
    assert (broker["onlyAtBroker"], broker["onlyInLedger"]) == ([], [])
