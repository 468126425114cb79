"""Screens for people, made with rich: right at 80 columns, without colour, and with whole lines through a pipe."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ghostclean.core.attention import of
from ghostclean.core.broker import parse_time
from ghostclean.counts import counted
from ghostclean.durations import spell
from ghostclean.lines import printable

from .terminal import is_plain, is_terminal
from .text import changes, fit_line, settled_lines, shown, totals, why

Document = Mapping[str, Any]

_WHOLE = 4000  # columns in a pipe: who reads there wants one line a fact
_WIDE = 100
STYLES = {
    "healthy": "bold green",
    "needs you": "bold magenta",
    "stale": "bold yellow",
    "broken": "bold red",
    "closed": "green",
    "would_close": "green",
    "held": "yellow",
    "skipped": "yellow",
}
_NO_FAILURE = ("locked", "interrupted")
_BARS = "▁▂▃▄▅▆▇█"


def console_lines(*parts: Any) -> Iterator[str]:
    """The parts as finished lines, folded at the width of the terminal and not at all in a pipe."""
    plain = is_plain()
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        force_terminal=is_terminal() and not plain,
        width=_width(),
        highlight=False,
        emoji=False,
        markup=False,
        no_color=plain or None,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    for line in buffer.getvalue().splitlines():
        yield line.rstrip()


def _width() -> int:
    return shutil.get_terminal_size((_WHOLE, 24)).columns


# --------------------------------------------------------------------------- reconcile


def reconcile_screen(document: Document, *, verbose: bool = False) -> Iterator[str]:
    rows = [row for row in document["results"] if shown(row, quiet=False, verbose=verbose)]
    parts: list[Any] = [_results(rows)] if rows else []
    parts.extend(map(Text, settled_lines(document)))
    if verbose and document["fit"] is not None:
        parts.append(Text(fit_line(document["fit"]), "dim"))
    parts.extend(Text(f"note: {printable(note)}", "dim") for note in document["notes"])
    word = "dry run" if document["dryRun"] else "reconcile"
    took = spell(document["durationMs"] / 1000)
    state = Text("ok", "bold green") if document["ok"] else Text(str(document["error"]), "bold red")
    partial = ", partial" if document["partial"] else ""
    run = printable(document["runId"], 80)
    parts.append(Text.assemble(f"{word} ", state, f": {totals(document)}{partial} in {took} ", (f"(run {run})", "dim")))
    return console_lines(*parts)


def _results(rows: Sequence[Document]) -> Table:
    table = listing("action", "symbol", "verdict", "why, and which trade")
    for row in rows:
        cell = Text.assemble(why(row), ("\n" + printable(row["id"] or "no trade", 60), "dim"))
        style = STYLES.get(row["action"], "cyan" if changes(row) else "dim")
        table.add_row(Text(row["action"], style), printable(row["ticker"] or "?", 24), row["verdict"], cell)
    return table


def listing(*columns: str) -> Table:
    """A table whose last column takes the room that is left."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        last = number == len(columns) - 1
        table.add_column(column, overflow="fold", no_wrap=not last, ratio=1 if last else None)
    return table


# --------------------------------------------------------------------------- status


def status_screen(document: Document) -> Iterator[str]:
    """Health, totals, last runs, ledger, auto-manage, broker."""
    now = parse_time(document["now"])
    telemetry, summary = document["reconcileTelemetry"], document["reconcileTelemetry"]["summary"]
    first = Text.assemble(
        (document["health"], STYLES[document["health"]]),
        f": {printable(document['why'])}",
        (f" - {document['advice']}", ""),
    )
    parts: list[Any] = [first]
    if document["detail"]:
        parts.append(Text(printable(document["detail"]), "red"))
    if document["attention"]:
        parts += [_attention(document["attention"], now), Text()]
    parts.append(_facts(document, summary, now))
    runs = telemetry["runs"]
    if runs:
        parts += [Text(), _runs_table(runs, now)]
        real = [run for run in runs if not run.get("dryRun")]
        if len(real) > 1:
            parts += [Text(), _sparklines(real)]
    if document["broker"] is not None:
        parts += [Text(), _broker(document["broker"], document["entryState"])]
    return console_lines(*parts)


def _attention(items: Sequence[Document], now: datetime | None) -> Table:
    """The worst first, each with its next command on a line of its own, ready to paste."""
    table = listing("for", "kind", "of what, why, and the next command")
    for item in items:
        what = f"{of(item)}: {printable(item['why'])}"
        command = Text(item["command"], "bold")
        table.add_row(_age(parse_time(item["since"]), now), item["kind"], Text.assemble(what, "\n", command))
    return table


def ledgers_screen(document: Document) -> Iterator[str]:
    """One line a ledger, the worst first; where room is short a name keeps its end, which tells ledgers apart."""
    rows = document["ledgers"]
    if not rows:
        return console_lines(Text(f"no ledger has recorded a run in {printable(document['places']['state'])}"))
    accounts = [f"{'live' if row['live'] else 'paper'} {printable(row['account'] or '', 24)}".strip() for row in rows]
    names = [printable(row["ledger"] or "?", 400) for row in rows]
    longest = max(map(len, accounts))
    room = min(max(map(len, names)), max(20, (_width() - longest - 14) // 2))
    lines = []
    for row, name, account in zip(rows, names, accounts, strict=True):
        end = name if len(name) <= room else f"…{name[1 - room :]}"
        rest = f"  {end:{room}}  {account:{longest}}  {printable(row['why'])}"
        lines.append(Text.assemble((f"{row['health']:9}", STYLES[row["health"]]), rest))
        lines[-1].truncate(_width(), overflow="ellipsis")
    return console_lines(*lines)


def _facts(document: Document, summary: Document, now: datetime | None) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    if summary:
        runs = f"{counted(summary.get('runs', 0), 'run')}, {summary.get('success', 0)} good"
        done = f"{summary.get('totalClosed', 0)} closed, {summary.get('totalSynced', 0)} synced"
        table.add_row("totals", f"{runs}, {summary.get('fail', 0)} failed; {done}")
    ledger = document["ledger"]
    if ledger is not None:
        oldest = parse_time(ledger["oldestOpenAt"])
        since = f", the oldest for {_age(oldest, now)}" if oldest else ""
        table.add_row("ledger", f"{ledger['open']} open{since}, {ledger['pending']} pending")
    manage = document["autoManageTelemetry"]["summary"]
    if manage:
        reason = f" ({printable(manage['lastReason'], 60)})" if manage.get("lastReason") else ""
        at = _age(parse_time(manage.get("lastRunAt")), now)
        table.add_row("auto-manage", f"{printable(manage.get('lastOutcome', '?'), 20)}{reason}, {at} ago")
    if document["lock"]:
        lock = document["lock"]
        table.add_row("lock", f"held by {printable(lock['holder'], 60)} for {lock['secondsLeft']:g}s more")
    if document["spooled"]:
        table.add_row(
            "spool", f"{counted(document['spooled'], 'run record')} waiting for the state; the next run delivers"
        )
    return table


def _runs_table(runs: Sequence[Document], now: datetime | None) -> Table:
    numbers = ("checked", "closed", "synced")
    wide = _width() >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2 if wide else 1, 0, 0))
    for column in ("ago", "result", *numbers, *(("source",) if wide else ())):
        table.add_column(column, justify="right" if column in ("ago", *numbers) else "left", no_wrap=True)
    table.add_column("run", overflow="fold")  # in full: `undo` wants it
    for run in runs:
        table.add_row(
            _age(parse_time(run.get("ts")), now),
            _run_result(run),
            *(str(run.get(name, "-")) for name in numbers),
            *((printable(run.get("source", "?"), 16),) if wide else ()),
            Text(printable(run.get("runId", "?"), 100), "dim"),
        )
    return table


def _run_result(run: Document) -> Text:
    if run.get("ok") is True:
        return Text("dry run" if run.get("dryRun") else "ok", "green")
    return Text(printable(run.get("error") or "failed", 24), "red")


def _sparklines(runs: Sequence[Document]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    oldest_first = list(reversed(runs))
    for name, values in (
        ("closed", [_count(run.get("closed")) for run in oldest_first]),
        ("synced", [_count(run.get("synced")) for run in oldest_first]),
        ("failed", [int(not run.get("ok") and run.get("error") not in _NO_FAILURE) for run in oldest_first]),
    ):
        table.add_row(Text(name, "dim"), sparkline(values), str(sum(values)))
    return table


def sparkline(values: Sequence[int]) -> str:
    """One bar a value, the highest at full height; zero is the lowest bar."""
    most = max(values, default=0) or 1
    return "".join(_BARS[round(value * (len(_BARS) - 1) / most)] for value in values)


def _broker(broker: Document, entry: Document) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row(
        "broker",
        f"{counted(broker['positionsCount'], 'position')}, {counted(broker['openOrdersCount'], 'working order')}",
    )
    table.add_row("only at broker", _symbols(broker["onlyAtBroker"]))
    table.add_row("only in ledger", _symbols(broker["onlyInLedger"]))
    table.add_row("gate", f"{'open' if entry['allowed'] else 'closed'}: {printable(entry['reason'])}")
    return table


def _symbols(symbols: Iterable[str]) -> str:
    return ", ".join(printable(symbol, 24) for symbol in symbols) or "none"


def _count(value: object) -> int:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _age(moment: datetime | None, now: datetime | None) -> str:
    if moment is None or now is None:
        return "?"
    return spell(max(1, round((now - moment).total_seconds())))
