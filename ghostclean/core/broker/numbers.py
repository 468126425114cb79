"""Decimal numbers from whatever the ledger or the broker wrote, and their spelling in JSON."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

ZERO = Decimal(0)
ONE = Decimal(1)
CENT = Decimal("0.01")
BASIS_POINT = Decimal("0.0001")
_MOST_DIGITS = 30


class BadNumber(ValueError):
    """A field holds something that is no finite number."""


def number(value: object) -> Decimal | None:
    """The exact Decimal of a JSON number or numeric string; None for null and blank.

    Raises BadNumber for booleans, containers, words, NaN, infinities and sizes that no amount has.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    result = _decimal(value)
    if not result.is_finite():
        raise BadNumber(f"{value!s:.40} is no finite number")
    if _is_huge(result):
        raise BadNumber(f"{result:.6E} is no amount of anything")
    return result


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool):
        raise BadNumber("a true/false where a number belongs")
    if isinstance(value, Decimal | int):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value))
    if not isinstance(value, str):
        raise BadNumber(f"a {type(value).__name__} where a number belongs")
    try:
        return Decimal(value.strip())
    except InvalidOperation:
        raise BadNumber(f"{value.strip()[:40]!r} is no number") from None


def _is_huge(value: Decimal) -> bool:
    return bool(value) and abs(value.adjusted()) > _MOST_DIGITS


def money(value: Decimal) -> Decimal:
    """Rounded to cents, half up."""
    return value.quantize(CENT, ROUND_HALF_UP)


def ratio4(value: Decimal) -> Decimal:
    """Rounded to four decimals, half up: the precision of R."""
    return value.quantize(BASIS_POINT, ROUND_HALF_UP)


def plain(value: Decimal) -> str:
    """The shortest plain spelling: no exponent, no trailing zeros (`187.4`, `10`, `0.00001`).

    A size that no amount has keeps its exponent.
    """
    if not value:
        return "0"
    if _is_huge(value):
        return str(value)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def json_number(value: Decimal) -> int | float | str:
    """The JSON number outside for a Decimal inside; as text where no reader could hold it."""
    if _is_huge(value):
        return str(value)
    return int(value) if value == value.to_integral_value() else float(value)
