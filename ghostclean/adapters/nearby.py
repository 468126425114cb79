"""Names what may be the ledger that was meant, near a place where there is none; looks at beginnings only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ghostclean.adapters.redis_client import RedisServer
from ghostclean.errors import LedgerFailed
from ghostclean.places import Place

_MOST_KEYS = 20_000
_PAGE = 1000
_MOST_FILES = 200
_BEGINNING = 4096  # bytes
_NAMED = 5
_RECORDS = re.compile(rb'^\s*[\[{].*?"(ticker|symbol)"\s*:', re.DOTALL)


def nearby(place: Place, server: Callable[[str], RedisServer]) -> list[str]:
    """Places of the same kind whose beginning reads like trades; raises LedgerFailed."""
    if place.kind == "redis":
        return [f"the key {name}" for name in islice(_keys(server(place.where)), _NAMED)]
    return [f"the file {path}" for path in islice(_files(place.path.parent, Path.cwd()), _NAMED)]


def _keys(server: RedisServer) -> Iterator[str]:
    with server.speaking("Looking for a ledger", LedgerFailed):
        cursor, seen = 0, 0
        while seen < _MOST_KEYS:
            cursor, page = server.answer("SCAN", cursor, "COUNT", _PAGE)
            seen += len(page)
            kinds = server.ask(*(("TYPE", name) for name in page)) if page else []
            for name, kind in zip(page, kinds, strict=True):
                if _RECORDS.match(_beginning(server, name, kind)):
                    yield name.decode(errors="backslashreplace")
            if not int(cursor):
                return


def _beginning(server: RedisServer, name: bytes, kind: bytes) -> bytes:
    if kind == b"string":
        return bytes(server.answer("GETRANGE", name, 0, _BEGINNING))
    if kind != b"hash":
        return b""
    fields = server.answer("HSCAN", name, 0, "COUNT", 1)[1]
    return bytes(next(iter(fields.values()), b""))[:_BEGINNING]


def _files(*folders: Path) -> Iterator[Path]:
    for folder in dict.fromkeys(folder.absolute() for folder in folders):
        for path in islice(sorted(folder.glob("*.json")), _MOST_FILES):
            try:
                with path.open("rb") as file:
                    beginning = file.read(_BEGINNING)
            except OSError:
                continue
            if _RECORDS.match(beginning):
                yield path
