"""Orphans that look like a trade which is gone: the same quantity or cost under another name, found without a scan."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from ghostclean.core.broker import ONE, is_option

from .allocation import SAME_COST, Allocation, Orphan, within


class Twins:
    """The orphans of one side in order of quantity and of cost."""

    def __init__(self, orphans: Iterable[Orphan]) -> None:
        orphans = list(orphans)
        priced = [(o.position.avg_price * o.qty, o) for o in orphans if o.position.avg_price is not None]
        self._by_qty = sorted(((o.qty, o) for o in orphans), key=lambda row: row[0])
        self._by_cost = sorted(priced, key=lambda row: row[0])

    def of(self, allocation: Allocation) -> Iterator[Orphan]:
        price = allocation.entry_price
        yield from _near(self._by_qty, allocation.open_qty, allocation)
        if price is not None:
            yield from _near(self._by_cost, price * allocation.open_qty, allocation)


def _near(rows: Sequence[tuple[Decimal, Orphan]], wanted: Decimal, allocation: Allocation) -> Iterator[Orphan]:
    index = bisect_left(rows, wanted * (ONE - SAME_COST), key=lambda row: row[0])
    while index < len(rows) and rows[index][0] <= wanted / (ONE - SAME_COST):
        size, orphan = rows[index]
        position = orphan.position
        alike = position.is_crypto == allocation.crypto and is_option(position.key) == is_option(allocation.key)
        if alike and within(size, wanted, SAME_COST):
            yield orphan
        index += 1
