"""Every way a run can fail, split by what the operator should do about it.

An error is one line: the failure, its meaning for the ledger, the cure. `code` is its word in the JSON.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class GhostcleanError(Exception):
    """A run failed; the message gives the failure, its meaning for the ledger, and the cure."""

    code: ClassVar[str] = "reconcile_failed"
    exit_code: ClassVar[int] = 1


class BadSettings(GhostcleanError):
    """A flag or an environment variable is wrong; names it and the cure."""

    code = "bad_settings"
    exit_code = 2


class BrokerTruthFailed(GhostcleanError):
    """Broker truth could not be read completely: *not observed*; `why` is the bare reason."""

    code = "broker_truth_failed"
    exit_code = 3

    def __init__(self, message: str, *, why: str | None = None) -> None:
        super().__init__(message)
        self.why = why or message


class LedgerFailed(GhostcleanError):
    """The ledger could not be read or written; a value we cannot parse is never written over."""

    code = "ledger_failed"
    exit_code = 4


class TradeRefused(LedgerFailed):
    """The ledger did not take the change of one trade; those of others are not concerned."""


class StateFailed(GhostcleanError):
    """ghostclean's own memory is out of reach: without lock and journal nothing is written."""

    code = "state_failed"
    exit_code = 4


class QueueFailed(GhostcleanError):
    """The fleet's queue is out of reach: what is not enqueued is not done."""

    code = "queue_failed"
    exit_code = 4


class AccountMismatch(GhostcleanError):
    """The broker answered for another account than the one pinned to this ledger."""

    code = "account_mismatch"
    exit_code = 5


class DeadlineExceeded(GhostcleanError):
    """Time ran out or answers stayed open; what was decided and written stays, the rest waits."""

    code = "deadline_exceeded"
    exit_code = 6


class Locked(GhostcleanError):
    """Another run holds the lock of this ledger."""

    code = "locked"
    exit_code = 7


class FencedOff(Locked):
    """Our lock expired while we were paused and somebody else may hold it: nothing more is written."""


class BrokerError(Exception):
    """A request to the broker failed; `transient` when asking again later may help."""

    def __init__(self, message: str, *, status: int | None = None, transient: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.transient = transient


class WrongAnswer(BrokerError):
    """An answer that the API cannot have given, or one about something else than was asked."""


class Refusal(StrEnum):
    """What a refusal means, where the next step depends on it."""

    NAME_TAKEN = "name_taken"  # an order with this client order id exists already
    NO_CHANGE = "no_change"  # the order stands as it was asked to be


class Refused(BrokerError):
    """The broker refused a request (403, 409, 422); `body` is its answer, `why` its meaning where known."""

    def __init__(self, message: str, *, status: int, body: object = None, why: Refusal | None = None) -> None:
        super().__init__(message, status=status, transient=False)
        self.body = body
        self.why = why


class AnswerLost(BrokerError):
    """A write was sent and its answer is unknown: look it up by client order id, never re-send."""
