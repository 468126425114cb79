"""Plain lines for pipes, cron mails and logs: one line an action, nothing about what stayed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ghostclean.core.attention import by_hand, describe, of
from ghostclean.counts import counted
from ghostclean.durations import spell
from ghostclean.lines import printable

Document = Mapping[str, Any]

_SYNCS = frozenset({"synced", "would_sync"})
_QUIET_ACTIONS = frozenset({"kept", "held", "skipped"})
_WOULD_BE = {"closed": "to close", "synced": "to sync", "backfilled": "to adopt"}
CSV_COLUMNS = ("at", "action", "ticker", "id", "verdict", "closeReason", "closePrice", "pnl", "runId", "source")
_COUNTERS = ("checked", "closed", "synced", "backfilled", "held", "orphans", "failed")


def changes(row: Document) -> bool:
    return row["action"] not in _QUIET_ACTIONS


def shown(row: Document, *, quiet: bool, verbose: bool) -> bool:
    """Whether a row is worth a line: changes always, held ones unless quiet, kept ones if verbose."""
    if changes(row) or verbose:
        return True
    return not quiet and (row["action"] != "kept" or row["verdict"] == "orphan")


def row_line(row: Document) -> str:
    """`closed        AAPL      t-1  exited: …`."""
    return f"{row_start(row)}  {row['verdict']}: {why(row)}"


def why(row: Document) -> str:
    """The reason, and of a sync the fields that it writes."""
    names = dict.fromkeys((*(row["after"] or {}), *(row["before"] or {}))) if row["action"] in _SYNCS else {}
    fields = ", ".join(name for name in names if name != "updatedAt")
    return printable(f"{row['reason']}: {fields}" if fields else row["reason"])


def row_start(row: Document) -> str:
    """`closed        AAPL      t-1`: what became of which trade; no column runs into the next."""
    return f"{row['action']:<13} {printable(row['ticker'] or '?', 24):<9} {printable(row['id'] or '-', 60)}"


def totals(document: Document) -> str:
    """`12 checked, 3 closed, 1 held`: the counters that are not zero, `checked` always."""
    counted = [name for name in _COUNTERS if document[name] or name == "checked"]
    return ", ".join(_counted(document[name], name, dry_run=document["dryRun"] is True) for name in counted)


def _counted(number: int, name: str, *, dry_run: bool) -> str:
    if name == "orphans":
        return counted(number, "orphan")
    return f"{number} {_WOULD_BE.get(name, name) if dry_run else name}"


def reconcile_lines(document: Document, *, quiet: bool = False, verbose: bool = False) -> Iterator[str]:
    """The lines of one reconcile run; of a quiet one only changes."""
    for row in document["results"]:
        if shown(row, quiet=quiet, verbose=verbose):
            yield row_line(row)
    if quiet:
        yield from attention_lines(document)
        return
    yield from settled_lines(document)
    if verbose and document["fit"] is not None:
        yield fit_line(document["fit"])
    for note in document["notes"]:
        yield f"note: {printable(note)}"
    word = "dry run" if document["dryRun"] else "reconcile"
    state = "ok" if document["ok"] else document["error"]
    partial = ", partial" if document["partial"] else ""
    took = spell(document["durationMs"] / 1000)
    yield f"{word} {state}: {totals(document)}{partial} in {took} (run {printable(document['runId'], 80)})"


def fit_line(fit: Document) -> str:
    """What the ledger's statuses count as, and how many of its orders the account knows."""
    words = [f"{s['count']} {printable(s['status'], 40)} ({s['means']})" for s in fit["statuses"]]
    known = "{known} of {named}".format_map(fit["orders"])
    counts = ", ".join([*words, f"{fit['over']} over"])
    return f"ledger: {counts}; the account knows {known} order ids, trades without one: {fit['withoutOrder']}"


def attention_lines(document: Document) -> Iterator[str]:
    """What begins to need a person with this run, and what no longer does."""
    yield from (f"needs you: {describe(item)}" for item in document["attention"] if item["new"])
    yield from settled_lines(document)


def settled_lines(document: Document) -> Iterator[str]:
    """What no longer needs a person; a dry run settles nothing."""
    settled = () if document["dryRun"] else document["settled"]
    yield from (f"settled: {of(item)} ({item['kind']})" for item in settled)


def auto_manage_lines(document: Document, *, quiet: bool = False) -> Iterator[str]:
    if document["reconcile"]:
        yield from reconcile_lines(document["reconcile"], quiet=quiet)
    if quiet:
        yield from attention_lines(document)
        if not (document["updated"] or document["flattened"]):
            return
    else:
        yield from settled_lines(document)
    yield from (f"note: {printable(note)}" for note in document["notes"])
    counts = "{checked} checked, {updated} updated, {flattened} flattened".format_map(document)
    outcome = document["outcome"] if document["ok"] else "FAIL"
    word = "auto-manage (dry run)" if document["dryRun"] else "auto-manage"
    yield f"{' '.join(filter(None, (word, outcome, document['reason'])))}: {counts}"


def said(command: str, document: Document) -> str:
    """What a command came to, in half a line."""
    if command == "reconcile":
        return totals(document)
    if command == "auto-manage":
        counts = "{checked} checked, {updated} updated, {flattened} flattened".format_map(document)
        return f"{document['reason']}: {counts}" if document["reason"] else counts
    if command == "status":
        return str(document["why"])
    return counted(len(document["checks"]), "check")


def explain_lines(document: Document, *, verbose: bool = False) -> Iterator[str]:
    """What is known of a trade, or of those of a symbol, a run or an order; the cure stands last."""
    if document["kind"] != "trade":
        if document["run"] is not None:
            yield _run_line(document["run"])
        yield from (f"needs you: {describe(item)}" for item in document["attention"])
        for trade in document["trades"]:
            yield from _trade_lines(trade, verbose=verbose)
            yield ""
        if document["more"]:
            yield f"and {document['more']} more: ask for one by its id, or see `ghostclean history`"
    else:
        yield from _trade_lines(document, verbose=verbose)
    if not document["cure"]:
        yield "nothing needs to be done"
        return
    yield "what can be done:"
    yield from (f"    {command}" for command in document["cure"])


def _run_line(run: Document) -> str:
    """How a listed run ended."""
    said = printable(run["error"] or run.get("reason") or "ok", 40)
    detail = f": {printable(run['detail'])}" if run["detail"] else ""
    return f"run {printable(run['runId'], 80)} at {printable(run.get('ts', '?'), 40)}: {said}{detail}"


def _trade_lines(document: Document, *, verbose: bool) -> Iterator[str]:
    """Where a trade stands now, then its journal, then the orders that may settle it."""
    if document["status"] is None:
        now = "no longer in the ledger, or the ledger cannot be read"
    else:
        now = f"{printable(document['status'], 40)} in the ledger"
    yield f"{printable(document['ticker'] or '?', 24)}  {printable(document['id'], 60)}: {now}"
    if document["verdictSince"]:
        verdict, reason = printable(document["verdict"], 40), printable(document["verdictReason"])
        yield f"{verdict} since {printable(document['verdictSince'], 40)}: {reason}"
    for item in document["attention"]:
        if item["kind"] != document["verdict"]:
            yield f"{item['kind']} since {printable(item['since'], 40)}: {printable(item['why'])}"
        if (way := by_hand(item["kind"])) is not None:
            yield f"    {way}"
    if not document["entries"]:
        yield "no run has changed it, or its verdict, as far back as the journal keeps"
    yield from entry_lines(document["entries"], verbose=verbose)
    if document["beside"]:
        facts = ", ".join(f"{printable(name, 40)} {_value(value)}" for name, value in document["beside"].items())
        yield f"kept beside its record, which has no field for them: {facts}"
    if document["held"] is not None:
        yield from _candidate_lines(document)
    if document["note"]:
        yield f"note: {printable(document['note'])}"


def choice_lines(document: Document) -> Iterator[str]:
    """What a person can choose from to settle a trade."""
    if "verdict" not in document:
        yield "runs do not work on this trade"
        return
    yield f"{printable(document['ticker'] or '?', 24)}  {printable(document['id'], 60)}: {document['verdict']}"
    yield f"    {printable(document['reason'])}"
    yield from _candidate_lines(document)
    for candidate in document["candidates"]:
        yield f"    {candidate['command']}"
    if document["vanished"]:
        yield f"    {document['vanished']}"


def _candidate_lines(document: Document) -> Iterator[str]:
    """The broker's side, and the orders that may have opened or closed the trade, oldest first."""
    yield f"the broker holds {document['held']}; orders that filled there:"
    if not document["candidates"]:
        yield "    none"
    for number, row in enumerate(document["candidates"], start=1):
        price = f" @ {row['price']}" if row["price"] is not None else ""
        owner = printable(row["owner"] or "nobody's", 40)
        what = f"{row['at'] or 'time unknown'}  {row['side']} {row['filledQty']}{price}  {row['status']}"
        yield f"    {number:>2}. {what}  {row['orderId']}  ({owner})"


def history_lines(document: Document) -> Iterator[str]:
    """One line a change, then count and P&L by reason."""
    for row in document["entries"]:
        what = f"{row['at']}  {row['action']:<9} {printable(row['ticker'], 24):<8} {printable(row['id'], 60)}"
        price = f" @ {row['closePrice']}" if row["closePrice"] is not None else ""
        why = printable(row["closeReason"] or row["verdict"], 60)
        yield f"{what}  {why}{price}{_pnl(row['pnl'])}  run {printable(row['runId'], 80)}"
    if not document["entries"]:
        yield "nothing was changed, as far back as the journal keeps"
    for row in document["sums"]:
        unknown = f", {row['unknown']} without P&L" if row["unknown"] else ""
        yield f"{row['count']:>6} {printable(row['reason'], 60)}{_pnl(row['pnl'])}{unknown}"


def _pnl(value: float | None) -> str:
    return f"  P&L {value:+.2f}" if value is not None else ""


def csv_lines(document: Document) -> Iterator[str]:
    """The changes as comma-separated values under a header line."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(document["entries"])
    yield buffer.getvalue().removesuffix("\n")  # as a whole: a text may hold any kind of line break


def entry_lines(entries: Iterable[Document], *, verbose: bool = False) -> Iterator[str]:
    """A trade's or a run's journal for a person."""
    for entry in entries:
        what = f"{entry['verdict']}  {entry['action']} ({entry['outcome']})"
        yield f"{entry['at']}  {what}  run {printable(entry['runId'], 80)}"
        yield f"    {printable(entry['reason'])}"
        # A fingerprint is for an undo, not for a person.
        yield from (_proof_line(proof) for proof in entry["proof"] if verbose or "fingerprint" not in proof)
        before, after = entry["before"] or {}, entry["after"] or {}
        for name in dict.fromkeys((*after, *before)):
            was = _value(before[name]) if name in before else "absent"
            yield f"    {printable(name, 40)}: {was} -> {_value(after[name]) if name in after else 'absent'}"


def _proof_line(proof: Document) -> str:
    facts = ", ".join(f"{k} {v}" for k, v in proof.items() if k not in ("what", "at") and v is not None)
    at = f" at {proof['at']}" if proof.get("at") else ""
    return f"    proof: {printable(proof.get('what', ''))}{at}{f' ({printable(facts)})' if facts else ''}"


def _value(value: object) -> str:
    return "null" if value is None else printable(value, 60)


def check_line(check: Document) -> str:
    """One check of the doctor: mark, name, finding, cure."""
    mark = {True: "ok", False: "FAIL", None: "note"}[check["ok"]]
    cure = f" - {printable(check['cure'], None)}" if check["cure"] else ""
    return f"{mark:<5}{check['name']:<12} {printable(check['found'])}{cure}"
