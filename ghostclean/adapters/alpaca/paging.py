"""One Alpaca host as the adapter sees it, and its lists read to their end: complete, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from ghostclean.adapters.alpaca.records import Row, is_pair
from ghostclean.core.broker import crypto_pair, parse_time, symbol_key
from ghostclean.errors import BrokerError, WrongAnswer

_ORDER_PAGE = 500
_DEFAULT_PAGE = 50
_ACTIVITY_PAGE = 100
_ACTIVITY_PAGES = 60
_SYMBOLS_LENGTH = 5000


class NotFound(BrokerError):
    """A true 404: the broker itself says that the order, position or asset does not exist."""


class Api(Protocol):
    """Raises BrokerError and its kinds; reads NotFound on a true 404, writes Refused and AnswerLost."""

    def get(self, path: str, data: dict[str, str] | None = None, *, api_version: str = "v2") -> Any: ...

    def post(self, path: str, data: dict[str, Any]) -> Any: ...

    def patch(self, path: str, data: dict[str, Any]) -> Any: ...

    def delete(self, path: str) -> Any: ...

    def now(self) -> datetime:
        """The host's own time by its latest answer; ours before the first."""

    def requests_left(self) -> int | None:
        """How many more requests this minute allows; None when unknown."""

    def close(self) -> None:
        """Gives the connections back."""


class SeamLost(BrokerError):
    """A page did not begin where the one before it ended: rows may be missing between them."""


class TooManyPages(BrokerError):
    """The page cap was reached before the list ended."""


def rows_of(raw: Any, what: str) -> list[Row]:
    """A list answer as it came; raises BrokerError for anything else."""
    if not isinstance(raw, list) or not all(isinstance(row, dict) for row in raw):
        raise WrongAnswer(f"{what} is no JSON array of objects")
    return raw


def order_pages(api: Api, query: Mapping[str, str], max_pages: int) -> Iterator[list[Row]]:
    """Pages of an order list, newest first, until its end; raises rather than leave a gap.

    Each page must show the end of the one before again: the cursor is the row before the last rows of one time.
    """
    what = f"the list of {query['status']} orders"
    asked = {**query, "limit": str(_ORDER_PAGE), "direction": "desc"}
    cursor: Row = {}
    overlap: set[str] = set()
    seen: set[str] = set()
    for _ in range(max_pages):
        rows = rows_of(api.get("/orders", asked), what)
        if not seen and not _may_go_on(len(rows)):  # all of it: the ids only tie pages together
            yield rows
            return
        ids = {_row_id(row, what) for row in rows}
        if seen:
            _check_continues([row for row in rows if row["id"] in seen], cursor, overlap, what)
        yield rows
        if not _may_go_on(len(rows)) or (seen and ids <= {*overlap, cursor["id"]}):
            return
        if ids <= seen:
            raise BrokerError(f"{what} repeats itself: it may be cut")
        seen |= ids
        cursor, overlap = _seam(rows)
        asked["before_order_id"] = cursor["id"]
    raise TooManyPages(f"{what} has more than {max_pages} pages: it was not read to its end")


def activity_rows(api: Api, path: str, query: Mapping[str, str]) -> list[Row]:
    """All rows of an activity list, oldest first, without those that later ones correct or bust."""
    what = "the list of fills" if path.endswith("FILL") else "the list of activities"
    asked = {**query, "direction": "asc", "page_size": str(_ACTIVITY_PAGE)}
    found: dict[str, Row] = {}
    for _ in range(_ACTIVITY_PAGES):
        rows = rows_of(api.get(path, asked), what)
        before = len(found)
        found.update((_row_id(row, what), row) for row in rows)
        if len(rows) < _ACTIVITY_PAGE:
            return _amended(found.values())
        if len(found) == before:
            raise BrokerError(f"{what} repeats itself: it may be cut")
        asked["page_token"] = _row_id(rows[-1], what)
    raise TooManyPages(f"{what} has more than {_ACTIVITY_PAGES} pages: it was not read to its end")


def reaches_back(page: list[Row], since: datetime) -> bool:
    times = (parse_time(row.get("submitted_at")) for row in page)
    return any(at is not None and at < since for at in times)


def symbol_batches(symbols: Iterable[str]) -> Iterator[str]:
    """Comma lists short enough for a URL; a crypto pair in both spellings, as both are in use."""
    batch: list[str] = []
    length = 0
    for symbol in sorted({symbol.upper() for symbol in symbols}):
        names = sorted({symbol_key(symbol), crypto_pair(symbol)}) if is_pair(symbol) else [symbol]
        size = sum(len(quote(name, safe="")) + 3 for name in names)  # a comma is sent as %2C
        if batch and length + size > _SYMBOLS_LENGTH:
            yield ",".join(batch)
            batch, length = [], 0
        batch += names
        length += size
    if batch:
        yield ",".join(batch)


def _row_id(row: Row, what: str) -> str:
    row_id = row.get("id")
    if not isinstance(row_id, str) or not row_id:
        raise WrongAnswer(f"{what} has a row without id")
    return row_id


def _may_go_on(length: int) -> bool:
    """Also at the API's default length, where a page would end had `limit` been ignored."""
    return length == _DEFAULT_PAGE or length >= _ORDER_PAGE


def _seam(rows: list[Row]) -> tuple[Row, set[str]]:
    """The cursor for the next page, and the ids of which that page must show some again."""
    last = rows[-1].get("submitted_at")
    start = len(rows) - 1
    while start > 1 and rows[start - 1].get("submitted_at") == last:
        start -= 1
    if rows[start - 1].get("submitted_at") == last:
        start = len(rows) - 1  # one time on the whole page: only the id can tell rows apart
    return rows[start - 1], {row["id"] for row in rows[start:]}


def _check_continues(again: list[Row], cursor: Row, overlap: set[str], what: str) -> None:
    # A cursor meant by time can't tell rows of one moment apart
    old = [row for row in again if row["id"] not in overlap]
    if any(row.get("submitted_at") != cursor.get("submitted_at") for row in old):
        raise BrokerError(f"{what} repeats itself: it may be cut")
    if len(old) == len(again):
        raise SeamLost(f"{what} changed between two pages: rows may be missing")


def _amended(rows: Iterable[Row]) -> list[Row]:
    kept: dict[str, Row] = {}
    for row in rows:
        previous = row.get("previous_id")
        if isinstance(previous, str) and previous:
            kept = {name: old for name, old in kept.items() if name.rsplit("::", 1)[-1] != previous.rsplit("::", 1)[-1]}
        if row.get("execution_type") != "trade_bust":
            kept[row["id"]] = row
    return list(kept.values())
