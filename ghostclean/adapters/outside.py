"""Outside eyes: a heartbeat, alerts on change, and a Prometheus textfile.

None of them can change a run's outcome: each is bounded in time, and what fails is handed back
as a short text to be counted.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ghostclean.core.alerts import Alert

_BODY_LIMIT = 10_000


class OutsideError(Exception):
    """An outside eye did not see the run; says which, never a URL (it may hold a token)."""


class Heartbeat:
    """A dead man's switch in the manner of healthchecks: `URL/start`, `URL`, `URL/fail`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def started(self, run_id: str, seconds: float) -> None:
        """Says that a run has begun; raises OutsideError."""
        _post("heartbeat", f"{self._url}/start", run_id, "", seconds)

    def ended(self, run_id: str, ok: bool, report: str, seconds: float) -> None:
        """Says how it ended, with the report as the body; raises OutsideError."""
        url = self._url if ok else f"{self._url}/fail"
        _post("heartbeat", url, run_id, report[-_BODY_LIMIT:], seconds)


class Webhook:
    """Alerts as one JSON POST: `{source, runId, events[], text}`, the shape chat webhooks read."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, alerts: Sequence[Alert], run_id: str, source: str, seconds: float) -> None:
        """Posts the alerts of one run; raises OutsideError."""
        import requests

        lines = [f"ghostclean: {alert.text}" for alert in alerts]
        document = {
            "source": source,
            "runId": run_id,
            "events": [{"event": a.event, "text": a.text} for a in alerts],
            "title": "ghostclean",
            "text": "\n".join(lines),
            "body": "\n".join(lines),
        }
        try:
            answer = requests.post(self._url, json=document, timeout=seconds, allow_redirects=False)
        except requests.RequestException as error:
            raise OutsideError(f"alert: {type(error).__name__}") from None
        if answer.status_code >= 300:
            raise OutsideError(f"alert: HTTP {answer.status_code}")


def _post(what: str, url: str, run_id: str, body: str, seconds: float) -> None:
    import requests

    rid = _uuid(run_id)
    try:
        answer = requests.post(url, params={"rid": rid}, data=body.encode(), timeout=seconds, allow_redirects=False)
    except requests.RequestException as error:
        raise OutsideError(f"{what}: {type(error).__name__}") from None
    if answer.status_code >= 300:
        raise OutsideError(f"{what}: HTTP {answer.status_code}")


def _uuid(run_id: str) -> str:
    """Heartbeat services pair start and end by a UUID; ours is derived from the run id."""
    import uuid

    return str(uuid.uuid5(uuid.NAMESPACE_OID, run_id))


class MetricsFile:
    """A Prometheus textfile, replaced as a whole so that a scrape never reads half of it."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()

    def write(self, document: Mapping[str, Any], last_success: float | None, now: float) -> None:
        """Writes the figures of a run; times in Unix seconds; raises OutsideError."""
        try:
            handle, name = tempfile.mkstemp(prefix=".ghostclean-", dir=self._path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(exposition(document, last_success, now))
                os.chmod(name, 0o644)
                os.replace(name, self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise OutsideError(f"metrics file: {error.strerror}") from None


def exposition(document: Mapping[str, Any], last_success: float | None, now: float) -> str:
    """The figures of one run in the text exposition format."""
    lines: list[str] = []

    def gauge(name: str, text: str, values: Sequence[tuple[str, float]]) -> None:
        lines.append(f"# HELP ghostclean_{name} {text}")
        lines.append(f"# TYPE ghostclean_{name} gauge")
        lines.extend(f"ghostclean_{name}{labels} {value:g}" if value < 1e6 else f"ghostclean_{name}{labels} {value:.3f}"
                     for labels, value in values)  # fmt: skip

    gauge("last_run_timestamp_seconds", "When the last run ended.", [("", now)])
    if last_success is not None:
        gauge("last_success_timestamp_seconds", "When a run last succeeded.", [("", last_success)])
        gauge(
            "last_success_age_seconds", "Age of the last success at the last run.", [("", max(0.0, now - last_success))]
        )
    gauge("last_run_ok", "1 when the last run succeeded.", [("", float(bool(document["ok"])))])
    gauge("last_run_duration_seconds", "How long the last run took.", [("", document["durationMs"] / 1000)])
    for name in ("checked", "closed", "synced", "backfilled", "held", "orphans", "failed"):
        gauge(f"last_run_{name}", f"Trades {name} in the last run.", [("", float(document[name]))])
    verdicts = Counter(str(row["verdict"]) for row in document["results"])
    gauge(
        "last_run_verdicts",
        "Trades by verdict in the last run.",
        [(f'{{verdict="{verdict}"}}', float(count)) for verdict, count in sorted(verdicts.items())],
    )
    return "\n".join(lines) + "\n"
