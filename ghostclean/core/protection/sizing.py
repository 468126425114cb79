"""How much of a position an order may take, by what was read just before it is sent.

Invariants (property tests carry their names):
- never grows, never flips: at most the trade's own quantity, and what other closing orders leave;
- never blind: no order where closing fills are fresh or disagree with the position, except a missing stop for
  the smaller quantity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal

from ghostclean.core.broker import CRYPTO_DUST, ZERO, Fill, Order, Position, Side, is_option, plain
from ghostclean.core.verdicts import Holding

_LINKED = frozenset({"bracket", "oco", "oto"})


def remaining(order: Order, whole: Decimal) -> Decimal:
    """What an order can still take; an order without a quantity (notional) could take all."""
    return max(ZERO, order.qty - order.filled_qty) if order.qty is not None else whole


def can_take(orders: Sequence[Order], whole: Decimal) -> Decimal:
    """The shares that working closing orders can still take; a bracket or OCO counts once."""
    return sum((max(remaining(o, whole) for o in group) for group in exclusive(orders)), ZERO)


def exclusive(orders: Sequence[Order]) -> list[list[Order]]:
    """Groups orders of which only one can fill: by parent, else siblings of one class, quantity and moment."""
    groups: dict[str, list[Order]] = {}
    for order in orders:
        groups.setdefault(order.parent or order.id, []).append(order)
    joined = [group for group in groups.values() if not _is_lonely_stop(group)]
    for group in filter(_is_lonely_stop, groups.values()):
        sibling = next((g for g in joined if len(g) == 1 and _are_siblings(g[0], group[0])), None)
        if sibling is not None:
            sibling.extend(group)
        else:
            joined.append(group)
    return joined


def _is_lonely_stop(group: Sequence[Order]) -> bool:
    return len(group) == 1 and group[0].order_class in _LINKED and group[0].is_stop


def _are_siblings(limit: Order, stop: Order) -> bool:
    return (
        limit.order_class == stop.order_class
        and not limit.is_stop
        and limit.qty == stop.qty
        and (limit.parent is None or stop.parent is None)
        and (limit.submitted_at == stop.submitted_at or bool(limit.replaces or stop.replaces))
    )


# --------------------------------------------------------------------------- how much

GONE = "the position is gone or on the other side"
_SKEW = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Exposure:
    """The part of a position that one trade, or one orphan, may send closing orders for.

    `qty` is its own by the survey at `at`, `all_open` that of all trades of symbol and side. `exits`: exit orders
    of all of them; `own`: of this one; `closed`: of closed trades. `owner` (else `name`) names its orders, with
    `tags`.
    """

    name: str
    symbol: str
    key: str
    side: Side
    qty: Decimal
    all_open: Decimal
    crypto: bool
    at: datetime
    exits: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    owner: str = ""
    tags: frozenset[str] = frozenset()

    @property
    def signature(self) -> str:
        """Whose name its orders carry."""
        return self.owner or self.name

    @classmethod
    def of(
        cls, holding: Holding, everybody: Iterable[Holding], at: datetime, closed: frozenset[str] = frozenset()
    ) -> Exposure:
        side, position = holding.trade.side, holding.position
        same = [h for h in everybody if h.position.key == position.key and h.trade.side is side]
        alone = cls.alone(holding.trade.id or "", position, holding.open_qty, at)
        return replace(
            alone,
            side=side,
            all_open=sum((h.open_qty for h in same), ZERO),
            exits=frozenset(o.id for h in same for o in h.exits),
            own=frozenset(o.id for o in holding.exits),
            closed=closed,
            owner=holding.trade.owner,
            tags=holding.trade.tags,
        )

    @classmethod
    def alone(cls, name: str, position: Position, qty: Decimal, at: datetime) -> Exposure:
        return cls(name, position.symbol, position.key, position.side, qty, qty, position.is_crypto, at)

    @classmethod
    def behind(cls, order: Order, name: str, side: Side, at: datetime) -> Exposure:
        """No shares at all: good for cancelling an order and for nothing else."""
        return cls(name, order.symbol, order.key, side, ZERO, ZERO, order.is_crypto, at)

    def less(self, own: Decimal, all_of_symbol: Decimal) -> Exposure:
        """What is left after closes of this trade, and of all trades of the symbol."""
        return replace(self, qty=self.qty - own, all_open=self.all_open - all_of_symbol)

    def takes(self, order: Order) -> bool:
        return order.key == self.key and order.side == self.side.closing

    def sold_by(self, fill: Fill) -> bool:
        """Whether a fill closed some of such a position."""
        return fill.key == self.key and fill.side == self.side.closing

    @property
    def dust(self) -> Decimal:
        """How little of it may be left after a close: what crypto fees take."""
        return self.qty * CRYPTO_DUST if self.crypto else ZERO


@dataclass(frozen=True, slots=True)
class SymbolView:
    """A symbol at one moment: position, working orders, recent closing fills; `dormant` ones await their entry."""

    position: Position | None
    closing: tuple[Order, ...]
    opening: tuple[Order, ...] = ()
    recent: tuple[Fill, ...] = ()
    dormant: frozenset[str] = frozenset()

    @property
    def qty(self) -> Decimal:
        return self.position.qty if self.position is not None else ZERO


def is_gone(exposure: Exposure, view: SymbolView) -> bool:
    return view.position is None or view.position.side is not exposure.side


def barrier(exposure: Exposure, view: SymbolView, *, missing_stop: bool = False) -> str | None:
    """Why no order may be sent; a missing stop may be while fills and position disagree."""
    if is_option(exposure.symbol):
        return "options never get orders"
    if is_gone(exposure, view):
        return GONE
    if missing_stop:
        return None
    if view.recent:
        return f"a closing fill at {view.recent[-1].at:%H:%M:%S} UTC is younger than the grace"
    slack = exposure.all_open * CRYPTO_DUST if exposure.crypto else ZERO
    if view.qty < exposure.all_open - slack:
        return f"its fills say {plain(exposure.all_open)}, the position {plain(view.qty)}"
    return None


def wash_trade(view: SymbolView, own: Collection[str]) -> str | None:
    """Which opening order neither a close nor a stop can stand beside."""
    others = [o.id for o in view.opening if o.id not in own]
    return f"an opening order that is not its own would make it a wash trade: {', '.join(others)}" if others else None


def free(
    exposure: Exposure, view: SymbolView, *, step: Decimal | None = None, without: Collection[str] = ()
) -> Decimal:
    """What other orders and unseen fills leave; `without` are orders to be replaced, `step` the smallest quantity."""
    groups = exclusive([o for o in view.closing if o.id not in view.dormant])
    others = [o for group in groups if not any(o.id in without for o in group) for o in group]
    qty = min(
        exposure.qty - _sold(view, exposure.own, exposure.at - _SKEW),
        view.qty - can_take(others, view.qty) - _unshown(exposure, view),
    )
    return qty if step is None else (qty / step).to_integral_value(ROUND_FLOOR) * step


def _sold(view: SymbolView, orders: Collection[str], since: datetime | None = None) -> Decimal:
    return sum((f.qty for f in view.recent if f.order_id in orders and (since is None or f.at >= since)), ZERO)


def _unshown(exposure: Exposure, view: SymbolView) -> Decimal:
    """How much fewer shares there may be than the position shows."""
    strangers = {f.order_id for f in view.recent} - exposure.exits - exposure.closed
    # What a closed trade sold can be missing only from what the position has beyond the open ones.
    beyond = max(ZERO, view.qty - exposure.all_open)
    return _sold(view, strangers) + min(_sold(view, exposure.closed - exposure.exits), beyond)


def allowance(
    exposure: Exposure, view: SymbolView, *, missing_stop: bool, step: Decimal | None = None
) -> tuple[Decimal, str]:
    """How much may be sold now, and the reason if zero."""
    why = barrier(exposure, view, missing_stop=missing_stop)
    if why is not None:
        return ZERO, why
    qty = free(exposure, view, step=step)
    if qty > 0:
        return qty, ""
    held = ", ".join(f"{o.id} ({o.side} {o.type}, {o.status})" for o in view.closing)
    return ZERO, f"its shares are held by {held}" if held else "nothing of it is free"
