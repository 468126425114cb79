"""The Redis key that holds a ledger: commands on it, guarded writes, and their failures as LedgerFailed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ghostclean.adapters.redis_client import Command, Conversation, RedisServer, checked
from ghostclean.app.ports import Lease, Trouble
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
        with self.server.speaking(doing, LedgerFailed, effect):
            return self.server.answer(command, *arguments)

    def look(self, *commands: tuple[str, ...]) -> list[Any]:
        """Reading commands in one round trip; None for one that does not fit the type of its key."""
        with self.server.speaking("Reading the ledger", LedgerFailed):
            answers = [None if "WRONGTYPE" in str(answer) else answer for answer in self.server.ask(*commands)]
            return list(checked(answers))

    def rehearse(self, lease: Lease | None, *commands: Command) -> list[Trouble]:
        """What keeps these from being carried out, and the script that checks the lease."""
        keys = [self.name, *self._lock_of(lease)]
        with self.server.speaking("Trying what a run does with the ledger", LedgerFailed):
            return self.server.rehearse(*commands, ("EVAL", "return 1", len(keys), *keys))

    def guarded(self, script: str, lease: Lease | None, *arguments: str | bytes, index: bool = False) -> bytes:
        """Runs a writing script that first checks the lease; KEYS[1] is the ledger, the last (`index`) its index."""
        lock = self._lock_of(lease)
        keys = [self.name, *lock, *([self.index] if index else [])]
        with self._writing():
            answer: bytes = self.server.answer(
                "EVAL", (_FENCE if lock else "") + script, len(keys), *keys, lease.token if lease else "", *arguments
            )
        if answer == _FENCED:
            raise _fenced_off()
        return answer

    def replace(self, old: bytes, new: bytes, lease: Lease | None) -> bool:
        """Replaces a long value under WATCH while it stands and the lease holds; a script would take twice the time.

        A SET behind a refused MULTI would stand alone, so each answer is awaited before the next command.
        """
        lock = self._lock_of(lease)

        def attempt(own: Conversation) -> bool:
            guard = [("WATCH", self.name, *lock), *(("GET", key) for key in lock), ("STRLEN", self.name)]
            _, *token, size = checked(own.ask(*guard))
            if lease and token and token[0] != lease.token.encode():
                raise _fenced_off()
            if size != len(old) or not self._holds(own, old):
                return False
            with self._sending(len(new)):
                checked(own.ask(("MULTI",)))
                checked(own.ask(("SET", self.name, new, "KEEPTTL")))
            with self._writing():
                return checked(own.ask(("EXEC",)))[0] is not None

        with self._writing("nothing was changed"):
            return self.server.talk(attempt)

    @contextlib.contextmanager
    def _sending(self, size: int) -> Iterator[None]:
        """Says what a connection that ends under a long request most likely means."""
        from redis import exceptions

        try:
            yield
        except exceptions.ConnectionError:
            if size < _SMALLEST_LIMIT:
                raise
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
        self, effect: str = "the last change may or may not be written, the next run finds out"
    ) -> contextlib.AbstractContextManager[None]:
        return self.server.speaking("Writing the ledger", LedgerFailed, effect, refused="nothing more was written")

    def _holds(self, own: Conversation, value: bytes) -> bool:
        view = memoryview(value)
        return all(
            checked(own.ask(("GETRANGE", self.name, at, at + _PIECE - 1)))[0] == view[at : at + _PIECE]
            for at in range(0, len(value), _PIECE)
        )

    def failed(self, what: str, cure: str) -> LedgerFailed:
        """The error for a key that does not hold a ledger."""
        return LedgerFailed(f"The ledger {self.server.place}#{self.name} {what}; nothing was changed. Cure: {cure}.")


def _fenced_off() -> FencedOff:
    return FencedOff(
        "The lock of this ledger expired while this run was paused; nothing more was written. Cure: run again."
    )
