"""The fake broker on the wire: headers, faults, hooks, the log, and its answers against the official document."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.fakebroker import Delay, FakeBroker
from tests.fakebroker.validate import SPEC, problems
from tests.program import ROOT
from tests.timing import SLACK

OPEN = "2026-11-18T15:00:00Z"
BRACKET = {"order_class": "bracket", "take_profit": {"limit_price": "200"}, "stop_loss": {"stop_price": "170"}}
BUY = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    """A broker that listens, on a Wednesday morning."""
    with FakeBroker(OPEN) as broker:
        yield broker


def send(
    broker: FakeBroker,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    wait: float = 2,
    **query: str,
) -> tuple[int, Any, dict[str, str]]:
    """Send one request on a new connection; the body comes parsed if it can be."""
    target = path + ("?" + urlencode(query) if query else "")
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(broker.url).port or 0, timeout=wait)
    try:
        connection.request(method, target, None if body is None else json.dumps(body), headers or {})
        answer = connection.getresponse()
        raw = answer.read()
        kind = answer.headers.get("Content-Type") or ""
        try:
            parsed = json.loads(raw) if raw and "json" in kind else raw.decode() or None
        except ValueError:
            parsed = raw.decode()
        return answer.status, parsed, dict(answer.headers)
    finally:
        connection.close()


class TestAnswersFollowTheDocument:
    def test_every_endpoint(self, broker: FakeBroker) -> None:
        """Drive every documented endpoint through a busy account and check each answer."""
        broker.set_price("AAPL", 180)
        broker.set_price("MSFT", 400)
        entry = broker.open_trade("AAPL", 10, 180, bracket=(200, 170))
        broker.open_trade("BTC/USD", "0.5", 60000)
        broker.open_trade("AAPL261218C00250000", 2, "3.5")
        broker.open_trade("TSLA", 3, 300, side="sell")
        broker.submit(symbol="MSFT", notional=100, side="buy", type="market", time_in_force="day")
        broker.activity("OPEXP", symbol="AAPL261218C00250000", qty="-2")
        legs = [
            {"symbol": "AAPL261218C00250000", "side": "buy", "ratio_qty": "1"},
            {"symbol": "AAPL261218C00260000", "side": "sell", "ratio_qty": "1"},
        ]
        spread = {"order_class": "mleg", "qty": "1", "type": "limit", "limit_price": "1", "time_in_force": "day"}
        resting = broker.submit(**BUY | {"symbol": "MSFT", "type": "limit", "limit_price": "350"})
        stop = broker.legs(entry)[1]
        calls: list[tuple[str, str, Any, int]] = [
            ("GET", "/v2/account", None, 200),
            ("GET", "/v2/clock", None, 200),
            ("GET", "/v2/calendar?start=2026-11-16&end=2026-12-31", None, 200),
            ("GET", "/v2/assets/AAPL", None, 200),
            ("GET", "/v2/assets/BTC/USD", None, 200),
            ("GET", "/v2/positions", None, 200),
            ("GET", "/v2/positions/TSLA", None, 200),
            ("GET", "/v2/positions/NONE", None, 404),
            ("POST", "/v2/orders", BUY, 403),
            ("POST", "/v2/orders", BUY | BRACKET | {"symbol": "NFLX"}, 200),
            ("POST", "/v2/orders", spread | {"legs": legs}, 200),
            ("POST", "/v2/orders", {"symbol": "AAPL"}, 422),
            ("PATCH", f"/v2/orders/{stop['id']}", {"stop_price": "171"}, 200),
            ("PATCH", f"/v2/orders/{stop['id']}", {"stop_price": "172"}, 422),
            ("DELETE", f"/v2/orders/{resting['id']}", None, 204),
            ("DELETE", f"/v2/orders/{resting['id']}", None, 422),
            ("GET", f"/v2/orders/{entry['id']}?nested=true", None, 200),
            ("GET", f"/v2/orders:by_client_order_id?client_order_id={entry['client_order_id']}", None, 200),
            ("GET", "/v2/orders/nonsense", None, 422),
            ("GET", "/v2/orders?limit=501", None, 422),
            ("GET", "/v2/orders?status=all&nested=true&limit=500", None, 200),
            ("GET", "/v2/orders?status=all&limit=500", None, 200),
            ("GET", "/v2/account/activities", None, 200),
            ("GET", "/v2/account/activities/FILL", None, 200),
            ("DELETE", "/v2/positions/TSLA", None, 200),
            ("DELETE", "/v2/positions?cancel_orders=true", None, 207),
            ("DELETE", "/v2/orders", None, 207),
        ]
        for method, path, body, expected in calls:
            status, answer, _ = send(broker, method, path, body)
            assert status == expected, (path, answer)
            assert problems(method, path.split("?")[0].replace("BTC/USD", "BTCUSD"), status, answer) == []

    def test_the_check_can_fail(self) -> None:
        order = FakeBroker(OPEN).add_order("AAPL")
        assert problems("GET", "/v2/orders", 200, [order]) == []
        assert problems("GET", "/v2/orders", 200, [order | {"qty": 10}])
        assert problems("GET", "/v2/orders", 200, [order | {"status": "teleported"}])
        assert problems("GET", "/v2/orders", 200, [order | {"filled_at": "noon"}])
        assert problems("GET", "/v2/orders/1", 404, {"message": "no code"})
        with pytest.raises(LookupError):
            problems("GET", "/v2/watchlists", 200, [])

    def test_the_copy_of_the_document_stays_small(self) -> None:
        assert SPEC.stat().st_size < 120_000


class TestHeaders:
    def test_date_follows_the_simulated_clock(self, broker: FakeBroker) -> None:
        broker.now = "2026-11-18T15:00:59.999999Z"
        assert send(broker, "GET", "/v2/clock")[2]["Date"] == "Wed, 18 Nov 2026 15:00:59 GMT"

    def test_request_ids_differ_and_the_rate_counts_down(self, broker: FakeBroker) -> None:
        first, second = (send(broker, "GET", "/v2/clock")[2] for _ in range(2))
        assert first["X-Request-ID"] != second["X-Request-ID"]
        assert (first["X-RateLimit-Remaining"], second["X-RateLimit-Remaining"]) == ("199", "198")
        assert int(first["X-RateLimit-Reset"]) == int(broker.now.timestamp()) + 60

    def test_the_rate_limit_can_bite_for_a_minute(self, broker: FakeBroker) -> None:
        broker.quirks.rate_limit, broker.quirks.enforce_rate_limit = 2, True
        assert [send(broker, "GET", "/v2/clock")[0] for _ in range(3)] == [200, 200, 429]
        broker.advance(60)
        assert send(broker, "GET", "/v2/clock")[0] == 200

    def test_credentials(self) -> None:
        with FakeBroker(OPEN, key="K", secret="S") as broker:
            right = {"APCA-API-KEY-ID": "K", "APCA-API-SECRET-KEY": "S"}
            assert send(broker, "GET", "/v2/clock", headers=right)[0] == 200
            wrong = send(broker, "POST", "/v2/orders", BUY, right | {"APCA-API-SECRET-KEY": "T"})
            assert (wrong[0], wrong[1]["code"]) == (401, 40110000)
            missing = send(broker, "GET", "/v2/clock", headers={"APCA-API-KEY-ID": "K"})
            assert missing[:2] == (403, {"message": "forbidden."})
            assert broker.orders == {}


class TestMarketData:
    def test_stocks_coins_and_options(self, broker: FakeBroker) -> None:
        broker.set_price("AAPL", 180, bid=0, ask="180.1", at="2026-11-18T14:59:30.5Z")
        broker.set_price("BTC/USD", 60000)
        trades = send(broker, "GET", "/v2/stocks/trades/latest", symbols="AAPL,NONE", feed="iex")[1]["trades"]
        assert list(trades) == ["AAPL"]
        assert (trades["AAPL"]["p"], trades["AAPL"]["t"]) == (180, "2026-11-18T14:59:30.5Z")
        quote = send(broker, "GET", "/v2/stocks/quotes/latest", symbols="AAPL")[1]["quotes"]["AAPL"]
        assert (quote["bp"], quote["ap"]) == (0, 180.1)
        coins = send(broker, "GET", "/v1beta3/crypto/us/latest/trades", symbols="BTC/USD")[1]
        assert coins["trades"]["BTC/USD"]["p"] == 60000
        assert send(broker, "GET", "/v1beta3/crypto/us/latest/trades", symbols="BTCUSD")[0] == 400
        assert send(broker, "GET", "/v2/stocks/trades/latest", symbols="BTC/USD")[0] == 400
        book = send(broker, "GET", "/v1beta3/crypto/us/latest/orderbooks", symbols="BTC/USD")[1]["orderbooks"]
        assert book["BTC/USD"]["a"] == [{"p": 60000, "s": 1}]

    def test_no_trade_is_no_row(self, broker: FakeBroker) -> None:
        broker.set_price("AAPL", None, bid=1, ask=2)
        assert send(broker, "GET", "/v2/stocks/trades/latest", symbols="AAPL")[1] == {"trades": {}}
        assert send(broker, "GET", "/v2/stocks/AAPL/trades/latest")[0] == 404


class TestFaults:
    @pytest.mark.parametrize(
        ("kind", "error"), [("refused", http.client.RemoteDisconnected), ("reset", ConnectionResetError)]
    )
    def test_connections_that_end(self, broker: FakeBroker, kind: str, error: type[Exception]) -> None:
        broker.fault("submit", kind)
        with pytest.raises(error):
            send(broker, "POST", "/v2/orders", BUY)
        assert broker.orders == {}
        assert send(broker, "GET", "/v2/account")[0] == 200

    @pytest.mark.parametrize("kind", ["hang", "timeout"])
    def test_a_hang_says_nothing_and_does_not_stop_the_end(self, broker: FakeBroker, kind: str) -> None:
        broker.fault("account", kind)
        with pytest.raises(TimeoutError):
            send(broker, "GET", "/v2/account", wait=0.1)
        with socket.create_connection(("127.0.0.1", urlsplit(broker.url).port or 0)) as idle:
            idle.sendall(b"GET /v2/account HTTP/1.1\r\nHost: x\r\n\r\n")
            started = time.monotonic()
            broker.stop()
            assert time.monotonic() - started < SLACK

    def test_a_trickle_outlasts_a_read_timeout(self, broker: FakeBroker) -> None:
        broker.fault("clock", "trickle", interval=0.006)
        started = time.monotonic()
        status, body, _ = send(broker, "GET", "/v2/clock", wait=0.2)
        assert status == 200
        assert body["is_open"]
        assert time.monotonic() - started > 0.5

    @pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504])
    def test_statuses_have_no_effect(self, broker: FakeBroker, status: int) -> None:
        broker.fault("submit", status, times=1)
        answered, body, headers = send(broker, "POST", "/v2/orders", BUY)
        assert answered == status
        assert ("html" in headers["Content-Type"]) == (status >= 502)
        assert body
        assert broker.orders == {}
        assert "Retry-After" not in headers
        assert send(broker, "POST", "/v2/orders", BUY)[0] == 200

    def test_retry_after_and_own_bodies(self, broker: FakeBroker) -> None:
        broker.fault("clock", "429", retry_after=3, body={"message": "slow down"})
        status, body, headers = send(broker, "GET", "/v2/clock")
        assert (status, body, headers["Retry-After"]) == (429, {"message": "slow down"}, "3")

    def test_cut_breaks_the_promise_of_the_header_and_short_keeps_it(self, broker: FakeBroker) -> None:
        broker.fault("clock", "cut", times=1)
        with pytest.raises(http.client.IncompleteRead):
            send(broker, "GET", "/v2/clock")
        broker.fault("clock", "short")
        status, body, _ = send(broker, "GET", "/v2/clock")
        assert status == 200
        assert isinstance(body, str)

    @pytest.mark.parametrize(
        ("kind", "options", "expected"),
        [
            ("empty", {}, None),
            ("[]", {}, []),
            ("{}", {}, {}),
            ("wrong_type", {}, {}),
            ("wrong_type", {"value": "str"}, "str"),
            ("wrong_type", {"value": 7}, 7),
            ("html", {}, "<html><body>maintenance</body></html>"),
        ],
    )
    def test_bodies_of_the_wrong_kind(self, broker: FakeBroker, kind: str, options: Any, expected: Any) -> None:
        broker.add_position("AAPL", 10)
        broker.fault("positions", kind, **options)
        assert send(broker, "GET", "/v2/positions")[:2] == (200, expected)

    def test_redirect(self, broker: FakeBroker) -> None:
        broker.fault("account", "redirect", location="http://127.0.0.1:1/x")
        status, _, headers = send(broker, "GET", "/v2/account")
        assert (status, headers["Location"]) == (302, "http://127.0.0.1:1/x")

    def test_the_second_page_alone(self, broker: FakeBroker) -> None:
        made = [broker.add_order("AAPL")["id"] for _ in range(4)]
        fault = broker.fault("orders:2", 500, times=1)
        for _ in range(2):
            assert send(broker, "GET", "/v2/orders", limit="2")[0] == 200
        assert send(broker, "GET", "/v2/orders", limit="2", before_order_id=made[2])[0] == 500
        assert fault.hits == 1
        broker.fault("orders:2", "duplicate_page")
        first = send(broker, "GET", "/v2/orders", limit="2")[1]
        assert send(broker, "GET", "/v2/orders", limit="2", before_order_id=made[2])[1] == first

    def test_a_stale_page_next_to_a_fresh_one(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=10)
        broker.fault("orders", "stale_page")
        broker.fill(order, price=100)
        assert send(broker, "GET", "/v2/orders")[1][0]["status"] == "new"
        assert send(broker, "GET", "/v2/positions")[1][0]["qty"] == "10"

    def test_a_lost_answer_has_taken_effect(self, broker: FakeBroker) -> None:
        broker.fault("submit", "lost_answer", times=1)
        with pytest.raises(ConnectionResetError):
            send(broker, "POST", "/v2/orders", BUY | {"client_order_id": "mine"})
        assert [order["client_order_id"] for order in broker.orders.values()] == ["mine"]
        assert send(broker, "POST", "/v2/orders", BUY | {"client_order_id": "mine"})[0] == 422

    def test_after_times_and_functions(self, broker: FakeBroker) -> None:
        broker.fault(lambda request: request.path == "/v2/clock", 503, times=2, after=1)
        assert [send(broker, "GET", "/v2/clock")[0] for _ in range(5)] == [200, 503, 503, 200, 200]
        broker.fault("*", 500)
        broker.clear_faults()
        assert send(broker, "GET", "/v2/clock")[0] == 200

    def test_a_misspelt_fault_is_an_error(self, broker: FakeBroker) -> None:
        with pytest.raises(ValueError, match="unknown fault"):
            broker.fault("orders", "explode")

    def test_delay_and_offline(self, broker: FakeBroker) -> None:
        broker.fault("clock", "delay", seconds=0.15, times=1)
        started = time.monotonic()
        assert send(broker, "GET", "/v2/clock")[0] == 200
        assert time.monotonic() - started >= 0.15
        with broker.offline(), pytest.raises(ConnectionRefusedError):
            send(broker, "GET", "/v2/clock")
        assert send(broker, "GET", "/v2/clock")[0] == 200


class TestHooksAndLog:
    def test_the_world_changes_between_two_requests(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL", qty=10)
        broker.after_request(1, lambda _: broker.fill(order, price=100))
        assert len(send(broker, "GET", "/v2/orders")[1]) == 1
        assert len(send(broker, "GET", "/v2/positions")[1]) == 1
        assert send(broker, "GET", "/v2/orders")[1] == []

    def test_before_every_request_and_after_a_kind(self, broker: FakeBroker) -> None:
        seen: list[str] = []
        broker.before_request(lambda request: seen.append(request.label))
        broker.after_request("orders", lambda _: seen.append("then"))
        send(broker, "GET", "/v2/orders")
        send(broker, "GET", "/v2/account")
        assert seen == ["orders", "then", "account"]

    def test_the_log(self, broker: FakeBroker) -> None:
        send(broker, "GET", "/v2/orders", status="all")
        broker.advance(5)
        send(broker, "POST", "/v2/orders", BUY)
        first, second = broker.requests
        assert (first.method, first.path, first.query, first.body) == ("GET", "/v2/orders", {"status": "all"}, None)
        assert (second.body, second.status, (second.at - first.at).seconds) == (BUY, 200, 5)
        assert (broker.count("/v2/orders"), broker.count("POST /v2/orders"), broker.count("submit")) == (2, 1, 1)
        broker.reset_log()
        assert broker.count("/") == 0

    def test_cancel_delay_counts_requests_on_the_wire(self, broker: FakeBroker) -> None:
        order = broker.add_order("AAPL")
        broker.quirks.cancel_delay = Delay(requests=2)
        assert send(broker, "DELETE", f"/v2/orders/{order['id']}")[:2] == (204, None)
        statuses = [send(broker, "GET", f"/v2/orders/{order['id']}")[1]["status"] for _ in range(2)]
        assert statuses == ["pending_cancel", "canceled"]

    def test_a_bug_of_the_fake_fails_the_test(self) -> None:
        def hook(_: Any) -> None:
            raise ZeroDivisionError

        broker = FakeBroker(OPEN).start()
        broker.before_request(hook)
        assert send(broker, "GET", "/v2/clock")[0] == 500
        with pytest.raises(ZeroDivisionError):
            broker.__exit__(None, None, None)


class TestSpeedAndSubprocess:
    def test_a_full_page_takes_milliseconds_on_one_connection(self, broker: FakeBroker) -> None:
        for _ in range(700):
            broker.add_order("AAPL")
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(broker.url).port or 0, timeout=5)
        took = []
        for _ in range(5):
            started = time.process_time()
            connection.request("GET", "/v2/orders?limit=500")
            body = connection.getresponse().read()
            took.append(time.process_time() - started)
        connection.close()
        assert len(json.loads(body)) == 500
        assert min(took) < 0.1

    def test_as_a_program(self, tmp_path: Path) -> None:
        script = tmp_path / "world.py"
        script.write_text("broker.open_trade('AAPL', 10, 180)\n", encoding="utf-8")
        command = [sys.executable, "-m", "tests.fakebroker", "--now", OPEN, "--script", str(script)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port or 0, timeout=5)
            connection.request("GET", "/v2/positions")
            (row,) = json.loads(connection.getresponse().read())
            connection.close()
            process.communicate("", timeout=5)
        assert (row["symbol"], process.returncode) == ("AAPL", 0)
