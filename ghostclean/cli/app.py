"""The Typer application: every command, and how usage errors and crashes end."""

from typing import Annotated, Any

import typer
import typer.main

from ghostclean import __version__
from ghostclean.cli import demo, gate, journal, manage, operate, reconcile, status
from ghostclean.cli.output import Failure, Show, clean, ending, finish, interrupted

_HELP = """Closes ghosts in a trading bot's ledger: open trades of which nothing is left at the broker.

\b
Examples:
  ghostclean demo                    the whole thing with no account and no server
  ghostclean reconcile --dry-run     what a run would change, and why
  ghostclean reconcile               one run; cron wants --quiet, programs --json
  ghostclean status                  healthy, stale or broken, and what to do next
"""

app = typer.Typer(
    name="ghostclean",
    help=_HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for family in (reconcile, manage, status, gate, journal, operate, demo):
    family.register(app)


_PLAIN_WORDS = (
    ("Value error, ", ""),
    ("Input should be greater than or equal to", "it must be at least"),
    ("Input should be less than or equal to", "it must be at most"),
    ("Input should be a valid integer, unable to parse string as an integer", "it must be a whole number"),
    ("Input should be a valid integer", "it must be a whole number"),
)
_DOCUMENTS = {
    "reconcile": reconcile.failed_document,
    "auto-manage": manage.failed_document,
    "explain": journal.failed_explanation,
    "resolve": journal.failed_change,
    "undo": journal.failed_change,
    "status": status.failed_document,
    "gate": gate.failed_document,
}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ghostclean {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def ghostclean(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # No docstring: the help text stands in `_HELP`.
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: list[str]) -> int:
    """The exit code of one command line; prints usage errors the way every other error is printed."""
    try:
        code: Any = _command()(args=arguments, prog_name="ghostclean", standalone_mode=False)
    except typer.TyperException as error:
        code = _usage(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        code = interrupted()
    return ending(code if isinstance(code, int) else 0)


def _command() -> Any:
    """The built command; its own flags get a default, as without one Typer loads pydantic for them (45 ms)."""
    command = typer.main.get_command(app)
    for parameter in command.get_params(typer.Context(command, **command.context_settings)):
        if parameter.default is None and getattr(parameter, "is_flag", False):
            parameter.default = False
    return command


def _usage(error: typer.TyperException, arguments: list[str]) -> int:
    message = " ".join(error.format_message().split())
    for said, plain in _PLAIN_WORDS:
        message = message.replace(said, plain)
    message = clean(message).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ghostclean"
    failure = Failure("bad_settings", 2, f"{message} (see `{command} --help`; nothing was done)")
    show = Show(json="--json" in arguments, quiet=False, verbose=False)
    name = command.removeprefix("ghostclean").strip()
    document = _DOCUMENTS.get(name)
    return finish(name, show, failure.outcome(document))
