"""Options that several commands share, and the checks of their values."""

from typing import Annotated

import typer

from ghostclean.cli.output import bad_option
from ghostclean.durations import parse_duration

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done and write nothing.")]
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
    from ghostclean.api import name_of

    return name_of(text, option)
