"""Random lives of one symbol against an exact ledger of lots: every share has one entry, at most one exit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghostclean.core.inputs import Memory
from ghostclean.core.ledger import FINAL
from ghostclean.core.verdicts import Action, Plan, Verdict, decide
from tests.builders import (
    NOW,
    Record,
    after,
    ago,
    entry,
    of,
    order,
    position,
    remembered,
    sale,
    trade,
    uid,
    world,
)
from tests.lots import CENT, ZERO, Lots

CRYPTO_FEE = Decimal("0.0025")


class Broken(AssertionError):
    """An oracle failed; the text is the life that led there."""


class Life:
    """One symbol with some trades; app and hands act, runs decide in between, all by one seed."""

    def __init__(self, seed: int, *, trades: int | None = None, **only: Any) -> None:
        self.dice = random.Random(seed)
        dice = self.dice
        self.sign = dice.choice((1, 1, -1))
        self.count = trades or dice.choice((1, 1, 2, 3))
        self.crypto = only.get("crypto", self.sign > 0 and dice.random() < 0.15)
        if self.crypto:
            self.sign = 1
        self.symbol = "BTC/USD" if self.crypto else "AAPL"
        self.step = dice.choice((Decimal(1), Decimal(1), Decimal("0.125")))
        self.fills_known = dice.random() < 0.5
        self.hand_buys = only.get("hand_buys", dice.random() < 0.15)
        self.initial = dice.choice(("absent", "absent", "first", "entered"))
        self.shares_entry = self.count > 1 and dice.random() < 0.35
        self.at = 10 * 86400.0  # seconds before NOW
        self.records: list[Record] = []
        self.orders: list[Record] = []
        self.fills: list[Record] = []
        self.owners: dict[str, Lots] = {}
        self.hand = ZERO  # bought by a hand for nobody
        self.vague = False  # a sale nobody can tell the owner of
        self.net = ZERO
        self.memory = Memory()
        self.log: list[str] = []
        self.unwritten: dict[str, bool] = {}
        self.n = 0

    # -------------------------------------------------------------- the broker

    def say(self, what: str) -> None:
        self.log.append(f"{self.at:9.0f} {what}")

    def later(self) -> None:
        self.at -= self.dice.choice((30.0, 600.0, 3600.0, 20000.0))
        self.at = max(self.at, 1.0)

    def qty(self, low: int, high: int) -> Decimal:
        return self.dice.randint(low, high) * self.step

    def price(self) -> Decimal:
        return Decimal(self.dice.randint(9000, 11000)) / 100

    def trade_at(self, row: Record, qty: Decimal, price: Decimal) -> None:
        """The order fills (once more) so much at a price."""
        opening = (row["side"] == "buy") == (self.sign > 0)
        before = Decimal(row["filled_qty"] or 0)
        worth = before * Decimal(row["filled_avg_price"] or 0) + qty * price
        row["filled_qty"] = str(before + qty)
        row["filled_avg_price"] = str(worth / (before + qty))
        row["filled_at"] = ago(self.at)
        row["status"] = "filled" if Decimal(row["qty"]) == before + qty else "partially_filled"
        self.n += 1
        self.fills.append(
            {
                "id": f"f{self.n:04d}",
                "activity_type": "FILL",
                "order_id": row["id"],
                "symbol": self.symbol,
                "side": row["side"],
                "qty": str(qty),
                "price": str(price),
                "transaction_time": ago(self.at),
            }
        )
        fee = qty * CRYPTO_FEE if self.crypto and opening else ZERO
        self.net += (qty if opening else -qty) - fee

    def send(self, name: str, opening: bool, qty: Decimal, **fields: Any) -> Record:
        side = "buy" if opening is (self.sign > 0) else "sell"
        row = order(
            name,
            symbol=self.symbol,
            asset_id=f"asset-{self.symbol}",
            asset_class="crypto" if self.crypto else "us_equity",
            side=side,
            qty=str(qty),
            status="new",
            submitted_at=ago(self.at),
            **fields,
        )
        self.orders.append(row)
        return row

    def done(self, name: str, opening: bool, qty: Decimal, price: Decimal, **fields: Any) -> Record:
        row = self.send(name, opening, qty, **fields)
        self.trade_at(row, qty, price)
        return row

    # -------------------------------------------------------------- the events

    def fee(self, qty: Decimal) -> Decimal:
        return qty * CRYPTO_FEE if self.crypto else ZERO

    def open_trades(self) -> None:
        dice = self.dice
        if self.shares_entry:
            parts = [self.qty(1, 9) * 10 for _ in range(self.count)]
            price = self.price()
            row = self.done("E-shared", True, sum(parts, ZERO), price)
            for number, part in enumerate(parts):
                self.record(f"T{number}", row, part, part, price)
            if self.initial == "first" and dice.random() < 0.5:
                for record in self.records:  # copied from the whole
                    record["initialQuantity"] = float(sum(parts, ZERO))
                    record["filledQty"] = float(sum(parts, ZERO))
            return
        for number in range(self.count):
            qty, price = self.qty(1, 9) * 10, self.price()
            name = f"E-T{number}"
            row = self.send(name, True, qty)
            filled = qty
            if dice.random() < 0.15:
                filled = qty / 2
            self.trade_at(row, filled, price)
            if filled < qty:
                row |= {"status": "canceled", "canceled_at": ago(self.at)}
            self.record(f"T{number}", row, qty, filled, price)
            self.later()

    def record(self, trade_id: str, row: Record, size: Decimal, filled: Decimal, price: Decimal) -> None:
        made = trade(
            trade_id,
            ticker=self.symbol,
            side="LONG" if self.sign > 0 else "SHORT",
            quantity=float(size),
            entryPrice=float(price),
            alpacaOrderId=row["id"],
            createdAt=ago(self.at),
        )
        if self.dice.random() < 0.4:
            made |= {"filledQty": float(filled), "avgFillPrice": float(price)}
        if self.initial != "absent":
            made["initialQuantity"] = float(size)
        self.records.append(made)
        owner = self.owners[trade_id] = Lots()
        owner.buy(filled, price, self.fee(filled))
        self.say(f"{trade_id} enters {filled} of {size} @ {price}")

    def open_records(self) -> list[Record]:
        return [r for r in self.records if r["status"] not in FINAL]

    def write_size(self, record: Record) -> None:
        """The app writes what its trade has."""
        owner = self.owners[record["id"]]
        if record["status"] in FINAL or not owner.left:
            return
        # An app counts what it ordered: net of sales, gross of fees.
        record["quantity"] = float(owner.entered - owner.sold)
        if len(owner.lots) > 1 and Decimal(str(record["quantity"])) == owner.lots[0].qty:
            self.vague = True  # by chance the first entry's size: nobody can tell it from an old one
        if self.initial == "entered":
            record["initialQuantity"] = float(owner.entered)
        self.unwritten.pop(record["id"], None)
        self.say(f"app writes {record['id']}.quantity {record['quantity']}")

    def act(self) -> None:
        dice = self.dice
        self.later()
        living = [r for r in self.open_records() if self.owners[r["id"]].left > 0]
        if not living:
            return
        record = dice.choice(living)
        owner = self.owners[record["id"]]
        self.n += 1
        kind = dice.choice(("scale", "scale", "own part", "own all", "sale part", "sale all", "hand buys", "write"))
        if kind == "scale":
            qty, price = self.qty(1, 40), self.price()
            first = dice.random() < 0.5
            owner.buy(qty, price, self.fee(qty))
            self.unwritten[record["id"]] = True
            self.say(f"{record['id']} scales in {qty} @ {price}")
            if first:
                self.write_size(record)
                if dice.random() < 0.3:
                    self.unwritten[record["id"]] = True
                    self.run()  # size written, the purchase does not show yet
            self.done(f"B-{self.n}", True, qty, price)
            if not first:
                if dice.random() < 0.5:
                    self.later()
                    self.run()
                    record = next(r for r in self.records if r["id"] == record["id"])
                self.write_size(record)
        elif kind in ("own part", "own all"):
            qty = owner.left
            if kind == "own part":
                qty = (owner.left / 2 // self.step) * self.step or owner.left
            price = self.price()
            name = f"S-{self.n}"
            field_name = dice.choice(("stopOrderId", "takeProfitOrderId"))
            if record.get(field_name):
                return
            record[field_name] = uid(name)
            asked = owner.left
            row = self.send(name, False, asked, type="stop" if field_name == "stopOrderId" else "limit")
            self.trade_at(row, qty, price)
            if qty < asked and dice.random() < 0.6:
                row |= {"status": "canceled", "canceled_at": ago(self.at)}
            owner.sell(qty, price, self.sign)
            self.say(f"{record['id']} own exit {qty} of {asked} @ {price} ({row['status']})")
            if dice.random() < 0.4 and owner.left:
                self.write_size(record)
        elif kind in ("sale part", "sale all"):
            qty = owner.left
            if kind == "sale part":
                qty = (owner.left / 2 // self.step) * self.step or owner.left
            price = self.price()
            if len(living) > 1 or self.hand:
                self.vague = True
            owner.sell(qty, price, self.sign)
            self.done(f"H-{self.n}", False, qty, price)
            self.say(f"{record['id']} is sold {qty} @ {price} by a hand")
            if dice.random() < 0.3 and owner.left:
                self.write_size(record)
        elif kind == "hand buys" and self.hand_buys:
            qty, price = self.qty(1, 40), self.price()
            self.hand += qty - self.fee(qty)
            self.vague = True
            self.done(f"X-{self.n}", True, qty, price)
            self.say(f"a hand buys {qty} @ {price}")
        elif kind == "write":
            self.write_size(record)

    # -------------------------------------------------------------- a run and its oracles

    def world(self, memory: Memory) -> Any:
        held = []
        if self.net:
            qty = self.net * self.sign
            held = [
                position(
                    self.symbol.replace("/", ""),
                    str(qty),
                    asset_id=f"asset-{self.symbol}",
                    asset_class="crypto" if self.crypto else "us_equity",
                    avg_entry_price="97.31",
                    market_value=str(qty * 100),
                )
            ]
        now = NOW - timedelta(seconds=self.at)
        rows = self.fills if self.fills_known else ()
        return world(self.records, self.orders, held, fills=rows, memory=memory, now=now)

    def run(self) -> Plan:
        plan = decide(self.world(self.memory))
        self.judge(plan)
        now = NOW - timedelta(seconds=self.at)
        memory = remembered(plan, self.memory, now)
        self.records, self.memory = after(self.records, plan), memory
        again = decide(self.world(memory))
        if again.writing:
            self.fail(f"a second run writes again: {_said(again)}")
        return plan

    def fail(self, why: str) -> None:
        raise Broken("\n".join([why, *self.log, repr(self.records)]))

    def judge(self, plan: Plan) -> None:
        for row in _said(plan):
            self.say(f"    {row}")
        for decision in plan.writing:
            trade_id = decision.trade_id or ""
            owner = self.owners[trade_id]
            if decision.unproven and not self.unwritten and not self.vague:
                self.fail(f"{trade_id} vanished, though every order is known")
            if not self.vague and not self.unwritten:
                self.judge_money(trade_id, owner, decision)
            if (
                decision.action is Action.CLOSED
                and not self.vague
                and not self.unwritten
                and owner.left > self.dust(owner)
            ):
                self.fail(f"{trade_id} is closed, {owner.left} of it is held")
            if decision.action is Action.REDUCED and not self.vague and not self.unwritten and len(self.owners) == 1:
                left = Decimal(str(decision.fields.get("quantity", 0)))
                if left and left < owner.left - self.dust(owner):
                    self.fail(f"{trade_id} is reduced to {left}, it holds {owner.left}")
        self.judge_sum(plan)

    def dust(self, owner: Lots) -> Decimal:
        return owner.entered * (Decimal("0.005") if self.crypto else ZERO)

    def judge_sum(self, plan: Plan) -> None:
        """What is left open covers what the broker holds for the trades together."""
        then = [r for r in after(self.records, plan) if r["status"] not in FINAL]
        sizes = sum((Decimal(str(r["quantity"])) for r in then), ZERO)
        before = sum((Decimal(str(r["quantity"])) for r in self.open_records()), ZERO)
        wrote = any(d.action in (Action.CLOSED, Action.REDUCED) for d in plan.writing)
        needed = abs(self.net) - self.hand
        slack = before * Decimal("0.005") if self.crypto else ZERO
        if wrote and not self.unwritten and sizes + slack < min(needed, before):
            self.fail(f"{sizes} left in the ledger, the trades hold {needed}")

    def judge_money(self, trade_id: str, owner: Lots, decision: Any) -> None:
        pnl = decision.fields.get("realizedPnL")
        if pnl is None or decision.action not in (Action.CLOSED, Action.REDUCED):
            return
        true = owner.booked
        if not self.crypto and abs(Decimal(str(pnl)) - true) > CENT:
            self.fail(f"{trade_id}: P&L {pnl} written, {true} is true")

    def play(self) -> None:
        self.open_trades()
        for _ in range(self.dice.randint(2, 7)):
            self.act()
            if self.dice.random() < 0.45:
                self.later()
                self.run()
        self.at = max(1.0, self.at - 4000)
        for _ in range(2):
            self.at = max(1.0, self.at - 900)
            self.run()
        self.judge_end()

    def judge_end(self) -> None:
        if self.vague or self.unwritten:
            return
        for record in self.open_records():
            owner = self.owners[record["id"]]
            if not owner.left:
                self.fail(f"{record['id']} is a ghost and stays open")


def _said(plan: Plan) -> Sequence[tuple[Any, ...]]:
    return [
        (d.trade_id, str(d.verdict), str(d.action), d.reason, {k: str(v) for k, v in d.fields.items() if k in SHOWN})
        for d in plan.decisions
    ]


SHOWN = ("quantity", "realizedPnL", "initialQuantity", "filledQty", "closePrice", "closeOrderId")


# --------------------------------------------------------------------------- the property


def lives(count: int) -> Any:
    return settings(max_examples=count, deadline=None, derandomize=True)


@pytest.mark.parametrize("trades", [1, 2, 3])
@lives(200)
@given(seed=st.integers(0, 2**32))
def test_every_share_of_a_trade_has_one_entry_and_at_most_one_exit(trades: int, seed: int) -> None:
    Life(seed, trades=trades).play()


@pytest.mark.parametrize("only", [{"hand_buys": True}, {"crypto": True}, {"crypto": True, "hand_buys": True}])
@lives(100)
@given(seed=st.integers(0, 2**32))
def test_the_same_of_coins_and_beside_purchases_by_hand(only: dict[str, bool], seed: int) -> None:
    Life(seed, **only).play()


# --------------------------------------------------------------------------- lives that once broke it


def bought(name: str, qty: int, price: float, at: float = 7200.0) -> Record:
    return order(name, qty=str(qty), filled_avg_price=str(price), submitted_at=ago(at))


def sharing(first: int, second: int, **fields: Any) -> list[Record]:
    """T1 and B name one entry order; the fields are T1's."""
    return [trade(quantity=first, **fields), trade("B", quantity=second, alpacaOrderId=uid("E-T1"))]


def pnl(plan: Plan, trade_id: str = "T1") -> float | None:
    found = of(plan, trade_id).fields["realizedPnL"]
    return None if found is None else float(found)


HALF = {"qty": "70", "filled_qty": "35", "status": "canceled", "filled_avg_price": "100"}


def test_a_purchase_that_makes_the_size_is_a_scale_in_of_an_entry_that_filled_in_part_too() -> None:
    orders = [entry(**HALF), bought("B", 18, 102), sale("S", qty=53, price=99)]
    decision = of(decide(world([trade(quantity=53)], orders)))
    assert (decision.verdict, float(decision.fields["realizedPnL"])) == (Verdict.EXITED, -89)


def test_an_exit_of_more_than_the_first_entry_leaves_the_rest_of_the_trade_open() -> None:
    part = sale("S", qty=24, filled_qty="12", price=96, status="partially_filled", type="limit")
    orders = [entry(**HALF | {"qty": "20", "filled_qty": "10"}), bought("B", 14, 92), part]
    record = trade(quantity=24, takeProfitOrderId=uid("S"))
    assert of(decide(world([record], orders, [position(qty=12)]))).verdict is Verdict.LIVE


def test_what_nobody_bought_by_an_order_we_know_is_not_closed_while_it_stands() -> None:
    orders = [entry(), sale("S", qty=14, price=96, type="stop")]
    record = trade(quantity=5, stopOrderId=uid("S"))
    decision = of(decide(world([record], orders, [position(qty=5)])))
    assert (decision.verdict, decision.action) == (Verdict.MISMATCH, Action.HELD)


def test_a_size_net_of_own_exits_and_of_a_purchase_ends_with_all_its_lots() -> None:
    part = sale("S", qty=20, filled_qty="10", price=97, status="canceled", type="stop", at=8000)
    orders = [entry(qty="20", filled_avg_price="100"), part, bought("B", 12, 95), sale("H", qty=22, price=105)]
    decision = of(decide(world([trade(quantity=22, stopOrderId=uid("S"))], orders)))
    assert (decision.verdict, float(decision.fields["realizedPnL"])) == (Verdict.EXITED, 140)


def test_every_exit_of_a_scaled_in_trade_is_booked() -> None:
    """Three exits, of which the first two are more than the first entry brought."""
    exits = [sale("S", qty=8, at=6000), sale("P", qty=7, at=5000, type="limit"), sale("C", qty=5, at=4000)]
    names = {"stopOrderId": uid("S"), "takeProfitOrderId": uid("P"), "closeOrderId": uid("C")}
    record = trade(quantity=20, initialQuantity=20, **names)
    decision = of(decide(world([record], [entry(), bought("B", 10, 180), *exits])))
    assert (decision.verdict, float(decision.fields["realizedPnL"])) == (Verdict.EXITED, 148)


@pytest.mark.parametrize("sizes", [(56, 90), (20, 126)])
def test_a_scale_in_makes_no_duplicate_of_the_trade_that_shares_the_entry(sizes: tuple[int, int]) -> None:
    """E filled 110 for 20 and 90; one of the two was enlarged by 36 since."""
    both = [
        trade("A", quantity=sizes[0], alpacaOrderId=uid("E-T1")),
        trade("B", quantity=sizes[1], alpacaOrderId=uid("E-T1")),
    ]
    orders = [entry(qty="110"), bought("P", 36, 94)]
    plan = decide(world(both, orders, [position(qty=146)]))
    assert {(d.verdict, "quantity" in d.fields) for d in plan.decisions} == {(Verdict.LIVE, False)}


def test_a_part_of_a_shared_entry_that_lost_a_part_is_not_closed() -> None:
    """The app wrote 40 after 40 of its 80 were sold; the other trade has the other 40 of the entry."""
    part = sale("S", qty=80, filled_qty="40", status="canceled", type="stop")
    plan = decide(world(sharing(40, 40, stopOrderId=uid("S")), [entry(qty="120"), part], [position(qty=80)]))
    assert (of(plan, "T1").verdict, of(plan, "B").verdict) == (Verdict.LIVE, Verdict.LIVE)


def test_sizes_that_are_what_the_position_holds_are_never_reduced() -> None:
    """45 of 90 filled, 22 out, 10 bought: the app wrote 33, and beside it stands a trade of 30."""
    part = sale("S", qty=45, filled_qty="22", status="canceled", type="stop", at=9000)
    records = [trade("A", quantity=33, stopOrderId=uid("S")), trade("B", quantity=30)]
    orders = [entry("A", qty="90", filled_qty="45", status="canceled"), entry("B", qty="30"), part]
    plan = decide(world(records, [*orders, bought("P", 10, 181)], [position(qty=63)]))
    assert {d.verdict for d in plan.decisions} == {Verdict.LIVE}


def test_a_part_of_a_shared_entry_beside_a_sale_that_no_record_names_is_not_closed() -> None:
    """A hand sold B's 25; then T1's stop sold 50 of its 100, and the app wrote 50."""
    part = sale("S", qty=100, filled_qty="50", status="canceled", type="stop")
    orders = [entry(qty="125"), sale("H", qty=25, at=7200), part]
    plan = decide(world(sharing(50, 25, stopOrderId=uid("S")), orders, [position(qty=50)]))
    assert not [d for d in plan.writing if d.trade_id == "T1" and d.action is not Action.SYNCED]


def test_an_exit_of_exactly_the_first_entry_does_not_close_what_was_added_since() -> None:
    """25 entered and 12 bought since; the stop took its 25, and the app wrote the 12 that stand."""
    orders = [entry(qty="25"), bought("P", 5, 180), bought("Q", 7, 181), sale("S", qty=25, type="stop")]
    record = trade(quantity=12, stopOrderId=uid("S"))
    unknown = decide(world([record], [orders[0], orders[-1]], [position(qty=12)], complete=False))
    assert not unknown.writing
    assert unknown.questions
    known = of(decide(world([record], orders, [position(qty=12)])))
    assert (known.verdict, "quantity" in known.fields) == (Verdict.LIVE, False)
    others = of(decide(world([record], [orders[0], orders[-1]], [position(qty=12)])))
    assert (others.verdict, others.action) == (Verdict.MISMATCH, Action.HELD)


@pytest.mark.parametrize("size", [10, 12, 4])
def test_its_stop_ends_a_trade_beside_shares_that_stood_before_whatever_its_size_says(size: int) -> None:
    """Nothing was bought since: the five that stand can be nobody's scale-in."""
    orders = [entry(), sale("S", type="stop")]
    decision = of(decide(world([trade(quantity=size, stopOrderId=uid("S"))], orders, [position(qty=5)])))
    assert (decision.verdict, decision.action) == (Verdict.EXITED, Action.CLOSED)


def test_a_size_that_no_purchase_makes_up_takes_nothing_of_what_a_hand_has_bought() -> None:
    """The stop took all ten; the record says twelve, a hand bought five: two of these are not the trade's."""
    orders = [entry(), bought("P", 5, 180), sale("S", type="stop")]
    plan = decide(world([trade(quantity=12, stopOrderId=uid("S"))], orders, [position(qty=5)]))
    assert (of(plan).verdict, of(plan).action, plan.holdings) == (Verdict.MISMATCH, Action.HELD, {})


@pytest.mark.parametrize(("beside", "held"), [([], 4), ([25], 21)])
def test_a_size_net_of_its_exit_beside_a_copy_of_its_record_is_not_closed(beside: list[int], held: int) -> None:
    """Ten entered, five out, and the app wrote five; a copy of the record still says ten, a hand sold some more."""
    records = sharing(5, 10, takeProfitOrderId=uid("P"), openedAt=ago(90000))
    records += [trade(f"N{qty}", quantity=qty) for qty in beside]
    orders = [entry(qty="10"), sale("P", qty=5, type="limit", at=8000), *(entry(f"N{q}", qty=str(q)) for q in beside)]
    plan = decide(world(records, orders, [position(qty=held)]))
    assert not [d for d in plan.writing if d.action is not Action.SYNCED]


def test_a_neighbour_that_was_enlarged_and_sold_makes_no_duplicate_of_the_other() -> None:
    """One entry of 100 for 90 and 10; the 90 became 159 by two purchases, and all of these went out."""
    orders = [entry(qty="100"), bought("P", 32, 97), bought("Q", 37, 108, 5400), sale("S", qty=159, type="stop")]
    both = sharing(159, 10, stopOrderId=uid("S"))
    plan = decide(world(both, orders, [position(qty=10)]))
    assert (of(plan, "T1").verdict, of(plan, "B").verdict) == (Verdict.EXITED, Verdict.LIVE)
    unknown = decide(world(both, [orders[0], orders[-1]], [position(qty=10)], complete=False))
    assert not unknown.writing
    assert unknown.questions


def test_two_trades_that_may_both_have_made_a_purchase_are_not_told_its_cost() -> None:
    """60 and 40 with one entry of 80: one of them bought the other 20, and each sold what it had."""
    orders = [entry(qty="80"), bought("P", 20, 97)]
    both = sharing(60, 40, stopOrderId=uid("S"))
    both[1]["stopOrderId"] = uid("R")
    exits = [sale("S", qty=60, type="stop"), sale("R", qty=40, at=1800, type="stop")]
    plan = decide(world(both, [*orders, *exits]))
    assert [(of(plan, i).verdict, pnl(plan, i)) for i in ("T1", "B")] == [(Verdict.EXITED, None)] * 2


def test_a_size_the_position_covers_is_not_lowered_by_an_older_exit() -> None:
    """40 of 80 went out, then 24 and 40 were bought: the app's 104 are what stands."""
    part = sale("S", qty=80, filled_qty="40", status="canceled", type="stop", at=9000)
    orders = [entry(qty="80"), part, bought("P", 24, 102), bought("Q", 40, 92, 5400)]
    decision = of(decide(world([trade(quantity=104, stopOrderId=uid("S"))], orders, [position(qty=104)])))
    assert (decision.verdict, "quantity" in decision.fields) == (Verdict.LIVE, False)


def test_a_size_is_not_lowered_while_shares_stand_that_may_be_its_scale_in() -> None:
    """25 of A's 50 went out and 25 came in again; a hand sold B's 10, and whose these were is not known."""
    part = sale("S", qty=50, filled_qty="25", status="canceled", type="stop", at=9000)
    records = [trade("A", quantity=50, stopOrderId=uid("S")), trade("B", quantity=10), trade("C", quantity=60)]
    orders = [*(entry(i, qty=q) for i, q in zip("ABC", ("50", "10", "60"), strict=True)), part]
    traded = [bought("P", 25, 90, 5400), sale("H", qty=10)]
    plan = decide(world(records, [*orders, *traded], [position(qty=110)]))
    assert "quantity" not in of(plan, "A").fields
    none_bought = decide(world(records, orders, [position(qty=95)]))
    assert of(none_bought, "A").fields["quantity"] == 25


def test_a_size_that_two_bookings_explain_tells_no_money() -> None:
    """50 less the hand's 33 are 17, and 50 and 17 bought less 33 and 17 are 17 as well."""
    sales = [sale("H", qty=33, price=108, at=6000), sale("R", qty=17, price=98, at=5000), sale("L", qty=17, price=91)]
    decision = of(decide(world([trade(quantity=17)], [entry(qty="50"), bought("P", 17, 100), *sales])))
    assert (decision.verdict, decision.fields["closePrice"], decision.fields["realizedPnL"]) == (
        Verdict.EXITED,
        None,
        None,
    )


def test_each_of_two_scaled_in_trades_pays_for_its_own_purchase() -> None:
    records = [trade("A", quantity=12, stopOrderId=uid("SA")), trade("B", quantity=25, stopOrderId=uid("SB"))]
    orders = [entry("A", filled_avg_price="100"), entry("B", qty="20", filled_avg_price="100"), bought("P", 2, 110)]
    orders += [bought("Q", 5, 90, 6000), sale("SA", qty=12, price=120, type="stop", at=5000)]
    plan = decide(world(records, [*orders, sale("SB", qty=25, price=130, type="stop")]))
    assert (pnl(plan, "A"), pnl(plan, "B")) == (220, 800)


def test_a_scale_in_of_a_half_filled_entry_beside_another_trade_is_part_of_its_cost() -> None:
    records = [trade("A", quantity=45, stopOrderId=uid("S")), trade("B", quantity=30)]
    half = entry("A", qty="50", filled_qty="25", status="canceled", filled_avg_price="100")
    orders = [half, entry("B", qty="30"), bought("P", 20, 110), sale("S", qty=45, price=120, type="stop")]
    plan = decide(world(records, orders, [position(qty=30)]))
    assert (of(plan, "A").verdict, pnl(plan, "A"), of(plan, "B").verdict) == (Verdict.EXITED, 700, Verdict.LIVE)


def test_a_part_is_not_written_as_the_whole_where_the_size_is_by_chance_what_the_entry_asked_for() -> None:
    records = [trade("A", quantity=80, stopOrderId=uid("S")), trade("B", quantity=30)]
    half = entry("A", qty="80", filled_qty="40", status="canceled", filled_avg_price="100")
    orders = [half, entry("B", qty="30"), bought("P", 15, 110), bought("Q", 25, 110, 6000)]
    plan = decide(world(records, [*orders, sale("S", qty=80, price=120, type="stop")], [position(qty=30)]))
    assert (of(plan, "A").verdict, pnl(plan, "A")) == (Verdict.EXITED, 1200)


def test_what_is_left_of_a_shared_entry_with_copied_sizes_is_written_once() -> None:
    copied = {"initialQuantity": 100, "filledQty": 100, "avgFillPrice": 180}
    both = sharing(30, 70, stopOrderId=uid("S"), **copied)
    both[1] |= copied
    orders, left = [entry(qty="100"), sale("S", qty=30, type="stop")], [position(qty=70)]
    first = decide(world(both, orders, left))
    assert (of(first, "T1").verdict, of(first, "B").verdict) == (Verdict.EXITED, Verdict.LIVE)
    assert not decide(world(after(both, first), orders, left, memory=remembered(first, Memory()))).writing


def test_the_purchase_of_a_closed_trade_is_not_held_against_the_sale_of_another() -> None:
    """A was enlarged by 5 and went out with 15; the 10 that a hand sold are B's."""
    over = trade("A", status="CLOSED", quantity=15, filledQty=10, closeOrderId=uid("SA"), closedAt=ago(5000))
    orders = [entry("A"), entry("B"), bought("P", 5, 90), sale("SA", qty=15, at=5000), sale("H", price=190)]
    plan = decide(world([over, trade("B")], orders))
    assert (of(plan, "B").verdict, pnl(plan, "B")) == (Verdict.EXITED, 100)


def test_two_sales_for_two_trades_are_settled_together() -> None:
    """A's own exit a moment ago holds B as well: what is matched together is decided together."""
    records = [trade("A", quantity=70, stopOrderId=uid("S")), trade("B", quantity=50)]
    orders = [entry("A", qty="70"), entry("B", qty="50"), sale("H", qty=60, at=7200), sale("R", qty=42)]
    plan = decide(world(records, [*orders, sale("S", qty=18, at=30.0, type="stop")]))
    assert {d.verdict for d in plan.decisions} == {Verdict.SETTLING}


def test_the_fee_of_coins_that_came_and_went_beside_a_trade_does_not_hide_its_exit() -> None:
    coin = {"symbol": "BTC/USD", "asset_id": "coin", "asset_class": "crypto"}
    record = trade(ticker="BTC/USD", quantity=6.25, stopOrderId=uid("S"))
    traded = [order("P", qty="6.875", submitted_at=ago(7200), **coin), sale("H", qty="6.875", at=6000, **coin)]
    exit_ = sale("S", qty="6.2171875", type="stop", **coin)
    decision = of(decide(world([record], [entry(qty="6.25", **coin), *traded, exit_])))
    assert (decision.verdict, decision.fields["closeOrderId"]) == (Verdict.EXITED, uid("S"))
