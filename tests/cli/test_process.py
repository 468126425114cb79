"""What surrounds a run: closed and full streams, signals at any moment, the file and form that options name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.program import ROOT

SAMPLE = ROOT / "ghostclean" / "sample"
PROGRAM = f"{sys.executable} -m ghostclean"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
CLOSED = 5  # ghosts of the sample ledger


class Place:
    """The sample ledger and broker in a folder, with a `.env` that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("trades.json", "broker.json"):
            shutil.copy(SAMPLE / name, folder)
        (folder / ".env").write_text(self.settings())

    def settings(self) -> str:
        return (
            f"GHOSTCLEAN_LEDGER=file:{self.folder}/trades.json\n"
            f"GHOSTCLEAN_STATE=sqlite:{self.folder}/state.db\n"
            f"GHOSTCLEAN_BROKER=file:{self.folder}/broker.json\n"
        )

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}

    def sh(self, line: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a line of bash; `ghostclean` in it is the program. The code is that of the first command of a pipe."""
        script = f'ghostclean() {{ {PROGRAM} "$@"; }}\n{line}\nexit ${{PIPESTATUS[0]}}'
        return subprocess.run(
            ["bash", "-c", script],
            cwd=folder or self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def closed(self) -> int:
        """Trades that a run has closed."""
        before = {trade["id"]: trade for trade in json.loads((SAMPLE / "trades.json").read_text())}
        now = json.loads((self.folder / "trades.json").read_text())
        return sum(trade["status"] == "CLOSED" != before[trade["id"]]["status"] for trade in now)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --------------------------------------------------------------------------- streams


@pytest.mark.parametrize(
    "line",
    [
        "ghostclean reconcile 2>&- >/dev/null",
        "ghostclean reconcile >&-",
        "ghostclean reconcile --json >&- 2>&-",
        "ghostclean reconcile --quiet --verbose <&- >&- 2>&-",
        "ghostclean reconcile --verbose | head -1",
        "ghostclean reconcile --json | true",
        "ghostclean reconcile --verbose 2>&1 >/dev/null | true",
        pytest.param("ghostclean reconcile >/dev/full", marks=FULL),
        pytest.param("ghostclean reconcile --json >/dev/full", marks=FULL),
        pytest.param("ghostclean reconcile --verbose >>/dev/full 2>&1", marks=FULL),
        pytest.param("ghostclean reconcile --verbose 2>/dev/full", marks=FULL),
    ],
)
def test_a_run_that_nobody_can_hear_does_the_same(place: Place, line: str) -> None:
    done = place.sh(line)

    assert (done.returncode, place.closed()) == (0, CLOSED)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("end", ["2>&-", "| true", ">&- 2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_a_failure_that_nobody_can_hear_keeps_its_code(place: Place, end: str) -> None:
    (place.folder / "trades.json").write_text("[")

    assert place.sh(f"ghostclean reconcile --no-such-option {end}").returncode == 2
    assert place.sh(f"ghostclean reconcile --close-reason '' {end}").returncode == 2
    assert place.sh(f"ghostclean reconcile {end}").returncode == 4


@pytest.mark.parametrize("what", ["--version", "--help", "gate --help", "status", "schedule cron"])
@pytest.mark.parametrize("end", [">&-", "| true", pytest.param(">/dev/full", marks=FULL)])
def test_what_only_speaks_ends_well_unheard(place: Place, what: str, end: str) -> None:
    done = place.sh(f"ghostclean {what} {end}")

    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@FULL
def test_output_that_was_lost_on_a_full_disk_is_said(place: Place) -> None:
    done = place.sh("ghostclean snapshot >/dev/full")

    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "stdout cannot be written (No space left on device)" in done.stderr


def test_closed_streams_are_not_taken_for_files(place: Place) -> None:
    """A state that is opened under a free number of a standard stream would get what is said."""
    assert place.sh("ghostclean reconcile --verbose >&- 2>&-").returncode == 0

    done = place.sh("ghostclean status --json")
    assert json.loads(done.stdout)["runsHealth"] == "healthy"


# --------------------------------------------------------------------------- signals

_AT_IMPORT = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from ghostclean.cli import main

class Stop(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Stop())
sys.exit(main())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "module",
    [
        "ghostclean.cli.app",  # before the command line is read
        "ghostclean.api",  # while the command begins
        "ghostclean.adapters.snapshot",
        "ghostclean.app.report",  # in the middle of the run
    ],
)
@pytest.mark.parametrize("command", ["reconcile", "auto-manage"])
def test_an_interruption_ends_in_one_document(
    place: Place, number: signal.Signals, code: int, module: str, command: str
) -> None:
    script = _AT_IMPORT.format(module=module, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", script, command, "--json"],
        cwd=place.folder,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    document = json.loads(done.stdout)
    assert done.returncode == code, done.stderr
    assert (document["ok"], document["error"], document["checked"]) == (False, "interrupted", 0)
    assert "interrupted" in document["detail"]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs a pipe that can be made small")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_document_is_written_waits_for_its_end(place: Place, number: signal.Signals) -> None:
    out, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "ghostclean", "reconcile", "--json"],
        cwd=place.folder,
        env=place.environment(),
        stdout=end,
        stderr=subprocess.PIPE,
    )
    os.close(end)
    with os.fdopen(out, "rb") as stream:
        text = stream.read(1)  # the document has begun, and the pipe holds only a part of it
        process.send_signal(number)
        text += stream.read()
    _, said = process.communicate(timeout=60)

    document: dict[str, Any] = json.loads(text)
    assert len(text) > 4096
    assert (process.returncode, document["ok"], document["closed"]) == (0, True, CLOSED)
    assert said.startswith(b"ghostclean: needs you: PLTR: orphan: ")
    assert said.count(b"\n") == 1


# --------------------------------------------------------------------------- the file and the form


def test_a_file_of_settings_can_be_anywhere(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / ".env").write_text("GHOSTCLEAN_LEDGER=nonsense\n")
    file = place.folder / "live.env"
    file.write_text(place.settings() + "ALPACA_SECRET_KEY=SENTINEL-in-a-file\nALPACA_API_KEY=k-1234\n")
    file.chmod(0o644)

    done = place.sh(f"ghostclean reconcile --json --env-file {file}", elsewhere)
    assert (done.returncode, place.closed()) == (0, CLOSED)
    checks = json.loads(place.sh(f"ghostclean doctor --json --env-file {file}", elsewhere).stdout)["checks"]
    assert any(check["cure"] == f"chmod 600 {file}" for check in checks)
    for kind, words in (("cron", f"--source cron --env-file {file}\n"), ("systemd", f"EnvironmentFile=-{file}\n")):
        assert words in place.sh(f"ghostclean schedule {kind} --env-file {file}", elsewhere).stdout
    hidden = place.sh(f"ghostclean explain SENTINEL-in-a-file --env-file {file}", elsewhere)
    assert hidden.returncode == 1
    assert "SENTINEL" not in hidden.stderr


def test_a_file_of_settings_that_is_not_there_is_refused(place: Place) -> None:
    done = place.sh("ghostclean reconcile --json --env-file nowhere.env")

    document = json.loads(done.stdout)
    assert (done.returncode, document["error"]) == (2, "bad_settings")
    assert f"--env-file nowhere.env is no file in {place.folder}" in document["detail"]
    assert place.closed() == 0


@pytest.mark.parametrize("arguments", ["gate --max-open -1", "reconcile --deadline x", "explain nobody"])
@pytest.mark.parametrize("form", ["--log-format json", "--log-format=json"])
def test_logs_can_be_objects(place: Place, arguments: str, form: str) -> None:
    done = place.sh(f"ghostclean {arguments} {form}")

    assert done.returncode in (1, 2)
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert line["level"] == "error"
    assert line["message"]


def test_every_log_line_can_be_an_object(place: Place) -> None:
    (place.folder / "trades.json").write_text("[")
    done = place.sh("ghostclean reconcile --verbose --log-format json")

    assert done.returncode == 4
    assert done.stderr
    for line in done.stderr.splitlines():
        assert json.loads(line).keys() == {"time", "level", "message"}


def test_a_socket_without_its_slashes_is_wrong(place: Place) -> None:
    done = place.sh("REDIS_URL=unix:r.sock ghostclean reconcile --json")

    document = json.loads(done.stdout)
    assert (done.returncode, document["error"]) == (2, "bad_settings")
    assert "unix:///path/to/redis.sock" in document["detail"]
