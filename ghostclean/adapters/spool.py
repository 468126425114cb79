"""A local folder for run records that the state could not take.

One file a record, written whole and delivered exactly once, oldest first; a damaged one is set aside as `.bad`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ghostclean.app.ports import RunCommit, State, Trouble
from ghostclean.errors import StateFailed

from .disk import disk_troubles
from .state.form import commit_from, commit_text, namespace

_log = logging.getLogger("ghostclean")


# With TLS or without, by whatever name of this machine: it is the same Redis.
_SPELLING = re.compile(r"^rediss?://((localhost|127\.0\.0\.1|::1)|[^/]*?):(?=\d+/)")


class FolderSpool:
    """The `Spool` of the ledger at `ledger_place`, in a folder of its own below `folder`."""

    def __init__(self, folder: str | Path, *, ledger_place: str, now: Callable[[], int] = time.time_ns) -> None:
        same = _SPELLING.sub(lambda url: f"redis://{'localhost' if url[2] else url[1]}:", ledger_place)
        self.folder = Path(folder).expanduser().absolute() / namespace(same)
        self._now = now

    def put(self, commit: RunCommit) -> None:
        with self._translated("kept"):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = self.folder / f"{self._now():020d}-{namespace(commit.kind + commit.run_id)}.json"
            new = name.with_suffix(f".{os.getpid()}.new")
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(commit_text(commit))
                file.flush()
                os.fsync(file.fileno())
            new.rename(name)

    def waiting(self) -> int:
        return len(self._files())

    def rehearse(self) -> list[Trouble]:
        """What keeps it from taking a record."""
        return disk_troubles(self.folder)

    def deliver(self, state: State) -> int:
        delivered = 0
        for file in self._files():
            with self._translated("delivered"):
                try:
                    commit = commit_from(file.read_text(encoding="utf-8"))
                except FileNotFoundError:  # another run was quicker
                    continue
                except (ValueError, KeyError, TypeError, IsADirectoryError):
                    aside = file.rename(file.with_suffix(".bad"))
                    _log.warning("%s is no record of a run, so it was not delivered; it is kept as %s", file, aside)
                    continue
            state.commit(commit)
            with self._translated("delivered"):
                file.unlink(missing_ok=True)
            delivered += 1
        return delivered

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"))

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateFailed(
                f"The record of a run could not be {doing} in {self.folder}: {error.strerror}; "
                "the ledger is not touched by this. Cure: make room there, or make the folder writable."
            ) from None
