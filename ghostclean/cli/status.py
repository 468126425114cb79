"""`ghostclean status`: healthy, stale or broken, and what to do next."""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghostclean.cli.command import command
from ghostclean.cli.options import seconds
from ghostclean.cli.output import Common, Failure, Outcome, bad_option, finish
from ghostclean.cli.process import reader_gone

if TYPE_CHECKING:
    from ghostclean.settings import Settings

_HELP = """Healthy, stale or broken; the last runs; what to do next.

\b
Examples:
  ghostclean status
  ghostclean status --broker
  ghostclean status --all
  ghostclean status --watch 5
  ghostclean status --check --quiet || mail -s ghosts me@example.org

Reads no broker unless --broker. Broken: the last run failed. Stale: no success for two intervals.
--all shows every ledger that keeps its state in the same place, one line each, the worst first.
"""

_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_ALTERNATE_ON, _ALTERNATE_OFF = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@command("status", _HELP, "Healthy, stale or broken; what to do next.")
def status(
    common: Common,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, metavar="N", help="Runs to list.")] = 5,
    with_broker: Annotated[
        bool, typer.Option("--broker", help="Also read the broker and compare it with the ledger.")
    ] = False,
    watch: Annotated[
        str | None, typer.Option("--watch", metavar="SECONDS", help="Redraw that often until Ctrl-C.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 unless healthy.")] = False,
    every_ledger: Annotated[bool, typer.Option("--all", help="All ledgers of this state, one line each.")] = False,
) -> Outcome:
    def seen() -> Outcome:
        if every_ledger:
            return _outcome(_look_at_all(common.settings()), common, check=check)
        return _outcome(look(common.settings(), limit, with_broker=with_broker), common, check=check)

    if every_ledger and with_broker:
        raise bad_option("--broker", "it reads the account of one ledger; leave out --all")
    if watch is not None:
        if common.json:
            raise bad_option("--watch", "with --json there is one document; ask for it as often as you need")
        _watch(seen, common, seconds(watch, "--watch"))
    return seen()


def look(settings: "Settings", limit: int = 5, *, with_broker: bool = False) -> dict[str, Any]:
    """The document of `status --json`; raises StateFailed and BadSettings."""
    from datetime import UTC, datetime, timedelta

    from ghostclean.app.operate.gate import DEFAULT_MAX_OPEN
    from ghostclean.app.operate.status import status_document
    from ghostclean.cli.gate import observed
    from ghostclean.wiring import opened

    with opened(settings) as stores:
        return status_document(
            stores,
            now=datetime.now(UTC),
            interval=timedelta(seconds=settings.interval),
            limit=limit,
            look=(lambda: observed(settings, DEFAULT_MAX_OPEN)) if with_broker else None,
            live=settings.live,
        )


def _look_at_all(settings: "Settings") -> dict[str, Any]:
    """The document of `status --all --json`; raises StateFailed and BadSettings."""
    from datetime import UTC, datetime, timedelta

    from ghostclean.app.operate.status import ledgers_document
    from ghostclean.wiring import opened

    with opened(settings) as stores:
        return ledgers_document(stores, now=datetime.now(UTC), interval=timedelta(seconds=settings.interval))


def _outcome(document: dict[str, Any], common: Common, *, check: bool) -> Outcome:
    from ghostclean.result import EXIT_CODES

    healthy = document["health"] == "healthy"
    code = EXIT_CODES[document["error"]] or (1 if check and not healthy else 0)

    def lines() -> Iterator[str]:
        if common.quiet and healthy and document["ok"]:
            return
        from ghostclean.render.screen import ledgers_screen, status_screen

        yield from (ledgers_screen if "ledgers" in document else status_screen)(document)

    return Outcome(
        document,
        code,
        lines,
        error=document["error"],
        detail=document["detail"],
        warnings=tuple(_unwell(document)) if check else (),
    )


def _unwell(document: dict[str, Any]) -> Iterator[str]:
    """A line for each ledger that is not healthy."""
    rows = [(f"{row['ledger']}: ", row) for row in document.get("ledgers", ())] or [("", document)]
    return (
        f"{whose}{row['health']}: {row['why']}; {row['advice']}" for whose, row in rows if row["health"] != "healthy"
    )


def _watch(seen: Callable[[], Outcome], common: Common, every: float) -> None:
    """Redraws in place until Ctrl-C and leaves the terminal as it was; in a pipe it just repeats."""
    from ghostclean.render.terminal import is_dumb

    drawing = sys.stdout.isatty() and not is_dumb()
    unread = reader_gone()
    try:
        if drawing:
            _draw(_ALTERNATE_ON)
        while True:
            outcome = _seen(seen, common, watching=drawing)
            if drawing:
                _redraw(outcome, every)
            else:
                finish("status", common, outcome)
                if reader_gone() and not unread:
                    raise typer.Exit(0)
            time.sleep(every)
    except KeyboardInterrupt as stop:
        raise typer.Exit(getattr(stop, "exit_code", 0)) from None
    finally:
        if drawing:
            _draw(_ALTERNATE_OFF)


def _seen(seen: Callable[[], Outcome], common: Common, *, watching: bool) -> Outcome:
    """One look; who watches sees a failure on the screen, and the next look may be better."""
    from ghostclean.errors import BadSettings, GhostcleanError

    try:
        return seen()
    except BadSettings:
        raise
    except GhostcleanError as error:
        failure = Failure(error.code, error.exit_code, common.clean(str(error)))
        if not watching:
            return failure.outcome("status", {})
        text = f"unknown: {failure.detail}"
        return replace(failure.outcome("status", {}), lines=lambda: (text,))


def _redraw(outcome: Outcome, every: float) -> None:
    """Line over line, so that nothing flickers; what does not fit on the screen is left out."""
    from ghostclean.durations import spell

    room = max(1, shutil.get_terminal_size().lines - 2)
    lines = [*outcome.lines()][:room]
    _draw(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in (*lines, "")))
    _draw(f"every {spell(every)}; Ctrl-C ends{_REST}")


def _draw(text: str) -> None:
    """Straight to the terminal; one that has gone away is no failure."""
    with contextlib.suppress(OSError):
        sys.stdout.write(text)
        sys.stdout.flush()
