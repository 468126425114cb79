"""Completion of ids in the shell: what the ledger and the state know, or nothing where they cannot be read."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

_MOST = 100


def complete_trades(incomplete: str) -> list[str]:
    """Ids of the active trades."""
    return _starting_with(incomplete, _trades)


def complete_runs(incomplete: str) -> list[str]:
    """Ids of the listed runs, newest first."""
    return _starting_with(incomplete, _runs)


def _starting_with(incomplete: str, names: Callable[[], Iterable[str]]) -> list[str]:
    from ghostclean.errors import GhostcleanError
    from ghostclean.lines import shell_word

    # A shell puts them on its command line as they are, unquoted.
    with contextlib.suppress(GhostcleanError, OSError):
        plain = (name for name in names() if name == shell_word(name) and not name.startswith("-"))
        return [name for name in plain if name.startswith(incomplete)][:_MOST]
    return []


def _trades() -> Iterator[str]:
    from ghostclean.core.ledger import record_id
    from ghostclean.settings import Settings
    from ghostclean.wiring import unopened

    with unopened(Settings.load()) as stores:
        yield from (name for record in stores.ledger.read().active if (name := record_id(record)))


def _runs() -> Iterator[str]:
    from ghostclean.settings import Settings
    from ghostclean.wiring import opened

    with opened(Settings.load()) as stores:
        for kind in ("reconcile", "auto-manage"):
            yield from (str(run.get("runId")) for run in stores.state.telemetry(kind, _MOST).runs)
