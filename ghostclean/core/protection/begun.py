"""A close that was begun, with the stop it took away: what a later run needs to end it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from ghostclean.core.broker import ZERO, Order, Side, iso, parse_time, plain

from .sizing import Exposure, can_take, exclusive, remaining

CUT = "cut"
EOD = "eod"
ORPHAN = "orphan"
SWAP = "swap"  # no close at all: a resting target makes room for one OCO


@dataclass(frozen=True, slots=True)
class OrphanLot:
    """The shares of an orphan: no record of the ledger says later what they were."""

    key: str
    side: Side
    crypto: bool
    qty: Decimal


@dataclass(frozen=True, slots=True)
class BegunClose:
    """Why and when a close was begun, and the stop and target to restore unless it fills.

    `covered` is how much the stop was for (None: all that is left). `orders` are cancelled, with their fills then.
    """

    name: str
    purpose: str
    symbol: str
    at: datetime
    stop: Decimal | None
    target: Decimal | None = None
    covered: Decimal | None = None
    time_in_force: str | None = None
    orders: Mapping[str, Decimal] = field(default_factory=dict)
    orphan: OrphanLot | None = None
    target_qty: Decimal | None = None

    @classmethod
    def of_swap(cls, exposure: Exposure, at: datetime, stop: Decimal, target: Order, target_qty: Decimal) -> BegunClose:
        price, orders = target.limit_price, _filled([target])
        return cls(exposure.signature, SWAP, exposure.symbol, at, stop, price, orders=orders, target_qty=target_qty)

    @classmethod
    def of_trade(
        cls, exposure: Exposure, purpose: str, at: datetime, stop: Decimal | None, holders: Sequence[Order]
    ) -> BegunClose:
        """A trade's; a target for less than the whole trade is not restored, it would sell too much."""
        targets = [o for o in holders if not o.is_stop and o.type == "limit" and o.limit_price is not None]
        is_whole = len(targets) == 1 and remaining(targets[0], exposure.qty) >= exposure.qty
        target = targets[0].limit_price if is_whole else None
        return cls(exposure.signature, purpose, exposure.symbol, at, stop, target, orders=_filled(holders))

    @classmethod
    def of_orphan(cls, exposure: Exposure, holders: Sequence[Order], earlier: BegunClose | None) -> BegunClose:
        """An orphan's: its stop as it stands, else that of an earlier try."""
        new = cls(exposure.name, ORPHAN, exposure.symbol, exposure.at, None)
        lot = OrphanLot(exposure.key, exposure.side, exposure.crypto, exposure.qty)
        base = replace(earlier or new, at=exposure.at, orders=_filled(holders), orphan=lot)
        stops = _tightest_first(exposure.side, holders)
        if not stops:
            return base
        covered = min(can_take(stops, exposure.qty), exposure.qty)
        target, lasts = _target_beside(holders), stops[0].time_in_force or None
        return replace(base, stop=stops[0].stop_price, target=target, covered=covered, time_in_force=lasts)

    def exposure(self, at: datetime, taken: Decimal = ZERO) -> Exposure:
        """What is left of an orphan once its cancelled orders have filled `taken`."""
        assert self.orphan is not None
        lot, exits = self.orphan, frozenset(self.orders)
        qty = lot.qty - taken
        return Exposure(self.name, self.symbol, lot.key, lot.side, qty, qty, lot.crypto, at, exits)

    def to_dict(self) -> dict[str, Any]:
        """The stored form; earlier versions understand it."""
        stored: dict[str, Any] = {
            "name": self.name,
            "purpose": self.purpose,
            "symbol": self.symbol,
            "at": iso(self.at),
            "stop": _plain(self.stop),
            "target": _plain(self.target),
            "covered": _plain(self.covered),
            "timeInForce": self.time_in_force,
            "targetQty": _plain(self.target_qty),
            "orders": {i: plain(filled) for i, filled in self.orders.items()},
        }
        if (lot := self.orphan) is not None:
            stored |= {"key": lot.key, "side": str(lot.side), "crypto": lot.crypto, "qty": plain(lot.qty)}
        return stored

    @classmethod
    def parse(cls, name: str, raw: object) -> BegunClose | None:
        """The stored form, of earlier versions too; `name` is the trade's where they left it out."""
        if not isinstance(raw, Mapping):
            return None
        try:
            at = parse_time(raw["at"])
            if at is None:
                return None
            lot = None
            if "qty" in raw:
                lot = OrphanLot(raw["key"], Side(raw["side"]), raw["crypto"] is True, Decimal(raw["qty"]))
            return cls(
                raw.get("name", name),
                ORPHAN if lot is not None else raw["purpose"],
                raw["symbol"],
                at,
                _decimal(raw["stop"]),
                _decimal(raw["target"]),
                _decimal(raw.get("covered")),
                raw.get("timeInForce"),
                {i: Decimal(filled) for i, filled in raw.get("orders", {}).items()},
                lot,
                _decimal(raw.get("targetQty")),
            )
        except (KeyError, TypeError, ValueError, InvalidOperation, AttributeError):
            return None


def _tightest_first(side: Side, orders: Sequence[Order]) -> list[Order]:
    priced = [(o.stop_price, o) for o in orders if o.is_stop and o.stop_price is not None]
    return [o for _, o in sorted(priced, key=lambda row: -side.sign * row[0])]


def _target_beside(holders: Sequence[Order]) -> Decimal | None:
    """The limit of the one target that is tied to a stop."""
    with_stop = [group for group in exclusive(holders) if any(o.is_stop for o in group)]
    targets = [o.limit_price for group in with_stop for o in group if not o.is_stop and o.limit_price is not None]
    return targets[0] if len(targets) == 1 else None


def _filled(orders: Sequence[Order]) -> dict[str, Decimal]:
    return {o.id: o.filled_qty for o in orders}


def _plain(value: Decimal | None) -> str | None:
    return plain(value) if value is not None else None


def _decimal(value: Any) -> Decimal | None:
    return Decimal(value) if value is not None else None
