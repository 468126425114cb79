"""A fault at effect n of a run: `program.start(before=("tests.crash.saboteur:strike", fault))`.

Wraps the methods of the adapters in the process under test, so that the product knows nothing of it.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EFFECTS = {
    "ghostclean.adapters.state.redis:RedisState": (
        "open", "acquire", "recall_all", "intend", "commit", "remember",
    ),
    "ghostclean.adapters.state.sqlite:SqliteState": (
        "open", "acquire", "recall_all", "intend", "commit", "remember",
    ),
    "ghostclean.adapters.ledgers.sql:SqlLedger": ("read", "history", "get", "write"),
    "ghostclean.adapters.ledgers.redis:RedisLedger": ("read", "history", "get", "write"),
    "ghostclean.adapters.ledgers.file:FileLedger": ("read", "history", "get", "write"),
    "ghostclean.adapters.spool:FolderSpool": ("put", "deliver"),
    "ghostclean.adapters.alpaca:AlpacaBroker": (
        "account", "working_orders", "positions", "order", "order_by_client_id", "history", "fills",
        "activities", "clock",
    ),
}  # fmt: skip


def strike(fault: dict[str, Any]) -> None:
    """Lets this process fail as asked; what effects it had is in the file `seen` at its end."""
    saboteur = Saboteur(fault)
    saboteur.wrap()
    atexit.register(lambda: put(Path(fault["seen"]), json.dumps(saboteur.names)))


def put(path: Path, text: str) -> None:
    """The whole text or no file, whenever this process is killed."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


class Saboteur:
    """Counts the effects of this process and strikes at one of them."""

    def __init__(self, fault: dict[str, Any]) -> None:
        self.at, self.how = fault.get("at", 0), fault.get("how", "")
        self.name = fault.get("name", "")
        self.marker = Path(fault.get("marker", "/nowhere"))
        self.names: list[str] = []
        self._one = threading.RLock()

    def wrap(self) -> None:
        for place, methods in EFFECTS.items():
            module, _, name = place.partition(":")
            owner = getattr(__import__(module, fromlist=[name]), name)
            for method in methods:
                setattr(owner, method, self._around(getattr(owner, method), f"{name}.{method}"))

    def _around(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._one:
                self.names.append(name)
                struck = len(self.names) == self.at or bool(self.name and name.endswith(self.name))
                self.name = "" if struck else self.name  # the first of that name, once
            if not struck:
                return real(*args, **kwargs)
            if self.how.endswith("_after"):
                real(*args, **kwargs)
            self._strike(name)
            return real(*args, **kwargs)

        return call

    def _strike(self, name: str) -> None:
        from ghostclean.errors import BrokerError, LedgerFailed, StateFailed

        if self.how.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how.startswith("hang"):
            time.sleep(3600)
        if self.how.startswith("stop"):
            put(self.marker, str(os.getpid()))
            # To this thread: sent to the process, it may go on into what it should stop before.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return
        kind = {"Alp": BrokerError, "Red": StateFailed, "Sql": StateFailed, "Fil": LedgerFailed, "Fol": StateFailed}[
            name[:3]
        ]
        raise (LedgerFailed if "Ledger" in name else kind)("out of reach, says the saboteur")
