"""`ghostclean reconcile`: one run."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import typer

from ghostclean.cli.command import command
from ghostclean.cli.options import DeadlineText, DryRun, RunId, Source, name, seconds
from ghostclean.cli.output import Common, Outcome, carried_out

_HELP = """Close ghosts and sync live trades: one run.

\b
Examples:
  ghostclean reconcile --dry-run
  ghostclean reconcile --quiet
  ghostclean reconcile --json --deadline 3s --source my-bot
  ghostclean reconcile --no-close

Account, working orders and positions are read completely before anything is decided; a ghost is
closed only with a proof, and every change is journaled before it is written. When broker truth is
incomplete nothing is closed.
"""

_NAMED = 5


@command("reconcile", _HELP, "Close ghosts and sync live trades: one run.", softens=True)
def reconcile(
    common: Common,
    dry_run: DryRun = False,
    max: Annotated[int, typer.Option("--max", min=1, metavar="N", help="Trades to work on in this run at most.")] = 500,
    close_reason: Annotated[
        str, typer.Option("--close-reason", metavar="TEXT", help="closeReason of a vanished trade.")
    ] = "reconciled_not_in_alpaca",
    sync: Annotated[bool, typer.Option("--sync/--no-sync", help="Bring live trades up to date.")] = True,
    close: Annotated[bool, typer.Option("--close/--no-close", help="Close ghosts; --no-close syncs only.")] = True,
    source: Source = "cli",
    run_id: RunId = None,
    deadline: DeadlineText = "60",
    orphans: Annotated[
        Literal["report", "adopt", "flatten"],
        typer.Option("--orphans", help="What to do with positions that no trade explains."),
    ] = "report",
    allow_mass_close: Annotated[
        bool, typer.Option("--allow-mass-close", help="Override the breaker on closes without proof.")
    ] = False,
) -> Outcome:
    from ghostclean import api
    from ghostclean.render.terminal import progress

    options: dict[str, Any] = {
        "settings": common.settings(),
        "dry_run": dry_run,
        "max": max,
        "close_reason": name(close_reason, "--close-reason"),
        "close": close,
        "sync": sync,
        "source": name(source, "--source"),
        "run_id": None if run_id is None else name(run_id, "--run-id"),
        "deadline": seconds(deadline),
        "orphans": orphans,
        "allow_mass_close": allow_mass_close,
    }
    with progress("asking the broker", common.json or common.quiet, options["deadline"]) as told:
        document, exit_code = carried_out(
            lambda: api.reconcile(**options, counted_from_start=common.COUNTED_FROM_START, progress=told)
        )
    return Outcome(
        document,
        exit_code,
        lambda: lines(document, common),
        error=document["error"],
        detail=document["detail"],
        warnings=tuple(warnings(document)),
    )


def lines(document: dict[str, Any], common: Common) -> Iterable[str]:
    """A table on a terminal, plain lines elsewhere and with --quiet."""
    from ghostclean.render.terminal import folded, is_terminal
    from ghostclean.render.text import reconcile_lines

    if is_terminal() and not common.quiet:
        from ghostclean.render.screen import reconcile_screen

        return reconcile_screen(document, verbose=common.verbose)
    return folded(reconcile_lines(document, quiet=common.quiet, verbose=common.verbose))


def warnings(document: dict[str, Any]) -> Iterator[str]:
    """What a person must look at although the run did not fail, or the way out of what has failed it."""
    from ghostclean.core.attention import describe, told_by

    if document["error"] is not None:
        yield from dict.fromkeys(f"next: {item['command']}" for item in told_by(document))
        return
    items = document["attention"]
    for item in items[:_NAMED]:
        yield f"needs you: {describe(item)}"
    if len(items) > _NAMED:
        yield f"needs you: {len(items) - _NAMED} more; `ghostclean status` lists them"
