"""The application, and how a function from options to an `Outcome` becomes one of its commands."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from ghostclean.cli.output import Common, Outcome, perform

_HELP = """Closes ghosts: open trades of a ledger that the broker has no more.

\b
Examples:
  ghostclean demo                  the whole thing, without account or server
  ghostclean reconcile --dry-run   what a run would change, and why
  ghostclean status                is it well, does it need you; what is next
"""

app = typer.Typer(
    name="ghostclean",
    help=_HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NonFatal = Annotated[
    bool, typer.Option("--non-fatal", help="Exit 0 instead of 1 and 3-7; what happened is still said.")
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only changes and failures.")]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, on stderr; tracebacks too.")]
_EnvFile = Annotated[
    str | None, typer.Option("--env-file", metavar="PATH", help="Read this file instead of .env here.")
]
_LogFormat = Annotated[
    Literal["text", "json"], typer.Option("--log-format", help="How stderr is written: json is one object a line.")
]


def _option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


_COMMON = (
    _option("json", _Json, default=False),
    _option("quiet", _Quiet, default=False),
    _option("verbose", _Verbose, default=False),
    _option("env_file", _EnvFile, default=None),
    _option("log_format", _LogFormat, default="text"),
)
_SOFTENED = _option("non_fatal", _NonFatal, default=False)

Body = Callable[..., Outcome]


def command(
    name: str, help: str, short_help: str, *, softens: bool = False, passes_on: bool = False
) -> Callable[[Body], Body]:
    """Makes `body(common, **own options)` a command; `softens` gives it --non-fatal.

    One that `passes_on` takes options that it does not know as arguments.
    """

    def register(body: Body) -> Body:
        _, *own = inspect.signature(body).parameters.values()
        parameters = [*own, *([_SOFTENED] if softens else []), *_COMMON]

        def run(**given: Any) -> None:
            common = Common(**{option.name: given.pop(option.name) for option in _COMMON})
            if given.get("output") == "-":
                common = replace(common, json=True)  # what it writes to stdout is its document
            non_fatal = given.pop("non_fatal", False)
            perform(name, common, lambda: body(common, **given), given, non_fatal=non_fatal)

        # Typer reads a command's options from its signature.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        settings = {"ignore_unknown_options": passes_on}
        app.command(name, help=help, short_help=short_help, context_settings=settings)(run)
        return body

    return register
