"""What `ghostclean init` shows: the ledger it has found, three of its records, the mapping, the account's word."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ghostclean.core.proposal import Line, Overlap, Proposal, Trust

from .text import printable

_MARKS = {Trust.SURE: " ", Trust.LIKELY: "~", Trust.DOUBTFUL: "?"}
_CELL = 40  # characters in a pipe


def record_lines(records: Sequence[Mapping[str, Any]], total: int) -> Iterator[str]:
    """Records side by side, one field a line."""
    names = list(dict.fromkeys(name for record in records for name in record))
    first = max((len(name) for name in names), default=0)
    width = _cell(first, len(records))
    count = f"{len(records)} of its {total} records" if total > len(records) else f"Its {total} records"
    yield f"{count if total != 1 else 'Its only record'}:"
    for name in names:
        cells = (printable(_shown(record.get(name)), width).ljust(width) for record in records)
        yield f"  {printable(name, first).ljust(first)}  {'  '.join(cells)}".rstrip()


def _cell(first: int, cells: int) -> int:
    if not sys.stdout.isatty():
        return _CELL
    return max(8, (shutil.get_terminal_size().columns - first - 2 - 2 * cells) // max(1, cells))


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def mapping_lines(proposal: Proposal, left_alone: Sequence[str], unplaced: Sequence[str]) -> Iterator[str]:
    """The proposed lines with their reasons, what is not sure marked, then what is left alone."""
    yield "The mapping I propose (~ likely, ? doubtful: please look):"
    fields, names = (max(len(text) for text in column) for column in zip(*map(_pair, proposal.lines), strict=True))
    for line in proposal.lines:
        field, name = _pair(line)
        yield f"{_MARKS[line.trust]} {field.ljust(fields)}  {name.ljust(names)}  {printable(line.why)}"
    for line in proposal.lines:
        if line.words:
            said = "; ".join(f"{ours} = {', '.join(map(_word, theirs))}" for ours, theirs in line.words)
            yield f"  {line.field}: {said}"
    yield from (f"note: {printable(note)}" for note in proposal.notes)
    if left_alone:
        yield f"left alone: {printable(', '.join(left_alone))}"
    if unplaced:
        yield f"without a place there, so kept by ghostclean and shown by `explain`: {', '.join(unplaced)}"


def _pair(line: Line) -> tuple[str, str]:
    form = f" ({line.form})" if line.form else ""
    return line.field, f"{printable(line.name, 60)}{form}"


def _word(value: Any) -> str:
    return printable(value, 40)


def overlap_lines(account: Mapping[str, Any], overlap: Overlap) -> Iterator[str]:
    """How ledger and account meet."""
    yield f"The account {account['id']} ({account['kind']}, {account['status']}) and this ledger:"
    pending = f", {overlap.pending} pending" if overlap.pending else ""
    yield f"  {overlap.open} open{pending}; {overlap.named} name an order"
    if overlap.asked:
        yield f"  the account knows the orders of {overlap.known} of the {overlap.asked} that were asked about"
    yield f"  its positions cover {overlap.covered} of the {overlap.open} open"
    if overlap.unreadable:
        yield f"  {overlap.unreadable} cannot be read as trades: they would be held and reported"
    if overlap.crossed:
        yield f"  entered the other way, so long and short may be confused: {printable(', '.join(overlap.crossed[:5]))}"
    if overlap.is_strange:
        yield "  NOTHING says that this ledger is of this account: paper or live, other keys, or a wrong line above?"


def standing_lines(source: str | None) -> Iterator[str]:
    yield f"The mapping of {source} stands already and is used as it is."
