"""HTTP: time, retries, single sending, true 404s, and silence about the keys."""

from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ghostclean.adapters.alpaca import transport as alpaca_transport
from ghostclean.adapters.alpaca.paging import NotFound
from ghostclean.adapters.alpaca.transport import AlpacaTransport
from ghostclean.app.deadline import Deadline
from ghostclean.errors import AnswerLost, BadSettings, BrokerError, Cause, DeadlineExceeded, Refused
from ghostclean.places import api_url
from tests.fakebroker import FakeBroker
from tests.timing import SLACK

KEY, SECRET = "PKSENTINELKEY00001", "sentinel/Secret+0000000000000000002"
USED_UP = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1999999999"}
ORDER = "11111111-2222-4333-8444-555555555555"


class Sleeper:
    """Stands in for time.sleep and remembers what was asked."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def door(
    url: str, left: float | Callable[[], float] = 20.0, sleep: Callable[[float], None] | None = None
) -> AlpacaTransport:
    time_left = left if callable(left) else lambda: left
    return AlpacaTransport(url, KEY, SECRET, time_left=time_left, sleep=sleep or Sleeper())


def until(seconds: float) -> Callable[[], float]:
    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker(key=KEY, secret=SECRET) as broker:
        yield broker


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """A server that hands every connection, its request read, to a function."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(handle: Callable[[socket.socket], None]) -> str:
        def one(connection: socket.socket) -> None:
            with connection:
                connection.recv(65536)
                with suppress(OSError):
                    handle(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    listener.close()


def answer(status: int, body: bytes | dict[str, Any], **headers: str) -> Callable[[socket.socket], None]:
    """One fixed HTTP answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda connection: connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


# --------------------------------------------------------------------------- what is refused at the start


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.alpaca.markets", "https://api.alpaca.markets"),
        ("https://paper-api.alpaca.markets/v2/", "https://paper-api.alpaca.markets"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://localhost:1/fake", "http://localhost:1/fake"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_a_good_base_url_is_kept_without_its_tail(url: str, base: str) -> None:
    assert api_url(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "http://api.alpaca.markets",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "api.alpaca.markets",
        "",
        "https://",
        "https://user:pw@api.alpaca.markets",
        "https://api.alpaca.markets?x=1",
        "https://api.alpaca.markets:99999",
        "http://[::1",
    ],
)
def test_a_base_url_that_could_leak_keys_is_refused(url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        door(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "with blank", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused_without_being_named(key: str) -> None:
    with pytest.raises(BadSettings) as caught:
        AlpacaTransport("http://127.0.0.1:1", KEY, key, time_left=lambda: 1.0)
    assert not key or key not in str(caught.value)


# --------------------------------------------------------------------------- reads and retries


@pytest.mark.parametrize("kind", [408, 429, 500, 502, 503, 504, "refused", "reset", "empty", "short", "cut", "html"])
def test_a_read_gets_over_two_bad_answers(fake: FakeBroker, kind: str | int) -> None:
    fault = fake.fault("*", kind, times=2)
    assert door(fake.url).get("/positions") == []
    assert fault.hits == 2


@pytest.mark.parametrize("kind", [408, 429, 500, 502, 503, 504, "reset", "empty", "short", "cut", "html"])
def test_a_read_is_tried_three_times_and_no_more(fake: FakeBroker, kind: str | int) -> None:
    fault = fake.fault("*", kind)
    with pytest.raises(BrokerError) as caught:
        door(fake.url).get("/positions")
    assert fault.hits == 3
    assert caught.value.transient
    assert "\n" not in str(caught.value)
    assert "GET /v2/positions" in str(caught.value)


@pytest.mark.parametrize("kind", [400, 401, 403, 405, 410, 422, "redirect"])
def test_a_definite_answer_is_not_asked_for_again(fake: FakeBroker, kind: str | int) -> None:
    fault = fake.fault("*", kind)
    with pytest.raises(BrokerError) as caught:
        door(fake.url).get("/positions")
    assert fault.hits == 1
    assert not caught.value.transient
    assert not isinstance(caught.value, NotFound | Refused)
    assert caught.value.status == (302 if kind == "redirect" else kind)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (401, Cause.KEYS), (403, Cause.KEYS), (429, Cause.RATE), (500, Cause.DOWN), (503, Cause.DOWN),
        ("refused", Cause.NETWORK), ("reset", Cause.NETWORK), ("cut", Cause.NETWORK),
        ("html", Cause.WRONG), ("short", Cause.WRONG), ("redirect", Cause.WRONG), (410, Cause.WRONG),
    ],
)  # fmt: skip
def test_a_failure_says_which_it_is(fake: FakeBroker, kind: str | int, cause: Cause) -> None:
    fake.fault("*", kind)
    with pytest.raises(BrokerError) as caught:
        door(fake.url).get("/positions")
    assert caught.value.cause is cause
    assert caught.value.line == f"{cause.said} ({caught.value})"
    assert ("tries again" in caught.value.cure) is cause.passes


def test_a_name_that_nobody_knows_is_no_network() -> None:
    with pytest.raises(BrokerError) as caught:
        door("https://broker.invalid").get("/positions")
    assert caught.value.cause is Cause.NETWORK


def test_the_request_id_stands_in_the_message(raw_server: Any) -> None:
    url = raw_server(answer(422, {"code": 40010001, "message": "limit must be positive"}, X_Request_ID="abc123"))
    with pytest.raises(BrokerError, match=r"HTTP 422, 40010001 limit must be positive, request abc123"):
        door(url).get("/orders")


def test_redirects_are_never_followed(fake: FakeBroker) -> None:
    with FakeBroker() as other:
        fake.fault("*", "redirect", location=f"{other.url}/v2/positions")
        with pytest.raises(BrokerError, match="redirect"):
            door(fake.url).get("/positions")
        assert other.requests == []


def test_waits_grow_and_are_short(fake: FakeBroker) -> None:
    fake.fault("*", 500)
    sleep = Sleeper()
    with pytest.raises(BrokerError):
        door(fake.url, sleep=sleep).get("/clock")
    assert len(sleep.slept) == 2
    assert 0.25 <= sleep.slept[0] <= 0.75
    assert 0.5 <= sleep.slept[1] <= 1.5


def test_nothing_is_asked_when_no_time_is_left(fake: FakeBroker) -> None:
    with pytest.raises(BrokerError, match="no time left"):
        door(fake.url, left=0.0).get("/clock")
    assert fake.requests == []


def test_a_wait_that_does_not_fit_is_not_begun(fake: FakeBroker) -> None:
    fake.fault("*", 500)
    sleep = Sleeper()
    with pytest.raises(BrokerError):
        door(fake.url, left=0.2, sleep=sleep).get("/clock")
    assert sleep.slept == []


# --------------------------------------------------------------------------- rate limits


def test_retry_after_is_honoured(fake: FakeBroker) -> None:
    fake.fault("*", 429, times=1, retry_after=3)
    sleep = Sleeper()
    door(fake.url, sleep=sleep).get("/clock")
    assert sleep.slept == [3.0]


def test_retry_after_may_be_a_date(fake: FakeBroker) -> None:
    fake.now = "2026-11-20T15:00:00Z"
    fake.fault("*", 503, times=1, retry_after="Fri, 20 Nov 2026 15:00:04 GMT")
    sleep = Sleeper()
    door(fake.url, sleep=sleep).get("/clock")
    assert sleep.slept == [pytest.approx(4.05, abs=0.05)]


def test_a_429_waits_for_the_reset_by_the_brokers_clock(fake: FakeBroker) -> None:
    fake.now = "2026-11-20T15:00:52Z"
    fake.fault("*", 429, times=1, headers={"X-RateLimit-Remaining": "0"})
    sleep = Sleeper()
    transport = door(fake.url, sleep=sleep)
    transport.get("/clock")
    assert sleep.slept[0] == pytest.approx(8.05, abs=0.05)


def test_a_429_with_rate_left_is_a_short_wait(fake: FakeBroker) -> None:
    fake.now = "2026-11-20T15:00:01Z"
    fake.fault("*", 429, times=1)
    sleep = Sleeper()
    door(fake.url, sleep=sleep).get("/clock")
    assert len(sleep.slept) == 1
    assert sleep.slept[0] < 1


@pytest.mark.parametrize("options", [{"retry_after": 30}, {"headers": USED_UP}])
def test_a_429_that_lasts_longer_than_we_may_fails_at_once(fake: FakeBroker, options: dict[str, Any]) -> None:
    fault = fake.fault("*", 429, **options)
    sleep = Sleeper()
    with pytest.raises(BrokerError, match="rate limit") as caught:
        door(fake.url, sleep=sleep).get("/clock")
    assert (fault.hits, sleep.slept, caught.value.status) == (1, [], 429)


def test_reads_slow_down_when_little_of_the_rate_is_left(fake: FakeBroker) -> None:
    fake.quirks.rate_limit = 22
    fake.now = "2026-11-20T15:00:30Z"
    sleep = Sleeper()
    transport = door(fake.url, sleep=sleep)
    for _ in range(3):
        transport.get("/clock")
    assert sleep.slept == []
    transport.get("/clock")
    assert len(sleep.slept) == 1
    assert 0 < sleep.slept[0] <= 1.0


# --------------------------------------------------------------------------- time


@pytest.mark.parametrize("kind", ["hang", "trickle"])
def test_a_read_ends_in_its_time(fake: FakeBroker, kind: str) -> None:
    fake.fault("*", kind, interval=0.05)
    start = time.monotonic()
    with pytest.raises(BrokerError, match="no complete answer"):
        door(fake.url, left=until(0.5)).get("/account")
    assert time.monotonic() - start < 0.5 + SLACK


def _trickled_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.02)


def _half_a_body(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{"a": ')
    time.sleep(20)


def test_a_body_that_stops_ends_in_time(raw_server: Any) -> None:
    start = time.monotonic()
    with pytest.raises(BrokerError, match="no complete answer"):
        door(raw_server(_half_a_body), left=until(0.5)).get("/account")
    assert time.monotonic() - start < 0.5 + SLACK


@pytest.mark.parametrize("kind", ["headers", "body", "name"])
def test_what_no_time_out_of_a_socket_ends_is_abandoned_at_the_deadline(
    raw_server: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    url = raw_server(_half_a_body if kind == "body" else _trickled_headers)
    if kind == "name":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(20))
        url = "https://paper-api.alpaca.markets"
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.4 s"):
        Deadline(1.0).within(lambda: AlpacaTransport(url, KEY, SECRET).get("/account"), 0.4)
    assert time.monotonic() - start < 0.4 + SLACK


def test_a_body_that_does_not_end_is_given_up(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_transport, "_BODY_CAP", 100)
    with pytest.raises(BrokerError, match="larger than"):
        door(fake.url).get("/account")


def test_now_is_the_brokers_and_runs_on() -> None:
    clock = [100.0]
    with FakeBroker("2026-11-20T15:10:00.700Z") as fake:
        transport = AlpacaTransport(fake.url, KEY, SECRET, time_left=lambda: 9.0, monotonic=lambda: clock[0])
        assert abs(transport.now() - datetime.now(UTC)) < timedelta(seconds=2)
        transport.get("/clock")
        assert transport.now() == datetime(2026, 11, 20, 15, 10, tzinfo=UTC)
        clock[0] += 2.5
        assert transport.now() == datetime(2026, 11, 20, 15, 10, 2, 500000, tzinfo=UTC)
        fake.now = "2026-11-20T15:10:02.900Z"
        transport.get("/clock")
        assert transport.now() == datetime(2026, 11, 20, 15, 10, 2, 500000, tzinfo=UTC), "never back within a second"
        fake.now = "2026-11-20T14:00:00Z"
        transport.get("/clock")
        assert transport.now() == datetime(2026, 11, 20, 14, tzinfo=UTC)


# --------------------------------------------------------------------------- what a 404 means

TRUE_404 = [
    {"code": 40410000, "message": "order not found for 1"},
    {"code": "40410000", "message": "resource missing"},
    {"message": "position does not exist"},
    {"message": "Asset FOO not found"},
    {"message": "order doesn't exist"},
    {"message": "no such order"},
    {"message": "could not find order 1"},
]
OTHER_404: list[Any] = [
    b"<html>404</html>",
    b"",
    b"[]",
    b'"order not found"',
    {"message": "Not Found"},
    {"code": 40410000, "message": "endpoint not found."},
    {"error": "no route matched", "code": 5},
]


@pytest.mark.parametrize("body", TRUE_404)
def test_the_brokers_own_404_is_a_true_one(raw_server: Any, body: Any) -> None:
    with pytest.raises(NotFound) as caught:
        door(raw_server(answer(404, body))).get(f"/orders/{ORDER}")
    assert caught.value.status == 404


@pytest.mark.parametrize("body", OTHER_404)
def test_any_other_404_is_just_an_error(raw_server: Any, body: Any) -> None:
    with pytest.raises(BrokerError) as caught:
        door(raw_server(answer(404, body))).get(f"/orders/{ORDER}")
    assert not isinstance(caught.value, NotFound)


@pytest.mark.parametrize("status", [201, 202, 206, 299])
def test_a_read_answers_200_and_nothing_else(raw_server: Any, status: int) -> None:
    with pytest.raises(BrokerError):
        door(raw_server(answer(status, b"[]"))).get("/positions")


def test_a_byte_order_mark_is_no_part_of_the_answer(raw_server: Any) -> None:
    assert door(raw_server(answer(200, b"\xef\xbb\xbf[]\r\n"))).get("/positions") == []


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"\xff\xfe[]", b"[" * 100_000])
def test_what_only_looks_like_json_is_unreadable(raw_server: Any, body: bytes) -> None:
    with pytest.raises(BrokerError, match="no complete JSON"):
        door(raw_server(answer(200, body))).get("/positions")


# --------------------------------------------------------------------------- writes


def write(transport: AlpacaTransport, method: str) -> Any:
    if method == "POST":
        return transport.post("/orders", {"symbol": "AAPL"})
    if method == "PATCH":
        return transport.patch(f"/orders/{ORDER}", {"qty": "1"})
    return transport.delete(f"/orders/{ORDER}")


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("kind", [408, 500, 502, 503, 504, "lost_answer", "reset", "refused", "redirect"])
def test_an_unknown_outcome_of_a_write_is_an_answer_lost_and_sent_once(
    fake: FakeBroker, method: str, kind: str | int
) -> None:
    fault = fake.fault("*", kind)
    sleep = Sleeper()
    with pytest.raises(AnswerLost):
        write(door(fake.url, sleep=sleep), method)
    assert (fault.hits, len(fake.requests), sleep.slept) == (1, 1, [])


@pytest.mark.parametrize("kind", ["empty", "short", "html", "cut"])
def test_an_unreadable_answer_to_an_order_is_an_answer_lost(fake: FakeBroker, kind: str) -> None:
    fake.fault("*", kind)
    with pytest.raises(AnswerLost):
        write(door(fake.url), "POST")
    assert len(fake.requests) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_write_that_hangs_is_lost_in_time(fake: FakeBroker, method: str) -> None:
    fake.fault("*", "hang")
    start = time.monotonic()
    with pytest.raises(AnswerLost):
        write(door(fake.url, left=until(0.4)), method)
    assert time.monotonic() - start < 0.4 + SLACK
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("method", "status"),
    [("POST", 403), ("POST", 409), ("POST", 422), ("PATCH", 404), ("DELETE", 404)],
)
def test_a_business_refusal_brings_the_body(raw_server: Any, method: str, status: int) -> None:
    body = {"code": 40310000, "message": "insufficient qty available", "available": "0"}
    with pytest.raises(Refused, match="insufficient qty") as caught:
        write(door(raw_server(answer(status, body))), method)
    assert caught.value.status == status
    assert caught.value.body == body


@pytest.mark.parametrize("status", [400, 401, 404, 429])
def test_an_order_turned_away_at_the_door_was_not_placed(raw_server: Any, status: int) -> None:
    with pytest.raises(BrokerError) as caught:
        write(door(raw_server(answer(status, {"message": "no"}))), "POST")
    assert type(caught.value) is BrokerError
    assert caught.value.transient == (status == 429)


def test_a_connection_that_is_never_made_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*_: Any, **__: Any) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib3.util.connection.create_connection", too_slow)
    with pytest.raises(BrokerError, match="cannot connect") as caught:
        write(door("http://127.0.0.1:9"), "POST")
    assert not isinstance(caught.value, AnswerLost)


def test_without_a_connection_nothing_was_sent() -> None:
    with FakeBroker() as fake:
        url = fake.url
    with pytest.raises(BrokerError, match="cannot connect to 127") as caught:
        write(door(url), "POST")
    assert not isinstance(caught.value, AnswerLost)
    with pytest.raises(BrokerError, match="no time left") as caught:
        write(door(url, left=0), "POST")
    assert not isinstance(caught.value, AnswerLost)


@pytest.mark.parametrize("status", [200, 204])
def test_a_cancel_accepted_without_body_is_none(raw_server: Any, status: int) -> None:
    assert write(door(raw_server(answer(status, b""))), "DELETE") is None


# --------------------------------------------------------------------------- secrets and hosts


def everything_said(error: BaseException) -> str:
    return f"{error}{error!r}{getattr(error, 'body', '')}" + "".join(traceback.format_exception(error))


ECHOES: list[tuple[int, Any]] = [
    (401, {"message": f"key {KEY} and {SECRET} are wrong"}),
    (403, {"code": 40310000, "message": f"\x1b[31m{SECRET}\n{KEY}", "seen": [{SECRET: KEY}]}),
    (422, {"message": "x" * 280 + SECRET}),
    (404, {"code": 40410000, "message": f"order {SECRET} not found"}),
    (500, f"plain {KEY} text {SECRET}".encode()),
    (500, b" " * (4096 - 10) + SECRET.encode()),
    (200, f"not json {KEY} {SECRET}".encode()),
    (302, SECRET.encode()),
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("status", "body"), ECHOES)
def test_no_key_stands_in_any_error(raw_server: Any, method: str, status: int, body: Any) -> None:
    transport = door(raw_server(answer(status, body, X_Request_ID=KEY)))
    with pytest.raises(BrokerError) as caught:
        transport.get("/account") if method == "GET" else write(transport, method)
    said = everything_said(caught.value)
    for part in (KEY, SECRET, SECRET[:10], KEY[:10], "\x1b"):
        assert part not in said
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) <= 400
    assert KEY not in repr(transport)
    assert SECRET not in repr(transport)


def test_keys_travel_in_headers_only(fake: FakeBroker) -> None:
    door(fake.url).get("/account")
    (request,) = fake.requests
    assert request.headers["APCA-API-KEY-ID"] == KEY
    assert SECRET not in json.dumps(request.query)


def test_a_server_without_trusted_tls_is_refused_at_once(fake: FakeBroker) -> None:
    sleep = Sleeper()
    with pytest.raises(BrokerError, match="no trusted TLS") as caught:
        door(fake.url.replace("http:", "https:"), sleep=sleep).get("/account")
    assert not caught.value.transient
    assert caught.value.cause is Cause.TLS
    assert sleep.slept == []


def test_plain_http_goes_past_a_proxy(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert door(fake.url).get("/positions") == []
