"""What a command says as it goes, and what it asks: at a terminal, and else of nobody."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import typer

from ghostclean.cli.output import Common, put


@dataclass(frozen=True, slots=True)
class Dialog:
    """`asks`: there is somebody to answer."""

    common: Common
    asks: bool

    @classmethod
    def of(cls, common: Common, *, silent: bool) -> Dialog:
        at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return cls(common, asks=at_terminal and not (silent or common.json or common.quiet))

    def tell(self, lines: Iterable[str], *, always: bool = False) -> None:
        """Lines for a person; with --quiet only what is said `always`."""
        from ghostclean.render.terminal import folded

        if not self.common.json and (always or not self.common.quiet):
            for line in folded(map(self.common.clean, lines)):
                put(line)

    def show(self, screen: Iterable[str]) -> None:
        """Lines that are laid out already."""
        if not self.common.json and not self.common.quiet:
            for line in screen:
                put(line)

    def ask(self, question: str, default: str = "") -> str:
        answer: str = typer.prompt(question, default=default, show_default=bool(default))
        return answer.strip()

    def ask_secret(self, question: str) -> str:
        answer: str = typer.prompt(question, hide_input=True)
        return answer.strip()
