"""One face for every kind of ledger and state, so that one suite can test them all."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ghostclean.adapters.ledgers.file import FileLedger
from ghostclean.adapters.ledgers.mapped import mapped
from ghostclean.adapters.ledgers.redis import RedisLedger
from ghostclean.adapters.ledgers.sql import SqlLedger
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.ports import Lease, Ledger
from ghostclean.core.ledger import IDENTITY, dumps, loads
from ghostclean.errors import FencedOff
from ghostclean.places import ledger_place

from .conftest import Site


@dataclass
class FreeLease:
    """A lease that lives nowhere; `lost` takes it away, `spy` is told of every check."""

    token: str = "1:free"
    redis_place: str | None = None
    redis_key: str | None = None
    lost: bool = False
    spy: Callable[[], None] = lambda: None

    def verify(self) -> None:
        self.spy()
        if self.lost:
            raise FencedOff("lost")


def free() -> Lease:
    return FreeLease()


class LedgerKit:
    """A ledger and the app's own hands on its place."""

    array = True  # one text for all trades
    exact = True  # a record is a text that the app has spelled
    mapping = IDENTITY

    def open(self, seen: bool = False) -> Ledger:
        raise NotImplementedError

    def put_raw(self, raw: bytes) -> None:
        raise NotImplementedError

    def raw(self) -> bytes:
        raise NotImplementedError

    def drop(self) -> None:
        raise NotImplementedError

    # the app's view, by id

    def seed(self, *texts: str) -> None:
        self.put_raw(("[" + ",".join(texts) + "]").encode())

    def text(self, trade_id: str) -> str:
        """The exact text of a record."""
        raise NotImplementedError

    def app_sets(self, trade_id: str, **fields: Any) -> None:
        """The app rewrites one record."""
        records = json.loads(self.raw())
        for record in records:
            if record["id"] == trade_id:
                record.update(fields)
        self.put_raw(json.dumps(records).encode())

    def app_deletes(self, trade_id: str) -> None:
        self.put_raw(json.dumps([r for r in json.loads(self.raw()) if r["id"] != trade_id]).encode())

    def content(self) -> dict[str, Any]:
        return {record["id"]: record for record in json.loads(self.raw())}


class FileKit(LedgerKit):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "trades.json"

    def open(self, seen: bool = False) -> Ledger:
        return mapped(FileLedger(self.path, mapping=self.mapping, seen_before=lambda: seen), self.mapping)

    def put_raw(self, raw: bytes) -> None:
        self.path.write_bytes(raw)

    def raw(self) -> bytes:
        return self.path.read_bytes()

    def drop(self) -> None:
        self.path.unlink()

    def text(self, trade_id: str) -> str:
        return text_in_array(self.raw().decode(), trade_id)


class StringKit(LedgerKit):
    def __init__(self, site: Site) -> None:
        self.site = site
        self.key = f"{site.prefix}trades:v1:test"

    def open(self, seen: bool = False, **options: Any) -> Any:
        ledger = RedisLedger(self.site.server(), self.key, mapping=self.mapping, seen_before=lambda: seen, **options)
        return mapped(ledger, self.mapping)

    def put_raw(self, raw: bytes) -> None:
        self.site.client.set(self.key, raw)

    def raw(self) -> bytes:
        raw: bytes = self.site.client.get(self.key)
        return raw

    def drop(self) -> None:
        self.site.client.delete(self.key)

    def text(self, trade_id: str) -> str:
        return text_in_array(self.raw().decode(), trade_id)


class HashKit(StringKit):
    array = False

    def put_raw(self, raw: bytes) -> None:
        self.site.client.hset(self.key, "x", raw)

    def seed(self, *texts: str) -> None:
        self.site.client.hset(self.key, mapping={str(json.loads(text)["id"]): text for text in texts})

    def text(self, trade_id: str) -> str:
        return str(self.site.client.hget(self.key, trade_id).decode())

    def app_sets(self, trade_id: str, **fields: Any) -> None:
        record = {**json.loads(self.text(trade_id)), **fields}
        self.site.client.hset(self.key, trade_id, json.dumps(record))

    def app_deletes(self, trade_id: str) -> None:
        self.site.client.hdel(self.key, trade_id)

    def content(self) -> dict[str, Any]:
        return {k.decode(): json.loads(v) for k, v in self.site.client.hgetall(self.key).items()}


class SqlKit(LedgerKit):
    """A table as an app's ORM makes it, and the app's session on it; facts that it cannot show stand in a state."""

    array = exact = False

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.name = url, folder, f"t{uuid.uuid4().hex[:10]}"
        self.app = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
        number, text = sa.Numeric(30, 10), sa.Text()
        columns: dict[str, Any] = {
            "ticker": sa.String(20), "status": text, "side": text, "quantity": number, "lastPrice": number,
            "closePrice": sa.Numeric(12, 4), "realizedPnL": sa.Float(53), "autoManage": sa.JSON(),
            "updatedAt": sa.DateTime(timezone=True), "note": text,
        }  # fmt: skip
        self.table = sa.Table(
            self.name,
            sa.MetaData(),
            sa.Column("id", text, primary_key=True),
            *itertools.starmap(sa.Column, columns.items()),
        )
        with self.app.begin() as app:
            self.table.create(app)

    def open(self, seen: bool = False) -> SqlLedger:
        ledger = SqlLedger(ledger_place(f"{self.url}#{self.name}"), state=lambda: state)
        state = SqliteState(self.folder / "state.db", ledger_place=ledger.place)
        return ledger

    def seed(self, *texts: str) -> None:
        records = [loads(text) for text in texts]
        with self.app.begin() as app:
            for record in records:
                known = {name: value for name, value in record.items() if name in self.table.c}
                app.execute(self.table.insert().values({"ticker": record.get("symbol"), **known}))

    def text(self, trade_id: str) -> str:
        return dumps(self.content()[trade_id])

    def app_sets(self, trade_id: str, **fields: Any) -> None:
        with self.app.begin() as app:
            app.execute(self.table.update().where(self.table.c.id == trade_id).values(fields))

    def app_deletes(self, trade_id: str) -> None:
        with self.app.begin() as app:
            app.execute(self.table.delete().where(self.table.c.id == trade_id))

    def content(self) -> dict[str, Any]:
        with self.app.connect() as app:
            rows = app.execute(self.table.select()).mappings().all()
        return {row["id"]: {name: value for name, value in row.items() if value is not None} for row in rows}

    def drop(self) -> None:
        with self.app.begin() as app:
            self.table.drop(app)


def text_in_array(text: str, trade_id: str) -> str:
    """The exact text of a record of an array, found with the standard decoder alone."""
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        value, end = decoder.raw_decode(text, at)
        if isinstance(value, dict) and str(value.get("id")) == trade_id:
            return text[at:end]
        at = end
