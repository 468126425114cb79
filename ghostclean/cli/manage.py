"""`ghostclean auto-manage`: reconcile, then manage the open trades."""

from typing import Annotated, Any

import typer

from ghostclean.cli.options import DeadlineText, DryRun, Json, NonFatal, Quiet, RunId, Source, Verbose, name, seconds
from ghostclean.cli.output import Outcome, Show, perform

_HELP = """Reconcile, then manage the open trades: stops, cut loss, end of day.

\b
Examples:
  ghostclean auto-manage --dry-run
  ghostclean auto-manage --quiet --source cron
  AUTO_MANAGE_ENABLED=1 ghostclean auto-manage

Off unless AUTO_MANAGE_ENABLED is 1 or true; the reconcile runs all the same, and its failure alone
never fails this command.
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("auto-manage", help=_HELP, short_help="Reconcile, then manage the open trades.")(auto_manage)


def auto_manage(
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Place and tighten stops although the market is closed.")
    ] = False,
    source: Source = "cli",
    run_id: RunId = None,
    deadline: DeadlineText = "60",
    non_fatal: NonFatal = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_HELP`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring
        from ghostclean.render.progress import progress
        from ghostclean.render.text import auto_manage_lines

        with progress("managing the open trades", show.json or show.quiet):
            result = wiring.auto_manage(
                dry_run=dry_run,
                force=force,
                source=name(source, "--source"),
                run_id=None if run_id is None else name(run_id, "--run-id"),
                deadline=seconds(deadline),
                counted_from_start=True,
            )
        document = result.to_dict()
        failed = result.exit_code != 0
        return Outcome(
            document,
            result.exit_code,
            lambda: auto_manage_lines(document, quiet=show.quiet),
            error=result.reason or "reconcile_failed" if failed else None,
            detail=result.detail or f"auto-manage failed: {result.reason}" if failed else None,
        )

    def failed(error: str, detail: str) -> dict[str, Any]:
        return failed_document(error, detail, run_id)

    perform("auto-manage", show, body, non_fatal=non_fatal, failed_document=failed)


def failed_document(error: str, detail: str, run_id: str | None = None) -> dict[str, Any]:
    """The document of a run that never began."""
    from datetime import UTC, datetime

    from ghostclean.core.broker import iso
    from ghostclean.manage_result import ManageOutcome, ManageResult

    now = iso(datetime.now(UTC))
    result = ManageResult(
        ManageOutcome.FAIL,
        error,
        run_id=run_id or "",
        source="cli",
        started_at=now,
        duration_ms=0,
        now=now,
        enabled=False,
        forced=False,
        dry_run=False,
        cfg={},
        detail=detail,
    )
    return result.to_dict()
