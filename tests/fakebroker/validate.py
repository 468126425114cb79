"""Check answers against Alpaca's official OpenAPI document, of which `spec/` keeps the parts in use.

`python -m tests.fakebroker.validate trading-api.json` writes that copy anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from jsonschema import Draft202012Validator, FormatChecker

from .shapes import Row

SPEC = Path(__file__).parent / "spec" / "trading-api.json"
PATHS = (
    "/v2/account",
    "/v2/account/activities",
    "/v2/account/activities/{activity_type}",
    "/v2/positions",
    "/v2/positions/{symbol_or_asset_id}",
    "/v2/orders",
    "/v2/orders/{order_id}",
    "/v2/orders:by_client_order_id",
    "/v2/clock",
    "/v2/calendar",
    "/v2/assets/{symbol_or_asset_id}",
)
KEPT = frozenset(
    {"type", "properties", "items", "required", "enum", "format", "anyOf", "oneOf", "allOf", "$ref"}
    | {"minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"}
)
UNDOCUMENTED = {"exchange": ("CRYPTO",)} | dict.fromkeys(("symbol", "side", "asset_id", "asset_class", "type"), ("",))
"""Values the service sends, blanks of mleg orders among them, that the document's schemas leave out."""

FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    """Activities carry plain dates under this format, so both are taken."""
    return not isinstance(value, str) or bool(datetime.fromisoformat(value))


@FORMATS.checks("uuid", raises=ValueError)
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or bool(UUID(value))


def trim(source: Row) -> Row:
    """Keep the answers of our paths and the schemas they use, as plain JSON Schema."""
    answers = {
        path: {
            verb: {
                status: _plain(response["content"]["application/json"]["schema"])
                for status, response in operation["responses"].items()
                if "content" in response
            }
            for verb, operation in source["paths"][path].items()
            if verb in ("get", "post", "patch", "delete")
        }
        for path in PATHS
    }
    schemas: Row = {}
    wanted = [*_references(answers), "Error"]
    while wanted:
        name = wanted.pop()
        if name not in schemas:
            schemas[name] = _plain(source["components"]["schemas"][name], name)
            wanted += _references(schemas[name])
    return {"version": source["info"]["version"], "answers": answers, "schemas": dict(sorted(schemas.items()))}


def _plain(schema: Any, name: str = "") -> Any:
    """Drop prose, and say `nullable` in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_plain(part, name) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: _plain(v, k) for k, v in schema.items() if k in KEPT and k != "properties"}
    if "properties" in schema:
        kept["properties"] = {k: _plain(v, k) for k, v in schema["properties"].items()}
    if "oneOf" in kept:
        # A fill satisfies both kinds of activity, so "exactly one" can never hold.
        kept["anyOf"] = kept.pop("oneOf")
    if schema.get("nullable"):
        kept["type"] = [kept["type"], "null"]
    return kept


def _references(part: Any) -> Iterator[str]:
    return iter(re.findall(r"#/components/schemas/([\w.]+)", json.dumps(part)))


@lru_cache(maxsize=1)
def _spec() -> Row:
    spec: Row = json.loads(SPEC.read_text(encoding="utf-8"))
    return spec


@lru_cache(maxsize=64)
def _validator(path: str, verb: str, status: str) -> Draft202012Validator | None:
    schema = _spec()["answers"][path][verb].get(status)
    if schema is None:
        return None
    document = schema | {"components": {"schemas": _spec()["schemas"]}}
    return Draft202012Validator(document, format_checker=FORMATS)


@lru_cache(maxsize=1)
def _error_validator() -> Draft202012Validator:
    return Draft202012Validator(_spec()["schemas"]["Error"])


def template(path: str) -> str | None:
    """Return the documented path a concrete one belongs to, the literal ones first."""
    for known in sorted(PATHS, key=lambda p: p.count("{")):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path):
            return known
    return None


def problems(method: str, path: str, status: int, payload: Any) -> list[str]:
    """Say in what an answer differs from the document; raises LookupError for an undocumented path."""
    known = template(path)
    if known is None:
        raise LookupError(f"{path} is not in the document")
    validator = _error_validator() if status >= 400 else _validator(known, method.lower(), str(status))
    if validator is None:
        return [] if payload is None else [f"{method} {path} answers {status} without a body"]
    return [
        f"{method} {path} {error.json_path}: {error.message}"
        for error in validator.iter_errors(payload)
        if error.instance not in UNDOCUMENTED.get(str(error.path[-1]) if error.path else "", ())
    ]


if __name__ == "__main__":
    trimmed = trim(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    SPEC.write_text(json.dumps(trimmed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
