"""The text of a mapping file, as a person would write it, with what was not sure beside its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ghostclean.core.ledger import SYNONYMS

from .columns import EPOCH_MS, EPOCH_S
from .lines import NULL, SIGNED, Line, Proposal


def mapping_text(proposal: Proposal, about: str) -> str:
    """The whole file; `about` says whose records it fits."""
    return "\n".join(_lines(proposal, about)) + "\n"


def is_native(proposal: Proposal) -> bool:
    """Whether the records are ghostclean's own already, so that a mapping would say nothing."""
    return all(_is_native(line) for line in proposal.lines)


def _is_native(line: Line) -> bool:
    named = line.name == line.field or SYNONYMS.get(line.name, _NATIVE.get(line.name)) == line.field
    return named and line.form is None and all(theirs == (ours,) for ours, theirs in line.words)


_NATIVE = {"brokerOrderId": "alpacaOrderId"}


def _lines(proposal: Proposal, about: str) -> Iterator[str]:
    yield _comment(f"# How ghostclean reads the trades of {about}: its own name or word = the app's.")
    yield "# What is not named here is left alone."
    yield ""
    yield "[fields]"
    for line in proposal.lines:
        doubt = "" if line.is_sure else _comment(f"  # {line.trust}: {line.why}")
        yield f"{line.field} = {_value(line)}{doubt}"
    for line in proposal.lines:
        if line.words:
            yield ""
            yield f"[values.{line.field}]"
            for ours, theirs in line.words:
                yield f"{ours} = [{', '.join(map(_literal, theirs))}]"


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _value(line: Line) -> str:
    name = _literal(line.name)
    if line.form is None:
        return name
    if line.form == NULL:
        return f"{{ null = {name} }}"
    if line.form == SIGNED:
        return f"{{ name = {name}, signed = true }}"
    return f"{{ name = {name}, {'unit' if line.form in (EPOCH_S, EPOCH_MS) else 'zone'} = {_literal(line.form)} }}"


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
