"""The program under test in a process of its own, with a fault at effect n: run as `python -m tests.crash.runner`.

Reads one JSON request a line: arguments, environment, fault. Every request becomes a forked child
(the libraries are loaded once), which wraps the methods of the adapters, so that the product knows
nothing of it. Answers one JSON line a request: exit code, output, the effects that were seen.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EFFECTS = {
    "ghostclean.adapters.state.redis:RedisState": (
        "open", "acquire", "recall_all", "intend", "commit",
    ),
    "ghostclean.adapters.state.sqlite:SqliteState": (
        "open", "acquire", "recall_all", "intend", "commit",
    ),
    "ghostclean.adapters.ledgers.redis:RedisLedger": ("read", "history", "get", "write"),
    "ghostclean.adapters.ledgers.file:FileLedger": ("read", "history", "get", "write"),
    "ghostclean.adapters.spool:FolderSpool": ("put", "deliver"),
    "ghostclean.adapters.alpaca:AlpacaBroker": (
        "account", "working_orders", "positions", "order", "order_by_client_id", "history", "fills",
        "activities", "clock",
    ),
}  # fmt: skip


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
            self.marker.with_suffix(".new").write_text(str(os.getpid()))
            self.marker.with_suffix(".new").rename(self.marker)
            # To this thread: sent to the process, it may go on into what it should stop before.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return
        kind = {"Alp": BrokerError, "Red": StateFailed, "Sql": StateFailed, "Fil": LedgerFailed, "Fol": StateFailed}[
            name[:3]
        ]
        raise (LedgerFailed if "Ledger" in name else kind)("out of reach, says the saboteur")


def child(request: dict[str, Any], out: Path) -> None:
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    saboteur = Saboteur(request.get("fault") or {})
    saboteur.wrap()
    sys.argv = ["ghostclean", *request["args"]]
    with (out / "stdout").open("w") as shown, (out / "stderr").open("w") as said:
        sys.stdout, sys.stderr = shown, said
        code = 70
        try:
            from ghostclean.cli import main

            code = main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            shown.flush()
            said.flush()
            (out / "effects").write_text(json.dumps(saboteur.names))
    os._exit(code)


def serve() -> None:
    import ghostclean.adapters.alpaca
    import ghostclean.adapters.alpaca.transport
    import ghostclean.adapters.ledgers.file
    import ghostclean.adapters.ledgers.redis
    import ghostclean.adapters.spool
    import ghostclean.adapters.state.redis
    import ghostclean.adapters.state.sqlite
    import ghostclean.app.reconcile
    import ghostclean.cli.app
    import ghostclean.settings
    import ghostclean.wiring  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            began = time.monotonic()
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    child(request, out)
                os._exit(70)
            answer: dict[str, Any] = {"pid": pid}
            end = began + request.get("kill_after", 1e9)
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
                if time.monotonic() >= end:
                    os.kill(pid, signal.SIGKILL)
                    end = 1e18
                time.sleep(0.001)
            answer |= {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}
            for name in ("stdout", "stderr", "effects"):
                answer[name] = (out / name).read_text() if (out / name).exists() else ""
            answer["effects"] = json.loads(answer["effects"] or "[]")
        sys.__stdout__.write(json.dumps(answer) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]


if __name__ == "__main__":
    serve()
