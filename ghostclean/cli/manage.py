"""`ghostclean auto-manage`: reconcile, then manage the open trades."""

from typing import Annotated, Any

import typer

from ghostclean.cli.command import command
from ghostclean.cli.options import DeadlineText, DryRun, RunId, Source, name, seconds
from ghostclean.cli.output import Common, Outcome, carried_out
from ghostclean.cli.reconcile import warnings

_HELP = """Reconcile, then manage the open trades: stops, cut loss, end of day.

\b
Examples:
  ghostclean auto-manage --dry-run
  ghostclean auto-manage --quiet --source cron
  AUTO_MANAGE_ENABLED=1 ghostclean auto-manage

Off unless AUTO_MANAGE_ENABLED is 1 or true; the reconcile runs all the same, and its failure alone
never fails this command.
"""


@command("auto-manage", _HELP, "Reconcile, then manage the open trades.", softens=True)
def auto_manage(
    common: Common,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Place and tighten stops although the market is closed.")
    ] = False,
    source: Source = "cli",
    run_id: RunId = None,
    deadline: DeadlineText = "60",
) -> Outcome:
    from ghostclean import api
    from ghostclean.render.terminal import folded, progress
    from ghostclean.render.text import auto_manage_lines

    options: dict[str, Any] = {
        "settings": common.settings(),
        "dry_run": dry_run,
        "force": force,
        "source": name(source, "--source"),
        "run_id": None if run_id is None else name(run_id, "--run-id"),
        "deadline": seconds(deadline),
    }
    with progress("asking the broker", common.json or common.quiet, options["deadline"]) as told:
        document, exit_code = carried_out(
            lambda: api.auto_manage(**options, counted_from_start=common.COUNTED_FROM_START, progress=told)
        )
    return Outcome(
        document,
        exit_code,
        lambda: folded(auto_manage_lines(document, quiet=common.quiet)),
        error=(document["reason"] or "reconcile_failed") if exit_code else None,
        detail=(document["detail"] or f"auto-manage failed: {document['reason']}") if exit_code else None,
        warnings=tuple(warnings(document)),
    )
