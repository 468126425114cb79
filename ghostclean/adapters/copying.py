"""Copies a ledger between places and layouts, record by record, each with its exact text.

The source is only read. The target must not exist or hold no trades; it is replaced only while it
still is what was looked at, and a file keeps its mode, its owner and, if it is an object with an
empty `trades`, its other members. Those of a source are left behind and named in the notes. What
was written is read back and compared with the source, which must still be what was read at the
start.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ghostclean.core.jsontext import BadJson, edit_record, find_array, loads, skip, splice
from ghostclean.core.ledger import record_id
from ghostclean.errors import BadSettings, LedgerFailed
from ghostclean.places import Place

from .ledger_file import LedgerFile
from .ledger_text import LedgerText
from .redis_client import RedisServer
from .redis_key import LedgerKey

_log = logging.getLogger("ghostclean")

_NAMED = 5  # members of a source that the note names
_PAGE = 500
_PAGE_BYTES = 4_000_000
_LEFTOVER_SECONDS = 3600  # a copy that was never finished goes away by itself
# KEYS: target, finished copy; ARGV: an empty array as the target may hold it
_TO_EMPTY = """
if redis.call('EXISTS', KEYS[1]) == 1 and not (ARGV[1] ~= '' and redis.call('TYPE', KEYS[1]).ok == 'string'
    and redis.call('GET', KEYS[1]) == ARGV[1]) then return 'TAKEN' end
if redis.call('EXISTS', KEYS[2]) == 0 then return 'LOST' end
redis.call('RENAME', KEYS[2], KEYS[1])
redis.call('PERSIST', KEYS[1])
return 'DONE'
"""


def copy_ledger(source: Place, target: Place, *, layout: str | None, dry_run: bool) -> dict[str, Any]:
    """Copies and verifies; raises LedgerFailed, and BadSettings for an impossible wish."""
    if target.kind == "file" and layout is not None:
        raise BadSettings("--layout is for a Redis target; a file is always a JSON array (nothing was done)")
    if _same(source, target):
        raise BadSettings("FROM and TO are the same ledger (nothing was done)")
    found = _read(source)
    texts = found.texts
    wanted = "file" if target.kind == "file" else layout or "string"
    if wanted == "hash":
        _check_ids(texts)
    _check_empty(target, _read(target, may_miss=True))
    notes = _notes(source, found)
    if not dry_run:
        _write(target, wanted, texts)
        _verify(source, target, texts, wanted)
    return {
        "ok": True,
        "dryRun": dry_run,
        "from": source.describe(),
        "to": target.describe(),
        "layout": wanted,
        "trades": len(texts),
        "notes": notes,
        "error": None,
        "detail": None,
    }


def _notes(source: Place, found: _Found) -> list[str]:
    """What is not copied, for the document, and as warnings for people."""
    notes = []
    if found.others:
        more = f" and {len(found.others) - _NAMED} more" if len(found.others) > _NAMED else ""
        names = ", ".join(name[:40] for name in found.others[:_NAMED])
        notes.append(f"only trades are copied: {source.describe()} also has {names}{more}")
    for note in notes:
        _log.warning(note)
    return notes


def _same(source: Place, target: Place) -> bool:
    return (source.kind, source.describe()) == (target.kind, target.describe())


# --------------------------------------------------------------------------- reading


class _Found(NamedTuple):
    """The exact text of every record, and the names of what an object holds besides."""

    texts: list[str]
    others: tuple[str, ...] = ()


def _read(place: Place, *, may_miss: bool = False) -> _Found:
    """All that stands there; raises LedgerFailed for anything that is not a ledger."""
    if place.kind == "file":
        raw = LedgerFile(place.path).content()
        return _missing(place, may_miss) if raw is None else _elements(place, raw)
    key = LedgerKey(RedisServer(place.where), place.key)
    kind = key.type()
    if kind == "none":
        return _missing(place, may_miss)
    if kind == "string":
        return _elements(place, key.call("GET", place.key))
    if kind == "hash":
        return _Found([_field_text(place, field, raw) for field, raw in sorted(_hash_fields(key).items())])
    raise LedgerFailed(f"{place.describe()} is a Redis {kind}, not a ledger; nothing was changed; check the key")


def _missing(place: Place, may_miss: bool) -> _Found:
    if may_miss:
        return _Found([])
    raise LedgerFailed(f"{place.describe()} does not exist; nothing was changed; check FROM")


def _check_empty(target: Place, found: _Found) -> None:
    if found.texts:
        raise LedgerFailed(
            f"{target.describe()} already holds {len(found.texts)} trades; nothing was changed; name an empty place"
        )


def _decoded(place: Place, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise LedgerFailed(f"{place.describe()} is not UTF-8; nothing was changed; repair it first") from None


def _elements(place: Place, raw: bytes) -> _Found:
    text = _decoded(place, raw)
    try:
        texts = LedgerText(text, bare=place.kind == "redis").records()
        whole = loads(text) if text.lstrip().startswith("{") else {}
    except BadJson as error:
        raise LedgerFailed(f"{place.describe()} is damaged: {error}; nothing was changed; repair it first") from None
    return _Found(texts, tuple(name for name in whole if name != "trades"))


def _hash_fields(key: LedgerKey) -> dict[bytes, bytes]:
    """Every field once: while a hash grows or shrinks a scan may give one twice."""
    found: dict[bytes, bytes] = {}
    cursor = 0
    while True:
        cursor, page = key.call("HSCAN", key.name, cursor, "COUNT", _PAGE)
        found.update(page)
        if not int(cursor):
            return found


def _field_text(place: Place, field: bytes, raw: bytes) -> str:
    """The record of a hash field as it stands; one without an id gets the field's name, as every reading gives it."""
    name = field.decode(errors="replace")
    text = _decoded(place, raw).strip()
    try:
        record = loads(text)
    except BadJson as error:
        raise LedgerFailed(
            f"field {name[:60]} of {place.describe()} is damaged: {error}; nothing was changed; repair it first"
        ) from None
    if not isinstance(record, dict):
        raise LedgerFailed(f"field {name[:60]} of {place.describe()} is no trade; nothing was changed; remove it first")
    if record.get("id") is None:
        return edit_record(text, {"id": name})
    if record_id(record) != name:
        raise LedgerFailed(
            f"field {name[:60]} of {place.describe()} holds the trade of another id; nothing was changed; "
            "correct it in the app"
        )
    return text


def _check_ids(texts: Sequence[str]) -> None:
    """A hash needs a different id for each record: it would silently keep one of two."""
    seen: set[str] = set()
    for text in texts:
        identity = _id_of(text)
        if identity is None or identity in seen:
            what = "has no id" if identity is None else f"shares its id {identity} with another"
            raise LedgerFailed(f"a record {what}, so a hash cannot hold it; nothing was changed; correct it in the app")
        seen.add(identity)


def _id_of(text: str) -> str | None:
    record = loads(text)
    return record_id(record) if isinstance(record, Mapping) else None


# --------------------------------------------------------------------------- writing


def _write(target: Place, layout: str, texts: Sequence[str]) -> None:
    if layout == "file":
        _write_file(target, texts)
        return
    if layout == "hash" and not texts:
        return  # a hash without fields is a key that is not there
    key = LedgerKey(RedisServer(target.where), target.key)
    beside = f"{target.key}:copy:{secrets.token_hex(6)}"

    def call(*command: str | int) -> Any:
        return key.call(*command, doing="Writing the copy", effect="neither the source nor the target is changed")

    try:
        if layout == "string":
            call("SET", beside, "[" + ",".join(texts) + "]", "EX", _LEFTOVER_SECONDS)
        for page in _pages(texts) if layout == "hash" else ():
            call("HSET", beside, *(part for text in page for part in (_id_of(text) or "", text)))
            call("EXPIRE", beside, _LEFTOVER_SECONDS)
        # The target appears as a whole: nobody ever reads half a ledger there.
        answer = call("EVAL", _TO_EMPTY, 2, target.key, beside, _empty_text(key))
    except LedgerFailed:
        with contextlib.suppress(LedgerFailed):
            call("UNLINK", beside)
        raise
    if answer != b"DONE":
        call("UNLINK", beside)
        raise _taken(target)


def _taken(target: Place) -> LedgerFailed:
    return LedgerFailed(f"{target.describe()} is no longer empty; nothing was changed; name an empty place")


def _write_file(target: Place, texts: Sequence[str]) -> None:
    """Puts the records into the file's empty array, as carefully as every run writes there."""
    file = LedgerFile(target.path)
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file.failed(f"cannot be written: {error.strerror}", "check the path and its permissions") from None
    with file.turn():
        before = file.content()
        if before is not None:
            _check_empty(target, _elements(target, before))
        text = "[]\n" if before is None else _decoded(target, before)
        start = find_array(text) + 1
        records = "\n" + ",\n".join(texts) + "\n" if texts else ""
        if not file.replace(before, splice(text, [(start, skip(text, start), records)]).encode()):
            raise _taken(target)


def _empty_text(key: LedgerKey) -> str:
    """The text of an array without trades at the target, '' where there is none."""
    if key.type() != "string":
        return ""
    text: str = (key.call("GET", key.name) or b"").decode(errors="replace")
    with contextlib.suppress(BadJson):
        return text if not LedgerText(text).records() else ""
    return ""


def _pages(texts: Sequence[str]) -> Iterator[list[str]]:
    """The records in parts that a server takes without making others wait."""
    page: list[str] = []
    size = 0
    for text in texts:
        page.append(text)
        size += len(text)
        if len(page) >= _PAGE or size >= _PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def _verify(source: Place, target: Place, texts: Sequence[str], layout: str) -> None:
    """Reads both again: the copy must equal what was read, and the source must still be that."""
    if sorted(_read(target, may_miss=not texts).texts) != sorted(texts):
        raise LedgerFailed(
            f"the copy in {target.describe()} is not what was read; the source is untouched; remove the copy"
        )
    if sorted(_read(source).texts) != sorted(texts):
        raise LedgerFailed(
            f"{source.describe()} changed while it was copied, so the copy in {target.describe()} ({layout}) is old; "
            "stop the app, remove the copy and migrate again"
        )
