"""A ledger in a JSON file: an array of trades, or an object with `trades`."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ghostclean.adapters.disk import disk_troubles
from ghostclean.app.ports import Lease, Ledger, LedgerView, State, Trouble
from ghostclean.core.ledger import IDENTITY, PRETTY, BadJson, LedgerMapping
from ghostclean.counts import counted
from ghostclean.errors import LedgerFailed, LedgerGone
from ghostclean.places import Place

from .mapped import mapped
from .replaced_file import LOCK_SECONDS, ReplacedFile
from .text import LedgerText, TextLedger

_GARBLED_SECONDS = 1.0  # an app that writes in place shows half a text for a moment
_PAUSE = 0.02
_NEW = "[]\n"


class FileLedger(TextLedger):
    """A file that is missing is an error when `seen_before` says an earlier run has read it, else no trades."""

    _first = PRETTY

    def __init__(
        self,
        path: str | Path,
        *,
        mapping: LedgerMapping = IDENTITY,
        seen_before: Callable[[], bool] = lambda: False,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        super().__init__(mapping)
        self._file = ReplacedFile(path, lock_seconds)
        self.place = f"file:{self._file.path}"
        self._seen_before = seen_before
        self._existed = False

    def read(self, *, whole: bool = False) -> LedgerView:
        self._file.settle()
        return super().read()

    def fill(self, texts: Sequence[str], *, dry_run: bool = False) -> None:
        if not dry_run:
            try:
                self._file.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self.failed(
                    f"cannot be written: {error.strerror}", "check the path and its permissions"
                ) from None
        super().fill(texts, dry_run=dry_run)

    def describe(self) -> str:
        return f"JSON file, {counted((self._reading or self._fresh()).view().total, 'trade')}"

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        if self._file.path.exists():
            with self._turn():
                self._file.rehearse()
        return disk_troubles(self._file.path.parent)

    def failed(self, what: str, cure: str) -> LedgerFailed:
        return self._file.failed(what, cure)

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        return self._file.turn()

    def _load(self) -> LedgerText:
        end = time.monotonic() + _GARBLED_SECONDS
        while True:
            raw = self._file.content()
            if raw is None:
                if self._existed or self._seen_before():
                    what = "is missing, though an earlier run has read it"
                    raise LedgerGone(str(self.failed(what, "restore it, or point GHOSTCLEAN_LEDGER at the right file")))
                return LedgerText(_NEW, exists=False, mapping=self._mapping)
            try:
                reading = LedgerText(self._decoded(raw), mapping=self._mapping)
            except (BadJson, LedgerFailed):
                if time.monotonic() >= end:
                    raise
                time.sleep(random.uniform(0, _PAUSE))
            else:
                self._existed = True
                return reading

    def _decoded(self, raw: bytes) -> str:
        if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            raise self.failed("starts with a byte order mark", "save it as UTF-8 without one")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.failed(f"is not UTF-8 at byte {error.start}", "save it as UTF-8") from None

    def _replace(self, reading: LedgerText, text: str, lease: Lease | None) -> bool:
        before = reading.source.encode() if reading.exists else None
        replaced = self._file.replace(before, text.encode(), lease.verify if lease else lambda: None)
        self._existed |= replaced
        return replaced


def open_ledger(
    place: Place,
    *,
    mapping: LedgerMapping = IDENTITY,
    state: Callable[[], State] | None = None,
    seen_before: Callable[[], bool] = lambda: False,
    **_: Any,
) -> Ledger:
    return mapped(FileLedger(place.path, mapping=mapping, seen_before=seen_before), mapping, state)
