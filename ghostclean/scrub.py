"""Keeps secrets out of everything printed or written: error texts of libraries may quote a URL with its password."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

MASK = "***"

# As far as the last @ before the path: a password may itself hold one.
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_IN_QUERY = re.compile(r"(?<=[?&])((?:ssl)?password|username|token|key|secret)=[^&#\s'\"]*", re.IGNORECASE)
_SECRET_OPTIONS = ("password", "sslpassword", "token", "key", "secret")
_SHORTEST = 4  # shorter values would blank out ordinary words
_TOKEN = 12  # characters: shorter ones are words of an address, mostly


def pieces(urls: str) -> Iterable[str]:
    """The URLs of a list, and what may be a token in them: long, and not the name of a host."""
    for url in urls.split():
        yield url
        first, *others = re.split(r"[/:@?&=#,]+", url.partition("://")[2])
        yield from (text for text in others if len(text) >= _TOKEN)
        if len(first) >= _TOKEN and "." not in first:
            yield first


def worth_hiding(values: Iterable[str], urls: Iterable[str]) -> tuple[str, ...]:
    """These values, and the passwords in these URLs, longest first."""
    found = {value.strip() for value in values}
    for url in urls:
        found.update(_passwords(url))
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
