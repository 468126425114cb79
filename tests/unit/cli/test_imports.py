"""What the command line imports: nothing heavy for help, version and completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import ROOT

HEAVY = {"alpaca", "pandas", "numpy", "redis", "requests", "rich", "urllib3", "pydantic_settings", "sqlite3", "rq"}
HEAVY |= {"sqlalchemy", "psycopg", "pymysql"}
COMMANDS = (
    "reconcile",
    "auto-manage",
    "status",
    "gate",
    "explain",
    "resolve",
    "undo",
    "snapshot",
    "init",
    "doctor",
    "migrate",
    "fleet",
    "schedule",
    "demo",
)


def imported(*arguments: str, folder: Path, **environment: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """The top-level packages that one command line imports, and how it ended."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    program = "import sys; from ghostclean.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        timeout=60,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}, done


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), *((command, "--help") for command in COMMANDS)])
def test_version_and_help_import_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    found, done = imported(*arguments, folder=tmp_path)
    assert done.returncode == 0
    assert found & (HEAVY | {"pydantic", "asyncio"}) == set()


def test_version_answers_before_typer_is_imported(tmp_path: Path) -> None:
    found, done = imported("--version", folder=tmp_path)
    assert done.stdout.startswith("ghostclean ")
    assert "typer" not in found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_imports_nothing_heavy(shell: str, tmp_path: Path) -> None:
    variables = {
        "_GHOSTCLEAN_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "ghostclean reconcile --or",
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "ghostclean reconcile --or",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "--or",
    }
    found, done = imported(folder=tmp_path, **variables)
    assert "--orphans" in done.stdout
    drawn = set() if shell == "bash" else {"rich"}  # the other two show the help as well
    assert found & (HEAVY - drawn) == set()


def test_a_run_on_files_needs_no_network_library(tmp_path: Path) -> None:
    found, done = imported("demo", "--json", folder=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 0
    assert found & {"alpaca", "pandas", "redis", "requests", "rich", "urllib3", "sqlalchemy", "psycopg"} == set()


def test_status_imports_no_broker(tmp_path: Path) -> None:
    found, done = imported(
        "status", "--json", folder=tmp_path, XDG_STATE_HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path)
    )
    assert done.returncode == 0
    assert found & {"alpaca", "pandas", "requests", "rich", "redis"} == set()


def test_a_fleet_without_a_queue_needs_no_queue(tmp_path: Path) -> None:
    (tmp_path / "alpha.env").write_text("GHOSTCLEAN_LEDGER=file:trades.json\n")
    found, done = imported("fleet", ".", "status", "--json", folder=tmp_path, XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 0
    assert '"name": "alpha"' in done.stdout
    assert found & {"rq", "redis", "rich"} == set()


def test_the_package_itself_is_light() -> None:
    program = (
        "import sys, ghostclean; print(ghostclean.__version__, sorted(m for m in sys.modules if 'ghostclean' in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    assert done.stdout.strip().endswith("['ghostclean']")
