"""What a ledger in Redis does when its keys hold something odd, or the server refuses half-way."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis import exceptions

from ghostclean.adapters.ledgers.copy import copy_ledger
from ghostclean.adapters.ledgers.redis import RedisLedger
from ghostclean.adapters.ledgers.redis_key import LedgerKey
from ghostclean.adapters.redis_client import RedisServer
from ghostclean.app.ports import Change, Lease, WriteOutcome
from ghostclean.errors import FencedOff, LedgerFailed
from ghostclean.places import Place
from tests.cli.proxy import RedisProxy
from tests.servers import redis_server

from .conftest import REDISES, Servers, Site, close_site, open_site
from .kits import FreeLease, HashKit, StringKit, free

WRITTEN = WriteOutcome.WRITTEN
A = '{"id":"a","ticker":"AAPL","status":"OPEN"}'
FIVE = [f'{{"id":"t{i}","status":"OPEN"}}' for i in range(5)]
CLOSED: dict[str, Any] = {"status": "CLOSED"}


def closing(ledger: RedisLedger, *ids: str) -> list[Change]:
    found = ledger.get(ids)
    return [Change(i, found[i], CLOSED) for i in ids]


# --------------------------------------------------------------------------- a hash


@pytest.fixture
def kit(site: Site) -> HashKit:
    return HashKit(site)


@pytest.mark.parametrize("kind", ["string", "list", "zset", "hash"])
def test_what_is_no_set_is_no_index(kit: HashKit, kind: str) -> None:
    kit.seed(A)
    client, name = kit.site.client, f"{kit.key}:open"
    {
        "string": lambda: client.set(name, "a"),
        "list": lambda: client.rpush(name, "a"),
        "zset": lambda: client.zadd(name, {"a": 1}),
        "hash": lambda: client.hset(name, "a", "1"),
    }[kind]()
    before = client.dump(name)
    ledger = kit.open(full_scan=lambda: False)
    (trade,) = ledger.read().active
    assert ledger.write([Change("a", trade, CLOSED), Change("n", None, {"id": "n"})], free()) == [WRITTEN, WRITTEN]
    assert json.loads(kit.text("a"))["status"] == "CLOSED"
    assert client.dump(name) == before


def test_what_a_hash_wrote_before_the_lock_was_lost_is_known(kit: HashKit) -> None:
    kit.seed(*FIVE)
    ledger, checks = kit.open(), 0
    changes = closing(ledger, *(f"t{i}" for i in range(5)))

    def lose_it() -> None:
        nonlocal checks
        checks += 1
        lease.lost = checks > 2

    lease, done = FreeLease(spy=lose_it), list[WriteOutcome]()
    with pytest.raises(FencedOff):
        ledger.write(changes, lease, done)
    assert done == [WRITTEN, WRITTEN]
    assert [r["status"] for r in kit.content().values()].count("CLOSED") == 2


def test_fields_whose_name_is_no_text_are_each_reported_and_left_alone(kit: HashKit) -> None:
    kit.seed(A)
    client = kit.site.client
    odd = {b"\xff\xfe": b'{"ticker":"KO","status":"OPEN"}', b"\xff\xfd": b'{"id":null,"status":"OPEN"}', b"\xc3": b"[]"}
    client.hset(kit.key, mapping=odd)
    client.sadd(f"{kit.key}:open", "a", b"\xff\xfe")
    for full_scan, expected in ((True, 3), (False, 1)):
        ledger = kit.open(full_scan=lambda full_scan=full_scan: full_scan)
        view = ledger.read()
        assert [r["id"] for r in view.active] == ["a"]
        assert len(view.strangers) == len(set(view.strangers)) == expected
        assert all("not UTF-8" in stranger for stranger in view.strangers)
        assert "field \\xff\\xfe has a name that is not UTF-8" in view.strangers
    assert view.total == 3  # only the stranger that was read is not counted as a trade
    assert ledger.history(frozenset({"KO"})) == []
    assert ledger.get(["\ufffd\ufffd", "\udcff\udcfe", "\ud800", "a"]).keys() == {"a"}
    assert ledger.write(closing(ledger, "a"), free()) == [WRITTEN]
    assert {field: raw for field, raw in client.hgetall(kit.key).items() if field in odd} == odd


# --------------------------------------------------------------------------- a string


@pytest.mark.parametrize("layout", [StringKit, HashKit])
def test_a_key_that_vanishes_while_it_is_looked_at_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch, layout: type[StringKit]
) -> None:
    kit = layout(site)
    kit.seed(A)
    ledger = kit.open()
    look = LedgerKey.look

    def late(key: LedgerKey, *commands: tuple[str, ...]) -> list[Any]:
        kind, *_ = look(key, *commands)
        kit.drop()
        return [kind, *[None] * (len(commands) - 1)]

    monkeypatch.setattr(LedgerKey, "look", late)
    with pytest.raises(LedgerFailed, match="has gone missing during this run"):
        ledger.read()


@pytest.mark.parametrize("raw", [b"{}", f'{{"trades":[{A}]}}'.encode(), b' \n{"trades":[],"v":1}'], ids=str)
def test_a_string_is_the_array_itself_and_never_an_object(site: Site, raw: bytes) -> None:
    kit = StringKit(site)
    kit.put_raw(raw)
    insert = Change("n", None, {"id": "n"})
    attempts: list[Callable[[RedisLedger], object]] = [
        lambda ledger: ledger.read(),
        lambda ledger: ledger.get(["a"]),
        lambda ledger: ledger.history(frozenset({"AAPL"})),
        lambda ledger: ledger.write([insert], free()),
    ]
    for attempt in attempts:
        with pytest.raises(LedgerFailed, match=r"an object, which only a ledger in a file may be.*Cure: "):
            attempt(kit.open())
    assert kit.raw() == raw


def test_a_string_with_an_object_is_not_migrated(servers: Servers, tmp_path: Any) -> None:
    site = open_site(next(name for name in REDISES if name != "fake"), servers)
    kit = StringKit(site)
    kit.put_raw(f'{{"trades":[{A}]}}'.encode())
    target = Place("file", str(tmp_path / "copy.json"))
    with pytest.raises(LedgerFailed, match="an object, which only a ledger in a file may be"):
        copy_ledger(Place("redis", site.url, kit.key), target, layout=None, dry_run=False)
    assert not list(tmp_path.iterdir())
    close_site(site)


# --------------------------------------------------------------------------- what a server says, and the cure


@pytest.fixture(scope="module", params=[name for name in REDISES if name not in ("fake", "env")])
def own_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server for tests that change its settings."""
    try:
        with redis_server(request.param) as url:
            yield url
    except KeyError:
        pytest.skip(f"no {request.param} server on this machine")


@contextmanager
def changed(url: str, *commands: tuple[str, ...], back: tuple[str, ...]) -> Iterator[None]:
    with redis.Redis.from_url(url) as client:
        for command in commands:
            client.execute_command(*command)
        try:
            yield
        finally:
            client.execute_command(*back)


def refusal(url: str, trade: dict[str, Any], lease: Lease | None = None) -> str:
    with pytest.raises(LedgerFailed) as caught:
        RedisLedger(RedisServer(url), "k").write([Change("a", trade, CLOSED)], lease or free())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("size", [10, 100_000], ids=["by script", "by transaction"])
@pytest.mark.parametrize("layout", ["string", "hash"])
def test_the_cure_fits_what_the_server_refused(own_server: str, layout: str, size: int) -> None:
    trade = {"id": "a", "status": "OPEN", "pad": "x" * size}
    with redis.Redis.from_url(own_server) as client:
        client.flushall()
        text = json.dumps(trade)
        _ = client.set("k", f"[{text}]") if layout == "string" else client.hset("k", "a", text)
    with changed(own_server, ("CONFIG", "SET", "maxmemory", "1"), back=("CONFIG", "SET", "maxmemory", "0")):
        assert "the server is out of memory; " in (said := refusal(own_server, trade))
        assert said.endswith("Cure: free memory or raise maxmemory.")
    replica = ("REPLICAOF", "127.0.0.1", "1")
    with changed(own_server, replica, back=("REPLICAOF", "NO", "ONE")):
        assert "is a read-only replica; " in (said := refusal(own_server, trade))
        assert said.endswith("Cure: use the URL of the primary.")
    user = ("ACL", "SETUSER", "bob", "reset", "on", ">pw", "allkeys", "+@all", "-set", "-hset")
    with changed(own_server, user, back=("ACL", "DELUSER", "bob")):
        said = refusal(own_server.replace("redis://", "redis://bob:pw@"), trade)
        assert f"the user of the URL lacks a permission ({'HSET' if layout == 'hash' else 'SET'} on k" in said
        assert said.endswith("Cure: allow it the key and the command in the ACL.")


PIECES = {
    "a long string": ["watch", "strlen", "getrange", "get", "multi", "set", "exec"],
    "a string": ["eval", "get", "set"],
    "a hash": ["eval", "get", "hget", "hset", "type"],
}


@pytest.mark.parametrize(("layout", "piece"), [(name, piece) for name in PIECES for piece in PIECES[name]])
def test_a_refused_piece_of_the_guard_means_that_nothing_is_sent(own_server: str, layout: str, piece: str) -> None:
    trade = {"id": "a", "status": "OPEN", "pad": "x" * (100_000 if "long" in layout else 10)}
    lease = FreeLease("7:me", RedisServer(own_server).place, "lock")
    change = [Change("a", trade, CLOSED)]
    with redis.Redis.from_url(own_server) as client:
        client.flushall()
        client.set("lock", "7:me")
        text = json.dumps(trade)
        _ = client.hset("k", "a", text) if layout == "a hash" else client.set("k", f"[{text}]")
        if layout == "a hash":
            client.sadd("k:open", "a")
        before = [client.dump(key) for key in ("k", "k:open")]
        url = own_server.replace("redis://", "redis://bob:pw@")
        ledger = RedisLedger(RedisServer(url, client=RedisServer(url).client), "k")
        ledger._key.server.place = lease.redis_place or ""
        everything = ("ACL", "SETUSER", "bob", "reset", "on", ">pw", "allkeys", "+@all")
        with changed(own_server, everything, back=("ACL", "DELUSER", "bob")):
            ledger.read()
            client.execute_command("ACL", "SETUSER", "bob", f"-{piece}")
            with pytest.raises(LedgerFailed) as caught:
                ledger.write(change, lease)
            assert re.search(rf"lacks a permission \({piece.upper()}( on (k|lock)\b.*)?\); nothing", str(caught.value))
            assert "may or may not" not in str(caught.value)
            assert [client.dump(key) for key in ("k", "k:open")] == before
            client.execute_command(*everything)
            assert ledger.write(change, lease) == [WRITTEN]  # the connection serves again


@pytest.mark.parametrize("piece", ["MULTI", "WATCH", "EXEC", "EVAL"])
def test_a_renamed_piece_of_the_guard_means_that_nothing_is_sent(piece: str) -> None:
    size = 10 if piece == "EVAL" else 100_000
    trade = {"id": "a", "status": "OPEN", "pad": "x" * size}
    with redis_server(None, "--rename-command", piece, "") as url, redis.Redis.from_url(url) as client:
        client.set("k", json.dumps([trade]))
        assert "lacks a command" in (said := refusal(url, trade))
        assert "may or may not" not in said
        assert json.loads(client.get("k")) == [trade]


def test_only_keys_that_are_used_need_to_be_allowed(own_server: str) -> None:
    url = own_server.replace("redis://", "redis://bob:pw@")
    for layout in ("string", "hash"):
        with redis.Redis.from_url(own_server) as client:
            client.flushall()
            _ = client.set("k", f"[{A}]") if layout == "string" else client.hset("k", "a", A)
        keys = ("~k",) if layout == "string" else ("~k", "%R~k:open")
        user = ("ACL", "SETUSER", "bob", "reset", "on", ">pw", *keys, "+@all")
        with changed(own_server, user, back=("ACL", "DELUSER", "bob")):
            ledger = RedisLedger(RedisServer(url), "k")
            assert ledger.read().total == 1
            assert ledger.write(closing(ledger, "a"), free()) == [WRITTEN]


@pytest.mark.parametrize(
    ("rights", "said"),
    [(("~k", "~k:open", "+@all", "-srem"), "SREM on k and k:open"), (("~k", "%R~k:open", "+@all"), "on k and k:open")],
    ids=["command", "key"],
)
def test_an_index_that_may_not_be_written_keeps_the_trade_as_it_was(
    own_server: str, rights: tuple[str, ...], said: str
) -> None:
    with redis.Redis.from_url(own_server) as client:
        client.flushall()
        client.hset("k", "a", A)
        client.sadd("k:open", "a")
        user = ("ACL", "SETUSER", "bob", "reset", "on", ">pw", *rights)
        with changed(own_server, user, back=("ACL", "DELUSER", "bob")):
            ledger = RedisLedger(RedisServer(own_server.replace("redis://", "redis://bob:pw@")), "k")
            with pytest.raises(LedgerFailed) as caught:
                ledger.write(closing(ledger, "a"), free())
        assert f"{said}); nothing more was written" in str(caught.value)
        assert client.hget("k", "a") == A.encode()


@pytest.mark.parametrize("option", ["client-query-buffer-limit", "proto-max-bulk-len"])
def test_a_request_that_the_server_finds_too_long_is_said_to_be_that_at_once(own_server: str, option: str) -> None:
    trade = {"id": "a", "status": "OPEN", "pad": "x" * 3000}
    text = json.dumps([trade, *({**trade, "id": str(n)} for n in range(1000))])
    with redis.Redis.from_url(own_server) as client:
        client.flushall()
        client.set("k", text)
        usual = client.config_get(option)[option]
        limit = ("CONFIG", "SET", option, str(1 << 20))
        with changed(own_server, limit, back=("CONFIG", "SET", option, usual)):
            before = client.info("stats")["total_net_input_bytes"]
            said = refusal(own_server, trade)
            assert client.info("stats")["total_net_input_bytes"] - before < 2 * len(text)
        assert "larger than" in said
        assert "proto-max-bulk-len" in said
        assert "may or may not" not in said
        assert client.get("k") == text.encode()


@pytest.mark.parametrize("layout", ["string", "hash"])
def test_a_reading_takes_few_round_trips(own_server: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis.Redis.from_url(own_server) as client:
        client.flushall()
        _ = client.set("k", f"[{A}]") if layout == "string" else client.hset("k", "a", A)
        sent: list[str] = []
        ledger = RedisLedger(RedisServer(own_server), "k")
        ledger._key.server.client.ping()  # connects
        original = redis.Connection.send_packed_command

        def count(*args: Any, **more: Any) -> Any:
            sent.append("x")
            return original(*args, **more)

        monkeypatch.setattr(redis.Connection, "send_packed_command", count)
        ledger.read()
        assert len(sent) == (1 if layout == "string" else 3)
        ledger.history(frozenset())
        ledger.write([Change("a", json.loads(A), CLOSED)], free())
        assert len(sent) <= (2 if layout == "string" else 6)


def test_what_a_hash_wrote_before_the_memory_was_full_is_known(own_server: str) -> None:
    with redis.Redis.from_url(own_server) as client:
        client.flushall()
        client.hset("k", mapping={str(json.loads(text)["id"]): text for text in FIVE})
        ledger, checks = RedisLedger(RedisServer(own_server), "k"), 0
        changes = closing(ledger, *(f"t{i}" for i in range(5)))

        def fill() -> None:
            nonlocal checks
            checks += 1
            if checks == 4:
                client.config_set("maxmemory", 1)

        done: list[WriteOutcome] = []
        with pytest.raises(LedgerFailed, match="out of memory"):
            ledger.write(changes, FreeLease(spy=fill), done)
        client.config_set("maxmemory", 0)
        assert done == [WRITTEN] * 3
        assert sum(b"CLOSED" in raw for raw in client.hvals("k")) == 3


@pytest.mark.parametrize("size", [10, 100_000], ids=["by script", "by transaction"])
def test_a_refusal_after_a_lost_answer_leaves_in_doubt_what_was_sent_first(own_server: str, size: int) -> None:
    trade = {"id": "a", "status": "OPEN", "pad": "x" * size}
    with redis.Redis.from_url(own_server) as client, RedisProxy(own_server) as proxy:
        client.flushall()
        client.set("k", json.dumps([trade]))
        proxy.hold(lambda words: words[0] == (b"EXEC" if size > 10 else b"EVAL"), after=True)

        def lose() -> None:
            proxy.held.wait(10)
            proxy.close()
            proxy.drop()

        thread = threading.Thread(target=lose)
        thread.start()
        said = refusal(proxy.url, trade)
        thread.join()
        assert "the last change may or may not be written, the next run finds out" in said
        assert json.loads(client.get("k"))[0]["status"] == "CLOSED"


def test_a_busy_server_is_called_busy() -> None:
    with redis_server(None, "--lua-time-limit", "20") as url:
        parts = urlsplit(url)
        with socket.create_connection((str(parts.hostname), int(parts.port or 0))) as busy:
            busy.sendall(b'EVAL "while true do end" 0\r\n')
            time.sleep(0.2)
            said = refusal(url, {"id": "a"})
    assert "the server is busy with a script; " in said


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "out of memory"),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), "a read-only replica"),
        (exceptions.NoPermissionError("No permissions to access a key"), "lacks a permission"),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "still loading its data"),
        (exceptions.MasterDownError("Link with MASTER is down"), "a replica without its primary"),
        (exceptions.ResponseError("MASTERDOWN Link with MASTER is down"), "a replica without its primary"),
        (exceptions.MovedError("1234 127.0.0.1:7001"), "part of a Redis Cluster, where all keys"),
        (exceptions.ResponseError("MOVED 1234 127.0.0.1:7001"), "part of a Redis Cluster"),
        (exceptions.ClusterDownError("The cluster is down"), "part of a Redis Cluster that is down"),
        (exceptions.TryAgainError("Multiple keys request during rehashing of slot"), "moving these keys"),
        (exceptions.ResponseError("DENIED Redis is running in protected mode"), "in protected mode"),
        (exceptions.ResponseError("ERR max request size exceeded"), "larger than the server takes"),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), "cannot save to disk"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), "too few replicas"),
        (exceptions.ConnectionError("max number of clients reached"), "no connection left"),
        (exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), "another type"),
        (exceptions.ResponseError("unknown command 'EVAL', with args beginning with: "), "lacks a command"),
        (exceptions.AuthenticationError("invalid username-password pair or user is disabled."), "refused the user"),
        (exceptions.TimeoutError("Timeout reading from socket"), "no answer in time"),
        # as a script of Redis 6 quotes them
        (exceptions.ResponseError("Error running script (call to f_0): @user_script:1: -OOM command not allowed when "
                                  "used memory > 'maxmemory'."), "out of memory"),
        (exceptions.ResponseError("Error running script (call to f_0): @user_script: 1: -READONLY You can't write "
                                  "against a read only replica."), "a read-only replica"),
        (exceptions.ResponseError("Error running script (call to f_0): @user_script: 1: -NOPERM The user executing the "
                                  "script can't run this command or subcommand"), "lacks a permission"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_every_refusal_has_its_reason_and_cure(error: Exception, reason: str) -> None:
    server = RedisServer("redis://h", client=redis.Redis(port=1))
    with pytest.raises(LedgerFailed) as caught, server.speaking("Reading the ledger", LedgerFailed):
        raise error
    assert reason in str(caught.value)
    assert "check that the server is up and the Redis URL is right" not in str(caught.value)
