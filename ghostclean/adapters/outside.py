"""Outside eyes: a heartbeat, alerts on change, and a Prometheus textfile.

None of them can change a run's outcome: each is bounded in time, and what fails is handed back
as a short text to be counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ghostclean.core.alerts import Alert
from ghostclean.core.verdicts import Verdict
from ghostclean.errors import GhostcleanError

_BODY_LIMIT = 10_000
_LAST_SUCCESS = "last_success_timestamp_seconds"


class OutsideError(GhostcleanError):
    """An outside eye did not see the run; says which, never a URL (it may hold a token)."""


class Heartbeat:
    """A dead man's switch in the manner of healthchecks: `URL/start`, `URL`, `URL/fail`."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def started(self, run_id: str, seconds: float) -> None:
        """Says that a run has begun; raises OutsideError."""
        self._ping("/start", run_id, f"run {run_id}", seconds)

    def ended(self, run_id: str, ok: bool, report: str, seconds: float) -> None:
        """Says how it ended, with the report as the body; raises OutsideError."""
        self._ping("" if ok else "/fail", run_id, report, seconds)

    def _ping(self, ending: str, run_id: str, body: str, seconds: float) -> None:
        url = self._url._replace(path=self._url.path.rstrip("/") + ending).geturl()
        # Services pair start and end by a UUID; ours is derived from the run id, which is in the body.
        rid = str(uuid.uuid5(uuid.NAMESPACE_OID, run_id))
        text = body.encode()[:_BODY_LIMIT]
        _post(
            "heartbeat",
            url,
            seconds,
            params={"rid": rid},
            data=text,
            headers={"Content-Type": "text/plain; charset=utf-8"},
        )


class Webhook:
    """Alerts as one JSON POST: `{source, runId, events[], text}`, the shape chat webhooks read.

    `memo` is the folder for the one word that must outlive a lost state (the user's state folder
    by default).
    """

    def __init__(self, url: str, memo: Path | None = None) -> None:
        self._url = url
        self._memo = memo

    def send(self, alerts: Sequence[Alert], run_id: str, source: str, seconds: float) -> None:
        """Posts the alerts of one run; raises OutsideError."""
        text = "\n".join(f"ghostclean: {alert.text}" for alert in alerts)
        document = {
            "source": source,
            "runId": run_id,
            "events": [{"event": a.event, "text": a.text} for a in alerts],
            "title": "ghostclean",
            "text": text,
            "body": text,
        }
        data = json.dumps(document, ensure_ascii=False).encode()
        _post("alert", self._url, seconds, data=data, headers={"Content-Type": "application/json"})

    def recall(self) -> str | None:
        """The failure that was told while the state was lost; raises OutsideError."""
        try:
            return self._file().read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise OutsideError(f"alert: its memory cannot be read ({type(error).__name__})") from None

    def remember(self, error: str | None) -> None:
        """Keeps that failure, or forgets it; raises OutsideError."""
        file = self._file()
        try:
            if error is None:
                file.unlink(missing_ok=True)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(error, encoding="utf-8")
        except OSError as failure:
            raise OutsideError(f"alert: its memory cannot be written ({failure.strerror})") from None

    def _file(self) -> Path:
        folder = self._memo
        if folder is None:
            from platformdirs import user_state_path

            folder = user_state_path("ghostclean", appauthor=False) / "alerted"
        return folder / hashlib.sha256(self._url.encode()).hexdigest()[:16]


def _post(what: str, url: str, seconds: float, **request: Any) -> None:
    import requests

    try:
        # The answer's body says nothing we need: it is not read, however long it is.
        with requests.post(url, timeout=seconds, allow_redirects=False, stream=True, **request) as answer:
            status = answer.status_code
    except (requests.RequestException, ValueError) as error:
        raise OutsideError(f"{what}: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise OutsideError(f"{what}: HTTP {status}")


class MetricsFile:
    """A Prometheus textfile, replaced as a whole so that a scrape never reads half of it."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()

    def write(self, document: Mapping[str, Any], last_success: float | None, now: float) -> None:
        """Writes the figures of a run; times in Unix seconds; raises OutsideError.

        Where nobody knows of a success any more (the state is lost) the one in the file stays.
        """
        try:
            if last_success is None:
                last_success = self._known_success()
            handle, name = tempfile.mkstemp(prefix=".ghostclean-", dir=self._path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(exposition(document, last_success, now))
                Path(name).chmod(0o644)  # the collector runs as somebody else
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise OutsideError(f"metrics file: {error.strerror}") from None

    def _known_success(self) -> float | None:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        found = re.search(rf"^ghostclean_{_LAST_SUCCESS} ([0-9.]+)$", text, re.MULTILINE)
        return float(found[1]) if found else None


def exposition(document: Mapping[str, Any], last_success: float | None, now: float) -> str:
    """The figures of one run in the text exposition format."""
    lines: list[str] = []

    def gauge(name: str, text: str, values: Sequence[tuple[str, float]]) -> None:
        lines.append(f"# HELP ghostclean_{name} {text}")
        lines.append(f"# TYPE ghostclean_{name} gauge")
        lines.extend(f"ghostclean_{name}{labels} {_number(value)}" for labels, value in values)

    gauge("last_run_timestamp_seconds", "When the last run ended.", [("", now)])
    if last_success is not None:
        gauge(_LAST_SUCCESS, "When a run last succeeded.", [("", last_success)])
        age = max(0.0, now - last_success)
        gauge("last_success_age_seconds", "Age of the last success at the last run.", [("", age)])
    gauge("last_run_ok", "1 when the last run succeeded.", [("", float(bool(document["ok"])))])
    gauge("last_run_duration_seconds", "How long the last run took.", [("", document["durationMs"] / 1000)])
    for name in ("checked", "closed", "synced", "backfilled", "held", "orphans", "failed"):
        gauge(f"last_run_{name}", f"Trades {name} in the last run.", [("", float(document[name]))])
    verdicts = Counter(str(row["verdict"]) for row in document["results"])
    # Every verdict, also at zero: a series that comes and goes cannot be alerted on.
    counts = [(f'{{verdict="{verdict}"}}', float(verdicts[verdict])) for verdict in sorted(Verdict)]
    gauge("last_run_verdicts", "Trades by verdict in the last run.", counts)
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """In full, to the millisecond: `%g` would round a time to its first six digits."""
    return f"{value:.3f}".rstrip("0").rstrip(".")
