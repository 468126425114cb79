"""The state in a SQLite file, for a ledger without Redis.

WAL, so that `status` reads while a run writes; synced on every commit, so that an intent is on
disk before the ledger is touched. Every change is one BEGIN IMMEDIATE transaction.

In `summary` and `run` a kind stands for the sum over all ledgers, `<ns>:<kind>` for the telemetry
of one; in `memory` the empty namespace is where ledgers tell each other about themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ghostclean.adapters.disk import disk_troubles
from ghostclean.app.ports import JournalEntry, Lease, LockInfo, RunCommit, Trouble
from ghostclean.core.ledger import dumps
from ghostclean.errors import StateFailed

from .form import DONE_KEPT, INTENDED, JOURNAL_KEPT, NEIGHBOURS, SCHEMA, check_schema, runs_kept
from .stored import Basis, Changes, Found, StateLease, StoredState, Texts
from .upgrade import Shared

_APPLICATION = 0x47434C4E  # "GCLN", so that another program's database is never written to
_BUSY_SECONDS = 5.0
_LINES: dict[Path, threading.RLock] = {}
_LEDGERS = "ledgers"
_NO_ROOM = 64 * 1024  # the index beside the write-ahead log alone takes 32 KiB

_TABLES = """
CREATE TABLE lock (ns TEXT PRIMARY KEY, fence INTEGER NOT NULL, token TEXT, holder TEXT, expires REAL, seconds REAL);
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, ns TEXT NOT NULL, id TEXT NOT NULL, trade_id TEXT NOT NULL,
  run_id TEXT NOT NULL, intended INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (ns, id));
CREATE INDEX journal_trade ON journal (ns, trade_id);
CREATE INDEX journal_run ON journal (ns, run_id);
CREATE TABLE memory (ns TEXT, section TEXT, id TEXT, text TEXT NOT NULL, PRIMARY KEY (ns, section, id));
CREATE TABLE done (seq INTEGER PRIMARY KEY AUTOINCREMENT, ns TEXT, kind TEXT, run_id TEXT, UNIQUE (ns, kind, run_id));
CREATE TABLE summary (kind TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, name));
CREATE TABLE run (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX run_kind ON run (kind, seq);
"""

# What SQLite says, and what it means for a person; the first that matches.
_REASONS = (
    ("disk is full", "the disk is full", "free some space"),
    ("readonly", "it is read-only", "make the file and its folder writable for this user"),
    ("unable to open", "it cannot be opened", "check that the folder exists and is writable for this user"),
    ("not a database", "it is not a SQLite database", "move the file away, or point GHOSTCLEAN_STATE elsewhere"),
    (
        "malformed",
        "it is damaged",
        "restore a backup, or move it away and pin the account again (ghostclean doctor --pin)",
    ),
    ("locked", "another process keeps it locked", "let that process end, then run again"),
    (
        "directory",
        "its path is a folder, or leads through a file",
        "point GHOSTCLEAN_STATE at sqlite:/some/folder/file.db",
    ),
    ("ermission denied", "this user may not write there", "make the file and its folder writable for this user"),
    ("Read-only", "the file system is read-only", "point GHOSTCLEAN_STATE at a place that can be written"),
    ("No space", "the disk is full", "free some space"),
    ("disk I/O", "the disk reports an error", "check the disk; WAL needs a local one"),
)


class SqliteState(StoredState):
    """The `State` in a SQLite file; `now` gives seconds since the epoch, for the lock's expiry."""

    def __init__(
        self,
        path: str | Path,
        *,
        ledger_place: str,
        now: Callable[[], float] = time.time,
        journal_kept: int = JOURNAL_KEPT,
    ) -> None:
        super().__init__(ledger_place, journal_kept=journal_kept)
        self.path = Path(path).expanduser().absolute()
        self.place = f"sqlite:{self.path}"
        self._now = now
        self._turn = threading.Lock()  # calls come from several threads, one connection serves them
        # Writers of other accounts in this process wait here: those that wait within SQLite starve one another.
        self._line = _LINES.setdefault(self.path, threading.RLock())
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Creates the file if there is none and checks the schema number."""
        with self._turn, self._line:
            self._opened()

    def close(self) -> None:
        """Closes the file, unless a call that its caller gave up still hangs in it."""
        if not self._turn.acquire(timeout=1):
            return
        try:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        finally:
            self._turn.release()

    def rehearse(self) -> list[Trouble]:
        return disk_troubles(self.path.parent)

    # ------------------------------------------------------------------ lock

    def acquire(self, holder: str, seconds: float) -> Lease | None:
        with self._writing("Taking the lock") as db:
            row = db.execute("SELECT fence, token, expires, seconds FROM lock WHERE ns = ?", (self._ns,)).fetchone()
            if row is not None and row[1] is not None and self._left(row[2], row[3]) > 0:
                return None
            fence = 1 if row is None else row[0] + 1
            token = f"{fence}:{secrets.token_hex(12)}"
            db.execute(
                "INSERT OR REPLACE INTO lock VALUES (?, ?, ?, ?, ?, ?)",
                (self._ns, fence, token, holder, self._now() + seconds, seconds),
            )
        return StateLease(token, self)

    def lock_info(self) -> LockInfo | None:
        with self._reading("Reading the lock") as db:
            row = db.execute("SELECT holder, expires, seconds, token FROM lock WHERE ns = ?", (self._ns,)).fetchone()
        if row is None or row[3] is None:
            return None
        left = self._left(row[1], row[2])
        return LockInfo(row[0], left) if left > 0 else None

    def holds(self, token: str) -> bool:
        with self._reading("Checking the lock") as db:
            row = db.execute(
                "SELECT expires, seconds FROM lock WHERE ns = ? AND token = ?", (self._ns, token)
            ).fetchone()
        return row is not None and self._left(*row) > 0

    def _left(self, expires: float, seconds: float) -> float:
        """Seconds until the expiry; none when the clock was set back, else it might be held for years."""
        left = expires - self._now()
        return left if left <= seconds + 1 else 0.0

    # ------------------------------------------------------------------ reading

    def _memory(self, section: str, ids: Sequence[str] | None) -> Texts:
        query = "SELECT id, text FROM memory WHERE ns = ? AND section = ?"
        with self._reading("Reading the state") as db:
            if ids is None:
                return dict(db.execute(query, (self._ns, section)).fetchall())
            return dict(row for i in ids for row in db.execute(f"{query} AND id = ?", (self._ns, section, i)))

    def _sections(self, names: Sequence[str], *, intents: bool) -> tuple[dict[str, Texts], Iterable[str]]:
        texts = {name: self._memory(name, None) for name in names if name != NEIGHBOURS}
        if NEIGHBOURS in names:
            texts[NEIGHBOURS] = self._told(self._pinned(self._memory("pin", None)) or "")
        return texts, self._journal({"intended": 1}) if intents else ()

    def _told(self, account: str) -> Texts:
        """What the ledgers of an account say they hold."""
        query = "SELECT id, text FROM memory WHERE ns = '' AND section = ?"
        with self._reading("Reading the state") as db:
            return dict(db.execute(query, (f"{NEIGHBOURS}:{account}",)).fetchall())

    def _journal(self, wanted: Mapping[str, object]) -> Iterable[str]:
        condition = "".join(f" AND {name} = ?" for name in wanted)
        query = f"SELECT text FROM journal WHERE ns = ?{condition} ORDER BY seq"
        with self._reading("Reading the journal") as db:
            rows = db.execute(query, (self._ns, *wanted.values())).fetchall()
        return (text for (text,) in rows)

    def _telemetry(self, kind: str, limit: int) -> tuple[Mapping[str, str], Sequence[str]]:
        with self._reading("Reading the telemetry") as db:
            return _summary(db, self._kind(kind)), _runs(db, self._kind(kind), limit)

    def _shared(self, kind: str) -> Shared:
        with self._reading("Reading the telemetry") as db:
            return self._shared_in(db, kind)

    def _shared_in(self, db: sqlite3.Connection, kind: str) -> Shared:
        done = db.execute("SELECT run_id FROM done WHERE ns = ? AND kind = ?", (self._ns, kind)).fetchall()
        return Shared(_summary(db, kind), _runs(db, kind, runs_kept(kind)), frozenset(run_id for (run_id,) in done))

    def _known(self, kind: str) -> Mapping[str, tuple[str | bytes, Mapping[str, str]]]:
        with self._reading("Reading the telemetry") as db:
            query = "SELECT id, text FROM memory WHERE ns = '' AND section = ?"
            known = db.execute(query, (_LEDGERS,)).fetchall()
            return {ns: (about, _summary(db, f"{ns}:{kind}")) for ns, about in known}

    def _kind(self, kind: str) -> str:
        return f"{self._ns}:{kind}"

    # ------------------------------------------------------------------ one transaction

    def _transact(self, doing: str, basis: Basis | None, change: Callable[[Found], Changes]) -> None:
        with self._writing(doing) as db:
            changes = change(Found() if basis is None else self._found(db, basis))
            if changes.record is not None:
                self._record(db, changes, changes.record)
            if changes.entries:
                self._write_entries(db, changes.entries.values())
            for section, values in changes.memory.items():
                _remember(db, self._ns, section, values)
            if changes.unlock is not None:
                db.execute("UPDATE lock SET token = NULL WHERE ns = ? AND token = ?", (self._ns, changes.unlock))

    def _found(self, db: sqlite3.Connection, basis: Basis) -> Found:
        fence = db.execute("SELECT fence FROM lock WHERE ns = ?", (self._ns,)).fetchone()
        query = "SELECT id, text FROM journal WHERE ns = ? AND id = ?"
        entries = dict(row for i in basis.entries for row in db.execute(query, (self._ns, i)))
        delivered = shared = None
        if basis.record is not None:
            mine = (self._ns, basis.record.kind, basis.record.run_id)
            query = "SELECT 1 FROM done WHERE ns = ? AND kind = ? AND run_id = ?"
            delivered = db.execute(query, mine).fetchone()
            if not _runs(db, self._kind(basis.record.kind), 1):
                shared = self._shared_in(db, basis.record.kind)
        return Found(fence[0] if fence else 0, delivered is not None, entries, shared)

    def _record(self, db: sqlite3.Connection, changes: Changes, record: RunCommit) -> None:
        kind, own, inherited = record.kind, self._kind(record.kind), changes.inherited
        db.execute("INSERT INTO done (ns, kind, run_id) VALUES (?, ?, ?)", (self._ns, kind, record.run_id))
        _keep_newest(db, "done", DONE_KEPT, ns=self._ns, kind=kind)
        if inherited is not None:
            _put(db, own, inherited.summary)
            for text in reversed(inherited.runs):
                db.execute("INSERT INTO run (kind, text) VALUES (?, ?)", (own, text))
        for counted in (kind, own):
            db.executemany(
                "INSERT INTO summary VALUES (?, ?, ?) ON CONFLICT (kind, name) DO UPDATE "
                "SET value = CAST(CAST(value AS INTEGER) + CAST(excluded.value AS INTEGER) AS TEXT)",
                [(counted, name, int(amount)) for name, amount in changes.add.items()],
            )
            _put(db, counted, record.put)
            db.execute("INSERT INTO run (kind, text) VALUES (?, ?)", (counted, dumps(record.run)))
            _keep_newest(db, "run", runs_kept(kind), kind=counted)
        if record.about is not None:
            _remember(db, "", _LEDGERS, {self._ns: record.about})
        if record.word is not None:
            account, said = record.word
            _remember(db, "", f"{NEIGHBOURS}:{account}", {self._ns: said})

    def _write_entries(self, db: sqlite3.Connection, entries: Iterable[tuple[JournalEntry, str]]) -> None:
        db.executemany(
            "INSERT INTO journal (ns, id, trade_id, run_id, intended, text) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (ns, id) DO UPDATE SET intended = excluded.intended, text = excluded.text",
            [(self._ns, e.id, e.trade_id, e.run_id, int(e.outcome == INTENDED), text) for e, text in entries],
        )
        (count,) = db.execute("SELECT count(*) FROM journal WHERE ns = ?", (self._ns,)).fetchone()
        if count > self._journal_kept:
            db.execute(
                "DELETE FROM journal WHERE seq IN "
                "(SELECT seq FROM journal WHERE ns = ? AND intended = 0 ORDER BY seq LIMIT ?)",
                (self._ns, count - self._journal_kept),
            )

    # ------------------------------------------------------------------ the file

    @contextlib.contextmanager
    def _reading(self, doing: str) -> Iterator[sqlite3.Connection]:
        with self._turn, self._translated(doing):
            yield self._opened()

    @contextlib.contextmanager
    def _writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or after any failure none."""
        with self._turn, self._line, self._translated(doing):
            db = self._opened()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            said = (error.strerror if isinstance(error, OSError) else None) or str(error)
            if "disk I/O" in said and self._no_room():
                said = "disk is full"  # SQLite says so only of the file itself, not of the log beside it
            known = [(reason, cure) for word, reason, cure in _REASONS if word in said]
            reason, cure = known[0] if known else (said[:200], "check the file and its folder")
            raise StateFailed(
                f"{doing} in the state {self.path} failed: {reason}; the ledger is not touched by this. Cure: {cure}."
            ) from None

    def _no_room(self) -> bool:
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < _NO_ROOM

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            with self._translated("Opening"):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._make()
                db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
                try:
                    self._prepare(db)
                except BaseException:
                    db.close()
                    raise
                self._connection = db
        return self._connection

    def _make(self) -> None:
        """A new file is for its owner only; one that is there must not be opened here.

        To close it again would take the locks of every other connection of this process to it (POSIX).
        """
        if self.path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _prepare(self, db: sqlite3.Connection) -> None:
        # In one statement: another process may be creating it between two.
        application, tables = db.execute(
            "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id"
        ).fetchone()
        if tables and application != _APPLICATION:
            raise StateFailed(
                f"The state {self.path} is another program's database; nothing was changed. "
                "Cure: point GHOSTCLEAN_STATE elsewhere."
            )
        self._write_ahead(db)
        db.execute("PRAGMA synchronous = FULL")
        if not tables:
            self._create(db)
        check_schema(db.execute("PRAGMA user_version").fetchone()[0], self.place)

    def _write_ahead(self, db: sqlite3.Connection) -> None:
        """Turns WAL on; SQLite does not wait with this while another process does the same."""
        patience = time.monotonic() + _BUSY_SECONDS
        while db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
                time.sleep(0.01)

    def _create(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:  # else another process was quicker
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {SCHEMA}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _summary(db: sqlite3.Connection, kind: str) -> dict[str, str]:
    return dict(db.execute("SELECT name, value FROM summary WHERE kind = ?", (kind,)).fetchall())


def _runs(db: sqlite3.Connection, kind: str, limit: int) -> list[str]:
    query = "SELECT text FROM run WHERE kind = ? ORDER BY seq DESC LIMIT ?"
    return [text for (text,) in db.execute(query, (kind, limit))]


def _put(db: sqlite3.Connection, kind: str, values: Mapping[str, str]) -> None:
    rows = [(kind, name, value) for name, value in values.items()]
    db.executemany("INSERT OR REPLACE INTO summary VALUES (?, ?, ?)", rows)


def _remember(db: sqlite3.Connection, ns: str, section: str, values: Mapping[str, Any]) -> None:
    for i, value in values.items():
        if value is None:
            db.execute("DELETE FROM memory WHERE ns = ? AND section = ? AND id = ?", (ns, section, i))
        else:
            db.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)", (ns, section, i, dumps(value)))


def _keep_newest(db: sqlite3.Connection, table: str, count: int, **of: str) -> None:
    rows = f"FROM {table} WHERE {' AND '.join(f'{name} = ?' for name in of)}"
    last = f"SELECT seq {rows} ORDER BY seq DESC LIMIT 1 OFFSET ?"
    db.execute(f"DELETE {rows} AND seq <= ({last})", (*of.values(), *of.values(), count))
