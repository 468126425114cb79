"""Every command as a person or a program meets it: usage, documents, secrets, screens, the operator's hand."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.cli.conftest import MakeWorld
from tests.cli.test_symptom_to_cure import typed_at
from tests.cli.world import DAY_AGO, PASSWORD, ROOT, SENTINEL, UNKNOWN_ORDER, YESTERDAY, World, long
from tests.program import FRESH

COMMANDS = (
    "reconcile", "auto-manage", "status", "gate", "explain", "history", "resolve",
    "undo", "snapshot", "doctor", "migrate", "schedule", "demo",
)  # fmt: skip


# --------------------------------------------------------------------------- usage and documents


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_four_options(world: World, command: str) -> None:
    run = world.run(command, "--help")
    assert run.code == 0
    for option in ("--help", "--json", "--quiet", "--verbose"):
        assert option in run.stdout
    assert f"ghostclean {command}" in run.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("nothing",),
        ("reconcile", "--max", "x"),
        ("status", "--limit", "0"),
        ("status", "--watch", "1"),
        ("gate", "--max-open", "-1"),
        ("explain",),
        ("schedule", "daily"),
        ("resolve", "t", "--vanished", "--exit-order", "x"),
        ("migrate", "file:a"),
    ],
)
def test_wrong_usage_is_one_document_and_exit_2(world: World, args: tuple[str, ...]) -> None:
    run = world.run(*args, "--json")
    assert (run.code, run.document["ok"], run.document["error"]) == (2, False, "bad_settings")
    assert run.document["detail"]
    assert "Value error" not in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_url_in_a_wrong_argument_is_not_repeated(world: World) -> None:
    password = f"{SENTINEL}@{SENTINEL}"  # an @ of its own: the last one ends it
    run = world.run("migrate", "file:a", "file:b", f"redis://me:{password}@h/0", "--json")
    assert run.code == 2
    assert SENTINEL not in run.stdout + run.stderr


LOOKS = (("status",), ("gate",), ("auto-manage",), ("explain", "a"), ("undo", "r1"), ("resolve", "x", "--vanished"))


@pytest.mark.parametrize("args", LOOKS, ids=lambda args: args[0])
def test_a_failed_command_has_the_same_document(world: World, args: tuple[str, ...]) -> None:
    world.pin()
    world.ledger(long("a", "AAPL"), long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER))
    world.broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    world.reconcile("--run-id", "r1", "--no-close")
    good = world.run(*args, "--json")
    bad = world.run(*args, "--json", GHOSTCLEAN_GRACE="soon")
    wrong = world.run(*args, "--nonsense", "--json")
    assert (good.code, bad.code, wrong.code) == (0, 2, 2)
    assert good.document.keys() == bad.document.keys() == wrong.document.keys()
    assert bad.document["error"] == wrong.document["error"] == "bad_settings"


def test_a_state_that_is_down_still_gives_the_status_document(world: World) -> None:
    run = world.run("status", "--json", REDIS_URL="redis://127.0.0.1:1/0")
    assert (run.code, run.document["error"], run.document["ledger"]) == (4, "state_failed", None)
    assert run.document["reconcileTelemetry"] == {"summary": {}, "runs": []}


# --------------------------------------------------------------------------- secrets


def test_secrets_of_dotenv_stay_secret_in_every_place_they_can_stand(world: World) -> None:
    url = world.redis_url.replace(f":{PASSWORD}@", "")
    lines = [
        f"REDIS_URL={url}?password={PASSWORD}",
        f"GHOSTCLEAN_HEARTBEAT_URL=http://127.0.0.1:1/{SENTINEL}token",
        f"GHOSTCLEAN_ALERT_URL=http://me:{SENTINEL}w@127.0.0.1:1/{SENTINEL}hook",
    ]
    runs = [("doctor", "--verbose"), ("reconcile", "--verbose"), ("status", "--json"), ("snapshot",)]
    (world.folder / ".env").write_text("\n".join(lines))
    try:
        for args in runs:
            run = world.run(*args, REDIS_URL=None)
            assert run.code == 0, run.stderr
            assert SENTINEL not in run.stdout + run.stderr
    finally:
        (world.folder / ".env").unlink()  # it holds them by right; the fixture looks for what we wrote


# --------------------------------------------------------------------------- status


def test_health_does_not_depend_on_the_limit(world: World) -> None:
    world.reconcile()
    world.broker.fault("*", 500, times=1000)
    world.reconcile("--deadline", "2s")
    for _ in range(2):
        world.reconcile("--dry-run", "--deadline", "2s")
    run = world.run("status", "--json", "--limit", "1", "--check")
    assert (run.code, run.document["health"], len(run.document["reconcileTelemetry"]["runs"])) == (1, "broken", 1)
    assert "broker_truth_failed" in run.document["why"]
    assert run.document["lastSuccessAt"]


def test_an_exit_order_left_behind_hides_no_ghost(world: World) -> None:
    broker = world.broker
    broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    broker.open_trade("PEND", 5, 20, at=YESTERDAY)
    broker.open_trade("ORPH", 5, 20, at=YESTERDAY)
    broker.add_order(symbol="GHST", side="sell", qty="10", type="stop", stop_price="5", status="new",
                     position_intent="sell_to_close")  # fmt: skip
    broker.add_order(symbol="WAIT", side="buy", qty="10", type="limit", limit_price="5", status="new")
    pending = {"id": "p", "ticker": "PEND", "status": "PENDING", "alpacaOrderId": UNKNOWN_ORDER}
    world.ledger(long("a", "AAPL"), long("g", "GHST"), long("w", "WAIT"), pending)
    found = world.run("status", "--broker", "--json").document["broker"]
    assert found == {
        "positionsCount": 3,
        "openOrdersCount": 2,
        "onlyAtBroker": ["ORPH"],
        "onlyInLedger": ["GHST"],
    }


def test_watching_ends_with_its_reader(world: World) -> None:
    process = world.start("status", "--watch", "100ms")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("stale")
    process.stdout.close()
    try:
        assert process.wait(timeout=15) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


# --------------------------------------------------------------------------- gate


def test_the_gate_asks_no_other_account(world: World) -> None:
    world.pin()
    assert world.run("gate").code == 0
    world.broker.market.new_account()
    run = world.run("gate", "--json")
    assert (run.code, run.document["allowed"], run.document["count"]) == (3, False, None)
    assert "wrong account" in run.document["reason"] or "belongs to" in run.document["reason"]
    assert world.run("gate", REDIS_URL="redis://127.0.0.1:1/0").code == 0, "entries depend on no ledger and no state"


def test_a_closed_gate_says_why_in_its_own_words(world: World) -> None:
    world.broker.fault("*", 500, times=1000)
    run = world.run("gate")
    assert run.code == 3
    assert "no entry" in run.stderr
    assert "closed" not in run.stderr


# --------------------------------------------------------------------------- explain


def test_a_trade_that_no_run_changed_is_known(world: World) -> None:
    world.broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    world.ledger(long("a", "AAPL"), long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER))
    run = world.run("explain", "a")
    assert run.code == 0
    assert "AAPL  a: OPEN in the ledger" in run.stdout
    assert "no run has changed it" in run.stdout
    world.reconcile("--no-close")
    run = world.run("explain", "x", "--json")
    assert (run.document["verdict"], run.document["status"]) == ("vanished", "OPEN")
    assert [(e["verdict"], e["action"], e["outcome"]) for e in run.document["entries"]] == [
        ("vanished", "skipped", "noted")
    ]
    assert "left open by --no-close" in run.document["verdictReason"]


def test_an_unreadable_ledger_is_not_an_unknown_trade(world: World) -> None:
    world.redis.set(world.store.key, "{")  # type: ignore[attr-defined]
    run = world.run("explain", "a", "--json")
    assert (run.code, run.document["error"]) == (4, "ledger_failed")


def test_what_an_undo_takes_out_is_said(world: World) -> None:
    world.pin()
    world.broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    world.ledger(long("a", "AAPL"))
    world.run("undo", world.reconcile().document["runId"])
    told = world.run("explain", "a").stdout
    assert "alpacaStatus: position_open -> absent" in told
    assert "fingerprint" not in told
    assert "fingerprint" in world.run("explain", "a", "--verbose").stdout


# --------------------------------------------------------------------------- resolve and undo


def sold(world: World, **entry: Any) -> tuple[Any, Any]:
    """A trade in MSFT that was bought and sold by hand; its two orders."""
    world.pin()
    bought = world.broker.open_trade("MSFT", 10, 400, at=YESTERDAY, **entry)
    return bought, world.broker.sell("MSFT", 10, 410, at=YESTERDAY)


def test_resolve_refuses_another_account(world: World) -> None:
    world.pin()
    world.ledger(long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER))
    world.broker.market.new_account()
    with world.untouched():
        run = world.run("resolve", "x", "--vanished", "--json")
    assert (run.code, run.document["error"]) == (5, "account_mismatch")


def test_resolve_knows_an_order_by_its_client_id(world: World) -> None:
    bought, _ = sold(world, client_order_id="my-entry-1")
    world.ledger(long("m", "MSFT", entry=400, stop=390))
    run = world.run("resolve", "m", "--entry-order", "my-entry-1", "--json")
    assert run.code == 0, run.stderr
    assert world.trade("m")["alpacaOrderId"] == bought["id"]
    run = world.run("resolve", "m", "--entry-order", "nobodys-order", "--json")
    assert (run.code, run.document["error"]) == (1, "reconcile_failed")


def test_resolve_takes_no_order_whose_fills_another_trade_owns(world: World) -> None:
    bought, sale = sold(world)
    world.ledger(long("m", "MSFT", entry=400, alpacaOrderId=bought["id"]), long("m2", "MSFT", entry=400))
    assert world.run("resolve", "m", "--exit-order", sale["id"]).code == 0
    with world.untouched():
        run = world.run("resolve", "m2", "--exit-order", sale["id"], "--json")
    assert (run.code, run.document["results"][0]["action"]) == (1, "refused")


@pytest.mark.parametrize("what", ["working", "other symbol", "other side", "closed"])
def test_resolve_refuses_an_order_that_cannot_have_done_it(world: World, what: str) -> None:
    bought, sale = sold(world)
    other = world.broker.open_trade("NVDA", 10, 100, at=YESTERDAY)
    resting = world.broker.add_order("MSFT", side="sell", qty="10", type="limit", limit_price="900", status="new")
    status = "CLOSED" if what == "closed" else "OPEN"
    world.ledger(long("m", "MSFT", entry=400, alpacaOrderId=bought["id"], status=status))
    named = {"working": resting, "other symbol": other, "other side": bought, "closed": sale}[what]
    with world.untouched():
        run = world.run("resolve", "m", "--exit-order", named["id"], "--json")
    assert (run.code, run.document["error"]) == (1, "reconcile_failed")
    assert "nothing was changed" in run.document["detail"]


def test_an_undone_resolve_is_held_until_the_facts_change(world: World) -> None:
    bought, _ = sold(world)
    before = long("m", "MSFT", entry=400, stop=390)
    world.ledger(before)
    run = world.run("resolve", "m", "--entry-order", bought["id"], "--json")
    assert world.trade("m")["status"] == "CLOSED"
    assert world.run("undo", run.document["runId"]).code == 0
    assert world.trade("m") == before
    with world.untouched():
        for _ in range(2):
            assert "undone by an operator" in world.reconcile().row("m")["reason"]
    world.broker.open_trade("MSFT", 10, 400, at=YESTERDAY)
    assert "undone by an operator" not in world.reconcile().row("m")["reason"]


def test_an_undo_says_its_own_run_id(world: World) -> None:
    world.pin()
    world.broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    world.ledger(long("a", "AAPL"))
    first = world.reconcile().document["runId"]
    said = world.run("undo", first).stdout.splitlines()[-1]
    assert said.startswith("undo: 1 changed (run undo-")
    again = said.rpartition("(run ")[2].rstrip(")")
    assert world.run("undo", again).code == 0
    assert world.trade("a")["alpacaStatus"] == "position_open"


# --------------------------------------------------------------------------- migrate


def test_a_hash_record_without_id_keeps_its_field_as_id(make_world: MakeWorld) -> None:
    world = make_world("hash")
    odd = '{"ticker":"AAPL","status":"OPEN","quantity":1.0,"entryPrice":1e2,"note":"\\u00e9 é"}'
    world.redis.hset("src", "é-1", odd)
    url = world.redis_url
    assert world.run("migrate", f"{url}#src", f"{url}#string").code == 0
    [record] = json.loads(world.redis.get("string"))
    assert (record["id"], record["quantity"]) == ("é-1", 1.0)
    assert odd[1:-1] in world.redis.get("string").decode()
    assert world.run("migrate", f"{url}#string", f"{url}#hash", "--layout", "hash").code == 0
    assert list(world.redis.hgetall("hash")) == ["é-1".encode()]
    assert world.redis.hget("src", "é-1").decode() == odd


@pytest.mark.parametrize("value", ["{", "[]", '{"id":"another"}'])
def test_a_damaged_hash_is_not_copied(make_world: MakeWorld, value: str) -> None:
    world = make_world("hash")
    world.redis.hset("src", mapping={"a": '{"id":"a","status":"OPEN"}', "b": value})
    run = world.run("migrate", f"{world.redis_url}#src", f"{world.redis_url}#to", "--json")
    assert (run.code, run.document["error"]) == (4, "ledger_failed")
    assert not world.redis.exists("to")


def test_a_large_hash_is_written_in_parts_and_appears_as_a_whole(make_world: MakeWorld) -> None:
    world = make_world("hash")
    rows = {f"t-{i}": json.dumps({"id": f"t-{i}", "status": "CLOSED"}) for i in range(3001)}
    world.redis.hset("src", mapping=rows)
    world.redis.set("to", " [ ] ")
    world.redis.config_resetstat()
    run = world.run("migrate", f"{world.redis_url}#src", f"{world.redis_url}#to", "--layout", "hash", "--json")
    assert (run.code, run.document["trades"]) == (0, 3001), run.stderr
    assert world.redis.hlen("to") == 3001
    assert world.redis.info("commandstats")["cmdstat_hset"]["calls"] == 7
    assert world.redis.ttl("to") == -1
    assert set(world.redis.keys("*to*")) == {b"to"}


# --------------------------------------------------------------------------- doctor


def test_doctor_sees_a_contradiction(world: World) -> None:
    world.broker.account["long_market_value"] = "9000"
    run = world.run("doctor", "--json")
    assert run.code == 1
    [bad] = [check for check in run.document["checks"] if check["ok"] is False]
    assert bad["name"] == "broker"
    assert "contradicts" in bad["found"]
    assert bad["cure"]


# --------------------------------------------------------------------------- the Python function


_INSIDE = f"""
import asyncio, contextlib, io, json, sys
import ghostclean
env = json.load(sys.stdin)
out, err = io.StringIO(), io.StringIO()
async def both():
    one = asyncio.to_thread(ghostclean.reconcile, settings=env)
    other = asyncio.to_thread(ghostclean.reconcile, settings={{**env, "GHOSTCLEAN_LEDGER": "file:other.json",
                                                               "GHOSTCLEAN_STATE": "sqlite:other.db"}})
    return await asyncio.gather(one, other)
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    done = asyncio.run(both())
    dead = ghostclean.reconcile(settings={{**env, "REDIS_URL": "redis://:{SENTINEL}@127.0.0.1:1/0"}}, deadline=5)
    wrong = []
    for options in ({{"max": 0}}, {{"max": "x"}}, {{"deadline": None}}, {{"run_id": "a\\nb"}}, {{"source": None}},
                    {{"settings": "x"}}, {{"settings": {{**env, "GHOSTCLEAN_GRACE": -5}}}},
                    {{"settings": {{**env, "GHOSTCLEAN_GRACE": float("nan")}}}}):
        try:
            ghostclean.reconcile(**{{"settings": env, **options}})
            wrong.append(options)
        except ghostclean.BadSettings:
            pass
live = ghostclean.Settings.of({{**env, "ALPACA_LIVE_TRADE": 1}}).live
print(json.dumps({{"done": [[r.exit_code, r.closed] for r in done], "dead": dead.exit_code, "live": live,
                   "doc": dead.to_dict()["error"], "wrong": str(wrong), "said": out.getvalue() + err.getvalue()}}))
"""


def test_the_function_is_safe_in_threads_and_raises_only_for_settings(world: World) -> None:
    entry = world.broker.open_trade("AAPL", 10, 180, at=YESTERDAY)
    ledger = [
        long("a", "AAPL", alpacaOrderId=entry["id"]),
        long("x", "IBM", alpacaOrderId=UNKNOWN_ORDER, openedAt=DAY_AGO),
    ]
    world.ledger(*ledger)
    (world.folder / "other.json").write_text(json.dumps(ledger))
    environment = world.environment()
    done = subprocess.run(
        [sys.executable, "-c", _INSIDE],
        input=json.dumps(environment), env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=world.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        "done": [[0, 1], [0, 1]], "dead": 4, "doc": "state_failed", "live": False, "wrong": "[]", "said": "",
    }  # fmt: skip


# --------------------------------------------------------------------------- GitHub Actions


def test_the_step_summary_tells_a_good_run_from_a_failed_one(world: World) -> None:
    summary = world.folder / "summary.md"
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    assert world.run("snapshot", **actions).code == 0
    assert world.run("gate", "--max-open", "0", **actions).code == 10
    assert world.run("nothing", **actions).code == 2
    titles = [line for line in summary.read_text().splitlines() if line.startswith("###")]
    assert titles == [
        "### ghostclean snapshot: ok",
        "### ghostclean gate: closed",
        "### ghostclean: **bad\\_settings**",
    ]
    assert "0 of at most 0 symbols taken" in summary.read_text()


# --------------------------------------------------------------------------- short, and cut short


def test_half_of_a_short_deadline_is_left_to_work_with(world: World) -> None:
    """Start-up alone may take 300 ms; a run that may not even ask would say the wrong thing."""
    world.broker.fault("account", "hang")
    run = world.reconcile("--deadline", "0.6", **FRESH)
    assert (run.code, run.document["error"]) == (3, "broker_truth_failed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_still_ends_with_its_document(world: World, number: int, code: int) -> None:
    world.broker.fault("account", "hang")
    process = world.start("reconcile", "--json")
    end = time.monotonic() + 10
    while not world.broker.requests and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    run = world.finished(process.returncode, stdout, stderr, 0.0, ("reconcile", "--json"))
    assert (run.code, run.document["error"], run.document["checked"]) == (code, "interrupted", 0)
    assert "interrupted" in run.document["detail"]
    assert "Traceback" not in stderr


def test_doctor_notices_a_misspelt_setting(world: World) -> None:
    run = world.run("doctor", "--json", GHOSTCLEAN_GRACES="0", GHOSTCLEAN_RAISE=None)
    assert run.code == 0
    [note] = [check for check in run.document["checks"] if "no setting" in check["found"]]
    assert (note["ok"], note["cure"]) == (None, "did you mean GHOSTCLEAN_GRACE?")


# --------------------------------------------------------------------------- at a terminal


def test_long_work_at_a_terminal_says_how_far_it_is_and_leaves_no_trace_elsewhere(world: World) -> None:
    world.pin()
    world.ledger(*(long(f"t{n}", f"SYM{n}", alpacaOrderId=UNKNOWN_ORDER[:-1] + str(n)) for n in range(2)))
    world.broker.fault("order", "delay", times=2, seconds=0.7)

    said, code = typed_at(world, "", "reconcile", "--dry-run")
    piped = world.run("reconcile", "--dry-run")

    assert code == 0
    assert re.search(r"\rlooking up [12] of 2 · [\d]+ s of 60 s\x1b\[K", said), said
    assert "looking up" not in piped.stdout + piped.stderr
