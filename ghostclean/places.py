"""Where a ledger, a state or a broker truth lives, as parsed; ValueErrors never repeat a URL (passwords)."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

T = TypeVar("T")

REDIS_SCHEMES = ("redis", "rediss", "unix")
SQL_PORTS = {"postgresql": 5432, "mysql": 3306}
_SQL_SCHEMES = {"postgres": "postgresql", "mariadb": "mysql", **{name: name for name in ("sqlite", *SQL_PORTS)}}


@dataclass(frozen=True, slots=True)
class Place:
    """A Redis or SQL database (URL without fragment), a file, or Alpaca; `key`: of a ledger in Redis, or its table.

    The adapter of a ledger, a state or a broker is named like its `kind`.
    """

    kind: str
    where: str = field(default="", repr=False)
    key: str = ""

    @property
    def path(self) -> Path:
        return Path(self.where.removeprefix("sqlite://") if self.kind == "sql" else self.where)

    @property
    def scheme(self) -> str:
        """The kind of database, of one that speaks SQL."""
        return self.where.partition(":")[0]

    def with_key(self, key: str) -> Place:
        return replace(self, key=self.key or key) if self.kind == "redis" else self

    @property
    def url(self) -> str:
        """As GHOSTCLEAN_LEDGER spells it, with user and password."""
        if self.kind == "file":
            return f"file:{self.where}"
        if self.kind == "sql" and self.scheme == "sqlite":
            return f"sqlite:///{self.path}#{self.key}"
        return f"{self.where}#{quote(self.key, safe='.:')}" if self.key else self.where

    @property
    def identity(self) -> str:
        """The same text for the same place however it is spelled; names of hosts are not looked up."""
        if self.kind == "redis":
            return f"redis:{_database(self.where)}#{self.key}"
        if self.kind == "sql" and self.scheme != "sqlite":
            return self.describe()
        key = self.key.lower()
        try:
            found = self.path.stat()
            return f"{self.kind}:{found.st_dev}:{found.st_ino}#{key}"
        except (OSError, ValueError):
            return f"{self.kind}:{os.path.realpath(self.path)}#{key}"

    def describe(self) -> str:
        """For people: without user and password."""
        if self.kind == "sql":
            return _sql_name(self)
        if self.kind != "redis":
            return f"{self.kind}:{self.where}"
        parts = urlsplit(self.where)
        netloc = parts.netloc.rpartition("@")[2]
        shown = f"{parts.scheme}://{netloc}{parts.path}"
        return f"{shown}#{self.key}" if self.key else shown


def redis_place(text: str) -> Place:
    """A `redis://`, `rediss://` or `unix://` URL; a fragment is the key of the ledger."""
    parts = _split(text)
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError("it must start with redis://, rediss:// or unix://")
    if parts.scheme == "unix":
        if not text.lower().startswith("unix://") or not parts.path.strip("/"):
            raise ValueError("it names no socket; write unix:///path/to/redis.sock")
    else:
        if not parts.hostname:
            raise ValueError(f"it has no host; write {parts.scheme}://HOST:6379/0")
        database = parts.path.strip("/")
        if database and not database.isdecimal():
            raise ValueError(f"its database must be a number; write {parts.scheme}://HOST:6379/0")
    return Place("redis", parts._replace(fragment="").geturl(), unquote(parts.fragment))


def _database(url: str) -> str:
    """A database of a server; TLS or not, as whom and with which options makes no other of it."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        server, path = os.path.realpath(unquote(parts.path)), ""
    else:
        host, path = (parts.hostname or "localhost").rstrip("."), parts.path.strip("/")
        server = f"{'localhost' if is_loopback(host) else host}:{parts.port or 6379}"
    number = dict(parse_qsl(parts.query)).get("db") or path
    return f"{server}/{number.lstrip('0') or '0'}"


def ledger_place(text: str) -> Place:
    if text.lower().startswith("file:"):
        return Place("file", _path(text, "trades.json"))
    scheme = text.partition(":")[0].lower()
    if scheme in REDIS_SCHEMES:
        return redis_place(text)
    if (database := scheme.partition("+")[0]) in _SQL_SCHEMES:
        return _sql_place(text, _SQL_SCHEMES[database])
    raise ValueError(
        "it must be a Redis URL (redis://, rediss://, unix://), file:PATH, or a SQL table "
        "(sqlite:////PATH#TABLE, postgresql://…#TABLE, mysql://…#TABLE)"
    )


def _sql_place(text: str, scheme: str) -> Place:
    """A table of a database, as SQLAlchemy spells it: after `sqlite:` three slashes lead to a relative path."""
    url, _, table = text.rpartition("#") if "#" in text else (text, "", "")
    if scheme == "sqlite":
        path = url.partition(":")[2]
        relative = path.removeprefix("///") if path.startswith("//") else path
        if not relative or relative.startswith("//") or not table or "?" in path or "\0" in path:
            raise ValueError("it must name a file and a table; write sqlite:////full/path/bot.db#TABLE")
        return Place("sql", f"sqlite://{Path(relative).expanduser().absolute()}", table)
    parts = _split(text)
    if not parts.path.strip("/") or not table:
        raise ValueError(f"it must name a database and a table; write {scheme}://USER@HOST/DATABASE#TABLE")
    return Place("sql", parts._replace(scheme=scheme, fragment="").geturl(), unquote(table))


def _sql_name(place: Place) -> str:
    """A table of a server by its host and port, in the schema that is searched first; a socket is this machine's."""
    if place.scheme == "sqlite":
        return f"sqlite:///{os.path.realpath(place.path)}#{place.key.lower()}"  # its tables have no case
    parts = urlsplit(place.where)
    options = dict(parse_qsl(parts.query))
    host = (options.get("host") or parts.hostname or "localhost").lower().rstrip(".")
    local = host.startswith("/") or is_loopback(host) or "unix_socket" in options
    port = options.get("port") or parts.port or SQL_PORTS[place.scheme]
    table = place.key.removeprefix("public.") if place.scheme == "postgresql" else place.key
    return f"{place.scheme}://{'localhost' if local else host}:{port}{parts.path}#{table}"


def mapping_path(named: str | None, ledger: Place) -> Path | None:
    """The file with the app's own names: the one that is named, else beside the ledger, else in the working folder."""
    if named is not None:
        return Path(named).expanduser()
    folders = [ledger.path.parent] if ledger.kind == "file" or ledger.scheme == "sqlite" else []
    return next((path for folder in (*folders, Path()) if (path := folder / "mapping.toml").is_file()), None)


def state_place(text: str) -> Place:
    if text.lower().startswith("sqlite:"):
        return Place("sqlite", _path(text, "state.db"))
    if text.partition("://")[0].lower() in REDIS_SCHEMES:
        return redis_place(text)
    raise ValueError("it must be a Redis URL (redis://, rediss://, unix://) or sqlite:PATH")


def broker_place(text: str) -> Place:
    if text.lower() == "alpaca":
        return Place("alpaca")
    if text.lower().startswith("file:"):
        return Place("snapshot", _path(text, "broker.json"))
    raise ValueError("it must be alpaca or file:PATH of a snapshot")


def api_url(text: str) -> str:
    """A base URL of the API: `https://`, or `http://` on loopback; without a trailing `/v2`."""
    parts = _split(text)
    if parts.scheme not in ("https", "http"):
        raise ValueError("it must start with https:// (http:// only on loopback)")
    if not parts.hostname:
        raise ValueError("it has no host; write https://HOST")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it must be just https://HOST, without user, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain http:// is allowed on loopback only; use https://")
    return parts.geturl().rstrip("/").removesuffix("/v2")


def web_url(text: str) -> str:
    parts = _split(text)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("it must be https://HOST/… (or http://)")
    return text


def alert_urls(text: str) -> str:
    """URLs of any scheme, separated by blanks; whether Apprise knows it, only Apprise can tell."""

    def check(url: str, number: int) -> None:
        del number
        scheme, _, rest = url.partition("://")
        if scheme.lower() in ("http", "https"):
            web_url(url)
        elif not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", scheme) or not rest:
            raise ValueError("it must be https://HOST/… or a URL of Apprise such as ntfy://HOST/TOPIC")

    each_url(text, check)
    return text


def each_url(text: str, read: Callable[[str, int], T]) -> list[T]:
    """What `read` makes of each URL of the list and its number; a ValueError says which one is wrong."""
    urls, found = text.split(), []
    for number, url in enumerate(urls, 1):
        try:
            found.append(read(url, number))
        except ValueError as error:
            which = f"URL {number} of {len(urls)}: " if len(urls) > 1 else ""
            raise ValueError(f"{which}{error}") from None
    return found


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(text: str) -> SplitResult:
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("it contains a blank or a control character")
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            raise ValueError("0")
    except ValueError:
        raise ValueError("it is no valid URL (check host and port)") from None
    return parts


def _path(text: str, example: str) -> str:
    scheme, _, rest = text.partition(":")
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    if not path or path.startswith("//") or "\0" in path:
        raise ValueError(f"it names no path; write {scheme.lower()}:{example} or {scheme.lower()}:/full/path/{example}")
    return str(Path(path).expanduser().absolute())
