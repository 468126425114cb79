"""A ledger in the app's own names: what stands in its record, what is kept beside it, and when which of them counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ghostclean.adapters.ledgers.mapped import MappedLedger, mapped
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.ports import Change, WriteOutcome
from ghostclean.core.ledger import FACTS, beside, read_mapping
from ghostclean.errors import LedgerFailed

from .conftest import Servers, close_site, open_site
from .kits import FileKit, FreeLease, HashKit, LedgerKit, free

WRITTEN, CHANGED, GONE, EXISTS = WriteOutcome.WRITTEN, WriteOutcome.CHANGED, WriteOutcome.GONE, WriteOutcome.EXISTS
OWN = read_mapping("""
unit = "epoch_s"
[fields]
id = "id"
ticker = "pair"
quantity = { name = "size", signed = true }
status = "state"
closePrice = "exit.price"
closedAt = "exit.at"
[values.status]
OPEN = ["open", "active"]
CLOSED = ["closed"]
[filter]
bot = "mine"
""")
ACTIVE = '{"id":"a","pair":"AAPL","size":-5.0,"state":"active","exit":{"price":null,"note":1e2},"bot":"mine"}'
OTHER = '{"id":"o","pair":"AAPL","size":1,"state":"open","bot":"yours"}'
CLOSE = {
    "status": "CLOSED",
    "closePrice": Decimal("187.40"),
    "closedAt": "2026-01-06T17:00:00.123Z",
    "closeReason": "stop_loss",
    "realizedPnL": None,
}


@pytest.fixture(params=["file", "hash"])
def kit(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[LedgerKit]:
    site = open_site("fake", servers)
    made = FileKit(tmp_path) if request.param == "file" else HashKit(site)
    made.mapping = OWN
    made.seed(ACTIVE, OTHER)
    yield made
    close_site(site)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteState]:
    opened = SqliteState(tmp_path / "state.db", ledger_place="here")
    yield opened
    opened.close()


def ledger(kit: LedgerKit, state: SqliteState) -> MappedLedger:
    opened = kit.open()
    assert isinstance(opened, MappedLedger)
    made = mapped(opened._layout, OWN, lambda: state)
    assert isinstance(made, MappedLedger)
    return made


def closed(kit: LedgerKit, state: SqliteState) -> MappedLedger:
    book = ledger(kit, state)
    (trade,) = book.read().active
    assert book.write([Change("a", trade, CLOSE)], free()) == [WRITTEN]
    return book


def test_a_close_and_its_undo(kit: LedgerKit, state: SqliteState) -> None:
    """Every letter of the app's record comes back, its own word for open included."""
    book = ledger(kit, state)
    view = book.read()
    (trade,) = view.active
    assert trade == {
        "id": "a", "ticker": "AAPL", "quantity": 5.0, "side": "SHORT", "status": "OPEN", "closePrice": None,
    }  # fmt: skip
    assert view.total == 1, "the row of another bot is another ledger's"
    assert book.write([Change("a", trade, CLOSE)], free()) == [WRITTEN]
    assert kit.text("a") == ACTIVE.replace("active", "closed").replace("null", "187.4").replace(
        "1e2}", '1e2,"at":1767718800}'
    )
    assert kit.text("o") == OTHER
    after = book.get(["a", "o"])
    assert after == {"a": {**trade, **CLOSE}}, "what the record does not say is kept beside it"
    assert book.history(frozenset({"AAPL"})) == [after["a"]]
    assert beside(state.recall(FACTS)["a"], after["a"]) == {
        "closeReason": "stop_loss", "realizedPnL": None, "closedAt": CLOSE["closedAt"],
    }  # fmt: skip

    undone = Change("a", after["a"], {"status": "OPEN", "closePrice": None}, ("closedAt", "closeReason", "realizedPnL"))
    assert book.write([undone], free()) == [WRITTEN]
    assert kit.text("a") == ACTIVE
    assert book.get(["a"]) == {"a": trade}


def test_what_the_app_writes_later_counts(kit: LedgerKit, state: SqliteState) -> None:
    book = closed(kit, state)
    kit.app_sets("a", exit={"price": 187.4, "at": 1767718900})
    record = book.get(["a"])["a"]
    assert (record["closedAt"], record["closeReason"]) == (1767718900, "stop_loss")


def test_a_fact_alone_is_written_only_while_the_record_stands(kit: LedgerKit, state: SqliteState) -> None:
    book, text = ledger(kit, state), kit.text("a")
    (trade,) = book.read().active
    assert book.write([Change("a", trade, {"filledQty": 5, "lastPrice": 1})], free()) == [WRITTEN]
    assert kit.text("a") == text
    seen = book.get(["a"])["a"]
    assert seen == {**trade, "filledQty": 5, "lastPrice": 1}
    kit.app_sets("a", size=-6)
    outcome = book.write([Change("a", seen, {"filledQty": 4}), Change("z", seen, {"filledQty": 4})], free())
    assert outcome == [CHANGED, GONE]
    assert book.get(["a"])["a"]["filledQty"] == 5


def test_what_is_kept_is_true_before_and_after_a_kill(kit: LedgerKit, state: SqliteState) -> None:
    """A run that dies between the state and the ledger, or before it says which became of it."""
    book = ledger(kit, state)
    (trade,) = book.read().active
    told: list[Any] = []
    state.remember, remember = (lambda *a: (told.append(a), remember(*a))), state.remember  # type: ignore[method-assign, assignment]
    kept = lambda: FreeLease(spy=lambda: None)  # noqa: E731

    with pytest.raises(KeyboardInterrupt):
        book.write([Change("a", trade, CLOSE)], FreeLease(spy=_dies_at(2)))
    assert len(told) == 1, "the facts are kept first"
    assert book.get(["a"]) == {"a": trade}

    state.remember = lambda *a: (told.append(a), remember(*a), _die_if(len(told) == 3))  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        book.write([Change("a", trade, CLOSE)], kept())
    assert book.get(["a"])["a"] == {**trade, **CLOSE}
    assert book.write([Change("a", trade, CLOSE)], kept()) == [WRITTEN], "the answer of the first was lost"
    assert book.get(["a"])["a"] == {**trade, **CLOSE}


def _dies_at(number: int) -> Any:
    calls = iter(range(1, 100))
    return lambda: _die_if(next(calls) == number)


def _die_if(now: bool) -> None:
    if now:
        raise KeyboardInterrupt


def test_a_refused_write_keeps_nothing(kit: LedgerKit, state: SqliteState) -> None:
    book = ledger(kit, state)
    (trade,) = book.read().active
    lease = FreeLease(spy=lambda: kit.app_sets("a", size=-7))
    assert book.write([Change("a", trade, CLOSE)], lease) == [CHANGED]
    assert state.recall(FACTS) == {}
    assert json.loads(kit.text("a"))["size"] == -7


def test_a_new_trade_belongs_to_the_ledger(kit: LedgerKit, state: SqliteState) -> None:
    book = ledger(kit, state)
    new = {"id": "n", "ticker": "MSFT", "side": "SHORT", "quantity": Decimal(2), "status": "OPEN", "source": "x"}
    assert book.write([Change("n", None, new)], free()) == [WRITTEN]
    assert json.loads(kit.text("n")) == {"id": "n", "pair": "MSFT", "size": -2, "state": "open", "bot": "mine"}
    assert book.get(["n"])["n"] == new
    assert book.write([Change("o", None, {**new, "id": "o"})], free()) == [EXISTS], "a name that another has taken"


@pytest.mark.parametrize("kit", ["hash"], indirect=True)
def test_a_hash_keeps_its_index_and_a_record_without_id(kit: HashKit, state: SqliteState) -> None:
    kit.mapping = replace(OWN, only=())
    kit.site.client.delete(kit.key)
    kit.site.client.hset(kit.key, "n", ACTIVE.replace('"id":"a",', ""))
    kit.site.client.sadd(f"{kit.key}:open", "n")
    book = mapped(kit.open()._layout, kit.mapping, lambda: state)
    (trade,) = book.read().active
    assert trade["id"] == "n"
    assert book.write([Change("n", trade, CLOSE)], free()) == [WRITTEN]
    assert "id" not in json.loads(kit.text("n"))
    assert kit.site.client.smembers(f"{kit.key}:open") == set()
    assert [record["id"] for record in book.history(frozenset({"AAPL"}))] == ["n"]


@pytest.mark.parametrize("kit", ["file"], indirect=True)
def test_a_long_ledger_is_read_by_the_apps_names(kit: LedgerKit, state: SqliteState) -> None:
    """As long as one that is read with only the members that final records are found by."""
    closed = [ACTIVE.replace('"a"', f'"{n}"').replace('"active"', '"Closed"') for n in range(1200)]
    kit.seed(*closed, ACTIVE, OTHER, OTHER.replace('"o"', '"p"').replace("open", "closed"))
    book = ledger(kit, state)
    view = book.read()
    assert ([record["id"] for record in view.active], view.total) == (["a"], 1201)
    assert len(book.history(frozenset({"AAPL"}))) == 1200


def test_a_word_that_is_missing_stops_the_write(kit: LedgerKit, state: SqliteState) -> None:
    book = ledger(kit, state)
    (trade,) = book.read().active
    with pytest.raises(LedgerFailed, match="no word for status PARTIAL; nothing of it was changed"):
        book.write([Change("a", trade, {"status": "PARTIAL"})], free())
    assert book.place.endswith("[bot=mine]")
