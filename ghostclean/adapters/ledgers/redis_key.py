"""The Redis key that holds a ledger: commands on it, guarded writes, and their failures as LedgerFailed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ghostclean.adapters.redis_client import RedisServer
from ghostclean.app.ports import Lease
from ghostclean.errors import FencedOff, LedgerFailed

_FENCED = b"FENCED"
_PIECE = 1 << 22  # bytes at a time, so that comparing a long value takes no second copy of it
_SMALLEST_LIMIT = 1_000_000  # bytes; no server limits a request to less
_FENCE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'FENCED' end
"""


class LedgerKey:
    """One key of one server."""

    def __init__(self, server: RedisServer, key: str) -> None:
        self.server = server
        self.name = key
        self.index = f"{key}:open"

    def call(
        self, command: str, *arguments: Any, doing: str = "Reading the ledger", effect: str = "nothing was changed"
    ) -> Any:
        """One command, its failure as LedgerFailed."""
        with self.server.speaking(doing, LedgerFailed, effect, asked=f"{command} on {self.name}"):
            return self.server.client.execute_command(command, *arguments)

    def look(self, *commands: tuple[str, ...]) -> list[Any]:
        """Reading commands in one round trip; None for one that does not fit the type of its key."""
        from redis.exceptions import ResponseError

        with self.server.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            with self.server.speaking("Reading the ledger", LedgerFailed):
                answers: list[Any] = pipeline.execute(raise_on_error=False)
        for number, (command, answer) in enumerate(zip(commands, answers, strict=True)):
            if isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer):
                answers[number] = None
            elif isinstance(answer, Exception):
                with self.server.speaking("Reading the ledger", LedgerFailed, asked=" on ".join(command)):
                    raise answer
        return answers

    def guarded(
        self, script: str, lease: Lease | None, *arguments: str | bytes, uses: str, index: bool = False
    ) -> bytes:
        """Runs a writing script that first checks the lease, in Redis when the lock lives there.

        The script sees the ledger as KEYS[1], with `index` that as the last of its keys, and the
        arguments from ARGV[2]; `uses` names its commands.
        """
        lock = self._lock_of(lease)
        keys = [self.name, *lock, *([self.index] if index else [])]
        with self._writing(f"EVAL, {uses} on {' and '.join(keys)}"):
            answer: bytes = self.server.client.execute_command(
                "EVAL", (_FENCE if lock else "") + script, len(keys), *keys, lease.token if lease else "", *arguments
            )
        if answer == _FENCED:
            raise _fenced_off()
        return answer

    def replace(self, old: bytes, new: bytes, lease: Lease | None) -> bool:
        """Replaces a long value while it stands and the lease holds, under WATCH; False when it does not stand.

        A script would have to digest the old value and copy the new one: twice the time. Each
        command is answered before the next is sent: after a refused MULTI a SET would stand alone,
        and until EXEC is sent it is certain that nothing was written.
        """
        lock = self._lock_of(lease)
        asked = f"WATCH, GETRANGE, STRLEN, MULTI, SET, EXEC on {' and '.join((self.name, *lock))}"
        with self.server.client.pipeline() as connection:
            run = connection.execute_command
            try:
                with self._writing(asked, "nothing was changed"), self._sending(len(new)):
                    connection.watch(self.name, *lock)
                    if lease and lock and run("GET", *lock) != lease.token.encode():
                        raise _fenced_off()
                    if not self._holds(run, old):
                        return False
                    run("MULTI")
                    run("SET", self.name, new, "KEEPTTL")
                with self._writing(asked):
                    return run("EXEC") is not None
            except BaseException:
                if connection.connection is not None:  # what it watches and has queued ends with it
                    connection.connection.disconnect()
                raise

    @contextlib.contextmanager
    def _sending(self, size: int) -> Iterator[None]:
        """Says what a connection that ends under a long request most likely means."""
        from redis import exceptions

        try:
            yield
        except exceptions.WatchError:  # redis-py's word for a connection that ends under WATCH
            if size < _SMALLEST_LIMIT:
                raise exceptions.ConnectionError("the connection ended") from None
            raise self.failed(
                f"cannot be written: the server ended the connection while {size / 1e6:.1f} MB were sent, as it does "
                "with a request larger than it takes",
                "raise its limits (proto-max-bulk-len, client-query-buffer-limit), or keep the ledger in a hash: "
                "ghostclean migrate --layout hash",
            ) from None

    def _lock_of(self, lease: Lease | None) -> tuple[str, ...]:
        """The key of the lock where it lives in this Redis; elsewhere it is checked now, and named by nothing."""
        if lease is None:
            return ()
        if lease.redis_place == self.server.place and lease.redis_key:
            return (lease.redis_key,)
        lease.verify()
        return ()

    def _writing(
        self, asked: str, effect: str = "the last change may or may not be written, the next run finds out"
    ) -> contextlib.AbstractContextManager[None]:
        return self.server.speaking(
            "Writing the ledger", LedgerFailed, effect, refused="nothing more was written", asked=asked
        )

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
