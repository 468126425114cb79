"""Keeps secrets out of everything that is printed or written.

Error texts of libraries may quote a URL with its password; whatever leaves the program as an
error, a log line or a traceback passes through here first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

MASK = "***"
SECRET_NAMES = frozenset(
    {
        "ALPACA_API_KEY",
        "ALPACA_SECRET_KEY",
        "APCA_API_KEY_ID",
        "APCA_API_SECRET_KEY",
        "GHOSTCLEAN_HEARTBEAT_URL",
        "GHOSTCLEAN_ALERT_URL",
    }
)
URL_NAMES = frozenset(
    {"REDIS_URL", "GHOSTCLEAN_LEDGER", "GHOSTCLEAN_STATE", "GHOSTCLEAN_TRADING_URL", "GHOSTCLEAN_DATA_URL"}
)

# As far as the last @ before the path: a password may itself hold one.
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_IN_QUERY = re.compile(r"(?<=[?&])(password|username|token|key|secret)=[^&#\s'\"]*", re.IGNORECASE)
_SECRET_OPTIONS = ("password", "token", "key", "secret")
_SHORTEST = 4  # shorter values would blank out ordinary words


def secrets_in(environment: Mapping[str, str | None]) -> tuple[str, ...]:
    """The secret values among these variables, longest first; passwords in URLs included."""
    found: set[str] = set()
    for name, value in environment.items():
        if not value:
            continue
        if name in SECRET_NAMES:
            found.add(value.strip())
        if name in SECRET_NAMES or name in URL_NAMES:
            found.update(_passwords(value))
    return tuple(sorted((s for s in found if len(s) >= _SHORTEST), key=len, reverse=True))


def _passwords(url: str) -> Iterable[str]:
    try:
        parts = urlsplit(url.strip())
        password = parts.password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
    for name, value in parse_qsl(parts.query):
        if name.lower() in _SECRET_OPTIONS:
            yield value


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets and without user and password in any URL."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _IN_QUERY.sub(rf"\1={MASK}", _USERINFO.sub(f"{MASK}@", text))
