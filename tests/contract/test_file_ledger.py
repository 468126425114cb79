"""The file of a ledger: a kill in the middle of a write, the lock file's owner, and copies into a file."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ghostclean.adapters.ledgers import replaced_file
from ghostclean.adapters.ledgers.copy import copy_ledger
from ghostclean.adapters.ledgers.file import FileLedger
from ghostclean.adapters.ledgers.replaced_file import ReplacedFile, exchange
from ghostclean.app.ports import Change, WriteOutcome
from ghostclean.errors import LedgerFailed
from ghostclean.places import Place

from .kits import free

A = '{"id":"a","status":"OPEN"}'
BY_APP = f'[{A},{{"id":"by-app","status":"OPEN"}}]'
WRITTEN = [WriteOutcome.WRITTEN]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trades.json"
    path.write_text(f"[{A}]")
    return path


def close_a(ledger: FileLedger) -> list[WriteOutcome]:
    return ledger.write([Change("a", ledger.get(["a"])["a"], {"status": "CLOSED"})], free())


def names(path: Path) -> set[str]:
    return {found.name for found in path.parent.iterdir()}


# ------------------------------------------------------------------ killed between two steps

_KILLED = """
import os, sys
from pathlib import Path
from ghostclean.adapters.ledgers import replaced_file
from tests.contract.test_file_ledger import close_a, FileLedger
path, app, at = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
swap = replaced_file.exchange
def killed(one, other):
    if app:  # the app is quicker by a hair
        fresh = path.with_name("app")
        fresh.write_text(app)
        fresh.replace(path)
    if at == "after":
        assert swap(one, other)
    os.kill(os.getpid(), 9)
replaced_file.exchange = killed
close_a(FileLedger(path))
"""


def kill_a_write(path: Path, *, app: str = "", at: str = "after") -> None:
    """A process that dies before or right after its text takes the ledger's place."""
    dead = subprocess.run([sys.executable, "-c", _KILLED, path, app, at], cwd=Path(__file__).parents[2], check=False)
    assert dead.returncode == -9


@pytest.mark.parametrize("look", [FileLedger.read, close_a], ids=["read", "write"])
def test_what_a_killed_write_displaced_is_put_back(
    path: Path, look: Callable[[FileLedger], object], caplog: pytest.LogCaptureFixture
) -> None:
    kill_a_write(path, app=BY_APP)
    assert "by-app" not in path.read_text()
    ledger = FileLedger(path)
    look(ledger)
    assert set(ledger.get(["a", "by-app"])) == {"a", "by-app"}
    assert names(path) == {"trades.json", "trades.json.lock"}
    assert "stands there again" in caplog.text
    assert close_a(ledger) == WRITTEN


def test_what_cannot_be_put_back_is_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kill_a_write(path, app=BY_APP)
    later = f'[{A},{{"id":"later"}}]'
    path.write_text(later)
    ledger = FileLedger(path)
    assert ledger.read().total == 2
    assert close_a(ledger) == WRITTEN
    (kept,) = path.parent.glob("trades.json.kept-*")
    assert kept.read_text() == BY_APP
    assert str(kept) in caplog.text
    assert "later" in path.read_text()
    assert names(path) == {"trades.json", "trades.json.lock", kept.name}


@pytest.mark.parametrize("at", ["before", "after"])
def test_what_we_know_of_a_killed_write_is_cleared(path: Path, at: str, caplog: pytest.LogCaptureFixture) -> None:
    kill_a_write(path, at=at)
    ledger = FileLedger(path)
    assert ledger.get(["a"])["a"]["status"] == ("OPEN" if at == "before" else "CLOSED")
    ledger.read()
    assert names(path) == {"trades.json", "trades.json.lock"}
    assert not caplog.records


def test_a_reader_leaves_a_write_alone_that_is_under_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def looked_at(one: Path, other: Path) -> bool:
        read.append(FileLedger(path).read().total)
        return exchange(one, other)

    monkeypatch.setattr(replaced_file, "exchange", looked_at)
    assert close_a(FileLedger(path)) == WRITTEN
    assert read == [1]


# ------------------------------------------------------------------ whose lock file it is


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_new_lock_file_belongs_to_the_ledgers_owner(path: Path) -> None:
    os.chown(path, 65534, 65534)
    path.chmod(0o440)
    assert close_a(FileLedger(path)) == WRITTEN
    lock = path.with_name("trades.json.lock").stat()
    assert (lock.st_uid, lock.st_gid, lock.st_mode & 0o777) == (65534, 65534, 0o640)


def test_the_apps_own_lock_file_stays_as_it_is(path: Path) -> None:
    lock = path.with_name("trades.json.lock")
    lock.touch(0o604)
    before = lock.stat().st_mode
    assert close_a(FileLedger(path)) == WRITTEN
    assert lock.stat().st_mode == before


# ------------------------------------------------------------------ files that cannot be replaced


def refused(path: Path) -> str:
    with pytest.raises(LedgerFailed) as caught:
        close_a(FileLedger(path))
    assert "nothing was changed" in str(caught.value)
    assert path.read_text() == f"[{A}]"
    assert names(path) <= {"trades.json", "trades.json.lock", "other.json"}
    return str(caught.value)


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_file_that_is_mounted_alone_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    def busy(*_: object) -> bool:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    if exchanges:
        monkeypatch.setattr(replaced_file, "exchange", busy)
    else:
        monkeypatch.setattr(replaced_file, "exchange", lambda *_: False)
        monkeypatch.setattr(Path, "replace", busy)
    assert "it is mounted as a single file" in (said := refused(path))
    assert said.endswith("Cure: mount the folder that holds it instead.")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def none(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    assert "its file system has no locks, as NFS without its lock service" in (said := refused(path))
    assert "keep the ledger on a disk of this machine" in said
    assert FileLedger(path).read().total == 1


def test_a_hard_link_is_not_broken(path: Path) -> None:
    other = path.with_name("other.json")
    other.hardlink_to(path)
    assert "has a second name (a hard link), which would keep the old text" in refused(path)
    assert other.samefile(path)
    other.unlink()
    assert close_a(FileLedger(path)) == WRITTEN


# ------------------------------------------------------------------ copies into a file


def migrate(source: Path, target: Path) -> dict[str, object]:
    places = [Place("file", str(path)) for path in (source, target)]
    return copy_ledger(places[0], places[1], layout=None, dry_run=False)


@pytest.mark.parametrize("there", [None, "[]"], ids=["no file", "an empty one"])
@pytest.mark.parametrize("instant", ["replace", "_put_in_place"])
def test_an_app_that_writes_the_target_meanwhile_wins(
    path: Path, monkeypatch: pytest.MonkeyPatch, there: str | None, instant: str
) -> None:
    target = path.with_name("target.json")
    if there is not None:
        target.write_text(there)
    step = getattr(ReplacedFile, instant)

    def late(file: ReplacedFile, *given: object) -> bool:
        target.write_text(BY_APP)
        return bool(step(file, *given))

    monkeypatch.setattr(ReplacedFile, instant, late)
    with pytest.raises(LedgerFailed, match="no longer empty"):
        migrate(path, target)
    assert target.read_text() == BY_APP


def test_an_empty_target_keeps_what_is_around_its_trades(path: Path) -> None:
    target, link = path.with_name("target.json"), path.with_name("link.json")
    target.write_text('{"version":3, "trades": [ ],"settings":{"x":1e0}}\n')
    target.chmod(0o644)
    link.symlink_to(target)
    assert migrate(path, link)["notes"] == []
    assert target.read_text() == f'{{"version":3, "trades": [\n{A}\n],"settings":{{"x":1e0}}}}\n'
    assert target.stat().st_mode & 0o777 == 0o644
    assert link.is_symlink()


def test_a_target_that_is_new_is_private(path: Path) -> None:
    target = path.parent / "new" / "folder" / "target.json"
    migrate(path, target)
    assert target.read_text() == f"[\n{A}\n]\n"
    assert target.stat().st_mode & 0o777 == 0o600


def test_what_is_left_behind_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(f'{{"version":3,"trades":[{A}],"settings":{{}}}}')
    with caplog.at_level(logging.WARNING):
        document = migrate(path, path.with_name("target.json"))
    assert document["notes"] == [f"only trades are copied: file:{path} also has version, settings"]
    assert document["notes"] == caplog.messages


def test_a_place_that_cannot_be_written_is_one_line(path: Path) -> None:
    with pytest.raises(LedgerFailed, match="cannot be written"):
        migrate(path, Path("/proc/nowhere/target.json"))
