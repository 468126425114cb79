"""Plain JSON values from what the core works with."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import json_number


def json_value(value: Any) -> Any:
    """The same value with Decimals as JSON numbers and tuples as lists, at any depth."""
    if isinstance(value, Decimal):
        return json_number(value) if value.is_finite() else str(value)
    if isinstance(value, Mapping):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return value
