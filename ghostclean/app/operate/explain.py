"""What is known of a trade, a symbol, a run or an order: verdicts, changes, proof, and the cure as commands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ghostclean.app.journal import WRITTEN
from ghostclean.app.parts import Stores
from ghostclean.app.ports import JournalEntry, Record, State
from ghostclean.core import attention
from ghostclean.core.attention import Item, Kind
from ghostclean.core.broker import canonical_id, symbol_key
from ghostclean.core.ledger import FACTS, beside, is_open, is_pending, json_value, order_ids, record_id, text
from ghostclean.core.verdicts import Verdict
from ghostclean.errors import GhostcleanError, LedgerFailed
from ghostclean.lines import command, shell_word

from .candidates import THIS, Choice
from .history import BOOKED
from .undo import UNDONE

_RUNS, _RUNS_LOOKED_AT = ("reconcile", "auto-manage"), 200
_MOST = 20  # trades of a symbol or a run that are explained at once
_BREAKS = frozenset(str(verdict) for verdict in Verdict if verdict.needs_person)

Find = Callable[[Record], Choice | None]


def explain(stores: Stores, subject: str, find: Find) -> dict[str, Any]:
    """The document of `explain`; what neither journal nor ledger knows is an error in it.

    A trade's document stands by itself; a symbol, a run or an order is answered with those of its
    `trades`: those that need a person, then the latest, and how many `more` there are. `find` asks
    the broker which orders may settle a trade that needs a person.
    """
    document = _explain(_look_up(stores, [subject]), subject, find)
    if document["ok"] or document["error"] != "reconcile_failed":
        return document
    items = attention.recall(stores.state.recall("attention"))
    of_symbol = [i for i in items if i.id is None and i.symbol and symbol_key(i.symbol) == symbol_key(subject)]
    entries = stores.state.journal(run_id=subject)
    run = _listed(stores.state, subject)
    kind, ids = ("run", _ids(entries)) if entries or run else _named_otherwise(stores, subject)
    if not ids and not of_symbol and run is None:
        return document
    chosen = _most_telling(ids, {item.id for item in items})
    known = _look_up(stores, chosen)
    trades = [_explain(known, trade_id, find) for trade_id in chosen]
    cure = [command("undo", subject, "--dry-run")] if any(map(_changed, entries)) else []
    cure += ["ghostclean doctor"] if run is not None and run.get("error") else []
    cure += [item.command for item in of_symbol] if kind == "symbol" else []
    cure += [line for trade in trades for line in trade["cure"]]
    return {
        "ok": True,
        "id": subject,
        "kind": kind,
        "run": run,
        "attention": [item.to_dict() for item in of_symbol],
        "trades": trades,
        "more": len(ids) - len(chosen),
        "cure": [*dict.fromkeys(cure)],
        "error": None,
        "detail": None,
    }


def _listed(state: State, run_id: str) -> Mapping[str, Any] | None:
    """How that run ended, as the telemetry lists it; `error` is why it failed."""
    for kind in _RUNS:
        for run in state.telemetry(kind, _RUNS_LOOKED_AT).runs:
            if run.get("runId") == run_id:
                failed = run.get("reason") if run.get("outcome") == "FAIL" else None
                return {"error": failed, "detail": None, **run}
    return None


def _most_telling(ids: Sequence[str], in_need: Collection[str | None]) -> list[str]:
    """Those that need a person, then the latest; in their order."""
    first = sorted(enumerate(ids), key=lambda row: (row[1] not in in_need, -row[0]))
    return [trade_id for _, trade_id in sorted(first[:_MOST])]


def _ids(entries: Iterable[JournalEntry]) -> list[str]:
    return [*dict.fromkeys(entry.trade_id for entry in entries)]


def _changed(entry: JournalEntry) -> bool:
    return entry.outcome == WRITTEN and entry.after is not None


def _named_otherwise(stores: Stores, subject: str) -> tuple[str, list[str]]:
    """What else the subject is, and the trades of it: an order, else a symbol."""
    entries, active = stores.state.journal(), stores.ledger.read().active
    key, name = symbol_key(subject), canonical_id(subject)
    of_order = [i for r in active if name in order_ids(r) and (i := record_id(r))]
    of_order += [entry.trade_id for entry in entries if name in _orders_in(entry)]
    if of_order:
        return "order", [*dict.fromkeys(of_order)]
    of_symbol = [i for r in active if symbol_key(text(r, "ticker", "symbol") or "") == key and (i := record_id(r))]
    of_symbol += [entry.trade_id for entry in entries if symbol_key(entry.ticker) == key]
    return "symbol", [*dict.fromkeys(of_symbol)]


def _orders_in(entry: JournalEntry) -> set[str]:
    """The orders that a journal entry names, in its proof or in what it wrote."""
    named = {str(value) for row in entry.proof for name, value in row.items() if name in ("orderId", "order")}
    return named | {*order_ids(entry.after or {}), *order_ids(entry.before or {})}


@dataclass(frozen=True, slots=True)
class _Known:
    """What journal, ledger and memory know of some trades, each read once; `failure` is the ledger's."""

    entries: Mapping[str, Sequence[JournalEntry]]
    records: Mapping[str, Record]
    verdicts: Mapping[str, Any]
    facts: Mapping[str, Any]
    items: Sequence[Item]
    failure: LedgerFailed | None


def _look_up(stores: Stores, ids: Sequence[str]) -> _Known:
    state, entries = stores.state, defaultdict(list)
    for entry in state.journal(trade_id=ids[0]) if len(ids) == 1 else state.journal():
        entries[entry.trade_id].append(entry)
    records: Mapping[str, Record] = {}
    failure = None
    try:
        records = stores.ledger.get(ids)
    except LedgerFailed as error:
        failure = error
    items = attention.recall(state.recall("attention"))
    return _Known(entries, records, state.recall("verdicts", ids), state.recall(FACTS, ids), items, failure)


def _explain(known: _Known, trade_id: str, find: Find) -> dict[str, Any]:
    """One trade's document."""
    entries, record = known.entries.get(trade_id, ()), known.records.get(trade_id)
    error, detail = (known.failure.code, str(known.failure)) if known.failure is not None else (None, None)
    if entries:
        error = detail = None  # the journal alone is an answer
    elif record is None and error is None:
        error = "reconcile_failed"
        detail = (
            f"neither the journal nor the ledger knows a trade, symbol, run or order {trade_id!r}; "
            "nothing was changed; check the id"
        )
    status = None if record is None else text(record, "status")
    ticker = entries[-1].ticker if entries else None if record is None else text(record, "ticker", "symbol")
    is_over = record is not None and not (is_open(record) or is_pending(record))  # the next run forgets it
    verdict = _verdict(known.verdicts.get(trade_id), entries, is_over=is_over)
    items = [] if is_over else _items(known.items, trade_id, verdict["verdict"])
    choice, note = _choice(record, items, find)
    return {
        "ok": error is None,
        "id": trade_id,
        "kind": "trade",
        "ticker": ticker,
        "status": status,
        **verdict,
        "entries": [entry.to_dict() for entry in entries],
        "beside": {} if record is None else json_value(beside(known.facts.get(trade_id), record)),
        "attention": [item.to_dict() for item in items],
        "held": choice.held if choice is not None else None,
        "candidates": [candidate.to_dict() for candidate in choice.candidates] if choice is not None else [],
        "cure": _cure(trade_id, items, entries, choice),
        "note": note,
        "error": error,
        "detail": detail,
    }


def _items(listed: Sequence[Item], trade_id: str, verdict: str | None) -> list[Item]:
    """What needs a person about a trade; the breaker is of all those that it keeps from being closed."""
    return [i for i in listed if i.id == trade_id or (i.kind is Kind.BREAKER and verdict == Verdict.VANISHED)]


def _choice(record: Record | None, items: Sequence[Item], find: Find) -> tuple[Choice | None, str | None]:
    """The candidates of a trade whose verdict needs a person; a broker that does not answer is only noted."""
    if record is None or all(item.kind not in _BREAKS for item in items):
        return None, None
    try:
        return find(record), None
    except GhostcleanError as failure:
        return None, f"its orders were not looked up: {failure}"


def _cure(trade_id: str, items: Sequence[Item], entries: Sequence[JournalEntry], choice: Choice | None) -> list[str]:
    """Commands to paste, the likeliest first; none where nothing needs doing."""
    commands = []
    if choice is not None:
        size = choice.trade.size
        fitting = [c for c in choice.candidates if c.owner in (None, THIS) and not (c.owner and c.enters)]
        commands += [c.command for c in sorted(fitting, key=lambda c: c.qty != size)]
        commands += [choice.vanished] if choice.vanished else []
    left = [i for i in items if not commands or i.kind not in _BREAKS]
    commands += [attention.cure(i.kind, trade_id) if i.id else i.command for i in left]
    written = [entry for entry in entries if _changed(entry) and entry.action in BOOKED]
    if written and written[-1].action != UNDONE:
        commands.append(command("undo", written[-1].run_id, "--trade", shell_word(trade_id), "--dry-run"))
    return [*dict.fromkeys(commands)]


def _verdict(last: object, entries: Sequence[JournalEntry], *, is_over: bool) -> dict[str, Any]:
    if is_over or not isinstance(last, Mapping):
        verdict = entries[-1].verdict if entries else None
        return {"verdict": verdict, "verdictReason": None, "verdictSince": None}
    return {"verdict": last.get("verdict"), "verdictReason": last.get("reason"), "verdictSince": last.get("since")}
