"""Ten thousand trades of telemetry: what a person reads stays short, and comes in seconds."""

from __future__ import annotations

from ghostclean.app.ports import JournalEntry, RunCommit
from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, NOW, World, long

TRADES, RUNS = 10_000, 100
IN_NEED = ("t5", "t7777")
SECONDS = 15.0  # of a whole process on a busy machine; read trade by trade it is minutes


def closed(number: int) -> JournalEntry:
    before, after = {"status": "OPEN"}, {"status": "CLOSED", "closeReason": "stop_loss", "realizedPnL": -1.5}
    proof = ({"kind": "order", "at": NOW, "orderId": f"o{number}"},)
    what = "cli", f"t{number}", "AAPL", "exited", "closed", "closed by its stop"
    return JournalEntry(f"e{number}", DAY_AGO, f"r{number % RUNS}", *what, proof, before, after, "written")


def fill(world: World) -> None:
    """As many open trades, and the journal of runs that have closed as many."""
    world.ledger(*(long(f"t{number}", "AAPL") for number in range(TRADES)))
    item = {"since": DAY_AGO, "kind": "naked", "symbol": "AAPL", "why": "no stop works for it"}
    needs = {f"naked {i}": {**item, "id": i} for i in IN_NEED}
    with world.state() as state:
        for run in range(RUNS):
            listed = {"ts": DAY_AGO, "runId": f"r{run}", "source": "cli", "checked": TRADES, "closed": 100, "ok": True}
            entries = tuple(closed(number) for number in range(run, TRADES, RUNS))
            memory = {"attention": needs} if run == 0 else {}
            state.commit(RunCommit("reconcile", f"r{run}", listed, {"runs": 1}, {}, entries, memory))


def test_ten_thousand_trades_are_told_in_a_screen_and_in_seconds(make_world: MakeWorld) -> None:
    world = make_world("string")
    fill(world)

    def told(*args: str, most: int) -> list[str]:
        run = world.run(*args)
        lines = run.stdout.splitlines()
        assert run.code == 0, run
        assert len(lines) <= most
        assert run.seconds < SECONDS, f"{args} took {run.seconds:.1f} s"
        return lines

    assert "needs you" in told("status", most=30)[0]
    told("status", "--all", most=3)
    assert told("history", most=TRADES + 1)[-1].split() == ["10000", "stop_loss", "P&L", "-15000.00"]
    assert told("history", "t77", most=2)
    assert "t77: OPEN" in told("explain", "t77", most=30)[0]
    assert "and 80 more: ask for one by its id, or see `ghostclean history`" in told("explain", "r7", most=300)
    of_symbol = told("explain", "AAPL", most=300)
    assert all(any(line.startswith(f"AAPL  {i}:") for line in of_symbol) for i in (*IN_NEED, "t9999"))
    assert "and 9980 more: ask for one by its id, or see `ghostclean history`" in of_symbol
