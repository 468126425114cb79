"""README and operations guide against the program: commands, settings, codes, verdicts, links."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from dotenv import dotenv_values

from ghostclean.adapters.alerts import SETTING, channels
from ghostclean.cli.app import app, switched
from ghostclean.core.attention import Kind
from ghostclean.core.ledger import ORDER_ID_FIELDS, SIZE_FIELDS, is_open, read_mapping, read_trade
from ghostclean.core.verdicts import Action, Verdict
from ghostclean.result import EXIT_CODES
from ghostclean.settings import FLEET_FOLDER, Settings
from tests.program import ROOT

README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
NO_DEFAULT = "\u2013"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table(text: str, *columns: str) -> list[list[str]]:
    """The rows of the table with these columns."""
    head = re.escape("| " + " | ".join(columns) + " |")
    found = re.search(rf"^{head}\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    assert found, columns
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]


def section(text: str, title: str) -> str:
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[2]


# --------------------------------------------------------------------------- the two commands


def test_the_first_two_blocks_are_one_line_each() -> None:
    demo, tests = blocks(README, "sh")[:2]

    assert README.index(demo) < README.index(tests) < README.index("\n## ")
    for line in (demo, tests):
        assert line.count("\n") == 1
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")
    assert demo.endswith(".venv/bin/ghostclean demo\n")
    assert ".venv/bin/pytest" in tests
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert re.findall(r"'\.\[(\w+)\]'", tests) == ["test"]
    assert "test" in extras


# --------------------------------------------------------------------------- commands


def spoken() -> Iterator[str]:
    """Every `ghostclean …` of both documents, in shell blocks and in running text."""
    for text in (README, OPERATIONS):
        for block in blocks(text, "sh"):
            for line in block.splitlines():
                yield from re.findall(r"(?:^|[\s/])ghostclean ([^&|]*)", line)
        yield from re.findall(r"`ghostclean ([a-z-]+(?: [^`]*)?)`", text)


@pytest.mark.parametrize("line", sorted(set(spoken())))
def test_every_command_line_is_one_that_the_program_takes(line: str) -> None:
    name, *arguments = shlex.split(line)

    for choice in arguments[0].split("|") if name == "schedule" and arguments else [None]:
        given = [choice, *arguments[1:]] if choice else arguments
        needed = [p.name for p in COMMANDS[name].params if p.required and p.param_type_name == "argument"]
        if not given and needed:
            continue  # only the command's name is mentioned
        COMMANDS[name].make_context(name, switched(given))


def test_the_help_in_the_readme_is_the_programs_own() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "dumb"}
    said = subprocess.run(
        [sys.executable, "-m", "ghostclean", "--help"], env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert blocks(README, "text") == [said]


def test_every_option_named_in_running_text_exists() -> None:
    known = {name for command in COMMANDS.values() for p in command.params for name in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--version", "--install-completion", "--show-completion", "--extra"}  # the last is uv's

    for text in (README, OPERATIONS):
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


# --------------------------------------------------------------------------- settings


def test_the_settings_table_names_every_setting_and_its_default() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in table(README, "variable", "default", "meaning")}
    fields = {field.alias: attribute for attribute, field in Settings.model_fields.items()}

    assert rows.keys() == fields.keys()
    plain = Settings.of({})
    for name, default in rows.items():
        value = getattr(plain, fields[name])
        if default == NO_DEFAULT:
            assert value in (None, "", False), name
        else:
            assert getattr(Settings.of({name: default}), fields[name]) == value, name


def test_every_variable_named_anywhere_exists() -> None:
    known = {FLEET_FOLDER, *(field.alias for field in Settings.model_fields.values())}
    for text in (README, OPERATIONS):
        for name in re.findall(r"\b(?:GHOSTCLEAN|ALPACA|AUTO_MANAGE|APCA)_[A-Z_]+\b", text):
            assert name in known


def test_the_env_examples_are_settings_that_load() -> None:
    examples = blocks(README, "ini")
    values = dotenv_values(stream=io.StringIO("".join(examples)))

    assert len(examples) == 4
    settings = Settings.of(values)
    assert settings.require_credentials()
    assert len(channels(settings.value(SETTING) or "")) == 3


def test_the_mapping_in_the_readme_reads_a_bots_own_record() -> None:
    (text,) = blocks(README, "toml")
    said = read_mapping(text)
    raw = {
        "id": 7, "symbol": "AAPL", "direction": "buy", "qty": 5, "state": "filled", "risk": {"stop": 9}, "orders": {},
        "account": "paper", "strategy": "breakout", "opened": "2026-01-05 10:00:00",
    }  # fmt: skip
    assert said.belongs(raw)
    assert said.read(raw) == {
        "id": 7, "ticker": "AAPL", "side": "LONG", "quantity": 5, "status": "OPEN", "stopPrice": 9,
        "createdAt": "2026-01-05 10:00:00-05:00", "account": "paper",
    }  # fmt: skip
    close = {"status": "CLOSED", "closeReason": "stop_loss", "realizedR": 1}
    assert said.write(raw, close).fields == {
        "state": "closed", "exit_reason": "stop_loss", "meta": {"ghostclean": {"realizedR": 1}},
    }  # fmt: skip
    for other in ('quantity = { name = "qty", signed = true }', 'status = { null = "closed" }'):
        name = other.partition(" ")[0]
        words = text if name != "status" else re.sub(r"\[values.status\].*?\n\n", "", text, flags=re.DOTALL)
        assert read_mapping(re.sub(rf"^{name} = .*$", other, words, flags=re.MULTILINE)).fields


# --------------------------------------------------------------------------- the ledger


def test_the_sample_record_is_a_trade_and_needs_what_the_table_says() -> None:
    (example,) = blocks(README, "json")
    sample = json.loads(example)
    rows = [(set(re.findall(r"`(\w+)`", row[0])), row[1]) for row in table(README, "field", "needed", "what it is")]

    trade = read_trade(sample)
    assert (is_open(sample), trade.problem, trade.size, trade.entry_orders) == (
        True, None, 10, (sample["alpacaOrderId"],)
    )  # fmt: skip
    assert sample.keys() <= set().union(*(names for names, _ in rows))
    assert {*ORDER_ID_FIELDS, *SIZE_FIELDS} <= set().union(*(names for names, _ in rows))
    for names, needed in rows:
        without = {name: value for name, value in sample.items() if name not in names}
        if needed == "without an order id":
            without.pop("alpacaOrderId")
        fits = is_open(without) and read_trade(without).problem is None
        assert fits is (needed not in ("yes", "without an order id")), names


# --------------------------------------------------------------------------- codes and verdicts


def test_the_exit_code_table_has_every_code_and_the_guide_a_chapter_for_each() -> None:
    codes = [int(row[0]) for row in table(README, "code", "meaning")]

    assert codes == sorted({*EXIT_CODES.values(), 10})
    chapters = re.findall(r"^### (\d+)\b", OPERATIONS, re.MULTILINE)
    assert [int(chapter) for chapter in chapters[: len(codes)]] == codes
    for error in EXIT_CODES:
        assert error in (None, "bad_settings", "locked") or f"`{error}`" in OPERATIONS


def test_the_decision_table_has_one_row_a_verdict_with_actions_that_exist() -> None:
    rows = table(README, "verdict", "when", "action")

    assert [row[0] for row in rows] == [f"`{verdict}`" for verdict in Verdict]
    for verdict, _, action in rows:
        words = set(re.findall(r"`([a-z]+)`", action)) - {"null", "vanished"}
        assert words, verdict
        assert words <= {str(known) for known in Action}, verdict


def test_the_guide_has_a_way_out_of_every_kind_of_item() -> None:
    rows = table(section(OPERATIONS, "What needs you"), "item", "what it is, and the way out")

    assert [kind for row in rows for kind in re.findall(r"`(\w+)`", row[0])] == [*map(str, Kind)]
    assert all(len(row[1]) > 60 for row in rows)


def test_the_guide_has_a_chapter_for_every_held_verdict() -> None:
    held = [row[0].strip("`") for row in table(README, "verdict", "when", "action") if "`held`" in row[2]]

    for verdict in {*held, "vanished"}:
        assert len(section(OPERATIONS, verdict).strip()) > 60, verdict


# --------------------------------------------------------------------------- examples


def test_the_python_example_runs(tmp_path: Path) -> None:
    for name in ("trades.json", "broker.json"):
        shutil.copy(ROOT / "ghostclean" / "sample" / name, tmp_path)
    (code,) = blocks(README, "python")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "GHOSTCLEAN_LEDGER": "file:trades.json",
        "GHOSTCLEAN_STATE": "sqlite:state.db",
        "GHOSTCLEAN_BROKER": "file:broker.json",
    }

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("would_close ") == 5
    assert done.stdout.endswith("exit code 0\n")


def test_links_and_pictures_lead_somewhere() -> None:
    for file in (ROOT / "README.md", ROOT / "docs/operations.md"):
        targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text())
        assert all((file.parent / target).is_file() for target in targets), targets


@pytest.mark.parametrize("name", ["reconcile", "status"])
def test_the_pictures_show_what_the_program_says_today(name: str, tmp_path: Path) -> None:
    """A picture is drawn afresh and compared, times and run ids aside."""
    for folder in ("docs", "ghostclean"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, str(tmp_path / "docs/pictures.py")], check=True, timeout=60)

    fresh, kept = (words(root / "docs" / f"{name}.svg") for root in (tmp_path, ROOT))

    assert fresh == kept, "draw them again: python docs/pictures.py"


def words(picture: Path) -> list[str]:
    """The words of a picture, without what differs between two runs."""
    text = " ".join(re.findall(r"<text[^>]*>(.*?)</text>", picture.read_text())).replace("&#160;", " ")
    text = re.sub(r"reconcile-\d{8}T\d{6}-[0-9a-f]+", "RUN", text)
    return re.sub(r"\b\d+(ms|s|m|h|d)\b", "TIME", text).split()
