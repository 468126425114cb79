"""The settings that README lists, read once, checked at once, and never shown with secrets.

A flag beats the environment, the environment beats `.env` in the working folder, and that beats
the default. Whatever is wrong becomes one BadSettings line that names the variable and the cure.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, get_args

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from platformdirs import user_data_path, user_state_path
from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ghostclean.core.inputs import Policy
from ghostclean.core.ledger import IDENTITY, BadMapping, LedgerMapping, read_mapping
from ghostclean.core.protection import ManagePolicy
from ghostclean.durations import DAY, parse_duration
from ghostclean.errors import BadSettings
from ghostclean.places import (
    Place,
    alert_urls,
    api_url,
    broker_place,
    ledger_place,
    mapping_path,
    redis_place,
    state_place,
    web_url,
)
from ghostclean.scrub import MASK, pieces, scrub, worth_hiding

LIVE_URL = "https://api.alpaca.markets"
PAPER_URL = "https://paper-api.alpaca.markets"
DATA_URL = "https://data.alpaca.markets"

_FIRST_PAIR = ("ALPACA_API_KEY", "ALPACA_SECRET_KEY")
_SECOND_PAIR = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
_OUR_PREFIXES = ("GHOSTCLEAN_", "AUTO_MANAGE_")
_TRUTHY = frozenset({"1", "true"})
_FALSY = frozenset({"0", "false", "no", "off"})
_SHOWN = 20  # characters of a word that is none
ENV_FILE = ".env"
FLEET_FOLDER = "GHOSTCLEAN_FLEET"
# Whose an account is, and what tells of it alone: of several accounts no two may share these.
_ITS_OWN = frozenset(
    (*_FIRST_PAIR, *_SECOND_PAIR, "ALPACA_LIVE_TRADE", "GHOSTCLEAN_BROKER", "REDIS_URL", "GHOSTCLEAN_LEDGER")
) | {"GHOSTCLEAN_LEDGER_KEY", "GHOSTCLEAN_HEARTBEAT_URL", "GHOSTCLEAN_METRICS_FILE"}


class Credentials(NamedTuple):
    """One pair of keys, and the names of the variables it came from."""

    key: SecretStr
    secret: SecretStr
    names: tuple[str, str]


class Origin(NamedTuple):
    """Where one setting came from (`environment`, `.env`, `flag`, `default`) and how to show it.

    `cure`: for a switch that its word does not turn on.
    """

    name: str
    source: str
    shown: str
    cure: str = ""


# --------------------------------------------------------------------------- value types


def _from_text(parse: Callable[[str], Any]) -> BeforeValidator:
    """A validator that parses text; what a program hands over (a number, a path) is read as its text."""
    return BeforeValidator(lambda value: parse(_text(value).strip()))


def _text(value: Any) -> str:
    """A setting as the environment would spell it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, (str, int, float, Decimal)):  # a bool is an int: `True` is read as `true`
        return str(value)
    raise ValueError("it must be text or a number")


def _whole(least: int, most: int) -> BeforeValidator:
    def parse(text: str) -> int:
        if not text.lstrip("+-").isdecimal() or not least <= int(text[:12]) <= most:
            raise ValueError(f"it must be a whole number from {least} to {most}")
        return int(text)

    return _from_text(parse)


def _fraction(least: str, most: str, wish: str) -> BeforeValidator:
    def parse(text: str) -> Decimal:
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise ValueError(f"it must be {wish}") from None
        if not value.is_finite() or not Decimal(least) <= value <= Decimal(most):
            raise ValueError(f"it must be {wish}")
        return value

    return _from_text(parse)


def _key_text(text: str) -> str:
    if any(c.isspace() or not c.isprintable() for c in text) or len(text) > 200:
        raise ValueError("it must be at most 200 printable characters without blanks")
    return text


_Duration = Annotated[float, _from_text(parse_duration)]
_Grace = Annotated[float, _from_text(lambda text: parse_duration(text, zero=True))]
_Interval = Annotated[float, _from_text(lambda text: parse_duration(text, most=31 * DAY))]
_Switch = Annotated[bool, _from_text(lambda text: text.lower() in _TRUTHY)]
_Key = Annotated[str, _from_text(_key_text)]
_ApiUrl = Annotated[str, _from_text(api_url)]
_Broker = Annotated[Place, _from_text(broker_place)]
_RedisUrl = Annotated[Place, _from_text(redis_place)]
_Ledger = Annotated[Place, _from_text(ledger_place)]
_State = Annotated[Place, _from_text(state_place)]
_WebUrl = Annotated[SecretStr, _from_text(web_url)]
_AlertUrls = Annotated[SecretStr, _from_text(alert_urls)]
_PathText = Annotated[str, _from_text(lambda text: text)]
# Only the exact word means the live account: a typing error must fail on the safe side (1 == True).
_Live = Annotated[bool, BeforeValidator(lambda value: value is True or value == "true")]
_Closes = Annotated[int, _whole(0, 1_000_000)]
_Runs = Annotated[int, _whole(1, 1000)]
_PerRun = Annotated[int, _whole(1, 100_000)]
_Minutes = Annotated[int, _whole(1, 389)]
_TrailR = Annotated[Decimal, _fraction("0.1", "1000", "a number of R above 0, such as 2.5")]
_TrailShare = Annotated[Decimal, _fraction("0.0001", "0.5", "a share of the price from 0.0001 to 0.5, such as 0.005")]
_CutLossR = Annotated[Decimal, _fraction("-1000", "-0.01", "a number of R below 0, such as -1")]


# --------------------------------------------------------------------------- the model


class Settings(BaseSettings):
    """Everything an operator can set; build it with `load` or `of`."""

    model_config = SettingsConfigDict(
        case_sensitive=True, extra="ignore", frozen=True, hide_input_in_errors=True, validate_default=False
    )

    alpaca_api_key: SecretStr | None = Field(None, alias="ALPACA_API_KEY")
    alpaca_secret_key: SecretStr | None = Field(None, alias="ALPACA_SECRET_KEY")
    apca_api_key_id: SecretStr | None = Field(None, alias="APCA_API_KEY_ID")
    apca_api_secret_key: SecretStr | None = Field(None, alias="APCA_API_SECRET_KEY")
    live: _Live = Field(False, alias="ALPACA_LIVE_TRADE")
    trading_url_override: _ApiUrl | None = Field(None, alias="GHOSTCLEAN_TRADING_URL")
    data_url_override: _ApiUrl | None = Field(None, alias="GHOSTCLEAN_DATA_URL")
    broker: _Broker = Field(Place("alpaca"), alias="GHOSTCLEAN_BROKER")
    redis_url: _RedisUrl | None = Field(None, alias="REDIS_URL")
    ledger: _Ledger | None = Field(None, alias="GHOSTCLEAN_LEDGER")
    ledger_key: _Key = Field("trades:v1:local", alias="GHOSTCLEAN_LEDGER_KEY")
    mapping: _PathText | None = Field(None, alias="GHOSTCLEAN_MAPPING")
    state: _State | None = Field(None, alias="GHOSTCLEAN_STATE")
    key_prefix: _Key = Field("", alias="GHOSTCLEAN_KEY_PREFIX")
    grace: _Grace = Field(120.0, alias="GHOSTCLEAN_GRACE")
    max_unproven_closes: _Closes = Field(3, alias="GHOSTCLEAN_MAX_UNPROVEN_CLOSES")
    confirmations: _Runs = Field(1, alias="GHOSTCLEAN_CONFIRMATIONS")
    interval: _Interval = Field(300.0, alias="GHOSTCLEAN_INTERVAL")
    heartbeat_url: _WebUrl | None = Field(None, alias="GHOSTCLEAN_HEARTBEAT_URL")
    alert_url: _AlertUrls | None = Field(None, alias="GHOSTCLEAN_ALERT_URL")
    metrics_file: _PathText | None = Field(None, alias="GHOSTCLEAN_METRICS_FILE")
    auto_enabled: _Switch = Field(False, alias="AUTO_MANAGE_ENABLED")
    auto_eod_flatten: _Switch = Field(False, alias="AUTO_MANAGE_EOD_FLATTEN")
    auto_trail_enabled: _Switch = Field(False, alias="AUTO_MANAGE_TRAIL_ENABLED")
    auto_cut_loss_enabled: _Switch = Field(False, alias="AUTO_MANAGE_CUT_LOSS_ENABLED")
    auto_trail_r: _TrailR = Field(Decimal("2.5"), alias="AUTO_MANAGE_TRAIL_R")
    auto_trail_pct: _TrailShare = Field(Decimal("0.005"), alias="AUTO_MANAGE_TRAIL_PCT")
    auto_cut_loss_r: _CutLossR = Field(Decimal(-1), alias="AUTO_MANAGE_CUT_LOSS_R")
    auto_max_per_run: _PerRun = Field(50, alias="AUTO_MANAGE_MAX_PER_RUN")
    auto_eod_flatten_minutes: _Minutes = Field(12, alias="AUTO_MANAGE_EOD_FLATTEN_MINUTES")

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _credentials: Credentials | None = PrivateAttr(default=None)
    _looks_around: bool = PrivateAttr(default=False)
    _read_from: str = PrivateAttr(default="")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over: it has read every source once and knows which won."""
        return (init_settings,)

    @classmethod
    def load(
        cls, flags: Mapping[str, str] | None = None, env_file: str | None = None, *, may_be_missing: bool = False
    ) -> Self:
        """From flags, the environment and `.env` (or `env_file`, which must exist unless it `may_be_missing`).

        Raises BadSettings.
        """
        there = not may_be_missing or env_file is None or Path(env_file).exists()
        file = _env_file(env_file) if there else {}
        return cls._build({".env": file, "environment": os.environ, "flag": flags or {}}, _which_file(env_file))

    @classmethod
    def of_account(cls, env_file: str) -> Self:
        """Of one account among several: what its file says wins; what is each account's own comes from nowhere else.

        Raises BadSettings, also where the file does not say which ledger is meant.
        """
        shared = {name: value for name, value in os.environ.items() if name not in _ITS_OWN}
        settings = cls._build({"environment": shared, ".env": _env_file(env_file)}, _which_file(env_file))
        if settings.ledger is None and settings.redis_url is None:
            raise BadSettings(
                f"{env_file} names no ledger: nothing was done; in a fleet REDIS_URL or GHOSTCLEAN_LEDGER "
                "must stand in the account's own file"
            )
        return settings

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From these variables alone, whatever the environment says; raises BadSettings."""
        return cls._build({"flag": values})

    @classmethod
    def _build(cls, layers: Mapping[str, Mapping[str, Any]], read_from: str = "") -> Self:
        given = {source: _present(layer) for source, layer in layers.items()}
        values = {name: value for layer in given.values() for name, value in layer.items()}
        sources = {name: source for source, layer in given.items() for name in layer}
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise BadSettings(_one_line(error, values)) from None
        settings._given = values
        settings._sources = sources
        settings._looks_around = ".env" in layers
        settings._credentials = _pair(settings, sources)
        settings._read_from = read_from
        _check_account(settings)
        return settings

    # ---------------------------------------------------------------- what follows from them

    def require_credentials(self) -> Credentials:
        """The pair, or BadSettings with the cure."""
        if self._credentials is None:
            raise BadSettings(
                "ALPACA_API_KEY and ALPACA_SECRET_KEY are not set: the broker was not asked, nothing changed; "
                "set both, or GHOSTCLEAN_BROKER=file:PATH to replay a snapshot"
            )
        return self._credentials

    @property
    def read_from(self) -> str:
        """Which file was read, or where none was found; empty for settings that a program hands over."""
        return self._read_from

    @property
    def trading_url(self) -> str:
        return self.trading_url_override or (LIVE_URL if self.live else PAPER_URL)

    @property
    def data_url(self) -> str:
        return self.data_url_override or DATA_URL

    @property
    def ledger_at(self) -> Place:
        chosen = self.ledger or self.redis_url
        if chosen is None:
            return Place("file", str(user_data_path("ghostclean", appauthor=False) / "trades.json"))
        return chosen.with_key(self.ledger_key)

    def mapping_of(self, ledger: Place) -> LedgerMapping:
        """The app's own names in that ledger, the contract's where no file says others; raises BadSettings.

        Settings that name everything themselves look for no file.
        """
        path = mapping_path(self.mapping, ledger) if self.mapping or self._looks_around else None
        if path is None:
            return IDENTITY
        try:
            return replace(read_mapping(path.read_text(encoding="utf-8")), source=str(path))
        except (OSError, UnicodeDecodeError) as error:
            why = f"it cannot be read ({type(error).__name__})"
        except BadMapping as error:
            why = str(error)
        raise BadSettings(f"GHOSTCLEAN_MAPPING is wrong: {path}, {why} (nothing was done)")

    @property
    def state_at(self) -> Place:
        return self.state or self.redis_url or Place("sqlite", str(self.home / "state.db"))

    @property
    def home(self) -> Path:
        """The user's state folder, where the SQLite state lives by default."""
        return user_state_path("ghostclean", appauthor=False)

    @property
    def spool_at(self) -> Path:
        """The local folder for records that a state could not take: beside a SQLite state."""
        place = self.state_at
        return (place.path.parent if place.kind == "sqlite" else self.home) / "spool"

    def policy(self, **options: Any) -> Policy:
        """What the operator allows, with the options of one run (`close`, `sync`, `orphans`, …)."""
        return Policy(
            grace=timedelta(seconds=self.grace),
            max_unproven_closes=self.max_unproven_closes,
            confirmations=self.confirmations,
            interval=timedelta(seconds=self.interval),
            **options,
        )

    def manage(self) -> ManagePolicy:
        """What the operator allows the engine that manages open trades."""
        return ManagePolicy(
            enabled=self.auto_enabled,
            eod_flatten=self.auto_eod_flatten,
            trail_enabled=self.auto_trail_enabled,
            cut_loss_enabled=self.auto_cut_loss_enabled,
            trail_r=self.auto_trail_r,
            trail_pct=self.auto_trail_pct,
            cut_loss_r=self.auto_cut_loss_r,
            max_per_run=self.auto_max_per_run,
            eod_flatten_minutes=self.auto_eod_flatten_minutes,
        )

    @property
    def given(self) -> dict[str, str]:
        """Every variable that is set, wherever, as its text; secrets are not masked."""
        return {name: _text(value).strip() for name, value in self._given.items()}

    def value(self, name: str) -> str | None:
        """The text of the variable with this name, None when it is not set; secrets are not masked."""
        found = next(getattr(self, attribute) for attribute, field in _FIELDS.items() if field.alias == name)
        return None if found is None else _text(found)

    @property
    def account_kind(self) -> str:
        """`snapshot`, `live` or `paper`."""
        return "snapshot" if self.broker.kind == "snapshot" else "live" if self.live else "paper"

    @property
    def key_mark(self) -> str:
        """The same text for the same keys, from which nobody can tell them; empty without keys."""
        if self._credentials is None:
            return ""
        return hashlib.sha256(self._credentials.key.get_secret_value().encode()).hexdigest()

    def origins(self) -> tuple[Origin, ...]:
        """Every setting, where it came from and a form of it that is safe to show."""
        return tuple(self._origin(field.alias or name, getattr(self, name)) for name, field in _FIELDS.items())

    def _origin(self, name: str, value: Any) -> Origin:
        cure = ""
        if value is None:
            shown = "not set"
        elif name in _SECRETS:
            shown = MASK
        else:
            given = _text(self._given.get(name, str(value)))
            shown = scrub(given.strip(), secrets_in({name: given})) if isinstance(value, Place) else str(value)
            if value is False and given.strip().lower() not in _FALSY:
                off = "paper" if name == "ALPACA_LIVE_TRADE" else "off"
                shown, cure = f"{off}, because of the word {given[:_SHOWN]!r}", f"only {name}=true turns it on"
        return Origin(name, self._sources.get(name, "default"), shown, cure)


def _holds(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_holds(part, kind) for part in get_args(annotation))


_FIELDS = Settings.model_fields
_NAMES = frozenset(field.alias or name for name, field in _FIELDS.items())
_SECRETS = frozenset(f.alias for f in _FIELDS.values() if _holds(f.annotation, SecretStr))


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Our variables among these; one that is set to nothing counts as unset."""
    return {name: value for name, value in values.items() if name in _NAMES and not _is_blank(value)}


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def fleet_folder() -> str | None:
    """The folder with the accounts' env files on a worker's machine, where that is not the scheduler's."""
    return os.environ.get(FLEET_FOLDER) or None


def unread(env_file: str | None = None) -> dict[str, str]:
    """Variables that look like ours and are none, with the nearest name: typing errors, mostly."""
    import difflib

    given = {**_readable(env_file), **os.environ}
    known = _NAMES | {FLEET_FOLDER}
    strange = sorted(n for n, v in given.items() if n.startswith(_OUR_PREFIXES) and n not in known and v)
    return {name: next(iter(difflib.get_close_matches(name, _NAMES, 1, 0.8)), "") for name in strange}


def _one_line(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Every wrong variable with its cure; never a value that may be secret."""
    parts = []
    for row in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(row["loc"][0])
        said = row["msg"].removeprefix("Value error, ")
        parts.append(f"{name} is wrong: {said}")
    return scrub("; ".join(parts), secrets_in(values)) + " (nothing was done)"


def _pair(settings: Settings, sources: Mapping[str, str]) -> Credentials | None:
    """The pair of keys that counts; halves of two pairs are never put together.

    The first name of the pair wins, unless only the second was given where it counts more
    (the environment, over a `.env` file).
    """
    first = _complete(settings.alpaca_api_key, settings.alpaca_secret_key, _FIRST_PAIR)
    second = _complete(settings.apca_api_key_id, settings.apca_api_secret_key, _SECOND_PAIR, other=first)
    if first and second:
        near = ("flag", "environment")
        first_is_far = any(sources.get(name) not in near for name in _FIRST_PAIR)
        second_is_near = all(sources.get(name) in near for name in _SECOND_PAIR)
        return second if first_is_far and second_is_near else first
    return first or second


def _complete(
    key: SecretStr | None, secret: SecretStr | None, names: tuple[str, str], other: Credentials | None = None
) -> Credentials | None:
    if key is not None and secret is not None:
        return Credentials(key, secret, names)
    if key is None and secret is None:
        return None
    if other is not None:
        return None
    missing = names[1] if key is not None else names[0]
    given = names[0] if key is not None else names[1]
    raise BadSettings(
        f"{missing} is not set, but {given} is: keys come in pairs; set both or neither (nothing was done)"
    )


def _check_account(settings: Settings) -> None:
    """Refuses a URL of Alpaca that contradicts paper or live."""
    url = settings.trading_url_override
    if url == LIVE_URL and not settings.live:
        raise BadSettings(
            "GHOSTCLEAN_TRADING_URL is the live account, but ALPACA_LIVE_TRADE is not the word true: "
            "set ALPACA_LIVE_TRADE=true, or unset the URL for paper (nothing was done)"
        )
    if url == PAPER_URL and settings.live:
        raise BadSettings(
            "GHOSTCLEAN_TRADING_URL is the paper account, but ALPACA_LIVE_TRADE=true means live: "
            "unset one of the two (nothing was done)"
        )


# --------------------------------------------------------------------------- the file, and secrets


def _env_file(path: str | None) -> Mapping[str, str | None]:
    """What the file says; only `.env`, which nobody asked for, may be missing."""
    name = path or ENV_FILE
    if not Path(name).is_file():
        if path is None:
            return {}
        folder = Path(name).parent.absolute()
        raise BadSettings(
            f"--env-file {name} is no file in {folder}: nothing was done; name the file with the settings"
        )
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(
            f"{name} cannot be read ({type(error).__name__}): nothing was done; fix or remove it"
        ) from None
    # Not left to `dotenv_values`, which logs what it cannot read and goes on without it.
    wrong = next((line.original for line in parse_stream(io.StringIO(text)) if line.error), None)
    if wrong is not None:
        blank = wrong.string[: -len(wrong.string.lstrip())].count("\n")
        raise BadSettings(
            f"{name} cannot be read from line {wrong.line + blank} on: nothing was done; write NAME=value or # and a "
            "comment there, and put a value with a quote in it, or of several lines, in quotes"
        )
    return dotenv_values(stream=io.StringIO(text))


def file_values(path: str | Path) -> dict[str, str]:
    """What a file of settings says; raises BadSettings."""
    return {name: value for name, value in _env_file(str(path)).items() if value}


def _which_file(path: str | None) -> str:
    file = Path(path or ENV_FILE)
    return f"settings from {file.absolute()}" if file.is_file() else f"no {file.name} in {file.parent.absolute()}"


def _readable(path: str | None) -> Mapping[str, str | None]:
    try:
        return _env_file(path)
    except BadSettings:
        return {}


def secrets_in(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The secret values among these variables, passwords in URLs included."""
    known = {name: value for name, value in _present(values).items() if isinstance(value, str)}
    urls = [url for value in known.values() for url in value.split()]
    hidden = [value for name, value in known.items() if name in _SECRETS]
    return worth_hiding([*hidden, *(piece for value in hidden for piece in pieces(value))], urls)


def environment_secrets(env_file: str | None = None) -> tuple[str, ...]:
    """Secret values of the environment and the file, also when the settings are wrong."""
    return tuple(dict.fromkeys((*secrets_in(_readable(env_file)), *secrets_in(os.environ))))
