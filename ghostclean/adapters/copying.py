"""Copies a ledger between places and layouts, record by record, each with its exact text.

The source is only read. The target must not exist or hold no trades; what was written is read
back and compared with the source, which must still be what was read at the start.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ghostclean.core.jsontext import BadJson, edit_record, loads
from ghostclean.core.trade import record_id
from ghostclean.errors import BadSettings, LedgerFailed
from ghostclean.places import Place

from .ledger_text import LedgerText
from .private_file import write_private
from .redis_client import RedisServer
from .redis_key import LedgerKey

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
    texts = _read(source)
    wanted = "file" if target.kind == "file" else layout or "string"
    if wanted == "hash":
        _check_ids(texts)
    held = _read(target, may_miss=True)
    if held:
        raise LedgerFailed(
            f"{target.describe()} already holds {len(held)} trades; nothing was changed; name an empty place"
        )
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
        "error": None,
        "detail": None,
    }


def _same(source: Place, target: Place) -> bool:
    return (source.kind, source.describe()) == (target.kind, target.describe())


# --------------------------------------------------------------------------- reading


def _read(place: Place, *, may_miss: bool = False) -> list[str]:
    """The exact text of every record; raises LedgerFailed for anything that is not a ledger."""
    text = _file_text(place) if place.kind == "file" else None
    if place.kind == "file":
        return _missing(place, may_miss) if text is None else _elements(place, text)
    key = LedgerKey(RedisServer(place.where), place.key)
    kind = key.type()
    if kind == "none":
        return _missing(place, may_miss)
    if kind == "string":
        return _elements(place, _decoded(place, key.call("GET", place.key)))
    if kind == "hash":
        return [_field_text(place, field, raw) for field, raw in sorted(_hash_fields(key).items())]
    raise LedgerFailed(f"{place.describe()} is a Redis {kind}, not a ledger; nothing was changed; check the key")


def _missing(place: Place, may_miss: bool) -> list[str]:
    if may_miss:
        return []
    raise LedgerFailed(f"{place.describe()} does not exist; nothing was changed; check FROM")


def _file_text(place: Place) -> str | None:
    try:
        return place.path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerFailed(
            f"{place.describe()} cannot be read ({error}); nothing was changed; check the file"
        ) from None


def _decoded(place: Place, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise LedgerFailed(f"{place.describe()} is not UTF-8; nothing was changed; check the key") from None


def _elements(place: Place, text: str) -> list[str]:
    try:
        return LedgerText(text).records()
    except BadJson as error:
        raise LedgerFailed(f"{place.describe()} is damaged: {error}; nothing was changed; repair it first") from None


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
        pretty = "[\n" + ",\n".join(texts) + "\n]\n" if texts else "[]\n"
        target.path.parent.mkdir(parents=True, exist_ok=True)
        write_private(target.path, pretty)
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
        raise LedgerFailed(f"{target.describe()} is no longer empty; nothing was changed; name an empty place")


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
    if sorted(_read(target, may_miss=not texts)) != sorted(texts):
        raise LedgerFailed(
            f"the copy in {target.describe()} is not what was read; the source is untouched; remove the copy"
        )
    if sorted(_read(source)) != sorted(texts):
        raise LedgerFailed(
            f"{source.describe()} changed while it was copied, so the copy in {target.describe()} ({layout}) is old; "
            "stop the app, remove the copy and migrate again"
        )
