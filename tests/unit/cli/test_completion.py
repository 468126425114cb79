"""The ids that a shell completes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ghostclean.cli.completion import complete_trades


def test_only_an_id_that_a_shell_takes_as_it_stands_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["t-1", "a b", "x;$(touch gone)", "*", "-rf", "n\nt-2", "t:3"]
    file = tmp_path / "trades.json"
    file.write_text(json.dumps([{"id": i, "ticker": "AAPL", "status": "OPEN", "quantity": 1} for i in ids]))
    for name, value in {"LEDGER": f"file:{file}", "STATE": f"sqlite:{tmp_path}/state.db"}.items():
        monkeypatch.setenv(f"GHOSTCLEAN_{name}", value)
    monkeypatch.chdir(tmp_path)

    assert complete_trades("") == ["t-1", "t:3"]
    assert complete_trades("t:") == ["t:3"]
