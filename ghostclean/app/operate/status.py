"""What an operator wants to know first: is it healthy, since when, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app.parts import Stores
from ghostclean.app.ports import FAILING, KnownLedger, Ledger, LedgerView, Record, Telemetry
from ghostclean.core import attention
from ghostclean.core.attention import Needs
from ghostclean.core.broker import BrokerTruth, iso, parse_time, symbol_key
from ghostclean.core.health import WORST_FIRST, Failing, Health, judge
from ghostclean.core.ledger import is_open, is_pending, other_account, text
from ghostclean.errors import LedgerFailed

from .gate import Gate, entries

# Fields of the summaries that stay text even when they look like a number (a run id may).
_TEXTS = frozenset(
    {"lastRunAt", "lastSuccessAt", "lastOk", "lastError", "lastSource", "lastRunId", "lastOutcome", "lastReason"}
)
_COUNTED = ("runs", "success", "fail", "totalClosed", "totalSynced", "lastRunAt", "lastRunId")


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
    known = state.telemetry("reconcile", limit)
    items = attention.recall(state.recall("attention"))
    failing = Failing.parse(state.recall(FAILING, ["reconcile"]).get("reconcile"))
    health = judge(known.summary, Needs.of(items), now, interval, failing)
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
        "runsHealth": judge(known.summary, Needs(), now, interval).word,
        "attention": [item.to_dict() for item in items],
        "lastSuccessAt": iso(health.last_success) if health.last_success else None,
        "reconcileTelemetry": telemetry_document(known),
        "autoManageTelemetry": telemetry_document(manage),
        "ledger": None if view is None else {"name": stores.ledger.place, **ledger_counts(view)},
        "broker": None if truth is None else compare(truth, view, live=live),
        "entryState": None if gate is None else gate.entry_state(),
        "lock": None if lock is None else {"holder": lock.holder, "secondsLeft": round(lock.seconds_left, 1)},
        "spooled": stores.spool.waiting(),
        "places": {"ledger": stores.ledger.place, "state": state.place},
        "error": error,
        "detail": detail,
    }


def ledgers_document(stores: Stores, *, now: datetime, interval: timedelta) -> dict[str, Any]:
    """The document of `status --all --json`: every ledger of the state, the worst first; raises StateFailed."""
    present: dict[str, Any] = {"ledger": stores.ledger.place, "interval": interval.total_seconds()}
    judged = []
    for known in stores.state.ledgers("reconcile"):
        about = known.about or present
        every, needs = timedelta(seconds=about["interval"]), Needs(*about.get("needs", ()))
        failing = Failing.parse(about.get("failing"))
        judged.append((judge(known.summary, needs, now, every, failing), replace(known, about=about)))
    judged.sort(key=lambda one: (one[0].severity(), str(one[1].about.get("ledger"))))
    worst = judged[0][0] if judged else judge({}, Needs(), now, timedelta())
    rows = [_ledger_row(health, known, now) for health, known in judged]
    by_runs = min((row["runsHealth"] for row in rows), key=WORST_FIRST.index, default=worst.word)
    return {
        "ok": True,
        "now": iso(now),
        "health": worst.word,
        "why": worst.why,
        "advice": worst.advice,
        "runsHealth": by_runs,
        "ledgers": rows,
        "places": {"state": stores.state.place},
        "error": None,
        "detail": None,
    }


def _ledger_row(health: Health, known: KnownLedger, now: datetime) -> dict[str, Any]:
    every = timedelta(seconds=known.about["interval"])
    about, summary = known.about, telemetry_document(Telemetry(known.summary, ()))["summary"]
    return {
        **{name: about.get(name) for name in ("ledger", "account", "live", "host", "interval")},
        "health": health.word,
        "why": health.why,
        "advice": health.advice,
        "runsHealth": judge(known.summary, Needs(), now, every).word,
        "needs": Needs(*about.get("needs", ())).number,
        "lastSuccessAt": iso(health.last_success) if health.last_success else None,
        **{name: summary.get(name) for name in _COUNTED},
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
        "runsHealth": "unknown",
        "attention": [],
        "reconcileTelemetry": unread,
        "autoManageTelemetry": unread,
        "spooled": 0,
        **unknown,
    }
