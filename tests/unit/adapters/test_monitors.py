"""The monitors against a small web server: what arrives, what is counted, what can never happen."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ghostclean.adapters.alerts import LocalMemo, Webhook
from ghostclean.adapters.delivery import NotDelivered
from ghostclean.adapters.metrics import MetricsFile, exposition
from ghostclean.adapters.monitors import Heartbeat
from ghostclean.api import auto_manage, reconcile
from ghostclean.app.monitors import Monitors
from ghostclean.app.ports import EndedRun
from ghostclean.core.alerts import Alert, Origin
from ghostclean.core.attention import Attention, Item, Kind
from ghostclean.core.verdicts import Verdict
from ghostclean.result import ManageOutcome, ManageResult, Result
from ghostclean.settings import Settings
from ghostclean.wiring import opened
from tests.eye import TOKEN, Eye
from tests.fakebroker import FakeBroker
from tests.fakes import FakeState
from tests.program import ROOT
from tests.timing import SLACK

NOW = datetime(2026, 11, 22, 7, 38, tzinfo=UTC)
HOME = Origin("file:/app/trades.json", "PA3XYZ123456", False, "bot-1")
WHOSE = "ledger file:/app/trades.json, paper account PA3XYZ123456, host bot-1"


def run(**changed: Any) -> dict[str, Any]:
    rows = changed.pop("rows", ())
    result = Result("r-1", "cron", "2026-11-22T07:38:00.000Z", 1234, checked=3, **changed)
    return {**result.to_dict(), "results": list(rows)}


def row(verdict: str, action: str = "held") -> dict[str, Any]:
    return {"id": verdict, "ticker": "AAPL", "verdict": verdict, "action": action, "reason": "why"}


def minute() -> float:
    return 60.0


class Memory(FakeState):
    """A state that remembers what a run left for the next one of its kind."""

    def __init__(self, kept: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.keep(kept)

    def keep(self, kept: dict[str, Any] | None) -> None:
        if kept is not None:
            # The state holds JSON.
            self.remember("alerts", {"last": json.loads(json.dumps(kept))})


def end(
    monitors: Monitors,
    document: dict[str, Any],
    state: FakeState | None = None,
    *,
    kind: str = "reconcile",
    now: datetime = NOW,
    left: Callable[[], float] = minute,
) -> dict[str, Any] | None:
    return monitors.ended(kind, document, HOME, state=state, now=now, left=left)


def ended(
    document: dict[str, Any], last_success: float | None = None, now: float = 1.0, origin: Origin = HOME
) -> EndedRun:
    success = None if last_success is None else datetime.fromtimestamp(last_success, UTC)
    return EndedRun("reconcile", origin, document, (), success, datetime.fromtimestamp(now, UTC))


def send(what: Callable[[float], None] | None) -> None:
    assert what is not None
    what(2.0)


def webhook(eye: Eye, folder: Path) -> Monitors:
    return Monitors([Webhook(eye.url)], LocalMemo(eye.url, HOME.ledger, folder))


# --------------------------------------------------------------------------- heartbeat


def test_a_good_run_is_started_and_ended_with_its_report(eye: Eye) -> None:
    monitors = Monitors([Heartbeat(eye.url)])

    monitors.started("r-1", HOME, 60)
    end(monitors, run(closed=1, rows=[row("exited", "closed")]))

    (start, start_query, _, start_body), (last, end_query, kind, end_body) = eye.seen
    assert (start, last) == (f"/{TOKEN}/start", f"/{TOKEN}")
    assert start_query == end_query
    uuid.UUID(start_query["rid"][0])
    assert start_body == f"run r-1\n{WHOSE}"
    assert kind == "text/plain; charset=utf-8"
    assert end_body.startswith(f"run r-1 (source cron): ok\n{WHOSE}\n3 checked, 1 closed")
    assert "closed AAPL exited exited: why" in end_body
    assert monitors.failures == []


def test_a_failed_run_ends_with_fail_and_says_why(eye: Eye) -> None:
    end(Monitors([Heartbeat(eye.url)]), run(error="broker_truth_failed", detail="HTTP 500: nothing was closed"))

    assert eye.paths() == [f"/{TOKEN}/fail"]
    assert "HTTP 500: nothing was closed" in eye.seen[0][3]


def test_the_run_id_pairs_start_and_end_and_differs_between_runs(eye: Eye) -> None:
    for run_id in ("a", "a", "b"):
        send(Heartbeat(eye.url).started(run_id, HOME))

    first, second, other = (query["rid"] for _, query, _, _ in eye.seen)
    assert first == second != other


def test_a_url_with_a_query_keeps_it(eye: Eye) -> None:
    send(Heartbeat(f"{eye.url}/?create=1").started("r", HOME))

    path, query, *_ = eye.seen[0]
    assert path == f"/{TOKEN}/start"
    assert query["create"] == ["1"]


def test_a_long_report_is_cut(eye: Eye) -> None:
    send(Heartbeat(eye.url).ended(ended(run(error="ledger_failed", detail="ä" * 50_000))))

    assert 9_990 < len(eye.seen[0][3].encode()) <= 10_000


# --------------------------------------------------------------------------- alerts


def test_alerts_go_out_as_one_document(eye: Eye) -> None:
    alerts = [Alert("failed", "it failed"), Alert("cleared", "ö")]
    send(Webhook(eye.url).ended(EndedRun("reconcile", HOME, run(), alerts, None, NOW)))

    assert eye.documents() == [
        {
            "source": "cron",
            "runId": "r-1",
            "events": [{"event": "failed", "text": "it failed"}, {"event": "cleared", "text": "ö"}],
            "title": "ghostclean",
            "text": f"ghostclean: it failed\nghostclean: ö\n{WHOSE}",
            "body": f"ghostclean: it failed\nghostclean: ö\n{WHOSE}",
            "content": f"ghostclean: it failed\nghostclean: ö\n{WHOSE}",
            "ledger": "file:/app/trades.json",
            "account": "PA3XYZ123456",
            "live": False,
            "host": "bot-1",
        }
    ]
    assert eye.seen[0][2] == "application/json"


def test_a_long_alert_keeps_the_limits_of_discord_and_slack_and_says_whose_it_is(eye: Eye) -> None:
    send(Webhook(eye.url).ended(EndedRun("reconcile", HOME, run(), [Alert("failed", "ä" * 50_000)], None, NOW)))

    [document] = eye.documents()
    assert (len(document["content"]), len(document["text"])) == (2_000, 40_000)
    assert all(document[name].endswith(f"ä…\n{WHOSE}") for name in ("content", "text"))


def series(eye: Eye, tmp_path: Path, *runs: tuple[dict[str, Any], bool]) -> list[str]:
    """The events that arrive over these runs; the second of each pair: whether the state works."""
    state = Memory()
    for document, state_works in runs:
        monitors = webhook(eye, tmp_path / "memo")
        kept = end(monitors, document, state if state_works else None)
        assert (kept is None) is not state_works
        state.keep(kept)
        assert monitors.failures == []
    return [event["event"] for document in eye.documents() for event in document["events"]]


def test_only_changes_are_told(eye: Eye, tmp_path: Path) -> None:
    bad, good = run(error="broker_truth_failed", detail="no"), run()

    assert series(eye, tmp_path, (good, True), (bad, True), (bad, True), (good, True), (good, True)) == [
        "failed",
        "recovered",
    ]


def test_a_lost_state_is_told_once_and_its_return_too(eye: Eye, tmp_path: Path) -> None:
    lost, good = run(error="state_failed", detail="Redis is down"), run()

    assert series(
        eye,
        tmp_path,
        (good, True),
        (lost, False),
        (lost, False),
        (lost, False),
        (good, True),
        (good, True),
        (lost, False),
    ) == ["failed", "recovered", "failed"]


def test_what_did_not_arrive_is_told_by_the_next_run(eye: Eye, tmp_path: Path) -> None:
    closing = run(closed=1, rows=[row("exited", "closed")])
    monitors = webhook(eye, tmp_path)
    eye.status = 500

    kept = end(monitors, closing, Memory())
    eye.status = 200
    again = end(monitors, run(), Memory(kept))
    last = end(monitors, run(), Memory(again))

    assert monitors.failures == ["alert: HTTP 500"]
    assert [[event["event"] for event in document["events"]] for document in eye.documents()] == [
        ["ghosts_closed"],
        ["ghosts_closed"],
    ]
    assert last is not None
    assert "undelivered" not in last


# --------------------------------------------------------------------------- metrics

LABEL = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"^([a-zA-Z_:][a-zA-Z0-9_:]*)\{{({LABEL}(?:,{LABEL})*)\}} (-?\d+(?:\.\d+)?)$")


def parse(text: str) -> dict[tuple[str, str], float]:
    """The text exposition format, strictly: every sample under a TYPE of its own, nothing twice."""
    assert text.endswith("\n")
    helped, typed, found = set(), "", {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in helped
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split()
            assert kind == "gauge"
            assert typed in helped
        else:
            match = SAMPLE.match(line)
            assert match, line
            assert match[1] == typed
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2]))
            assert labels["ledger"]
            assert labels["account"]
            about = next((labels[name] for name in ("verdict", "kind", "outcome") if name in labels), "")
            key = (match[1].removeprefix("ghostclean_"), about)
            assert key not in found
            found[key] = float(match[3])
    return found


def test_the_metrics_file_is_valid_and_says_what_happened(tmp_path: Path) -> None:
    rows = [row("exited", "closed"), row("mismatch"), {**row("mismatch"), "id": "other"}]
    document = run(closed=1, held=2, rows=rows)

    send(MetricsFile(tmp_path / "ghostclean.prom").ended(ended(document, NOW.timestamp() - 600, NOW.timestamp())))

    found = parse((tmp_path / "ghostclean.prom").read_text())
    assert found["last_success_age_seconds", ""] == 600
    assert found["last_success_timestamp_seconds", ""] == NOW.timestamp() - 600
    assert found["last_run_timestamp_seconds", ""] == NOW.timestamp()
    assert found["last_run_duration_seconds", ""] == 1.234
    assert (found["last_run_ok", ""], found["last_run_closed", ""], found["last_run_held", ""]) == (1, 1, 2)
    verdicts = {label: value for (name, label), value in found.items() if name == "last_run_verdicts"}
    assert verdicts == {str(v): {"exited": 1.0, "mismatch": 2.0}.get(v, 0.0) for v in Verdict}


NAKED = Attention((Item(Kind.NAKED, "no stop", "ghostclean explain a", "AAPL", "a", "2026-11-22T07:00:00.000Z"),))


def managed(outcome: ManageOutcome = ManageOutcome.SUCCESS, **changed: Any) -> EndedRun:
    about = {
        "started_at": "",
        "duration_ms": 5,
        "now": "",
        "enabled": True,
        "forced": False,
        "dry_run": False,
        "cfg": {},
    }
    result = ManageResult(outcome, changed.pop("reason", None), "m-1", "cron", **about, **changed)
    return replace(ended(result.to_dict(), now=NOW.timestamp()), kind="auto-manage")


def test_both_kinds_of_run_keep_their_series_in_one_file(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "m.prom")

    send(metrics.ended(managed(ManageOutcome.FAIL, reason="naked", attention=NAKED)))
    send(metrics.ended(ended(run(attention=NAKED), NOW.timestamp(), NOW.timestamp())))

    found = parse((tmp_path / "m.prom").read_text())
    assert (found["auto_manage_naked", ""], found["auto_manage_last_run_outcome", "FAIL"]) == (1, 1)
    assert (found["last_run_ok", ""], found["attention", "naked"], found["attention", "orphan"]) == (1, 1, 0)
    send(metrics.ended(managed()))
    found = parse((tmp_path / "m.prom").read_text())
    assert (found["auto_manage_naked", ""], found["attention", "naked"], found["last_run_ok", ""]) == (0, 0, 1)


@pytest.mark.parametrize("kind", ["reconcile", "auto-manage"])
def test_a_lost_state_leaves_what_needs_a_person_in_the_file(tmp_path: Path, kind: str) -> None:
    metrics = MetricsFile(tmp_path / "m.prom")
    send(metrics.ended(ended(run(attention=NAKED), now=NOW.timestamp())))

    lost = ended(run(error="state_failed", detail="gone"), now=NOW.timestamp())
    send(metrics.ended(lost if kind == "reconcile" else managed(ManageOutcome.FAIL, reason="state_failed")))

    text = (tmp_path / "m.prom").read_text()
    assert parse(text)["attention", "naked"] == 1
    assert text.count("# TYPE ghostclean_attention gauge") == 1


def test_the_heartbeat_fails_while_a_position_is_naked_and_logs_an_interruption(eye: Eye) -> None:
    heartbeat = Heartbeat(eye.url)

    send(heartbeat.ended(managed(ManageOutcome.FAIL, reason="naked", attention=NAKED)))
    send(heartbeat.ended(ended(run(attention=NAKED))))
    send(heartbeat.ended(ended(run())))
    send(heartbeat.ended(ended(run(error="interrupted", detail="interrupted"))))
    send(heartbeat.ended(managed(ManageOutcome.FAIL, reason="interrupted", attention=NAKED)))

    assert heartbeat.ended(managed()) is None
    assert eye.paths() == [f"/{TOKEN}/{path}".rstrip("/") for path in ("fail", "fail", "", "log", "log")]


def test_a_large_number_keeps_its_digits() -> None:
    found = parse(exposition(ended(run(synced=1_234_567), now=1_795_000_000.125), None))

    assert found["last_run_synced", ""] == 1_234_567
    assert found["last_run_timestamp_seconds", ""] == 1_795_000_000.125


def test_the_last_success_outlives_a_lost_state(tmp_path: Path) -> None:
    monitors = Monitors([MetricsFile(tmp_path / "m.prom")])

    end(monitors, run(), Memory())
    end(monitors, run(error="state_failed", detail="gone"), now=datetime(2026, 11, 22, 8, 38, tzinfo=UTC))

    found = parse((tmp_path / "m.prom").read_text())
    assert found["last_success_age_seconds", ""] == 3600
    assert found["last_run_ok", ""] == 0


def test_the_success_of_another_ledger_in_the_file_is_not_ours(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "m.prom")
    send(metrics.ended(ended(run(), NOW.timestamp(), origin=replace(HOME, ledger="file:/other.json"))))

    send(metrics.ended(ended(run(error="state_failed", detail="gone"), None, NOW.timestamp())))

    assert ("last_success_age_seconds", "") not in parse((tmp_path / "m.prom").read_text())


def test_files_of_several_ledgers_are_legal_together() -> None:
    """A collector reads the whole folder: no series twice, and one HELP and TYPE for each name."""
    homes = (HOME, replace(HOME, ledger='file:/b "c"\\d\n.json'), replace(HOME, ledger="file:/e.json", account=""))
    texts = [exposition(ended(run(), origin=home), 1.0) for home in homes]
    for text in texts:
        parse(text)
    lines = [line for text in texts for line in text.splitlines()]
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))
    described = {line for line in lines if line.startswith("#")}
    assert len(described) == len({tuple(line.split()[1:3]) for line in described})


def test_a_failure_told_for_one_ledger_is_news_for_the_other(eye: Eye, tmp_path: Path) -> None:
    """Two ledgers of one machine that tell one URL: neither takes the other's word for its own."""
    lost = run(error="state_failed", detail="Redis is down")
    for ledger in (HOME.ledger, "file:/other.json"):
        end(Monitors([Webhook(eye.url)], LocalMemo(eye.url, ledger, tmp_path)), lost)
    end(Monitors([Webhook(eye.url)], LocalMemo(eye.url, "file:/other.json", tmp_path)), run(), Memory())
    end(webhook(eye, tmp_path), lost)

    assert [event["event"] for document in eye.documents() for event in document["events"]] == [
        "failed",
        "failed",
        "recovered",
    ]


def test_a_reader_never_sees_half_a_file_and_nothing_is_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "m.prom"
    metrics = MetricsFile(file)
    send(metrics.ended(ended(run())))
    stop = threading.Event()
    broken = []

    def read() -> None:
        while not stop.is_set():
            if not file.read_text().endswith('verdict="working"} 0\n'):
                broken.append(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        send(metrics.ended(ended(run(), now=float(number))))
    stop.set()
    reader.join()

    assert not broken
    assert [path.name for path in tmp_path.iterdir()] == ["m.prom"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_not_there_is_a_short_error(tmp_path: Path) -> None:
    with pytest.raises(NotDelivered, match=r"^metrics file: No such file or directory$"):
        send(MetricsFile(tmp_path / "no" / "m.prom").ended(ended(run())))


# --------------------------------------------------------------------------- what can never happen


@pytest.mark.parametrize("status", [301, 404, 500])
def test_a_refusing_monitor_is_counted_without_its_url(eye: Eye, tmp_path: Path, status: int) -> None:
    eye.status = status
    monitors = Monitors([Heartbeat(eye.url), Webhook(eye.url)], LocalMemo(eye.url, HOME.ledger, tmp_path))

    monitors.started("r-1", HOME, 60)
    end(monitors, run(error="ledger_failed", detail="x"), Memory())

    assert monitors.failures == [f"heartbeat: HTTP {status}", f"heartbeat: HTTP {status}", f"alert: HTTP {status}"]
    assert len(eye.seen) == 3


def test_hanging_monitors_stay_within_the_deadline(silent: str, tmp_path: Path) -> None:
    channels = [MetricsFile("/nowhere/m"), Heartbeat(silent), Webhook(silent)]
    monitors = Monitors(channels, LocalMemo(silent, HOME.ledger, tmp_path))
    over = time.monotonic() + 2.0

    end(monitors, run(error="ledger_failed", detail="x"), Memory(), left=lambda: over - time.monotonic())

    assert over - time.monotonic() >= 0.55  # the run's own record still has its time
    assert [failure.partition(":")[0] for failure in monitors.failures] == ["metrics file", "heartbeat", "alert"]
    assert TOKEN not in str(monitors.failures)


def test_channels_that_hang_cost_the_others_nothing_and_the_run_no_more_than_one(eye: Eye, silent: str) -> None:
    channels = [Webhook(f"{silent}/{number}", f"alert {number}") for number in range(6)]
    began = time.monotonic()

    kept = end(Monitors([*channels, Webhook(eye.url)]), run(error="ledger_failed", detail="x"), Memory())

    assert time.monotonic() - began < channels[0].patience + SLACK
    assert len(eye.documents()) == 1
    assert kept is not None
    assert set(kept["undelivered"]) == {channel.address for channel in channels}


def test_without_time_nothing_is_sent_and_that_is_counted(eye: Eye) -> None:
    monitors = Monitors([Heartbeat(eye.url)])

    end(monitors, run(), left=lambda: 0.0)

    assert monitors.failures == ["heartbeat: no time left"]
    assert eye.seen == []


class Rude(MetricsFile):
    """A monitor with a bug whose message holds a secret."""

    def ended(self, run: EndedRun) -> Callable[[float], None]:
        del run
        return self._fail

    def _fail(self, seconds: float) -> None:
        raise RuntimeError(f"https://x/{TOKEN} {seconds}")


def test_a_bug_in_a_monitor_is_counted_by_its_kind_only() -> None:
    monitors = Monitors([Rude("m")])

    end(monitors, run(), Memory())

    assert monitors.failures == ["metrics file: RuntimeError"]


def test_an_alert_waits_for_the_channel_that_missed_it_and_for_no_other(eye: Eye) -> None:
    good, bad = Webhook(f"{eye.url}/good", "alert 1"), Webhook(f"{eye.url}/bad", "alert 2")
    deaf = Webhook("http://127.0.0.1:1/", "alert 2")
    deaf.address = bad.address  # the same URL, its server away for one run
    failed = run(error="ledger_failed", detail="x")

    monitors = Monitors([good, deaf])
    kept = end(monitors, failed, Memory())
    assert monitors.failures == ["alert 2: ConnectionError"]
    last = end(Monitors([good, bad]), failed, Memory(kept))

    assert eye.paths() == [f"/{TOKEN}/good", f"/{TOKEN}/bad"]
    assert last is not None
    assert "undelivered" not in last


def sample_run(tmp_path: Path, deadline: float = 60, **variables: str) -> Result:
    for name in ("trades.json", "broker.json"):
        (tmp_path / name).write_text((ROOT / "ghostclean" / "sample" / name).read_text())
    return reconcile(
        settings={
            "GHOSTCLEAN_LEDGER": f"file:{tmp_path}/trades.json",
            "GHOSTCLEAN_STATE": f"sqlite:{tmp_path}/state.db",
            "GHOSTCLEAN_BROKER": f"file:{tmp_path}/broker.json",
            **variables,
        },
        deadline=deadline,
        run_id="whole-run",
    )


def test_a_whole_run_tells_all_three(eye: Eye, tmp_path: Path) -> None:
    result = sample_run(
        tmp_path,
        GHOSTCLEAN_HEARTBEAT_URL=eye.url,
        GHOSTCLEAN_ALERT_URL=f"{eye.url}/alert",
        GHOSTCLEAN_METRICS_FILE=str(tmp_path / "m.prom"),
    )

    assert (result.exit_code, result.closed) == (0, 5)
    assert eye.paths()[0] == f"/{TOKEN}/start"
    bodies = {path: body for path, _, _, body in eye.seen[1:]}
    assert sorted(bodies) == [f"/{TOKEN}", f"/{TOKEN}/alert"]
    assert "run whole-run (source python): ok" in bodies[f"/{TOKEN}"]
    events = [event["event"] for event in json.loads(bodies[f"/{TOKEN}/alert"])["events"]]
    assert events == ["needs_a_person", "ghosts_closed"]
    assert parse((tmp_path / "m.prom").read_text())["last_run_closed", ""] == 5


def test_a_whole_run_with_hanging_monitors_ends_the_same_and_in_time(silent: str, tmp_path: Path) -> None:
    started = time.monotonic()

    result = sample_run(
        tmp_path,
        deadline=3,
        GHOSTCLEAN_HEARTBEAT_URL=silent,
        GHOSTCLEAN_ALERT_URL=silent,
        GHOSTCLEAN_METRICS_FILE=str(tmp_path / "no" / "m.prom"),
    )

    assert time.monotonic() - started < 3 + SLACK
    assert (result.exit_code, result.ok, result.closed, result.synced) == (0, True, 5, 5)
    notes = [note for note in result.to_dict()["notes"] if note.startswith("outside: ")]
    assert len(notes) == 4
    assert TOKEN not in json.dumps(result.to_dict())


def test_a_run_that_finds_the_lock_taken_tells_nobody(eye: Eye, tmp_path: Path) -> None:
    settings = {"GHOSTCLEAN_HEARTBEAT_URL": eye.url, "GHOSTCLEAN_ALERT_URL": eye.url}
    places = {"GHOSTCLEAN_LEDGER": f"file:{tmp_path}/trades.json", "GHOSTCLEAN_STATE": f"sqlite:{tmp_path}/state.db"}
    with opened(Settings.of(places)) as kept:
        lease = kept.state.acquire("somebody else", 60)
        assert lease is not None
        result = sample_run(tmp_path, **settings)
        kept.state.release(lease)

    assert result.exit_code == 7
    assert eye.seen == []


def manage(tmp_path: Path, broker: str, eye: Eye) -> dict[str, Any]:
    for name in ("trades.json", "broker.json"):
        (tmp_path / name).write_text((ROOT / "ghostclean" / "sample" / name).read_text())
    result = auto_manage(
        settings={
            "GHOSTCLEAN_LEDGER": f"file:{tmp_path}/trades.json",
            "GHOSTCLEAN_STATE": f"sqlite:{tmp_path}/state.db",
            "GHOSTCLEAN_HEARTBEAT_URL": eye.url,
            "GHOSTCLEAN_ALERT_URL": f"{eye.url}/alert",
            **({"GHOSTCLEAN_BROKER": f"file:{tmp_path}/broker.json"} if broker == "snapshot" else {
                "GHOSTCLEAN_TRADING_URL": broker, "ALPACA_API_KEY": "key-1", "ALPACA_SECRET_KEY": "secret-1",
            }),
        },
        run_id="managed",
        deadline=4,
    )  # fmt: skip
    return result.to_dict()


def test_a_good_reconcile_inside_auto_manage_is_told_like_any_other(eye: Eye, tmp_path: Path) -> None:
    document = manage(tmp_path, "snapshot", eye)

    assert document["reconcile"]["closed"] == 5
    bodies = {path: body for path, _, _, body in eye.seen}
    assert sorted(bodies) == [f"/{TOKEN}", f"/{TOKEN}/alert"]
    assert "run managed-reconcile (source auto-manage): ok" in bodies[f"/{TOKEN}"]


def test_a_failed_reconcile_inside_auto_manage_raises_no_alarm(eye: Eye, tmp_path: Path) -> None:
    document = manage(tmp_path, "http://127.0.0.1:1", eye)

    assert document["reconcile"]["error"] == "broker_truth_failed"
    assert eye.seen == []


# --------------------------------------------------------------------------- auto-manage's own outcome


def sample_manage(
    tmp_path: Path, eye: Eye, run_id: str, broker: str, seconds: float = 4, **more: Any
) -> dict[str, Any]:
    """One enabled auto-manage run against a broker that is not there, or the recorded one."""
    for name in ("trades.json", "broker.json"):
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text((ROOT / "ghostclean" / "sample" / name).read_text())
    places = {"GHOSTCLEAN_BROKER": f"file:{tmp_path}/broker.json"}
    if broker != "snapshot":
        places = {
            "GHOSTCLEAN_TRADING_URL": broker,
            "GHOSTCLEAN_DATA_URL": broker,
            "ALPACA_API_KEY": "key-1",
            "ALPACA_SECRET_KEY": "secret-1",
        }
    variables = {
        "AUTO_MANAGE_ENABLED": "1",
        "GHOSTCLEAN_LEDGER": f"file:{tmp_path}/trades.json",
        "GHOSTCLEAN_STATE": f"sqlite:{tmp_path}/state.db",
        "GHOSTCLEAN_ALERT_URL": eye.url,
    }
    return auto_manage(settings={**variables, **places}, run_id=run_id, deadline=seconds, **more).to_dict()


def heard(eye: Eye) -> list[tuple[str, str]]:
    """What arrived of auto-manage: run id and event."""
    return [
        (document["runId"], event["event"])
        for document in eye.documents()
        for event in document["events"]
        if event["event"].startswith("manage_") or "naked" in event["text"]
    ]


def test_an_auto_manage_that_fails_is_told_once(eye: Eye, tmp_path: Path) -> None:
    for number in range(3):
        document = sample_manage(tmp_path, eye, f"m-{number}", "http://127.0.0.1:1")
        assert document["error"] == "broker_truth_failed"

    assert heard(eye) == [("m-0", "manage_failed")]
    assert "auto-manage failed: broker_truth_failed: " in eye.documents()[0]["text"]
    with opened(Settings.of({"GHOSTCLEAN_LEDGER": f"file:{tmp_path}/trades.json",
                             "GHOSTCLEAN_STATE": f"sqlite:{tmp_path}/state.db"})) as kept:  # fmt: skip
        assert kept.state.recall("alerts")["auto-manage"]["failing"] == ["broker_truth_failed"]


def test_an_auto_manage_alert_that_did_not_arrive_goes_out_with_the_next_run(eye: Eye, tmp_path: Path) -> None:
    eye.status = 500
    first = sample_manage(tmp_path, eye, "m-0", "http://127.0.0.1:1")
    eye.status = 200
    sample_manage(tmp_path, eye, "m-1", "http://127.0.0.1:1")
    sample_manage(tmp_path, eye, "m-2", "http://127.0.0.1:1")

    assert "outside: alert: HTTP 500" in first["notes"]
    assert heard(eye) == [("m-0", "manage_failed"), ("m-1", "manage_failed")]


def test_a_dry_auto_manage_tells_nobody(eye: Eye, tmp_path: Path) -> None:
    sample_manage(tmp_path, eye, "dry", "http://127.0.0.1:1", dry_run=True)
    sample_manage(tmp_path, eye, "real", "http://127.0.0.1:1")

    assert heard(eye) == [("real", "manage_failed")]


def test_auto_manage_without_its_state_is_told_once(eye: Eye, tmp_path: Path) -> None:
    lost = {"source": "cron", "error": "state_failed", "reason": "state_failed", "detail": "no state"}

    for number in range(2):
        document = {"ok": False, "runId": f"m-{number}", **lost}
        assert end(webhook(eye, tmp_path / "memo"), document, kind="auto-manage") is None

    assert [document["runId"] for document in eye.documents()] == ["m-0"]


def test_a_naked_trade_is_told_once_and_its_end_too(eye: Eye, tmp_path: Path) -> None:
    with FakeBroker(now="2026-11-18T17:00:00Z") as broker:
        entry = broker.open_trade("AAPL", 10, 100, at="2026-11-17T15:00:00Z")
        trade = {
            "id": "a", "ticker": "AAPL", "side": "LONG", "status": "OPEN", "quantity": 10, "entryPrice": 100,
            "stopPrice": 95, "alpacaOrderId": entry["id"], "openedAt": "2026-11-17T15:00:00Z",
        }  # fmt: skip
        (tmp_path / "trades.json").write_text(json.dumps([trade]))
        reasons = []
        for number, price in enumerate((94, 94, 101, 101)):
            broker.set_price("AAPL", price)
            reasons.append(sample_manage(tmp_path, eye, f"m-{number}", broker.url, 30)["error"])
            broker.advance(minutes=5)

    assert reasons == ["naked", "naked", None, None]
    assert heard(eye) == [("m-0", "needs_a_person"), ("m-2", "cleared")]
    assert "needs a person: AAPL a: naked: " in eye.documents()[0]["text"]
    assert "-> ghostclean explain a" in eye.documents()[0]["text"]
