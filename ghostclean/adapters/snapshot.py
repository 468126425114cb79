"""Broker truth as one JSON document: recorded from any broker, replayed as a broker of its own.

A snapshot holds raw answers only, no headers, and the account number masked. Replay answers
from the document at the document's time; what was not recorded is *not observed*, an error,
unless the document says it is `complete`: then what it does not list does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ghostclean.app.ports import Broker, History, OrderRequest, Price, Session
from ghostclean.core.broker import (
    Account,
    Activity,
    BadNumber,
    Fill,
    Impossible,
    MarketClock,
    Order,
    Position,
    flatten,
    iso,
    json_number,
    merge_positions,
    number,
    parse_time,
    plain,
    symbol_key,
)
from ghostclean.errors import BadSettings, BrokerError, Refused

T = TypeVar("T")
Raw = dict[str, Any]

SCHEMA = 1
KIND = "ghostclean-snapshot"
_CURE = " (nothing was done; check GHOSTCLEAN_BROKER)"


# --------------------------------------------------------------------------- recording


class RecordingBroker:
    """Passes every call on to another broker and keeps the raw answers; failures are not kept."""

    def __init__(self, inner: Broker) -> None:
        self._inner = inner
        self._at: datetime | None = None
        self._account: Raw | None = None
        self._orders: list[Raw] = []
        self._positions: list[Raw] = []
        self._looked_up: dict[str, Raw] = {}
        self._absent_orders: set[str] = set()
        self._absent_client_ids: set[str] = set()
        self._history: list[Raw] = []
        self._fills: _RowsSince = _RowsSince()
        self._activities: _RowsSince = _RowsSince()
        self._clock: Raw | None = None
        self._calendar: Raw | None = None
        self._assets: dict[str, Any] = {}
        self._prices: dict[str, Any] = {}

    @property
    def live(self) -> bool:
        return self._inner.live

    def now(self) -> datetime:
        self._at = self._inner.now()
        return self._at

    def requests_left(self) -> int | None:
        return self._inner.requests_left()

    def account(self) -> Account:
        account = self._inner.account()
        self._account = _masked(account.raw)
        return account

    def working_orders(self) -> tuple[Order, ...]:
        orders = self._inner.working_orders()
        self._orders = _roots(orders)
        return orders

    def positions(self) -> tuple[Position, ...]:
        positions = self._inner.positions()
        self._positions = [dict(position.raw) for position in positions]
        return positions

    def order(self, order_id: str) -> tuple[Order, ...] | None:
        found = self._inner.order(order_id)
        if found is None:
            self._absent_orders.add(order_id)
        else:
            self._keep(found)
        return found

    def order_by_client_id(self, client_id: str) -> tuple[Order, ...] | None:
        found = self._inner.order_by_client_id(client_id)
        if found is None:
            self._absent_client_ids.add(client_id)
        else:
            self._keep(found)
        return found

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        history = self._inner.history(symbols, since, max_pages)
        self._keep(history.orders)
        self._history.append({"symbols": list(symbols), "since": _exact(since), "truncated": history.truncated})
        return history

    def fills(self, since: datetime) -> tuple[Fill, ...]:
        fills = self._inner.fills(since)
        self._fills.add(since, fills)
        return fills

    def activities(self, since: datetime) -> tuple[Activity, ...]:
        activities = self._inner.activities(since)
        self._activities.add(since, activities)
        return activities

    def clock(self) -> MarketClock:
        clock = self._inner.clock()
        self._clock = dict(clock.raw)
        return clock

    def calendar(self, first: date, last: date) -> tuple[Session, ...]:
        sessions = self._inner.calendar(first, last)
        days = [{"day": s.day.isoformat(), "open": iso(s.open), "close": iso(s.close)} for s in sessions]
        self._calendar = {"first": first.isoformat(), "last": last.isoformat(), "sessions": days}
        return sessions

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        asset = self._inner.asset(symbol)
        self._assets[symbol] = None if asset is None else dict(asset)
        return asset

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Price]:
        prices = self._inner.prices(symbols)
        for symbol in symbols:
            price = prices.get(symbol_key(symbol))
            self._prices[symbol_key(symbol)] = None if price is None else _price_row(price)
        return prices

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        return self._inner.submit(request)

    def replace(self, order_id: str, client_id: str, **prices: Decimal) -> Order:
        return self._inner.replace(order_id, client_id, **prices)

    def cancel(self, order_id: str) -> None:
        self._inner.cancel(order_id)

    def _keep(self, orders: Iterable[Order]) -> None:
        self._looked_up.update((raw["id"], raw) for raw in _roots(tuple(orders)))

    def document(self, trades: Iterable[Mapping[str, Any]] = ()) -> Raw:
        """Everything recorded so far, and the ledger's open trades, as a snapshot."""
        recorded = {
            "schema": SCHEMA,
            "kind": KIND,
            "time": _exact(self._at or self.now()),  # that of the decision: look-ups after it took their time
            "live": self.live,
            "account": self._account,
            "orders": self._orders,
            "positions": self._positions,
            "lookups": {
                "orders": list(self._looked_up.values()),
                "absentOrders": sorted(self._absent_orders),
                "absentClientIds": sorted(self._absent_client_ids),
                "history": self._history,
                "fills": self._fills.document(),
                "activities": self._activities.document(),
                "clock": self._clock,
                "calendar": self._calendar,
                "assets": self._assets,
                "prices": self._prices,
            },
            "ledger": {"trades": list(trades)},
        }
        return {name: _json_value(value) for name, value in recorded.items()}


class _RowsSince:
    """Activity rows of several reads as one: back to the earliest of their beginnings."""

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._rows: dict[str, Raw] = {}

    def add(self, since: datetime, found: Iterable[Fill | Activity]) -> None:
        self._since = since if self._since is None else min(self._since, since)
        self._rows.update((row.id, dict(row.raw)) for row in found)

    def document(self) -> Raw | None:
        return None if self._since is None else {"since": _exact(self._since), "rows": list(self._rows.values())}


def _roots(orders: tuple[Order, ...]) -> list[Raw]:
    """The raw orders that are not nested in another of them: those bring their legs along."""
    nested = {leg for order in orders for leg in order.legs}
    return [dict(order.raw) for order in orders if order.id not in nested]


def _masked(account: Mapping[str, Any]) -> Raw:
    raw = dict(account)
    if isinstance(raw.get("account_number"), str):
        raw["account_number"] = "*****" + raw["account_number"][-2:]
    return raw


def _price_row(price: Price) -> Raw:
    return {"value": plain(price.value), "at": _exact(price.at), "isTrade": price.is_trade}


def _exact(moment: datetime) -> str:
    """With microseconds, unlike what people read: a replay compares these times."""
    return moment.isoformat()


def _json_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return json_number(value)
    if isinstance(value, Mapping):
        return {name: _json_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    return value


# --------------------------------------------------------------------------- replay


class SnapshotBroker:
    """The `Broker` port over a snapshot document; every read gives the same answer, writes are refused."""

    def __init__(self, document: object, name: str = "the snapshot") -> None:
        if not isinstance(document, dict) or document.get("kind") != KIND:
            raise BadSettings(f"{name} is no ghostclean snapshot: its kind must be {KIND!r}{_CURE}")
        if document.get("schema") != SCHEMA:
            raise BadSettings(
                f"{name} has schema {document.get('schema')!r}, this version reads schema {SCHEMA}{_CURE}"
            )
        at = parse_time(document.get("time"))
        lookups = _given(document.get("lookups"), {})
        if at is None or not isinstance(document.get("live", False), bool) or not isinstance(lookups, dict):
            raise BadSettings(f"{name} is damaged: `time`, `live` or `lookups` is not what a snapshot holds{_CURE}")
        self._name = name
        self._document = document
        self._lookups: Raw = lookups
        self._at = at
        self._complete = document.get("complete") is True

    @classmethod
    def load(cls, path: str | Path) -> SnapshotBroker:
        """Reads a snapshot file; BadSettings when it cannot be read or is none."""
        try:
            document = json.loads(Path(path).expanduser().read_text("utf-8"))
        except OSError as error:
            raise BadSettings(f"snapshot {path} cannot be read: {error.strerror or error}{_CURE}") from None
        except (ValueError, RecursionError):
            raise BadSettings(f"snapshot {path} is no complete JSON document{_CURE}") from None
        return cls(document, f"snapshot {path}")

    @property
    def live(self) -> bool:
        return self._document.get("live") is True

    @property
    def trades(self) -> tuple[Mapping[str, Any], ...]:
        """The ledger's open trades as they stood beside this truth."""
        ledger = _given(self._document.get("ledger"), {"trades": []})
        return tuple(self._objects(ledger.get("trades") if isinstance(ledger, dict) else ledger, "ledger.trades"))

    def now(self) -> datetime:
        return self._at

    def requests_left(self) -> int | None:
        return None

    # ----------------------------------------------------------------- broker truth

    def account(self) -> Account:
        return self._parsed("account", Account.parse, self._recorded(self._document, "account"))

    def working_orders(self) -> tuple[Order, ...]:
        orders = self._parsed("orders", flatten, self._recorded(self._document, "orders"))
        return tuple(order for order in _once(orders) if not order.is_final)

    def positions(self) -> tuple[Position, ...]:
        rows = self._objects(self._recorded(self._document, "positions"), "positions")
        positions = [self._parsed("positions", Position.parse, row) for row in rows]
        return self._parsed("positions", merge_positions, positions)

    # ----------------------------------------------------------------- look-ups

    def order(self, order_id: str) -> tuple[Order, ...] | None:
        return self._order("absentOrders", order_id, lambda order: order.id == order_id)

    def order_by_client_id(self, client_id: str) -> tuple[Order, ...] | None:
        return self._order("absentClientIds", client_id, lambda order: order.client_id == client_id)

    def _order(self, absent: str, asked: str, is_asked: Callable[[Order], bool]) -> tuple[Order, ...] | None:
        for orders in self._families():
            found = next((order for order in orders if is_asked(order)), None)
            if found is not None:
                return (found, *(order for order in orders if order is not found))
        known_absent = _given(self._lookups.get(absent), [])
        if not isinstance(known_absent, list):
            raise BrokerError(f"{self._name}: `lookups.{absent}` is no JSON array", transient=False)
        if not self._complete and asked not in known_absent:
            self._missing(f"order {asked}")
        return None

    def _families(self) -> list[list[Order]]:
        """The known orders, each with its legs: what was looked up, in a complete snapshot all."""
        rows = self._objects(_given(self._lookups.get("orders"), []), "lookups.orders")
        if self._complete:
            rows = rows + self._objects(_given(self._document.get("orders"), []), "orders")
        return [self._parsed("lookups.orders", flatten, [row]) for row in rows]

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        del max_pages  # a snapshot has no pages: it holds what the recorded reading found
        keys = {symbol_key(symbol) for symbol in symbols}
        recorded = self._objects(_given(self._lookups.get("history"), []), "lookups.history")
        read = [row for row in recorded if _covers(row, keys, since)]
        if not read and not self._complete:
            self._missing(f"the order history of {', '.join(sorted(keys))}")
        wanted = (
            order
            for orders in self._families()
            if any(leg.key in keys for leg in orders) and (orders[0].submitted_at or since) >= since
            for order in orders
        )
        return History(tuple(_once(wanted)), since, bool(read) and all(row.get("truncated") is True for row in read))

    def fills(self, since: datetime) -> tuple[Fill, ...]:
        fills = [self._parsed("lookups.fills", Fill.parse, row) for row in self._rows_since("fills", since)]
        wanted = (fill for fill in fills if fill is not None and fill.at >= since)
        return tuple(sorted(wanted, key=lambda fill: (fill.at, fill.id)))

    def activities(self, since: datetime) -> tuple[Activity, ...]:
        rows = self._rows_since("activities", since)
        found = [self._parsed("lookups.activities", Activity.parse, row) for row in rows]
        return tuple(activity for activity in found if activity is not None)

    def _rows_since(self, part: str, since: datetime) -> list[Raw]:
        recorded = self._lookups.get(part)
        if recorded is None and self._complete:
            return []
        if not isinstance(recorded, dict):
            self._missing(f"the list of {part}")
        start = parse_time(recorded.get("since"))
        if not self._complete and (start is None or start > since):
            self._missing(f"the list of {part} since {iso(since)}")
        return self._objects(recorded.get("rows"), f"lookups.{part}.rows")

    # ----------------------------------------------------------------- market

    def clock(self) -> MarketClock:
        return self._parsed("lookups.clock", MarketClock.parse, self._recorded(self._lookups, "clock"))

    def calendar(self, first: date, last: date) -> tuple[Session, ...]:
        recorded = self._recorded(self._lookups, "calendar")
        try:
            covered = date.fromisoformat(recorded["first"]) <= first and last <= date.fromisoformat(recorded["last"])
            sessions = [_session(row) for row in recorded["sessions"]]
        except (KeyError, TypeError, ValueError):
            raise BrokerError(f"{self._name} holds a calendar that is none", transient=False) from None
        if not covered:
            self._missing(f"the calendar from {first} to {last}")
        return tuple(session for session in sessions if first <= session.day <= last)

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        known, asset = self._by_symbol("assets", symbol)
        if not known:
            self._missing(f"asset {symbol}")
        return asset if isinstance(asset, dict) else None

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Price]:
        found: dict[str, Price] = {}
        for symbol in symbols:
            known, row = self._by_symbol("prices", symbol)
            if not known:
                self._missing(f"the price of {symbol}")
            if row is not None:
                found[symbol_key(symbol)] = self._parsed("lookups.prices", _price, row)
        return found

    def _by_symbol(self, part: str, symbol: str) -> tuple[bool, Any]:
        """Whether the snapshot speaks of a symbol, and what it says."""
        recorded = _given(self._lookups.get(part), {})
        if not isinstance(recorded, dict):
            raise BrokerError(f"{self._name} holds {part} that are no object", transient=False)
        by_key = {symbol_key(name): value for name, value in recorded.items()}
        key = symbol_key(symbol)
        return key in by_key or self._complete, by_key.get(key)

    # ----------------------------------------------------------------- writes

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        self._refuse(f"order {request.client_id}")

    def replace(self, order_id: str, client_id: str, **prices: Decimal) -> Order:
        del client_id, prices
        self._refuse(f"the replacement of {order_id}")

    def cancel(self, order_id: str) -> None:
        self._refuse(f"the cancel of {order_id}")

    # ----------------------------------------------------------------- the document

    def _refuse(self, what: str) -> NoReturn:
        raise Refused(f"{self._name} is a recording: {what} cannot be sent", status=403)

    def _missing(self, what: str) -> NoReturn:
        raise BrokerError(f"{what} is not in the snapshot ({self._name})")

    def _recorded(self, part: Raw, name: str) -> Any:
        value = part.get(name)
        if value is None:
            self._missing(f"the {name} answer")
        return value

    def _objects(self, value: Any, name: str) -> list[Raw]:
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise BrokerError(f"{self._name}: `{name}` is no JSON array of objects", transient=False)
        return value

    def _parsed(self, name: str, parse: Callable[[Any], T], raw: Any) -> T:
        try:
            return parse(raw)
        except Impossible as error:
            raise BrokerError(f"{self._name}: `{name}` cannot be right: {error}", transient=False) from None


def _given(value: Any, default: Any) -> Any:
    """The value unless it is left out; an empty one of a wrong type must not pass for left out."""
    return default if value is None else value


def _once(orders: Iterable[Order]) -> list[Order]:
    """Each order once; a leg may stand nested and on its own."""
    found: dict[str, Order] = {}
    for order in orders:
        found.setdefault(order.id, order)
    return list(found.values())


def _covers(row: Raw, keys: set[str], since: datetime) -> bool:
    start = parse_time(row.get("since"))
    symbols = row.get("symbols")
    if start is None or start > since or not isinstance(symbols, list):
        return False
    return keys <= {symbol_key(str(symbol)) for symbol in symbols}


def _session(row: Raw) -> Session:
    opens, closes = parse_time(row["open"]), parse_time(row["close"])
    if opens is None or closes is None:
        raise ValueError("a session without times")
    return Session(date.fromisoformat(row["day"]), opens, closes)


def _price(row: Any) -> Price:
    try:
        value, at = number(row["value"]), parse_time(row["at"])
    except (BadNumber, KeyError, TypeError):
        value = at = None
    if value is None or at is None:
        raise Impossible("a price without value or time")
    return Price(value, at, is_trade=row.get("isTrade") is True)
