"""One Alpaca host as the adapter sees it: requests in, parsed JSON out."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from ghostclean.errors import BrokerError


class NotFound(BrokerError):
    """A true 404: the broker itself says that the order, position or asset does not exist."""


class Api(Protocol):
    """Raises BrokerError and its kinds; reads NotFound on a true 404, writes Refused and AnswerLost."""

    def get(self, path: str, data: dict[str, str] | None = None, *, api_version: str = "v2") -> Any: ...

    def post(self, path: str, data: dict[str, Any]) -> Any: ...

    def patch(self, path: str, data: dict[str, Any]) -> Any: ...

    def delete(self, path: str) -> Any: ...

    def now(self) -> datetime:
        """The host's own time by its latest answer; ours before the first."""

    def requests_left(self) -> int | None:
        """How many more requests this minute allows; None when unknown."""
