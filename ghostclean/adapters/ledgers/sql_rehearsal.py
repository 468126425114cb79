"""What would keep a run from writing the app's table, tried on no row at all."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from ghostclean.app.ports import Trouble
from ghostclean.core.ledger import Unspeakable
from ghostclean.errors import LedgerFailed

from .sql_columns import Unfit
from .sql_database import Database, Held, Interrupted, RefusedByDatabase
from .sql_table import SqlTable

_TIME = "2026-11-22T07:38:12.123Z"
_ORDER = "00000000-0000-4000-8000-000000000000"
# A close as it may be written; each value is as long as such a value gets.
_CLOSE = {
    "status": "CLOSED", "autoEntryStatus": "CLOSED", "alpacaStatus": "not_found_in_broker",
    "brokerStatus": "not_found_in_broker", "updatedAt": _TIME, "closedAt": _TIME,
    "closeReason": "reconciled_not_in_alpaca", "closePrice": None, "realizedPnL": None, "realizedR": None,
    "closeOrderId": _ORDER, "filledQty": Decimal("10.5"), "avgFillPrice": Decimal("187.45"), "openedAt": _TIME,
}  # fmt: skip
_MANAGED = {"stopPrice": Decimal("187.45"), "stopOrderId": _ORDER, "lastPrice": Decimal("187.45")}


def rehearse(database: Database, table: SqlTable) -> list[Trouble]:
    return [*_rights(database, table), *_narrow(table), *_slow(table)]


def _rights(database: Database, table: SqlTable) -> Iterator[Trouble]:
    """Whether this user may write: an UPDATE and an INSERT of no row, taken back."""
    import sqlalchemy as sa

    written = [
        name for field in (*_CLOSE, *_MANAGED) if (name := table.at(field)) and not table.columns[name].generated
    ]
    columns = [table.source.c[name] for name in dict.fromkeys(written)]
    nothing = sa.select(*columns).where(sa.false())
    tried: dict[str, Any] = {
        "UPDATE": sa.update(table.source).where(sa.false()).values({column.name: column for column in columns}),
        "INSERT": sa.insert(table.source).from_select([column.name for column in columns], nothing),
    }
    for what, statement in tried.items():
        try:
            with database.write() as connection:
                connection.execute(statement)
                connection.rollback()
        except LedgerFailed as error:
            yield Trouble(f"no {what} is possible: {error}", f"GRANT {what} on the table", fails=what == "UPDATE")
        except (Held, Interrupted, RefusedByDatabase) as error:
            yield Trouble(f"no {what} was possible: {error}", "ask again when the app is quieter")


def _narrow(table: SqlTable) -> Iterator[Trouble]:
    """The columns that could not take what a close writes."""
    for field, value in {**_CLOSE, **_MANAGED}.items():
        try:
            table.stored(table.mapping.write({}, {field: value}).fields, {}, {})
        except Unfit as error:
            yield Trouble(f"a close may not fit: {error}", "widen the column, or take it out of the mapping")
        except Unspeakable as error:
            yield Trouble(str(error), "add the word to the mapping")


def _slow(table: SqlTable) -> Iterator[Trouble]:
    lacking = [name for field in ("status", "id", "ticker") if (name := table.at(field)) and name not in table.indexes]
    if lacking:
        what = f"no index begins with {' or '.join(lacking)}: every look-up by it reads the whole table"
        yield Trouble(
            what, f"CREATE INDEX ON {table.source.fullname} ({lacking[0]}), in the app's own way", fails=False
        )
