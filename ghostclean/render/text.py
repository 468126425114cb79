"""Plain lines for pipes, cron mails and logs: one line an action, nothing about what stayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ghostclean.durations import spell

Document = Mapping[str, Any]

_QUIET_ACTIONS = frozenset({"kept", "held", "skipped"})
_WOULD_BE = {"closed": "to close", "synced": "to sync", "backfilled": "to adopt"}
_COUNTERS = ("checked", "closed", "synced", "backfilled", "held", "orphans", "failed")


def printable(text: object, most: int = 400) -> str:
    """One line that no terminal can be tricked by: control characters become `?`."""
    line = "".join(c if c.isprintable() else " " if c in "\t\r\n" else "?" for c in str(text))
    return line if len(line) <= most else line[: most - 1] + "…"


def changes(row: Document) -> bool:
    return row["action"] not in _QUIET_ACTIONS


def shown(row: Document, *, quiet: bool, verbose: bool) -> bool:
    """Whether a row is worth a line: changes always, held ones unless quiet, kept ones if verbose."""
    if changes(row) or verbose:
        return True
    return not quiet and (row["action"] != "kept" or row["verdict"] == "orphan")


def row_line(row: Document) -> str:
    """`closed       AAPL      t-1  exited: …`."""
    what = f"{row['action']:<13}{printable(row['ticker'] or '?', 24):<9} {printable(row['id'] or '-', 60)}"
    return f"{what}  {row['verdict']}: {printable(row['reason'])}"


def totals(document: Document) -> str:
    """`12 checked, 3 closed, 1 held`: the counters that are not zero, `checked` always."""
    counted = [name for name in _COUNTERS if document[name] or name == "checked"]
    return ", ".join(_counted(document[name], name, dry_run=document["dryRun"] is True) for name in counted)


def _counted(number: int, name: str, *, dry_run: bool) -> str:
    if name == "orphans" and number == 1:
        return "1 orphan"
    return f"{number} {_WOULD_BE.get(name, name) if dry_run else name}"


def reconcile_lines(document: Document, *, quiet: bool = False, verbose: bool = False) -> Iterator[str]:
    """The lines of one reconcile run; of a quiet one only changes."""
    for row in document["results"]:
        if shown(row, quiet=quiet, verbose=verbose):
            yield row_line(row)
    if quiet:
        return
    for note in document["notes"]:
        yield f"note: {printable(note)}"
    word = "dry run" if document["dryRun"] else "reconcile"
    state = "ok" if document["ok"] else document["error"]
    partial = ", partial" if document["partial"] else ""
    took = spell(document["durationMs"] / 1000)
    yield f"{word} {state}: {totals(document)}{partial} in {took} (run {printable(document['runId'], 80)})"


def auto_manage_lines(document: Document, *, quiet: bool = False) -> Iterator[str]:
    if document["reconcile"]:
        yield from reconcile_lines(document["reconcile"], quiet=quiet)
    unchanged = not (document["updated"] or document["flattened"])
    if not (quiet and unchanged and document["ok"]):
        yield from (f"note: {printable(note)}" for note in document["notes"])
    if quiet and unchanged:
        return
    counts = "{checked} checked, {updated} updated, {flattened} flattened".format_map(document)
    outcome = document["outcome"] if document["ok"] else "FAIL"
    yield f"auto-manage {' '.join(filter(None, (outcome, document['reason'])))}: {counts}"


def said(command: str, document: Document) -> str:
    """What a command came to, in half a line."""
    if command == "reconcile":
        return totals(document)
    if command == "auto-manage":
        counts = "{checked} checked, {updated} updated, {flattened} flattened".format_map(document)
        return f"{document['reason']}: {counts}" if document["reason"] else counts
    if command == "status":
        return str(document["why"])
    return f"{len(document['checks'])} checks"


def explain_lines(document: Document, *, verbose: bool = False) -> Iterator[str]:
    if document["status"] is None:
        now = "no longer in the ledger, or the ledger cannot be read"
    else:
        now = f"{printable(document['status'], 40)} in the ledger"
    yield f"{printable(document['ticker'] or '?', 24)}  {printable(document['id'], 60)}: {now}"
    if document["verdictSince"]:
        verdict, reason = printable(document["verdict"], 40), printable(document["verdictReason"])
        yield f"{verdict} since {printable(document['verdictSince'], 40)}: {reason}"
    if not document["entries"]:
        yield "no run has changed it, or its verdict, as far back as the journal keeps"
    yield from entry_lines(document["entries"], verbose=verbose)


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
    cure = f" - {printable(check['cure'])}" if check["cure"] else ""
    return f"{mark:<5}{check['name']:<12} {printable(check['found'])}{cure}"
