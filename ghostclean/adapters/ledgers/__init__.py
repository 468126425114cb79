"""The layouts of a ledger: a JSON file, a Redis string, a Redis hash.

The module named like a place's kind has an `open_ledger` of its own: a new layout is a new module
here, and its kind in `ghostclean.places`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ghostclean.app.ports import Ledger
from ghostclean.places import Place


def open_ledger(place: Place, **options: Any) -> Ledger:
    """The ledger of that place; nothing is connected yet.

    `options`, of which each layout takes what concerns it: `seen_before` tells whether an earlier run
    has read the ledger, `full_scan` whether the app's own index must not be trusted now, `server` gives
    the Redis of a URL, and `new_layout` says what an empty place is to become.
    """
    ledger: Ledger = import_module(f"{__name__}.{place.kind}").open_ledger(place, **options)
    return ledger
