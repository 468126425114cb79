"""Where alerts go: a JSON POST for http(s) URLs, the services of Apprise for all others.

A kind of channel of its own is a class and a row of `KINDS`, by the scheme of its URLs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from ghostclean.adapters.delivery import NotDelivered, Send, post
from ghostclean.app.ports import EndedRun, Monitor, Trouble
from ghostclean.core.alerts import Origin, message
from ghostclean.errors import BadSettings
from ghostclean.places import each_url

SETTING = "GHOSTCLEAN_ALERT_URL"

_TITLE = "ghostclean"
_DISCORD, _SLACK = 2_000, 40_000  # characters that their webhooks take
_PIP = "pip install 'ghostclean[alerts]'"
_STATUS = re.compile(r"\berror=(\d{3})\b")  # how Apprise gives the answer's status


class Webhook:
    """One JSON POST: `{source, runId, ledger, account, events[], text, …}`.

    Discord reads `content`, Slack `text`; both ignore the rest.
    """

    patience = 2.0

    def __init__(self, url: str, name: str = "alert") -> None:
        self.name, self.address = name, _digest(url)
        self._url = url

    def started(self, run_id: str, origin: Origin) -> Send | None:
        del run_id, origin
        return None

    def ended(self, run: EndedRun) -> Send | None:
        if not run.alerts:
            return None
        text = message(run.alerts, run.origin, _SLACK)
        document = {
            "source": run.document["source"],
            "runId": run.document["runId"],
            "ledger": run.origin.ledger,
            "account": run.origin.account,
            "live": run.origin.live,
            "host": run.origin.host,
            "events": [{"event": alert.event, "text": alert.text} for alert in run.alerts],
            "title": _TITLE,
            "text": text,
            "body": text,
            "content": message(run.alerts, run.origin, _DISCORD),
        }
        data = json.dumps(document, ensure_ascii=False).encode()
        return lambda seconds: post(
            self.name, self._url, seconds, data=data, headers={"Content-Type": "application/json"}
        )


class Apprise:
    """One service that Apprise knows; without the extra that brings it every run says so."""

    patience = 10.0  # a mail server takes its time

    def __init__(self, url: str, name: str = "alert") -> None:
        """ValueError for a URL that Apprise cannot read."""
        self.name, self.address = name, _digest(url)
        self._service = _service(url)

    @property
    def works(self) -> bool:
        return self._service is not None

    def started(self, run_id: str, origin: Origin) -> Send | None:
        del run_id, origin
        return None

    def ended(self, run: EndedRun) -> Send | None:
        if self.works and not run.alerts:
            return None
        return partial(self._send, run)

    def _send(self, run: EndedRun, seconds: float) -> None:
        service = self._service
        if service is None:
            raise NotDelivered(f"{self.name}: nothing can be sent, Apprise is not installed: {_PIP}")
        service.socket_connect_timeout = min(service.socket_connect_timeout, seconds)
        service.socket_read_timeout = min(service.socket_read_timeout, seconds)
        title = _TITLE if service.title_maxlen > 0 else ""
        text = message(run.alerts, run.origin, service.body_maxlen - len(title))
        with _overheard() as said:
            # Not through an `Apprise` object: its pool of threads would hold up the end of the process.
            taken = service.notify(
                body=text, title=title, body_format="text", notify_type="warning", overflow="truncate"
            )
        if not taken:
            raise NotDelivered(f"{self.name}: {_reason(said)}")


def _service(url: str) -> Any:
    """None without Apprise."""
    try:
        import apprise
    except ImportError:
        return None
    with _overheard():
        service = apprise.Apprise.instantiate(url)
    if service is None:
        raise ValueError("Apprise cannot read it; its README says how the URL of each service is written")
    return service


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    """What Apprise logs in this thread meanwhile, for us alone: addresses and tokens are in it."""
    said: list[str] = []
    log, here = logging.getLogger("apprise"), threading.get_ident()

    def is_anothers(record: logging.LogRecord) -> bool:
        if record.thread != here:
            return True
        said.append(record.getMessage())
        return False

    log.addFilter(is_anothers)
    try:
        yield said
    finally:
        log.removeFilter(is_anothers)


def _reason(said: Sequence[str]) -> str:
    text = "\n".join(said)
    status = _STATUS.search(text)
    if status:
        return f"HTTP {status[1]}"
    return "no connection" if "connection error" in text.lower() else "the service has not taken it"


KINDS: Mapping[str, Callable[[str, str], Monitor]] = {"http": Webhook, "https": Webhook}


def channels(urls: str) -> list[Monitor]:
    """One channel a URL, numbered where there are several; raises BadSettings."""
    several = len(urls.split()) > 1

    def channel(url: str, number: int) -> Monitor:
        kind = KINDS.get(url.partition("://")[0].lower(), Apprise)
        return kind(url, f"alert {number}" if several else "alert")

    try:
        return each_url(urls, channel)
    except ValueError as error:
        raise BadSettings(f"{SETTING} is wrong: {error} (nothing was done)") from None


def rehearse(urls: str) -> list[Trouble]:
    """What keeps the alerts from being sent; raises BadSettings."""
    missing = [c.name for c in channels(urls) if isinstance(c, Apprise) and not c.works]
    return [Trouble(f"{', '.join(missing)}: Apprise is not installed", _PIP)] if missing else []


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


class LocalMemo:
    """One word in the user's state folder (or `folder`): which failure of this ledger the URL was last told of."""

    def __init__(self, url: str, ledger: str, folder: Path | None = None) -> None:
        self._digest = _digest(url, ledger)
        self._folder = folder or user_state_path("ghostclean", appauthor=False) / "alerted"

    def recall(self) -> str | None:
        """The failure that was told while the state was lost; raises NotDelivered."""
        try:
            return (self._folder / self._digest).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise NotDelivered(f"alert: its memory cannot be read ({type(error).__name__})") from None

    def remember(self, error: str | None) -> None:
        """Keeps that failure, or forgets it; raises NotDelivered."""
        file = self._folder / self._digest
        try:
            if error is None:
                file.unlink(missing_ok=True)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(error, encoding="utf-8")
        except OSError as failure:
            raise NotDelivered(f"alert: its memory cannot be written ({failure.strerror})") from None
