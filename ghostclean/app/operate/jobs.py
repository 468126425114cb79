"""Calls beside each other: in threads, and in as many processes as there are processors.

A call that takes long gives its place to the next and goes on beside it, so that a slow or dead
account delays no other. Pure Python work shares one processor among all threads of a process:
hence the processes, where there are calls enough to pay for their start. A first interruption
lets those that run come to their end and begins no other, a second one ends at once.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

R = TypeVar("R")

_log = logging.getLogger("ghostclean")

_PATIENCE = 5.0  # seconds after which a call no longer counts among those at once
_TURN = 0.25
_WORTH_A_PROCESS = 16  # calls
_LIFE = 100  # calls of one process: its memory goes back with it


@dataclass(frozen=True, slots=True)
class Jobs(Generic[R]):
    """What is called for each name, how many at once, and the seconds after which one is given up.

    `call` never raises an Exception; both it and `begin`, which a new process runs first, can be pickled.
    """

    call: Callable[[str], R]
    begin: Callable[[], None]
    at_once: int
    limit: float

    def run(self, names: Sequence[str], found: MutableMapping[str, R]) -> None:
        """Puts each result into `found`; a name that is missing afterwards was not begun or did not end."""
        processes = min(os.cpu_count() or 1, self.at_once, len(names) // _WORTH_A_PROCESS)
        if processes < 2:
            self._in_threads(names, found.__setitem__, self.at_once)
        else:
            parts = -(-len(names) // min(_LIFE, -(-len(names) // processes)))
            self._in_processes(processes, [list(names[n::parts]) for n in range(parts)], found)

    # ------------------------------------------------------------------ threads

    def _in_threads(self, names: Sequence[str], found: Callable[[str, R], None], at_once: int) -> None:
        waiting, began = deque(names), dict[str, float]()
        done: queue.SimpleQueue[tuple[str, R]] = queue.SimpleQueue()
        stop: KeyboardInterrupt | None = None
        while waiting or began:
            try:
                while waiting and sum(time.monotonic() - at < _PATIENCE for at in began.values()) < at_once:
                    name = waiting.popleft()
                    began[name] = time.monotonic()
                    threading.Thread(target=self._work, args=(name, done), daemon=True).start()
                with contextlib.suppress(queue.Empty):
                    name, result = done.get(timeout=_TURN)
                    began.pop(name, None)
                    found(name, result)
                began = {name: at for name, at in began.items() if time.monotonic() - at < self.limit}
            except KeyboardInterrupt as first:
                if stop is not None:
                    raise
                stop = first
                waiting.clear()
                _log.warning("interrupted: %d that run come to their end, no other begins", len(began))
        if stop is not None:
            raise stop

    def _work(self, name: str, done: queue.SimpleQueue[tuple[str, R]]) -> None:
        done.put((name, self.call(name)))

    # ------------------------------------------------------------------ processes

    def _in_processes(self, most: int, parts: Sequence[Sequence[str]], found: MutableMapping[str, R]) -> None:
        waiting, running = deque(parts), dict[Any, Any]()
        at_once = -(-self.at_once // most)
        stop: KeyboardInterrupt | None = None
        while waiting or running:
            try:
                while waiting and len(running) < most:
                    pipe, process = self._begin(waiting.popleft(), at_once)
                    running[pipe] = process
                for pipe in wait([*running], _TURN):
                    if not _receive(pipe, found):
                        running.pop(pipe).join()
            except KeyboardInterrupt as first:
                for process in running.values():
                    process.terminate() if stop is None else process.kill()
                if stop is not None:
                    raise
                stop = first
                waiting.clear()
        if stop is not None:
            raise stop

    def _begin(self, part: Sequence[str], at_once: int) -> tuple[Any, Any]:
        context: Any = multiprocessing.get_context()
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=self._part, args=(theirs, part, at_once), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def _part(self, pipe: Connection, names: Sequence[str], at_once: int) -> None:
        """The life of one process; the terminal's Ctrl-C reaches it through the one that began it."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _interrupt_once)
        self.begin()
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            self._in_threads(names, lambda name, result: pipe.send((name, result)), at_once)


def _receive(pipe: Any, found: MutableMapping[str, Any]) -> bool:
    """Whether there was a result; no more come once the process has ended."""
    try:
        name, result = pipe.recv()
    except (EOFError, OSError):
        return False
    found[name] = result
    return True


def _interrupt_once(number: int, frame: object) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
