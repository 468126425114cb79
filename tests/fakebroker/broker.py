"""FakeBroker: market, HTTP server, request log, hooks and faults in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from . import api
from .api import Request
from .faults import Fault, Faults, Match, Reply, apply, as_json
from .market import Market
from .quirks import Quirks
from .scenario import Scenario
from .server import Server, http_date
from .shapes import FINAL, Position, Row

Hook = Callable[[Request], object]


class FakeBroker(Scenario):
    """A stateful imitation of Alpaca's Trading API (and latest prices) on `url`.

    `now` freezes the clock (default: real time); with `key` and `secret` the auth headers are checked.
    """

    def __init__(
        self,
        now: datetime | str | None = None,
        *,
        key: str | None = None,
        secret: str | None = None,
        port: int = 0,
        seed: int = 0,
    ) -> None:
        self.market = Market(now, seed)
        self.account: Row = self.market.account_fields
        """Overrides of account fields, as `account["status"] = "ACCOUNT_CLOSED"`; MISSING removes one."""
        self.credentials = None if key is None else (key, secret)
        self.requests: list[Request] = []
        """What was asked since the start or `reset_log()`, in the order of arrival."""
        self.errors: list[Exception] = []
        """Bugs of the fake itself; raised again at the end of the `with` block."""
        self._faults = Faults()
        self._before: list[Hook] = []
        self._after: list[tuple[int | Match, Hook]] = []
        self._pages: dict[tuple[str, str], int] = {}
        self._minute: tuple[int, int] = (0, 0)
        self._port = port
        self._server: Server | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        self._server = Server(self._port, self._answer)
        self._port = self._server.server_port
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.stop()
        if kind is None and self.errors:
            raise self.errors[0]

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Be unreachable while inside: connections are refused; the same port answers afterwards."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @property
    def url(self) -> str:
        """Base URL for trading and data alike; paths begin with /v2, /v1beta1 or /v1beta3."""
        return f"http://127.0.0.1:{self._port}"

    # --- state at a glance ------------------------------------------------------------------------------------------

    @property
    def quirks(self) -> Quirks:
        return self.market.quirks

    @property
    def orders(self) -> dict[str, Row]:
        return self.market.orders

    @property
    def positions(self) -> dict[str, Position]:
        return self.market.positions

    @property
    def cash(self) -> Decimal:
        return self.market.cash

    def working(self, symbol: str | None = None) -> list[Row]:
        """Return the orders that are not final, `held` legs included."""
        return [o for o in self.orders.values() if o["status"] not in FINAL and symbol in (None, o.get("symbol"))]

    # --- log, faults, hooks -----------------------------------------------------------------------------------------

    def count(self, what: str) -> int:
        """Count requests by label ("submit"), or by prefix of the path or of "METHOD /path"."""
        if "/" not in what:
            return sum(request.label == what for request in self.requests)
        return sum(f"{r.method} {r.path}".startswith(what) or r.path.startswith(what) for r in self.requests)

    def reset_log(self) -> None:
        self.requests.clear()

    def fault(self, match: Match, kind: str | int, times: int | None = None, after: int = 0, **options: Any) -> Fault:
        """Plan a fault: for requests that match, the first `after` spared, `times` times (None: for ever)."""
        return self._faults.add(Fault(match, kind, times, after, options))

    def clear_faults(self) -> None:
        self._faults.clear()

    def before_request(self, hook: Hook) -> None:
        """Call a hook before every request is looked at; it may change the world."""
        self._before.append(hook)

    def after_request(self, when: int | Match, hook: Hook) -> None:
        """Call a hook after the n-th request of the log (from 1) or each that matches, before its answer leaves."""
        self._after.append((when, hook))

    # --- answering --------------------------------------------------------------------------------------------------

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any, headers: dict[str, str]) -> Reply:
        request = Request(method, path, query, body, self.now, headers, api.find(method, path)[0])
        try:
            return self._handle(request)
        except Exception as error:  # noqa: BLE001 - kept for the end of the test, where it fails it
            self.errors.append(error)
            return Reply(500, as_json({"message": f"the fake broker broke: {error!r}"}))

    def _handle(self, request: Request) -> Reply:
        with self.market.lock:
            self.market.requests_served += 1
            minute = int(self.now.timestamp()) // 60
            self._minute = (minute, self._minute[1] + 1 if self._minute[0] == minute else 1)
            self._number_page(request)
            self.requests.append(request)
            number = len(self.requests)
        for hook in self._before:
            hook(request)
        self.market.tick()
        fault = self._faults.pick(request)
        reply = self._respond(request) if fault is None else apply(fault, request, self._respond)
        request.status = reply.status if reply.manner in ("whole", "cut", "trickle") else None
        reply.headers = self._headers() | reply.headers
        for when, hook in list(self._after):
            if when == number if isinstance(when, int) else Fault(when, "delay").fits(request):
                hook(request)
        return reply

    def _number_page(self, request: Request) -> None:
        listing = (request.label, request.query.get("status", ""))
        self._pages[listing] = request.page = self._pages.get(listing, 0) + 1 if request.is_next_page else 1

    def _respond(self, request: Request) -> Reply:
        refusal = self._refuse_caller(request)
        status, payload = refusal or api.dispatch(self.market, request)
        return Reply(status, b"" if status == 204 else as_json(payload))

    def _refuse_caller(self, request: Request) -> api.Answer | None:
        """Check credentials and the request rate."""
        if self.credentials is not None:
            given = {name.lower(): value for name, value in request.headers.items()}
            pair = given.get("apca-api-key-id"), given.get("apca-api-secret-key")
            if not all(pair):
                return 403, {"message": "forbidden."}
            if pair != self.credentials:
                return 401, {"code": 40110000, "message": "request is not authorized."}
        if self.quirks.enforce_rate_limit and self._minute[1] > self.quirks.rate_limit:
            return 429, {"code": 42910000, "message": "rate limit exceeded."}
        return None

    def _headers(self) -> dict[str, str]:
        limit, minute, used = self.quirks.rate_limit, *self._minute
        return {
            "Date": http_date(self.now.astimezone(UTC)),
            "X-Request-ID": uuid4().hex,
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(limit - used, 0)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
