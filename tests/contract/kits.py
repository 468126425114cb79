"""One face for every kind of ledger and state, so that one suite can test them all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostclean.adapters.ledgers.file import FileLedger
from ghostclean.adapters.ledgers.mapped import mapped
from ghostclean.adapters.ledgers.redis import RedisLedger
from ghostclean.app.ports import Lease, Ledger
from ghostclean.core.ledger import IDENTITY
from ghostclean.errors import FencedOff

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
