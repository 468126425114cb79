"""The layouts of a ledger: each is a module named like its kind in `ghostclean.places`, with an `open_ledger`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ghostclean.app.ports import Ledger
from ghostclean.places import Place


def open_ledger(place: Place, **options: Any) -> Ledger:
    """The ledger of that place, not connected yet; each layout takes the options that concern it.

    `mapping`: the app's own names. `state`: keeps what they have no place for. `seen_before`: an earlier run has
    read it. `full_scan`: the app's index must not be trusted. `server`: the Redis of a URL. `new_layout`: what an
    empty place becomes.
    """
    ledger: Ledger = import_module(f"{__name__}.{place.kind}").open_ledger(place, **options)
    return ledger
