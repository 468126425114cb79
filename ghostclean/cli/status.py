"""`ghostclean status`: healthy, stale or broken, and what to do next."""

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ghostclean.cli.options import Json, Quiet, Verbose, seconds
from ghostclean.cli.output import Outcome, Show, finish, perform, put

_HELP = """Healthy, stale or broken; the last runs; what to do next.

\b
Examples:
  ghostclean status
  ghostclean status --broker
  ghostclean status --watch 5
  ghostclean status --check --quiet || mail -s ghosts me@example.org

Reads no broker unless --broker. Broken: the last run failed. Stale: no success for two intervals.
"""

_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_ALTERNATE_ON, _ALTERNATE_OFF = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("status", help=_HELP, short_help="Healthy, stale or broken; what to do next.")(status)


def status(
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, metavar="N", help="Runs to list.")] = 5,
    with_broker: Annotated[
        bool, typer.Option("--broker", help="Also read the broker and compare it with the ledger.")
    ] = False,
    watch: Annotated[
        str | None, typer.Option("--watch", metavar="SECONDS", help="Redraw that often until Ctrl-C.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 unless healthy.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_HELP`.
    show = Show(as_json, quiet, verbose)

    def look() -> Outcome:
        from ghostclean import wiring

        return _outcome(wiring.status(limit=limit, with_broker=with_broker), show, check=check)

    def body() -> Outcome:
        if watch is not None:
            _watch(look, show, seconds(watch, "--watch"))
        return look()

    perform("status", show, body)


def _outcome(document: dict[str, Any], show: Show, *, check: bool) -> Outcome:
    from ghostclean.result import EXIT_CODES

    healthy = document["health"] == "healthy"
    code = EXIT_CODES[document["error"]] or (1 if check and not healthy else 0)

    def lines() -> Iterator[str]:
        if show.quiet and healthy and document["ok"]:
            return
        from ghostclean.render.screen import status_screen

        yield from status_screen(document)

    unwell = f"{document['health']}: {document['why']}; {document['advice']}"
    return Outcome(
        document,
        code,
        lines,
        error=document["error"],
        detail=document["detail"],
        warnings=(unwell,) if check and not healthy else (),
    )


def _watch(look: Any, show: Show, every: float) -> None:
    """Redraws in place until Ctrl-C and leaves the terminal as it was; in a pipe it just repeats."""
    from ghostclean.render.terminal import is_dumb

    drawing = sys.stdout.isatty() and not is_dumb() and not show.json
    if drawing:
        sys.stdout.write(_ALTERNATE_ON)
    try:
        while True:
            outcome = look()
            if drawing:
                lines = list(outcome.lines())
                sys.stdout.write(_HOME_AND_CLEAR)
                put("\n".join(lines))
            else:
                finish("status", show, outcome)
            time.sleep(every)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    finally:
        if drawing:
            sys.stdout.write(_ALTERNATE_OFF)
            sys.stdout.flush()
