"""`ghostclean demo`: the whole thing with no account, no server and no settings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ghostclean.cli.options import Json, Quiet, Verbose
from ghostclean.cli.output import Outcome, Show, perform

if TYPE_CHECKING:
    from ghostclean.app.demo import Demo

_HELP = """The whole thing with no account, no server and no settings.

\b
Examples:
  ghostclean demo
  ghostclean demo --folder ./demo

A sample ledger of a dozen trades and a recorded broker truth are put into a fresh folder; then a
dry run, a real run, a second run that changes nothing, and the status.
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo", help=_HELP, short_help="See it work: no account, no server, no settings.")(demo)


def demo(
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="PATH", help="A new or empty folder; a temporary one by default.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_HELP`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring

        shown = wiring.demo(folder)
        return Outcome(
            shown.to_dict(),
            shown.exit_code,
            lambda: _lines(shown, show),
            error=shown.error,
            detail=shown.detail,
        )

    perform("demo", show, body)


def _lines(shown: "Demo", show: Show) -> Iterator[str]:
    from ghostclean.cli.reconcile import lines
    from ghostclean.render.screen import status_screen

    yield f"A sample ledger and a recorded broker truth are in {shown.folder}"
    for number, (title, document) in enumerate(shown.runs, 1):
        yield ""
        yield f"{number}. {title}"
        yield from lines(document, show)
    if shown.status is not None:
        yield ""
        yield f"{len(shown.runs) + 1}. ghostclean status"
        yield from status_screen(shown.status)
    if shown.try_it:
        yield ""
        yield "Try it yourself, on these files or on yours:"
        yield from (f"  {line}" for line in shown.try_it)
