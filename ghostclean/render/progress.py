"""A word of patience on stderr, only on a terminal and only when something takes long."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from .terminal import is_dumb

_PATIENCE = 0.3
_CLEAR = "\r\x1b[K"


@contextlib.contextmanager
def progress(what: str, silent: bool) -> Iterator[None]:
    """Shows `what…` after 300 ms and takes it away again."""
    if silent or not sys.stderr.isatty() or is_dumb():
        yield
        return
    over = threading.Event()

    def show() -> None:
        if not over.wait(_PATIENCE):
            sys.stderr.write(f"\r{what}…")
            sys.stderr.flush()
            over.wait()
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    helper = threading.Thread(target=show, daemon=True, name="ghostclean-progress")
    helper.start()
    try:
        yield
    finally:
        over.set()
        helper.join()
