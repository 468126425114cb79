"""The Redis key that holds a ledger: commands on it, guarded writes, and their failures as LedgerFailed."""

from __future__ import annotations

import contextlib
from typing import Any

from ghostclean.adapters.redis_client import RedisServer
from ghostclean.app.ports import Lease
from ghostclean.errors import FencedOff, LedgerFailed

_FENCED = b"FENCED"
_PIECE = 1 << 22  # bytes at a time, so that comparing a long value takes no second copy of it
_FENCE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'FENCED' end
"""


class LedgerKey:
    """One key of one server."""

    def __init__(self, server: RedisServer, key: str) -> None:
        self.server = server
        self.name = key
        self.index = f"{key}:open"

    def call(self, *command: Any, doing: str = "Reading the ledger", effect: str = "nothing was changed") -> Any:
        """One command, its failure as LedgerFailed."""
        with self.server.speaking(doing, LedgerFailed, effect):
            return self.server.client.execute_command(*command)

    def look(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Reading commands in one round trip; None for one that does not fit the type of its key."""
        from redis.exceptions import ResponseError

        with self.server.speaking("Reading the ledger", LedgerFailed), self.server.client.pipeline(False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
            for number, answer in enumerate(answers):
                if isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer):
                    answers[number] = None
                elif isinstance(answer, Exception):
                    raise answer
        return answers

    def guarded(self, script: str, lease: Lease | None, *arguments: str | bytes, index: bool = False) -> bytes:
        """Runs a writing script that first checks the lease, in Redis when the lock lives there.

        The script sees the ledger as KEYS[1], with `index` that as the last of its keys, and the
        arguments from ARGV[2].
        """
        lock = self._lock_of(lease)
        keys = [self.name, *lock, *([self.index] if index else [])]
        with self._writing():
            answer: bytes = self.server.client.execute_command(
                "EVAL", (_FENCE if lock else "") + script, len(keys), *keys, lease.token if lease else "", *arguments
            )
        if answer == _FENCED:
            raise _fenced_off()
        return answer

    def replace(self, old: bytes, new: bytes, lease: Lease | None) -> bool:
        """Replaces a long value while it stands and the lease holds, under WATCH; False when it does not stand.

        A script would have to digest the old value and copy the new one: twice the time. Each
        command is answered before the next is sent: after a refused MULTI a SET would stand alone.
        """
        from redis import exceptions

        lock = self._lock_of(lease)
        with self._writing(), self.server.client.pipeline() as connection:
            run = connection.execute_command
            try:
                connection.watch(self.name, *lock)
                if lease and lock and run("GET", *lock) != lease.token.encode():
                    raise _fenced_off()
                if not self._holds(run, old):
                    return False
                run("MULTI")
                try:
                    run("SET", self.name, new, "KEEPTTL")
                except exceptions.ResponseError:
                    run("DISCARD")
                    raise
                return run("EXEC") is not None
            except exceptions.WatchError as lost:  # what redis-py makes of a connection that ends under WATCH
                raise exceptions.ConnectionError("the connection ended") from lost

    def _lock_of(self, lease: Lease | None) -> tuple[str, ...]:
        """The key of the lock where it lives in this Redis; elsewhere it is checked now, and named by nothing."""
        if lease is None:
            return ()
        if lease.redis_place == self.server.place and lease.redis_key:
            return (lease.redis_key,)
        lease.verify()
        return ()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        effect = "the last change may or may not be written, the next run finds out"
        return self.server.speaking("Writing the ledger", LedgerFailed, effect)

    def _holds(self, run: Any, value: bytes) -> bool:
        if run("STRLEN", self.name) != len(value):
            return False
        view = memoryview(value)
        return all(
            run("GETRANGE", self.name, at, at + _PIECE - 1) == view[at : at + _PIECE]
            for at in range(0, len(value), _PIECE)
        )

    def failed(self, what: str, cure: str) -> LedgerFailed:
        """The error for a key that does not hold a ledger."""
        return LedgerFailed(f"The ledger {self.server.place}#{self.name} {what}; nothing was changed. Cure: {cure}.")


def _fenced_off() -> FencedOff:
    return FencedOff(
        "The lock of this ledger expired while this run was paused; nothing more was written. Cure: run again."
    )
