"""The schedules that `ghostclean schedule` prints: right hours, right quoting, one source of truth."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from croniter import croniter

from ghostclean.app.operate.schedule import schedule_text
from tests.program import ROOT

HOME = "/home/me/ghostclean"
NEW_YORK = ZoneInfo("America/New_York")
SUMMER, WINTER = date(2026, 7, 15), date(2026, 12, 16)  # two Wednesdays
SATURDAY = date(2026, 7, 18)


def for_home(kind: str) -> str:
    return schedule_text(kind, f"{HOME}/.venv/bin/ghostclean", HOME, f"{HOME}/.env")


def cron_lines(text: str) -> list[tuple[str, str]]:
    """Every job of a crontab: its five fields, and the command as cron hands it to the shell."""
    jobs = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#") and not re.match(r"^\w+ *=", line):
            *fields, command = line.split(None, 5)
            before_percent = re.split(r"(?<!\\)%", command)[0]
            jobs.append((" ".join(fields), before_percent.replace(r"\%", "%")))
    return jobs


def starts(fields: list[str], day: date) -> list[datetime]:
    """When these lines start on that UTC day and the night after."""
    first = datetime.combine(day, time(), UTC) - timedelta(seconds=1)
    found = []
    for line in fields:
        clock = croniter(line, first)
        while (moment := clock.get_next(datetime)) < first + timedelta(days=1):
            found.append(moment)
    return sorted(found)


def longest_wait(moments: list[datetime], day: date) -> timedelta:
    """The longest stretch of the market's 9:30-16:00 without a start, its two ends included."""
    opens, closes = (datetime.combine(day, t, NEW_YORK).astimezone(UTC) for t in (time(9, 30), time(16)))
    inside = [m for m in moments if opens <= m <= closes]
    marks = [opens, *inside, closes]
    return max(b - a for a, b in pairwise(marks))


# --------------------------------------------------------------------------- cron


def test_the_crontab_parses_and_names_the_three_runs() -> None:
    jobs = cron_lines(for_home("cron"))

    assert all(croniter.is_valid(fields) for fields, _ in jobs)
    assert [command.split("ghostclean ", 1)[1] for _, command in jobs] == [
        "&& /home/me/ghostclean/.venv/bin/ghostclean reconcile --quiet --source cron",
        "&& /home/me/ghostclean/.venv/bin/ghostclean auto-manage --quiet --source cron",
        "&& /home/me/ghostclean/.venv/bin/ghostclean reconcile --quiet --source cron-daily",
    ]


@pytest.mark.parametrize("day", [SUMMER, WINTER])
@pytest.mark.parametrize("command", ["reconcile --quiet --source cron", "auto-manage --quiet --source cron"])
def test_cron_covers_the_market_every_five_minutes_on_both_sides_of_daylight_saving(command: str, day: date) -> None:
    lines = [fields for fields, said in cron_lines(for_home("cron")) if said.endswith(command)]

    assert len(lines) == 1
    assert longest_wait(starts(lines, day), day) <= timedelta(minutes=5)
    assert not starts(lines, SATURDAY)


def test_the_end_of_day_window_sees_two_ticks_of_auto_manage() -> None:
    lines = [fields for fields, said in cron_lines(for_home("cron")) if "auto-manage" in said]
    for day in (SUMMER, WINTER):
        close = datetime.combine(day, time(16), NEW_YORK).astimezone(UTC)
        assert sum(close - timedelta(minutes=12) <= m < close for m in starts(lines, day)) == 2


def test_the_crontab_has_what_an_operator_needs_to_know() -> None:
    text = for_home("cron")

    assert re.search(r"^MAILTO=\S+@\S+$", text, re.MULTILINE)
    assert "chmod 600 /home/me/ghostclean/.env" in text
    assert "No `flock`" in text
    assert "@PROGRAM@" not in text
    assert "UTC" in text


def test_the_example_is_what_the_program_prints() -> None:
    assert (ROOT / "crontab.example").read_text() == for_home("cron")


def test_each_cron_line_runs_in_sh_with_its_paths_however_odd_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "a bot's 100% $HOME"
    folder.mkdir()
    program = folder / "ghost clean"
    program.write_text(f'#!/bin/sh\necho "$PWD|$*" >> "{tmp_path}/said"\n')
    program.chmod(0o755)
    jobs = cron_lines(schedule_text("cron", str(program), str(folder), str(folder / ".env")))
    # The environment that Debian's cron gives, and no more.
    environment = {"HOME": str(tmp_path), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}

    for _, command in jobs:
        subprocess.run(["/bin/sh", "-c", command], env=environment, check=True, timeout=10, cwd="/")

    assert (tmp_path / "said").read_text().splitlines() == [
        f"{folder}|reconcile --quiet --source cron",
        f"{folder}|auto-manage --quiet --source cron",
        f"{folder}|reconcile --quiet --source cron-daily",
    ]


def test_a_cron_line_runs_the_real_program(tmp_path: Path) -> None:
    sample = ROOT / "ghostclean" / "sample"
    for name in ("trades.json", "broker.json"):
        shutil.copy(sample / name, tmp_path / name)
    (tmp_path / ".env").write_text(
        "GHOSTCLEAN_LEDGER=file:trades.json\nGHOSTCLEAN_STATE=sqlite:state.db\nGHOSTCLEAN_BROKER=file:broker.json\n"
    )
    (tmp_path / ".env").chmod(0o600)
    program = tmp_path / "ghostclean"
    program.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m ghostclean \"$@\"\n")
    program.chmod(0o755)
    (_, command), *_ = cron_lines(schedule_text("cron", str(program), str(tmp_path), str(tmp_path / ".env")))
    environment = {"HOME": str(tmp_path), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}

    first, second = (
        subprocess.run(
            ["/bin/sh", "-c", command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )
        for _ in range(2)
    )

    assert (first.returncode, first.stderr) == (0, "")
    assert sum(line.startswith("closed ") for line in first.stdout.splitlines()) == 5
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")  # silence means well


def test_the_command_prints_the_paths_of_this_installation(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ghostclean").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "ghostclean").chmod(0o755)
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    printed = {
        kind: subprocess.run(
            [sys.executable, "-m", "ghostclean", "schedule", kind],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for kind in ("cron", "systemd", "github")
    }  # fmt: skip

    folders = [re.match(r"cd (\S+) && (\S+) ", command) for _, command in cron_lines(printed["cron"])]
    assert [found and found[1] for found in folders] == [str(tmp_path)] * 3
    assert all(found and Path(found[2]).is_absolute() for found in folders)
    assert f"WorkingDirectory={tmp_path}\n" in printed["systemd"]
    assert printed["github"] == (ROOT / ".github/workflows/market-loop.yml").read_text()


# --------------------------------------------------------------------------- systemd


def units(text: str) -> dict[str, str]:
    """The files that the systemd schedule is made of, by name."""
    _, *parts = re.split(r"^# --- (\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_systemd_schedule_is_one_service_and_one_timer() -> None:
    parts = units(for_home("systemd"))

    assert list(parts) == ["ghostclean.service", "ghostclean.timer"]
    assert "ExecStart=/home/me/ghostclean/.venv/bin/ghostclean auto-manage " in parts["ghostclean.service"]
    assert "EnvironmentFile=-/home/me/ghostclean/.env\n" in parts["ghostclean.service"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("folder", ["plain", "a bot, 100% $x"])
def test_systemd_accepts_the_units(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir()
    shutil.copy("/bin/true", place / "ghostclean")
    files = []
    for name, body in units(
        schedule_text("systemd", str(place / "ghostclean"), str(place), str(place / ".env"))
    ).items():
        (tmp_path / name).write_text(body)
        files.append(str(tmp_path / name))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_timer_covers_the_market_in_new_york_time() -> None:
    (calendar,) = re.findall(r"^OnCalendar=(.*)$", for_home("systemd"), re.MULTILINE)
    for day in (SUMMER, WINTER):
        base = datetime.combine(day, time(), NEW_YORK).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        said = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=120", f"--base-time={base}", calendar],
            capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
        ).stdout  # fmt: skip
        found = re.findall(r"(?:Next elapse|Iter[^:]*): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", said)
        moments = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in found]

        assert longest_wait(moments, day) <= timedelta(minutes=5)


# --------------------------------------------------------------------------- GitHub


def test_the_printed_workflow_is_the_one_this_repository_runs() -> None:
    assert for_home("github") == (ROOT / ".github/workflows/market-loop.yml").read_text()


@pytest.mark.parametrize("day", [SUMMER, WINTER])
def test_the_workflow_covers_the_market_every_five_minutes(day: date) -> None:
    # `on` is a boolean to YAML 1.1.
    lines = [row["cron"] for row in yaml.safe_load(for_home("github"))[True]["schedule"]]
    moments = starts(lines, day)

    assert len(moments) == len(set(moments))
    assert longest_wait(moments, day) <= timedelta(minutes=5)
    assert not starts(lines, SATURDAY)
    assert moments[0].hour >= 13
    assert moments[-1].hour <= 21
