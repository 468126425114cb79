"""One bound on time: hard, nested without a second thread, and seen by whoever asks the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ghostclean import api
from ghostclean.app.deadline import Deadline, bound, bounded, call_left
from ghostclean.errors import DeadlineExceeded
from tests.fakes import FakeState
from tests.timing import SLACK


def test_a_call_that_hangs_is_abandoned_on_a_thread_that_keeps_nothing_alive() -> None:
    over = threading.Event()
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.1 s"):
        bounded(over.wait, 0.1)
    assert time.monotonic() - start < 0.1 + SLACK
    left_behind = [t for t in threading.enumerate() if t.name == "ghostclean-call"]
    assert all(t.daemon for t in left_behind)
    over.set()


def test_results_and_errors_come_back_as_they_are() -> None:
    assert bounded(lambda: 5, 1) == 5
    with pytest.raises(KeyError):
        bounded(lambda: {}[1], 1)
    with pytest.raises(DeadlineExceeded, match="no time left"):
        bounded(lambda: 5, 0)


def test_a_call_inside_another_needs_a_thread_only_for_a_tighter_bound() -> None:
    def threads(inner: float) -> tuple[int, int]:
        def outer() -> tuple[int, int]:
            return threading.get_ident(), bounded(threading.get_ident, inner)

        return bounded(outer, 5)

    same = threads(5), threads(60)
    assert all(a == b for a, b in same)
    outer, inner = threads(1)
    assert outer != inner


def test_a_tighter_bound_inside_another_holds() -> None:
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"0\.1 s"):
        bounded(lambda: bounded(lambda: time.sleep(20), 0.1), 5)
    assert time.monotonic() - start < 0.1 + SLACK


def test_who_asks_the_network_knows_what_is_left_of_the_call() -> None:
    assert call_left() == float("inf")
    assert 1.5 < bounded(call_left, 2) <= 2
    assert 0.5 < bounded(lambda: bounded(call_left, 1), 2) <= 1
    assert call_left() == float("inf")


@pytest.mark.parametrize(
    ("run", "most"),
    [
        (lambda d: d.reading, 7.5),  # a quarter is kept for writing
        (lambda d: d.writing, 10.0),
        (lambda d: d.acting, 9.5),  # half a second is kept for the run's own record
    ],
)
def test_every_call_of_a_bound_part_has_the_share_it_was_given(
    run: Callable[[Deadline], Callable[[Callable[[], object]], object]], most: float
) -> None:
    state = FakeState()
    seen: list[float] = []
    state.recall = lambda *_: seen.append(call_left()) or {}  # type: ignore[method-assign, func-returns-value]
    bound(state, run(Deadline(10.0))).recall("orders")
    assert most - 0.5 < seen[0] <= most


def test_a_run_that_writes_nothing_keeps_no_time_for_writing() -> None:
    assert 44 < Deadline(60).left_for_reading() <= 45
    assert 59 < Deadline(60, writes=False).left_for_reading() < 60
    assert 0 < Deadline(0.4, writes=False).left_for_reading() <= 0.3, "its own record needs a moment"


@pytest.mark.parametrize("dry", [True, False])
def test_a_dry_run_reads_as_long_as_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dry: bool) -> None:
    given: list[Deadline] = []
    monkeypatch.setattr("ghostclean.app.reconcile.run_reconcile", lambda parts, options: given.append(options.deadline))
    monkeypatch.setattr("ghostclean.app.auto_manage.run_auto_manage", lambda parts, options, **_: given.append(
        options.deadline))  # fmt: skip
    settings = {
        "ALPACA_API_KEY": "k", "ALPACA_SECRET_KEY": "s",
        "GHOSTCLEAN_LEDGER": f"file:{tmp_path}/t.json", "GHOSTCLEAN_STATE": f"sqlite:{tmp_path}/s.db",
    }  # fmt: skip

    api.reconcile(settings=settings, dry_run=dry)
    api.auto_manage(settings=settings, dry_run=dry)

    assert [deadline.left_for_reading() > 50 for deadline in given] == [dry, dry]
