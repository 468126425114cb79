"""Reconciles a trading bot's ledger with what the broker holds.

`reconcile()` is one run: thread-safe, without global state, printing nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["BadSettings", "Result", "Settings", "__version__", "reconcile"]

if TYPE_CHECKING:
    from ghostclean.api import reconcile
    from ghostclean.errors import BadSettings
    from ghostclean.result import Result
    from ghostclean.settings import Settings

_HOMES = {
    "BadSettings": "ghostclean.errors",
    "Result": "ghostclean.result",
    "Settings": "ghostclean.settings",
    "reconcile": "ghostclean.api",
}


def __getattr__(name: str) -> Any:
    """Public names load on first use, so `ghostclean --version` imports nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
