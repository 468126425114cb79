"""From nothing to a dry run: `init` on the shapes of real ledgers, at a terminal and by flags, and what it refuses."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import sqlite3
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import KEY, LEDGER_KEY, SECRET, Run, World
from tests.schemas import AAPL, MSFT, MSFT_EXIT, NESTED, ORDERS, OWN_NAMES, PAPER_TRADES, SIGNED, TSLA, Schema
from tests.servers import postgres_binaries, postgres_server

NO_KEYS = {"ALPACA_API_KEY": None, "ALPACA_SECRET_KEY": None}


@pytest.fixture
def bot(make_world: MakeWorld) -> Iterator[World]:
    """A bot's folder, with no settings but the keys; in the end they may stand in `.env` alone."""
    world = make_world("file")
    (world.folder / "trades.json").unlink()
    del world.env["GHOSTCLEAN_LEDGER"]
    yield world
    env_file = world.folder / ".env"
    if env_file.exists():
        assert env_file.stat().st_mode & 0o777 == 0o600
        env_file.unlink()  # it holds them by right; the fixture looks for what else was written


def traded(world: World, schema: Schema) -> Schema:
    """The schema with the ids of orders that the broker knows."""
    broker = world.broker
    orders = {
        AAPL: broker.open_trade("AAPL", 10, 180, at="2026-11-17T15:00:00Z"),
        MSFT: broker.open_trade("MSFT", 5, 400, at="2026-11-16T15:00:00Z"),
        MSFT_EXIT: broker.sell("MSFT", 5, 410, at="2026-11-16T18:00:00Z"),
        TSLA: broker.open_trade("TSLA", 4, 250, at="2026-11-17T15:30:00Z", side="sell"),
    }
    broker.open_trade("TSLA", 4, 245, at="2026-11-17T19:30:00Z", side="buy")
    text = json.dumps(list(schema.records))
    for name, order in orders.items():
        text = text.replace(name, str(order["id"]))
    return replace(schema, records=json.loads(text))


def init(world: World, *args: str, **env: str | None) -> Run:
    return world.run("init", "--json", *args, **env)


def lines(run: Run) -> dict[str, Any]:
    return {line["field"]: line for line in run.document["mapping"]["lines"]}


def rows_of(path: Path, table: str) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY id")]


# --------------------------------------------------------------------------- from nothing to a cron


def test_a_sqlite_table_from_nothing_to_what_cron_runs(bot: World) -> None:
    place = traded(bot, PAPER_TRADES).write(bot.folder)
    before = rows_of(bot.folder / "bot.db", "paper_trades")
    run = init(bot, "--yes")

    assert run.code == 0, run.stderr
    assert run.document["ledger"] == {"place": place, "records": 3}
    assert [record["id"] for record in run.document["records"]] == [3, 1, 2]
    assert lines(run)["openedAt"]["form"] == "UTC"
    assert {line["certainty"] for line in lines(run).values()} == {"sure"}
    assert (run.document["account"]["known"], run.document["account"]["asked"]) == (2, 2)
    assert (run.document["account"]["covered"], run.document["account"]["open"]) == (1, 2)
    assert [(Path(file["file"]).name, file["written"]) for file in run.document["files"]] == [
        ("mapping.toml", True), (".env", True),
    ]  # fmt: skip
    assert all(check["ok"] is not False for check in run.document["checks"])
    assert {row["id"]: row["action"] for row in run.document["dryRun"]["results"]} == {
        "1": "would_sync",
        "3": "would_close",
    }
    assert f"cd {bot.folder} && " in run.document["schedule"]
    assert rows_of(bot.folder / "bot.db", "paper_trades") == before

    bare: dict[str, str | None] = dict.fromkeys(set(bot.env) - {"HOME", "PYTHONPATH"})
    assert bot.run("reconcile", **bare).code == 0
    _, _, tsla = rows_of(bot.folder / "bot.db", "paper_trades")
    assert (tsla["status"], tsla["exit_price"], tsla["pnl"]) == ("closed", 245.0, 20.0)
    assert tsla["closed_at"] == "2026-11-17 19:30:00"


@pytest.mark.parametrize("schema", [SIGNED, NESTED, OWN_NAMES], ids=str)
def test_a_file_of_records_is_found_and_read(bot: World, schema: Schema) -> None:
    traded(bot, schema).write(bot.folder)
    (bot.folder / "package.json").write_text('{"name": "bot"}')
    (bot.folder / "broken.json").write_text("[{")
    before = (bot.folder / "trades.json").read_bytes()
    run = init(bot, "--yes")

    assert run.code == 0, run.stderr
    live = next(row for row in run.document["dryRun"]["results"] if row["ticker"] == "AAPL")
    assert (live["verdict"], live["id"]) == ("live", next(iter(schema.trades)))
    assert (bot.folder / "mapping.toml").exists() is not schema.native
    assert (bot.folder / "trades.json").read_bytes() == before


@pytest.mark.parametrize("layout", ["string", "hash"])
def test_a_redis_key_is_found_among_others(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    world.redis.set("cache:quotes", "[1, 2]")
    world.redis.hset("session:1", "user", "7")
    world.redis.lpush("queue", "x")
    world.ledger(*traded(world, SIGNED).records) if layout == "string" else None
    if layout == "hash":
        for record in traded(world, SIGNED).records:
            world.redis.hset(LEDGER_KEY, record["trade_id"], json.dumps(record))
    run = init(world, "--yes", GHOSTCLEAN_LEDGER_KEY=None)

    assert run.code == 0, run.stderr
    assert run.document["ledger"]["place"].endswith(f"#{LEDGER_KEY}")
    env_file = (world.folder / ".env").read_text()
    assert f"REDIS_URL={world.redis_url}\n" in env_file
    assert f"GHOSTCLEAN_LEDGER_KEY={LEDGER_KEY}\n" in env_file
    (world.folder / ".env").unlink()


@pytest.mark.skipif(postgres_binaries() is None, reason="no Postgres is installed")
def test_a_postgres_table_is_found_by_its_database_alone(bot: World) -> None:
    psycopg = pytest.importorskip("psycopg")
    schema = traded(bot, PAPER_TRADES)
    with postgres_server() as url, psycopg.connect(url, autocommit=True) as database:
        database.execute("CREATE SCHEMA desk")
        database.execute("CREATE TABLE signals (id serial PRIMARY KEY, symbol text, score real)")
        database.execute("INSERT INTO signals (symbol, score) VALUES ('AAPL', 1)")
        ddl = schema.table.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "serial PRIMARY KEY")
        database.execute(ddl.replace("paper_trades", "desk.paper_trades").replace("REAL", "numeric(12, 4)"))
        for record in schema.records:
            marks = ", ".join(["%s"] * len(record))
            database.execute(f"INSERT INTO desk.paper_trades VALUES ({marks})", [*record.values()])
        run = init(bot, "--yes", DATABASE_URL=url)
        assert run.code == 0, run.stderr
        assert run.document["ledger"]["place"].endswith("/postgres#desk.paper_trades")
        assert lines(run)["openedAt"]["form"] == "UTC"
        assert run.document["dryRun"]["results"]
        nowhere = init(bot, "--yes", "--ledger", f"{url}#trades", "--env-file", "other.env")
        assert (nowhere.code, nowhere.document["error"]) == (4, "ledger_failed")
        assert "the tables are desk.paper_trades, signals" in nowhere.document["detail"]


# --------------------------------------------------------------------------- at a terminal


def typed(world: World, answers: list[tuple[str, str]], *args: str, **env: str | None) -> tuple[str, int]:
    """What `init` says at a terminal where a person answers each of these questions in turn, and its exit code."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ghostclean", "init", *args], stdin=child, stdout=child, stderr=child,
        env=world.environment(TERM="xterm", COLUMNS="100", **env), cwd=world.folder, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - its own terminal
    )  # fmt: skip
    os.close(child)
    said, seen, left = b"", 0, list(answers)
    with contextlib.suppress(OSError):  # its end closes the terminal
        while select.select([parent], [], [], 30)[0] and (chunk := os.read(parent, 4096)):
            said += chunk
            while left and (at := said.find(left[0][0].encode(), seen)) >= 0:
                seen = at + len(left[0][0])
                os.write(parent, f"{left.pop(0)[1]}\n".encode())
    os.close(parent)
    text = said.decode().replace("\r\n", "\n")
    world.said.append(text.replace(f"Alpaca API key: {KEY}", ""))  # as it was typed
    process.kill() if left else None  # it waits for an answer that nobody has
    assert not left, text
    return text, process.wait(timeout=30)


def test_a_person_gives_the_keys_corrects_a_line_and_says_yes(bot: World) -> None:
    schema = traded(bot, PAPER_TRADES)
    replace(schema, records=[{**record, "alert_type": "x"} for record in schema.records]).write(bot.folder)
    text, code = typed(
        bot,
        [
            ("Where are the trades?", ""), ("Alpaca API key: ", KEY), ("(not shown): ", "wrong"), ("paper or live", ""),
            ("Alpaca API key: ", KEY), ("(not shown): ", SECRET), ("paper or live", ""),
            ("Is that right?", "quantity=volume"), ("Is that right?", "source=alert_type"),
            ("Is that right?", "alpacaStatus=alert_type"), ("Is that right?", "y"),
        ],
        **NO_KEYS,
    )  # fmt: skip
    assert code == 0, text
    assert "other keys, or the other kind of account?" in text
    assert "it has no volume, which was to be its quantity" in text
    assert "alert_type is both source and alpacaStatus" in text
    assert "source           alert_type" in text
    assert "ghostclean reconcile --dry-run" in text
    assert 'source = "alert_type"' in (bot.folder / "mapping.toml").read_text()
    assert f"ALPACA_API_KEY={KEY}\n" in (bot.folder / ".env").read_text()
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", text)
    screen = plain[: plain.index("The schedule")].splitlines()
    assert [line for line in screen if len(line) > 100 and str(bot.folder) not in line] == []


def test_nothing_is_written_after_a_no_and_a_ledger_that_is_none_can_be_named(bot: World) -> None:
    schema = traded(bot, PAPER_TRADES)
    unnamed = [{("what" if k == "symbol" else k): v for k, v in record.items()} for record in schema.records]
    (bot.folder / "trades.json").write_text(json.dumps(unnamed))
    before = sorted(bot.folder.iterdir())
    answers = [("Where are the trades?", "file:trades.json"), ("Enter to stop", "ticker=what"), ("Is that right?", "n")]
    text, code = typed(bot, answers)
    assert (code, "nothing was written, as you said" in text) == (2, True)
    assert sorted(bot.folder.iterdir()) == before


# --------------------------------------------------------------------------- what stands in the way


def refused(run: Run, code: int, error: str, *said: str) -> None:
    assert (run.code, run.document["error"], run.document["ok"]) == (code, error, False), run.document["detail"]
    for part in said:
        assert part in run.document["detail"]


def test_what_is_no_ledger_is_refused_with_the_reason_and_nothing_is_written(bot: World) -> None:
    refused(init(bot, "--yes"), 2, "bad_settings", "nothing here looks like a ledger", "name it with --ledger")
    schema = ORDERS
    place = schema.write(bot.folder)
    refused(init(bot, "--yes"), 2, "bad_settings", "one record an order")
    refused(init(bot, "--yes", "--ledger", place), 4, "ledger_failed", "one record an order: it has notional")
    refused(init(bot, "--yes", "--ledger", f"{place}s"), 4, "ledger_failed", "the tables are trades")
    refused(init(bot, "--yes", "--ledger", "sqlite:///gone.db#t"), 4, "ledger_failed")
    refused(init(bot, "--yes", "--ledger", "redis://127.0.0.1:1/0"), 4, "ledger_failed", "127.0.0.1:1")
    refused(init(bot, "--yes", "--ledger", "http://x"), 2, "bad_settings", "--ledger is wrong")
    refused(init(bot, "--yes", "--ledger", "file:gone.json"), 4, "ledger_failed", "No such file")
    refused(init(bot, "--set", "size", "--yes"), 2, "bad_settings", "--set is wrong: it must be FIELD=NAME")
    refused(init(bot, "--zone", "Mars", "--yes"), 2, "bad_settings", "'Mars' is no time zone")
    assert sorted(path.name for path in bot.folder.iterdir() if path.suffix in (".toml", ".env")) == []


def test_without_keys_a_yes_or_a_word_on_a_doubt_nothing_is_written(bot: World) -> None:
    schema = traded(bot, PAPER_TRADES)
    replace(schema, table="", records=[{**record, "qty": 1} for record in schema.records]).write(bot.folder)
    refused(init(bot, "--yes", **NO_KEYS), 2, "bad_settings", "ALPACA_API_KEY and ALPACA_SECRET_KEY are not set")
    doubt = init(bot, "--yes")
    refused(doubt, 2, "bad_settings", "not sure of quantity = qty (shares may be it as well", "--set quantity=qty")
    assert lines(doubt)["quantity"]["certainty"] == "doubtful"
    refused(init(bot, "--set", "quantity=shares"), 2, "bad_settings", "say --yes, or ask at a terminal")
    assert not (bot.folder / ".env").exists()
    assert not (bot.folder / "mapping.toml").exists()
    assert init(bot, "--set", "quantity=shares", "--yes").code == 0


def test_a_ledger_of_which_the_account_knows_nothing_needs_a_person(bot: World) -> None:
    PAPER_TRADES.write(bot.folder)
    run = init(bot, "--yes")
    refused(run, 5, "account_mismatch", "it knows none of the 2 orders", "say yes at a terminal")
    assert not (bot.folder / ".env").exists()


def test_several_ledgers_are_named_and_none_is_taken(bot: World) -> None:
    traded(bot, PAPER_TRADES).write(bot.folder)
    OWN_NAMES.write(bot.folder)
    refused(init(bot, "--yes"), 2, "bad_settings", "several places look like a ledger", "paper_trades, 3 records")


def test_files_that_stand_already_are_used_and_never_written(bot: World) -> None:
    place = traded(bot, PAPER_TRADES).write(bot.folder)
    env_file, mapping = bot.folder / ".env", bot.folder / "mapping.toml"
    env_file.write_text("BOT_TOKEN=1\n")
    env_file.chmod(0o600)
    refused(
        init(bot, "--yes"),
        2,
        "bad_settings",
        ".env stands already",
        f"put GHOSTCLEAN_LEDGER={place}, GHOSTCLEAN_MAPPING=",
    )
    assert env_file.read_text() == "BOT_TOKEN=1\n"
    written = mapping.read_text()
    beside = bot.run("init", "--yes", "--quiet", "--env-file", "ghost.env")
    assert (beside.code, beside.stdout) == (0, f"written: {bot.folder}/ghost.env\n")
    assert (bot.folder / "ghost.env").stat().st_mode & 0o777 == 0o600
    (bot.folder / "ghost.env").unlink()

    env_file.write_text(f"BOT_TOKEN=1\nGHOSTCLEAN_LEDGER={place}\n")
    again = init(bot, "--yes")
    assert again.code == 0, again.stderr
    assert again.document["mapping"]["proposed"] is False
    assert [file["written"] for file in again.document["files"]] == [False]
    assert (mapping.read_text(), env_file.read_text()) == (written, f"BOT_TOKEN=1\nGHOSTCLEAN_LEDGER={place}\n")

    mapping.write_text('[fields]\nid = "id"\nwhat = "symbol"\n')
    refused(init(bot, "--yes"), 2, "bad_settings", "line 3")
    other = init(bot, "--yes", "--ledger", "file:gone.json", GHOSTCLEAN_LEDGER=place)
    refused(other, 4, "ledger_failed")


def test_a_mapping_that_stands_is_used_where_no_name_is_known(bot: World) -> None:
    words = {"symbol": "was", "status": "zustand", "shares": "menge", "alpaca_order_id": "auftrag", "id": "nr"}
    foreign = [{words.get(k, k): v for k, v in record.items()} for record in traded(bot, PAPER_TRADES).records]
    (bot.folder / "trades.json").write_text(json.dumps(foreign))
    (bot.folder / "other.json").write_text('[{"id": 1, "was": 2}]')
    refused(init(bot, "--yes"), 2, "bad_settings", "nothing here looks like a ledger")
    (bot.folder / "mapping.toml").write_text(
        '[fields]\nid = "nr"\nticker = "was"\nstatus = "zustand"\nquantity = "menge"\nalpacaOrderId = "auftrag"\n'
        'side = "direction"\n[values.side]\nLONG = "BUY"\nSHORT = "SHORT"\n'
    )
    run = init(bot, "--yes")
    assert run.code == 0, run.stderr
    assert (run.document["ledger"]["place"], run.document["account"]["known"]) == (f"file:{bot.folder}/trades.json", 2)


def test_a_pipe_gets_plain_lines_and_quiet_only_what_was_written(bot: World) -> None:
    traded(bot, PAPER_TRADES).write(bot.folder)
    shown = bot.run("init")
    assert shown.code == 2
    assert "  ticker           symbol                 called so; 3 values, all symbols\n" in shown.stdout
    assert "the account knows the orders of 2 of the 2 that were asked about" in shown.stdout
    quiet = bot.run("init", "--yes", "--quiet")
    assert quiet.stdout == f"written: {bot.folder}/mapping.toml\nwritten: {bot.folder}/.env\n"
