"""The composition root: from settings to parts; adapters import heavy libraries when they are built."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ghostclean.errors import GhostcleanError

if TYPE_CHECKING:
    from ghostclean.adapters.alpaca import AlpacaBroker
    from ghostclean.adapters.alpaca.snapshot import RecordingBroker, SnapshotBroker
    from ghostclean.app.monitors import Monitors
    from ghostclean.app.parts import Parts, Stores
    from ghostclean.app.ports import State, Trouble
    from ghostclean.settings import Settings

AnyAlpaca = TypeVar("AnyAlpaca", bound="AlpacaBroker")


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
    return Stores(ledger, later[0], FolderSpool(settings.spool_at, ledger_place=ledger.place))


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


def broker(settings: Settings) -> AlpacaBroker:
    if settings.broker.kind == "file":
        from ghostclean.adapters.alpaca.snapshot import SnapshotBroker

        return SnapshotBroker.load(settings.broker.path)
    from ghostclean.adapters.alpaca import AlpacaBroker

    return _connected(AlpacaBroker, settings)


def recorder(settings: Settings) -> RecordingBroker | SnapshotBroker:
    """As `broker`, with a `document` of what it was asked."""
    from ghostclean.adapters.alpaca.snapshot import RecordingBroker, SnapshotBroker

    if settings.broker.kind == "file":
        return SnapshotBroker.load(settings.broker.path)
    return _connected(RecordingBroker, settings)


def _connected(kind: type[AnyAlpaca], settings: Settings) -> AnyAlpaca:
    keys = settings.require_credentials()
    return kind.connect(
        trading_url=settings.trading_url,
        data_url=settings.data_url,
        api_key=keys.key.get_secret_value(),
        secret_key=keys.secret.get_secret_value(),
        live=settings.live,
    )


def _monitors(settings: Settings, ledger: str) -> Monitors:
    from ghostclean.app.monitors import Monitors

    if not (settings.heartbeat_url or settings.alert_url or settings.metrics_file):
        return Monitors()
    from ghostclean.adapters.monitors import CHANNELS, LocalMemo

    channels = [build(value) for name, build in CHANNELS.items() if (value := settings.value(name)) is not None]
    alert_url = settings.value("GHOSTCLEAN_ALERT_URL")
    return Monitors(channels, LocalMemo(alert_url, ledger) if alert_url else None)


def rehearsals(settings: Settings, kept: Stores) -> dict[str, Callable[[], list[Trouble]]]:
    """What else a run writes on this machine, by name."""
    found = {"spool": kept.spool.rehearse}
    if settings.metrics_file:
        from ghostclean.adapters.monitors import MetricsFile

        found["metrics"] = MetricsFile(settings.metrics_file).rehearse
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
def connected(settings: Settings) -> Iterator[Parts]:
    from ghostclean.app.parts import Parts

    with unopened(settings) as kept, contextlib.closing(broker(settings)) as asked:
        yield Parts(
            kept.ledger,
            kept.state,
            kept.spool,
            broker=asked,
            monitors=_monitors(settings, kept.ledger.place),
        )
