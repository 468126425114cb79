"""A ledger in a table of the app's database; a table of SQLite, Postgres or MySQL through SQLAlchemy.

Its rows are read and written in the contract's terms, as every ledger with names of its own. Where the database gives
new rows their ids, a record is known by the id that it was given first; the row's own stands beside, in the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ghostclean.app.ports import Change, Lease, Record, State, WriteOutcome
from ghostclean.core.ledger import IDENTITY, LedgerMapping, Written, record_id, with_fact
from ghostclean.places import Place

from .mapped import MappedLedger, Step
from .sql_layout import SqlLayout

_ROW_ID = "rowId"


class SqlLedger(MappedLedger):
    """The `Ledger` over a table and a mapping."""

    def __init__(
        self, place: Place, *, mapping: LedgerMapping = IDENTITY, state: Callable[[], State] | None = None
    ) -> None:
        self._table = SqlLayout(place, mapping)
        super().__init__(self._table, mapping, state)

    @property
    def mapping(self) -> LedgerMapping:
        """As it fits the table."""
        return self._table.table.mapping

    def get(self, ids: Iterable[str]) -> dict[str, Record]:
        rows = self._row_ids(ids)
        found = super().get(rows.values())
        return {i: found[key] for i, key in rows.items() if key in found}

    def write(
        self, changes: Sequence[Change], lease: Lease, done: list[WriteOutcome] | None = None
    ) -> list[WriteOutcome]:
        rows = self._row_ids(change.trade_id for change in changes)
        told = [_of_row(change, rows[change.trade_id]) for change in changes]
        return super().write(told, lease, done)

    def _row_ids(self, ids: Iterable[str]) -> dict[str, str]:
        """The ids of the rows of these trades."""
        wanted = dict.fromkeys(ids)
        kept = self._kept(i for i in wanted if not self._table.takes(i))
        return {i: kept[i].get(_ROW_ID, i) if i in kept else i for i in wanted}

    def _after(self, trade_id: str, raw: Record, written: Written) -> Record:
        base = raw or None
        _, shown = self._table.stored(Change(trade_id, base, written.fields, written.remove), raw)
        return {**raw, **shown}

    def _ended(self, step: Step, outcome: WriteOutcome) -> dict[str, Any]:
        key = self._table.given.pop(step.change.trade_id, None)
        if key is None or step.after is None:
            return super()._ended(step, outcome)
        row_id = record_id({"id": key}) or ""
        return {step.change.trade_id: {_ROW_ID: row_id}, row_id: with_fact(step.after, "id", step.change.trade_id, key)}


def _of_row(change: Change, row_id: str) -> Change:
    """The change of the row that the database has named."""
    if row_id == change.trade_id:
        return change
    return replace(change, trade_id=row_id, fields={n: value for n, value in change.fields.items() if n != "id"})


def open_ledger(
    place: Place, *, mapping: LedgerMapping = IDENTITY, state: Callable[[], State] | None = None, **_: Any
) -> SqlLedger:
    return SqlLedger(place, mapping=mapping, state=state)
