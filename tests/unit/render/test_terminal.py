"""What a terminal shows beside the result: lines that fit, and a word of patience."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from ghostclean.render.terminal import folded, progress


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Makes stderr a terminal of 60 columns; gives what reads the next of it, or nothing."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")

    def read(wait: float = 5) -> str:
        ready, _, _ = select.select([ours], [], [], wait)
        return os.read(ours, 1000).decode() if ready else ""

    with open(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:  # noqa: PTH123 - a descriptor
        patch.setattr("sys.stderr", stream)
        yield read
    os.close(ours)


class Tty:
    def isatty(self) -> bool:
        return True


def on_terminal(*lines: str, columns: int, monkeypatch: pytest.MonkeyPatch, indent: str = "    ") -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal: TextIO = Tty()  # type: ignore[assignment]
    return list(folded(lines, indent, terminal))


def test_folded_lines_break_between_words_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "note clock        ours differs from the broker's by 4d - set this machine's clock"
    assert list(folded([line])) == [line]
    assert on_terminal(line, columns=40, indent=" " * 18, monkeypatch=monkeypatch) == [
        "note clock        ours differs from the",
        "                  broker's by 4d - set",
        "                  this machine's clock",
    ]


def test_a_command_to_paste_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "ghostclean resolve t-3 --exit-order 7a024204-f7c1-4d87-8da5-e709d4713d60"
    shown = on_terminal(
        f"    {command}", f"needs you: AAPL t-3: mismatch: it is long -> {command}", columns=50, monkeypatch=monkeypatch
    )
    assert shown == [f"    {command}", "needs you: AAPL t-3: mismatch: it is long", f"    {command}"]


def test_long_work_says_how_much_of_how_much_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        with progress("asking the broker", silent=False, limit=60) as told:
            told("looking up", 162, 500)
            said = shown()
        assert said.startswith("\rlooking up 162 of 500 · 0 s of 60 s"), said
        assert shown().endswith("\r\x1b[K"), "it is taken away again"


def test_a_line_of_patience_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown, progress("x" * 200, silent=False):
        assert 0 < shown().count("x") < 60


def test_nothing_is_said_of_short_work_nor_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        with progress("asking", silent=False) as told:
            told("looking up", 1, 2)
        monkeypatch.setattr("ghostclean.render.terminal._PATIENCE", 0.001)
        with progress("asking", silent=True) as told:
            told("looking up", 1, 2)
            time.sleep(0.02)
        assert shown(wait=0) == ""
