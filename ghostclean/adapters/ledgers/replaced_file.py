"""A file that is replaced as a whole while another program writes it too.

A replacement is a complete, synced new file that takes the old one's place in one step, with its mode and
owner: a reader sees the old text or the new, and a crash leaves one of the two. Invariants:

1. Our processes, and an app that locks `<path>.lock` too (flock), take turns.
2. Against an app without the lock the content is compared just before the step, and what the step displaced
   just after: if it is not what we read, it is put back.
3. What is displaced survives a kill: until it is known to be what we read it stands in a file named by the
   digests of both texts, which the next process puts back or, where the ledger has changed since, keeps.

2 and 3 need a step that exchanges two files, as Linux has; elsewhere the comparison before it is all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ghostclean.errors import LedgerFailed

_log = logging.getLogger("ghostclean")

LOCK_SECONDS = 5.0
_TURN = 0.004
_MET = "ghostclean: first runs in a row "
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


# What an error of the system means for a file that is to be locked and replaced, and the cure.
_NO_LOCKS = (
    "its file system has no locks, as NFS without its lock service",
    "start that service, or keep the ledger on a disk of this machine",
)
_CAUSES = {
    errno.EBUSY: ("it is mounted as a single file, which cannot be replaced", "mount the folder that holds it instead"),
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOTSUP: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.EROFS: ("its file system is mounted read-only", "mount it for writing"),
}


class ReplacedFile:
    """Such a file, here the ledger; links are followed."""

    def __init__(self, path: str | Path, lock_seconds: float = LOCK_SECONDS) -> None:
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self._lock_seconds = lock_seconds

    def content(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.failed(f"cannot be read: {error.strerror}", "check the path and its permissions") from None

    def failed(self, what: str, cure: str) -> LedgerFailed:
        return LedgerFailed(f"The ledger {self.path} {what}; nothing was changed. Cure: {cure}.")

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Our turn to write, bounded in time; what a killed process left half done is settled first."""
        try:
            with self._lock(self._lock_seconds):
                self._settle()
                yield
        except OSError as error:
            cause, cure = _CAUSES.get(
                error.errno or 0, (error.strerror, "check free space and the folder's permissions")
            )
            raise self.failed(f"cannot be written: {cause}", cure) from None

    def settle(self) -> None:
        """Puts right what a killed process left half done, unless somebody is at work just now."""
        # One that may not write here leaves it to the next writer; that one fails aloud.
        with contextlib.suppress(OSError, LedgerFailed):
            if self._swaps():
                with self._lock(0):
                    self._settle()

    def met(self, *, known: bool) -> int:
        """How many runs in a row, this one included, came with a state that had never seen this file.

        Counted in the lock file, which stays where the ledger stays; 0 where that cannot be, or where an app
        that locks with the same file writes into it.
        """
        with contextlib.suppress(OSError, ValueError):
            if known and not Path(f"{self.path}.lock").stat().st_size:
                return 0
            with os.fdopen(self._lock_file(), "r+") as file:
                said = file.read()
                if said and not said.startswith(_MET):
                    return 0
                count = 0 if known else int(said.removeprefix(_MET) or 0) + 1
                file.seek(0)
                file.truncate()
                file.write(f"{_MET}{count}" if count else "")
            return count
        return 0

    # ------------------------------------------------------------------ replacing

    def replace(self, before: bytes | None, content: bytes, last_check: Callable[[], None] = lambda: None) -> bool:
        """Replaces the content if it is still `before`, in our turn; `last_check` may forbid it by raising."""
        with self._prepared(content) as new:
            last_check()
            if before is not None:
                self._check_names()
            if self.content() != before or not self._put_in_place(new, before, content):
                return False
            _sync_folder(self.path.parent)
        return True

    def rehearse(self) -> None:
        """A replacement by the same content, up to the step itself; raises what that would raise."""
        with self._prepared(self.content() or b""):
            self._check_names()
        with contextlib.suppress(OSError):
            mounted = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
            if str(self.path) in mounted:
                cause, cure = _CAUSES[errno.EBUSY]
                raise self.failed(f"cannot be written: {cause}", cure)

    def _check_names(self) -> None:
        if self.path.stat().st_nlink > 1:
            raise self.failed(
                "has a second name (a hard link), which would keep the old text",
                "keep one name, or make the other a symbolic link",
            )

    def _put_in_place(self, new: Path, before: bytes | None, content: bytes) -> bool:
        """Makes the new file the ledger, unless that is no longer the one we read."""
        if before is None:
            with contextlib.suppress(FileExistsError):
                self.path.hardlink_to(new)
                return True
            return False
        swap = new.rename(self.path.with_name(f".{self.path.name}.{_digest(before)}.{_digest(content)}.swap"))
        try:
            if not exchange(swap, self.path):  # not on this system: the comparison above must do
                swap.replace(self.path)
                return True
        except OSError:
            swap.unlink()
            raise
        displaced = swap.read_bytes()
        if displaced != before:
            self._put_back(swap, displaced, content)
        swap.unlink()
        return displaced == before

    def _put_back(self, swap: Path, displaced: bytes, placed: bytes) -> None:
        """Exchanges until the newest foreign text stands there again, and we hold our own."""
        while True:
            exchange(swap, self.path)
            taken = swap.read_bytes()
            if taken == placed:
                return
            placed, displaced = displaced, taken

    @contextlib.contextmanager
    def _prepared(self, content: bytes) -> Iterator[Path]:
        new = self.path.with_name(f".{self.path.name}.new")
        new.unlink(missing_ok=True)  # left by a killed process: it is our turn
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                self._dress(file.fileno())
                file.flush()
                os.fsync(file.fileno())
            yield new
        finally:
            new.unlink(missing_ok=True)  # missing when it has become the ledger

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
                raise self.failed(
                    "belongs to another user, and its owner could not be kept", "run ghostclean as its owner"
                ) from None
        os.fchmod(handle, stat.S_IMODE(old.st_mode))

    # ------------------------------------------------------------------ after a kill

    def _swaps(self) -> list[Path]:
        start = f".{self.path.name}."
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path.parent) as found:
            return [Path(e.path) for e in found if e.name.startswith(start) and e.name.endswith(".swap")]
        return []

    def _settle(self) -> None:
        """Deletes a killed process's own leftovers, and puts back an app's text that it displaced."""
        for swap in self._swaps():
            before, _, ours = swap.name.removesuffix(".swap").removeprefix(f".{self.path.name}.").partition(".")
            held, now = swap.read_bytes(), self.content()
            if _digest(held) in (before, ours):
                swap.unlink()
            elif now is not None and _digest(now) == ours:
                self._put_back(swap, held, now)
                swap.unlink()
                _log.warning("%s: what the app had written while a run was killed stands there again", self.path)
            else:
                kept = self.path.with_name(f"{self.path.name}.kept-{_digest(held)}")
                swap.rename(kept)
                _log.warning("%s has changed since a run was killed; what it displaced is kept as %s", self.path, kept)
            _sync_folder(self.path.parent)

    # ------------------------------------------------------------------ the lock

    @contextlib.contextmanager
    def _lock(self, seconds: float) -> Iterator[None]:
        handle = self._lock_file()
        try:
            end = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise self.failed(
                            f"is locked: somebody holds {self.path}.lock", "let that process end, then run again"
                        ) from None
                    time.sleep(random.uniform(_TURN / 10, _TURN))  # a busy app leaves only short gaps
            yield
        finally:
            os.close(handle)

    def _lock_file(self) -> int:
        """The lock file, opened; a new one belongs to the ledger's owner, so that the app may take it too."""
        name, flags = f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            handle = os.open(name, flags | os.O_EXCL, 0o666)
        except FileExistsError:
            return os.open(name, flags, 0o666)
        with contextlib.suppress(OSError):  # no ledger yet, or not ours to give: then it stays ours
            ledger = self.path.stat()
            os.fchown(handle, ledger.st_uid, ledger.st_gid)
            os.fchmod(handle, stat.S_IMODE(ledger.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
        return handle


def exchange(one: Path, other: Path) -> bool:
    """Swaps what two names stand for; False where the system cannot, OSError on failure."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if not rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
