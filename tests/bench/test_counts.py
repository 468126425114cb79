"""What no machine changes: which modules a command loads, how many requests a run makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ghostclean import reconcile
from ghostclean.result import Result
from tests.bench.worlds import NOW, Record, ghosts, live_trades, save, settings
from tests.fakebroker import FakeBroker
from tests.program import ROOT
from tests.servers import redis_server

LOADED = """
import sys
from ghostclean.cli import main
code = main(sys.argv[1:])
print("\\nLOADED", *sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def loaded(*arguments: str, **variables: str) -> set[str]:
    """The modules that are loaded when the command has ended well."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    run = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stderr.rsplit("LOADED", 1)[1].split())


def test_status_loads_nothing_that_talks_to_a_broker_or_draws(tmp_path: Path) -> None:
    with redis_server() as url:
        modules = loaded("status", "--json", HOME=str(tmp_path), REDIS_URL=url)
    assert "redis" in modules
    assert not modules & {"requests", "alpaca", "rich", "pandas", "sqlite3"}


def test_reconcile_loads_no_pandas_and_no_rich(tmp_path: Path) -> None:
    with FakeBroker(now=NOW) as broker:
        save(tmp_path, live_trades(broker, 1))
        modules = loaded("reconcile", "--json", HOME=str(tmp_path), **settings(broker, tmp_path))
    assert "alpaca.common.rest" in modules
    assert not modules & {"pandas", "numpy", "rich", "alpaca.trading", "alpaca.data", "redis"}


# --------------------------------------------------------------------------- requests


def counted(broker: FakeBroker, folder: Path) -> tuple[Result, int]:
    """One run, and how many requests it made."""
    broker.reset_log()
    result = reconcile(settings=settings(broker, folder))
    assert result.error is None, result.detail
    return result, len(broker.requests)


def known_account(broker: FakeBroker, folder: Path, records: list[Record]) -> None:
    save(folder, records)
    broker.quirks.rate_limit = 100_000


@pytest.mark.parametrize("bracket", [False, True], ids=["stops", "brackets"])
@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
def test_500_live_trades(tmp_path: Path, *, bracket: bool, hidden: bool) -> None:
    with FakeBroker(now=NOW) as broker:
        broker.quirks.hide_legs = hidden
        # A bracket shows two working legs, or its target alone: 100 working orders in every case
        protected = 50 if bracket and not hidden else 100
        known_account(broker, tmp_path, live_trades(broker, 500, protected=protected, bracket=bracket))
        first, requests = counted(broker, tmp_path)
        assert first.synced == 500
        assert requests <= 3 + 5
        quiet, _ = counted(broker, tmp_path)
        assert quiet.broker is not None
        assert quiet.broker["openOrdersCount"] == 100
        assert (quiet.synced, quiet.closed, quiet.checked) == (0, 0, 500)
        assert [request.label for request in broker.requests] == ["account", "orders", "positions"]


@pytest.mark.parametrize("kind", ["bracket", "hand", "stop"])
@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
def test_100_ghosts(tmp_path: Path, kind: str, *, hidden: bool) -> None:
    with FakeBroker(now=NOW) as broker:
        broker.quirks.hide_legs = hidden
        known_account(broker, tmp_path, ghosts(broker, 100, kind))
        result, requests = counted(broker, tmp_path)
        assert result.closed == 100
        assert requests <= 3 + 12


@pytest.mark.parametrize("field", ["clientOrderId", "alpacaOrderId"])
def test_100_ghosts_known_by_client_order_ids(tmp_path: Path, field: str) -> None:
    with FakeBroker(now=NOW) as broker:
        records = ghosts(broker, 100, "hand")
        for number, row in enumerate(records):
            order = broker.order(row.pop("alpacaOrderId"))
            order["client_order_id"] = row[field] = f"bot-{number}"
        known_account(broker, tmp_path, records)
        result, requests = counted(broker, tmp_path)
        assert result.closed == 100
        assert requests <= 3 + 12


def test_100_ghosts_of_every_kind_among_500_live_trades(tmp_path: Path) -> None:
    with FakeBroker(now=NOW) as broker:
        records = live_trades(broker, 400, protected=50, bracket=True)
        for at, kind in ((500, "bracket"), (540, "hand"), (570, "stop")):
            records += ghosts(broker, {500: 40}.get(at, 30), kind, start=at)
        known_account(broker, tmp_path, records)
        result, requests = counted(broker, tmp_path)
        assert result.closed == 100
        assert requests <= 3 + 12
