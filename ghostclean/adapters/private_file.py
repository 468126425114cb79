"""A file that only its owner may read, complete or not there at all."""

from __future__ import annotations

import os
from pathlib import Path

from ghostclean.errors import BadSettings


def write_private(path: str | Path, text: str, *, new: bool = False) -> str:
    """Writes beside and renames; returns the full path; raises BadSettings when it cannot.

    A `new` file takes nobody's place.
    """
    target = Path(path).expanduser().absolute()
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if new:
                os.link(beside, target)
            else:
                beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise BadSettings(f"{target} cannot be written: {error.strerror or error} (nothing was written)") from None
    return str(target)
