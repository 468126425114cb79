"""Settings: what counts, what is refused, and that no secret is ever shown."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ghostclean.errors import BadSettings
from ghostclean.scrub import scrub
from ghostclean.settings import DATA_URL, LIVE_URL, PAPER_URL, Settings, environment_secrets, secrets_in, unread

SECRET = "s3cr3t-sentinel"
OURS = ("ALPACA_", "APCA_", "GHOSTCLEAN_", "AUTO_MANAGE_", "REDIS_URL", "XDG_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def refused(**values: str) -> str:
    with pytest.raises(BadSettings) as caught:
        Settings.of(values)
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    return text


def test_defaults(tmp_path: Path) -> None:
    settings = Settings.load()
    with pytest.raises(BadSettings):
        settings.require_credentials()
    assert settings.live is False
    assert (settings.trading_url, settings.data_url) == (PAPER_URL, DATA_URL)
    assert settings.ledger_at.describe() == f"file:{tmp_path}/data/ghostclean/trades.json"
    assert settings.state_at.describe() == f"sqlite:{tmp_path}/state/ghostclean/state.db"
    assert (settings.grace, settings.interval, settings.confirmations) == (120.0, 300.0, 1)
    assert settings.policy().max_unproven_closes == 3
    assert settings.manage().trail_r == Decimal("2.5")
    assert not settings.manage().enabled


def test_environment_beats_dotenv_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GHOSTCLEAN_GRACE=30s\nGHOSTCLEAN_INTERVAL=60\n")
    monkeypatch.setenv("GHOSTCLEAN_GRACE", "10")
    settings = Settings.load()
    assert (settings.grace, settings.interval) == (10.0, 60.0)
    assert Settings.load({"GHOSTCLEAN_GRACE": "5"}).grace == 5.0
    origins = {origin.name: origin.source for origin in settings.origins()}
    assert origins["GHOSTCLEAN_GRACE"] == "environment"
    assert origins["GHOSTCLEAN_INTERVAL"] == ".env"
    assert origins["GHOSTCLEAN_CONFIRMATIONS"] == "default"


def test_a_blank_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GHOSTCLEAN_GRACE=30\nGHOSTCLEAN_INTERVAL=\n")
    monkeypatch.setenv("GHOSTCLEAN_GRACE", "  ")
    monkeypatch.setenv("REDIS_URL", "")
    settings = Settings.load()
    assert (settings.grace, settings.interval, settings.redis_url) == (30.0, 300.0, None)


def test_of_ignores_environment_and_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://elsewhere:1/0\n")
    monkeypatch.setenv("GHOSTCLEAN_GRACE", "nonsense")
    assert Settings.of({}).redis_url is None


def test_an_unreadable_dotenv_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"GHOSTCLEAN_GRACE=\xff\xfe\n")
    with pytest.raises(BadSettings, match=r"\.env cannot be read"):
        Settings.load()


# --------------------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("ALPACA_API_KEY", "ALPACA_SECRET_KEY"),
        ("ALPACA_SECRET_KEY", "ALPACA_API_KEY"),
        ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"),
        ("APCA_API_SECRET_KEY", "APCA_API_KEY_ID"),
    ],
)
def test_half_a_pair_names_the_missing_half(given: str, missing: str) -> None:
    assert refused(**{given: SECRET}).startswith(f"{missing} is not set, but {given} is")


def test_halves_of_two_pairs_are_never_mixed() -> None:
    refused(ALPACA_API_KEY=SECRET, APCA_API_SECRET_KEY=SECRET)


def test_the_second_name_of_the_pair_works() -> None:
    keys = Settings.of({"APCA_API_KEY_ID": "k", "APCA_API_SECRET_KEY": "s"}).require_credentials()
    assert (keys.key.get_secret_value(), keys.secret.get_secret_value()) == ("k", "s")


def test_the_first_name_wins_when_both_are_complete() -> None:
    both = {"ALPACA_API_KEY": "a", "ALPACA_SECRET_KEY": "b", "APCA_API_KEY_ID": "c", "APCA_API_SECRET_KEY": "d"}
    assert Settings.of(both).require_credentials().names == ("ALPACA_API_KEY", "ALPACA_SECRET_KEY")


def test_a_pair_in_the_environment_beats_one_in_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ALPACA_API_KEY=a\nALPACA_SECRET_KEY=b\n")
    monkeypatch.setenv("APCA_API_KEY_ID", "c")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "d")
    assert Settings.load().require_credentials().key.get_secret_value() == "c"


def test_no_pair_says_what_to_set() -> None:
    with pytest.raises(BadSettings, match="ALPACA_API_KEY and ALPACA_SECRET_KEY are not set"):
        Settings.of({}).require_credentials()


@pytest.mark.parametrize(
    ("word", "live"), [("true", True), ("TRUE", False), ("1", False), ("yes", False), ("no", False)]
)
def test_only_the_word_true_is_live(word: str, live: bool) -> None:
    settings = Settings.of({"ALPACA_LIVE_TRADE": word})
    assert settings.live is live
    assert settings.trading_url == (LIVE_URL if live else PAPER_URL)


def test_a_url_that_contradicts_the_account_is_refused() -> None:
    refused(GHOSTCLEAN_TRADING_URL=LIVE_URL)
    refused(GHOSTCLEAN_TRADING_URL=PAPER_URL + "/", ALPACA_LIVE_TRADE="true")


# --------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GHOSTCLEAN_TRADING_URL", "http://example.com"),
        ("GHOSTCLEAN_TRADING_URL", "https://"),
        ("GHOSTCLEAN_TRADING_URL", "ftp://127.0.0.1"),
        ("GHOSTCLEAN_TRADING_URL", f"https://user:{SECRET}@host"),
        ("GHOSTCLEAN_TRADING_URL", "https://host:notaport"),
        ("GHOSTCLEAN_TRADING_URL", "http://127.0.0.1.example.com"),
        ("GHOSTCLEAN_DATA_URL", "http://10.0.0.1:8080"),
        ("REDIS_URL", f"redis://:{SECRET}@"),
        ("REDIS_URL", f"http://:{SECRET}@host"),
        ("REDIS_URL", f"redis://:{SECRET}@host:70000/0"),
        ("REDIS_URL", f"redis://:{SECRET}@host/abc"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "unix:r.sock"),
        ("REDIS_URL", "unix:/r.sock"),
        ("GHOSTCLEAN_STATE", "unix:r.sock"),
        ("GHOSTCLEAN_LEDGER", "trades.json"),
        ("GHOSTCLEAN_LEDGER", "file:"),
        ("GHOSTCLEAN_LEDGER", "sqlite:x"),
        ("GHOSTCLEAN_STATE", "file:x"),
        ("GHOSTCLEAN_STATE", "sqlite:"),
        ("GHOSTCLEAN_BROKER", "ibkr"),
        ("GHOSTCLEAN_BROKER", "file:"),
        ("GHOSTCLEAN_GRACE", "-1"),
        ("GHOSTCLEAN_INTERVAL", "0"),
        ("GHOSTCLEAN_MAX_UNPROVEN_CLOSES", "-1"),
        ("GHOSTCLEAN_MAX_UNPROVEN_CLOSES", "many"),
        ("GHOSTCLEAN_CONFIRMATIONS", "0"),
        ("GHOSTCLEAN_LEDGER_KEY", "two words"),
        ("GHOSTCLEAN_HEARTBEAT_URL", f"mailto:{SECRET}"),
        ("AUTO_MANAGE_TRAIL_PCT", "nan"),
        ("AUTO_MANAGE_CUT_LOSS_R", "1"),
        ("AUTO_MANAGE_MAX_PER_RUN", "1.5"),
    ],
)
def test_wrong_values_name_the_variable_and_the_cure(name: str, value: str) -> None:
    assert refused(**{name: value}).startswith(f"{name} is wrong: ")


def test_every_wrong_variable_is_named_at_once() -> None:
    text = refused(GHOSTCLEAN_GRACE="x", GHOSTCLEAN_INTERVAL="y")
    assert "GHOSTCLEAN_GRACE" in text
    assert "GHOSTCLEAN_INTERVAL" in text


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:9", "https://proxy.example"]
)
def test_loopback_and_https_are_allowed(url: str) -> None:
    assert Settings.of({"GHOSTCLEAN_TRADING_URL": url + "/v2/"}).trading_url == url


def test_redis_url_is_the_home_of_ledger_and_state() -> None:
    settings = Settings.of({"REDIS_URL": f"rediss://user:{SECRET}@host:6380/2"})
    assert settings.ledger_at.describe() == "rediss://host:6380/2#trades:v1:local"
    assert settings.state_at.describe() == "rediss://host:6380/2"
    assert SECRET in settings.ledger_at.where
    assert SECRET not in repr(settings.ledger_at)


def test_ledger_and_state_can_live_apart(tmp_path: Path) -> None:
    values = {"REDIS_URL": "redis://host/0", "GHOSTCLEAN_LEDGER": "file:t.json", "GHOSTCLEAN_STATE": "sqlite:/s.db"}
    settings = Settings.of(values)
    assert settings.ledger_at.path == tmp_path / "t.json"
    assert settings.state_at.path == Path("/s.db")
    assert settings.spool_at == Path("/spool")


def test_a_fragment_is_the_key() -> None:
    assert Settings.of({"GHOSTCLEAN_LEDGER": "redis://h/0#trades:v1:live"}).ledger_at.key == "trades:v1:live"


def test_zero_grace_is_a_choice() -> None:
    assert Settings.of({"GHOSTCLEAN_GRACE": "0"}).grace == 0.0


# --------------------------------------------------------------------------- secrets


def test_secrets_are_never_shown() -> None:
    values: dict[str, Any] = {
        "ALPACA_API_KEY": SECRET + "1",
        "ALPACA_SECRET_KEY": SECRET + "2",
        "REDIS_URL": f"redis://:{SECRET}3@host/0",
        "GHOSTCLEAN_HEARTBEAT_URL": f"https://hc.example/{SECRET}4",
        "GHOSTCLEAN_ALERT_URL": f"https://hook.example/{SECRET}5",
    }
    settings = Settings.of(values)
    shown = (
        repr(settings)
        + str(settings)
        + repr(settings.require_credentials())
        + "".join(o.shown for o in settings.origins())
    )
    assert SECRET not in shown
    assert {SECRET + "1", SECRET + "2", SECRET + "3"} <= set(secrets_in(values))


def test_secrets_are_known_even_when_settings_are_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"ALPACA_SECRET_KEY={SECRET}-file\n")
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}-env@")
    assert {f"{SECRET}-file", f"{SECRET}-env"} <= set(environment_secrets())


# --------------------------------------------------------------------------- from a program


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GHOSTCLEAN_GRACE", -5),
        ("GHOSTCLEAN_GRACE", float("nan")),
        ("GHOSTCLEAN_CONFIRMATIONS", 0),
        ("GHOSTCLEAN_MAX_UNPROVEN_CLOSES", -1),
        ("AUTO_MANAGE_CUT_LOSS_R", 3),
        ("GHOSTCLEAN_LEDGER", []),
    ],
)
def test_numbers_of_a_program_are_checked_like_text(name: str, value: Any) -> None:
    assert name in refused(**{name: value})


def test_values_of_a_program_are_read_like_text(tmp_path: Path) -> None:
    values = {"GHOSTCLEAN_GRACE": 0, "GHOSTCLEAN_CONFIRMATIONS": 2, "AUTO_MANAGE_ENABLED": True, "REDIS_URL": None}
    settings = Settings.of({**values, "GHOSTCLEAN_METRICS_FILE": tmp_path / "m.prom"})
    assert (settings.grace, settings.confirmations, settings.redis_url) == (0.0, 2, None)
    assert settings.metrics_file == str(tmp_path / "m.prom")
    assert settings.manage().enabled


def test_a_number_never_means_the_live_account() -> None:
    assert Settings.of({"ALPACA_LIVE_TRADE": 1}).live is False
    assert Settings.of({"ALPACA_LIVE_TRADE": True}).live is True


def test_a_password_in_the_options_of_a_url_is_a_secret() -> None:
    values = {"REDIS_URL": f"redis://h/0?password={SECRET}&db=1"}
    settings = Settings.of(values)
    assert SECRET in secrets_in(values)
    [shown] = [origin.shown for origin in settings.origins() if origin.name == "REDIS_URL"]
    assert shown == "redis://h/0?password=***&db=1"


def test_user_information_ends_at_its_last_at() -> None:
    text = f"see redis://me:a@{SECRET}@host:1/0?password={SECRET} and https://host/a@b"
    assert scrub(text) == "see redis://***@host:1/0?password=*** and https://host/a@b"


def test_a_long_part_of_an_alert_url_is_a_secret_and_its_host_is_none() -> None:
    token, other = f"{SECRET}-of-discord", f"{SECRET}-of-telegram"
    values = {"GHOSTCLEAN_ALERT_URL": f"discord://1234/{token} https://hooks.example.org/T1/B2/x tgram://{other}/77"}
    secrets = secrets_in(values)
    assert scrub(f"error at https://discord.com/api/webhooks/1234/{token}?wait=1", secrets).endswith("/1234/***?wait=1")
    assert scrub(f"api.telegram.org/bot{other}/send", secrets) == "api.telegram.org/bot***/send"
    assert not {"hooks.example.org", "1234", "T1", "77"} & set(secrets)


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (["GHOSTCLEAN_GRACE=1", "set -a"], 2),
        (["# here", "", "<<<<<<< HEAD", "GHOSTCLEAN_GRACE=1", "=======", "GHOSTCLEAN_GRACE=2", ">>>>>>> b"], 3),
        ([f'ALPACA_SECRET_KEY="{SECRET}', "GHOSTCLEAN_GRACE=1"], 1),
        (["KEY=-----BEGIN PRIVATE KEY-----", f"{SECRET}=", "-----END PRIVATE KEY-----"], 3),
    ],
)
def test_a_line_that_is_none_of_a_file_is_said_by_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lines: list[str], wrong: int
) -> None:
    (tmp_path / ".env").write_text("\n".join(lines))
    with pytest.raises(BadSettings, match=rf"^\.env cannot be read from line {wrong} on: nothing was done; ") as error:
        Settings.load()
    assert SECRET not in str(error.value)
    assert environment_secrets() == ()
    assert caplog.text == ""


def test_values_in_quotes_may_have_several_lines(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f'export KEY="-----BEGIN-----\n{SECRET}\n-----END-----"\nGHOSTCLEAN_GRACE=7\n')
    assert Settings.load().grace == 7


@pytest.mark.parametrize("word", ["yes", "on", "TRUE ", "enabled"])
def test_a_word_that_turns_nothing_on_is_said(word: str) -> None:
    values = {"AUTO_MANAGE_ENABLED": word, "AUTO_MANAGE_TRAIL_ENABLED": "off", "ALPACA_LIVE_TRADE": word}
    told = {o.name: (o.shown, o.cure) for o in Settings.of(values).origins() if o.cure}
    live = (f"paper, because of the word '{word}'", "only ALPACA_LIVE_TRADE=true turns it on")
    off = (f"off, because of the word '{word}'", "only AUTO_MANAGE_ENABLED=true turns it on")
    assert told == {"ALPACA_LIVE_TRADE": live} | ({} if word == "TRUE " else {"AUTO_MANAGE_ENABLED": off})


def test_misspelt_variables_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AUTO_MANAGE_ENABLE=1\n")
    monkeypatch.setenv("GHOSTCLEAN_SOMETHING_ELSE", "1")
    monkeypatch.setenv("GHOSTCLEAN_GRACE", "1")
    assert unread() == {"AUTO_MANAGE_ENABLE": "AUTO_MANAGE_ENABLED", "GHOSTCLEAN_SOMETHING_ELSE": ""}


# --------------------------------------------------------------------------- the app's own names

NAMES = '[fields]\nticker = "pair"\nstatus = "state"\n'


def test_a_mapping_is_named_or_stands_beside_the_ledger_or_here(tmp_path: Path) -> None:
    folder = tmp_path / "bot"
    folder.mkdir()
    ledger = f"file:{folder}/trades.json"
    for place in (tmp_path / "mapping.toml", folder / "mapping.toml", folder / "other.toml"):
        named = {"GHOSTCLEAN_MAPPING": str(place)} if place.name == "other.toml" else {}
        place.write_text(NAMES)
        settings = Settings.load({"GHOSTCLEAN_LEDGER": ledger, **named})
        assert settings.mapping_of(settings.ledger_at).source in (str(place), place.name)
    alone = Settings.of({"GHOSTCLEAN_LEDGER": ledger})
    assert alone.mapping_of(alone.ledger_at).is_identity, "settings that name everything look for no file"


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "it cannot be read"), (NAMES + 'closedat = "x"', "line 4: closedat is no field of a trade")],
)
def test_a_wrong_mapping_is_a_wrong_setting(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "m.toml").write_text(text)
    settings = Settings.of({"GHOSTCLEAN_MAPPING": "m.toml"})
    with pytest.raises(BadSettings, match=f"GHOSTCLEAN_MAPPING is wrong: m.toml, {why}"):
        settings.mapping_of(settings.ledger_at)
