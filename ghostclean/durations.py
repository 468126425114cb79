"""Durations as people write them: `60`, `0.5`, `500ms`, `3s`, `2m`, `1h`, `30d`."""

from __future__ import annotations

import re

DAY = 86_400.0

_SHAPE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY}


def parse_duration(text: str, *, zero: bool = False, most: float = DAY) -> float:
    """Seconds from text; ValueError says what is wrong. Zero needs `zero`; `most` seconds is the limit."""
    match = _SHAPE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text.strip()[:40]!r} is no duration; write it like 60, 500ms, 3s, 2m, 12h or 1d")
    seconds = float(match[1]) * _SECONDS[match[2] or "s"]
    if seconds == 0 and not zero:
        raise ValueError("a duration of zero leaves no time; write it like 60, 500ms, 3s, 2m, 12h or 1d")
    if seconds > most:
        raise ValueError(f"{text.strip()[:40]!r} is longer than {spell(most)}")
    return seconds


def spell(seconds: float) -> str:
    """The same in words for people, in the largest unit that reads well: `40s`, `5m`, `3h`, `2d`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 90:
        return f"{seconds:.3g}s"
    for limit, size, unit in ((90 * 60, 60, "m"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / size)}{unit}"
    return f"{round(seconds / DAY)}d"
