"""Two processes make one state at the same instant: both find it whole."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from ghostclean.adapters.state import sqlite
from ghostclean.adapters.state.sqlite import SqliteState


@pytest.mark.parametrize("statement", range(1, 7))
def test_another_process_creates_it_before_any_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    path, connect = tmp_path / "state.db", sqlite3.connect

    class Overtaken(sqlite3.Connection):
        said = 0

        def execute(self, *args: Any) -> sqlite3.Cursor:
            self.said += 1
            if self.said == statement:
                monkeypatch.setattr(sqlite.sqlite3, "connect", connect)
                monkeypatch.setattr(sqlite, "_LINES", {})  # which another process does not share
                other = SqliteState(path, ledger_place="file:trades.json")
                other.open()
                other.close()
            return super().execute(*args)

    monkeypatch.setattr(sqlite.sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Overtaken))
    state = SqliteState(path, ledger_place="file:trades.json")
    state.open()
    assert state.lock_info() is None
    state.close()


def test_another_process_is_about_to_create_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    ends = threading.Timer(0.2, other.execute, ("COMMIT",))
    ends.start()
    state = SqliteState(path, ledger_place="file:trades.json")
    state.open()
    ends.join()
    assert state.lock_info() is None
    state.close()
    other.close()
