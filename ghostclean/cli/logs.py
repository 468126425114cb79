"""Logs: to stderr, and without secrets; only commands that do something load this."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable


def log_to_stderr(clean: Callable[[str], str], *, verbose: bool) -> None:
    """Sends every log record through `clean` to stderr: warnings, and our own details with `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Cleaning("ghostclean: %(message)s", clean))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ghostclean").setLevel(logging.DEBUG if verbose else logging.WARNING)


class _Cleaning(logging.Formatter):
    """Formats a record, its traceback included, and cleans the whole of it."""

    def __init__(self, layout: str, clean: Callable[[str], str]) -> None:
        super().__init__(layout)
        self._clean = clean

    def format(self, record: logging.LogRecord) -> str:
        return self._clean(super().format(record))
