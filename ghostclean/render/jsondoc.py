"""JSON documents: one on stdout, indented where a person looks."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import json_number


@dataclass(frozen=True, slots=True)
class Ready:
    """A part that is JSON text already; of a thousand accounts the text is a tenth of what it says."""

    text: str


def document_text(document: Mapping[str, Any], *, for_person: bool) -> str:
    """The document as ASCII-only JSON text, so that no locale can break it."""
    return "".join(document_pieces(document, for_person=for_person))


def document_pieces(document: Mapping[str, Any], *, for_person: bool) -> list[str]:
    """The same in pieces, so that ready parts need no second place in memory."""
    ready: list[str] = []
    mark = secrets.token_hex(16)

    def plain(value: object) -> object:
        if isinstance(value, Decimal):
            return json_number(value)
        if isinstance(value, Mapping):
            return dict(value)
        if not isinstance(value, Ready):
            raise TypeError(f"a {type(value).__name__} has no JSON form")
        if for_person:
            return json.loads(value.text)
        ready.append(value.text)
        return mark

    text = json.dumps(document, indent=2 if for_person else None, default=plain)
    first, *others = text.split(f'"{mark}"')
    return [first, *(piece for pair in zip(ready, others, strict=True) for piece in pair)]
