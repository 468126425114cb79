"""Which account a record says it is of.

`paper` says it with a boolean, `accountMode` and `env` with `paper` or `live`, `accountId` and `account` with the
id (a UUID) or the account number; any other value is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ghostclean.core.broker import Account, is_uuid

_MODES = {"paper": False, "live": True}
_FLAGS = {"true": True, "false": False}
_MODE_FIELDS = ("paper", "accountMode", "env")
_ID_FIELDS = ("accountId", "account")
# Alpaca's numbers: `PA3XYZ…` of a paper account, nine or ten digits and capitals else.
_NUMBER = re.compile(r"PA(?!PER)(?=[A-Z]*[0-9])[0-9A-Z]{7,10}|[0-9]{4}[0-9A-Z]{5,6}")


def other_account(record: Mapping[str, Any], account: Account, *, live: bool) -> str | None:
    """A record's word that contradicts this account; one is enough."""
    for name in (n for n in _MODE_FIELDS if n in record):
        mode = _mode(name, record[name])
        if mode is not None and mode != live:
            return f"its {name} says {_word(mode)}, this run's account is {_word(live)}"
    for name in (n for n in _ID_FIELDS if n in record):
        said = _named(record[name])
        if said is not None and not _is(said, account):
            return f"its {name} says {said}, which is not this run's account"
    return None


def account_marks(records: Iterable[Mapping[str, Any]], account: Account, *, live: bool) -> dict[str, Any]:
    """The account fields of a new record, spelled as these records spell theirs."""
    marks: dict[str, Any] = {}
    for record in records:
        for name in _MODE_FIELDS:
            value = record.get(name)
            if name not in marks and _mode(name, value) is not None:
                marks[name] = _spelled(value, (not live) if name == "paper" else live)
        for name in _ID_FIELDS:
            said = _named(record.get(name))
            own = account.id if said is not None and is_uuid(said) else account.number
            if name not in marks and said is not None and own and "*" not in own:
                marks[name] = int(own) if isinstance(record.get(name), int) and own.isdecimal() else own
    return marks


def _mode(name: str, value: object) -> bool | None:
    if name == "paper":
        if isinstance(value, int) and value in (0, 1):  # a table without booleans has 0 and 1
            return not value
        paper = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
        return None if paper is None else not paper
    return _MODES.get(value.strip().lower()) if isinstance(value, str) else None


def _named(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    value = value.strip()
    return value if is_uuid(value) or _NUMBER.fullmatch(value) else None


def _is(said: str, account: Account) -> bool:
    if is_uuid(said):
        return said.lower() == account.id.lower()
    end = account.number.lstrip("*")  # a snapshot masks all but the end of it
    return said == end if end == account.number and end else said.endswith(end)


def _word(live: bool) -> str:
    return "live" if live else "paper"


def _spelled(example: object, value: bool) -> Any:
    if isinstance(example, bool):
        return value
    if isinstance(example, int):
        return int(value)
    text = str(example).strip()
    words = _FLAGS if text.lower() in _FLAGS else _MODES
    word = next(word for word, meaning in words.items() if meaning is value)
    return word.upper() if text.isupper() else word.title() if text.istitle() else word
