"""One database through SQLAlchemy: transactions within the time that is left, and what its failures mean."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import weakref
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ghostclean.app.deadline import call_left
from ghostclean.errors import BadSettings, LedgerFailed
from ghostclean.places import Place

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.exc import SQLAlchemyError

_DRIVERS = {"sqlite": "sqlite3", "postgresql": "psycopg", "mysql": "pymysql"}
_CONNECT_SECONDS = 10
_LOCK_SECONDS = 2.0  # for one trade that the app holds: the others must not starve
_STATEMENT_SECONDS = 60.0  # where no deadline is near
_SHORTEST = 0.05

# What a transaction of Postgres is told: its patience, and how values are spelled.
_SETTINGS = (
    "SELECT set_config('lock_timeout', %(lock)s, true), set_config('statement_timeout', %(statement)s, true), "
    "set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true), "
    "set_config('intervalstyle', 'iso_8601', true), set_config('bytea_output', 'hex', true), "
    "set_config('extra_float_digits', '1', true)"
)

_REFUSED = ("P0001", 1644, 3819, 4025)  # a trigger's word; a constraint of MySQL and MariaDB
_HELD = ("55P03", "57014", "40P01", "40001", 1205, 1213, 3024)
# What else a database says, and the cure; the first whose sign stands in the code or the text.
_CURES = (
    ("42501", "let this user SELECT, INSERT and UPDATE the table"),
    ("1142", "let this user SELECT, INSERT and UPDATE the table"),
    ("25006", "name the primary, not a replica"),
    ("READONLY", "make the file and its folder writable for this user"),
    ("42P01", "the schema has changed; correct the table in GHOSTCLEAN_LEDGER"),
    ("42703", "the schema has changed; correct the mapping"),
    ("no such", "the schema has changed; correct the table in GHOSTCLEAN_LEDGER, or the mapping"),
    ("authentication failed", "correct user and password in GHOSTCLEAN_LEDGER"),
    ("no password supplied", "put the password into GHOSTCLEAN_LEDGER, or into ~/.pgpass"),
    ("1045", "correct user and password in GHOSTCLEAN_LEDGER"),
    ('FATAL:  database "', "correct the database in GHOSTCLEAN_LEDGER"),
    ("1049", "correct the database in GHOSTCLEAN_LEDGER"),
    ("CANTOPEN", "check the path, and that this user may read and write the file and its folder"),
    ("NOTADB", "name a SQLite database in GHOSTCLEAN_LEDGER"),
    ("CORRUPT", "restore a backup"),
    ("FULL", "free some space"),
)


class Held(Exception):
    """Somebody else holds the row or the table longer than a trade is waited for."""


class RefusedByDatabase(Exception):
    """A constraint, a type or a trigger refuses the values of one row."""


class Interrupted(Exception):
    """The connection was lost: whether a change stands is not known."""


class Database:
    """The database of one place; nothing is connected before the first transaction.

    Raises BadSettings where what it needs is not installed.
    """

    def __init__(self, place: Place) -> None:
        _require("sqlalchemy", _DRIVERS[place.scheme])
        self.place, self.dialect = place.describe(), place.scheme
        self._where = place
        self._engine: Engine | None = None

    def read(self) -> contextlib.AbstractContextManager[Connection]:
        """One view of the data, however many statements look at it."""
        return self._transaction(write=False)

    def write(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that is committed at its end."""
        return self._transaction(write=True)

    def failed(self, what: str, cure: str, effect: str = "nothing was changed") -> LedgerFailed:
        return LedgerFailed(f"The ledger {self.place} {what}; {effect}. Cure: {cure}.")

    # ------------------------------------------------------------------ transactions

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        with self._speaking(write=write), self._connect() as connection:
            if self.dialect == "postgresql" and not write:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._begin(connection, write=write)
            yield connection
            if write:
                connection.commit()

    def _connect(self) -> Connection:
        if self._engine is None:
            self._engine = _engine(self._where)
            weakref.finalize(self, self._engine.dispose)
        return self._engine.connect()

    def _begin(self, connection: Connection, *, write: bool) -> None:
        left = call_left()
        lock = max(_SHORTEST, min(_LOCK_SECONDS, left / 4))
        statement = max(_SHORTEST, min(_STATEMENT_SECONDS, left))
        if self.dialect == "sqlite":
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {lock * 1000:.0f}")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
        elif self.dialect == "postgresql":
            spelled = {"lock": f"{lock * 1000:.0f}", "statement": f"{statement * 1000:.0f}"}
            connection.exec_driver_sql(_SETTINGS, spelled)
        else:
            connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {math.ceil(lock)}")

    # ------------------------------------------------------------------ failures

    @contextlib.contextmanager
    def _speaking(self, *, write: bool) -> Iterator[None]:
        from sqlalchemy import exc

        try:
            yield
        except exc.DBAPIError as error:
            raise self._meaning(error, write=write) from None
        except exc.SQLAlchemyError as error:
            raise self.failed(f"cannot be used: {_line(error)}", "correct GHOSTCLEAN_LEDGER") from None

    def _meaning(self, error: Any, *, write: bool) -> Exception:
        from sqlalchemy import exc

        code, said = _code(error.orig), _line(error.orig)
        if code in _HELD or str(code).startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return (
                Held(said) if write else self.failed(f"is held by somebody else: {said}", "run again when it is free")
            )
        if write and (code in _REFUSED or isinstance(error, exc.IntegrityError | exc.DataError)):
            return RefusedByDatabase(said)
        cure = next((cure for sign, cure in _CURES if str(code).startswith(sign) or sign in f"{code} {said}"), None)
        if cure is None and (error.connection_invalidated or isinstance(error, exc.OperationalError)):
            return Interrupted(said) if write else self.failed(f"does not answer: {said}", "see that the server runs")
        return self.failed(f"refuses: {said}", cure or "see the message, and the rights of this user")


def _engine(place: Place) -> Engine:
    import sqlalchemy as sa

    if place.scheme == "sqlite":
        return sa.create_engine("sqlite://", creator=lambda: _open_file(place), poolclass=sa.NullPool)
    url = sa.make_url(place.where).set(drivername=f"{place.scheme}+{_DRIVERS[place.scheme]}")
    own: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    if place.scheme == "postgresql":  # a pooler between us may give each transaction another session
        own |= {"prepare_threshold": None, "application_name": "ghostclean"}
    else:
        own |= {"init_command": "SET time_zone = '+00:00'", "charset": "utf8mb4"}
    return sa.create_engine(url, connect_args=own, hide_parameters=True)


def _require(*modules: str) -> None:
    try:
        for name in modules:
            import_module(name)
    except ImportError:
        raise BadSettings(
            f"GHOSTCLEAN_LEDGER names a SQL table, which needs {' and '.join(modules)}, not installed here: nothing "
            "was done; pip install 'ghostclean[sql]'"
        ) from None


def _open_file(place: Place) -> sqlite3.Connection:
    """A file that must be there: SQLite would make it."""
    connection = sqlite3.connect(
        f"file:{quote(str(place.path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    return connection


def _code(orig: Any) -> Any:
    """The code of a failure: SQLSTATE, a number of MySQL's, or a name of SQLite's."""
    code = getattr(orig, "sqlstate", None) or getattr(orig, "sqlite_errorname", None)
    arguments = getattr(orig, "args", ())
    return code or (arguments[0] if arguments and isinstance(arguments[0], int) else "")


def _line(error: BaseException | SQLAlchemyError) -> str:
    arguments: Any = getattr(error, "args", ())
    said = arguments[1] if len(arguments) > 1 and isinstance(arguments[0], int) else error
    return next(iter(str(said).strip().splitlines()), type(error).__name__)[:300]
