"""The operator's commands on the sample data, through `main()`: demo, undo, resolve, doctor, snapshot, migrate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghostclean.cli import main
from tests.program import ROOT

SAMPLE = ROOT / "ghostclean" / "sample"

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs one command line with --json on a copy of the sample; its exit code and its document."""
    for name in list(os.environ):
        if name.startswith(("ALPACA_", "APCA_", "GHOSTCLEAN_", "AUTO_MANAGE_", "REDIS_URL", "GITHUB_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for name in ("trades.json", "broker.json"):
        (tmp_path / name).write_bytes((SAMPLE / name).read_bytes())
    monkeypatch.setenv("GHOSTCLEAN_LEDGER", "file:trades.json")
    monkeypatch.setenv("GHOSTCLEAN_STATE", "sqlite:state.db")
    monkeypatch.setenv("GHOSTCLEAN_BROKER", "file:broker.json")
    # The deadline counts from the start of the process, which here is that of the whole test run.
    monkeypatch.setattr("ghostclean.app.deadline.process_age", lambda: 0.0)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*arguments, "--json"])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return code, document

    return run


def trades(folder: Path) -> Any:
    return json.loads((folder / "trades.json").read_text())


def by_id(document: dict[str, Any]) -> dict[str, str]:
    return {row["id"]: row["action"] for row in document["results"]}


def test_the_demo_ends_with_a_run_that_changes_nothing(ask: Ask, tmp_path: Path) -> None:
    code, document = ask("demo", "--folder", str(tmp_path / "demo"))
    dry, real, again = document["runs"]
    assert code == 0
    assert (dry["dryRun"], dry["closed"], real["closed"], again["closed"], again["synced"]) == (True, 5, 5, 0, 0)
    assert document["status"]["health"] == "needs you"
    assert [item["kind"] for item in document["status"]["attention"]] == ["orphan"]
    verdicts = {row["verdict"] for row in dry["results"]}
    assert {"exited", "never_filled", "vanished", "live", "working", "settling", "orphan"} <= verdicts


def test_a_folder_that_is_not_empty_is_left_alone(ask: Ask, tmp_path: Path) -> None:
    code, document = ask("demo", "--folder", str(tmp_path))
    assert (code, document["error"]) == (2, "bad_settings")


def test_undo_restores_the_ledger_and_holds_what_it_put_back(ask: Ask, tmp_path: Path) -> None:
    before = trades(tmp_path)
    _, run = ask("reconcile")
    assert run["closed"] == 5
    code, _ = ask("undo", run["runId"])
    assert code == 0
    assert trades(tmp_path) == before
    _, again = ask("reconcile")
    assert again["closed"] == 0
    held = by_id(again)
    assert {held[i] for i in by_id(run) if i and by_id(run)[i] == "closed"} == {"held"}


def test_resolve_settles_what_was_held(ask: Ask, tmp_path: Path) -> None:
    _, run = ask("reconcile")
    ask("undo", run["runId"])
    code, document = ask("resolve", "05-intc-vanished", "--vanished")
    assert (code, document["results"][0]["action"]) == (0, "resolved")
    record = next(r for r in trades(tmp_path) if r["id"] == "05-intc-vanished")
    assert (record["status"], record["closePrice"], record["alpacaStatus"]) == ("CLOSED", None, "not_found_in_broker")


def test_resolve_links_the_order_that_closed_it(ask: Ask, tmp_path: Path) -> None:
    orders = json.loads((tmp_path / "broker.json").read_text())["lookups"]["orders"]
    sale = next(o["id"] for o in orders if o["symbol"] == "MSFT" and o["side"] == "sell")
    code, _ = ask("resolve", "03-msft-sold-by-hand", "--exit-order", sale)
    assert code == 0
    record = next(r for r in trades(tmp_path) if r["id"] == "03-msft-sold-by-hand")
    assert (record["status"], record["closePrice"], record["closeOrderId"]) == ("CLOSED", 518.02, sale)
    _, told = ask("explain", "03-msft-sold-by-hand")
    assert told["entries"][-1]["action"] == "resolved"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("resolve", "06-googl-live", "--vanished"), 1),
        (("resolve", "nobody", "--vanished"), 1),
        (("resolve", "06-googl-live", "--exit-order", "11111111-1111-4111-8111-111111111111"), 1),
        (("resolve", "06-googl-live", "--vanished", "--exit-order", "x"), 2),
        (("explain", "nobody"), 1),
        (("undo", "nothing"), 1),
    ],
)
def test_what_cannot_be_true_is_refused_and_changes_nothing(
    ask: Ask, tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    before = (tmp_path / "trades.json").read_bytes()
    found, document = ask(*arguments)
    assert (found, document["ok"]) == (code, False)
    assert document["detail"]
    assert (tmp_path / "trades.json").read_bytes() == before


def test_doctor_finds_everything_in_order_after_a_run_but_the_orphan(ask: Ask) -> None:
    ask("reconcile")
    code, document = ask("doctor")
    assert [check["name"] for check in document["checks"] if check["ok"] is False] == ["attention"]
    assert code == 1
    assert {check["name"] for check in document["checks"]} >= {
        "ledger",
        "state",
        "lock",
        "broker",
        "account",
        "pin",
        "runs",
    }


def test_doctor_pins_another_account_after_a_yes_at_the_terminal(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("reconcile")
    text = (tmp_path / "broker.json").read_text()
    account = json.loads(text)["account"]["id"]
    (tmp_path / "broker.json").write_text(text.replace(account, "00000000-0000-4000-8000-000000000000"))
    assert ask("reconcile")[1]["error"] == "account_mismatch"
    code, document = ask("doctor")
    assert code == 1
    assert [check["ok"] for check in document["checks"] if check["name"] == "pin"] == [False]
    heard: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for answer in (False, True):
        monkeypatch.setattr("typer.confirm", lambda text, err, said=answer: heard.append(text) or said)
        code, document = ask("doctor", "--pin")
        assert (code, [check["ok"] for check in document["checks"] if check["name"] == "pin"]) == (1, [answer])
        assert ask("reconcile")[0] == (0 if answer else 5)
    assert heard[0] == heard[1]
    assert heard[0].endswith("which knows 10 of the 10 orders that the ledger names.\nPin it?")


def test_a_ledger_that_cannot_be_read_fails_the_doctor_with_its_cure(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "trades.json").write_text("{broken")
    code, document = ask("doctor")
    assert code == 1
    assert [check["name"] for check in document["checks"] if check["ok"] is False] == ["ledger"]


def test_a_snapshot_replays_to_the_same_plan(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan = ask("reconcile", "--dry-run")
    code, document = ask("snapshot")
    assert (code, document["kind"]) == (0, "ghostclean-snapshot")
    (tmp_path / "incident.json").write_text(json.dumps(document))
    monkeypatch.setenv("GHOSTCLEAN_BROKER", "file:incident.json")
    _, replay = ask("reconcile", "--dry-run")
    assert by_id(replay) == by_id(plan)


def test_a_snapshot_file_is_for_its_owner_only(ask: Ask, tmp_path: Path) -> None:
    code, document = ask("snapshot", "--output", "snap.json")
    assert (code, document["ok"]) == (0, True)
    assert (tmp_path / "snap.json").stat().st_mode & 0o777 == 0o600


def test_migrate_copies_verifies_and_refuses_a_target_in_use(ask: Ask, tmp_path: Path) -> None:
    before = (tmp_path / "trades.json").read_bytes()
    assert ask("migrate", "file:trades.json", "file:copy.json", "--dry-run")[0] == 0
    assert not (tmp_path / "copy.json").exists()
    code, document = ask("migrate", "file:trades.json", "file:copy.json")
    assert (code, document["trades"]) == (0, 13)
    assert json.loads((tmp_path / "copy.json").read_text()) == trades(tmp_path)
    assert ask("migrate", "file:trades.json", "file:copy.json")[0] == 4
    assert ask("migrate", "file:missing.json", "file:other.json")[0] == 4
    assert ask("migrate", "trades.json", "file:other.json")[0] == 2
    assert (tmp_path / "trades.json").read_bytes() == before


def test_a_reader_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    command = (
        f"{sys.executable} -c 'import sys; from ghostclean.cli import main; sys.exit(main(sys.argv[1:]))' demo | true"
    )
    environment = {**os.environ, "PYTHONPATH": str(SAMPLE.parents[1]), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    assert done.stderr == ""
