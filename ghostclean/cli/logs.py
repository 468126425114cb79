"""Logs: to stderr, one record a line or one JSON object a line, and without secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

from ghostclean.core.broker import iso
from ghostclean.lines import printable

ABOUT = ContextVar("ABOUT", default="")  # the account that a thread works for, where there are several


def log_to_stderr(clean: Callable[[str], str], *, verbose: bool, as_json: bool) -> None:
    """Sends every log record through `clean` to stderr: warnings, and our own details with `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Cleaning(clean, as_json=as_json))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("ghostclean").setLevel(logging.DEBUG if verbose else logging.WARNING)


def log_line(level: str, message: str, account: str = "") -> str:
    whose = {"account": account} if account else {}
    return json.dumps({"time": iso(datetime.now(UTC)), "level": level, **whose, "message": message})


class _Cleaning(logging.Formatter):
    def __init__(self, clean: Callable[[str], str], *, as_json: bool) -> None:
        super().__init__("%(message)s")
        self._clean = clean
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        text = self._clean(super().format(record))
        account = ABOUT.get()
        if self._as_json:
            return log_line(record.levelname.lower(), text, account)
        lines = (f"ghostclean: {account}: {text}" if account else f"ghostclean: {text}").splitlines()
        return "\n".join(printable(line, None) for line in lines)
