"""Looks for ledgers: JSON arrays in files, Redis keys and tables whose records may be trades. Nothing is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ghostclean.core.ledger import BadJson, loads
from ghostclean.errors import BadSettings, GhostcleanError, LedgerFailed
from ghostclean.places import Place, ledger_place

_RECORDS = 1000  # of one place, the newest
_KEYS = 20_000  # of one Redis
_FILES = 200
_LARGEST = 64_000_000  # bytes of a text
_SQLITE = b"SQLite format 3\0"
_SQL = ("sqlite", "postgresql", "postgres", "mysql", "mariadb")
_ELSEWHERE = frozenset({"node_modules", "venv", "__pycache__", "site-packages", "dist", "build"})
_OURS = ("ghostclean:", "telemetry:")
_RECORDS_OF_A_STRING = re.compile(rb"\s*\[\s*\{")
_EACH = "*"  # stands for a table that is not named


class Sample(NamedTuple):
    """A place and some of its records as they stand there, oldest first; `why_not` where they cannot be read."""

    place: Place
    records: tuple[Mapping[str, Any], ...] = ()
    total: int = 0
    why_not: str = ""


def look_at(text: str) -> Iterator[Sample]:
    """The ledger that a URL names, or whatever is in the server or database that it names.

    Raises BadSettings and LedgerFailed.
    """
    try:
        place = ledger_place(text if "#" in text or not is_database(text) else f"{text}#{_EACH}")
    except ValueError as error:
        raise BadSettings(f"--ledger is wrong: {error} (nothing was done)") from None
    if place.kind == "sql":
        from .ledgers.sql_survey import tables

        for key, rows, total, why_not in tables(place, None if place.key == _EACH else place.key, _RECORDS):
            yield Sample(replace(place, key=key), rows, total, why_not)
    elif place.kind == "redis":
        yield from _keys(place) if not place.key else (_key(place),)
    else:
        yield _file(place)


def is_database(text: str) -> bool:
    return text.partition(":")[0].partition("+")[0].lower() in _SQL


def look_around(urls: Iterable[str], folder: Path) -> Iterator[Sample]:
    """What these places hold, and the JSON and SQLite files in a folder and right below it; a failure is a sample."""
    for url in urls:
        yield from _tried(url)
    for path in sorted(_files(folder))[:_FILES]:
        try:
            with path.open("rb") as file:
                start = file.read(len(_SQLITE))
            size = path.stat().st_size
        except OSError:
            continue
        if start == _SQLITE:
            yield from _tried(f"sqlite:///{path}")
        elif path.suffix == ".json" and start.lstrip()[:1] in (b"[", b"{") and size <= _LARGEST:
            yield _file(Place("file", str(path)))


def _tried(url: str) -> Iterator[Sample]:
    try:
        yield from look_at(url)
    except GhostcleanError as error:
        place = ledger_place(f"{url.partition('#')[0]}#{_EACH}")
        yield Sample(replace(place, key=""), why_not=str(error))


def _files(folder: Path) -> Iterator[Path]:
    below = (path for path in folder.iterdir() if path.is_dir() and path.name not in _ELSEWHERE)
    for inside in (folder, *(path for path in below if not path.name.startswith("."))):
        try:
            yield from (p for p in inside.glob("[!.]*") if p.suffix in (".json", ".db", ".sqlite", ".sqlite3"))
        except OSError:  # not ours to look into
            continue


def _file(place: Place) -> Sample:
    from .ledgers.text import LedgerText

    try:
        return _read(place, LedgerText(place.path.read_text(encoding="utf-8")).records().texts)
    except OSError as error:
        return Sample(place, why_not=f"it cannot be read ({error.strerror})")
    except (UnicodeDecodeError, BadJson) as error:
        return Sample(place, why_not=f"it is no JSON array of trades: {error}")


def _read(place: Place, texts: Iterable[str]) -> Sample:
    records = [value for text in texts if isinstance(value := loads(text), dict)]
    return Sample(place, tuple(records[-_RECORDS:]), len(records))


def _key(place: Place) -> Sample:
    from .ledgers import open_ledger

    try:
        found = open_ledger(place).records()
    except LedgerFailed as error:
        return Sample(place, why_not=str(error))
    return _read(place, found.texts) if found.exists else Sample(place, why_not="there is no such key")


def _keys(place: Place) -> Iterator[Sample]:
    """The strings and hashes of a Redis that hold JSON as a ledger does."""
    from .redis_client import RedisServer, checked

    server = RedisServer(place.where)
    with server.speaking("Looking for a ledger", LedgerFailed):
        names = sorted(name for name in _scanned(server) if not any(ours.encode() in name for ours in _OURS))
        kinds = checked(server.ask(*(("TYPE", name) for name in names))) if names else ()
        alike = [name for name, kind in zip(names, kinds, strict=True) if _is_alike(server, name, kind)]
    for name in alike:
        yield _key(replace(place, key=name.decode(errors="backslashreplace")))


def _scanned(server: Any) -> set[bytes]:
    names: set[bytes] = set()
    cursor = 0
    while True:
        cursor, page = server.answer("SCAN", cursor, "COUNT", 1000)
        names.update(page)
        if not int(cursor) or len(names) >= _KEYS:
            return names


def _is_alike(server: Any, name: bytes, kind: bytes) -> bool:
    if kind == b"string":
        return _RECORDS_OF_A_STRING.match(server.answer("GETRANGE", name, 0, 99)) is not None
    if kind != b"hash":
        return False
    _, found = server.answer("HSCAN", name, 0, "COUNT", 1)
    values = list(found.values()) if isinstance(found, dict) else list(found)[1::2]
    return bool(values) and values[0].lstrip().startswith(b"{")
