"""`explain`, `resolve` and `undo`: what the journal knows, and the operator's word."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ghostclean.cli.options import DryRun, Json, Quiet, Verbose, name
from ghostclean.cli.output import Failure, Outcome, Show, bad_option, perform

_EXPLAIN = """Every change of a trade, and of its verdict, with the proof.

\b
Examples:
  ghostclean explain 71139e93-f08f-421a-a236-310d112b2302
  ghostclean explain t-42 --json
"""
_RESOLVE = """The operator's word on a trade for which proof is missing; journaled, undoable.

\b
Examples:
  ghostclean resolve t-42 --exit-order 61e69015-8549-4bfd-b9c3-01e75843f47d
  ghostclean resolve t-42 --vanished --dry-run
  ghostclean resolve t-42 --entry-order 904837e3-3b76-47ec-b432-046db621571b
"""
_UNDO = """Put back what a run changed in the ledger, where the trade has not changed since.

\b
Examples:
  ghostclean undo reconcile-20261122T073812-1f3a9c --dry-run
  ghostclean undo reconcile-20261122T073812-1f3a9c

What was undone is held until its facts at the broker change or `ghostclean resolve` settles it.
Exit 1 when some trades were refused because they have changed since.
"""

TradeId = Annotated[str, typer.Argument(metavar="TRADE_ID", help="The trade's id in the ledger.")]


def register(app: typer.Typer) -> None:
    """Adds the three commands."""
    app.command("explain", help=_EXPLAIN, short_help="Every change of a trade, with its proof.")(explain)
    app.command("resolve", help=_RESOLVE, short_help="Settle a trade for which proof is missing.")(resolve)
    app.command("undo", help=_UNDO, short_help="Put back what a run changed in the ledger.")(undo)


def explain(trade_id: TradeId, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    # No docstring: the help text stands in `_EXPLAIN`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring
        from ghostclean.render.terminal import folded
        from ghostclean.render.text import explain_lines
        from ghostclean.result import EXIT_CODES

        document = wiring.explain(trade_id)
        code = EXIT_CODES[document["error"]]
        if code:
            return Outcome(document, code, error=document["error"], detail=document["detail"])
        return Outcome(document, 0, lambda: folded(explain_lines(document, verbose=show.verbose)))

    perform("explain", show, body, failed_document=lambda error, detail: failed_explanation(error, detail, trade_id))


def resolve(
    trade_id: TradeId,
    exit_order: Annotated[
        str | None, typer.Option("--exit-order", metavar="ORDER_ID", help="This order closed it.")
    ] = None,
    vanished: Annotated[bool, typer.Option("--vanished", help="Nothing is left of it and nothing is known.")] = False,
    entry_order: Annotated[
        str | None, typer.Option("--entry-order", metavar="ORDER_ID", help="This order opened it: relink.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_RESOLVE`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring

        if sum((exit_order is not None, vanished, entry_order is not None)) != 1:
            raise bad_option("resolve", "give exactly one of --exit-order, --vanished and --entry-order")
        for option, value in (("--exit-order", exit_order), ("--entry-order", entry_order)):
            if value is not None:
                name(value, option)
        report = wiring.resolve(
            trade_id, exit_order=exit_order, vanished=vanished, entry_order=entry_order, dry_run=dry_run
        )
        return _reported(report.to_dict(), report.exit_code, show)

    perform(
        "resolve",
        show,
        body,
        failed_document=lambda error, detail: failed_change(error, detail, trade_id, dry_run=dry_run),
    )


def undo(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The run, as `ghostclean status` lists it.")],
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_UNDO`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring

        report = wiring.undo(run_id, dry_run=dry_run)
        return _reported(report.to_dict(), report.exit_code, show)

    perform(
        "undo", show, body, failed_document=lambda error, detail: failed_change(error, detail, run_id, dry_run=dry_run)
    )


def failed_explanation(error: str, detail: str, trade_id: str | None = None) -> dict[str, Any]:
    """The document of a question that could not be answered."""
    unknown = dict.fromkeys(("ticker", "status", "verdict", "verdictReason", "verdictSince"))
    return {"ok": False, "id": trade_id, **unknown, "entries": [], "error": error, "detail": detail}


def failed_change(error: str, detail: str, subject: str | None = None, *, dry_run: bool = False) -> dict[str, Any]:
    """The document of a person's change that was not even begun."""
    return {
        "ok": False,
        "dryRun": dry_run,
        "runId": None,
        "subject": subject,
        "changed": 0,
        "refused": 0,
        "results": [],
        "error": error,
        "detail": detail,
    }


def _reported(document: dict[str, Any], code: int, show: Show) -> Outcome:
    """The rows of an operator's change, one line each."""
    from ghostclean.render.text import printable

    def lines() -> Iterator[str]:
        for row in document["results"]:
            if not show.quiet or row["action"] != "kept":
                what = f"{row['action']:<13}{printable(row['ticker'], 24):<9} {printable(row['id'], 60)}"
                yield f"{what}  {printable(row['reason'])}"
        if not show.quiet:
            word = "dry run" if document["dryRun"] else document["runId"].partition("-")[0]
            would = "would be changed" if document["dryRun"] else "changed"
            refused = f", {document['refused']} refused" if document["refused"] else ""
            yield f"{word}: {document['changed']} {would}{refused} (run {printable(document['runId'], 80)})"

    if document["error"]:
        failure = Failure(document["error"], code, document["detail"])
        return Outcome(document, code, lines, error=failure.error, detail=failure.detail)
    return Outcome(document, code, lines)
