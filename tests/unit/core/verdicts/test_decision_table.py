"""README's decision table against the code: every verdict, in order, with the actions it can have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ghostclean.core.verdicts import Action, Verdict, decide
from tests.builders import (
    DAY,
    Record,
    ago,
    closed_unproven,
    entry,
    missed,
    order,
    orphans,
    position,
    sale,
    trade,
    uid,
    world,
)
from tests.program import ROOT

README = ROOT / "README.md"

# What can be done about each verdict; `skipped` (under --no-close) can stand for any close.
ACTIONS: dict[Verdict, set[Action]] = {
    Verdict.UNREADABLE: {Action.HELD},
    Verdict.OTHER_ACCOUNT: {Action.KEPT},
    Verdict.DUPLICATE: {Action.CLOSED},
    Verdict.EXITED: {Action.CLOSED},
    Verdict.LIVE: {Action.SYNCED, Action.KEPT},
    Verdict.REDUCED: {Action.REDUCED},
    Verdict.WORKING: {Action.KEPT, Action.SYNCED, Action.HELD},
    Verdict.SETTLING: {Action.HELD},
    Verdict.NEVER_FILLED: {Action.CLOSED},
    Verdict.AMBIGUOUS: {Action.HELD},
    Verdict.MISMATCH: {Action.HELD},
    Verdict.FILLED_BUT_GONE: {Action.HELD},
    Verdict.VANISHED: {Action.CLOSED},
    Verdict.UNKNOWN: {Action.HELD},
    Verdict.ORPHAN: {Action.KEPT, Action.ADOPTED, Action.FLATTENED},
    Verdict.REOPENED: {Action.REOPENED},
}


def scenes() -> Iterator[tuple[list[Record], list[Record], list[Record], dict[str, Any]]]:
    """A world for every row of the table: records, orders, positions, options."""
    nameless = trade(alpacaOrderId=...)
    held = [position()]
    synced = trade(autoEntryStatus="OPEN", alpacaStatus="filled", brokerStatus="filled", filledQty=10, avgFillPrice=180)
    yield [trade(quantity="x")], [], [], {}
    yield [trade(paper=False)], [], [], {}
    yield [trade(), trade("B", alpacaOrderId=uid("E-T1"), createdAt=ago(60))], [entry()], held, {}
    yield [trade()], [entry(), sale("X")], [], {}
    yield [trade()], [entry()], held, {}
    yield [synced | {"openedAt": ago(DAY)}], [entry()], held, {}
    yield [trade()], [entry(), sale("X", qty=4)], [position(qty=6)], {}
    yield [trade()], [entry(status="new")], [], {}
    yield [trade(status="PENDING")], [entry(status="partially_filled", filled_qty="4")], [], {}
    yield [nameless], [order("F", status="new")], [], {}
    yield [trade(createdAt=ago(5))], [entry()], [], {}
    yield [trade()], [entry(status="expired", expired_at=ago(DAY))], [], {}
    yield [trade(), trade("B")], [entry(), entry("B")], held, {}
    yield [trade()], [entry()], [position(qty=-10)], {}
    yield [trade()], [entry()], [], {}
    yield [trade()], [entry()], [], {"memory": missed()}
    yield [nameless], [], [], {}
    yield [trade()], [], [], {}
    yield [], [], held, {"mode": "report"}
    yield [], [], held, {"mode": "adopt"}
    yield [], [], held, {"mode": "flatten"}
    yield [closed_unproven()], [entry()], held, {"mode": "adopt"}


def reached() -> dict[Verdict, set[Action]]:
    found: dict[Verdict, set[Action]] = {}
    for records, orders, positions, options in scenes():
        mode = options.pop("mode", "report")
        w = world(records, orders, positions, **options)
        for decision in (*decide(w).decisions, *orphans(w, records, mode=mode)):
            found.setdefault(decision.verdict, set()).add(decision.action)
    return found


def table() -> list[tuple[str, str, str]]:
    """The rows of README's decision table."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    found = [row for row in rows if row[0] in set(Verdict)]
    assert found, "README has no decision table that this test can read"
    return found


def test_every_row_of_the_table_is_reached_and_nothing_else_is() -> None:
    assert reached() == ACTIONS


def test_readme_lists_every_verdict_in_the_order_of_precedence() -> None:
    assert [verdict for verdict, _, _ in table()] == [str(v) for v in Verdict]


@pytest.mark.parametrize("verdict", Verdict)
def test_readme_names_the_actions_of_every_verdict(verdict: Verdict) -> None:
    [text] = [action for name, _, action in table() if name == verdict]
    named = {word for word in re.findall(r"`(\w+)`", text) if word in set(Action)}
    assert named == {str(action) for action in ACTIONS[verdict]}
