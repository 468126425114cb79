"""A fleet: whose settings are whose, which folders are refused, which account is worst, who waits for whom."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from ghostclean.adapters.job_queue import JobQueue
from ghostclean.api import account_of
from ghostclean.app.operate import jobs
from ghostclean.app.operate.fleet import WORST_FIRST, Account, AccountRun, accounts_of, failure, worst_first
from ghostclean.app.operate.jobs import Jobs
from ghostclean.errors import BadSettings
from ghostclean.places import ledger_place
from ghostclean.render.jsondoc import Ready, document_text
from ghostclean.result import EXIT_CODES
from ghostclean.settings import Settings, unread

OURS = ("ALPACA_", "APCA_", "GHOSTCLEAN_", "AUTO_MANAGE_", "REDIS_URL")
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes one account's file into the folder `accounts`."""
    (tmp_path / "accounts").mkdir()

    def one(name: str, **values: str) -> Path:
        path = tmp_path / "accounts" / f"{name}.env"
        path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        return path

    return one


# --------------------------------------------------------------------------- settings


def test_the_file_of_an_account_beats_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        "alpha", GHOSTCLEAN_LEDGER="file:a.json", GHOSTCLEAN_GRACE="10", ALPACA_API_KEY="a", ALPACA_SECRET_KEY="b"
    )
    monkeypatch.setenv("GHOSTCLEAN_GRACE", "20")
    monkeypatch.setenv("GHOSTCLEAN_INTERVAL", "60")
    before = dict(os.environ)

    settings = Settings.of_account(str(path))

    assert (settings.grace, settings.interval) == (10.0, 60.0)
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALPACA_API_KEY", "k"),
        ("ALPACA_SECRET_KEY", "s"),
        ("APCA_API_KEY_ID", "k"),
        ("APCA_API_SECRET_KEY", "s"),
        ("ALPACA_LIVE_TRADE", "true"),
        ("GHOSTCLEAN_BROKER", "file:b.json"),
        ("REDIS_URL", "redis://elsewhere"),
        ("GHOSTCLEAN_LEDGER", "file:other.json"),
        ("GHOSTCLEAN_LEDGER_KEY", "other"),
        ("GHOSTCLEAN_HEARTBEAT_URL", "https://hc.example.org/1"),
        ("GHOSTCLEAN_METRICS_FILE", "m.prom"),
    ],
)
def test_what_is_an_accounts_own_never_comes_from_the_environment(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    path = write("alpha", GHOSTCLEAN_LEDGER="file:a.json")
    bare = Settings.of_account(str(path))
    monkeypatch.setenv(name, value)

    assert Settings.of_account(str(path)) == bare


def test_a_file_without_a_ledger_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("alpha", ALPACA_API_KEY="k", ALPACA_SECRET_KEY="s")
    monkeypatch.setenv("REDIS_URL", "redis://localhost")

    with pytest.raises(BadSettings, match=r"alpha\.env names no ledger.*REDIS_URL or GHOSTCLEAN_LEDGER"):
        Settings.of_account(str(path))


def test_the_workers_folder_is_no_typing_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHOSTCLEAN_FLEET", "/srv/accounts")
    monkeypatch.setenv("GHOSTCLEAN_FLEETS", "/srv/accounts")

    assert list(unread()) == ["GHOSTCLEAN_FLEETS"]


# --------------------------------------------------------------------------- one ledger, two spellings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://localhost#t", "redis://127.0.0.1:6379/0#t"),
        ("redis://localhost#t", "redis://user:pass@LOCALHOST/0?socket_timeout=3#t"),
        ("redis://localhost#t", "redis://[::1]#t"),
        ("redis://r.example.org/2#t", "rediss://R.example.org.:6379/02#t"),
        ("redis://r.example.org/1#t", "redis://r.example.org?db=1#t"),
        ("redis://r.example.org#a%3Ab", "redis://r.example.org#a:b"),
        ("unix:///tmp/r.sock#t", "unix:///tmp/../tmp/r.sock?db=0#t"),
        ("file:trades.json", "file:./x/../trades.json"),
        ("file:trades.json", "file:link.json"),
        ("file:missing.json", "file:linked/missing.json"),
    ],
)
def test_a_ledger_is_the_same_however_it_is_spelled(one: str, other: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "trades.json").write_text("[]")
    (tmp_path / "link.json").symlink_to("trades.json")
    (tmp_path / "linked").symlink_to(".")

    assert ledger_place(one).identity == ledger_place(other).identity


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://r.example.org#t", "redis://r.example.org#u"),
        ("redis://r.example.org/0#t", "redis://r.example.org/1#t"),
        ("redis://r.example.org/1#t", "redis://r.example.org/10#t"),
        ("redis://r.example.org:6379#t", "redis://r.example.org:6380#t"),
        ("redis://r.example.org#t", "redis://s.example.org#t"),
        ("unix:///tmp/r.sock#t", "unix:///tmp/s.sock#t"),
        ("file:trades.json", "file:others.json"),
    ],
)
def test_another_ledger_is_another_one(one: str, other: str) -> None:
    assert ledger_place(one).identity != ledger_place(other).identity


# --------------------------------------------------------------------------- the folder


def chosen(*only: str) -> tuple[list[str], list[str]]:
    accounts, notes = accounts_of("accounts", only, account_of)
    return [account.name for account in accounts], notes


def refused(*only: str, folder: str = "accounts") -> str:
    with pytest.raises(BadSettings) as caught:
        accounts_of(folder, only, account_of)
    return str(caught.value)


def test_an_account_is_a_file_that_ends_in_env(write: Write, tmp_path: Path) -> None:
    write("beta", GHOSTCLEAN_LEDGER="file:b.json")
    write("alpha", GHOSTCLEAN_LEDGER="file:a.json")
    write("")
    (tmp_path / "accounts" / "notes.txt").write_text("")

    assert chosen() == (["alpha", "beta"], [])
    assert chosen("beta") == chosen("beta.env") == (["beta"], [])


def test_a_name_that_is_not_there_is_refused_with_those_that_are(write: Write) -> None:
    write("alpha", GHOSTCLEAN_LEDGER="file:a.json")

    assert "has no gamma.env, but alpha" in refused("alpha", "gamma")


def test_a_folder_with_none_is_refused(write: Write, tmp_path: Path) -> None:
    assert f"{tmp_path}/accounts holds no *.env" in refused()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert f"the folder {tmp_path}/nowhere cannot be read (No such file or directory)" in refused(folder="nowhere")


def test_one_ledger_in_two_files_is_refused_whoever_is_asked_for(write: Write) -> None:
    write("alpha", GHOSTCLEAN_LEDGER="redis://localhost", GHOSTCLEAN_LEDGER_KEY="t")
    write("beta", REDIS_URL="redis://:pass@127.0.0.1:6379/0", GHOSTCLEAN_LEDGER_KEY="t")
    write("gamma", GHOSTCLEAN_LEDGER="file:c.json")

    assert "alpha.env and beta.env name the same ledger" in refused()
    assert "alpha.env and beta.env name the same ledger" in refused("gamma")
    assert "pass" not in refused()


def test_one_ledger_by_its_key_alone_is_two(write: Write) -> None:
    write("alpha", REDIS_URL="redis://localhost", GHOSTCLEAN_LEDGER_KEY="a")
    write("beta", REDIS_URL="redis://localhost", GHOSTCLEAN_LEDGER_KEY="b")

    assert chosen() == (["alpha", "beta"], [])


def test_one_pair_of_keys_in_two_files_is_said(write: Write) -> None:
    write("alpha", GHOSTCLEAN_LEDGER="file:a.json", ALPACA_API_KEY="same", ALPACA_SECRET_KEY="x")
    write("beta", GHOSTCLEAN_LEDGER="file:b.json", APCA_API_KEY_ID="same", APCA_API_SECRET_KEY="x")

    assert chosen()[1] == ["alpha, beta have the same keys: several ledgers on one account"]
    assert chosen("beta")[1] == []


def test_a_live_account_among_paper_ones_is_said(write: Write) -> None:
    write("alpha", GHOSTCLEAN_LEDGER="file:a.json")
    write("beta", GHOSTCLEAN_LEDGER="file:b.json", ALPACA_LIVE_TRADE="true")

    assert chosen()[1] == ["live among paper accounts: beta"]
    assert chosen("beta")[1] == []


@pytest.mark.parametrize("content", [b"GHOSTCLEAN_LEDGER=file:a.json\nGHOSTCLEAN_GRACE=soon\n", b"\xff\xfe=\xff", None])
def test_a_broken_file_is_that_accounts_own_trouble(write: Write, tmp_path: Path, content: bytes | None) -> None:
    write("alpha", GHOSTCLEAN_LEDGER="file:a.json")
    broken = tmp_path / "accounts" / "beta.env"
    broken.mkdir() if content is None else broken.write_bytes(content)

    accounts, _ = accounts_of("accounts", (), account_of)

    assert [account.error is None for account in accounts] == [True, False]


# --------------------------------------------------------------------------- the worst


def ran(name: str, code: int = 0, *, unwell: int = 0, kind: str = "paper") -> AccountRun:
    return AccountRun(name=name, kind=kind, exit_code=code, word=f"w{code}", said="", unwell=unwell)


def test_every_exit_code_has_its_place() -> None:
    # One that was interrupted ends before all of them.
    assert sorted(WORST_FIRST) == sorted(
        {code for error, code in EXIT_CODES.items() if code and error != "interrupted"}
    )


def test_the_worst_comes_first() -> None:
    by_code = [ran(f"c{code}", code) for code in (7, 0, 3, 1, 6, 4, 5, 2)]
    within = [ran("b"), ran("z", kind="live"), ran("a"), ran("s", unwell=1), ran("x", unwell=3)]

    assert [run.exit_code for run in worst_first(by_code)] == [1, 5, 2, 4, 3, 6, 7, 0]
    assert [run.name for run in worst_first(within)] == ["x", "s", "z", "a", "b"]
    assert worst_first([ran("a", 1), ran("b", 130)])[0].name == "b"


def test_the_failed_accounts_are_named() -> None:
    assert failure([ran("a"), ran("b")]) is None
    assert failure([ran("a", 3), ran("b")]) == "1 of 2 accounts failed: a (w3)"
    many = failure([ran(f"a{n}", 3) for n in range(7)])
    assert many is not None
    assert many.endswith("a4 (w3) and 2 more")


# --------------------------------------------------------------------------- beside each other


@dataclass(frozen=True)
class Call:
    """Names are seconds to sleep; the result is who worked."""

    def __call__(self, name: str) -> tuple[int, int]:
        time.sleep(float(name.partition(" ")[0]))
        return os.getpid(), threading.get_ident()


def run(names: list[str], at_once: int = 4, limit: float = 30) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    Jobs(Call(), lambda: None, at_once, limit).run(names, found)
    return found


def test_no_more_than_so_many_work_at_once() -> None:
    most: list[int] = []
    busy: set[str] = set()

    def call(name: str) -> None:
        busy.add(name)
        most.append(len(busy))
        time.sleep(0.02)
        busy.discard(name)

    Jobs(call, lambda: None, 3, 30).run([str(n) for n in range(12)], {})

    assert len(most) == 12
    assert max(most) <= 3


def test_the_slow_give_their_places_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PATIENCE", 0.1)
    monkeypatch.setattr(jobs, "_TURN", 0.02)
    ended: list[str] = []

    def call(name: str) -> None:
        time.sleep(float(name.partition(" ")[0]))
        ended.append(name)

    Jobs(call, lambda: None, 1, 30).run(["2 slow", "2 dead", "0 quick"], {})

    assert ended[0] == "0 quick"
    assert len(ended) == 3


def test_one_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_TURN", 0.02)
    began = time.monotonic()

    assert list(run(["60 hangs", "0 quick"], limit=0.3)) == ["0 quick"]
    assert time.monotonic() - began < 10


def test_many_are_spread_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    names = [f"0 {n}" for n in range(40)]

    found = run(names)

    assert found.keys() == set(names)
    assert len({pid for pid, _ in found.values()} - {os.getpid()}) == 2
    assert {pid for pid, _ in run(names[:20]).values()} == {os.getpid()}


def _die(name: str) -> str:
    if name == "n7":
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def test_a_process_that_dies_takes_only_its_own_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found: dict[str, str] = {}

    Jobs(_die, partial(int), 1 * 2, 30).run([f"n{n}" for n in range(40)], found)

    assert {f"n{n}" for n in range(0, 40, 2)} <= found.keys()
    assert "n7" not in found


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interruption_lets_those_that_run_end(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processes)
    names = [f"1 {n}" for n in range(40)]
    found: dict[str, tuple[int, int]] = {}
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        Jobs(Call(), lambda: None, 2, 30).run(names, found)

    assert len(found) == 2


# --------------------------------------------------------------------------- the document


def test_ready_parts_stand_in_the_document_as_they_are() -> None:
    parts = [{"a": '"x"', "n": 1.5}, [], {"deep": [{"b": None}]}]
    document = {"accounts": [{"document": Ready(json.dumps(part))} for part in parts], "after": 1}

    for for_person in (False, True):
        told = json.loads(document_text(document, for_person=for_person))
        assert told == {"accounts": [{"document": part} for part in parts], "after": 1}


def test_a_queue_without_rq_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rq", None)

    with pytest.raises(BadSettings, match=r"pip install 'ghostclean\[fleet\]'"):
        JobQueue("redis://localhost")


def test_an_account_keeps_its_secrets_to_itself() -> None:
    assert "hidden" not in repr(Account("a", "a.env", secrets=("hidden",)))
