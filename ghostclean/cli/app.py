"""The Typer application: every command, and how usage errors and crashes end."""

import os
from copy import copy
from functools import cache
from typing import Annotated, Any

import typer
import typer.main
from typer.models import CommandInfo

from ghostclean import __version__
from ghostclean.cli import demo, fleet, gate, init, journal, manage, operate, reconcile, status  # noqa: F401 - they register
from ghostclean.cli.command import app
from ghostclean.cli.output import Common, Failure, finish, interrupted
from ghostclean.cli.process import hold_signals

_LISTED = (
    "reconcile", "auto-manage", "status", "gate", "explain", "history", "resolve",
    "undo", "snapshot", "init", "doctor", "migrate", "fleet", "schedule", "demo",
)  # fmt: skip
app.registered_commands.sort(key=lambda command: _LISTED.index(str(command.name)))

_FOR_ONCE = ("install_completion", "show_completion")
_PLAIN_WORDS = (
    ("Value error, ", ""),
    ("Input should be greater than or equal to", "it must be at least"),
    ("Input should be less than or equal to", "it must be at most"),
    ("Input should be a valid integer, unable to parse string as an integer", "it must be a whole number"),
    ("Input should be a valid integer", "it must be a whole number"),
)


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
    # No docstring: the help text stands in `command`.
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    arguments = switched(arguments)
    try:
        code: Any = built(_named(arguments))(args=arguments, prog_name="ghostclean", standalone_mode=False)
    except typer.TyperException as error:
        code = _usage(error, arguments)
    except (KeyboardInterrupt, typer.Abort) as stop:
        code = interrupted(arguments, stop)
    return code if isinstance(code, int) else 0


def switched(arguments: list[str]) -> list[str]:
    """Typer has no option whose value may be left out: `--check=runs` is a switch of its own."""
    return ["--check-runs" if argument == "--check=runs" else argument for argument in arguments]


def _named(arguments: list[str]) -> frozenset[str]:
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    return frozenset(_LISTED if completing else set(_LISTED).intersection(arguments))


@cache
def built(named: frozenset[str]) -> Any:
    """The command, without the options of those not named: building them takes two thirds of the time."""
    needed = copy(app)
    needed.registered_commands = [
        known if known.name in named else CommandInfo(known.name, short_help=known.short_help, callback=_listed)
        for known in app.registered_commands
    ]
    command = typer.main.get_command(needed)
    for parameter in command.get_params(typer.Context(command, **command.context_settings)):
        if parameter.default is None and getattr(parameter, "is_flag", False):
            parameter.default = False  # without one Typer loads pydantic for it
        if parameter.name in _FOR_ONCE:
            parameter.hidden = True  # type: ignore[attr-defined] # the first screen is for what is needed every day
    return command


def _listed() -> None:
    """Stands for a command that is only listed."""


def _usage(error: typer.TyperException, arguments: list[str]) -> int:
    common = Common.guessed(arguments)
    message = " ".join(error.format_message().split())
    for said, plain in _PLAIN_WORDS:
        message = message.replace(said, plain)
    message = common.clean(message).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ghostclean"
    failure = Failure("bad_settings", 2, f"{message} (see `{command} --help`; nothing was done)")
    name = command.removeprefix("ghostclean").strip()
    hold_signals()
    return finish(name, common, failure.outcome(name, {}))
