"""An installation for tests of auto-manage: fake broker over HTTP, real adapters, file ledger, sqlite state."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from ghostclean.adapters.alpaca import AlpacaBroker
from ghostclean.adapters.ledgers.file import FileLedger
from ghostclean.adapters.spool import FolderSpool
from ghostclean.adapters.state.sqlite import SqliteState
from ghostclean.app.auto_manage import ManageOptions, run_auto_manage
from ghostclean.app.deadline import Deadline
from ghostclean.app.observation import observe_for_orders
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import Lease
from ghostclean.app.reconcile import run_reconcile
from ghostclean.core.broker import client_id
from ghostclean.core.inputs import Policy
from ghostclean.core.ledger import read_trade
from ghostclean.core.protection import ManagePolicy
from ghostclean.result import ManageResult, Result
from tests.fakebroker import FakeBroker

NOON = "2026-11-18T17:00:00Z"  # a Wednesday, 12:00 in New York
YESTERDAY = "2026-11-17T15:00:00Z"


class Office:
    """One installation: its broker, its files, and runs on demand."""

    def __init__(self, broker: FakeBroker, folder: Path) -> None:
        self.fake = broker
        self.path = folder / "trades.json"
        self.folder = folder
        self.path.write_text("[]")
        self.trades: list[dict[str, Any]] = []
        self.runs = 0
        self.slept = 0.0

    # ------------------------------------------------------------------ the world

    def trade(
        self, name: str, symbol: str, qty: float, price: float, *, stop: float | None = None, **more: Any
    ) -> dict[str, Any]:
        """A filled entry at the broker and its open record; `stop` is the ledger's, not an order."""
        short = more.pop("side", "LONG") == "SHORT"
        bracket = more.pop("bracket", None)
        entry = self.fake.open_trade(symbol, qty, price, at=YESTERDAY, side="sell" if short else "buy", bracket=bracket)
        record = {
            "id": name,
            "ticker": symbol,
            "side": "SHORT" if short else "LONG",
            "status": "OPEN",
            "quantity": qty,
            "entryPrice": price,
            "stopPrice": stop,
            "alpacaOrderId": entry["id"],
            "createdAt": YESTERDAY,
            "openedAt": YESTERDAY,
            **more,
        }
        self.put(record)
        return entry

    def put(self, record: dict[str, Any]) -> None:
        records = [r for r in self.records() if r["id"] != record["id"]]
        self.path.write_text(json.dumps([*records, record]))

    def edit(self, name: str, **fields: Any) -> None:
        self.put(self.record(name) | fields)

    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.path.read_text())
        return found

    def record(self, name: str) -> dict[str, Any]:
        return next(r for r in self.records() if r["id"] == name)

    def client_id(self, name: str, purpose: str, n: int) -> str:
        """The client order id of the n-th order of that trade and purpose."""
        return client_id(read_trade(self.record(name)).owner, purpose, n)

    def stop_order(self, symbol: str, qty: float, price: float, side: str = "sell", **more: Any) -> dict[str, Any]:
        """A working stop at the broker, as the app would have sent it yesterday."""
        body = {"side": side, "qty": qty, "type": "stop", "stop_price": price, "time_in_force": "gtc", "status": "new"}
        return self.fake.add_order(symbol, YESTERDAY, **body | more)

    def limit_order(self, symbol: str, qty: float, price: float, **more: Any) -> dict[str, Any]:
        """A working limit order, good till cancelled: a resting target unless it buys."""
        body = {"side": "sell", "qty": qty, "type": "limit", "limit_price": price, "time_in_force": "gtc"}
        return self.fake.add_order(symbol, YESTERDAY, **body | {"status": "new"} | more)

    def stops(self, symbol: str) -> list[tuple[str, str]]:
        """Working closing stops: quantity and price."""
        working = [o for o in self.fake.working(symbol) if o["type"] in ("stop", "stop_limit")]
        return [(o["qty"], o["stop_price"]) for o in working]

    # ------------------------------------------------------------------ running

    def run(
        self, *, dry_run: bool = False, force: bool = False, seconds: float = 60, reconcile: bool = True, **manage: Any
    ) -> ManageResult:
        """One auto-manage run, enabled unless said otherwise."""
        self.runs += 1
        deadline = Deadline(seconds)
        turn = [deadline]
        state = SqliteState(self.folder / "state.db", ledger_place="test")
        broker = AlpacaBroker.connect(
            trading_url=self.fake.url,
            data_url=self.fake.url,
            api_key="key",
            secret_key="secret",
            live=False,
            time_left=lambda: turn[0].left_for_reading() or turn[0].left(),
            sleep=lambda seconds: None,
        )
        parts = Parts(
            FileLedger(self.path),
            state,
            FolderSpool(self.folder / "spool", ledger_place="test"),
            broker,
            pause=self.pause,
        )
        policy = Policy()

        def reconcile_first(lease: Lease | None) -> Result:
            if not reconcile:
                return Result("r", "auto-manage", "", 0)
            options = Options(f"run-{self.runs}-reconcile", "auto-manage", Deadline(10), policy, dry_run)
            return run_reconcile(parts, options, lease=lease)

        options = ManageOptions(
            f"run-{self.runs}",
            "test",
            deadline,
            ManagePolicy(**{"enabled": True, **manage}),
            timedelta(seconds=120),
            dry_run,
            force,
            lock_wait=1.0,
        )
        try:
            return run_auto_manage(
                parts,
                options,
                reconcile_first=reconcile_first,
                observe=lambda: observe_for_orders(parts, deadline, policy),
            )
        finally:
            state.close()

    def pause(self, seconds: float) -> None:
        """Waiting passes the broker's time instead of ours."""
        self.slept += seconds
        self.fake.advance(seconds)

    def free_lock(self) -> None:
        """The lock of a killed run has expired."""
        with closing(sqlite3.connect(self.folder / "state.db")) as db, db:
            db.execute("UPDATE lock SET token = NULL, expires = 0")

    def state(self) -> SqliteState:
        state = SqliteState(self.folder / "state.db", ledger_place="test")
        state.open()
        return state
