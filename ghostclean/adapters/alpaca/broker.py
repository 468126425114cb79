"""Alpaca as the `Broker` port: a complete list or an error, an answer about what was asked, a write sent once.

Source: Alpaca Trading API: orders, positions, account activities, assets, market data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Self, TypeGuard, TypeVar
from urllib.parse import quote

from ghostclean.adapters.alpaca.paging import (
    Api,
    NotFound,
    SeamLost,
    TooManyPages,
    activity_rows,
    order_pages,
    reaches_back,
    rows_of,
    symbol_batches,
)
from ghostclean.adapters.alpaca.records import (
    Impossible,
    Row,
    is_pair,
    order_body,
    read_account,
    read_activity,
    read_clock,
    read_fill,
    read_orders,
    read_positions,
    read_quote,
    read_session,
    read_trade,
    read_working,
)
from ghostclean.app.deadline import call_left
from ghostclean.app.ports import History, OrderRequest, Price
from ghostclean.core.broker import (
    Account,
    Activity,
    Fill,
    MarketClock,
    Order,
    Positions,
    Session,
    WorkingOrders,
    crypto_pair,
    is_option,
    plain,
    symbol_key,
)
from ghostclean.errors import AnswerLost, BrokerError, WrongAnswer

T = TypeVar("T")

FILLS, ACTIVITIES = "/account/activities/FILL", "/account/activities"
_ORDER_PAGES = 40
LATE_BOOKING = timedelta(days=1)  # an activity may be booked a day off from when it happened
_PRICE_BATCH = 100
_FRESH = timedelta(seconds=60)
_ACTIVITY_TYPES = "OPEXP,OPASN,OPEXC,OPTRD,SPLIT,SPIN,NC,MA,OPCA,REORG,ACATS,FOPT,JNL,JNLS"
_WITH_LEGS = frozenset({"bracket", "oco", "oto", "mleg"})


class AlpacaBroker:
    """The `Broker` port over Alpaca's trading and market data APIs; one account, one run."""

    def __init__(self, trading: Api, data: Api, *, live: bool) -> None:
        self._trading = trading
        self._data = data
        self._live = live

    @classmethod
    def connect(
        cls,
        *,
        trading_url: str,
        data_url: str,
        api_key: str,
        secret_key: str,
        live: bool,
        time_left: Callable[[], float] = call_left,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Over HTTP; `time_left` returns the seconds that the present step may still use."""
        from ghostclean.adapters.alpaca.transport import AlpacaTransport

        def at(url: str) -> AlpacaTransport:
            return AlpacaTransport(url, api_key, secret_key, time_left=time_left, sleep=sleep)

        return cls(at(trading_url), at(data_url), live=live)

    def close(self) -> None:
        self._trading.close()
        self._data.close()

    @property
    def live(self) -> bool:
        return self._live

    def now(self) -> datetime:
        return self._trading.now()

    def requests_left(self) -> int | None:
        return self._trading.requests_left()

    # ----------------------------------------------------------------- raw reads

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        return self._trading.get(path, query)

    def _order_pages(self, query: Mapping[str, str], max_pages: int) -> Iterator[list[Row]]:
        return order_pages(self._trading, query, max_pages)

    def _open_rows(self) -> list[Row]:
        pages = self._order_pages({"status": "open", "nested": "false"}, _ORDER_PAGES)
        return [row for page in pages for row in page]

    def _activity_rows(self, path: str, since: datetime, types: Mapping[str, str]) -> list[Row]:
        # `after` filters by when a row was booked
        after = (since - LATE_BOOKING).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return activity_rows(self._trading, path, {**types, "after": after})

    # ----------------------------------------------------------------- broker truth

    def account(self) -> Account:
        return _parsed("the account", read_account, self._get("/account"))

    def working_orders(self) -> WorkingOrders:
        """Read flat: a nested list hides the working legs of a bracket whose entry has filled."""
        try:
            rows = self._open_rows()
        except SeamLost:
            # An order that ended between two pages looks the same; a second reading tells
            rows = self._open_rows()
        return _parsed("the working orders", lambda raw: read_working(raw, self._symbol_of), rows)

    def positions(self) -> Positions:
        return _parsed("the position list", lambda raw: read_positions(raw, self._symbol_of), self._get("/positions"))

    def _symbol_of(self, asset_id: str) -> str:
        try:
            raw = self._get(_path("/assets", asset_id))
        except BrokerError:
            return ""
        return str(raw.get("symbol") or "") if isinstance(raw, dict) and raw.get("id") == asset_id else ""

    # ----------------------------------------------------------------- order look-ups

    def order(self, order_id: str) -> tuple[Order, ...] | None:
        try:
            raw = self._get(_path("/orders", order_id), {"nested": "true"})
        except NotFound:
            return None
        return _asked_first(raw, f"order {order_id}", lambda order: order.id.lower() == order_id.lower())

    def order_by_client_id(self, client_id: str) -> tuple[Order, ...] | None:
        if not client_id.strip():
            raise BrokerError("an empty client order id finds no order", transient=False)
        try:
            raw = self._get("/orders:by_client_order_id", {"client_order_id": client_id})
        except NotFound:
            return None
        found = _asked_first(raw, f"client order {client_id}", lambda order: order.client_id == client_id)
        if len(found) > 1 or found[0].order_class not in _WITH_LEGS:
            return found
        # This look-up knows no `nested`, so the legs come from a second one
        whole = self.order(found[0].id)
        if whole is None:
            raise WrongAnswer(f"order {found[0].id} is known by its client id and unknown by its own")
        return whole

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        orders: dict[str, Order] = {}
        truncated = False
        pages_left = max_pages
        for batch in symbol_batches(symbols):
            pages = self._order_pages({"status": "all", "nested": "true", "symbols": batch}, pages_left)
            try:
                for page in pages:
                    pages_left -= 1
                    found = _parsed("the order history", read_orders, page)
                    orders.update((order.id, order) for order in found)
                    if reaches_back(page, since):
                        break
            except TooManyPages:
                truncated = True
        return History(tuple(orders.values()), since, truncated)

    # ----------------------------------------------------------------- activities

    def fills(self, since: datetime) -> tuple[Fill, ...]:
        rows = self._activity_rows(FILLS, since, {})
        fills = [_parsed("a fill", read_fill, row) for row in rows]
        wanted = (fill for fill in fills if fill is not None and fill.at >= since)
        return tuple(sorted(wanted, key=lambda fill: (fill.at, fill.id)))

    def activities(self, since: datetime) -> tuple[Activity, ...]:
        rows = self._activity_rows(ACTIVITIES, since, {"activity_types": _ACTIVITY_TYPES})
        found = [_parsed("an activity", read_activity, row) for row in rows]
        return tuple(activity for activity in found if activity is not None)

    # ----------------------------------------------------------------- market

    def clock(self) -> MarketClock:
        return _parsed("the clock", read_clock, self._get("/clock"))

    def calendar(self, first: date, last: date) -> tuple[Session, ...]:
        raw = self._get("/calendar", {"start": first.isoformat(), "end": last.isoformat()})
        sessions = [_parsed("the calendar", read_session, row) for row in rows_of(raw, "the calendar")]
        return tuple(sorted((s for s in sessions if first <= s.day <= last), key=lambda s: s.day))

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        key = symbol_key(symbol)
        spellings = [key, crypto_pair(key)] if is_pair(symbol) else [symbol]
        for spelling in spellings:
            try:
                raw = self._get(_path("/assets", spelling))
            except NotFound:
                continue
            if not isinstance(raw, dict) or symbol_key(str(raw.get("symbol", ""))) != key:
                raise WrongAnswer(f"the answer about asset {symbol} is about something else")
            return raw
        return None

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Price]:
        """Last trades; for symbols without a fresh one a two-sided quote that is newer; no options."""
        pairs = sorted({crypto_pair(s.upper()) for s in symbols if is_pair(s)})
        stocks = sorted({symbol_key(s) for s in symbols if not is_pair(s) and not is_option(s.upper())})
        return {
            **self._prices(stocks, "/stocks/{}/latest", "v2"),
            **self._prices(pairs, "/crypto/us/latest/{}", "v1beta3"),
        }

    def _prices(self, names: Sequence[str], path: str, version: str) -> dict[str, Price]:
        found: dict[str, Price] = {}
        for kind, read in (("trades", read_trade), ("quotes", read_quote)):
            fresh = {key for key, price in found.items() if self.now() - price.at <= _FRESH}
            missing = [name for name in names if symbol_key(name) not in fresh]
            for at in range(0, len(missing), _PRICE_BATCH):
                rows = self._latest(path.format(kind), version, kind, missing[at : at + _PRICE_BATCH])
                prices = {symbol_key(name): _parsed(f"the latest {kind}", read, row) for name, row in rows.items()}
                found |= {key: price for key, price in prices.items() if _is_newer(price, found.get(key))}
        return found

    def _latest(self, path: str, version: str, kind: str, names: list[str]) -> Mapping[str, Any]:
        """The feed's rows by symbol; a symbol that the feed calls invalid is left out of it."""
        if not names:
            return {}
        try:
            answer = self._data.get(path, {"symbols": ",".join(names)}, api_version=version)
        except BrokerError as error:
            others = [name for name in names if name != _invalid_symbol(error)]
            if len(others) == len(names):
                raise
            return self._latest(path, version, kind, others)
        rows = answer.get(kind) if isinstance(answer, dict) else None
        if not isinstance(rows, dict):
            raise WrongAnswer(f"the latest {kind} are not what the market data API sends")
        return {symbol: row for symbol, row in rows.items() if symbol in names}

    # ----------------------------------------------------------------- writes

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        raw = self._trading.post("/orders", order_body(request))
        try:
            return _asked_first(raw, f"order {request.client_id}", lambda order: order.client_id == request.client_id)
        except BrokerError as error:
            raise AnswerLost(f"an order was sent and {error}") from None

    def replace(self, order_id: str, client_id: str, **prices: Decimal) -> Order:
        body = {"client_order_id": client_id, **{name: plain(value) for name, value in prices.items()}}
        raw = self._trading.patch(_path("/orders", order_id), body)
        try:
            return _asked_first(raw, f"order {client_id}", lambda order: order.client_id == client_id)[0]
        except BrokerError as error:
            raise AnswerLost(f"a replacement of order {order_id} was sent and {error}") from None

    def cancel(self, order_id: str) -> None:
        self._trading.delete(_path("/orders", order_id))


# --------------------------------------------------------------------------- answers


def _invalid_symbol(error: BrokerError) -> str | None:
    found = re.search(r"invalid symbol:? ([A-Z0-9./]+)", str(error))
    return found[1] if error.status == 400 and found is not None else None


def _is_newer(price: Price | None, known: Price | None) -> TypeGuard[Price]:
    return price is not None and (known is None or price.at > known.at)


def _parsed(what: str, parse: Callable[[Any], T], raw: Any) -> T:
    try:
        return parse(raw)
    except (Impossible, ArithmeticError, RecursionError) as error:
        raise WrongAnswer(f"{what} cannot be right: {error}") from None


def _path(collection: str, name: str) -> str:
    """Refuses an empty or dotted name: a DELETE of the whole collection cancels every order of the account."""
    if not name.strip(". "):
        raise BrokerError(f"{name!r} is no id and no symbol", transient=False)
    return f"{collection}/{quote(name, safe='')}"


def _asked_first(raw: Any, what: str, is_asked: Callable[[Order], bool]) -> tuple[Order, ...]:
    orders = _parsed(what, read_orders, [raw])
    asked = next((order for order in orders if is_asked(order)), None)
    if asked is None:
        raise WrongAnswer(f"the answer about {what} is about another order, {orders[0].id}")
    return (asked, *(order for order in orders if order is not asked))
