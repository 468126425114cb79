"""The app's table: which columns a record is read from, and the statements on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ghostclean.core.broker import is_uuid, symbol_key
from ghostclean.core.ledger import LedgerMapping, same_json
from ghostclean.core.ledger.mapping import MARKS

from .sql_columns import Column, Kind, Unfit, read_column
from .sql_database import Database

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy import Connection, Row

_NEEDED = ("id", "status", "ticker")
_SOME = 500  # ids of one statement

Raw = Mapping[str, Any]  # by column, as the database gives it


@dataclass(frozen=True)
class SqlTable:
    """`mapping` names columns only; `unique`: no two rows have one id. `indexes` are the first columns of each."""

    source: sa.Table
    columns: Mapping[str, Column]
    mapping: LedgerMapping
    dialect: str
    unique: bool
    indexes: frozenset[str]

    # ------------------------------------------------------------------ records

    def app(self, raw: Raw) -> dict[str, Any]:
        record = dict(raw)
        for name, read in self._readers.items():
            if record.get(name) is not None:
                record[name] = read(record[name])
        return record

    @cached_property
    def _readers(self) -> dict[str, Callable[[Any], Any]]:
        found = {name: column.reader() for name, column in self.columns.items()}
        return {name: read for name, read in found.items() if read is not None}

    def at(self, name: str) -> str | None:
        """The column in which a field stands."""
        there = self.mapping.fields.get(name)
        return None if there is None else there.path[0]

    @cached_property
    def seen(self) -> tuple[str, ...]:
        """The columns that a record is read from."""
        mapping = self.mapping
        named = [there.path for there in mapping.fields.values()] + [only.path for only in mapping.only]
        named += [mapping.extra] if mapping.extra else []
        return tuple(dict.fromkeys((*(path[0] for path in named), *(name for name in MARKS if name in self.columns))))

    def keys_of(self, trade_id: str) -> list[Any]:
        """What the id column may hold for this id."""
        column = self.columns[self.at("id") or ""]
        as_text = [trade_id] if trade_id.isprintable() else []
        if column.kind is Kind.TEXT:
            return as_text
        if column.kind is Kind.OTHER and column.spells:
            return as_text if not column.is_uuid or is_uuid(trade_id) else []
        try:
            number = [column.store(int(trade_id))] if str(int(trade_id)) == trade_id else []
        except (ValueError, Unfit):
            number = []
        return number if column.kind is not Kind.OTHER else [*number, *as_text]

    # ------------------------------------------------------------------ reading

    def survey(self, connection: Connection) -> tuple[dict[str, int], Any]:
        """How many records have each status, and the condition for those that are not final."""
        import sqlalchemy as sa

        name = self.at("status") or ""
        column, own = self.source.c[name], self.columns[name]
        if self.mapping.fields["status"].null:
            is_open = column.is_(None) | (column == "") if own.kind is Kind.TEXT else column.is_(None)
            asked = sa.select(sa.func.count(), sa.func.count(sa.case((is_open, 1)))).where(*self._only())
            total, live = connection.execute(asked).one()
            return {"open": live, "closed": total - live}, is_open
        asked = sa.select(self._spelled(column), sa.func.count()).where(*self._only()).group_by(column)
        found: list[tuple[Any, int]] = [(raw, count) for raw, count in connection.execute(asked)]
        active = [raw for raw, _ in found if not self.mapping.is_final({name: own.show(raw)})]
        is_active = self._among(column, [raw for raw in active if raw is not None])
        counts = {str(own.show(raw)) if raw is not None else "none": count for raw, count in found}
        return counts, is_active | column.is_(None) if None in active else is_active

    def active(self, connection: Connection, condition: Any) -> Iterator[Raw]:
        yield from self._select(connection, condition)

    def with_ids(self, connection: Connection, ids: Iterable[str]) -> Iterator[Raw]:
        keys = [key for trade_id in ids for key in self.keys_of(trade_id)]
        column = self.source.c[self.at("id") or ""]
        for start in range(0, len(keys), _SOME):
            yield from self._select(connection, self._among(column, keys[start : start + _SOME]))

    def of_symbols(self, connection: Connection, keys: frozenset[str]) -> Iterator[Raw]:
        """The records of these symbols, however they are spelled."""
        import sqlalchemy as sa

        name = self.at("ticker") or ""
        column, shown = self.source.c[name], self.columns[name].show
        found = connection.execute(sa.select(self._spelled(column)).where(*self._only()).distinct())
        raws = [raw for (raw,) in found if isinstance(said := shown(raw), str) and symbol_key(said) in keys]
        for start in range(0, len(raws), _SOME):
            yield from self._select(connection, self._among(column, raws[start : start + _SOME]))

    def all(self, connection: Connection) -> Iterator[Raw]:
        """Every record, with every column."""
        yield from self._select(connection, columns=tuple(self.columns))

    def repeated(self, connection: Connection) -> list[Raw]:
        """The ids that several rows have."""
        import sqlalchemy as sa

        name = self.at("id") or ""
        column, shown = self.source.c[name], self._spelled(self.source.c[name]).label(name)
        asked = sa.select(shown).where(*self._only()).group_by(column).having(sa.func.count() > 1)
        return [dict(row) for row in connection.execute(asked).mappings()]

    def _select(self, connection: Connection, *where: Any, columns: Iterable[str] | None = None) -> Iterator[Raw]:
        import sqlalchemy as sa

        names = tuple(columns or self.seen)
        shown = [self._spelled(self.source.c[name]).label(name) for name in names]
        rows: Iterable[Row[Any]] = connection.execute(sa.select(*shown).where(*self._only(), *where))
        for row in rows:
            yield dict(zip(names, row, strict=True))

    def _only(self) -> list[Any]:
        """The filter of the mapping."""
        found = []
        for only in self.mapping.only:
            column, own = self.source.c[only.path[0]], self.columns[only.path[0]]
            found.append(self._among(column, [own.store(value) for value in only.values]))
        return found

    def _spelled(self, column: Any) -> Any:
        import sqlalchemy as sa

        return column if self.dialect == "sqlite" else sa.cast(column, sa.Text)

    # ------------------------------------------------------------------ writing

    def swap(self, trade_id: str, raw: Raw, values: Raw) -> sa.Update:
        """The change of one row while every column that was seen says what was seen."""
        import sqlalchemy as sa

        column = self.source.c[self.at("id") or ""]
        seen = [self._exact(self.source.c[name]).is_not_distinct_from(self._given(was)) for name, was in raw.items()]
        given = {name: self._given(value) for name, value in values.items()}
        return sa.update(self.source).where(self._among(column, self.keys_of(trade_id)), *seen).values(given)

    def insert(self, connection: Connection, values: Raw, *, named: bool) -> Any:
        """Adds a row, to which the database gives what is not said; the id that it gave where none was `named`."""
        import sqlalchemy as sa

        adding = sa.insert(self.source).values({name: self._given(value) for name, value in values.items()})
        name = self.at("id") or ""
        if not named and self.dialect == "postgresql":
            adding = adding.returning(self._spelled(self.source.c[name]))
            return self.columns[name].show(connection.execute(adding).scalar_one())
        added = connection.execute(adding)
        return None if named else added.lastrowid

    def stored(
        self, fields: Mapping[str, Any], app: Mapping[str, Any], raw: Raw
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is to be written of these members of a record, and what its row then shows; raises Unfit."""
        values: dict[str, Any] = {}
        row: dict[str, Any] = {}
        for name, value in fields.items():
            column = self.columns.get(name)
            if column is None or column.generated:
                continue
            stored = column.store(value, like=self._style(column, raw))
            shown = column.show(stored)
            if name not in app or not same_json(shown, app[name]):
                values[name], row[name] = stored, shown
        return values, row

    def _style(self, column: Column, raw: Raw) -> Any:
        """A time of the same row, as the app spells it: of this column, else of another."""
        alike = (raw[name] for name, other in self.columns.items() if name in raw and other.kind is column.kind)
        return raw.get(column.name) or next((value for value in alike if isinstance(value, str)), None)

    def _exact(self, column: Any) -> Any:
        """A column as it is compared: no collation takes two spellings for one."""
        import sqlalchemy as sa

        if self.dialect == "sqlite":
            return column.collate("BINARY")
        text = self._spelled(column)
        return text.collate("C") if self.dialect == "postgresql" else sa.cast(text, sa.LargeBinary)

    def _among(self, column: Any, values: Iterable[Any]) -> Any:
        return column.in_([self._given(value) for value in values])

    def _given(self, value: Any) -> Any:
        """A value without a type of ours: the column's counts."""
        import sqlalchemy as sa

        return sa.null() if value is None else sa.literal(value, sa.types.NullType())


# --------------------------------------------------------------------------- reflection


def read_table(database: Database, connection: Connection, name: str, mapping: LedgerMapping) -> SqlTable:
    """The table with that name, as it is now; raises LedgerFailed for what can be no ledger."""
    import sqlalchemy as sa

    inspector = sa.inspect(connection)
    schema, _, short = name.rpartition(".")
    found = _named(short, inspector.get_table_names(schema or None), database)
    if found is None:
        if _named(short, _views(inspector, schema or None), database) is not None:
            raise database.failed("is a view, which takes no guarded write", "name the table behind it")
        raise database.failed("does not exist: there is no such table", "correct the table in GHOSTCLEAN_LEDGER")
    spells = database.dialect != "sqlite"
    columns = {c["name"]: read_column(c, spells=spells) for c in inspector.get_columns(found, schema or None)}
    mapping = _fitted(database, mapping.within(columns), columns)
    key = mapping.fields["id"].path[0]
    firsts, uniques = _indexes(inspector, found, schema or None)
    zoned = {there.path[0] for there in mapping.fields.values() if there.zone is not None}
    source = sa.Table(found, sa.MetaData(), *(sa.Column(each) for each in columns), schema=schema or None)
    return SqlTable(
        source,
        {n: replace(column, local=n in zoned) for n, column in columns.items()},
        mapping,
        database.dialect,
        (key,) in uniques,
        firsts,
    )


def _named(name: str, among: Iterable[str], database: Database) -> str | None:
    exact = database.dialect != "sqlite"
    return next((n for n in among if n == name or (not exact and n.lower() == name.lower())), None)


def _views(inspector: Any, schema: str | None) -> list[str]:
    try:
        return [*inspector.get_view_names(schema), *inspector.get_materialized_view_names(schema)]
    except NotImplementedError:
        return [*inspector.get_view_names(schema)]


def _indexes(inspector: Any, name: str, schema: str | None) -> tuple[frozenset[str], set[tuple[str, ...]]]:
    """The first columns of all indexes, and the columns of those that are unique."""
    primary = tuple(inspector.get_pk_constraint(name, schema)["constrained_columns"])
    indexes = [(tuple(i["column_names"]), i["unique"]) for i in inspector.get_indexes(name, schema)]
    indexes += [(tuple(u["column_names"]), True) for u in inspector.get_unique_constraints(name, schema)]
    indexes += [(primary, True)] if primary else []
    return frozenset(columns[0] for columns, _ in indexes if columns[0]), {columns for columns, one in indexes if one}


def _fitted(database: Database, mapping: LedgerMapping, columns: Mapping[str, Column]) -> LedgerMapping:
    """The mapping, with no zone for a column that knows its own; raises LedgerFailed where the table is another."""
    missing = [n for n in _NEEDED if n not in mapping.fields]
    if missing:
        names = ", ".join(missing).replace("ticker", "ticker or symbol")
        raise database.failed(
            f"has no column {names}", "say in a mapping (GHOSTCLEAN_MAPPING) what the columns are called"
        )
    paths = [(n, there.path) for n, there in mapping.fields.items()]
    paths += [("the filter", only.path) for only in mapping.only]
    paths += [("extra", mapping.extra)] if mapping.extra else []
    for name, path in paths:
        if path[0] not in columns:
            raise database.failed(f"has no column {path[0]}, which the mapping names for {name}", "correct the mapping")
        if len(path) > 1 and name in (*_NEEDED, "the filter"):
            raise database.failed(f"has {name} inside its column {path[0]}", "name a column of its own in the mapping")
    try:
        for only in mapping.only:
            for value in only.values:
                columns[only.path[0]].store(value)
    except Unfit as error:
        raise database.failed(f"cannot hold what the filter asks for: {error}", "correct the mapping") from None
    fields = {
        n: replace(there, zone=None) if columns[there.path[0]].kind is Kind.MOMENT else there
        for n, there in mapping.fields.items()
    }
    return replace(mapping, fields=fields)
