"""What the words of a status or a side mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .columns import Column, key_of
from .names import BROKEN, CLOSED, DEAD, DIRECT, FILLED, LONG, OPEN, PENDING, SHORT, word

Words = tuple[tuple[str, tuple[Any, ...]], ...]  # our word, and theirs; the first of theirs is written
Told = Mapping[str, str]  # what the owner says of a word of theirs: our word

_MEANINGS = {"OPEN": OPEN, "PENDING": PENDING, "CLOSED": CLOSED, "CANCELED": DEAD, "ERROR": BROKEN}
WORDS = (*(f"status.{ours}" for ours in _MEANINGS), "side.LONG", "side.SHORT")  # what the owner may say of words
AS_A_SHORT = "is read as a short"
_PLAIN_ENDS = ("closed", "close", "exited", "done", "completed", "complete", "sold", "finished")


class StatusWords(NamedTuple):
    """The words by meaning and those that mean nothing known; what may be wrong, and what is only worth knowing."""

    words: Words
    unknown: tuple[Any, ...] = ()
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def status_words(column: Column, ends: Sequence[Column], told: Told) -> StatusWords:
    """`ends` are the columns that only an ended trade has values in."""
    if column.is_flag and not told:
        return _flag(column)
    said = {w: told.get(str(w)) or _meaning(word(w)) for w in column.words}
    doubts, notes = list[str](), list[str]()
    filled = [w for w in said if word(w) == FILLED and str(w) not in told]
    if filled and "OPEN" in said.values():
        doubts.append(f"both {_first(said, 'OPEN')} and {filled[0]} may be open")
    elif filled and "CLOSED" not in said.values():
        doubts.append(f"{filled[0]} is read as open; if it is the end of an order, this is no list of trades")
    said |= dict.fromkeys(filled, "OPEN")
    for own, meaning in said.items():
        rows = [at for at, cell in enumerate(column.cells) if cell == own]
        over = sum(any(end.cells[at] is not None for end in ends) for at in rows)
        if meaning == "OPEN" and over and str(own) not in told:
            doubts.append(f"{over} of {len(rows)} records that say {own} have ended")
    unknown = tuple(w for w, meaning in said.items() if meaning is None)
    if unknown:
        notes.append(f"{', '.join(map(str, unknown))} is no word known here: such records are left alone")
    grouped = {ours: tuple(w for w in said if said[w] == ours) for ours in _MEANINGS}
    if grouped["OPEN"] and not grouped["CLOSED"]:
        grouped["CLOSED"] = (_like(str(grouped["OPEN"][0]), "closed"),)
        notes.append(f"no record says closed yet: {grouped['CLOSED'][0]} is what a close would write")
    grouped["CLOSED"] = tuple(sorted(grouped["CLOSED"], key=_plainest))
    words = tuple((ours, theirs) for ours, theirs in grouped.items() if theirs)
    return StatusWords(words, unknown, tuple(doubts), tuple(notes))


def only_of_orders(column: Column) -> bool:
    """Whether all words are those of an order, and one of them is its end."""
    said = {word(w) for w in column.words}
    return FILLED in said and said <= PENDING | DEAD | BROKEN | {FILLED}


def _flag(column: Column) -> StatusWords:
    opens = "closed" not in key_of(column.name)
    yes, no = (True, False) if all(isinstance(v, bool) for v in column.values) else (1, 0)
    words = (("OPEN", (yes if opens else no,)), ("CLOSED", (no if opens else yes,)))
    return StatusWords(words)


def _meaning(said: str) -> str | None:
    return next((ours for ours, theirs in _MEANINGS.items() if said in theirs), None)


def _first(said: dict[Any, str | None], meaning: str) -> Any:
    return next(w for w, ours in said.items() if ours == meaning)


def _plainest(own: Any) -> int:
    said = word(own)
    return _PLAIN_ENDS.index(said) if said in _PLAIN_ENDS else len(_PLAIN_ENDS)


def _like(example: str, said: str) -> str:
    """A word spelled as another one is."""
    return said.upper() if example.isupper() else said.title() if example.istitle() else said


def side_words(column: Column, told: Told) -> tuple[Words, str | None]:
    """The words by meaning, and the doubt; no words where these are no sides."""
    if column.is_flag and not told:
        short = "short" in key_of(column.name)
        if not short and "long" not in key_of(column.name):
            return (), None
        yes, no = (True, False) if all(isinstance(v, bool) for v in column.values) else (1, 0)
        return (("LONG", (no if short else yes,)), ("SHORT", (yes if short else no,))), None
    longs, shorts = (
        tuple(w for w in column.words if told.get(str(w), ours if word(w) in theirs else "") == ours)
        for ours, theirs in (("LONG", LONG), ("SHORT", SHORT))
    )
    if not longs + shorts or len(longs) + len(shorts) < len(column.words):
        return (), None
    doubt = None
    if shorts and word(shorts[0]) not in DIRECT and str(shorts[0]) not in told:
        doubt = f"{shorts[0]} {AS_A_SHORT}; if it is the sale of a long, this is no list of trades"
    longs = longs or (_counterpart(shorts[0], _BACK),)
    shorts = shorts or (_counterpart(longs[0], _OPPOSITE),)
    return (("LONG", longs), ("SHORT", shorts)), doubt


_OPPOSITE = {"long": "short", "buy": "sell", "b": "s", "l": "s", "bull": "bear", "bullish": "bearish", "up": "down"}
_BACK = {theirs: ours for ours, theirs in reversed(_OPPOSITE.items())}


def _counterpart(own: Any, pairs: dict[str, str]) -> str:
    return _like(str(own), pairs.get(word(own), "short" if pairs is _OPPOSITE else "long"))
