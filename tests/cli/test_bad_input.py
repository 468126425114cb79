"""Bad input of every kind: a clear line, the right exit code, nothing lost, the other trades still served."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.world import DAY_AGO, KEY, LEDGER_KEY, SECRET, YESTERDAY, Record, Run, World, long
from tests.fakebroker.queries import list_positions
from tests.timing import SLACK

MakeWorld = Callable[..., World]


def sold(world: World, ticker: str = "AAPL", trade_id: str = "good") -> Record:
    """A trade whose close is proven; it must be served whatever stands beside it."""
    entry = world.broker.open_trade(ticker, 10, 180, at=DAY_AGO)
    world.broker.sell(ticker, 10, "187.40", at=YESTERDAY)
    return long(trade_id, ticker, alpacaOrderId=entry["id"])


def one_line(run: Run) -> str:
    """What a person is told: one line, no traceback."""
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, run.stderr
    assert "Traceback" not in run.stderr
    return lines[0]


# --------------------------------------------------------------------------- the ledger as a whole


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": "a", "status": "OPEN"',
        "not json",
        '{"trades": 3}',
        '"text"',
        "17",
        "null",
        "",
        "\ufeff[",
        "[1,]",
        "[NaN",
    ],
)
def test_a_broken_string_is_an_error_and_stays_as_it_is(world: World, text: str) -> None:
    world.redis.set(LEDGER_KEY, text)
    run = world.reconcile()
    assert run.code == 4
    assert run.document["error"] == "ledger_failed"
    assert "nothing was changed" in one_line(run)
    assert world.redis.get(LEDGER_KEY) == text.encode()
    assert world.broker.count("account") == 0
    assert world.summary()["fail"] == "1"
    assert world.summary()["lastOk"] == "false"


@pytest.mark.parametrize("text", ['[{"id": "a"', "not json", '{"other": 3}', '"text"', ""])
def test_a_broken_file_is_an_error_and_stays_as_it_is(make_world: MakeWorld, text: str) -> None:
    world = make_world("file")
    path = world.folder / "trades.json"
    path.write_text(text)
    run = world.reconcile()
    assert run.code == 4
    assert run.document["error"] == "ledger_failed"
    assert "nothing was changed" in one_line(run)
    assert path.read_text() == text


def test_a_key_of_another_type_is_an_error(world: World) -> None:
    world.redis.delete(LEDGER_KEY)
    world.redis.rpush(LEDGER_KEY, "a", "b")
    run = world.reconcile()
    assert run.code == 4
    assert run.document["error"] == "ledger_failed"
    assert LEDGER_KEY in one_line(run)
    assert world.redis.lrange(LEDGER_KEY, 0, -1) == [b"a", b"b"]


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_a_ledger_never_seen_is_no_trades_and_one_that_went_missing_is_an_error(
    make_world: MakeWorld, layout: str
) -> None:
    world = make_world(layout)
    remove = (world.folder / "trades.json").unlink if layout == "file" else lambda: world.redis.delete(LEDGER_KEY)
    remove()
    run = world.reconcile()
    assert run.code == 0
    assert run.document["checked"] == 0
    world.ledger(sold(world))
    assert world.reconcile().document["closed"] == 1
    remove()
    run = world.reconcile()
    assert run.code == 4
    assert run.document["error"] == "ledger_failed"
    assert "missing" in one_line(run)


@pytest.mark.parametrize("layout", ["string", "file"])
@pytest.mark.parametrize("failed", [True, False])
def test_a_ledger_seen_once_may_not_go_missing(make_world: MakeWorld, layout: str, failed: bool) -> None:
    """Whether that run failed at the broker, or found the ledger empty: adopting would make a rival ledger."""
    world = make_world(layout)
    world.broker.open_trade("TSLA", 5, 200, at=DAY_AGO)
    if failed:
        world.ledger(sold(world))
        world.broker.fault("account", 500)
    assert world.reconcile().code == (3 if failed else 0)
    world.broker.clear_faults()
    if layout == "file":
        (world.folder / "trades.json").unlink()
    else:
        world.redis.delete(LEDGER_KEY)
    run = world.reconcile("--orphans", "adopt")
    assert (run.code, run.document["error"], run.document["backfilled"]) == (4, "ledger_failed", 0)
    assert "missing" in one_line(run)


# --------------------------------------------------------------------------- single records

STRANGERS = [None, 17, "text", ["list"], True, 1.5]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_an_element_that_is_no_object_is_left_alone(world: World, stranger: Any) -> None:
    good = sold(world)
    world.redis.set(LEDGER_KEY, json.dumps([good, stranger]))
    run = world.reconcile()
    assert run.code == 0
    assert run.document["closed"] == 1
    record, other = json.loads(world.redis.get(LEDGER_KEY))
    assert record["status"] == "CLOSED"
    assert other == stranger
    assert any("no trade" in note for note in run.document["notes"])
    with world.untouched():
        world.reconcile()


def bad(**changes: Any) -> Record:
    record = long("bad", "MSFT", alpacaOrderId=None) | changes
    return {name: value for name, value in record.items() if value is not ...}


UNREADABLE = {
    "no-id": bad(id=...),
    "null-id": bad(id=None),
    "object-id": bad(id={}),
    "no-symbol": bad(ticker=...),
    "number-symbol": bad(ticker=17),
    "blank-symbol": bad(ticker="  "),
    "no-size": bad(quantity=...),
    "zero-size": bad(quantity=0),
    "negative-size": bad(quantity=-10),
    "text-size": bad(quantity="ten"),
    "nan-size": bad(quantity="NaN"),
    "infinite-size": bad(quantity="Infinity"),
    "list-size": bad(quantity=[10]),
    "bool-size": bad(quantity=True),
    "negative-price": bad(entryPrice=-1),
    "text-price": bad(entryPrice="much"),
    "odd-side": bad(side="SIDEWAYS"),
    "endless-size": bad(quantity="1e999999999"),
    "endless-price": bad(entryPrice="1e5000000"),
    "half-a-pair-id": bad(id="x\ud800y"),
    "half-a-pair-symbol": bad(ticker="K\ud800"),
    "half-a-pair-order": bad(alpacaOrderId="\udfff"),
}


@pytest.mark.parametrize("layout", ["string", "file"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_trade_is_left_as_it_is_and_the_others_go_on(
    make_world: MakeWorld, name: str, layout: str
) -> None:
    world = make_world(layout)
    good = sold(world)
    record = UNREADABLE[name]
    world.ledger(record, good)
    result = world.inside()
    assert result.exit_code == 0
    assert result.closed == 1
    rows = {row["verdict"]: row for row in result.results}
    assert rows["unreadable"]["action"] == "held"
    assert rows["exited"]["id"] == "good"
    raw = json.loads(world.store.raw())
    assert raw[0] == record
    assert raw[1]["status"] == "CLOSED"
    with world.untouched():
        assert world.inside().exit_code == 0


@pytest.mark.parametrize(
    "odd",
    [
        '"realizedPnL":1e3000000',
        '"updatedAt":-1E-999999999',
        '"note":"\\ud800"',
        '"deep":' + "[" * 500 + "]" * 500,
        '"score":NaN',
        '"realizedPnL":-Infinity',
    ],
    ids=["endless", "vanishing", "half a pair", "deep", "nan", "infinite"],
)
@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_odd_json_in_a_trade_that_we_close_delays_nothing(make_world: MakeWorld, layout: str, odd: str) -> None:
    world = make_world(layout)
    text = json.dumps(sold(world))[:-1] + f",{odd}}}"
    if layout == "hash":
        world.redis.hset(LEDGER_KEY, "good", text)
    elif layout == "string":
        world.redis.set(LEDGER_KEY, f"[{text}]")
    else:
        (world.folder / "trades.json").write_text(f"[{text}]")
    run = world.reconcile("--deadline", "10")
    assert (run.code, run.document["closed"]) == (0, 1), run.stderr
    raw = world.redis.hget(LEDGER_KEY, "good").decode() if layout == "hash" else world.store.raw()
    raw = raw.decode() if isinstance(raw, bytes) else raw
    assert '"status": "CLOSED"' in raw
    assert (odd in raw) is not (odd.startswith(('"updatedAt"', '"realizedPnL"'))), "what we leave alone stays"
    with world.untouched():
        assert world.reconcile().code == 0
    assert world.run("explain", "good").code == 0
    undone = world.run("undo", run.document["runId"])
    assert undone.code == 0, undone.stderr


@pytest.mark.parametrize("layout", ["string", "hash", "file"])
def test_a_number_that_json_lacks_makes_that_trade_unreadable_and_no_other(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    odd = '{"id":"odd","ticker":"MSFT","status":"OPEN","quantity":NaN,"entryPrice":100}'
    good = json.dumps(sold(world))
    if layout == "hash":
        world.redis.hset(LEDGER_KEY, mapping={"odd": odd, "good": good})
    elif layout == "string":
        world.redis.set(LEDGER_KEY, f"[{odd},{good}]")
    else:
        (world.folder / "trades.json").write_text(f"[{odd},{good}]")
    run = world.reconcile()
    rows = {row["id"]: row for row in run.document["results"]}
    assert (run.code, rows["good"]["action"], rows["odd"]["verdict"]) == (0, "closed", "unreadable"), run.stderr
    assert "quantity" in rows["odd"]["reason"]
    raw = world.redis.hget(LEDGER_KEY, "odd").decode() if layout == "hash" else world.store.raw()
    assert odd in (raw.decode() if isinstance(raw, bytes) else raw)


def test_unreadable_trades_are_said_in_one_line(world: World) -> None:
    world.ledger(UNREADABLE["no-symbol"], sold(world))
    run = world.reconcile()
    assert run.code == 0
    assert "unreadable" in one_line(run)


def test_a_hash_field_that_is_no_trade_is_left_alone(make_world: MakeWorld) -> None:
    world = make_world("hash")
    world.ledger(sold(world))
    world.redis.hset(LEDGER_KEY, mapping={"broken": "{", "number": "17"})
    run = world.reconcile()
    assert run.code == 0
    assert run.document["closed"] == 1
    fields = world.redis.hgetall(LEDGER_KEY)
    assert (fields[b"broken"], fields[b"number"]) == (b"{", b"17")
    with world.untouched():
        world.reconcile()


def test_an_id_that_stands_twice_names_nobody(world: World) -> None:
    good = sold(world)
    twin = long("twin", "MSFT", alpacaOrderId=None)
    world.ledger(twin, twin | {"quantity": 5}, good)
    before = json.loads(world.store.raw())[:2]
    run = world.reconcile()
    assert run.document["closed"] == 1
    assert [row["verdict"] for row in run.document["results"] if row["id"] == "twin"] == ["unreadable"] * 2
    assert json.loads(world.store.raw())[:2] == before


@pytest.mark.parametrize("layout", ["string", "file", "hash"])
def test_an_id_of_a_closed_record_too_names_nobody(make_world: MakeWorld, layout: str) -> None:
    world = make_world(layout)
    good = sold(world)
    entry = world.broker.open_trade("MSFT", 5, 400, at=DAY_AGO)
    world.broker.sell("MSFT", 5, 410, at=YESTERDAY)
    twin = long("twin", "MSFT", 5, 400, alpacaOrderId=entry["id"])
    over = twin | {"status": "CLOSED", "closePrice": 1}
    if layout == "hash":  # a field of its own, and the same id in its value
        records = {"old": over, "twin": twin, "good": good}
        world.redis.hset(LEDGER_KEY, mapping={name: json.dumps(record) for name, record in records.items()})
    else:
        world.ledger(over, twin, good)
    run = world.reconcile()
    assert (run.code, run.verdicts()) == (0, {"twin": "unreadable", "good": "exited"})
    assert "more than once" in run.row("twin")["reason"]
    raw = world.redis.hget(LEDGER_KEY, "twin") if layout == "hash" else json.dumps(json.loads(world.store.raw())[1])
    assert json.loads(raw) == twin


def test_a_ledger_in_the_shape_of_the_first_app_is_served(world: World) -> None:
    """Numbers as strings, nulls, five names for a size, `autoManage` once a bool and once an object."""
    records, names = [], ["quantity", "qty", "size", "positionSize", "shares"]
    for n, (name, ticker) in enumerate(zip(names, ["AAPL", "MSFT", "NVDA", "AMD", "META"], strict=True)):
        record = sold(world, ticker, f"t{n}")
        del record["quantity"]
        odd = {"autoManage": n % 2 == 0 or {"trail": True}, "notes": None, "entryPrice": "180", "realizedPnL": None}
        records.append(
            record | odd | {name: "10", "quantity": None} if name != "quantity" else record | odd | {name: "10"}
        )
    world.ledger(*records)
    run = world.reconcile()
    assert run.code == 0
    assert run.document["closed"] == 5
    for n, record in enumerate(records):
        after = world.trade(f"t{n}")
        assert after["realizedPnL"] == 74
        assert after["autoManage"] == record["autoManage"]
        assert list(after)[: len(record)] == list(record)


# --------------------------------------------------------------------------- the broker's answers

BROKEN: dict[str, dict[str, Any]] = {
    "401": {"kind": 401},
    "403-without-code": {"kind": 403},
    "404": {"kind": 404},
    "429": {"kind": 429},
    "500": {"kind": 500},
    "html": {"kind": "html"},
    "cut": {"kind": "cut"},
    "short": {"kind": "short"},
    "empty": {"kind": "empty"},
    "object": {"kind": "wrong_type"},
    "number": {"kind": "wrong_type", "value": 17},
    "null": {"kind": "wrong_type", "value": None},
    "nan": {"kind": 200, "body": "NaN"},
}


@pytest.mark.parametrize("label", ["account", "orders", "positions"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_no_answer(make_world: MakeWorld, label: str, name: str) -> None:
    world = make_world("file")
    world.ledger(sold(world))
    options = dict(BROKEN[name])
    world.broker.fault(label, options.pop("kind"), **options)
    with world.untouched():
        result = world.inside()
    assert result.exit_code == 3
    assert result.error == "broker_truth_failed"
    assert "nothing was closed" in (result.detail or "")
    assert world.summary()["fail"] == "1"
    assert world.runs()[0]["error"] == "broker_truth_failed"


@pytest.mark.parametrize("kind", [401, 403, 429, 500, "html", "cut"])
def test_a_broken_answer_is_said_in_one_line(world: World, kind: Any) -> None:
    world.ledger(sold(world))
    world.broker.fault("positions", kind)
    run = world.reconcile("--deadline", "3s")
    assert run.code == 3
    line = one_line(run)
    assert "nothing was closed" in line
    if isinstance(kind, int):
        assert str(kind) in line


@pytest.mark.parametrize(
    "row",
    [
        {"qty": "ten"},
        {"qty": None},
        {"qty": "NaN"},
        {"qty": [10]},
        {"current_price": "NaN"},
        {"market_value": {}},
    ],
)
def test_a_position_that_cannot_be_right_is_no_answer_about_its_symbol(make_world: MakeWorld, row: Record) -> None:
    world = make_world("file")
    world.ledger(sold(world), long("live", "MSFT"))
    world.broker.add_position("MSFT", 10, 180).overrides.update(row)
    result = world.inside()
    assert result.exit_code == 0, result
    assert {row["id"]: row["verdict"] for row in result.results} == {"good": "exited", "live": "unknown"}


@pytest.mark.parametrize(
    "row",
    [
        {"asset_class": "perpetual_motion"},
        {"exchange": "MOON"},
        {"current_price": None},
        {"market_value": None, "cost_basis": None},
        {"unheard_of": {"deep": [1]}},
    ],
)
def test_an_unknown_word_in_a_position_changes_nothing(make_world: MakeWorld, row: Record) -> None:
    world = make_world("file")
    entry = world.broker.open_trade("MSFT", 10, 180, at=DAY_AGO)
    world.broker.add_position("MSFT", 10, 180).overrides.update(row)
    world.ledger(sold(world), long("live", "MSFT", alpacaOrderId=entry["id"]))
    result = world.inside()
    assert result.exit_code == 0, result
    assert {row["id"]: row["verdict"] for row in result.results} == {"good": "exited", "live": "live"}


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "pondering"},
        {"type": "hopeful"},
        {"order_class": "septuple"},
        {"time_in_force": "eternity"},
        {"position_intent": "to_wonder"},
        {"asset_class": "perpetual_motion"},
    ],
)
def test_an_unknown_word_in_an_order_changes_nothing(make_world: MakeWorld, fields: Record) -> None:
    world = make_world("file")
    base = {"status": "new", "qty": 10, "type": "limit", "limit_price": 170}
    order = world.broker.add_order("MSFT", at=DAY_AGO, **base | fields)
    world.ledger(sold(world), long("works", "MSFT", alpacaOrderId=order["id"]))
    result = world.inside()
    assert result.exit_code == 0, result
    assert {row["id"]: row["verdict"] for row in result.results} == {"good": "exited", "works": "working"}


@pytest.mark.parametrize(("kept", "code"), [(3, 3), (9, 0)])
def test_a_position_list_that_lacks_rows_closes_nothing(make_world: MakeWorld, kept: int, code: int) -> None:
    """Less than 80 % of what the account reports is refused; one row of ten that is missing holds its trade."""
    world = make_world("file")
    names = ["AAPL", "MSFT", "NVDA", "AMD", "TSLA", "META", "GOOG", "AMZN", "NFLX", "INTC"]
    orders = [world.broker.open_trade(name, 10, 100, at=DAY_AGO) for name in names]
    world.ledger(*(long(n, n, 10, 100, 95, alpacaOrderId=o["id"]) for n, o in zip(names, orders, strict=True)))
    shown = [list_positions(world.broker.market)[n] for n in range(kept)]
    world.broker.fault("positions", "wrong_type", value=shown)
    for _ in range(2):
        result = world.inside()
        assert result.exit_code == code
        assert not [r for r in world.store.records().values() if r["status"] != "OPEN"]
    if code == 0:
        assert [row["id"] for row in result.results if row["verdict"] == "filled_but_gone"] == names[kept:]


def test_an_account_without_its_id_is_no_answer(make_world: MakeWorld) -> None:
    world = make_world("file")
    world.ledger(sold(world))
    values: list[Any] = [None, "", 17, {}]
    for value in values:
        world.broker.account["id"] = value
        with world.untouched():
            assert world.inside().exit_code == 3, value


# --------------------------------------------------------------------------- settings

WRONG: dict[str, tuple[dict[str, str | None], str]] = {
    "url-without-host": ({"GHOSTCLEAN_TRADING_URL": "https://"}, "GHOSTCLEAN_TRADING_URL"),
    "plain-http-to-a-foreign-host": ({"GHOSTCLEAN_TRADING_URL": "http://broker.example.com"}, "GHOSTCLEAN_TRADING_URL"),
    "plain-http-for-data": ({"GHOSTCLEAN_DATA_URL": "http://data.example.com"}, "GHOSTCLEAN_DATA_URL"),
    "ftp": ({"GHOSTCLEAN_TRADING_URL": "ftp://127.0.0.1"}, "GHOSTCLEAN_TRADING_URL"),
    "half-a-pair": ({"ALPACA_SECRET_KEY": None}, "ALPACA_SECRET_KEY"),
    "the-other-half": ({"ALPACA_API_KEY": None}, "ALPACA_API_KEY"),
    "mixed-pairs": ({"ALPACA_SECRET_KEY": None, "APCA_API_SECRET_KEY": SECRET}, "ALPACA_SECRET_KEY"),
    "no-keys": ({"ALPACA_API_KEY": None, "ALPACA_SECRET_KEY": None}, "ALPACA_API_KEY"),
    "redis-scheme": ({"REDIS_URL": "http://127.0.0.1:6379"}, "REDIS_URL"),
    "ledger-scheme": ({"GHOSTCLEAN_LEDGER": "postgres://x"}, "GHOSTCLEAN_LEDGER"),
    "state-scheme": ({"GHOSTCLEAN_STATE": "file:x"}, "GHOSTCLEAN_STATE"),
    "grace": ({"GHOSTCLEAN_GRACE": "soon"}, "GHOSTCLEAN_GRACE"),
    "negative-grace": ({"GHOSTCLEAN_GRACE": "-5"}, "GHOSTCLEAN_GRACE"),
    "breaker": ({"GHOSTCLEAN_MAX_UNPROVEN_CLOSES": "many"}, "GHOSTCLEAN_MAX_UNPROVEN_CLOSES"),
    "confirmations": ({"GHOSTCLEAN_CONFIRMATIONS": "0"}, "GHOSTCLEAN_CONFIRMATIONS"),
    "broker": ({"GHOSTCLEAN_BROKER": "robinhood"}, "GHOSTCLEAN_BROKER"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named_with_its_cure(world: World, name: str) -> None:
    variables, named = WRONG[name]
    world.ledger(sold(world))
    with world.untouched():
        run = world.reconcile(**variables)
    assert run.code == 2
    assert run.document["error"] == "bad_settings"
    assert named in run.document["detail"]
    assert named in one_line(run)
    assert not world.broker.requests


@pytest.mark.parametrize(
    "option", [("--deadline", "-1"), ("--deadline", "0"), ("--deadline", "soon"), ("--max", "0"), ("--max", "x"),
               ("--orphans", "hide"), ("--run-id", ""), ("--nonsense", "1")],
)  # fmt: skip
def test_a_wrong_option_is_named(world: World, option: tuple[str, str]) -> None:
    run = world.reconcile(*option)
    assert run.code == 2
    assert run.document["error"] == "bad_settings"
    assert option[0] in one_line(run)
    assert not world.broker.requests


def test_the_second_name_of_the_pair_works(world: World) -> None:
    world.ledger(sold(world))
    names = {"ALPACA_API_KEY": None, "ALPACA_SECRET_KEY": None, "APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET}
    assert world.reconcile(**names).document["closed"] == 1


# --------------------------------------------------------------------------- stores that are not there, secrets


def test_a_redis_that_is_not_there_is_one_line(world: World) -> None:
    run = world.reconcile("--deadline", "2s", REDIS_URL="redis://:SENTINELnobody@127.0.0.1:1/0")
    assert run.code == 4
    assert run.document["error"] == "state_failed"
    line = one_line(run)
    assert "ledger" in line
    assert "Cure" in line
    assert run.seconds < 2 + SLACK


def test_a_wrong_password_is_one_line_without_it(world: World) -> None:
    url = world.redis_url.replace("SENTINELpass", "SENTINELwrong")
    run = world.reconcile("--verbose", REDIS_URL=url)
    assert run.code == 4
    assert "password" in one_line(run)


@pytest.mark.parametrize(
    "body", [{"message": f"key {KEY} with {SECRET} is unknown"}, f"<b>{SECRET}</b>", f"{KEY[:-1]}"]
)
def test_a_broker_that_repeats_our_keys_is_not_quoted(world: World, body: Any) -> None:
    world.ledger(sold(world))
    world.broker.fault("account", 401, body=body)
    run = world.reconcile("--verbose")
    assert run.code == 3
    if body == KEY[:-1]:
        # Not the key itself: only a broker that cuts it could say so.
        world.said.clear()
        world.redis.delete(*world.redis.keys("*telemetry:reconcile:runs"))


def test_a_crash_with_verbose_shows_a_traceback_without_secrets(world: World) -> None:
    script = (
        "import os\n"
        "from ghostclean.adapters import alpaca\n"
        "def broken(self):\n"
        "    raise RuntimeError(f\"boom {os.environ['ALPACA_SECRET_KEY']} {os.environ['REDIS_URL']}\")\n"
        "alpaca.AlpacaBroker.positions = broken\n"
    )
    world.ledger(sold(world))
    run = world.reconcile("--verbose", script=script, GHOSTCLEAN_RAISE=None)
    assert run.code == 1
    assert run.document["error"] == "reconcile_failed"
    assert "boom" not in run.document["detail"]  # a library's words may hold anything
    assert "Traceback" in run.stderr
    assert "boom ***" in run.stderr
    assert world.summary()["fail"] == "1"


def test_github_actions_gets_annotations_and_a_summary_without_secrets(world: World) -> None:
    world.ledger(sold(world))
    world.broker.fault("positions", 500)
    summary = world.folder / "summary.md"
    run = world.reconcile("--deadline", "2s", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert run.code == 3
    assert "::error::" in run.stderr or "::error " in run.stderr
    assert summary.read_text()
    world.broker.clear_faults()
    assert world.reconcile("--non-fatal", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary)).code == 0


@pytest.mark.parametrize("args", [(), ("--non-fatal",)])
def test_non_fatal_softens_the_code_and_still_says_it(world: World, args: tuple[str, ...]) -> None:
    world.ledger(sold(world))
    world.broker.fault("positions", 403)
    run = world.reconcile(*args)
    assert run.code == (0 if args else 3)
    assert run.document["ok"] is False
    assert run.document["error"] == "broker_truth_failed"
    assert one_line(run)
