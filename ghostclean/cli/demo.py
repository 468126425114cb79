"""`ghostclean demo`: the whole thing with no account, no server and no settings."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghostclean.cli.command import command
from ghostclean.cli.output import Common, Outcome

if TYPE_CHECKING:
    from ghostclean.app.operate.demo import Demo
    from ghostclean.result import Result

_HELP = """The whole thing with no account, no server and no settings.

\b
Examples:
  ghostclean demo
  ghostclean demo --folder ./demo

A sample ledger of a dozen trades and a recorded broker truth are put into a fresh folder; then a
dry run, a real run, a second run that changes nothing, and the status.
"""


@command("demo", _HELP, "See it work: no account, no server, no settings.")
def demo(
    common: Common,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="PATH", help="A new or empty folder; a temporary one by default.")
    ] = None,
) -> Outcome:
    from ghostclean.api import reconcile
    from ghostclean.app.operate.demo import run_demo
    from ghostclean.cli.status import look
    from ghostclean.settings import Settings

    def run(values: Mapping[str, str], dry_run: bool) -> "Result":
        return reconcile(settings=values, dry_run=dry_run, source="demo")

    def status(values: Mapping[str, str]) -> dict[str, Any]:
        return look(Settings.of(values))

    shown = run_demo(folder, run, status)
    return Outcome(
        shown.to_dict(), shown.exit_code, lambda: _lines(shown, common), error=shown.error, detail=shown.detail
    )


def _lines(shown: "Demo", common: Common) -> Iterator[str]:
    from ghostclean.cli.reconcile import lines
    from ghostclean.render.screen import status_screen

    yield f"A sample ledger and a recorded broker truth are in {shown.folder}"
    for number, (title, document) in enumerate(shown.runs, 1):
        yield ""
        yield f"{number}. {title}"
        yield from lines(document, common)
    if shown.status is not None:
        yield ""
        yield f"{len(shown.runs) + 1}. ghostclean status"
        yield from status_screen(shown.status)
    if shown.try_it:
        yield ""
        yield "Try it yourself, on these files or on yours:"
        yield from (f"  {line}" for line in shown.try_it)
