"""`explain`, `resolve` and `undo`: what the journal knows, and the operator's word."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ghostclean.cli.command import command
from ghostclean.cli.options import DryRun, name
from ghostclean.cli.output import Common, Outcome, bad_option

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


@command("explain", _EXPLAIN, "Every change of a trade, with its proof.")
def explain(common: Common, trade_id: TradeId) -> Outcome:
    from ghostclean.app.operate.explain import explain_trade
    from ghostclean.render.terminal import folded
    from ghostclean.render.text import explain_lines
    from ghostclean.result import EXIT_CODES
    from ghostclean.wiring import opened

    with opened(common.settings()) as stores:
        document = explain_trade(stores, trade_id)
    code = EXIT_CODES[document["error"]]
    if code:
        return Outcome(document, code, error=document["error"], detail=document["detail"])
    return Outcome(document, 0, lambda: folded(explain_lines(document, verbose=common.verbose)))


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

    if sum((exit_order is not None, vanished, entry_order is not None)) != 1:
        raise bad_option("resolve", "give exactly one of --exit-order, --vanished and --entry-order")
    for option, value in (("--exit-order", exit_order), ("--entry-order", entry_order)):
        if value is not None:
            name(value, option)
    claim = Claim(exit_order=exit_order, vanished=vanished, entry_order=entry_order)
    settings, deadline = common.settings(), Deadline(Common.LOOK_SECONDS)
    with connected(settings) as parts:
        parts.state.open()
        run_id = new_run_id("resolve")
        report = resolve_trade(parts, deadline, settings.policy(), trade_id, claim, run_id=run_id, dry_run=dry_run)
    return _reported(report.to_dict(), report.exit_code, common)


@command("undo", _UNDO, "Put back what a run changed in the ledger.")
def undo(
    common: Common,
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The run, as `ghostclean status` lists it.")],
    dry_run: DryRun = False,
) -> Outcome:
    from ghostclean.api import new_run_id
    from ghostclean.app.operate.undo import undo_run
    from ghostclean.wiring import opened

    with opened(common.settings()) as stores:
        report = undo_run(stores.ledger, stores.state, run_id, undo_id=new_run_id("undo"), dry_run=dry_run)
    return _reported(report.to_dict(), report.exit_code, common)


def _reported(document: dict[str, Any], code: int, common: Common) -> Outcome:
    from ghostclean.render.text import printable

    def lines() -> Iterator[str]:
        for row in document["results"]:
            if not common.quiet or row["action"] != "kept":
                what = f"{row['action']:<13}{printable(row['ticker'], 24):<9} {printable(row['id'], 60)}"
                yield f"{what}  {printable(row['reason'])}"
        if not common.quiet:
            word = "dry run" if document["dryRun"] else document["runId"].partition("-")[0]
            would = "would be changed" if document["dryRun"] else "changed"
            refused = f", {document['refused']} refused" if document["refused"] else ""
            yield f"{word}: {document['changed']} {would}{refused} (run {printable(document['runId'], 80)})"

    return Outcome(document, code, lines, error=document["error"], detail=document["detail"])
