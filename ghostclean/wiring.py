"""The composition root: from settings to parts, from parts to one call a command.

Heavy libraries are imported by the adapter that needs them, when it is built and not before.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostclean.durations import parse_duration
from ghostclean.errors import BadSettings, BrokerError, GhostcleanError
from ghostclean.result import EXIT_CODES, Result

if TYPE_CHECKING:
    from ghostclean.app.doctor import Check
    from ghostclean.app.gate import Gate
    from ghostclean.app.operator import Report
    from ghostclean.app.ports import Broker, JournalEntry, Ledger, Spool, State
    from ghostclean.core.broker import BrokerTruth
    from ghostclean.places import Place
    from ghostclean.settings import Settings

TimeLeft = Callable[[], float]

_LOOK_SECONDS = 20.0  # for commands that only look: status, gate, doctor


# --------------------------------------------------------------------------- parts


@dataclass(frozen=True, slots=True)
class Stores:
    """The ledger, and ghostclean's own memory of it."""

    ledger: Ledger
    state: State
    spool: Spool


def stores(settings: Settings) -> Stores:
    """Ledger, state and spool as set; nothing is connected yet."""
    from ghostclean.adapters.spool import FolderSpool

    servers: dict[str, Any] = {}
    later: list[State] = []

    def seen_before() -> bool:
        """Whether an earlier run has read this ledger; it is asked only when the ledger is missing."""
        return bool(later[0].recall("ledger", ["seen"]))

    ledger = _ledger(settings.ledger_at, servers, seen_before)
    later.append(_state(settings, ledger.place, servers))
    return Stores(ledger, later[0], FolderSpool(settings.home / "spool", ledger_place=ledger.place))


def _ledger(place: Place, servers: dict[str, Any], seen_before: Callable[[], bool]) -> Ledger:
    if place.kind == "file":
        from ghostclean.adapters.file_ledger import FileLedger

        return FileLedger(place.path, seen_before=seen_before)
    from ghostclean.adapters.redis_ledger import RedisLedger

    return RedisLedger(_server(place.where, servers), place.key, seen_before=seen_before)


def _state(settings: Settings, ledger_place: str, servers: dict[str, Any]) -> State:
    place = settings.state_at
    if place.kind == "sqlite":
        from ghostclean.adapters.sqlite_state import SqliteState

        return SqliteState(place.path, ledger_place=ledger_place)
    from ghostclean.adapters.redis_state import RedisState

    return RedisState(_server(place.where, servers), ledger_place=ledger_place, prefix=settings.key_prefix)


def _server(url: str, servers: dict[str, Any]) -> Any:
    """One connection pool a Redis, however many parts live there."""
    if url not in servers:
        from ghostclean.adapters.redis_client import RedisServer

        servers[url] = RedisServer(url)
    return servers[url]


def broker(settings: Settings, time_left: TimeLeft) -> Broker:
    """Alpaca, or a snapshot that is replayed; raises BadSettings."""
    place = settings.broker_at
    if place.kind == "file":
        from ghostclean.adapters.snapshot import SnapshotBroker

        return SnapshotBroker.load(place.path)
    from ghostclean.adapters.alpaca import AlpacaBroker

    keys = settings.require_credentials()
    return AlpacaBroker(
        trading_url=settings.trading_url,
        data_url=settings.data_url,
        api_key=keys.key.get_secret_value(),
        secret_key=keys.secret.get_secret_value(),
        live=settings.live,
        time_left=time_left,
    )


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """The stores with the state opened, closed again in the end; raises StateFailed."""
    parts = stores(settings)
    try:
        parts.state.open()
        yield parts
    finally:
        parts.state.close()


def load(settings: Settings | Mapping[str, Any] | None) -> Settings:
    """These settings, or those of these variables alone, or of the environment and `.env`."""
    from ghostclean.settings import Settings

    if settings is None:
        return Settings.load()
    return settings if isinstance(settings, Settings) else Settings.of(settings)


def new_run_id(kind: str) -> str:
    """A run id that sorts by time: `reconcile-20261122T073812-1f3a9c`."""
    return f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


# --------------------------------------------------------------------------- reconcile


def reconcile(
    *,
    settings: Settings | Mapping[str, Any] | None = None,
    dry_run: bool = False,
    max: int = 500,
    close_reason: str = "reconciled_not_in_alpaca",
    close: bool = True,
    sync: bool = True,
    source: str = "python",
    run_id: str | None = None,
    deadline: float | str = 60,
    orphans: str = "report",
    allow_mass_close: bool = False,
    counted_from_start: bool = False,
) -> Result:
    """One reconcile run; raises only BadSettings, every other failure is in the Result.

    `deadline` is in seconds, or text such as `3s`; with `counted_from_start` the start-up time
    of the process is part of it. `settings` None reads the environment and `.env`.
    """
    from ghostclean.app.deadline import Deadline, process_age
    from ghostclean.app.parts import Options, Parts
    from ghostclean.app.reconcile import run_reconcile

    loaded = load(settings)
    if orphans not in ("report", "adopt", "flatten"):
        raise BadSettings(f"orphans must be report, adopt or flatten, not {orphans!r:.40}")
    if isinstance(max, bool) or not isinstance(max, int) or max < 1:
        raise BadSettings("max must be a whole number of at least 1")
    policy = loaded.policy(
        close=close,
        sync=sync,
        close_reason=close_reason,
        orphans=orphans,
        allow_mass_close=allow_mass_close,
        max_trades=max,
    )
    end = Deadline(_seconds(deadline), already_used=process_age() if counted_from_start else 0.0)
    options = Options(run_id or new_run_id("reconcile"), source, end, policy, dry_run)
    talks_to = broker(loaded, end.left)
    kept = stores(loaded)
    try:
        return run_reconcile(Parts(talks_to, kept.ledger, kept.state, kept.spool), options)
    finally:
        kept.state.close()


def _seconds(deadline: float | str) -> float:
    try:
        return parse_duration(str(deadline))
    except ValueError as error:
        raise BadSettings(f"deadline is wrong: {error} (nothing was done)") from None


def not_begun(error: str, detail: str) -> Result:
    """The result of a run that never began."""
    from ghostclean.core.times import iso

    known = error if error in EXIT_CODES else "reconcile_failed"
    return Result("", "cli", iso(datetime.now(UTC)), 0, error=known, detail=detail)


# --------------------------------------------------------------------------- looking


def gate(max_open: int, settings: Settings | None = None) -> Gate:
    """May a new entry be made? Unknown when the broker cannot be read; raises BadSettings."""
    return _truth_and_gate(load(settings), max_open)[1]


def _truth_and_gate(settings: Settings, max_open: int) -> tuple[BrokerTruth | None, Gate]:
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.gate import judge, read_truth, unknown
    from ghostclean.core.broker import Impossible

    deadline = Deadline(_LOOK_SECONDS)
    try:
        truth = deadline.writing(lambda: read_truth(broker(settings, deadline.left)))
    except BadSettings:
        raise
    except (BrokerError, GhostcleanError, Impossible) as error:
        return None, unknown(str(error), max_open)
    contradiction = truth.contradiction()
    return (None, unknown(contradiction, max_open)) if contradiction else (truth, judge(truth, max_open))


def status(
    *, limit: int = 5, with_broker: bool = False, settings: Settings | None = None, now: datetime | None = None
) -> dict[str, Any]:
    """The document of `status --json`; raises StateFailed and BadSettings."""
    from ghostclean.app.gate import DEFAULT_MAX_OPEN
    from ghostclean.app.status import Sources, status_document

    loaded = load(settings)
    with opened(loaded) as parts:
        look = (lambda: _truth_and_gate(loaded, DEFAULT_MAX_OPEN)) if with_broker else None
        return status_document(
            Sources(parts.state, parts.ledger, parts.spool, look),
            now=now or datetime.now(UTC),
            interval=timedelta(seconds=loaded.interval),
            limit=limit,
        )


def explain(trade_id: str) -> list[JournalEntry]:
    """What the journal keeps of a trade, oldest first; raises StateFailed."""
    with opened(load(None)) as parts:
        return parts.state.journal(trade_id=trade_id)


# --------------------------------------------------------------------------- the operator's hand


def undo(run_id: str, *, dry_run: bool) -> Report:
    """Puts back what a run changed; raises GhostcleanError."""
    from ghostclean.app.undo import undo_run

    with opened(load(None)) as parts:
        return undo_run(parts.ledger, parts.state, run_id, new_run_id=new_run_id("undo"), dry_run=dry_run)


def migrate(source: str, target: str, *, layout: str | None, dry_run: bool) -> dict[str, Any]:
    """Copies a ledger to another place or layout, verified; raises GhostcleanError."""
    from ghostclean.app.migrate import migrate_ledger

    raise NotImplementedError


def demo(folder: Path | None) -> Iterator[tuple[str, Any]]:
    raise NotImplementedError
