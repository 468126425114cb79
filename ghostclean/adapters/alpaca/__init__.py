"""Alpaca: the HTTP transport, the mapping of its JSON, the `Broker` port over both, snapshots."""

from ghostclean.adapters.alpaca.broker import AlpacaBroker

__all__ = ["AlpacaBroker"]
