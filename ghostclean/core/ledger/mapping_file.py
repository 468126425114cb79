"""The text of a mapping file, checked: what is unknown, said twice or contradictory is an error of its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, time
from typing import Any
from zoneinfo import ZoneInfo

from .mapping import MARKS, NAMES, SIZES, SYNONYMS, TIMES, WRITTEN, LedgerMapping, Only
from .spelling import UNITS, Field, Path
from .trade import FINAL, OPEN, PENDING, SIZE_FIELDS

_TOP = ("fields", "values", "filter", "extra", "unit", "zone")
_OF_A_FIELD = ("name", "unit", "zone", "signed", "null")
_SPOKEN = ("side", "source", "status", "autoEntryStatus", "alpacaStatus", "brokerStatus", "closeReason", *MARKS)
_STATUSES = OPEN | PENDING | FINAL | {"ERROR", "FAILED"}
# By a name: the values that its words may mean, and those that it must have a word for.
_MEANINGS = {"status": (_STATUSES, ("OPEN", "CLOSED")), "side": ({"LONG", "SHORT"}, ("LONG", "SHORT"))}
_TELLS_THE_END = ("closedAt", "closeReason")  # every close writes them


class BadMapping(ValueError):
    """What is wrong with a mapping file, and on which line."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {why}" if line else why)
        self.line = line


def read_mapping(text: str) -> LedgerMapping:
    """The mapping that a TOML text describes; raises BadMapping."""
    import tomllib  # few ledgers have a mapping

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadMapping(f"it is no TOML: {error}") from None
    return _Reader(text, document).mapping()


class _Reader:
    """One file being read."""

    def __init__(self, text: str, document: Mapping[str, Any]) -> None:
        self._text = text
        self._document = document

    def mapping(self) -> LedgerMapping:
        for name in self._document:
            self._known(name, _TOP, name)
        names, said = self._table("fields"), self._table("values")
        fields = self._fields(names) if names else {}
        for name, rows in said.items():
            canonical = self._canonical(name, "values", name)
            if names and canonical not in fields:
                raise self._error(f"{name} has words and no name under [fields]", "values", name)
            fields[canonical] = self._with_words(fields.get(canonical, Field((name,))), canonical, name, rows)
        if not names:
            fields |= {name: self._timed(Field((name,))) for name in TIMES if self._is_timed()}
        extra = self._path(self._document["extra"], "extra") if "extra" in self._document else None
        self._apart(fields, extra)
        if names:
            self._enough(fields)
        return LedgerMapping(fields, tuple(self._filter(fields)), extra, whole=not names)

    # ------------------------------------------------------------------ fields

    def _fields(self, names: Mapping[str, Any]) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        said: dict[str, str] = {}
        for name, value in names.items():
            canonical = self._canonical(name, "fields", name)
            if canonical in fields:
                raise self._error(f"{said[canonical]} and {name} are one field; name it once", "fields", name)
            fields[canonical], said[canonical] = self._field(canonical, name, value), name
        if "id" not in fields and not any(field.path[0] == "id" for field in fields.values()):
            fields["id"] = Field(("id",))
        return fields

    def _canonical(self, name: str, *keys: str) -> str:
        canonical = SYNONYMS.get(name, name)
        if canonical not in NAMES:
            raise self._error(f"{name} is no field of a trade", *keys)
        return canonical

    def _field(self, canonical: str, name: str, value: Any) -> Field:
        line = self._line("fields", name)
        if not isinstance(value, Mapping):
            found = Field(self._path(value, "fields", name), line=line)
            return self._timed(found) if canonical in TIMES else found
        for key in value:
            self._known(key, _OF_A_FIELD, "fields", name)
        if ("null" in value) == ("name" in value):
            raise self._error(f"{name} needs a name (or null, for the status alone)", "fields", name)
        if "null" in value:
            if canonical != "status" or len(value) > 1:
                raise self._error("null is for the status, alone", "fields", name)
            return Field(self._path(value["null"], "fields", name), null=True, line=line)
        found = Field(self._path(value["name"], "fields", name), line=line)
        if value.get("signed", False) is not False:
            if canonical not in SIZES or value["signed"] is not True:
                raise self._error(f"signed = true is for sizes: {', '.join(SIZES)}", "fields", name)
            found = replace(found, signed=True)
        if canonical in TIMES:
            return self._timed(found, value, "fields", name)
        if "unit" in value or "zone" in value:
            raise self._error(f"unit and zone are for times: {', '.join(TIMES)}", "fields", name)
        return found

    def _is_timed(self) -> bool:
        return "unit" in self._document or "zone" in self._document

    def _timed(self, field: Field, own: Mapping[str, Any] | None = None, *keys: str) -> Field:
        """The field with its unit or zone; its own word counts before that of the whole file."""
        own = own or {}
        if "unit" in own and "zone" in own:
            raise self._error("an epoch has no zone; give unit or zone", *keys)
        if not own.keys() & {"unit", "zone"}:
            own, keys = self._document, ()
            if "unit" in own and "zone" in own:
                raise self._error("an epoch has no zone; give unit or zone", "zone")
        unit, zone = own.get("unit"), own.get("zone")
        if unit is not None and unit not in UNITS:
            raise self._error(f"unit must be one of {', '.join(UNITS)}", *(keys or ("unit",)))
        return replace(field, unit=unit, zone=self._zone(zone, *(keys or ("zone",))))

    def _zone(self, name: Any, *keys: str) -> ZoneInfo | None:
        if name is None:
            return None
        try:
            return ZoneInfo(name)
        except (KeyError, OSError, ValueError, TypeError, AttributeError):
            raise self._error(f"{name!r} is no time zone; write one such as America/New_York", *keys) from None

    def _path(self, value: Any, *keys: str) -> Path:
        path = tuple(value.split(".")) if isinstance(value, str) else ()
        if not path or not all(part and part == part.strip() for part in path):
            raise self._error(f"{keys[-1]} must be a name of the app's, dotted where it is nested", *keys)
        return path

    # ------------------------------------------------------------------ words

    def _with_words(self, field: Field, canonical: str, name: str, rows: Any) -> Field:
        if canonical not in _SPOKEN or field.null:
            raise self._error(f"{name} takes no words", "values", name)
        if not isinstance(rows, Mapping) or not rows:
            raise self._error(f'{name} must be a table of words, such as OPEN = ["open"]', "values", name)
        allowed, needed = _MEANINGS.get(canonical, (None, ()))
        words: dict[str, tuple[Any, ...]] = {}
        seen: dict[Any, str] = {}
        for meaning, said in rows.items():
            if allowed is not None and meaning not in allowed:
                raise self._error(f"{meaning} is no {canonical} of a trade", "values", name, meaning)
            words[meaning] = tuple(said) if isinstance(said, list) else (said,)
            for word in words[meaning]:
                self._word(word, "values", name, meaning)
                key = word.casefold() if isinstance(word, str) else (type(word).__name__, word)
                if seen.get(key, meaning) != meaning:
                    raise self._error(f"{word!r} means both {seen[key]} and {meaning}", "values", name, meaning)
                seen[key] = meaning
        for meaning in needed:
            if not words.get(meaning):
                raise self._error(f"{name} has no word for {meaning}", "values", name)
        return replace(field, values=words, strict=canonical in _MEANINGS)

    def _word(self, value: Any, *keys: str) -> None:
        if isinstance(value, list | dict | date | time) or value == "":
            raise self._error("a word is a text, a number or true/false", *keys)

    # ------------------------------------------------------------------ rows

    def _filter(self, fields: Mapping[str, Field]) -> Iterator[Only]:
        written: dict[Path, str] = (
            {(name,): name for name in (*WRITTEN, *SIZE_FIELDS)} if not self._document.get("fields") else {}
        )
        written |= {field.path: name for name, field in fields.items() if name in WRITTEN}
        for name, value in self._table("filter").items():
            path = self._path(name, "filter", name)
            if path in written:
                why = f"{name} is {written[path]}, which runs change: a closed trade would leave the ledger"
                raise self._error(why, "filter", name)
            values = tuple(value) if isinstance(value, list) else (value,)
            if not values:
                raise self._error(f"{name} lets no record through", "filter", name)
            for word in values:
                self._word(word, "filter", name)
            yield Only(path, values)

    # ------------------------------------------------------------------ all of it

    def _apart(self, fields: Mapping[str, Field], extra: Path | None) -> None:
        """No name of the app's twice, and none inside another."""
        taken: list[tuple[Path, str]] = [(extra, "extra")] if extra is not None else []
        for name, field in fields.items():
            for path, other in taken:
                short = min(len(path), len(field.path))
                if path[:short] == field.path[:short] and not (path == field.path and self._tells(fields, name, other)):
                    why = f"{'.'.join(field.path)} is both {other} and {name}"
                    raise BadMapping(why, field.line)
            taken.append((field.path, name))

    def _tells(self, fields: Mapping[str, Field], *names: str) -> bool:
        """Whether one field is null while a trade is open and the other is what its end writes there."""
        return any(n in fields and fields[n].null for n in names) and any(n in _TELLS_THE_END for n in names)

    def _enough(self, fields: Mapping[str, Field]) -> None:
        for name, why in (("ticker", "what is traded"), ("status", "which trades are open")):
            if name not in fields:
                raise self._error(f"{name} is missing: nothing tells {why}", "fields")
        status = fields["status"]
        ends = [name for name in _TELLS_THE_END if name in fields and fields[name].path == status.path]
        if status.null and not ends:
            why = f"{'.'.join(status.path)} must be closedAt or closeReason too, or a close could not be told"
            raise BadMapping(why, status.line)

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self._document.get(name, {})
        if not isinstance(table, Mapping):
            raise self._error(f"{name} must be a table", name)
        return table

    def _known(self, name: str, known: tuple[str, ...], *keys: str) -> None:
        if name not in known:
            raise self._error(f"{name} is not known here; known are {', '.join(known)}", *keys)

    def _error(self, why: str, *keys: str) -> BadMapping:
        return BadMapping(why, self._line(*keys))

    def _line(self, *keys: str) -> int | None:
        """Where the first statement stands that says something about these keys."""
        import tomllib

        lines, start = self._text.splitlines(), 1
        for number in range(1, len(lines) + 1):
            try:
                value: Any = tomllib.loads("\n".join(lines[:number]) + "\n")
            except tomllib.TOMLDecodeError:  # in the middle of a statement
                continue
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return start
            start = number + 1
        return None
