"""Names what may be the ledger that was meant, near a place where there is none; looks at beginnings only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ghostclean.adapters.redis_client import Command, RedisServer
from ghostclean.errors import LedgerFailed
from ghostclean.places import Place

_MOST_KEYS = 20_000
_PAGE = 1000
_MOST_FILES = 200
_BEGINNING = 4096  # bytes
_NAMED = 5
_OURS = re.compile(rb"(ghostclean|telemetry):")  # under any prefix
_RECORDS = re.compile(rb'^\s*[\[{].*?"(ticker|symbol)"\s*:', re.DOTALL)


def nearby(place: Place, server: Callable[[str], RedisServer]) -> list[str]:
    """Places of the same kind whose beginning reads like trades; raises LedgerFailed."""
    if place.kind == "redis":
        return [f"the key {name}" for name in islice(_keys(server(place.where)), _NAMED)]
    files = _files(place.path.parent, Path.cwd()) if place.kind == "file" else ()
    return [f"the file {path}" for path in islice(files, _NAMED)]


def _keys(server: RedisServer) -> Iterator[str]:
    with server.speaking("Looking for a ledger", LedgerFailed):
        cursor, seen = 0, 0
        while seen < _MOST_KEYS:
            cursor, page = server.answer("SCAN", cursor, "COUNT", _PAGE)
            seen += len(page)
            foreign = [name for name in page if not _OURS.search(name)]
            for name, beginning in _beginnings(server, foreign):
                if _RECORDS.match(beginning):
                    yield name.decode(errors="backslashreplace")
            if not int(cursor):
                return


def _beginnings(server: RedisServer, names: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """How the strings among these keys begin, and a value of the hashes, in two round trips."""
    kinds = server.ask(*(("TYPE", name) for name in names)) if names else ()
    asked: dict[bytes, Command] = {}
    for name, kind in zip(names, kinds, strict=True):
        if kind == b"string":
            asked[name] = ("GETRANGE", name, 0, _BEGINNING)
        elif kind == b"hash":
            asked[name] = ("HSCAN", name, 0, "COUNT", 1)
    answers = server.ask(*asked.values()) if asked else ()
    for name, answer in zip(asked, answers, strict=True):
        if isinstance(answer, tuple):
            answer = next(iter(answer[1].values()), b"")
        if isinstance(answer, bytes):  # not of a key that has gone, or that is not ours to read
            yield name, answer


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
