"""Alpaca as the `Broker` port: complete lists or an error, never something in between.

Invariants: a list is returned only when its end was seen; None from a look-up is the broker's
own "does not exist"; an answer that is not about what was asked is an error; a write is sent
once. Source: Alpaca Trading API, orders, positions, account activities, assets, market data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import quote

from ghostclean.adapters.alpaca_transport import AlpacaTransport, NotFound
from ghostclean.app.ports import History, OrderRequest, Price, Session
from ghostclean.core.broker import (
    Account,
    Activity,
    BadNumber,
    Fill,
    Impossible,
    MarketClock,
    Order,
    Position,
    crypto_pair,
    eastern,
    flatten,
    is_option,
    merge_positions,
    number,
    parse_time,
    plain,
    symbol_key,
)
from ghostclean.errors import AnswerLost, BrokerError

T = TypeVar("T")
Row = Mapping[str, Any]

_ORDER_PAGE = 500
_DEFAULT_PAGE = 50
_ORDER_PAGES = 40
_ACTIVITY_PAGE = 100
_ACTIVITY_PAGES = 60
_SYMBOLS_LENGTH = 5000
_PRICE_BATCH = 100
_LATE_BOOKING = timedelta(days=1)
_FRESH = timedelta(seconds=60)
_ACTIVITY_TYPES = "OPEXP,OPASN,OPEXC,OPTRD,SPLIT,SPIN,NC,MA,OPCA,REORG"
_WITH_LEGS = frozenset({"bracket", "oco", "oto", "mleg"})
_SHORTEST_PAIR = 6


class _SeamLost(BrokerError):
    """A page did not begin where the one before it ended: rows may be missing between them."""


class _TooManyPages(BrokerError):
    """The page cap was reached before the list ended."""


class AlpacaBroker:
    """The `Broker` port over Alpaca's REST API; one account, one run.

    `time_left` returns the seconds that the present step may still use.
    """

    def __init__(
        self,
        *,
        trading_url: str,
        data_url: str,
        api_key: str,
        secret_key: str,
        live: bool,
        time_left: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._live = live
        self._trading = AlpacaTransport(trading_url, api_key, secret_key, time_left=time_left, sleep=sleep)
        self._data = AlpacaTransport(data_url, api_key, secret_key, time_left=time_left, sleep=sleep)

    @property
    def live(self) -> bool:
        return self._live

    def now(self) -> datetime:
        return self._trading.now()

    def requests_left(self) -> int | None:
        return self._trading.requests_left()

    # ----------------------------------------------------------------- broker truth

    def account(self) -> Account:
        return _parsed("the account", Account.parse, self._trading.get("/account"))

    def working_orders(self) -> tuple[Order, ...]:
        """Read flat: a nested open list shows parents only, so the working legs of a bracket
        whose entry has filled, its stop above all, would be in no row at all.
        """
        try:
            rows = self._open_rows()
        except _SeamLost:
            # An order that ended between two pages looks the same; a second reading tells
            rows = self._open_rows()
        orders = _parsed("the working orders", flatten, rows)
        newest = {order.id: order for order in orders}
        return tuple(order for order in newest.values() if not order.is_final)

    def _open_rows(self) -> list[Row]:
        pages = self._order_pages({"status": "open", "nested": "false"}, _ORDER_PAGES)
        return [row for page in pages for row in page]

    def positions(self) -> tuple[Position, ...]:
        rows = _rows(self._trading.get("/positions"), "the position list")
        positions = [_parsed("a position", Position.parse, row) for row in rows]
        return _parsed("the position list", merge_positions, positions)

    # ----------------------------------------------------------------- order look-ups

    def order(self, order_id: str) -> tuple[Order, ...] | None:
        try:
            raw = self._trading.get(_path("/orders", order_id), {"nested": "true"})
        except NotFound:
            return None
        return _asked_first(raw, f"order {order_id}", lambda order: order.id.lower() == order_id.lower())

    def order_by_client_id(self, client_id: str) -> tuple[Order, ...] | None:
        if not client_id.strip():
            raise BrokerError("an empty client order id finds no order", transient=False)
        try:
            raw = self._trading.get("/orders:by_client_order_id", {"client_order_id": client_id})
        except NotFound:
            return None
        found = _asked_first(raw, f"client order {client_id}", lambda order: order.client_id == client_id)
        if len(found) > 1 or found[0].order_class not in _WITH_LEGS:
            return found
        # This look-up knows no `nested`, so the legs come from a second one
        whole = self.order(str(found[0].raw["id"]))
        if whole is None:
            raise BrokerError(f"order {found[0].id} is known by its client id and unknown by its own")
        return whole

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        orders: dict[str, Order] = {}
        truncated = False
        pages_left = max_pages
        for batch in _symbol_batches(symbols):
            pages = self._order_pages({"status": "all", "nested": "true", "symbols": batch}, pages_left)
            try:
                for page in pages:
                    pages_left -= 1
                    found = _parsed("the order history", flatten, page)
                    orders.update((order.id, order) for order in found)
                    if _reaches_back(page, since):
                        break
            except _TooManyPages:
                truncated = True
        return History(tuple(orders.values()), since, truncated)

    def _order_pages(self, query: Mapping[str, str], max_pages: int) -> Iterator[list[Row]]:
        """Pages of an order list, newest first, until its end; raises rather than leave a gap.

        The cursor is not the last row but the one before the group of rows that share the last
        row's time (legs of one bracket do), so each page shows again how the one before ended.
        A page that does not is no continuation. It also makes no difference then whether the
        API means its cursor by id or by time, with the cursor's own row or without.
        """
        what = f"the list of {query['status']} orders"
        cursor: Row | None = None
        overlap: tuple[str, ...] = ()
        seen: set[str] = set()
        for _ in range(max_pages):
            asked = {**query, "limit": str(_ORDER_PAGE), "direction": "desc"}
            if cursor is not None:
                asked["before_order_id"] = cursor["id"]
            rows = _rows(self._trading.get("/orders", asked), what)
            ids = {_row_id(row, what) for row in rows}
            if cursor is not None:
                _check_continues(rows, cursor, overlap, seen, what)
            yield rows
            if not _may_go_on(len(rows)) or (cursor is not None and ids <= {*overlap, cursor["id"]}):
                return
            if ids <= seen:
                raise BrokerError(f"{what} repeats itself: it may be cut")
            seen |= ids
            cursor, overlap = _seam(rows)
        raise _TooManyPages(f"{what} has more than {max_pages} pages: it was not read to its end")

    # ----------------------------------------------------------------- activities

    def fills(self, since: datetime) -> tuple[Fill, ...]:
        rows = self._activity_rows("/account/activities/FILL", {}, since)
        fills = [_parsed("a fill", Fill.parse, row) for row in _amended(rows)]
        wanted = (fill for fill in fills if fill is not None and fill.at >= since)
        return tuple(sorted(wanted, key=lambda fill: (fill.at, fill.id)))

    def activities(self, since: datetime) -> tuple[Activity, ...]:
        rows = self._activity_rows("/account/activities", {"activity_types": _ACTIVITY_TYPES}, since)
        found = [_parsed("an activity", Activity.parse, row) for row in _amended(rows)]
        return tuple(activity for activity in found if activity is not None)

    def _activity_rows(self, path: str, query: Mapping[str, str], since: datetime) -> list[Row]:
        what = "the list of fills" if path.endswith("FILL") else "the list of activities"
        # `after` filters by when a row was booked, which may be a day off from when it happened
        after = (since - _LATE_BOOKING).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        asked = {**query, "after": after, "direction": "asc", "page_size": str(_ACTIVITY_PAGE)}
        found: dict[str, Row] = {}
        for _ in range(_ACTIVITY_PAGES):
            rows = _rows(self._trading.get(path, asked), what)
            before = len(found)
            found.update((_row_id(row, what), row) for row in rows)
            if len(rows) < _ACTIVITY_PAGE:
                return list(found.values())
            if len(found) == before:
                raise BrokerError(f"{what} repeats itself: it may be cut")
            asked["page_token"] = _row_id(rows[-1], what)
        raise _TooManyPages(f"{what} has more than {_ACTIVITY_PAGES} pages: it was not read to its end")

    # ----------------------------------------------------------------- market

    def clock(self) -> MarketClock:
        return _parsed("the clock", MarketClock.parse, self._trading.get("/clock"))

    def calendar(self, first: date, last: date) -> tuple[Session, ...]:
        raw = self._trading.get("/calendar", {"start": first.isoformat(), "end": last.isoformat()})
        sessions = [_parsed("the calendar", _session, row) for row in _rows(raw, "the calendar")]
        return tuple(sorted((s for s in sessions if first <= s.day <= last), key=lambda s: s.day))

    def asset(self, symbol: str) -> Mapping[str, Any] | None:
        key = symbol_key(symbol)
        spellings = [key, crypto_pair(key)] if _is_pair(symbol) else [symbol]
        for spelling in spellings:
            try:
                raw = self._trading.get(_path("/assets", spelling))
            except NotFound:
                continue
            if not isinstance(raw, dict) or symbol_key(str(raw.get("symbol", ""))) != key:
                raise BrokerError(f"the answer about asset {symbol} is about something else")
            return raw
        return None

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Price]:
        """Last trades; for symbols without a fresh one a two-sided quote that is newer; no options."""
        pairs = sorted({crypto_pair(s.upper()) for s in symbols if _is_pair(s)})
        stocks = sorted({symbol_key(s) for s in symbols if not _is_pair(s) and not is_option(s.upper())})
        found: dict[str, Price] = {}
        for names, path, version in ((stocks, "/stocks/{}/latest", "v2"), (pairs, "/crypto/us/latest/{}", "v1beta3")):
            for kind, read in (("trades", _trade_price), ("quotes", _quote_price)):
                fresh = {key for key, price in found.items() if self.now() - price.at <= _FRESH}
                missing = [name for name in names if symbol_key(name) not in fresh]
                for at in range(0, len(missing), _PRICE_BATCH):
                    rows = self._latest(path.format(kind), version, kind, missing[at : at + _PRICE_BATCH])
                    priced = {symbol_key(name): _parsed(f"the latest {kind}", read, row) for name, row in rows.items()}
                    found.update((k, p) for k, p in priced.items() if p is not None and _is_newer(p, found.get(k)))
        return found

    def _latest(self, path: str, version: str, kind: str, names: list[str]) -> Mapping[str, Any]:
        """The feed's rows by symbol; a symbol that the feed calls invalid is left out of it."""
        while names:
            try:
                answer = self._data.get(path, {"symbols": ",".join(names)}, api_version=version)
            except BrokerError as error:
                invalid = re.search(r"invalid symbol:? ([A-Z0-9./]+)", str(error))
                if error.status != 400 or invalid is None or invalid[1] not in names:
                    raise
                names = [name for name in names if name != invalid[1]]
                continue
            rows = answer.get(kind) if isinstance(answer, dict) else None
            if not isinstance(rows, dict):
                raise BrokerError(f"the latest {kind} are not what the market data API sends")
            return {symbol: row for symbol, row in rows.items() if symbol in names}
        return {}

    # ----------------------------------------------------------------- writes

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        raw = self._trading.post("/orders", _order_body(request))
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


def _is_newer(price: Price, known: Price | None) -> bool:
    return known is None or price.at > known.at


def _parsed(what: str, parse: Callable[[Any], T], raw: Any) -> T:
    """The parsed answer; what the API cannot have given is a failed read."""
    try:
        return parse(raw)
    except (Impossible, ArithmeticError, RecursionError) as error:
        raise BrokerError(f"{what} cannot be right: {error}") from None


def _path(collection: str, name: str) -> str:
    """One member of a collection. An empty or dotted name would mean the whole of it: to DELETE
    that is to cancel every order of the account.
    """
    if not name.strip(". "):
        raise BrokerError(f"{name!r} is no id and no symbol", transient=False)
    return f"{collection}/{quote(name, safe='')}"


def _rows(raw: Any, what: str) -> list[Row]:
    if not isinstance(raw, list) or not all(isinstance(row, dict) for row in raw):
        raise BrokerError(f"{what} is no JSON array of objects")
    return raw


def _row_id(row: Row, what: str) -> str:
    row_id = row.get("id")
    if not isinstance(row_id, str) or not row_id:
        raise BrokerError(f"{what} has a row without id")
    return row_id


def _asked_first(raw: Any, what: str, is_asked: Callable[[Order], bool]) -> tuple[Order, ...]:
    """The order that was asked for, then what is nested with it."""
    orders = _parsed(what, flatten, [raw])
    asked = next((order for order in orders if is_asked(order)), None)
    if asked is None:
        raise BrokerError(f"the answer about {what} is about another order, {orders[0].id}")
    return (asked, *(order for order in orders if order is not asked))


# --------------------------------------------------------------------------- pages


def _may_go_on(length: int) -> bool:
    """Whether a page of that length can be followed by more.

    Not only a full one: had `limit` been ignored, a page would end at the API's default.
    """
    return length == _DEFAULT_PAGE or length >= _ORDER_PAGE


def _seam(rows: list[Row]) -> tuple[Row, tuple[str, ...]]:
    """The cursor for the next page and the ids that page must begin with."""
    last = rows[-1].get("submitted_at")
    start = len(rows) - 1
    while start > 1 and rows[start - 1].get("submitted_at") == last:
        start -= 1
    if rows[start - 1].get("submitted_at") == last:
        start = len(rows) - 1  # one time on the whole page: only the id can tell rows apart
    return rows[start - 1], tuple(row["id"] for row in rows[start:])


def _check_continues(rows: list[Row], cursor: Row, overlap: tuple[str, ...], seen: set[str], what: str) -> None:
    """Raises unless a page goes on exactly where the one before it ended.

    It may show again how that one ended, and rows of the cursor's own moment: a cursor meant by
    time cannot tell them apart. Any other row seen before means that the cursor was ignored.
    """
    moment = cursor.get("submitted_at")
    old = [row for row in rows if row["id"] in seen and row["id"] not in overlap]
    if any(moment is None or row.get("submitted_at") != moment for row in old):
        raise BrokerError(f"{what} repeats itself: it may be cut")
    begin = tuple(row["id"] for row in rows if row["id"] in overlap)
    if not begin:
        raise _SeamLost(f"{what} changed between two pages: rows may be missing")
    # Rows newer than the cursor: harmless in a list that is not quite sorted, as long as the page
    # begins with all of the overlap, so that it goes on by place; else it is some other list.
    limit = parse_time(moment)
    times = (parse_time(row.get("submitted_at")) for row in rows)
    by_place = not old and begin == overlap == tuple(row["id"] for row in rows[: len(overlap)])
    if limit is not None and not by_place and any(at is not None and at > limit for at in times):
        raise BrokerError(f"{what} has rows out of place: it may be cut")


def _reaches_back(page: list[Row], since: datetime) -> bool:
    times = (parse_time(row.get("submitted_at")) for row in page)
    return any(at is not None and at < since for at in times)


def _symbol_batches(symbols: Iterable[str]) -> Iterator[str]:
    """Comma lists short enough for a URL; a crypto pair in both spellings, as both are in use."""
    batch: list[str] = []
    length = 0
    for symbol in sorted({symbol.upper() for symbol in symbols}):
        names = sorted({symbol_key(symbol), crypto_pair(symbol)}) if _is_pair(symbol) else [symbol]
        size = sum(len(quote(name, safe="")) + 3 for name in names)  # a comma is sent as %2C
        if batch and length + size > _SYMBOLS_LENGTH:
            yield ",".join(batch)
            batch, length = [], 0
        batch += names
        length += size
    if batch:
        yield ",".join(batch)


def _amended(rows: Iterable[Row]) -> list[Row]:
    """Activity rows without those that a later row corrects, cancels or busts."""
    kept: dict[str, Row] = {}
    for row in rows:
        previous = row.get("previous_id")
        if isinstance(previous, str) and previous:
            kept = {name: old for name, old in kept.items() if name.rsplit("::", 1)[-1] != previous.rsplit("::", 1)[-1]}
        if row.get("execution_type") != "trade_bust":
            kept[row["id"]] = row
    return list(kept.values())


# --------------------------------------------------------------------------- symbols, sessions, prices


def _is_pair(symbol: str) -> bool:
    """Whether a symbol is a crypto pair; unslashed ones are longer than any stock (GBTC is one)."""
    name = symbol.strip().upper()
    return "/" in name or (len(name) >= _SHORTEST_PAIR and not is_option(name) and "/" in crypto_pair(name))


def _session(row: Row) -> Session:
    try:
        day = date.fromisoformat(row["date"])
        opens, closes = (_session_time(day, row[name]) for name in ("open", "close"))
    except (KeyError, TypeError, ValueError):
        raise Impossible("a day without date, open or close") from None
    return Session(day, opens, closes)


def _session_time(day: date, value: str) -> datetime:
    """Wall-clock time in New York, as the calendar documents it, or a whole time with its offset."""
    return parse_time(value) or eastern(day, clock_time.fromisoformat(value))


def _positive(row: Row, name: str) -> Decimal | None:
    try:
        value = number(row.get(name))
    except BadNumber as error:
        raise Impossible(f"{name}: {error}") from None
    return value if value is not None and value > 0 else None


def _trade_price(row: Any) -> Price | None:
    if not isinstance(row, dict):
        raise Impossible("a trade that is no object")
    price, at = _positive(row, "p"), parse_time(row.get("t"))
    return Price(price, at, is_trade=True) if price is not None and at is not None else None


def _quote_price(row: Any) -> Price | None:
    """The middle; a 0 stands for a side on which nobody quotes, so there is no middle."""
    if not isinstance(row, dict):
        raise Impossible("a quote that is no object")
    bid, ask, at = _positive(row, "bp"), _positive(row, "ap"), parse_time(row.get("t"))
    if bid is None or ask is None or at is None or bid > ask:
        return None
    return Price((bid + ask) / 2, at, is_trade=False)


def _order_body(request: OrderRequest) -> dict[str, Any]:
    """The JSON of a new order; the API types quantities and prices as strings."""
    body: dict[str, Any] = {
        "symbol": crypto_pair(request.symbol.upper()) if _is_pair(request.symbol) else request.symbol,
        "qty": plain(request.qty),
        "side": request.side,
        "type": request.type,
        "time_in_force": request.time_in_force,
        "order_class": request.order_class,
        "client_order_id": request.client_id,
    }
    if request.limit_price is not None:
        body["limit_price"] = plain(request.limit_price)
    if request.stop_price is not None:
        body["stop_price"] = plain(request.stop_price)
    if request.take_profit is not None:
        body["take_profit"] = {"limit_price": plain(request.take_profit)}
    if request.stop_loss is not None:
        body["stop_loss"] = {"stop_price": plain(request.stop_loss)}
    return body
