"""Makes docs/reconcile.svg and docs/status.svg from a real run on the sample data: python docs/pictures.py"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COLUMNS = 80


def main() -> None:
    """Plays the sample in a fresh folder and draws what a terminal would show."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sample in ("trades.json", "broker.json"):
            shutil.copy(ROOT / "ghostclean" / "sample" / sample, folder)
        _run(folder, "reconcile", "--dry-run")
        _draw("reconcile", "ghostclean reconcile", _run(folder, "reconcile"))
        _run(folder, "reconcile")
        _draw("status", "ghostclean status", _run(folder, "status"))


def _run(folder: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "FORCE_COLOR": "1",
        "COLUMNS": str(COLUMNS),
        "GHOSTCLEAN_LEDGER": "file:trades.json",
        "GHOSTCLEAN_STATE": "sqlite:state.db",
        "GHOSTCLEAN_BROKER": "file:broker.json",
    }
    command = [sys.executable, "-m", "ghostclean", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def _draw(name: str, title: str, shown: str) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ {title}\n{shown}"), end="")
    picture = console.export_svg(title=title, unique_id=name)
    (HERE / f"{name}.svg").write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n")


if __name__ == "__main__":
    main()
