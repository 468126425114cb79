"""Prints a table, today's figures beside the bars: `python -m tests.bench [--big] [--rows NAME…]`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import redis

from tests.bench.big import KEY, Big, hash_ledger
from tests.bench.canned import canned_broker, order_id, synced
from tests.bench.fleet import fleet
from tests.bench.measure import ROOT, Pair, paired, seconds
from tests.bench.sql import postgres, sqlite
from tests.bench.worlds import NOW, Record, final_record, ghosts, live_trades, record, save, settings
from tests.fakebroker import FakeBroker
from tests.servers import redis_server

PYTHON = sys.executable
PROGRAM = (PYTHON, "-c", "import sys; from ghostclean.cli import main; sys.exit(main())")
STORES = "typer, redis, pydantic"
LATENCY = 0.05

Figures = Iterator[tuple[str, str, str, bool]]  # what, figure, bar, held


@dataclass(frozen=True)
class Setup:
    """How often pairs are measured, and the folder that all rows may use."""

    pairs: int
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}

    def against(self, modules: str, *arguments: str, **variables: str) -> Pair:
        """The program against a Python that only imports these modules."""
        environment = self.environment | variables
        return paired(
            lambda: seconds([*PROGRAM, *arguments], environment),
            lambda: seconds([PYTHON, "-c", f"import {modules}"], environment),
            self.pairs,
        )


def _ratio(what: str, pair: Pair, bar: float) -> tuple[str, str, str, bool]:
    return what, str(pair), f"≤ {bar}", pair.ratio <= bar


# --------------------------------------------------------------------------- start-up


def start(setup: Setup) -> Figures:
    """Version and help against bare imports."""
    yield _ratio("--version / import typer", setup.against("typer", "--version"), 1.3)
    yield _ratio("--help / import typer, rich", setup.against("typer, rich", "--help"), 1.3)
    yield _ratio("reconcile --help / import typer, rich", setup.against("typer, rich", "reconcile", "--help"), 1.3)


def status(setup: Setup) -> Figures:
    """`status --json` on a Redis with telemetry and 100 trades."""
    with redis_server() as url, FakeBroker(now=NOW) as broker:
        with redis.Redis.from_url(url) as client:
            client.set(KEY, json.dumps(live_trades(broker, 100)))
        variables = settings(broker, setup.folder, url, url) | {"REDIS_URL": url, "GHOSTCLEAN_LEDGER_KEY": KEY}
        for _ in range(5):
            seconds([*PROGRAM, "reconcile"], setup.environment | variables)
        pair = setup.against(STORES, "status", "--json", **variables)
    yield _ratio(f"status --json / import {STORES}", pair, 1.3)


def reconcile(setup: Setup) -> Figures:
    """`reconcile --json` with ten synced trades."""
    with redis_server() as url, FakeBroker(now=NOW) as broker:
        broker.quirks.rate_limit = 100_000
        with redis.Redis.from_url(url) as client:
            client.set(KEY, json.dumps(live_trades(broker, 10)))
        variables = settings(broker, setup.folder, url, url) | {"REDIS_URL": url, "GHOSTCLEAN_LEDGER_KEY": KEY}
        pair = setup.against(f"{STORES}, requests, alpaca.common.rest", "reconcile", "--json", **variables)
    yield _ratio("reconcile --json, 10 trades / its imports", pair, 1.4)


# --------------------------------------------------------------------------- requests and latency


@contextlib.contextmanager
def _fresh(setup: Setup, name: str) -> Iterator[tuple[FakeBroker, Path]]:
    folder = setup.folder / name
    folder.mkdir()
    with FakeBroker(now=NOW) as broker:
        broker.quirks.rate_limit = 100_000
        yield broker, folder


def _requests(setup: Setup, broker: FakeBroker, folder: Path) -> int:
    broker.reset_log()
    seconds([*PROGRAM, "reconcile", "--json"], setup.environment | settings(broker, folder))
    return len(broker.requests)


def requests(setup: Setup) -> Figures:
    """Requests, which no machine changes; the suite holds them too."""
    with _fresh(setup, "live") as (broker, folder):
        save(folder, live_trades(broker, 500, protected=100))
        first, quiet = (_requests(setup, broker, folder) for _ in range(2))
    yield "requests, 500 live trades seen first", str(first), "≤ 8", first <= 8
    yield "requests, quiet run, 500 live, 100 working", str(quiet), "3", quiet == 3
    for kind in ("bracket", "hand", "stop"):
        with _fresh(setup, f"ghosts-{kind}") as (broker, folder):
            save(folder, ghosts(broker, 100, kind))
            asked = _requests(setup, broker, folder)
        yield f"requests, 100 ghosts, sold by {kind}", str(asked), "≤ 15", asked <= 15


def latency(setup: Setup) -> Figures:
    """500 live trades at 50 ms a request, from the first request to the end of the program, against four requests."""
    with _fresh(setup, "latency") as (broker, folder):
        save(folder, live_trades(broker, 500, protected=100, bracket=True))
        environment = setup.environment | settings(broker, folder)
        command = [*PROGRAM, "reconcile", "--json"]
        trips = [PYTHON, "-m", "tests.bench.scripts", "trips"]
        asked: list[float] = []
        broker.before_request(lambda _: asked.append(perf_counter()))

        def since_asking(command: list[str]) -> float:
            asked.clear()
            seconds(command, environment)
            return perf_counter() - asked[0]

        def first() -> float:
            for file in folder.glob("state.db*"):
                file.unlink()
            return since_asking(command)

        broker.fault("*", "delay", seconds=LATENCY)
        seconds(command, environment)
        for what, run in (("quiet", partial(since_asking, command)), ("first", first)):
            pair = paired(run, partial(since_asking, trips), setup.pairs)
            yield _ratio(f"500 live at 50 ms, {what} run after its start-up / 4 round trips", pair, 1.0)


def scripts(setup: Setup) -> Figures:
    """A quiet run against scripts that ask once a trade: 500 trades, no latency, then 50 with it."""
    for count, delay in ((500, 0.0), (50, LATENCY)):
        with _fresh(setup, f"scripts-{count}") as (broker, folder):
            trades = live_trades(broker, count)
            save(folder, trades)
            environment = setup.environment | settings(broker, folder)
            other = folder / "other.json"
            other.write_text(json.dumps(trades))
            if delay:
                broker.fault("*", "delay", seconds=delay)
            ours = [*PROGRAM, "reconcile", "--json"]
            for kind in ("sdk", "requests"):
                script = [PYTHON, "-m", "tests.bench.scripts", kind, str(other)]
                pair = paired(partial(seconds, ours, environment), partial(seconds, script, environment), 3)
                what = f"reconcile / script on {kind}, one request a trade, {count} trades, {delay * 1000:.0f} ms"
                yield _ratio(what, pair, 1.0)


# --------------------------------------------------------------------------- big ledgers


def _open_record(number: int) -> Record:
    return record(number, {"id": order_id(number)})


def _string_ledger(big: Big, total: int, live: int, make: Callable[[int], Record]) -> None:
    rows = [final_record(n) if n >= live else make(n) for n in range(total)]
    big.client.set(KEY, json.dumps(rows, separators=(",", ":")))


def string(setup: Setup) -> Figures:
    """100,000 trades in a Redis string, a tenth of them open; and a tenth and a hundredth of that."""
    costs: dict[int, float] = {}
    with redis_server() as url:
        for total in (1_000, 10_000, 100_000):
            with canned_broker(total // 10) as broker:
                big = Big(setup.environment, url, broker, BENCH_STRING="1")
                _string_ledger(big, total, total // 10, synced)
                big.remember(total // 10)
                runs = [big.run(BENCH_MAX="10000") for _ in range(3)]
                decide = median(max(run["decide"]) for run in runs)
                costs[total] = decide
                if total < 100_000:
                    continue
                peak = max(run["peak_mb"] for run in runs)
                yield "decide, 100,000 trades, 10,000 open, CPU", f"{decide:.2f} s", "≤ 1.0 s", decide <= 1.0
                yield "memory of that run (Redis string)", f"{peak:.0f} MB", "≤ 500 MB", peak <= 500
                yield _own("string, quiet run / GET, parse, SET", [big.run() for _ in range(3)])
                _string_ledger(big, total, total // 10, _open_record)
                big.run()
                yield _own("string, run that syncs 500 / GET, parse, SET", [big.run() for _ in range(3)])
    growth = costs[100_000] / costs[10_000] / 10
    yield "decide, cost a trade, 100,000 / 10,000", f"{growth:.2f}", "~1 (linear)", growth <= 1.4
    growth = costs[10_000] / costs[1_000] / 10
    yield "decide, cost a trade, 10,000 / 1,000", f"{growth:.2f}", "~1 (linear)", growth <= 1.4


def _own(what: str, runs: list[dict[str, Any]]) -> tuple[str, str, str, bool]:
    ratio = median(run["own"] / run["baseline"] for run in runs)
    own, base = (median(run[name] for run in runs) for name in ("own", "baseline"))
    figure = f"{ratio:.2f} ({own:.2f} / {base:.2f} s; {runs[-1]['synced']} synced, {runs[-1]['peak_mb']:.0f} MB)"
    return what, figure, "≤ 4", ratio <= 4


def hashed(setup: Setup) -> Figures:
    """1,000,000 trades in a Redis hash, 1,000 open, with and without the app's index."""
    scanned: dict[int, list[dict[str, Any]]] = {}
    indexed: dict[int, list[dict[str, Any]]] = {}
    live = 1_000
    with redis_server() as url, canned_broker(live) as broker:
        for total in (10_000, 100_000, 1_000_000):
            big = Big(setup.environment, url, broker)
            hash_ledger(big, total, live)
            big.remember(live)
            big.run(BENCH_MAX="1000")
            scanned[total] = [big.run(BENCH_MAX="1000") for _ in range(1 if total == 1_000_000 else 3)]
            big.client.sadd(f"{KEY}:open", *(f"trade-{n:07d}" for n in range(live)))
            big.run(BENCH_MAX="1000")
            indexed[total] = [big.run(BENCH_MAX="1000") for _ in range(3)]
    whole = {total: median(run["own"] for run in runs) for total, runs in scanned.items()}
    growth = (whole[1_000_000] - whole[10_000]) / (whole[100_000] - whole[10_000]) / 11
    what = f"hash of 1,000,000, whole scan ({whole[1_000_000]:.1f} s), cost a trade / that of 100,000"
    yield what, f"{growth:.2f}", "~1 (linear)", growth <= 1.3
    peak = max(run["peak_mb"] for run in scanned[1_000_000])
    yield "memory of that run", f"{peak:.0f} MB", "≤ 300 MB", peak <= 300
    small, large = (median(run["own"] for run in indexed[total]) for total in (10_000, 1_000_000))
    figure = f"{large / small:.2f} ({large:.2f} / {small:.2f} s)"
    yield "hash with index, 1,000,000 / 10,000 trades", figure, "≤ 1.5", large / small <= 1.5


# --------------------------------------------------------------------------- the table

ROWS: dict[str, Callable[[Setup], Figures]] = {
    "start": start,
    "status": status,
    "reconcile": reconcile,
    "requests": requests,
    "latency": latency,
    "scripts": scripts,
    "string": string,
    "hash": hashed,
    "sqlite": sqlite,
    "postgres": postgres,
    "fleet": fleet,
}
BIG = ("string", "hash", "sqlite", "postgres", "fleet")


def main() -> int:
    """Measures and prints; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="only these")
    parser.add_argument("--big", action="store_true", help="also the ledgers of 100,000 and 1,000,000 trades")
    parser.add_argument("--pairs", type=int, default=9, help="pairs a ratio (9)")
    chosen = parser.parse_args()
    names = chosen.rows or [name for name in ROWS if chosen.big or name not in BIG]
    missed = 0
    print("| what | today | bar | |\n|---|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="ghostclean-bench-") as folder:
            for what, figure, bar, held in ROWS[name](Setup(chosen.pairs, Path(folder))):
                missed += not held
                print(f"| {what} | {figure} | {bar} | {'ok' if held else '**missed**'} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
