"""JSON documents: one on stdout, indented where a person looks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import json_number


def document_text(document: Mapping[str, Any], *, for_person: bool) -> str:
    """The document as ASCII-only JSON text, so that no locale can break it."""
    return json.dumps(document, indent=2 if for_person else None, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return json_number(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")
