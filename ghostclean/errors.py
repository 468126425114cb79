"""Every way a run can fail, split by what the operator should do about it.

An error is one line: the failure, its meaning for the ledger, the cure. `code` is its word in the JSON.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self


class Cause(StrEnum):
    """Which failure of the broker it is; `said` in words, `passes` when later runs may get through by themselves."""

    said: str
    passes: bool
    advice: str

    def __new__(cls, value: str, said: str, passes: bool, advice: str) -> Self:
        cause = str.__new__(cls, value)
        cause._value_, cause.said, cause.passes, cause.advice = value, said, passes, advice
        return cause

    KEYS = (
        "keys_refused", "the broker refuses the keys", False,
        "correct the pair of keys: paper and live have keys of their own, and ALPACA_LIVE_TRADE says which is meant",
    )  # fmt: skip
    RATE = (
        "too_many_requests", "the broker allows no more requests this minute", True,
        "let fewer programs ask with these keys, or less often",
    )  # fmt: skip
    DOWN = ("broker_down", "the broker is down", True, "see its status page")
    NETWORK = (
        "unreachable", "the broker cannot be reached from here", True, "check this machine's network, DNS and proxy"
    )  # fmt: skip
    TLS = (
        "no_trusted_tls", "the connection to the broker cannot be trusted", False,
        "set this machine's clock and its CA certificates right, and look for a proxy that opens TLS",
    )  # fmt: skip
    WRONG = (
        "wrong_answer", "the broker's answer cannot be right", True,
        "ask the broker, and check GHOSTCLEAN_TRADING_URL where that is set",
    )  # fmt: skip

    @classmethod
    def of(cls, word: object) -> Cause | None:
        """The cause of that word; None for none, and for a newer version's."""
        return next((cause for cause in cls if cause == word), None)

    @property
    def cure(self) -> str:
        """What to do, and whether waiting helps."""
        if self.passes:
            return f"the next run tries again; if it stays, {self.advice}"
        return f"{self.advice}; until then every run fails"


class GhostcleanError(Exception):
    """A run failed; the message gives the failure, its meaning for the ledger, and the cure."""

    code: ClassVar[str] = "reconcile_failed"
    exit_code: ClassVar[int] = 1
    cause: Cause | None = None


class BadSettings(GhostcleanError):
    """A flag or an environment variable is wrong; names it and the cure."""

    code = "bad_settings"
    exit_code = 2


class BrokerTruthFailed(GhostcleanError):
    """Broker truth could not be read completely: *not observed*; `why` is the bare reason."""

    code = "broker_truth_failed"
    exit_code = 3

    def __init__(self, message: str, *, why: str | None = None, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.why = why or message
        self.cause = cause


class LedgerFailed(GhostcleanError):
    """The ledger could not be read or written; a value we cannot parse is never written over."""

    code = "ledger_failed"
    exit_code = 4


class TradeRefused(LedgerFailed):
    """The ledger did not take the change of one trade; those of others are not concerned."""


class LedgerGone(LedgerFailed):
    """There is no ledger where an earlier run has read one."""


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
    """A request to the broker failed; `transient` when asking again at once may help."""

    cause: Cause | None = None

    def __init__(
        self, message: str, *, status: int | None = None, transient: bool = True, cause: Cause | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.transient = transient
        self.cause = cause or self.cause

    @property
    def line(self) -> str:
        """Which failure it is, with the request."""
        return f"{self.cause.said} ({self})" if self.cause else str(self)

    @property
    def cure(self) -> str:
        """What to do, and whether waiting helps."""
        if self.cause is not None:
            return self.cause.cure
        return "the next run tries again" if self.transient else "see `ghostclean doctor`"


class WrongAnswer(BrokerError):
    """An answer that the API cannot have given, or one about something else than was asked."""

    cause = Cause.WRONG


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
