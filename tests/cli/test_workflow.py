"""The workflow's own steps, taken out of the YAML and run in order the way a runner runs them.

Each script runs alone in bash: `ghostclean` is the only program on PATH, the variables are those
that GitHub sets and those of the step's `env`, and nothing outlives a step but its output file.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.cli.world import KEY, SECRET, SENTINEL
from tests.fakebroker import FakeBroker
from tests.program import ROOT

WORKFLOWS = ROOT / ".github/workflows"
WORKFLOW = yaml.safe_load((WORKFLOWS / "market-loop.yml").read_text())
JOB = WORKFLOW["jobs"]["market-loop"]
STEPS = JOB["steps"]
SCRIPTS = [step for step in STEPS if "run" in step]
NAMES = [
    "Install",
    "Sync broker state",
    "Reconcile ghost open trades",
    "Entry gate",
    "Scan and auto-entry",
    "Auto-manage",
    "Status",
]
LEDGER_KEY = "trades:v1:workflow"
BASH = shutil.which("bash")


@dataclass
class Ran:
    """What one step left behind."""

    code: int
    log: str
    summary: str
    outputs: dict[str, str]

    def annotations(self, level: str) -> list[str]:
        return re.findall(rf"^::{level}[^:]*::(.*)$", self.log, re.MULTILINE)


@dataclass
class Runner:
    """A stand-in for GitHub's runner: contexts, one folder, one step after the other."""

    folder: Path
    secrets: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    ran: dict[str, Ran] = field(default_factory=dict)
    ids: dict[str, Ran] = field(default_factory=dict)

    def value(self, text: str) -> str:
        """An `env` value with its expressions filled in; an unknown kind of expression is an error."""

        def fill(match: re.Match[str]) -> str:
            context, _, name = match[1].partition(".")
            if context == "secrets":
                return self.secrets.get(name, "")
            if context == "vars":
                return self.variables.get(name, "")
            step, outputs, output = name.split(".")
            assert (context, outputs) == ("steps", "outputs"), text
            return self.ids[step].outputs.get(output, "")

        return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", fill, text)

    def run(self, step: Mapping[str, Any]) -> Ran:
        place = self.folder / f"step-{len(self.ran)}"
        place.mkdir()
        files = {name: place / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")}
        for file in files.values():
            file.touch()
        environment = {
            "PATH": str(self.folder / "bin"),
            "HOME": str(self.folder),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_RUN_ID": "4711",
            "GITHUB_RUN_ATTEMPT": "2",
            "GITHUB_WORKFLOW": WORKFLOW["name"],
            **{name: str(file) for name, file in files.items()},
            **{name: self.value(str(text)) for name, text in {**JOB["env"], **step.get("env", {})}.items()},
            **self.outside,
        }
        script = place / "script.sh"
        script.write_text(step["run"])
        assert step["shell"] == "bash"
        done = subprocess.run(
            [str(BASH), "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            env=environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        ran = Ran(done.returncode, done.stdout, files["GITHUB_STEP_SUMMARY"].read_text(), outputs)
        self.ran[step["name"]] = self.ids[step["id"]] = ran
        return ran

    def run_all(self) -> dict[str, Ran]:
        for step in SCRIPTS:
            self.run(step)
        return self.ran


@dataclass
class Site:
    """A broker with one ghost and one live trade, the ledger in Redis, and a runner beside them."""

    broker: FakeBroker
    client: Any
    runner: Runner

    def trades(self) -> dict[str, dict[str, Any]]:
        return {trade["id"]: trade for trade in json.loads(self.client.get(LEDGER_KEY))}


@pytest.fixture
def site(tmp_path: Path, redis_url: str) -> Iterator[Site]:
    prefix = f"w{uuid.uuid4().hex[:8]}:"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ghostclean"
    program.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m ghostclean \"$@\"\n")
    program.chmod(0o755)
    with (
        FakeBroker(now="2026-11-18T15:00:00Z", key=KEY, secret=SECRET) as broker,
        redis.Redis.from_url(redis_url) as client,
    ):
        ghost = broker.open_trade("AAPL", 10, 180, at="2026-11-17T15:00:00Z")
        broker.sell("AAPL", 10, "187.40", at="2026-11-17T18:00:00Z")
        live = broker.open_trade("MSFT", 5, 400, at="2026-11-17T15:00:00Z", bracket=(420, 390))
        common = {"side": "LONG", "status": "OPEN", "openedAt": "2026-11-17T15:00:00Z"}
        trades = [
            {"id": "ghost", "ticker": "AAPL", "quantity": 10, "alpacaOrderId": ghost["id"], **common},
            {"id": "live", "ticker": "MSFT", "quantity": 5, "alpacaOrderId": live["id"], **common},
        ]
        client.set(LEDGER_KEY, json.dumps(trades))
        runner = Runner(
            tmp_path,
            {"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET, "REDIS_URL": redis_url},
            {"GHOSTCLEAN_LEDGER_KEY": LEDGER_KEY, "GHOSTCLEAN_KEY_PREFIX": prefix},
            {"GHOSTCLEAN_TRADING_URL": broker.url, "GHOSTCLEAN_DATA_URL": broker.url},
        )
        yield Site(broker, client, runner)
        for key in (LEDGER_KEY, *client.scan_iter(match=f"{prefix}*")):
            client.delete(key)
    said = "".join(ran.log + ran.summary for ran in runner.ran.values())
    assert SENTINEL not in said


def goes_on(ran: Mapping[str, Ran]) -> None:
    """Every step ran and none failed the job; what each ended with is in its output and summary."""
    assert list(ran) == NAMES
    assert {name: one.code for name, one in ran.items()} == dict.fromkeys(NAMES, 0)
    for name, one in ran.items():
        assert re.search(rf"^{name}: .", one.summary, re.MULTILINE), name
        assert len(one.summary) < 20_000
        assert one.outputs["exit-code"].isdecimal()


def visible(ran: Mapping[str, Ran], *names: str, saying: str) -> None:
    """These steps say why they failed, as an annotation and in the summary."""
    for name in names:
        errors = ran[name].annotations("error")
        assert errors, f"{name} has no annotation: {ran[name].log}"
        assert any(re.search(saying, error) for error in errors), f"{name}: {errors}"
        assert "**" in ran[name].summary, ran[name].summary


# --------------------------------------------------------------------------- the file


def test_the_steps_stand_in_order_and_run_alone() -> None:
    assert [step["name"] for step in SCRIPTS] == NAMES
    for step in SCRIPTS:
        assert "${{" not in step["run"], step["name"]
        assert step["continue-on-error"] is True
        assert step["timeout-minutes"] <= 4
    # Every step may hang to its limit, and the last one still says what happened.
    assert sum(step["timeout-minutes"] for step in SCRIPTS) < JOB["timeout-minutes"] <= 20


def test_rights_concurrency_and_pins() -> None:
    assert WORKFLOW["permissions"] == {}
    assert JOB["permissions"] == {"contents": "read"}
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is False
    assert "workflow_dispatch" in WORKFLOW[True]
    for file in WORKFLOWS.glob("*.yml"):
        used = re.findall(r"uses: (.*)$", file.read_text(), re.MULTILINE)
        assert used
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)


def test_secrets_appear_only_as_step_environment() -> None:
    for step in STEPS:
        rest = {name: value for name, value in step.items() if name != "env"}
        assert "secrets." not in json.dumps(rest), step["name"]
    job = {name: value for name, value in JOB.items() if name != "steps"}
    assert "secrets." not in json.dumps(job)


@pytest.mark.parametrize("file", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_the_file_passes_the_workflow_schema(file: Path) -> None:
    program = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("check-jsonschema is not installed")
    done = subprocess.run(
        [program, "--builtin-schema", "vendor.github-workflows", str(file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing() -> None:
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("zizmor is not installed")
    done = subprocess.run(
        [program, "--offline", "--no-config", str(WORKFLOWS)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


# --------------------------------------------------------------------------- the runs


def test_a_healthy_run_closes_the_ghost_and_enters(site: Site) -> None:
    site.runner.variables |= {"SCAN_COMMAND": "echo scanned > scan.txt", "ENTRY_COMMAND": "echo entered > entry.txt"}

    ran = site.runner.run_all()

    goes_on(ran)
    for name in NAMES:
        assert not ran[name].annotations("error"), ran[name].log
        assert not ran[name].annotations("warning"), ran[name].log
        assert ran[name].outputs["exit-code"] == "0"
    trades = site.trades()
    assert (trades["ghost"]["status"], trades["ghost"]["closePrice"]) == ("CLOSED", 187.4)
    assert trades["live"]["status"] == "OPEN"
    assert "ghost" not in re.findall(r"^closed +\S+ +(\S+)", ran["Sync broker state"].log, re.MULTILINE)
    assert re.findall(r"^closed +\S+ +(\S+)", ran["Reconcile ghost open trades"].log, re.MULTILINE) == ["ghost"]
    assert re.search(r"gh-reconcile-4711-2-\d{10}\b", ran["Reconcile ghost open trades"].log)
    assert "| closed | AAPL | ghost | exited |" in ran["Reconcile ghost open trades"].summary
    assert ran["Entry gate"].outputs["gate"] == "open"
    assert (site.runner.folder / "scan.txt").read_text() == "scanned\n"
    assert (site.runner.folder / "entry.txt").read_text() == "entered\n"
    assert "healthy" in ran["Status"].summary
    telemetry = [json.loads(run) for run in site.client.lrange(
        f"{site.runner.variables['GHOSTCLEAN_KEY_PREFIX']}telemetry:reconcile:runs", 0, -1
    )]  # fmt: skip
    assert [run["source"] for run in telemetry] == ["auto-manage", "github-actions", "github-actions"]


def test_a_closed_gate_skips_the_entry(site: Site) -> None:
    site.runner.variables |= {"GHOSTCLEAN_MAX_OPEN": "1", "ENTRY_COMMAND": "echo entered > entry.txt"}

    ran = site.runner.run_all()

    goes_on(ran)
    assert ran["Entry gate"].outputs == {"gate": "closed", "exit-code": "10"}
    assert not ran["Entry gate"].annotations("error")
    assert "skipped, the entry gate is closed" in ran["Scan and auto-entry"].summary
    assert not (site.runner.folder / "entry.txt").exists()


def test_a_failing_scan_keeps_the_entry_from_running(site: Site) -> None:
    site.runner.variables |= {"SCAN_COMMAND": "false | cat; exit 9", "ENTRY_COMMAND": "echo entered > entry.txt"}

    ran = site.runner.run_all()

    goes_on(ran)
    assert ran["Scan and auto-entry"].outputs["exit-code"] != "0"
    assert ran["Scan and auto-entry"].annotations("warning")
    assert not (site.runner.folder / "entry.txt").exists()
    assert not ran["Auto-manage"].annotations("error")


def test_with_the_broker_down_nothing_is_closed_and_everything_is_said(site: Site) -> None:
    site.runner.variables |= {"ENTRY_COMMAND": "echo entered > entry.txt"}

    with site.broker.offline():
        ran = site.runner.run_all()

    goes_on(ran)
    visible(ran, "Sync broker state", "Reconcile ghost open trades", "Entry gate", saying=r"nothing was closed|broker")
    assert ran["Sync broker state"].outputs["exit-code"] == "3"
    assert ran["Sync broker state"].annotations("warning") == ["exit code 3"]
    assert ran["Entry gate"].outputs["gate"] == "unknown"
    assert "skipped, the entry gate is unknown" in ran["Scan and auto-entry"].log
    assert not (site.runner.folder / "entry.txt").exists()
    assert "broken" in ran["Status"].summary
    assert ran["Status"].annotations("warning")
    assert site.trades()["ghost"]["status"] == "OPEN"


def test_with_redis_down_nothing_is_written_and_everything_is_said(site: Site) -> None:
    site.runner.secrets["REDIS_URL"] = f"redis://:{SENTINEL}@127.0.0.1:1/0"

    ran = site.runner.run_all()

    goes_on(ran)
    visible(ran, "Sync broker state", "Reconcile ghost open trades", "Status", saying=r"Redis|redis|state|ledger")
    assert ran["Sync broker state"].outputs["exit-code"] == "4"
    assert ran["Status"].outputs["exit-code"] == "4"
    assert ran["Auto-manage"].annotations("error")
    assert ran["Entry gate"].outputs["gate"] == "open"  # broker truth only
    assert site.trades()["ghost"]["status"] == "OPEN"


def test_with_wrong_keys_nothing_is_closed_and_everything_is_said(site: Site) -> None:
    site.runner.secrets["ALPACA_SECRET_KEY"] = f"{SENTINEL}wrong"

    ran = site.runner.run_all()

    goes_on(ran)
    visible(ran, "Sync broker state", "Reconcile ghost open trades", "Entry gate", saying=r"401|403|key")
    assert ran["Sync broker state"].outputs["exit-code"] == "3"
    assert site.trades()["ghost"]["status"] == "OPEN"


def test_without_any_secret_every_step_says_what_is_missing(site: Site) -> None:
    site.runner.secrets.clear()

    ran = site.runner.run_all()

    goes_on(ran)
    visible(
        ran, "Sync broker state", "Reconcile ghost open trades", "Entry gate", "Auto-manage", saying="ALPACA_API_KEY"
    )
    assert any("REDIS_URL is not set" in text for text in ran["Sync broker state"].annotations("warning"))
    assert ran["Reconcile ghost open trades"].outputs["exit-code"] == "2"  # --non-fatal never hides wrong settings


def test_without_the_program_every_step_says_so(site: Site) -> None:
    (site.runner.folder / "bin" / "ghostclean").unlink()

    ran = {step["name"]: site.runner.run(step) for step in SCRIPTS if step["name"] != "Install"}

    for name in ("Sync broker state", "Reconcile ghost open trades", "Auto-manage", "Status"):
        assert (ran[name].code, ran[name].outputs["exit-code"]) == (0, "127")
        assert "exit code 127" in ran[name].annotations("warning")
    assert ran["Entry gate"].outputs["gate"] == "unknown"


@pytest.mark.parametrize("pip_works", [True, False])
def test_the_installation_is_cached_whole_or_not_at_all(site: Site, pip_works: bool) -> None:
    folder = site.runner.folder
    (folder / "bin" / "ghostclean").unlink()
    python = folder / "bin" / "python"
    # `python -m venv V` makes V/bin/python; that one's `-m pip install` makes the program, or fails.
    python.write_text(
        '#!/bin/sh\necho "$*" >> "$HOME/said"\n/bin/mkdir -p "$3/bin"\n'
        f'printf \'#!/bin/sh\\necho "$*" >> "$HOME/said"\\n{"" if pip_works else "exit 5"}\\n\' > "$3/bin/python"\n'
        '/bin/chmod +x "$3/bin/python"\n'
    )
    python.chmod(0o755)
    (folder / "bin" / "rm").symlink_to("/bin/rm")

    ran = site.runner.run(SCRIPTS[0])

    venv = folder / ".ghostclean-venv"
    said = (folder / "said").read_text().splitlines()
    assert said == [f"-m venv {venv}", "-m pip install --quiet --disable-pip-version-check ."]
    assert ran.code == 0
    assert venv.exists() is pip_works
    assert bool(ran.annotations("error")) is not pip_works
    assert (folder / "step-0" / "github_path").read_text() == (f"{venv}/bin\n" if pip_works else "")
