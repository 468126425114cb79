"""A mapping: read, written back, and what keeps its file from being believed."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.core.broker import parse_time
from ghostclean.core.ledger import IDENTITY, BadMapping, LedgerMapping, Unspeakable, read_mapping

NAMES = """
[fields]
id = "trade_id"
symbol = "pair"
qty = "size"
side = "direction"
status = "state"
closePrice = "exit.price"
closedAt = "exit.at"
createdAt = "created"
closeReason = "exit.reason"
realizedPnL = "pnl"
[values.status]
OPEN = ["open", "active", "filled"]
PENDING = "new"
CLOSED = ["closed", "done"]
[values.side]
LONG = "buy"
SHORT = ["sell", "short"]
"""
RAW = {
    "trade_id": 7, "pair": "AAPL", "size": "5.0", "direction": "buy", "state": "Active", "created": None,
    "exit": {"price": None, "by": "bot"}, "note": "mine",
}  # fmt: skip


def mapping(extra: str = "", names: str = NAMES) -> LedgerMapping:
    return read_mapping(extra + names)


def applied(said: LedgerMapping, raw: dict[str, Any], fields: dict[str, Any], *remove: str) -> dict[str, Any]:
    written = said.write(raw, fields, remove)
    assert not written.left
    return {name: value for name, value in (raw | written.fields).items() if name not in written.remove}


def test_a_record_is_read_in_the_terms_of_the_contract() -> None:
    said = mapping()
    assert said.read(RAW) == {
        "id": 7, "ticker": "AAPL", "quantity": "5.0", "side": "LONG", "status": "OPEN", "closePrice": None,
        "createdAt": None,
    }  # fmt: skip
    assert (said.id_of(RAW), said.symbol_of(RAW), said.is_final(RAW)) == ("7", "AAPL", False)
    assert said.is_final({"state": "DONE"}), "letter case is ignored"
    assert said.members == {"trade_id", "pair", "state"}
    assert said.spellings("status", {"OPEN", "PENDING"}) == ("open", "active", "filled", "new")


def test_a_close_is_written_at_the_apps_names_and_the_rest_stays() -> None:
    close = {"status": "CLOSED", "closePrice": Decimal("187.4"), "closedAt": "2026-01-06T15:00:00.000Z"}
    assert applied(mapping(), RAW, close) == {
        **RAW,
        "state": "closed",
        "exit": {"price": Decimal("187.4"), "by": "bot", "at": "2026-01-06T15:00:00.000Z"},
    }


def test_a_field_that_was_not_there_is_taken_out_again() -> None:
    said = mapping()
    closed = applied(said, RAW, {"status": "CLOSED", "closedAt": "2026-01-06T15:00:00.000Z", "closeReason": "x"})
    back = said.write(closed, {"status": "OPEN"}, ("closedAt", "closeReason"), was={"status": "Active"})
    assert closed | back.fields == RAW


@pytest.mark.parametrize(("state", "status"), [("open", "OPEN"), ("gone", "unmapped:gone"), (None, None)])
def test_a_word_without_a_row_never_passes_for_one_of_the_contract(state: str | None, status: str | None) -> None:
    assert mapping().read({"state": state})["status"] == status
    assert mapping().read({"direction": "LONG"})["side"] == "unmapped:LONG"


def test_what_has_no_word_is_refused_and_every_end_is_a_close() -> None:
    said = mapping()
    assert said.write(RAW, {"status": "DELETED"}).fields == {"state": "closed"}
    with pytest.raises(Unspeakable, match="no word for status PARTIAL"):
        said.write(RAW, {"status": "PARTIAL"})


def test_other_fields_may_have_words_too() -> None:
    said = mapping(names=NAMES + '[values.closeReason]\nstop_loss = "sl"\n"*" = "other"\n')
    for reason, word in (("stop_loss", "sl"), ("never_filled:canceled", "other")):
        assert said.write({}, {"closeReason": reason}).fields == {"exit": {"reason": word}}
    assert [said.read({"exit": {"reason": word}})["closeReason"] for word in ("sl", "tp")] == ["stop_loss", "tp"]


# --------------------------------------------------------------------------- signs


SIGNED = NAMES.replace('qty = "size"', 'qty = { name = "size", signed = true }\nfilledQty = "filled"')
ONLY_SIGNED = SIGNED.replace('side = "direction"\n', "").partition("[values.side]")[0]


@pytest.mark.parametrize(
    ("size", "direction", "quantity", "side"),
    [
        (-5, None, 5, "SHORT"),
        ("-5.0", None, "5.0", "SHORT"),
        (Decimal("5.10"), None, Decimal("5.10"), "LONG"),
        (0, None, 0, "of no sign"),
        (None, None, None, "of no sign"),
        (-5, "sell", 5, "SHORT"),
        (-5, "buy", 5, "LONG and SHORT"),
        (0, "sell", 0, "SHORT"),
    ],
)
def test_a_signed_size_says_the_side(size: Any, direction: str | None, quantity: Any, side: str) -> None:
    said = mapping(names=ONLY_SIGNED if direction is None else SIGNED)
    read = said.read({"size": size, "direction": direction})
    assert (read["quantity"], str(read["quantity"]), read["side"]) == (quantity, str(quantity), side)


def test_a_signed_size_keeps_its_sign_when_it_is_written() -> None:
    said = mapping(names=ONLY_SIGNED)
    short = {**RAW, "size": -5}
    assert applied(said, short, {"quantity": Decimal(3)})["size"] == -3
    assert applied(said, RAW, {"quantity": Decimal(3)})["size"] == 3
    new = said.insert({"id": "a", "ticker": "B", "side": "SHORT", "quantity": Decimal(2), "status": "OPEN"})
    assert (new.fields["size"], new.left) == (-2, {})
    assert "side" not in said.unplaced


# --------------------------------------------------------------------------- times

NOON = "2026-01-06T17:00:00.123Z"  # in New York 12:00


@pytest.mark.parametrize(
    ("top", "example", "written"),
    [
        ('zone = "America/New_York"', "2026-01-05 10:00:00", "2026-01-06 12:00:00"),
        ('zone = "America/New_York"', "2026-01-05T10:00:00.000001", "2026-01-06T12:00:00.123000"),
        ('zone = "America/New_York"', None, "2026-01-06T12:00:00.123"),
        ('zone = "UTC"', "2026-01-05 10:00:00", "2026-01-06 17:00:00"),
        ('unit = "epoch_s"', 1767607200, 1767718800),
        ('unit = "epoch_s"', Decimal("1767607200.5"), Decimal("1767718800.123")),
        ('unit = "epoch_s"', "1767607200", "1767718800"),
        ('unit = "epoch_ms"', None, 1767718800123),
        ("", "2026-01-05 10:00:00", NOON),
    ],
)
def test_a_time_is_written_as_the_app_writes_its_own(top: str, example: Any, written: Any) -> None:
    said = mapping(top + "\n")
    assert said.write({"created": example}, {"closedAt": NOON}).fields == {"exit": {"at": written}}


def test_a_naive_time_is_of_the_zone() -> None:
    said = mapping('zone = "America/New_York"\n')
    assert parse_time(said.read({"created": "2026-07-06 12:00:00"})["createdAt"]) == datetime(
        2026, 7, 6, 16, tzinfo=UTC
    )
    assert said.read({"created": "2026-07-06T12:00:00Z"})["createdAt"] == "2026-07-06T12:00:00Z"
    own = mapping(names=NAMES.replace('"created"', '{ name = "created", unit = "epoch_ms" }'))
    assert own.read({"created": 1767718800123})["createdAt"] == 1767718800123


@given(
    st.sampled_from(['zone = "America/New_York"', 'zone = "Asia/Kolkata"', 'zone = "UTC"', 'unit = "epoch_ms"', ""]),
    st.integers(1_100_000_000, 4_000_000_000),
    st.sampled_from(["T", " "]),
)
def test_a_time_that_is_read_and_written_back_keeps_every_letter(top: str, seconds: int, sep: str) -> None:
    said = mapping(top + "\n")
    text = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(sep)
    for value in (seconds, str(seconds), *([] if "unit" in top else [text])):
        read = said.read({"created": value})["createdAt"]
        again = said.write({"created": "2026-01-06 12:00:00.123"}, {"createdAt": read}).fields
        assert again == {"created": value}


@given(st.dictionaries(st.sampled_from(["size", "pnl", "state", "note", "exit"]), st.integers() | st.none()))
def test_what_is_written_back_unchanged_changes_nothing(raw: dict[str, Any]) -> None:
    said = mapping(names=ONLY_SIGNED)
    read = said.read(raw)
    fields = {n: v for n, v in read.items() if n not in ("status", "side")}
    if read["side"] in ("LONG", "SHORT") or "quantity" not in fields:
        assert said.write(raw, fields).fields == {}


# --------------------------------------------------------------------------- without a status, rows, extra


NO_STATUS = """
[fields]
ticker = "symbol"
quantity = "qty"
status = { null = "exit_time" }
closedAt = "exit_time"
"""


def test_a_trade_may_be_open_by_a_null_field() -> None:
    said = read_mapping('zone = "UTC"\n' + NO_STATUS)
    assert [said.read(raw)["status"] for raw in ({}, {"exit_time": None}, {"exit_time": ""})] == ["OPEN"] * 3
    assert said.is_final({"exit_time": "2026-01-05 10:00:00"})
    closed = applied(said, {"exit_time": None}, {"status": "CLOSED", "closedAt": NOON})
    assert closed == {"exit_time": "2026-01-06T17:00:00.123"}
    assert applied(said, closed, {"status": "OPEN", "closedAt": None}) == {"exit_time": None}
    assert applied(said, closed, {"status": "OPEN"}) == {"exit_time": None}
    assert applied(said, closed, {"status": "OPEN"}, "closedAt") == {}
    nested = {"exit": {"at": 1}}
    assert applied(mapping(), nested, {}, "closedAt") == {}, "an object that was made for it goes with it"
    with pytest.raises(Unspeakable):
        said.write({"exit_time": None}, {"status": "CLOSED"})


def test_only_the_rows_of_the_filter_are_the_ledger() -> None:
    said = read_mapping('[filter]\naccount = "paper"\n"bot.name" = ["a", "b"]\n')
    mine = {"account": "paper", "bot": {"name": "b"}}
    assert said.belongs(mine)
    assert not said.belongs({**mine, "account": "live"})
    assert not said.belongs({**mine, "bot": None})
    assert said.insert({"id": "x", "account": "other"}).fields == {"account": "paper", "bot": {"name": "a"}, "id": "x"}
    assert said.read({"id": 1, "odd": 2}) == {"id": 1, "odd": 2}, "without names all of them are the contract's"


@pytest.mark.parametrize(
    ("there", "after"),
    [
        (None, {"ghostclean": {"lastPrice": 7}}),
        ({"app": 1}, {"app": 1, "ghostclean": {"lastPrice": 7}}),
        ('{"app":1}', '{"app":1,"ghostclean":{"lastPrice":7}}'),
        ("", '{"ghostclean":{"lastPrice":7}}'),
    ],
)
def test_extra_takes_what_has_no_field(there: Any, after: Any) -> None:
    said = mapping('extra = "meta"\n')
    written = said.write({"meta": there}, {"lastPrice": Decimal(7)})
    assert written == ({"meta": after}, (), {})
    assert said.read({"meta": after})["lastPrice"] == 7
    emptied = said.write({"meta": after}, {}, ("lastPrice",))
    assert emptied == (({}, ("meta",), {}) if there is None else ({"meta": there or "{}"}, (), {}))


@pytest.mark.parametrize("there", ["words", 7, ["a"]])
def test_a_fact_that_extra_cannot_take_is_left(there: Any) -> None:
    said = mapping('extra = "meta"\n')
    assert said.write({"meta": there}, {"lastPrice": 7}) == ({}, (), {"lastPrice": 7})
    assert mapping().write({"exit": "text"}, {"closePrice": 7}).left == {"closePrice": 7}


def test_nested_lists_are_read_and_written_by_position() -> None:
    said = mapping(names=NAMES + "\n".join(["", ""])).within(())
    own = read_mapping('[fields]\nticker = "t"\nstatus = "s"\nalpacaOrderId = "orders.0.id"\n')
    raw = {"orders": [{"id": "e", "n": 1}, {"id": "x"}]}
    assert own.read(raw)["alpacaOrderId"] == "e"
    assert applied(own, raw, {"alpacaOrderId": "f"}) == {"orders": [{"id": "f", "n": 1}, {"id": "x"}]}
    assert "alpacaOrderId" not in own.read({"orders": []})
    assert said.fields, "names that are given stand, whatever members there are"


def test_whose_account_a_record_is_of_is_read_and_written_where_it_stands() -> None:
    assert mapping().read({"paper": True, "account": "x", "note": 1}) == {"paper": True, "account": "x"}
    assert mapping().insert({"paper": True}) == ({"paper": True}, (), {})
    taken = mapping(names=NAMES.replace('"pair"', '"account"'))
    assert taken.read({"account": "AAPL"}) == {"ticker": "AAPL"}
    assert taken.insert({"account": "x"}).left == {"account": "x"}


def test_the_identity_changes_nothing() -> None:
    raw = {"id": 1, "symbol": "A", "size": 3, "odd": {"x": None}}
    assert IDENTITY.read(raw) == raw
    assert IDENTITY.write(raw, {"anything": 1, "symbol": "B"}).fields == {"anything": 1, "symbol": "B"}
    assert IDENTITY.unplaced == ()
    assert IDENTITY.is_identity
    assert not mapping().is_identity


def test_a_table_has_a_place_for_the_columns_that_it_has() -> None:
    said = IDENTITY.within({"id", "symbol", "qty", "status", "closedAt"})
    raw = {"id": 1, "symbol": "A", "qty": 3, "status": "OPEN", "odd": 1}
    assert said.read(raw) == {"id": 1, "ticker": "A", "quantity": 3, "status": "OPEN"}
    written = said.write(raw, {"quantity": 2, "closeReason": "x"})
    assert written == ({"qty": 2}, (), {"closeReason": "x"})
    assert "closeReason" in said.unplaced
    assert "closedAt" not in said.unplaced


# --------------------------------------------------------------------------- errors


GOOD = '[fields]\nticker = "symbol"\nstatus = "state"\n'  # three lines
WRONG = [
    ("fields = 1", "line 1: fields must be a table"),
    ("[fields\n", "it is no TOML"),
    ("# one\nmoney = 1\n", "line 2: money is not known here"),
    (GOOD + 'prise = "p"', "line 4: prise is no field of a trade"),
    (GOOD + 'symbol = "p"', "line 4: ticker and symbol are one field"),
    (GOOD + 'qty = "a"\nsize = "b"', "line 5: qty and size are one field"),
    (GOOD + 'closePrice = "symbol"', "line 4: symbol is both ticker and closePrice"),
    (GOOD + 'closePrice = "state.x"', "line 4: state.x is both status and closePrice"),
    ('extra = "symbol"\n' + GOOD, "line 3: symbol is both extra and ticker"),
    (GOOD + "closePrice = 5", "line 4: closePrice must be a name of the app's"),
    (GOOD + 'closePrice = "a..b"', "line 4: closePrice must be a name of the app's"),
    (GOOD + "closePrice = { unit = 'epoch_s' }", "line 4: closePrice needs a name"),
    (GOOD + "closePrice = { name = 'x', unit = 'epoch_s' }", "line 4: unit and zone are for times"),
    (GOOD + "closedAt = { name = 'x', unit = 'days' }", "line 4: unit must be one of epoch_s, epoch_ms"),
    (GOOD + "closedAt = { name = 'x', zone = 'Mars/One' }", "line 4: 'Mars/One' is no time zone"),
    (GOOD + "closedAt = { name = 'x', unit = 'epoch_s', zone = 'UTC' }", "line 4: an epoch has no zone"),
    ("unit = 'epoch_s'\nzone = 'UTC'\n" + GOOD + "closedAt = 'x'", "line 2: an epoch has no zone"),
    ("zone = 'Mars/One'\n" + GOOD + "closedAt = 'x'", "line 1: 'Mars/One' is no time zone"),
    (GOOD + "closePrice = { name = 'x', signed = true }", "line 4: signed = true is for sizes"),
    (GOOD + "closePrice = { name = 'x', sined = true }", "line 4: sined is not known here"),
    (GOOD + "closedAt = { null = 'x' }", "line 4: null is for the status"),
    ("[fields]\nticker = 's'\nstatus = { null = 'x' }", "line 3: x must be closedAt or closeReason too"),
    ("[fields]\nstatus = 's'", "line 1: ticker is missing"),
    ("[fields]\nticker = 's'", "line 1: status is missing"),
    (GOOD + "[values.status]\nOPEN = ['a']", "line 4: status has no word for CLOSED"),
    (GOOD + "[values.status]\nOPEN = ['a']\nCLOSED = [\n  'b',\n  'A',\n]", "line 6: 'A' means both OPEN and CLOSED"),
    (GOOD + "[values.status]\nRUNNING = ['a']", "line 5: RUNNING is no status of a trade"),
    (GOOD + "[values.status]\nOPEN = [['a']]", "line 5: a word is a text, a number or true/false"),
    (GOOD + "[values.side]\nLONG = 'a'\nSHORT = 'b'", "line 4: side has words and no name under"),
    (GOOD + "closePrice = 'x'\n[values.closePrice]\nx = 1", "line 5: closePrice takes no words"),
    (GOOD + "values.status = 'open'", "line 4: values is no field of a trade"),
    ("values.status = 'open'\n" + GOOD, "line 1: status must be a table of words"),
    (GOOD + "[filter]\nstate = 'open'", "line 5: state is status, which runs change"),
    ("[filter]\nstatus = 'open'", "line 2: status is status, which runs change"),
    (GOOD + "[filter]\naccount = []", "line 5: account lets no record through"),
    (GOOD + "[filter]\nday = 2026-01-05", "line 5: a word is a text"),
]


@pytest.mark.parametrize(("text", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_is_wrong_is_said_with_its_line(text: str, why: str) -> None:
    with pytest.raises(BadMapping) as caught:
        read_mapping(text)
    assert str(caught.value).startswith(why), str(caught.value)
