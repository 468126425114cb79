"""Fault injection: what goes wrong with which request, and how the wrong answer leaves the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from .api import Request

Match = str | Callable[[Request], bool]
Respond = Callable[[Request], "Reply"]
HTML_STATUSES = frozenset({502, 503, 504})
MESSAGES: dict[int, dict[str, Any]] = {
    400: {"code": 40010000, "message": "bad request"},
    401: {"code": 40110000, "message": "request is not authorized."},
    403: {"message": "forbidden."},
    404: {"code": 40410000, "message": "not found"},
    408: {"message": "request timeout"},
    422: {"code": 40010001, "message": "invalid request"},
    429: {"code": 42910000, "message": "rate limit exceeded."},
    500: {"code": 50010000, "message": "internal server error occurred"},
}


@dataclass
class Reply:
    """An answer ready for the wire; `manner` says how it is sent: whole, cut, trickle, refused, reset or hang."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    manner: str = "whole"
    interval: float = 1.0


@dataclass
class Fault:
    """One planned misbehaviour; `hits` counts how often it struck, `times` how often it still may."""

    match: Match
    kind: str | int
    times: int | None = None
    after: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    hits: int = 0
    _skipped: int = 0

    def fits(self, request: Request) -> bool:
        if callable(self.match):
            return self.match(request)
        label, _, page = self.match.partition(":")
        return label in ("*", request.label) and (not page or int(page) == request.page)

    def strikes(self, request: Request) -> bool:
        """Say whether it strikes this request, and count."""
        if not self.fits(request) or (self.times is not None and self.hits >= self.times):
            return False
        if self._skipped < self.after:
            self._skipped += 1
            return False
        self.hits += 1
        return True


class Faults:
    """The faults planned so far; the one planned last strikes first."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []
        self._lock = Lock()

    def add(self, fault: Fault) -> Fault:
        if not isinstance(fault.kind, int) and fault.kind not in KINDS and not fault.kind.isdecimal():
            raise ValueError(f"unknown fault {fault.kind!r}; there are {', '.join(KINDS)} and HTTP statuses")
        with self._lock:
            self._planned.insert(0, fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()

    def pick(self, request: Request) -> Fault | None:
        with self._lock:
            return next((fault for fault in self._planned if fault.strikes(request)), None)


def apply(fault: Fault, request: Request, respond: Respond) -> Reply:
    """Answer a request the way a fault wants it; whether the request takes effect depends on the kind."""
    if isinstance(fault.kind, int) or fault.kind.isdecimal():
        return _status(fault, int(fault.kind))
    return KINDS[fault.kind](fault, request, respond)


def as_json(payload: Any) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()


def _status(fault: Fault, status: int) -> Reply:
    """An error instead of an answer, without effect; the edge answers in HTML."""
    options = fault.options
    html = options.get("html", status in HTML_STATUSES)
    page = f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>"
    default = page.encode() if html else as_json(MESSAGES.get(status, {"message": f"error {status}"}))
    headers = {"Content-Type": "text/html" if html else "application/json"}
    if "retry_after" in options:
        headers["Retry-After"] = str(options["retry_after"])
    body = options.get("body", default)
    return Reply(status, body if isinstance(body, bytes) else as_json(body), headers | options.get("headers", {}))


def _silent(manner: str) -> Callable[[Fault, Request, Respond], Reply]:
    def kind(_: Fault, __: Request, ___: Respond) -> Reply:
        return Reply(manner=manner)

    return kind


def _replaced(default: Callable[[bytes], bytes]) -> Callable[[Fault, Request, Respond], Reply]:
    """The request takes effect, the body is another one."""

    def kind(fault: Fault, request: Request, respond: Respond) -> Reply:
        reply = respond(request)
        body = as_json(fault.options["value"]) if "value" in fault.options else default(reply.body)
        return Reply(200, body, reply.headers)

    return kind


def _wrong_type(body: bytes) -> bytes:
    return b"{}" if body.lstrip().startswith(b"[") else b"[]"


def _sent(manner: str) -> Callable[[Fault, Request, Respond], Reply]:
    """The request takes effect, the answer leaves in a broken manner."""

    def kind(fault: Fault, request: Request, respond: Respond) -> Reply:
        reply = respond(request)
        reply.manner = manner
        reply.interval = fault.options.get("interval", 1.0)
        return reply

    return kind


def _redirect(fault: Fault, _: Request, __: Respond) -> Reply:
    return Reply(302, b"", {"Location": fault.options.get("location", "http://127.0.0.1:9/elsewhere")})


def _duplicate_page(_: Fault, request: Request, respond: Respond) -> Reply:
    return respond(request.first_page())


def _delay(fault: Fault, request: Request, respond: Respond) -> Reply:
    time.sleep(fault.options.get("seconds", 1.0))
    return respond(request)


def _stale_page(_: Fault, request: Request, respond: Respond) -> Reply:
    request.stale = True
    return respond(request)


KINDS: dict[str, Callable[[Fault, Request, Respond], Reply]] = {
    "refused": _silent("refused"),
    "reset": _silent("reset"),
    "hang": _silent("hang"),
    "timeout": _silent("hang"),
    "trickle": _sent("trickle"),
    "cut": _sent("cut"),
    "lost_answer": _sent("reset"),
    "short": _replaced(lambda body: body[: len(body) * 2 // 3]),
    "empty": _replaced(lambda _: b""),
    "wrong_type": _replaced(_wrong_type),
    "[]": _replaced(lambda _: b"[]"),
    "{}": _replaced(lambda _: b"{}"),
    "html": _replaced(lambda _: b"<html><body>maintenance</body></html>"),
    "redirect": _redirect,
    "duplicate_page": _duplicate_page,
    "stale_page": _stale_page,
    "delay": _delay,
}
