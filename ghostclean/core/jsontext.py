"""JSON text taken apart and edited without disturbing a byte that is not ours.

Entry points: `elements` (the records of an array with their spans), `edit_record`, `append`,
`splice`, `dumps` and `loads`, `same_json`. Invariants:

1. What is not edited keeps its exact text: number spelling, key order, escapes, whitespace.
2. A new key or record takes over the indentation and the separators of its neighbours.
3. Numbers are `int` or `Decimal`, never `float`: a 19-digit id or `1e-9` survives a round trip.
4. Text that is not strict JSON (NaN, trailing commas, anything after the end) is `BadJson`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from ghostclean.core.broker import plain

_space = re.compile(r"[ \t\n\r]*").match


# Made once: `json.dumps` would make an encoder for every text.
_escaped = json.JSONEncoder().encode
_spelled = json.JSONEncoder(ensure_ascii=False).encode


class BadJson(ValueError):
    """The text is no strict JSON; says what was found and where, never quotes the content."""


class Element(NamedTuple):
    """One element of an array: `text[start:end]` spells `value`."""

    start: int
    end: int
    value: Any


@dataclass(frozen=True, slots=True)
class Style:
    """How an object is laid out.

    `comma` and `colon` stand between its members and inside each; `margin` is the newline and
    indentation before a member, empty for one-line text, and `step` one level of indentation.
    """

    comma: str = ","
    colon: str = ":"
    margin: str = ""
    step: str = ""
    ascii: bool = False


COMPACT = Style()
PRETTY = Style(",\n    ", ": ", "\n    ", "  ")


# ------------------------------------------------------------------------- values


def _refuse(word: str) -> NoReturn:
    raise BadJson(f"{word} is not JSON")


_decode = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse).raw_decode


def _value(text: str, at: int) -> tuple[Any, int]:
    """The value that starts exactly at `at`, and where it ends."""
    try:
        return _decode(text, at)
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg} at character {error.pos}") from None
    except BadJson:
        raise
    except RecursionError:
        raise BadJson(f"nested too deeply at character {at}") from None
    except (ValueError, ArithmeticError):
        raise BadJson(f"a number of impossible length in the value at character {at}") from None


def skip(text: str, at: int) -> int:
    """The first place at or after `at` that is no blank."""
    if text[at : at + 1] > " ":  # most text has no blanks: half the cost of editing a record
        return at
    match = _space(text, at)
    return match.end() if match else at


def _finish(text: str, at: int) -> None:
    if skip(text, at) != len(text):
        raise BadJson(f"something follows the end at character {at}")


def loads(text: str) -> Any:
    """The value of a whole JSON text, with exact numbers; raises BadJson."""
    value, end = _value(text, skip(text, 0))
    _finish(text, end)
    return value


def dumps(value: Any, style: Style = COMPACT) -> str:
    """The JSON text of a value; Decimals are written plainly and exactly."""
    return _render(value, style, style.margin)


def _render(value: Any, style: Style, margin: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value, style)
    if isinstance(value, Decimal | int | float):
        return _number(value)
    if isinstance(value, Mapping):
        inner = margin + style.step
        parts = [f"{_string(str(k), style)}{style.colon}{_render(v, style, inner)}" for k, v in value.items()]
        return _container("{", parts, "}", style, margin)
    if isinstance(value, Sequence):
        return _container("[", [_render(v, style, margin + style.step) for v in value], "]", style, margin)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _container(opening: str, parts: list[str], closing: str, style: Style, margin: str) -> str:
    if not parts or not margin:
        between = ", " if style.comma.endswith(" ") and not style.margin else ","
        return opening + between.join(parts) + closing
    inner = margin + style.step
    return opening + inner + ("," + inner).join(parts) + margin + closing


def _number(value: Decimal | int | float) -> str:
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, int):
        return str(value)
    if not value.is_finite():
        raise ValueError(f"{value} has no JSON form")
    return plain(value)


def _string(value: str, style: Style) -> str:
    text = _escaped(value) if style.ascii else _spelled(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
        return _escaped(value)
    return text


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
    if isinstance(left, float):
        left = Decimal(repr(left))
    if isinstance(right, float):
        right = Decimal(repr(right))
    return bool(left == right)


# ------------------------------------------------------------------------- arrays


def find_array(text: str, name: str = "trades") -> int:
    """Where the array of records starts: the whole text, or the member `name` of an object."""
    at = skip(text, 0)
    if text[at : at + 1] == "{":
        found = [m for m in _members(text, at) if m.key == name]
        if not found:
            raise BadJson(f"an object without {name!r}")
        at = found[-1].value_start
    if text[at : at + 1] != "[":
        raise BadJson("no array of records" if text.strip() else "nothing")
    return at


def elements(text: str, at: int) -> Iterator[Element]:
    """The elements of the array that starts at `at`, one by one; the last step checks its end.

    For a whole-text array nothing may follow; inside an object `find_array` has checked it.
    """
    whole = skip(text, 0) == at
    position = skip(text, at + 1)
    if text[position : position + 1] != "]":
        while True:
            value, end = _value(text, position)
            yield Element(position, end, value)
            position = skip(text, end)
            mark = text[position : position + 1]
            if mark == "]":
                break
            if mark != ",":
                raise BadJson(f"neither a comma nor the end of the array at character {position}")
            position = skip(text, position + 1)
    if whole:
        _finish(text, position + 1)


def splice(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """The text with each span replaced; spans must not overlap."""
    pieces: list[str] = []
    done = 0
    for start, end, new in sorted(edits):
        pieces += (text[done:start], new)
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


def append(
    text: str, at: int, spans: Sequence[tuple[int, int]], records: Sequence[Mapping[str, Any]], empty: Style
) -> tuple[int, int, str]:
    """The edit that puts records at the end of the array at `at`, whose elements have `spans`.

    They are laid out like the last element, or by `empty` where there is none.
    """
    if not spans:
        return _first(text, at, records, empty)
    start, end = spans[-1]
    last = text[start:end]
    style = style_of(last) if last.startswith("{") else COMPACT
    closing = _closing_margin(last) if style.margin else ""
    if len(spans) > 1:
        comma = text[spans[-2][1] : start]
    else:
        lead = text[at + 1 : start]
        comma = "," + (lead if "\n" in lead else " " * style.comma.endswith(" "))
    return end, end, "".join(comma + _object(record, style, closing) for record in records)


def _first(text: str, at: int, records: Sequence[Mapping[str, Any]], style: Style) -> tuple[int, int, str]:
    if not style.margin:
        return at + 1, at + 1, ",".join(dumps(record, style) for record in records)
    outer = style.margin[: -len(style.step)]
    body = ("," + outer).join(_object(record, style, outer) for record in records)
    return at + 1, skip(text, at + 1), outer + body + outer[: -len(style.step)]


def _object(record: Mapping[str, Any], style: Style, closing: str) -> str:
    parts = [_member_text(k, v, style) for k, v in record.items()]
    return "{" + style.margin + style.comma.join(parts) + closing + "}"


# ------------------------------------------------------------------------- one record


class _Member(NamedTuple):
    """One member of an object: where its key and value stand."""

    key: str
    start: int
    key_end: int
    value_start: int
    end: int
    value: Any


def _members(text: str, at: int) -> list[_Member]:
    """The members of the object that starts at `at` and is all the rest of the text."""
    found: list[_Member] = []
    position = skip(text, at + 1)
    if text[position : position + 1] != "}":
        while True:
            member = _member(text, position)
            found.append(member)
            position = skip(text, member.end)
            mark = text[position : position + 1]
            if mark == "}":
                break
            if mark != ",":
                raise BadJson(f"neither a comma nor the end of the object at character {position}")
            position = skip(text, position + 1)
    _finish(text, position + 1)
    return found


def _member(text: str, start: int) -> _Member:
    if text[start : start + 1] != '"':
        raise BadJson(f"no key at character {start}")
    key, key_end = _value(text, start)
    colon = skip(text, key_end)
    if text[colon : colon + 1] != ":":
        raise BadJson(f"no colon at character {colon}")
    value_start = skip(text, colon + 1)
    value, end = _value(text, value_start)
    return _Member(key, start, key_end, value_start, end, value)


def style_of(record: str) -> Style:
    """The layout of an object's text, for what is added to it."""
    return _style(record, _members(record, 0))


def _style(record: str, members: Sequence[_Member]) -> Style:
    escaped = "\\u" in record and record.isascii()
    if not members:
        return Style(ascii=escaped)
    last = members[-1]
    colon = record[last.key_end : last.value_start]
    lead = record[1 : members[0].start]
    if len(members) > 1:
        comma = record[members[-2].end : last.start]
    else:
        comma = "," + (lead if "\n" in lead else " " * colon.endswith(" "))
    if "\n" not in lead:
        return Style(comma, colon, ascii=escaped)
    margin = lead[lead.rindex("\n") :]
    closing = _closing_margin(record)
    step = margin[len(closing) :] if margin.startswith(closing) else "  "
    return Style(comma, colon, margin, step, escaped)


def _closing_margin(record: str) -> str:
    """The newline and indentation before the closing brace."""
    tail = record[len(record[:-1].rstrip()) : -1]
    return tail[tail.rindex("\n") :] if "\n" in tail else ""


def _member_text(key: str, value: Any, style: Style) -> str:
    return f"{_string(key, style)}{style.colon}{dumps(value, style)}"


def edit_record(record: str, fields: Mapping[str, Any], remove: Sequence[str] = ()) -> str:
    """The text of one object with some fields set and some taken out.

    Of a duplicated key the last, the effective one, is set; all of them are taken out. A field
    that already has the value keeps its spelling.
    """
    members = _members(record, 0)
    if not members:
        return "{" + COMPACT.comma.join(_member_text(k, v, COMPACT) for k, v in fields.items()) + "}"
    style = _style(record, members)
    last = {m.key: i for i, m in enumerate(members)}
    out = [record[: members[0].start]]
    kept = False
    for i, member in enumerate(members):
        if member.key in remove and member.key not in fields:
            continue
        if kept:
            out.append(record[members[i - 1].end : member.start])
        kept = True
        new = member.key in fields and last[member.key] == i and not same_json(member.value, fields[member.key])
        value = dumps(fields[member.key], style) if new else record[member.value_start : member.end]
        out.append(record[member.start : member.value_start] + value)
    for key, value in fields.items():
        if key not in last:
            out.append((style.comma if kept else "") + _member_text(key, value, style))
            kept = True
    out.append(record[members[-1].end :])
    return "".join(out)
