"""One run seen from inside its process: `python -m tests.bench.inside`, variables as for the program.

Prints JSON: seconds of the run without start-up and without waiting for the broker, CPU seconds
of each `decide`, peak memory, and with a Redis string the time a plain script needs to get,
parse and set it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from typing import Any

import ghostclean.app.observation as observation
import ghostclean.wiring as wiring
from ghostclean.adapters.alpaca_transport import AlpacaTransport
from ghostclean.settings import Settings

waited: list[float] = []
decided: list[float] = []


def _watched_exchange(self: AlpacaTransport, *asked: Any, original: Any = AlpacaTransport._exchange) -> Any:
    start = time.perf_counter()
    try:
        return original(self, *asked)
    finally:
        waited.append(time.perf_counter() - start)


def _watched_decide(world: Any, original: Any = observation.decide) -> Any:
    start = time.process_time()
    plan = original(world)
    decided.append(time.process_time() - start)
    return plan


def _plain_script(url: str, key: str) -> float:
    """GET, parse with the fastest library, SET it back."""
    import orjson
    import redis

    client = redis.Redis.from_url(url)
    client.ping()
    start = time.perf_counter()
    client.set(key, orjson.dumps(orjson.loads(client.get(key))))
    return time.perf_counter() - start


def main() -> None:
    gc.set_threshold(500_000, 50, 50)  # as the program does
    AlpacaTransport._exchange = _watched_exchange  # type: ignore[method-assign]
    observation.decide = _watched_decide
    settings = Settings.load()
    import ghostclean.adapters.alpaca
    import ghostclean.app.journal
    import ghostclean.app.reconcile  # noqa: F401 - start-up is not what is measured here

    wiring.stores(settings)
    url, key = os.environ.get("REDIS_URL"), os.environ.get("GHOSTCLEAN_LEDGER_KEY", "")
    start = time.perf_counter()
    result = wiring.reconcile(settings=settings, max=int(os.environ.get("BENCH_MAX", "500")), deadline=600)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    baseline = _plain_script(url, key) if url and os.environ.get("BENCH_STRING") else None
    json.dump(
        {
            "seconds": seconds,
            "own": seconds - sum(waited),
            "decide": decided,
            "peak_mb": peak,
            "baseline": baseline,
            "checked": result.checked,
            "synced": result.synced,
            "closed": result.closed,
            "error": result.error,
            "detail": result.detail,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
