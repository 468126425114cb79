"""Whether a folder takes what a run is going to write into it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ghostclean.app.ports import Trouble

_ENOUGH = 64 << 20  # bytes that should stay free


def disk_troubles(folder: Path) -> list[Trouble]:
    """What keeps a run from writing there, tried with a small file; a folder yet to be made counts as its parent."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.NamedTemporaryFile(prefix=".ghostclean-", dir=there) as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
        disk = os.statvfs(there)
    except OSError as error:
        return [Trouble(f"{there} can't be written: {error.strerror}", "make room, or let this user write there")]
    free = disk.f_bavail * disk.f_frsize
    short = Trouble(f"{there} has {free >> 20} MB left", "free some space", fails=False)
    return [short] if free < _ENOUGH else []
