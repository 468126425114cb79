"""The tables of a database, and enough rows of each to learn what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ghostclean.core.proposal import worded_names
from ghostclean.places import Place

from .sql_columns import Column, read_column
from .sql_database import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection

_WORDS = 30  # of a column that says whether a trade is open, or which way it goes
_OF_EACH = 20
_SYSTEM = ("information_schema", "pg_catalog", "pg_toast", "performance_schema", "mysql", "sys")

Row = Mapping[str, Any]


def tables(place: Place, name: str | None, most: int) -> Iterator[tuple[str, tuple[Row, ...], int, str]]:
    """By name, the newest rows of each table (or of this one), oldest first, how many it has, and why it is not read.

    Naive times stay naive. A row of every word of a status or side is among them. Raises LedgerFailed.
    """
    database = Database(place)
    import sqlalchemy as sa

    with database.read() as connection:
        inspector = sa.inspect(connection)
        found = {_full_name(inspector, *each): each for each in _all(inspector)}
        if name is not None and name not in found:
            raise database.failed(f"does not exist: the tables are {', '.join(found) or 'none'}", "name one of these")
        for each in found if name is None else (name,):
            try:
                with connection.begin_nested():
                    yield each, *_rows(connection, inspector, *found[each], most), ""
            except sa.exc.DBAPIError as error:
                yield each, (), 0, f"it cannot be read: {str(error.orig).splitlines()[0]}"


def _all(inspector: Any) -> Iterator[tuple[str | None, str]]:
    """Schema and name of every table; of a server without schemas the schema is none."""
    of_schemas = inspector.dialect.name == "postgresql"
    for schema in inspector.get_schema_names() if of_schemas else (None,):
        if schema not in _SYSTEM:
            yield from ((schema, table) for table in sorted(inspector.get_table_names(schema)))


def _full_name(inspector: Any, schema: str | None, table: str) -> str:
    return table if schema in (None, inspector.default_schema_name) else f"{schema}.{table}"


def _rows(
    connection: Connection, inspector: Any, schema: str | None, table: str, most: int
) -> tuple[tuple[Row, ...], int]:
    import sqlalchemy as sa

    spells = inspector.dialect.name != "sqlite"
    found = inspector.get_columns(table, schema)
    columns = {c["name"]: replace(read_column(c, spells=spells), local=True) for c in found}
    source = sa.Table(table, sa.MetaData(), *(sa.Column(each) for each in columns), schema=schema)
    shown = [(sa.cast(column, sa.Text) if spells else column).label(column.name) for column in source.c]
    keys = inspector.get_pk_constraint(table, schema)["constrained_columns"]
    newest = sa.select(*shown).order_by(*(source.c[key].desc() for key in keys)).limit(most)
    rows = [_shown(row, columns) for row in connection.execute(newest)][::-1]
    for name in worded_names(columns):
        rows = [*_missing_words(connection, sa.select(*shown), source.c[name], columns, rows), *rows]
    total = connection.execute(sa.select(sa.func.count()).select_from(source)).scalar_one()
    return tuple(rows), total


def _missing_words(
    connection: Connection, asked: Any, column: Any, columns: Mapping[str, Column], rows: Sequence[Row]
) -> list[Row]:
    """Some rows of each word that is not among the newest."""
    import sqlalchemy as sa

    words = [word for (word,) in connection.execute(sa.select(column).distinct().limit(_WORDS)) if word is not None]
    there = {str(row[column.name]) for row in rows}
    missing = [word for word in words if str(columns[column.name].show(word)) not in there]
    return [
        _shown(row, columns)
        for word in missing
        for row in connection.execute(asked.where(column == word).limit(_OF_EACH))
    ]


def _shown(row: Any, columns: Mapping[str, Column]) -> Row:
    return {name: columns[name].show(value) for name, value in zip(columns, row, strict=True)}
