"""A table of 100,000 and of 1,000,000 trades: a quiet run against the bare SELECT and the run on such a hash."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import sqlalchemy as sa

from tests.bench.big import Big, hash_ledger
from tests.bench.canned import canned_broker, synced
from tests.bench.worlds import final_record
from tests.servers import postgres_server, redis_server

SIZES = ((100_000, 10_000, 1.5), (1_000_000, 1_000, 1.2))
RUNS = 3
_FINAL = ("CLOSED", "CANCELED", "CANCELLED", "REJECTED", "EXPIRED", "ARCHIVED", "CLOSED_MANUAL", "DELETED")


def sqlite(setup: Any) -> Iterator[tuple[str, str, str, bool]]:
    yield from _rows("SQLite", setup, f"sqlite:///{setup.folder}/bot.db")


def postgres(setup: Any) -> Iterator[tuple[str, str, str, bool]]:
    with postgres_server() as url:
        yield from _rows("Postgres", setup, url)


def _rows(name: str, setup: Any, url: str) -> Iterator[tuple[str, str, str, bool]]:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    for total, live, bar in SIZES:
        with redis_server() as server, canned_broker(live) as broker:
            table = _fill(engine, total, live)
            big = Big(setup.environment, server, broker, BENCH_MAX=str(live))
            hash_ledger(big, total, live)
            big.client.sadd("trades:v1:bench:open", *(f"trade-{n:07d}" for n in range(live)))
            on_hash = _quiet(big, live)
            own = _quiet(
                Big(setup.environment, server, broker, BENCH_MAX=str(live), GHOSTCLEAN_LEDGER=f"{url}#trades"), live
            )
            bare = median(_select(engine, table) for _ in range(RUNS))
        ratio = own / (bare + on_hash)
        figure = f"{ratio:.2f} ({own:.2f} / {bare:.2f} + {on_hash:.2f} s)"
        yield f"{name}, {total:,} rows, {live:,} open, quiet run / SELECT + hash", figure, f"≤ {bar}", ratio <= bar
    engine.dispose()


def _quiet(big: Big, live: int) -> float:
    big.remember(live)
    big.run()
    return median(big.run()["own"] for _ in range(RUNS))


def _fill(engine: sa.Engine, total: int, live: int) -> sa.Table:
    numbers, texts = ("quantity", "entryPrice", "stopPrice", "takeProfitPrice"), {**synced(0), **final_record(0)}
    names = [name for name in texts if name not in (*numbers, "id", "status")]
    table = sa.Table(
        "trades",
        sa.MetaData(),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, index=True),
        *(sa.Column(name, sa.Numeric(18, 6, asdecimal=False)) for name in numbers),
        *(sa.Column(name, sa.Float if isinstance(texts[name], float | int) else sa.Text) for name in names),
    )
    empty = dict.fromkeys(table.c.keys())
    with engine.begin() as app:
        table.drop(app, checkfirst=True)
        table.create(app)
        app.execute(table.insert(), [{**empty, **synced(n)} for n in range(live)])
        app.execute(table.insert(), {**empty, **final_record(0), "id": "final"})
        others = ", ".join(f'"{column.name}"' for column in table.c if column.name != "id")
        app.exec_driver_sql(
            f"INSERT INTO trades (id, {others}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            f"WHERE i < {total - live - 1}) SELECT 'final-' || i, {others} FROM n, trades WHERE id = 'final'"
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as app:
        app.exec_driver_sql("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE")
    return table


def _select(engine: sa.Engine, table: sa.Table) -> float:
    """What a script needs to read the rows that are not final."""
    with engine.connect() as app:
        app.exec_driver_sql("SELECT 1").all()
        start = time.perf_counter()
        words = ", ".join(f"'{word}'" for word in _FINAL)
        app.exec_driver_sql(f"SELECT * FROM trades WHERE status NOT IN ({words})").all()
        return time.perf_counter() - start
