"""What an operator wants to know first: is it healthy, since when, and what to do next.

*Broken*: the last counted run failed. *Stale*: no success for two intervals. Else *healthy*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.parts import Stores
from ghostclean.app.ports import Ledger, LedgerView, Record, Telemetry
from ghostclean.core.broker import BrokerTruth, iso, parse_time, symbol_key
from ghostclean.core.ledger import is_open, is_pending, other_account, text
from ghostclean.durations import spell
from ghostclean.errors import LedgerFailed

from .gate import Gate, entries

_CURES = {
    "broker_truth_failed": "check the keys and Alpaca's status, then `ghostclean doctor`",
    "ledger_failed": "check the ledger with `ghostclean doctor`",
    "state_failed": "check the state with `ghostclean doctor`",
    "account_mismatch": "check which account the keys belong to; `ghostclean doctor --pin` accepts the present one",
    "mass_close_stopped": "look at `ghostclean reconcile --dry-run`; --allow-mass-close if every close is right",
    "deadline_exceeded": "the next run goes on where this one stopped; raise --deadline if it repeats",
}

_RUNS_FOR_HEALTH = 100  # as many as are kept

# Fields of the summaries that stay text even when they look like a number (a run id may).
_TEXTS = frozenset({"lastRunAt", "lastOk", "lastSource", "lastRunId", "lastOutcome", "lastReason"})


@dataclass(frozen=True, slots=True)
class Health:
    """`healthy`, `stale` or `broken`, why, and the next step."""

    word: str
    why: str
    advice: str
    last_success: datetime | None


def judge_health(telemetry: Telemetry, now: datetime, interval: timedelta) -> Health:
    """Healthy, stale or broken, from the summary and the newest runs."""
    last_success = _last_success(telemetry)
    if telemetry.summary.get("lastOk") == "false":
        failed = next((run for run in telemetry.runs if _counted(run) and not run.get("ok")), {})
        error = str(failed.get("error") or "reconcile_failed")
        return Health(
            "broken", f"the last run failed: {error}", _CURES.get(error, "see `ghostclean doctor`"), last_success
        )
    if last_success is None:
        return Health("stale", "no run has succeeded yet", "run `ghostclean reconcile`, then schedule it", None)
    age = now - last_success
    if age > 2 * interval:
        why = f"the last success was {_ago(age)} ago, expected every {spell(interval.total_seconds())}"
        return Health("stale", why, "check that the schedule still runs (`ghostclean schedule cron`)", last_success)
    return Health("healthy", f"the last success was {_ago(age)} ago", "nothing to do", last_success)


def _ago(age: timedelta) -> str:
    """In whole seconds at least: nobody waits for milliseconds here."""
    return spell(max(1, round(age.total_seconds())))


def _counted(run: Mapping[str, Any]) -> bool:
    return not run.get("dryRun") and run.get("error") != "locked"


def _last_success(telemetry: Telemetry) -> datetime | None:
    if telemetry.summary.get("lastOk") == "true":
        return parse_time(telemetry.summary.get("lastRunAt"))
    times = (parse_time(run.get("ts")) for run in telemetry.runs if run.get("ok") and _counted(run))
    return next((t for t in times if t is not None), None)


def status_document(
    stores: Stores,
    *,
    now: datetime,
    interval: timedelta,
    limit: int,
    look: Callable[[], tuple[BrokerTruth | None, Gate]] | None = None,
    live: bool = False,
) -> dict[str, Any]:
    """The document of `status --json`; raises StateFailed, other failures stand inside it.

    `look` reads the broker; without it the document says nothing of the broker and the gate.
    """
    state = stores.state
    known = state.telemetry("reconcile", max(limit, _RUNS_FOR_HEALTH))
    health = judge_health(known, now, interval)  # whatever the limit: dry runs may hide the counted ones
    manage = state.telemetry("auto-manage", limit)
    lock = state.lock_info()
    view, error, detail = _read(stores.ledger)
    truth, gate = look() if look else (None, None)
    if gate is not None and gate.allowed is None and error is None:
        error, detail = "broker_truth_failed", gate.reason
    return {
        "ok": error is None,
        "now": iso(now),
        "health": health.word,
        "why": health.why,
        "advice": health.advice,
        "lastSuccessAt": iso(health.last_success) if health.last_success else None,
        "reconcileTelemetry": telemetry_document(Telemetry(known.summary, known.runs[:limit])),
        "autoManageTelemetry": telemetry_document(manage),
        "ledger": None if view is None else ledger_counts(view),
        "broker": None if truth is None else compare(truth, view, live=live),
        "entryState": None if gate is None else gate.entry_state(),
        "lock": None if lock is None else {"holder": lock.holder, "secondsLeft": round(lock.seconds_left, 1)},
        "spooled": stores.spool.waiting(),
        "places": {"ledger": stores.ledger.place, "state": state.place},
        "error": error,
        "detail": detail,
    }


def _read(ledger: Ledger) -> tuple[LedgerView | None, str | None, str | None]:
    """The ledger, or the error that hides it."""
    try:
        return ledger.read(), None, None
    except LedgerFailed as failure:
        return None, failure.code, str(failure)


def telemetry_document(telemetry: Telemetry) -> dict[str, Any]:
    """Summary with numbers as numbers (`lastOk` stays the string that the hash holds), and runs."""
    summary = {name: _number_or_text(name, value) for name, value in telemetry.summary.items()}
    return {"summary": summary, "runs": [dict(run) for run in telemetry.runs]}


def _number_or_text(name: str, value: str) -> int | str:
    if name in _TEXTS or not (value.isascii() and value.isdecimal() and len(value) < 16):
        return value
    return int(value)


def ledger_counts(view: LedgerView) -> dict[str, Any]:
    """Open and pending trades, and when the oldest open one was opened."""
    open_trades = [record for record in view.active if is_open(record)]
    openings = [moment for moment in map(_opening, open_trades) if moment is not None]
    return {
        "open": len(open_trades),
        "pending": sum(1 for record in view.active if is_pending(record)),
        "oldestOpenAt": iso(min(openings)) if openings else None,
        "total": view.total,
        "strangers": len(view.strangers),
    }


def _opening(record: Record) -> datetime | None:
    times = (parse_time(record.get(name)) for name in ("executedAt", "openedAt", "createdAt"))
    return next((moment for moment in times if moment is not None), None)


def compare(truth: BrokerTruth, view: LedgerView | None, *, live: bool) -> dict[str, Any]:
    """Broker truth against the ledger by symbol, both ways.

    A working entry stands for its trade; an exit order does not: a ghost may have left one behind.
    A ledger that could not be read leaves both lists empty.
    """
    active = view.active if view is not None else ()
    opened, waiting = _symbols(r for r in active if other_account(r, truth.account, live=live) is None)
    held, unread = {position.key: position for position in truth.positions.rows}, truth.positions.unread
    working = {symbol_key(symbol) for symbol in entries(truth.orders, held)}
    only_there = [p.symbol for key, p in held.items() if view and key not in opened and key not in waiting]
    only_there += {u.name for u in unread if view and u.key not in opened and u.key not in waiting}
    absent = (key for key in opened if key not in held and key not in working)
    only_here = [opened[key] for key in absent if truth.positions.why_unobserved(key) is None]
    return {
        "positionsCount": len(truth.positions),
        "openOrdersCount": len(truth.orders),
        "onlyAtBroker": sorted(only_there),
        "onlyInLedger": sorted(only_here),
        **({"notObserved": sorted({u.name for u in unread})} if unread else {}),
    }


def _symbols(records: Iterable[Record]) -> tuple[dict[str, str], set[str]]:
    """The symbols of the open trades as the ledger writes them, by key, and the keys of the pending ones."""
    opened: dict[str, str] = {}
    waiting: set[str] = set()
    for record in records:
        symbol = text(record, "ticker", "symbol")
        if symbol and is_open(record):
            opened[symbol_key(symbol)] = symbol
        elif symbol and is_pending(record):
            waiting.add(symbol_key(symbol))
    return opened, waiting


def unread_document(detail: str, *, now: datetime) -> dict[str, Any]:
    """The same document when not even the state could be asked: what is not known is null."""
    unread: dict[str, Any] = {"summary": {}, "runs": []}
    unknown = dict.fromkeys(("lastSuccessAt", "ledger", "broker", "entryState", "lock", "places"))
    return {
        "now": iso(now),
        "health": "unknown",
        "why": detail,
        "advice": "see `ghostclean doctor`",
        "reconcileTelemetry": unread,
        "autoManageTelemetry": unread,
        "spooled": 0,
        **unknown,
    }
