"""What others wrote, on a screen and in a command to paste."""

from __future__ import annotations

import subprocess

import pytest

from ghostclean.lines import command, printable


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[2Jb", "a?[2Jb"), ("a\nb\tc", "a b c"), ("ü€", "ü€"), ("x\u202ey", "x?y")]
)
def test_nothing_from_a_ledger_can_move_the_cursor(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_is_cut() -> None:
    assert printable("x" * 500, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    "trade_id",
    ["t-1", "a b", "o'brien\n\\x41", ";$(exit 3)`id`", "\x1b[31mred", "🚀\u202e", "-rf", "--\thelp", "x" * 500],
)
def test_a_command_carries_any_id_through_a_shell(trade_id: str) -> None:
    line = command("resolve", trade_id, "--vanished")
    assert line.isprintable()

    counted = subprocess.run(
        ["bash", "-c", line.replace("ghostclean", "printf '%s\\0'", 1)], capture_output=True, check=True
    )

    words = counted.stdout.decode().split("\0")[:-1]
    options_first = ["resolve", "--vanished", "--", trade_id]
    assert words == (options_first if trade_id.startswith("-") else ["resolve", trade_id, "--vanished"])
