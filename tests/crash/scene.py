"""A small world for crash tests: the fake broker over HTTP, a real server or files, six trades and their right end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from ghostclean.adapters.ledgers import open_ledger
from ghostclean.adapters.redis_client import RedisServer
from ghostclean.adapters.state.form import namespace
from ghostclean.adapters.state.redis import RedisState
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.ports import State
from ghostclean.places import ledger_place
from tests import program
from tests.cli import own_names
from tests.fakebroker import FakeBroker
from tests.program import ROOT

NOW = "2026-11-18T15:00:00Z"
DAY_BEFORE = "2026-11-17T15:00:00Z"
LONG = {"id": "long", "ticker": "IBM", "status": "DRAFT", "quantity": 1, "note": "long " * 20_000}
CLOSED = {"stopped", "sold", "never", "vanished"}
SYNCED = {"live", "half"}


@dataclass
class Answer:
    """What one run of the program did."""

    code: int
    stdout: str
    stderr: str
    effects: list[str]
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found


class Run:
    """A reconcile that has been started; its effects are told at its end."""

    def __init__(self, scene: Scene, args: tuple[str, ...], env: Mapping[str, str], fault: Mapping[str, Any]) -> None:
        self.seen = scene.home / f"effects-{uuid.uuid4().hex}"
        self.began = time.monotonic()
        self.process = program.start(
            "reconcile", "--json", *args, env=env, cwd=scene.home,
            before=("tests.crash.saboteur:strike", {**fault, "seen": str(self.seen)}),
        )  # fmt: skip

    def answer(self, kill_after: float | None = None) -> Answer:
        """What it did, once it has ended or, after that many seconds, was killed."""
        try:
            stdout, stderr = self.process.communicate(kill_after)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
        effects = json.loads(self.seen.read_text()) if self.seen.exists() else []
        return Answer(self.process.wait(), stdout, stderr, effects, time.monotonic() - self.began)


def build_broker() -> tuple[FakeBroker, list[dict[str, Any]]]:
    """The broker, and the ledger that a run should set right; nothing changes there while runs are killed."""
    broker = FakeBroker(now=NOW)
    broker.__enter__()
    broker.quirks.rate_limit = 10**9  # hundreds of runs in one frozen minute
    live = broker.open_trade("AAPL", 10, 180, at=DAY_BEFORE)
    stopped = broker.open_trade("TSLA", 7, 200, at=DAY_BEFORE, bracket=(220, 190))
    stop = next(leg for leg in broker.legs(stopped) if leg["type"] == "stop")
    broker.fill(stop, price="189.9", at="2026-11-17T17:00:00Z")
    sold = broker.open_trade("MSFT", 5, 400, at=DAY_BEFORE)
    broker.sell("MSFT", 5, "410.5", at="2026-11-17T18:00:00Z")
    half = broker.open_trade("AMD", 8, 100, at=DAY_BEFORE)
    never = broker.add_order(symbol="NVDA", side="buy", qty="3", type="limit", limit_price="1", status="canceled",
                             submitted_at=DAY_BEFORE, canceled_at="2026-11-17T16:00:00Z")  # fmt: skip
    records = [
        _record("live", "AAPL", 10, live["id"], entryPrice=180),
        _record("stopped", "TSLA", 7, stopped["id"], entryPrice=200, stopPrice=190),
        _record("sold", "MSFT", 5, sold["id"], entryPrice=400, stopPrice=390.0),
        _record("half", "AMD", 8, half["id"], entryPrice=100),
        _record("never", "NVDA", 3, never["id"], entryPrice=1),
        _record("vanished", "ORCL", 2, "36a6882b-e44a-4a05-b80f-c0243910c3b9", entryPrice=90),
    ]
    return broker, records


def _record(trade_id: str, ticker: str, qty: int, order: str, **more: Any) -> dict[str, Any]:
    return {
        "id": trade_id, "ticker": ticker, "side": "LONG", "status": "OPEN", "quantity": qty, "alpacaOrderId": order,
        "openedAt": DAY_BEFORE, "mine": {"kept": [1, "é"]}, **more,
    }  # fmt: skip


@dataclass
class Scene:
    """One ledger and one state of their own on shared servers.

    The layout `long` is a string that is too long to be sent for comparison, `own` a file in the app's own names;
    `sqlite` and `postgres` are tables.
    """

    broker: FakeBroker
    records: list[dict[str, Any]]
    redis_url: str
    folder: Path
    layout: str = "string"
    state_kind: str = "redis"
    postgres_url: str = ""
    own_names: bool = False
    name: str = field(default_factory=lambda: f"c{uuid.uuid4().hex[:10]}")

    def __post_init__(self) -> None:
        self.client = redis.Redis.from_url(self.redis_url)
        self.home = self.folder / self.name
        self.home.mkdir(parents=True)
        self.key = f"{self.name}:trades"
        self.path = self.home / "trades.json"
        self.table = self.name
        if self.layout == "sqlite":
            self.database = sa.create_engine(f"sqlite:///{self.home}/bot.db", poolclass=sa.NullPool)
        elif self.layout == "postgres":
            self.database = sa.create_engine(self.postgres_url.replace("sql:", "sql+psycopg:"), poolclass=sa.NullPool)
        if self.layout == "long":
            self.layout, self.records = "string", [*self.records, LONG]
        if self.layout == "own":
            self.layout, self.own_names = "file", True
            (self.home / "mapping.toml").write_text(own_names.FILE)
        self.seed()

    # ------------------------------------------------------------------ the ledger

    def seed(self) -> None:
        if self.layout == "string":
            self.client.set(self.key, json.dumps(self.records))
        elif self.layout == "hash":
            self.client.hset(self.key, mapping={r["id"]: json.dumps(r) for r in self.records})
        elif self.is_table:
            self._seed_table()
        else:
            records = map(own_names.said, self.records) if self.own_names else self.records
            self.path.write_text(json.dumps([*records], indent=2))

    @property
    def is_table(self) -> bool:
        return self.layout in ("sqlite", "postgres")

    def _seed_table(self) -> None:
        """A table that has no column for most of what a run writes."""
        with self.database.begin() as app:
            app.exec_driver_sql(f"DROP TABLE IF EXISTS {self.table}")
            app.exec_driver_sql(
                f"CREATE TABLE {self.table} (id text PRIMARY KEY, ticker text, side text, status text, "
                'quantity numeric, "alpacaOrderId" text, "openedAt" text, "entryPrice" numeric, "stopPrice" numeric, '
                '"closePrice" numeric(12, 1), "closedAt" text, count0 integer DEFAULT 0, count1 integer DEFAULT 0)'
            )
            table = sa.Table(self.table, sa.MetaData(), autoload_with=app)
            for record in self.records:
                known = {name: value for name, value in record.items() if name in table.c}
                app.execute(table.insert().values(known))

    def rows(self) -> dict[str, dict[str, Any]]:
        with self.database.connect() as app:
            found = app.exec_driver_sql(f"SELECT * FROM {self.table} ORDER BY id").mappings()
            return {row["id"]: dict(row) for row in found}

    def raw(self) -> Any:
        if self.is_table:
            return self.rows()
        if self.layout == "hash":
            return self.client.hgetall(self.key)
        return self.client.get(self.key) if self.layout == "string" else self.path.read_bytes()

    def put_raw(self, raw: bytes) -> None:
        """The app writes its ledger whole."""
        if self.layout == "file":
            self.path.write_bytes(raw)
        else:
            self.client.set(self.key, raw)

    def ledger(self) -> dict[str, dict[str, Any]]:
        if self.is_table:  # with the facts that it has no column for
            state = self.state()
            try:
                return dict(open_ledger(ledger_place(self.url()), state=lambda: state).get(self.rows()))
            finally:
                state.close()
        if self.layout == "hash":
            return {k.decode(): json.loads(v) for k, v in self.client.hgetall(self.key).items()}
        return {r["id"]: own_names.heard(r) if self.own_names else r for r in json.loads(self.raw())}

    # ------------------------------------------------------------------ runs

    def env(self) -> dict[str, str]:
        env = {
            "HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TZ": "UTC", "NO_COLOR": "1",
            "XDG_STATE_HOME": str(self.home / "state"), "XDG_DATA_HOME": str(self.home / "data"),
            "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret",
            "GHOSTCLEAN_TRADING_URL": self.broker.url, "GHOSTCLEAN_DATA_URL": self.broker.url,
            "GHOSTCLEAN_LEDGER_KEY": self.key, "GHOSTCLEAN_KEY_PREFIX": f"{self.name}:",
        }  # fmt: skip
        env["GHOSTCLEAN_LEDGER"] = self.url()
        env["GHOSTCLEAN_STATE"] = self.redis_url if self.state_kind == "redis" else f"sqlite:{self.home}/state.db"
        return env

    def url(self) -> str:
        """The ledger as a setting names it."""
        if self.is_table:
            return f"{self.postgres_url or f'sqlite:///{self.home}/bot.db'}#{self.table}"
        return f"file:{self.path}" if self.layout == "file" else self.redis_url

    def start(self, *args: str, fault: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None) -> Run:
        return Run(self, args, {**self.env(), **(env or {})}, fault or {})

    def run(self, *args: str, fault: Mapping[str, Any] | None = None, kill_after: float | None = None,
            deadline: str = "20s", env: Mapping[str, str] | None = None) -> Answer:  # fmt: skip
        return self.start("--deadline", deadline, *args, fault=fault, env=env).answer(kill_after)

    def slow_run(self, name: str) -> Callable[[], Answer]:
        """Starts a run, which stops (SIGSTOP) before the first effect of that name."""
        marker = self.home / "stopped"
        run = self.start(fault={"name": name, "how": "stop_before", "marker": str(marker)})
        while not marker.exists() or not is_stopped(int(marker.read_text())):
            time.sleep(0.005)
        marker.unlink()

        def go_on() -> Answer:
            os.kill(run.process.pid, signal.SIGCONT)
            return run.answer()

        return go_on

    # ------------------------------------------------------------------ the state

    def state(self) -> State:
        if self.state_kind == "sqlite":
            return SqliteState(self.home / "state.db", ledger_place=self.place())
        return RedisState(RedisServer(self.redis_url), ledger_place=self.place(), prefix=f"{self.name}:")

    def summary(self) -> dict[str, str]:
        """The telemetry summary of reconcile."""
        state = self.state()
        try:
            state.open()
            return dict(state.telemetry("reconcile", 1).summary)
        finally:
            state.close()

    def own(self, name: str) -> str:
        """One of ghostclean's own Redis keys."""
        return f"{self.name}:ghostclean:{namespace(f'#{self.key}')}:{name}"

    def place(self) -> str:
        if self.layout in ("string", "hash"):
            return f"{RedisServer(self.redis_url).place}#{self.key}"
        return ledger_place(self.url()).describe()

    def lock_left(self) -> float:
        state = self.state()
        try:
            state.open()
            info = state.lock_info()
            return info.seconds_left if info else 0.0
        finally:
            state.close()

    def lock_expires(self) -> None:
        """Time passes until a dead run's lock has ended."""
        if self.state_kind == "redis":
            for key in self.client.scan_iter(match=f"{self.name}:ghostclean:*:lock*"):
                self.client.delete(key)
        elif (self.home / "state.db").exists():
            import sqlite3

            with sqlite3.connect(self.home / "state.db") as db:
                if db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'lock'").fetchone()[0]:
                    db.execute("UPDATE lock SET expires = 0")
            db.close()

    def spooled(self) -> int:
        return len(list(self.home.rglob("spool/*/*.json")))

    def gone(self) -> None:
        with contextlib.suppress(redis.ConnectionError):  # some tests kill their server
            for key in self.client.scan_iter(match=f"{self.name}:*", count=1000):
                self.client.delete(key)
        self.client.close()
        if self.layout == "postgres":
            with self.database.begin() as app:
                app.exec_driver_sql(f"DROP TABLE IF EXISTS {self.table}")
        shutil.rmtree(self.home, ignore_errors=True)

    # ------------------------------------------------------------------ the oracles

    def judge_end(self, right: Mapping[str, Mapping[str, Any]]) -> None:
        """The ledger is as an undisturbed run leaves it, and every effect is journaled and counted once."""
        ledger = self.ledger()
        assert list(ledger) == list(right) or self.layout in ("hash", "postgres")
        for trade_id, record in right.items():
            assert timeless(ledger[trade_id]) == timeless(record), trade_id
        state = self.state()
        try:
            state.open()
            assert state.intents() == []
            written = [e for e in state.journal() if e.outcome == "written"]
            closed = sorted(e.trade_id for e in written if e.action == "closed")
            synced = sorted(e.trade_id for e in written if e.action == "synced")
            assert (closed, synced) == (sorted(CLOSED), sorted(SYNCED))
            summary = state.telemetry("reconcile", 1).summary
            assert (summary["totalClosed"], summary["totalSynced"]) == (str(len(CLOSED)), str(len(SYNCED)))
        finally:
            state.close()
        assert self.spooled() == 0


def is_stopped(pid: int) -> bool:
    """Whether a process lies stopped: it says that it is about to, and may be slow to do so."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what depends on the moment of the run."""
    today = NOW[:11]
    return {
        n: "now" if n == "closedAt" and str(v).startswith(today) else v for n, v in record.items() if n != "updatedAt"
    }


def right_end(scene: Scene) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What an undisturbed run makes of the ledger, and the effects it has; a second run changes nothing."""
    answer = scene.run()
    assert answer.code == 0, answer.stdout + answer.stderr
    right, raw = scene.ledger(), scene.raw()
    assert {i for i, r in right.items() if r["status"] == "CLOSED"} == CLOSED
    scene.judge_end(right)
    assert scene.run().code == 0
    assert scene.raw() == raw
    return right, answer.effects
