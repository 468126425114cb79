"""A whole world for one black-box test: fake broker, ledger, state, environment, and the CLI as a process of its own.

Every key and password in it contains SENTINEL; `World.leaks()` looks for that word in everything
that was written: stdout, stderr, files and Redis.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from ghostclean import wiring
from ghostclean.adapters.alpaca import AlpacaBroker
from ghostclean.api import new_run_id
from ghostclean.app.deadline import Deadline
from ghostclean.app.parts import Options, Parts
from ghostclean.app.reconcile import run_reconcile
from ghostclean.result import Result
from ghostclean.settings import Settings
from tests import program
from tests.fakebroker import FakeBroker
from tests.program import ROOT

SENTINEL = "SENTINEL"
KEY, SECRET, PASSWORD = "SENTINELPKey", "SENTINEL/secret+%2F=", "SENTINELpass"

NOW = "2026-11-18T15:00:00Z"  # a Wednesday, 10:00 in New York
DAY_AGO = "2026-11-17T15:00:00Z"
YESTERDAY = "2026-11-17T18:00:00Z"
THREE_DAYS_AGO = "2026-11-15T15:00:00Z"
LEDGER_KEY = "trades:v1:test"
UNKNOWN_ORDER = "36a6882b-e44a-4a05-b80f-c0243910c3b9"

Record = dict[str, Any]


@dataclass
class Run:
    """One finished run of the program."""

    code: int
    document: Any
    stdout: str
    stderr: str
    seconds: float

    def row(self, trade_id: str) -> Record:
        """The result row of a trade."""
        rows = [row for row in self.document["results"] if row["id"] == trade_id]
        assert len(rows) == 1, f"{trade_id}: {rows}"
        return dict(rows[0])

    def verdicts(self) -> dict[str, str]:
        """Verdict by trade id, orphans left out."""
        return {row["id"]: row["verdict"] for row in self.document["results"] if row["id"]}


class Store:
    """A ledger as the app sees it."""

    url: str

    def write(self, records: list[Record]) -> None:
        raise NotImplementedError

    def raw(self) -> Any:
        """The exact content, for comparison."""
        raise NotImplementedError

    def records(self) -> dict[str, Record]:
        raise NotImplementedError

    def writes(self) -> int:
        """A number that grows with every write, even one of the same bytes."""
        raise NotImplementedError


class FileStore(Store):
    def __init__(self, path: Path) -> None:
        self.path, self.url = path, f"file:{path}"

    def write(self, records: list[Record]) -> None:
        self.path.write_text(json.dumps(records, indent=2))

    def raw(self) -> bytes:
        return self.path.read_bytes()

    def records(self) -> dict[str, Record]:
        return {r["id"]: r for r in json.loads(self.raw())}

    def writes(self) -> int:
        stat = self.path.stat()
        return stat.st_mtime_ns + stat.st_ino


class StringStore(Store):
    def __init__(self, client: Any, url: str, key: str = LEDGER_KEY) -> None:
        self.client, self.url, self.key = client, url, key

    def write(self, records: list[Record]) -> None:
        self.client.set(self.key, json.dumps(records))

    def raw(self) -> Any:
        return self.client.get(self.key)

    def records(self) -> dict[str, Record]:
        return {r["id"]: r for r in json.loads(self.raw())}

    def writes(self) -> int:
        """Counted by the server, among the commands that can change a ledger of this layout."""
        stats = self.client.info("commandstats")
        counted = ("set", "hset", "hdel", "del", "rename", "append", "setrange", "getset")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in counted)


class HashStore(StringStore):
    def write(self, records: list[Record]) -> None:
        self.client.delete(self.key)
        for record in records:
            self.client.hset(self.key, record["id"], json.dumps(record))

    def raw(self) -> Any:
        return self.client.hgetall(self.key)

    def records(self) -> dict[str, Record]:
        return {k.decode(): json.loads(v) for k, v in self.raw().items()}


class SqlStore(Store):
    """A table as the app's migrations have made it: no column for every fact, and one of the app's own."""

    def __init__(self, url: str, columns: str, *, password: str = "") -> None:
        self.name = f"trades_{uuid.uuid4().hex[:10]}"
        self.engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
        if url.startswith("sqlite"):
            sqlite3.connect(str(self.engine.url.database)).close()
        self.run(f"CREATE TABLE {self.name} ({columns})")
        self.url = f"{url.replace('bot@', f'bot:{password}@')}#{self.name}"

    def run(self, statement: str) -> list[dict[str, Any]]:
        with self.engine.begin() as app:
            found = app.exec_driver_sql(statement)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    def write(self, records: list[Record]) -> None:
        with self.engine.begin() as app:
            table = sa.Table(self.name, sa.MetaData(), autoload_with=app)
            app.execute(table.delete())
            for record in records:
                known = {name: _stored(table.c[name], value) for name, value in record.items() if name in table.c}
                app.execute(table.insert().values(known))

    def raw(self) -> Any:
        return self.run(f"SELECT * FROM {self.name} ORDER BY id")

    def records(self) -> dict[str, Record]:
        return {str(row["id"]): row for row in self.raw()}

    def writes(self) -> int:
        """The newest version of any row: Postgres numbers them, SQLite counts the changes of its file."""
        if self.engine.dialect.name == "sqlite":
            raw = Path(str(self.engine.url.database)).read_bytes()
            return int.from_bytes(raw[24:28], "big")
        return max((int(row["xmin"]) for row in self.run(f"SELECT xmin::text FROM {self.name}")), default=0)


def _stored(column: Any, value: Any) -> Any:
    is_time = isinstance(column.type, sa.DateTime) and value is not None
    return datetime.fromisoformat(value).replace(tzinfo=None) if is_time else value


@dataclass
class World:
    """Everything one test needs; `broker` runs until the fixture ends."""

    folder: Path
    broker: FakeBroker
    store: Store
    redis: Any
    redis_url: str
    env: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------ the ledger

    def ledger(self, *records: Record) -> None:
        """What the app has written."""
        self.store.write(list(records))

    def trade(self, trade_id: str) -> Record:
        """One record as it stands now."""
        return self.store.records()[trade_id]

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """Inside, nobody may write the ledger: not even the same bytes again."""
        before = self.store.raw()
        watcher = self._watch()
        stat = None if watcher else self.store.writes()
        yield
        assert self.store.raw() == before
        if watcher is not None:
            watcher.multi()
            watcher.ping()
            watcher.execute()  # raises WatchError when the key was touched
            watcher.reset()
        else:
            assert self.store.writes() == stat

    def _watch(self) -> Any:
        store = getattr(self.store, "store", self.store)
        if not isinstance(store, StringStore):
            return None
        watcher = self.redis.pipeline(transaction=True)
        watcher.watch(store.key)
        return watcher

    # ------------------------------------------------------------------ running

    def environment(self, **more: str | None) -> dict[str, str]:
        """The variables of a run: nothing of the tests' own environment but what Python needs."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TZ")}
        values: Mapping[str, str | None] = {**kept, **self.env, **more}
        return {name: value for name, value in values.items() if value is not None}

    def start(self, *args: str, script: str | None = None, **more: str | None) -> program.Running:
        """Starts the program and does not wait; `script` is Python that its process runs first."""
        before = ("tests.program:script", script) if script else None
        return program.start(*args, env=self.environment(**more), cwd=self.folder, before=before)

    def run(self, *args: str, script: str | None = None, **more: str | None) -> Run:
        """Runs the program to its end; after a minute it is killed and the test fails."""
        began = time.monotonic()
        process = self.start(*args, script=script, **more)
        try:
            stdout, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise AssertionError(f"{args} did not end within a minute") from None
        return self.finished(process.returncode, stdout, stderr, time.monotonic() - began, args)

    def finished(self, code: int, stdout: str, stderr: str, seconds: float, args: tuple[str, ...]) -> Run:
        """A run whose output is kept for the look for secrets."""
        self.said += [stdout, stderr]
        document = None
        if "--json" in args and stdout:
            document = json.loads(stdout)
        return Run(code, document, stdout, stderr, seconds)

    def reconcile(self, *args: str, script: str | None = None, **more: str | None) -> Run:
        """`ghostclean reconcile --json` as a process."""
        return self.run("reconcile", "--json", *args, script=script, **more)

    def status(self) -> Any:
        """The document of `ghostclean status --json`."""
        return self.run("status", "--json").document

    def settings(self, **more: str) -> Settings:
        return Settings.of({**self.env, **more})

    def inside(
        self,
        *,
        deadline: float = 30,
        run_id: str | None = None,
        dry_run: bool = False,
        quick: bool = True,
        **policy: Any,
    ) -> Result:
        """One run in this process, on the real adapters; with `quick` the pauses between tries are cut short."""
        settings = self.settings()
        limit = Deadline(deadline)

        def sleep(seconds: float) -> None:
            time.sleep(min(seconds, 0.01) if quick else seconds)

        kept = wiring.stores(settings)
        broker = AlpacaBroker.connect(
            trading_url=self.broker.url,
            data_url=self.broker.url,
            api_key=KEY,
            secret_key=SECRET,
            live=False,
            time_left=lambda: limit.left_for_reading() or limit.left(),
            sleep=sleep,
        )
        parts = Parts(broker=broker, ledger=kept.ledger, state=kept.state, spool=kept.spool, pause=sleep)
        options = Options(run_id or new_run_id("test"), "test", limit, settings.policy(**policy), dry_run)
        try:
            result = run_reconcile(parts, options)
        finally:
            kept.state.close()
        self.said.append(json.dumps(result.to_dict()))
        return result

    def pin(self) -> None:
        """A first run on an empty ledger: it pins the account that stands there now."""
        assert not self.store.records(), "pin before the ledger is filled"
        result = self.inside()
        assert result.exit_code == 0, result
        self.broker.reset_log()

    # ------------------------------------------------------------------ ghostclean's own memory

    @contextlib.contextmanager
    def state(self) -> Iterator[Any]:
        """The state, opened, for looking."""
        kept = wiring.stores(self.settings())
        kept.state.open()
        try:
            yield kept.state
        finally:
            kept.state.close()

    def recall(self, section: str) -> dict[str, Any]:
        with self.state() as state:
            return dict(state.recall(section))

    def journal(self, trade_id: str | None = None) -> list[Any]:
        with self.state() as state:
            return list(state.journal(trade_id=trade_id))

    def summary(self) -> dict[str, str]:
        """The summary hash as dashboards read it."""
        with self.state() as state:
            return dict(state.telemetry("reconcile", 5).summary)

    def runs(self) -> list[Record]:
        """The listed runs, newest first."""
        with self.state() as state:
            return [dict(run) for run in state.telemetry("reconcile", 100).runs]

    def release_dead_lock(self) -> None:
        """What time does: the lock of a killed run ends."""
        for key in self.redis.scan_iter(match="*:lock"):
            self.redis.delete(key)

    # ------------------------------------------------------------------ secrets

    def leaks(self) -> list[str]:
        """Where a secret was written."""
        found = [f"output: …{_near(text)}…" for text in self.said if SENTINEL in text]
        for path in self.folder.rglob("*"):
            if path.is_file() and SENTINEL.encode() in path.read_bytes():
                found.append(f"file {path}")
        for key in self.redis.scan_iter(count=1000) if self.redis is not None else ():
            if SENTINEL.encode() in key + _dump(self.redis, key):
                found.append(f"Redis key {key!r}")
        return found


def _near(text: str) -> str:
    at = text.index(SENTINEL)
    return text[max(0, at - 80) : at + 80]


def _dump(client: Any, key: bytes) -> bytes:
    kind = client.type(key).decode()
    reads: dict[str, Callable[[], Any]] = {
        "string": lambda: client.get(key),
        "hash": lambda: client.hgetall(key),
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1),
        "none": lambda: b"",
    }
    return repr(reads[kind]()).encode()


def environment(folder: Path, broker: FakeBroker) -> dict[str, str]:
    """The settings every world begins with."""
    return {
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "ALPACA_API_KEY": KEY,
        "ALPACA_SECRET_KEY": SECRET,
        "GHOSTCLEAN_TRADING_URL": broker.url,
        "GHOSTCLEAN_DATA_URL": broker.url,
        "GHOSTCLEAN_RAISE": "",
    }


def orphaned(world: World) -> World:
    """The world with eight shares that no trade explains, and an account that is pinned."""
    world.pin()
    world.broker.open_trade("AMD", 8, 50, at=THREE_DAYS_AGO)
    world.broker.set_price("AMD", 51)
    return world


def build_world(layout: str, folder: Path, broker: FakeBroker, url: str | None) -> World:
    """A world whose ledger has that layout: `string` and `hash` live in Redis with the state, the others with SQLite.

    `sqlite` and the URL of a Postgres are tables.
    """
    env = environment(folder, broker)
    if layout == "sqlite" or layout.startswith("postgresql:"):
        where = f"sqlite:///{folder}/bot.db" if layout == "sqlite" else layout
        table = SqlStore(where, COLUMNS, password=PASSWORD)
        env |= {"GHOSTCLEAN_LEDGER": table.url, "GHOSTCLEAN_STATE": f"sqlite:{folder}/state.db"}
        return World(folder, broker, table, None, "", env)
    if layout == "file" or url is None:
        store: Store = FileStore(folder / "trades.json")
        store.write([])
        env |= {"GHOSTCLEAN_LEDGER": store.url, "GHOSTCLEAN_STATE": f"sqlite:{folder}/state.db"}
        return World(folder, broker, store, None, "", env)
    client = redis.Redis.from_url(url)
    client.flushall()
    kind = HashStore if layout == "hash" else StringStore
    store = kind(client, url)
    if layout == "string":
        store.write([])
    env |= {"REDIS_URL": url, "GHOSTCLEAN_LEDGER_KEY": LEDGER_KEY}
    return World(folder, broker, store, client, url, env)


COLUMNS = (
    "id varchar(40) PRIMARY KEY, ticker varchar(20) NOT NULL, side varchar(5), status varchar(16) NOT NULL, "
    'quantity numeric(20, 6), "entryPrice" numeric(12, 2), "stopPrice" numeric(12, 2), "alpacaOrderId" varchar(40), '
    '"openedAt" timestamp, "closedAt" timestamp, "closePrice" numeric(12, 2), "realizedPnL" numeric(12, 2), '
    "strategy text DEFAULT 'none'"
)


def long(trade_id: str, ticker: str, qty: Any = 10, entry: Any = 180, stop: Any = 175, **fields: Any) -> Record:
    """An open long trade of a day ago, as the app writes it."""
    return {
        "id": trade_id,
        "ticker": ticker,
        "side": "LONG",
        "status": "OPEN",
        "quantity": qty,
        "entryPrice": entry,
        "stopPrice": stop,
        "openedAt": DAY_AGO,
        **fields,
    }
