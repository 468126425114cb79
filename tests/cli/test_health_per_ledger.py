"""Several ledgers in one state: each is judged by its own runs, dashboards read the sum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.world import DAY_AGO, KEY, PASSWORD, SECRET, Run, StringStore, World, long
from tests.fakebroker import FakeBroker

ALPHA, BETA = "trades:v1:alpha", "trades:v1:beta"


def names(world: World, layout: str) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of two ledgers that keep their state in one place, both empty."""
    if layout == "file":
        for name in ("alpha", "beta"):
            (world.folder / f"{name}.json").write_text("[]")
        return tuple({"GHOSTCLEAN_LEDGER": f"file:{world.folder}/{name}.json"} for name in ("alpha", "beta"))  # type: ignore[return-value]
    for key in (ALPHA, BETA):
        world.redis.set(key, "[]")
    return {"GHOSTCLEAN_LEDGER_KEY": ALPHA}, {"GHOSTCLEAN_LEDGER_KEY": BETA}


def broken(world: World, whose: dict[str, str]) -> Run:
    """A run of that ledger whose broker is not there."""
    return world.reconcile("--deadline", "10", **{**whose, "GHOSTCLEAN_TRADING_URL": "http://127.0.0.1:1"})


@pytest.mark.parametrize("layout", ["string", "file"])
def test_the_success_of_one_ledger_does_not_paint_the_other_green(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    alpha, beta = names(world, layout)
    assert world.reconcile(**beta).code == 0
    assert broken(world, beta).code == 3
    assert world.reconcile(**alpha).code == 0

    good = world.run("status", "--check", "--json", **alpha)
    bad = world.run("status", "--check", "--json", **beta)
    assert (good.code, good.document["health"]) == (0, "healthy")
    assert (bad.code, bad.document["health"]) == (1, "broken")
    assert "broker_truth_failed" in bad.document["why"]
    assert bad.document["ledger"]["name"].endswith(("beta", "beta.json"))
    assert bad.document["reconcileTelemetry"]["summary"]["runs"] == 2
    assert [run["ok"] for run in bad.document["reconcileTelemetry"]["runs"]] == [False, True]

    every = world.run("status", "--all", "--check", "--json", **alpha)
    assert (every.code, every.document["health"]) == (1, "broken")
    rows = every.document["ledgers"]
    assert [row["health"] for row in rows] == ["broken", "healthy"]
    assert [row["ledger"].rpartition("/")[2].rpartition(":")[2] for row in rows] == (
        ["beta.json", "alpha.json"] if layout == "file" else ["beta", "alpha"]
    )
    account = world.broker.market.account_number
    assert [(row["account"], row["live"], row["runs"], row["fail"]) for row in rows] == [
        (account, False, 2, 1),
        (account, False, 1, 0),
    ]
    lines = world.run("status", "--all", "--check", COLUMNS="80", **alpha)
    assert [line.split()[0] for line in lines.stdout.splitlines()] == ["broken", "healthy"]
    assert max(map(len, lines.stdout.splitlines())) <= 80
    assert "beta" in lines.stderr

    assert world.reconcile(**beta).code == 0
    assert world.run("status", "--all", "--check", "--quiet", **alpha).stdout == ""


def test_dashboards_read_the_sum_and_whose_each_run_was(make_world: MakeWorld) -> None:
    world = make_world("string")
    alpha, beta = names(world, "string")
    for whose in (alpha, beta):
        assert world.reconcile(**whose).code == 0
    assert world.reconcile("--dry-run", **beta).code == 0
    summary = {k.decode(): v.decode() for k, v in world.redis.hgetall("telemetry:reconcile:summary").items()}
    assert (summary["runs"], summary["success"], summary["lastOk"]) == ("2", "2", "true")
    listed = [json.loads(text) for text in world.redis.lrange("telemetry:reconcile:runs", 0, -1)]
    assert [(run["ledger"].partition("#")[2], run["dryRun"]) for run in listed] == [
        (BETA, True),
        (BETA, False),
        (ALPHA, False),
    ]
    assert {run["account"] for run in listed} == {world.broker.market.account_number}
    assert not any(PASSWORD in json.dumps(run) for run in listed)


def test_a_ledger_of_another_account_is_named_with_it(make_world: MakeWorld) -> None:
    world = make_world("string")
    alpha, beta = names(world, "string")
    assert world.reconcile(**alpha).code == 0
    with FakeBroker(now=world.broker.market.now.isoformat(), key=KEY, secret=SECRET) as other:
        other.market.new_account()
        assert world.reconcile(**beta, GHOSTCLEAN_TRADING_URL=other.url).code == 0
        numbers = {world.broker.market.account_number, other.market.account_number}
    rows = world.run("status", "--all", "--json").document["ledgers"]
    assert {row["account"] for row in rows} == numbers
    assert len(numbers) == 2


def test_the_metrics_of_two_ledgers_lie_in_one_folder(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world("string")
    account = world.broker.market.account_number
    for whose, name in zip(names(world, "string"), ("a", "b"), strict=True):
        assert world.reconcile(**whose, GHOSTCLEAN_METRICS_FILE=f"{tmp_path}/{name}.prom").code == 0
    lines = [line for path in tmp_path.glob("*.prom") for line in path.read_text().splitlines()]
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series)) > 0
    assert all(f'account="{account}"' in one and "#trades:v1:" in one for one in series)


def test_old_telemetry_of_a_ledger_is_taken_over_with_its_first_run(make_world: MakeWorld) -> None:
    """As the version before left it: one summary and one list under the prefix, for all ledgers."""
    world = make_world("string")
    assert isinstance(world.store, StringStore)
    world.ledger(long("a", "AAPL", alpacaOrderId=world.broker.open_trade("AAPL", 10, 180, at=DAY_AGO)["id"]))
    assert world.inside(run_id="before").exit_code == 0
    for key in world.redis.scan_iter(match="*"):
        if b":telemetry:" in key or key.endswith(b"ghostclean:ledgers"):
            world.redis.delete(key)
    (row,) = (json.loads(text) for text in world.redis.lrange("telemetry:reconcile:runs", 0, -1))
    world.redis.lset(
        "telemetry:reconcile:runs", 0, json.dumps({k: row[k] for k in row if k not in ("ledger", "account")})
    )
    world.redis.hdel("telemetry:reconcile:summary", "lastSuccessAt", "lastError")

    seen = world.status()
    assert (seen["health"], seen["reconcileTelemetry"]["summary"]["runs"]) == ("healthy", 1)
    assert [row["health"] for row in world.run("status", "--all", "--json").document["ledgers"]] == ["healthy"]
    assert world.run("status", "--json", GHOSTCLEAN_LEDGER_KEY=BETA).document["health"] == "stale"

    assert world.reconcile().code == 0
    after = world.status()["reconcileTelemetry"]
    assert (after["summary"]["runs"], after["summary"]["success"], len(after["runs"])) == (2, 2, 2)
    assert after["runs"][1]["runId"] == "before"
    assert world.redis.hget("telemetry:reconcile:summary", "runs") == b"2"


def test_all_ledgers_need_no_ledger_and_read_no_broker(make_world: MakeWorld) -> None:
    world = make_world("string")
    alpha, _ = names(world, "string")
    assert world.reconcile(**alpha).code == 0
    world.redis.set(ALPHA, "not json")
    world.broker.reset_log()
    assert world.run("status", "--all", "--check", **alpha).code == 0
    assert world.broker.requests == []
    assert world.run("status", "--all", "--broker").code == 2
    nothing = world.run("status", "--all", "--check", GHOSTCLEAN_KEY_PREFIX="empty:")
    assert (nothing.code, nothing.stdout.startswith("no ledger has recorded a run in redis://")) == (1, True)
