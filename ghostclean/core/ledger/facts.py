"""What a record cannot show of a trade: facts without a field, or finer than their field holds.

They are kept in the state, by trade id, each with what the record shows in its place: what the app writes there later
counts. They are kept before the record is written, together with those that counted until then, and the record says
which of the two are true, so a run that is killed between the two leaves no doubt. With them are kept the app's own
words that runs have replaced: an undo puts back the very word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .jsontext import same_json
from .trade import means

FACTS = "facts"  # the section of the state
_NOW, _BEFORE, _ROW, _WORDS = "now", "before", "row", "words"

Facts = Mapping[str, list[Any]]  # by field: the value, and what the record shows instead


def facts_of(kept: Any, raw: Mapping[str, Any]) -> Facts:
    """The facts that hold while the app's record is this one."""
    if not isinstance(kept, Mapping):
        return {}
    holds = all(name in raw and same_json(raw[name], value) for name, value in kept.get(_ROW, {}).items())
    facts: Facts = kept.get(_NOW if holds else _BEFORE, {})
    return facts


def words_of(kept: Any) -> Mapping[str, Any]:
    """The app's own words, by field."""
    return kept.get(_WORDS, {}) if isinstance(kept, Mapping) else {}


def shown(record: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """The record with its facts, but for those in whose place the app has written since."""
    return {**record, **{name: value for name, (value, stood) in facts.items() if same_json(record.get(name), stood)}}


def not_shown(record: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What of these fields a record does not say."""
    return {
        name: [value, record.get(name)]
        for name, value in fields.items()
        if name not in record or not means(record[name], value)
    }


def pending(before: Facts, now: Facts, row: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept until it is known whether the record was written; `row` is what it then shows."""
    return {_BEFORE: before, _NOW: now, _ROW: row, _WORDS: words}


def settled(now: Facts, words: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is kept of a written record; None forgets."""
    return {_NOW: now, _WORDS: words} if now or words else None


def with_fact(kept: Mapping[str, Any], name: str, value: Any, stood: Any) -> dict[str, Any]:
    """What is kept of a written record, and this fact more."""
    return {**kept, _NOW: {**kept[_NOW], name: [value, stood]}}


def beside(kept: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """What of this record (with its facts) the app's own does not show."""
    facts = {**kept.get(_BEFORE, {}), **kept.get(_NOW, {})} if isinstance(kept, Mapping) else {}
    return {name: pair[0] for name, pair in facts.items() if name in record and means(record[name], pair[0])}
