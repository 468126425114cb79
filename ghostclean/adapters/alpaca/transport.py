"""Alpaca over HTTP through the official SDK's client, with the care that money needs.

Time-outs fit what is left of the call, a write is sent exactly once, a read retried twice at most;
redirects and half answers are errors, and no message shows a key.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from alpaca.common.rest import RESTClient
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import NewConnectionError, ReadTimeoutError

from ghostclean.adapters.alpaca.paging import NotFound
from ghostclean.app.deadline import call_left
from ghostclean.errors import AnswerLost, BadSettings, BrokerError, Cause, Refusal, Refused
from ghostclean.places import api_url

_TRIES = 3
_REQUEST_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_SPARE_SECONDS = 0.1  # a time-out at the very end of a call must not come before the deadline itself
_WORTH_A_TRY = 0.2  # a try that begins later would only hide what the one before said
_BODY_CAP = 64 * 1024 * 1024
_CHUNK = 256 * 1024
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_REFUSALS = frozenset({403, 404, 409, 422})
_TURNED_AWAY = frozenset({400, 401, 404, 405, 429})
_FEW_LEFT = 20
_MESSAGE_LENGTH = 300
_GONE = re.compile(
    r"\b(order|position|asset)\b.*\b(not found|does(n't| not) exist)"
    r"|\b(no such|could(n't| not) find) (order|position|asset)\b",
    re.IGNORECASE,
)


class _NeverSent(BrokerError):
    """No connection was made, so the request cannot have reached the broker."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_redirect(self) -> bool:
        return 300 <= self.status < 400

    def json(self) -> Any:
        """The parsed body; ValueError when there is none or it is cut, HTML or no JSON."""
        return json.loads(self.body.decode("utf-8-sig"), parse_constant=_no_constant)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


class AlpacaTransport(RESTClient):
    """One Alpaca host; answers are raw JSON. Reads raise NotFound on a true 404, writes Refused and AnswerLost."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        secret_key: str,
        *,
        time_left: Callable[[], float] = call_left,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            base = api_url(base_url)
        except ValueError as error:
            raise BadSettings(f"the broker's URL is refused: {error} (nothing was done)") from None
        for key in (api_key, secret_key):
            # requests would quote a broken header value, that is the key, in its error
            if not key or not all("!" <= letter <= "~" for letter in key):
                raise BadSettings("an Alpaca key is empty or holds characters that no key has: set the pair anew")
        super().__init__(base_url=base, api_key=api_key, secret_key=secret_key, raw_data=True)
        self._retry = 0  # the SDK would re-send writes; `_one_request` below does what is safe
        # Plain http is loopback only: a proxy from the environment would carry the keys off the machine
        self._session.trust_env = base.startswith("https://")
        self._host = urlsplit(base).netloc
        self._secrets = _spellings(secret_key, api_key)
        self._time_left = time_left
        self._sleep = sleep
        self._monotonic = monotonic
        self._seen: tuple[datetime, float] | None = None
        self._pace: tuple[int, datetime | None] | None = None

    def __repr__(self) -> str:
        return f"AlpacaTransport({self._host})"

    def now(self) -> datetime:
        """The broker's time: its latest `Date`, carried on by our monotonic clock; else ours."""
        if self._seen is None:
            return datetime.now(UTC)
        at, mark = self._seen
        return at + timedelta(seconds=self._monotonic() - mark)

    def requests_left(self) -> int | None:
        return self._pace[0] if self._pace is not None else None

    def close(self) -> None:
        self._session.close()

    def scrubbed(self, text: str) -> str:
        text = self._without_keys(text)
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= _MESSAGE_LENGTH else line[: _MESSAGE_LENGTH - 1] + "…"

    def _without_keys(self, text: str) -> str:
        """Of JSON too, which stays JSON: the general scrubbing of URLs may cut an escape in two."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text

    # ----------------------------------------------------------------- the SDK's hook

    def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        """Called by the SDK for every request; `retry` is its own count and stays 0."""
        what = f"{method} {urlsplit(url).path}"
        if method == "GET":
            return self._read(what, url, opts)
        return self._write(method, what, url, opts)

    def _read(self, what: str, url: str, opts: dict[str, Any]) -> Any:
        attempt = 0
        while True:
            attempt += 1
            self._keep_pace()
            wait = 0.25 * 2**attempt * random.uniform(0.5, 1.5)
            try:
                answer = self._exchange("GET", what, url, opts)
                if answer.status not in _RETRIED:
                    return self._read_result(what, answer)
                error = self._failure(what, answer)
                wait = self._asked_wait(answer) or wait
            except BrokerError as caught:
                if not caught.transient or isinstance(caught, NotFound):
                    raise
                error = caught
            if attempt == _TRIES or wait + _WORTH_A_TRY >= self._time_left():
                raise error
            self._sleep(wait)

    def _read_result(self, what: str, answer: _Answer) -> Any:
        if answer.status == 200:
            try:
                return answer.json()
            except (ValueError, RecursionError):
                line = self._said(what, answer, "an answer that is no complete JSON")
                raise BrokerError(line, status=200, cause=Cause.WRONG) from None
        if answer.status == 404 and self._is_true_404(answer):
            raise NotFound(self._said(what, answer, "not found"), status=404, transient=False)
        raise self._failure(what, answer)

    def _write(self, method: str, what: str, url: str, opts: dict[str, Any]) -> Any:
        """Sends once. Whatever leaves it open whether the broker acted is AnswerLost."""
        try:
            answer = self._exchange(method, what, url, opts)
        except _NeverSent:
            raise
        except BrokerError as error:
            raise AnswerLost(f"{error}; whether the broker acted on it is unknown") from None
        if answer.status in _REFUSALS and not (answer.status == 404 and method == "POST"):
            body = json.loads(self._without_keys(json.dumps(_body(answer))))
            raise Refused(self._said(what, answer, "refused"), status=answer.status, body=body, why=_refusal(body))
        if answer.status in _TURNED_AWAY:
            raise self._failure(what, answer)
        if 200 <= answer.status < 300:
            if method == "DELETE" and not answer.body:
                return None
            with contextlib.suppress(ValueError, RecursionError):
                return answer.json()
        line = self._said(what, answer, "no readable answer; whether the broker acted on it is unknown")
        raise AnswerLost(line, status=answer.status)

    # ----------------------------------------------------------------- one exchange

    def _exchange(self, method: str, what: str, url: str, opts: dict[str, Any]) -> _Answer:
        left = min(self._time_left(), _REQUEST_SECONDS)
        if left <= 0:
            raise _NeverSent(f"{what}: no time left to ask the broker")
        try:
            answer = self._send(method, url, opts, left + _SPARE_SECONDS)
        except (requests.RequestException, Urllib3Error, OSError, UnicodeError) as error:
            raise self._no_answer(what, error, left) from None
        self._note(answer)
        return answer

    def _send(self, method: str, url: str, opts: dict[str, Any], seconds: float) -> _Answer:
        end = time.monotonic() + seconds
        timeout = (min(_CONNECT_SECONDS, seconds), seconds)
        with self._session.request(method, url, timeout=timeout, stream=True, **opts) as response:
            body = bytearray()
            while part := response.raw.read1(_CHUNK, decode_content=True):
                body += part
                if len(body) > _BODY_CAP:
                    raise requests.exceptions.ContentDecodingError(f"the answer is larger than {_BODY_CAP >> 20} MB")
                if time.monotonic() > end:
                    raise requests.Timeout("the answer came too slowly")
            return _Answer(response.status_code, response.headers, bytes(body))

    def _no_answer(self, what: str, error: Exception, seconds: float) -> BrokerError:
        if _never_connected(error):
            line = f"{what}: cannot connect to {self._host} ({self.scrubbed(_reason(error))})"
            return _NeverSent(line, cause=Cause.NETWORK)
        if isinstance(error, (requests.Timeout, ReadTimeoutError, TimeoutError)):
            line = f"{what}: no complete answer from {self._host} within {seconds:.1f} s"
            return BrokerError(line, cause=Cause.NETWORK)
        if isinstance(error, requests.exceptions.SSLError):
            line = f"{what}: no trusted TLS connection to {self._host} ({self.scrubbed(_reason(error))})"
            return BrokerError(line, transient=False, cause=Cause.TLS)
        line = f"{what}: the connection to {self._host} broke ({self.scrubbed(_reason(error))})"
        return BrokerError(line, cause=Cause.NETWORK)

    def _failure(self, what: str, answer: _Answer) -> BrokerError:
        if answer.is_redirect:
            line = self._said(what, answer, "a redirect, which is never followed")
            return BrokerError(line, status=answer.status, transient=False, cause=Cause.WRONG)
        transient = answer.status in _RETRIED or answer.status >= 500
        cause = _cause(answer.status)
        return BrokerError(self._said(what, answer, "failed"), status=answer.status, transient=transient, cause=cause)

    def _said(self, what: str, answer: _Answer, outcome: str) -> str:
        request_id = answer.headers.get("X-Request-ID")
        words = _words(answer)
        line = f"{what}: {outcome} (HTTP {answer.status}" + (f", {words}" if words else "")
        return self.scrubbed(line + (f", request {request_id})" if request_id else ")"))

    @staticmethod
    def _is_true_404(answer: _Answer) -> bool:
        """Only the broker's own words count: a proxy's 404 says nothing about an order."""
        body = _body(answer)
        if not isinstance(body, dict):
            return False
        message = str(body.get("message", ""))
        if re.search(r"\b(endpoint|route|page)\b", message, re.IGNORECASE):
            return False
        return str(body.get("code")) == "40410000" or _GONE.search(message) is not None

    # ----------------------------------------------------------------- time and pace

    def _note(self, answer: _Answer) -> None:
        at = _http_date(answer.headers.get("Date"))
        # A 5xx may come from whatever stands in between: its clock counts only while we know no other
        if at is not None and (answer.status < 500 or self._seen is None):
            # `Date` is cut to the second: of two readings that agree the later one is nearer
            known = self.now() if self._seen else at
            self._seen = (known if timedelta(0) < known - at < timedelta(seconds=2) else at, self._monotonic())
        remaining = _whole(answer.headers.get("X-RateLimit-Remaining"))
        if remaining is not None:
            self._pace = (remaining, _unix_time(answer.headers.get("X-RateLimit-Reset")))

    def _keep_pace(self) -> None:
        """Slows reads down when little of the minute's rate is left: the bot needs some of it."""
        if self._pace is None or self._pace[0] >= _FEW_LEFT:
            return
        remaining, reset = self._pace
        until = (reset - self.now()).total_seconds() if reset else 1.0
        pause = min(1.0, until / (remaining + 1), self._time_left() / 10)
        if pause > 0:
            self._sleep(pause)

    def _asked_wait(self, answer: _Answer) -> float | None:
        """Seconds the broker wants us to wait: `Retry-After`, else the end of a used-up minute."""
        after = answer.headers.get("Retry-After")
        seconds = _whole(after)
        if seconds is not None:
            return float(seconds)
        until = _http_date(after)
        # With some of the minute's rate left its end is not what is waited for
        if until is None and answer.status == 429 and not _whole(answer.headers.get("X-RateLimit-Remaining")):
            until = _unix_time(answer.headers.get("X-RateLimit-Reset"))
        # `Date` is cut to the second, so a whole second may be missing from our idea of now
        return None if until is None else max(0.0, (until - self.now()).total_seconds()) + 0.05


# --------------------------------------------------------------------------- small parts


def _spellings(*keys: str) -> tuple[str, ...]:
    found = {spelling for key in keys for spelling in (key, quote(key, safe=""), json.dumps(key)[1:-1])}
    return tuple(sorted(found, key=len, reverse=True))


def _body(answer: _Answer) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _refusal(body: object) -> Refusal | None:
    """What a refusal means: Alpaca shares one code among several, and only its words tell them apart."""
    said = str(body.get("message", "")) if isinstance(body, dict) else ""
    if "client_order_id" in said and "unique" in said:
        return Refusal.NAME_TAKEN
    return Refusal.NO_CHANGE if "not changed" in said else None


def _words(answer: _Answer) -> str:
    body = _body(answer)
    if isinstance(body, dict) and body.get("message"):
        code = f"{body['code']} " if body.get("code") else ""
        return f"{code}{body['message']}"
    if not answer.body:
        return "empty body"
    text = answer.body[:4096].decode("utf-8", "replace")
    if text.lstrip()[:1] == "<":
        return "an HTML page"
    # Half a key would escape the scrubbing, so where the text was cut its end goes as well
    return text if len(answer.body) <= 4096 else text[:-256]


def _cause(status: int) -> Cause:
    """What a status that is no success means."""
    if status in (401, 403):
        return Cause.KEYS
    if status == 429:
        return Cause.RATE
    return Cause.DOWN if status >= 500 or status == 408 else Cause.WRONG


def _reason(error: BaseException) -> str:
    reason: object = error
    for _ in range(5):
        inner = getattr(reason, "reason", None) or (getattr(reason, "args", None) or (None,))[-1]
        if not isinstance(inner, BaseException):
            break
        reason = inner
    text = re.sub(r"<[^>]*>:?|^HTTPS?Connection\([^)]*\): ", "", str(reason)).strip()
    return text or type(reason).__name__


def _never_connected(error: Exception) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, requests.ConnectionError) and isinstance(reason, NewConnectionError)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\s*[0-9]{1,11}\s*", text) else None


def _unix_time(text: str | None) -> datetime | None:
    seconds = _whole(text)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _http_date(text: str | None) -> datetime | None:
    try:
        at = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError):
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
