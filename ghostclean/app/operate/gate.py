"""May a new entry be made? By broker truth only; unknown counts as taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ghostclean.app.deadline import Deadline
from ghostclean.app.observation import read_truth
from ghostclean.app.parts import Parts
from ghostclean.core.broker import BrokerTruth, Order, Position, symbol_key
from ghostclean.counts import counted
from ghostclean.errors import BrokerTruthFailed, DeadlineExceeded, GhostcleanError

DEFAULT_MAX_OPEN = 3
EXIT_YES, EXIT_NO, EXIT_UNKNOWN = 0, 10, 3

_DUST = 1  # dollars
_PIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Gate:
    """The answer; `allowed` is None when broker truth is not observed."""

    allowed: bool | None
    max_open: int
    symbols: tuple[str, ...]
    reason: str

    @property
    def exit_code(self) -> int:
        if self.allowed is None:
            return EXIT_UNKNOWN
        return EXIT_YES if self.allowed else EXIT_NO

    def entry_state(self) -> dict[str, Any]:
        return {
            "allowed": self.allowed is True,
            "count": None if self.allowed is None else len(self.symbols),
            "maxOpen": self.max_open,
            "reason": self.reason,
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.allowed is not None,
            **self.entry_state(),
            "symbols": list(self.symbols),
            "error": None if self.allowed is not None else "broker_truth_failed",
            "detail": None if self.allowed is not None else self.reason,
        }


def observe(parts: Parts, deadline: Deadline, max_open: int, *, has_state: bool) -> tuple[BrokerTruth | None, Gate]:
    """Broker truth and the answer; without a state (`has_state`) no account is pinned."""
    try:
        truth = read_truth(parts, deadline)
    except BrokerTruthFailed as error:
        return None, unknown(error.why, max_open)
    why = _wrong_account(parts, truth, deadline) if has_state else None
    return (truth, judge(truth, max_open)) if why is None else (None, unknown(why, max_open))


def _wrong_account(parts: Parts, truth: BrokerTruth, deadline: Deadline) -> str | None:
    """Why this is not the account pinned to the ledger; None too where the state cannot say."""

    def recall() -> str | None:
        parts.state.open()
        pin = parts.state.recall_all(["pin"]).pinned
        return None if pin is None else pin.mismatch(truth.account, parts.broker.live)

    try:
        return deadline.within(recall, min(_PIN_SECONDS, deadline.left()))
    except (GhostcleanError, DeadlineExceeded):
        return None  # entries depend on the broker alone


def judge(truth: BrokerTruth, max_open: int) -> Gate:
    """Distinct symbols with a position worth $1 or a working entry order, against the limit."""
    taken = {p.key: p.symbol for p in truth.positions.rows if counts(p)}
    taken |= {u.key or u.name: u.name for u in truth.positions.unread}
    held = {p.key: p for p in truth.positions.rows}
    for symbol in entries(truth.orders, held):
        taken.setdefault(symbol_key(symbol), symbol)
    symbols = tuple(sorted(taken.values()))
    allowed = len(symbols) < max_open
    listed = ", ".join(symbols[:10]) + (", …" if len(symbols) > 10 else "")
    reason = f"{len(symbols)} of at most {counted(max_open, 'symbol')} taken" + (f" ({listed})" if symbols else "")
    return Gate(allowed, max_open, symbols, reason)


def unknown(reason: str, max_open: int) -> Gate:
    return Gate(None, max_open, (), f"broker truth is unknown, so no entry: {reason}")


def counts(position: Position) -> bool:
    """Whether a position takes a place: worth $1 or more, or of unknown worth."""
    return position.qty > 0 and (position.market_value is None or abs(position.market_value) >= _DUST)


def entries(orders: tuple[Order, ...], positions: dict[str, Position]) -> Iterator[str]:
    """The symbols of working orders that open or add to exposure."""
    for order in orders:
        if not order.is_final and _is_entry(order, positions.get(order.key)):
            if order.is_multi_leg:
                yield from (leg.symbol for leg in orders if leg.parent == order.id and not _closes(leg))
            elif order.symbol:
                yield order.symbol


def _is_entry(order: Order, position: Position | None) -> bool:
    """Whether an order builds exposure; an order whose purpose is unclear counts as an entry."""
    if order.parent is not None or order.order_class == "oco" or _closes(order):
        return False
    if order.intent.endswith("_to_open"):
        return True
    return position is None or order.side != position.side.closing


def _closes(order: Order) -> bool:
    return order.intent.endswith("_to_close")
