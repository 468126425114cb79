"""Which failure of the broker it is, since when and how often, and whether waiting helps: in every place the same."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli.test_manage_contract import ON, manage
from tests.cli.world import World


@contextmanager
def webhook() -> Iterator[tuple[str, list[str]]]:
    """A server for alerts, and the texts that came."""
    texts: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            texts.extend(event["text"] for event in json.loads(body)["events"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", texts
        server.shutdown()


def test_refused_keys_are_called_so_everywhere_until_they_are_right(world: World) -> None:
    world.pin()
    world.ledger()
    world.broker.fault("*", 401, times=1000)
    with webhook() as (url, texts):
        first, second = (world.reconcile(GHOSTCLEAN_ALERT_URL=url) for _ in range(2))
        since = first.document["startedAt"]
        status, screen = world.status(), world.run("status").stdout
        doctor = {check["name"]: check for check in world.run("doctor", "--json").document["checks"]}
        world.broker.clear_faults()
        last = world.reconcile(GHOSTCLEAN_ALERT_URL=url)

    often = f"2 failed runs in a row since {since}"
    assert (first.code, first.document["cause"]) == (3, "keys_refused")
    assert first.document["detail"].startswith("broker truth is not observed: the broker refuses the keys (GET ")
    assert "HTTP 401" in first.document["detail"]
    assert "correct the pair of keys" in first.document["detail"]
    assert "tries again" not in first.document["detail"], "waiting does not help"
    assert second.document["detail"].endswith(f"; until then every run fails ({often})")
    assert second.document["failing"] == {"since": since, "runs": 2}
    assert second.document["detail"] in second.stderr
    assert status["why"] == f"the last run failed: broker_truth_failed: the broker refuses the keys ({often})"
    assert status["advice"].startswith("correct the pair of keys")
    assert " ".join(screen.split()).startswith(f"broken: {status['why']} - {status['advice']}")
    assert doctor["broker"]["ok"] is False
    assert doctor["broker"]["found"].startswith("the broker refuses the keys")
    assert doctor["broker"]["cure"].startswith("correct the pair of keys")
    assert often in doctor["runs"]["found"]
    assert (last.code, last.document["cause"], last.document["failing"]) == (0, None, None)
    assert texts == [
        f"broker_truth_failed: {first.document['detail']}",
        f"runs succeed again (the last one failed with broker_truth_failed, {often})",
    ]
    assert world.status()["health"] == "healthy"


def test_a_broker_that_is_down_is_waited_for(world: World) -> None:
    world.pin()
    world.ledger()
    world.broker.fault("account", 503, times=1000)
    first, second = world.reconcile("--deadline", "2s"), manage(world)

    assert (first.code, first.document["cause"]) == (3, "broker_down")
    assert "the broker is down (GET " in first.document["detail"]
    assert "the next run tries again; if it stays, see its status page" in first.document["detail"]
    inside = second.document["reconcile"]
    assert (second.document["cause"], inside["failing"]["runs"]) == ("broker_down", 2)
    assert second.document["failing"]["runs"] == 1, "auto-manage counts its own runs"
    [row] = world.run("status", "--all", "--json").document["ledgers"]
    assert row["why"].startswith("the last run failed: broker_truth_failed: the broker is down (2 failed runs in a row")
    assert manage(world, "--deadline", "2s").document["failing"]["runs"] == 2
    world.broker.clear_faults()
    assert (manage(world).document["failing"], world.recall("failing")) == (None, {})


def test_no_connection_is_no_fault_of_the_keys(world: World) -> None:
    world.ledger()
    run = world.reconcile("--deadline", "2s", GHOSTCLEAN_TRADING_URL="http://127.0.0.1:1")
    gate = world.run("gate", "--json", GHOSTCLEAN_TRADING_URL="http://127.0.0.1:1")

    assert run.document["cause"] == "unreachable"
    assert "the broker cannot be reached from here (GET " in run.document["detail"]
    assert "check this machine's network, DNS and proxy" in run.document["detail"]
    assert (gate.code, "the broker cannot be reached from here" in gate.document["detail"]) == (3, True)


def test_an_answer_that_cannot_be_right_is_the_brokers(world: World) -> None:
    world.ledger()
    world.broker.fault("account", "wrong_type", times=1000)
    run = world.reconcile()

    assert run.document["cause"] == "wrong_answer"
    assert "the broker's answer cannot be right (" in run.document["detail"]


def test_dry_and_locked_runs_count_in_no_row(world: World) -> None:
    world.pin()
    world.ledger()
    world.broker.fault("*", 401, times=1000)
    dry = world.reconcile("--dry-run")
    with world.state() as state:
        lease = state.acquire("somebody", 30)
        locked = world.reconcile()
        state.release(lease)
    counted = world.reconcile()

    assert (dry.document["failing"], locked.document["error"], locked.document["failing"]) == (None, "locked", None)
    assert counted.document["failing"]["runs"] == 1


def test_a_quiet_schedule_says_the_row_that_the_state_counts(world: World) -> None:
    world.pin()
    world.ledger()
    world.broker.fault("*", 401, times=1000)
    world.reconcile()
    said = world.run("reconcile", "--quiet").stderr

    assert said.count("in a row") == 1
    assert "2 failed runs in a row since" in said
    assert world.run("auto-manage", "--quiet", **ON).stderr.count("the broker refuses the keys") == 1
