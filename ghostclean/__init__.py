"""ghostclean reconciles a trading bot's own list of trades with what the broker holds.

`reconcile()` is one run, the same that the command line makes; it is safe to call from threads
and through `asyncio.to_thread`, keeps no global state and prints nothing.
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
