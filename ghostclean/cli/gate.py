"""`ghostclean gate`: may a new entry be made?"""

from typing import Annotated, Any

import typer

from ghostclean.cli.options import Json, Quiet, Verbose
from ghostclean.cli.output import Outcome, Show, perform

_HELP = """May a new entry be made? Exit 0 yes, 10 no, 3 unknown.

\b
Examples:
  ghostclean gate && my-bot enter
  ghostclean gate --max-open 5 --json

Only broker truth counts, so ghosts in the ledger never block an entry: distinct symbols with a
position worth $1 or a working entry order, against --max-open. What cannot be read closes the gate.
"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("gate", help=_HELP, short_help="May a new entry be made? Exit 0 yes, 10 no, 3 unknown.")(gate)


def gate(
    max_open: Annotated[
        int, typer.Option("--max-open", min=0, metavar="N", help="Symbols that may be taken at most.")
    ] = 3,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    # No docstring: the help text stands in `_HELP`.
    show = Show(as_json, quiet, verbose)

    def body() -> Outcome:
        from ghostclean import wiring

        answer = wiring.gate(max_open)
        line = f"{'yes' if answer.allowed else 'no'}: {answer.reason}"
        silent = show.quiet and answer.allowed
        return Outcome(
            answer.to_dict(),
            answer.exit_code,
            lambda: () if silent or answer.allowed is None else (line,),
            error="broker_truth_failed" if answer.allowed is None else None,
            detail=answer.reason if answer.allowed is None else None,
        )

    perform("gate", show, body, failed_document=lambda error, detail: failed_document(error, detail, max_open))


def failed_document(error: str, detail: str, max_open: int | None = None) -> dict[str, Any]:
    """The document of a question that could not even be asked."""
    from ghostclean.app.gate import DEFAULT_MAX_OPEN, failed_document

    return failed_document(error, detail, DEFAULT_MAX_OPEN if max_open is None else max_open)
