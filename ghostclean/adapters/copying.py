"""Copies a ledger between places and layouts, record by record, each with its exact text.

The source is only read. The target must not exist or hold no trades; what was written is read
back and compared with the source, which must still be what was read at the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ghostclean.core.jsontext import BadJson, loads
from ghostclean.core.trade import record_id
from ghostclean.errors import BadSettings, LedgerFailed
from ghostclean.places import Place

from .ledger_text import LedgerText
from .private_file import write_private
from .redis_client import RedisServer
from .redis_key import LedgerKey

_PAGE = 500
_TO_EMPTY = """
if redis.call('EXISTS', KEYS[1]) == 1 and not (redis.call('TYPE', KEYS[1]).ok == 'string'
    and redis.call('GET', KEYS[1]) == '[]') then return 'TAKEN' end
redis.call('DEL', KEYS[1])
if ARGV[1] == 'string' then redis.call('SET', KEYS[1], ARGV[2])
else for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end end
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
        return [_decoded(place, raw) for _, raw in sorted(_hash_fields(key))]
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


def _hash_fields(key: LedgerKey) -> Iterator[tuple[bytes, bytes]]:
    cursor = 0
    while True:
        cursor, page = key.call("HSCAN", key.name, cursor, "COUNT", _PAGE)
        yield from page.items()
        if not int(cursor):
            return


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
    array = "[" + ",".join(texts) + "]"
    if layout == "file":
        pretty = "[\n" + ",\n".join(texts) + "\n]\n" if texts else "[]\n"
        target.path.parent.mkdir(parents=True, exist_ok=True)
        write_private(target.path, pretty)
        return
    key = LedgerKey(RedisServer(target.where), target.key)
    fields = [part for text in texts for part in (_id_of(text) or "", text)]
    values = [array] if layout == "string" else fields
    answer = key.call(
        "EVAL", _TO_EMPTY, 1, target.key, layout, *values, doing="Writing the copy", effect="the source is untouched"
    )
    if answer != b"DONE":
        raise LedgerFailed(f"{target.describe()} is no longer empty; nothing was changed; name an empty place")


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
