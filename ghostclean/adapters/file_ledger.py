"""A ledger in a JSON file: an array of trades, or an object with `trades`.

Every write makes a complete new file beside the old one and puts it in its place in one step,
so a reader sees the old text or the new, and a crash leaves one of the two. Our own processes
take turns by `<path>.lock`; an app that takes the same lock (flock) is never crossed at all. For
one that does not, the file's content is compared just before the step, and what the step
displaced is looked at once more: if it is not what we read, it is put back (a reader may see
our text for that instant), and our changes are applied again to what the app wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ghostclean.app.ports import Change, Lease, LedgerView, Record, WriteOutcome
from ghostclean.core.jsontext import PRETTY
from ghostclean.errors import LedgerFailed

from .file_swap import exchange
from .ledger_text import LedgerText, no_ledger

_ATTEMPTS = 20
_LOCK_SECONDS = 5.0
_GARBLED_READS = 20  # an app that writes in place shows half a text for a moment
_PAUSE = 0.02
_TURN = 0.004
_NEW = "[]\n"


class FileLedger:
    """The `Ledger` in a file.

    `seen_before` tells whether an earlier run has read this ledger: a file that is missing then
    is an error, while a file never seen is a ledger without trades (created by the first insert).
    It is asked only when the file is missing.
    """

    def __init__(
        self, path: str | Path, *, seen_before: Callable[[], bool] = lambda: False, lock_seconds: float = _LOCK_SECONDS
    ) -> None:
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self.place = f"file:{self.path}"
        self._seen_before = seen_before
        self._lock_seconds = lock_seconds
        self._reading: LedgerText | None = None
        self._existed = False

    # ------------------------------------------------------------------ reading

    def read(self) -> LedgerView:
        """All active records; raises LedgerFailed for anything that is not a ledger."""
        self._reading = self._fresh()[1]
        return self._reading.view()

    def history(self, keys: frozenset[str]) -> list[Record]:
        """The final records of these symbol keys, from the latest reading."""
        with no_ledger(self._failed):
            return (self._reading or self._fresh()[1]).history(keys)

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        """The present records with these ids, read anew."""
        self._reading = self._fresh()[1]
        with no_ledger(self._failed):
            return self._reading.get(ids)

    def known_since(self) -> str:
        """Layout and size for people."""
        view = (self._reading or self._fresh()[1]).view()
        return f"JSON file, {view.total} trades"

    def _fresh(self) -> tuple[bytes | None, LedgerText]:
        """The file's bytes (None: not there) and their reading."""
        for attempt in range(_GARBLED_READS):
            raw = self._bytes()
            if raw is None:
                if self._existed or self._seen_before():
                    raise self._failed(
                        "is missing, though an earlier run has read it",
                        "restore it, or point GHOSTCLEAN_LEDGER at the right file",
                    )
                return None, LedgerText(_NEW)
            try:
                with no_ledger(self._failed):
                    reading = LedgerText(self._decoded(raw))
            except LedgerFailed:
                if attempt + 1 == _GARBLED_READS:
                    raise
                time.sleep(random.uniform(0, _PAUSE))
            else:
                self._existed = True
                return raw, reading
        raise AssertionError("unreachable")

    def _bytes(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(f"cannot be read: {error.strerror}", "check the path and its permissions") from None

    def _decoded(self, raw: bytes) -> str:
        if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            raise self._failed("starts with a byte order mark", "save it as UTF-8 without one")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self._failed(f"is not UTF-8 at byte {error.start}", "save it as UTF-8") from None

    # ------------------------------------------------------------------ writing

    def write(self, changes: Sequence[Change], lease: Lease) -> list[WriteOutcome]:
        """Applies the changes in one replacement of the file; raises FencedOff, LedgerFailed."""
        if not changes:
            return []
        try:
            with self._lock():
                return self._write(changes, lease)
        except OSError as error:
            raise self._failed(
                f"cannot be written: {error.strerror}", "check free space and the folder's permissions"
            ) from None

    def _write(self, changes: Sequence[Change], lease: Lease) -> list[WriteOutcome]:
        for _ in range(_ATTEMPTS):
            before, reading = self._fresh()
            with no_ledger(self._failed):
                text, outcomes = reading.apply(changes, PRETTY)
            if text == reading.source:
                return outcomes
            with self._prepared(text.encode()) as prepared:
                lease.verify()
                if self._bytes() == before and self._put_in_place(prepared, before):
                    _sync_folder(self.path.parent)
                    self._existed = True
                    return outcomes
            time.sleep(_PAUSE)
        raise self._failed("is written by somebody else all the time", "run again when the app is quieter")

    def _put_in_place(self, prepared: Path, before: bytes | None) -> bool:
        """Makes the prepared file the ledger, unless that is no longer the one we read."""
        if before is None:
            with contextlib.suppress(FileExistsError):
                self.path.hardlink_to(prepared)
                return True
            return False
        placed = prepared.read_bytes()
        if not exchange(prepared, self.path):  # not on this system: the comparison above must do
            prepared.replace(self.path)
            return True
        displaced = prepared.read_bytes()
        if displaced == before:
            return True
        while True:  # until the newest foreign text stands there again, and we hold our own
            exchange(prepared, self.path)
            taken = prepared.read_bytes()
            if taken == placed:
                return False
            placed, displaced = displaced, taken

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Our turn among all processes that use the lock file; bounded in time."""
        handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            end = time.monotonic() + self._lock_seconds
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise self._failed(
                            f"is locked: somebody holds {self.path}.lock", "let that process end, then run again"
                        ) from None
                    time.sleep(random.uniform(_TURN / 10, _TURN))  # a busy app leaves only short gaps
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _prepared(self, content: bytes) -> Iterator[Path]:
        """A complete, synced new file beside the ledger, with its mode and owner."""
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.unlink(missing_ok=True)  # left by a killed process: we hold the lock
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as new:
                new.write(content)
                self._dress(new.fileno())
                new.flush()
                os.fsync(new.fileno())
            yield beside
        finally:
            beside.unlink(missing_ok=True)  # missing when it has become the ledger

    def _dress(self, handle: int) -> None:
        try:
            old = self.path.stat()
        except FileNotFoundError:
            os.fchmod(handle, 0o600)
            return
        mine = os.fstat(handle)
        if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):
            try:
                os.fchown(handle, old.st_uid, old.st_gid)
            except PermissionError:
                raise self._failed(
                    "belongs to another user, and its owner could not be kept", "run ghostclean as its owner"
                ) from None
        os.fchmod(handle, stat.S_IMODE(old.st_mode))

    def _failed(self, what: str, cure: str) -> LedgerFailed:
        return LedgerFailed(f"The ledger {self.path} {what}; nothing was changed. Cure: {cure}.")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
