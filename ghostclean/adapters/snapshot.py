"""Broker truth as one JSON document: records a run's raw answers (account number masked) and replays them.

An answer that was not recorded is an error, unless the document is `complete`: then it does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

from ghostclean.adapters.alpaca.broker import ACTIVITIES, FILLS, LATE_BOOKING, AlpacaBroker
from ghostclean.adapters.alpaca.paging import Api, NotFound
from ghostclean.adapters.alpaca.records import Impossible, Row, read_orders
from ghostclean.app.ports import History
from ghostclean.core.broker import Order, canonical_id, parse_time, symbol_key
from ghostclean.core.ledger import json_value
from ghostclean.errors import BadSettings, BrokerError, Refused
from ghostclean.places import Place

Document = dict[str, Any]

_SCHEMA = 1
_KIND = "ghostclean-snapshot"
_ASSETS = "/assets/"
_BY_CLIENT_ID = "/orders:by_client_order_id"
_PARTS = {FILLS: "fills", ACTIVITIES: "activities"}
_CURE = " (nothing was done; check GHOSTCLEAN_BROKER)"


class RecordingBroker(AlpacaBroker):
    """Keeps the raw answers to what a decision asks for; failures are not kept."""

    def __init__(self, trading: Api, data: Api, *, live: bool) -> None:
        super().__init__(trading, data, live=live)
        self._at: datetime | None = None
        self._single: dict[str, Any] = {}
        self._orders: list[Row] | None = None
        self._looked_up: dict[str, Row] = {}
        self._absent: dict[str, set[str]] = {"absentOrders": set(), "absentClientIds": set()}
        self._history: list[Document] = []
        self._activities: dict[str, tuple[datetime, dict[str, Row]]] = {}

    def now(self) -> datetime:
        self._at = super().now()
        return self._at

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        history = super().history(symbols, since, max_pages)
        self._history.append({"symbols": list(symbols), "since": since.isoformat(), "truncated": history.truncated})
        return history

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        try:
            answer = super()._get(path, query)
        except NotFound:
            if path.startswith("/orders"):
                part, name = _name(path, query or {})
                self._absent[part].add(name)
            raise
        if path.startswith("/orders"):
            self._keep([answer])
        else:
            self._single[path] = answer
        return answer

    def _order_pages(self, query: Mapping[str, str], max_pages: int) -> Iterator[list[Row]]:
        for page in super()._order_pages(query, max_pages):
            if query["status"] == "all":
                self._keep(page)
            yield page

    def _open_rows(self) -> list[Row]:
        self._orders = rows = super()._open_rows()
        return rows

    def _activity_rows(self, path: str, since: datetime, types: Mapping[str, str]) -> list[Row]:
        rows = super()._activity_rows(path, since, types)
        begin, known = self._activities.get(path, (since, {}))
        self._activities[path] = (min(begin, since), known | {row["id"]: row for row in rows})
        return rows

    def _keep(self, rows: Iterable[Any]) -> None:
        """A later answer counts, unless it leaves out the legs that an earlier one showed."""
        for row in rows:
            known = self._looked_up.get(row["id"], {}) if isinstance(row, dict) and "id" in row else None
            if known is not None and (row.get("legs") or not known.get("legs")):
                self._looked_up[row["id"]] = row

    def document(self, trades: Iterable[Mapping[str, Any]] = ()) -> Document:
        return {
            "schema": _SCHEMA,
            "kind": _KIND,
            # That of the decision: look-ups after it took their time
            "time": (self._at or self.now()).isoformat(),
            "live": self.live,
            "account": _masked(self._single.get("/account")),
            "orders": self._orders,
            "positions": self._single.get("/positions"),
            "lookups": {
                "orders": list(self._looked_up.values()),
                **{part: sorted(names) for part, names in self._absent.items()},
                "history": self._history,
                "fills": self._rows(FILLS),
                "activities": self._rows(ACTIVITIES),
                "clock": self._single.get("/clock"),
                "assets": {path: answer for path, answer in self._single.items() if path.startswith(_ASSETS)},
            },
            "ledger": {"trades": json_value(list(trades))},
        }

    def _rows(self, path: str) -> Document | None:
        if path not in self._activities:
            return None
        since, rows = self._activities[path]
        return {"since": since.isoformat(), "rows": list(rows.values())}


def _masked(account: Any) -> Any:
    if not isinstance(account, dict) or not isinstance(account.get("account_number"), str):
        return account
    return account | {"account_number": "*****" + account["account_number"][-2:]}


class SnapshotBroker(AlpacaBroker):
    """The `Broker` port over a snapshot document; every read gives the same answer, writes are refused."""

    def __init__(self, document: object, name: str = "the snapshot") -> None:
        self._replay = replay = _Replay(document, name)
        super().__init__(replay, replay, live=replay.document.get("live") is True)

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

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        """What the recorded readings of these symbols found; they, not `max_pages`, bound it."""
        del max_pages
        replay, keys = self._replay, {symbol_key(symbol) for symbol in symbols}
        read = [row for row in replay.rows("history") if _covers(row, keys, since)]
        if not read and not replay.complete:
            replay.missing(f"the order history of {', '.join(sorted(keys))}")
        found: dict[str, Order] = {}
        for order in replay.history(keys, since):
            found.setdefault(order.id, order)
        return History(tuple(found.values()), since, bool(read) and all(row.get("truncated") is True for row in read))

    def document(self, trades: Iterable[Mapping[str, Any]] = ()) -> Document:
        return self._replay.document | {"ledger": {"trades": json_value(list(trades))}}


def open_broker(place: Place, **_: Any) -> SnapshotBroker:
    return SnapshotBroker.load(place.path)


def _covers(row: Row, keys: set[str], since: datetime) -> bool:
    start, symbols = parse_time(row.get("since")), row.get("symbols")
    if start is None or start > since or not isinstance(symbols, list):
        return False
    return keys <= {symbol_key(str(symbol)) for symbol in symbols}


class _Replay:
    def __init__(self, document: object, name: str) -> None:
        if not isinstance(document, dict) or document.get("kind") != _KIND:
            raise BadSettings(f"{name} is no ghostclean snapshot: its kind must be {_KIND!r}{_CURE}")
        if document.get("schema") != _SCHEMA:
            raise BadSettings(
                f"{name} has schema {document.get('schema')!r}, this version reads schema {_SCHEMA}{_CURE}"
            )
        at = parse_time(document.get("time"))
        lookups = document.get("lookups")
        if at is None or not isinstance(document.get("live", False), bool) or not isinstance(lookups, dict | None):
            raise BadSettings(f"{name} is damaged: `time`, `live` or `lookups` is not what a snapshot holds{_CURE}")
        self.document: Document = document
        self.complete = document.get("complete") is True
        self._lookups: Document = lookups or {}
        self._name = name
        self._at = at

    def close(self) -> None:
        """Nothing to give back."""

    def now(self) -> datetime:
        return self._at

    def requests_left(self) -> int | None:
        return None

    def get(self, path: str, data: dict[str, str] | None = None, *, api_version: str = "v2") -> Any:
        del api_version
        query = data or {}
        if path == "/orders":
            return _page(self._objects(self._given(self.document, "orders"), "orders"), query)
        if path in _PARTS:
            return _page(self._rows_since(_PARTS[path], query["after"]), query)
        if path.startswith("/orders"):
            return self._order(*_name(path, query))
        return self._single(path)

    def _single(self, path: str) -> Any:
        if path in ("/account", "/positions"):
            return self._given(self.document, path[1:])
        if path == "/clock":
            return self._given(self._lookups, "clock")
        if path in (self._lookups.get("assets") or {}):
            return self._lookups["assets"][path]
        if not self.complete or path == "/calendar":
            self.missing(f"the answer to {path}")
        if path.startswith(_ASSETS):
            raise NotFound(f"{self._name} lists no {path}", status=404, transient=False)
        return {"trades": {}, "quotes": {}}  # of the market data

    def post(self, path: str, data: dict[str, Any]) -> NoReturn:
        self._refuse(f"order {data.get('client_order_id')}", path)

    def patch(self, path: str, data: dict[str, Any]) -> NoReturn:
        self._refuse(f"replacement {data.get('client_order_id')}", path)

    def delete(self, path: str) -> NoReturn:
        self._refuse("the cancel", path)

    def _refuse(self, what: str, path: str) -> NoReturn:
        raise Refused(f"{self._name} is a recording: {what} ({path}) cannot be sent", status=403)

    # ----------------------------------------------------------------- the document

    def missing(self, what: str) -> NoReturn:
        raise BrokerError(f"{what} is not in the snapshot ({self._name})")

    def rows(self, part: str) -> list[Document]:
        """The rows of one part of the look-ups; none where the part is left out."""
        return self._objects(self._lookups.get(part), f"lookups.{part}", left_out=True)

    def families(self) -> Iterator[tuple[Document, list[Order]]]:
        """The known orders, each with its legs: what was looked up, in a complete snapshot all."""
        rows = self.rows("orders")
        if self.complete:
            rows = rows + self._objects(self.document.get("orders"), "orders", left_out=True)
        for row in rows:
            try:
                yield row, read_orders([row])
            except Impossible as error:
                raise BrokerError(f"{self._name}: `lookups.orders` cannot be right: {error}", transient=False) from None

    def history(self, keys: set[str], since: datetime) -> Iterator[Order]:
        for _, orders in self.families():
            if keys & {order.key for order in orders} and (orders[0].submitted_at or since) >= since:
                yield from orders

    def _order(self, part: str, name: str) -> Document:
        for row, orders in self.families():
            if any(name == (order.client_id if part == "absentClientIds" else order.id) for order in orders):
                return row
        absent = self._lookups.get(part) or []
        if not isinstance(absent, list):
            raise BrokerError(f"{self._name}: `lookups.{part}` is no JSON array", transient=False)
        if not self.complete and name not in absent:
            self.missing(f"order {name}")
        raise NotFound(f"{self._name} has no order {name}", status=404, transient=False)

    def _rows_since(self, part: str, after: str) -> list[Document]:
        recorded = self._lookups.get(part)
        if recorded is None and self.complete:
            return []
        if not isinstance(recorded, dict):
            self.missing(f"the list of {part}")
        start, since = parse_time(recorded.get("since")), parse_time(after)
        # The query has whole seconds
        covered = start is not None and since is not None and start.replace(microsecond=0) <= since + LATE_BOOKING
        if not covered and not self.complete:
            self.missing(f"the list of {part} since {after}")
        return self._objects(recorded.get("rows"), f"lookups.{part}.rows")

    def _given(self, part: Document, name: str) -> Any:
        value = part.get(name)
        if value is None:
            self.missing(f"the {name} answer")
        return value

    def _objects(self, value: Any, name: str, *, left_out: bool = False) -> list[Document]:
        if value is None and left_out:
            return []
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise BrokerError(f"{self._name}: `{name}` is no JSON array of objects", transient=False)
        return value


def _page(rows: list[Document], query: Mapping[str, str]) -> list[Document]:
    cursor = query.get("before_order_id") or query.get("page_token")
    start = next((n for n, row in enumerate(rows, 1) if row.get("id") == cursor), 0) if cursor else 0
    return rows[start : start + int(query.get("limit") or query["page_size"])]


def _name(path: str, query: Mapping[str, str]) -> tuple[str, str]:
    if path == _BY_CLIENT_ID:
        return "absentClientIds", query["client_order_id"]
    return "absentOrders", canonical_id(unquote(path.removeprefix("/orders/")))
