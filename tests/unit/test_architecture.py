"""The map in docs/architecture.md is the house: every arrow is an import, every name a place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.program import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "ghostclean"
UNIT = Path(__file__).parent
ARROWS = re.findall(r"^(\S+) +-> (\S+)", PAGE, flags=re.MULTILINE)
CORE = ("broker", "ledger", "allocation", "verdicts")


def source(place: str) -> list[Path]:
    """The files of a place: a module, or all of a package."""
    module = PACKAGE / f"{place}.py"
    return [module] if module.exists() else sorted((PACKAGE / place).glob("*.py"))


def imported(path: Path) -> set[str]:
    """The places that a file imports, as the map names them."""
    found: set[str] = set()
    inside = path.relative_to(PACKAGE).parent.as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = (node.module or "").removeprefix("ghostclean").strip(".").replace(".", "/")
            base = f"{inside}/{base}".strip("/") if node.level else base
            found |= {base, *(f"{base}/{alias.name}".strip("/") for alias in node.names)}
    return found


def test_the_map_has_both_ways() -> None:
    assert {left for left, _ in ARROWS} >= {"app/reconcile", "app/auto_manage", "core/allocation/books"}
    assert len(ARROWS) > 25


@pytest.mark.parametrize(("left", "right"), ARROWS)
def test_every_arrow_is_an_import(left: str, right: str) -> None:
    assert source(left), f"{left} is no place"
    assert source(right), f"{right} is no place"
    assert any(right in imported(path) for path in source(left)), f"{left} does not import {right}"


def test_every_path_on_the_page_exists() -> None:
    for name in re.findall(r"`((?:app|core|adapters)/[a-z_/]+(?:\.py)?)`", PAGE):
        assert (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists(), name


@pytest.mark.parametrize("package", CORE)
def test_the_packages_of_the_core_stand_one_above_the_other(package: str) -> None:
    above = {f"core/{name}" for name in (*CORE[CORE.index(package) + 1 :], "safety", "protection")}
    for path in source(f"core/{package}"):
        seen = {"/".join(place.split("/")[:2]) for place in imported(path)}
        assert not seen & above, f"{path.name} looks up to {seen & above}"


def test_the_tests_of_the_units_stand_as_the_house_does() -> None:
    packages = {path.parent.relative_to(UNIT) for path in UNIT.rglob("test_*.py")}
    assert len(packages) > 10
    assert not [package for package in packages if not (PACKAGE / package).is_dir()]
