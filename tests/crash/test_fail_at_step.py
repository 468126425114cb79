"""Every effect failed once: before it happened, after (the answer lost), hanging; and garbage in every store.

The run ends in time with the right word and exit code, nothing is lost, the next run completes it.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ghostclean.result import EXIT_CODES
from tests.timing import SLACK

from .conftest import MakeScene
from .kills import PAIRS
from .scene import NOW, Answer, Scene, right_end

# What a failing effect may be called: by method, for the first and for the later readings.
WORDS: dict[str, set[str | None]] = {
    "open": {"state_failed"}, "deliver": {"state_failed"}, "acquire": {"state_failed"}, "recall_all": {"state_failed"},
    "intend": {"state_failed", "deadline_exceeded"}, "commit": {"state_failed"},
    "read": {"ledger_failed"}, "get": {"ledger_failed"},
    "history": {"ledger_failed", "deadline_exceeded"}, "write": {"ledger_failed", "deadline_exceeded"},
    "account": {"broker_truth_failed", "deadline_exceeded"},
    "working_orders": {"broker_truth_failed", "deadline_exceeded"},
    "positions": {"broker_truth_failed", "deadline_exceeded"}, "order": {"deadline_exceeded"},
    "order_by_client_id": {"deadline_exceeded"}, "fills": {"deadline_exceeded"}, "activities": {"deadline_exceeded"},
    "clock": {"deadline_exceeded"},
}  # fmt: skip
DEADLINE = 4.0  # of a run that hangs; one that fails has all the time it needs


def fail(scene: Scene, right: Any, at: int, name: str, how: str) -> Answer:
    deadline = DEADLINE if how.startswith("hang") else 20.0
    answer = scene.run("--verbose", fault={"at": at, "how": how}, deadline=f"{deadline}s")
    method = name.partition(".")[2]
    document = answer.document
    assert document["error"] in WORDS[method], (name, how, document["error"], document["detail"])
    assert answer.code == EXIT_CODES[document["error"]]
    assert document["ok"] is (document["error"] is None)
    assert answer.seconds < deadline + SLACK, f"{name} {how} took {answer.seconds:.1f} s"
    assert "Traceback" not in answer.stdout
    if method in ("open", "acquire", "recall_all", "intend", "read"):
        assert scene.ledger() == {r["id"]: r for r in scene.records}, "something was written although nothing may be"
    scene.lock_expires()
    again = scene.run()
    assert again.code == 0, again.stdout
    scene.judge_end(right)
    runs = int(scene.summary()["runs"])
    assert runs == 2, f"{name} {how}: {runs} runs are counted"
    return answer


@pytest.mark.parametrize("how", ["error_before", "error_after"])
@pytest.mark.parametrize("pair", PAIRS[:3], ids="-".join)
def test_every_effect_fails(make_scene: MakeScene, pair: tuple[str, str], how: str) -> None:
    right, effects = right_end(make_scene(*pair))
    for at, name in enumerate(effects, 1):
        fail(make_scene(*pair), right, at, name, how)


@pytest.mark.parametrize("how", ["hang_before", "hang_after"])
@pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[2]], ids="-".join)
def test_every_effect_hangs(make_scene: MakeScene, pair: tuple[str, str], how: str) -> None:
    """Hanging runs wait most of the time, so several of them go on at once."""
    right, effects = right_end(make_scene(*pair))
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda step: fail(make_scene(*pair), right, *step, how), enumerate(effects, 1)))


# --------------------------------------------------------------------------- garbage

TRUTH = ("account", "orders", "positions")
KINDS = ("html", "cut", "wrong_type", "500", "401")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", TRUTH)
def test_garbage_from_the_broker_is_not_observed(make_scene: MakeScene, label: str, kind: str) -> None:
    scene = make_scene()
    raw = scene.raw()
    with _fault(scene.broker, label, kind):
        answer = scene.run(deadline="3s")
    assert (answer.code, answer.document["error"]) == (3, "broker_truth_failed")
    assert scene.raw() == raw
    assert scene.summary()["fail"] == "1"


class _fault:  # noqa: N801
    """A fault that ends with its block."""

    def __init__(self, broker: Any, label: str, kind: str) -> None:
        self.broker, self.label, self.kind = broker, label, kind

    def __enter__(self) -> None:
        self.broker.fault(self.label, int(self.kind) if self.kind.isdigit() else self.kind, times=10_000)

    def __exit__(self, *_: object) -> None:
        self.broker.clear_faults()


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a":1}', b"null", b"[1,", b"\xff\xfe[]", b'[{"id":"x"}'])
@pytest.mark.parametrize("layout", ["string", "file"])
def test_a_ledger_that_cannot_be_parsed_is_never_written_over(make_scene: MakeScene, layout: str, raw: bytes) -> None:
    scene = make_scene(layout, "redis")
    scene.put_raw(raw)
    answer = scene.run()
    assert (answer.code, answer.document["error"]) == (4, "ledger_failed")
    assert scene.raw() == raw


@pytest.mark.parametrize("section", ["exits", "unproven", "misses", "first_seen", "pin", "orders", "verdicts", "holds"])
@pytest.mark.parametrize("value", [b"{", b"\xff", b""])
def test_a_damaged_memory_writes_nothing(make_scene: MakeScene, section: str, value: bytes) -> None:
    scene = make_scene()
    raw = scene.raw()
    scene.client.hset(scene.own("memory:" + section), "live", value)
    answer = scene.run()
    assert (answer.code, answer.document["error"]) == (4, "state_failed"), answer.stdout
    assert scene.raw() == raw
    scene.client.delete(scene.own("memory:" + section))
    assert scene.run().code == 0


@pytest.mark.parametrize(
    "section", ["exits", "unproven", "misses", "first_seen", "pin", "orders", "verdicts", "holds", "last_worked"]
)
def test_a_memory_of_another_shape_ends_in_a_word(make_scene: MakeScene, section: str) -> None:
    """Values that are JSON and yet nonsense: the run works, or it says that the state is damaged."""
    scene = make_scene()
    name = "account" if section == "pin" else "live"
    for value in ("7", '"x"', "[]", '{"a": 1}', "[{}]", "true", '{"at": 5, "trade": []}', '{"id": 5}'):
        scene.client.hset(scene.own("memory:" + section), name, value)
        answer = scene.run("--dry-run")
        assert answer.code in (0, 4, 5), (section, value, answer.stdout, answer.stderr)
        assert (answer.code == 4) == (answer.document["error"] == "state_failed")
        if value in ("7", "true"):
            assert answer.code == 4, f"{section} took {value} for a memory"


def test_a_damaged_journal_entry_writes_nothing(make_scene: MakeScene) -> None:
    scene = make_scene()
    raw = scene.raw()
    scene.client.zadd(scene.own("journal:order"), {"e1": 1})
    scene.client.sadd(scene.own("journal:intended"), "e1")
    for text in (b"{", b"\xff", b'{"id":"e1"}', b"[]", b"7"):
        scene.client.hset(scene.own("journal"), "e1", text)
        answer = scene.run()
        assert (answer.code, answer.document["error"]) == (4, "state_failed"), answer.stdout
        assert scene.raw() == raw


def test_a_telemetry_key_of_another_type_is_named(make_scene: MakeScene) -> None:
    scene = make_scene()
    key = f"{scene.name}:telemetry:reconcile:summary"
    scene.client.set(key, "mine")
    answer = scene.run()
    assert (answer.code, answer.document["error"]) == (4, "state_failed")
    assert scene.client.get(key) == b"mine"
    assert scene.spooled() == 1
    scene.client.delete(key)
    scene.lock_expires()
    assert scene.run().code == 0
    assert scene.spooled() == 0
    assert scene.summary()["totalClosed"] == "4"
    assert scene.summary()["runs"] == "2"


def test_the_record_of_a_failed_run_says_when(make_scene: MakeScene) -> None:
    scene = make_scene()
    answer = scene.run(fault={"at": 5, "how": "error_before"})
    assert answer.document["error"] == "ledger_failed"
    listed = json.loads(scene.client.lindex(f"{scene.name}:telemetry:reconcile:runs", 0))
    assert (listed["ok"], listed["error"], listed["closed"]) == (False, "ledger_failed", 0)
    assert listed["ts"] > NOW[:4]
