"""Alpaca: the HTTP transport, the mapping of its JSON, the `Broker` port over both."""

from collections.abc import Callable
from typing import Any

from ghostclean.adapters.alpaca.broker import AlpacaBroker
from ghostclean.places import Place

__all__ = ["AlpacaBroker"]


def open_broker(place: Place, *, access: Callable[[], dict[str, Any]]) -> AlpacaBroker:
    """Addresses and keys are asked for here alone: no other broker needs them."""
    del place
    return AlpacaBroker.connect(**access())
