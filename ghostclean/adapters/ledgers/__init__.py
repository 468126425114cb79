"""The layouts of a ledger: a JSON file, a Redis string, a Redis hash.

The module named like a place's kind has an `open_ledger` of its own: a new layout is a new module
here, and its kind in `ghostclean.places`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ghostclean.app.ports import Ledger
from ghostclean.places import Place


def open_ledger(
    place: Place,
    *,
    seen_before: Callable[[], bool] = lambda: False,
    full_scan: Callable[[], bool] = lambda: True,
    **options: Any,
) -> Ledger:
    """The ledger of that place; nothing is connected yet.

    `seen_before` tells whether an earlier run has read it, `full_scan` whether the app's own index is
    to be trusted. `options` are for the layout: `server`, which gives the connection of a URL, and
    `new_layout`, what an empty place becomes.
    """
    module = import_module(f"{__name__}.{place.kind}")
    ledger: Ledger = module.open_ledger(place, seen_before=seen_before, full_scan=full_scan, **options)
    return ledger
