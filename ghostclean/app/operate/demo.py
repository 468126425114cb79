"""The whole job on sample data: a dry run, a real run, a run that changes nothing, the status."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ghostclean.errors import BadSettings
from ghostclean.result import Result

Variables = Mapping[str, str]
Run = Callable[[Variables, bool], Result]
Look = Callable[[Variables], dict[str, Any]]

_SAMPLES = ("trades.json", "broker.json")


@dataclass(frozen=True, slots=True)
class Demo:
    """What was done: each run with its title and document, and the status after them."""

    folder: str
    runs: tuple[tuple[str, dict[str, Any]], ...]
    status: dict[str, Any] | None
    try_it: tuple[str, ...]
    exit_code: int = 0
    error: str | None = None
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.error is None,
            "folder": self.folder,
            "runs": [{"title": title, **document} for title, document in self.runs],
            "status": self.status,
            "error": self.error,
            "detail": self.detail,
        }


def run_demo(folder: str | None, run: Run, look: Look) -> Demo:
    """Plays the job in a fresh folder; raises BadSettings when the folder is not empty."""
    place = _fresh(folder)
    variables = {
        "GHOSTCLEAN_LEDGER": f"file:{place / 'trades.json'}",
        "GHOSTCLEAN_STATE": f"sqlite:{place / 'state.db'}",
        "GHOSTCLEAN_BROKER": f"file:{place / 'broker.json'}",
    }
    runs: list[tuple[str, dict[str, Any]]] = []
    for title, dry_run in (
        ("ghostclean reconcile --dry-run", True),
        ("ghostclean reconcile", False),
        ("ghostclean reconcile, once more: nothing is left to do", False),
    ):
        result = run(variables, dry_run)
        runs.append((title, result.to_dict()))
        if not result.ok:
            return Demo(str(place), tuple(runs), None, (), result.exit_code, result.error, result.detail)
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return Demo(str(place), tuple(runs), look(variables), (f"export {exports}", "ghostclean status"))


def _fresh(folder: str | None) -> Path:
    place = Path(tempfile.mkdtemp(prefix="ghostclean-demo-") if folder is None else folder).absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise BadSettings(f"--folder {place} is not empty: nothing was done; name a new or an empty folder")
        for name in _SAMPLES:
            text = files("ghostclean").joinpath("sample", name).read_text(encoding="utf-8")
            (place / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadSettings(f"--folder {place} cannot be used: {error.strerror or error} (nothing was done)") from None
    return place
