"""Ready-made schedules for this installation. None needs `flock`: the state's lock is shared by all machines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

_COMMENT = "#"


def schedule_text(kind: str, program: str, folder: str, environment_file: str, *, is_named: bool = False) -> str:
    """The text of a schedule with this installation's paths, quoted for cron or systemd; `is_named` adds --env-file."""
    text = files("ghostclean").joinpath("schedules", f"{kind}.txt").read_text(encoding="utf-8")
    paths = {"@PROGRAM@": program, "@FOLDER@": folder, "@ENVIRONMENT@": environment_file}
    paths = {mark: str(Path(path).absolute()) for mark, path in paths.items()}
    if is_named and kind == "cron":
        text = re.sub(r"^([^#\n].*@PROGRAM@.*)$", r"\1 --env-file @ENVIRONMENT@", text, flags=re.MULTILINE)
    return "".join(_filled(line, paths, _WRITERS[kind]) for line in text.splitlines(keepends=True))


def _filled(line: str, paths: dict[str, str], write: Callable[[str, str], str]) -> str:
    for mark, path in paths.items():
        if mark in line:
            line = line.replace(mark, shlex.quote(path) if line.startswith(_COMMENT) else write(path, line))
    return line


def _for_cron(path: str, line: str) -> str:
    """For the shell, with every % escaped: cron ends a command at a bare one."""
    del line
    return shlex.quote(path).replace("%", r"\%")


def _for_systemd(path: str, line: str) -> str:
    """Specifiers escaped, and quoted where a command line is parsed; systemd takes no quotes in a program's name."""
    path = path.replace("%", "%%")
    return f'"{path}"' if line.startswith("ExecStart=") and any(c.isspace() for c in path) else path


def _as_it_is(path: str, line: str) -> str:
    del line
    return path


_WRITERS = {"cron": _for_cron, "systemd": _for_systemd, "github": _as_it_is}
