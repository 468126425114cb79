"""From the records of bots to the mapping that reads them, and where a line is not sure or there is none."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.core.ledger import IDENTITY, is_open, is_pending, read_mapping, read_trade
from ghostclean.core.proposal import NoLedger, Proposal, is_native, mapping_text, propose
from tests.schemas import (
    AAPL,
    FLAGS,
    NESTED,
    NO_STATUS,
    ORDERS,
    ORM,
    OWN_NAMES,
    PAPER_TRADES,
    SCHEMAS,
    SIGNED,
    TERSE,
    Schema,
)

READABLE = [schema for schema in SCHEMAS if not schema.refused]


def as_read(schema: Schema, proposal: Proposal) -> dict[str | None, Any]:
    """The trades that are not over, as the file reads them that would be written."""
    mapping = IDENTITY if is_native(proposal) else read_mapping(mapping_text(proposal, schema.name))
    records = [mapping.read(record) for record in schema.records]
    return {t.id: t for t in (read_trade(r) for r in records if is_open(r) or is_pending(r))}


@pytest.mark.parametrize("schema", READABLE, ids=str)
def test_the_proposed_mapping_reads_each_schema_right(schema: Schema) -> None:
    proposal = propose(schema.records)
    trades = as_read(schema, proposal)
    assert trades.keys() == schema.trades.keys()
    for trade_id, wanted in schema.trades.items():
        assert trades[trade_id].problem is None
        for name, value in wanted.items():
            got = getattr(trades[trade_id], name)
            if isinstance(got, Decimal):
                value = Decimal(value)
            assert got == (datetime.fromisoformat(value) if isinstance(got, datetime) else value), name
    assert is_native(proposal) is schema.native


@pytest.mark.parametrize("schema", READABLE, ids=str)
def test_no_column_stands_for_two_fields(schema: Schema) -> None:
    names = [line.name for line in propose(schema.records).lines if line.form != "null"]
    assert len(names) == len(set(names))


def test_one_record_an_order_is_refused_with_the_reason() -> None:
    with pytest.raises(NoLedger, match=r"one record an order: it has notional, order_type.*one record a trade"):
        propose(ORDERS.records)


def test_a_list_of_orders_is_known_by_the_words_of_its_status() -> None:
    order = {"id": 1, "symbol": "AAPL", "side": "buy", "qty": 10, "price": 180, "status": "filled",
             "alpaca_order_id": AAPL, "timestamp": "2026-11-17T15:00:00Z"}  # fmt: skip
    others = [{**order, "id": 2, "side": "sell", "status": "pending"}, {**order, "id": 3, "status": "rejected"}]
    with pytest.raises(NoLedger, match="one record an order: its status says filled, pending, rejected"):
        propose([order, *others])
    with pytest.raises(NoLedger, match="one record an order"):
        propose([order])
    assert not propose([{**order, "status": "open"}]).doubtful
    doubtful = propose([{**order, "pnl": 3}]).doubtful
    assert [line.field for line in doubtful] == ["status"]
    assert "filled is read as open; if it is the end of an order" in doubtful[0].why


def test_a_record_in_error_is_not_over() -> None:
    records = [*PAPER_TRADES.records, {**PAPER_TRADES.records[0], "id": 9, "status": "error"}]
    mapping = read_mapping(mapping_text(propose(records), ""))
    assert mapping.read(records[-1])["status"] == "ERROR"
    assert not mapping.is_final(records[-1])


def without(schema: Schema, *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in names} for record in schema.records]


def renamed(schema: Schema, **names: str) -> list[dict[str, Any]]:
    return [{names.get(name, name): value for name, value in record.items()} for record in schema.records]


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "no record to learn from"),
        (without(PAPER_TRADES, "id"), "none of its columns is called like an id"),
        ([{**r, "id": 7} for r in PAPER_TRADES.records], "none of its columns is called like an id"),
        (without(PAPER_TRADES, "symbol"), "none of its columns is called like a symbol"),
        (without(NO_STATUS, "exit_time"), "nothing in it says which trades are open"),
        ([{**r, "exit_time": r["exit_time"] and "2026-11-16"} for r in NO_STATUS.records], "holds days without a time"),
        (without(NO_STATUS, "qty"), "says how large a trade is"),
        ([{**r, "status": "whatever"} for r in PAPER_TRADES.records], "no value of status says that a trade is open"),
    ],
)  # fmt: skip
def test_what_lacks_something_that_decides_is_refused_with_the_reason(records: list[Any], why: str) -> None:
    with pytest.raises(NoLedger, match=why):
        propose(records)


@pytest.mark.parametrize(
    ("records", "field", "why", "decides"),
    [
        (PAPER_TRADES.records, "openedAt", "without a zone: taken as UTC", False),
        ([{**r, "qty": 1} for r in PAPER_TRADES.records], "quantity", "shares may be it as well", True),
        ([{**r, "status": "open"} for r in PAPER_TRADES.records], "status", "1 of 3 records that say open have ended",
         True),
        ([r for r in PAPER_TRADES.records if r["id"] != 2], "status", "closed is what a close would write",
         False),
        ([*PAPER_TRADES.records, {**PAPER_TRADES.records[0], "id": 9, "status": "x"}], "status", "x is no word known",
         False),
        ([{**r, "status": "open" if r["id"] == 1 else "filled"} for r in PAPER_TRADES.records], "status",
         "both open and filled may be open", True),
        (without(ORM, "stop_loss"), "side", "SELL is read as a short", True),
        ([{**r, "side": "buy"} for r in SIGNED.records], "side", "the sign of qty says which way it goes as well",
         True),
        (renamed(PAPER_TRADES, id="ref"), "id", "the name may mean something else", True),
        (renamed(PAPER_TRADES, entry_price="price"), "entryPrice", "the name may mean something else", False),
        ([{**r, "order_id": f"order-{r['id']}", "oid": 1} for r in without(PAPER_TRADES, "alpaca_order_id")],
         None, "", False),
    ],
)  # fmt: skip
def test_a_line_says_why_it_is_not_sure_and_whether_it_would_decide(
    records: list[Any], field: str | None, why: str, decides: bool
) -> None:
    proposal = propose(records)
    unsure = {line.field: line for line in proposal.lines if not line.is_sure}
    assert unsure.keys() - {"openedAt", "closedAt"} == {field} - {None, "openedAt"}
    if field is not None:
        assert why in unsure[field].why
        assert (unsure[field] in proposal.doubtful) is decides


def test_a_stop_above_the_entry_proves_that_a_sale_opens_a_short() -> None:
    line = propose(ORM.records).line("side")
    assert line is not None
    assert line.is_sure
    assert "of 1 such the stop is above the entry" in line.why


def test_numbers_that_are_no_prices_or_amounts_are_left_alone_and_said() -> None:
    proposal = propose(TERSE.records)
    assert proposal.line("realizedPnL") is None
    assert [note.split()[0] for note in proposal.notes] == ["stop_loss", "pnl"]
    pnl = propose(PAPER_TRADES.records).line("realizedPnL")
    assert pnl is not None
    assert "that of prices and size in 1 of 1 closed records" in pnl.why


@pytest.mark.parametrize("schema", [PAPER_TRADES, SIGNED, NO_STATUS], ids=str)
def test_a_time_that_no_record_has_yet_is_spelled_as_the_others(schema: Schema) -> None:
    fresh = [{**record, "updated_at": None} for record in schema.records]
    line, other = propose(fresh).line("updatedAt"), propose(fresh).line("openedAt")
    assert line is not None
    assert other is not None
    assert (line.form, line.trust) == (other.form, other.trust)


def test_a_column_that_may_tell_accounts_apart_is_said() -> None:
    records = [{**record, "strategy": f"s{record['id'] % 2}"} for record in PAPER_TRADES.records]
    assert propose(records).notes == (
        "strategy has 2 values (s1, s0): if they are not all of this account, filter by it",
    )  # fmt: skip
    modes = [{**record, "mode": "paper" if record["id"] == 1 else "live"} for record in PAPER_TRADES.records]
    line = propose(modes).line("accountMode")
    assert line is not None
    assert line.name == "mode"


def test_what_is_an_object_in_one_record_is_no_column_in_another() -> None:
    bought, pending = NESTED.records[0], {**NESTED.records[0], "id": "n9", "entry": None, "exit": 7}
    proposal = propose([*NESTED.records, pending])
    mapping = read_mapping(mapping_text(proposal, ""))
    assert mapping.read(bought)["closePrice"] is None
    assert mapping.read(pending)["id"] == "n9"


def test_the_owners_word_counts_before_any_guess() -> None:
    records = [{**r, "qty": 99} for r in PAPER_TRADES.records]
    proposal = propose(records, {"quantity": "shares", "takeProfitPrice": "", "realizedPnL": "pnl"})
    assert [line.name for line in proposal.lines if line.field == "quantity"] == ["shares"]
    assert proposal.line("takeProfitPrice") is None
    doubted = propose([{**r, "status": "open"} for r in PAPER_TRADES.records], {"status": "status"})
    assert not doubted.doubtful
    with pytest.raises(NoLedger, match="it has no volume, which was to be its quantity; it has id, symbol"):
        propose(PAPER_TRADES.records, {"quantity": "volume"})


def test_the_owner_says_what_the_words_of_his_app_mean() -> None:
    words = {"open": "offen", "closed": "zu", "BUY": "kauf", "SHORT": "verkauf"}
    records = [
        {**record, **{name: words[record[name]] for name in ("status", "direction")}} for record in PAPER_TRADES.records
    ]
    with pytest.raises(NoLedger, match=r"no value of status says that a trade is open \(offen, zu\); say which"):
        propose(records)
    status = {"status.OPEN": "offen", "status.CLOSED": "zu, fertig"}
    assert propose(records, status).line("side") is None
    with pytest.raises(NoLedger, match=r"the values of direction do not say long or short; say which: side\.LONG"):
        propose(records, {**status, "side": "direction"})
    proposal = propose(records, {**status, "side.LONG": "kauf", "side.SHORT": "verkauf"})
    assert not proposal.doubtful
    mapping = read_mapping(mapping_text(proposal, ""))
    assert [(r["status"], r["side"]) for r in map(mapping.read, records)] == [
        ("OPEN", "LONG"), ("CLOSED", "LONG"), ("OPEN", "SHORT"),
    ]  # fmt: skip


def test_what_is_not_sure_says_so_in_the_file() -> None:
    text = mapping_text(propose(FLAGS.records), "bot.db")
    assert 'openedAt = { name = "open_date", zone = "UTC" }  # likely: called so; 2 values' in text
    assert " # " not in mapping_text(propose(SIGNED.records), "x")
    assert is_native(propose(OWN_NAMES.records))


@pytest.mark.parametrize("word", ['say "hi"', "back\\slash", "line\nbreak", "del\x7f", "Überschrift"])
def test_any_word_of_the_app_survives_the_file(word: str) -> None:
    records = [{**r, "status": word if r["status"] == "closed" else "open"} for r in PAPER_TRADES.records]
    proposal = propose(records).changed("status", words=(("OPEN", ("open",)), ("CLOSED", (word,))))
    mapping = read_mapping(mapping_text(proposal, "a\nb"))
    assert mapping.read(records[1])["status"] == "CLOSED"
    assert mapping.read({"alpaca_order_id": AAPL})["alpacaOrderId"] == AAPL


_NAMES = st.sampled_from([
    "id", "trade_id", "symbol", "pair", "status", "state", "is_open", "closed", "side", "action", "is_short", "qty",
    "shares", "entry", "entry_price", "price", "stop", "sl", "exit_time", "closed_at", "exit", "exit_reason", "pnl",
    "order_id", "alpaca_order_id", "opened_at", "ts", "mode", "account", "paper", "Ünïcode", "a.b", "", " x",
    "new\nline",
])  # fmt: skip
_WORDS = st.sampled_from(
    ["open", "closed", "filled", "BUY", "sell", "long", "short", "AAPL", "BTC/USD", "x\ny", '"', ""]
)
_CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.decimals(-1000, 1000, places=2), _WORDS,
    st.sampled_from(["2026-11-17", "2026-11-17 15:00:00", "2026-11-17T15:00:00Z", "1e400", "NaN", AAPL]),
    st.sampled_from([1_795_186_800, 1_795_186_800_000, 10**400, Decimal("Infinity")]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["price", "order_id", "id"]), _WORDS, max_size=2),
)  # fmt: skip
_RECORD = st.dictionaries(_NAMES, _CELLS, max_size=12)
_LIKELY = st.builds(
    lambda record, number, status: {**record, "id": number, "symbol": "AAPL", "status": status, "qty": 1},
    _RECORD, st.integers(), st.sampled_from(["open", "closed"]),
)  # fmt: skip


@given(st.one_of(st.lists(_RECORD, max_size=4), st.lists(_LIKELY, min_size=1, max_size=4)))
def test_whatever_the_records_are_there_is_a_mapping_that_can_be_read_or_none(records: list[Any]) -> None:
    try:
        proposal = propose(records)
    except NoLedger:
        return
    mapping = read_mapping(mapping_text(proposal, "x"))
    for record in records:
        read_trade(mapping.read(record))
