"""Alerts where people are: a list of web hooks and services of Apprise, through the program and over HTTP."""

from __future__ import annotations

import pytest

from tests.cli.fleets import Fleet, ghost
from tests.cli.world import World
from tests.eye import TOKEN, Eye
from tests.timing import SLACK

PIP = "pip install 'ghostclean[alerts]'"
WITHOUT_APPRISE = "import sys; sys.modules['apprise'] = None"


def service(url: str, ending: str = "") -> str:
    """The URL of Apprise for a POST to this one."""
    return f"{url.replace('http://', 'json://')}{ending}"


def outside(run: object) -> list[str]:
    return [note for note in run.document["notes"] if note.startswith("outside: ")]  # type: ignore[attr-defined]


def test_hooks_and_services_hear_of_changes_and_each_is_told_again_what_it_missed(world: World, eye: Eye) -> None:
    urls = f"{eye.url}/hook  {service(eye.url, '/one')} {service(eye.url, '/two')}"
    eye.refused = ("/two",)
    world.broker.fault("account", 401, times=1000)
    first = world.reconcile(GHOSTCLEAN_ALERT_URL=urls)
    assert (first.code, outside(first)) == (3, ["outside: alert 3: HTTP 500"])
    heard = dict(zip(eye.paths(), eye.documents(), strict=True))
    assert sorted(heard) == [f"/{TOKEN}/{name}" for name in ("hook", "one", "two")]
    hook, one = heard[f"/{TOKEN}/hook"], heard[f"/{TOKEN}/one"]
    assert (hook["title"], one["title"], one["type"]) == ("ghostclean", "ghostclean", "warning")
    assert hook["content"] == hook["text"] == one["message"]
    assert one["message"].startswith("ghostclean: broker_truth_failed: ")

    eye.seen.clear()
    eye.refused = ()
    again = world.reconcile(GHOSTCLEAN_ALERT_URL=urls)
    assert (again.code, outside(again), eye.paths()) == (3, [], [f"/{TOKEN}/two"])
    eye.seen.clear()
    assert world.reconcile(GHOSTCLEAN_ALERT_URL=urls).code == 3
    assert eye.seen == []


def test_the_doctor_tries_every_channel_and_says_which_did_not_arrive(world: World, eye: Eye, silent: str) -> None:
    eye.refused = ("/gone",)
    urls = [f"{eye.url}/hook", service(eye.url, "/one"), service(eye.url, "/gone"), silent, "json://127.0.0.1:1/x"]
    run = world.run("doctor", "--test-alert", "--verbose", GHOSTCLEAN_ALERT_URL=" ".join(urls))
    assert run.code == 1
    lines = [line.removeprefix(f"{line[:5]}alerts").strip() for line in run.stdout.splitlines() if "alerts  " in line]
    assert [line.partition(" - ")[0] for line in lines] == [
        "all that a run does there is possible",
        "alert 1: the test has arrived",
        "alert 2: the test has arrived",
        "the test has not arrived: alert 3: HTTP 500",
        "the test has not arrived: alert 4: no answer within 2.0 s",
        "the test has not arrived: alert 5: no connection",
    ]
    assert eye.documents()[0]["events"] == [{"event": "test", "text": "a test: alerts of this ledger arrive here"}]
    assert "3 of " in run.stderr

    without = world.run("doctor", "--test-alert", "--json")
    assert [check["ok"] for check in without.document["checks"] if check["name"] == "alerts"] == [False]


def test_a_service_that_hangs_outlasts_no_deadline(world: World, silent: str) -> None:
    world.broker.fault("account", 401, times=1000)
    run = world.reconcile("--deadline", "5s", GHOSTCLEAN_ALERT_URL=f"{service(silent)} {service(silent, '/b')}")
    assert run.code == 3
    assert len(outside(run)) == 2
    assert run.seconds < 5 + SLACK
    assert world.runs()[0]["outsideFailed"] == 2  # the run's own record had its time


def test_without_the_extra_every_run_says_so_and_ends_as_ever(world: World, eye: Eye) -> None:
    urls = f"{eye.url} {service(eye.url, '/service')}"
    run = world.reconcile(script=WITHOUT_APPRISE, GHOSTCLEAN_ALERT_URL=urls)
    assert (run.code, run.document["ok"]) == (0, True)
    assert outside(run) == [f"outside: alert 2: nothing can be sent, Apprise is not installed: {PIP}"]
    doctor = world.run("doctor", script=WITHOUT_APPRISE, GHOSTCLEAN_ALERT_URL=urls)
    assert (doctor.code, f"alert 2: Apprise is not installed - {PIP}" in doctor.stdout) == (1, True)
    world.broker.fault("account", 401, times=1000)
    world.reconcile(script=WITHOUT_APPRISE, GHOSTCLEAN_ALERT_URL=urls)
    world.broker.clear_faults()
    assert eye.paths() == [f"/{TOKEN}"]
    world.reconcile(GHOSTCLEAN_ALERT_URL=urls)  # once it is there, it hears what it missed
    assert [message["message"].count("\n") for message in eye.documents()[1:] if "message" in message] == [2]


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        (f"http://127.0.0.1:1/{TOKEN} discord://{TOKEN}", "URL 2 of 2: Apprise cannot read it"),
        (f"nosuch{TOKEN}://h/x", "Apprise cannot read it"),
        (f"http://127.0.0.1:1/{TOKEN} json://h/x {TOKEN}", "URL 3 of 3: it must be https://HOST/…"),
        (f"https:///{TOKEN}", "it must be https://HOST/…"),
    ],
)
def test_a_url_that_cannot_be_read_is_known_by_its_place(world: World, urls: str, why: str) -> None:
    run = world.reconcile("--verbose", GHOSTCLEAN_ALERT_URL=urls)
    assert (run.code, run.document["error"]) == (2, "bad_settings")
    assert run.document["detail"].startswith(f"GHOSTCLEAN_ALERT_URL is wrong: {why}")
    doctor = world.run("doctor", "--test-alert", "--json", GHOSTCLEAN_ALERT_URL=urls)
    failed = [check["found"] for check in doctor.document["checks"] if check["ok"] is False]
    assert (doctor.code, failed) == (1, [run.document["detail"]])


def test_a_fleet_alerts_for_each_of_its_accounts(fleet: Fleet, eye: Eye) -> None:
    for name in ("alpha", "beta"):
        ghost(fleet.add(name, GHOSTCLEAN_ALERT_URL=f"{service(eye.url)} {eye.url}"))
    run = fleet.run("reconcile", "--json")
    assert run.code == 0, run.document
    assert len(eye.seen) == 4
    assert fleet.run("doctor", "--test-alert").code == 2
