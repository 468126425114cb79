"""Stops: the rules at their boundaries, and the three invariants as properties."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ghostclean.core.broker import Side
from ghostclean.core.protection import (
    WORTHWHILE,
    ManagePolicy,
    Risk,
    Rule,
    aim,
    is_cut,
    is_through,
    is_tighter,
    measure_risk,
    on_tick,
    renewed,
    rule_stops,
    stop_limit,
    tick_at,
)

D = Decimal
LONG, SHORT = Side.LONG, Side.SHORT
TRAILING = ManagePolicy(trail_enabled=True)
NOW = datetime(2026, 11, 18, 15, tzinfo=UTC)


def risk(side: Side = LONG, entry: str = "100", stop: str = "95") -> Risk:
    return measure_risk(side, D(entry), D(stop))


# --------------------------------------------------------------------------- 1R


@pytest.mark.parametrize(
    ("side", "entry", "stop", "one_r"),
    [
        (LONG, "100", "95", "5"),
        (SHORT, "100", "105", "5"),
        (LONG, "100", "99.95", "0.05"),  # exactly 0.05 %
        (LONG, "100", "99.951", None),
        (LONG, "100", "100", None),
        (LONG, "100", "105", None),  # the wrong side
        (SHORT, "100", "95", None),
        (LONG, "100", None, None),
    ],
)
def test_one_r(side: Side, entry: str, stop: str | None, one_r: str | None) -> None:
    found = measure_risk(side, D(entry), D(stop) if stop else None)
    assert found.one_r == (D(one_r) if one_r else None)
    assert (found.problem is None) == (one_r is not None)


# --------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("side", "entry", "stop", "price", "rules"),
    [
        (LONG, "100", "95", "104.99", {}),
        (LONG, "100", "95", "105", {Rule.BREAK_EVEN: "100"}),
        (LONG, "100", "95", "109.99", {Rule.BREAK_EVEN: "100"}),
        (LONG, "100", "95", "110", {Rule.BREAK_EVEN: "100", Rule.LOCK: "105"}),
        (LONG, "100", "95", "112.49", {Rule.BREAK_EVEN: "100", Rule.LOCK: "105"}),
        (LONG, "100", "95", "112.5", {Rule.BREAK_EVEN: "100", Rule.LOCK: "105", Rule.TRAIL: "111.9375"}),
        (SHORT, "100", "105", "95.01", {}),
        (SHORT, "100", "105", "95", {Rule.BREAK_EVEN: "100"}),
        (SHORT, "100", "105", "90", {Rule.BREAK_EVEN: "100", Rule.LOCK: "95"}),
        (SHORT, "100", "105", "87.5", {Rule.BREAK_EVEN: "100", Rule.LOCK: "95", Rule.TRAIL: "87.9375"}),
        # a third of a dollar divides into nothing exact: the comparison must still be
        (LONG, "0.9", "0.6", "1.2", {Rule.BREAK_EVEN: "0.9"}),
    ],
)
def test_rules_at_their_boundaries(side: Side, entry: str, stop: str, price: str, rules: dict[Rule, str]) -> None:
    found = rule_stops(risk(side, entry, stop), D(price), TRAILING)
    assert found == {rule: D(value) for rule, value in rules.items()}


def test_no_trail_unless_turned_on() -> None:
    assert Rule.TRAIL not in rule_stops(risk(), D(200), ManagePolicy())


def test_no_rule_without_one_r() -> None:
    assert rule_stops(measure_risk(LONG, D(100), None), D(1000), TRAILING) == {}


# --------------------------------------------------------------------------- ticks


@pytest.mark.parametrize(
    ("side", "price", "increment", "rounded"),
    [
        (LONG, "95.005", None, "95.00"),
        (SHORT, "95.005", None, "95.01"),
        (LONG, "95.01", None, "95.01"),
        (LONG, "1.009", None, "1.00"),
        (LONG, "0.99996", None, "0.9999"),
        (SHORT, "0.99995", None, "1.0000"),
        (LONG, "256.29", None, "256.29"),  # where binary floors lose a cent
        (SHORT, "1024.01", None, "1024.01"),
        (LONG, "64123.77", "0.5", "64123.5"),
        (SHORT, "0.000012345", "0.00000001", "0.00001235"),
    ],
)
def test_rounds_away_from_the_market(side: Side, price: str, increment: str | None, rounded: str) -> None:
    assert on_tick(side, D(price), D(increment) if increment else None) == D(rounded)


def test_the_tick_changes_at_a_dollar() -> None:
    assert (tick_at(D("0.9999")), tick_at(D(1))) == (D("0.0001"), D("0.01"))


# --------------------------------------------------------------------------- aims


@pytest.mark.parametrize(
    ("side", "price", "ledger", "broker", "stop", "rule", "send"),
    [
        (LONG, "101", "95", None, "95", Rule.LEDGER, True),  # a missing stop goes back where it was
        (LONG, "101", "95", "95", "95", Rule.BROKER, False),
        (LONG, "101", "95.004", "95", "95", Rule.BROKER, False),  # un-rounded in the ledger: no change
        (LONG, "101", "96", "95", "96", Rule.LEDGER, True),
        (LONG, "101", "95", "97", "97", Rule.BROKER, False),  # the broker's own is tighter
        (LONG, "105", "95", "95", "100", Rule.BREAK_EVEN, True),
        (LONG, "105", "95", "99.99", "100", Rule.BREAK_EVEN, True),  # a fixed rule cannot creep
        (LONG, "105", "95", "101", "101", Rule.BROKER, False),
        (LONG, "110", "95", "100", "105", Rule.LOCK, True),
        (LONG, "112.5", "95", "105", "111.93", Rule.TRAIL, True),
        (LONG, "112.6", "95", "111.93", "111.93", Rule.BROKER, False),  # 0.10 better is less than 5 % of 1R
        (LONG, "112.75", "95", "111.93", "112.18", Rule.TRAIL, True),  # 0.25 is exactly that
        (SHORT, "95", "105", "105", "100", Rule.BREAK_EVEN, True),
        (SHORT, "87.5", "105", "95", "87.94", Rule.TRAIL, True),
        (SHORT, "99", "104", "105", "104", Rule.LEDGER, True),
    ],
)
def test_the_tightest_wins(
    side: Side, price: str, ledger: str, broker: str | None, stop: str, rule: Rule, send: bool
) -> None:
    start = risk(side, "100", "95" if side is LONG else "105")
    found = aim(start, D(price), TRAILING, ledger_stop=D(ledger), broker_stop=D(broker) if broker else None)
    assert (found.price, found.rule, found.send, found.crossed) == (D(stop), rule, send, None)


def test_a_stop_through_the_market_is_never_aimed_at() -> None:
    found = aim(risk(), D("94.99"), ManagePolicy(), ledger_stop=D(95), broker_stop=None)
    assert (found.price, found.send, found.crossed) == (None, False, D(95))
    at_it = aim(risk(), D(95), ManagePolicy(), ledger_stop=D(95), broker_stop=None)
    assert (at_it.price, at_it.crossed) == (None, D(95))


def test_a_ledger_stop_through_the_market_leaves_the_brokers_alone() -> None:
    found = aim(risk(), D(98), ManagePolicy(), ledger_stop=D(99), broker_stop=D(95))
    assert (found.price, found.send, found.crossed) == (D(95), False, D(99))


def test_renewing_is_one_tick_tighter_and_never_crosses() -> None:
    assert renewed(LONG, D("95.00"), D(100)) == D("95.01")
    assert renewed(SHORT, D("0.5000"), D("0.4")) == D("0.4999")
    assert renewed(LONG, D("95.00"), D("95.01")) is None


def test_a_crypto_stop_limit_has_room_beyond_its_stop() -> None:
    assert stop_limit(LONG, D(60000), D("0.5")) == D(59400)
    assert stop_limit(SHORT, D(60000), D("0.5")) == D(60600)


# --------------------------------------------------------------------------- cut loss


@pytest.mark.parametrize(
    ("sale", "own", "age", "is_sale", "expected"),
    [
        ("95", "95", 59, True, True),  # R = -1 exactly, by both
        ("95.01", "95", 10, True, False),
        ("95", "95.01", 10, True, False),
        ("95", None, 10, True, False),
        ("95", "0", 10, True, False),
        ("90", "90", 60, True, False),  # a sale of a minute ago is no longer a last sale
        ("90", "90", 10, False, False),  # a quote is no sale
    ],
)
def test_cut_loss_needs_two_prices_that_agree(
    sale: str, own: str | None, age: int, is_sale: bool, expected: bool
) -> None:
    found = is_cut(
        risk(),
        ManagePolicy(cut_loss_enabled=True),
        sale=D(sale),
        sale_at=NOW - timedelta(seconds=age),
        is_sale=is_sale,
        own_price=D(own) if own else None,
        now=NOW,
    )
    assert found is expected


def test_cut_loss_is_off_by_default_and_needs_one_r() -> None:
    facts = {"sale": D(1), "sale_at": NOW, "is_sale": True, "own_price": D(1), "now": NOW}
    assert not is_cut(risk(), ManagePolicy(), **facts)
    assert not is_cut(measure_risk(LONG, D(100), None), ManagePolicy(cut_loss_enabled=True), **facts)


# --------------------------------------------------------------------------- properties

PRICES = st.decimals("0.0002", "5000", places=4, allow_nan=False, allow_infinity=False)
WORLDS = st.tuples(
    st.sampled_from([LONG, SHORT]),
    PRICES,
    st.none() | PRICES,
    PRICES,
    st.none() | PRICES,
    st.none() | PRICES,
    st.booleans(),
)


@given(WORLDS)
def test_never_loosens(world: tuple[Side, D, D | None, D, D | None, D | None, bool]) -> None:
    side, entry, initial, price, ledger, broker, trail = world
    assume(broker is not None)
    found = aim(
        measure_risk(side, entry, initial),
        price,
        ManagePolicy(trail_enabled=trail),
        ledger_stop=ledger,
        broker_stop=broker,
    )
    assert broker is not None
    assert found.price is not None
    assert not is_tighter(side, broker, found.price)
    if found.send:
        assert is_tighter(side, found.price, broker)


@given(WORLDS)
def test_never_crosses(world: tuple[Side, D, D | None, D, D | None, D | None, bool]) -> None:
    side, entry, initial, price, ledger, broker, trail = world
    found = aim(
        measure_risk(side, entry, initial),
        price,
        ManagePolicy(trail_enabled=trail),
        ledger_stop=ledger,
        broker_stop=broker,
    )
    if found.send:
        assert found.price is not None
        assert found.price > 0
        assert not is_through(side, found.price, price)


@given(WORLDS)
def test_never_creeps(world: tuple[Side, D, D | None, D, D | None, D | None, bool]) -> None:
    side, entry, initial, price, ledger, broker, _ = world
    start = measure_risk(side, entry, initial)
    found = aim(start, price, TRAILING, ledger_stop=ledger, broker_stop=broker)
    if found.send and found.rule is Rule.TRAIL and broker is not None and start.one_r is not None:
        assert found.price is not None
        assert abs(found.price - broker) >= max(tick_at(found.price), start.one_r * WORTHWHILE)


@given(WORLDS)
def test_what_was_sent_is_not_sent_again(world: tuple[Side, D, D | None, D, D | None, D | None, bool]) -> None:
    side, entry, initial, price, ledger, broker, trail = world
    start, manage = measure_risk(side, entry, initial), ManagePolicy(trail_enabled=trail)
    first = aim(start, price, manage, ledger_stop=ledger, broker_stop=broker)
    if not first.send:
        return
    again = aim(start, price, manage, ledger_stop=ledger, broker_stop=first.price)
    assert not again.send


@given(st.sampled_from([LONG, SHORT]), PRICES)
def test_a_rounded_stop_stays_where_it_is(side: Side, price: D) -> None:
    once = on_tick(side, price)
    assert on_tick(side, once) == once
    assert (once - price) * side.sign <= 0
