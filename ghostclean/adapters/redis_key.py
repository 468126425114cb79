"""The Redis key that holds a ledger: commands on it, and their failures as LedgerFailed."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

from ghostclean.app.ports import Lease
from ghostclean.errors import FencedOff, LedgerFailed

from .redis_client import RedisServer

_FENCED = b"FENCED"
_PIECE = 1 << 20  # bytes at a time, so that comparing a long value takes no second copy of it
_FENCE = """
if KEYS[2] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'FENCED' end
"""


class LedgerKey:
    """One key of one server."""

    def __init__(self, server: RedisServer, key: str) -> None:
        self.server = server
        self.name = key
        self.index = f"{key}:open"

    def type(self) -> str:
        """`none`, `string`, `hash`, …"""
        return str(self.call("TYPE", self.name).decode())

    def call(self, *command: Any, doing: str = "Reading the ledger", effect: str = "nothing was changed") -> Any:
        """One command, its failure as LedgerFailed."""
        with self.server.speaking(doing, LedgerFailed, effect):
            return self.server.client.execute_command(*command)

    def guarded(self, script: str, lease: Lease, *arguments: str | bytes) -> bytes:
        """Runs a writing script that first checks the lease, in Redis when the lock lives there.

        The script sees the ledger as KEYS[1], its index as KEYS[3] and the arguments from ARGV[2].
        """
        keys = (self.name, self._lock_of(lease), self.index)
        with self._writing():
            answer: bytes = self.server.client.execute_command(
                "EVAL", _FENCE + script, 3, *keys, lease.token, *arguments
            )
        if answer == _FENCED:
            raise _fenced_off()
        return answer

    def replace(self, old: str, new: str, lease: Lease) -> bool:
        """Replaces a long value while it stands and the lease holds, under WATCH; False when it does not stand.

        A script would have to digest the old value and copy the new one: twice the time.
        """
        from redis.exceptions import WatchError

        lock = self._lock_of(lease)
        with self._writing(), self.server.client.pipeline() as transaction:
            try:
                transaction.watch(self.name, *([lock] if lock else []))
                if lock and transaction.execute_command("GET", lock) != lease.token.encode():
                    raise _fenced_off()
                if not self._holds(transaction, old.encode()):
                    return False
                transaction.multi()
                transaction.execute_command("SET", self.name, new, "KEEPTTL")
                transaction.execute()
            except WatchError:
                return False
        return True

    def _lock_of(self, lease: Lease) -> str:
        """The key of the lock where it lives in this Redis; elsewhere it is checked now, and named by nothing."""
        if lease.redis_place == self.server.place and lease.redis_key:
            return lease.redis_key
        lease.verify()
        return ""

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        effect = "the last change may or may not be written, the next run finds out"
        return self.server.speaking("Writing the ledger", LedgerFailed, effect)

    def _holds(self, connection: Any, value: bytes) -> bool:
        if connection.execute_command("STRLEN", self.name) != len(value):
            return False
        pieces = range(0, len(value), _PIECE)
        view = memoryview(value)
        return all(
            connection.execute_command("GETRANGE", self.name, at, at + _PIECE - 1) == view[at : at + _PIECE]
            for at in pieces
        )

    def failed(self, what: str, cure: str) -> LedgerFailed:
        """The error for a key that holds no ledger."""
        return LedgerFailed(f"The ledger {self.server.place}#{self.name} {what}; nothing was changed. Cure: {cure}.")


def _fenced_off() -> FencedOff:
    return FencedOff(
        "The lock of this ledger expired while this run was paused; nothing more was written. Cure: run again."
    )


def pause(attempt: int) -> None:
    """Waits a little longer and less predictably after each lost race."""
    time.sleep(random.uniform(0, min(0.25, 0.005 * 2**attempt)))
