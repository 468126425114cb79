"""Killed, failing and competing runs of the real program against real servers."""
