"""`explain`, `history`, `resolve` and `undo`: what the journal knows, and the operator's word."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghostclean.cli.command import command
from ghostclean.cli.completion import complete_runs, complete_trades
from ghostclean.cli.options import DryRun, name
from ghostclean.cli.output import Common, Outcome, bad_option

if TYPE_CHECKING:
    from ghostclean.app.operate.candidates import Choice
    from ghostclean.settings import Settings

_EXPLAIN = """What is known of a trade: its verdicts and changes with the proof, and the cure.

\b
Examples:
  ghostclean explain t-42
  ghostclean explain AAPL
  ghostclean explain reconcile-20261122T073812-1f3a9c
  ghostclean explain 61e69015-8549-4bfd-b9c3-01e75843f47d --json

For a trade that needs a person the broker is asked which orders may settle it.
"""
_HISTORY = """What was closed, reduced, adopted, resolved or undone, with the P&L by reason.

\b
Examples:
  ghostclean history --since 1d
  ghostclean history AAPL --changes
  ghostclean history --csv > history.csv

As far back as the journal keeps. --changes adds synced fields and moved stops.
"""
_RESOLVE = """The operator's word on a trade for which proof is missing; journaled, undoable.

\b
Examples:
  ghostclean resolve t-42
  ghostclean resolve t-42 --exit-order 61e69015-8549-4bfd-b9c3-01e75843f47d
  ghostclean resolve t-42 --vanished --dry-run
  ghostclean resolve t-42 --entry-order 904837e3-3b76-47ec-b432-046db621571b

Alone it shows the orders that may have opened or closed the trade; on a terminal one can be chosen.
"""
_UNDO = """Put back what a run changed in the ledger, where the trade has not changed since.

\b
Examples:
  ghostclean undo reconcile-20261122T073812-1f3a9c --dry-run
  ghostclean undo reconcile-20261122T073812-1f3a9c --trade t-42
  ghostclean undo --last --dry-run

What was undone is held until its facts at the broker change or `ghostclean resolve` settles it.
Exit 1 when some trades were refused because they have changed since.
"""

TradeId = Annotated[
    str, typer.Argument(metavar="TRADE_ID", help="The trade's id in the ledger.", autocompletion=complete_trades)
]


@command("explain", _EXPLAIN, "What is known of a trade, with proof and cure.")
def explain(
    common: Common,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="TRADE_ID|SYMBOL|RUN_ID|ORDER_ID", help="What to explain.", autocompletion=complete_trades
        ),
    ],
) -> Outcome:
    from ghostclean.app.operate.explain import explain as explained
    from ghostclean.render.terminal import folded
    from ghostclean.render.text import explain_lines
    from ghostclean.result import EXIT_CODES
    from ghostclean.wiring import opened

    settings = common.settings()
    with opened(settings) as stores:
        document = explained(stores, subject, partial(_find, settings))
    code = EXIT_CODES[document["error"]]
    if code:
        return Outcome(document, code, error=document["error"], detail=document["detail"])
    return Outcome(document, 0, lambda: folded(explain_lines(document, verbose=common.verbose)))


def _find(settings: "Settings", record: dict[str, Any]) -> "Choice | None":
    """The orders that may settle a trade, asked for at the broker."""
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.operate.candidates import find_candidates
    from ghostclean.wiring import connected

    with connected(settings) as parts:
        parts.state.open()
        return find_candidates(parts, Deadline(Common.LOOK_SECONDS, writes=False), settings.policy(), record)


@command("history", _HISTORY, "What was closed and changed, with P&L by reason.")
def history(
    common: Common,
    subject: Annotated[
        str | None, typer.Argument(metavar="[TRADE_ID|SYMBOL]", help="Only this.", autocompletion=complete_trades)
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="How far back: 12h, 1d, 30d.")] = None,
    changes: Annotated[bool, typer.Option("--changes", help="Every change of the ledger, syncs too.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header line.")] = False,
) -> Outcome:
    from datetime import UTC, datetime, timedelta

    from ghostclean.app.operate.history import read_history
    from ghostclean.render.terminal import folded
    from ghostclean.render.text import csv_lines, history_lines
    from ghostclean.wiring import opened

    if csv and common.json:
        raise bad_option("--csv", "with --json there is one document; choose one of the two")
    back = None if since is None else datetime.now(UTC) - timedelta(seconds=_span(since))
    with opened(common.settings()) as stores:
        document = read_history(stores.state, since=back, subject=subject, every_change=changes)
    return Outcome(document, 0, lambda: csv_lines(document) if csv else folded(history_lines(document)))


def _span(text: str) -> float:
    from ghostclean.durations import DAY, parse_duration

    try:
        return parse_duration(text, most=3650 * DAY)
    except ValueError as error:
        raise bad_option("--since", str(error)) from None


@command("resolve", _RESOLVE, "Settle a trade for which proof is missing.")
def resolve(
    common: Common,
    trade_id: TradeId,
    exit_order: Annotated[
        str | None, typer.Option("--exit-order", metavar="ORDER_ID", help="This order closed it.")
    ] = None,
    vanished: Annotated[bool, typer.Option("--vanished", help="Nothing is left of it and nothing is known.")] = False,
    entry_order: Annotated[
        str | None, typer.Option("--entry-order", metavar="ORDER_ID", help="This order opened it: relink.")
    ] = None,
    dry_run: DryRun = False,
) -> Outcome:
    from ghostclean.api import new_run_id
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.operate.resolve import Claim, resolve_trade
    from ghostclean.wiring import connected

    said = sum((exit_order is not None, vanished, entry_order is not None))
    if said > 1:
        raise bad_option("resolve", "give only one of --exit-order, --vanished and --entry-order")
    if not said:
        shown = _show_choice(common, trade_id)
        chosen = _choose(shown) if sys.stdin.isatty() and sys.stdout.isatty() and not common.json else None
        if chosen is None:
            return shown
        exit_order, entry_order = chosen
    for option, value in (("--exit-order", exit_order), ("--entry-order", entry_order)):
        if value is not None:
            name(value, option)
    claim = Claim(exit_order=exit_order, vanished=vanished, entry_order=entry_order)
    settings, deadline = common.settings(), Deadline(Common.LOOK_SECONDS, writes=not dry_run)
    with connected(settings) as parts:
        parts.state.open()
        run_id = new_run_id("resolve")
        report = resolve_trade(parts, deadline, settings.policy(), trade_id, claim, run_id=run_id, dry_run=dry_run)
    return _reported(report.to_dict(), report.exit_code, common)


def _show_choice(common: Common, trade_id: str) -> Outcome:
    """The orders that may settle a trade; nothing is written."""
    from ghostclean.app.operate.resolve import open_record
    from ghostclean.render.terminal import folded
    from ghostclean.render.text import choice_lines
    from ghostclean.wiring import opened

    settings = common.settings()
    with opened(settings) as stores:
        record = open_record(stores.ledger.read(), trade_id)
    choice = _find(settings, dict(record))
    found = choice.to_dict() if choice is not None else {"id": trade_id, "candidates": []}
    document: dict[str, Any] = {"ok": True, **found, "error": None, "detail": None}
    return Outcome(document, 0, lambda: folded(choice_lines(document)))


def _choose(shown: Outcome) -> tuple[str | None, str | None] | None:
    """The exit and entry order that a person at the terminal chooses; None for neither."""
    from ghostclean.cli.output import put

    candidates = shown.document["candidates"]
    for line in shown.lines():
        put(line)
    if not candidates:
        raise typer.Exit(0)
    answer = typer.prompt(f"which order? 1-{len(candidates)}, Enter for none", default="", show_default=False)
    if not answer.strip():
        raise typer.Exit(0)
    if not answer.strip().isdecimal() or not 1 <= int(answer) <= len(candidates):
        raise bad_option("the choice", f"it must be a number from 1 to {len(candidates)}")
    chosen = candidates[int(answer) - 1]
    return (None, chosen["orderId"]) if chosen["enters"] else (chosen["orderId"], None)


@command("undo", _UNDO, "Put back what a run changed in the ledger.")
def undo(
    common: Common,
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN_ID", help="The run, as `ghostclean status` lists it.", autocompletion=complete_runs
        ),
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="The last run that changed the ledger.")] = False,
    trade: Annotated[
        str | None,
        typer.Option("--trade", metavar="TRADE_ID", help="Only this trade of it.", autocompletion=complete_trades),
    ] = None,
    dry_run: DryRun = False,
) -> Outcome:
    from ghostclean.api import new_run_id
    from ghostclean.app.operate.undo import last_run, undo_run
    from ghostclean.wiring import opened

    if (run_id is None) is not last:
        raise bad_option("undo", "give either a RUN_ID or --last")
    with opened(common.settings()) as stores:
        ledger, state = stores.ledger, stores.state
        which = run_id if run_id is not None else last_run(state)
        report = undo_run(ledger, state, which, undo_id=new_run_id("undo"), trade_id=trade, dry_run=dry_run)
    return _reported(report.to_dict(), report.exit_code, common)


def _reported(document: dict[str, Any], code: int, common: Common) -> Outcome:
    from ghostclean.lines import printable
    from ghostclean.render.terminal import folded
    from ghostclean.render.text import row_start

    def lines() -> Iterator[str]:
        for row in document["results"]:
            if not common.quiet or row["action"] != "kept":
                yield f"{row_start(row)}  {printable(row['reason'])}"
        if not common.quiet:
            word = "dry run" if document["dryRun"] else document["runId"].partition("-")[0]
            would = "would be changed" if document["dryRun"] else "changed"
            refused = f", {document['refused']} refused" if document["refused"] else ""
            yield f"{word}: {document['changed']} {would}{refused} (run {printable(document['runId'], 80)})"

    return Outcome(document, code, lambda: folded(lines()), error=document["error"], detail=document["detail"])
