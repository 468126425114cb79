"""Logs: to stderr, one record a line or one JSON object a line, and without secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from ghostclean.core.broker import iso


def log_to_stderr(clean: Callable[[str], str], *, verbose: bool, as_json: bool) -> None:
    """Sends every log record through `clean` to stderr: warnings, and our own details with `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Cleaning(clean, as_json=as_json))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ghostclean").setLevel(logging.DEBUG if verbose else logging.WARNING)


def log_line(level: str, message: str) -> str:
    return json.dumps({"time": iso(datetime.now(UTC)), "level": level, "message": message})


class _Cleaning(logging.Formatter):
    def __init__(self, clean: Callable[[str], str], *, as_json: bool) -> None:
        super().__init__("%(message)s" if as_json else "ghostclean: %(message)s")
        self._clean = clean
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        text = self._clean(super().format(record))
        return log_line(record.levelname.lower(), text) if self._as_json else text
