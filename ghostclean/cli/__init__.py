"""The command line: options in, one outcome out.

Its modules have no postponed annotations: Typer would evaluate those of all commands at every start.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from ghostclean.cli.process import catch_signals, restore_signals, secure_streams


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code; the entry point of the `ghostclean` script."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    secure_streams()
    if arguments == ["--version"]:
        # Answered before anything else is imported: installers and health checks ask this often.
        from ghostclean import __version__

        print(f"ghostclean {__version__}")  # noqa: T201
        return 0
    gc.set_threshold(500_000, 50, 50)  # a short life makes little garbage: 4 % of every start, 15 % of a long ledger
    before = catch_signals()
    try:
        from ghostclean.cli.app import run

        code = run(arguments)
    except KeyboardInterrupt as stop:  # before there was a command, or a second one
        from ghostclean.cli.output import interrupted

        code = interrupted(arguments, stop)
    if argv is not None:
        restore_signals(before)
    else:
        gc.freeze()  # the process ends here: no search for garbage on the way out, another 15 %
    return code
