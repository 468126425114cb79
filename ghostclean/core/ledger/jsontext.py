"""JSON text: one reader, one writer, and edits that leave the rest of a text alone.

Invariants:
1. A record that is not edited keeps every byte; an edited one keeps the text of its other fields.
2. A new field or record takes over the layout of its neighbours.
3. Numbers are `int` or `Decimal`, never `float`: a 19-digit id or `1e-9` survives a round trip.
4. Text that is not strict JSON is `BadJson`, but for NaN and Infinity, which some writers spell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from ghostclean.core.broker import json_number, plain

Edit = tuple[int, int, str]  # start, end, and the text that takes the place of what is there


class BadJson(ValueError):
    """The text is not strict JSON; says what was found and where, never quotes the content."""


class Layout(NamedTuple):
    """On one line with `comma` between members, else `margin` (newline and indentation) before each, `step` a level."""

    comma: str = ","
    colon: str = ":"
    margin: str = ""
    step: str = ""
    ascii: bool = False

    @property
    def closing(self) -> str:
        return self.margin.removesuffix(self.step)


COMPACT = Layout()
PRETTY = Layout(colon=": ", margin="\n  ", step="  ")


# ------------------------------------------------------------------------- reading


_decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=Decimal)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]
_blanks = re.compile(r"[ \t\n\r]*").match


def _value(text: str, at: int) -> tuple[Any, int]:
    """The value that starts exactly at `at`, and where it ends."""
    try:
        return _scan(text, at)
    except StopIteration as nothing:
        raise BadJson(f"no value at character {nothing.value}") from None
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise BadJson(f"nested too deeply at character {at}") from None
    except (ValueError, ArithmeticError):
        raise BadJson(f"a number of impossible length in the value at character {at}") from None


def skip(text: str, at: int) -> int:
    if text[at : at + 1] > " ":  # most texts have no blanks
        return at
    match = _blanks(text, at)
    return match.end() if match else at


def _first(text: str, at: int, closing: str) -> int:
    """Where the first item of the array or object at `at` starts, 0 for an empty one."""
    start = skip(text, at + 1)
    return 0 if text[start : start + 1] == closing else start


def _next(text: str, at: int, closing: str) -> int:
    """Where the item after one that ends at `at` starts, 0 behind the last."""
    at = skip(text, at)
    if text[at : at + 1] == closing:
        return 0
    if text[at : at + 1] != ",":
        raise BadJson(f"neither a comma nor {closing} at character {at}")
    return skip(text, at + 1)


def _finish(text: str, at: int) -> None:
    if skip(text, at) != len(text):
        raise BadJson(f"something follows the end at character {at}")


def loads(text: str) -> Any:
    """The value of a whole JSON text, with exact numbers; raises BadJson."""
    value, end = _value(text, skip(text, 0))
    _finish(text, end)
    return value


def find_array(text: str) -> int:
    """Where the array of records starts: the whole text, or the member `trades` of an object."""
    at = skip(text, 0)
    if text[at : at + 1] == "{":
        found = [member.value_start for member in _members(text, at) if member.key == "trades"]
        if not found:
            raise BadJson("an object without 'trades'")
        at = found[-1]
    if text[at : at + 1] != "[":
        raise BadJson("no array of records" if text.strip() else "nothing")
    return at


def elements(text: str, at: int) -> Iterator[tuple[int, int, Any]]:
    """Start, end and value of each element of the array at `at`; the last step checks its end."""
    whole = skip(text, 0) == at
    start, end = _first(text, at, "]"), at + 1
    while start:
        value, end = _value(text, start)
        yield start, end, value
        start = end + 1 if text.startswith(",{", end) else _next(text, end, "]")
    if whole:
        _finish(text, skip(text, end) + 1)


class _Member(NamedTuple):
    key: str
    start: int
    key_end: int
    value_start: int
    end: int
    value: Any


def _members(text: str, at: int) -> list[_Member]:
    found: list[_Member] = []
    start, end = _first(text, at, "}"), at + 1
    while start:
        if text[start : start + 1] != '"':
            raise BadJson(f"no key at character {start}")
        key, key_end = _value(text, start)
        colon = skip(text, key_end)
        if text[colon : colon + 1] != ":":
            raise BadJson(f"no colon at character {colon}")
        value_start = skip(text, colon + 1)
        value, end = _value(text, value_start)
        found.append(_Member(key, start, key_end, value_start, end, value))
        start = _next(text, end, "}")
    _finish(text, skip(text, end) + 1)
    return found


# ------------------------------------------------------------------------- writing

_escaped = json.encoder.encode_basestring_ascii
_spelled = json.encoder.encode_basestring


def dumps(value: Any, layout: Layout = COMPACT) -> str:
    """The JSON text of a value; Decimals are written plainly and exactly, infinite ones as text."""
    return _render(value, layout, layout.closing)


def _render(value: Any, layout: Layout, closing: str) -> str:
    if isinstance(value, str):
        return _string(value, layout)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal | int | float):
        return _number(value)
    inner = closing + layout.step
    if isinstance(value, (dict, Mapping)):  # the first spares the slow question
        items = [f"{_string(str(k), layout)}{layout.colon}{_render(v, layout, inner)}" for k, v in value.items()]
        return "{" + _joined(items, layout, closing) + "}"
    if isinstance(value, (list, Sequence)):
        return "[" + _joined([_render(v, layout, inner) for v in value], layout, closing) + "]"
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _joined(items: Sequence[str], layout: Layout, closing: str) -> str:
    if not items or not layout.margin:
        return layout.comma.join(items)
    inner = closing + layout.step
    return inner + ("," + inner).join(items) + closing


def _number(value: Decimal | int | float) -> str:
    if isinstance(value, int):
        return str(value)
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    return plain(exact) if exact.is_finite() else f'"{exact}"'


def _string(value: str, layout: Layout) -> str:
    text = _escaped(value) if layout.ascii else _spelled(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
        return _escaped(value)
    return text


# ------------------------------------------------------------------------- editing


def splice(text: str, edits: Iterable[Edit]) -> str:
    """The text after these edits, of which no two overlap."""
    pieces: list[str] = []
    done = 0
    for start, end, new in sorted(edits):
        pieces += (text[done:start], new)
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


def edit_record(record: str, fields: Mapping[str, Any], remove: Sequence[str] = ()) -> str:
    """The text of one object with fields set and taken out; of a key that stands twice the last is set."""
    members = _members(record, 0)
    layout = _layout(record, members)
    last = {member.key: member for member in members}
    removed = {name for name in remove if name not in fields}
    edits = list(_removals(members, removed))
    new: list[str] = []
    for name, value in fields.items():
        there = last.get(name)
        if there is None:
            new.append(f"{_string(name, layout)}{layout.colon}{_render(value, layout, layout.margin)}")
        elif not same_json(there.value, value):
            old = record[there.value_start : there.end]
            edits.append((there.value_start, there.end, _edit_value(old, there.value, value, layout)))
    if new:
        comma = "," + layout.margin if layout.margin else layout.comma
        end = members[-1].end if members else 1
        edits.append((end, end, comma.join([""] * bool(last.keys() - removed) + new)))
    return splice(record, edits)


def _edit_value(text: str, old: Any, new: Any, layout: Layout) -> str:
    """The text of a value that becomes another: what stays within it keeps its spelling."""
    if old and isinstance(old, Mapping) and isinstance(new, Mapping):
        return edit_record(text, new, [name for name in old if name not in new])
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        differing = ((span, item) for span, item in zip(elements(text, 0), new, strict=True) if span[2] != item)
        return splice(text, ((s, e, _edit_value(text[s:e], was, item, layout)) for (s, e, was), item in differing))
    return _render(new, layout, layout.margin)


def _removals(members: Sequence[_Member], removed: Collection[str]) -> Iterator[Edit]:
    end, kept = 0, False
    for member in members:
        if member.key in removed:
            yield end or member.start, member.end, ""
        elif not kept:
            kept = True
            if end:
                yield end, member.start, ""
        end = member.end


def append(
    text: str, at: int, spans: Sequence[tuple[int, int]], records: Sequence[Mapping[str, Any]], empty: Layout
) -> Edit:
    """The edit that adds records to the array at `at`, laid out like its last element, else by `empty`."""
    if not spans:
        return at + 1, skip(text, at + 1), dumps(records, empty)[1:-1]
    start, end_of_last = spans[-1]
    last = text[start:end_of_last]
    layout = _layout(last, _members(last, 0)) if last.startswith("{") else COMPACT
    if len(spans) > 1:
        between = text[spans[-2][1] : start]
    else:
        lead = text[at + 1 : start]
        between = "," + (lead if "\n" in lead else " " * layout.colon.endswith(" "))
    return end_of_last, end_of_last, "".join(between + dumps(record, layout) for record in records)


def _layout(record: str, members: Sequence[_Member]) -> Layout:
    if not members:
        return COMPACT
    last, escaped = members[-1], "\\u" in record and record.isascii()
    colon, lead = record[last.key_end : last.value_start], record[1 : members[0].start]
    if "\n" in lead:
        margin, tail = _last_line(lead), _last_line(record[last.end : -1])
        step = margin[len(tail) :] if tail and margin.startswith(tail) else "  "
        return Layout(colon=colon, margin=margin, step=step, ascii=escaped)
    comma = record[members[-2].end : last.start] if len(members) > 1 else "," + " " * colon.endswith(" ")
    return Layout(comma, colon, ascii=escaped)


def _last_line(blanks: str) -> str:
    return blanks[blanks.rindex("\n") :] if "\n" in blanks else ""


# ------------------------------------------------------------------------- values


def json_value(value: Any) -> Any:
    """The same value with Decimals as JSON numbers and tuples as lists, at any depth."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Decimal):
        return json_number(value) if value.is_finite() else str(value)
    if isinstance(value, (dict, Mapping)):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return value


def same_json(left: Any, right: Any) -> bool:
    """Whether two values are the same JSON: 1 is 1.0, but true is not 1; key order is free."""
    pairs = [(left, right)]  # no recursion: the ledger's values nest as deep as the app likes
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            if left.keys() != right.keys():
                return False
            pairs += ((value, right[key]) for key, value in left.items())
        elif _is_list(left) and _is_list(right):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
        elif not _same_scalar(left, right):
            return False
    return True


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same_scalar(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(_comparable(left) == _comparable(right))


def _comparable(value: Any) -> Any:
    if isinstance(value, float):
        value = Decimal(repr(value))
    return ("not finite", str(value)) if isinstance(value, Decimal) and not value.is_finite() else value
