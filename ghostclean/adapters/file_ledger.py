"""A ledger in a JSON file: an array of trades, or an object with `trades`.

How the file is replaced while the app writes it too, `ledger_file` says. When the app was
quicker, our changes are applied again to what it wrote.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ghostclean.app.ports import Change, Lease, LedgerView, Record, WriteOutcome
from ghostclean.core.jsontext import PRETTY
from ghostclean.errors import LedgerFailed

from .ledger_file import LOCK_SECONDS, LedgerFile
from .ledger_text import LedgerText, no_ledger

_ATTEMPTS = 20
_GARBLED_SECONDS = 1.0  # an app that writes in place shows half a text for a moment
_PAUSE = 0.02
_NEW = "[]\n"


class FileLedger:
    """The `Ledger` in a file.

    `seen_before` tells whether an earlier run has read this ledger: a file that is missing then
    is an error, while a file never seen is a ledger without trades (created by the first insert).
    It is asked only when the file is missing.
    """

    def __init__(
        self, path: str | Path, *, seen_before: Callable[[], bool] = lambda: False, lock_seconds: float = LOCK_SECONDS
    ) -> None:
        self._file = LedgerFile(path, lock_seconds)
        self.path = self._file.path
        self.place = f"file:{self.path}"
        self._seen_before = seen_before
        self._reading: LedgerText | None = None
        self._existed = False

    # ------------------------------------------------------------------ reading

    def read(self) -> LedgerView:
        """All active records; raises LedgerFailed for anything that is not a ledger."""
        self._file.settle()
        raw, self._reading = self._fresh()
        return replace(self._reading.view(), exists=raw is not None)

    def history(self, keys: frozenset[str]) -> list[Record]:
        """The final records of these symbol keys, from the latest reading."""
        with no_ledger(self._file.failed):
            return (self._reading or self._fresh()[1]).history(keys)

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        """The present records with these ids, read anew."""
        self._reading = self._fresh()[1]
        with no_ledger(self._file.failed):
            return self._reading.get(ids)

    def known_since(self) -> str:
        """Layout and size for people."""
        view = (self._reading or self._fresh()[1]).view()
        return f"JSON file, {view.total} trades"

    def _fresh(self) -> tuple[bytes | None, LedgerText]:
        """The file's bytes (None: not there) and their reading."""
        end = time.monotonic() + _GARBLED_SECONDS
        while True:
            raw = self._file.content()
            if raw is None:
                if self._existed or self._seen_before():
                    raise self._file.failed(
                        "is missing, though an earlier run has read it",
                        "restore it, or point GHOSTCLEAN_LEDGER at the right file",
                    )
                return None, LedgerText(_NEW)
            try:
                with no_ledger(self._file.failed):
                    reading = LedgerText(self._decoded(raw))
            except LedgerFailed:
                if time.monotonic() >= end:
                    raise
                time.sleep(random.uniform(0, _PAUSE))
            else:
                self._existed = True
                return raw, reading

    def _decoded(self, raw: bytes) -> str:
        if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            raise self._file.failed("starts with a byte order mark", "save it as UTF-8 without one")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self._file.failed(f"is not UTF-8 at byte {error.start}", "save it as UTF-8") from None

    # ------------------------------------------------------------------ writing

    def write(self, changes: Sequence[Change], lease: Lease) -> list[WriteOutcome]:
        """Applies the changes in one replacement of the file; raises FencedOff, LedgerFailed."""
        if not changes:
            return []
        with self._file.turn():
            return self._write(changes, lease)

    def _write(self, changes: Sequence[Change], lease: Lease) -> list[WriteOutcome]:
        for _ in range(_ATTEMPTS):
            before, reading = self._fresh()
            with no_ledger(self._file.failed):
                text, outcomes = reading.apply(changes, PRETTY)
            if text == reading.source:
                return outcomes
            if self._file.replace(before, text.encode(), lease.verify):
                self._existed = True
                return outcomes
            time.sleep(_PAUSE)
        raise self._file.failed("is written by somebody else all the time", "run again when the app is quieter")
