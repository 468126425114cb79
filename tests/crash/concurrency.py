"""Four reconciles and two app writers on one ledger: `python -m tests.crash.concurrency --layout file`.

The writers are processes of their own and write as an app would: WATCH/MULTI on the string, HSET a
trade on the hash, flock on the lock file for the file, an UPDATE on the table. Each adds one to a
counter in a trade, and now and then opens a trade that is a ghost. At the end every count is there
and every ghost is closed exactly once.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from tests.servers import postgres_server, redis_server

from .scene import DAY_BEFORE, ROOT, Scene, build_broker

WRITERS, RUNNERS, TRADES, GHOST_EVERY = 2, 4, 6, 100
TABLES = ("sqlite", "postgres")
Edit = Callable[[dict[str, dict[str, Any]]], None]


# --------------------------------------------------------------------------- the app's side


def write_string(client: redis.Redis, key: str, edit: Edit) -> None:
    while True:
        with client.pipeline() as batch:
            try:
                batch.watch(key)
                records = {r["id"]: r for r in json.loads(batch.get(key))}
                edit(records)
                batch.multi()
                batch.set(key, json.dumps(list(records.values())))
                batch.execute()
                return
            except redis.WatchError:
                continue


def write_file(path: Path, edit: Edit) -> None:
    with Path(f"{path}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = {r["id"]: r for r in json.loads(path.read_text())}
        edit(records)
        new = path.with_name(f"{path.name}.app-{os.getpid()}")
        new.write_text(json.dumps(list(records.values())))
        new.rename(path)


def writer(layout: str, url: str, key: str, path: Path, number: int, writes: int) -> None:
    """One app process. Its counters are its own, the records are everybody's."""
    rng, client = random.Random(number), None if layout in TABLES else redis.Redis.from_url(url)
    mine = f"count{number}"

    def bump(records: dict[str, dict[str, Any]], trade_id: str) -> None:
        records[trade_id][mine] = records[trade_id].get(mine, 0) + 1

    for n in range(writes):
        trade_id = f"busy{rng.randrange(TRADES)}"
        ghost = ghost_record(f"ghost-{number}-{n}") if n % GHOST_EVERY == 0 else None

        def edit(records: dict[str, dict[str, Any]], i: str = trade_id, new: dict[str, Any] | None = ghost) -> None:
            bump(records, i)
            if new is not None:
                records[new["id"]] = new

        if layout in TABLES:
            write_table(url, key, trade_id, number, ghost)
        elif layout in ("string", "long"):
            write_string(client, key, edit)
        elif layout == "file":
            write_file(path, edit)
        else:
            write_hash(client, key, trade_id, mine, ghost)
        print(f"{trade_id} {mine}", flush=True)


def write_hash(client: redis.Redis, key: str, trade_id: str, field: str, ghost: dict[str, Any] | None) -> None:
    """One HSET a trade: each writer has trades of its own, as plain HSET knows no compare-and-set."""
    name = f"{trade_id}-{field}"
    record = json.loads(client.hget(key, name) or "null") or {"id": name, "ticker": "AAPL", "status": "DRAFT"}
    client.hset(key, name, json.dumps({**record, field: record.get(field, 0) + 1}))
    if ghost is not None:
        client.hset(key, ghost["id"], json.dumps(ghost))


def write_table(url: str, table: str, trade_id: str, number: int, ghost: dict[str, Any] | None) -> None:
    """Counts in a column that no run sees, and in one that every run sees."""
    with database(url).begin() as app:
        if url.startswith("sqlite"):
            app.exec_driver_sql("PRAGMA busy_timeout = 60000")
            app.exec_driver_sql("BEGIN IMMEDIATE")
        app.exec_driver_sql(
            f"UPDATE {table} SET count{number} = count{number} + 1, quantity = quantity + 1 WHERE id = '{trade_id}'"
        )
        app.exec_driver_sql(f'UPDATE {table} SET "entryPrice" = "entryPrice" + 1 WHERE status = \'OPEN\'')
        if ghost is not None:
            rows = sa.Table(table, sa.MetaData(), autoload_with=app)
            app.execute(rows.insert().values(ghost))


@functools.cache
def database(url: str) -> sa.Engine:
    options: dict[str, Any] = {"connect_args": {"isolation_level": None}} if url.startswith("sqlite") else {}
    return sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), **options)


def ghost_record(trade_id: str) -> dict[str, Any]:
    """A trade that the broker does not know: a run closes it."""
    return {
        "id": trade_id, "ticker": "ORCL", "side": "LONG", "status": "OPEN", "quantity": 1, "entryPrice": 90,
        "alpacaOrderId": str(uuid.uuid4()), "openedAt": DAY_BEFORE,
    }  # fmt: skip


# --------------------------------------------------------------------------- the whole


def compete(make: Callable[..., Scene], layout: str, writes: int) -> dict[str, Any]:
    """Lets them compete and judges; returns the figures."""
    scene = make(layout, "redis")
    busy = [
        {"id": f"busy{n}", "ticker": "AAPL", "side": "LONG", "status": "DRAFT", "quantity": 1} for n in range(TRADES)
    ]
    scene.records = [*busy, *scene.records]
    scene.seed()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    where = scene.url().split("#") if scene.is_table else (scene.redis_url, scene.key)
    command = [sys.executable, "-m", "tests.crash.concurrency", "--writer", layout, *where]
    began = time.monotonic()
    apps = [
        subprocess.Popen([*command, str(scene.path), str(n), str(writes // WRITERS)],
                         env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for n in range(WRITERS)
    ]  # fmt: skip
    codes: Counter[str] = Counter()
    failures: list[str] = []
    over = threading.Event()

    def reconcile() -> None:
        while not over.is_set():
            document = scene.start("--allow-mass-close").answer().document
            codes[str(document["error"])] += 1
            # A row that the app holds just now is left to the next run.
            is_held = scene.is_table and "is held by somebody else" in str(document["detail"])
            if document["error"] not in (None, "locked") and not is_held:
                failures.append(str(document["detail"]))

    runs = [threading.Thread(target=reconcile) for _ in range(RUNNERS)]
    for run in runs:
        run.start()
    said: list[str] = []
    readers = [threading.Thread(target=lambda a=app: said.extend(a.stdout.read().split("\n")[:-1])) for app in apps]
    for reader in readers:
        reader.start()
    for app, reader in zip(apps, readers, strict=True):
        app.wait()
        reader.join()
        assert app.stdout is not None
        app.stdout.close()
        assert app.returncode == 0
    seconds = time.monotonic() - began
    over.set()
    for run in runs:
        run.join()
    assert not failures, failures
    last = scene.run("--allow-mass-close")
    assert last.code == 0, last.stdout
    ghosts = judge(scene, layout, Counter(said))
    return {
        "layout": layout,
        "writes": len(said),
        "ghosts": ghosts,
        "runs": sum(codes.values()),
        "worked": codes["None"],
        "locked": codes["locked"],
        "seconds": round(seconds, 1),
    }


def judge(scene: Scene, layout: str, said: Counter[str]) -> int:
    """Every app write is there; every ghost was closed once, in the ledger, the journal and the totals."""
    ledger = scene.rows() if scene.is_table else scene.ledger()
    for line, count in said.items():
        trade_id, field = line.split()
        record = ledger[f"{trade_id}-{field}" if layout == "hash" else trade_id]
        assert record[field] == count, (line, count, record)
    ghosts = {i for i in ledger if i.startswith("ghost-")} | {"stopped", "sold", "never", "vanished"}
    assert all(ledger[i]["status"] == "CLOSED" for i in ghosts)
    state = scene.state()
    try:
        state.open()
        assert state.intents() == []
        closed = Counter(e.trade_id for e in state.journal() if e.outcome == "written" and e.action == "closed")
        assert closed == Counter(ghosts)
        assert state.telemetry("reconcile", 1).summary["totalClosed"] == str(len(ghosts))
    finally:
        state.close()
    return len(ghosts)


def main() -> None:
    if sys.argv[1:2] == ["--writer"]:
        layout, url, key, path, number, writes = sys.argv[2:]
        writer(layout, url, key, Path(path), int(number), int(writes))
        return
    options = argparse.ArgumentParser(prog="python -m tests.crash.concurrency")
    options.add_argument("--writes", type=int, default=10_000)
    options.add_argument("--layout", choices=("string", "long", "hash", "file", *TABLES), default="string")
    asked = options.parse_args()
    broker, records = build_broker()
    with contextlib.ExitStack() as servers:
        url = servers.enter_context(redis_server())
        folder = servers.enter_context(tempfile.TemporaryDirectory())
        postgres = servers.enter_context(postgres_server()) if asked.layout == "postgres" else ""

        def make(layout: str, state_kind: str) -> Scene:
            return Scene(broker, records, url, Path(folder), layout, state_kind, postgres)

        print(json.dumps(compete(make, asked.layout, asked.writes)))
    broker.__exit__(None, None, None)


if __name__ == "__main__":
    main()
