"""A ledger in Redis: the layout follows from the key's type, not from a setting.

A string holds one JSON array of all trades, a hash one JSON object a trade. The right to write
is checked where the write happens: when the lock lives in the same Redis, the script that
writes compares it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ghostclean.app.ports import Change, Lease, LedgerView, Record, WriteOutcome

from .redis_client import RedisServer
from .redis_hash import HashLayout
from .redis_key import LedgerKey
from .redis_string import StringLayout

_HASH_CHUNK = 25
_STRING_CHUNK = 1_000_000


class RedisLedger:
    """The `Ledger` in Redis.

    `seen_before` tells whether an earlier run has read this ledger: a key that is missing then
    is an error, while a key never seen is a ledger without trades (the first insert creates a
    string). It is asked only when the key is missing. `full_scan` matters only for a hash with
    the app's index `<key>:open`: False reads what the index names, True reads the whole hash;
    it is asked once, at the first read. An index that nobody maintains leaves ghosts and pending
    trades out of sight, so it must be True now and then (`app.index` says when).
    """

    def __init__(
        self,
        server: RedisServer,
        key: str,
        *,
        seen_before: Callable[[], bool] = lambda: False,
        full_scan: Callable[[], bool] = lambda: True,
    ) -> None:
        self.place = f"{server.place}#{key}"
        self._key = LedgerKey(server, key)
        self._seen_before = seen_before
        self._full_scan = full_scan
        self._found = False
        self._layout: StringLayout | HashLayout | None = None

    @property
    def chunk(self) -> int:
        """How many changes are best written at once: a string is written whole, a hash trade by trade."""
        return _HASH_CHUNK if isinstance(self._layout, HashLayout) else _STRING_CHUNK

    def read(self) -> LedgerView:
        """All active records; raises LedgerFailed for anything that is not a ledger."""
        return self._detect().read()

    def read_all(self) -> LedgerView:
        """As `read`, but of a hash the whole, whatever the app's index names."""
        layout = self._detect()
        return layout.read_all() if isinstance(layout, HashLayout) else layout.read()

    def history(self, keys: frozenset[str]) -> list[Record]:
        """The final records of these symbol keys; for a string from the latest reading."""
        return (self._layout or self._detect()).history(keys)

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        """The present records with these ids, read anew."""
        return self._detect().get(list(ids))

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        """Compare-and-set, one outcome a change; raises FencedOff and LedgerFailed.

        `done` gets each outcome as soon as it stands: a hash is written trade by trade, and what
        was written before a failure stays written.
        """
        outcomes = [] if done is None else done
        if changes:
            outcomes.extend((self._layout or self._detect()).write(changes, lease))
        return outcomes

    def known_since(self) -> str:
        """Layout and size for people."""
        return self._detect().describe()

    def _detect(self) -> StringLayout | HashLayout:
        kind = self._key.type()
        if kind == "none":
            if self._found or self._seen_before():
                raise self._key.failed(
                    "is missing, though an earlier run has read it",
                    "restore it, or check REDIS_URL and GHOSTCLEAN_LEDGER_KEY",
                )
            return StringLayout(self._key, absent=True)
        wanted: type[StringLayout] | type[HashLayout]
        if kind == "string":
            wanted = StringLayout
        elif kind == "hash":
            wanted = HashLayout
        else:
            raise self._key.failed(f"is a Redis {kind}, not a string or a hash", "check GHOSTCLEAN_LEDGER_KEY")
        self._found = True
        if not isinstance(self._layout, wanted):
            self._layout = HashLayout(self._key, self._full_scan) if wanted is HashLayout else StringLayout(self._key)
        return self._layout
