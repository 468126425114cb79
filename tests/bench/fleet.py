"""A thousand accounts of 200 live trades each: one process family, then RQ workers."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench.canned import canned_broker, synced
from tests.bench.measure import ROOT
from tests.servers import redis_server

ACCOUNTS = int(os.environ.get("BENCH_ACCOUNTS", "1000"))
QUEUED = min(ACCOUNTS, 60)
TRADES = 200
LATENCY = 0.05
PROGRAM = (sys.executable, "-c", "import sys; from ghostclean.cli import main; sys.exit(main())", "fleet")
BURST = (str(Path(sys.executable).parent / "rq"), "worker", "ghostclean", "--burst", "--quiet")


def fleet(setup: Any) -> Iterator[tuple[str, str, str, bool]]:
    """Rates hold only on a machine with nothing else to do; the processor time of an account says more.

    The broker's canned answers take 2 ms of processor an account, which the figures leave in.
    """
    folder, env = setup.folder, setup.environment
    with canned_broker(TRADES, LATENCY) as broker, redis_server() as queue:
        _write(folder, broker)
        command = [*PROGRAM, str(folder / "accounts"), "reconcile"]
        _watched([*command, "--quiet"], env)
        wall, cpu, memory = _watched([*command, "--json"], env)
        rate = ACCOUNTS / wall
        figure = f"{rate:.1f} a second, {cpu / ACCOUNTS * 1000:.0f} ms of processor each"
        yield f"fleet, {ACCOUNTS} accounts, {TRADES} live trades each, at 50 ms", figure, "≥ 20 a second", rate >= 20
        yield "memory of that run, all processes", f"{memory:.0f} MB", "≤ 400 MB", memory <= 400
        one, two = (_worked_off([*command, "--queue", queue], env | {"RQ_REDIS_URL": queue}, n) for n in (1, 2))
        yield "two workers / one", f"{one / two:.2f} ({one:.1f} / {two:.1f} s)", "≥ 1.7", one / two >= 1.7


def _write(folder: Path, broker: str) -> None:
    trades = json.dumps([synced(number) for number in range(TRADES)])
    for name in ("accounts", "ledgers"):
        (folder / name).mkdir()
    for number in range(ACCOUNTS):
        (folder / "ledgers" / f"{number}.json").write_text(trades)
        lines = {
            "ALPACA_API_KEY": f"key-{number}",
            "ALPACA_SECRET_KEY": f"secret-{number}",
            "GHOSTCLEAN_TRADING_URL": broker,
            "GHOSTCLEAN_DATA_URL": broker,
            "GHOSTCLEAN_LEDGER": f"file:{folder}/ledgers/{number}.json",
            "GHOSTCLEAN_STATE": f"sqlite:{folder}/ledgers/{number}.db",
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        (folder / "accounts" / f"{number:04}.env").write_text(text)


def _watched(command: list[str], env: Mapping[str, str]) -> tuple[float, float, float]:
    """Seconds of wall, seconds of processor, and the most memory that the processes had together, in MB."""
    before, began, most = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0.0
    with subprocess.Popen(command, env=dict(env), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pipes = process.stdout, process.stderr
        said: list[bytes] = []
        readers = [threading.Thread(target=lambda pipe=pipe: said.append(pipe.read())) for pipe in pipes if pipe]
        for reader in readers:
            reader.start()
        while process.poll() is None:
            most = max(most, _memory(process.pid))
            time.sleep(0.2)
        for reader in readers:
            reader.join()
    wall = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}: {b''.join(said)[-800:]!r}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, most


def _memory(pid: int) -> float:
    """Of a process and its children; pages that they share count in parts."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
    return own + sum(_memory(int(child)) for child in children)


def _worked_off(command: list[str], env: Mapping[str, str], workers: int) -> float:
    """Seconds until so many workers have emptied the queue."""
    only = [word for number in range(QUEUED) for word in ("--only", f"{number:04}")]
    subprocess.run([*command, *only], env=dict(env), cwd=ROOT, check=True, capture_output=True)
    began = time.perf_counter()
    running = [subprocess.Popen(BURST, env=dict(env), cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(workers)]
    for worker in running:
        worker.wait()
    return time.perf_counter() - began
