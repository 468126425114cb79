"""The state out of reach, lost in the middle, full, read-only or damaged: no word is missing, no effect is lost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import redis_server
from tests.timing import SLACK

from .conftest import MakeScene
from .scene import CLOSED, right_end

DEAD = "redis://127.0.0.1:1/0"


def test_unreachable_at_the_start_writes_nothing_and_is_delivered_once(make_scene: MakeScene) -> None:
    right, _ = right_end(make_scene("file", "sqlite"))
    scene = make_scene("file", "redis")
    raw = scene.raw()
    for number in (1, 2, 3):
        answer = scene.run(env={"GHOSTCLEAN_STATE": DEAD})
        assert (answer.code, answer.document["error"]) == (4, "state_failed")
        assert scene.raw() == raw
        assert scene.spooled() == number
    assert scene.run().code == 0
    assert scene.summary()["runs"] == "4"
    assert scene.summary()["fail"] == "3"
    scene.judge_end(right)
    assert scene.run().code == 0
    assert scene.summary()["runs"] == "5"


@pytest.mark.parametrize("method", ["recall_all", "intend", "write", "commit"])
def test_the_server_dies_in_the_middle(make_scene: MakeScene, method: str) -> None:
    """A real server is killed while the run stands before an effect; an empty one takes its place."""
    right, _ = right_end(make_scene("file", "redis"))
    with redis_server() as url:
        scene = make_scene("file", "redis", redis_url=url)
        go_on = scene.slow_run(f".{method}")
        pid = int(scene.client.info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)
        answer = go_on()
    before = method in ("recall_all", "intend", "write")
    assert answer.document["error"] == "state_failed", answer.stdout
    # The file's fence is the lost lock: without it nothing is written.
    assert (scene.ledger()["sold"]["status"] == "OPEN") == before
    assert scene.spooled() == 1
    with redis_server() as url:
        again = make_scene("file", "redis", redis_url=url, name=scene.name + "x")
        again.path.write_bytes(scene.path.read_bytes())
        again.name, again.home, again.path = scene.name, scene.home, scene.path
        assert again.run().code == 0
        assert again.spooled() == 0
        ledger = again.ledger()
        assert {i for i, r in ledger.items() if r["status"] == "CLOSED"} == CLOSED
        assert ledger["sold"]["closePrice"] == right["sold"]["closePrice"]
        assert again.summary()["totalClosed"] == str(len(CLOSED))
        scene.client.close()


def test_two_processes_on_one_sqlite(make_scene: MakeScene) -> None:
    """Started together, again and again: one works, the other comes after it or ends with 7."""
    scene = make_scene("file", "sqlite")
    right, _ = right_end(make_scene("file", "sqlite"))
    for _ in range(10):
        runs = [scene.start(), scene.start()]
        codes = sorted(run.answer().code for run in runs)
        assert codes in ([0, 0], [0, 7])
    scene.judge_end(right)
    assert scene.summary()["fail"] == "0"


@contextlib.contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own, where this user may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(("size=200k", *options)), "ghostclean-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_the_state(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene("file", "sqlite")
    with small_disk(tmp_path / "disk") as disk:
        env = {"GHOSTCLEAN_STATE": f"sqlite:{disk}/state.db"}
        assert scene.run("--dry-run", env=env).code == 0
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 512):
                pass
        raw = scene.raw()
        answer = scene.run(env=env)
        assert (answer.code, answer.document["error"]) == (4, "state_failed"), answer.stdout
        assert "disk is full" in answer.document["detail"]
        assert scene.raw() == raw
        # The spool stands beside the state, on the same full disk: its loss is said, not hidden.
        assert any("record is lost" in note for note in answer.document["notes"])
        (disk / "filler").unlink()
        assert scene.run(env=env).code == 0
        assert {i for i, r in scene.ledger().items() if r["status"] == "CLOSED"} == CLOSED


def test_a_file_size_limit_under_the_state(make_scene: MakeScene) -> None:
    """The same for a user who may mount nothing: the state's file may not grow."""
    scene = make_scene("file", "sqlite")
    assert scene.run("--dry-run").code == 0
    raw = scene.raw()
    command = [sys.executable, "-c", "from ghostclean.cli import main; raise SystemExit(main())", "reconcile", "--json"]
    for limit in (16 * 1024, 60 * 1024):
        done = subprocess.run(
            command, env={**scene.env(), "PYTHONDONTWRITEBYTECODE": "1"}, cwd=scene.home,
            capture_output=True, text=True, check=False,
            preexec_fn=lambda size=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        )  # fmt: skip
        assert json.loads(done.stdout)["error"] in ("state_failed", None), done.stdout
        if done.returncode:
            assert done.returncode == 4
            if scene.raw() != raw:
                break  # lost only at the end: what was written is reported and will be completed
    scene.lock_expires()
    assert scene.run().code == 0
    assert {i for i, r in scene.ledger().items() if r["status"] == "CLOSED"} == CLOSED


@pytest.mark.parametrize(
    "options", [("--min-replicas-to-write", "1"), ("--maxmemory", "1mb", "--maxmemory-policy", "noeviction")],
    ids=["takes no writes", "full"],
)  # fmt: skip
def test_a_dry_run_needs_no_state_that_can_be_written(make_scene: MakeScene, options: tuple[str, ...]) -> None:
    scene = make_scene("file", "redis")
    with redis_server(None, *options) as url:
        answer = scene.run("--dry-run", env={"GHOSTCLEAN_STATE": url})
        assert (answer.code, answer.document["error"]) == (0, None), answer.stdout
        assert answer.document["closed"] == len(CLOSED)
        assert any(note.startswith("this dry run is not listed") for note in answer.document["notes"])
        assert scene.spooled() == 0
        assert scene.run(env={"GHOSTCLEAN_STATE": url}).document["error"] == "state_failed"


def test_a_read_only_folder(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene("file", "sqlite")
    raw = scene.raw()
    for place in ("/proc/ghostclean/state.db", "/dev/null/state.db"):
        answer = scene.run(env={"GHOSTCLEAN_STATE": f"sqlite:{place}"})
        assert (answer.code, answer.document["error"]) == (4, "state_failed")
        assert scene.raw() == raw
    with small_disk(tmp_path / "ro", "ro") as disk:
        answer = scene.run(env={"GHOSTCLEAN_STATE": f"sqlite:{disk}/state.db"})
        assert (answer.code, answer.document["error"]) == (4, "state_failed")
        assert "read-only" in answer.document["detail"]
        assert scene.raw() == raw


@pytest.mark.parametrize("damage", ["garbage", "zeroed page", "cut", "empty"])
def test_a_damaged_file(make_scene: MakeScene, damage: str) -> None:
    scene = make_scene("file", "sqlite")
    assert scene.run("--dry-run").code == 0
    path, raw = scene.home / "state.db", scene.raw()
    for beside in ("state.db-wal", "state.db-shm"):
        (scene.home / beside).unlink(missing_ok=True)
    whole = path.read_bytes()
    path.write_bytes({
        "garbage": b"this is no database at all, but it is long enough to be one" * 100,
        "zeroed page": whole[:4096] + bytes(len(whole) - 4096),
        "cut": whole[: len(whole) // 2],
        "empty": b"",
    }[damage])  # fmt: skip
    answer = scene.run()
    if damage == "empty":  # like no file: a new state
        assert answer.code == 0
        return
    assert (answer.code, answer.document["error"]) == (4, "state_failed"), answer.stdout
    assert scene.raw() == raw
    assert scene.spooled() == 1


def test_the_spool_cannot_be_written_either(make_scene: MakeScene) -> None:
    scene = make_scene("file", "redis")
    raw = scene.raw()
    answer = scene.run(env={"GHOSTCLEAN_STATE": DEAD, "XDG_STATE_HOME": "/proc/nowhere"})
    assert answer.code in (2, 4), answer.stdout
    assert scene.raw() == raw
    assert "Traceback" not in answer.stderr


def test_a_state_that_hangs_at_the_start_is_bounded(make_scene: MakeScene) -> None:
    """A server that takes connections and never answers."""
    import socket

    scene = make_scene("file", "redis")
    raw = scene.raw()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        began = time.monotonic()
        answer = scene.run(env={"GHOSTCLEAN_STATE": f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"}, deadline="1.5s")
        assert time.monotonic() - began < 1.5 + SLACK
    assert (answer.code, answer.document["error"]) == (4, "state_failed")
    assert scene.raw() == raw
    assert scene.spooled() == 1
