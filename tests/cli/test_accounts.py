"""Whose account it is, whose time counts, how many closes without proof, and how fast to ask."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.cli.world import (
    DAY_AGO,
    THREE_DAYS_AGO,
    UNKNOWN_ORDER,
    YESTERDAY,
    HashStore,
    Record,
    StringStore,
    World,
    long,
)
from tests.timing import SLACK

MakeWorld = Callable[..., World]


def vanished(n: int, **fields: Any) -> Record:
    """A trade without order id, of which the broker knows nothing."""
    return long(f"v{n}", f"SYM{n}", 10, 100, 95, openedAt=THREE_DAYS_AGO, **fields)


def live(world: World, ticker: str = "AAPL") -> Record:
    return long(ticker.lower(), ticker, alpacaOrderId=world.broker.open_trade(ticker, 10, 180, at=DAY_AGO)["id"])


def sold(world: World, ticker: str = "MSFT") -> Record:
    record = live(world, ticker)
    world.broker.sell(ticker, 10, "187.40", at=YESTERDAY)
    return record


# --------------------------------------------------------------------------- the right account


@pytest.mark.parametrize("layout", ["string", "file"])
def test_another_account_is_refused(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.ledger(live(world), sold(world))
    assert world.reconcile().code == 0
    summary = world.summary()
    world.ledger(live(world, "NVDA"), vanished(1))
    world.broker.market.new_account()  # a paper account that was deleted and made anew
    with world.untouched():
        run = world.reconcile()
    assert run.code == 5
    assert run.document["error"] == "account_mismatch"
    assert "doctor --pin" in run.stderr
    assert world.summary()["totalClosed"] == summary["totalClosed"]
    assert world.summary()["lastOk"] == "false"
    with world.untouched():
        assert world.reconcile("--allow-mass-close").code == 5  # that is about mass closes, not about accounts


def test_paper_and_live_are_two_accounts(world: World) -> None:
    world.ledger(live(world), sold(world))
    assert world.reconcile().code == 0
    world.ledger(live(world, "NVDA"), vanished(1))
    with world.untouched():
        run = world.reconcile(ALPACA_LIVE_TRADE="true")
    assert (run.code, run.document["error"]) == (5, "account_mismatch")
    assert world.reconcile(ALPACA_LIVE_TRADE="TRUE").code == 0  # only the word `true` means live


def test_doctor_pins_on_purpose(world: World) -> None:
    old = world.broker.market.account_number
    world.ledger(live(world))
    assert world.reconcile().code == 0
    world.broker.market.new_account()
    new = world.broker.market.account_number
    world.ledger(vanished(1, alpacaOrderId=UNKNOWN_ORDER), live(world, "NVDA"))
    assert world.reconcile().code == 5
    pinned = world.recall("pin")

    asked = world.run("doctor", "--pin", "--json")
    both = f"the ledger belongs to paper account {old}, these keys are of paper account {new}"
    known = f"{both}, which knows 1 of the 2 orders that the ledger names"
    assert (asked.code, asked.document["error"]) == (2, "bad_settings")
    assert asked.document["detail"] == f"nothing was pinned: {known}; to accept it type: ghostclean doctor --pin --yes"
    assert world.recall("pin") == pinned

    accepted = world.run("doctor", "--pin", "--yes")
    assert f"paper account {new} is now this ledger's (before: {known})" in accepted.stdout
    world.ledger(world.trade("nvda"))
    run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"nvda": "live"}
    again = world.run("doctor", "--pin")
    assert (again.code, "the account is this ledger's already" in again.stdout) == (0, True)


def test_the_first_contact_needs_a_sign(world: World) -> None:
    """Nothing pinned, and nothing shows that the account is the ledger's: no unproven close, no pin."""
    world.ledger(vanished(1))
    with world.untouched():
        run = world.reconcile()
    assert run.code == 5
    assert run.document["error"] == "mass_close_stopped"
    assert world.recall("pin") == {}
    with world.untouched():
        assert world.reconcile().code == 5
    forced = world.reconcile("--allow-mass-close")
    assert forced.code == 0
    assert forced.document["closed"] == 1
    assert world.recall("pin") != {}


@pytest.mark.parametrize("sign", ["position", "order", "closed-in-the-symbol", "closed-in-another-symbol"])
def test_one_sign_is_enough_for_the_first_contact(world: World, sign: str) -> None:
    """The account holds a position of a record, or knows an order id of any record, closed ones too."""
    records = [vanished(1)]
    if sign == "position":
        world.broker.add_position("AAPL", 10, 180)
        records.append(long("aapl", "AAPL"))
    elif sign == "order":
        records.append(live(world))
    else:
        records.append(sold(world, "SYM1" if sign.endswith("the-symbol") else "NVDA") | {"status": "CLOSED"})
    world.ledger(*records)
    run = world.reconcile()
    assert run.code == 0, run.document["detail"]
    assert world.trade("v1")["status"] == "CLOSED"
    assert world.recall("pin") != {}


def test_order_ids_that_the_account_does_not_know_are_no_ledger_of_its_whatever_symbols_it_holds(world: World) -> None:
    """Another account's keys: it holds MSFT too, and knows no order of this ledger."""
    world.broker.add_position("MSFT", 10, 180)
    other = UNKNOWN_ORDER[:-1] + ("0" if UNKNOWN_ORDER[-1] != "0" else "1")
    ours = [
        long("a", "AAPL", alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO),
        long("m", "MSFT", alpacaOrderId=other, openedAt=THREE_DAYS_AGO),
    ]
    world.ledger(*ours)
    for _ in range(2):
        run = world.reconcile()
        assert (run.code, run.document["error"], run.document["closed"]) == (5, "mass_close_stopped", 0)
        assert {record["status"] for record in world.store.records().values()} == {"OPEN"}
        assert world.recall("pin") == {}


def test_a_sale_in_an_account_that_knows_no_order_of_the_ledger_closes_nothing_of_it(world: World) -> None:
    """Another account's keys: it bought and sold as much MSFT, which would explain where this ledger's went."""
    sold(world, "MSFT")
    world.ledger(long("m", "MSFT", alpacaOrderId=UNKNOWN_ORDER, openedAt=DAY_AGO))
    for _ in range(2):
        run = world.reconcile()
        assert (run.code, run.document["error"], run.document["closed"]) == (5, "mass_close_stopped", 0)
        assert world.trade("m")["status"] == "OPEN"
    assert world.recall("pin") == {}
    assert world.reconcile("--allow-mass-close").document["closed"] == 1


def test_an_account_that_knows_no_order_of_the_ledger_is_not_pinned_though_nothing_would_be_closed(
    world: World,
) -> None:
    world.ledger(long("m", "MSFT", alpacaOrderId=UNKNOWN_ORDER, openedAt=world.broker.now.isoformat()))
    run = world.reconcile()
    assert (run.code, run.verdicts()) == (0, {"m": "settling"})
    assert world.recall("pin") == {}
    assert any("not pinned" in note for note in run.document["notes"])
    world.ledger(live(world))
    assert world.reconcile().code == 0
    assert world.recall("pin") != {}


def test_a_proven_close_needs_no_sign_and_pins(world: World) -> None:
    world.ledger(sold(world))
    run = world.reconcile()
    assert (run.code, run.document["closed"]) == (0, 1)
    assert world.recall("pin") != {}


def test_a_dry_run_pins_nothing_and_moves_nothing(world: World) -> None:
    world.ledger(live(world), sold(world), vanished(1))
    with world.untouched():
        run = world.reconcile("--dry-run")
    assert run.code == 0
    assert {row["id"]: row["action"] for row in run.document["results"]} == {
        "aapl": "would_sync", "msft": "would_close", "v1": "would_close"
    }  # fmt: skip
    assert run.document["closed"] == 2
    for section in ("pin", "misses", "first_seen", "unproven", "orders"):
        assert world.recall(section) == {}
    assert world.summary() == {}
    assert [entry["dryRun"] for entry in world.runs()] == [True]


@pytest.mark.parametrize("layout", ["string", "hash"])
def test_two_accounts_on_one_redis_stay_apart(make_world: MakeWorld, layout: str) -> None:
    """Each has its prefix, its ledger key and its own pin, lock, telemetry and journal."""
    world = make_world(layout)
    kind = HashStore if layout == "hash" else StringStore
    stores = {name: kind(world.redis, world.redis_url, f"trades:v1:{name}") for name in ("one", "two")}
    entry = live(world)
    stores["one"].write([entry, sold(world)])
    env = {name: {"GHOSTCLEAN_KEY_PREFIX": f"{name}:", "GHOSTCLEAN_LEDGER_KEY": f"trades:v1:{name}"} for name in stores}
    assert world.reconcile(**env["one"]).document["closed"] == 1
    first = world.broker.market.account_id
    world.broker.market.new_account()
    stores["two"].write([live(world, "NVDA"), sold(world, "AMD"), sold(world, "META")])
    before = stores["one"].raw()
    assert world.reconcile(**env["two"]).document["closed"] == 2
    assert stores["one"].raw() == before
    assert world.redis.hget("one:telemetry:reconcile:summary", "totalClosed") == b"1"
    assert world.redis.hget("two:telemetry:reconcile:summary", "totalClosed") == b"2"
    assert world.reconcile(**env["one"]).code == 5  # it still answers for the second account
    world.broker.market.account_id = first
    outside = [k for k in world.redis.scan_iter() if not k.startswith((b"one:", b"two:", b"trades:v1:"))]
    assert outside == []


# --------------------------------------------------------------------------- time


@pytest.mark.parametrize("skew", [-600, 600])
def test_a_clock_ten_minutes_off_changes_no_verdict(make_world: MakeWorld, skew: int) -> None:
    """The broker's `Date` decides; its clock stands ten minutes from ours."""
    ours = datetime.now().astimezone()
    now = ours + timedelta(seconds=skew)
    world = make_world("file", now.isoformat())

    def at(seconds: float) -> str:
        return (now - timedelta(seconds=seconds)).isoformat()

    fresh = world.broker.open_trade("AAPL", 10, 180, at=at(60))
    world.broker.remove_position("AAPL")
    old = world.broker.open_trade("MSFT", 10, 180, at=at(9000))
    world.broker.sell("MSFT", 10, 187, at=at(180))
    just = world.broker.open_trade("NVDA", 10, 180, at=at(9000))
    world.broker.sell("NVDA", 10, 187, at=at(60))
    world.ledger(
        long("fresh", "AAPL", alpacaOrderId=fresh["id"], openedAt=at(60)),
        long("old", "MSFT", alpacaOrderId=old["id"], openedAt=at(9000)),
        long("just", "NVDA", alpacaOrderId=just["id"], openedAt=at(9000)),
    )
    result = world.inside()
    verdicts = {row["id"]: row["verdict"] for row in result.results}
    assert verdicts == {"fresh": "settling", "old": "exited", "just": "settling"}
    world.broker.advance(seconds=100)
    result = world.inside()
    assert {row["id"]: row["verdict"] for row in result.results}["just"] == "exited"


def test_an_app_that_touches_its_trades_every_minute_keeps_no_ghost_alive(world: World) -> None:
    world.pin()
    touched = {"updatedAt": "2026-11-18T14:59:50Z"}
    world.ledger(
        sold(world) | touched,
        long("unknown", "ORCL", alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO, **touched),
        vanished(1, **touched),
    )
    run = world.reconcile()
    assert run.code == 0
    assert run.verdicts() == {"msft": "exited", "unknown": "vanished", "v1": "vanished"}
    assert run.document["closed"] == 3


def test_a_fresh_touch_counts_for_a_fresh_trade_without_orders(world: World) -> None:
    world.pin()
    opened = "2026-11-18T14:30:00Z"
    world.ledger(vanished(1) | {"openedAt": opened, "updatedAt": "2026-11-18T14:59:50Z"})
    with world.untouched():
        assert world.reconcile().verdicts() == {"v1": "settling"}
    world.broker.advance(minutes=3)
    assert world.reconcile().verdicts() == {"v1": "vanished"}


@pytest.mark.parametrize("opened", ["2027-01-01T00:00:00Z", None, "yesterday"])
def test_a_time_that_cannot_be_counts_from_the_first_sight(world: World, opened: str | None) -> None:
    world.pin()
    world.ledger(vanished(1) | {"openedAt": opened})
    with world.untouched():
        assert world.reconcile().verdicts() == {"v1": "settling"}
    world.broker.advance(seconds=121)
    assert world.reconcile().verdicts() == {"v1": "vanished"}


# --------------------------------------------------------------------------- closes without proof


@pytest.mark.parametrize(("ghosts", "lives", "stopped"), [(3, 0, False), (4, 0, True), (4, 8, False), (4, 7, True)])
def test_the_breaker_counts_number_and_share(world: World, ghosts: int, lives: int, stopped: bool) -> None:
    """More than three and more than a third of the open trades."""
    world.pin()
    names = ["AAPL", "MSFT", "NVDA", "AMD", "TSLA", "META", "GOOG", "AMZN"]
    world.ledger(*(vanished(n) for n in range(ghosts)), *(live(world, name) for name in names[:lives]))
    run = world.reconcile()
    assert run.code == (5 if stopped else 0)
    assert run.document["closed"] == (0 if stopped else ghosts)


def test_the_breaker_lets_proven_closes_pass(world: World) -> None:
    world.pin()
    world.ledger(sold(world), *(vanished(n) for n in range(6)))
    run = world.reconcile()
    assert run.code == 5
    assert run.document["closed"] == 1
    assert world.trade("msft")["closePrice"] == 187.4
    assert world.trade("v1")["status"] == "OPEN"
    assert world.summary()["totalClosed"] == "1"


def test_the_breaker_remembers_the_last_hour(world: World) -> None:
    """Three a run would empty any ledger in a few runs."""
    world.pin()
    world.ledger(*(vanished(n) for n in range(3)))
    assert world.reconcile().document["closed"] == 3
    world.ledger(*(vanished(n) for n in range(3, 6)))
    with world.untouched():
        assert world.reconcile().code == 5
    world.broker.advance(minutes=61)
    assert world.reconcile().document["closed"] == 3


def test_max_is_no_way_around_the_breaker(world: World) -> None:
    world.pin()
    world.ledger(*(vanished(n) for n in range(12)))
    closed = 0
    for _ in range(6):
        closed += world.inside(max_trades=2).closed
    assert closed <= 4


def test_confirmations_ask_for_runs_in_a_row(world: World) -> None:
    world.pin()
    world.ledger(vanished(1))
    wish = {"GHOSTCLEAN_CONFIRMATIONS": "3"}
    with world.untouched():
        assert world.reconcile(**wish).verdicts() == {"v1": "vanished"}
        world.broker.fault("positions", 500)
        assert world.reconcile("--deadline", "1s", **wish).code == 3  # a failed run neither adds nor resets
        world.broker.clear_faults()
        assert world.reconcile("--dry-run", **wish).code == 0  # nor does a dry one add
        assert world.reconcile(**wish).document["closed"] == 0
    assert world.reconcile(**wish).document["closed"] == 1


# --------------------------------------------------------------------------- rate limits


def test_a_429_with_retry_after_is_waited_for(world: World) -> None:
    world.ledger(live(world), sold(world))
    world.broker.fault("positions", 429, times=1, retry_after=1)
    run = world.reconcile("--deadline", "20s")
    assert run.code == 0
    assert run.document["closed"] == 1
    assert run.seconds >= 1


def test_a_429_without_retry_after_is_tried_again(world: World) -> None:
    world.ledger(live(world), sold(world))
    world.broker.fault("*", 429, times=1)
    run = world.reconcile("--deadline", "20s")
    assert run.code == 0
    assert run.document["closed"] == 1


@pytest.mark.parametrize("after", [3600, 30])
def test_a_429_that_outlasts_the_deadline_stops_cleanly(world: World, after: int) -> None:
    world.ledger(live(world), sold(world))
    world.broker.fault("positions", 429, retry_after=after)
    with world.untouched():
        run = world.reconcile("--deadline", "4s")
    assert run.code == 3
    assert "429" in run.stderr
    assert run.seconds < 4 + SLACK
    assert world.broker.count("positions") == 1  # told to wait longer than there is, it does not ask again


def test_a_limit_of_200_a_minute_is_kept(world: World) -> None:
    """Few requests are left of the minute: the run slows down and leaves some to the bot."""
    world.broker.quirks.rate_limit = 12
    world.broker.quirks.enforce_rate_limit = True
    world.ledger(live(world), sold(world))
    run = world.reconcile("--deadline", "30s")
    assert run.code == 0
    assert run.document["closed"] == 1
    assert all(request.status != 429 for request in world.broker.requests)


def test_a_429_at_a_look_up_holds_and_the_next_run_goes_on(world: World) -> None:
    world.pin()
    world.ledger(sold(world), long("unknown", "ORCL", alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO))
    world.broker.fault(lambda request: UNKNOWN_ORDER in f"{request.path}{request.query}", 429)
    run = world.reconcile("--deadline", "3s")
    assert (run.code, run.document["partial"]) == (6, True)
    assert run.row("unknown")["action"] == "held"
    assert world.trade("msft")["status"] == "CLOSED"
    world.broker.clear_faults()
    assert world.reconcile().verdicts() == {"unknown": "vanished"}


def test_an_account_that_changes_while_we_look_is_neither_pinned_nor_remembered(world: World) -> None:
    world.broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    sold = world.broker.open_trade("MSFT", 5, 400, at=YESTERDAY)
    world.broker.sell("MSFT", 5, 410, at=YESTERDAY)
    world.ledger(long("sold", "MSFT", alpacaOrderId=sold["id"], quantity=5))
    readings = iter(range(10))

    def change(_: object) -> None:
        if next(readings) == 0:
            world.broker.account["id"] = "00000000-0000-4000-8000-000000000000"

    world.broker.after_request("account", change)
    with world.untouched():
        run = world.reconcile()
    assert (run.code, run.document["error"]) == (5, "account_mismatch")
    assert world.recall("pin") == {}
    assert world.recall("orders") == {}


def test_one_server_by_another_name_has_the_same_pin_and_journal(world: World) -> None:
    other = world.env["REDIS_URL"].replace("127.0.0.1", "localhost")
    assert other != world.env["REDIS_URL"]
    world.ledger(live(world), sold(world))
    assert world.reconcile(REDIS_URL=other).document["closed"] == 1
    assert "exited" in world.run("explain", "msft").stdout
    world.broker.market.new_account()
    with world.untouched():
        assert world.reconcile().document["error"] == "account_mismatch"
