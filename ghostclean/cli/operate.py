"""`snapshot`, `doctor`, `migrate` and `schedule`: for the people who run it."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from ghostclean.cli.options import DryRun, Json, Quiet, Verbose
from ghostclean.cli.output import Outcome, Show, perform

_SNAPSHOT = """Save broker truth and what a decision needs, as one JSON document.

\b
Examples:
  ghostclean snapshot --output incident.json
  GHOSTCLEAN_BROKER=file:incident.json ghostclean reconcile --dry-run

The document holds raw answers of the broker, the ledger's open trades and the broker's time;
nothing secret is in it. A replay decides at that time.
"""
_DOCTOR = """Check settings, ledger, state, broker, account and clock, with the cure of each.

\b
Examples:
  ghostclean doctor
  ghostclean doctor --pin

Exit 1 when a check fails. --pin accepts the account that answers as this ledger's.
"""
_MIGRATE = """Copy a ledger to another place or layout; the source stays as it is.

\b
Examples:
  ghostclean migrate redis://localhost/0#trades:v1:live file:trades.json
  ghostclean migrate file:trades.json redis://localhost/0#trades:v2:live --layout hash --dry-run

The target must not exist or hold no trades; the copy is read back and compared.
"""
_SCHEDULE = """Print a ready-made schedule for this installation.

\b
Examples:
  ghostclean schedule cron
  ghostclean schedule systemd
  ghostclean schedule github > .github/workflows/ghostclean.yml
"""


def register(app: typer.Typer) -> None:
    """Adds the four commands."""
    app.command("snapshot", help=_SNAPSHOT, short_help="Save broker truth for an incident or a replay.")(snapshot)
    app.command("doctor", help=_DOCTOR, short_help="Check everything, with the cure of each failure.")(doctor)
    app.command("migrate", help=_MIGRATE, short_help="Copy a ledger to another place or layout.")(migrate)
    app.command("schedule", help=_SCHEDULE, short_help="Print a cron, systemd or GitHub schedule.")(schedule)


def snapshot(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write; - is stdout.")] = "-",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_SNAPSHOT`.
    show = Show(as_json or output == "-", quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring
        from ghostclean.render.progress import progress

        with progress("reading the broker", show.quiet):
            document = wiring.snapshot()
        if output == "-":
            return Outcome(document)
        written = wiring.save(document, output)
        counts = f"{len(document['positions'])} positions, {len(document['orders'])} working orders"
        line = f"{written}: {counts}; replay it with GHOSTCLEAN_BROKER=file:{written}"
        return Outcome(
            {"ok": True, "file": written, "error": None, "detail": None}, 0, lambda: () if quiet else (line,)
        )

    perform("snapshot", show, body)


def doctor(
    pin: Annotated[bool, typer.Option("--pin", help="Accept the present account as the right one.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_DOCTOR`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring
        from ghostclean.render.text import check_line

        checks = wiring.doctor(pin=pin)
        failed = [check for check in checks if check["ok"] is False]
        detail = f"{len(failed)} of {len(checks)} checks failed" if failed else None
        error = "reconcile_failed" if failed else None
        document = {"ok": not failed, "checks": checks, "error": error, "detail": detail}

        def lines() -> Iterator[str]:
            for check in checks:
                if check["ok"] is not True or not show.quiet:
                    yield check_line(check)

        def told() -> Iterator[str]:
            from ghostclean.render.terminal import folded

            return folded(lines(), " " * 18)

        return Outcome(document, 1 if failed else 0, told, error=error, detail=detail)

    perform("doctor", show, body)


def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="redis://…#KEY or file:PATH")],
    target: Annotated[str, typer.Argument(metavar="TO", help="redis://…#KEY or file:PATH")],
    layout: Annotated[
        Literal["string", "hash"] | None, typer.Option("--layout", help="Layout of a Redis target; string by default.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_MIGRATE`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring

        document = wiring.migrate(source, target, layout=layout, dry_run=dry_run)
        would = "would copy" if dry_run else "copied and verified"
        trades = f"{document['trades']} trade{'' if document['trades'] == 1 else 's'}"
        line = f"{would} {trades} from {document['from']} to {document['to']} ({document['layout']})"
        return Outcome(document, 0, lambda: () if show.quiet else (line,))

    perform("migrate", show, body)


def schedule(
    kind: Annotated[Literal["cron", "systemd", "github"], typer.Argument(metavar="cron|systemd|github")],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_SCHEDULE`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring

        text = wiring.schedule(kind)
        document: dict[str, Any] = {"ok": True, "kind": kind, "text": text, "error": None, "detail": None}
        return Outcome(document, 0, text.splitlines)

    perform("schedule", show, body)
