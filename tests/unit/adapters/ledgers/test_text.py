"""Long texts are skimmed: the same reading as the exact parser's, only sooner."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.adapters.ledgers import text as ledger_text
from ghostclean.adapters.ledgers.text import LedgerText
from ghostclean.app.ports import Change
from ghostclean.core.ledger import COMPACT, BadJson, Layout, dumps

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.lists(st.integers(0, 3), max_size=2),
)
_FIELDS = st.sampled_from(["id", "status", "ticker", "symbol", "note", "ünï", 'qu"ote'])
_STATUS = st.sampled_from(["OPEN", "CLOSED", " closed ", "ERROR"])
_RECORDS = st.builds(
    lambda fields, status: {**fields, "status": status},
    st.dictionaries(_FIELDS, _VALUES, max_size=5),
    _STATUS,
)
_SPACE = st.text(" \t\r\n", max_size=2)


def read(text: str, *, by_heads: bool, monkeypatch: pytest.MonkeyPatch) -> LedgerText:
    monkeypatch.setattr(ledger_text, "_LONG", 0 if by_heads else 1 << 60)
    return LedgerText(text)


def both(text: str) -> tuple[LedgerText, LedgerText]:
    with pytest.MonkeyPatch.context() as patch:
        return read(text, by_heads=True, monkeypatch=patch), read(text, by_heads=False, monkeypatch=patch)


@given(st.lists(_RECORDS, max_size=5), st.lists(_SPACE, min_size=16, max_size=16), st.booleans())
def test_a_long_text_reads_the_same_by_its_heads(records: list[dict[str, Any]], gaps: list[str], ascii: bool) -> None:
    blank = iter(gaps)
    rows = [next(blank) + dumps(record, Layout(ascii=ascii)) + next(blank) for record in records]
    text = f"{next(blank)}[{','.join(rows) or next(blank)}]{next(blank)}"
    quick, exact = both(text)
    assert quick.view() == exact.view()
    assert quick.records() == exact.records()
    ids = [str(record.get("id")) for record in records]
    assert quick.get(ids) == exact.get(ids)
    assert quick.history({"AAPL", ""}) == exact.history({"AAPL", ""})
    changes = [Change(str(r.get("id")), r, {"status": "CLOSED", "note": 1}) for r in quick.view().active]
    assert quick.apply(changes, COMPACT) == exact.apply(changes, COMPACT)


def test_the_heads_are_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the exact parser refuses comes to light when that record is asked for."""
    impossible = '{"id":"a","status":"CLOSED","ticker":"AAPL","n":1' + "0" * 5000 + "}"
    text = f'[{impossible},{{"id":"b","status":"OPEN"}}]'
    quick = read(text, by_heads=True, monkeypatch=monkeypatch)
    assert [record["id"] for record in quick.view().active] == ["b"]
    with pytest.raises(BadJson):
        quick.history({"AAPL"})
    with pytest.raises(BadJson):
        read(text, by_heads=False, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    "text",
    [
        '[{"id":"a"},5]',
        '[{"id":"a","note":"\\ud800"}]',
        '{"trades":[{"id":"a"}]}',
        ' \n[{"id":"a"},null]',
    ],
)
def test_what_the_heads_cannot_tell_the_exact_parser_reads(text: str) -> None:
    quick, exact = both(text)
    assert (quick.view(), quick.records()) == (exact.view(), exact.records())


def test_a_number_that_the_heads_refuse_is_read_all_the_same() -> None:
    for reading in both('[{"id":"a","n":[NaN]},{"id":"b"}]'):
        assert [record["id"] for record in reading.view().active] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    ["[", "[1,]", '[{"id":"a"}', '[{"id":"a"}] x', '[{"id":nan}]', '[{"a":01}]', '[{"a" 1}]', '[{"a":"\n"}]', "[{},]"],
)
def test_damage_is_refused_either_way(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for by_heads in (True, False):
        with pytest.raises(BadJson):
            read(text, by_heads=by_heads, monkeypatch=monkeypatch)
