"""When an instrument trades: the exchange's clock together with its calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ghostclean.core.broker import MarketClock, Session, eastern_date, iso

HANDS_OFF = timedelta(seconds=15)  # before the close: a market order may no longer make it into the session


@dataclass(frozen=True, slots=True)
class Market:
    """The exchange by the broker's clock and calendar. `close` ends the session in progress, `last_close` the one
    before.
    """

    clock: MarketClock
    close: datetime | None
    last_close: datetime | None

    @classmethod
    def of(cls, clock: MarketClock, sessions: Sequence[Session]) -> Market:
        """From the clock and the sessions of the last days; the earlier of two closes counts."""
        over = [s.close for s in sessions if s.close <= clock.at]
        ahead = [s.close for s in sessions if s.open <= clock.at < s.close]
        close = min([clock.next_close, *ahead]) if clock.is_open else None
        return cls(clock, close, max(over) if over else None)

    def is_open(self, crypto: bool, now: datetime) -> bool:
        """Whether an order for such an instrument would trade now."""
        return crypto or (self.clock.is_open and self.close is not None and now < self.close)

    def may_close(self, crypto: bool, now: datetime) -> bool:
        """Whether a closing order can still be sent: the market is open and not about to close."""
        return crypto or (self.is_open(crypto, now) and self.close is not None and now < self.close - HANDS_OFF)

    def in_last_seconds(self, crypto: bool, now: datetime) -> bool:
        return self.is_open(crypto, now) and not self.may_close(crypto, now)

    def in_last(self, window: timedelta, now: datetime) -> bool:
        return self.close is not None and self.is_open(False, now) and now >= self.close - window

    def closed_today(self, now: datetime) -> datetime | None:
        """The close of a session that ended earlier on this day of the exchange."""
        if self.last_close is None or self.clock.is_open:
            return None
        return self.last_close if eastern_date(self.last_close) == eastern_date(now) else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "isOpen": self.clock.is_open,
            "nextOpen": iso(self.clock.next_open),
            "nextClose": iso(self.close or self.clock.next_close),
        }
