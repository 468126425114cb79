"""The rows of a table as records in the app's terms: what is not final is read, one guarded UPDATE a trade is written.

An UPDATE is made where every column that was seen says what was seen; where that is no longer so, the row is read
again. A lost answer is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ghostclean.app.ports import Change, Lease, LedgerView, Record, Records, Trouble, WriteOutcome
from ghostclean.core.ledger import LedgerMapping, dumps, loads, same_json, same_value
from ghostclean.errors import LedgerFailed, TradeRefused
from ghostclean.places import Place

from .sql_columns import Unfit
from .sql_database import Database, Held, Interrupted, RefusedByDatabase
from .sql_table import Raw, SqlTable, read_table
from .text import pause

_ATTEMPTS = 20
_NAMED = 5


class Row(dict[str, Any]):
    """A record by columns, with its row as the database gave it; `alone`: no other row has its id."""

    def __init__(self, table: SqlTable, raw: Raw, *, alone: bool = True) -> None:
        super().__init__(table.app(raw))
        self.raw, self.alone = raw, alone


class SqlLayout:
    """The `Ledger` operations on such rows."""

    chunk = 25

    def __init__(self, place: Place, mapping: LedgerMapping) -> None:
        self.place = place.describe()
        self.given: dict[str, Any] = {}  # ids that the database gave to new rows, by those that were asked for
        self._database = Database(place)
        self._name, self._asked = place.key, mapping
        self._known: SqlTable | None = None

    @property
    def table(self) -> SqlTable:
        if self._known is None:
            with self._database.read() as connection:
                return self._table(connection)
        return self._known

    def _table(self, connection: Any) -> SqlTable:
        if self._known is None:
            self._known = read_table(self._database, connection, self._name, self._asked)
        return self._known

    # ------------------------------------------------------------------ reading

    def read(self, *, whole: bool = False) -> LedgerView:
        with self._database.read() as connection:
            table = self._table(connection)
            counts, condition = table.survey(connection)
            rows = [Row(table, raw) for raw in table.active(connection, condition)]
            repeated = [] if table.unique else table.repeated(connection)
        twice = {i for raw in repeated if (i := table.mapping.id_of(table.app(raw))) is not None}
        return LedgerView(tuple(rows), sum(counts.values()), repeated=frozenset(twice))

    def history(self, keys: frozenset[str]) -> list[Record]:
        with self._database.read() as connection:
            table = self._table(connection)
            rows = [Row(table, raw) for raw in table.of_symbols(connection, keys)]
        return [row for row in rows if table.mapping.is_final(row)]

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        wanted = dict.fromkeys(ids)
        raws: dict[str, list[Raw]] = {}
        with self._database.read() as connection:
            table = self._table(connection)
            for raw in table.with_ids(connection, wanted):
                if (key := table.mapping.id_of(table.app(raw))) in wanted:
                    raws.setdefault(key, []).append(raw)
        return {i: Row(table, raws[i][0], alone=len(raws[i]) == 1) for i in wanted if i in raws}

    def records(self) -> Records:
        """Every record with every column that is not null."""
        with self._database.read() as connection:
            table = self._table(connection)
            rows = [Row(table, raw) for raw in table.all(connection)]
        return Records(tuple(dumps({n: v for n, v in row.items() if v is not None}) for row in rows))

    def describe(self) -> str:
        with self._database.read() as connection:
            counts, _ = self._table(connection).survey(connection)
        said = ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))
        return f"SQL table, {sum(counts.values())} trades" + (f" ({said})" if said else "")

    def rehearse(self, lease: Lease | None) -> list[Trouble]:
        from .sql_rehearsal import rehearse

        return rehearse(self._database, self.table)

    # ------------------------------------------------------------------ writing

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        outcomes = [] if done is None else done
        refused: list[TradeRefused] = []
        for change in changes:
            try:
                outcomes.append(self._write(change, lease))
            except TradeRefused as error:
                refused.append(error)
                outcomes.append(WriteOutcome.REFUSED)
        if refused:
            raise refused[0]
        return outcomes

    def _write(self, change: Change, lease: Lease) -> WriteOutcome:
        row = change.base if isinstance(change.base, Row) else self._look(change.trade_id)
        if row is not None and not row.alone:
            raise self._refused(change.trade_id, "has its id on several rows", "give each its own in the app")
        lost = False
        for attempt in range(_ATTEMPTS):
            values, missing = self.stored(change, {} if row is None else row)
            outcome = _judged(change, row, missing)
            if outcome is not None:
                return outcome
            try:
                lease.verify()
                if self._written(change, row, values):
                    return WriteOutcome.WRITTEN
            except Interrupted as error:
                lost = True
                if row is None and not self.takes(change.trade_id):
                    raise self._lost(error) from None  # nobody can tell which id it was given
            pause(attempt)
            try:
                row = self._look(change.trade_id)
            except LedgerFailed as error:
                raise self._lost(error) if lost else error from None
        raise self._refused(change.trade_id, "is written by somebody else all the time, or by a trigger")

    def stored(self, change: Change, row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What of a change the row does not show: as it is written, and as it is then shown; raises TradeRefused."""
        fields = {**change.fields, **dict.fromkeys(change.remove)}
        if change.base is None and not self.takes(change.trade_id):
            fields.pop(self.table.at("id") or "", None)
        try:
            return self.table.stored(fields, row, row.raw if isinstance(row, Row) else {})
        except Unfit as error:
            raise self._refused(change.trade_id, f"does not fit: {error}") from None

    def takes(self, trade_id: str) -> bool:
        """Whether the id column can hold this id."""
        return bool(self.table.keys_of(trade_id))

    def _look(self, trade_id: str) -> Row | None:
        row = self.get([trade_id]).get(trade_id)
        assert row is None or isinstance(row, Row)
        return row

    def _written(self, change: Change, row: Row | None, values: Raw) -> bool:
        """Whether the row was still the one that was seen, and is written."""
        try:
            with self._database.write() as connection:
                if row is not None:
                    return bool(connection.execute(self.table.swap(change.trade_id, row.raw, values)).rowcount)
                given = self.table.insert(connection, values, named=self.takes(change.trade_id))
            if given is not None:
                self.given[change.trade_id] = given
            return True
        except Held as error:
            raise self._refused(change.trade_id, f"is held by somebody else ({error})", "run again") from None
        except (RefusedByDatabase, UnicodeError) as error:
            if row is None and self._look(change.trade_id) is not None:
                return False  # somebody else was quicker
            raise self._refused(change.trade_id, f"is refused: {_said(values, str(error))}") from None

    def _refused(self, trade_id: str, why: str, cure: str = "see `ghostclean doctor`") -> TradeRefused:
        return TradeRefused(
            f"The ledger {self.place} did not take the change of trade {trade_id}: it {why}; nothing of that trade was "
            f"written. Cure: {cure}."
        )

    def _lost(self, why: Exception) -> LedgerFailed:
        return LedgerFailed(
            f"The ledger {self.place} lost the connection while it was written ({why}); the last change may or may not "
            "be written, the next run finds out."
        )

    # ------------------------------------------------------------------ copies

    def fill(self, texts: Sequence[str], *, dry_run: bool = False) -> None:
        """Puts records into the empty table; one that a row cannot show whole is refused."""
        table = self.table
        with self._database.read() as connection:
            counts, _ = table.survey(connection)
        if size := sum(counts.values()):
            raise self._database.failed(f"already holds {size} trades", "name an empty table")
        rows = [self._copied(table, loads(text)) for text in texts]
        if dry_run or not rows:
            return
        try:
            with self._database.write() as connection:
                for values in rows:
                    table.insert(connection, values, named=True)
        except (Held, Interrupted, RefusedByDatabase) as error:
            raise self._database.failed(f"did not take the copy: {error}", "correct the table, copy again") from None

    def _copied(self, table: SqlTable, record: Any) -> Raw:
        name = table.mapping.id_of(record) if isinstance(record, dict) else None
        if name is None:
            raise self._database.failed("cannot take a record that is no object with an id", "correct it in the app")
        given = {n: value for n, value in record.items() if value is not None}
        try:
            values, row = table.stored(given, {}, {})
        except Unfit as error:
            raise self._database.failed(f"cannot take trade {name}: {error}", "widen the column") from None
        lost = [n for n, value in given.items() if not same_value(row.get(n), value)]
        if lost:
            which = ", ".join(lost[:_NAMED])
            raise self._database.failed(f"cannot show {which} of trade {name} as it is", "add or widen the columns")
        return values


def _judged(change: Change, row: Row | None, missing: Mapping[str, Any]) -> WriteOutcome | None:
    """The outcome of a change, `missing` of which the row does not show; None where it is to be written."""
    base = change.base
    if row is None:
        return None if base is None else WriteOutcome.GONE
    if base is None:
        return WriteOutcome.EXISTS if missing else WriteOutcome.WRITTEN
    if same_json(row, base):
        return None if missing else WriteOutcome.WRITTEN
    others = base.keys() - change.fields.keys() - set(change.remove)
    done = bool(base) and not missing and all(same_json(row.get(name), base[name]) for name in others)
    return WriteOutcome.WRITTEN if done else WriteOutcome.CHANGED


def _said(values: Raw, why: str) -> str:
    """The values that were refused: those that the database speaks of, where it does."""
    spoken = {name: value for name, value in values.items() if name in why} or values
    return f"{', '.join(f'{name} = {value!r:.40}' for name, value in spoken.items())} ({why})"
