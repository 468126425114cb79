"""JSON text is edited without disturbing a byte that is not ours."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghostclean.core.ledger import (
    COMPACT,
    PRETTY,
    BadJson,
    Layout,
    append,
    dumps,
    edit_record,
    elements,
    find_array,
    loads,
    same_json,
    splice,
)

# ------------------------------------------------------------------ strategies: JSON with odd spelling

_space = st.text(" \t\r\n", max_size=3)
_number = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["-0", "-0.0", "1e-9", "100.0", "1E+2", "0.10", "12345678901234567890.123456789", "2e5", "0e0"]),
)
_string = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).flatmap(
    lambda s: st.sampled_from([json.dumps(s), json.dumps(s, ensure_ascii=False)])
)
_odd_string = st.sampled_from(
    ['"\\/"', '"\\u00e9"', '"\\ud83d\\ude80"', '"\\ud800"', '"\\u0041"', '"a\\"b\\\\"', '"]}"']
)
_leaf = st.one_of(st.sampled_from(["null", "true", "false"]), _number, _string, _odd_string)


def _array(items: list[str], spaces: list[str]) -> str:
    return "[" + _joined(items, spaces) + "]"


def _joined(items: list[str], spaces: list[str]) -> str:
    padded = [spaces[2 * i % len(spaces)] + item + spaces[(2 * i + 1) % len(spaces)] for i, item in enumerate(items)]
    return ",".join(padded) if items else spaces[0]


_spaces = st.lists(_space, min_size=1, max_size=4)


def _objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(st.one_of(_string, st.sampled_from(['"a"', '"b"', '"\\u0061"', '"id"'])), _space, _space, values)
    members = st.lists(member.map(lambda m: f"{m[0]}{m[1]}:{m[2]}{m[3]}"), max_size=5)
    return st.builds(lambda items, spaces: "{" + _joined(items, spaces) + "}", members, _spaces)


_value = st.recursive(
    _leaf,
    lambda inner: st.one_of(st.builds(_array, st.lists(inner, max_size=3), _spaces), _objects(inner)),
    max_leaves=6,
)
_record = _objects(_value)
_plain_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.decimals(allow_nan=False, allow_infinity=False, places=4),
        st.text(max_size=6),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


# ------------------------------------------------------------------ properties


@given(st.lists(st.one_of(_record, _leaf), max_size=5), _spaces, _space)
def test_spans_cut_an_array_exactly(items: list[str], spaces: list[str], around: str) -> None:
    text = around + _array(items, spaces) + around
    found = list(elements(text, find_array(text)))
    assert [text[start:end] for start, end, _ in found] == items
    assert all(same_json(value, loads(item)) for (_, _, value), item in zip(found, items, strict=True))


@given(_record, st.dictionaries(st.one_of(st.sampled_from("ab"), st.text(max_size=4)), _plain_values, max_size=4))
def test_an_edit_sets_its_fields_and_nothing_else(record: str, fields: dict[str, Any]) -> None:
    after = edit_record(record, fields)
    assert same_json(loads(after), {**loads(record), **fields})


@given(_record, st.lists(st.sampled_from(["a", "b", "id"]), max_size=3, unique=True))
def test_removing_takes_out_the_key_whole(record: str, names: list[str]) -> None:
    before = loads(record)
    assert same_json(loads(edit_record(record, {}, names)), {k: v for k, v in before.items() if k not in names})


@given(_record)
def test_an_edit_of_nothing_is_nothing(record: str) -> None:
    before = loads(record)
    if before:
        assert edit_record(record, {}) == record
        assert edit_record(record, before) == record


@given(_record, _plain_values)
def test_taking_back_a_new_key_restores_the_record(record: str, value: Any) -> None:
    before = loads(record)
    if "new" not in before:
        assert same_json(loads(edit_record(edit_record(record, {"new": value}), {}, ["new"])), before)


@pytest.mark.parametrize(
    "record", ['{"a":1e-9,"b":"\\u00e9"}', '{ "a": 1.0, "b": [1 ,2] }', '{\n\t"a": -0,\n\t"b": {}\n}']
)
def test_taking_back_a_new_key_restores_the_text(record: str) -> None:
    assert edit_record(edit_record(record, {"new": [{"x": 1}]}), {}, ["new"]) == record


def test_the_other_fields_of_a_changed_record_keep_their_spelling() -> None:
    others = '"x":1e-9,"y":-0,"z":100.0,"s":"\\/ \\u00e9","n":{ "deep" : [1.10,2e+5] },"big":12345678901234567890'
    assert edit_record('{"a":1,' + others + "}", {"a": 2, "b": 3}) == '{"a":2,' + others + ',"b":3}'


@given(st.lists(_record, max_size=4), _spaces, st.dictionaries(st.text(max_size=4), _plain_values, max_size=3))
def test_appending_leaves_the_others_as_they_are(items: list[str], spaces: list[str], new: dict[str, Any]) -> None:
    text = _array(items, spaces)
    at = find_array(text)
    spans = [(start, end) for start, end, _ in elements(text, at)]
    for empty in (COMPACT, PRETTY):
        after = splice(text, [append(text, at, spans, [new, new], empty)])
        found = list(elements(after, find_array(after)))
        assert [after[start:end] for start, end, _ in found][:-2] == items
        assert all(same_json(value, new) for _, _, value in found[-2:])


@given(_plain_values)
def test_values_survive_a_round_trip(value: Any) -> None:
    for style in (COMPACT, PRETTY, Layout(ascii=True)):
        assert same_json(loads(dumps(value, style)), value)
        json.loads(dumps(value, style))


@given(_plain_values, _plain_values)
def test_sameness_is_that_of_the_text(left: Any, right: Any) -> None:
    def shape(value: Any) -> str:
        return json.dumps(
            json.loads(dumps(value), parse_int=Decimal, parse_float=Decimal),
            default=lambda d: [str(d.normalize())],
            sort_keys=True,
        )

    assert same_json(left, left)
    assert same_json(left, right) == same_json(right, left)
    assert same_json(left, right) == (shape(left) == shape(right))


@given(st.text('[]{},:"\\ue019-+.truefalsn \n', max_size=20))
def test_what_json_refuses_is_refused(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = BadJson
    try:
        value = loads(text)
    except BadJson:
        value = BadJson
    assert (value is BadJson) == (expected is BadJson)


# ------------------------------------------------------------------ examples

PRETTY_RECORD = '{\n    "id": "a",\n    "status": "OPEN"\n  }'
PRETTY_MEMBER = ',\n    "m": {\n      "x": [\n        1\n      ],\n      "y": {}\n    }\n  }'


@pytest.mark.parametrize(
    ("record", "fields", "expected"),
    [
        ('{"a":1}', {"b": Decimal("1E-9")}, '{"a":1,"b":0.000000001}'),
        ('{"a": 1}', {"b": 2}, '{"a": 1, "b": 2}'),
        ('{"a":1 , "c":2}', {"b": 2}, '{"a":1 , "c":2 , "b":2}'),
        ("{}", {"b": 2}, '{"b":2}'),
        ('{"a":100.0,"b":-0}', {"a": 100, "b": 1}, '{"a":100.0,"b":1}'),
        ('{"a":1,"a":2}', {"a": 3}, '{"a":1,"a":3}'),
        ('{"\\u0061":1}', {"a": "é"}, '{"\\u0061":"\\u00e9"}'),
        ('{"a":"é"}', {"a": "ü"}, '{"a":"ü"}'),
        ('{"a":1}', {"a": "\ud800"}, '{"a":"\\ud800"}'),
        ('{"a":1}', {"a": 0.5, "t": True, "n": None}, '{"a":0.5,"t":true,"n":null}'),
        (PRETTY_RECORD, {"m": {"x": [1], "y": {}}}, PRETTY_RECORD[:-4] + PRETTY_MEMBER),
        ('{\n\t"a": 1\n}', {"b": {"c": 2}}, '{\n\t"a": 1,\n\t"b": {\n\t\t"c": 2\n\t}\n}'),
        ('{"a":{"x":1.50, "y" : 2}}', {"a": {"x": Decimal("1.5"), "y": 3}}, '{"a":{"x":1.50, "y" : 3}}'),
        ('{"a":{"x":1.50,"y":2}}', {"a": {"x": Decimal("1.5"), "z": 4}}, '{"a":{"x":1.50,"z":4}}'),
        ('{"a":[{"x":1e2}, {"y":2}]}', {"a": [{"x": 100}, {"y": 3}]}, '{"a":[{"x":1e2}, {"y":3}]}'),
        ('{"a":[1.0]}', {"a": [1, 2]}, '{"a":[1,2]}'),
        ('{"a":{}}', {"a": {"b": 1}}, '{"a":{"b":1}}'),
    ],
)  # fmt: skip
def test_edits(record: str, fields: dict[str, Any], expected: str) -> None:
    assert edit_record(record, fields) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [('{"x":1,"b":2}', '{"b":2}'), ('{"b":2 , "x":1}', '{"b":2}'),
     ('{"b":1, "x":2, "c":3}', '{"b":1, "c":3}'), ('{"x":1,"x":2}', "{}"),
     ('{\n  "x": 1,\n  "b": 2\n}', '{\n  "b": 2\n}')],
)  # fmt: skip
def test_removals(record: str, expected: str) -> None:
    assert edit_record(record, {}, ["x", "nobody"]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", '[{"id":1}]'),
        ('[{"a":1}]', '[{"a":1},{"id":1}]'),
        ('[{"a": 1}]', '[{"a": 1}, {"id": 1}]'),
        ('[{"a":1} ,\t{"b":1}]', '[{"a":1} ,\t{"b":1} ,\t{"id":1}]'),
        ('[\n  {\n    "a": 1\n  }\n]\n', '[\n  {\n    "a": 1\n  },\n  {\n    "id": 1\n  }\n]\n'),
        ('{"v":1,"trades":[],"z":[1]}', '{"v":1,"trades":[{"id":1}],"z":[1]}'),
        ('{"trades":[0],"trades":[5]}', '{"trades":[0],"trades":[5,{"id":1}]}'),
    ],
)
def test_appends(text: str, expected: str) -> None:
    at = find_array(text)
    spans = [(start, end) for start, end, _ in elements(text, at)]
    assert splice(text, [append(text, at, spans, [{"id": 1}], COMPACT)]) == expected


def test_the_first_record_of_an_empty_pretty_file() -> None:
    assert splice("[]\n", [append("[]\n", 0, [], [{"id": 1}], PRETTY)]) == '[\n  {\n    "id": 1\n  }\n]\n'


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, Decimal("1.0"), True), (0.1, Decimal("0.1"), True), (True, 1, False), (False, 0, False), (None, 0, False),
        ("1", 1, False), ([1, 2], [1, 2.0], True), ([1], [1, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": None}, {}, False),
        ([], {}, False), ("", None, False), (True, True, True), (None, None, True),
        ("ab", ["a", "b"], False),
    ],
)  # fmt: skip
def test_sameness(left: Any, right: Any, same: bool) -> None:
    assert same_json(left, right) is same
    assert same_json(right, left) is same


@pytest.mark.parametrize(
    "text",
    ["", "nan", "[+NaN]", "[--Infinity]", "[1,]", "{,}", '{"a":1,}', "[1] 2",
     '{"a" 1}', "{1:2}", "[" * 100_000, "9" * 5000,
     "1e9999999999999999999999", '"\n"', "01", "+1", ".5"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_not_strict_json(text: str) -> None:
    with pytest.raises(BadJson):
        loads(text)


@pytest.mark.parametrize(
    "text",
    ["", "5", "{", '{"a":1,', "{}", '{"trades":5}', '{"trades":[]', '"x"', "[1,", "[1 2]", "[1]]", '{"trades":[]} x'],
)
def test_what_is_no_array_of_records(text: str) -> None:
    with pytest.raises(BadJson):
        list(elements(text, find_array(text)))


def test_what_has_no_json_form() -> None:
    with pytest.raises(TypeError):
        dumps({1})


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_lacks_is_read_compared_and_left_as_it_is(word: str) -> None:
    record = loads(f'{{"a":[{word}],"b":1}}')
    assert same_json(record, loads(f'{{"b":1.0,"a":[{word}]}}'))
    assert not same_json(record, loads('{"a":[1],"b":1}'))
    assert edit_record(f'{{"a":[{word}],"b":1}}', {"b": 2, "a": record["a"]}) == f'{{"a":[{word}],"b":2}}'
    assert dumps(record["a"]) == f'["{word}"]'


def test_values_nested_as_deep_as_can_be_read_are_compared() -> None:
    deep = loads("[" * 900 + "1" + "]" * 900)
    assert same_json(deep, loads("[" * 900 + "1.0" + "]" * 900))
    assert not same_json(deep, loads("[" * 900 + "2" + "]" * 900))


def test_a_number_beyond_all_amounts_keeps_its_exponent_and_takes_no_time() -> None:
    for text in ("1E+999999999", "-2.5E-999999999"):
        assert dumps(loads(text)) == text
    assert dumps(loads("1e30")) == "1" + "0" * 30
