"""One suite for every ledger: file, Redis string, Redis hash and SQL table, on every server there is."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ghostclean.adapters.ledgers import replaced_file
from ghostclean.adapters.ledgers.file import FileLedger
from ghostclean.adapters.ledgers.redis import RedisLedger
from ghostclean.adapters.ledgers.replaced_file import exchange
from ghostclean.adapters.ledgers.text import LedgerText
from ghostclean.adapters.redis_client import Conversation, RedisServer
from ghostclean.adapters.state.redis import RedisState
from ghostclean.app.ports import Change, WriteOutcome
from ghostclean.core.ledger import IDENTITY, loads, read_mapping
from ghostclean.errors import BadSettings, FencedOff, LedgerFailed
from tests.servers import binaries, redis_server

from .conftest import REDISES, Servers, Site, close_site, open_site, sql_url
from .kits import FileKit, FreeLease, HashKit, LedgerKit, SqlKit, StringKit, free

WRITTEN, CHANGED, GONE, EXISTS = WriteOutcome.WRITTEN, WriteOutcome.CHANGED, WriteOutcome.GONE, WriteOutcome.EXISTS
A = '{"id":"a","ticker":"AAPL","status":"OPEN","quantity":10,"x":1e-9,"big":1234567890123456789,"neg":-0,"f":100.0}'
B = '{ "id" : "b",\t"symbol":"BTC/USD", "status":"closed", "note":"\\u00e9 \\/ é 🚀", "n":{"deep":[1.10, 2e+5]} }'
C = '{"id":"c","ticker":"MSFT","status":"PENDING","quantity":"3"}'


MAPPED = ("string-fake-mapped", "hash-fake-mapped")
# Its words change nothing that these tests write: what they say of a ledger holds through a mapping.
MAPPING = read_mapping('[values.closeReason]\nstop_loss = "sl"\n')
JSON_KITS = ["file", *(f"{k}-{r}" for k in ("string", "hash") for r in REDISES), *MAPPED]
SQL_KITS = ["sqlite", "postgres"]


@pytest.fixture(params=[*JSON_KITS, *SQL_KITS])
def kit(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[LedgerKit]:
    kind, name, mapping = (*request.param.split("-"), "", "")[:3]
    if kind in SQL_KITS:
        yield SqlKit(sql_url(kind, request), tmp_path)
        return
    site = open_site(name, servers) if name else None
    made: LedgerKit = FileKit(tmp_path) if site is None else StringKit(site) if kind == "string" else HashKit(site)
    made.mapping = MAPPING if mapping else IDENTITY
    yield made
    if site is not None:
        close_site(site)


in_json = pytest.mark.parametrize("kit", JSON_KITS, indirect=True)  # what only a record that is a text can be


def record(kit: LedgerKit, trade_id: str) -> dict[str, Any]:
    value: dict[str, Any] = loads(kit.text(trade_id))
    return value


# ------------------------------------------------------------------ reading


def test_reads_active_records_and_counts_all(kit: LedgerKit) -> None:
    kit.seed(A, B, C)
    view = kit.open().read()
    assert {r["id"] for r in view.active} == {"a", "c"}
    assert view.total == 3
    assert view.strangers == ()
    if kit.exact:
        assert next(r for r in view.active if r["id"] == "a")["x"] == Decimal("1E-9")


def test_unknown_and_error_statuses_are_active(kit: LedgerKit) -> None:
    kit.seed('{"id":"e","status":"ERROR"}', '{"id":"n"}', '{"id":"z","status":"Cancelled"}')
    assert {r["id"] for r in kit.open().read().active} == {"e", "n"}


def test_history_gives_final_records_of_the_symbols_only(kit: LedgerKit) -> None:
    kit.seed(A, B, C, '{"id":"d","ticker":"AAPL","status":"CLOSED"}')
    ledger = kit.open()
    ledger.read()
    assert [r["id"] for r in ledger.history(frozenset({"BTCUSD"}))] == ["b"]
    assert [r["id"] for r in ledger.history(frozenset({"AAPL"}))] == ["d"]
    assert ledger.history(frozenset({"TSLA"})) == []


def test_get_reads_anew(kit: LedgerKit) -> None:
    kit.seed(A, B, C)
    ledger = kit.open()
    ledger.read()
    kit.app_sets("a", status="CLOSED")
    assert ledger.get(["a", "b", "nobody"])["a"]["status"] == "CLOSED"
    assert set(ledger.get(["a", "b", "nobody"])) == {"a", "b"}


@in_json
def test_numeric_ids_count_as_their_digits(kit: LedgerKit) -> None:
    kit.seed('{"id":7,"status":"OPEN"}')
    ledger = kit.open()
    (trade,) = ledger.read().active
    assert ledger.write([Change("7", trade, {"status": "CLOSED"})], free()) == [WRITTEN]
    assert kit.text("7") == '{"id":7,"status":"CLOSED"}'


@in_json
def test_strangers_are_named_and_the_others_served(kit: LedgerKit) -> None:
    if kit.array:
        kit.put_raw(f'[5, {A}, null, [1], "x", true]'.encode())
    else:
        kit.seed(A)
        for n, raw in enumerate([b"5", b"null", b"[1]", b'"x"', b"\xff"]):
            kit.site.client.hset(kit.key, f"s{n}", raw)  # type: ignore[attr-defined]
    view = kit.open().read()
    assert [r["id"] for r in view.active] == ["a"]
    assert len(view.strangers) == 5
    assert view.total == 1
    assert kit.open().write([Change("a", view.active[0], {"status": "CLOSED"})], free()) == [WRITTEN]


@in_json
def test_a_record_with_a_number_that_json_lacks_keeps_no_other_from_being_served(kit: LedgerKit) -> None:
    odd = '{"id":"odd","status":"OPEN","quantity":NaN,"score":-Infinity}'
    kit.seed(A, odd, C)
    ledger = kit.open()
    base = {r["id"]: r for r in ledger.read().active}
    assert set(base) == {"a", "odd", "c"}
    assert ledger.write([Change("a", base["a"], {"status": "CLOSED"})], free()) == [WRITTEN]
    assert kit.text("odd") == odd
    assert ledger.write([Change("odd", base["odd"], {"status": "CLOSED"})], free()) == [WRITTEN]
    assert kit.text("odd") == odd.replace("OPEN", "CLOSED")


# ------------------------------------------------------------------ writing


def test_a_write_touches_only_its_fields(kit: LedgerKit) -> None:
    kit.seed(A, B, C)
    ledger = kit.open()
    trade, before = next(r for r in ledger.read().active if r["id"] == "a"), kit.content()
    change = Change(
        "a", trade, {"status": "CLOSED", "closePrice": Decimal("187.40"), "realizedPnL": None}, ("quantity",)
    )
    assert ledger.write([change], free()) == [WRITTEN]
    if kit.exact:
        expected = A.replace("OPEN", "CLOSED").replace('"quantity":10,', "")[:-1]
        assert kit.text("a") == expected + ',"closePrice":187.4,"realizedPnL":null}'
        assert (kit.text("b"), kit.text("c")) == (B, C)
    else:
        assert kit.content() == before | {
            "a": {"id": "a", "ticker": "AAPL", "status": "CLOSED", "closePrice": Decimal("187.4")}
        }


def test_outcomes_come_in_order(kit: LedgerKit) -> None:
    kit.seed(A, B, C)
    ledger = kit.open()
    ledger.read()
    base = ledger.get(["a", "b", "c"])
    kit.app_sets("c", quantity=4)
    changes = [
        Change("zz", base["a"], {"status": "CLOSED"}),
        Change("c", base["c"], {"status": "CLOSED"}),
        Change("a", base["a"], {"status": "CLOSED"}),
        Change("b", None, {"id": "b", "status": "OPEN"}),
        Change("new", None, {"id": "new", "ticker": "TSLA", "status": "OPEN", "quantity": Decimal("0.5")}),
    ]
    assert ledger.write(changes, free()) == [GONE, CHANGED, WRITTEN, EXISTS, WRITTEN]
    assert record(kit, "new") == {"id": "new", "ticker": "TSLA", "status": "OPEN", "quantity": Decimal("0.5")}
    assert record(kit, "c")["quantity"] == 4
    assert record(kit, "a")["status"] == "CLOSED"


def test_writing_the_same_again_is_written_and_changes_nothing(kit: LedgerKit) -> None:
    kit.seed(A)
    ledger = kit.open()
    (trade,) = ledger.read().active
    changes = [Change("a", trade, {"status": "CLOSED"}), Change("n", None, {"id": "n", "quantity": 1})]
    assert ledger.write(changes, free()) == [WRITTEN, WRITTEN]
    before = kit.content()
    assert ledger.write(changes, free()) == [WRITTEN, WRITTEN]
    assert kit.open().write(changes, free()) == [WRITTEN, WRITTEN]
    assert kit.content() == before


def test_two_changes_of_one_record_do_not_run_over_each_other(kit: LedgerKit) -> None:
    kit.seed(A, B)
    b = kit.text("b")
    ledger = kit.open()
    (trade,) = ledger.read().active
    both = [Change("a", trade, {"status": "CLOSED"}), Change("a", trade, {"quantity": 9})]
    assert ledger.write(both, free()) == [WRITTEN, CHANGED]
    assert record(kit, "a")["quantity"] == 10
    assert kit.text("b") == b


@in_json
def test_key_order_and_number_spelling_of_the_base_do_not_matter(kit: LedgerKit) -> None:
    kit.seed('{"id":"a","q":10.0,"t":true}')
    ledger = kit.open()
    assert ledger.write([Change("a", {"t": True, "q": Decimal(10), "id": "a"}, {"z": 1})], free()) == [WRITTEN]
    assert kit.text("a") == '{"id":"a","q":10.0,"t":true,"z":1}'
    assert ledger.write([Change("a", {"t": 1, "q": 10, "id": "a", "z": 1}, {"z": 2})], free()) == [CHANGED]


def test_an_app_write_between_read_and_write_survives(kit: LedgerKit) -> None:
    kit.seed(A, B, C)
    ledger = kit.open()
    base = {r["id"]: r for r in ledger.read().active}
    kit.app_sets("c", note="the app was here")
    kit.app_sets("b", lastPrice=1)
    assert ledger.write([Change("a", base["a"], {"status": "CLOSED"})], free()) == [WRITTEN]
    assert record(kit, "c")["note"] == "the app was here"
    assert record(kit, "b")["lastPrice"] == 1
    assert record(kit, "a")["status"] == "CLOSED"


def test_an_app_write_at_the_last_instant_survives(kit: LedgerKit) -> None:
    kit.seed(A, B, C)
    ledger = kit.open()
    base = {r["id"]: r for r in ledger.read().active}
    times = itertools.count()
    lease = FreeLease(spy=lambda: kit.app_sets("c", lastPrice=1) if next(times) < 3 else None)
    lease.spy()
    assert ledger.write([Change("a", base["a"], {"status": "CLOSED"})], lease) == [WRITTEN]
    assert record(kit, "c")["lastPrice"] == 1
    assert record(kit, "a")["status"] == "CLOSED"


def test_an_edit_of_the_same_trade_at_the_last_instant_wins(kit: LedgerKit) -> None:
    kit.seed(A)
    ledger = kit.open()
    (trade,) = ledger.read().active
    lease = FreeLease(spy=lambda: kit.app_sets("a", quantity=11))
    assert ledger.write([Change("a", trade, {"status": "CLOSED"})], lease) == [CHANGED]
    assert record(kit, "a")["quantity"] == 11
    assert record(kit, "a")["status"] == "OPEN"


def test_a_delete_at_the_last_instant_wins(kit: LedgerKit) -> None:
    kit.seed(A, C)
    ledger = kit.open()
    base = {r["id"]: r for r in ledger.read().active}
    lease = FreeLease(spy=lambda: kit.app_deletes("a"))
    assert ledger.write([Change("a", base["a"], {"status": "CLOSED"})], lease) == [GONE]
    assert set(kit.content()) == {"c"}


def test_a_lost_lease_writes_nothing(kit: LedgerKit) -> None:
    kit.seed(A)
    a = kit.text("a")
    ledger = kit.open()
    (trade,) = ledger.read().active
    with pytest.raises(FencedOff):
        ledger.write([Change("a", trade, {"status": "CLOSED"})], FreeLease(lost=True))
    assert kit.text("a") == a


def test_an_empty_ledger_takes_its_first_trade(kit: LedgerKit) -> None:
    if kit.array:
        kit.put_raw(b" [ ] ")
    ledger = kit.open()
    assert ledger.read().total == 0
    assert ledger.write([Change("n", None, {"id": "n", "status": "OPEN"})], free()) == [WRITTEN]
    assert kit.open().read().total == 1


# ------------------------------------------------------------------ what is no ledger


@in_json
def test_a_ledger_never_seen_has_no_trades(kit: LedgerKit) -> None:
    ledger = kit.open()
    assert ledger.read().active == ()
    assert ledger.history(frozenset({"A"})) == []
    assert ledger.get(["a"]) == {}


@in_json
def test_a_ledger_missing_since_an_earlier_run_is_an_error(kit: LedgerKit) -> None:
    with pytest.raises(LedgerFailed, match="missing"):
        kit.open(seen=True).read()
    with pytest.raises(LedgerFailed, match="missing"):
        kit.open(seen=True).get(["a"])
    with pytest.raises(LedgerFailed, match="missing"):
        kit.open(seen=True).write([Change("n", None, {"id": "n"})], free())


def test_a_ledger_that_vanishes_during_a_run_is_an_error(kit: LedgerKit) -> None:
    kit.seed(A)
    ledger = kit.open()
    (trade,) = ledger.read().active
    kit.drop()
    with pytest.raises(LedgerFailed):
        ledger.read()
    if kit.array or not kit.exact or kit.mapping is not IDENTITY:
        with pytest.raises(LedgerFailed):
            ledger.write([Change("a", trade, {"status": "CLOSED"})], free())
    else:  # an empty hash and a missing one are the same thing to Redis
        assert ledger.write([Change("a", trade, {"status": "CLOSED"})], free()) == [GONE]


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"[", b"[{]", b"[{}", b"[{},]", b"[{}] x", b"{}", b'{"trades":5}', b"5", b"null", b'"x"',
     b"[nan]", b"[" * 100_000, b"[" + b"9" * 6000 + b"]", b"\xff[]", b"\xef\xbb\xbf[]",
     '["é"]'.encode("utf-16"), b'[{"a":"\n"}]', b'{"trades":[]'],
    ids=lambda raw: repr(raw[:14]),
)  # fmt: skip
def test_a_value_that_is_no_ledger_is_an_error_and_stays(kit: LedgerKit, raw: bytes) -> None:
    if not kit.array:
        return  # a hash has no text of its own; its broken fields are strangers
    kit.put_raw(raw)
    with pytest.raises(LedgerFailed) as caught:
        kit.open().read()
    assert "\n" not in str(caught.value)
    assert "Cure:" in str(caught.value)
    with pytest.raises(LedgerFailed):
        kit.open().write([Change("n", None, {"id": "n"})], free())
    assert kit.raw() == raw


def test_the_description_has_layout_and_size(kit: LedgerKit) -> None:
    kit.seed(A, B)
    assert "2 trades" in kit.open().describe()


def test_concurrent_writers_lose_nothing(kit: LedgerKit) -> None:
    kit.seed(*(f'{{"id":"t{i}","status":"OPEN","lastPrice":0}}' for i in range(12)))
    failures: list[BaseException] = []

    def work(mine: range) -> None:
        try:
            ledger = kit.open()
            for i in mine:
                trade = ledger.get([f"t{i}"])[f"t{i}"]
                assert ledger.write([Change(f"t{i}", trade, {"lastPrice": 1})], free()) == [WRITTEN]
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(range(i, 12, 3),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [r["lastPrice"] for r in kit.content().values()] == [1] * 12


# ------------------------------------------------------------------ Redis only


@pytest.fixture(params=["string", "hash"])
def redis_kit(request: pytest.FixtureRequest, site: Site) -> StringKit:
    return StringKit(site) if request.param == "string" else HashKit(site)


def test_the_fence_stands_inside_redis(redis_kit: StringKit) -> None:
    site = redis_kit.site
    redis_kit.seed(A, C)
    ledger = redis_kit.open()
    base = {r["id"]: r for r in ledger.read().active}
    state = RedisState(site.server(), ledger_place=ledger.place, prefix=site.prefix)
    lease = state.acquire("test", 30)
    assert lease is not None
    assert lease.redis_place == site.server().place
    assert ledger.write([Change("a", base["a"], {"status": "CLOSED"})], lease) == [WRITTEN]
    state.release(lease)
    with pytest.raises(FencedOff):
        ledger.write([Change("c", base["c"], {"status": "CLOSED"})], lease)
    assert state.acquire("another", 30) is not None
    with pytest.raises(FencedOff):
        ledger.write([Change("c", base["c"], {"status": "CLOSED"})], lease)
    assert redis_kit.text("c") == C


def test_the_remaining_life_of_the_key_is_kept(redis_kit: StringKit) -> None:
    redis_kit.seed(A)
    redis_kit.site.client.pexpire(redis_kit.key, 50_000)
    ledger = redis_kit.open()
    (trade,) = ledger.read().active
    assert ledger.write([Change("a", trade, {"status": "CLOSED"})], free()) == [WRITTEN]
    assert 40_000 < redis_kit.site.client.pttl(redis_kit.key) <= 50_000
    redis_kit.site.client.persist(redis_kit.key)
    trade = ledger.get(["a"])["a"]
    assert ledger.write([Change("a", trade, {"n": 2})], free()) == [WRITTEN]
    assert redis_kit.site.client.pttl(redis_kit.key) == -1


@pytest.mark.parametrize("kind", ["list", "set", "zset", "stream"])
def test_a_key_of_another_type_is_an_error(site: Site, kind: str) -> None:
    kit = StringKit(site)
    {
        "list": lambda: site.client.rpush(kit.key, "x"),
        "set": lambda: site.client.sadd(kit.key, "x"),
        "zset": lambda: site.client.zadd(kit.key, {"x": 1}),
        "stream": lambda: site.client.xadd(kit.key, {"x": "1"}),
    }[kind]()
    with pytest.raises(LedgerFailed, match=kind):
        kit.open().read()


def test_a_long_string_is_compared_before_it_is_written(site: Site) -> None:
    kit = StringKit(site)
    kit.seed(A, '{"id":"long","status":"CLOSED","pad":"' + "x" * 100_000 + '"}', C)
    ledger = kit.open()
    base = {r["id"]: r for r in ledger.read().active}
    kit.app_sets("c", n=1)
    assert ledger.write([Change("a", base["a"], {"status": "CLOSED"})], free()) == [WRITTEN]
    assert record(kit, "c")["n"] == 1


def test_a_long_string_that_changes_between_comparison_and_write_is_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = StringKit(site)
    kit.seed(A, '{"id":"long","status":"CLOSED","pad":"' + "x" * 100_000 + '"}', C)
    ledger = kit.open()
    base = {r["id"]: r for r in ledger.read().active}
    compared = 0

    def ask(own: Conversation, *commands: Any, original: Callable[..., Any] = Conversation.ask) -> Any:
        nonlocal compared
        if commands[0] == ("MULTI",):
            compared += 1
            if compared == 1:
                kit.app_sets("c", n=1)
        return original(own, *commands)

    monkeypatch.setattr(Conversation, "ask", ask)
    assert ledger.write([Change("a", base["a"], {"status": "CLOSED"})], free()) == [WRITTEN]
    assert compared == 2
    assert (record(kit, "a")["status"], record(kit, "c")["n"]) == ("CLOSED", 1)


def test_a_layout_that_changes_during_a_run_is_noticed(site: Site) -> None:
    kit = StringKit(site)
    kit.seed(A)
    ledger = kit.open()
    (trade,) = ledger.read().active
    kit.drop()
    site.client.hset(kit.key, "a", A)
    with pytest.raises(LedgerFailed):
        ledger.write([Change("a", trade, {"status": "CLOSED"})], free())
    assert site.client.hget(kit.key, "a") == A.encode()
    assert ledger.read().total == 1


# ------------------------------------------------------------------ hash only


@pytest.fixture
def hash_kit(site: Site) -> HashKit:
    return HashKit(site)


def test_a_hash_is_written_a_few_trades_at_a_time(hash_kit: HashKit) -> None:
    hash_kit.seed(A)
    ledger = hash_kit.open()
    ledger.read()
    assert ledger.chunk == 25
    assert StringKit(hash_kit.site).open().chunk > 10_000


def test_the_index_is_used_when_there_is_one(hash_kit: HashKit) -> None:
    hash_kit.seed(A, B, C)
    index = f"{hash_kit.key}:open"
    hash_kit.site.client.sadd(index, "a", "nobody")
    assert [r["id"] for r in hash_kit.open(full_scan=lambda: False).read().active] == ["a"]
    assert {r["id"] for r in hash_kit.open(full_scan=lambda: True).read().active} == {"a", "c"}
    hash_kit.site.client.delete(index)
    assert {r["id"] for r in hash_kit.open(full_scan=lambda: False).read().active} == {"a", "c"}


def test_the_index_follows_our_writes(hash_kit: HashKit) -> None:
    hash_kit.seed(A, B)
    index = f"{hash_kit.key}:open"
    hash_kit.site.client.sadd(index, "a", "nobody")
    ledger = hash_kit.open()
    base = ledger.get(["a", "b"])
    ledger.write(
        [
            Change("a", base["a"], {"status": "CLOSED"}),
            Change("b", base["b"], {"status": "OPEN"}),
            Change("n", None, {"id": "n", "status": "OPEN"}),
        ],
        free(),
    )
    assert hash_kit.site.client.smembers(index) == {b"b", b"n", b"nobody"}


def test_no_index_is_made_where_the_app_keeps_none(hash_kit: HashKit) -> None:
    hash_kit.seed(A)
    ledger = hash_kit.open()
    ledger.write([Change("a", ledger.get(["a"])["a"], {"status": "CLOSED"})], free())
    assert not hash_kit.site.client.exists(f"{hash_kit.key}:open")


def test_many_pages_are_read_completely(hash_kit: HashKit) -> None:
    hash_kit.seed(*(f'{{"id":"t{i}","status":"{"OPEN" if i % 10 == 0 else "CLOSED"}"}}' for i in range(2500)))
    view = hash_kit.open().read()
    assert view.total == 2500
    assert len(view.active) == 250


def test_a_record_without_id_is_known_by_its_field(hash_kit: HashKit) -> None:
    hash_kit.site.client.hset(hash_kit.key, "f1", '{"status":"OPEN"}')
    hash_kit.site.client.hset(hash_kit.key, "f2", '{"id":"other","status":"OPEN"}')
    ledger = hash_kit.open()
    view = ledger.read()
    assert [r["id"] for r in view.active] == ["f1"]
    assert len(view.strangers) == 1
    assert ledger.write([Change("f1", view.active[0], {"status": "CLOSED"})], free()) == [WRITTEN]
    assert hash_kit.text("f1") == '{"status":"CLOSED"}'


# ------------------------------------------------------------------ file only


def file_kit(tmp_path: Path) -> tuple[FileKit, FileLedger]:
    kit = FileKit(tmp_path)
    return kit, kit.open()


def close_a(ledger: FileLedger) -> list[WriteOutcome]:
    return ledger.write([Change("a", ledger.get(["a"])["a"], {"status": "CLOSED"})], free())


def test_an_object_with_trades_keeps_everything_around(tmp_path: Path) -> None:
    kit, ledger = file_kit(tmp_path)
    kit.put_raw(f'{{ "v": 1.0, "trades": [\n {A},\n {B} ],\n "tail": [NOPE] }}'.replace("NOPE", "1e2").encode())
    assert close_a(ledger) == [WRITTEN]
    expected = f'{{ "v": 1.0, "trades": [\n {A.replace("OPEN", "CLOSED")},\n {B} ],\n "tail": [1e2] }}'
    assert kit.raw().decode() == expected


def test_a_reading_gives_the_exact_text_of_every_element() -> None:
    assert LedgerText(f" [{A},\n5 , {B}]").records().texts == (A, "5", B)


def test_mode_is_kept_and_symlinks_are_followed(tmp_path: Path) -> None:
    kit, _ = file_kit(tmp_path)
    kit.seed(A)
    kit.path.chmod(0o640)
    (tmp_path / "sub").mkdir()
    link = tmp_path / "sub" / "link.json"
    link.symlink_to(kit.path)
    assert close_a(FileLedger(link)) == [WRITTEN]
    assert link.is_symlink()
    assert kit.path.stat().st_mode & 0o777 == 0o640
    assert {p.name for p in tmp_path.iterdir()} == {"trades.json", "trades.json.lock", "sub"}


def test_a_new_file_is_private(tmp_path: Path) -> None:
    kit, ledger = file_kit(tmp_path)
    ledger.write([Change("n", None, {"id": "n"})], free())
    assert kit.path.stat().st_mode & 0o777 == 0o600
    assert kit.raw() == b'[\n  {\n    "id": "n"\n  }\n]\n'


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    kit, ledger = file_kit(tmp_path)
    kit.seed(A)
    (tmp_path / ".trades.json.new").write_text("half")
    assert close_a(ledger) == [WRITTEN]
    assert not (tmp_path / ".trades.json.new").exists()


def test_a_held_lock_file_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    import fcntl

    kit = FileKit(tmp_path)
    kit.seed(A)
    ledger = FileLedger(kit.path, lock_seconds=0.1)
    with Path(f"{kit.path}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LedgerFailed, match="lock"):
            close_a(ledger)
    assert kit.text("a") == A
    assert close_a(ledger) == [WRITTEN]


def test_a_folder_or_unreadable_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerFailed, match="cannot be read"):
        FileLedger(tmp_path).read()
    with pytest.raises(LedgerFailed, match="cannot be written"):
        FileLedger(tmp_path / "no" / "folder.json").write([Change("n", None, {"id": "n"})], free())


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit, ledger = file_kit(tmp_path)
    kit.seed(A)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerFailed, match="No space left"):
        close_a(ledger)
    assert kit.text("a") == A
    assert {p.name for p in tmp_path.iterdir()} == {"trades.json", "trades.json.lock"}


def test_an_app_write_after_the_last_comparison_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit, ledger = file_kit(tmp_path)
    kit.seed(A, C)
    swap = exchange
    quicker = iter(range(3))

    def replaced(one: Path, other: Path) -> bool:
        if (n := next(quicker, None)) is not None:
            fresh = tmp_path / "app"
            fresh.write_text(f'[{A},{C[:-1]},"n":{n}}}]')
            fresh.replace(kit.path)
        return swap(one, other)

    monkeypatch.setattr(replaced_file, "exchange", replaced)
    assert close_a(ledger) == [WRITTEN]
    assert record(kit, "c")["n"] == 2
    assert record(kit, "a")["status"] == "CLOSED"


def test_a_file_made_by_the_app_at_the_last_instant_survives(tmp_path: Path) -> None:
    kit, ledger = file_kit(tmp_path)
    lease = FreeLease(spy=lambda: None if kit.path.exists() else kit.seed(A))
    assert ledger.write([Change("n", None, {"id": "n"})], lease) == [WRITTEN]
    assert set(kit.content()) == {"a", "n"}


def test_without_exchange_the_comparison_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit, ledger = file_kit(tmp_path)
    kit.seed(A, C)
    monkeypatch.setattr(replaced_file, "exchange", lambda *_: False)
    counted = itertools.count()
    lease = FreeLease(spy=lambda: kit.app_sets("c", n=1) if next(counted) < 2 else None)
    assert ledger.write([Change("a", ledger.get(["a"])["a"], {"status": "CLOSED"})], lease) == [WRITTEN]
    assert record(kit, "a")["status"] == "CLOSED"
    assert record(kit, "c")["n"] == 1


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "by rename"])
def test_an_app_without_a_lock_loses_no_write(tmp_path: Path, in_place: bool) -> None:
    """The app owns trade c and counts in it; whatever it wrote last must stand, at the latest a moment later.

    Until what we displaced is back in its place, a reader may see our text for an instant.
    """
    kit, _ = file_kit(tmp_path)
    kit.seed(A, C)
    over = threading.Event()
    failures: list[BaseException] = []

    def we() -> None:
        ledger = FileLedger(kit.path)
        while not over.is_set():
            try:
                trade = ledger.get(["a"])["a"]
                ledger.write([Change("a", trade, {"quantity": int(trade["quantity"]) + 1})], free())
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                failures.append(error)
                return

    worker = threading.Thread(target=we)
    worker.start()
    for n in range(150):
        records, until = kit.content(), time.monotonic() + 5
        while n and records["c"]["n"] != n - 1 and time.monotonic() < until:
            records = kit.content()
        assert not n or records["c"]["n"] == n - 1
        text = json.dumps([records["a"], {**records["c"], "n": n}])
        if in_place:
            kit.path.write_text(text)
        else:
            (tmp_path / "app").write_text(text)
            (tmp_path / "app").replace(kit.path)
    over.set()
    worker.join()
    assert not failures
    assert record(kit, "c")["n"] == 149


def test_half_a_text_of_an_app_that_writes_in_place_is_read_again(tmp_path: Path) -> None:
    kit, ledger = file_kit(tmp_path)
    kit.put_raw(b"[{")
    threading.Timer(0.03, lambda: kit.seed(A)).start()
    assert ledger.read().total == 1


# ------------------------------------------------------------------ errors tell no secrets


def test_a_dead_server_is_one_line_without_the_password() -> None:
    ledger = RedisLedger(RedisServer("redis://me:s3cret@127.0.0.1:1/0"), "k")
    with pytest.raises(LedgerFailed) as caught:
        ledger.read()
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://x", "redis://h:port", "localhost:6379", ""])
def test_a_wrong_url_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(BadSettings):
        RedisServer(url)


def test_a_unix_socket_and_a_password_with_signs_in_it(tmp_path: Path) -> None:
    if not binaries():
        pytest.skip("no server on this machine")
    path = tmp_path / "s"
    with redis_server(None, "--requirepass", "p%w@/:", "--unixsocket", str(path)) as url:
        secret = "p%25w%40%2F%3A"
        unix = f"unix://{path}?password={secret}&db=1"
        for good in (url.replace("//", f"//:{secret}@"), f"{url}?password={secret}", unix):
            server = RedisServer(good)
            assert RedisLedger(server, "k").read().total == 0
            assert "p%" not in server.place
            server.close()
        assert RedisServer(unix).place == f"unix://{path}?db=1"
        with pytest.raises(LedgerFailed, match="password"):
            RedisLedger(RedisServer(url.replace("//", "//:wrong@")), "k").read()


@pytest.mark.parametrize("url", ["redis://h", "redis://h/0", "redis://u:p@h:6379?x=1", "redis://h/7?db=0"])
def test_one_database_has_one_name(url: str) -> None:
    server = RedisServer(url)
    assert server.place == "redis://h:6379/0"
    assert server.client.connection_pool.connection_kwargs.get("db", 0) == 0


def test_options_of_other_clients_are_ignored_and_tls_stays_verified() -> None:
    pool = RedisServer("rediss://u:p@h:7/2?family=6&ssl_cert_reqs=none&socket_timeout=999").client.connection_pool
    assert pool.connection_kwargs["socket_timeout"] == 10
    assert pool.connection_kwargs["ssl_cert_reqs"] == "required"
    assert pool.connection_kwargs["ssl_check_hostname"] is True
    pool.make_connection()
    assert pool.connection_kwargs["db"] == 2
