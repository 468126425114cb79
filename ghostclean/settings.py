"""The settings that README lists, read once, checked at once, and never shown with secrets.

A flag beats the environment, the environment beats `.env` in the working folder, and that beats
the default. Whatever is wrong becomes one BadSettings line that names the variable and the cure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from platformdirs import user_data_path, user_state_path
from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ghostclean.core.inputs import Policy
from ghostclean.core.protection import ManagePolicy
from ghostclean.durations import DAY, parse_duration
from ghostclean.errors import BadSettings
from ghostclean.places import Place, api_url, broker_place, ledger_place, redis_place, state_place, web_url
from ghostclean.scrub import MASK, SECRET_NAMES, URL_NAMES, scrub, secrets_in

LIVE_URL = "https://api.alpaca.markets"
PAPER_URL = "https://paper-api.alpaca.markets"
DATA_URL = "https://data.alpaca.markets"

_FIRST_PAIR = ("ALPACA_API_KEY", "ALPACA_SECRET_KEY")
_SECOND_PAIR = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
_OUR_PREFIXES = ("GHOSTCLEAN_", "AUTO_MANAGE_")
_TRUTHY = frozenset({"1", "true"})


class Credentials(NamedTuple):
    """One pair of keys, and the names of the variables it came from."""

    key: SecretStr
    secret: SecretStr
    names: tuple[str, str]


class Origin(NamedTuple):
    """Where one setting came from (`environment`, `.env`, `flag`, `default`) and how to show it."""

    name: str
    source: str
    shown: str


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


def _checked(check: Callable[[str], object]) -> BeforeValidator:
    """Validates text with a parser and keeps the text; the value never appears in the error."""

    def parse(text: str) -> str:
        check(text)
        return text

    return _from_text(parse)


_Duration = Annotated[float, _from_text(parse_duration)]
_Grace = Annotated[float, _from_text(lambda text: parse_duration(text, zero=True))]
_Interval = Annotated[float, _from_text(lambda text: parse_duration(text, most=31 * DAY))]
_Switch = Annotated[bool, _from_text(lambda text: text.lower() in _TRUTHY)]
_Key = Annotated[str, _from_text(_key_text)]
_ApiUrl = Annotated[str, _from_text(api_url)]
_Broker = Annotated[str, _checked(broker_place)]
_RedisUrl = Annotated[SecretStr, _checked(redis_place)]
_Ledger = Annotated[SecretStr, _checked(lambda text: ledger_place(text, ""))]
_State = Annotated[SecretStr, _checked(state_place)]
_WebUrl = Annotated[SecretStr, _checked(web_url)]
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


# --------------------------------------------------------------------------- sources


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without blank values: a variable set to nothing counts as unset."""
    return {name: value for name, value in values.items() if not _is_blank(value)}


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


class _Environment(EnvSettingsSource):
    def __call__(self) -> dict[str, Any]:
        return _present(super().__call__())


class _DotEnv(DotEnvSettingsSource):
    def __call__(self) -> dict[str, Any]:
        return _present(super().__call__())


# --------------------------------------------------------------------------- the model


class Settings(BaseSettings):
    """Everything an operator can set; build it with `load` or `of`."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        case_sensitive=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    alpaca_api_key: SecretStr | None = Field(None, alias="ALPACA_API_KEY")
    alpaca_secret_key: SecretStr | None = Field(None, alias="ALPACA_SECRET_KEY")
    apca_api_key_id: SecretStr | None = Field(None, alias="APCA_API_KEY_ID")
    apca_api_secret_key: SecretStr | None = Field(None, alias="APCA_API_SECRET_KEY")
    live: _Live = Field(False, alias="ALPACA_LIVE_TRADE")
    trading_url_override: _ApiUrl | None = Field(None, alias="GHOSTCLEAN_TRADING_URL")
    data_url_override: _ApiUrl | None = Field(None, alias="GHOSTCLEAN_DATA_URL")
    broker: _Broker = Field("alpaca", alias="GHOSTCLEAN_BROKER")
    redis_url: _RedisUrl | None = Field(None, alias="REDIS_URL")
    ledger: _Ledger | None = Field(None, alias="GHOSTCLEAN_LEDGER")
    ledger_key: _Key = Field("trades:v1:local", alias="GHOSTCLEAN_LEDGER_KEY")
    state: _State | None = Field(None, alias="GHOSTCLEAN_STATE")
    key_prefix: _Key = Field("", alias="GHOSTCLEAN_KEY_PREFIX")
    grace: _Grace = Field(120.0, alias="GHOSTCLEAN_GRACE")
    max_unproven_closes: _Closes = Field(3, alias="GHOSTCLEAN_MAX_UNPROVEN_CLOSES")
    confirmations: _Runs = Field(1, alias="GHOSTCLEAN_CONFIRMATIONS")
    interval: _Interval = Field(300.0, alias="GHOSTCLEAN_INTERVAL")
    heartbeat_url: _WebUrl | None = Field(None, alias="GHOSTCLEAN_HEARTBEAT_URL")
    alert_url: _WebUrl | None = Field(None, alias="GHOSTCLEAN_ALERT_URL")
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

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _credentials: Credentials | None = PrivateAttr(default=None)

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
    def load(cls, flags: Mapping[str, str] | None = None) -> Self:
        """From flags, the environment and `.env`; raises BadSettings."""
        try:
            layers = {".env": _DotEnv(cls)(), "environment": _Environment(cls)(), "flag": _present(flags or {})}
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettings(
                f".env cannot be read ({type(error).__name__}): nothing was done; fix or remove it"
            ) from None
        return cls._build(layers)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From these variables alone, whatever the environment says; raises BadSettings."""
        return cls._build({"flag": _present(values)})

    @classmethod
    def _build(cls, layers: Mapping[str, Mapping[str, Any]]) -> Self:
        values = {name: value for layer in layers.values() for name, value in layer.items()}
        sources = {name: source for source, layer in layers.items() for name in layer}
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise BadSettings(_one_line(error, values)) from None
        settings._sources = sources
        settings._credentials = _pair(settings, sources)
        _check_account(settings)
        return settings

    # ---------------------------------------------------------------- what follows from them

    @property
    def credentials(self) -> Credentials | None:
        """The one complete pair that counts, None when there is none."""
        return self._credentials

    def require_credentials(self) -> Credentials:
        """The pair, or BadSettings with the cure."""
        if self._credentials is None:
            raise BadSettings(
                "ALPACA_API_KEY and ALPACA_SECRET_KEY are not set: the broker was not asked, nothing changed; "
                "set both, or GHOSTCLEAN_BROKER=file:PATH to replay a snapshot"
            )
        return self._credentials

    @property
    def trading_url(self) -> str:
        return self.trading_url_override or (LIVE_URL if self.live else PAPER_URL)

    @property
    def data_url(self) -> str:
        return self.data_url_override or DATA_URL

    @property
    def broker_at(self) -> Place:
        return broker_place(self.broker.strip())

    @property
    def ledger_at(self) -> Place:
        chosen = self.ledger or self.redis_url
        if chosen is None:
            return Place("file", str(user_data_path("ghostclean", appauthor=False) / "trades.json"))
        return ledger_place(chosen.get_secret_value(), self.ledger_key)

    @property
    def state_at(self) -> Place:
        chosen = self.state or self.redis_url
        if chosen is None:
            return Place("sqlite", str(self.home / "state.db"))
        return state_place(chosen.get_secret_value())

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

    def origins(self) -> tuple[Origin, ...]:
        """Every setting, where it came from and a form of it that is safe to show."""
        return tuple(self._origin(name, field.alias or name) for name, field in type(self).model_fields.items())

    def _origin(self, attribute: str, name: str) -> Origin:
        source = self._sources.get(name, "default")
        value = getattr(self, attribute)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is None:
            shown = "not set"
        elif name in SECRET_NAMES:
            shown = MASK
        else:
            shown = scrub(str(value), secrets_in({name: str(value)})) if name in URL_NAMES else str(value)
        return Origin(name, source, shown)

    @staticmethod
    def unread() -> dict[str, str]:
        """Variables that look like ours and are none, with the nearest name: typing errors, mostly."""
        import difflib

        known = [field.alias or name for name, field in Settings.model_fields.items()]
        given = {**_dotenv(), **os.environ}
        ours = [n for n, v in given.items() if n.startswith(_OUR_PREFIXES) and n not in known and v]
        return {name: next(iter(difflib.get_close_matches(name, known, 1, 0.8)), "") for name in sorted(ours)}

    def secrets(self) -> tuple[str, ...]:
        """The secret values, for scrubbing what is printed."""
        shown: dict[str, str | None] = {}
        for attribute, field in type(self).model_fields.items():
            value = getattr(self, attribute)
            if isinstance(value, SecretStr):
                shown[field.alias or attribute] = value.get_secret_value()
        return secrets_in(shown)


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


def environment_secrets() -> tuple[str, ...]:
    """Secret values of the environment and `.env`, also when the settings are wrong."""
    return tuple(dict.fromkeys((*secrets_in(_dotenv()), *secrets_in(os.environ))))


def _dotenv() -> Mapping[str, str | None]:
    """What `.env` says, nothing where it cannot be read."""
    from dotenv import dotenv_values

    try:
        return dotenv_values(".env")
    except (OSError, UnicodeDecodeError):
        return {}
