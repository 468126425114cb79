"""Fields of a record as they stand: what says the same, what differs, what a close without proof looks like."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import BadNumber, iso, json_number, number, parse_time

POSITION_OPEN = "position_open"
NOT_FOUND = "not_found_in_broker"


def is_vanished(record: Mapping[str, Any]) -> bool:
    """Whether a final record was closed without proof, as `vanished` closes it."""
    return record.get("alpacaStatus") == NOT_FOUND and record.get("closePrice") is None


def changed(record: Mapping[str, Any], fields: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The fields whose value differs from the record's, and `updatedAt` when there are any."""
    differing = {name: value for name, value in fields.items() if not same(record, name, value)}
    if differing:
        differing["updatedAt"] = iso(now)
    return differing


def same(record: Mapping[str, Any], name: str, value: object) -> bool:
    """Whether a field already says this; numbers and times compare by value, not by spelling."""
    if name not in record:
        return False
    present = record[name]
    if present is None or value is None:
        return present is value
    if isinstance(value, Decimal):
        try:
            said = number(present)
        except BadNumber:
            return False
        # A value longer than a JSON number holds comes back shortened; it is the same value.
        return said is not None and json_number(said) == json_number(value)
    if present == value:
        return True
    moment = parse_time(value)
    return moment is not None and parse_time(present) == moment
