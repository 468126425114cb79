"""Where a ledger is looked for, and the files that a first run writes."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from dotenv import dotenv_values

from ghostclean.adapters.env_file import env_text
from ghostclean.adapters.private_file import write_private
from ghostclean.adapters.survey import look_around, look_at
from ghostclean.errors import BadSettings
from tests.schemas import ORM


def test_only_files_that_may_hold_records_are_looked_into(tmp_path: Path) -> None:
    ORM.write(tmp_path)
    for name in ("data", "node_modules", ".hidden", "data/deep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trades.json").write_text('[{"id": 1}]')
    (tmp_path / "notes.txt").write_text("[{}]")
    (tmp_path / "state.json").write_text('{"open": true}')
    (tmp_path / "fake.db").write_text("no database")
    found = {sample.place.describe(): (sample.total, bool(sample.why_not)) for sample in look_around([], tmp_path)}
    assert found == {
        f"sqlite:///{tmp_path}/bot.db#trades": (4, False),
        f"file:{tmp_path}/data/trades.json": (1, False),
        f"file:{tmp_path}/state.json": (0, True),
    }


def test_what_cannot_be_reached_is_told_and_the_rest_is_found(tmp_path: Path) -> None:
    (tmp_path / "trades.json").write_text('[{"id": 1}]')
    gone, there = look_around(["postgresql://bot:pw@127.0.0.1:1/bot"], tmp_path)
    assert (gone.place.kind, gone.records) == ("sql", ())
    assert "pw" not in gone.why_not
    assert there.total == 1


def test_a_database_without_the_extra_is_told_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ORM.write(tmp_path)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    (sample,) = look_around([], tmp_path)
    assert (sample.place.kind, "pip install 'ghostclean[sql]'" in sample.why_not) == ("sql", True)


def test_a_word_that_only_old_rows_have_is_in_the_sample(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "bot.db")) as database:
        database.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, symbol TEXT, status TEXT)")
        rows = [(1, "AAPL", "open"), *((i, "AAPL", "closed") for i in range(2, 3000))]
        database.executemany("INSERT INTO trades VALUES (?, ?, ?)", rows)
        database.commit()
    (sample,) = look_at(f"sqlite:///{tmp_path}/bot.db#trades")
    assert sample.total == 2999
    assert [record["id"] for record in sample.records][:2] == [1, 2000]
    assert sample.records[-1]["id"] == 2999


def test_of_a_long_list_the_newest_records_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "trades.json").write_text(json.dumps([{"id": i} for i in range(3000)]))
    (sample,) = look_at(f"file:{tmp_path}/trades.json")
    assert (sample.total, len(sample.records), sample.records[-1]["id"]) == (3000, 1000, 2999)


@pytest.mark.parametrize("name", ["a b", "quo'te", "back\\slash", "#", "x #y", "€", "$HOME", "postgresql://u:p@h/d#t"])
def test_a_setting_survives_its_file(name: str) -> None:
    assert dotenv_values(stream=io.StringIO(env_text({"NAME": name, "B": "c"}))) == {"NAME": name, "B": "c"}


def test_a_setting_that_no_file_can_carry_is_said_without_its_value() -> None:
    with pytest.raises(BadSettings, match=r"^REDIS_URL cannot be written to a \.env file") as raised:
        env_text({"REDIS_URL": "redis://:a${HOME}b@h/0"})
    assert "HOME" not in str(raised.value)


def test_a_new_file_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    assert write_private(path, "one", new=True) == str(path)
    with pytest.raises(BadSettings, match="File exists"):
        write_private(path, "two", new=True)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one", 0o600)
    assert list(tmp_path.iterdir()) == [path]
