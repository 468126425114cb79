"""Broker truth as immutable records, in the broker's words; an unknown order status counts as working."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from .instrument import Side
from .values import ZERO

FINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
_STOP_TYPES = frozenset({"stop", "stop_limit", "trailing_stop"})
_ENOUGH = Decimal("0.8")
_OPTION_ENDS = frozenset({"OPEXP", "OPASN", "OPEXC"})
_TRANSFERS = frozenset({"ACATS", "FOPT", "JNL", "JNLS"})
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def is_activity_id(text: str) -> bool:
    """Whether an id is of an activity and not of an order."""
    return "::" in text


def canonical_id(text: str) -> str:
    """An order id as compared: a UUID in lower case."""
    return text.lower() if is_uuid(text) else text


@dataclass(frozen=True, slots=True)
class Account:
    """The account that answered; amounts in USD, None where not given; `number` is masked in a snapshot."""

    id: str
    status: str
    long_value: Decimal | None
    short_value: Decimal | None
    blocked: bool
    equity: Decimal | None = None
    cash: Decimal | None = None
    number: str = ""

    @property
    def is_bare(self) -> bool:
        """Zero equity and zero cash, as in a wiped account."""
        return self.equity == 0 and self.cash == 0


@dataclass(frozen=True, slots=True)
class Position:
    """One netted holding: `qty` is positive, `side` says which way, `available` is what no working order holds."""

    symbol: str
    key: str
    side: Side
    qty: Decimal
    avg_price: Decimal | None
    market_value: Decimal | None
    price: Decimal | None
    asset_id: str
    asset_class: str
    available: Decimal | None = None

    @property
    def is_crypto(self) -> bool:
        return self.asset_class == "crypto"

    @property
    def signed_value(self) -> Decimal | None:
        """The market value, negative for a short."""
        return None if self.market_value is None else abs(self.market_value) * self.side.sign


@dataclass(frozen=True, slots=True)
class Unread:
    """An instrument of which a row cannot be read; where not even its symbol is known, `name` is an asset id and `key`
    empty.

    `value` is the market value of what is held, where at least that is known.
    """

    name: str
    key: str
    why: str
    value: Decimal | None

    def __str__(self) -> str:
        return f"{self.name} is not observed: {self.why}"


@dataclass(frozen=True, slots=True)
class Positions:
    """The position list: the rows, and the instruments that are not observed.

    Not observed is not absent: of such an instrument nothing is known.
    """

    rows: tuple[Position, ...] = ()
    unread: tuple[Unread, ...] = ()

    def without(self, unread: Iterable[Unread]) -> Positions:
        """The same with these instruments not observed either: of half of its facts nothing follows."""
        hidden = {u.key: u for u in unread}
        held = {p.key: p for p in self.rows if p.key in hidden}
        more = (replace(u, value=held[key].signed_value) if key in held else u for key, u in hidden.items())
        rows = tuple(p for p in self.rows if p.key not in hidden)
        return Positions(rows, (*self.unread, *more)) if hidden else self

    def is_unread(self, *keys: str) -> bool:
        """Whether one of these is not observed by name."""
        return any(u.key in keys for u in self.unread if u.key)

    def why_unobserved(self, *keys: str) -> str | None:
        """Why not all of these instruments are observed; a row without a symbol may be of any other than the rows."""
        if not self.unread:
            return None
        held = {p.key for p in self.rows}
        return next((str(u) for u in self.unread if (u.key in keys if u.key else not held.issuperset(keys))), None)

    def named(self, keys: Mapping[str, str]) -> Positions:
        """The same with the symbols known that these assets have."""
        return replace(self, unread=tuple(replace(u, key=u.key or keys.get(u.name, "")) for u in self.unread))

    def __len__(self) -> int:
        return len(self.rows) + len({u.name for u in self.unread if u.value != ZERO})


@dataclass(frozen=True, slots=True)
class Order:
    """One order as last described; `legs` are ids, `intent` the broker's `position_intent`."""

    id: str
    client_id: str
    symbol: str
    key: str
    asset_id: str
    asset_class: str
    side: str
    type: str
    order_class: str
    status: str
    qty: Decimal | None
    filled_qty: Decimal
    avg_price: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    submitted_at: datetime | None
    filled_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    replaced_by: str | None
    replaces: str | None
    legs: tuple[str, ...] = ()
    parent: str | None = None
    time_in_force: str = ""
    intent: str = ""

    @property
    def is_final(self) -> bool:
        """Whether this id is over (a replaced order lives on under another)."""
        return self.status in FINAL

    @property
    def works(self) -> bool:
        """It can still fill; filled in full it cannot, whatever its status."""
        return not self.is_final and (self.qty is None or not self.qty or self.filled_qty < self.qty)

    @property
    def is_stop(self) -> bool:
        return self.type in _STOP_TYPES

    @property
    def is_crypto(self) -> bool:
        return self.asset_class == "crypto" or "/" in self.symbol

    @property
    def is_multi_leg(self) -> bool:
        return self.order_class == "mleg"

    @property
    def last_time(self) -> datetime | None:
        """The latest moment at which something happened to this order."""
        times = [t for t in (self.submitted_at, self.filled_at, self.ended_at) if t is not None]
        return max(times) if times else None

    @property
    def fill_time(self) -> datetime | None:
        """When it was last filled, as far as the order itself tells."""
        if not self.filled_qty:
            return None
        return self.filled_at or self.ended_at or self.submitted_at

    def joined(self, earlier: Order) -> Order:
        """The newer answer, keeping the legs and the parent that an earlier one showed."""
        if (self.legs or not earlier.legs) and (self.parent or not earlier.parent):
            return self
        return replace(self, legs=self.legs or earlier.legs, parent=self.parent or earlier.parent)

    def under(self, parent: str) -> Order:
        return replace(self, parent=parent)


@dataclass(frozen=True, slots=True)
class WorkingOrders:
    """The list of working orders: the rows, and the instruments of which one cannot be read."""

    rows: tuple[Order, ...] = ()
    unread: tuple[Unread, ...] = ()

    def __iter__(self) -> Iterator[Order]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution; `qty` and `price` as Decimal, `at` in UTC."""

    id: str
    order_id: str
    symbol: str
    key: str
    side: str
    qty: Decimal
    price: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class Activity:
    """A non-trade activity: end of an option, transfer, merger, split, rename.

    `qty` is what was added to a position, `amount` the cash that came with it in USD; rows of one
    `group` belong together.
    """

    id: str
    type: str
    symbol: str
    key: str
    qty: Decimal | None
    day: str
    subtype: str = ""
    group: str = ""
    amount: Decimal | None = None
    price: Decimal | None = None

    @property
    def is_option_end(self) -> bool:
        return self.type in _OPTION_ENDS

    @property
    def is_transfer(self) -> bool:
        """Shares came from, or went to, another account: nothing was sold."""
        return self.type in _TRANSFERS


@dataclass(frozen=True, slots=True)
class MarketClock:
    """The exchange's core session, by the broker."""

    at: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day's core session, in UTC."""

    day: date
    open: datetime
    close: datetime


@dataclass(frozen=True, slots=True)
class BrokerTruth:
    """Account, working orders and positions, read completely in one run; `at` is the broker's time of the last read."""

    account: Account
    orders: tuple[Order, ...]
    positions: Positions
    at: datetime

    @classmethod
    def of(cls, account: Account, orders: WorkingOrders, positions: Positions, at: datetime) -> BrokerTruth:
        """Of these answers, an instrument being observed where both lists tell all of it."""
        return cls(account, orders.rows, positions.without(orders.unread), at)

    def contradiction(self) -> str | None:
        """Why the account's market value and the rows contradict each other, by side, if they do.

        $1 or more without a row, or rows worth less than 80 % of it; more than it, or a null price, is no
        contradiction.
        """
        account = self.account
        return self._missing(Side.LONG, account.long_value) or self._missing(Side.SHORT, account.short_value)

    def _missing(self, side: Side, value: Decimal | None) -> str | None:
        if value is None or abs(value) < 1:
            return None
        held = f"the account holds {side.lower()} positions worth ${abs(value)}, the position list"
        rows = [p.market_value for p in self.positions.rows if p.side is side and p.qty]
        # Where a row does not say, it may be worth anything.
        rows += [u.value for u in self.positions.unread if u.value is None or u.value * side.sign > 0]
        if not rows:
            return f"{held} has none"
        known = [abs(row) for row in rows if row is not None]
        shown = sum(known, ZERO)
        return f"{held} only ${shown}" if len(known) == len(rows) and shown < abs(value) * _ENOUGH else None


# --------------------------------------------------------------------------- our client order ids

# Owner + purpose + n, so that a retry is harmless. An order carrying such an id belongs to its trade
# even if the record never got to know it. The owner is unique in the account (`Trade.owner`): ledgers
# that count their trades 1, 2, 3 share accounts. Orders of earlier versions carry the trade's id alone.
PREFIX = "gc-"


@dataclass(frozen=True, slots=True)
class OwnId:
    """The parts of one of our client order ids."""

    trade: str
    purpose: str
    n: int


def trade_tag(owner: str) -> str:
    """A short stable tag for an owner of any length and alphabet."""
    return hashlib.sha256(owner.encode()).hexdigest()[:20]


def client_id(owner: str, purpose: str, n: int) -> str:
    return f"{PREFIX}{trade_tag(owner)}-{purpose}-{n}"


def parse_client_id(text: str) -> OwnId | None:
    """The parts of one of our ids; None for anybody else's."""
    if not text.startswith(PREFIX):
        return None
    parts = text.split("-")
    if len(parts) != 4 or not parts[3].isdigit():
        return None
    return OwnId(parts[1], parts[2], int(parts[3]))
