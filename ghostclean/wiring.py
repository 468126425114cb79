"""The composition root: from settings to parts; adapters import heavy libraries when they are built."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ghostclean.errors import BadSettings, GhostcleanError, LedgerFailed

if TYPE_CHECKING:
    from ghostclean.adapters.snapshot import RecordingBroker, SnapshotBroker
    from ghostclean.app.monitors import Monitors
    from ghostclean.app.parts import Parts, Progress, Stores
    from ghostclean.app.ports import Broker, Monitor, State, Trouble
    from ghostclean.places import Place
    from ghostclean.settings import Settings


def stores(settings: Settings) -> Stores:
    """Ledger, state and spool as set; nothing is connected yet."""
    from ghostclean.adapters.ledgers import open_ledger
    from ghostclean.adapters.spool import FolderSpool
    from ghostclean.app.parts import Stores

    servers: dict[str, Any] = {}
    later: list[State] = []

    def seen_before() -> bool:
        """Whether an earlier run has read this ledger; it is asked only when the ledger is missing."""
        return bool(later[0].recall("ledger", ["seen"]))

    def full_scan() -> bool:
        """Whether the whole ledger must be read; it is asked only where the app keeps an index."""
        from ghostclean.app import index

        return index.scan_is_due(later[0].recall(index.SECTION, [index.NAME]).get(index.NAME))

    ledger = open_ledger(
        settings.ledger_at,
        mapping=settings.mapping_of(settings.ledger_at),
        state=lambda: later[0],
        server=lambda url: _server(url, servers),
        seen_before=seen_before,
        full_scan=full_scan,
    )
    later.append(_state(settings, ledger.place, servers))
    return Stores(
        ledger,
        later[0],
        FolderSpool(settings.spool_at, ledger_place=ledger.place),
        around=lambda: _around(settings, servers),
        met=lambda known: _met(settings.ledger_at, known=known),
    )


def _around(settings: Settings, servers: dict[str, Any]) -> list[str]:
    """Which file of settings was read, and what looks like a ledger near the place of this one."""
    from ghostclean.adapters.nearby import nearby

    found: list[str] = []
    with contextlib.suppress(LedgerFailed):  # a user of Redis that may not look
        found = nearby(settings.ledger_at, lambda url: _server(url, servers))
    return [*filter(None, [settings.read_from]), *([f"it may be {' or '.join(found)}"] if found else [])]


def _met(place: Place, *, known: bool) -> int:
    if place.kind != "file":
        return 0
    from ghostclean.adapters.ledgers.replaced_file import ReplacedFile

    return ReplacedFile(place.path).met(known=known)


def _state(settings: Settings, ledger_place: str, servers: dict[str, Any]) -> State:
    place = settings.state_at
    if place.kind == "sqlite":
        from ghostclean.adapters.state.sqlite import SqliteState

        return SqliteState(place.path, ledger_place=ledger_place)
    from ghostclean.adapters.state.redis import RedisState

    return RedisState(_server(place.where, servers), ledger_place=ledger_place, prefix=settings.key_prefix)


def _server(url: str, servers: dict[str, Any]) -> Any:
    if url not in servers:
        from ghostclean.adapters.redis_client import RedisServer

        servers[url] = RedisServer(url)
    return servers[url]


def broker(settings: Settings) -> Broker:
    """The broker as set: each kind is a module or package of the adapters with an `open_broker`."""
    module = import_module(f"ghostclean.adapters.{settings.broker.kind}")
    found: Broker = module.open_broker(settings.broker, access=lambda: _access(settings))
    return found


def recorder(settings: Settings) -> RecordingBroker | SnapshotBroker:
    """As `broker`, with a `document` of what it was asked; raises BadSettings where there can be none."""
    from ghostclean.adapters.snapshot import RecordingBroker, SnapshotBroker

    if settings.broker.kind == "alpaca":
        return RecordingBroker.connect(**_access(settings))
    found = broker(settings)
    if not isinstance(found, SnapshotBroker):
        raise BadSettings(f"GHOSTCLEAN_BROKER is {settings.broker.kind}, which cannot be recorded (nothing was done)")
    return found


def _access(settings: Settings) -> dict[str, Any]:
    keys = settings.require_credentials()
    return {
        "trading_url": settings.trading_url,
        "data_url": settings.data_url,
        "api_key": keys.key.get_secret_value(),
        "secret_key": keys.secret.get_secret_value(),
        "live": settings.live,
    }


def channels(settings: Settings) -> list[Monitor]:
    """The monitors that are set; raises BadSettings. Loading what sends alerts may take a second."""
    if not (settings.heartbeat_url or settings.alert_url or settings.metrics_file):
        return []
    from ghostclean.adapters.monitors import CHANNELS

    given = [(build, value) for name, build in CHANNELS.items() if (value := settings.value(name)) is not None]
    return [channel for build, value in given for channel in build(value)]


def _monitors(settings: Settings, told: Sequence[Monitor], ledger: str) -> Monitors:
    from ghostclean.app.monitors import Monitors

    if not told or settings.alert_url is None:
        return Monitors(told)
    from ghostclean.adapters.alerts import LocalMemo

    return Monitors(told, LocalMemo(settings.alert_url.get_secret_value(), ledger))


def rehearsals(settings: Settings, kept: Stores) -> dict[str, Callable[[], list[Trouble]]]:
    """What else a run writes on this machine, by name."""
    found = {"spool": kept.spool.rehearse}
    if settings.metrics_file:
        from ghostclean.adapters.metrics import MetricsFile

        found["metrics"] = MetricsFile(settings.metrics_file).rehearse
    if settings.alert_url is not None:
        from ghostclean.adapters import alerts

        found["alerts"] = partial(alerts.rehearse, settings.alert_url.get_secret_value())
    return found


@contextlib.contextmanager
def unopened(settings: Settings) -> Iterator[Stores]:
    kept = stores(settings)
    try:
        yield kept
    finally:
        with contextlib.suppress(GhostcleanError, OSError):  # it changes nothing about what was done
            kept.state.close()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """The stores with the state opened; raises StateFailed."""
    with unopened(settings) as kept:
        kept.state.open()
        yield kept


@contextlib.contextmanager
def connected(settings: Settings, told: Sequence[Monitor] = (), progress: Progress | None = None) -> Iterator[Parts]:
    """The stores, the broker, and the `channels` that shall be told."""
    from ghostclean.app.parts import Parts, unseen

    with unopened(settings) as kept, contextlib.closing(broker(settings)) as asked:
        yield Parts(
            kept.ledger,
            kept.state,
            kept.spool,
            around=kept.around,
            met=kept.met,
            broker=asked,
            monitors=_monitors(settings, told, kept.ledger.place),
            progress=progress or unseen,
        )
