"""The invariants of `core/verdicts/decide.py`, under the names they have there.

A seeded little broker plays histories of entries, exits, replaced stops and hand trades in one
or two symbols; the oracle is the broker's own book of which trade still holds what.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ghostclean.core.allocation import Execution
from ghostclean.core.broker import FINAL as ENDED
from ghostclean.core.broker import Side
from ghostclean.core.inputs import Memory, World
from ghostclean.core.verdicts import Action, Decision, Plan, Verdict, decide, settle, settle_part
from tests.builders import DAY, NOW, Record, after, ago, missed, order, position, remembered, trade, uid, world

HOUR = 3600.0
SEEDS = st.integers(0, 2**32)
EXAMPLES = settings(max_examples=300, deadline=None, derandomize=True)


@dataclass
class History:
    """What one seed made of ledger and broker, and the truth that only the broker knows.

    `holds` is what each trade really has left; `net` the positions with hand trades included.
    """

    records: list[Record] = field(default_factory=list)
    orders: list[Record] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    holds: dict[str, int] = field(default_factory=dict)
    works: set[str] = field(default_factory=set)
    net: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    memory: Memory = field(default_factory=Memory)

    def world(self, **options: Any) -> World:
        held = [position(s, qty, avg_entry_price="97.31") for s, qty in self.net.items() if qty]
        return world(self.records, self.orders, held, absent=self.absent, memory=self.memory, **options)


class Play:
    """One history: trades of one side a symbol, each with its own fate, in a random order of time."""

    def __init__(self, seed: int, *, by_hand: bool = True) -> None:
        self.dice = random.Random(seed)
        self.by_hand = by_hand
        self.made = History()
        self.time = 5 * DAY
        self.count = 0
        for symbol in ("AAPL", "MSFT")[: self.dice.choice((1, 1, 2))]:
            self.symbol = symbol
            self.sign = self.dice.choice((1, 1, -1))
            for number in range(self.dice.randint(1, 4)):
                self.trade(f"{symbol}-{number}")
        if self.dice.random() < 0.3:
            self.made.memory = missed(self.made.records[0]["id"])

    def later(self) -> float:
        self.time -= self.dice.uniform(60, HOUR * 4)
        self.time = max(self.time, self.dice.choice((1.0, 400.0)))
        return self.time

    def send(self, name: str, opening: bool, qty: int, **fields: Any) -> Record:
        self.count += 1
        side = "buy" if opening is (self.sign > 0) else "sell"
        row = {
            "symbol": self.symbol,
            "asset_id": f"asset-{self.symbol}",
            "side": side,
            "qty": str(qty),
            "filled_avg_price": str(self.dice.randint(90, 110)),
            "submitted_at": ago(self.later()),
        }
        made = order(name, **(row | fields))
        if made["filled_qty"] == "0":
            made["filled_avg_price"] = None
        self.made.orders.append(made)
        filled = int(made["filled_qty"])
        self.made.net[self.symbol] += filled * self.sign * (1 if opening else -1)
        return made

    def trade(self, trade_id: str) -> None:
        dice, made = self.dice, self.made
        qty = dice.randint(1, 9) * 10
        side = "LONG" if self.sign > 0 else "SHORT"
        record = trade(
            trade_id,
            ticker=self.symbol,
            side=side,
            quantity=qty,
            entryPrice=100,
            status=dice.choice(("OPEN", "OPEN", "PARTIAL", "BROKER_PENDING")),
            createdAt=ago(self.time),
            stopPrice=90,
        )
        made.records.append(record)
        made.holds[trade_id] = 0
        fate = dice.choice(("filled", "filled", "filled", "part", "canceled", "working", "unknown", "nameless"))
        name = f"E-{trade_id}"
        if fate == "unknown":
            made.absent.append(uid(name))
            return
        if fate == "working":
            made.works.add(trade_id)
            done = dice.choice((0, qty // 2))
            self.send(name, True, qty, status=dice.choice(("new", "held", "tomorrows")), filled_qty=str(done))
            made.holds[trade_id] = done
            return
        if fate == "canceled":
            self.send(name, True, qty, status="canceled", canceled_at=ago(self.time))
            return
        filled = qty // 2 if fate == "part" else qty
        over = {"status": "canceled", "filled_qty": str(filled)} if fate == "part" else {}
        self.send(name, True, qty, **over)
        if fate == "nameless":
            record["status"] = "OPEN"
            del record["alpacaOrderId"]
        made.holds[trade_id] = filled
        self.leave(trade_id, record, filled)

    def leave(self, trade_id: str, record: Record, qty: int) -> None:
        """How the trade ends, or does not: own orders, or a hand that nobody tells the ledger of."""
        dice = self.dice
        way = dice.choice(("hold", "hold", "stop", "moved stop", "target part", "by hand", "hand buys"))
        if way == "stop":
            record["stopOrderId"] = uid(f"S-{trade_id}")
            self.send(f"S-{trade_id}", False, qty, type="stop", stop_price="90")
            self.made.holds[trade_id] = 0
        elif way == "moved stop":
            record["stopOrderId"] = uid(f"S-{trade_id}")
            link = {"type": "stop", "status": "replaced", "filled_qty": "0"}
            self.send(f"S-{trade_id}", False, qty, replaced_by=uid(f"R-{trade_id}"), **link)
            self.send(f"R-{trade_id}", False, qty, type="stop", replaces=uid(f"S-{trade_id}"))
            self.made.holds[trade_id] = 0
        elif way == "target part":
            record["takeProfitOrderId"] = uid(f"P-{trade_id}")
            self.send(f"P-{trade_id}", False, qty // 2 or 1, type="limit")
            self.made.holds[trade_id] = qty - (qty // 2 or 1)
        elif way == "by hand" and self.by_hand:
            sold = dice.choice((qty, qty // 2 or 1))
            self.send(f"H-{trade_id}", False, sold)
            self.made.holds[trade_id] = qty - sold
        elif way == "hand buys" and self.by_hand:
            self.send(f"B-{trade_id}", True, dice.randint(1, 30))


def played(seed: int, **options: Any) -> History:
    return Play(seed, **options).made


def closes(plan: Plan) -> list[Decision]:
    return [d for d in plan.decisions if d.action is Action.CLOSED]


# --------------------------------------------------------------------------- the invariants


@EXAMPLES
@given(SEEDS)
def test_nothing_the_broker_still_holds_is_ever_closed(seed: int) -> None:
    """The oracle knows what each trade has left where no hand meddles (see the next test for that)."""
    made = played(seed, by_hand=False)
    for decision in closes(decide(made.world())):
        if decision.verdict is not Verdict.DUPLICATE:
            assert made.holds[decision.trade_id or ""] == 0, decision
            assert decision.trade_id not in made.works


@EXAMPLES
@given(SEEDS)
def test_what_stays_open_covers_what_the_broker_holds(seed: int) -> None:
    """Whose shares a hand sold is a matter of proof; but the sum of what is left must be accounted for."""
    made = played(seed)
    plan = decide(made.world())
    gone = {d.trade_id for d in closes(plan)}
    for symbol, net in made.net.items():
        if not net:
            continue
        by_hand = [o for o in made.orders if o["symbol"] == symbol and o["client_order_id"].startswith("client-B-")]
        bought = sum(int(o["filled_qty"]) for o in by_hand)
        still = sum(r["quantity"] for r in made.records if r["ticker"] == symbol and r["id"] not in gone)
        assert still + bought >= abs(net), symbol


@EXAMPLES
@given(SEEDS)
def test_same_input_same_plan(seed: int) -> None:
    assert _said(decide(played(seed).world())) == _said(decide(played(seed).world()))


@EXAMPLES
@given(SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_records_orders_and_fills_changes_nothing(seed: int, dice: random.Random) -> None:
    made = played(seed)
    mixed = replace(made, records=list(made.records), orders=list(made.orders))
    dice.shuffle(mixed.records)
    dice.shuffle(mixed.orders)
    mixed.net = dict(sorted(made.net.items(), reverse=dice.random() < 0.5))
    assert _said(decide(mixed.world())) == _said(decide(made.world()))


def _said(plan: Plan) -> list[Any]:
    rows: list[Any] = [
        (d.trade_id, d.verdict, d.action, d.reason, dict(d.fields), d.facts, d.exit_orders, d.proof)
        for d in plan.decisions
    ]
    return [*rows, plan.questions, plan.suspects, [(o.position.key, o.qty) for o in plan.orphans], plan.writing]


@EXAMPLES
@given(SEEDS)
def test_applying_a_plan_and_deciding_again_changes_nothing(seed: int) -> None:
    made = played(seed)
    plan = decide(made.world())
    next_memory = remembered(plan, made.memory)
    again = decide(replace(made, records=after(made.records, plan), memory=next_memory).world())
    assert not again.writing, [(d.trade_id, d.verdict, dict(d.fields)) for d in again.writing]


@EXAMPLES
@given(SEEDS)
def test_no_fill_is_used_twice(seed: int) -> None:
    made = played(seed)
    filled = {o["id"]: Decimal(o["filled_qty"]) for o in made.orders}
    used: Counter[str] = Counter()
    for decision in decide(made.world()).decisions:
        if not decision.action.writes:
            continue
        for proof in decision.proof:
            if proof.what == "fill":
                used[proof.facts["orderId"]] += Decimal(proof.facts["qty"])  # type: ignore[assignment]
    assert all(filled[i] >= qty for i, qty in used.items())


def _lose_fills(w: World) -> None:
    w.evidence.fills.clear()
    w.evidence.fills_since = None


def _lose_market(w: World) -> None:
    w.evidence.activities_since, w.evidence.clock = None, None


def _lose_order(w: World) -> None:
    """An answer to a look-up that this run did not get; the lists then are not known either."""
    final = sorted(i for i, o in w.evidence.orders.items() if o.status in ENDED)
    if final:
        lost = w.evidence.orders.pop(final[len(final) // 2])
        w.evidence.by_client.pop(lost.client_id, None)
        w.evidence.history.clear()


def _lose_history(w: World) -> None:
    w.evidence.history.clear()


def _lose_404s(w: World) -> None:
    w.evidence.absent.clear()
    w.evidence.absent_clients.clear()


LOSSES = (_lose_fills, _lose_history, _lose_404s, _lose_market, _lose_order)


@EXAMPLES
@given(SEEDS, st.sampled_from(LOSSES))
def test_unknown_is_never_read_as_empty(seed: int, loss: Callable[[World], None]) -> None:
    """Without some evidence nothing more is closed than with all of it, and nothing otherwise."""
    made = played(seed)
    whole = {d.trade_id: d.verdict for d in closes(decide(made.world()))}
    poorer = made.world()
    loss(poorer)
    for decision in closes(decide(poorer)):
        assert whole.get(decision.trade_id) == decision.verdict, decision
    for decision in closes(decide(replace(made.world(), closed={}))):
        assert whole.get(decision.trade_id) == decision.verdict, decision


PRICES = st.decimals(min_value=1, max_value=500, places=2)
PARTS = st.lists(st.tuples(st.integers(1, 50), PRICES), min_size=1, max_size=6)


@EXAMPLES
@given(st.sampled_from(Side), PRICES, PARTS)
def test_the_pnl_of_the_parts_sums_to_the_pnl_of_the_whole(
    side: Side, price: Decimal, parts: list[tuple[int, Decimal]]
) -> None:
    lots = [Execution(f"x{n}", side.closing, Decimal(qty), at, NOW) for n, (qty, at) in enumerate(parts)]
    entries = [Execution("e", side.opening, sum((lot.qty for lot in lots), Decimal(0)), price, NOW)]
    rest: dict[str, Any] = {"units": Decimal(1), "initial_stop": None}
    whole = settle(side, entries, lots, tolerance=Decimal(0), **rest)
    each = [settle_part(side, entries, [lot], **rest).pnl for lot in lots]
    assert whole.pnl == sum((pnl for pnl in each if pnl is not None), Decimal(0))
    assert settle_part(side, entries, lots, **rest).pnl == whole.pnl


@EXAMPLES
@given(SEEDS)
def test_whatever_time_it_is_only_the_grace_holds_back(seed: int) -> None:
    """Far outside every grace no verdict says `settling`, and closes are not taken back."""
    made = played(seed)
    later = NOW + timedelta(hours=2)
    early, late = decide(made.world()), decide(made.world(now=later))
    assert all(d.verdict is not Verdict.SETTLING for d in late.decisions)
    assert {d.trade_id for d in closes(early)} <= {d.trade_id for d in closes(late)}
