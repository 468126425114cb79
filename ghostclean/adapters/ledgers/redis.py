"""A ledger in Redis, in the layout that the key's type shows: a string with one JSON array, or a hash.

The lease is checked where the write happens: the script compares a lock in the same Redis first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ghostclean.adapters.redis_client import RedisServer
from ghostclean.app.ports import Change, Lease, Ledger, LedgerView, Record, Records, State, Trouble, WriteOutcome
from ghostclean.core.ledger import IDENTITY, LedgerMapping
from ghostclean.counts import counted
from ghostclean.errors import LedgerFailed, LedgerGone
from ghostclean.places import Place

from .mapped import mapped
from .redis_hash import HashLayout
from .redis_key import LedgerKey
from .text import LedgerText, TextLedger

_LONG = 65536  # bytes; longer texts are not sent to be compared

# ARGV: 2 new text, 3 expected text, '' where there was no key
_SWAP = """
local now = redis.call('GET', KEYS[1])
if (now or '') ~= ARGV[3] or now == '' then return 'OTHER' end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 'DONE'
"""


class StringLayout(TextLedger):
    """The `Ledger` operations on a key with one JSON array of all trades; `absent` while it was never there."""

    def __init__(self, key: LedgerKey, mapping: LedgerMapping) -> None:
        super().__init__(mapping)
        self._key = key
        self.place = f"{key.server.place}#{key.name}"
        self._looked: bytes | None = None
        self.absent = True

    def take(self, raw: bytes | None, *, absent: bool = False) -> StringLayout:
        """The same with what was just read as the next reading; `absent` where there was no key."""
        self._looked, self.absent = raw, absent
        return self

    def source(self) -> str:
        """The text of the latest reading, empty where there was no key."""
        return self._reading.source if self._reading and self._reading.exists else ""

    def describe(self) -> str:
        return f"Redis string, {counted(self._fresh().view().total, 'trade')}"

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        name = self._key.name
        reading = (("TYPE", name), ("GET", name), ("STRLEN", name), ("GETRANGE", name, 0, 0))
        return self._key.rehearse(lease, *reading, ("SET", name, "", "KEEPTTL"))

    def failed(self, what: str, cure: str) -> LedgerFailed:
        return self._key.failed(what, cure)

    def _load(self) -> LedgerText:
        raw, self._looked = self._looked, None
        if raw is None:
            raw = self._key.call("GET", self._key.name)
        if raw is None:
            if not self.absent:
                raise self.failed(
                    "has gone missing during this run", "find out who deleted it, or whether its TTL ran out"
                )
            return LedgerText("[]", exists=False, mapping=self._mapping)
        self.absent = False
        try:
            return LedgerText(raw.decode(), bare=True, mapping=self._mapping)
        except UnicodeDecodeError as error:
            raise self.failed(f"is not UTF-8 at byte {error.start}", "repair it or restore a backup") from None

    def _replace(self, reading: LedgerText, text: str, lease: Lease | None) -> bool:
        old, new = reading.source.encode() if reading.exists else b"", text.encode()
        if len(old) > _LONG:
            replaced = self._key.replace(old, new, lease)
        else:
            replaced = self._key.guarded(_SWAP, lease, new, old) == b"DONE"
        self.absent &= not replaced
        return replaced


class RedisLedger:
    """The `Ledger` in Redis.

    A missing key is an error when `seen_before` says that an earlier run has read it; else the first insert makes
    a string, or `new_layout`. `full_scan` (asked once, of a hash with an index) reads past the index.
    """

    def __init__(
        self,
        server: RedisServer,
        key: str,
        *,
        mapping: LedgerMapping = IDENTITY,
        seen_before: Callable[[], bool] = lambda: False,
        full_scan: Callable[[], bool] = lambda: True,
        new_layout: str | None = None,
    ) -> None:
        self.place = f"{server.place}#{key}"
        self._key = LedgerKey(server, key)
        self._string = StringLayout(self._key, mapping)
        self._hash = HashLayout(self._key, mapping, full_scan)
        self._seen_before = seen_before
        self._new_layout = new_layout
        self._layout: StringLayout | HashLayout | None = None

    @property
    def chunk(self) -> int:
        return (self._layout or self._string).chunk

    def read(self, *, whole: bool = False) -> LedgerView:
        return self._detect().read(whole=whole)

    def history(self, keys: frozenset[str]) -> list[Record]:
        return (self._layout or self._detect()).history(keys)

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        return self._detect().get(ids)

    def records(self) -> Records:
        return self._detect().records()

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        return (self._layout or self._detect()).write(changes, lease, done)

    def fill(self, texts: Sequence[str], *, dry_run: bool = False) -> None:
        there = self._detect()
        if there is self._string and self._new_layout == "hash":
            there.fill((), dry_run=True)
            self._hash.fill(texts, dry_run=dry_run, over=self._string.source())
        else:
            there.fill(texts, dry_run=dry_run)

    def describe(self) -> str:
        return self._detect().describe()

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        return self._detect().rehearse(lease)

    def _detect(self) -> StringLayout | HashLayout:
        name = self._key.name
        if self._layout is self._hash:
            kind, raw = *self._key.look(("TYPE", name)), None
        else:
            kind, raw = self._key.look(("TYPE", name), ("GET", name))
        if kind == b"none":
            if self._layout or self._seen_before():
                what = "is missing, though an earlier run has read it"
                cure = "restore it, or check REDIS_URL and GHOSTCLEAN_LEDGER_KEY"
                raise LedgerGone(str(self._key.failed(what, cure)))
            return self._string.take(None, absent=True)
        if kind not in (b"string", b"hash"):
            raise self._key.failed(f"is a Redis {kind.decode()}, not a string or a hash", "check GHOSTCLEAN_LEDGER_KEY")
        self._layout = self._hash if kind == b"hash" else self._string.take(raw)
        return self._layout


def open_ledger(
    place: Place,
    *,
    mapping: LedgerMapping = IDENTITY,
    state: Callable[[], State] | None = None,
    server: Callable[[str], RedisServer] = RedisServer,
    **options: Any,
) -> Ledger:
    """The ledger at the key of that place."""
    return mapped(RedisLedger(server(place.where), place.key, mapping=mapping, **options), mapping, state)
