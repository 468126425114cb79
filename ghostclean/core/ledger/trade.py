"""A trade: one ledger record, read without changing it, and its fields as they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from ghostclean.core.broker import (
    ZERO,
    BadNumber,
    Side,
    is_uuid,
    iso,
    json_number,
    number,
    parse_time,
    symbol_key,
    trade_tag,
)

from .jsontext import json_value, same_json

OPEN = frozenset({"OPEN", "PARTIAL"})
PENDING = frozenset({"PENDING", "BROKER_PENDING", "BROKER_FILLED", "AUTO_PENDING", "NEW"})
FINAL = frozenset({"CLOSED", "CANCELED", "CANCELLED", "REJECTED", "EXPIRED", "ARCHIVED", "CLOSED_MANUAL", "DELETED"})
SIZE_FIELDS = ("quantity", "qty", "size", "positionSize", "shares")
ENTRY_ORDER_FIELDS = ("alpacaOrderId", "brokerOrderId")
ORDER_ID_FIELDS = (*ENTRY_ORDER_FIELDS, "clientOrderId", "stopOrderId", "takeProfitOrderId", "closeOrderId")


@dataclass(frozen=True, slots=True)
class Trade:
    """One open or pending record, or one with a `problem` that makes it unreadable."""

    id: str | None
    record: Mapping[str, Any] = field(repr=False, compare=False)
    status: str
    symbol: str
    key: str
    side: Side
    size: Decimal | None
    size_field: str | None
    initial_size: Decimal | None
    entry_price: Decimal | None
    stop_price: Decimal | None
    initial_stop: Decimal | None
    filled_qty: Decimal | None
    avg_fill_price: Decimal | None
    entry_orders: tuple[str, ...]
    client_order: str | None
    stop_order: str | None
    target_order: str | None
    close_order: str | None
    created_at: datetime | None
    opened_at: datetime | None
    executed_at: datetime | None
    updated_at: datetime | None
    problem: str | None

    @property
    def is_pending(self) -> bool:
        return self.status not in OPEN

    @property
    def opening(self) -> datetime | None:
        """`executedAt`, `openedAt`, else `createdAt`."""
        return self.executed_at or self.opened_at or self.created_at

    @property
    def has_order(self) -> bool:
        """Whether the ledger names an entry order, by either kind of id."""
        return bool(self.entry_orders)

    @property
    def entry_order(self) -> str | None:
        """The id the record gives its entry order; None where it names one by client order id alone."""
        return next((i for i in self.entry_orders if i != self.client_order), None)

    @property
    def exit_orders(self) -> tuple[str, ...]:
        return tuple(i for i in (self.stop_order, self.target_order, self.close_order) if i)

    @property
    def order_ids(self) -> frozenset[str]:
        """Every order id that the record stores."""
        return frozenset((*self.entry_orders, *self.exit_orders))

    @property
    def owner(self) -> str:
        """Who its orders are of, unique in the account: its id with its entry order, else with its opening."""
        opening = self.opening.isoformat() if self.opening is not None else ""
        entry = self.entry_order or self.client_order or f"{self.key}|{self.side}|{opening}"
        return f"{self.id}@{entry}"

    @property
    def tags(self) -> frozenset[str]:
        """The tags of its orders, those of earlier versions included."""
        return frozenset({trade_tag(self.owner), trade_tag(self.id)}) if self.id is not None else frozenset()

    @property
    def is_managed(self) -> bool:
        """Whether an engine has already moved things here (`autoManage` with content)."""
        return bool(self.record.get("autoManage"))


def text(record: Mapping[str, Any], *names: str) -> str | None:
    """The first non-blank string among the named fields."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and (stripped := value.strip()):
            return stripped
    return None


def is_storable(value: str) -> bool:
    """Whether a text can be sent and stored: half a surrogate pair cannot."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def status_of(record: Mapping[str, Any]) -> str:
    value = record.get("status")
    return value.strip().upper() if isinstance(value, str) else ""


def is_open(record: Mapping[str, Any]) -> bool:
    """Status `OPEN` or `PARTIAL`."""
    return status_of(record) in OPEN


def is_pending(record: Mapping[str, Any]) -> bool:
    """A pending status together with an entry order id."""
    return status_of(record) in PENDING and text(record, *ENTRY_ORDER_FIELDS, "clientOrderId") is not None


def order_id(record: Mapping[str, Any], *names: str) -> str | None:
    """The first order id among the named fields, spelled as the broker spells it."""
    value = text(record, *names)
    return value.lower() if value is not None and is_uuid(value) else value


def order_ids(record: Mapping[str, Any]) -> Iterable[str]:
    for name in ORDER_ID_FIELDS:
        value = text(record, name) if name == "clientOrderId" else order_id(record, name)
        if value is not None:
            yield value


def record_size(record: Mapping[str, Any]) -> Decimal | None:
    """The first size a record had: `initialQuantity`, else the first positive size; None if unreadable."""
    for name in ("initialQuantity", *SIZE_FIELDS):
        try:
            value = number(record.get(name))
        except BadNumber:
            return None
        if value is not None and value > ZERO:
            return value
    return None


def record_id(record: Mapping[str, Any]) -> str | None:
    """The id as text; a numeric id counts as its digits."""
    value = record.get("id")
    if isinstance(value, str) and value.strip() and is_storable(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def read_trade(record: Mapping[str, Any]) -> Trade:
    """The view of one open or pending record; never raises, a defect becomes `problem`."""
    problems: list[str] = []
    trade_id = record_id(record)
    if trade_id is None:
        problems.append("it has no id")
    symbol = text(record, "ticker", "symbol") or ""
    if not symbol:
        problems.append("it has no symbol")
    side = _side(record, problems)

    def numeric(*names: str) -> Decimal | None:
        for name in names:
            try:
                value = number(record.get(name))
            except BadNumber as error:
                problems.append(f"{name} is impossible: {error}")
                return None
            if value is not None:
                if value < 0:
                    problems.append(f"{name} is impossible: {value}")
                    return None
                if value:
                    return value
        return None

    size, size_field = _size(record, problems)
    client_order = text(record, "clientOrderId")
    names = (*(order_id(record, name) for name in ENTRY_ORDER_FIELDS), client_order)
    entry_orders = tuple(dict.fromkeys(n for n in names if n))
    problems += [
        f"{name} is no text that can be sent"
        for name in ("ticker", "symbol", *ORDER_ID_FIELDS)
        if isinstance(value := record.get(name), str) and not is_storable(value)
    ]
    if size is None and not entry_orders:
        problems.append("it has no positive size and no entry order to take one from")
    return Trade(
        id=trade_id,
        record=record,
        status=status_of(record),
        symbol=symbol,
        key=symbol_key(symbol),
        side=side,
        size=size,
        size_field=size_field,
        initial_size=numeric("initialQuantity"),
        entry_price=numeric("entryPrice"),
        stop_price=numeric("stopPrice"),
        initial_stop=numeric("initialStopPrice", "originalStopPrice"),
        filled_qty=numeric("filledQty"),
        avg_fill_price=numeric("avgFillPrice"),
        entry_orders=entry_orders,
        client_order=client_order,
        stop_order=order_id(record, "stopOrderId"),
        target_order=order_id(record, "takeProfitOrderId"),
        close_order=order_id(record, "closeOrderId"),
        created_at=parse_time(record.get("createdAt")),
        opened_at=parse_time(record.get("openedAt")),
        executed_at=parse_time(record.get("executedAt")),
        updated_at=parse_time(record.get("updatedAt")),
        problem="; ".join(problems) or None,
    )


def _side(record: Mapping[str, Any], problems: list[str]) -> Side:
    value = record.get("side")
    if value is None or value == "":
        return Side.LONG
    try:
        return Side(str(value).strip().upper())
    except ValueError:
        problems.append(f"side {str(value)[:20]!r} is neither LONG nor SHORT")
        return Side.LONG


def _size(record: Mapping[str, Any], problems: list[str]) -> tuple[Decimal | None, str | None]:
    for name in SIZE_FIELDS:
        try:
            value = number(record.get(name))
        except BadNumber as error:
            problems.append(f"{name} is impossible: {error}")
            return None, None
        if value is not None and value > ZERO:
            return value, name
    return None, None


# --------------------------------------------------------------------------- fields as they stand

POSITION_OPEN = "position_open"
NOT_FOUND = "not_found_in_broker"


def is_vanished(record: Mapping[str, Any]) -> bool:
    """Whether a final record was closed without proof, as `vanished` closes it."""
    return record.get("alpacaStatus") == NOT_FOUND and record.get("closePrice") is None


def changed(record: Mapping[str, Any], fields: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The fields whose value differs from the record's, and `updatedAt` when there are any."""
    differing = {name: value for name, value in fields.items() if not same(record, name, value)}
    if differing:
        differing["updatedAt"] = iso(now)
    return differing


def same(record: Mapping[str, Any], name: str, value: object) -> bool:
    """Whether a field already says this; numbers and times compare by value, not by spelling."""
    if name not in record:
        return False
    present = record[name]
    if present is None or value is None:
        return present is value
    if isinstance(value, Decimal):
        try:
            said = number(present)
        except BadNumber:
            return False
        # A value longer than a JSON number holds comes back shortened; it is the same value.
        return said is not None and (said == value or json_number(said) == json_number(value))
    if present == value:
        return True
    moment = parse_time(value)
    return moment is not None and parse_time(present) == moment


def means(present: object, value: object) -> bool:
    """Whether two values of a field are one as JSON, times by their moment."""
    if same_json(json_value(present), json_value(value)):
        return True
    if not isinstance(value, str) or ":" not in value:
        return False
    moment = parse_time(value)
    return moment is not None and parse_time(present) == moment


def same_value(one: Any, other: Any) -> bool:
    """Whether two values mean the same, numbers by value whether they are text or not."""
    try:
        said = None if isinstance(one, bool) else number(one)
        return means(one, other) or (said is not None and said == number(other))
    except BadNumber:
        return means(one, other)
