"""The Redis key that holds a ledger: commands on it, and their failures as LedgerFailed."""

from __future__ import annotations

import random
import time
from typing import Any

from ghostclean.app.ports import Lease
from ghostclean.errors import FencedOff, LedgerFailed

from .redis_client import RedisServer

FENCED = b"FENCED"
_PIECE = 4 << 20  # bytes at a time, so that comparing a long value takes no second copy of it
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

    def guarded(self, script: str, lease: Lease, *arguments: str | bytes, holding: str | None = None) -> bytes | None:
        """Runs a writing script that first checks the lease, in Redis when the lock lives there.

        The script sees the ledger as KEYS[1], its index as KEYS[3] and the arguments from ARGV[2].
        With `holding` it runs only while the key holds that value; None when it does not.
        """
        here = lease.redis_place == self.server.place and lease.redis_key is not None
        if not here:
            lease.verify()
        keys = (self.name, lease.redis_key if here and lease.redis_key else "", self.index)
        command = ("EVAL", _FENCE + script, 3, *keys, lease.token, *arguments)
        doing, effect = "Writing the ledger", "the last change may or may not be written, the next run finds out"
        answer: bytes | None
        if holding is None:
            answer = self.call(*command, doing=doing, effect=effect)
        else:
            with self.server.speaking(doing, LedgerFailed, effect):
                answer = self._while_it_holds(holding, command)
        if answer == FENCED:
            raise FencedOff(
                "The lock of this ledger expired while this run was paused; nothing more was written. Cure: run again."
            )
        return answer

    def _while_it_holds(self, value: str, command: tuple[Any, ...]) -> bytes | None:
        from redis.exceptions import WatchError

        with self.server.client.pipeline() as transaction:
            try:
                transaction.watch(self.name)
                if not self._holds(transaction, value.encode()):
                    return None
                transaction.multi()
                transaction.execute_command(*command)
                answer: bytes = transaction.execute()[0]
            except WatchError:
                return None
        return answer

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


def pause(attempt: int) -> None:
    """Waits a little longer and less predictably after each lost race."""
    time.sleep(random.uniform(0, min(0.25, 0.005 * 2**attempt)))
