"""Options that several commands share, and the checks of their values."""

from typing import Annotated

import typer

from ghostclean.cli.output import bad_option
from ghostclean.durations import parse_duration

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only changes and failures.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more, on stderr; tracebacks too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done and write nothing.")]
NonFatal = Annotated[
    bool, typer.Option("--non-fatal", help="Exit 0 instead of 1 and 3-7; what happened is still said.")
]
Source = Annotated[str, typer.Option("--source", metavar="NAME", help="Who asks, for the telemetry.")]
RunId = Annotated[str | None, typer.Option("--run-id", metavar="ID", help="Name of this run; generated when absent.")]
DeadlineText = Annotated[
    str, typer.Option("--deadline", metavar="SECONDS", help="Hard limit in wall time: 60, 0.5, 500ms, 3s, 2m.")
]


def seconds(text: str, option: str = "--deadline") -> float:
    """A duration option in seconds; raises BadSettings."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise bad_option(option, str(error)) from None


def name(text: str, option: str) -> str:
    """A name that is stored and printed: one printable line; raises BadSettings."""
    from ghostclean.wiring import name_of

    return name_of(text, option)
