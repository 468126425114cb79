"""The monitors by their settings: a heartbeat, alerts on change, and a Prometheus textfile.

A monitor is a class as `Monitor` and a row of `CHANNELS`. None of them can change a run's outcome: each is bounded in
time, and what fails is counted and shown.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from ghostclean.adapters import alerts
from ghostclean.adapters.delivery import Send, post
from ghostclean.adapters.metrics import MetricsFile
from ghostclean.app.ports import EndedRun, Monitor
from ghostclean.core.alerts import Origin, interrupted, manage_report, report
from ghostclean.core.attention import Kind

_BODY_LIMIT = 10_000
_ALARMING = frozenset({Kind.NAKED, Kind.MISSED})


class Heartbeat:
    """A dead man's switch in the manner of healthchecks: `URL/start`, `URL`, `URL/fail`."""

    name = "heartbeat"
    address = ""
    patience = 2.0

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def started(self, run_id: str, origin: Origin) -> Send | None:
        return partial(self._ping, "/start", run_id, f"run {run_id}\n{origin.line()}")

    def ended(self, run: EndedRun) -> Send | None:
        """The report as the body: a success, a failure, or a plain log of a run that was interrupted.

        A position without a stop and a missed end of day fail the heartbeat while they last;
        auto-manage has no other heartbeat of its own.
        """
        document = run.document
        alarming = any(item["kind"] in _ALARMING for item in document["attention"])
        if run.kind != "reconcile":
            ending, body = "/fail" if alarming else None, manage_report(document, run.origin)
        else:
            ending, body = "" if document["ok"] and not alarming else "/fail", report(document, run.origin)
        ending = "/log" if interrupted(document) else ending
        return None if ending is None else partial(self._ping, ending, document["runId"], body)

    def _ping(self, ending: str, run_id: str, body: str, seconds: float) -> None:
        url = self._url._replace(path=self._url.path.rstrip("/") + ending).geturl()
        # Services pair start and end by a UUID; ours is derived from the run id, which is in the body.
        rid = str(uuid.uuid5(uuid.NAMESPACE_OID, run_id))
        text = body.encode()[:_BODY_LIMIT].decode(errors="ignore").encode()
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        post(self.name, url, seconds, params={"rid": rid}, data=text, headers=headers)


# By the variable that configures them, in the order in which they are told.
CHANNELS: Mapping[str, Callable[[str], Sequence[Monitor]]] = {
    "GHOSTCLEAN_METRICS_FILE": lambda path: (MetricsFile(path),),
    "GHOSTCLEAN_HEARTBEAT_URL": lambda url: (Heartbeat(url),),
    "GHOSTCLEAN_ALERT_URL": alerts.channels,
}
