"""ghostclean's own memory in a SQLite file, for a ledger without Redis.

WAL, so that `status` reads while a run writes; synced on every commit, so that an intent is on
disk before the ledger is touched. Every change is one BEGIN IMMEDIATE transaction. The journal
keeps its newest 20,000 entries a ledger; open intents are never trimmed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostclean.app.ports import JournalEntry, Lease, LockInfo, RunCommit, Telemetry
from ghostclean.core.jsontext import dumps
from ghostclean.errors import FencedOff, StateFailed

from .state_form import (
    DONE_KEPT,
    INTENDED,
    JOURNAL_KEPT,
    LEFT,
    SCHEMA,
    WRITTEN,
    check_schema,
    entry_from,
    entry_text,
    lock_number,
    namespace,
    overtaken,
    run_from,
    runs_kept,
    value_from,
)

_APPLICATION = 0x47434C4E  # "GCLN", so that another program's database is never written to
_BUSY_SECONDS = 5.0
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


@dataclass(slots=True)
class SqliteLease:
    """The lock, held as a row of the state."""

    token: str
    _state: SqliteState = field(repr=False, compare=False)
    redis_place: str | None = None
    redis_key: str | None = None

    def verify(self) -> None:
        """Raises FencedOff when the lock is no longer ours."""
        if not self._state.holds(self.token):
            raise FencedOff(
                "The lock of this ledger expired while this run was paused; nothing more was written. Cure: run again."
            )


class SqliteState:
    """The `State` in a SQLite file; `now` gives seconds since the epoch, for the lock's expiry."""

    def __init__(
        self,
        path: str | Path,
        *,
        ledger_place: str,
        now: Callable[[], float] = time.time,
        journal_kept: int = JOURNAL_KEPT,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        self.place = f"sqlite:{self.path}"
        self._ns = namespace(ledger_place)
        self._now = now
        self._journal_kept = journal_kept
        self._turn = threading.Lock()  # calls come from several threads, one connection serves them
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Creates the file if there is none and checks the schema number."""
        with self._turn:
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

    # ------------------------------------------------------------------ lock

    def acquire(self, holder: str, seconds: float) -> Lease | None:
        """The lock for at most that long, None while another holds it."""
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
        return SqliteLease(token, self)

    def release(self, lease: Lease) -> None:
        """Gives the lock back if it is still ours."""
        with self._writing("Giving the lock back") as db:
            db.execute("UPDATE lock SET token = NULL WHERE ns = ? AND token = ?", (self._ns, lease.token))

    def lock_info(self) -> LockInfo | None:
        """Who holds the lock, None when nobody does."""
        with self._reading("Reading the lock") as db:
            row = db.execute("SELECT holder, expires, seconds, token FROM lock WHERE ns = ?", (self._ns,)).fetchone()
        if row is None or row[3] is None:
            return None
        left = self._left(row[1], row[2])
        return LockInfo(row[0], left) if left > 0 else None

    def holds(self, token: str) -> bool:
        """Whether the lock is still held by this token."""
        with self._reading("Checking the lock") as db:
            row = db.execute(
                "SELECT expires, seconds FROM lock WHERE ns = ? AND token = ?", (self._ns, token)
            ).fetchone()
        return row is not None and self._left(*row) > 0

    def _left(self, expires: float, seconds: float) -> float:
        """Seconds until the expiry; none when the clock was set back, else it might be held for years."""
        left = expires - self._now()
        return left if left <= seconds + 1 else 0.0

    # ------------------------------------------------------------------ memory

    def recall(self, section: str, ids: Iterable[str] | None = None) -> dict[str, Any]:
        """What was remembered under a section, all of it or for these ids."""
        with self._reading("Reading the state") as db:
            if ids is None:
                rows = db.execute(
                    "SELECT id, text FROM memory WHERE ns = ? AND section = ?", (self._ns, section)
                ).fetchall()
            else:
                query = "SELECT id, text FROM memory WHERE ns = ? AND section = ? AND id = ?"
                rows = [row for i in dict.fromkeys(ids) for row in db.execute(query, (self._ns, section, i))]
        return {i: value_from(text, self.place) for i, text in rows}

    def remember(self, section: str, values: Mapping[str, Any]) -> None:
        """Stores JSON values by id at once; None forgets."""
        with self._writing("Writing the state") as db:
            self._remember(db, section, values)

    def _remember(self, db: sqlite3.Connection, section: str, values: Mapping[str, Any]) -> None:
        for i, value in values.items():
            if value is None:
                db.execute("DELETE FROM memory WHERE ns = ? AND section = ? AND id = ?", (self._ns, section, i))
            else:
                db.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)", (self._ns, section, i, dumps(value)))

    # ------------------------------------------------------------------ journal

    def intend(self, entries: Sequence[JournalEntry], lease: Lease | None = None) -> None:
        """Journals entries, on disk before this returns; FencedOff once another run has had the lock."""
        with self._writing("Writing the journal") as db:
            self._check_fence(db, lease)
            self._write_entries(db, entries)

    def _check_fence(self, db: sqlite3.Connection, lease: Lease | None) -> None:
        if lease is None:
            return
        row = db.execute("SELECT fence FROM lock WHERE ns = ?", (self._ns,)).fetchone()
        if row is not None and row[0] > lock_number(lease):
            raise overtaken()

    def intents(self) -> list[JournalEntry]:
        """Entries still `intended`, oldest first."""
        return self._entries(" AND intended = 1", ())

    def journal(self, *, trade_id: str | None = None, run_id: str | None = None) -> list[JournalEntry]:
        """Entries of a trade or a run (or all), oldest first."""
        values = {"trade_id": trade_id, "run_id": run_id}
        wanted = {name: value for name, value in values.items() if value is not None}
        return self._entries("".join(f" AND {name} = ?" for name in wanted), tuple(wanted.values()))

    def _entries(self, condition: str, values: tuple[str, ...]) -> list[JournalEntry]:
        query = f"SELECT text FROM journal WHERE ns = ?{condition} ORDER BY seq"
        with self._reading("Reading the journal") as db:
            rows = db.execute(query, (self._ns, *values)).fetchall()
        return [entry_from(text, self.place) for (text,) in rows]

    def _write_entries(self, db: sqlite3.Connection, entries: Sequence[JournalEntry]) -> None:
        db.executemany(
            "INSERT INTO journal (ns, id, trade_id, run_id, intended, text) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (ns, id) DO UPDATE SET intended = excluded.intended, text = excluded.text",
            [
                (self._ns, e.id, e.trade_id, e.run_id, int(e.outcome == INTENDED), entry_text(e))
                for e in entries
                if e.outcome != LEFT or not self._stands_written(db, e.id)
            ],
        )
        (count,) = db.execute("SELECT count(*) FROM journal WHERE ns = ?", (self._ns,)).fetchone()
        if count > self._journal_kept:
            db.execute(
                "DELETE FROM journal WHERE seq IN "
                "(SELECT seq FROM journal WHERE ns = ? AND intended = 0 ORDER BY seq LIMIT ?)",
                (self._ns, count - self._journal_kept),
            )

    # ------------------------------------------------------------------ runs

    def commit(self, commit: RunCommit, lease: Lease | None = None) -> None:
        """Stores a run's record in one transaction; a second delivery of it does nothing.

        With `lease`, FencedOff and nothing stored when another run has taken the lock since.
        """
        with self._writing("Recording the run") as db:
            mine = (self._ns, commit.kind, commit.run_id)
            if not db.execute("INSERT OR IGNORE INTO done (ns, kind, run_id) VALUES (?, ?, ?)", mine).rowcount:
                return
            self._check_fence(db, lease)
            db.execute(
                "DELETE FROM done WHERE ns = ? AND kind = ? AND seq <= "
                "(SELECT seq FROM done WHERE ns = ? AND kind = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (self._ns, commit.kind, self._ns, commit.kind, DONE_KEPT),
            )
            totals: dict[str, int] = dict(commit.add)
            for entry_id, name in commit.totals.items():
                totals[name] = totals.get(name, 0) + (not self._stands_written(db, entry_id))
            self._count(db, commit.kind, totals, commit.put)
            db.execute("INSERT INTO run (kind, text) VALUES (?, ?)", (commit.kind, dumps(commit.run)))
            db.execute(
                "DELETE FROM run WHERE kind = ? AND seq <= "
                "(SELECT seq FROM run WHERE kind = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (commit.kind, commit.kind, runs_kept(commit.kind)),
            )
            self._write_entries(db, commit.entries)
            for section, values in commit.memory.items():
                self._remember(db, section, values)

    def _stands_written(self, db: sqlite3.Connection, entry_id: str) -> bool:
        """Whether an entry is in the journal as written: then its effect is counted already."""
        row = db.execute("SELECT text FROM journal WHERE ns = ? AND id = ?", (self._ns, entry_id)).fetchone()
        return row is not None and str(row[0]).endswith(f'"outcome":"{WRITTEN}"}}')

    def _count(self, db: sqlite3.Connection, kind: str, add: Mapping[str, int], put: Mapping[str, str]) -> None:
        db.executemany(
            "INSERT INTO summary VALUES (?, ?, ?) ON CONFLICT (kind, name) DO UPDATE "
            "SET value = CAST(CAST(value AS INTEGER) + CAST(excluded.value AS INTEGER) AS TEXT)",
            [(kind, name, int(amount)) for name, amount in add.items()],
        )
        db.executemany(
            "INSERT OR REPLACE INTO summary VALUES (?, ?, ?)",
            [(kind, name, value) for name, value in put.items()],
        )

    def telemetry(self, kind: str, limit: int) -> Telemetry:
        """Summary and the newest runs."""
        with self._reading("Reading the telemetry") as db:
            summary = dict(db.execute("SELECT name, value FROM summary WHERE kind = ?", (kind,)).fetchall())
            rows = db.execute(
                "SELECT text FROM run WHERE kind = ? ORDER BY seq DESC LIMIT ?", (kind, max(0, limit))
            ).fetchall()
        return Telemetry(summary, tuple(run_from(text) for (text,) in rows))

    # ------------------------------------------------------------------ the file

    @contextlib.contextmanager
    def _reading(self, doing: str) -> Iterator[sqlite3.Connection]:
        with self._turn, self._translated(doing):
            yield self._opened()

    @contextlib.contextmanager
    def _writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or after any failure none."""
        with self._turn, self._translated(doing):
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
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
                try:
                    self._prepare(db)
                except BaseException:
                    db.close()
                    raise
                self._connection = db
        return self._connection

    def _prepare(self, db: sqlite3.Connection) -> None:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != _APPLICATION:
            raise StateFailed(
                f"The state {self.path} is another program's database; nothing was changed. "
                "Cure: point GHOSTCLEAN_STATE elsewhere."
            )
        if db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if not tables:
            self._create(db)
        check_schema(db.execute("PRAGMA user_version").fetchone()[0], self.place)

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
