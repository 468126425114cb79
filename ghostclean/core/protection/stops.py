"""Where a stop belongs: R, the rules, the tick. Prices are per unit in USD.

Invariants (property tests carry their names):
- never loosens: an aim is never further from the market than the stop that works;
- never crosses: an aim that is sent is strictly on the losing side of the price;
- never creeps: the trailing rule moves a stop only by a worthwhile step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum
from typing import Any

from ghostclean.core.broker import ONE, ZERO, Side, json_number


@dataclass(frozen=True, slots=True)
class ManagePolicy:
    """The `AUTO_MANAGE_*` settings; everything that sends orders is off unless turned on."""

    enabled: bool = False
    eod_flatten: bool = False
    trail_enabled: bool = False
    cut_loss_enabled: bool = False
    trail_r: Decimal = Decimal("2.5")
    trail_pct: Decimal = Decimal("0.005")
    cut_loss_r: Decimal = Decimal(-1)
    max_per_run: int = 50
    eod_flatten_minutes: int = 12

    @property
    def eod_window(self) -> timedelta:
        return timedelta(minutes=self.eod_flatten_minutes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "enabled": self.enabled,
            "eodFlatten": self.eod_flatten,
            "eodFlattenMinutes": self.eod_flatten_minutes,
            "trailEnabled": self.trail_enabled,
            "trailR": json_number(self.trail_r),
            "trailPct": json_number(self.trail_pct),
            "cutLossEnabled": self.cut_loss_enabled,
            "cutLossR": json_number(self.cut_loss_r),
            "maxPerRun": self.max_per_run,
        }


CENT_TICK = Decimal("0.01")
SUB_DOLLAR_TICK = Decimal("0.0001")
LEAST_RISK = Decimal("0.0005")  # of the entry price; a smaller 1R is a typing error or a moved stop
WORTHWHILE = Decimal("0.05")  # of 1R: how far the trailing rule must move a stop for it to be sent
CRYPTO_LIMIT_ROOM = Decimal("0.01")  # how far a crypto stop-limit may slip beyond its stop
FRESH_SALE = timedelta(seconds=60)


class Rule(StrEnum):
    """Where an aimed stop price comes from."""

    BREAK_EVEN = "break_even"
    LOCK = "lock_1r"
    TRAIL = "trail"
    LEDGER = "ledger"
    BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Risk:
    """What a trade risked when it was opened; without `one_r` it is only protected, with a `wrong_side` stop not even
    that.
    """

    side: Side
    entry: Decimal
    one_r: Decimal | None
    problem: str | None = None
    wrong_side: bool = False

    def gain(self, price: Decimal) -> Decimal:
        """What one unit has won at this price, negative for a loss."""
        return (price - self.entry) * self.side.sign

    def multiple(self, price: Decimal) -> Decimal | None:
        """The gain in R; None when 1R is unknown."""
        return self.gain(price) / self.one_r if self.one_r else None

    def reaches(self, price: Decimal, multiple: Decimal) -> bool:
        """Whether the gain is at least that many R; exact, where a division would round."""
        return self.one_r is not None and self.gain(price) >= multiple * self.one_r


def measure_risk(side: Side, entry: Decimal, initial_stop: Decimal | None) -> Risk:
    """1R = |entry - initial stop|, or the reason for none."""
    if initial_stop is None:
        return Risk(side, entry, None, "its initial stop is unknown")
    distance = (entry - initial_stop) * side.sign
    if distance < 0:
        why = f"its initial stop {initial_stop} is on the wrong side of the entry {entry}"
        return Risk(side, entry, None, why, wrong_side=True)
    if distance < entry * LEAST_RISK:
        return Risk(side, entry, None, f"its initial stop {initial_stop} is less than 0.05 % from the entry {entry}")
    return Risk(side, entry, distance)


def tick_at(price: Decimal, increment: Decimal | None = None) -> Decimal:
    """The smallest step of a price: the asset's own (crypto), a cent from $1, else 0.0001."""
    if increment is not None and increment > 0:
        return increment
    return CENT_TICK if price >= ONE else SUB_DOLLAR_TICK


def on_tick(side: Side, price: Decimal, increment: Decimal | None = None) -> Decimal:
    """The price on its tick, away from the market: down for a long trade, up for a short one."""
    tick = tick_at(price, increment)
    rounding = ROUND_FLOOR if side is Side.LONG else ROUND_CEILING
    return (price / tick).to_integral_value(rounding) * tick


def is_tighter(side: Side, price: Decimal, than: Decimal) -> bool:
    return (price - than) * side.sign > 0


def is_through(side: Side, stop: Decimal, price: Decimal) -> bool:
    return (price - stop) * side.sign <= 0


def rule_stops(risk: Risk, price: Decimal, manage: ManagePolicy) -> dict[Rule, Decimal]:
    """The unrounded stops that the rules ask for at this price; empty below 1R."""
    stops: dict[Rule, Decimal] = {}
    if risk.one_r is None:
        return stops
    sign = risk.side.sign
    if risk.reaches(price, ONE):
        stops[Rule.BREAK_EVEN] = risk.entry
    if risk.reaches(price, Decimal(2)):
        stops[Rule.LOCK] = risk.entry + sign * risk.one_r
    if manage.trail_enabled and risk.reaches(price, manage.trail_r):
        stops[Rule.TRAIL] = price * (ONE - sign * manage.trail_pct)
    return stops


@dataclass(frozen=True, slots=True)
class StopTarget:
    """The stop a trade should have, on its tick; `crossed` is a ledger stop the market has passed, never sent."""

    price: Decimal | None
    rule: Rule | None
    send: bool
    crossed: Decimal | None = None


def aim(
    risk: Risk,
    price: Decimal,
    manage: ManagePolicy,
    *,
    ledger_stop: Decimal | None,
    broker_stop: Decimal | None,
    increment: Decimal | None = None,
) -> StopTarget:
    """The tightest stop of rules, ledger and broker that the market has not passed.

    A fixed rule's is sent when tighter by a tick, a trail only for 5 % of 1R or a tick, whichever is more.
    """
    side = risk.side
    stops = rule_stops(risk, price, manage)
    if ledger_stop is not None and ledger_stop > 0:
        stops[Rule.LEDGER] = ledger_stop
    wanted = {rule: on_tick(side, stop, increment) for rule, stop in stops.items()}
    crossed = _crossed(side, wanted.get(Rule.LEDGER), price)
    usable = {
        rule: stop
        for rule, stop in wanted.items()
        if _may_be_sent(side, stop, price) and _is_worthwhile(rule, risk, stop, broker_stop, increment)
    }
    if not usable:
        return StopTarget(broker_stop, Rule.BROKER if broker_stop is not None else None, send=False, crossed=crossed)
    rule = max(usable, key=lambda r: usable[r] * side.sign)
    return StopTarget(usable[rule], rule, send=True, crossed=crossed)


def _crossed(side: Side, stop: Decimal | None, price: Decimal) -> Decimal | None:
    return stop if stop is not None and is_through(side, stop, price) else None


def _may_be_sent(side: Side, stop: Decimal, price: Decimal) -> bool:
    return stop > 0 and not is_through(side, stop, price)


def _is_worthwhile(rule: Rule, risk: Risk, stop: Decimal, standing: Decimal | None, increment: Decimal | None) -> bool:
    if standing is None:
        return True
    far_enough = abs(stop - standing) >= _least_step(rule, risk, stop, increment)
    return far_enough and is_tighter(risk.side, stop, standing)


def _least_step(rule: Rule, risk: Risk, stop: Decimal, increment: Decimal | None) -> Decimal:
    tick = tick_at(stop, increment)
    if rule is Rule.TRAIL and risk.one_r is not None:
        return max(tick, risk.one_r * WORTHWHILE)
    return tick


def renewed(side: Side, stop: Decimal, price: Decimal) -> Decimal | None:
    """The stop one tick tighter, so that a replacement is a change; None if that crosses."""
    nearer = stop + side.sign * tick_at(stop)
    return None if is_through(side, nearer, price) else nearer


def stop_limit(side: Side, stop: Decimal, increment: Decimal | None = None) -> Decimal:
    """The limit of a crypto stop-limit order: 1 % beyond the stop, room to fill in a fast market."""
    return on_tick(side, stop * (ONE - side.sign * CRYPTO_LIMIT_ROOM), increment)


def is_cut(
    risk: Risk,
    manage: ManagePolicy,
    *,
    sale: Decimal,
    sale_at: datetime,
    is_sale: bool,
    own_price: Decimal | None,
    now: datetime,
) -> bool:
    """Whether cut loss applies: by a sale younger than a minute and by the position's own price."""
    if not manage.cut_loss_enabled or risk.one_r is None or own_price is None or own_price <= ZERO:
        return False
    return is_fresh_sale(sale_at, is_sale, now) and all(
        risk.gain(price) <= manage.cut_loss_r * risk.one_r for price in (sale, own_price)
    )


def is_fresh_sale(at: datetime, is_sale: bool, now: datetime) -> bool:
    """Whether a price is a last sale younger than a minute, by the broker's clock."""
    return is_sale and now - at < FRESH_SALE
