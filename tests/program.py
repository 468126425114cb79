"""The program as a process of its own, forked from one that has its libraries loaded.

Everything about it is real: arguments, environment, streams, signals, threads, exit code. Only the start and the end of
the interpreter are spared, which cost more than most runs do; a run with a `PYTHONPATH` of its own gets them as well.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

import ghostclean
from ghostclean.cli import main
from ghostclean.cli.app import app, built

ROOT = Path(__file__).resolve().parents[1]
_COMMAND = (sys.executable, "-c", "import sys; from ghostclean.cli import main; sys.exit(main())")
FRESH = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}"}  # the environment of a run that starts an interpreter
_LIMIT = 1 << 20  # bytes of a request
_NUMBER = struct.Struct("q")  # a pid, then an exit code


class Process:
    """A forked run, to be handled like a `subprocess.Popen`."""

    def __init__(self, args: tuple[str, ...], stdout: int, stderr: int, status: int) -> None:
        self.args = args
        self.stdout: IO[str] | None = os.fdopen(stdout)
        self.stderr: IO[str] | None = os.fdopen(stderr)
        self.returncode: int | None = None
        self._status, self._reading = status, threading.Lock()
        weakref.finalize(self, os.close, status)
        self._said, self._readers = {"stdout": "", "stderr": ""}, list[threading.Thread]()
        self.pid = self._told()

    def poll(self) -> int | None:
        return self.wait() if self.returncode is None and self._ended(0) else self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with self._reading:
            if self.returncode is None:
                self.returncode = self._told()
        return self.returncode

    def _told(self) -> int:
        (number,) = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
        return int(number)

    def _ended(self, timeout: float | None) -> bool:
        return bool(select.select([self._status], [], [], timeout)[0])

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Everything that was said; both streams are read at once, so that neither fills up."""
        if not self._readers:
            self._readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._said]
            for reader in self._readers:
                reader.start()
        self.wait(timeout)
        for reader in self._readers:
            reader.join()
        return self._said["stdout"], self._said["stderr"]

    def _read(self, name: str) -> None:
        with getattr(self, name) as stream:
            self._said[name] = stream.read()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Running = Process | subprocess.Popen[str]


def start(*args: str, env: Mapping[str, str], cwd: Path, before: tuple[str, Any] | None = None) -> Running:
    """Starts the program and does not wait; `before` names what the process calls first, and gives its argument."""
    if env.get("PYTHONPATH", str(ROOT)) != str(ROOT):
        return subprocess.Popen(
            [*_COMMAND, *args],
            env=env,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
    request = {"args": args, "env": dict(env), "cwd": str(cwd), "before": before}
    pipes = [os.pipe() for _ in ("stdout", "stderr", "status")]
    socket.send_fds(_forkery(), [json.dumps(request).encode()], [end for _, end in pipes])
    for _, end in pipes:
        os.close(end)
    return Process(args, *(begin for begin, _ in pipes))


def warm() -> None:
    """Has the libraries loaded before anything is timed."""
    _forkery()


@functools.cache
def _forkery() -> socket.socket:
    """The process that forks, one a session; it ends with the last of its requests."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LIMIT)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.program", str(there.fileno())],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[there.fileno()],
    )  # fmt: skip
    there.close()

    def end_it() -> None:
        here.close()
        process.wait()

    atexit.register(end_it)
    here.recv(1)  # its libraries are loaded: no run is late for that
    return here


# --------------------------------------------------------------------------- the process that forks


class Forkery:
    """Forks a child a request, and tells its pid and its exit code."""

    def __init__(self, requests: socket.socket) -> None:
        self.requests = requests
        self.running: dict[int, int] = {}  # the pipe to tell, by pid
        self.woken, self.wake = socket.socketpair()
        self.wake.setblocking(False)
        signal.set_wakeup_fd(self.wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        self.requests.send(b"!")
        while True:
            ready, _, _ = select.select([self.requests, self.woken], [], [])
            if self.woken in ready:
                self.woken.recv(1024)
                self._reap()
            if self.requests in ready:
                raw, pipes, _, _ = socket.recv_fds(self.requests, _LIMIT, 3)
                if not raw:
                    return
                pid = os.fork()
                if not pid:
                    _end(self._run(json.loads(raw), *pipes))
                self._started(pid, *pipes)

    def _started(self, pid: int, stdout: int, stderr: int, status: int) -> None:
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so itself, or has ended
            os.setpgid(pid, pid)
        os.close(stdout)
        os.close(stderr)
        self.running[pid] = status
        os.write(status, _NUMBER.pack(pid))

    def _reap(self) -> None:
        for pid in list(self.running):
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                status = self.running.pop(pid)
                with contextlib.suppress(BrokenPipeError):
                    os.write(status, _NUMBER.pack(os.waitstatus_to_exitcode(code)))
                os.close(status)

    def _run(self, request: dict[str, Any], stdout: int, stderr: int, status: int) -> int:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for end in (stdout, stderr, status, *self.running.values()):
            os.close(end)
        for one in (self.requests, self.woken, self.wake):
            one.close()
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)  # type: ignore[misc]
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        os.chdir(request["cwd"])
        sys.argv = ["ghostclean", *request["args"]]
        if request["before"]:
            place, given = request["before"]
            module, _, name = place.partition(":")
            getattr(importlib.import_module(module), name)(given)
        return main()


def _end(code: int) -> NoReturn:
    """What the interpreter does at its end, but for taking its modules apart: that would copy all of them."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def script(code: str) -> None:
    """Runs Python code in the process; for `before`."""
    exec(code, {})


def _load() -> None:
    """Loads every module of the program, and what these load only when they need it."""
    for module in pkgutil.walk_packages(ghostclean.__path__, "ghostclean."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    names = ["concurrent.futures.thread", "encodings.idna", "encodings.utf_8_sig", "redis", "typer._adapters"]
    for name in (*names, "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql", "psycopg"):
        importlib.import_module(name)
    for info in app.registered_commands:
        group = built(frozenset([info.name]))
        for parameter in (*group.params, *group.commands[info.name].params):
            parameter.get_runtime_param()
    importlib.import_module("apprise").Apprise.instantiate("json://localhost")  # loads its services
    gc.collect()
    gc.freeze()  # no child touches it, so that nothing is copied


if __name__ == "__main__":
    _load()
    Forkery(socket.socket(fileno=int(sys.argv[1]))).serve()
