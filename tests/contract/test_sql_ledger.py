"""What a table has that no text has: types, constraints, triggers, rights, locks, and a database that dies."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from ghostclean.adapters.ledgers.copy import copy_ledger
from ghostclean.adapters.ledgers.sql import SqlLedger
from ghostclean.adapters.ledgers.sql_columns import Column, Kind
from ghostclean.adapters.ledgers.sql_table import SqlTable
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.deadline import bounded
from ghostclean.app.ports import Change, WriteOutcome
from ghostclean.core.ledger import read_mapping
from ghostclean.errors import GhostcleanError, LedgerFailed, TradeRefused
from ghostclean.places import ledger_place
from tests.cli.proxy import CuttingProxy

from .conftest import sql_url
from .kits import FreeLease, free

WRITTEN, CHANGED, REFUSED = WriteOutcome.WRITTEN, WriteOutcome.CHANGED, WriteOutcome.REFUSED
CLOSED_AT = "2026-11-22T07:38:12.123Z"
ORDER = "36a6882b-e44a-4a05-b80f-c0243910c3b9"


@dataclass
class Shop:
    """A database, the app's hands on it, and ledgers on its tables; every name of a table is its own."""

    url: str
    folder: Path
    app: sa.Engine

    @property
    def is_postgres(self) -> bool:
        return self.url.startswith("postgresql")

    def run(self, *statements: str) -> list[Any]:
        with self.app.begin() as app:
            found = [app.exec_driver_sql(statement) for statement in statements][-1]
            return [tuple(row) for row in found] if found.returns_rows else []

    def table(self, columns: str, *rows: str) -> str:
        """A table with these columns and rows; its name."""
        name = f"t{uuid.uuid4().hex[:10]}"
        self.run(f"CREATE TABLE {name} ({columns})", *(f"INSERT INTO {name} VALUES ({row})" for row in rows))
        return name

    def ledger(self, table: str, mapping: str = "", url: str | None = None) -> SqlLedger:
        place = ledger_place(f"{url or self.url}#{table}")
        state = SqliteState(self.folder / "state.db", ledger_place=f"{self.url}#{table}")
        return SqlLedger(place, mapping=read_mapping(mapping), state=lambda: state)


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    url = sql_url(request.param, request)
    if request.param == "sqlite":
        sqlite3.connect(tmp_path / "bot.db").close()
        yield Shop(url, tmp_path, sa.create_engine(url, poolclass=sa.NullPool))
        return
    yield Shop(
        url, tmp_path, sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    )


@pytest.fixture
def postgres(shop: Shop) -> Shop:
    if not shop.is_postgres:
        pytest.skip("of Postgres only")
    return shop


SIMPLE = "id text PRIMARY KEY, ticker text, status text, quantity numeric(20, 8)"


def close(ledger: SqlLedger, trade_id: str, lease: Any = None, **fields: Any) -> list[WriteOutcome]:
    base = ledger.get([trade_id])[trade_id]
    return ledger.write([Change(trade_id, base, {"status": "CLOSED", **fields})], lease or free())


# ------------------------------------------------------------------ types


def test_every_type_is_read_and_written_as_its_own(shop: Shop) -> None:
    """Numbers keep their scale, times their type and zone; what the column rounds is still known exactly."""
    moment = "timestamptz" if shop.is_postgres else "timestamp"
    table = shop.table(
        f'id text PRIMARY KEY, ticker varchar(12), status text, quantity numeric(12,4), "entryPrice" double precision, '
        f'"avgFillPrice" real, "createdAt" timestamp, "closedAt" {moment}, "closePrice" numeric(10,2), '
        f'"autoManage" json, paper boolean, "updatedAt" text',
        "'a', 'BRK-B', 'OPEN', 10.5, 180.1, 0.1, '2026-11-17 15:00:00.000000', NULL, NULL, '{\"n\": 1}', true, NULL",
    )
    ledger = shop.ledger(table)
    (trade,) = ledger.read().active
    assert trade == {
        "id": "a", "ticker": "BRK-B", "status": "OPEN", "quantity": Decimal("10.5"), "entryPrice": Decimal("180.1"),
        "avgFillPrice": Decimal("0.1"), "createdAt": "2026-11-17T15:00:00.000Z", "closedAt": None, "closePrice": None,
        "autoManage": {"n": 1}, "paper": True, "updatedAt": None,
    }  # fmt: skip
    written = {
        "status": "CLOSED", "closedAt": CLOSED_AT, "closePrice": Decimal("187.4567"), "updatedAt": CLOSED_AT,
        "avgFillPrice": Decimal("0.3"), "autoManage": {"n": [2]},
    }  # fmt: skip
    assert ledger.write([Change("a", trade, written)], free()) == [WRITTEN]
    assert ledger.get(["a"])["a"] == trade | written
    assert shop.ledger(table).get(["a"])["a"] == trade | written
    (row,) = shop.run(f'SELECT "closePrice", "updatedAt", CAST("closedAt" AS text), quantity FROM {table}')
    assert [float(row[0]), row[1], float(row[3])] == [187.46, CLOSED_AT, 10.5]
    assert row[2] == ("2026-11-22 07:38:12.123+00" if shop.is_postgres else "2026-11-22 07:38:12.123000")


def test_a_time_in_sqlite_is_spelled_as_the_row_spells_its_times(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "bot.db") as db:
        db.execute('CREATE TABLE t (id text, ticker text, status text, "openedAt" datetime, "closedAt" datetime)')
        for trade_id, spelled in (("iso", "2026-11-17T15:00:00.000Z"), ("orm", "2026-11-17 15:00:00.000000")):
            db.execute("INSERT INTO t VALUES (?, 'A', 'OPEN', ?, NULL)", (trade_id, spelled))
        db.execute("INSERT INTO t VALUES ('coarse', 'A', 'OPEN', '2026-11-17 15:00:00+00:00', NULL)")
    db.close()
    ledger = Shop(f"sqlite:///{tmp_path}/bot.db", tmp_path, sa.create_engine("sqlite://")).ledger("t")
    for trade_id in ("iso", "orm", "coarse"):
        assert ledger.get([trade_id])[trade_id]["openedAt"] == "2026-11-17T15:00:00.000Z"
        assert close(ledger, trade_id, closedAt=CLOSED_AT) == [WRITTEN]
        assert ledger.get([trade_id])[trade_id]["closedAt"] == CLOSED_AT
    with sqlite3.connect(tmp_path / "bot.db") as db:
        assert [spelled for (spelled,) in db.execute('SELECT "closedAt" FROM t')] == [
            "2026-11-22T07:38:12.123Z", "2026-11-22 07:38:12.123000", "2026-11-22 07:38:12+00:00",
        ]  # fmt: skip
    db.close()


def test_only_what_differs_is_written(shop: Shop) -> None:
    """A trigger that counts the columns named in an UPDATE would fire for none but the status."""
    table = shop.table(f'{SIMPLE}, "updatedAt" text', "'a', 'AAPL', 'OPEN', 10, 'then'")
    if shop.is_postgres:
        shop.run(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''quantity''; END'",
            f"CREATE TRIGGER watch BEFORE UPDATE OF quantity ON {table} EXECUTE FUNCTION refuse()",
        )
    else:
        shop.run(f"CREATE TRIGGER watch BEFORE UPDATE OF quantity ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
    ledger = shop.ledger(table)
    assert close(ledger, "a", quantity=Decimal("10.00"), updatedAt="then") == [WRITTEN]
    assert shop.run(f"SELECT status, quantity FROM {table}") == [("CLOSED", 10)]


def test_a_row_that_any_seen_column_has_changed_in_is_left(shop: Shop) -> None:
    table = shop.table(
        'id text PRIMARY KEY, ticker text, status text, quantity numeric, "autoManage" json, "openedAt" timestamp, '
        "note text",
        "'a', 'AAPL', 'OPEN', NULL, '{\"n\": 1}', NULL, 'mine'",
    )
    ledger = shop.ledger(table)
    (trade,) = ledger.read().active
    changes = ("quantity = 0", "ticker = 'aapl'", '"autoManage" = \'{"n": 2}\'', "\"openedAt\" = '2026-11-17 15:00:00'")
    for change in changes:
        with shop.app.connect() as app:
            assert ledger.get(["a"])["a"] == trade
            lease = FreeLease(spy=lambda change=change: shop.run(f"UPDATE {table} SET {change}"))
            assert ledger.write([Change("a", trade, {"status": "CLOSED"})], lease) == [CHANGED], change
            app.exec_driver_sql(f"DELETE FROM {table}")
            app.exec_driver_sql(f"INSERT INTO {table} VALUES ('a', 'AAPL', 'OPEN', NULL, '{{\"n\": 1}}', NULL, 'mine')")
            app.commit()
    lease = FreeLease(spy=lambda: shop.run(f"UPDATE {table} SET note = 'the app was here'"))
    assert ledger.write([Change("a", trade, {"status": "CLOSED"})], lease) == [WRITTEN]
    assert shop.run(f"SELECT status, note FROM {table}") == [("CLOSED", "the app was here")]


# ------------------------------------------------------------------ refused values


def test_a_value_that_does_not_fit_is_named_and_keeps_no_other_trade_from_being_written(postgres: Shop) -> None:
    postgres.run("CREATE TYPE refused_state AS ENUM ('OPEN', 'CLOSED')")
    table = postgres.table(
        'id text PRIMARY KEY, ticker text, status refused_state NOT NULL, quantity int, "closeReason" varchar(12), '
        '"closePrice" numeric(5,2) CHECK ("closePrice" < 500), "closedAt" timestamptz NOT NULL DEFAULT now()',
        *(f"'{i}', 'AAPL', 'OPEN', 10, NULL, NULL" for i in ("a", "b")),
    )
    ledger = postgres.ledger(table)
    wrong: dict[str, Any] = {
        "status": ("ERROR", "OPEN, CLOSED"),
        "quantity": (Decimal("2.5"), "whole numbers"),
        "closeReason": ("reconciled_not_in_alpaca", "12 characters"),
        "closePrice": (Decimal("1234.5"), "5 digits"),
        "closedAt": (None, "not be null"),
    }
    for name, (value, why) in {**wrong, "closePrice ": (Decimal("600"), "violates check")}.items():
        base = ledger.get(["a", "b"])
        outcomes: list[WriteOutcome] = []
        changes = [
            Change(i, base[i], {"status": "CLOSED", **wished})
            for i, wished in (("a", {name.strip(): value}), ("b", {}))
        ]
        with pytest.raises(TradeRefused, match=f"trade a: .*{name.strip()} = .*{why}") as caught:
            ledger.write(changes, free(), outcomes)
        assert "\n" not in str(caught.value)
        assert outcomes == [REFUSED, WRITTEN]
        assert postgres.run(f"SELECT id, status FROM {table} ORDER BY id") == [("a", "OPEN"), ("b", "CLOSED")]
        postgres.run(f"UPDATE {table} SET status = 'OPEN' WHERE id = 'b'")


def test_a_trigger_of_the_app_may_refuse_or_change_a_row(shop: Shop) -> None:
    table = shop.table(f'{SIMPLE}, "updatedAt" text', "'a', 'AAPL', 'OPEN', 1, NULL", "'b', 'AAPL', 'OPEN', 2, NULL")
    if shop.is_postgres:
        shop.run(
            "CREATE OR REPLACE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.quantity = 1 THEN "
            "RAISE ''the desk is shut''; END IF; NEW.\"updatedAt\" = ''by trigger''; RETURN NEW; END'",
            f"CREATE TRIGGER guard BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION guard()",
        )
    else:
        shop.run(
            f"CREATE TRIGGER guard BEFORE UPDATE ON {table} WHEN NEW.quantity = 1 "
            "BEGIN SELECT RAISE(ABORT, 'the desk is shut'); END",
            f"CREATE TRIGGER stamp AFTER UPDATE OF status ON {table} "
            f"BEGIN UPDATE {table} SET \"updatedAt\" = 'by trigger' WHERE id = NEW.id; END",
        )
    ledger = shop.ledger(table)
    with pytest.raises(TradeRefused, match=r"status = 'CLOSED'.*the desk is shut"):
        close(ledger, "a")
    assert close(ledger, "b", updatedAt=CLOSED_AT) == [WRITTEN]
    assert ledger.get(["b"])["b"]["updatedAt"] == "by trigger"
    assert ledger.get(["a"])["a"]["status"] == "OPEN"


def test_generated_columns_and_defaults_stay_the_apps(shop: Shop) -> None:
    table = shop.table(
        'id text PRIMARY KEY, ticker text, status text, quantity numeric, "avgFillPrice" numeric, '
        "strategy text NOT NULL DEFAULT 'none', \"filledQty\" numeric GENERATED ALWAYS AS (quantity * 1) STORED",
    )
    ledger = shop.ledger(table)
    new = {
        "id": "n",
        "ticker": "AMD",
        "status": "OPEN",
        "quantity": Decimal(3),
        "filledQty": Decimal(3),
        "source": "us",
    }
    assert ledger.write([Change("n", None, new)], free()) == [WRITTEN]
    assert ledger.write([Change("n", None, new)], free()) == [WRITTEN]
    assert shop.run(f'SELECT strategy, "filledQty" FROM {table}') == [("none", 3)]
    assert ledger.get(["n"])["n"] == {**new, "avgFillPrice": None}


# ------------------------------------------------------------------ facts without a column


def test_facts_without_a_column_are_kept_beside_and_what_the_app_writes_later_counts(shop: Shop) -> None:
    table = shop.table(f'{SIMPLE}, "closePrice" numeric(12, 2)', "'a', 'AAPL', 'OPEN', 10, NULL")
    ledger = shop.ledger(table)
    told = {
        "closeReason": "stop_loss",
        "realizedPnL": Decimal("-12.5"),
        "closePrice": Decimal("180.123"),
        "alpacaStatus": None,
    }
    assert close(ledger, "a", **told) == [WRITTEN]
    assert shop.ledger(table).get(["a"])["a"].items() >= told.items()
    shop.run(f'UPDATE {table} SET "closePrice" = 179')
    closed = ledger.get(["a"])["a"]
    assert (closed["closePrice"], closed["closeReason"]) == (179, "stop_loss")
    undone = Change("a", closed, {"status": "OPEN"}, ("closeReason", "realizedPnL", "alpacaStatus", "closePrice"))
    assert ledger.write([undone], free()) == [WRITTEN]
    (back,) = ledger.read().active
    assert back == {"id": "a", "ticker": "AAPL", "status": "OPEN", "quantity": 10, "closePrice": None}


def test_the_facts_of_a_write_that_never_came_are_not_told(shop: Shop) -> None:
    """The lease ends between the facts and the row: the row says that the old facts hold."""
    table = shop.table(SIMPLE, "'a', 'AAPL', 'OPEN', 10")
    ledger = shop.ledger(table)
    base = ledger.get(["a"])["a"]
    with pytest.raises(GhostcleanError):
        ledger.write([Change("a", base, {"status": "CLOSED", "closeReason": "stop_loss"})], FreeLease(lost=True))
    assert shop.ledger(table).get(["a"])["a"] == base


def test_extra_takes_the_facts_and_keeps_what_the_app_has_there(shop: Shop) -> None:
    kind = "jsonb" if shop.is_postgres else "text"
    table = shop.table(
        f"{SIMPLE}, meta {kind}", "'a', 'AAPL', 'OPEN', 10, '{\"desk\": 4}'", "'b', 'AAPL', 'OPEN', 10, NULL"
    )
    names = 'extra = "meta"\n[fields]\nid = "id"\nticker = "ticker"\nstatus = "status"\nquantity = "quantity"\n'
    ledger = shop.ledger(table, names)
    for trade_id in ("a", "b"):
        assert close(ledger, trade_id, closeReason="stop_loss") == [WRITTEN]
        assert shop.ledger(table, names).get([trade_id])[trade_id]["closeReason"] == "stop_loss"
    (meta,) = shop.run(f"SELECT meta FROM {table} WHERE id = 'a'")[0]
    assert '"desk": 4' in str(meta).replace("'", '"').replace('":4', '": 4')


# ------------------------------------------------------------------ ids


@pytest.mark.parametrize("kind", ["integer", "uuid", "bigint"])
def test_ids_of_the_databases_own_kind(shop: Shop, kind: str) -> None:
    """An adopted trade gets an id from the database, and is known by the one that runs gave it, too."""
    if kind == "uuid" and not shop.is_postgres:
        pytest.skip("SQLite has no such type")
    made = {"integer": "GENERATED BY DEFAULT AS IDENTITY", "uuid": "DEFAULT gen_random_uuid()"}.get(kind, "")
    made = made if shop.is_postgres else ""
    if kind == "bigint":
        made = "GENERATED BY DEFAULT AS IDENTITY" if shop.is_postgres else ""
        kind = kind if shop.is_postgres else "integer"
    table = shop.table(f"id {kind} {made} PRIMARY KEY, ticker text, status text, quantity numeric")
    shop.run(f"INSERT INTO {table} (ticker, status, quantity) VALUES ('AAPL', 'OPEN', 1)")
    ledger = shop.ledger(table)
    (first,) = ledger.read().active
    name = str(first["id"])
    assert set(ledger.get([name, "no such", "99999999999999999999", "7\0"])) == {name}
    new = {"id": "adopted-1", "ticker": "AMD", "status": "OPEN", "quantity": Decimal(2), "source": "us"}
    assert ledger.write([Change("adopted-1", None, new)], free()) == [WRITTEN]
    assert ledger.write([Change("adopted-1", None, new)], free()) == [WRITTEN]
    assert len(ledger.read().active) == 2
    again = shop.ledger(table)
    adopted = again.get(["adopted-1"])["adopted-1"]
    assert adopted == new
    (own,) = [r for r in again.read().active if r["ticker"] == "AMD"]
    assert own["source"] == "us"
    assert again.get([str(own["id"])])[str(own["id"])] == own
    gone = Change("adopted-1", adopted, {"status": "DELETED"})
    assert again.write([gone, Change(name, first, {"status": "CLOSED"})], free()) == [WRITTEN, WRITTEN]
    assert ledger.read().active == ()


def test_an_id_on_several_rows_is_told_and_none_of_them_is_written(shop: Shop) -> None:
    table = shop.table(
        "id text, ticker text, status text", "'a', 'AAPL', 'OPEN'", "'a', 'AAPL', 'CLOSED'", "'b', 'AMD', 'OPEN'"
    )
    ledger = shop.ledger(table)
    view = ledger.read()
    assert view.repeated == {"a"}
    with pytest.raises(TradeRefused, match="several rows"):
        close(ledger, "a")
    assert close(ledger, "b") == [WRITTEN]
    assert shop.run(f"SELECT count(*) FROM {table} WHERE status = 'OPEN'") == [(1,)]


# ------------------------------------------------------------------ the mapping in the database's own terms


NAMES = """
[fields]
id = "id"
ticker = "symbol"
status = { null = "exit_time" }
closedAt = "exit_time"
quantity = { name = "qty", signed = true }
closePrice = "exit_price"
[filter]
account = ["paper", "demo"]
"""


def test_own_names_a_filter_a_signed_size_and_an_end_that_is_a_time(shop: Shop) -> None:
    table = shop.table(
        "id integer PRIMARY KEY, symbol text, qty numeric, exit_time timestamp, exit_price numeric, account text",
        "1, 'AAPL', -5, NULL, NULL, 'paper'",
        "2, 'BTC/USD', 5, '2026-11-17 15:00:00', 7, 'demo'",
        "3, 'AAPL', 5, NULL, NULL, 'live'",
    )
    ledger = shop.ledger(table, NAMES)
    view = ledger.read()
    (trade,) = view.active
    assert (view.total, trade["side"], trade["quantity"], trade["status"]) == (2, "SHORT", 5, "OPEN")
    assert [r["id"] for r in ledger.history(frozenset({"BTCUSD"}))] == [2]
    assert set(ledger.get(["1", "3"])) == {"1"}
    assert close(ledger, "1", closedAt=CLOSED_AT, closePrice=Decimal("9.5")) == [WRITTEN]
    assert shop.run(f"SELECT qty, exit_price, account FROM {table} WHERE id = 1") == [(-5, 9.5, "paper")]
    assert ledger.read().active == ()
    assert "2 trades (closed 2" in ledger.describe()


# ------------------------------------------------------------------ what is no ledger


def test_what_is_no_ledger_is_one_line_with_a_cure(shop: Shop) -> None:
    table = shop.table(SIMPLE, "'a', 'AAPL', 'OPEN', 1")
    shop.run(f"CREATE VIEW v{table} AS SELECT * FROM {table}")
    bare = shop.table("key text, state text")
    names = '[fields]\nid = "id"\nticker = "ticker"\nstatus = "status"\nclosedAt = "gone"\n'
    ledgers = {
        "no such table": shop.ledger("nowhere"),
        "is a view": shop.ledger(f"v{table}"),
        "no column id, status, ticker or symbol": shop.ledger(bare),
        "no column gone, which the mapping names for closedAt": shop.ledger(table, names),
    }
    if shop.is_postgres:
        ledgers["does not answer"] = shop.ledger(table, url="postgresql://me:s3cret@127.0.0.1:1/x")
        ledgers["correct the database"] = shop.ledger(table, url=shop.url + "x")
    else:
        (shop.folder / "text.db").write_text("no database at all, " * 100)
        ledgers["unable to open"] = shop.ledger(table, url=f"sqlite:///{shop.folder}/none.db")
        ledgers["not a database"] = shop.ledger(table, url=f"sqlite:///{shop.folder}/text.db")
    for why, ledger in ledgers.items():
        with pytest.raises(LedgerFailed, match=why) as caught:
            ledger.read()
        assert "\n" not in str(caught.value)
        assert "Cure: " in str(caught.value)
        assert "s3cret" not in str(caught.value)
    assert not (shop.folder / "none.db").exists()


def test_a_schema_that_changes_during_a_run_is_told(shop: Shop) -> None:
    table = shop.table(f"{SIMPLE}, note text", "'a', 'AAPL', 'OPEN', 1, NULL")
    ledger = shop.ledger(table)
    (trade,) = ledger.read().active
    shop.run(f"ALTER TABLE {table} RENAME COLUMN quantity TO qty")
    with pytest.raises(LedgerFailed, match="schema has changed"):
        ledger.write([Change("a", trade, {"status": "CLOSED"})], free())
    assert shop.run(f"SELECT status FROM {table}") == [("OPEN",)]


def troubles(ledger: SqlLedger) -> str:
    return "; ".join(f"{'FAILS' if trouble.fails else 'note'}: {trouble.found}" for trouble in ledger.rehearse(None))


def test_the_rehearsal_tells_rights_narrow_columns_indexes_and_missing_facts(shop: Shop) -> None:
    kind = "varchar(8)" if shop.is_postgres else "text"
    table = shop.table(f'{SIMPLE}, "closeReason" {kind}', "'a', 'AAPL', 'OPEN', 1, NULL")
    said = troubles(shop.ledger(table))
    assert "no index begins with status or ticker" in said
    assert "no field for side, entryPrice" in said
    assert ("FAILS: a close may not fit: closeReason" in said) is shop.is_postgres
    assert "INSERT" not in said
    shop.run(f"CREATE INDEX i{table} ON {table} (status, ticker)", f"CREATE INDEX j{table} ON {table} (ticker)")
    assert "no index" not in troubles(shop.ledger(table))
    assert shop.run(f"SELECT status FROM {table}") == [("OPEN",)]


def test_a_user_who_may_only_read(shop: Shop) -> None:
    table = shop.table(SIMPLE, "'a', 'AAPL', 'OPEN', 1")
    url = shop.url
    if shop.is_postgres:
        shop.run(
            "DROP ROLE IF EXISTS reader",
            "CREATE ROLE reader LOGIN PASSWORD 's3cret'",
            f"GRANT SELECT ON {table} TO reader",
        )
        url = url.replace("bot@", "reader:s3cret@")
    else:
        url = f"sqlite:///{shop.folder}/bot.db"
        (shop.folder / "bot.db").chmod(0o444)
    ledger = shop.ledger(table, url=url)
    assert len(ledger.read().active) == 1
    if not shop.is_postgres:
        import os

        if os.geteuid() == 0:
            pytest.skip("root may write every file")
    assert "FAILS: no UPDATE is possible" in troubles(ledger)
    with pytest.raises(LedgerFailed, match=r"permission denied|readonly"):
        close(ledger, "a")
    assert shop.run(f"SELECT status FROM {table}") == [("OPEN",)]
    if shop.is_postgres:
        shop.run("DROP OWNED BY reader", "DROP ROLE reader")


# ------------------------------------------------------------------ locks, and a database that dies


def test_a_row_that_the_app_holds_is_not_waited_for_beyond_its_share(shop: Shop) -> None:
    table = shop.table(SIMPLE, "'a', 'AAPL', 'OPEN', 1", "'b', 'AMD', 'OPEN', 1")
    ledger = shop.ledger(table)
    base = ledger.get(["a", "b"])
    changes = [Change(i, base[i], {"status": "CLOSED"}) for i in ("a", "b")]
    done: list[WriteOutcome] = []
    with shop.app.connect() as app:
        if not shop.is_postgres:
            app.exec_driver_sql("BEGIN IMMEDIATE")
        app.exec_driver_sql(f"UPDATE {table} SET quantity = 2 WHERE id = 'a'")
        with pytest.raises(TradeRefused, match="trade a: it is held by somebody else"):
            bounded(lambda: ledger.write(changes, free(), done), 1.0)
        app.commit()
    assert done == [REFUSED, WRITTEN if shop.is_postgres else REFUSED]  # SQLite has one writer
    assert shop.ledger(table).get(["a"])["a"] == {**base["a"], "quantity": 2}


@pytest.mark.parametrize("arrived", [True, False])
def test_a_lost_answer_is_looked_up(postgres: Shop, arrived: bool) -> None:
    """The server is gone in the middle of a write, for a moment: what stands is found out, and written once."""
    table = postgres.table(f"{SIMPLE}, n int DEFAULT 0", "'a', 'AAPL', 'OPEN', 1, 0")
    postgres.run(
        "CREATE OR REPLACE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.n = OLD.n + 1; RETURN NEW; END'",
        f"CREATE TRIGGER once BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION once()",
    )
    port = int(postgres.url.rpartition(":")[2].partition("/")[0])
    with CuttingProxy("127.0.0.1", port) as proxy:
        ledger = postgres.ledger(table, url=postgres.url.replace(f":{port}/", f":{proxy.port}/"))
        base = ledger.get(["a"])["a"]
        proxy.cut(b"COMMIT" if arrived else b"UPDATE", after=arrived)
        change = Change("a", base, {"status": "CLOSED", "closeReason": "stop_loss"})
        assert ledger.write([change], free()) == [WRITTEN]
    assert postgres.run(f"SELECT status, n FROM {table}") == [("CLOSED", 1)]
    assert postgres.ledger(table).get(["a"])["a"]["closeReason"] == "stop_loss"


# ------------------------------------------------------------------ copies


def test_a_ledger_is_copied_into_a_table_and_back(shop: Shop) -> None:
    file = shop.folder / "trades.json"
    file.write_text(
        '[{"id": "a", "ticker": "AAPL", "status": "OPEN", "quantity": "10.50", "createdAt": "2026-11-17T15:00:00Z", '
        '"note": "mine", "stopPrice": null}, {"id": "b", "ticker": "AMD", "status": "CLOSED", "quantity": 0.1}]'
    )
    moment = "timestamptz" if shop.is_postgres else "timestamp"
    table = shop.table(f'{SIMPLE}, "createdAt" {moment}, note text, "updatedAt" text')
    source, target = ledger_place(f"file:{file}"), ledger_place(f"{shop.url}#{table}")
    assert copy_ledger(source, target, layout=None, dry_run=True)["trades"] == 2
    assert shop.run(f"SELECT * FROM {table}") == []
    assert copy_ledger(source, target, layout=None, dry_run=False)["layout"] == "table"
    assert shop.run(f"SELECT id, note FROM {table} ORDER BY id") == [("a", "mine"), ("b", None)]
    back = ledger_place(f"file:{shop.folder}/back.json")
    assert copy_ledger(target, back, layout=None, dry_run=False)["trades"] == 2
    with pytest.raises(LedgerFailed, match="already holds 2 trades"):
        copy_ledger(source, target, layout=None, dry_run=False)
    own = '[fields]\nid = "key"\nticker = "symbol"\nstatus = "status"\n'
    named = shop.table("key text PRIMARY KEY, symbol text, status text, note text")
    file.write_text('[{"key": "k", "symbol": "AMD", "status": "OPEN", "note": "mine"}]')
    target = ledger_place(f"{shop.url}#{named}")
    assert copy_ledger(source, target, mapping=read_mapping(own), layout=None, dry_run=False)["trades"] == 1
    narrow = shop.table("id text PRIMARY KEY, ticker text, status text, quantity integer")
    with pytest.raises(LedgerFailed, match=r"cannot take trade a: quantity = '10.5'"):
        copy_ledger(back, ledger_place(f"{shop.url}#{narrow}"), layout=None, dry_run=True)
    less = shop.table(SIMPLE)
    with pytest.raises(LedgerFailed, match="cannot show createdAt, note of trade a"):
        copy_ledger(back, ledger_place(f"{shop.url}#{less}"), layout=None, dry_run=False)


# ------------------------------------------------------------------ racing writers


def test_no_write_of_a_busy_app_is_lost(shop: Shop) -> None:
    table = shop.table(f"{SIMPLE}, n integer NOT NULL", *(f"'t{i}', 'AAPL', 'OPEN', 1, 0" for i in range(6)))
    failures: list[BaseException] = []

    def app(mine: int) -> None:
        for n in range(60):
            with shop.app.begin() as session:
                if not shop.is_postgres:
                    session.exec_driver_sql("PRAGMA busy_timeout = 20000")
                session.exec_driver_sql(
                    f"UPDATE {table} SET n = n + 1, quantity = quantity + 1 WHERE id = 't{(n + mine) % 6}'"
                )

    def we() -> None:
        try:
            ledger = shop.ledger(table)
            left = {f"t{i}" for i in range(6)}
            while left:
                present = ledger.get(left)
                done: list[WriteOutcome] = []
                changes = [Change(i, present[i], {"status": "CLOSED"}) for i in sorted(left)]
                try:
                    ledger.write(changes, free(), done)
                except TradeRefused as error:
                    if "is held" not in str(error):
                        raise
                left -= {change.trade_id for change, outcome in zip(changes, done, strict=True) if outcome is WRITTEN}
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [
        threading.Thread(target=app, args=(0,)),
        threading.Thread(target=app, args=(3,)),
        threading.Thread(target=we),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert shop.run(f"SELECT sum(n), sum(quantity), count(*) FROM {table} WHERE status = 'CLOSED'") == [(120, 126, 6)]


# ------------------------------------------------------------------ MySQL, for which no server is here


def test_the_statements_for_mysql_are_guarded_byte_by_byte() -> None:
    """Its comparisons take `a` for `A` and a text for a number; ours compare the spelled bytes, and null by `<=>`."""
    columns = {name: Column(name, Kind.TEXT) for name in ("id", "status", "ticker")}
    source = sa.Table("trades", sa.MetaData(), *(sa.Column(name) for name in columns), schema="bot")
    mapping = read_mapping("").within(columns)
    table = SqlTable(source, columns, mapping, "mysql", unique=True, indexes=frozenset())
    connection = _Recorder()
    connection.execute(table.swap("a", {"id": "a", "status": "OPEN", "ticker": None}, {"status": "CLOSED"}))
    assert table.insert(connection, {"status": "OPEN"}, named=False) == 7  # type: ignore[arg-type]
    list(table.with_ids(connection, ["a"]))  # type: ignore[arg-type]
    update, insert, select = connection.said
    assert update.startswith("UPDATE bot.trades SET status=%s WHERE bot.trades.id IN (%s) AND ")
    assert "CAST(CAST(bot.trades.status AS CHAR) AS BINARY) <=> %s" in update
    assert "CAST(CAST(bot.trades.ticker AS CHAR) AS BINARY) <=> NULL" in update
    assert insert == "INSERT INTO bot.trades (status) VALUES (%s)"
    assert select.startswith("SELECT CAST(bot.trades.id AS CHAR) AS id, CAST(bot.trades.ticker AS CHAR) AS ticker")


class _Recorder:
    """A connection that only spells."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def execute(self, statement: Any) -> Any:
        self.said.append(" ".join(str(statement.compile(dialect=mysql.dialect())).split()))
        return _Answer()


class _Answer(list[Any]):
    lastrowid = 7
