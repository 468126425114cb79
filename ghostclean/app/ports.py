"""What the shell needs from the outside world: one protocol for each kind of part.

A method may block on a network (the shell bounds it) and raises only the errors named. One contract suite
tests all implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from ghostclean.core.alerts import Alert, Origin
from ghostclean.core.broker import Account, Activity, Fill, MarketClock, Order, Positions, Session, WorkingOrders
from ghostclean.core.inputs import Memory
from ghostclean.core.ledger import Fit
from ghostclean.core.safety import Pin

Record = Mapping[str, Any]


# --------------------------------------------------------------------------- broker


@dataclass(frozen=True, slots=True)
class History:
    """Orders of some symbols in any status; complete back to `since` unless `truncated`."""

    orders: tuple[Order, ...]
    since: datetime
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order to be sent: quantities and prices as Decimal, `client_id` always set."""

    symbol: str
    side: str
    qty: Decimal
    type: str
    time_in_force: str
    client_id: str
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    order_class: str = "simple"
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """A last trade or the middle of a two-sided quote, with its time; `is_trade` says which."""

    value: Decimal
    at: datetime
    is_trade: bool


class Broker(Protocol):
    """Reads raise BrokerError; a look-up returns None for a true 404 only."""

    @property
    def live(self) -> bool: ...

    def now(self) -> datetime:
        """The broker's own time, from the `Date` of its latest answer; ours before the first."""

    def requests_left(self) -> int | None:
        """How many more requests this minute allows, by the latest answer; None when unknown."""

    def account(self) -> Account: ...

    def working_orders(self) -> WorkingOrders:
        """All working orders, every page, legs flattened; a row that cannot be read is in it as such."""

    def positions(self) -> Positions:
        """The whole list; a row that cannot be read is in it as such."""

    def order(self, order_id: str) -> tuple[Order, ...] | None:
        """The order with its nested legs (the order first), None for a true 404."""

    def order_by_client_id(self, client_id: str) -> tuple[Order, ...] | None: ...

    def history(self, symbols: Sequence[str], since: datetime, max_pages: int) -> History:
        """Orders of any status in these symbols submitted after `since`, nested legs included."""

    def fills(self, since: datetime) -> tuple[Fill, ...]:
        """Every fill of the account since then, oldest first; complete or BrokerError."""

    def activities(self, since: datetime) -> tuple[Activity, ...]:
        """Option and corporate-action activities since then; complete or BrokerError."""

    def clock(self) -> MarketClock: ...

    def calendar(self, first: date, last: date) -> tuple[Session, ...]: ...

    def asset(self, symbol: str) -> Mapping[str, Any] | None: ...

    def prices(self, symbols: Sequence[str]) -> Mapping[str, Price]:
        """Latest prices by symbol key; a symbol without a usable price is absent."""

    def submit(self, request: OrderRequest) -> tuple[Order, ...]:
        """Sends one order once. Refused: not placed. AnswerLost: look it up by client id."""

    def replace(self, order_id: str, client_id: str, **prices: Decimal) -> Order:
        """Replaces stop_price/limit_price/qty; the answer is the new order. As `submit`."""

    def cancel(self, order_id: str) -> None:
        """Asks for a cancel; success means asked, not canceled."""

    def close(self) -> None: ...


# --------------------------------------------------------------------------- what may be in the way


class Trouble(NamedTuple):
    """What will fail in a run, or with `fails` False may fail one day, and the cure."""

    found: str
    cure: str
    fails: bool = True


# --------------------------------------------------------------------------- ledger


class WriteOutcome(StrEnum):
    """What became of one change of the ledger."""

    WRITTEN = "written"
    CHANGED = "changed"  # the app changed that trade since we read it: decide again
    GONE = "gone"  # the record is no longer there
    EXISTS = "exists"  # an insert whose id is already taken
    REFUSED = "refused"  # the ledger does not take these values of that trade


@dataclass(frozen=True, slots=True)
class Change:
    """New values for fields of one record, `base` as the decision saw it (None inserts); `remove` takes fields out."""

    trade_id: str
    base: Record | None
    fields: Mapping[str, Any]
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerView:
    """One read: `active` are the records that are not final, `total` counts all, `strangers` describe non-objects.

    `complete` is False when only the app's index was read; `index_sound` is True when that index named every
    active record. `exists` is False for a key or file that was never there. `repeated`: ids of several
    records, final ones included.
    """

    active: tuple[Record, ...]
    total: int
    strangers: tuple[str, ...] = ()
    complete: bool = True
    index_sound: bool = False
    exists: bool = True
    repeated: frozenset[str] = frozenset()

    def fit(self) -> Fit:
        """What its statuses mean, and which orders it names."""
        return Fit.of(self.active, total=self.total, strangers=len(self.strangers), exists=self.exists)


class Lease(Protocol):
    """The right to write, held for a bounded time."""

    token: str
    redis_place: str | None  # where the lock lives, when that is a Redis (its identity)
    redis_key: str | None  # the lock's key there

    def verify(self) -> None:
        """Raises FencedOff when the lock is no longer ours."""


class Records(NamedTuple):
    """Every record of a ledger as it is spelled, and the names of what an object holds besides."""

    texts: tuple[str, ...]
    beside: tuple[str, ...] = ()
    exists: bool = True


class Ledger(Protocol):
    """The app's list of trades; every method raises LedgerFailed."""

    place: str  # for people and for naming the state; never a secret

    @property
    def chunk(self) -> int: ...

    def read(self, *, whole: bool = False) -> LedgerView:
        """What stands there now; with `whole` without trust in an index of the app's."""

    def history(self, keys: frozenset[str]) -> list[Record]:
        """The final records of these symbol keys, from the same reading as `read` where it can."""

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        """The present records with these ids, read anew."""

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        """Compare-and-set, one outcome a change, in order; FencedOff when the lease is lost.

        TradeRefused comes last: all other changes are made, and have their outcome.

        A change is applied only if the record equals its `base` as JSON values; all else keeps its exact text. `done`
        gets each outcome at once: after a failure the next change's is unknown.
        """

    def records(self) -> Records:
        """All of it, for a copy; a ledger with a record that cannot be read is refused."""

    def fill(self, texts: Sequence[str], *, dry_run: bool = False) -> None:
        """Puts records, as spelled, into an empty ledger; `dry_run` checks only."""

    def describe(self) -> str: ...

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        """What keeps a run from reading and writing here, tried without a change; `lease` where there is one."""


# --------------------------------------------------------------------------- state

FAILING = "failing"  # the section of failed runs in a row, by kind of run
WORDS = "words"  # in the section of the ledger: statuses that once stood beside open trades
OWED = "owed_stops"  # the section of stops that the sale of an orphan took away, by the orphan's name


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One change (of the ledger or of a verdict) of one trade, with its proof.

    `outcome`: `intended`, `written`, `left` (not written after all) or `noted` (changes no field). `before` and
    `after` hold just the changed fields.
    """

    id: str
    at: str
    run_id: str
    source: str
    trade_id: str
    ticker: str
    verdict: str
    action: str
    reason: str
    proof: tuple[Mapping[str, Any], ...]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    outcome: str

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, attribute) for attribute, name in _STORED.items()}
        return {**values, "proof": list(self.proof)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JournalEntry:
        values = {attribute: data[name] for attribute, name in _STORED.items()}
        return cls(**{**values, "proof": tuple(data["proof"])})


_STORED = {f.name: {"run_id": "runId", "trade_id": "tradeId"}.get(f.name, f.name) for f in fields(JournalEntry)}


@dataclass(frozen=True, slots=True)
class Recalled(Memory):
    """What earlier runs left, in one reading: each field is a section of the state, by its name.

    By order id: `orders` (final answers). By trade id: `verdicts` (the last, and since when), `flatten` (closes
    begun), `managed`. By orphan: `owed_stops`. By names: `pin`, `ledger`, `eod`, `attention`. `intents` are entries of
    dead runs,
    `neighbours` the words of the other ledgers of the pinned account in this state.
    """

    orders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    owed_stops: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pin: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    attention: Mapping[str, Any] = field(default_factory=dict)
    flatten: Mapping[str, Any] = field(default_factory=dict)
    managed: Mapping[str, Any] = field(default_factory=dict)
    eod: Mapping[str, Any] = field(default_factory=dict)
    intents: tuple[JournalEntry, ...] = ()

    @property
    def pinned(self) -> Pin | None:
        """The account of this ledger; None before the first pin."""
        account = self.pin.get("account")
        return Pin(str(account.get("id")), bool(account.get("live"))) if account is not None else None


# What a kind of run reads at its start.
RECONCILE_MEMORY = (
    "first_seen", "last_worked", "misses", "exits", "holds", "unproven", "orders", "verdicts", "owed_stops", "pin",
    "ledger", "attention", "neighbours", "intents",
)  # fmt: skip
MANAGE_MEMORY = ("owed_stops", "flatten", "managed", "eod", "ledger", "attention")


@dataclass(frozen=True, slots=True)
class RunCommit:
    """A run's record, stored in one transaction, once per `run_id` (of this delivery) and kind.

    `run` is the list entry; `add` and `put` change the summary. `entries` are appended or, by id, replaced; a
    `written` one stays. `memory`: section -> id -> value (None forgets). `totals`: by entry id, the summary field
    that goes up by one when that entry first becomes `written`, whoever commits it. `about` says which
    ledger of the state this is, `word` what it holds, by the account's id.
    """

    kind: str
    run_id: str
    run: Mapping[str, Any]
    add: Mapping[str, int] = field(default_factory=dict)
    put: Mapping[str, str] = field(default_factory=dict)
    entries: tuple[JournalEntry, ...] = ()
    memory: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    totals: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] | None = None
    word: tuple[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Summary hash as stored (strings) and the newest runs."""

    summary: Mapping[str, str]
    runs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class KnownLedger:
    """A ledger that keeps its state in the same place: its last word about itself, and its summary.

    `about` is empty for the present one while no run of it has said anything.
    """

    about: Mapping[str, Any]
    summary: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LockInfo:
    """Who holds the lock and for how many seconds more."""

    holder: str
    seconds_left: float


class State(Protocol):
    """ghostclean's own memory; every method raises StateFailed."""

    place: str

    def open(self) -> None:
        """Connects and checks the schema number; a newer one than ours is refused."""

    def acquire(self, holder: str, seconds: float) -> Lease | None:
        """The lock for at most that long; None while another holds it."""

    def release(self, lease: Lease) -> None:
        """Gives the lock back if it is still ours."""

    def lock_info(self) -> LockInfo | None: ...

    def recall(self, section: str, ids: Iterable[str] | None = None) -> dict[str, Any]:
        """What was remembered under a section, all of it or for these ids."""

    def recall_all(self, names: Sequence[str]) -> Recalled:
        """These fields of `Recalled` in one round trip; damage anywhere in them is StateFailed."""

    def remember(self, section: str, values: Mapping[str, Any]) -> None:
        """Stores JSON values by id at once; None forgets."""

    def intend(self, entries: Sequence[JournalEntry], lease: Lease | None = None) -> None:
        """Journals entries as `intended`, durably; FencedOff when another run has taken the lock since `lease`."""

    def intents(self) -> list[JournalEntry]:
        """Entries still `intended`: a run died between the journal and its commit."""

    def commit(self, commit: RunCommit, lease: Lease | None = None, *, release: bool = False) -> None:
        """Stores a run's record in one transaction, once; FencedOff, storing nothing, when `lease` was overtaken.

        `release` gives the lock back in the same transaction.
        """

    def journal(self, *, trade_id: str | None = None, run_id: str | None = None) -> list[JournalEntry]:
        """Entries of a trade or a run, oldest first."""

    def telemetry(self, kind: str, limit: int) -> Telemetry:
        """Summary and newest runs of this ledger; the sum over all is for dashboards."""

    def ledgers(self, kind: str) -> list[KnownLedger]:
        """Every ledger that has recorded a run in this state, the present one included."""

    def rehearse(self) -> list[Trouble]:
        """What keeps a run from using it, tried without a change."""

    def close(self) -> None: ...


class Spool(Protocol):
    """A local place for run records that the state could not take."""

    def put(self, commit: RunCommit) -> None: ...

    def waiting(self) -> int: ...

    def rehearse(self) -> list[Trouble]:
        """What keeps it from taking a record."""

    def deliver(self, state: State) -> int:
        """Commits what waits, oldest first, and drops it; how many were delivered."""


# --------------------------------------------------------------------------- monitors


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A finished run: kind (`reconcile`, `auto-manage`), whose it was, JSON document, alerts, last success known."""

    kind: str
    origin: Origin
    document: Mapping[str, Any]
    alerts: Sequence[Alert]
    last_success: datetime | None
    now: datetime


class Monitor(Protocol):
    """One channel to the outside; both methods return what sends, called with the seconds it may take, or None.

    It raises GhostcleanError when it does not arrive. `patience`: the most seconds it gets. `address`: whom it alerts,
    in a form without secrets that stays the same from run to run; empty when it sends no alerts.
    """

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def patience(self) -> float: ...

    def started(self, run_id: str, origin: Origin) -> Callable[[float], None] | None: ...

    def ended(self, run: EndedRun) -> Callable[[float], None] | None: ...
