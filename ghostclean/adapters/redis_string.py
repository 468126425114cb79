"""A ledger in one Redis string: a JSON array of all trades, written by compare-and-set.

A write is computed from the text we read and lands only if the key still holds that text;
when somebody else wrote in between, the changes are applied again, by id, to the fresh text.
The remaining life (TTL) of the key is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ghostclean.app.ports import Change, Lease, LedgerView, Record, WriteOutcome
from ghostclean.core.jsontext import COMPACT

from .ledger_text import LedgerText, no_ledger
from .redis_key import LedgerKey, pause

_ATTEMPTS = 60
_LONG = 65536  # characters; longer texts are not sent to be compared

# ARGV: 2 new text, 3 expected text, '' where there was no key
_SWAP = """
local now = redis.call('GET', KEYS[1])
if (now or '') ~= ARGV[3] or now == '' then return 'OTHER' end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 'DONE'
"""


class StringLayout:
    """The ledger operations on such a key; `absent` for a key never seen."""

    def __init__(self, key: LedgerKey, *, absent: bool = False) -> None:
        self._key = key
        self._absent = absent
        self._reading: LedgerText | None = None

    def read(self) -> LedgerView:
        view = self._fresh().view()
        return replace(view, exists=not self._absent)

    def history(self, keys: frozenset[str]) -> list[Record]:
        with no_ledger(self._key.failed):
            return (self._reading or self._fresh()).history(keys)

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        with no_ledger(self._key.failed):
            return self._fresh().get(ids)

    def describe(self) -> str:
        return f"Redis string, {self._fresh().view().total} trades"

    def write(self, changes: Sequence[Change], lease: Lease) -> list[WriteOutcome]:
        reading = self._reading or self._fresh()
        for attempt in range(_ATTEMPTS):
            with no_ledger(self._key.failed):
                text, outcomes = reading.apply(changes, COMPACT)
            if text == reading.source:
                if attempt:
                    return outcomes
            elif self._swap(reading.source, text, lease):
                self._absent, self._reading = False, None
                return outcomes
            else:
                pause(attempt)
            reading = self._fresh()
        raise self._key.failed("is written by somebody else all the time", "run again when the app is quieter")

    def _swap(self, old: str, new: str, lease: Lease) -> bool:
        if len(old) > _LONG:
            return self._key.replace(old, new, lease)
        return self._key.guarded(_SWAP, lease, new, "" if self._absent else old) == b"DONE"

    def _fresh(self) -> LedgerText:
        raw: bytes | None = self._key.call("GET", self._key.name)
        if raw is None:
            if not self._absent:
                raise self._key.failed(
                    "has gone missing during this run", "find out who deleted it, or whether its TTL ran out"
                )
            self._reading = LedgerText("[]")
            return self._reading
        self._absent = False
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise self._key.failed(f"is not UTF-8 at byte {error.start}", "repair it or restore a backup") from None
        with no_ledger(self._key.failed):
            self._reading = LedgerText(text, bare=True)
        return self._reading
