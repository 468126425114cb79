"""Plain lines: silence when nothing changed, one line an action, no terminal tricks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pytest

from ghostclean.core.verdicts import Action
from ghostclean.render.screen import reconcile_screen
from ghostclean.render.text import check_line, entry_lines, reconcile_lines, row_line, totals
from tests.builders import document, row


def test_a_quiet_run_that_changed_nothing_says_nothing() -> None:
    rows = (
        row("kept", "live"),
        row("held", "settling"),
        row("skipped"),
        row("kept", "orphan", id=None),
    )
    assert list(reconcile_lines(document(*rows, notes=["a note"]), quiet=True)) == []


def test_a_quiet_run_says_one_line_a_change() -> None:
    lines = list(
        reconcile_lines(
            document(row("closed"), row("kept", "live"), row("would_sync", "live")),
            quiet=True,
        )
    )
    assert [line.split()[0] for line in lines] == ["closed", "would_sync"]
    assert lines[0] == "closed        AAPL      t1  exited: its stop filled"


@pytest.mark.parametrize("lines", [reconcile_lines, partial(reconcile_lines, quiet=True), reconcile_screen])
def test_every_run_says_what_it_has_settled_and_a_dry_run_has_nothing(lines: Callable[..., Iterable[str]]) -> None:
    settled = [{"kind": "orphan", "symbol": "AMD", "id": None}]

    assert "settled: AMD (orphan)" in list(lines(document(settled=settled)))
    assert not any("settled" in line for line in lines(document(settled=settled, dryRun=True)))


ACTIONS = [
    *Action,
    *(a.would() for a in Action if a.writes),
    "refused",
    "undone",
    "resolved",
    "would_undo",
    "would_resolve",
]


@pytest.mark.parametrize("action", [*map(str, ACTIONS)])
@pytest.mark.parametrize("symbol", ["F", "BTC/USD", "AAPL261218C00200000"])
def test_no_column_runs_into_the_next(action: str, symbol: str) -> None:
    assert row_line(row(action, ticker=symbol)).split() == [action, symbol, "t1", "exited:", "its", "stop", "filled"]


@pytest.mark.parametrize("action", ["would_sync", "synced"])
def test_a_sync_names_the_fields_it_writes(action: str) -> None:
    changed = row(action, "live", reason="it holds 10", before={"status": "PARTIAL", "gone": 1, "updatedAt": "then"},
                  after={"status": "OPEN", "filledQty": 10, "updatedAt": "now"})  # fmt: skip
    assert row_line(changed).endswith("live: it holds 10: status, filledQty, gone")
    assert row_line(changed | {"action": "closed"}).endswith("live: it holds 10")


def test_what_stayed_is_counted_and_not_listed() -> None:
    rows = (row("kept", "live"), row("held", "mismatch"), row("kept", "orphan", id=None))
    lines = list(reconcile_lines(document(*rows, held=1, orphans=1)))
    assert [line.split()[0] for line in lines] == ["held", "kept", "reconcile"]
    assert lines[-1] == "reconcile ok: 3 checked, 1 held, 1 orphan in 1.23s (run r1)"


def test_verbose_lists_everything() -> None:
    fit = {"statuses": [{"status": "WON", "count": 2, "means": "not known"}], "over": 3, "withoutOrder": 1}
    said = document(row("kept", "live"), fit={**fit, "orders": {"named": 5, "known": 4}})
    assert len(list(reconcile_lines(document(row("kept", "live")), verbose=True))) == 2
    assert list(reconcile_lines(said, verbose=True))[1] == (
        "ledger: 2 WON (not known), 3 over; the account knows 4 of 5 order ids, trades without one: 1"
    )


def test_a_failed_and_partial_run_says_so() -> None:
    failed = document(ok=False, error="deadline_exceeded", partial=True)
    assert list(reconcile_lines(failed))[-1].startswith("reconcile deadline_exceeded: 0 checked, partial in")


def test_totals_keep_what_is_not_zero() -> None:
    assert totals(document(row("closed"), closed=1)) == "1 checked, 1 closed"


def test_an_explanation_shows_proof_and_both_values() -> None:
    entry = {
        "at": "2026-11-20T15:00:00.000Z",
        "verdict": "exited",
        "action": "closed",
        "outcome": "written",
        "runId": "r1",
        "reason": "its stop filled",
        "proof": [{"what": "fill", "at": "2026-11-19T18:22:41.503Z", "qty": "10", "none": None}],
        "before": {"status": "OPEN"},
        "after": {"status": "CLOSED", "closePrice": 187.4},
    }
    assert list(entry_lines([entry])) == [
        "2026-11-20T15:00:00.000Z  exited  closed (written)  run r1",
        "    its stop filled",
        "    proof: fill at 2026-11-19T18:22:41.503Z (qty 10)",
        "    status: OPEN -> CLOSED",
        "    closePrice: absent -> 187.4",
    ]


@pytest.mark.parametrize(("ok", "mark"), [(True, "ok"), (False, "FAIL"), (None, "note")])
def test_a_check_is_one_line_with_its_cure(ok: bool | None, mark: str) -> None:
    line = check_line({"name": "broker", "ok": ok, "found": "no answer", "cure": "check the keys"})
    assert line.split() == [mark, "broker", "no", "answer", "-", "check", "the", "keys"]


@pytest.mark.parametrize(("number", "noun"), [(0, "0 orphans"), (1, "1 orphan"), (2, "2 orphans")])
def test_orphans_are_counted_as_people_count(number: int, noun: str) -> None:
    assert totals(document(orphans=number)) == ("0 checked" if not number else f"0 checked, {noun}")


def test_a_dry_run_does_not_claim_to_have_done_it() -> None:
    assert totals(document(row("would_close"), closed=1, synced=2, dryRun=True)) == "1 checked, 1 to close, 2 to sync"
