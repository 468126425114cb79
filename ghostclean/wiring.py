"""The composition root: from settings to parts, from parts to one call a command.

Heavy libraries are imported by the adapter that needs them, when it is built and not before.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostclean.durations import parse_duration
from ghostclean.errors import BadSettings, BrokerTruthFailed, GhostcleanError
from ghostclean.result import EXIT_CODES, Result

if TYPE_CHECKING:
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.demo import Demo
    from ghostclean.app.gate import Gate
    from ghostclean.app.operate.corrections import Report
    from ghostclean.app.outside import OutsideEyes
    from ghostclean.app.parts import Parts
    from ghostclean.app.ports import Broker, Lease, Ledger, Spool, State
    from ghostclean.core.broker import BrokerTruth
    from ghostclean.manage_result import ManageResult
    from ghostclean.places import Place
    from ghostclean.settings import Settings

TimeLeft = Callable[[], float]

_LONGEST_NAME = 200
_LOOK_SECONDS = 20.0  # for commands that only look: status, gate, doctor
_PIN_SECONDS = 2.0
_SNAPSHOT_SECONDS = 120.0
_RECONCILE_FIRST_SECONDS = 3.0  # of auto-manage


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

    def full_scan() -> bool:
        """Whether the whole ledger must be read; it is asked only where the app keeps an index."""
        from ghostclean.app import index

        return index.scan_is_due(later[0].recall(index.SECTION, [index.NAME]).get(index.NAME), datetime.now(UTC))

    ledger = _ledger(settings.ledger_at, servers, seen_before, full_scan)
    later.append(_state(settings, ledger.place, servers))
    return Stores(ledger, later[0], FolderSpool(settings.spool_at, ledger_place=ledger.place))


def _ledger(
    place: Place, servers: dict[str, Any], seen_before: Callable[[], bool], full_scan: Callable[[], bool]
) -> Ledger:
    if place.kind == "file":
        from ghostclean.adapters.file_ledger import FileLedger

        return FileLedger(place.path, seen_before=seen_before)
    from ghostclean.adapters.redis_ledger import RedisLedger

    server = _server(place.where, servers)
    return RedisLedger(server, place.key, seen_before=seen_before, full_scan=full_scan)


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
        _close(parts.state)


def load(settings: Settings | Mapping[str, Any] | None) -> Settings:
    """These settings, or those of these variables alone, or of the environment and `.env`."""
    from ghostclean.settings import Settings

    if settings is None:
        return Settings.load()
    if isinstance(settings, Settings):
        return settings
    given: object = settings
    if not isinstance(given, Mapping):
        raise BadSettings("settings must be a Settings or a mapping of variables (nothing was done)")
    return Settings.of(given)


def _is_whole(value: object) -> bool:
    return isinstance(value, int)


def name_of(text: object, what: str) -> str:
    """A name that is stored and printed: one printable line; raises BadSettings."""
    stripped = text.strip() if isinstance(text, str) else ""
    if not stripped or len(stripped) > _LONGEST_NAME or not stripped.isprintable():
        raise BadSettings(f"{what} is wrong: it must be 1 to {_LONGEST_NAME} printable characters (nothing was done)")
    return stripped


def new_run_id(kind: str) -> str:
    """A run id that sorts by time: `reconcile-20261122T073812-1f3a9c`."""
    return f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def run_parts(settings: Settings, deadline: Callable[[], Deadline]) -> Parts:
    """Everything one run needs, the broker bound to the deadline in force; raises BadSettings."""
    from ghostclean.app.parts import Parts

    kept = stores(settings)
    # Reads stop where the share kept for writing begins; what is sent later may use that share.
    asked = broker(settings, lambda: deadline().left_for_reading() or deadline().left())
    return Parts(broker=asked, ledger=kept.ledger, state=kept.state, spool=kept.spool, eyes=_eyes(settings))


def _eyes(settings: Settings) -> OutsideEyes:
    """The outside eyes that are configured; none costs nothing."""
    from ghostclean.app.outside import OutsideEyes

    eyes = OutsideEyes()
    if settings.heartbeat_url or settings.alert_url or settings.metrics_file:
        from ghostclean.adapters.outside import Heartbeat, MetricsFile, Webhook

        eyes.heartbeat = Heartbeat(settings.heartbeat_url.get_secret_value()) if settings.heartbeat_url else None
        eyes.webhook = Webhook(settings.alert_url.get_secret_value()) if settings.alert_url else None
        eyes.metrics = MetricsFile(settings.metrics_file) if settings.metrics_file else None
    return eyes


# --------------------------------------------------------------------------- runs


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
    from ghostclean.app.parts import Options
    from ghostclean.app.reconcile import run_reconcile

    loaded = load(settings)
    if orphans not in ("report", "adopt", "flatten"):
        raise BadSettings(f"orphans must be report, adopt or flatten, not {orphans!r:.40} (nothing was done)")
    if not _is_whole(max) or max < 1:
        raise BadSettings("max must be a whole number of at least 1 (nothing was done)")
    close_reason, source = name_of(close_reason, "close_reason"), name_of(source, "source")
    run_id = new_run_id("reconcile") if run_id is None else name_of(run_id, "run_id")
    policy = loaded.policy(
        close=close,
        sync=sync,
        close_reason=close_reason,
        orphans=orphans,
        allow_mass_close=allow_mass_close,
        max_trades=max,
    )
    limit = _deadline(deadline, counted_from_start=counted_from_start)
    options = Options(run_id, source, limit, policy, dry_run)
    parts = run_parts(loaded, lambda: limit)
    try:
        return run_reconcile(parts, options)
    finally:
        _close(parts.state)


def auto_manage(
    *,
    settings: Settings | Mapping[str, Any] | None = None,
    dry_run: bool = False,
    force: bool = False,
    source: str = "python",
    run_id: str | None = None,
    deadline: float | str = 60,
    counted_from_start: bool = False,
) -> ManageResult:
    """One auto-manage run; raises only BadSettings, every other failure is in the result."""
    from ghostclean.app.auto_manage import ManageOptions, run_auto_manage
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.observation import observe_for_orders
    from ghostclean.app.parts import Options
    from ghostclean.app.reconcile import run_reconcile

    loaded = load(settings)
    source = name_of(source, "source")
    name = new_run_id("auto-manage") if run_id is None else name_of(run_id, "run_id")
    policy = loaded.policy()
    limit = _deadline(deadline, counted_from_start=counted_from_start)
    turn = [limit]  # whose time the broker's requests use: the reconcile before has its own, shorter one
    parts = run_parts(loaded, lambda: turn[0])

    def reconcile_first(lease: Lease | None) -> Result:
        turn[0] = short = Deadline(min(_RECONCILE_FIRST_SECONDS, limit.left()))
        try:
            options = Options(f"{name}-reconcile", "auto-manage", short, policy, dry_run)
            return run_reconcile(parts, options, lease=lease)
        finally:
            turn[0] = limit

    options = ManageOptions(
        run_id=name,
        source=source,
        deadline=limit,
        manage=loaded.manage(),
        grace=policy.grace,
        dry_run=dry_run,
        force=force,
    )
    try:
        return run_auto_manage(
            parts,
            options,
            reconcile_first=reconcile_first,
            survey=lambda: observe_for_orders(parts, limit, policy),
        )
    finally:
        _close(parts.state)


def _deadline(deadline: float | str, *, counted_from_start: bool) -> Deadline:
    from ghostclean.app.deadline import Deadline, process_age

    try:
        seconds = parse_duration(str(deadline))
    except ValueError as error:
        raise BadSettings(f"deadline is wrong: {error} (nothing was done)") from None
    # Start-up counts, but never more than half: a run that may not even ask says nothing about the broker.
    return Deadline(seconds, already_used=min(process_age(), seconds / 2) if counted_from_start else 0.0)


def _close(state: State) -> None:
    """Gives connections back; a failure to do so changes nothing about the run."""
    with contextlib.suppress(GhostcleanError, OSError):
        state.close()


def not_begun(error: str, detail: str, run_id: str | None = None) -> Result:
    """The result of a run that never began, under the id that it was to have."""
    from ghostclean.core.times import iso

    known = error if error in EXIT_CODES else "reconcile_failed"
    return Result(run_id or "", "cli", iso(datetime.now(UTC)), 0, error=known, detail=detail)


# --------------------------------------------------------------------------- looking


def gate(max_open: int, settings: Settings | None = None) -> Gate:
    """May a new entry be made? Unknown when the broker cannot be read; raises BadSettings."""
    return _truth_and_gate(load(settings), max_open)[1]


def _truth_and_gate(settings: Settings, max_open: int) -> tuple[BrokerTruth | None, Gate]:
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.gate import judge, unknown
    from ghostclean.app.observation import read_truth

    deadline = Deadline(_LOOK_SECONDS)
    parts = run_parts(settings, lambda: deadline)
    try:
        truth = read_truth(parts, deadline)
        why = _wrong_account(settings, parts, truth, deadline)
    except BrokerTruthFailed as error:
        # Its words are those of a run, which would try again.
        said = str(error).partition(": nothing was closed")[0]
        bare = said.removeprefix("broker truth is not observed (")
        return None, unknown(said if bare == said else bare.removesuffix(")"), max_open)
    finally:
        _close(parts.state)
    return (truth, judge(truth, max_open)) if why is None else (None, unknown(why, max_open))


def _wrong_account(settings: Settings, parts: Parts, truth: BrokerTruth, deadline: Deadline) -> str | None:
    """Why this is not the account pinned to the ledger; None too where the state cannot say."""
    from ghostclean.app.operate.corrections import pinned_account
    from ghostclean.errors import DeadlineExceeded

    if settings.state_at.kind == "sqlite" and not settings.state_at.path.exists():
        return None  # nothing is pinned, and a look must not make a state

    def recall() -> str | None:
        parts.state.open()
        pin = pinned_account(parts.state)
        return None if pin is None else pin.mismatch(truth.account, parts.broker.live)

    try:
        return deadline.within(recall, min(_PIN_SECONDS, deadline.left()))
    except (GhostcleanError, DeadlineExceeded):
        return None  # entries depend on the broker alone


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


def doctor(*, pin: bool) -> list[dict[str, Any]]:
    """Every check with its cure; wrong settings are the first failed check."""
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.doctor import Patient, examine

    try:
        settings = load(None)
    except BadSettings as error:
        return [{"name": "settings", "ok": False, "found": str(error), "cure": "set it right and ask again"}]
    kept = stores(settings)
    deadline = Deadline(_LOOK_SECONDS)
    patient = Patient(
        ledger=kept.ledger,
        state=kept.state,
        spool=kept.spool,
        broker=lambda: broker(settings, deadline.left),
        deadline=deadline,
        settings=tuple(origin for origin in settings.origins() if origin.source != "default"),
        unread=settings.unread(),
        account_kind="snapshot" if settings.broker_at.kind == "file" else "live" if settings.live else "paper",
        interval=timedelta(seconds=settings.interval),
        grace=settings.grace,
    )
    try:
        return [check.to_dict() for check in examine(patient, pin=pin)]
    finally:
        _close(kept.state)


def snapshot() -> dict[str, Any]:
    """Broker truth, every look-up a decision needs and the ledger's open trades, as one document."""
    from ghostclean.adapters.snapshot import RecordingBroker
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.snapshot import record

    settings = load(None)
    deadline = Deadline(_SNAPSHOT_SECONDS)
    parts = run_parts(settings, lambda: deadline)
    recorder = RecordingBroker(parts.broker)
    try:
        trades = record(replace(parts, broker=recorder), deadline, settings.policy())
        return recorder.document(trades)
    finally:
        _close(parts.state)


def save(document: Mapping[str, Any], output: str) -> str:
    """Writes a document to a file that only its owner may read; returns its path."""
    from ghostclean.adapters.private_file import write_private
    from ghostclean.core.jsontext import PRETTY, dumps

    return write_private(output, dumps(document, PRETTY) + "\n")


def explain(trade_id: str) -> dict[str, Any]:
    """The document of `explain --json`: what the journal keeps of a trade; raises StateFailed."""
    from ghostclean.app.explain import explain_trade

    with opened(load(None)) as parts:
        return explain_trade(parts.ledger, parts.state, trade_id)


# --------------------------------------------------------------------------- the operator's hand


def undo(run_id: str, *, dry_run: bool) -> Report:
    """Puts back what a run changed; raises GhostcleanError."""
    from ghostclean.app.operate.undo import undo_run

    with opened(load(None)) as parts:
        return undo_run(parts.ledger, parts.state, run_id, undo_id=new_run_id("undo"), dry_run=dry_run)


def resolve(trade_id: str, *, exit_order: str | None, vanished: bool, entry_order: str | None, dry_run: bool) -> Report:
    """Applies the operator's word on a trade; raises GhostcleanError."""
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.operate.resolve import Claim, resolve_trade

    settings = load(None)
    deadline = Deadline(_LOOK_SECONDS)
    parts = run_parts(settings, lambda: deadline)
    claim = Claim(exit_order=exit_order, vanished=vanished, entry_order=entry_order)
    try:
        parts.state.open()
        policy = settings.policy()
        return resolve_trade(parts, deadline, policy, trade_id, claim, run_id=new_run_id("resolve"), dry_run=dry_run)
    finally:
        _close(parts.state)


def migrate(source: str, target: str, *, layout: str | None, dry_run: bool) -> dict[str, Any]:
    """Copies a ledger to another place or layout, verified; raises GhostcleanError."""
    from ghostclean.adapters.copying import copy_ledger
    from ghostclean.places import ledger_place

    key = load(None).ledger_key
    places = []
    for name, text in (("FROM", source), ("TO", target)):
        try:
            places.append(ledger_place(text, key))
        except ValueError as error:
            raise BadSettings(f"{name} is wrong: {error} (nothing was done)") from None
    return copy_ledger(places[0], places[1], layout=layout, dry_run=dry_run)


def schedule(kind: str) -> str:
    """A ready-made schedule with the paths of this installation."""
    import shutil
    import sys

    from ghostclean.app.schedule import schedule_text

    beside = Path(sys.executable).parent / "ghostclean"
    program = str(beside) if beside.exists() else shutil.which("ghostclean") or str(beside)
    folder = Path.cwd()
    return schedule_text(kind, program, str(folder), str(folder / ".env"))


def demo(folder: str | None) -> Demo:
    """The whole job on sample data, whatever the environment says; raises BadSettings."""
    from ghostclean.app.demo import run_demo
    from ghostclean.settings import Settings

    def run(values: Mapping[str, str], dry_run: bool) -> Result:
        return reconcile(settings=Settings.of(values), dry_run=dry_run, source="demo")

    def look(values: Mapping[str, str]) -> dict[str, Any]:
        return status(settings=Settings.of(values))

    return run_demo(folder, run, look)
