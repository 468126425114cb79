"""The race suite: the broker changes between any two requests of a run.

For every request and every change: no false close in that run, the next quiet run converges to
what is true, and the run after it writes nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, Record, World, long

MakeWorld = Callable[..., World]
GHOSTS = frozenset({"stopped", "unknown"})
REQUESTS = 11  # of an undisturbed run; a test below keeps this number true


@dataclass
class Stage:
    """The world of one race, with the orders that a change needs."""

    world: World
    orders: dict[str, Record] = field(default_factory=dict)


def stage(make_world: MakeWorld) -> Stage:
    """Live trades of several kinds, and two ghosts so that look-ups and a second reading happen."""
    world = make_world("file")
    broker = world.broker
    bracket = broker.open_trade("AAPL", 10, 180, at=DAY_AGO, bracket=(200, 175))
    plain = broker.open_trade("MSFT", 10, 400, at=DAY_AGO)
    split = broker.open_trade("KO", 10, 60, at=DAY_AGO)
    working = broker.add_order("NVDA", at=THREE_DAYS_AGO, qty=10, type="limit", limit_price=100, status="new")
    pending = broker.add_order("AMD", at=THREE_DAYS_AGO, qty=10, type="limit", limit_price=100, status="new")
    loose = broker.add_order("NFLX", at=THREE_DAYS_AGO, qty=10, type="limit", limit_price=600, status="new")
    stopped = broker.open_trade("TSLA", 10, 200, at=DAY_AGO, bracket=(220, 190))
    broker.fill(broker.legs(stopped)[1], price="189.90", at=YESTERDAY)
    target, stop = broker.legs(bracket)
    world.ledger(
        long("bracket", "AAPL", alpacaOrderId=bracket["id"], stopOrderId=stop["id"], takeProfitOrderId=target["id"]),
        long("plain", "MSFT", 10, 400, 390, alpacaOrderId=plain["id"]),
        long("split", "KO", 10, 60, 58, alpacaOrderId=split["id"]),
        long("working", "NVDA", 10, 100, 95, alpacaOrderId=working["id"], openedAt=THREE_DAYS_AGO),
        long("pending", "AMD", 10, 100, 95, alpacaOrderId=pending["id"], openedAt=THREE_DAYS_AGO, status="PENDING"),
        long("loose", "NFLX", 10, 600, 590, openedAt=THREE_DAYS_AGO),
        long("stopped", "TSLA", 10, 200, 190, alpacaOrderId=stopped["id"]),
        long("unknown", "ORCL", 10, 120, 115, alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO),
    )
    return Stage(world, {"stop": stop, "target": target, "working": working, "pending": pending, "loose": loose})


# --------------------------------------------------------------------------- changes, and what is true after them


def entry_fills(on: Stage) -> None:
    on.world.broker.fill(on.orders["working"], price=100)


def entry_fills_in_part(on: Stage) -> None:
    on.world.broker.fill(on.orders["working"], 4, 100)


def entry_is_canceled(on: Stage) -> None:
    on.world.broker.cancel(on.orders["working"])


def entry_is_canceled_after_a_part(on: Stage) -> None:
    on.world.broker.fill(on.orders["working"], 4, 100)
    on.world.broker.cancel(on.orders["working"])


def entry_is_replaced(on: Stage) -> None:
    on.world.broker.replace(on.orders["working"], limit_price=99)


def entry_is_replaced_and_fills(on: Stage) -> None:
    on.world.broker.fill(on.world.broker.replace(on.orders["working"], limit_price=99), price=99)


def pending_fills(on: Stage) -> None:
    on.world.broker.fill(on.orders["pending"], price=100)


def entry_that_no_trade_names_fills(on: Stage) -> None:
    on.world.broker.fill(on.orders["loose"], price=600)


def entry_that_no_trade_names_is_canceled(on: Stage) -> None:
    on.world.broker.cancel(on.orders["loose"])


def stop_fills(on: Stage) -> None:
    on.world.broker.fill(on.orders["stop"], price="174.90")


def target_fills(on: Stage) -> None:
    on.world.broker.fill(on.orders["target"], price=200)


def stop_is_replaced(on: Stage) -> None:
    on.world.broker.replace(on.orders["stop"], stop_price=178)


def stop_is_replaced_and_fills(on: Stage) -> None:
    on.world.broker.fill(on.world.broker.replace(on.orders["stop"], stop_price=178), price="177.90")


def position_closes(on: Stage) -> None:
    on.world.broker.sell("MSFT", 10, 410)


def position_shrinks(on: Stage) -> None:
    on.world.broker.sell("MSFT", 4, 410)


def position_is_sold_and_bought_again(on: Stage) -> None:
    on.world.broker.sell("MSFT", 10, 410)
    on.world.broker.open_trade("MSFT", 10, 411)


def split_happens(on: Stage) -> None:
    on.world.broker.split("KO", 2)


def reverse_split_happens(on: Stage) -> None:
    on.world.broker.split("KO", "0.1")


def rename_happens(on: Stage) -> None:
    on.world.broker.rename("KO", "KOX")


def _app_adds(world: World, record: Record) -> None:
    records = json.loads(world.store.raw())
    world.store.write([*records, record])


def new_trade_appears(on: Stage) -> None:
    world = on.world
    entry = world.broker.open_trade("IBM", 10, 250)
    _app_adds(world, long("new", "IBM", 10, 250, 240, alpacaOrderId=entry["id"], openedAt="2026-11-18T15:00:00Z"))


def new_trade_is_accepted(on: Stage) -> None:
    world = on.world
    entry = world.broker.add_order("IBM", qty=10, type="limit", limit_price=250, status="accepted")
    _app_adds(world, long("new", "IBM", 10, 250, 240, alpacaOrderId=entry["id"], openedAt="2026-11-18T15:00:00Z"))


def _app_edits(world: World, trade_id: str, **fields: Any) -> None:
    records = json.loads(world.store.raw())
    world.store.write([r | fields if r["id"] == trade_id else r for r in records])


def app_notes_something(on: Stage) -> None:
    _app_edits(on.world, "bracket", note="by the app")


def app_closes_a_ghost(on: Stage) -> None:
    _app_edits(on.world, "stopped", status="CLOSED", closeReason="the app's own", closePrice=1)


def app_revives_a_ghost_with_a_new_order(on: Stage) -> None:
    entry = on.world.broker.add_order("ORCL", qty=10, type="limit", limit_price=120, status="new")
    _app_edits(on.world, "unknown", status="OPEN", alpacaOrderId=entry["id"], closeReason=None)


# What each change makes true: status, closePrice, and other fields of the trades it touches
TRUE: dict[Callable[[Stage], None], dict[str, Record]] = {
    entry_fills: {"working": {"status": "OPEN", "filledQty": 10}},
    entry_fills_in_part: {"working": {"status": "OPEN"}},
    entry_is_canceled: {"working": {"status": "CLOSED", "closeReason": "never_filled:canceled", "realizedPnL": 0}},
    entry_is_canceled_after_a_part: {"working": {"status": "OPEN", "filledQty": 4}},
    entry_is_replaced: {"working": {"status": "OPEN"}},
    entry_is_replaced_and_fills: {"working": {"status": "OPEN", "filledQty": 10, "avgFillPrice": 99}},
    pending_fills: {"pending": {"status": "OPEN", "filledQty": 10}},
    entry_that_no_trade_names_fills: {"loose": {"status": "OPEN"}},
    entry_that_no_trade_names_is_canceled: {"loose": {"status": "CLOSED", "closePrice": None, "realizedPnL": None}},
    stop_fills: {"bracket": {"status": "CLOSED", "closeReason": "stop_loss", "closePrice": 174.9, "realizedPnL": -51}},
    target_fills: {"bracket": {"status": "CLOSED", "closePrice": 200, "realizedPnL": 200}},
    stop_is_replaced: {"bracket": {"status": "OPEN"}},
    stop_is_replaced_and_fills: {"bracket": {"status": "CLOSED", "closeReason": "stop_loss", "closePrice": 177.9}},
    position_closes: {
        "plain": {"status": "CLOSED", "closeReason": "manual_close", "closePrice": 410, "realizedPnL": 100}
    },
    position_shrinks: {"plain": {"status": "OPEN", "quantity": 6, "initialQuantity": 10, "realizedPnL": 40}},
    position_is_sold_and_bought_again: {},
    split_happens: {"split": {"status": "OPEN", "quantity": 10}},
    reverse_split_happens: {"split": {"status": "OPEN", "quantity": 10}},
    rename_happens: {"split": {"status": "OPEN", "quantity": 10}},
    app_notes_something: {"bracket": {"status": "OPEN", "note": "by the app"}},
    app_closes_a_ghost: {"stopped": {"status": "CLOSED", "closeReason": "the app's own", "closePrice": 1}},
    app_revives_a_ghost_with_a_new_order: {"unknown": {"status": "OPEN"}},
    new_trade_appears: {"new": {"status": "OPEN"}},
    new_trade_is_accepted: {"new": {"status": "OPEN"}},
}
FREE: dict[Callable[[Stage], None], set[str]] = {
    position_is_sold_and_bought_again: {"plain"}
}  # either reading of the fills is true there
CHANGES = list(TRUE)


def says(record: Record, facts: Record) -> bool:
    return all(record.get(name) == value for name, value in facts.items())


def check_run(on: Stage, true: dict[str, Record], free: set[str]) -> None:
    """Nothing is closed but the ghosts and what truly ended, and that with its true facts."""
    for trade_id, record in on.world.store.records().items():
        if record["status"] != "CLOSED" or trade_id in GHOSTS | free:
            continue
        facts = true.get(trade_id, {"status": "OPEN"})
        assert says(record, facts), f"{trade_id} was closed falsely: {record}"


def check_truth(on: Stage, true: dict[str, Record], free: set[str]) -> None:
    """After a quiet run the ledger says what is true."""
    for trade_id, record in on.world.store.records().items():
        if trade_id in free:
            continue
        default = (
            {"status": "CLOSED"} if trade_id in GHOSTS else {"status": "PENDING" if trade_id == "pending" else "OPEN"}
        )
        facts = true.get(trade_id, default)
        assert says(record, facts), f"{trade_id}: {record}, not {facts}"


def _hook(on: Stage, happening: list[Callable[[Stage], None]]) -> Callable[[Any], None]:
    def hook(_: Any) -> None:
        for change in happening:
            change(on)

    return hook


def race(on: Stage, changes: dict[int, list[Callable[[Stage], None]]], true: dict[str, Record], free: set[str]) -> None:
    """One run with changes after some of its requests, a quiet one ten minutes later, and one that must be idle."""
    broker = on.world.broker
    for k, happening in changes.items():
        if k == 0:
            for change in happening:
                change(on)
        else:
            broker.after_request(k, _hook(on, happening))
    result = on.world.inside()
    assert result.error in (None, "broker_truth_failed", "deadline_exceeded"), result
    check_run(on, true, free)
    asked = len(broker.requests)
    for k, happening in changes.items():  # the run was shorter than that
        for change in happening if k > asked else ():
            change(on)
    broker._after.clear()
    broker.advance(minutes=10)
    quiet = on.world.inside()
    assert quiet.exit_code == 0, quiet
    check_truth(on, true, free)
    with on.world.untouched():
        idle = on.world.inside()
    assert idle.exit_code == 0
    assert (idle.closed, idle.synced, idle.failed) == (0, 0, 0)


def test_an_undisturbed_run_asks_as_often_as_the_suite_believes(make_world: MakeWorld) -> None:
    on = stage(make_world)
    assert on.world.inside().exit_code == 0
    assert len(on.world.broker.requests) == REQUESTS
    check_truth(on, {}, set())


@pytest.mark.parametrize("k", range(REQUESTS + 1))
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_one_change_after_one_request(make_world: MakeWorld, change: Callable[[Stage], None], k: int) -> None:
    race(stage(make_world), {k: [change]}, TRUE[change], FREE.get(change, set()))


# Two changes at once, of different trades
PAIRABLE = [change for change in CHANGES if change not in FREE]


@pytest.mark.parametrize("seed", range(60))
def test_two_changes_after_two_requests(make_world: MakeWorld, seed: int) -> None:
    rng = random.Random(seed)
    while True:
        first, second = rng.sample(PAIRABLE, 2)
        if not TRUE[first].keys() & TRUE[second].keys():
            break
    at: dict[int, list[Any]] = {}
    for change in (first, second):
        at.setdefault(rng.randint(1, REQUESTS), []).append(change)
    race(stage(make_world), at, {**TRUE[first], **TRUE[second]}, set())


@pytest.mark.parametrize("k", range(1, REQUESTS + 1))
@pytest.mark.parametrize("pinned", [True, False])
def test_the_account_is_renewed_after_a_request(make_world: MakeWorld, pinned: bool, k: int) -> None:
    """A paper account deleted and made anew in mid-run: what it says then is about another account."""
    on = stage(make_world)
    if pinned:
        records = on.world.store.raw()
        on.world.store.write([])
        on.world.pin()
        (on.world.folder / "trades.json").write_bytes(records)
    on.world.broker.after_request(k, lambda _: on.world.broker.market.new_account())
    result = on.world.inside()
    closed = {i for i, record in on.world.store.records().items() if record["status"] == "CLOSED"}
    assert closed <= GHOSTS
    on.world.broker._after.clear()
    on.world.broker.advance(minutes=10)
    before = on.world.store.raw()
    again = on.world.inside()
    if pinned or result.exit_code == 0:
        assert (again.exit_code, again.error) == (5, "account_mismatch")
    assert on.world.store.raw() == before


# --------------------------------------------------------------------------- adopting


@pytest.mark.parametrize("k", range(1, 8))
def test_the_apps_own_record_appears_while_we_adopt(make_world: MakeWorld, k: int) -> None:
    """The app writes down late what it bought long ago: there must be one record of it in the end, not two."""
    world = make_world("file")
    entry = world.broker.open_trade("TSLA", 15, 200, at=DAY_AGO)
    world.pin()
    world.ledger(long("other", "AAPL", status="CLOSED"))
    own = long("own", "TSLA", 15, 200, 190, alpacaOrderId=entry["id"])
    written: list[int] = []

    def app(_: Any) -> None:
        written.append(k)
        _app_adds(world, own)

    world.broker.after_request(k, app)
    result = world.inside(orphans="adopt")
    assert result.exit_code == 0, result
    if not written:
        assert result.backfilled == 1
        return
    records = [r for r in world.store.records().values() if r["ticker"] == "TSLA" and r["status"] == "OPEN"]
    assert [r["id"] for r in records] == ["own"]
    with world.untouched():
        pass


def test_a_fresh_position_is_not_adopted_within_the_grace(make_world: MakeWorld) -> None:
    """The app may not have written its record yet."""
    world = make_world("file")
    world.pin()
    world.broker.open_trade("TSLA", 15, 200, at="2026-11-18T14:59:40Z")
    with world.untouched():
        result = world.inside(orphans="adopt")
    assert (result.exit_code, result.orphans, result.backfilled) == (0, 1, 0)
    world.broker.advance(minutes=3)
    assert world.inside(orphans="adopt").backfilled == 1
    with world.untouched():
        assert world.inside(orphans="adopt").backfilled == 0
